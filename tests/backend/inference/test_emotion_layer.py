# SPDX-License-Identifier: GPL-3.0-or-later
"""How an emotion is asked for, and the layer that it becomes."""

from dataclasses import fields
from fractions import Fraction

import numpy as np
import pytest

from backend.articulation.coarticulation import articulate
from backend.articulation.emotion import EMOTIONS, STYLE_EXPRESSIONS, Step
from backend.articulation.speaking_style import SpeakingStyle
from backend.errors import UserError
from backend.evaluation.curve_metrics import closures
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.lip_measures import measured_demo_head
from backend.inference.emotion_layer import Emotion, add_emotion, parse_emotion
from backend.motion import Layers
from backend.speech.phones import Phone

FPS = Fraction(50)
SECONDS = 6.0


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        (" neutral ", ()),
        ("joy", (Step(0.0, {"joy": 1.0}),)),
        ("Joy : 0.7", (Step(0.0, {"joy": 0.7}),)),
        ("joy:0.5 + surprise:0.3", (Step(0.0, {"joy": 0.5, "surprise": 0.3}),)),
        (
            '[[2.5, "sadness", 1], [0, "joy", 0.5], [2.5, "fear", 0.25], [4, "neutral", 0]]',
            (Step(0.0, {"joy": 0.5}), Step(2.5, {"sadness": 1.0, "fear": 0.25}), Step(4.0, {})),
        ),
        ("[]", ()),
    ],
)
def test_ways_to_ask_for_an_emotion(text, steps):
    assert parse_emotion(text) == steps


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("love", '"love" is no emotion. There are: joy, anger'),
        ("crooked:1", "is no emotion"),
        ("joy:2", "amount of an emotion is 2; it must be a number from 0 to 1.5"),
        ("joy:-0.1", "from 0 to 1.5"),
        ("joy:nan", "from 0 to 1.5"),
        ("joy:much", "from 0 to 1.5"),
        ("joy+", '"" is no emotion'),
        ("[[0", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('[[0, "joy"]]', "Give one like joy:0.7"),
        ('[{"joy": 1}]', "Give one like joy:0.7"),
        ('[[-1, "joy", 1]]', "time of an emotion is -1; it must be a number 0 or more"),
        ('[[1e999, "joy", 1]]', "0 or more"),
        ('[[0, "joy", true]]', "from 0 to 1.5"),
        ('[[0, "joy", null]]', "from 0 to 1.5"),
    ],
)
def test_what_is_no_emotion_is_told(text, part):
    with pytest.raises(UserError) as caught:
        parse_emotion(text)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.fixture(scope="module")
def spoken():
    symbols = ["M", "AA", "P", "IY", "F", "AO", "B", "UW", "V", "EH", "M", "EY", "P", "AA", "M"]
    phones = [Phone(s, 0.6 + 0.15 * i, 0.75 + 0.15 * i) for i, s in enumerate(symbols)]
    times = np.arange(round(SECONDS * 16000)) / 16000
    loud = ((times > 0.6) & (times < 2.85)) * (0.6 + 0.4 * np.sin(9.0 * times))
    samples = (0.3 * loud * np.sign(np.sin(2 * np.pi * 130.0 * times))).astype(np.float32)
    weights = articulate(phones, style=SpeakingStyle(), num_frames=300, fps=50.0, blinks=False)
    none = np.zeros_like(weights)
    layers = Layers(
        weights, none, none, none, np.zeros((300, 3), np.float32), np.eye(3, dtype=np.float32)
    )
    return layers, phones, samples, measured_demo_head()


def added(spoken, emotion, warn=None):
    layers, phones, samples, mouth = spoken
    return add_emotion(
        layers, ARKIT_NAMES, mouth.shapes, mouth.head, emotion, samples=samples, phones=phones,
        fps=FPS, warn=warn or (lambda _: None),
    )  # fmt: skip


def test_no_emotion_changes_nothing(spoken):
    assert added(spoken, Emotion()) is spoken[0]


