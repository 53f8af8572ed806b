# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws a head's face points over it in the viewport: dots, and the name of the chosen one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import blf
import bmesh
import gpu
import numpy as np
from bpy.types import Context, Depsgraph, Object
from gpu_extras.batch import batch_for_shader
from numpy.typing import NDArray

from . import face_points, paths, scene_inputs
from .face_points import State
from .typed import mesh_of, settings_of

Floats = NDArray[np.float32]

_COLORS: Final = {
    State.FOUND: (0.05, 0.85, 0.95),
    State.HAND: (0.25, 0.95, 0.35),
    State.DOUBTFUL: (1.0, 0.85, 0.0),
}
_AIM_COLOR: Final = (1.0, 1.0, 1.0)
_RIM_COLOR: Final = (0.02, 0.02, 0.02)
_RADIUS: Final = {State.FOUND: 2.6, State.HAND: 2.8, State.DOUBTFUL: 4.2}
_CHOSEN_RADIUS: Final = 5.0
_SMALL_FACE_PIXELS: Final = 350.0
_SMALLEST: Final = 0.45
"""Dots shrink with a face of fewer pixels, down to this factor, so that it is still seen."""
_RIM: Final = 1.4
_FADE: Final = 1.0
_CORNERS: Final = 16
_TEXT_PIXELS: Final = 13
_AWAY: Final = -0.1
"""A point that lies so far behind the middle of all (a cosine) is drawn faintly."""
_LEAST_POINTS: Final = 30
"""With fewer points nothing tells where the head's middle is."""
_FAINT: Final = 0.18


@dataclass(frozen=True, slots=True)
class Spot:
    """A dot in the viewport.

    Attributes:
        name: The point's name.
        state: Where the point comes from.
        place: Pixels from the region's lower left corner, ``(2,)``.
        is_facing: Whether it is on the side of the head that is seen.
    """

    name: str
    state: State
    place: Floats
    is_facing: bool


class Aim:
    """The vertex that a click would take now, while a point is being set by clicks."""

    head: int = 0
    vertex: int = -1
    text: str = ""


def draw(context: Context) -> None:
    """Draw the dots of the panel's head, where it is seen in this viewport."""
    view: Any = context.space_data
    obj = scene_inputs.find_head(context)
    if obj is None or obj.type != 'MESH' or not view.overlay.show_overlays:
        return
    if not obj.visible_get(view_layer=context.view_layer, viewport=view):
        return
    spots = find_spots(obj, context)
    aim = _aim_place(obj, context)
    if not spots and aim is None:
        return
    scale = context.preferences.system.ui_scale
    dots = scale * _shrinking(spots, scale)
    chosen = _chosen(obj)
    discs: list[tuple[Floats, float, tuple[float, float, float], float]] = []
    for spot in sorted(spots, key=lambda spot: (spot.name == chosen, spot.state)):
        alpha = 1.0 if spot.is_facing else _FAINT
        radius = _CHOSEN_RADIUS if spot.name == chosen else _RADIUS[spot.state]
        if spot.name == chosen:
            discs.append((spot.place, radius + 2 * _RIM, _AIM_COLOR, alpha))
        discs.append((spot.place, radius + _RIM, _RIM_COLOR, 0.9 * alpha))
        discs.append((spot.place, radius, _COLORS[spot.state], alpha))
    if aim is not None:
        discs.append((aim, _CHOSEN_RADIUS + _RIM, _RIM_COLOR, 1.0))
        discs.append((aim, _CHOSEN_RADIUS, _AIM_COLOR, 1.0))
    gpu.state.blend_set('ALPHA')
    _draw_discs(discs, dots)
    gpu.state.blend_set('NONE')
    if aim is not None:
        _draw_text(aim, Aim.text, scale)
        return
    for spot in spots:
        if spot.name == chosen:
            _draw_text(spot.place, face_points.title(spot.name), scale)


def _shrinking(spots: list[Spot], scale: float) -> float:
    """The factor of the dots' sizes for a face as small as it is seen."""
    if len(spots) < _LEAST_POINTS:
        return 1.0
    extent = float(np.ptp([spot.place for spot in spots], axis=0).max())
    return min(1.0, max(_SMALLEST, extent / (_SMALL_FACE_PIXELS * scale)))


def _chosen(obj: Object) -> str:
    """Name of the point that is chosen in the list."""
    names = face_points.names(paths.backend_root())
    number: int = settings_of(obj).face_point
    return names[min(number, len(names) - 1)]


def find_spots(obj: Object, context: Context) -> list[Spot]:
    """Where a head's points are seen in a viewport.

    Args:
        obj: The head, a mesh object.
        context: Of the viewport.

    Returns:
        The points in the viewport; those behind the viewer are left out.
    """
    known = face_points.points(obj)
    if not known:
        return []
    numbers = [point.vertex for point in known.values()]
    places = _shown(obj, context.evaluated_depsgraph_get(), numbers)
    pixels, is_before = to_pixels(places, context)
    facing = _facing(places, context)
    return [
        Spot(name, point.state, pixels[row], bool(facing[row] > _AWAY))
        for row, (name, point) in enumerate(known.items())
        if is_before[row]
    ]


