# SPDX-License-Identifier: GPL-3.0-or-later
"""A choice of emotions as the option of a job, which the backend reads."""

import json
import math

import pytest

from backend.inference.emotion_layer import parse_emotion
from ptalker_blender.emotions import as_option, choose


def test_one_emotion_or_a_blend_of_two():
    assert choose('NONE', 'JOY', 0.5, 0.7) is None
    assert as_option(choose('JOY', 'NONE', 0.5, 0.7), None, fps=24.0) == "joy:0.7"
    assert as_option(choose('JOY', 'JOY', 0.5, 0.7), None, fps=24.0) == "joy:0.7"
    assert as_option(choose('JOY', 'FEAR', 0.25, 1.0), None, fps=24.0) == "joy:0.75+fear:0.25"
    assert as_option(choose('JOY', 'FEAR', 1.0, 1.0), None, fps=24.0) == "fear:1"


def amounts_at(text, times, name):
    steps = parse_emotion(text)
    return [
        [step for step in steps if step.seconds <= time + 1e-3][-1].amounts[name] for time in times
    ]


@pytest.mark.parametrize("fps", [24.0, 24000 / 1001, 60.0])
def test_keyed_amounts_reach_the_backend_to_a_hundredth(fps):
    keyed = [0.0] * 20 + [0.5 - 0.5 * math.cos(0.05 * i) for i in range(120)] + [0.0] * 5
    text = as_option(choose('ANGER', 'DISGUST', 0.5, 0.3), keyed, fps=fps)
    times = [frame / fps for frame in range(len(keyed))]
    for name in ("anger", "disgust"):
        for found, wanted in zip(amounts_at(text, times, name), keyed, strict=True):
            assert found == pytest.approx(0.5 * wanted, abs=0.0051)
    assert parse_emotion(text)[-1].amounts == {"anger": 0.0, "disgust": 0.0}


def test_an_amount_that_stands_still_is_told_once_and_limits_hold():
    text = as_option(choose('JOY', 'NONE', 0.5, 0.7), [0.4] * 1000, fps=24.0)
    assert json.loads(text) == [[0.0, "joy", 0.4]]
    text = as_option(choose('JOY', 'NONE', 0.5, 0.7), [-1.0, 7.0], fps=1.0)
    assert json.loads(text) == [[0.0, "joy", 0.0], [1.0, "joy", 1.5]]


def test_hours_of_keys_fit_into_an_option():
    keyed = [0.7 + 0.7 * math.sin(0.3 * i) for i in range(100_000)]
    text = as_option(choose('ANGER', 'DISGUST', 0.5, 0.3), keyed, fps=24.0)
    assert len(text) <= 500_000
    assert len(parse_emotion(text)) > 100
