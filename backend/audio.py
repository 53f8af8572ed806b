# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound in: any file to 16 kHz mono samples, and samples to log-mel features.

The clock: feature frame ``j`` at 50 Hz belongs to the time ``j / 50`` s. It stacks two windows of
25 ms whose centres lie 5 ms before and 5 ms after that time, so that it neither leads nor lags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import scipy.fft
import soxr
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from backend.decoding import decode, quoted
from backend.errors import Cancelled, UserError

Samples = NDArray[np.float32]

SAMPLE_RATE_HZ: Final = 16_000
FEATURE_RATE_HZ: Final = 50
NUM_MELS: Final = 80
NUM_FEATURES: Final = 2 * NUM_MELS
MIN_SECONDS: Final = 0.1
MAX_SECONDS: Final = 4 * 3600.0

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
"""That of speech in an average recording."""

_CLIPPED: Final = "The sound is clipped; turn its recording level down for better lips."
SILENT: Final = "The sound is silent. Choose another one, another part of it, or raise its volume."
_QUIET: Final = "The sound is very quiet; the lips may move little."


@dataclass(frozen=True, slots=True)
class Sound:
    """A stretch of a sound file.

    Attributes:
        samples: Mono, shape ``(n,)``, full scale 1.0, times the gain asked for.
        sample_rate_hz: Always ``SAMPLE_RATE_HZ``.
        warnings: Sentences for the user: silent, quiet, clipped, channels that cancel out.
    """

    samples: Samples
    sample_rate_hz: int
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Length of the stretch in seconds."""
        return len(self.samples) / self.sample_rate_hz


def read(
    path: Path | str,
    *,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    gain: float = 1.0,
    is_cancelled: Callable[[], bool] | None = None,
) -> Sound:
    """A stretch of a sound or video file, mixed to mono, at 16 kHz.

    Decoded, mixed and resampled block by block, so that memory is that of the result (230 MB an
    hour). What libsndfile cannot read is read through PyAV (FFmpeg), local files only.

    Args:
        path: The file.
        start_seconds: Start of the stretch in the file, 0 or more.
        duration_seconds: Its length; None or too long means up to the file's end.
        gain: Linear volume.
        is_cancelled: Asked between blocks.

    Raises:
        UserError: Missing, unreadable or empty file, NaN samples, or a stretch outside the file,
            shorter than ``MIN_SECONDS`` or longer than ``MAX_SECONDS``.
        Cancelled: ``is_cancelled`` said so.
    """
    path = Path(path)
    _check_stretch(start_seconds, duration_seconds, gain)
    _check_file(path)
    wanted = MAX_SECONDS + 1.0 if duration_seconds is None else duration_seconds
    wanted = min(wanted, MAX_SECONDS + 1.0)

    def blocks() -> Iterator[tuple[Samples, int]]:
        for block, rate in decode(path, start_seconds, wanted):
            if is_cancelled is not None and is_cancelled():
                raise Cancelled
            yield block, rate

    mixed = _mix(blocks(), channel=None)
    cancels_out = mixed.power < 0.01 * mixed.channel_power
    if cancels_out:
        mixed = _mix(blocks(), channel=0)
    _check_length(path, mixed, start_seconds)
    samples = mixed.samples
    if gain != 1.0:
        samples = samples * np.float32(gain)
    warnings = [_CLIPPED] if mixed.is_clipped else []
    if cancels_out:
        warnings.append("The channels cancel each other out, so the first one alone is used.")
    return Sound(samples, SAMPLE_RATE_HZ, (*_level_warnings(samples), *warnings))


@dataclass(frozen=True, slots=True)
class _Mixed:
    samples: Samples
    power: float
    channel_power: float
    is_clipped: bool


def _mix(blocks: Iterator[tuple[Samples, int]], *, channel: int | None) -> _Mixed:
    """Blocks of shape (n, channels) as one mono sound at 16 kHz.

    Args:
        blocks: Samples and their rate in Hz, the same for all.
        channel: The one to use; None mixes all in equal parts.
    """
    parts: list[Samples] = []
    stream: soxr.ResampleStream | None = None
    power = channel_power = 0.0
    num_samples = num_clipped = 0
    for block, rate in blocks:
        if not np.isfinite(block).all():
            at = (num_samples + int(np.argmin(np.isfinite(block).all(axis=1)))) / rate
            raise UserError(
                f"The sound holds values that are not numbers, first at {at:.3f} s of the part "
                "used. Export it again."
            )
        mono = block.mean(axis=1) if channel is None else block[:, channel]
        num_samples += len(block)
        power += float(np.square(mono, dtype=np.float64).sum())
        channel_power += float(np.square(block, dtype=np.float64).mean(axis=1).sum())
        hot = np.abs(block) >= 0.999
        num_clipped += int((hot[2:] & hot[1:-1] & hot[:-2]).any(axis=1).sum())
        if rate != SAMPLE_RATE_HZ and stream is None:
            stream = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")
        parts.append(mono if stream is None else stream.resample_chunk(mono))
    if stream is not None:
        parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return _Mixed(samples, power, channel_power, num_clipped > 1e-3 * max(num_samples, 1))


def _check_stretch(start_seconds: float, duration_seconds: float | None, gain: float) -> None:
    if not (np.isfinite(start_seconds) and start_seconds >= 0):
        raise UserError(f"The start is {start_seconds} s; it must be 0 or more.")
    if duration_seconds is not None and not duration_seconds > 0:
        raise UserError(f"The length is {duration_seconds} s; it must be above 0.")
    if not (np.isfinite(gain) and 0 <= gain <= 1000):
        raise UserError(f"The volume is {gain}; it must be 0 to 1000.")


def _check_file(path: Path) -> None:
    if "\0" in str(path) or not path.exists():
        raise UserError(f"The sound file {quoted(path)} does not exist. Choose another one.")
    if not path.is_file():
        raise UserError(f"{quoted(path)} is not a file. Choose a sound file.")
    if path.stat().st_size == 0:
        raise UserError(f"The sound file {quoted(path)} is empty (0 bytes). Export it again.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{quoted(path)} cannot be opened: {error.strerror}.") from error


def _check_length(path: Path, mixed: _Mixed, start_seconds: float) -> None:
    seconds = len(mixed.samples) / SAMPLE_RATE_HZ
    if seconds == 0 and start_seconds > 0:
        raise UserError(f"{quoted(path)} has no sound from {start_seconds:g} s on. Start earlier.")
    if seconds < MIN_SECONDS:
        raise UserError(
            f"The sound is {seconds:.3g} s long; at least {MIN_SECONDS} s is needed. Choose a "
            "longer sound."
        )
    if seconds > MAX_SECONDS:
        raise UserError(
            f"The sound is longer than {MAX_SECONDS / 3600:g} hours, the most that is animated at "
            "once. Give a start and an end."
        )


def _level_warnings(samples: Samples) -> list[str]:
    """Warnings about the loudest 0.1 s."""
    size = SAMPLE_RATE_HZ // 10
    starts = np.arange(0, len(samples), size)
    power = np.add.reduceat(np.square(samples), starts) / size
    loudest = float(power.max())
    if loudest < 1e-7:
        return [SILENT]
    return [_QUIET] if loudest < 1e-5 else []


def resample(
    samples: Samples, sample_rate_hz: int, target_rate_hz: int = SAMPLE_RATE_HZ
) -> Samples:
    """``samples`` at another rate, with the time of the first sample kept."""
    if sample_rate_hz == target_rate_hz:
        return np.asarray(samples, np.float32)
    converted = soxr.resample(np.asarray(samples, np.float32), sample_rate_hz, target_rate_hz)
    return np.asarray(converted, np.float32)


def num_feature_frames(num_samples: int) -> int:
    """Number of 50 Hz frames whose times lie within ``num_samples`` of 16 kHz sound."""
    return -(-num_samples // (2 * _HOP))


def log_mel(samples: Samples) -> NDArray[np.float32]:
    """Level-robust log-mel features at 100 Hz.

    80 mel bands of the power in Hann windows of 25 ms, natural logarithm, normalised by
    `normalise`. Frame ``k`` is centred at ``(k - 0.5) * 10 ms``.

    Args:
        samples: 16 kHz mono, shape ``(n,)``.

    Returns:
        Shape ``(2 * num_feature_frames(n), 80)``, about -4 (silence) to 3.
    """
    return normalise(log_power(samples))


def stacked_log_mel(samples: Samples) -> NDArray[np.float32]:
    """`log_mel` with two frames stacked: shape ``(num_feature_frames(n), 160)`` at 50 Hz."""
    return log_mel(samples).reshape(-1, NUM_FEATURES)


def log_power(samples: Samples) -> NDArray[np.float32]:
    """Natural logarithm of the power in mel bands at 100 Hz, shape ``(frames, 80)``, in blocks."""
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
    """Take level and recording channel out of log-mel features.

    From each band the mean over the active frames (within 26 dB of the loudest) of the 3 s before
    and after is subtracted. As short sound is weak evidence of the channel, the mean is drawn
    towards that of average speech of the same level, with the weight of one second. Sound below
    -70 dBFS counts as silence and is not amplified. A frame depends on the 6 s before and after it
    and on nothing else of the file, so an hour and a chunk of it with 6 s of margin give the same
    features (to float rounding).

    Compare the sliding-window cepstral mean normalisation of Kaldi (Povey et al. 2011).

    Args:
        log_mels: Shape ``(frames, 80)`` at 100 Hz. Not changed.

    Returns:
        Same shape, about -4 (silence) to 3.
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

    Measured on the active frames of 150 recordings of many speakers (``../shared/speech-train``),
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
