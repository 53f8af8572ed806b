# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells what the parts of a head are that its skin does not hold: by their shape and place.

A part is a connected piece of the mesh. A topology may name some; the others are told here. An
eyeball is round, teeth lie inside the mouth, lashes begin at a lid's rim and shells lie on the
eyeball. Positions are in the face's axes, in mm of a head with 62 mm between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph, linalg
from scipy.spatial import cKDTree

from backend.heads.mesh import polygon_edges
from backend.heads.rasterise import rasterise
from backend.heads.topology import Head

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SIDES = ("left", "right")
_EQUAL = 1.25  # extents of a ball differ by a fifth at most
_ROUGHNESS = 0.1  # mean deviation of a ball's vertices from its radius; a cornea bulges
_ON_BALL = 0.2  # of the radius, by which a shell may lie off the ball
_RIM_REACH_MM = 4.0  # how far from a lid's rim lashes may begin
_TONGUE_MIDLINE_MM = 4.0
_TONGUE_WIDTH_MM = 64.0
_TONGUE_TIP_MM = 24.0
_LOWEST_SHARE = 0.3  # of a piece's height that must lie beyond the bite to span both rows
_SEED_MM = 4.0  # gums this near to teeth go with them


@dataclass(frozen=True)
class Anchors:
    """What the parts of a head are told by.

    Attributes:
        skin: Vertices of the connected part that has the face points.
        triangles: Triangles of the skin that are seen from outside, ``(N, 3)``.
        rims: Vertices of both lids' margins of each eye.
        landmark_vertex: Vertex number of each face point by its name.
    """

    skin: Ints
    triangles: Ints
    rims: dict[str, Ints]
    landmark_vertex: dict[str, int]


@dataclass(frozen=True)
class HeadParts:
    """Vertices of what is not skin, by what it is; each vertex occurs once.

    Attributes:
        balls: Layers of the eyeball of each eye.
        turning: What turns with each eyeball: iris, pupil, cornea.
        lashes: Lashes of each eye.
        shells: What lies on each eyeball between the lids: tear line, occlusion.
        mouth: ``teeth_upper``, ``teeth_lower``, ``tongue``, and ``gums``: what spans both rows.
        jaw_shares: Share with which each vertex of ``mouth`` follows the jaw, ``(V,)``.
        attached: The rest: brows, a beard, hair, a collar.
    """

    balls: dict[str, list[Ints]]
    turning: dict[str, Ints]
    lashes: dict[str, Ints]
    shells: dict[str, Ints]
    mouth: dict[str, Ints]
    jaw_shares: Floats
    attached: Ints


@dataclass
class _Eye:
    """One eye while its parts are told."""

    middle: Floats  # of the lids' margins
    width: float
    rim: cKDTree
    rim_z: float
    balls: list[Ints] = field(default_factory=list)
    turning: list[Ints] = field(default_factory=list)
    lashes: list[Ints] = field(default_factory=list)
    shells: list[Ints] = field(default_factory=list)


def tell_parts(head: Head, points: Floats, anchors: Anchors) -> HeadParts:
    """Vertices by what they are: named by the topology, else told by shape and place.

    Args:
        head: A head with all face points.
        points: Its vertices in the face's axes, in mm, ``(V, 3)``.
        anchors: Its skin, lids and face points.

    Returns:
        The parts; a part that is nothing else is attached to the skin.
    """
    named = {f"eye_{side}": head.part(f"eye_{side}") for side in SIDES}
    named |= {role: head.part(role) for role in ("teeth_upper", "teeth_lower", "tongue")}
    taken = np.zeros(len(points), dtype=bool)
    for vertices in (anchors.skin, *named.values()):
        taken[vertices] = True
    pieces = _pieces(head.components, np.flatnonzero(~taken))
    eyes = {side: _eye(points, anchors, side) for side in SIDES}
    for side, eye in eyes.items():
        if len(named[f"eye_{side}"]):
            eye.balls.append(named[f"eye_{side}"])
    pieces = _tell_eyes(points, pieces, eyes)
    in_mouth, attached = _split(pieces, _inside_mouth(points, pieces, anchors))
    mouth, shares = _tell_mouth(head, points, in_mouth, named, anchors)
    return HeadParts(
        balls={side: eye.balls for side, eye in eyes.items()},
        turning={side: joined(eye.turning) for side, eye in eyes.items()},
        lashes={side: joined(eye.lashes) for side, eye in eyes.items()},
        shells={side: joined(eye.shells) for side, eye in eyes.items()},
        mouth=mouth,
        jaw_shares=shares,
        attached=joined(attached),
    )


