# SPDX-License-Identifier: GPL-3.0-or-later
"""Blendshape weights of a motion of vertices, by bounded least squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.heads.arkit import MAX_WEIGHT

_RIDGE = 1e-6  # of the median shape's energy
_SPARSITY = 2e-4
_TOLERANCE = 2e-4  # largest change of a weight in the last sweep
_RELAXATION = 1.5


def fit_weights(
    offsets: NDArray[np.floating], shapes: NDArray[np.floating], *, sweeps: int = 300
) -> NDArray[np.float32]:
    """Blendshape weights with which the shapes come nearest to a motion.

    Least squares with bounds, and slightly fewer and smaller weights where the data leave a
    choice; by projected successive over-relaxation of the normal equations, all frames at once.

    Args:
        offsets: Displacements from the rest shape, ``(T, V, 3)``.
        shapes: Displacements of the shapes in the same space, ``(K, V, 3)``.
        sweeps: Largest number of sweeps over all shapes.

    Returns:
        Weights from 0 to ``MAX_WEIGHT``, ``(T, K)``.
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
        if largest < _TOLERANCE:
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
