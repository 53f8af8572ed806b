# SPDX-License-Identifier: GPL-3.0-or-later
"""Levels at which recognisers get sound."""

from __future__ import annotations

import numpy as np
import pytest

from backend.audio.segmentation import prepare_sound, soften_bursts

RATE = 16000


def speech_like(seconds=8.0, level=0.3):
    random = np.random.default_rng(0)
    times = np.arange(round(seconds * RATE)) / RATE
    loudness = np.maximum(0, np.sin(2 * np.pi * 2 * times)) * (np.sin(times) > -0.5)
    return (level * loudness * random.uniform(-1, 1, len(times))).astype(np.float32)


def level_db(sound):
    return 20 * np.log10(np.sqrt(np.mean(np.square(sound.astype(np.float64)))) / 32768.0)


@pytest.mark.parametrize("level", [0.003, 0.03, 0.3, 1.0])
def test_ordinary_speech_is_scaled_by_its_peak(level):
    samples = speech_like(level=level)
    sound = prepare_sound(samples)
    expected = np.round(samples * (0.7 / float(np.abs(samples).max())) * 32767.0)
    np.testing.assert_array_equal(sound, expected.astype(np.int16))


@pytest.mark.parametrize("quiet", [0.03, 0.01, 0.003])
def test_a_tap_on_the_microphone_does_not_make_the_rest_quiet(quiet):
    samples = speech_like(level=quiet)
    usual = level_db(prepare_sound(samples))
    for num_taps in (1, 5):
        tapped = samples.copy()
        for tap in range(num_taps):
            first = RATE * (1 + tap)
            tapped[first : first + 200] = 0.95 * np.sign(np.sin(np.arange(200)))
        sound = prepare_sound(tapped)
        rest = np.concatenate([sound[:RATE], sound[(2 + num_taps) * RATE :]])
        assert level_db(rest) > usual - 16.0  # it was 30 to 50 dB


def test_one_loud_laugh_does_not_make_the_rest_quiet():
    samples = speech_like(level=0.01)
    laugh = speech_like(seconds=1.0, level=0.95)
    sound = prepare_sound(np.concatenate([samples, laugh]))
    assert level_db(sound[: len(samples)]) > level_db(prepare_sound(samples)) - 16.0


def test_silence_is_nothing_to_hear():
    assert prepare_sound(np.zeros(RATE, np.float32)) is None
    assert prepare_sound(speech_like(level=1e-4)) is None
    assert prepare_sound(np.full(1599, 0.5, np.float32)) is None
    click = np.zeros(RATE, np.float32)
    click[5000] = 0.5
    assert np.abs(prepare_sound(click)).max() == round(0.7 * 32767)


def test_bursts_are_softened_where_they_are_and_nowhere_else():
    samples = speech_like(level=0.01)
    assert soften_bursts(samples) is samples
    assert soften_bursts(samples[:100]) is not None
    tapped = samples.copy()
    tapped[RATE : RATE + 200] = 0.95
    tapped[-50:] = -0.95
    softened = soften_bursts(tapped)
    assert np.abs(softened).max() < 0.05
    changed = np.flatnonzero(softened != tapped)
    assert changed.min() >= RATE - 160
    assert not np.any((changed > RATE + 480) & (changed < len(samples) - 400))
    assert np.array_equal(np.sign(softened), np.sign(tapped))
