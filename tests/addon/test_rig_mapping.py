# SPDX-License-Identifier: GPL-3.0-or-later
"""Driving keys that a head already has."""

from fractions import Fraction

import numpy as np
import pytest

from ptalker_blender import rig_mapping, rig_names
from ptalker_blender.motion import Motion

RNG = np.random.default_rng(3)
OCULUS = ["sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "I", "O", "U"]


def motion_of(weights, shapes, names):
    return Motion(
        weights=np.asarray(weights, np.float32),
        shapes=np.asarray(shapes, np.float32),
        names=tuple(names),
        template=RNG.random((shapes.shape[1], 3)).astype(np.float32),
        fps=Fraction(25),
        start_seconds=0.0,
        report={},
    )


def test_exact_names_take_the_weights_as_they_are():
    shapes = RNG.normal(size=(3, 50, 3))
    motion = motion_of(RNG.random((20, 3)), shapes, ["jawOpen", "mouthClose", "mouthPucker"])
    rig = rig_mapping.find_rig(["mouthPucker", "other", "jawOpen", "mouthClose"], motion.names)
    assert rig.kind == 'ARKIT'
    keyed = rig_mapping.drive(motion, rig, shapes[[2, 0, 1]].astype(np.float32))
    np.testing.assert_array_equal(keyed.weights, motion.weights[:, [2, 0, 1]])
    assert keyed.shapes is None
    assert keyed.residual_max < 1e-5


def arkit_motion(num_frames=5):
    shapes = RNG.normal(size=(52, 30, 3))
    return motion_of(np.ones((num_frames, 52)), shapes, rig_names.ARKIT_NAMES)


def test_names_that_are_missing_are_said():
    motion = arkit_motion()
    known = [name for name in rig_names.ARKIT_NAMES if not name.startswith(("brow", "tongue"))]
    rig = rig_mapping.find_rig(known, motion.names)
    offsets = motion.shapes[[motion.names.index(name) for name in known]]
    keyed = rig_mapping.drive(motion, rig, offsets)
    assert "browDownLeft" in keyed.warnings[0]
    assert "1 more" in keyed.warnings[0]
    assert keyed.residual_max > 0
    assert rig.summary == (
        "46 of 52 ARKit shape keys are driven; not found: browDownLeft, browDownRight, "
        "browInnerUp, browOuterUpLeft, browOuterUpRight and 1 more."
    )


def test_keys_that_are_left_alone_are_said():
    rig = rig_mapping.find_rig([*rig_names.ARKIT_NAMES, "mouthSmile"])
    assert "mouthSmile" not in rig.names
    assert rig.summary.endswith("could mean two things: mouthSmile.")


def test_one_name_drives_both_halves_and_one_key_takes_the_mean_of_two_sides():
    motion = arkit_motion()
    motion.weights[:, motion.names.index("eyeBlinkLeft")] = 0.2
    keys = [n for n in rig_names.ARKIT_NAMES if not n.startswith(("eyeBlink", "cheekPuff"))]
    keys += ["eyeBlink", "cheekPuff_L", "cheekPuff_R"]
    rig = rig_mapping.find_rig(keys)
    keyed = rig_mapping.drive(motion, rig, None)
    values = dict(zip(keyed.names, keyed.weights.T, strict=True))
    np.testing.assert_allclose(values["eyeBlink"], 0.6)
    np.testing.assert_array_equal(values["cheekPuff_L"], 1.0)
    np.testing.assert_array_equal(values["cheekPuff_R"], 1.0)
    assert not keyed.warnings


def test_keys_of_eyes_and_brows_without_a_jaw_are_no_rig():
    keys = [name for name in rig_names.ARKIT_NAMES if name.startswith(("eye", "brow"))]
    assert rig_mapping.find_rig(keys) is None


def test_visemes_come_before_a_jaw_without_lips():
    eyes = [name for name in rig_names.ARKIT_NAMES if name.startswith(("eye", "brow"))]
    rig = rig_mapping.find_rig([*eyes, "jawOpen", *(f"viseme_{name}" for name in OCULUS)])
    assert rig.kind == 'VISEMES'
    assert set(rig.gains) == set(eyes)
    assert "jawOpen" not in rig.names


def test_visemes_of_an_unknown_head_follow_the_motion_by_their_names():
    motion = arkit_motion(40)
    openness = 0.5 - 0.5 * np.cos(np.arange(40) * 0.3)
    motion.weights[:] = 0
    for name, weight in rig_names.MOUTH_SHAPES["aa"].items():
        motion.weights[:, motion.names.index(name)] = weight * openness
    motion.weights[5, motion.names.index("eyeBlinkLeft")] = 1.0
    rig = rig_mapping.find_rig([*"AIUEO", "Blink_L", "Blink_R"])
    keyed = rig_mapping.drive(motion, rig, None)
    values = dict(zip(keyed.names, keyed.weights.T, strict=True))
    np.testing.assert_allclose(values["A"], openness, atol=0.05)
    assert max(values[name].max() for name in "IUEO") < 0.1
    assert values["Blink_L"][5] == 1.0
    assert values["Blink_R"].max() == 0.0


def test_visemes_of_joined_meshes_get_the_same_values():
    motion = arkit_motion(20)
    names = [f"{part}_{vowel}" for part in ("Face", "Teeth") for vowel in "AIUEO"]
    keyed = rig_mapping.drive(motion, rig_mapping.find_rig(names), None)
    np.testing.assert_array_equal(keyed.weights[:, :5], keyed.weights[:, 5:])


def test_five_visemes_are_fitted_on_the_vertices_of_a_known_head():
    motion = arkit_motion(20)
    motion.weights[:] *= 0.2
    rig = rig_mapping.find_rig(list("AIUEO"))
    offsets = rig_mapping.mouth_offsets(motion, rig.fitted.values())
    keyed = rig_mapping.drive(motion, rig, offsets)
    expected = rig_mapping.drive(motion, rig, None)
    np.testing.assert_allclose(keyed.weights, expected.weights, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ([f"viseme_{name}" for name in OCULUS], 'VISEMES'),
        (list(OCULUS), 'VISEMES'),
        (["viseme_ih", "viseme_oh", "viseme_ou", "PP", "FF", "TH", "DD", "kk"], 'VISEMES'),
        ([f"Exp{i}" for i in range(1, 51)], 'EXPRESSIONS'),
        ([f"exp_{i:03d}" for i in range(10)], 'EXPRESSIONS'),
    ],
)
def test_known_sets_are_found(names, kind):
    assert rig_mapping.find_rig(["Key 1", *names]).kind == kind


