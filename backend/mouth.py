# SPDX-License-Identifier: GPL-3.0-or-later
"""The mouth of a head in millimetres, from weights alone: what training and evaluation measure.

Apart from both because they must measure the same, and from ``solved_shapes.py`` because solving
takes a second and this keeps its result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.mesh import read_head
from backend.solved_shapes import lip_curves, node_basis, solve_shapes
from backend.topology import INTEROCULAR_MM, Head, face_frame, identify

_DEMO_HEAD: Final = Path(__file__).parent / "demo" / "head.npz"


@dataclass(frozen=True)
class Mouth:
    """A head with its solved shapes.

    Attributes:
        head: The head.
        shapes: Its 52 shapes, ``(52, V, 3)``, in its own space.
        points: Its face points, centred, in interocular distances, ``(111, 3)`` float32.
        basis: Their displacement by each shape, ``(52, 111, 3)`` float32.
    """

    head: Head
    shapes: NDArray[np.float32]
    points: NDArray[np.float32]
    basis: NDArray[np.float32]

    def curves(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Opening, width and protrusion in millimetres; see ``solved_shapes.lip_curves``."""
        return lip_curves(weights, self.shapes, self.head)

    def opening_mm(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """How far the lips' middle parts, ``(T,)``."""
        return self.curves(weights)["opening_mm"]


def mouth_of(head: Head) -> Mouth:
    """Solves a head's shapes; takes about a second."""
    shapes = solve_shapes(head).offsets
    frame = face_frame(head)
    placed = frame.to_face_mm(head.vertices[head.topology.face_point_vertices]) / INTEROCULAR_MM
    centred = (placed - placed.mean(0)).astype(np.float32)
    return Mouth(head, shapes, centred, node_basis(shapes, head))


def demo_mouth() -> Mouth:
    """The mouth of the demo head."""
    return mouth_of(identify(*read_head(_DEMO_HEAD)))
