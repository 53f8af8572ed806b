# SPDX-License-Identifier: GPL-3.0-or-later
"""Transfers face points (landmarks) from one head to another, given a few that are known on both.

A similarity transform aligns the known head with the other, a smooth warp makes the points that are
known on both coincide, and each other point goes to the vertex that lies near and faces the same
way: so the upper lip is kept apart from the lower lip that it touches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .protocol import UserError

MIN_POINTS: Final = 4
MAX_MISS: Final = 0.15
"""Largest mean distance of the known points after the alignment, as part of their extent."""
MIXED_UP: Final = 0.7
"""Left and right are mixed up where the mirrored points fit better by this factor."""
_TURN_WEIGHT: Final = 0.06
"""Distance that a right angle between two normals counts as, as part of the points' extent."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Numbers = NDArray[np.floating] | NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Surface:
    """A head's neutral shape and faces.

    Attributes:
        vertices: ``(V, 3)``.
        face_corners: Vertex number of each face corner.
        face_sizes: Number of corners of each face.
    """

    vertices: Array
    face_corners: Indices
    face_sizes: Indices

    @classmethod
    def of(cls, vertices: Numbers, face_corners: Numbers, face_sizes: Numbers) -> Surface:
        """A surface of arrays of any precision."""
        return cls(
            vertices.astype(np.float64), face_corners.astype(np.int64), face_sizes.astype(np.int64)
        )


def transfer(source: Surface, source_points: Mapping[str, int], target: Surface,
             target_points: Mapping[str, int]) -> dict[str, int]:  # fmt: skip
    """Vertex numbers on the target for the points that are not known on it yet.

    Args:
        source: A head whose points are all known.
        source_points: Name of each point -> its vertex on the source.
        target: The head to find the other points on.
        target_points: Name of each point that is known on the target -> its vertex.

    Returns:
        Name of every other point -> its vertex on the target, each vertex used once.

    Raises:
        UserError: Too few points are known, or they do not fit a face.
    """
    known = [name for name in target_points if name in source_points]
    wanted = [name for name in source_points if name not in target_points]
    if len(known) < MIN_POINTS:
        raise UserError(
            f"{len(known)} face points are marked; mark at least {MIN_POINTS} first, best the lip "
            "corners, the outer eye corners, the nose tip and the chin."
        )
    here = source.vertices[[source_points[name] for name in known]]
    there = target.vertices[[target_points[name] for name in known]]
    rotation, scale, shift = _similarity(here, there)
    extent = float(np.linalg.norm(np.ptp(there, axis=0)))
    miss = _miss(here, there)
    mirrored = source.vertices[[source_points[other_side(name)] for name in known]]
    if _miss(mirrored, there) < MIXED_UP * miss:
        raise UserError(
            "The marked face points do not fit a face: left and right are mixed up. They are the "
            "head's own. Mark the points again on the other side."
        )
    if miss > MAX_MISS * extent:
        worst = _worst(here, there)
        raise UserError(
            f"The marked face points do not fit a face: {known[worst]} lies farthest from where "
            "it should. Look at it first, and mark again what is wrong."
        )
    moved = source.vertices[[source_points[name] for name in wanted]] @ (scale * rotation).T + shift
    moved = moved + _warp(here @ (scale * rotation).T + shift, there, moved)
    normals = vertex_normals(source)[[source_points[name] for name in wanted]] @ rotation.T
    candidates = _same_part(target, list(target_points.values()))
    return dict(
        zip(wanted, _choose(moved, normals, target, candidates=candidates,
                            taken=set(target_points.values()), extent=extent), strict=True)
    )  # fmt: skip


def _similarity(here: Array, there: Array) -> tuple[Array, float, Array]:
    """Rotation, scale and shift that bring points closest to others (Umeyama 1991).

    Args:
        here: ``(N, 3)`` points to move.
        there: ``(N, 3)`` where each of them should come to lie.

    Returns:
        Rotation ``(3, 3)``, scale, and shift ``(3,)``.

    Raises:
        UserError: The points lie on a line.
    """
    a, b = here - here.mean(axis=0), there - there.mean(axis=0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    if singular[1] < 1e-3 * singular[0]:
        raise UserError("The marked face points lie on a line. Mark others besides, as the chin.")
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / (a**2).sum())
    return rotation, scale, there.mean(axis=0) - scale * rotation @ here.mean(axis=0)


