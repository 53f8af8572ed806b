# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads with their solved shapes."""

import numpy as np
import pytest

from backend import bundled
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.face_layout import examine
from backend.heads.solve import solve_shapes
from backend.heads.topology import Head, identify, read_head


class Solved:
    """A head with its shapes, in the face's axes and millimetres."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.face = examine(head)
        self.shapes = solve_shapes(head)
        self.offsets = self.face.frame.offsets_to_face_mm(self.shapes.offsets)
        self.rest = self.face.points

    def shape(self, name):
        return self.offsets[ARKIT_NAMES.index(name)]

    def pose(self, weights):
        moved = [weight * self.shape(name) for name, weight in weights.items()]
        return self.rest + sum(moved, np.zeros_like(self.rest))

    def at(self, name):
        return self.face.landmark_vertex[name]


@pytest.fixture(scope="session")
def demo():
    return Solved(identify(*read_head(bundled.DEMO_HEAD)))


@pytest.fixture(scope="session", params=["demo", "flame"])
def solved(request, demo):
    if request.param == "demo":
        return demo
    return Solved(identify(*read_head(request.getfixturevalue("flame_head"))))
