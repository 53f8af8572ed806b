# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of a head that are found, and meshes that are refused."""

from dataclasses import replace

import numpy as np
import pytest

from backend.errors import UserError
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.face_layout import examine
from backend.heads.topology import Head, face_frame

SIDES = ("left", "right")


def with_faces(head, triangles):
    corners = np.concatenate([head.triangles, triangles]).ravel()
    return Head(head.vertices, corners, np.full(len(corners) // 3, 3), head.topology)


def test_a_mouth_that_is_sewn_up_is_refused(demo):
    upper, lower = (demo.face.mouth.rows[lip] for lip in ("upper", "lower"))
    middle = len(upper) // 2
    sewn = np.array([[upper[middle], lower[middle], upper[middle + 1]]])
    with pytest.raises(UserError, match="lips are joined"):
        examine(with_faces(demo.head, sewn))


def test_a_gaping_mouth_is_refused(demo):
    vertices = demo.head.vertices + 0.5 * demo.shapes.offsets[ARKIT_NAMES.index("jawOpen")]
    head = Head(vertices, demo.head.corners, demo.head.sizes, demo.head.topology)
    with pytest.raises(UserError, match="stands open by"):
        examine(head)


def test_a_face_point_on_a_loose_part_is_refused(demo):
    points = demo.head.topology.face_points | {"cheek_left": int(demo.face.eyes["left"].ball[0])}
    topology = replace(demo.head.topology, face_points=points)
    head = Head(demo.head.vertices, demo.head.corners, demo.head.sizes, topology)
    with pytest.raises(
        UserError, match="not connected with the nose by the head's faces: cheek_left"
    ):
        examine(head)


def test_a_custom_head_finds_its_eyes_and_teeth_by_position(demo):
    head = demo.head
    points = dict(head.topology.face_points)
    custom = replace(head.topology, name="custom", parts=(), face_points=points)
    face = examine(Head(head.vertices, head.corners, head.sizes, custom))
    for side in SIDES:
        assert face.eyes[side].ball.tolist() == demo.face.eyes[side].ball.tolist()
    assert set(demo.face.parts["teeth_upper"]) <= set(face.parts["teeth_upper"])
    assert set(demo.face.parts["teeth_lower"]) <= set(face.parts["teeth_lower"])


def test_frame_of_the_face_is_upright(solved):
    frame = face_frame(solved.head)
    np.testing.assert_allclose(frame.axes @ frame.axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame.axes) == pytest.approx(1.0)
    crown, chin = solved.rest[solved.at("crown")], solved.rest[solved.at("chin_bottom")]
    assert crown[1] > 60 > -60 > chin[1]
