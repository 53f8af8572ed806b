# SPDX-License-Identifier: GPL-3.0-or-later
"""Closes the seams of a mesh that an importer has split, for finding and solving alone.

Formats such as glTF and VRM keep one normal, one texture coordinate and one material a vertex. So a
face comes in pieces whose open edges lie on each other. Lips and lids that touch lie on each other
too, and must stay apart: only open edges are joined, and where more than two meet, those between
which the head's flesh lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from backend.heads.mesh import Mesh, connected_components

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_TOLERANCE: Final = 1e-5
"""Copies of a vertex lie so close, as part of the mesh's diagonal."""
_FLAT: Final = 1e-3
_LEAST_CUT: Final = 12
_THROUGH: Final = 0.7
"""The open edges of half a head span so much of it: a cut through a neck spans less."""
_SPLIT: Final = 0.5
"""A piece that an importer has split off is joined along so much of its border."""
_FEW_SIDES: Final = 6
"""A piece with so few sides is a polygon or two, and no part of its own."""
_MOST_AT_ONE_PLACE: Final = 16
"""Where more open edges lie on each other, none of them is joined."""


@dataclass(frozen=True, slots=True)
class Weld:
    """A mesh without its seams.

    Attributes:
        mesh: Vertices in the order of their first copies, and the same faces.
        number: Number of each vertex of the given mesh in this one, ``(V,)``.
        first: The first copy of each vertex of this one in the given mesh, ``(W,)``.
    """

    mesh: Mesh
    number: Ints
    first: Ints

    @property
    def num_copies(self) -> int:
        """How many vertices of the given mesh are copies of others."""
        return len(self.number) - len(self.first)


def weld(mesh: Mesh) -> Weld:
    """Join the open edges of a mesh that lie on each other.

    Args:
        mesh: Vertices, corners and sizes.

    Returns:
        The welded mesh; where there is nothing to join, the mesh itself.
    """
    vertices, corners, sizes = mesh
    everything = np.arange(len(vertices))
    sides = _open_sides(corners, sizes)
    if not len(sides):
        return Weld(mesh, everything, everything)
    place = _places(vertices, np.unique(_ends(corners, sizes)[sides]))
    joined = _same_vertices(mesh, sides, place)
    if not len(joined):
        return Weld(mesh, everything, everything)
    graph = sparse.coo_matrix((np.ones(len(joined)), joined.T), shape=(len(vertices),) * 2)
    _, labels = csgraph.connected_components(graph, directed=False)
    _, first, label = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    number, first = rank[label.reshape(-1)], first[order]
    return Weld((vertices[first], number[corners].astype(np.int32), sizes), number, first)


def is_half(mesh: Mesh) -> bool:
    """Whether a mesh ends in a plane that goes through all of it, as half of a mirrored head."""
    vertices, corners, sizes = mesh
    ends = np.unique(_ends(corners, sizes)[_open_sides(corners, sizes)])
    extent = np.ptp(vertices, axis=0)
    for axis in range(3):
        for limit in (vertices[:, axis].min(), vertices[:, axis].max()):
            cut = ends[np.abs(vertices[ends, axis] - limit) < _FLAT * extent.max()]
            if len(cut) < _LEAST_CUT:
                continue
            spanned = np.delete(np.ptp(vertices[cut], axis=0) / np.maximum(extent, 1e-30), axis)
            if spanned.min() > _THROUGH:
                return True
    return False


def _ends(corners: NDArray[np.integer], sizes: NDArray[np.integer]) -> Ints:
    """Start and end of the polygons' sides, as they are wound, ``(C, 2)``."""
    ends = np.cumsum(sizes)
    following = np.arange(1, len(corners) + 1)
    following[ends - 1] = ends - sizes
    return np.stack([corners, corners[following]], axis=1).astype(np.int64)


def _open_sides(corners: NDArray[np.integer], sizes: NDArray[np.integer]) -> Ints:
    """Numbers of the sides that no other polygon shares."""
    pairs = _ends(corners, sizes)
    base = int(pairs.max(initial=0)) + 1
    keys = pairs.min(axis=1) * base + pairs.max(axis=1)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    is_new = np.diff(keys, prepend=-1) > 0
    is_last = np.append(is_new[1:], True)
    return np.sort(order[is_new & is_last])


