# SPDX-License-Identifier: GPL-3.0-or-later
"""How parts that are not skin follow it: lashes a lid, shells both lids, hair what it grows on.

Each vertex follows the *root* that is nearest along its own part: a vertex of that part next to the
skin. So hair that hangs over the other lip, or the tip of a lash near the other lid, moves with
what it grows on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from backend.heads.eye_shapes import EyeFrame, eye_frame, margin_at
from backend.heads.face_layout import EyeLayout, FaceLayout

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_LASH_ROOT_MM = 1.0  # lash vertices this much farther from the rim than those beside are roots
_LASH_ROOT_SHARE = 0.4  # of the way from a piece's nearest vertex to its farthest
_LASH_STEP_MM = 1.5
_EVEN_TURN = 0.6  # lashes turn by the lid's mean to this share, not to be twisted at its ends
_ONE_LID = 0.7  # share of a piece's vertices that must be nearer to one lid
_HAIR_ROOT_MM = 3.0
_NEIGHBOURS = 6  # skin vertices that a root follows
_NEAR_MM, _FAR_MM = 8.0, 25.0  # what floats before the skin ceases to follow it between these
_SMOOTHING_STEPS = 4
_SAMPLES_PER_EDGE = 8


def follow_skin(face: FaceLayout, offsets: Floats, edges: Ints) -> None:
    """Moves lashes, shells and attached parts with the skin, in place.

    Args:
        face: Layout of the face.
        offsets: Displacements of all shapes, ``(K, V, 3)`` in mm; skin and eyeballs are solved.
        edges: Edges of the mesh, each once, ``(E, 2)``.
    """
    for side, eye in face.eyes.items():
        if len(eye.lashes):
            part = _Part.of(face.points, eye.lashes, edges)
            _move_lashes(part, _Rim.of(face, eye), eye_frame(face, side), offsets)
        if len(eye.shells):
            _move_shells(_Part.of(face.points, eye.shells, edges), face, side, offsets)
    if len(face.parts["attached"]):
        part = _Part.of(face.points, face.parts["attached"], edges)
        surface = np.unique(face.skin_triangles)
        weights = _skin_weights(part, face, surface)
        flat = offsets[:, surface].transpose(1, 0, 2).reshape(len(surface), -1)
        moved = (weights @ flat).reshape(len(part.vertices), -1, 3)
        offsets[:, part.vertices] = moved.transpose(1, 0, 2)


@dataclass(frozen=True)
class _Part:
    """Vertices of connected pieces, with the edges between them."""

    vertices: Ints
    points: Floats  # (n, 3)
    graph: sparse.csr_matrix  # (n, n) lengths of the edges
    labels: NDArray[np.int32]  # (n,) number of each vertex's piece

    @classmethod
    def of(cls, points: Floats, vertices: Ints, edges: Ints) -> _Part:
        local = np.full(len(points), -1)
        local[vertices] = np.arange(len(vertices))
        inside = local[edges[(local[edges] >= 0).all(axis=1)]]
        here = points[vertices]
        length = np.linalg.norm(here[inside[:, 0]] - here[inside[:, 1]], axis=1)
        half = sparse.coo_matrix(
            (np.maximum(length, 1e-6), (inside[:, 0], inside[:, 1])), shape=(len(here),) * 2
        )
        graph = (half + half.T).tocsr()
        labels = csgraph.connected_components(graph, directed=False)[1]
        return cls(vertices, here, graph, labels)

    def least(self, values: Floats) -> Floats:
        """The smallest value of each vertex's piece, ``(n,)``."""
        least = np.full(self.labels.max() + 1, np.inf)
        np.minimum.at(least, self.labels, values)
        return np.asarray(least[self.labels])

    def roots(self, is_root: NDArray[np.bool_]) -> Ints:
        """Number of each vertex's root, the nearest along its piece, ``(n,)``."""
        found = csgraph.dijkstra(
            self.graph, directed=False, indices=np.flatnonzero(is_root), min_only=True,
            return_predecessors=True,
        )  # fmt: skip
        return np.asarray(found[2], dtype=np.int64)

    def smoothing(self, roots: Ints) -> sparse.csr_matrix:
        """Takes each vertex but roots half-way to the mean of its neighbours, ``(n, n)``."""
        joined = (self.graph > 0).astype(np.float64)
        degree = np.asarray(joined.sum(axis=1)).ravel()
        is_free = (degree > 0) & (roots != np.arange(len(roots)))
        half = sparse.diags(np.where(is_free, 0.5 / np.maximum(degree, 1.0), 0.0)) @ joined
        return (half + sparse.diags(np.where(is_free, 0.5, 1.0))).tocsr()


