# SPDX-License-Identifier: GPL-3.0-or-later
"""Log-mel features of sound, and their normalisation.

Timing: feature frame ``j`` at 50 Hz belongs to the time ``j / 50`` s. It stacks two windows of
25 ms whose centres lie 5 ms before and 5 ms after that time, so that it neither leads nor lags.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from backend.audio.load import Samples
from backend.audio.rates import SAMPLE_RATE_HZ

NUM_MELS: Final = 80
NUM_FEATURES: Final = 2 * NUM_MELS
_HOP: Final = SAMPLE_RATE_HZ // 100
_WINDOW: Final = SAMPLE_RATE_HZ // 40
_FFT: Final = 1024  # twice the window: at 512 the lowest mel bands would hold no bin
_MEL_HZ: Final = (60.0, 7800.0)
_POWER_FLOOR: Final = 1e-12
_BLOCK_FRAMES: Final = 2048
_BANDS_AT_ONCE: Final = 16
_HALF_WINDOW: Final = 300
_PRIOR_FRAMES: Final = 100.0
_SILENCE_ENERGY: Final = -16.0
"""Logarithm of the power of sound at about -70 dBFS."""
_SPEECH_ENERGY: Final = -4.4
"""Logarithm of the power of speech in an average recording."""


def num_feature_frames(num_samples: int) -> int:
    """Number of 50 Hz frames whose times lie within ``num_samples`` of 16 kHz sound."""
    return -(-num_samples // (2 * _HOP))


def log_mel(samples: Samples) -> NDArray[np.float32]:
    """Normalised log-mel features at 100 Hz.

    80 mel bands of the power in Hann windows of 25 ms, natural logarithm, normalised by
    `normalise`. Frame ``k`` is centred at ``(k - 0.5) * 10 ms``.

    Args:
        samples: Mono sound at 16 kHz, shape ``(n,)``.

    Returns:
        Features of shape ``(2 * num_feature_frames(n), 80)``, about -4 (silence) to 3.
    """
    return normalise(log_mel_power(samples))


def stacked_log_mel(samples: Samples) -> NDArray[np.float32]:
    """`log_mel` with two frames stacked: shape ``(num_feature_frames(n), 160)`` at 50 Hz."""
    return log_mel(samples).reshape(-1, NUM_FEATURES)


def log_mel_power(samples: Samples) -> NDArray[np.float32]:
    """Natural logarithm of the power in mel bands at 100 Hz, shape ``(frames, 80)``."""
    num_frames = 2 * num_feature_frames(len(samples))
    before = _WINDOW // 2 + _HOP // 2
    after = max(0, num_frames * _HOP + _WINDOW - before - len(samples))
    padded = np.pad(np.asarray(samples, np.float32), (before, after))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    result = np.empty((num_frames, NUM_MELS), np.float32)
    taper = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    taper *= 2 / taper.sum()  # a full-scale sine has power 1
    for start in range(0, num_frames, _BLOCK_FRAMES):
        stop = min(start + _BLOCK_FRAMES, num_frames)
        spectrum = scipy.fft.rfft(windows[start:stop] * taper, _FFT)
        power = spectrum.real**2 + spectrum.imag**2
        result[start:stop] = np.log(power @ _mel_filters() + _POWER_FLOOR)
    return result


def normalise(log_mels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Takes level and recording channel out of log-mel features.

    From each band the mean over the active frames (within 26 dB of the loudest) of the 3 s before
    and after is subtracted. As short sound is weak evidence of the channel, the mean is drawn
    towards that of average speech of the same level, with the weight of one second. Sound below
    -70 dBFS counts as silence and is not amplified. A frame depends on the 6 s before and after it
    and on nothing else of the file, so an hour and a chunk of it with 6 s of margin give the same
    features (to float rounding).

    Compare the sliding-window cepstral mean normalisation of Kaldi (Povey et al. 2011).

    Args:
        log_mels: Log-mel power at 100 Hz, shape ``(frames, 80)``; not changed.

    Returns:
        Features of the same shape, about -4 (silence) to 3.
    """
    energy = np.log(np.exp(log_mels).sum(axis=1, dtype=np.float64))  # (frames,)
    loudest = maximum_filter1d(energy, 2 * _HALF_WINDOW + 1, mode="nearest")
    active = (energy > np.maximum(loudest - 6.0, _SILENCE_ENERGY)).astype(np.float64)
    count = _window_sums(active)
    level = _window_sums(energy * active) / np.maximum(count, 1.0)
    level = np.maximum(level, _SILENCE_ENERGY + 3.0)
    level[count == 0] = _SPEECH_ENERGY
    result = np.empty_like(log_mels)
    for first in range(0, NUM_MELS, _BANDS_AT_ONCE):  # in double precision an hour is large
        bands = slice(first, first + _BANDS_AT_ONCE)
        values = log_mels[:, bands].astype(np.float64)
        tilt = _speech_tilt()[bands]
        mean = _window_sums(values * active[:, None]) + _PRIOR_FRAMES * (level[:, None] + tilt)
        mean /= count[:, None] + _PRIOR_FRAMES
        np.maximum(mean, _SILENCE_ENERGY + tilt, out=mean)
        result[:, bands] = np.clip((values - mean) * 0.4, -4.0, 4.0)
    return result


def _window_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the frames within ``_HALF_WINDOW`` of each frame, along axis 0."""
    total = np.zeros((len(values) + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, out=total[1:])
    frames = np.arange(len(values))
    until = total[np.minimum(frames + _HALF_WINDOW + 1, len(values))]
    until -= total[np.maximum(frames - _HALF_WINDOW, 0)]
    return until


@cache
def _speech_tilt() -> NDArray[np.float64]:
    """Average log power of speech per band, less that of all bands together.

    Measured on the active frames of 150 recordings out of those of 242 speakers (speechocean762),
    to within 0.5; the recordings differ among themselves by 1 to 2.
    """
    bands = [0, 4, 6, 10, 13, 24, 36, 60, 79]
    values = [-8.8, -4.9, -3.7, -5.3, -4.5, -7.2, -8.6, -9.2, -11.0]
    return np.interp(np.arange(NUM_MELS), bands, values)


@cache
def _mel_filters() -> NDArray[np.float32]:
    """Triangles of height 1 on the mel scale of HTK, shape ``(FFT bins, 80)``."""
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in _MEL_HZ)
    edges = 700.0 * (10.0 ** (np.linspace(low, high, NUM_MELS + 2) / 2595.0) - 1.0)
    bins = np.arange(_FFT // 2 + 1)[:, None] * (SAMPLE_RATE_HZ / _FFT)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