def _places(vertices: Floats, numbers: Ints) -> Ints:
    """A number for each place, ``(V,)``; -1 for vertices that are not among the given ones."""
    distinct, place = np.unique(vertices[numbers], axis=0, return_inverse=True)
    tolerance = _TOLERANCE * float(np.linalg.norm(np.ptp(vertices, axis=0)))
    close = cKDTree(distinct).query_pairs(tolerance, output_type="ndarray")
    graph = sparse.coo_matrix((np.ones(len(close)), close.T), shape=(len(distinct),) * 2)
    _, same = csgraph.connected_components(graph, directed=False)
    found = np.full(len(vertices), -1, dtype=np.int64)
    found[numbers] = same[place.reshape(-1)]
    return found


def _same_vertices(mesh: Mesh, sides: Ints, place: Ints) -> Ints:
    """Pairs of vertices that are one, ``(N, 2)``."""
    ends = _ends(*mesh[1:])[sides]
    at = place[ends]
    usable = at[:, 0] != at[:, 1]
    sides, ends, at = sides[usable], ends[usable], at[usable]
    keys = at.min(axis=1) * (int(place.max()) + 1) + at.max(axis=1)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1) > 0)
    counts = np.diff(np.append(starts, len(order)))
    two = starts[counts == 2]
    pairs = [np.stack([order[two], order[two + 1]], axis=1)]
    many = (counts > 2) & (counts <= _MOST_AT_ONE_PLACE)
    if many.any():
        frames = _SideFrames(mesh, sides)
        for start, count in zip(starts[many].tolist(), counts[many].tolist(), strict=True):
            pairs.append(frames.pairs_around(order[start : start + count], at))
    a, b = _of_seams(mesh, sides, np.concatenate(pairs)).T
    is_turned = at[a, 0] != at[b, 0]
    other = np.where(is_turned[:, None], ends[b, ::-1], ends[b])
    return np.stack([ends[a].ravel(), other.ravel()], axis=1)


def _of_seams(mesh: Mesh, sides: Ints, pairs: Ints) -> Ints:
    """Those pairs of sides that a seam parts.

    Pieces that touch along a small part of their borders, as lashes and the shell of an eye do,
    were not one.

    Args:
        mesh: Vertices, corners and sizes.
        sides: Open sides of the polygons.
        pairs: Indices into ``sides`` of those that lie on each other, ``(N, 2)``.

    Returns:
        The pairs within a piece, and those of pieces of which one is joined along its border.
    """
    ends = _ends(*mesh[1:])[sides]
    piece = connected_components(*mesh[1:], len(mesh[0]))[ends[:, 0]]
    total = np.bincount(piece)
    met = np.bincount(piece[np.unique(pairs)], minlength=len(total))
    is_split = (met >= _SPLIT * total) | (total <= _FEW_SIDES)
    first, second = piece[pairs].T
    return pairs[(first == second) | is_split[first] | is_split[second]]


class _SideFrames:
    """Which way the polygons of open sides lead, and where their outside is."""

    def __init__(self, mesh: Mesh, sides: Ints) -> None:
        vertices, corners, sizes = mesh
        ends = _ends(corners, sizes)
        polygon = np.repeat(np.arange(len(sizes)), sizes)
        middle = vertices.mean(axis=0)
        starts = np.cumsum(sizes) - sizes
        cross = np.cross(vertices[ends[:, 0]] - middle, vertices[ends[:, 1]] - middle)
        area = np.add.reduceat(cross, starts, axis=0)
        centre = np.add.reduceat(vertices[corners], starts, axis=0) / sizes[:, None]
        outside = 1.0 if np.einsum("ni,ni->", area, centre - middle) >= 0.0 else -1.0
        of = polygon[sides]
        a, b = vertices[ends[sides, 0]], vertices[ends[sides, 1]]
        along = _unit(b - a)
        into = centre[of] - (a + b) / 2
        self._into = _unit(into - (into * along).sum(axis=1, keepdims=True) * along)
        self._out = outside * _unit(area[of])

    def pairs_around(self, sides: Ints, at: Ints) -> Ints:
        """Of sides at one place those that bound the same flesh, ``(N, 2)``.

        Turning from a polygon through its inside, the first polygon met belongs to it.
        """
        into, out = self._into[sides], self._out[sides]
        angle = np.arctan2(-out @ into.T, into @ into.T) % (2 * np.pi)
        angle[angle < 1e-3] = 2 * np.pi
        forward = at[sides, 0] < at[sides, 1]
        angle[forward[:, None] == forward] = np.inf  # a surface that goes on is wound the other way
        angle = np.maximum(angle, angle.T)
        pairs: list[tuple[int, int]] = []
        while np.isfinite(angle).any():
            i, j = divmod(int(angle.argmin()), len(sides))
            pairs.append((int(sides[i]), int(sides[j])))
            angle[[i, j]] = np.inf
            angle[:, [i, j]] = np.inf
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-30))
