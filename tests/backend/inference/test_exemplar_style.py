# SPDX-License-Identifier: GPL-3.0-or-later
"""Rest and parts of an exemplar, gains of a style, and the file that keeps them."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from backend import bundled
from backend.articulation.coarticulation import articulate
from backend.articulation.speaking_style import SpeakingStyle
from backend.errors import UserError
from backend.heads.arkit import ARKIT_NAMES, CLOSED_MM
from backend.heads.lip_measures import lip_curves
from backend.inference.curve_files import Curves
from backend.inference.exemplar_parts import IS_UPPER, is_speaking, rest_of, without_rest
from backend.inference.style_files import StyleCode, read_style, write_style
from backend.inference.style_gains import Figures, Gains, StyleGains, fit_speech, fit_upper_face
from backend.motion import Layers
from backend.speech.phones import Phone

FPS = 50
JAW, SQUINT = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("eyeSquintLeft")
ALL = np.ones(52, bool)


def said(style=None, repeats=1):
    """The demo's sentence by the rules."""
    rows = json.loads(bundled.DEMO_PHONES.read_text("utf-8"))
    end = rows[-1][2]
    phones = [
        Phone(symbol, a + n * end, b + n * end) for n in range(repeats) for symbol, a, b in rows
    ]
    style = style or SpeakingStyle.neutral()
    frames = round(repeats * end * FPS)
    return articulate(phones, style=style, num_frames=frames, fps=FPS, blinks=False)


@pytest.fixture(scope="module")
def lips(solved_demo_head):
    head, solved = solved_demo_head
    order = [solved.names.index(name) for name in ARKIT_NAMES]
    return lambda weights: lip_curves(weights, solved.offsets[order], head)


def gains_of(wanted, made, lips):
    figures = Figures.of(wanted[is_speaking(wanted, FPS)], ALL)
    speaks = is_speaking(made, FPS)
    known = fit_speech(figures, made[speaks], lips(made)["gap_mm"][speaks])
    return StyleGains(known, figures, float(made[speaks, JAW].std()))


def test_a_constant_offset_is_the_rest_and_nothing_else_is():
    speech = np.concatenate([said(), np.zeros((50, 52), np.float32)])
    offset = np.zeros(52, np.float32)
    offset[SQUINT], offset[JAW], offset[ARKIT_NAMES.index("mouthFrownLeft")] = 0.34, 0.03, 0.1
    rest = rest_of(speech + offset, FPS)
    np.testing.assert_allclose(rest, offset, atol=0.01)
    np.testing.assert_allclose(without_rest(speech + offset, rest), speech, atol=0.011)


def test_a_face_that_never_rests_keeps_its_mouth():
    speech = said()
    speech[:, ~IS_UPPER] += 0.1 + 0.05 * np.sin(np.arange(len(speech)) / 3)[:, None]
    speech[:, SQUINT] = 0.3
    rest = rest_of(speech, FPS)
    assert (rest[~IS_UPPER] == 0.0).all()
    assert rest[SQUINT] == pytest.approx(0.3)


def test_a_named_frame_is_the_rest():
    speech = said()
    np.testing.assert_array_equal(rest_of(speech, FPS, 30), speech[30])


@pytest.mark.parametrize("spread", [0.05, 0.09, 0.14])
def test_the_spread_of_the_jaw_arrives_within_a_fifth(lips, spread):
    made = said(repeats=2)
    other = SpeakingStyle(smile=1.0, rounding=1.0, upper_lip=1.0, spread=1.0, press=1.0)
    wanted = said(other)
    wanted[:, JAW] *= spread / wanted[is_speaking(wanted, FPS), JAW].std()
    result = gains_of(wanted, made, lips).on_speech(made, ARKIT_NAMES, lips, FPS, 1.0)
    assert result[is_speaking(made, FPS), JAW].std() == pytest.approx(spread, rel=0.2)

    def missed(motion):
        both = motion[is_speaking(motion, FPS)], wanted[is_speaking(wanted, FPS)]
        differences = both[0].mean(0) - both[1].mean(0), both[0].std(0) - both[1].std(0)
        return [np.abs(difference[~IS_UPPER]).mean() for difference in differences]

    for now, before in zip(missed(result), missed(made), strict=True):
        assert now < 0.5 * before


def test_lips_are_shut_when_they_were_and_at_no_other_time(lips):
    made = said()
    for spread in (0.3, 3.0):
        wanted = np.clip(spread * said(SpeakingStyle(smile=1.0)), 0, 1).astype(np.float32)
        result = gains_of(wanted, made, lips).on_speech(made, ARKIT_NAMES, lips, FPS, 1.0)
        before, after = lips(made)["opening_mm"], lips(result)["opening_mm"]
        changed = (before < CLOSED_MM) != (after < CLOSED_MM)
        assert not changed.any(), (spread, before[changed], after[changed])
        assert np.abs(result - made).max() > 0.05


