# SPDX-License-Identifier: GPL-3.0-or-later
"""Augmentation of log-mel power: other voices, rooms, microphones and noises.

In mel power a noise adds, a microphone is an offset per band, a vocal tract warps the bands and a
room's tail is a leaky sum over time. This costs a tenth of the augmentation of samples, so hours of
speech can sound different in every epoch on one core.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from backend.audio.features import log_mel_power
from backend.audio.rates import SAMPLE_RATE_HZ

LogMel = NDArray[np.float32]

_FLOOR = math.log(1e-10)
_BANDS = np.arange(80, dtype=np.float32)


def augment(log_power: LogMel, rng: np.random.Generator, *, babble: LogMel | None = None) -> LogMel:
    """An utterance with another vocal tract, microphone, room, noise and level.

    Args:
        log_power: Natural logarithm of mel power at 100 Hz before normalisation, shape ``(frames,
            80)``.
        rng: Source of randomness; decides what is done and how strongly.
        babble: Another utterance, of any length, that may be laid under it, once or many times.

    Returns:
        Augmented power of the same shape; time is not changed, so that phone times stay right.
    """
    result = _warp_bands(log_power, rng)
    result = result + _smooth_curve(rng, points=6, spread=float(rng.uniform(0.0, 1.0)))
    if rng.random() < 0.3:
        result = _reverberate(result, rng)
    if rng.random() < 0.6:
        result = _add_noise(result, rng, babble=babble)
    if rng.random() < 0.25:
        result = _limit_band(result, rng)
    level = rng.uniform(-4.0, 4.0)
    hiss = _FLOOR + rng.uniform(0.0, 7.0) + _smooth_curve(rng, points=4, spread=0.7)
    return np.logaddexp(result + level, hiss).astype(np.float32)


def no_speech(num_frames: int, rng: np.random.Generator) -> LogMel:
    """Audio without speech: silence, noise, notes that come and go, or music.

    Args:
        num_frames: Length at 100 Hz.
        rng: Source of randomness.

    Returns:
        Log-mel power as ``augment`` takes it, shape ``(num_frames, 80)``.
    """
    level = rng.uniform(-12.0, 0.0)
    noise = _noise(num_frames, rng) + level
    kind = rng.random()
    if kind < 0.15:  # hardly anything
        noise += _FLOOR - level + rng.uniform(0.0, 4.0)
    elif kind < 0.4:  # a noise that swells
        noise += np.interp(
            np.arange(num_frames), np.linspace(0, num_frames, 6), rng.normal(0.0, 1.5, 6)
        )[:, None]
    elif kind < 0.65:  # music
        noise = np.logaddexp(noise - rng.uniform(2.0, 8.0), _music_from(num_frames, rng) + level)
    elif kind < 0.8:  # notes
        noise -= rng.uniform(2.0, 8.0)
        for _ in range(int(rng.integers(2, 16))):
            start = int(rng.integers(-num_frames // 4, num_frames))
            time = np.arange(num_frames) - start
            decay = np.where(time < 0, -30.0, -np.maximum(time, 0) / rng.uniform(20.0, 200.0))
            first = rng.uniform(2.0, 35.0)
            bands = first * np.arange(1, 7) ** 0.8  # overtones lie ever closer in mel
            shape = -0.5 * ((_BANDS[:, None] - bands) / 1.2) ** 2 - 0.7 * np.arange(6)
            tone = shape.max(axis=1) + decay[:, None] + level + rng.uniform(0.0, 3.0)
            noise = np.logaddexp(noise, tone)
    return noise.astype(np.float32)


def mask(features: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Blanks bands and short stretches of time (SpecAugment, Park et al. 2019), in place.

    Args:
        features: Normalised and stacked features, shape ``(T, 160)``.
        rng: Source of randomness.

    Returns:
        The same array.
    """
    num_frames = len(features)
    bands = features.reshape(num_frames, 2, 80)
    for _ in range(2):
        width = int(rng.integers(0, 12))
        start = int(rng.integers(0, 80 - width))
        bands[:, :, start : start + width] = 0.0
    for _ in range(num_frames // 50):
        width = int(rng.integers(0, 8))
        start = int(rng.integers(0, num_frames))
        features[start : start + width] = 0.0
    return features


def _warp_bands(log_power: LogMel, rng: np.random.Generator) -> LogMel:
    """Another vocal tract: bands are read where a longer or shorter throat would put them."""
    factor = 1.0 + float(np.clip(rng.normal(0.0, 0.08), -0.2, 0.2))
    places = np.clip(_BANDS * factor + rng.normal(0.0, 0.5), 0.0, 78.999).astype(np.float32)
    below = places.astype(np.int64)
    share = places - below
    warped: LogMel = log_power[:, below] * (1.0 - share) + log_power[:, below + 1] * share
    return warped


def _noise(num_frames: int, rng: np.random.Generator) -> LogMel:
    """Steady noise of some colour, about 0 on average.

    Its grain is real white noise's, which is coarse in low bands (few bins of the spectrum) and
    fine in high ones, and alike in frames and bands that overlap. With grain that was independent
    everywhere the model took real noise for speech.
    """
    white = _white_noise()
    frames = int(rng.integers(len(white))) + np.arange(num_frames)
    # From brown (-6.5) over pink (-1.5) and white (2.2, for higher bands are wider) to blue.
    slope = float(rng.uniform(-8.0, 5.0)) * (_BANDS / 79.0 - 0.5)
    curve = _smooth_curve(rng, points=int(rng.integers(2, 7)), spread=1.0)
    return np.take(white, frames, axis=0, mode="wrap") + slope.astype(np.float32) + curve


@cache
def _white_noise() -> LogMel:
    """A minute of it, each band 0 on average."""
    samples = np.random.default_rng(0).normal(0.0, 0.1, 60 * SAMPLE_RATE_HZ)
    white = log_mel_power(samples.astype(np.float32))
    return white - white.mean(axis=0)


def _music_from(num_frames: int, rng: np.random.Generator) -> LogMel:
    """A stretch of one of the pieces, through some microphone, shape ``(num_frames, 80)``."""
    pieces = _music()
    piece = pieces[int(rng.integers(len(pieces)))]
    frames = int(rng.integers(len(piece))) + np.arange(num_frames)
    return np.take(piece, frames, axis=0, mode="wrap") + _smooth_curve(rng, points=4, spread=0.7)


@cache
def _music() -> list[LogMel]:
    """Pieces of 8 s of several instruments, each of mean power 1."""
    rng = np.random.default_rng(1)
    pieces = []
    for _ in range(40):
        samples = piece_of_music(8.0, rng)
        power = log_mel_power((0.1 * samples / (samples.std() + 1e-9)).astype(np.float32))
        pieces.append(power - np.float32(math.log(float(np.exp(power).mean()) + 1e-12)))
    return pieces


def piece_of_music(seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A made-up piece of music: voices on a common scale and beat, and perhaps a drum."""
    beat = rng.uniform(0.3, 0.8)
    out = np.zeros(round((seconds + 4.0) * SAMPLE_RATE_HZ))
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.5 else [0, 2, 3, 5, 7, 8, 10])
    for _ in range(int(rng.integers(1, 5))):
        play = _instrument(rng)
        root = 55.0 * 2.0 ** rng.uniform(0.0, 3.0)
        loudness = 10.0 ** rng.uniform(-0.6, 0.0)
        length = float(rng.choice([0.5, 1.0, 2.0, 4.0])) * beat
        degree, start = int(rng.integers(7)), 0.0
        while start < seconds:
            hertz = root * 2.0 ** (scale[degree % 7] / 12.0 + degree // 7)
            note = loudness * play(hertz, length)
            first = round(start * SAMPLE_RATE_HZ)
            out[first : first + len(note)] += note[: len(out) - first]
            degree = int(np.clip(degree + rng.integers(-2, 3), 0, 13))
            start += length
    if rng.random() < 0.6:
        strokes = np.arange(0.0, seconds, beat * float(rng.choice([0.5, 1.0, 2.0])))
        decay = rng.uniform(0.01, 0.06) * SAMPLE_RATE_HZ
        stroke = (
            rng.standard_normal(3200) * np.exp(-np.arange(3200) / decay) * rng.uniform(0.2, 1.0)
        )
        for start in strokes:
            first = round(start * SAMPLE_RATE_HZ)
            out[first : first + len(stroke)] += stroke
    return out[: round(seconds * SAMPLE_RATE_HZ)]


def _instrument(
    rng: np.random.Generator,
) -> Callable[[float, float], NDArray[np.float64]]:
    """Plays a note of a pitch in hertz and a length in seconds: struck, bowed or blown."""
    overtones = np.arange(1, int(rng.integers(3, 24)))
    fall, is_odd = rng.uniform(0.5, 2.0), rng.random() < 0.2
    attack, decay = 10.0 ** rng.uniform(-2.5, -0.8), rng.uniform(0.0, 6.0)
    vibrato, speed = rng.choice([0.0, rng.uniform(0.0, 0.01)]), rng.uniform(4.0, 7.0)
    phases = rng.uniform(0.0, 2.0 * np.pi, len(overtones))

    def play(hertz: float, length: float) -> NDArray[np.float64]:
        time = np.arange(round((length + 0.1) * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        turns = hertz * (
            time + vibrato * np.sin(2.0 * np.pi * speed * time) / (2.0 * np.pi * speed)
        )
        note = np.zeros(len(time))
        for overtone, phase in zip(overtones, phases, strict=True):
            if overtone * hertz < 7500.0 and not (is_odd and overtone % 2 == 0):
                note += np.sin(2.0 * np.pi * overtone * turns + phase) / overtone**fall
        end = np.clip((length + 0.1 - time) / 0.1, 0.0, 1.0)
        return note * np.minimum(time / attack, 1.0) * np.exp(-decay * time) * end

    return play


def _smooth_curve(rng: np.random.Generator, *, points: int, spread: float) -> NDArray[np.float32]:
    knots = rng.normal(0.0, spread, points)
    return np.interp(_BANDS, np.linspace(0.0, 79.0, points), knots).astype(np.float32)


def _reverberate(log_power: LogMel, rng: np.random.Generator) -> LogMel:
    decay = rng.uniform(0.5, 0.9)  # of power in 10 ms: 0.1 to 0.65 s to -60 dB
    strength = rng.uniform(0.02, 0.2)
    tail = lfilter([0.0, 1.0], [1.0, -decay], np.exp(log_power), axis=0)
    return np.logaddexp(log_power, np.log(strength * tail + 1e-12)).astype(np.float32)


def _add_noise(log_power: LogMel, rng: np.random.Generator, *, babble: LogMel | None) -> LogMel:
    loudness = _mean_level(log_power)
    if babble is not None and rng.random() < 0.4:
        noise = _voices(np.resize(babble, log_power.shape), rng)
        ratio_db = rng.uniform(3.0, 25.0)
    else:
        of_what = _music_from if rng.random() < 0.2 else _noise
        noise = of_what(len(log_power), rng)
        ratio_db = rng.uniform(0.0, 25.0)
    shift = loudness - _mean_level(noise) - ratio_db * math.log(10.0) / 10.0
    return np.logaddexp(log_power, noise + np.float32(shift))


def _voices(speech: LogMel, rng: np.random.Generator) -> LogMel:
    """One to six voices at once: the one that is given, and its copies at other times."""
    num_voices = int(rng.choice([1, 1, 2, 4, 6]))
    power = np.exp(speech)
    copies = [np.roll(power, int(rng.integers(len(power))), axis=0) for _ in range(num_voices - 1)]
    return np.log(sum(copies, start=power) + 1e-12).astype(np.float32)


def _mean_level(log_power: LogMel) -> float:
    return math.log(float(np.exp(log_power).mean()) + 1e-12)


def _limit_band(log_power: LogMel, rng: np.random.Generator) -> LogMel:
    """A telephone, a cheap microphone or a codec: the ends of the spectrum are missing."""
    limited = log_power.copy()
    if rng.random() < 0.6:
        limited[:, int(rng.integers(45, 76)) :] -= np.float32(rng.uniform(3.0, 12.0))
    if rng.random() < 0.6:
        limited[:, : int(rng.integers(2, 14))] -= np.float32(rng.uniform(2.0, 8.0))
    return limited
