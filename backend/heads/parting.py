# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lips part and where the lids do, read from the mesh itself.

Rays run down the face, one column beside the other. Where two neighbouring rays hit places that lie
far from each other along the mesh, the surface parts: lips may touch there, yet no edge joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import median_filter
from scipy.sparse import csgraph

from backend.errors import UserError
from backend.heads.edge_paths import PathTracer
from backend.heads.lid_rims import Rims
from backend.heads.mesh import polygon_edges
from backend.heads.rasterise import boxes, rasterise

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_COLUMN_MM: Final = 0.5
_BESIDE_MM: Final = 4.0
_ROW_MM: Final = 0.12
_FAR_MM: Final = 6.0
"""So far apart along the mesh the surface has parted."""


@dataclass(frozen=True, slots=True)
class Parting:
    """Two rows of places that face each other across an opening, or touch.

    Attributes:
        share: Part of the columns in which the surface parts, 0..1.
        upper: Vertices of the upper row, each once, from the subject's right to the left.
        lower: Those of the lower row.
        seen: Vertices of the skin that are seen around it.
        edges: Where the upper and the lower row end, as seen: x, upper y, lower y, ``(n, 3)``.
    """

    share: float
    upper: Ints
    lower: Ints
    seen: Ints
    edges: Floats


def find_parting(
    points: Floats,
    triangles: Ints,
    others: Ints,
    *,
    right: Floats,
    left: Floats,
    upper: Floats,
    lower: Floats,
    margin_mm: float,
    at_ends: bool,
) -> Parting:
    """Find where the surface parts between two corners.

    Args:
        points: ``(V, 3)`` in the face's axes, in mm.
        triangles: Of the skin, ``(N, 3)``.
        others: What may cover the skin, and shows where it ends: eyeballs; ``(M, 3)``.
        right: The corner on the subject's right, ``(3,)``.
        left: The other one.
        upper: Places along the upper row as far as they are known, in order of x, ``(n, 3)``.
        lower: Places along the lower row.
        margin_mm: How far above the upper places and below the lower ones to look.
        at_ends: Take the first and the last parting of a column (lips, behind which there is a
            mouth), instead of those nearest to the known places (lids, which have creases).

    Returns:
        Both rows; empty where the surface does not part.
    """
    columns = np.arange(right[0] - _BESIDE_MM, left[0] + _BESIDE_MM, _COLUMN_MM)
    nothing = np.zeros(0, np.int64)
    unparted = Parting(0.0, nothing, nothing, nothing, np.zeros((0, 3)))
    if left[0] - right[0] < 4 * _COLUMN_MM:
        return unparted
    known = [_heights(columns, row, right, left) for row in (upper, lower)]
    top, bottom = known[0].max() + margin_mm, known[1].min() - margin_mm
    number = int((top - bottom) / _ROW_MM)
    screen = np.stack(
        [(points[:, 0] - columns[0]) / _COLUMN_MM + 0.5, (top - points[:, 1]) / _ROW_MM], axis=1
    )
    drawn = np.concatenate([triangles, others])
    low, high = boxes(screen, drawn)
    size = (len(columns), number)
    near = np.flatnonzero(((high > 0) & (low < size)).all(axis=1))
    if not len(near):
        return unparted
    raster = rasterise(screen, points[:, 2], drawn[near], width=size[0], height=size[1])
    shown = np.where(raster.triangle >= 0, near[raster.triangle], -1)
    shown[shown >= len(triangles)] = -1
    parted = _parted(points, triangles, shown)  # (rows - 1, columns): between a row and the next
    heights = top - (np.arange(number - 1) + 1) * _ROW_MM
    inside = (heights[:, None] < known[0] + margin_mm) & (heights[:, None] > known[1] - margin_mm)
    parted &= inside & (columns > right[0]) & (columns < left[0])
    has = np.flatnonzero(parted.any(axis=0))
    rows: list[list[int]] = [[], []]
    edges: list[tuple[float, float, float]] = []
    is_steep = _steep(points, triangles, shown)
    for column in has.tolist():
        jumps = np.flatnonzero(parted[:, column])
        if at_ends:
            chosen = [jumps[0], jumps[-1]]
        else:
            away = [np.abs(heights[jumps] - row[column]) for row in known]
            chosen = [jumps[a.argmin()] for a in away]
            if chosen[0] > chosen[1]:
                continue
        up, down = _fronts(is_steep[:, column], chosen)
        edges.append((columns[column], top - up * _ROW_MM, top - down * _ROW_MM))
        for row, jump, step in zip(rows, chosen, (0, 1), strict=True):
            triangle = shown[jump + step, column]
            if triangle < 0:
                continue
            corners = triangles[triangle]
            place = np.array([columns[column], heights[jump]])
            away_from = np.linalg.norm(points[corners, :2] - place, axis=1)
            row.append(int(corners[away_from.argmin()]))
    share = len(has) * _COLUMN_MM / (left[0] - right[0])
    upper_row, lower_row = (np.array(list(dict.fromkeys(row)), np.int64) for row in rows)
    seen_vertices = np.unique(triangles[np.unique(shown[shown >= 0])])
    return Parting(share, upper_row, lower_row, seen_vertices, np.array(edges).reshape(-1, 3))