def sphere_fit(points: Floats) -> tuple[Floats, float]:
    """Centre and radius of the sphere through points ``(n, 3)`` by least squares, n >= 4."""
    # |p|^2 = 2 c.p + (r^2 - |c|^2)
    system = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    solution = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    centre = solution[:3]
    return centre, float(np.sqrt(max(solution[3] + centre @ centre, 1.0)))


def joined(pieces: list[Ints]) -> Ints:
    """Vertices of all pieces, ascending."""
    return np.unique(np.concatenate(pieces)) if pieces else np.zeros(0, dtype=np.int64)


def _pieces(components: NDArray[np.int32], vertices: Ints) -> list[Ints]:
    order = vertices[np.argsort(components[vertices], kind="stable")]
    ends = np.flatnonzero(np.diff(components[order])) + 1
    return [piece for piece in np.split(order, ends) if len(piece)]


def _split(pieces: list[Ints], chosen: list[bool]) -> tuple[list[Ints], list[Ints]]:
    yes = [piece for piece, is_chosen in zip(pieces, chosen, strict=True) if is_chosen]
    return yes, [piece for piece, is_chosen in zip(pieces, chosen, strict=True) if not is_chosen]


def _eye(points: Floats, anchors: Anchors, side: str) -> _Eye:
    rim = points[anchors.rims[side]]
    corners = points[[anchors.landmark_vertex[f"eye_{c}_{side}"] for c in ("inner", "outer")]]
    width = float(np.linalg.norm(corners[0] - corners[1]))
    return _Eye((corners[0] + corners[1]) / 2, width, cKDTree(rim), float(rim[:, 2].mean()))


def _tell_eyes(points: Floats, pieces: list[Ints], eyes: dict[str, _Eye]) -> list[Ints]:
    """Sorts pieces near the eyes into their lists; returns the others."""
    rest: list[Ints] = []
    near: list[tuple[_Eye, Ints]] = []
    for piece in pieces:
        box = points[piece].min(axis=0), points[piece].max(axis=0)
        middle = (box[0] + box[1]) / 2
        eye = min(eyes.values(), key=lambda e: float(abs(e.middle[0] - middle[0])))
        away = np.abs(middle - eye.middle)
        is_near = (away < np.array([0.8, 0.7, 1.2]) * eye.width).all()
        if not is_near or (box[1] - box[0]).max() > 2.2 * eye.width:
            rest.append(piece)
        elif away[:2].max() < 0.45 * eye.width and _is_ball(points[piece], eye.width):
            eye.balls.append(piece)
        else:
            near.append((eye, piece))
    for eye, piece in near:
        kind = _eye_part(points, piece, eye)
        {"turning": eye.turning, "lashes": eye.lashes, "shells": eye.shells}.get(kind, rest).append(
            piece
        )
    return rest


def _is_ball(points: Floats, width: float) -> bool:
    """Whether points lie on a ball, or at least on the half of it that is seen."""
    extent = np.ptp(points, axis=0)
    if len(points) < 8 or not 1 / _EQUAL < extent[0] / max(extent[1], 1e-9) < _EQUAL:
        return False
    centre, radius = sphere_fit(points)
    away = np.linalg.norm(points - centre, axis=1)
    return bool(
        0.25 * width < radius < 1.1 * width
        and 0.4 * extent[0] < extent[2] < _EQUAL * extent[0]
        and extent[0] > 1.5 * radius
        and np.abs(away - radius).mean() < _ROUGHNESS * radius
    )


def _eye_part(points: Floats, piece: Ints, eye: _Eye) -> str:
    """``turning``, ``lashes``, ``shells``, or nothing: what a piece near an eye is."""
    here = points[piece]
    extent = np.ptp(here, axis=0)
    is_disc = 1 / _EQUAL < extent[0] / max(extent[1], 1e-9) < _EQUAL
    to_rim = float(eye.rim.query(here)[0].min())
    if eye.balls:
        centre, radius = ball_of(points, eye.balls)
        away = np.linalg.norm(here - centre, axis=1)
        off_axis = np.abs((here.min(axis=0) + here.max(axis=0)) / 2 - centre)[:2].max()
        if (away < 0.98 * radius).all() and off_axis < 0.7 * radius:
            return "turning"
        is_on_ball = float((np.abs(away - radius) < _ON_BALL * radius).mean()) > 0.8
        if is_on_ball and is_disc and off_axis < 0.35 * radius:
            return "turning"
        if is_on_ball and to_rim < _RIM_REACH_MM:
            return "shells"
    elif is_disc and here[:, 2].mean() < eye.rim_z and extent[0] > 0.2 * eye.width:
        return "turning"  # a flat iris without a ball
    return "lashes" if to_rim < _RIM_REACH_MM else ""