@pytest.mark.parametrize("name", [*EMOTIONS, *(f"style {name}" for name in STYLE_EXPRESSIONS)])
def test_lips_close_in_every_emotion_at_its_largest(spoken, name):
    layers, phones, _, mouth = spoken
    if name.startswith("style "):
        emotion = Emotion(always=STYLE_EXPRESSIONS[name.removeprefix("style ")])
    else:
        emotion = Emotion((Step(0.0, {name: 1.5}),))
    found = added(spoken, emotion)
    for entry in fields(Layers):  # the other layers are as they were
        if entry.name != "emotion":
            assert getattr(found, entry.name) is getattr(layers, entry.name)
    assert np.abs(found.emotion).max() > 0.1
    before, after = (closures(phones, mouth.opening_mm(x.total())) for x in (layers, found))
    assert (before.hits, before.missed) == (6, 0)
    assert (after.hits, after.missed) == (6, 0)
    assert after.extra <= before.extra  # in pauses the lips may part


def test_an_emotion_comes_when_it_is_asked_for(spoken):
    later = added(spoken, Emotion((Step(0.0, {}), Step(3.0, {"anger": 1.0})))).emotion
    brow = later[:, ARKIT_NAMES.index("browDownLeft")]
    assert brow[:150].max() == 0.0
    assert brow[250] > 0.4


def test_what_is_there_always_is_there_beside_what_comes(spoken):
    emotion = Emotion((Step(3.0, {"surprise": 1.0}),), {"sadness": 0.5})
    found = added(spoken, emotion).emotion
    frown, brow = (found[:, ARKIT_NAMES.index(n)] for n in ("mouthFrownLeft", "browOuterUpLeft"))
    assert frown[100] > 0.2
    assert frown[290] > 0.15
    assert brow[100] <= 0.0 < brow[200]


def test_shapes_without_names_get_a_warning_and_nothing_else(spoken):
    layers, phones, samples, mouth = spoken
    said = []
    found = add_emotion(
        layers, (), mouth.shapes, mouth.head, Emotion((Step(0.0, {"joy": 1.0}),)),
        samples=samples, phones=phones, fps=FPS, warn=said.append,
    )  # fmt: skip
    assert found is layers
    assert "the emotion is left out" in said[0]


def two_phrases(loud):
    """A calm phrase and one that is louder, higher and livelier by as much as is asked."""
    times = np.arange(16000 * 6) / 16000
    second = times > 3.0
    f0 = 110.0 * 2 ** ((0.1 + 0.25 * loud * second) * np.sin(5.0 * times) + 0.4 * loud * second)
    spoken = ((times > 0.5) & (times < 2.5)) | ((times > 3.5) & (times < 5.5))
    level = 0.05 * spoken * (1.0 + 4.0 * loud * second)
    return (level * np.sign(np.sin(2 * np.pi * np.cumsum(f0) / 16000))).astype(np.float32)


def test_the_voice_sets_the_strength_where_asked_for(spoken):
    layers, _, _, mouth = spoken
    phones = [Phone("AA", 0.5, 2.5), Phone("AA", 3.5, 5.5)]

    angry = (Step(0.0, {"anger": 0.7}),)

    def shape(from_voice, loud, steps=angry, name="browDownLeft"):
        found = add_emotion(
            layers, ARKIT_NAMES, mouth.shapes, mouth.head, Emotion(steps, {}, from_voice),
            samples=two_phrases(loud), phones=phones, fps=FPS, warn=lambda _: None,
        ).emotion[:, ARKIT_NAMES.index(name)]  # fmt: skip
        return found[75], found[230]

    calm, loud = shape(1.0, 1.0)
    assert loud > 1.3 * calm
    calm, loud = shape(0.0, 1.0)
    assert loud == pytest.approx(calm, rel=0.1)
    calm, loud = shape(1.0, 0.0)
    assert loud == pytest.approx(calm, rel=0.25)
    calm, loud = shape(1.0, 1.0, (), "eyeWideLeft")  # no emotion named: the voice's arousal itself
    assert loud > calm + 0.1