def _miss(here: Array, there: Array) -> float:
    """Mean distance that the best similarity leaves between points."""
    rotation, scale, shift = _similarity(here, there)
    fitted = here @ (scale * rotation).T + shift
    return float(np.linalg.norm(fitted - there, axis=1).mean())


def _worst(here: Array, there: Array) -> int:
    """Number of the point without which the others fit best."""
    count = len(here)
    if count <= MIN_POINTS:
        rotation, scale, shift = _similarity(here, there)
        away = np.linalg.norm(here @ (scale * rotation).T + shift - there, axis=1)
        return int(away.argmax())
    rest = [np.delete(np.arange(count), left_out) for left_out in range(count)]
    return int(np.argmin([_miss(here[kept], there[kept]) for kept in rest]))


def other_side(name: str) -> str:
    """The same point on the other side of the face; of a point in the middle, itself."""
    sides = {"left": "right", "right": "left"}
    return "_".join(sides.get(word, word) for word in name.split("_"))


def _warp(at: Array, goal: Array, points: Array) -> Array:
    """Smooth displacement of points that moves ``at`` to ``goal``: a spline of kernel ``r``.

    It has no linear part, so that few points bend nothing far from them.
    """
    count = len(at)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = np.linalg.norm(at[:, None] - at[None], axis=2)
    system[count, count] = 0.0
    weights = np.linalg.solve(system, np.vstack([goal - at, np.zeros(3)]))
    kernel = np.linalg.norm(points[:, None] - at[None], axis=2)
    return np.asarray(kernel @ weights[:count] + weights[count])


def vertex_normals(surface: Surface) -> Array:
    """``(V, 3)`` unit normals, faces weighted by area."""
    starts = np.concatenate([[0], np.cumsum(surface.face_sizes)[:-1]])
    following = np.arange(len(surface.face_corners)) + 1
    following[starts + surface.face_sizes - 1] = starts
    corners = surface.vertices[surface.face_corners]
    areas = np.add.reduceat(np.cross(corners, corners[following]), starts, axis=0)
    normals = np.zeros_like(surface.vertices)
    np.add.at(normals, surface.face_corners, np.repeat(areas, surface.face_sizes, axis=0))
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30))


def _same_part(surface: Surface, seeds: list[int]) -> Indices:
    """Vertices of the connected component with most seeds: the skin, not eyes or teeth."""
    starts = np.concatenate([[0], np.cumsum(surface.face_sizes)[:-1]])
    first = np.repeat(surface.face_corners[starts], surface.face_sizes)
    labels = np.arange(len(surface.vertices))
    while True:
        new = labels.copy()
        np.minimum.at(new, first, labels[surface.face_corners])
        np.minimum.at(new, surface.face_corners, new[first])
        new = new[new]
        if np.array_equal(new, labels):
            break
        labels = new
    found, counts = np.unique(labels[seeds], return_counts=True)
    return np.flatnonzero(labels == found[counts.argmax()])


def _choose(points: Array, normals: Array, target: Surface, *, candidates: Indices,
            taken: set[int], extent: float) -> list[int]:  # fmt: skip
    """For each point a vertex that lies near and faces the same way; no vertex is taken twice."""
    free = np.array([vertex for vertex in candidates if vertex not in taken], np.int64)
    if len(free) < len(points):
        raise UserError("The head's skin has too few vertices for its face points.")
    facing = vertex_normals(target)[free]
    chosen: list[int] = []
    for point, normal in zip(points, normals, strict=True):
        turn = _TURN_WEIGHT * extent * (1.0 - facing @ normal)
        cost = ((target.vertices[free] - point) ** 2).sum(axis=1) + turn**2
        best = int(cost.argmin())
        chosen.append(int(free[best]))
        free, facing = np.delete(free, best), np.delete(facing, best, axis=0)
    return chosen
