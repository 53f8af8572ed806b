# SPDX-License-Identifier: GPL-3.0-or-later
"""The 52 articulation shapes with ARKit's names, computed on any head from its face points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from backend.heads.arkit import ARKIT_NAMES
from backend.heads.eye_shapes import lid_shapes
from backend.heads.face_layout import FaceLayout, examine
from backend.heads.mouth_shapes import mouth_and_brow_shapes
from backend.heads.topology import Head, face_frame


@dataclass(frozen=True, slots=True)
class SolvedShapes:
    """The shapes of one head.

    Attributes:
        names: ``ARKIT_NAMES``.
        offsets: ``(52, V, 3)`` float32, displacements at weight 1 in the head's own space.
    """

    names: tuple[str, ...]
    offsets: NDArray[np.float32]


def solve_shapes(head: Head) -> SolvedShapes:
    """Compute the 52 shapes on a head.

    Takes about a second for 5,000 vertices; the result depends on nothing but the head.

    Raises:
        UserError: The mesh does not let the face move; see `backend.heads.face_layout.examine`.
    """
    face = examine(head)
    shapes = mouth_and_brow_shapes(face) | lid_shapes(face)
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


def node_basis(shapes: NDArray[np.floating], head: Head) -> NDArray[np.float32]:
    """The shapes at the face points alone, comparable between heads.

    Args:
        shapes: ``(K, V, 3)`` in the head's own space.
        head: The head they are for.

    Returns:
        ``(K, 111, 3)`` in interocular distances; x = subject's left, y = up, z = out of the face.
    """
    frame = face_frame(head)
    at_points = np.asarray(shapes)[:, head.topology.face_point_vertices]
    return (at_points @ frame.axes.T / frame.interocular).astype(np.float32)
