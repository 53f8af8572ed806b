# SPDX-License-Identifier: GPL-3.0-or-later
"""Other voices, rooms, microphones and noises, made directly in log-mel power.

Apart from ``dataset.py`` because it knows only arrays, and from the augmentation of samples
because it costs a tenth of it: in
mel power a noise adds, a microphone is an offset per band, a vocal tract warps the bands and a
room's tail is a leaky sum
over time, so hours of speech can sound different in every epoch on one core.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from backend import audio

LogMel = NDArray[np.float32]

_FLOOR = math.log(1e-10)
_BANDS = np.arange(80, dtype=np.float32)


def augment(log_power: LogMel, rng: np.random.Generator, *, babble: LogMel | None = None) -> LogMel:
    """One utterance as another speaker might have said it elsewhere.

    Args:
        log_power: Natural logarithm of mel power at 100 Hz before normalisation, shape ``(frames,
            80)``.
        rng: Source of randomness; decides what is done and how strongly.
        babble: Another utterance, of any length, that may be laid under it.

    Returns:
        The same shape; time is not changed, so that phone times stay right.
    """
    result = _warp_bands(log_power, rng)
    result = result + _smooth_curve(rng, points=6, spread=float(rng.uniform(0.0, 1.0)))
    if rng.random() < 0.3:
        result = _reverberate(result, rng)
    if rng.random() < 0.5:
        result = _add_noise(result, rng, babble=babble)
    if rng.random() < 0.25:
        result = _limit_band(result, rng)
    level = rng.uniform(-4.0, 4.0)
    hiss = _FLOOR + rng.uniform(0.0, 7.0) + _smooth_curve(rng, points=4, spread=0.7)
    return np.logaddexp(result + level, hiss).astype(np.float32)


def no_speech(num_frames: int, rng: np.random.Generator) -> LogMel:
    """What is heard while nobody speaks: silence, noise, or held notes that come and go.

    Args:
        num_frames: Length at 100 Hz.
        rng: Source of randomness.

    Returns:
        Log-mel power as ``augment`` takes it, shape ``(num_frames, 80)``.
    """
    level = rng.uniform(-12.0, 0.0)
    noise = _noise(num_frames, rng) + level
    kind = rng.random()
    if kind < 0.2:  # hardly anything
        noise += _FLOOR - level + rng.uniform(0.0, 4.0)
    elif kind < 0.5:  # a noise that swells
        noise += np.interp(
            np.arange(num_frames), np.linspace(0, num_frames, 6), rng.normal(0.0, 1.5, 6)
        )[:, None]
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
        features: Normalised and stacked, shape ``(T, 160)``.
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
    slope = float(rng.uniform(-10.0, 3.0)) * (_BANDS / 79.0 - 0.5)  # from brown to blue
    curve = _smooth_curve(rng, points=int(rng.integers(2, 7)), spread=1.0)
    return np.take(white, frames, axis=0, mode="wrap") + slope.astype(np.float32) + curve


@cache
def _white_noise() -> LogMel:
    """A minute of it, each band 0 on average."""
    samples = np.random.default_rng(0).normal(0.0, 0.1, 60 * audio.SAMPLE_RATE_HZ)
    white = audio.log_power(samples.astype(np.float32))
    return white - white.mean(axis=0)


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
        noise = np.resize(babble, log_power.shape).astype(np.float32)
        ratio_db = rng.uniform(6.0, 30.0)
    else:
        noise = _noise(len(log_power), rng)
        ratio_db = rng.uniform(3.0, 30.0)
    shift = loudness - _mean_level(noise) - ratio_db * math.log(10.0) / 10.0
    return np.logaddexp(log_power, noise + np.float32(shift))


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
