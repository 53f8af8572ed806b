# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks that do not fit a face: the sentence says which one to look at."""

import json
from pathlib import Path

import numpy as np
import pytest

from ptalker_blender import face_point_fit
from ptalker_blender.face_point_fit import Surface
from ptalker_blender.protocol import UserError

BACKEND = Path(__file__).resolve().parents[2] / "backend"
MARKED = (
    "lip_corner_left", "lip_corner_right", "lip_upper_inner_center", "lip_lower_inner_center",
    "nose_tip", "chin", "eye_outer_left", "eye_outer_right",
)  # fmt: skip


@pytest.fixture(scope="module")
def demo():
    with np.load(BACKEND / "demo" / "head.npz") as data:
        surface = Surface.of(*(data[k] for k in ("vertices", "face_corners", "face_sizes")))
    return surface, json.loads((BACKEND / "topologies" / "demo.json").read_text())["face_points"]


@pytest.mark.parametrize("wrong", ["chin", "lip_corner_left", "nose_tip"])
def test_the_point_that_does_not_fit_is_named(demo, wrong):
    surface, points = demo
    marks = {name: points[name] for name in MARKED} | {wrong: points["head_back"]}
    with pytest.raises(UserError, match=f"do not fit a face: {wrong} lies farthest"):
        face_point_fit.transfer(surface, points, surface, marks)


def test_mixed_up_sides_are_told_as_such(demo):
    surface, points = demo
    marks = {name: points[face_point_fit.other_side(name)] for name in MARKED}
    with pytest.raises(UserError, match="left and right are mixed up"):
        face_point_fit.transfer(surface, points, surface, marks)
