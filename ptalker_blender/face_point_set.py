# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets a face point by hand, and the same point on the other side of the face with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import bmesh
import numpy as np
from bpy.types import Object

from . import face_point_fit, face_points
from .face_point_fit import Array
from .face_points import Point, State
from .typed import mesh_of

_LEAST_PAIRS: Final = 3
"""So many points that are known on both sides give the plane between the sides."""
_NEAR: Final = 0.02
"""How far from the mirror image a vertex may lie, as part of the head's size."""
_TURN: Final = 0.01
"""What a right angle between two normals counts, in the same."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Vertices as they are edited: places and normals, ``(V, 3)`` each, and the largest extent."""

    places: Array
    normals: Array
    size: float


def set_point(obj: Object, name: str, vertex: int, *, mirror: bool) -> str:
    """Store a vertex as a face point in place of the one it was.

    Args:
        obj: A mesh object whose mesh can be edited, in any mode.
        name: Name of the point.
        vertex: Its vertex.
        mirror: Whether to set the point of the other side too.

    Returns:
        What the artist should know; empty where all went well.
    """
    new = {name: Point(vertex, State.HAND)}
    other, note = face_point_fit.other_side(name), ""
    if mirror and other != name:
        image = _mirrored(obj, name, vertex)
        if image is None or image == vertex:
            note = f"The head has no vertex that mirrors it: set {face_points.title(other)} too."
        else:
            new[other] = Point(image, State.HAND)
    lost = face_points.store(obj, new)
    if lost:
        listed = ", ".join(map(face_points.title, lost))
        note = f"{note} This was the vertex of {listed}: set it anew.".strip()
    return note


def _mirrored(obj: Object, name: str, vertex: int) -> int | None:
    """The vertex that lies where a vertex's mirror image is; None without one."""
    shape = _shape(obj)
    normal, middle = _plane(obj, name, shape)
    image = shape.places[vertex] - 2 * ((shape.places[vertex] - middle) @ normal) * normal
    facing = shape.normals[vertex] - 2 * (shape.normals[vertex] @ normal) * normal
    away = np.linalg.norm(shape.places - image, axis=1)
    cost = away + _TURN * shape.size * (1.0 - shape.normals @ facing)
    cost[away > _NEAR * shape.size] = np.inf
    best = int(cost.argmin())
    return best if np.isfinite(cost[best]) else None


def _plane(obj: Object, name: str, shape: _Shape) -> tuple[Array, Array]:
    """The plane between the sides, by the other points or else across X: normal and a point."""
    known = face_points.marked(obj)
    skipped = {name, face_point_fit.other_side(name)}
    pairs = [
        (known[left], known[right])
        for left in known
        if "left" in left.split("_")
        and left not in skipped
        and (right := face_point_fit.other_side(left)) in known
    ]
    if len(pairs) < _LEAST_PAIRS:
        return np.array([1.0, 0.0, 0.0]), np.zeros(3)
    places = shape.places[np.array(pairs)]  # (pairs, left and right, 3)
    across = (places[:, 0] - places[:, 1]).sum(axis=0)
    middle = places.mean(axis=(0, 1))
    return across / max(float(np.linalg.norm(across)), 1e-30), middle


def _shape(obj: Object) -> _Shape:
    if obj.mode == 'EDIT':
        vertices: Any = bmesh.from_edit_mesh(mesh_of(obj)).verts
        places = np.array([vertex.co for vertex in vertices], np.float64)
        normals = np.array([vertex.normal for vertex in vertices], np.float64)
    else:
        mesh = mesh_of(obj)
        flat = np.empty((2, len(mesh.vertices) * 3), np.float32)
        mesh.vertices.foreach_get("co", flat[0])
        mesh.vertices.foreach_get("normal", flat[1])
        places, normals = flat.astype(np.float64).reshape(2, -1, 3)
    return _Shape(places, normals, float(np.ptp(places, axis=0).max()))
