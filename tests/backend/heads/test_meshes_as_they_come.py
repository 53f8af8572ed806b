# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo head, and a free head of others, as programs and artists would hand them over."""

from pathlib import Path

import numpy as np
import pytest

from backend import bundled
from backend.errors import UserError
from backend.heads.find_face_points import find_face_points
from backend.heads.mesh_files import read_head
from backend.heads.shape_checks import check_before, check_shapes
from backend.heads.solve import solve_shapes
from backend.heads.topology import face_frame, identify, load_topology
from tests.backend.heads.variants import (
    dissolved,
    polygons,
    split_everywhere,
    subdivided,
    without,
)

BODY = Path(__file__).resolve().parents[4] / "shared" / "heads" / "mhbody.npz"


@pytest.fixture(scope="module")
def mesh():
    return read_head(bundled.DEMO_HEAD)


def speaks(mesh):
    """Find the points, solve the shapes and check them."""
    head = identify(*mesh, face_points=find_face_points(mesh).face_points)
    solved = solve_shapes(head)
    assert check_before(head) == []
    assert check_shapes(head, solved.offsets) == []
    jaw = solved.offsets[solved.names.index("jawOpen")] / face_frame(head).unit_mm
    assert 10.0 < np.linalg.norm(jaw, axis=1).max() < 60.0
    return head, solved


def in_inches_lying_down(mesh):
    lying = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
    return mesh[0] @ lying / 0.0254 + (100.0, 0.0, -40.0), *mesh[1:]


def with_a_hole(mesh):
    """Some polygons of the back of the head are missing, so all numbers behind them change."""
    back = np.array([mesh[0][p, 1].max() for p in polygons(mesh)])
    return without(mesh, back < np.quantile(back, 0.003))


def with_n_gons(mesh):
    centre = np.array([mesh[0][p].mean(axis=0) for p in polygons(mesh)])
    region = centre[:, 2] > np.quantile(centre[:, 2], 0.75)
    found = dissolved(mesh, region)
    assert found[2].max() == 6
    return found


@pytest.mark.parametrize("change", [in_inches_lying_down, with_a_hole, with_n_gons])
def test_a_changed_head_speaks(mesh, change):
    speaks(change(mesh))


def test_a_dense_head_speaks(mesh):
    dense = subdivided(subdivided(mesh))
    assert len(dense[0]) > 80_000
    speaks(dense)


def test_a_head_of_single_faces_is_found_and_its_copies_move_as_one(mesh):
    parts, was = split_everywhere(with_a_hole(mesh))
    _head, solved = speaks(parts)
    first = np.zeros(was.max() + 1, np.int64)
    first[was] = np.arange(len(was))
    skin = was < load_topology("demo-1").num_vertices  # hairs after it meet at vertices alone
    assert np.array_equal(solved.offsets[:, skin], solved.offsets[:, first[was[skin]]])


def test_half_a_head_is_named(mesh):
    gone = np.array([mesh[0][p, 0].mean() < 0 for p in polygons(mesh)])
    with pytest.raises(UserError, match="half a head"):
        find_face_points(without(mesh, gone))


def test_hair_before_a_face_is_left_out(mesh):
    """A curtain of strands hides half of the face; the points are those of the face behind."""
    head = identify(*mesh)
    frame = face_frame(head)
    corners = np.array([[x, y, 40.0] for x in (-75.0, -22.0, 22.0, 75.0) for y in (-140.0, 90.0)])
    hair = corners * frame.unit_mm @ frame.axes + frame.origin
    count = len(mesh[0])
    strands = np.array([0, 2, 3, 1, 4, 6, 7, 5]) + count
    covered = (
        np.concatenate([mesh[0], hair]),
        np.concatenate([mesh[1], strands]).astype(np.int32),
        np.concatenate([mesh[2], [4, 4]]).astype(np.int32),
    )
    found = find_face_points(covered).face_points
    known = head.topology.face_points
    names = ["lip_corner_left", "lip_upper_inner_center", "nose_tip", "eye_inner_right"]
    at, wanted = (frame.to_face_mm(covered[0][[p[n] for n in names]]) for p in (found, known))
    assert np.linalg.norm((at - wanted)[:, :2], axis=1).max() < 3.0


@pytest.mark.skipif(not BODY.exists(), reason="there are no heads beside the repository")
def test_a_whole_body_of_others_blinks_and_closes_its_lips():
    with np.load(BODY) as data:
        body = data["body|v"].astype(float), data["body|c"], data["body|s"]
    speaks(body)
