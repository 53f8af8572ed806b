# SPDX-License-Identifier: GPL-3.0-or-later
"""Solver of the 52 ARKit blendshapes on any head with face points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.heads.arkit import ARKIT_NAMES
from backend.heads.eye_shapes import lid_shapes
from backend.heads.face_layout import examine
from backend.heads.mesh import polygon_edges
from backend.heads.mouth_shapes import mouth_and_brow_shapes
from backend.heads.part_motion import follow_skin
from backend.heads.placed_figures import PlacedFigures
from backend.heads.topology import Head, weld_head


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
    head, number = weld_head(head)
    face = examine(head)
    placed = PlacedFigures(face)
    shapes = mouth_and_brow_shapes(face, placed) | lid_shapes(face, placed)
    offsets = np.stack([shapes[name] for name in ARKIT_NAMES])
    is_still = face.still.copy()
    is_still[np.setdiff1d(np.arange(len(is_still)), face.skin)] = False
    offsets[:, is_still] = 0.0
    follow_skin(face, offsets, polygon_edges(head.corners, head.sizes))
    own = offsets @ face.frame.axes * face.frame.unit_mm
    return SolvedShapes(ARKIT_NAMES, own.astype(np.float32)[:, number])
