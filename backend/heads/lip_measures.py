# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures of a head's lips in millimetres, from blendshape weights: opening, width, protrusion.

Training and evaluation share them, so both measure the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.heads.mesh_files import read_head
from backend.heads.solve import solve_shapes
from backend.heads.topology import FACE_POINT_NAMES, INTEROCULAR_MM, Head, face_frame, identify


@dataclass(frozen=True)
class MeasuredHead:
    """A head with its solved shapes, and both at its face points.

    Attributes:
        head: The head.
        shapes: Displacements of the 52 shapes in the head's own space, ``(52, V, 3)``.
        points: Positions of the face points, centred, in interocular distances, ``(111, 3)``
            float32.
        basis: Displacement of the face points by each shape, ``(52, 111, 3)`` float32; see
            ``face_point_basis``.
    """

    head: Head
    shapes: NDArray[np.float32]
    points: NDArray[np.float32]
    basis: NDArray[np.float32]

    def curves(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Opening, gap, width and protrusion in millimetres; see ``lip_curves``."""
        return lip_curves(weights, self.shapes, self.head)

    def opening_mm(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distance that the lips' middle third parts, ``(T,)``."""
        return self.curves(weights)["opening_mm"]


def measure_head(head: Head) -> MeasuredHead:
    """Solves a head's shapes; takes about a second."""
    shapes = solve_shapes(head).offsets
    frame = face_frame(head)
    placed = frame.to_face_mm(head.vertices[head.topology.face_point_vertices]) / INTEROCULAR_MM
    centred = (placed - placed.mean(0)).astype(np.float32)
    return MeasuredHead(head, shapes, centred, face_point_basis(shapes, head))


def measured_demo_head() -> MeasuredHead:
    """The demo head with its solved shapes."""
    return measure_head(identify(*read_head(bundled.DEMO_HEAD)))


def face_point_basis(shapes: NDArray[np.floating], head: Head) -> NDArray[np.float32]:
    """The shapes at the face points alone, comparable between heads.

    Args:
        shapes: Displacements of ``K`` shapes in the head's own space, ``(K, V, 3)``.
        head: The head of these shapes.

    Returns:
        Displacements in interocular distances, ``(K, 111, 3)``; x = subject's left, y = up, z = out
        of the face.
    """
    frame = face_frame(head)
    at_points = np.asarray(shapes)[:, head.topology.face_point_vertices]
    return (at_points @ frame.axes.T / frame.interocular).astype(np.float32)


def lip_curves(
    weights: NDArray[np.floating], shapes: NDArray[np.floating], head: Head
) -> dict[str, NDArray[np.float64]]:
    """Movement of the lips over time, in mm of a head with 62 mm between the eyes.

    The lips count as closed where ``gap_mm`` is under a few tenths of a millimetre.

    Args:
        weights: Blendshape weights, ``(T, K)``.
        shapes: Displacements of the shapes in the head's own space, ``(K, V, 3)``.
        head: The head of these shapes.

    Returns:
        Each ``(T,)``: ``opening_mm``, how far the lips' middle third parts, beyond the rest
        shape; ``gap_mm``, the largest parting anywhere along the inner lips; ``width_mm``, the
        distance of the corners; ``protrusion_mm``, how far the lips' middle comes forward.
    """
    frame = face_frame(head)
    index = {name: i for i, name in enumerate(FACE_POINT_NAMES)}
    basis = face_point_basis(shapes, head).astype(np.float64) * INTEROCULAR_MM
    pairs = ["center"] + [f"{side}_{i}" for side in ("left", "right") for i in (1, 2, 3)]
    upper, lower = (
        [index[f"lip_{lip}_inner_{pair}"] for pair in pairs] for lip in ("upper", "lower")
    )
    parting = np.asarray(weights @ (basis[:, upper, 1] - basis[:, lower, 1]))  # (T, 7)
    corners = [index["lip_corner_left"], index["lip_corner_right"]]
    rest = frame.to_face_mm(head.vertices[head.topology.face_point_vertices])[corners]
    apart = (basis[:, corners[0]] - basis[:, corners[1]]).reshape(len(basis), 3)
    middle = [
        index[f"lip_{lip}_{ring}_center"]
        for lip in ("upper", "lower")
        for ring in ("outer", "inner")
    ]
    return {
        "opening_mm": parting[:, [0, 1, 4]].mean(axis=1),
        "gap_mm": parting.max(axis=1),
        "width_mm": np.linalg.norm(rest[0] - rest[1] + weights @ apart, axis=1),
        "protrusion_mm": np.asarray(weights @ basis[:, middle, 2].mean(axis=1)),
    }
