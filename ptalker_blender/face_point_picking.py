# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells which vertex of a head lies under a pixel of the viewport."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from bpy.types import Context, Object, Region
from bpy_extras import view3d_utils

from . import face_point_overlay, face_points


def vertex_under(context: Context, region: Region, obj: Object, pixel: tuple[float, float], *,
                 taken: Collection[int] = ()) -> int | None:  # fmt: skip
    """The vertex of an object nearest to what is seen of it at a pixel of a viewport.

    Args:
        context: For the evaluated scene.
        region: The viewport's region.
        obj: A mesh object in object mode; what lies before it does not matter.
        pixel: From the region's lower left corner.
        taken: Vertices that do not count, as those of other points.

    Returns:
        The vertex's number; None where the object is not under the pixel.
    """
    view: Any = region.data
    origin = view3d_utils.region_2d_to_origin_3d(region, view, pixel)
    direction = view3d_utils.region_2d_to_vector_3d(region, view, pixel)
    inverse = obj.matrix_world.inverted_safe()
    start = inverse @ origin
    depsgraph = context.evaluated_depsgraph_get()
    is_hit, place, _, face = obj.ray_cast(
        start, (inverse @ (origin + direction)) - start, depsgraph=depsgraph
    )
    if not is_hit:
        return None
    mesh = face_point_overlay.shown_mesh(obj, depsgraph)
    num_own = face_points.num_vertices(obj)
    flat = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", flat)
    candidates = np.setdiff1d(np.arange(num_own), list(taken))
    if face < len(mesh.polygons):  # where lips touch, the face tells which of them is meant
        corners = np.intersect1d(mesh.polygons[face].vertices, candidates)
        if corners.size:  # of a subdivided face perhaps none is the object's own
            candidates = corners
    if not candidates.size:
        return None
    away = flat.reshape(-1, 3)[candidates] - np.array(place, np.float32)
    return int(candidates[int((away**2).sum(axis=1).argmin())])