@dataclass(frozen=True)
class _Rim:
    """Points along the lids' margins of one eye."""

    weights: sparse.csr_matrix  # (samples, V)
    points: Floats  # (samples, 3)
    is_upper: NDArray[np.bool_]  # (samples,) of the upper lid

    @classmethod
    def of(cls, face: FaceLayout, eye: EyeLayout) -> _Rim:
        rows = [eye.rows[lid] for lid in ("upper", "lower")]
        ends = np.concatenate([np.stack([row[:-1], row[1:]], axis=1) for row in rows])
        steps = np.linspace(0.0, 1.0, _SAMPLES_PER_EDGE, endpoint=False)
        start, end = np.repeat(ends, len(steps), axis=0).T
        share = np.tile(steps, len(ends))
        number = np.arange(len(share))
        weights = sparse.coo_matrix(
            (
                np.concatenate([1.0 - share, share]),
                (np.tile(number, 2), np.concatenate([start, end])),
            ),
            shape=(len(share), len(face.points)),
        ).tocsr()
        is_upper = number < (len(rows[0]) - 1) * len(steps)
        return cls(weights, weights @ face.points, is_upper)

    def nearest(self, part: _Part) -> tuple[Floats, Ints]:
        """Distance and number of the sample that is nearest to each vertex of lashes.

        A piece belongs to one lid, unless it is near to both.
        """
        found = []
        for samples in (np.flatnonzero(self.is_upper), np.flatnonzero(~self.is_upper)):
            distance, at = cKDTree(self.points[samples]).query(part.points)
            found.append((distance, samples[at]))
        (upper, at_upper), (lower, at_lower) = found
        share = np.bincount(part.labels, upper < lower) / np.bincount(part.labels)
        share = np.where(share > _ONE_LID, 1.0, np.where(share < 1.0 - _ONE_LID, 0.0, 0.5))
        of_piece = share[part.labels]
        is_upper = np.where(of_piece == 0.5, upper < lower, of_piece == 1.0)
        return np.where(is_upper, upper, lower), np.where(is_upper, at_upper, at_lower)


def _lash_roots(part: _Part, along: Floats, distance: Floats) -> Ints:
    """The root of each vertex of lashes: nearest to the rim of what lies as far along the eye."""
    place = np.floor((along - along.min()) / _LASH_STEP_MM).astype(np.int64)
    nearest = np.full((part.labels.max() + 1, place.max() + 1), np.inf)
    np.minimum.at(nearest, (part.labels, place), distance)
    beside = np.pad(nearest, ((0, 0), (2, 2)), constant_values=np.inf)
    around = np.min([beside[:, k : k + nearest.shape[1]] for k in range(5)], axis=0)
    is_root = distance <= around[part.labels, place] + _LASH_ROOT_MM
    least, most = part.least(distance), -part.least(-distance)
    # Tips that stick out at the eye's end have nothing else that lies as far along.
    return part.roots(is_root & (distance <= least + _LASH_ROOT_SHARE * (most - least)))


def _move_lashes(part: _Part, rim: _Rim, frame: EyeFrame, offsets: Floats) -> None:
    """Lashes move and turn with the rim at their roots, as stiff as it lets them."""
    distance, nearest = rim.nearest(part)
    roots = _lash_roots(part, frame.local(part.points)[:, 0], distance)
    at = nearest[roots]
    rest = frame.local(rim.points)
    arm = (part.points - rim.points[at]) @ frame.axes.T
    smoothing = part.smoothing(roots)
    for shape in offsets:
        slide = rim.weights @ shape
        if not slide.any():
            continue
        moved = frame.local(rim.points + slide)
        angle = np.arctan2(moved[:, 1], moved[:, 2]) - np.arctan2(rest[:, 1], rest[:, 2])
        for of_lid in (rim.is_upper, ~rim.is_upper):
            angle[of_lid] += _EVEN_TURN * (angle[of_lid].mean() - angle[of_lid])
        cos, sin = np.cos(angle[at]), np.sin(angle[at])
        turned = np.stack(
            [arm[:, 0], cos * arm[:, 1] + sin * arm[:, 2], cos * arm[:, 2] - sin * arm[:, 1]],
            axis=1,
        )
        result = slide[at] + (turned - arm) @ frame.axes
        for _ in range(_SMOOTHING_STEPS):
            result = smoothing @ result
        shape[part.vertices] = result


