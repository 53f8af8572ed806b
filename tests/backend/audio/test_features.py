# SPDX-License-Identifier: GPL-3.0-or-later
"""Log-mel features: their timing, their normalisation, and chunks."""

import numpy as np
import pytest

from backend.audio.features import log_mel, log_mel_power, num_feature_frames, stacked_log_mel
from backend.audio.rates import SAMPLE_RATE_HZ

RATE = SAMPLE_RATE_HZ


def speech_like(seconds, seed=0):
    """Noise in syllables of changing colour."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=round(seconds * RATE)).astype(np.float32)
    times = np.arange(len(samples)) / RATE
    loudness = np.maximum(0, np.sin(2 * np.pi * 2 * times)) * (np.sin(times) > -0.5)
    colour = np.convolve(samples, np.ones(8) / 8, "same")
    return (0.3 * loudness * np.where(np.sin(7 * times) > 0, samples, 3 * colour)).astype(
        np.float32
    )


def test_features_have_the_times_they_state():
    for num_samples in (1600, 16000, 16001, 16319, 16320, 16321):
        samples = np.zeros(num_samples, np.float32)
        frames = -(-num_samples // 320)
        assert num_feature_frames(num_samples) == frames
        assert stacked_log_mel(samples).shape == (frames, 160)
    # A click at 1 s lies in the middle of stacked frame 50: alike in both halves.
    click = np.zeros(2 * RATE, np.float32)
    click[RATE] = 1.0
    power = log_mel_power(click).mean(axis=1).reshape(-1, 2)
    assert power.mean(axis=1).argmax() == 50
    assert power[50, 0] == pytest.approx(power[50, 1], abs=1e-3)
    assert power[49, 1] < power[50, 0] - 5


def test_features_ignore_level_and_colour():
    samples = speech_like(8.0) + 1e-3 * np.random.default_rng(1).normal(size=8 * RATE)
    samples = samples.astype(np.float32)
    features = log_mel(samples)
    np.testing.assert_allclose(log_mel(samples * 0.05), features, atol=0.05)
    coloured = np.convolve(samples, [1.0, 0.7])[: len(samples)].astype(np.float32)
    coloured = log_mel(coloured)
    speech = features > -2
    assert np.abs(coloured - features)[speech].mean() < 0.2


def test_silence_and_faint_noise_stay_low():
    noise = np.random.default_rng(0).normal(0, 1, 4 * RATE).astype(np.float32)
    assert log_mel(0 * noise).max() == -4.0
    assert log_mel(1e-4 * noise).mean() < -3
    assert abs(log_mel(0.1 * noise).mean()) < 0.7
    for features in (log_mel(0 * noise), log_mel(noise)):
        assert np.isfinite(features).all()


def test_features_of_a_chunk_equal_those_of_the_whole():
    samples = speech_like(30.0)
    whole = log_mel(samples)
    start, stop = 8, 22  # seconds; 6 s of margin on both sides
    chunk = log_mel(samples[(start - 6) * RATE : (stop + 6) * RATE])
    np.testing.assert_allclose(chunk[600:-600], whole[start * 100 : stop * 100], atol=1e-5)
