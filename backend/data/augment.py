# SPDX-License-Identifier: GPL-3.0-or-later
"""Rooms, microphones, lines and other voices for clean speech.

A pure function, cheap enough for every clip of every epoch on one core (about 10 ms for 5 s).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from backend.phones import Phone

SAMPLE_RATE = 16000
_Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How likely and how strong each disturbance is.

    Attributes:
        resample: Chance of another pitch, vocal tract and pace, by playing faster or slower.
        resample_range: Largest change of the speed, as natural logarithm.
        color: Chance of a microphone's and room's frequency response.
        band_limit: Chance of a telephone's or an old file's band.
        reverberation: Chance of a room.
        noise: Chance of noise of some colour.
        music: Chance of tones in chords.
        babble: Chance of the background voice, where one is given.
        snr_db: Lowest and highest ratio of speech to noise, music or voice.
        codec: Chance of 8-bit mu-law.
        clip: Chance of an overdriven microphone.
        level_db: Lowest and highest peak level.
    """

    resample: float = 0.7
    resample_range: float = 0.22
    color: float = 0.8
    band_limit: float = 0.25
    reverberation: float = 0.5
    noise: float = 0.6
    music: float = 0.15
    babble: float = 0.15
    snr_db: tuple[float, float] = (3.0, 35.0)
    codec: float = 0.15
    clip: float = 0.08
    level_db: tuple[float, float] = (-32.0, -0.5)


@dataclass(frozen=True, slots=True)
class Augmented:
    """Disturbed speech.

    Attributes:
        samples: Shape ``(m,)``.
        time_scale: By which times of the clean speech are to be multiplied.
    """

    samples: _Samples
    time_scale: float


def augment(
    samples: _Samples,
    rng: np.random.Generator,
    *,
    settings: Augmentation | None = None,
    background: _Samples | None = None,
) -> Augmented:
    """Disturbs speech as the world does.

    Args:
        samples: Clean speech at ``SAMPLE_RATE``, shape ``(n,)``; left as it is.
        rng: Source of randomness.
        settings: What may happen; None means the usual.
        background: Another voice, any length, for babble.

    Returns:
        Disturbed speech; its length is ``round(n * time_scale)`` within a sample.
    """
    settings = settings or Augmentation()
    out = np.asarray(samples, dtype=np.float32)
    scale = 1.0
    if rng.random() < settings.resample and len(out):
        scale = float(np.exp(rng.uniform(-settings.resample_range, settings.resample_range)))
        length = round(len(out) * scale)
        out = soxr.resample(out, 1.0, scale, quality="QQ")[:length].astype(np.float32)
        scale = len(out) / max(len(samples), 1)
    if not len(out) or float(np.abs(out).max()) < 1e-5:
        return Augmented(out, scale)
    out = _room_and_microphone(out, rng, settings)
    for chance, make in ((settings.noise, _noise), (settings.music, _music)):
        if rng.random() < chance:
            out = _add(out, make(len(out), rng), rng.uniform(*settings.snr_db))
    if background is not None and len(background) and rng.random() < settings.babble:
        voice = np.resize(np.roll(background, int(rng.integers(len(background)))), len(out))
        out = _add(out, voice, rng.uniform(max(settings.snr_db[0], 6.0), settings.snr_db[1]))
    if rng.random() < settings.clip:
        limit = float(np.abs(out).max()) * rng.uniform(0.15, 0.7)
        out = np.clip(out, -limit, limit)
    peak = 10.0 ** (rng.uniform(*settings.level_db) / 20.0)
    out = out * np.float32(peak / (float(np.abs(out).max()) + 1e-9))
    if rng.random() < settings.codec:
        out = _mu_law(out)
    return Augmented(out.astype(np.float32, copy=False), scale)


def scale_phones(phones: Sequence[Phone], time_scale: float) -> list[Phone]:
    """Phones on the clock of speech that was made longer by ``time_scale``."""
    return [
        replace(
            phone,
            start_seconds=phone.start_seconds * time_scale,
            end_seconds=phone.end_seconds * time_scale,
        )
        for phone in phones
    ]