def ball_of(points: Floats, layers: list[Ints]) -> tuple[Floats, float]:
    """Centre and radius of an eyeball: of its roundest layer, since a cornea bulges."""
    fits = []
    for layer in layers:
        centre, radius = sphere_fit(points[layer])
        away = np.linalg.norm(points[layer] - centre, axis=1)
        fits.append((float(away.std()) / radius, radius, centre))
    _, radius, centre = min(fits, key=lambda fit: fit[:2])
    return centre, radius


def _inside_mouth(points: Floats, pieces: list[Ints], anchors: Anchors) -> list[bool]:
    """Whether each piece lies behind the lips and cheeks, between chin and nose."""
    at = {name: points[number] for name, number in anchors.landmark_vertex.items()}
    half_width = (at["lip_corner_left"][0] - at["lip_corner_right"][0]) / 2
    centre = (at["lip_corner_left"][0] + at["lip_corner_right"][0]) / 2
    low, high = at["chin_bottom"][1] - 5.0, at["nose_root"][1] - 10.0
    back = (at["jaw_hinge_left"][2] + at["jaw_hinge_right"][2]) / 2
    front = at["lip_upper_inner_center"][2] + 3.0
    is_before = (points[anchors.triangles, 2] > back).all(axis=1)
    face = _FrontOfFace(points, anchors.triangles[is_before])
    result = []
    for piece in pieces:
        here = points[piece]
        x, y, z = here.mean(axis=0)
        in_box = abs(x - centre) < 1.6 * half_width and low < y < high and back < z < front
        if not in_box or np.ptp(here, axis=0).max() > 120.0:
            result.append(False)
            continue
        behind = face.depth(here) - here[:, 2]
        seen = np.isfinite(behind)  # else it shows between the lips
        result.append(not seen.any() or bool((behind[seen] > 0.0).mean() > 0.6))
    return result


class _FrontOfFace:
    """How far forward the face's skin reaches, a depth buffer of 1 mm."""

    def __init__(self, points: Floats, triangles: Ints) -> None:
        used = points[np.unique(triangles)]
        self._low = used[:, :2].min(axis=0) - 1.0
        width, height = np.ceil(np.ptp(used[:, :2], axis=0)).astype(int) + 2
        screen = points[:, :2] - self._low
        raster = rasterise(screen, points[:, 2], triangles, width=width, height=height)
        self._depth = np.full((height, width), np.nan)
        self._depth[raster.triangle >= 0] = raster.interpolated(points[:, 2:], triangles)[:, 0]

    def depth(self, points: Floats) -> Floats:
        """Foremost z of the skin at the places of points ``(n, 3)``; NaN where there is none."""
        column, row = np.floor(points[:, :2] - self._low).astype(int).T
        height, width = self._depth.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = np.full(len(points), np.nan)
        found[inside] = self._depth[row[inside], column[inside]]
        return found


def _tell_mouth(
    head: Head,
    points: Floats,
    pieces: list[Ints],
    named: dict[str, Ints],
    anchors: Anchors,
) -> tuple[dict[str, Ints], Floats]:
    """Teeth, tongue and gums by height, and with which share each vertex follows the jaw."""
    bite = _bite(points, pieces, named, anchors)
    found: dict[str, list[Ints]] = {
        role: [named[role]] if len(named.get(role, ())) else []
        for role in ("teeth_upper", "teeth_lower", "tongue", "gums")
    }
    for piece in pieces:
        found[_mouth_role(points[piece], bite)].append(piece)
    mouth = {role: joined(vertices) for role, vertices in found.items()}
    shares = np.zeros(len(points))
    shares[mouth["teeth_lower"]] = shares[mouth["tongue"]] = 1.0
    if len(mouth["gums"]):
        shares[mouth["gums"]] = _gum_shares(head, points, mouth, bite)
    return mouth, shares


