# SPDX-License-Identifier: GPL-3.0-or-later
"""Emotions: what they are made of, how they come and go, and what speech leaves of them."""

from itertools import combinations

import numpy as np
import pytest

from backend.articulation.coarticulation import articulate
from backend.articulation.emotion import (
    EMOTIONS,
    EXPRESSIONS,
    STYLE_EXPRESSIONS,
    Rhythm,
    Shown,
    Step,
    show,
)
from backend.articulation.expression_blend import blend
from backend.articulation.speaking_style import NAMED_STYLES, SpeakingStyle
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.lip_measures import measured_demo_head
from backend.speech.phones import Phone

FPS = 50.0
TIMES = np.arange(300) / FPS
RHYTHM = Rhythm(6.0, [(1.0, 4.0)])
_INDEX = {name: index for index, name in enumerate(ARKIT_NAMES)}
_REGIONS = {
    "brows": ("brow",),
    "lids": ("eye",),
    "cheeks": ("cheek", "nose"),
    "mouth": ("mouth", "jaw"),
}


def held(name, amount=1.0, rhythm=RHYTHM):
    return show([Step(0.0, {name: amount})], TIMES, rhythm)


def at(shown, seconds):
    row = np.zeros(len(ARKIT_NAMES))
    for name, curve in shown.weights.items():
        row[_INDEX[name]] = curve[round(seconds * FPS)]
    return row


def test_every_shape_of_every_expression_is_arkit():
    for name in EXPRESSIONS:
        assert set(held(name).weights) <= set(ARKIT_NAMES), name
    assert set(STYLE_EXPRESSIONS) <= set(NAMED_STYLES)
    assert {n for amounts in STYLE_EXPRESSIONS.values() for n in amounts} <= set(EXPRESSIONS)


@pytest.mark.parametrize("name", EMOTIONS)
def test_each_emotion_shows_in_the_face_and_on_the_left_a_little_more(name):
    row = at(held(name), 2.5)
    moved = {
        region for region, starts in _REGIONS.items()
        if any(row[k] > 0.04 for n, k in _INDEX.items() if n.startswith(starts))
    }  # fmt: skip
    assert {"lids", "mouth"} <= moved
    assert len(moved) >= 3
    for left in (n for n in held(name).weights if n.endswith("Left")):
        right = row[_INDEX[left.removesuffix("Left") + "Right"]]
        assert right < row[_INDEX[left]] < 1.25 * right


def test_no_two_emotions_look_alike():
    rows = {name: at(held(name), 2.5) for name in EMOTIONS}
    for one, other in combinations(rows, 2):
        a, b = rows[one], rows[other]
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) < 0.9, (one, other)


def test_it_rises_before_the_phrase_and_sinks_after_it_without_a_jump():
    smile = held("joy").weights["mouthSmileLeft"]
    assert smile[round(2.5 * FPS)] > 1.2 * smile[round(0.2 * FPS)]
    assert smile[-1] < 0.85 * smile[round(2.5 * FPS)]
    assert smile[-1] > 0.5 * smile[round(2.5 * FPS)]
    assert np.abs(np.diff(smile)).max() < 0.05


def test_surprise_is_quick_and_passes_while_sadness_is_slow_and_stays():
    steps = [Step(0.0, {}), Step(2.0, {"surprise": 1.0, "sadness": 1.0})]
    shown = show(steps, TIMES, Rhythm(6.0, [(0.0, 6.0)]))
    raised, fallen = shown.weights["browOuterUpLeft"], shown.weights["mouthFrownLeft"]
    assert raised[: round(2.0 * FPS)].max() == 0.0
    after = round(2.25 * FPS)
    assert raised[after] / raised.max() > 0.8
    assert fallen[after] / fallen.max() < 0.5
    start = show([Step(0.0, {"surprise": 1.0})], TIMES, Rhythm(6.0, [(0.0, 6.0)]))
    assert start.weights["eyeWideLeft"][-1] < 0.85 * start.weights["eyeWideLeft"].max()


def test_accents_swell_it():
    plain = held("anger").weights["browDownLeft"]
    accented = held("anger", 0.8, Rhythm(6.0, [(1.0, 4.0)], [(2.0, 1.0)])).weights["browDownLeft"]
    assert accented[round(2.05 * FPS)] > 1.05 * accented[round(3.2 * FPS)]
    assert np.ptp(plain[round(2.5 * FPS) : round(3.8 * FPS)]) < 0.01


