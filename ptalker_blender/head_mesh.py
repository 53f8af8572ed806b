# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the neutral shape and the faces of a mesh object as arrays, and what is wrong with them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import bpy
import numpy as np
from bpy.types import Object
from numpy.typing import NDArray

from .motion import Floats


def neutral_vertices(obj: Object) -> Floats:
    """``(V, 3)`` of the basis key where there are shape keys, else of the mesh."""
    mesh = obj.data
    flat = np.empty(len(mesh.vertices) * 3, np.float32)
    if mesh.shape_keys is not None:
        mesh.shape_keys.reference_key.points.foreach_get("co", flat)
    else:
        mesh.attributes["position"].data.foreach_get("vector", flat)
    return flat.reshape(-1, 3)


def faces(obj: Object) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Vertex number of each face corner, and number of corners of each face."""
    mesh = obj.data
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    sizes = np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("loop_total", sizes)
    return corners, sizes


def is_mirrored(obj: Object) -> bool:
    """Whether the object shows its mesh as in a mirror: a negative scale, its own or a parent's."""
    return bool(obj.matrix_world.is_negative)


def mirrored(vectors: Floats) -> Floats:
    """Positions or displacements ``(..., 3)`` between a mesh and what its mirrored object shows."""
    return vectors * np.array([-1.0, 1.0, 1.0], np.float32)


def seen(obj: Object) -> tuple[Floats, NDArray[np.int32], NDArray[np.int32]]:
    """The neutral vertices and the faces of an object as it is seen: left is the head's left.

    Where the object mirrors its mesh, positions are ``mirrored`` and faces wound the other way, so
    what is found on them fits the mesh by vertex numbers, and displacements ``mirrored`` again.
    """
    vertices, (corners, sizes) = neutral_vertices(obj), faces(obj)
    if not is_mirrored(obj):
        return vertices, corners, sizes
    ends = np.cumsum(sizes)
    first = np.repeat(ends - sizes, sizes)
    last = np.repeat(ends, sizes) - 1
    return mirrored(vertices), corners[first + last - np.arange(len(corners))], sizes


def problem(obj: Object) -> str:
    """Why a mesh cannot be a head, as far as a look tells; empty where it can. It may be drawn."""
    half = next((m for m in obj.modifiers if _halves(obj, m)), None)
    if half is not None:
        return (
            f'"{obj.name}" is half a head with a Mirror modifier, and a face moves on either side '
            f'by itself. Apply the modifier "{half.name}" first (Ctrl-A over it).'
        )
    return ""


def _halves(obj: Object, modifier: Any) -> bool:
    """Whether a modifier completes a mesh that lies on one side of the object's middle."""
    if modifier.type != 'MIRROR' or not modifier.show_viewport or modifier.mirror_object:
        return False
    mesh = obj.data
    state = (mesh.session_uid, len(mesh.vertices), len(mesh.polygons))
    axes = tuple(axis for axis in range(3) if modifier.use_axis[axis])
    return any(share < 0.02 for share in _smaller_sides(obj.name, state, axes))


@lru_cache(maxsize=32)
def _smaller_sides(
    name: str, state: tuple[int, int, int], axes: tuple[int, ...]
) -> tuple[float, ...]:
    """Parts of the vertices on the emptier side along axes, once for each state of a mesh."""
    del state  # what the result is kept for
    positions = neutral_vertices(bpy.data.objects[name])
    size = float(np.ptp(positions)) or 1.0
    beyond = [positions[:, axis] / size for axis in axes]
    return tuple(float(min((x < -1e-4).mean(), (x > 1e-4).mean())) for x in beyond)
