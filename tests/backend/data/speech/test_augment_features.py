# SPDX-License-Identifier: GPL-3.0-or-later
"""Augmentation of log-mel power: voices, noises, music, masks."""

import numpy as np
from scipy.ndimage import uniform_filter1d

from backend.audio.features import log_mel_power
from backend.data.speech import augment_features


def test_augmentation_keeps_shape_and_time(data):
    mel = data.mel(data.train[0])
    rng = np.random.default_rng(3)
    for _ in range(10):
        changed = augment_features.augment(mel, rng, babble=data.mel(data.train[1]))
        assert changed.shape == mel.shape
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert changed[60:].mean() > changed[:40].mean() - 0.5


def test_white_noise_lies_well_within_the_colours_of_noise():
    def slope(log_power):
        return np.polyfit(np.linspace(-0.5, 0.5, 80), log_power.mean(axis=0), 1)[0]

    samples = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    white = slope(log_mel_power(samples))
    made = [augment_features.no_speech(200, np.random.default_rng(seed)) for seed in range(400)]
    slopes = np.array([slope(sound) for sound in made])
    assert np.mean(slopes > white) > 0.07  # brighter ones
    assert np.mean(slopes < white - 9.0) > 0.07  # brown and darker


def test_a_voice_laid_under_speech_comes_at_times_as_several():
    loud, quiet = np.zeros((60, 80), np.float32), np.full((60, 80), -20.0, np.float32)
    speech = np.concatenate([loud, quiet, quiet])
    other = np.concatenate([quiet, loud, quiet])  # its copies alone can sound in the last third
    swing = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        level = augment_features.augment(speech, rng, babble=other)[140:].mean(axis=1)
        swing.append(level.max() - level.min())
    assert np.mean(np.array(swing) > 6.0) > 0.05


def test_sounds_without_speech_are_finite_and_of_many_kinds():
    made = [augment_features.no_speech(200, np.random.default_rng(seed)) for seed in range(30)]
    assert all(one.shape == (200, 80) and np.isfinite(one).all() for one in made)
    levels = [float(one.mean()) for one in made]
    assert max(levels) - min(levels) > 10.0  # from silence to noise
    assert made[0].dtype == np.float32


def test_some_sounds_without_speech_are_music_that_holds_its_notes():
    def held(sound):
        """How alike the spectrum is after 50 ms, its coarse shape apart."""
        fine = sound - uniform_filter1d(sound, 15, axis=1)
        fine = fine - fine.mean(0)
        return float((fine[5:] * fine[:-5]).sum() / (np.square(fine).sum() + 1e-9))

    made = [augment_features.no_speech(300, np.random.default_rng(seed)) for seed in range(60)]
    tonal = [held(one) > 0.2 for one in made]
    assert 0.25 < np.mean(tonal) < 0.55  # noises and silence: 0.02 at most


def test_masking_blanks_some_bands_and_frames():
    features = np.ones((100, 160), np.float32)
    masked = augment_features.mask(features.copy(), np.random.default_rng(0))
    assert 0.0 < (masked == 0).mean() < 0.5