def _room_and_microphone(
    samples: _Samples, rng: np.random.Generator, settings: Augmentation
) -> _Samples:
    """Frequency response and reverberation, both in one pass through the frequency domain."""
    room = _impulse_response(rng) if rng.random() < settings.reverberation else None
    size = next_fast_len(len(samples) + (len(room) if room is not None else 0), real=True)
    frequencies = np.linspace(0.0, SAMPLE_RATE / 2, size // 2 + 1, dtype=np.float32)
    gain = np.ones(len(frequencies), dtype=np.float32)
    if rng.random() < settings.color:
        octaves = np.log2(np.maximum(frequencies, 50.0) / 50.0)  # 0 to 7.3
        knots = np.cumsum(rng.normal(0.0, 3.0, 9))
        gain *= 10.0 ** (np.interp(octaves, np.arange(9), knots - knots.mean()) / 20.0)
    if rng.random() < settings.band_limit:
        low = rng.choice([0.0, 0.0, 80.0, 200.0, 300.0])
        high = rng.choice([3400.0, 3800.0, 5500.0, 7000.0])
        gain *= 1.0 / (1.0 + (frequencies / high) ** 24)
        gain *= 1.0 / (1.0 + (low / np.maximum(frequencies, 1.0)) ** 8)
    if room is None and bool(np.all(gain == 1.0)):
        return samples
    spectrum = rfft(samples, size) * gain
    if room is not None:
        spectrum *= rfft(room, size)
    filtered: _Samples = irfft(spectrum, size)[: len(samples)]
    return filtered


def _impulse_response(rng: np.random.Generator) -> _Samples:
    """Direct sound and a tail of noise that decays by 60 dB in 0.1 to 0.9 s."""
    decay_seconds = float(np.exp(rng.uniform(np.log(0.1), np.log(0.9))))
    length = int(decay_seconds * SAMPLE_RATE * 0.7)
    tail = rng.standard_normal(length, dtype=np.float32)
    tail *= np.exp(np.linspace(0.0, -6.9 * 0.7, length, dtype=np.float32))
    tail[: int(rng.uniform(0.001, 0.012) * SAMPLE_RATE)] = 0.0
    direct_to_tail_db = rng.uniform(-2.0, 14.0)
    tail *= 10.0 ** (-direct_to_tail_db / 20.0) / (float(np.sqrt(np.sum(tail**2))) + 1e-9)
    tail[0] = 1.0
    return tail


def _add(samples: _Samples, other: _Samples, snr_db: float) -> _Samples:
    """Adds a disturbance; the ratio is to the speech's level while it is spoken."""
    power = np.square(samples[: len(samples) // 160 * 160]).reshape(-1, 160).mean(axis=1)
    loud = power[power > 0.05 * float(power.max(initial=0.0))] if len(power) else power
    level = float(np.sqrt(loud.mean())) if len(loud) else float(np.sqrt(np.mean(samples**2)))
    own = float(np.sqrt(np.mean(np.square(other)))) + 1e-9
    return samples + other * np.float32(level / own * 10.0 ** (-snr_db / 20.0))


def _noise(length: int, rng: np.random.Generator) -> _Samples:
    """Noise with a power law spectrum, violet to brown, sometimes swelling or humming."""
    size = next_fast_len(length, real=True)
    spectrum = rfft(rng.standard_normal(size, dtype=np.float32))
    ranks = np.arange(1, len(spectrum) + 1, dtype=np.float32)
    spectrum *= ranks ** np.float32(rng.uniform(-1.2, 0.4))
    spectrum[: int(40 * size / SAMPLE_RATE)] = 0.0
    noise: _Samples = irfft(spectrum, size)[:length]
    if rng.random() < 0.4:
        knots = rng.uniform(0.1, 1.0, max(length // 8000, 2))
        swell = np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(knots)), knots)
        noise = noise * swell.astype(np.float32)
    if rng.random() < 0.15:
        times = np.arange(length, dtype=np.float32) / SAMPLE_RATE
        hum = np.sin(2.0 * np.pi * rng.choice([50.0, 60.0, 100.0, 120.0]) * times)
        noise = noise / (float(noise.std()) + 1e-9) + hum.astype(np.float32) * rng.uniform(0.3, 2.0)
    return noise.astype(np.float32, copy=False)


def _music(length: int, rng: np.random.Generator) -> _Samples:
    """Chords of plucked or held tones with overtones, and a beat, through a wave table."""
    table = np.zeros(2048)
    phase = np.linspace(0.0, 2.0 * np.pi, len(table), endpoint=False)
    for overtone in range(1, 9):
        table += np.sin(overtone * phase + rng.uniform(0.0, 6.0)) * rng.uniform(0.2, 1.0) / overtone
    music = np.zeros(length, dtype=np.float32)
    note_length = int(rng.uniform(0.15, 0.9) * SAMPLE_RATE)
    decay = np.exp(-np.arange(note_length) / SAMPLE_RATE * rng.uniform(0.5, 8.0)).astype(np.float32)
    root = 110.0 * 2.0 ** rng.uniform(0.0, 1.5)
    for start in range(0, length, note_length):
        steps = rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 16, 19], size=int(rng.integers(1, 4)))
        size = min(note_length, length - start)
        for step in steps:
            increment = root * 2.0 ** (step / 12.0) * len(table) / SAMPLE_RATE
            index = (np.arange(size) * increment).astype(np.int64) % len(table)
            music[start : start + size] += table[index].astype(np.float32) * decay[:size]
        if rng.random() < 0.5:
            beat = min(1600, size)
            fade = np.exp(-np.arange(beat) / 300.0).astype(np.float32)
            music[start : start + beat] += rng.standard_normal(beat, dtype=np.float32) * fade
    return music


def _mu_law(samples: _Samples) -> _Samples:
    """Through 8 bits of mu-law (ITU-T G.711) and back."""
    companded = (
        np.sign(samples) * np.log1p(255.0 * np.minimum(np.abs(samples), 1.0)) / np.log(256.0)
    )
    rounded = np.round(companded * 127.0) / 127.0
    expanded = np.sign(rounded) * np.expm1(np.abs(rounded) * np.log(256.0)) / 255.0
    decoded: _Samples = expanded.astype(np.float32)
    return decoded
