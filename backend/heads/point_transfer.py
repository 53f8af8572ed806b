# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries points from one head to another by marks: places that are known on both.

A similarity brings the heads together, a bend lets the marks meet, and each point goes to the
vertex that lies near and faces the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from backend.errors import UserError
from backend.heads.mesh import Similarity, similarity_fit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SCALES_MM: Final = ((8.0, 100.0), (3.0, 20.0))
"""Standard deviations and correlation lengths of how heads differ after a similarity."""
_TURN_COST_MM: Final = 12.0
"""What a right angle between two normals counts."""


@dataclass(frozen=True, slots=True)
class Bend:
    """A smooth displacement of space in mm that dies away far from its marks.

    Attributes:
        at: Where the marks lie, ``(N, 3)``.
        weights: Of their kernels, ``(N, 3)``.
    """

    at: Floats
    weights: Floats

    @classmethod
    def through(cls, at: Floats, goal: Floats, slack: Floats) -> Bend:
        """The most likely bend (a Gaussian process) that brings marks to their goals.

        Args:
            at: Where the marks lie, ``(N, 3)``.
            goal: Where they should lie, ``(N, 3)``.
            slack: Standard deviation of each goal in mm, ``(N,)``.

        Returns:
            The bend.
        """
        system = _kernel(cdist(at, at)) + np.diag(np.square(slack))
        return cls(at, solve(system, goal - at, assume_a="pos"))

    def apply(self, points: Floats) -> Floats:
        """Points ``(M, 3)`` moved by the bend."""
        return np.asarray(points + _kernel(cdist(points, self.at)) @ self.weights)


def _kernel(distance: Floats) -> Floats:
    """Covariance of the bend at two places: that of a head's shape, and that of its features."""
    total = np.zeros_like(distance)
    for amplitude, reach in _SCALES_MM:
        total += amplitude**2 * np.exp(-distance / reach)
    return total


def robust_similarity(source: Floats, target: Floats, weights: Floats) -> Similarity:
    """The similarity that fits most of the marks: a quarter may lie anywhere."""
    kept = np.flatnonzero(weights > 0.0)
    for _ in range(3):
        fit = similarity_fit(source[kept], target[kept])
        miss = np.linalg.norm(fit.apply(source) - target, axis=1)
        usable = weights > 0.0
        kept = np.flatnonzero(usable & (miss <= np.quantile(miss[usable], 0.75)))
    return fit


def nearest_facing(
    points: Floats, normals: Floats, vertices: Floats, vertex_normals: Floats, candidates: Ints
) -> tuple[Ints, Floats]:
    """A vertex of its own for each point: near, and facing the same way.

    Args:
        points: Places in mm, ``(N, 3)``; the first one chooses first.
        normals: Which way the surface faces there, ``(N, 3)``.
        vertices: Of the mesh in mm, ``(V, 3)``.
        vertex_normals: Theirs, ``(V, 3)``.
        candidates: Numbers of the vertices to choose from.

    Returns:
        Vertex numbers and costs in mm: distance and turn together; both ``(N,)``.

    Raises:
        UserError: There are too few vertices.
    """
    if len(candidates) < 2 * len(points):
        raise UserError("The head's skin has too few vertices for its face points.")
    count = min(len(candidates), max(64, 2 * len(points)))
    _, near = cKDTree(vertices[candidates]).query(points, k=count)
    taken: set[int] = set()
    chosen, costs = [], []
    for point, normal, row in zip(points, normals, candidates[near], strict=True):
        free = np.array([v for v in row.tolist() if v not in taken])
        turn = _TURN_COST_MM * (1.0 - vertex_normals[free] @ normal)
        cost = np.hypot(np.linalg.norm(vertices[free] - point, axis=1), turn)
        best = int(cost.argmin())
        chosen.append(int(free[best]))
        costs.append(float(cost[best]))
        taken.add(chosen[-1])
    return np.array(chosen), np.array(costs)
