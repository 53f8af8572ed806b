# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of jaw, lips and tongue: lips that meet, and never pass through each other."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from backend.heads.render import COMBINATIONS
from tests.backend.heads.poses import both, samples

CLOSED_POSES = {
    "rest": {},
    "m": COMBINATIONS["m"],
    "p": COMBINATIONS["p"],
    "wide open jaw": {"jawOpen": 0.6, "mouthClose": 0.6},
    "m in a smile": {"jawOpen": 0.2, "mouthClose": 0.2} | both("mouthSmile", 0.6),
    "m before oo": {"jawOpen": 0.2, "mouthClose": 0.2, "mouthPucker": 0.7},
    "jaw aside": {"jawLeft": 1.0, "jawForward": 0.5},
    "pucker": {"mouthPucker": 1.0},
    "smile": both("mouthSmile"),
    "half a smile": {"mouthSmileLeft": 1.0},
    "frown": both("mouthFrown"),
    "stretch": both("mouthStretch"),
    "dimples": both("mouthDimple"),
    "press": both("mouthPress"),
    "rolls": {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    "shrugs": {"mouthShrugLower": 1.0, "mouthShrugUpper": 1.0},
    "puff": {"cheekPuff": 1.0},
    "aside": {"mouthLeft": 1.0},
}


def partings(solved, pose, *, by_height=False):
    """How far each vertex of a contact row moved off the place of the other lip it touches, mm.

    Against the rest shape, since the lips of scanned heads overlap at rest; along the lips'
    normal, since lips may slide on each other, or by height alone. Positive parts the lips.
    """
    rows = solved.face.mouth.rows
    result = []
    for lip, other, up in (("upper", "lower", 1.0), ("lower", "upper", -1.0)):
        start, along, places = samples(solved.rest, rows[other])
        own = rows[lip][1:-1]
        nearest = cKDTree(places).query(solved.rest[own])[1]
        ends = rows[other][start[nearest]], rows[other][start[nearest] + 1]
        distances = []
        for positions in (pose, solved.rest):
            a, b = positions[ends[0]], positions[ends[1]]
            tangent = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
            normal = np.array([0.0, up, 0.0]) - (up * tangent[:, 1])[:, None] * tangent
            if by_height:
                normal = np.tile([0.0, up, 0.0], (len(own), 1))
            normal /= np.linalg.norm(normal, axis=1, keepdims=True)
            away = positions[own] - (a + along[nearest][:, None] * (b - a))
            distances.append((away * normal).sum(axis=1))
        result.append(distances[0] - distances[1])
    return np.concatenate(result)


@pytest.mark.parametrize("name", CLOSED_POSES)
def test_closed_lips_stay_closed_along_the_whole_line(solved, name):
    parting = partings(solved, solved.pose(CLOSED_POSES[name]))
    assert np.abs(parting).max() <= 0.3


@pytest.mark.parametrize("name", ["mouthFunnel", "mouthRollLower", "mouthRollUpper"])
@pytest.mark.parametrize("other", ["mouthUpperUpLeft", "mouthLowerDownRight", "jawOpen"])
def test_opening_shapes_never_push_the_lips_through_each_other(solved, name, other):
    """Where a lip rolls in, its row slides back by a centimetre, so heights are compared."""
    pose = solved.pose({name: 1.0, other: 0.7})
    assert partings(solved, pose, by_height="Roll" in name).min() >= -0.3


def test_a_sneer_lifts_the_upper_lip_off_the_lower_one(solved):
    parting = partings(solved, solved.pose(both("noseSneer")))
    assert parting.min() >= -0.3
    assert 3.0 < parting.max() < 8.0


def clearances(solved, pose, lip):
    """How far each vertex of a lip's contact row is off the other lip's surface, straight up or
    down, mm; NaN where the other lip is not above or below it, less than 0 within it."""
    mouth = solved.face.mouth
    other = np.zeros(len(pose), dtype=bool)
    other[mouth.lips[mouth.is_upper == (lip == "lower")]] = True
    other[mouth.rows["lower" if lip == "upper" else "upper"]] = True
    triangles = solved.head.triangles[other[solved.head.triangles].all(axis=1)]
    found = []
    for vertex in mouth.rows[lip][1:-1]:
        a, b, c = (pose[triangles[:, k]][:, [0, 2]] for k in range(3))
        p = pose[vertex, [0, 2]]
        area = cross(b - a, c - a)
        weights = np.stack([cross(b - p, c - p), cross(c - p, a - p), cross(a - p, b - p)], axis=1)
        weights = weights / np.where(np.abs(area) > 1e-9, area, np.inf)[:, None]
        hit = (weights > 0).all(axis=1)
        gaps = pose[vertex, 1] - (weights[hit] * pose[triangles[hit], 1]).sum(axis=1)
        found.append(min(gaps, key=abs, default=np.nan))
    return np.array(found) * (1.0 if lip == "upper" else -1.0)


def cross(a, b):
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


@pytest.mark.parametrize("name", ["m", "p", "pucker", "press", "rolls", "half a smile", "shrugs"])
def test_no_lip_dips_into_the_other(solved, name):
    """Beyond rest, where the lips of scanned heads overlap already; rolled in they are hidden."""
    pose, rest = (
        np.concatenate([clearances(solved, points, lip) for lip in ("upper", "lower")])
        for points in (solved.pose(CLOSED_POSES[name]), solved.rest)
    )
    allowed = 0.7 if name == "rolls" else 0.3
    assert np.nanmin(pose - np.nan_to_num(np.minimum(rest, 0.0))) >= -allowed


def test_jaw_opens_the_mouth_by_28_to_34_mm_and_carries_chin_and_lip(solved):
    pose = solved.pose({"jawOpen": 1.0})
    moved = pose - solved.rest
    inner = [solved.at(f"lip_{lip}_inner_center") for lip in ("upper", "lower")]
    assert 28.0 <= moved[inner[0], 1] - moved[inner[1], 1] <= 34.0
    assert np.linalg.norm(moved[inner[0]]) < 4.0
    assert moved[solved.at("chin"), 1] < -20.0
    assert np.abs(moved[[solved.at("nose_tip"), solved.at("nose_root")]]).max() < 0.8


def test_open_mouth_narrows_towards_its_corners(solved):
    curve = solved.pose({"jawOpen": 1.0}) - solved.rest
    gaps = [
        curve[solved.at(f"lip_upper_inner_{place}"), 1]
        - curve[solved.at(f"lip_lower_inner_{place}"), 1]
        for place in ("center", "left_1", "left_2", "left_3")
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[3] < 0.8 * gaps[0]


def test_open_mouth_keeps_its_inside_behind_the_lips(solved):
    """The inside may not overshoot: it moves no farther than the jaw carries the lower lip."""
    moved = np.linalg.norm(solved.shape("jawOpen"), axis=1)
    lips = solved.face.mouth.rows["lower"]
    chin = moved[solved.at("chin")]
    assert moved[solved.face.mouth.pocket].max() <= max(moved[lips].max(), chin) + 0.5


def test_one_sided_shapes_leave_the_other_corner(solved):
    for name in ("mouthSmile", "mouthFrown", "mouthStretch", "mouthDimple"):
        moved = np.linalg.norm(solved.shape(f"{name}Left"), axis=1)
        assert moved[solved.at("lip_corner_right")] == pytest.approx(0.0, abs=1e-6)


def test_teeth_follow_the_jaw_rigidly_or_stay(demo):
    teeth = demo.face.parts["teeth_lower"]
    opened = demo.pose({"jawOpen": 1.0})[teeth]
    distances = np.linalg.norm(opened[:, None] - opened[None], axis=2)
    at_rest = np.linalg.norm(demo.rest[teeth][:, None] - demo.rest[teeth][None], axis=2)
    np.testing.assert_allclose(distances, at_rest, atol=1e-3)
    assert np.abs(demo.offsets[:, demo.face.parts["teeth_upper"]]).max() == 0.0
    assert np.abs(demo.shape("mouthClose")[teeth]).max() < 1e-5


def test_tongue_comes_out_only_where_there_is_one(solved):
    tongue = solved.face.parts["tongue"]
    shape = solved.shape("tongueOut")
    if len(tongue):
        tip = tongue[solved.rest[tongue, 2].argmax()]
        assert shape[tip, 2] > 8
    shape[tongue] = 0.0
    assert np.abs(shape).max() == 0.0
