# SPDX-License-Identifier: GPL-3.0-or-later
"""A stretch of a sound or video file as 16 kHz mono samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from backend.audio.decode import open_sound, quoted
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import Cancelled, UserError

Samples = NDArray[np.float32]
MIN_SECONDS: Final = 0.1
MAX_SECONDS: Final = 4 * 3600.0
_CLIPPED: Final = "The sound is clipped; turn its recording level down for better lips."
SILENT: Final = "The sound is silent. Choose another one, another part of it, or raise its volume."
QUIET: Final = "The sound is very quiet; the lips may move little."
_TWO_SOURCES: Final = (
    "The left and the right channel hold different voices or sounds, and the head speaks both. "
    "Export one channel alone to animate one of them."
)
_NO_CURVE: Final = (
    "The volume over time is no list of pairs of seconds and volume in order of time."
)
_FADED_AT_ONCE: Final = 1 << 20
_SILENT_POWER: Final = 1e-7
_QUIET_POWER: Final = 1e-5
_LARGEST_VALUE: Final = 1e4
_NO_LEVEL_DB: Final = -120.0
_MOST_TRACKS: Final = 8
_FAR_LOUDER_DB: Final = 30.0
# When two channels hold different sources: tenths of a second within 30 dB of the loud ones in
# which one channel is 10 dB above the other, for each channel at least half a second and 15 %.
_HEARD_DB: Final = 30.0
_ALONE_DB: Final = 10.0
_ALONE_TENTHS: Final = 5
_ALONE_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True)
class Sound:
    """A stretch of a sound file.

    Attributes:
        samples: The stretch with what was read to either side of it; mono, shape ``(n,)``, full
            scale 1.0, times the gain asked for.
        sample_rate_hz: Always ``SAMPLE_RATE_HZ``.
        warnings: Sentences for the user: silent, quiet, clipped, which track or channel was used,
            what was met while decoding.
        lead_samples: How many samples lie before the stretch.
        tail_samples: How many samples lie after it.
    """

    samples: Samples
    sample_rate_hz: int
    warnings: tuple[str, ...]
    lead_samples: int = 0
    tail_samples: int = 0

    @property
    def stretch(self) -> Samples:
        """The samples of the stretch alone."""
        return self.samples[self.lead_samples : len(self.samples) - self.tail_samples]

    @property
    def seconds(self) -> float:
        """Length of the stretch in seconds."""
        return len(self.stretch) / self.sample_rate_hz

    @property
    def lead_seconds(self) -> float:
        """Length of what lies before the stretch in seconds."""
        return self.lead_samples / self.sample_rate_hz

    @property
    def is_silent(self) -> bool:
        """Whether nothing can be heard in the stretch."""
        return _loudest_power(self.stretch) < _SILENT_POWER


def read_sound(
    path: Path | str,
    *,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    gain: float = 1.0,
    fade: Sequence[Sequence[float]] = (),
    margin_seconds: float = 0.0,
    is_cancelled: Callable[[], bool] | None = None,
) -> Sound:
    """A stretch of a sound or video file, mixed to mono, at 16 kHz, timed as Blender plays it.

    Decoded, mixed and resampled block by block, so that memory is that of the result (230 MB an
    hour; twice that for a file of several audio tracks). Of several tracks the first is used, as in
    Blender, unless another one is far louder.

    Args:
        path: The file.
        start_seconds: Start of the stretch in the file, 0 or more.
        duration_seconds: Its length; None or too long means up to the file's end.
        gain: Linear volume.
        fade: Volume over time besides: pairs of seconds in the file and linear volume, in order of
            time, with straight lines between them.
        margin_seconds: How much is read to either side of the stretch, where the file has it: words
            that a cut breaks cannot be recognised.
        is_cancelled: Asked between blocks.

    Returns:
        The sound, with what the user is to be told about it.

    Raises:
        UserError: Missing, unreadable or empty file, values that are not sound, or a stretch
            outside the file, shorter than ``MIN_SECONDS`` or longer than ``MAX_SECONDS``.
        Cancelled: ``is_cancelled`` said so.
    """
    path = Path(path)
    _check_stretch(start_seconds, duration_seconds, gain)
    wanted = MAX_SECONDS + 1.0 if duration_seconds is None else duration_seconds
    lead_seconds = min(margin_seconds, start_seconds)
    from_seconds = start_seconds - lead_seconds
    wanted = lead_seconds + min(wanted, MAX_SECONDS + 1.0) + margin_seconds
    with open_sound(path, is_cancelled) as decoder:

        def mix(track: int, channel: int | None = None) -> _Mixed:
            def blocks() -> Iterator[tuple[Samples, int]]:
                for block, rate in decoder.blocks(from_seconds, wanted, track=track):
                    if is_cancelled is not None and is_cancelled():
                        raise Cancelled
                    yield block, rate

            return _mix(blocks(), channel=channel)

        track, mixed, warnings = _choose_track(decoder.num_tracks, mix)
        if mixed.power < 0.01 * mixed.channel_power:
            mixed = mix(track, channel=0)
            warnings.append("The channels cancel each other out, so the first one alone is used.")
        warnings += decoder.notes
    lead = min(round(lead_seconds * SAMPLE_RATE_HZ), len(mixed.samples))
    left = len(mixed.samples) - lead
    tail = 0 if duration_seconds is None else left - round(duration_seconds * SAMPLE_RATE_HZ)
    tail = max(tail, 0)
    _check_length(path, (left - tail) / SAMPLE_RATE_HZ, start_seconds)
    samples = _at_volume(mixed.samples, gain, fade, from_seconds)
    if mixed.has_two_sources:
        warnings.append(_TWO_SOURCES)
    clipped = [_CLIPPED] if mixed.is_clipped else []
    levels = _level_warnings(samples[lead : len(samples) - tail])
    return Sound(samples, SAMPLE_RATE_HZ, (*levels, *clipped, *warnings), lead, tail)


def _at_volume(
    samples: Samples, gain: float, fade: Sequence[Sequence[float]], from_seconds: float
) -> Samples:
    """Samples times a volume, and times one that changes over time.

    Args:
        samples: Shape ``(n,)``.
        gain: Linear volume.
        fade: Pairs of seconds in the file and linear volume.
        from_seconds: Time of the first sample in the file.

    Returns:
        The samples at that volume.

    Raises:
        UserError: The pairs are no curve over time.
    """
    if not fade:
        return samples if gain == 1.0 else samples * np.float32(gain)
    try:
        times, volumes = np.asarray(fade, np.float64).reshape(len(fade), 2).T
    except ValueError:
        raise UserError(_NO_CURVE) from None
    if not (np.isfinite(fade).all() and (np.diff(times) >= 0).all() and (volumes >= 0).all()):
        raise UserError(_NO_CURVE)
    louder = np.empty_like(samples)
    for first in range(0, len(samples), _FADED_AT_ONCE):
        part = samples[first : first + _FADED_AT_ONCE]
        at = from_seconds + (first + np.arange(len(part))) / SAMPLE_RATE_HZ
        louder[first : first + len(part)] = part * (gain * np.interp(at, times, volumes))
    return louder


def file_seconds(path: Path | str, is_cancelled: Callable[[], bool] | None = None) -> float:
    """Length of a file's first audio track, decoded to its end: headers are guesses.

    Args:
        path: The file.
        is_cancelled: Asked between blocks.

    Returns:
        Its length in seconds, at most a little more than ``MAX_SECONDS``.

    Raises:
        UserError: The file cannot be read.
        Cancelled: ``is_cancelled`` said so.
    """
    seconds = 0.0
    with open_sound(Path(path), is_cancelled) as decoder:
        for block, rate in decoder.blocks(0.0, MAX_SECONDS + 1.0, track=0):
            if is_cancelled is not None and is_cancelled():
                raise Cancelled
            seconds += len(block) / rate
    return seconds


def _choose_track(num_tracks: int, mix: Callable[[int], _Mixed]) -> tuple[int, _Mixed, list[str]]:
    """The first audio track, unless another one is far louder.

    Args:
        num_tracks: Number of audio tracks in the file.
        mix: Reads a track by its number.

    Returns:
        The track's number, its sound, and a sentence for the user where there was a choice.
    """
    chosen, mixed = 0, mix(0)
    loudest = mixed.level
    for track in range(1, min(num_tracks, _MOST_TRACKS)):
        other = mix(track)
        if other.level > loudest + _FAR_LOUDER_DB:
            chosen, mixed, loudest = track, other, other.level
    if num_tracks == 1:
        return chosen, mixed, []
    reason = "which is far louder than the first" if chosen else "as in Blender"
    return (
        chosen,
        mixed,
        [
            f"The file has {num_tracks} audio tracks; number {chosen + 1} is used, {reason}. "
            "Export the voice alone to use another one."
        ],
    )


@dataclass(frozen=True, slots=True)
class _Mixed:
    """One track of a file as mono sound at 16 kHz.

    Attributes:
        samples: Shape ``(n,)``.
        power: Sum of its squares, at the file's rate.
        channel_power: The same of its channels, averaged over them.
        level: Level of its louder parts in dB of full scale.
        is_clipped: Whether many samples stand at full scale.
        has_two_sources: Whether the left and the right channel are often heard alone.
    """

    samples: Samples
    power: float
    channel_power: float
    level: float
    is_clipped: bool
    has_two_sources: bool


def _mix(blocks: Iterator[tuple[Samples, int]], *, channel: int | None) -> _Mixed:
    """Blocks of shape (n, channels) as one mono sound at 16 kHz.

    Args:
        blocks: Samples and their rate in Hz, the same for all.
        channel: The one to use; None mixes all in equal parts.

    Returns:
        The sound and what is known of its channels.

    Raises:
        UserError: The values are not sound.
    """
    parts: list[Samples] = []
    stream: soxr.ResampleStream | None = None
    power = channel_power = 0.0
    num_samples = num_clipped = 0
    levels = _ChannelLevels()
    for block, rate in blocks:
        _check_values(block, num_samples, rate)
        mono = block.mean(axis=1) if channel is None else block[:, channel]
        num_samples += len(block)
        power += float(np.square(mono, dtype=np.float64).sum())
        channel_power += float(np.square(block, dtype=np.float64).mean(axis=1).sum())
        hot = np.abs(block) >= 0.999
        num_clipped += int((hot[2:] & hot[1:-1] & hot[:-2]).any(axis=1).sum())
        levels.add(block, rate)
        if rate != SAMPLE_RATE_HZ and stream is None:
            stream = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")
        parts.append(mono if stream is None else stream.resample_chunk(mono))
    if stream is not None:
        parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    is_clipped = num_clipped > 1e-3 * max(num_samples, 1)
    level, has_two_sources = levels.result()
    return _Mixed(samples, power, channel_power, level, is_clipped, has_two_sources)


class _ChannelLevels:
    """Gathers the power of every 0.1 s of every channel."""

    def __init__(self) -> None:
        self._rest: Samples | None = None
        self._powers: list[Samples] = []

    def add(self, block: Samples, rate: int) -> None:
        """Take the next samples, shape (n, channels)."""
        if self._rest is not None:
            block = np.concatenate([self._rest, block])
        size = rate // 10
        usable = len(block) // size * size
        frames = block[:usable].reshape(-1, size, block.shape[1])
        self._powers.append(np.square(frames).mean(axis=1))
        self._rest = block[usable:].copy()

    def result(self) -> tuple[float, bool]:
        """Level of the louder parts in dB, and whether two channels hold different sources."""
        powers = np.concatenate(self._powers) if self._powers else np.zeros((0, 1), np.float32)
        if not len(powers):
            return _NO_LEVEL_DB, False
        levels = 10.0 * np.log10(powers + 1e-12)  # (tenths of a second, channels)
        top = float(np.percentile(levels.max(axis=1), 95))
        if levels.shape[1] != 2:
            return top, False
        difference = np.diff(levels[levels.max(axis=1) > top - _HEARD_DB], axis=1)
        alone = [int((sign * difference > _ALONE_DB).sum()) for sign in (-1, 1)]
        return top, min(alone) > max(_ALONE_TENTHS, _ALONE_SHARE * len(difference))


def _check_stretch(start_seconds: float, duration_seconds: float | None, gain: float) -> None:
    if not (np.isfinite(start_seconds) and start_seconds >= 0):
        raise UserError(f"The start is {start_seconds} s; it must be 0 or more.")
    if duration_seconds is not None and not duration_seconds > 0:
        raise UserError(f"The length is {duration_seconds} s; it must be above 0.")
    if not (np.isfinite(gain) and 0 <= gain <= 1000):
        raise UserError(f"The volume is {gain}; it must be 0 to 1000.")


def _check_values(block: Samples, first: int, rate: int) -> None:
    """Refuse a block that is not sound.

    Args:
        block: Samples of shape (n, channels).
        first: Number of its first sample in the stretch.
        rate: Their rate in Hz.

    Raises:
        UserError: It holds NaN, infinity, or values far above full scale.
    """
    largest = float(np.abs(block).max(initial=0.0))
    if largest <= _LARGEST_VALUE:
        return
    if np.isfinite(largest):
        raise UserError(
            f"The sound holds values up to {largest:.3g}, where 1 is full scale. Export it again, "
            "normalised or as 16 bit."
        )
    at = (first + int(np.argmin(np.isfinite(block).all(axis=1)))) / rate
    raise UserError(
        f"The sound holds values that are not numbers, first at {at:.3f} s of the part "
        "used. Export it again."
    )


def _check_length(path: Path, seconds: float, start_seconds: float) -> None:
    if seconds <= 0 and start_seconds > 0:
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
    loudest = _loudest_power(samples)
    if loudest < _SILENT_POWER:
        return [SILENT]
    return [QUIET] if loudest < _QUIET_POWER else []


def _loudest_power(samples: Samples) -> float:
    """Power of the loudest 0.1 s."""
    size = SAMPLE_RATE_HZ // 10
    power = np.add.reduceat(np.square(samples), np.arange(0, len(samples), size)) / size
    return float(power.max())


def resample(
    samples: Samples, sample_rate_hz: int, target_rate_hz: int = SAMPLE_RATE_HZ
) -> Samples:
    """``samples`` at another rate, with the time of the first sample kept."""
    if sample_rate_hz == target_rate_hz:
        return np.asarray(samples, np.float32)
    converted = soxr.resample(np.asarray(samples, np.float32), sample_rate_hz, target_rate_hz)
    return np.asarray(converted, np.float32)