def _steep(points: Floats, triangles: Ints, shown: Ints) -> NDArray[np.bool_]:
    """Whether each pixel shows a triangle of the skin that is seen from the side."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    facing = np.abs(normals[:, 2]) / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    return np.asarray((facing[shown] < _STEEP) & (shown >= 0))


def _fronts(is_steep: NDArray[np.bool_], jumps: list[int]) -> tuple[int, int]:
    """Rows of pixels at which the outer skin ends above and below a parting.

    Before the parting the thickness of a lid may be seen: its margin is the front edge of that.
    """
    up, down = int(jumps[0]), int(jumps[1]) + 1
    most = int(_THICK_MM / _ROW_MM)
    first = max(up - most, 0)
    while up > first and is_steep[up]:
        up -= 1
    last = min(down + most, len(is_steep) - 1)
    while down < last and is_steep[down]:
        down += 1
    return up + 1, down


def _heights(columns: Floats, row: Floats, right: Floats, left: Floats) -> Floats:
    places = np.concatenate([right[None], row, left[None]])
    order = np.argsort(places[:, 0])
    return np.interp(columns, places[order, 0], places[order, 1])


def _parted(points: Floats, triangles: Ints, shown: Ints) -> NDArray[np.bool_]:
    """Whether a pixel and the one below it show places that are far apart along the mesh."""
    above, below = shown[:-1], shown[1:]
    parted = (above >= 0) != (below >= 0)
    differ = (above != below) & (above >= 0) & (below >= 0)
    pairs, inverse = np.unique(above[differ] * len(triangles) + below[differ], return_inverse=True)
    if not len(pairs):
        return parted
    a, b = triangles[pairs // len(triangles)], triangles[pairs % len(triangles)]
    joined = (a[:, :, None] == b[:, None, :]).any(axis=(1, 2))
    apart = np.flatnonzero(~joined)
    far = np.zeros(len(pairs), dtype=bool)
    if len(apart):
        far[apart] = _distances(points, triangles, a[apart], b[apart]) > _FAR_MM
    parted[differ] = far[inverse.reshape(-1)]
    return parted


def _edge_graph(points: Floats, triangles: Ints) -> sparse.csr_matrix:
    """Lengths of the triangles' edges, each once."""
    edges = polygon_edges(triangles.ravel(), np.full(len(triangles), 3))
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    return sparse.coo_matrix(
        (np.maximum(length, 1e-9), (edges[:, 0], edges[:, 1])), shape=(len(points),) * 2
    ).tocsr()


