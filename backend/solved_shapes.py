# SPDX-License-Identifier: GPL-3.0-or-later
"""The 52 articulation shapes with ARKit's names, computed on any head from its face points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from backend.anatomy import Anatomy, examine
from backend.heads.arkit import ARKIT_NAMES, MAX_WEIGHT
from backend.lid_shapes import lid_shapes
from backend.mouth_shapes import mouth_and_brow_shapes
from backend.topology import FACE_POINT_NAMES, INTEROCULAR_MM, Head, face_frame

_RIDGE = 1e-6  # of the median shape's energy
_SPARSITY = 2e-4
_FINE_STEP = 2e-4
_RELAXATION = 1.5
_LIP_MIDDLE = [(lip, ring) for lip in ("upper", "lower") for ring in ("outer", "inner")]


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
        UserError: The mesh does not let the face move; see :func:`backend.anatomy.examine`.
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


def _attach(face: Anatomy, offsets: NDArray[np.float64]) -> None:
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


def lip_curves(
    weights: NDArray[np.floating], shapes: NDArray[np.floating], head: Head
) -> dict[str, NDArray[np.float64]]:
    """What the lips do over time, in mm of a head with 62 mm between the eyes.

    The lips count as closed where ``gap_mm`` is under a few tenths of a millimetre.

    Args:
        weights: ``(T, K)``.
        shapes: ``(K, V, 3)`` in the head's own space.
        head: The head they are for.

    Returns:
        Each ``(T,)``: ``opening_mm``, how far the lips' middle third parts, beyond the rest
        shape; ``gap_mm``, the largest parting anywhere along the inner lips; ``width_mm``, the
        distance of the corners; ``protrusion_mm``, how far the lips' middle comes forward.
    """
    frame = face_frame(head)
    index = {name: i for i, name in enumerate(FACE_POINT_NAMES)}
    basis = node_basis(shapes, head).astype(np.float64) * INTEROCULAR_MM
    pairs = ["center"] + [f"{side}_{i}" for side in ("left", "right") for i in (1, 2, 3)]
    upper, lower = (
        [index[f"lip_{lip}_inner_{pair}"] for pair in pairs] for lip in ("upper", "lower")
    )
    parting = np.asarray(weights @ (basis[:, upper, 1] - basis[:, lower, 1]))  # (T, 7)
    corners = [index["lip_corner_left"], index["lip_corner_right"]]
    rest = frame.to_face_mm(head.vertices[head.topology.face_point_vertices])[corners]
    apart = (basis[:, corners[0]] - basis[:, corners[1]]).reshape(len(basis), 3)
    middle = [index[f"lip_{lip}_{ring}_center"] for lip, ring in _LIP_MIDDLE]
    return {
        "opening_mm": parting[:, [0, 1, 4]].mean(axis=1),
        "gap_mm": parting.max(axis=1),
        "width_mm": np.linalg.norm(rest[0] - rest[1] + weights @ apart, axis=1),
        "protrusion_mm": np.asarray(weights @ basis[:, middle, 2].mean(axis=1)),
    }


def fit_weights(
    offsets: NDArray[np.floating], shapes: NDArray[np.floating], *, sweeps: int = 300
) -> NDArray[np.float32]:
    """Weights with which the shapes come nearest to a motion.

    Least squares with bounds, and slightly fewer and smaller weights where the data leave a
    choice; by projected successive over-relaxation of the normal equations, all frames at once.

    Args:
        offsets: ``(T, V, 3)`` displacements from the rest shape.
        shapes: ``(K, V, 3)`` in the same space.
        sweeps: Rounds over all shapes at most.

    Returns:
        ``(T, K)``, each 0..1.5.
    """
    basis = np.asarray(shapes, dtype=np.float32).reshape(len(shapes), -1)
    moves = np.flatnonzero(np.abs(basis).max(axis=0) > 0)
    basis = basis[:, moves]
    motion = np.asarray(offsets, dtype=np.float32).reshape(len(offsets), -1)[:, moves]
    normal = (basis @ basis.T).astype(np.float64)
    size = np.diag(normal)
    usable = np.flatnonzero(size > 0)
    ridge = _RIDGE * float(np.median(size[usable])) if len(usable) else 1.0
    opposed = _opposed_pairs(normal, usable)
    weights = np.zeros((len(shapes), len(motion)))
    residual = (basis @ motion.T).astype(np.float64)  # less what the weights explain: (K, T)
    for _ in range(sweeps):
        largest = 0.0
        for k in usable:
            best = (residual[k] + (weights[k] - _SPARSITY) * size[k]) / (size[k] + ridge)
            farther = weights[k] + _RELAXATION * (best - weights[k])
            changed = np.clip(farther, 0.0, MAX_WEIGHT)
            step = changed - weights[k]
            largest = max(largest, float(np.abs(step).max(initial=0.0)))
            weights[k] = changed
            residual -= normal[:, k, None] * step
        for one, other in opposed:
            common = np.minimum(weights[one], weights[other])
            weights[[one, other]] -= common
            residual += (normal[:, one] + normal[:, other])[:, None] * common
        if largest < _FINE_STEP:
            break
    return np.ascontiguousarray(weights.T, dtype=np.float32)


def _opposed_pairs(
    normal: NDArray[np.float64], usable: NDArray[np.integer]
) -> list[tuple[int, int]]:
    """Shapes that undo each other, such as jawLeft and jawRight: only their difference is seen."""
    length = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    cosine = normal / length[:, None] / length
    pairs = np.argwhere(np.triu(cosine < -0.97))
    return [(int(a), int(b)) for a, b in pairs if a in usable and b in usable]