def _move_shells(part: _Part, face: FaceLayout, side: str, offsets: Floats) -> None:
    """Shells shrink between the lids and stay on the ball, under the lids."""
    eye, frame = face.eyes[side], eye_frame(face, side)
    lids = {lid: frame.lid(face.points, row) for lid, row in eye.rows.items()}
    along, height, out = frame.local(part.points).T
    low, high = (margin_at(lids[lid], along)[0] for lid in ("lower", "upper"))
    share = (np.arctan2(height, out) - low) / np.maximum(high - low, 1e-3)
    share = np.clip(share, 0.0, 1.0)[:, None]
    arm = part.points - eye.centre
    radius = np.linalg.norm(arm, axis=1, keepdims=True)
    for shape in offsets:
        slides = {lid: _interpolated(along, lids[lid].along, shape[row])
                  for lid, row in eye.rows.items()}  # fmt: skip
        slide = share * slides["upper"] + (1.0 - share) * slides["lower"]
        moved = arm + slide
        moved *= radius / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)
        shape[part.vertices] = np.where(slide.any(axis=1, keepdims=True), moved - arm, 0.0)


def _interpolated(at: Floats, along: Floats, values: Floats) -> Floats:
    order = np.argsort(along)
    columns = [np.interp(at, along[order], column[order]) for column in values.T]
    return np.stack(columns, axis=1)


def _skin_weights(part: _Part, face: FaceLayout, surface: Ints) -> sparse.csr_matrix:
    """Weights with which a part follows the skin's vertices, ``(n, len(surface))``."""
    tree = cKDTree(face.points[surface])
    distance, found = tree.query(part.points, k=min(_NEIGHBOURS, len(surface)))
    nearest = distance[:, 0]
    lip = np.zeros(len(face.points))
    lip[face.mouth.lips] = np.where(face.mouth.is_upper, 1.0, -1.0)
    lip = lip[surface[found]]  # 0 on the rest of the skin
    hangs = _hangs_over_other_lip(part, lip[:, 0], nearest)
    nearest = np.where(hangs, np.inf, nearest)
    root = part.roots(nearest <= np.maximum(part.least(nearest) + 0.5, _HAIR_ROOT_MM))
    # The farthest neighbour counts nothing, so that no vertex comes or goes with a jump.
    closeness = 1.0 / np.maximum(distance, 0.1) ** 2
    closeness -= 0.999 * closeness[:, -1:]
    closeness[lip * lip[:, :1] < 0.0] = 0.0  # the other lip
    closeness /= closeness.sum(axis=1, keepdims=True)
    fade = np.clip((_FAR_MM - nearest[root]) / (_FAR_MM - _NEAR_MM), 0.0, 1.0)
    row = np.repeat(np.arange(len(part.points)), distance.shape[1])
    entries = ((closeness[root] * fade[:, None]).ravel(), (row, found[root].ravel()))
    weights = sparse.coo_matrix(entries, shape=(len(part.points), len(surface))).tocsr()
    smoothing = part.smoothing(root)
    for _ in range(_SMOOTHING_STEPS):
        weights = smoothing @ weights
    return weights


def _hangs_over_other_lip(part: _Part, lip: Floats, distance: Floats) -> NDArray[np.bool_]:
    """Whether each vertex hangs before the lip that its piece does not grow at, ``(n,)``.

    A piece is cut where it passes from one lip to the other; of the parts that this leaves, the one
    nearest to the skin has grown there. A beard all around the mouth stays whole.
    """
    edges = part.graph.tocoo()
    stays = lip[edges.row] * lip[edges.col] >= 0.0
    cut = sparse.coo_matrix(
        (edges.data[stays], (edges.row[stays], edges.col[stays])), shape=edges.shape
    )
    labels = csgraph.connected_components(cut, directed=False)[1]
    nearest = np.full(labels.max() + 1, np.inf)
    np.minimum.at(nearest, labels, distance)
    return np.asarray(nearest[labels] > part.least(distance))