def _distances(points: Floats, triangles: Ints, a: Ints, b: Ints) -> Floats:
    """Shortest ways along edges between the corners of pairs of triangles; inf where long."""
    ends = points[np.concatenate([a, b]).ravel()]
    low, high = ends.min(axis=0) - _FAR_MM, ends.max(axis=0) + _FAR_MM
    inside = ((points >= low) & (points <= high)).all(axis=1)
    inside[np.concatenate([a, b]).ravel()] = True
    kept = triangles[inside[triangles].all(axis=1)]
    near = np.flatnonzero(inside)
    local = np.full(len(points), -1)
    local[near] = np.arange(len(near))
    graph = _edge_graph(points[near], local[kept])
    sources, place = np.unique(local[a], return_inverse=True)
    reached = csgraph.dijkstra(graph, directed=False, indices=sources, limit=2 * _FAR_MM)
    place = place.reshape(a.shape)
    ways = reached[place[:, :, None], local[b][:, None, :]]
    return np.asarray(ways.min(axis=(1, 2)))


def _smoothed(edges: Floats) -> Floats:
    """The line of a parting without single columns that lie elsewhere."""
    smooth = edges.copy()
    if len(edges) > _SMOOTHED:
        smooth[:, 1:] = median_filter(edges[:, 1:], size=(_SMOOTHED, 1), mode="nearest")
    return smooth


