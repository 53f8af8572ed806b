# SPDX-License-Identifier: GPL-3.0-or-later
"""What will look wrong is named with its place; good heads get no warning."""

from dataclasses import replace

import numpy as np
import pytest

from backend.errors import UserError
from backend.heads.shape_checks import check_before, check_shapes, place_of
from backend.heads.topology import Head
from tests.backend.heads.variants import polygons, split


def with_points(head, **points):
    known = replace(head.topology, face_points=head.topology.face_points | points)
    return Head(head.vertices, head.corners, head.sizes, known)


def test_good_heads_get_no_warning(solved):
    assert check_before(solved.head) == []
    assert check_shapes(solved.head, solved.shapes.offsets) == []


def test_a_lid_point_on_the_wrong_place_is_named(demo):
    eye = demo.face.eyes["left"]
    row = eye.rows["upper"]
    above = demo.rest[row[len(row) // 2]] + (0.0, 7.0, 0.0)
    free = np.setdiff1d(
        np.unique(demo.face.skin_triangles), list(demo.face.landmark_vertex.values())
    )
    wrong = int(free[np.linalg.norm(demo.rest[free] - above, axis=1).argmin()])
    head = with_points(demo.head, lid_upper_left_3=wrong)
    (said,) = check_before(head)
    assert said.startswith("The face point lid_upper_left_3 lies ")
    assert "left upper lid" in said


def test_lids_and_lips_that_do_not_meet_are_told_in_mm(demo):
    shapes = demo.shapes.offsets.copy()
    names = demo.shapes.names
    shapes[names.index("eyeBlinkRight")] *= 0.5
    shapes[names.index("mouthClose")] *= 0.7
    lids, lips = check_shapes(demo.head, shapes)
    assert lids.startswith("The lids of the right eye stay ")
    assert 3.0 < float(lids.split("stay ")[1].split(" mm")[0]) < 8.0
    assert lips.startswith("The lips do not close by ")


def test_lips_that_pass_through_each_other_are_told(demo):
    shapes = demo.shapes.offsets.copy()
    shapes[demo.shapes.names.index("mouthClose")] *= 1.4
    assert any("pass through each other" in s for s in check_shapes(demo.head, shapes))


def test_torn_skin_is_named_by_its_place(demo):
    shapes = demo.shapes.offsets.copy()
    chin = demo.at("chin_left")
    near = np.linalg.norm(demo.rest - demo.rest[chin], axis=1) < 4.0
    shapes[demo.shapes.names.index("jawOpen"), near] *= -1.0
    assert any(
        "tears at the left chin in an open jaw" in s for s in check_shapes(demo.head, shapes)
    )
    assert place_of(demo.face, demo.rest[demo.at("lip_corner_right")]) == "the right mouth corner"


def test_a_mouth_that_is_a_fold_is_named_with_its_depth(demo):
    pocket = demo.face.mouth.pocket
    frame, rest = demo.face.frame, demo.rest.copy()
    lips = np.concatenate(list(demo.face.mouth.rows.values()))
    nearest = rest[lips[np.abs(rest[pocket, :1] - rest[lips, 0]).argmin(axis=1)]]
    behind = nearest - rest[pocket]
    rest[pocket, 1:] = (nearest - 2.5 * np.tanh(behind / 2.5))[:, 1:]
    vertices = rest * frame.unit_mm @ frame.axes + frame.origin
    said = check_before(Head(vertices, demo.head.corners, demo.head.sizes, demo.head.topology))
    assert len(said) == 1
    assert said[0].startswith("The mouth is a fold, ")


def test_closed_eyes_are_told_before_the_run(demo):
    names = demo.shapes.names
    shut = [demo.shapes.offsets[names.index(f"eyeBlink{side}")] for side in ("Left", "Right")]
    topology = demo.head.topology
    for moved, words in ((shut[0] + shut[1], "Both eyes are"), (shut[1], "The right eye is")):
        head = Head(demo.head.vertices + moved, demo.head.corners, demo.head.sizes, topology)
        assert check_before(head)[0].startswith(f"{words} closed in the rest shape")


def test_joined_lips_are_named_by_the_vertices_of_the_artists_own_mesh(demo):
    upper, lower = (demo.face.mouth.rows[lip] for lip in ("upper", "lower"))
    middle = len(upper) // 2
    sewn = np.array([upper[middle], lower[middle], upper[middle + 1]], np.int32)
    corners = np.concatenate([demo.head.corners, sewn])
    mesh = (demo.head.vertices, corners, np.append(demo.head.sizes, 3).astype(np.int32))
    eyes = np.array([demo.rest[p, 1].mean() > 0.0 for p in polygons(mesh)])
    parts, was = split(mesh, eyes.astype(int))  # a seam across the eyes
    points = {n: int(np.flatnonzero(was == v)[0]) for n, v in demo.face.landmark_vertex.items()}
    known = replace(demo.head.topology, num_vertices=len(was), face_points=points, parts=())
    with pytest.raises(UserError, match=r"lips are joined: .* in the middle, between") as error:
        check_before(Head(*parts, known))
    named = [
        int(word.rstrip(".")) for word in str(error.value).split() if word.strip(".").isdigit()
    ]
    assert set(was[named[-2:]]) <= set(sewn.tolist())
