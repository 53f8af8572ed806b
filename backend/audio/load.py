# SPDX-License-Identifier: GPL-3.0-or-later
"""A stretch of a sound or video file as 16 kHz mono samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from backend.audio.decode import decode, quoted
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import Cancelled, UserError

Samples = NDArray[np.float32]
MIN_SECONDS: Final = 0.1
MAX_SECONDS: Final = 4 * 3600.0


class SoundWarning(StrEnum):
    """What may be wrong with a sound; the value is a sentence for the user."""

    SILENT = "The sound is silent. Choose another one, another part of it, or raise its volume."
    QUIET = "The sound is very quiet; the lips may move little."
    CLIPPED = "The sound is clipped; turn its recording level down for better lips."
    CANCELS_OUT = "The channels cancel each other out, so the first one alone is used."


@dataclass(frozen=True, slots=True)
class Sound:
    """A stretch of a sound file.

    Attributes:
        samples: Mono, shape ``(n,)``, full scale 1.0, times the gain asked for.
        sample_rate_hz: Always ``SAMPLE_RATE_HZ``.
        warnings: What may be wrong with the sound.
    """

    samples: Samples
    sample_rate_hz: int
    warnings: tuple[SoundWarning, ...]

    @property
    def seconds(self) -> float:
        """Length of the stretch in seconds."""
        return len(self.samples) / self.sample_rate_hz


def read_sound(
    path: Path | str,
    *,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    gain: float = 1.0,
    is_cancelled: Callable[[], bool] | None = None,
) -> Sound:
    """A stretch of a sound or video file, mixed to mono, at 16 kHz.

    Decoded, mixed and resampled block by block, so that memory is that of the result (230 MB an
    hour). What libsndfile cannot read_sound is read_sound through PyAV (FFmpeg), local files only.

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
    warnings = [SoundWarning.CLIPPED] if mixed.is_clipped else []
    if cancels_out:
        warnings.append(SoundWarning.CANCELS_OUT)
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


def _level_warnings(samples: Samples) -> list[SoundWarning]:
    """Warnings about the loudest 0.1 s."""
    size = SAMPLE_RATE_HZ // 10
    starts = np.arange(0, len(samples), size)
    power = np.add.reduceat(np.square(samples), starts) / size
    loudest = float(power.max())
    if loudest < 1e-7:
        return [SoundWarning.SILENT]
    return [SoundWarning.QUIET] if loudest < 1e-5 else []


def resample(
    samples: Samples, sample_rate_hz: int, target_rate_hz: int = SAMPLE_RATE_HZ
) -> Samples:
    """``samples`` at another rate, with the time of the first sample kept."""
    if sample_rate_hz == target_rate_hz:
        return np.asarray(samples, np.float32)
    converted = soxr.resample(np.asarray(samples, np.float32), sample_rate_hz, target_rate_hz)
    return np.asarray(converted, np.float32)