class Openings:
    """Finds the vertices of the inner lips and of the lids where a skin parts.

    Args:
        points: ``(V, 3)`` in the face's axes, in mm.
        triangles: Of the skin, ``(N, 3)``.
        others: Of all else, ``(M, 3)``.
        edges: Of the skin's polygons, ``(E, 2)``.
    """

    def __init__(self, points: Floats, triangles: Ints, others: Ints, edges: Ints) -> None:
        self._points, self._triangles, self._others = points, triangles, others
        self._nothing = np.zeros((0, 3), np.int64)
        self._tracer = PathTracer(points, edges)
        self._graph = _edge_graph(points, triangles)

    def lips(self, at: dict[str, Floats]) -> dict[str, int]:
        """Vertices of the corners and inner lips, from where they should lie; or nothing."""
        names = {
            lip: [f"lip_{lip}_inner_right_{i}" for i in (3, 2, 1)]
            + [f"lip_{lip}_inner_center"]
            + [f"lip_{lip}_inner_left_{i}" for i in (1, 2, 3)]
            for lip in ("upper", "lower")
        }
        ends = ("lip_corner_right", "lip_corner_left")
        return self._points_of(at, names, ends, self._nothing, at_ends=True, taken=set())

    def lids(self, at: dict[str, Floats], side: str, taken: set[int]) -> dict[str, int]:
        """Vertices of an eye's corners and lids, from where they should lie; or nothing."""
        order = (5, 4, 3, 2, 1) if side == "right" else (1, 2, 3, 4, 5)
        names = {lid: [f"lid_{lid}_{side}_{i}" for i in order] for lid in ("upper", "lower")}
        ends = (f"eye_outer_{side}", f"eye_inner_{side}")
        ends = ends if side == "right" else ends[::-1]
        for others in (self._nothing, self._others):
            found = self._points_of(at, names, ends, others, at_ends=False, taken=taken)
            if found:
                break
        return found

    def _points_of(
        self,
        at: dict[str, Floats],
        names: dict[str, list[str]],
        ends: tuple[str, str],
        others: Ints,
        *,
        at_ends: bool,
        taken: set[int],
    ) -> dict[str, int]:
        parting = find_parting(
            self._points,
            self._triangles,
            others,
            right=at[ends[0]],
            left=at[ends[1]],
            upper=np.stack([at[name] for name in names["upper"]]),
            lower=np.stack([at[name] for name in names["lower"]]),
            margin_mm=_MARGIN_MM,
            at_ends=at_ends,
        )
        rows = {
            lip: self._not_deep(row, np.stack([at[name] for name in (*ends, *names[lip])]))
            for lip, row in (("upper", parting.upper), ("lower", parting.lower))
        }
        if parting.share < _LEAST_SHARE or min(map(len, rows.values())) < len(names["upper"]):
            return {}
        found_corners = self._corners(rows, parting.seen, at, ends, at_ends=at_ends)
        corners = [vertex for vertex in found_corners if vertex is not None]
        if len(set(corners) - taken) < 2:
            return {}
        if not at_ends:
            found = self._on_rims(parting.edges, at, ends, names, taken)
            if self._joined(found, ends, names):
                return found
        for beside in (False,) if at_ends else (True, False):
            found = dict(zip(ends, corners, strict=True))
            for lip, row in rows.items():
                used = taken | set(found.values())
                whole = self._whole(row, parting.seen, corners) if beside else row
                found |= self._spaced(whole, at, ends, corners, names[lip], used)
            if self._joined(found, ends, names):
                return found
        return {}

    def _corners(
        self,
        rows: dict[str, Ints],
        seen: Ints,
        at: dict[str, Floats],
        ends: tuple[str, str],
        *,
        at_ends: bool,
    ) -> list[int | None]:
        meetings = [self._meeting(rows, place) for place in (0, -1)]
        if at_ends or not len(seen):
            return meetings
        # The outer corner of an eye is where the lids meet; the inner one lies beyond that, behind
        # the caruncle, where the landmarks say. How deep they lie is seen, not guessed.
        corners: list[int | None] = []
        for meeting, end in zip(meetings, ends, strict=True):
            goal, depth_counts = at[end], _DEPTH_COUNTS
            if "outer" in end and meeting is not None:
                goal, depth_counts = np.append(self._points[meeting, :2], goal[2]), 1.0
            away = (self._points[seen] - goal) * (1.0, 1.0, depth_counts)
            corners.append(int(seen[np.linalg.norm(away, axis=1).argmin()]))
        return corners

    def _on_rims(
        self,
        edges: Floats,
        at: dict[str, Floats],
        ends: tuple[str, str],
        names: dict[str, list[str]],
        taken: set[int],
    ) -> dict[str, int]:
        """Corners and vertices of both lids, each lid one row of edges along what is seen of it."""
        line = _smoothed(edges)
        goals = [
            self._corner_goal(line, at[end], place)
            for end, place in zip(ends, (0, -1), strict=True)
        ]
        inside = (line[:, 0] > goals[0][0] + 0.5) & (line[:, 0] < goals[1][0] - 0.5)
        a, b = ([*goal[:2], goal[1]] for goal in goals)
        line = np.concatenate([[a], line[inside], [b]])
        lids = Rims(self._points, self._graph, line, goals, np.array(sorted(taken), np.int64))
        rows = lids.rows()
        if min(map(len, rows.values())) < len(names["upper"]) + 2:
            return {}
        corners = [rows["upper"][0], rows["upper"][-1]]
        found = dict(zip(ends, corners, strict=True))
        known = [at[end][0] for end in ends]
        for lid, row in rows.items():
            wanted = np.interp(
                [at[name][0] for name in names[lid]], known, self._points[corners, 0]
            )
            found |= dict(zip(names[lid], self._in_order(np.array(row[1:-1]), wanted), strict=True))
        return found

    def _corner_goal(self, line: Floats, at: Floats, place: int) -> Floats:
        """Where a corner of an eye should lie: as far out as expected, as high as the parting."""
        outwards = -1.0 if place == 0 else 1.0
        near = line[:, 0] * outwards > at[0] * outwards - _NEAR_CORNER_MM
        height = line[near, 1:].mean() if near.any() else at[1]
        return np.array([at[0], height, at[2]])

    def _spaced(
        self,
        row: Ints,
        at: dict[str, Floats],
        ends: tuple[str, str],
        corners: list[int],
        names: list[str],
        used: set[int],
    ) -> dict[str, int]:
        """Vertices of a row, spaced between the corners as they should be; or nothing."""
        row = np.setdiff1d(row, list(used))
        if len(row) < len(names):
            return {}
        row = row[np.argsort(self._points[row, 0], kind="stable")]
        known = [at[end][0] for end in ends]
        wanted = np.interp([at[name][0] for name in names], known, self._points[corners, 0])
        return dict(zip(names, self._in_order(row, wanted), strict=True))

    def _joined(
        self, found: dict[str, int], ends: tuple[str, str], names: dict[str, list[str]]
    ) -> bool:
        """Whether edges join all neighbours, the two rows apart: what the shape solver needs."""
        if not all(name in found for row in names.values() for name in row):
            return False
        stops = {
            lip: [found[name] for name in (ends[0], *row, ends[1])] for lip, row in names.items()
        }
        try:
            upper = self._tracer.path(stops["upper"], avoid=np.array(stops["lower"][1:-1]))
            self._tracer.path(stops["lower"], avoid=upper[1:-1])
        except UserError:
            return False
        return True

    def _not_deep(self, row: Ints, known: Floats) -> Ints:
        """The row without what lies far before or behind where it should."""
        order = np.argsort(known[:, 0])
        depth = np.interp(self._points[row, 0], known[order, 0], known[order, 2])
        return row[np.abs(self._points[row, 2] - depth) < _DEEP_MM]

    def _whole(self, row: Ints, seen: Ints, corners: list[int]) -> Ints:
        """The row with what is seen straight between its ends and both corners."""
        order = row[np.argsort(self._points[row, 0], kind="stable")]
        found = [order]
        for start, end in ((corners[0], order[0]), (order[-1], corners[1])):
            a, b = self._points[start], self._points[end]
            way = b - a
            along = np.clip((self._points[seen] - a) @ way / max(way @ way, 1e-9), 0.0, 1.0)
            off = np.linalg.norm(self._points[seen] - a - along[:, None] * way, axis=1)
            found.append(seen[(off < _BESIDE_WAY_MM) & (along > 0.0) & (along < 1.0)])
        return np.unique(np.concatenate(found))

    def _meeting(self, rows: dict[str, Ints], place: int) -> int | None:
        """Where the rows meet: the outermost vertex of the way from one's end to the other's."""
        ends = [int(row[np.argsort(self._points[row, 0])[place]]) for row in rows.values()]
        way = self._way(*ends)
        if not way:
            return None
        x = self._points[way, 0]
        return int(way[x.argmin() if place == 0 else x.argmax()])

    def _way(self, start: int, end: int) -> list[int]:
        """The shortest way along edges; empty where there is none nearby."""
        _, before = csgraph.dijkstra(
            self._graph, directed=False, indices=start, limit=_WAY_MM, return_predecessors=True
        )
        way = [end]
        while way[-1] != start:
            way.append(int(before[way[-1]]))
            if way[-1] < 0:
                return []
        return way[::-1]

    def _in_order(self, row: Ints, wanted: Floats) -> list[int]:
        """Vertices of a row nearest to some places along x, each its own, in their order."""
        x = self._points[row, 0]
        cost = np.abs(x[:, None] - wanted)  # (row, wanted)
        best = np.full_like(cost, np.inf)
        best[:, 0] = cost[:, 0]
        for k in range(1, len(wanted)):
            before = np.minimum.accumulate(best[:, k - 1])
            best[1:, k] = cost[1:, k] + before[:-1]
        chosen = []
        end = len(row)
        for k in reversed(range(len(wanted))):
            end = int(best[:end, k].argmin())
            chosen.append(int(row[end]))
        return chosen[::-1]


_MARGIN_MM: Final = 4.0
_LEAST_SHARE: Final = 0.4
_WAY_MM: Final = 60.0
_DEEP_MM: Final = 8.0
_BESIDE_WAY_MM: Final = 1.2
_DEPTH_COUNTS: Final = 0.2
_STEEP: Final = 0.45
_THICK_MM: Final = 3.0
"""A lid's thickness is seen as a band of triangles that face the viewer less, at most so wide."""
_SMOOTHED: Final = 5
"""Columns of which the middle one counts."""
_NEAR_CORNER_MM: Final = 4.0
