# SPDX-License-Identifier: GPL-3.0-or-later
"""Solver of the 52 ARKit blendshapes on any head with face points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from backend.heads.arkit import ARKIT_NAMES
from backend.heads.eye_shapes import lid_shapes
from backend.heads.face_layout import FaceLayout, examine
from backend.heads.mouth_shapes import mouth_and_brow_shapes
from backend.heads.placed_figures import PlacedFigures
from backend.heads.topology import Head


@dataclass(frozen=True, slots=True)
class SolvedShapes:
    """The blendshapes of one head.

    Attributes:
        names: Names of the shapes, ``ARKIT_NAMES``.
        offsets: Displacements at weight 1 in the head's own space, ``(52, V, 3)`` float32.
    """

    names: tuple[str, ...]
    offsets: NDArray[np.float32]


def solve_shapes(head: Head) -> SolvedShapes:
    """Computes the 52 shapes on a head; takes about a second for 5,000 vertices.

    Args:
        head: A head with all face points.

    Returns:
        The shapes, which depend on the head alone.

    Raises:
        UserError: The mesh does not let the face move; see ``face_layout.examine``.
    """
    face = examine(head)
    placed = PlacedFigures(face)
    shapes = mouth_and_brow_shapes(face, placed) | lid_shapes(face, placed)
    offsets = np.stack([shapes[name] for name in ARKIT_NAMES])
    balls = np.concatenate([eye.ball for eye in face.eyes.values()])
    is_still = face.still.copy()
    is_still[np.concatenate([balls, *face.parts.values()])] = False
    offsets[:, is_still] = 0.0
    _attach(face, offsets)
    own = offsets @ face.frame.axes * face.frame.unit_mm
    return SolvedShapes(ARKIT_NAMES, own.astype(np.float32))


def _attach(face: FaceLayout, offsets: NDArray[np.float64]) -> None:
    """Parts of no role (lashes, brow hair, a beard) follow the skin beneath them."""
    attached = face.parts["attached"]
    if len(attached):
        outside = np.unique(face.skin_triangles)
        _, nearest = cKDTree(face.points[outside]).query(face.points[attached])
        offsets[:, attached] = offsets[:, outside[nearest]]