def test_amounts_scale_and_blends_add_up():
    half, whole = (at(held("sadness", amount), 2.5) for amount in (0.5, 1.0))
    np.testing.assert_allclose(2.0 * half, whole, atol=0.06)
    both = show([Step(0.0, {"joy": 0.5, "surprise": 0.5})], TIMES, RHYTHM)
    assert at(both, 2.5)[_INDEX["mouthSmileLeft"]] > 0.3
    assert at(both, 2.5)[_INDEX["browOuterUpLeft"]] > 0.35
    assert at(both, 2.5).max() <= 1.0


def test_the_frame_rate_changes_nothing():
    sparse = np.arange(60) / 10.0
    steps = [Step(0.0, {"fear": 1.0}), Step(3.0, {"joy": 1.0})]
    fine, coarse = (show(steps, times, RHYTHM).weights for times in (TIMES, sparse))
    for name, curve in coarse.items():
        np.testing.assert_allclose(curve, fine[name][::5], atol=1e-9)


@pytest.fixture(scope="module")
def spoken():
    symbols = ["M", "AA", "P", "IY", "F", "AO", "B", "UW", "V", "EH", "M", "EY", "P", "AA"]
    phones = [Phone(s, 0.6 + 0.13 * i, 0.73 + 0.13 * i) for i, s in enumerate(symbols)]
    weights = articulate(phones, style=SpeakingStyle(), num_frames=300, fps=FPS, blinks=False)
    return phones, weights, measured_demo_head()


def full(name, amount=1.5):
    return show([Step(0.0, {name: amount})], TIMES, Rhythm(6.0, [(0.6, 2.42)]))


def blended(spoken, name, amount=1.5):
    _, weights, mouth = spoken
    speaking = (TIMES > 0.4) & (TIMES < 2.5)
    return blend(
        weights, ARKIT_NAMES, full(name, amount), gap_mm=mouth.curves(weights)["gap_mm"],
        speaking=speaking.astype(float),
    )  # fmt: skip


def rows_of(phones, symbols):
    return [
        round(0.5 * (p.start_seconds + p.end_seconds) * FPS) for p in phones if p.symbol in symbols
    ]


@pytest.mark.parametrize("name", sorted(set(EXPRESSIONS) - {"anger", "disgust"}))  # which sneer
def test_lips_close_and_bite_as_before_and_vowels_stay_vowels(spoken, name):
    phones, weights, mouth = spoken
    after = blended(spoken, name)
    assert after.min() >= 0.0
    opening, before = mouth.opening_mm(after), mouth.opening_mm(weights)
    closed = before < 0.6
    for row in rows_of(phones, "MPB"):
        assert opening[row] < max(1.0, before[row] + 0.3), name
    assert closed.sum() > 10
    for row in rows_of(phones, "FV"):
        assert abs(opening[row] - before[row]) < 1.0
    vowels = rows_of(phones, {"AA", "IY", "AO", "UW", "EH", "EY"})
    assert np.corrcoef(opening[vowels], before[vowels])[0, 1] > 0.9


def test_rounded_lips_are_drawn_apart_less(spoken):
    phones, weights, _ = spoken
    gained = (blended(spoken, "joy", 0.8) - weights)[:, _INDEX["mouthSmileLeft"]]
    assert gained[rows_of(phones, {"UW"})[0]] < 0.7 * gained[rows_of(phones, {"AA"})[0]]


def test_aroused_speech_opens_wider_and_calm_less(spoken):
    _, weights, mouth = spoken
    spans = [
        mouth.opening_mm(w).std()
        for w in (blended(spoken, "calm", 1.0), weights, blended(spoken, "aroused", 1.0))
    ]
    assert spans[0] < 0.9 * spans[1]
    assert spans[2] > 1.1 * spans[1]


def test_in_pauses_the_lips_are_free_and_lids_still_shut(spoken):
    _, weights, mouth = spoken
    weights = weights.copy()
    weights[:, _INDEX["eyeBlinkLeft"]] = 1.0
    shown = Shown({"jawOpen": np.full(300, 0.2), "eyeWideLeft": np.full(300, 0.9)}, np.zeros(300))
    gap = mouth.curves(weights)["gap_mm"]
    after = blend(weights, ARKIT_NAMES, shown, gap_mm=gap, speaking=np.zeros(300))
    assert after[5, _INDEX["jawOpen"]] > 0.15
    assert after[5, _INDEX["eyeWideLeft"]] < 0.05


def test_a_frown_takes_a_smile_away(spoken):
    _, weights, _ = spoken
    weights = weights.copy()
    weights[:, _INDEX["mouthSmileLeft"]] = 0.5
    shown = Shown({"mouthFrownLeft": np.ones(300)}, np.zeros(300))
    after = blend(weights, ARKIT_NAMES, shown, gap_mm=np.zeros(300), speaking=np.zeros(300))
    assert after[0, _INDEX["mouthSmileLeft"]] == pytest.approx(0.15, abs=0.01)
