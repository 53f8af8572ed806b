# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the neutral shape and the faces of a mesh object as arrays."""

from __future__ import annotations

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