def _bite(points: Floats, pieces: list[Ints], named: dict[str, Ints], anchors: Anchors) -> float:
    """Height at which the rows of teeth meet: the widest gap of the pieces' heights near the lips.

    A piece that spans both rows tells nothing, so the lips' own height counts with the others.
    """
    lips = points[
        [anchors.landmark_vertex[f"lip_{lip}_inner_center"] for lip in ("upper", "lower")], 1
    ].mean()
    rows = [*pieces, *(named[r] for r in ("teeth_upper", "teeth_lower") if len(named[r]))]
    heights = np.sort([points[piece, 1].mean() for piece in rows])
    below, above = heights[heights < lips], heights[heights >= lips]
    if not len(below) or not len(above):
        return float(lips)
    near = heights[np.abs(heights - lips) < 14.0]
    if len(near) < 2:
        return float(lips)
    gap = int(np.diff(near).argmax())
    return float(np.clip((near[gap] + near[gap + 1]) / 2, lips - 5.0, lips + 5.0))


def _mouth_role(points: Floats, bite: float) -> str:
    if _is_tongue(points, bite):
        return "tongue"
    low, high = points[:, 1].min(), points[:, 1].max()
    beyond = min(high - bite, bite - low)
    is_wide = np.ptp(points[:, 0]) > 25.0  # a single tooth may reach over the other row
    if is_wide and beyond > max(_LOWEST_SHARE * (high - low), 3.0):
        return "gums"
    return "teeth_upper" if points[:, 1].mean() > bite else "teeth_lower"


def _is_tongue(points: Floats, bite: float) -> bool:
    """Whether a piece fills the middle of the mouth, low and with a tip: rows of teeth are arches.

    Gums with a tongue on them begin in front as high as both rows.
    """
    extent = np.ptp(points, axis=0)
    centre = (points[:, 0].min() + points[:, 0].max()) / 2
    middle = points[np.abs(points[:, 0] - centre) < _TONGUE_MIDLINE_MM]
    if len(middle) < 4 or extent[0] > _TONGUE_WIDTH_MM or extent[2] < 15.0:
        return False
    depths = np.sort(middle[:, 2])
    tip = points[points[:, 2] > points[:, 2].max() - 0.15 * extent[2]]
    return bool(
        np.ptp(depths) > 0.75 * extent[2]
        and np.diff(depths).max() < 0.35 * extent[2]
        and np.ptp(tip[:, 1]) < _TONGUE_TIP_MM
        and np.ptp(tip[:, 0]) < 0.85 * extent[0]
        and points[:, 1].mean() < bite + 4.0
    )


def _gum_shares(head: Head, points: Floats, mouth: dict[str, Ints], bite: float) -> Floats:
    """Share of the jaw of what spans both rows: 0 at the upper one, 1 at the lower, smooth between.

    Near teeth that are parts of their own it is theirs; else it goes by height. In between, where
    the rows are one piece, it changes as heat would flow, and most of it within a short way.
    """
    gums = mouth["gums"]
    upper, lower = (
        cKDTree(points[mouth[role]]).query(points[gums])[0] if len(mouth[role]) else None
        for role in ("teeth_upper", "teeth_lower")
    )
    if upper is not None and lower is not None:
        is_upper = (upper < _SEED_MM) & (upper < lower)
        is_lower = (lower < _SEED_MM) & (lower < upper)
    else:
        height = points[gums, 1] - bite
        is_upper, is_lower = height > _SEED_MM, height < -_SEED_MM
    local = np.full(len(points), -1)
    local[gums] = np.arange(len(gums))
    edges = polygon_edges(head.corners, head.sizes)
    edges = local[edges[(local[edges] >= 0).all(axis=1)]]
    share = _flow(points[gums], edges, is_upper, is_lower)
    share = np.clip((share - 0.5) * 1.6 + 0.5, 0.0, 1.0)
    return np.asarray(share * share * (3 - 2 * share))


def _flow(
    points: Floats, edges: Ints, is_upper: NDArray[np.bool_], is_lower: NDArray[np.bool_]
) -> Floats:
    """Harmonic field on edges that is 0 and 1 at given vertices; by height where neither is."""
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    weights = 1.0 / np.maximum(length, 1e-3)
    shape = (len(points),) * 2
    half = sparse.coo_matrix((weights, (edges[:, 0], edges[:, 1])), shape=shape)
    graph = (half + half.T).tocsr()
    share = is_lower.astype(np.float64)
    labels = csgraph.connected_components(graph, directed=False)[1]
    seeded = np.isin(labels, labels[is_upper | is_lower])
    share[~seeded] = 0.5
    free = np.flatnonzero(seeded & ~is_upper & ~is_lower)
    known = np.flatnonzero(is_upper | is_lower)
    if len(free):
        degree = np.asarray(graph.sum(axis=1)).ravel()
        matrix = (sparse.diags(degree[free]) - graph[free][:, free]).tocsc()
        share[free] = linalg.spsolve(matrix, graph[free][:, known] @ share[known])
    return share
