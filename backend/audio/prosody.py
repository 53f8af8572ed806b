# SPDX-License-Identifier: GPL-3.0-or-later
"""Loudness and pitch per frame, and statistics of a voice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.speech.phones import SILENCE, Phone

_WINDOW_SECONDS = 0.040
_PITCH_RATE_HZ = 4000
_PITCH_MIN_HZ, _PITCH_MAX_HZ = 65.0, 420.0
_VOICED_CORRELATION = 0.45


@dataclass(frozen=True, slots=True)
class Prosody:
    """Loudness and pitch per frame of motion.

    Attributes:
        energy: Root mean square of the sound around each frame, linear, shape ``(T,)``.
        f0: Fundamental frequency in hertz, 0 where there is no voice, shape ``(T,)``.
    """

    energy: NDArray[np.float32]
    f0: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VoiceCharacter:
    """Statistics of a voice.

    Attributes:
        level_range_db: From the 20th to the 95th percentile of the level while speaking.
        f0_range_semitones: From the 10th to the 90th percentile of the fundamental frequency.
        phones_per_second: Speaking rate without pauses.
        brightness: Energy above 2 kHz against below, in standard units; 0 for a usual voice.
    """

    level_range_db: float
    f0_range_semitones: float
    phones_per_second: float
    brightness: float


def measure_prosody(
    samples: NDArray[np.float32], *, sample_rate: int, num_frames: int, fps: float
) -> Prosody:
    """Measures loudness and pitch around each frame's time ``i / fps``.

    The pitch is the highest peak of the autocorrelation (through the FFT, of the sound at 4 kHz),
    corrected for its taper; plain, but the brows need no more.

    Args:
        samples: Mono sound, shape ``(n,)``.
        sample_rate: Sample rate in hertz, at least 8000.
        num_frames: Number of frames ``T``; beyond the sound's end is silence.
        fps: Frames per second.

    Returns:
        Energy and pitch, each ``(T,)``.
    """
    centers = np.arange(num_frames) / fps
    energy = _local_rms(samples, centers * sample_rate, round(_WINDOW_SECONDS * sample_rate))
    step = sample_rate // _PITCH_RATE_HZ
    usable = len(samples) // step * step
    low = np.asarray(samples[:usable]).reshape(-1, step).mean(axis=1)  # (n / step,)
    rate = sample_rate / step
    length = round(2.2 / _PITCH_MIN_HZ * rate)
    starts = np.round(centers * rate).astype(np.int64)
    padded = np.zeros(max(len(low), starts[-1] if num_frames else 0) + 2 * length, np.float32)
    padded[length // 2 : length // 2 + len(low)] = low
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[starts]  # (T, length)
    frames = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(length).astype(np.float32)
    size = 1 << (2 * length - 1).bit_length()
    spectrum = np.fft.rfft(frames, size)
    correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)
    taper = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(length), size)) ** 2, size)
    shortest, longest = int(rate / _PITCH_MAX_HZ), int(rate / _PITCH_MIN_HZ)
    scores = correlation[:, shortest - 1 : longest + 1] / (correlation[:, :1] + 1e-9)
    scores /= taper[shortest - 1 : longest + 1] / taper[0]  # (T, lags + 2)
    inner = scores[:, 1:-1]
    is_peak = (inner >= scores[:, :-2]) & (inner >= scores[:, 2:])
    lags = np.arange(shortest, longest)
    best = np.argmax(np.where(is_peak, inner - 0.1 * lags / longest, -1.0), axis=1)
    rows = np.arange(num_frames)
    strength = np.where(is_peak[rows, best], inner[rows, best], 0.0)
    before, after = scores[rows, best], scores[rows, best + 2]
    bend = np.minimum(before + after - 2.0 * inner[rows, best], -1e-6)
    period = lags[best] + np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    voiced = (strength > _VOICED_CORRELATION) & (
        energy > 0.05 * max(float(energy.max(initial=0.0)), 1e-6)
    )
    f0 = np.where(voiced, rate / period, 0.0)
    return Prosody(energy.astype(np.float32), f0.astype(np.float32))


def voice_character(
    samples: NDArray[np.float32], prosody: Prosody, phones: Sequence[Phone]
) -> VoiceCharacter:
    """Measures the statistics of a voice.

    Args:
        samples: Mono sound at 16 kHz.
        prosody: Loudness and pitch of the same sound.
        phones: Phones of the same sound; only their number and total length count.

    Returns:
        The statistics; those of a usual voice where the sound is too short or unvoiced.
    """
    loud = prosody.energy > 0.05 * max(float(prosody.energy.max(initial=0.0)), 1e-6)
    level = 20.0 * np.log10(prosody.energy[loud] + 1e-6)
    level_range = float(np.subtract(*np.percentile(level, [95, 20]))) if loud.any() else 12.0
    f0 = prosody.f0[prosody.f0 > 0.0]
    tones = 12.0 * np.log2(f0 / 100.0) if len(f0) > 5 else np.zeros(0)
    spoken = [phone for phone in phones if phone.symbol != SILENCE]
    seconds = sum(phone.end_seconds - phone.start_seconds for phone in spoken)
    return VoiceCharacter(
        level_range_db=level_range,
        f0_range_semitones=float(np.subtract(*np.percentile(tones, [90, 10])))
        if len(tones)
        else 6.0,
        phones_per_second=len(spoken) / seconds if seconds > 0.0 else 12.0,
        brightness=_brightness(samples),
    )


def _brightness(samples: NDArray[np.float32]) -> float:
    if len(samples) < 512:
        return 0.0
    frames = samples[: len(samples) // 512 * 512].reshape(-1, 512)[::4]
    power = (np.abs(np.fft.rfft(frames * np.hanning(512).astype(np.float32))) ** 2).mean(axis=0)
    ratio_db = 10.0 * np.log10((power[64:].sum() + 1e-9) / (power[3:64].sum() + 1e-9))
    return float((ratio_db + 16.0) / 5.0)


def _local_rms(
    samples: NDArray[np.float32], centers: NDArray[np.float64], width: int
) -> NDArray[np.float64]:
    """Root mean square within ``width`` samples around each center, silence beyond the ends."""
    total = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    first = np.clip(np.round(centers - width / 2).astype(np.int64), 0, len(samples))
    last = np.clip(np.round(centers + width / 2).astype(np.int64), 0, len(samples))
    return np.sqrt(np.maximum(total[last] - total[first], 0.0) / width)
