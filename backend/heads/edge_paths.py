# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths along a mesh's edges, and the pieces into which a ring of vertices cuts it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from backend.errors import UserError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class PathTracer:
    """Shortest paths along edges near the face points."""

    def __init__(self, points: Floats, edges: Ints) -> None:
        self.points = points
        self.edges = edges
        length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
        graph = sparse.coo_matrix(
            (np.maximum(length, 1e-9), (edges[:, 0], edges[:, 1])), shape=(len(points),) * 2
        )
        self._graph = (graph + graph.T).tocsr()

    def path(self, stops: Sequence[int], *, avoid: Ints | None = None) -> Ints:
        """Vertices of the shortest path through the stops, each once."""
        near = self._near(stops)
        if avoid is not None:
            near = near[~np.isin(near, avoid) | np.isin(near, stops)]
        graph = self._graph[near][:, near]
        local = np.searchsorted(near, stops)
        distance, before = csgraph.dijkstra(graph, indices=local[:-1], return_predecessors=True)
        found = [int(stops[0])]
        for leg, end in enumerate(local[1:]):
            if not np.isfinite(distance[leg, end]):
                raise UserError(
                    "The mesh's edges do not join neighbouring face points of the lips or lids. "
                    "Mark those points along one row of vertices."
                )
            steps = [int(end)]
            while steps[-1] != local[leg]:
                steps.append(int(before[leg, steps[-1]]))
            found += [int(near[k]) for k in reversed(steps[:-1])]
        return np.array(list(dict.fromkeys(found)), dtype=np.int64)

    def _near(self, stops: Sequence[int]) -> Ints:
        positions = self.points[list(stops)]
        reach = 0.6 * np.linalg.norm(np.diff(positions, axis=0), axis=1).max() + 1.0
        legs = np.concatenate([positions, (positions[1:] + positions[:-1]) / 2])
        distance, _ = cKDTree(legs).query(self.points, distance_upper_bound=2 * reach)
        return np.union1d(np.flatnonzero(np.isfinite(distance)), np.asarray(stops))


def pieces(edges: Ints, keep: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number of each vertex's connected piece among the kept vertices; -1 for the others."""
    inside = edges[keep[edges].all(axis=1)]
    graph = sparse.coo_matrix(
        (np.ones(len(inside)), (inside[:, 0], inside[:, 1])), shape=(len(keep),) * 2
    )
    labels = np.asarray(csgraph.connected_components(graph, directed=False)[1])
    return np.where(keep, labels, -1).astype(np.int32)


def touching(edges: Ints, labels: NDArray[np.int32], ring: Ints) -> set[int]:
    """Numbers of the pieces that share an edge with a ring of vertices."""
    on_ring = np.isin(edges, ring)
    other = np.concatenate([edges[on_ring[:, 0], 1], edges[on_ring[:, 1], 0]])
    return set(np.unique(labels[other]).tolist()) - {-1}
