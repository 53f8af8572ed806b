# SPDX-License-Identifier: GPL-3.0-or-later
"""The 52 shapes on whole heads: what each of them moves, and what none of them moves."""

import numpy as np

from backend.heads.arkit import ARKIT_NAMES
from backend.heads.solve import solve_shapes
from backend.heads.topology import Head, identify

SIDES = ("left", "right")


def test_shapes_move_what_their_names_say(solved):
    corner, pose = solved.at("lip_corner_left"), solved.shape
    assert pose("mouthSmileLeft")[corner, 1] > 4
    assert pose("mouthFrownLeft")[corner, 1] < -4
    assert pose("mouthStretchLeft")[corner, 0] > 5
    assert pose("mouthPucker")[corner, 0] < -3.5
    assert pose("mouthPucker")[solved.at("lip_upper_outer_center"), 2] > 3
    assert pose("mouthLeft")[solved.at("lip_upper_inner_center"), 0] > 5
    assert pose("jawLeft")[solved.at("chin"), 0] > 5
    assert pose("jawForward")[solved.at("chin"), 2] > 4
    assert pose("mouthUpperUpLeft")[solved.at("lip_upper_inner_left_1"), 1] > 2
    assert pose("mouthLowerDownLeft")[solved.at("lip_lower_inner_left_1"), 1] < -2
    assert pose("browInnerUp")[solved.at("brow_left_1"), 1] > 4
    assert pose("browDownLeft")[solved.at("brow_left_2"), 1] < -3
    assert pose("browOuterUpLeft")[solved.at("brow_left_4"), 1] > 4
    assert pose("cheekPuff")[solved.at("cheek_hollow_left"), 0] > 3
    assert pose("noseSneerLeft")[solved.at("nostril_left"), 1] > 2
    for name in ("mouthSmileLeft", "mouthPucker", "jawOpen", "browInnerUp"):
        assert np.abs(pose(name)[solved.at("crown")]).max() == 0.0


def test_nothing_moves_behind_the_ears(solved):
    hinge = min(solved.rest[solved.at(f"jaw_hinge_{side}"), 2] for side in SIDES)
    behind = np.setdiff1d(
        np.flatnonzero(solved.rest[:, 2] < hinge), np.concatenate(list(solved.face.parts.values()))
    )
    assert len(behind) > 500
    assert np.abs(solved.shapes.offsets[:, behind]).max() == 0.0


def test_shapes_of_a_symmetric_head_mirror_each_other(demo):
    mirror = np.array(demo.head.topology.mirror)
    flip = np.array([-1.0, 1.0, 1.0])
    for name in ARKIT_NAMES:
        swapped = name.replace("Left", "*").replace("Right", "Left").replace("*", "Right")
        np.testing.assert_allclose(
            demo.shape(name)[mirror] * flip, demo.shape(swapped), atol=0.02, err_msg=name
        )


def test_shapes_turn_and_scale_with_the_head(demo):
    turn = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    head = demo.head
    moved = Head(250.0 * head.vertices @ turn.T + 40.0, head.corners, head.sizes, head.topology)
    expected = 250.0 * demo.shapes.offsets @ turn.T
    np.testing.assert_allclose(solve_shapes(moved).offsets, expected, atol=0.01)


def test_triangles_or_quads_make_no_difference_to_the_names_and_little_to_the_shapes(demo):
    triangles = demo.head.triangles.astype(np.int32)
    sizes = np.full(len(triangles), 3, np.int32)
    head = Head(demo.head.vertices, triangles.ravel(), sizes, demo.head.topology)
    assert solve_shapes(head).names == ARKIT_NAMES


def test_a_head_without_eyeballs_teeth_and_tongue_still_gets_all_shapes(demo):
    head, skin = demo.head, np.sort(demo.face.skin)
    keep = np.isin(head.triangles, skin).all(axis=1)
    triangles = np.searchsorted(skin, head.triangles[keep]).astype(np.int32)
    points = {n: int(np.searchsorted(skin, i)) for n, i in head.topology.face_points.items()}
    bare = identify(
        head.vertices[skin], triangles.ravel(), np.full(len(triangles), 3), face_points=points
    )
    offsets = solve_shapes(bare).offsets
    assert offsets.shape == (52, len(skin), 3)
    assert np.isfinite(offsets).all()


def test_loose_parts_follow_the_skin_beneath_them(demo):
    head = demo.head
    patch = head.triangles[np.isin(head.triangles, demo.at("brow_left_3")).any(axis=1)]
    numbers, local = np.unique(patch, return_inverse=True)
    lifted = head.vertices[numbers] + 1e-4 * demo.face.frame.axes[2]
    triangles = np.concatenate([head.triangles, local.reshape(-1, 3) + len(head.vertices)])
    with_hair = identify(
        np.concatenate([head.vertices, lifted]),
        triangles.ravel(),
        np.full(len(triangles), 3),
        face_points=head.topology.face_points,
    )
    offsets = solve_shapes(with_hair).offsets[ARKIT_NAMES.index("browOuterUpLeft")]
    np.testing.assert_allclose(offsets[-len(numbers) :], offsets[numbers], atol=1e-5)  # 0.01 mm