def test_strength_scales_the_gains_and_none_leave_everything(lips):
    made = said()
    gains = gains_of(said(SpeakingStyle(jaw=1.0)), made, lips)
    results = [gains.on_speech(made, ARKIT_NAMES, lips, FPS, s) for s in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(results[0], made, atol=1e-6)
    moved = [np.abs(result - made).mean() for result in results]
    assert moved[0] < moved[1] < moved[2]
    unchanged = Gains.none().on_speech(made, ARKIT_NAMES, lips(made)["gap_mm"], 1.0)
    np.testing.assert_allclose(unchanged, made, atol=1e-6)


def test_a_murmur_keeps_what_is_less(lips):
    made = said(repeats=2)
    gains = gains_of(said(SpeakingStyle(jaw=0.8)), made, lips)
    loud = gains.on_speech(made, ARKIT_NAMES, lips, FPS, 1.0)
    quiet = gains.on_speech(0.3 * made, ARKIT_NAMES, lips, FPS, 1.0)
    assert quiet[:, JAW].std() < 0.6 * loud[:, JAW].std()


def test_brows_go_as_far_as_the_exemplars_and_lids_stay_within_one():
    rng = np.random.default_rng(0)
    own = rng.uniform(0, 0.1, (200, 52))
    factors = Gains(fit_upper_face(Figures.of(3 * own, ALL), own), np.zeros(52))
    scaled = factors.of_upper_face(ARKIT_NAMES, 1.0)
    for name in ("browInnerUp", "eyeSquintLeft"):
        assert scaled[ARKIT_NAMES.index(name)] == pytest.approx(3.0, rel=1e-3)
    for name in ("eyeBlinkLeft", "eyeLookUpLeft", "jawOpen"):
        assert scaled[ARKIT_NAMES.index(name)] == 1.0
    np.testing.assert_array_equal(factors.of_upper_face(ARKIT_NAMES, 0.0), 1.0)
    none = np.zeros((9, 52), np.float32)
    layers = Layers(none, none + 0.2, none + 0.3, none, np.zeros((9, 3)), np.eye(3))
    total = layers.with_upper_face_times(4.0 * scaled).total()
    assert total.max() == pytest.approx(1.0)  # none beyond, though three times would be
    kept = layers.with_upper_face_times(np.ones(52, np.float32)).total()
    np.testing.assert_allclose(kept, 0.5, atol=1e-6)


def test_gains_are_kept_in_the_file_and_old_files_are_read(tmp_path, lips):
    gains = gains_of(said(SpeakingStyle(jaw=1.0)), said(), lips)
    path = tmp_path / "s.json"
    write_style(path, StyleCode(np.ones(4, np.float32), "m", "me", gains))
    read = read_style(path).gains
    np.testing.assert_allclose(read.known.gain, gains.known.gain, atol=1e-4)
    np.testing.assert_allclose(read.figures.spread, gains.figures.spread, atol=1e-4)
    stored = json.loads(path.read_text())
    assert stored["format_version"] == 2
    for key in ("gains", "jaw_spread"):
        del stored[key]
    path.write_text(json.dumps({**stored, "format_version": 1}))
    assert read_style(path).gains is None
    write_style(path, replace(read_style(path), source="again"))
    assert "gains" not in json.loads(path.read_text())


@pytest.mark.parametrize(
    "changes",
    [
        {"gains": []}, {"gains": {"jawOpen": 2}}, {"gains": {"jawOpen": [1]}},
        {"gains": {"jawOpen": [99, 0]}}, {"gains": {"jawOpen": ["a", 0]}},
        {"gains": {"nose": [1, 0]}}, {"jaw_spread": None}, {"jaw_spread": -1},
        {"format_version": 3}, {"format_version": "2"},
    ],
)  # fmt: skip
def test_damaged_gains_are_refused(tmp_path, lips, changes):
    path = tmp_path / "s.json"
    gains = StyleGains(Gains.none(), Figures(*np.full((2, 52), np.nan)), 0.1)
    gains.known.gain[JAW] = 1.5
    write_style(path, StyleCode(np.ones(4, np.float32), "m", "me", gains))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match="again"):
        read_style(path)


def test_a_capture_gives_a_style_without_a_head(tiny_checkpoint, lips):
    pytest.importorskip("torch")
    from backend.inference.predictor import open_predictor
    from tests.backend.inference.test_predictor import predict, voice

    predictor = open_predictor(tiny_checkpoint, "torch", "cpu")
    weights = said(SpeakingStyle(jaw=1.0))
    capture = Curves(weights, frozenset(ARKIT_NAMES), float(FPS))
    warnings = []
    style = predictor.exemplar_style(capture, warnings.append)
    assert warnings == []
    assert style.gains.figures.spread[JAW] == pytest.approx(
        weights[is_speaking(weights, FPS), JAW].std(), rel=0.1
    )
    browed = weights.copy()
    browed[:, ARKIT_NAMES.index("browInnerUp")] = 0.5 + 0.4 * np.sin(np.arange(len(weights)) / 40)
    with_brows = predictor.exemplar_style(
        Curves(browed, frozenset(ARKIT_NAMES), float(FPS)), warnings.append
    )
    np.testing.assert_allclose(with_brows.code, style.code, atol=1e-5)
    with pytest.raises(UserError, match="neutral frame"):
        predictor.exemplar_style(capture, warnings.append, len(weights))
    still = Curves(np.full_like(weights, 0.2), frozenset(ARKIT_NAMES), float(FPS))
    with pytest.raises(UserError, match="No mouth moves"):
        predictor.exemplar_style(still, warnings.append)
    with pytest.raises(UserError, match=r"at least 0\.5 s"):
        predictor.exemplar_style(replace(capture, weights=weights[:9]), warnings.append)
    from backend.inference.exemplar_style import _demo_head

    motion, _ = predict(
        predictor, _demo_head(), voice(2.0), Fraction(25), style=style, upper_face_strength=0.5
    )
    assert np.isfinite(motion.weights).all()
    assert motion.report["upper_face_strength"] == 0.5
