# SPDX-License-Identifier: GPL-3.0-or-later
"""The margins of an eye's lids: of all rows of edges the one that follows what is seen best."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import maximum_filter
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_RIM_MM: Final = 0.7
"""So far from a rim as it is seen, a step along an edge counts twice."""
_CELL_MM: Final = 0.5
_BEHIND_COST: Final = 2.0
"""So much more a step along an edge costs for each mm that it lies behind others."""
_OVER_MM: Final = 0.05
"""A vertex of one lid may reach so far over the middle between the lids."""
_AROUND_MM: Final = 10.0
_CORNER_SCALE: Final = np.array([1.0, 0.4, 0.1])
"""How much a corner's distance from where it should lie counts: across, up and in depth."""
_BEHIND_CORNER: Final = 0.3
_CORNERS: Final = 12
_CORNER_COST: Final = 4.0


class Rims:
    """The margins of two lids as rows of edges from one corner of the eye to the other.

    Args:
        points: ``(V, 3)`` in the face's axes, in mm.
        graph: Lengths of the skin's edges.
        line: Where the lids are seen to end, from corner to corner: x, upper y, lower y.
        goals: Where the corners should lie, on the subject's right and left.
        taken: Vertices that are points already.
    """

    def __init__(
        self,
        points: Floats,
        graph: sparse.csr_matrix,
        line: Floats,
        goals: list[Floats],
        taken: Ints,
    ) -> None:
        self._points = points
        reach = np.array([_AROUND_MM, _AROUND_MM, 3 * _AROUND_MM])
        low, high = np.min(goals, axis=0) - reach, np.max(goals, axis=0) + reach
        is_near = ((points > low) & (points < high)).all(axis=1)
        is_near[taken] = False
        self._near = np.flatnonzero(is_near)
        self._graph = graph[self._near][:, self._near].tocoo()
        self._behind = _behind(points[self._near])
        self._line = line
        self._corners, self._far = zip(*(self._candidates(goal) for goal in goals), strict=True)

    def _candidates(self, goal: Floats) -> tuple[Ints, Floats]:
        """Vertices that may be a corner, by their place among those near; and what each costs."""
        away = np.linalg.norm((self._points[self._near] - goal) * _CORNER_SCALE, axis=1)
        away += _BEHIND_CORNER * self._behind
        best = np.argsort(away, kind="stable")[:_CORNERS]
        return best, _CORNER_COST * away[best]

    def rows(self) -> dict[str, list[int]]:
        """Vertices of both margins with the corners; empty where there is no way."""
        nothing: dict[str, list[int]] = {"upper": [], "lower": []}
        if min(map(len, self._corners)) == 0:
            return nothing
        ways = {lid: self._weighted(lid) for lid in ("upper", "lower")}
        start, end = self._corners
        total = self._far[0][:, None] + self._far[1]
        for way in ways.values():
            total = total + csgraph.dijkstra(way, directed=False, indices=start)[:, end]
        i, j = np.unravel_index(int(total.argmin()), total.shape)
        if not np.isfinite(total[i, j]):
            return nothing
        first, last = int(start[i]), int(end[j])
        upper = self._path(ways["upper"], first, last)
        lower = self._path(_without(ways["lower"], upper[1:-1]), first, last)
        return {
            "upper": self._near[upper].tolist(),
            "lower": self._near[lower].tolist() if lower else [],
        }

    def _weighted(self, lid: str) -> sparse.csr_matrix:
        """What each edge costs for the margin of a lid."""
        column, sign = (1, 1.0) if lid == "upper" else (2, -1.0)
        points, line = self._points[self._near], self._line
        steps = np.linspace(0.0, 1.0, 5)[:, None, None]
        seen = line[:, [0, column]]
        dense = (seen[:-1] + steps * (seen[1:] - seen[:-1])).reshape(-1, 2)
        off = cKDTree(dense).query(points[:, :2])[0]
        middle = np.interp(points[:, 0], line[:, 0], line[:, 1:].mean(axis=1))
        is_own = sign * (points[:, 1] - middle) > -_OVER_MM
        for corners in self._corners:
            is_own[corners] = True
        dear = np.square(off / _RIM_MM)
        dear += _BEHIND_COST * self._behind
        graph = self._graph
        kept = is_own[graph.row] & is_own[graph.col]
        row, column_of = graph.row[kept], graph.col[kept]
        cost = graph.data[kept] * (1.0 + (dear[row] + dear[column_of]) / 2)
        return sparse.coo_matrix((cost, (row, column_of)), shape=graph.shape).tocsr()

    def _path(self, way: sparse.csr_matrix, first: int, last: int) -> list[int]:
        _, before = csgraph.dijkstra(way, directed=False, indices=first, return_predecessors=True)
        found = [last]
        while found[-1] != first:
            found.append(int(before[found[-1]]))
            if found[-1] < 0:
                return []
        return found[::-1]


def _behind(points: Floats) -> Floats:
    """How far vertices lie behind the frontmost ones within about a millimetre, ``(N,)``."""
    cell = np.floor((points[:, :2] - points[:, :2].min(axis=0)) / _CELL_MM).astype(np.int64)
    front = np.full(cell.max(axis=0) + 1, -np.inf)
    np.maximum.at(front, tuple(cell.T), points[:, 2])
    front = maximum_filter(front, size=3, mode="nearest")
    return np.asarray(front[tuple(cell.T)] - points[:, 2])


def _without(graph: sparse.csr_matrix, numbers: list[int]) -> sparse.csr_matrix:
    kept = np.ones(graph.shape[0])
    kept[numbers] = 0.0
    cut = sparse.diags(kept) @ graph @ sparse.diags(kept)
    cut.eliminate_zeros()
    return cut.tocsr()