def _aim_place(obj: Object, context: Context) -> Floats | None:
    if Aim.head != obj.session_uid or not 0 <= Aim.vertex < face_points.num_vertices(obj):
        return None
    places = _shown(obj, context.evaluated_depsgraph_get(), [Aim.vertex])
    pixels, is_before = to_pixels(places, context)
    return pixels[0] if is_before[0] else None


def shown_mesh(obj: Object, depsgraph: Depsgraph) -> Any:
    """The mesh whose first vertices are the object's own, as it is seen.

    Modifiers that add vertices put them at the end; where one removes some, the mesh without
    modifiers is returned.
    """
    mesh = obj.evaluated_get(depsgraph).data
    own = mesh_of(obj)
    return mesh if len(mesh.vertices) >= len(own.vertices) else own


def _shown(obj: Object, depsgraph: Depsgraph, numbers: list[int]) -> Floats:
    """Places of vertices as they are seen, in the world, ``(N, 3)``."""
    if obj.mode == 'EDIT':
        edited = bmesh.from_edit_mesh(mesh_of(obj))
        edited.verts.ensure_lookup_table()
        vertices: Any = edited.verts
    else:
        vertices = shown_mesh(obj, depsgraph).vertices
    places = np.array([vertices[number].co for number in numbers], np.float32)
    matrix = np.array(obj.matrix_world, np.float32)
    return np.asarray(places @ matrix[:3, :3].T + matrix[:3, 3], np.float32)


def to_pixels(places: Floats, context: Context) -> tuple[Floats, NDArray[np.bool_]]:
    """Project places in the world to a viewport.

    Args:
        places: ``(N, 3)``.
        context: Of the viewport.

    Returns:
        Pixels from the region's lower left corner, ``(N, 2)``, and which lie before the viewer.
    """
    matrix = np.array(context.region_data.perspective_matrix, np.float32)
    seen = places @ matrix[:, :3].T + matrix[:, 3]
    is_before = seen[:, 3] > 1e-6
    depth = np.where(is_before, seen[:, 3], 1.0)
    half = np.array([context.region.width, context.region.height], np.float32) / 2
    pixels = (seen[:, :2] / depth[:, None] + 1.0) * half
    return np.asarray(pixels, np.float32), is_before


def _facing(places: Floats, context: Context) -> Floats:
    """How far each point lies on the viewer's side of a head, a cosine, ``(N,)``.

    A head is round; normals at the edges of lips and lids say nothing.
    """
    if len(places) < _LEAST_POINTS:
        return np.ones(len(places), np.float32)
    region: Any = context.region_data
    camera = np.array(region.view_matrix.inverted_safe(), np.float32)
    towards = camera[:3, 3] - places if region.is_perspective else camera[None, :3, 2]
    outwards = places - (places.min(axis=0) + places.max(axis=0)) / 2
    sizes = np.linalg.norm(outwards, axis=1) * np.linalg.norm(towards, axis=1)
    return np.asarray((outwards * towards).sum(axis=1) / np.maximum(sizes, 1e-12), np.float32)


def _draw_discs(discs: list[tuple[Floats, float, tuple[float, float, float], float]],
                scale: float) -> None:  # fmt: skip
    """Filled circles with soft edges: place, radius, colour, opacity."""
    angles = np.arange(_CORNERS) * 2 * np.pi / _CORNERS
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    number, following = np.arange(_CORNERS), (np.arange(_CORNERS) + 1) % _CORNERS
    inner, outer, middle = number + 1, number + 1 + _CORNERS, np.zeros_like(number)
    next_inner, next_outer = following + 1, following + 1 + _CORNERS
    fan = np.concatenate([
        np.stack([middle, inner, next_inner], axis=1),
        np.stack([inner, outer, next_outer], axis=1),
        np.stack([inner, next_outer, next_inner], axis=1),
    ])  # fmt: skip
    size = 2 * _CORNERS + 1
    positions = np.zeros((len(discs), size, 3), np.float32)
    colors = np.zeros((len(discs), size, 4), np.float32)
    for row, (place, radius, color, alpha) in enumerate(discs):
        rings = [np.zeros((1, 2)), around * radius, around * (radius + _FADE)]
        positions[row, :, :2] = place + scale * np.concatenate(rings)
        colors[row, :, :3] = color
        colors[row, : _CORNERS + 1, 3] = alpha
    indices = fan[None] + size * np.arange(len(discs))[:, None, None]
    shader = gpu.shader.from_builtin('SMOOTH_COLOR')
    content: Any = {"pos": positions.reshape(-1, 3), "color": colors.reshape(-1, 4)}
    batch = batch_for_shader(
        shader, 'TRIS', content, indices=indices.reshape(-1, 3).astype(np.int32)
    )
    batch.draw(shader)


def _draw_text(place: Floats, text: str, scale: float) -> None:
    font = 0
    blf.size(font, _TEXT_PIXELS * scale)
    blf.enable(font, blf.SHADOW)
    blf.shadow(font, 5, 0.0, 0.0, 0.0, 1.0)
    blf.shadow_offset(font, 0, 0)
    blf.color(font, 1.0, 1.0, 1.0, 1.0)
    gap = (_CHOSEN_RADIUS + 3 * _RIM + 4) * scale
    blf.position(font, float(place[0]) + gap, float(place[1]) - 0.35 * _TEXT_PIXELS * scale, 0.0)
    blf.draw(font, text)
    blf.disable(font, blf.SHADOW)
