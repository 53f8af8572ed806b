# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures of the lips in millimetres."""

import numpy as np
import pytest

from backend.heads.arkit import ARKIT_NAMES
from backend.heads.lip_measures import face_point_basis, lip_curves
from backend.heads.topology import FACE_POINT_NAMES, Head
from tests.backend.heads.poses import both


def test_face_point_basis_is_the_same_in_any_space(demo):
    turn = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    head = demo.head
    moved = Head(100.0 * head.vertices @ turn.T, head.corners, head.sizes, head.topology)
    here = face_point_basis(demo.shapes.offsets, head)
    there = face_point_basis(100.0 * demo.shapes.offsets @ turn.T, moved)
    assert here.shape == (52, len(FACE_POINT_NAMES), 3)
    np.testing.assert_allclose(there, here, atol=1e-5)
    chin = here[ARKIT_NAMES.index("jawOpen"), FACE_POINT_NAMES.index("chin"), 1]
    assert chin * 62.0 == pytest.approx(demo.shape("jawOpen")[demo.at("chin"), 1], abs=0.01)


def test_lip_curves_of_open_closed_wide_and_round_lips(solved):
    poses = [{}, {"jawOpen": 1.0}, {"jawOpen": 0.3, "mouthClose": 0.3}]
    poses += [both("mouthStretch"), {"mouthPucker": 1.0}]
    weights = np.array([[pose.get(name, 0.0) for name in ARKIT_NAMES] for pose in poses])
    curves = lip_curves(weights, solved.shapes.offsets, solved.head)
    rest, opened, closed, wide, pursed = range(5)
    assert curves["opening_mm"][rest] == curves["gap_mm"][rest] == 0.0
    assert 25.0 < curves["opening_mm"][opened] <= curves["gap_mm"][opened] < 36.0
    assert curves["gap_mm"][closed] < 0.3
    assert curves["width_mm"][wide] > curves["width_mm"][rest] + 10
    assert curves["width_mm"][pursed] < curves["width_mm"][rest] - 8
    assert curves["protrusion_mm"][pursed] > 3
