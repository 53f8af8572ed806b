# SPDX-License-Identifier: GPL-3.0-or-later
"""Augmentation of samples: paces, rooms, lines and noises, for encoders that take waveforms.

``augment_features.py`` does the like in log-mel power at a tenth of the cost.
"""

from functools import cache
from typing import Final

import numpy as np
import scipy.signal
import soxr
from numpy.typing import NDArray

from backend.audio.degradations import Samples, mixed, noise
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.data.speech.augment_features import piece_of_music

_PACES: Final = (0.85, 1.15)
_PACED_SHARE: Final = 0.5
_NOISE_SHARE: Final = 0.5
_ROOM_SHARE: Final = 0.25
_LINE_SHARE: Final = 0.2
_PIECES: Final = 24
_PIECE_SECONDS: Final = 8.0


def at_pace(samples: Samples, rng: np.random.Generator) -> tuple[Samples, float]:
    """Resampled speech, faster and higher or slower and lower; or unchanged speech.

    Args:
        samples: Speech, shape ``(n,)``.
        rng: Source of randomness.

    Returns:
        The resampled speech, and the factor by which its times are to be multiplied.
    """
    if rng.random() >= _PACED_SHARE:
        return samples, 1.0
    stretch = float(rng.uniform(*_PACES))
    return soxr.resample(samples, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * stretch), stretch


def augment(samples: Samples, other: Samples, rng: np.random.Generator) -> Samples:
    """Speech with random noise, reverberation and band limits; its times are kept.

    Args:
        samples: Speech, shape ``(n,)``.
        other: Other speech of any length, which may be mixed in.
        rng: Source of randomness; decides what is done and how strongly.

    Returns:
        The augmented speech, shape ``(n,)``.
    """
    augmented = samples
    if rng.random() < _ROOM_SHARE:
        augmented = _in_a_room(augmented, rng)
    if rng.random() < _NOISE_SHARE:
        is_voice = rng.random() < 0.3
        voice = np.resize(np.roll(other, int(rng.integers(len(other)))), len(augmented))
        under = voice if is_voice else no_speech(len(augmented), rng)
        augmented = mixed(augmented, under, float(rng.uniform(5.0 if is_voice else 0.0, 25.0)))
    if rng.random() < _LINE_SHARE:
        augmented = _through_a_line(augmented, rng)
    return augmented


def no_speech(length: int, rng: np.random.Generator) -> Samples:
    """Audio without speech: noise, or one time in four music."""
    if rng.random() < 0.25:
        pieces = _pieces()
        piece = pieces[int(rng.integers(len(pieces)))]
        return np.resize(np.roll(piece, int(rng.integers(len(piece)))), length)
    return noise(length, rng, exponent=float(rng.uniform(-0.5, 2.0)))


def _in_a_room(samples: Samples, rng: np.random.Generator) -> Samples:
    """A tail of noise that decays exponentially, weaker than the direct sound or as strong."""
    decay = rng.uniform(0.1, 0.7)  # seconds to -60 dB
    length = int(decay * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(length) * 10.0 ** (-3.0 * np.arange(length) / length)
    tail *= rng.uniform(0.2, 1.0) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return _f32(scipy.signal.fftconvolve(samples, tail)[: len(samples)])


def _through_a_line(samples: Samples, rng: np.random.Generator) -> Samples:
    """A telephone, a cheap microphone or a codec: the ends of the spectrum are missing."""
    band = (rng.uniform(60.0, 400.0), rng.uniform(2800.0, 7500.0))
    line = scipy.signal.butter(2, band, "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    return _f32(scipy.signal.sosfilt(line, samples))


@cache
def _pieces() -> list[Samples]:
    rng = np.random.default_rng(2)
    return [_f32(piece_of_music(_PIECE_SECONDS, rng)) for _ in range(_PIECES)]


def _f32(samples: NDArray[np.floating]) -> Samples:
    return np.asarray(samples, np.float32)