def test_other_keys_are_no_rig():
    assert rig_mapping.find_rig([], {"jawOpen", "a", "b"}) is None
    assert rig_mapping.find_rig(["Smile", "Blink"], {"jawOpen", "a", "b"}) is None


def test_fit_finds_weights_that_exist():
    offsets = RNG.normal(size=(6, 80, 3)).astype(np.float32)
    true = np.abs(np.sin(np.arange(60)[:, None] * 0.05 * np.arange(1, 7))).astype(np.float32)
    mixing = np.linalg.qr(RNG.normal(size=(6, 6)))[0].astype(np.float32)
    shapes = np.tensordot(mixing, offsets, 1)
    found = rig_mapping.fit(true @ mixing.T, shapes, offsets, bounds=(0.0, 1.0), smoothing=1e-6)
    np.testing.assert_allclose(found, true, atol=5e-3)


def test_lips_count_more_than_the_rest_of_the_face():
    num_vertices = 400
    upper, lower = slice(0, 10), slice(10, 20)
    shapes = np.zeros((3, num_vertices, 3))
    shapes[0, upper, 1], shapes[1, lower, 1] = 0.2, -0.2  # the rolls: where the lips are
    shapes[2, lower, 1], shapes[2, 20:, 1] = -1.0, -1.0  # the jaw
    names = ("mouthRollUpper", "mouthRollLower", "jawOpen")
    weights = np.zeros((30, 3))
    weights[:, 2] = 1.0  # the jaw is open and ...
    weights[:, 1] = -5.0  # ... the lower lip goes up: closed
    motion = motion_of(weights, shapes, names)
    keys = [f"viseme_{name}" for name in OCULUS[:8]]
    offsets = np.zeros((8, num_vertices, 3), np.float32)
    offsets[0] = shapes[2]  # the rig cannot close the lips with the jaw open
    keyed = rig_mapping.drive(motion, rig_mapping.find_rig(keys, names), offsets)
    assert keyed.weights[:, 0].max() < 0.45
    plain = rig_mapping.fit(motion.weights, motion.shapes, offsets, bounds=(0.0, 1.0))
    assert plain[:, 0].min() > 0.9


def test_fit_keeps_its_bounds():
    offsets = RNG.normal(size=(2, 20, 3)).astype(np.float32)
    weights = np.array([[2.0, -1.0]] * 5, np.float32)
    found = rig_mapping.fit(weights, offsets, offsets, bounds=(0.0, 1.0))
    assert found.min() >= 0
    assert found.max() <= 1


def test_fit_of_nearly_equal_keys_stays_smooth():
    base = RNG.normal(size=(1, 60, 3))
    offsets = np.concatenate([base, base + 0.01 * RNG.normal(size=base.shape)]).astype(np.float32)
    clean = 0.5 + 0.4 * np.sin(np.arange(100) * 0.2)
    noisy = (clean + 0.05 * RNG.normal(size=100)).astype(np.float32)[:, None]
    rough = rig_mapping.fit(noisy, offsets[:1], offsets, bounds=(0.0, 1.0), smoothing=1e-9)
    smooth = rig_mapping.fit(noisy, offsets[:1], offsets, bounds=(0.0, 1.0), smoothing=1.0)
    assert np.abs(np.diff(smooth, axis=0)).max() < np.abs(np.diff(rough, axis=0)).max()


def test_residual_is_measured_on_the_vertices_that_move():
    shapes = np.zeros((1, 10, 3), np.float32)
    shapes[0, :2, 0] = 1.0
    motion = motion_of(np.ones((4, 1)), shapes, ["jawOpen"])
    mean, largest = rig_mapping.residual(motion, np.zeros((4, 1), np.float32), shapes)
    assert mean == pytest.approx(1.0)
    assert largest == pytest.approx(1.0)
