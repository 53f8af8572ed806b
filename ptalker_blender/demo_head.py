# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds the demo head to the scene: mesh, materials, a free place to stand, and its sentence."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
from bpy.types import Context, Mesh, Object
from mathutils import Matrix, Vector

from . import compat
from .protocol import UserError
from .typed import settings_of

NAME = "Demo Head"
_GAP = 0.08  # metres to what stands beside it
_FLOOR = 0.01  # what is thinner may be stood on
_ROOM = 20.0  # what is wider may be stood in
_NOT_THERE = {'EMPTY', 'CAMERA', 'LIGHT', 'LIGHT_PROBE', 'SPEAKER', 'LATTICE', 'ARMATURE'}


def add(context: Context, path: Path) -> Object:
    """Make the head at the 3D cursor, or beside what is there, and select it.

    Args:
        context: For its scene, collection and view.
        path: File with the head's mesh.

    Returns:
        The new object.

    Raises:
        UserError: The file is missing or broken.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        mesh = _mesh(arrays)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The demo head cannot be read ({error}). Install the PTalker extension again."
        ) from error
    obj = bpy.data.objects.new(NAME, mesh)
    boxes = _boxes(context)
    context.collection.objects.link(obj)
    obj.location = _free_place(context.scene.cursor.location, arrays["vertices"], boxes)
    space = context.space_data
    if isinstance(space, bpy.types.SpaceView3D) and space.local_view is not None:
        obj.local_view_set(space, True)
    for other in tuple(context.view_layer.objects.selected):
        other.select_set(False)
    obj.select_set(True)
    context.view_layer.objects.active = obj
    return obj


def frame(context: Context) -> bool:
    """Show what is selected in the 3D view, where there is one.

    Args:
        context: For its window and view.

    Returns:
        Whether there was a view.
    """
    window = context.window
    if bpy.app.background or window is None:
        return False
    views = [area for area in window.screen.areas if area.type == 'VIEW_3D']
    if not views:
        return False
    area = context.area
    if area is None or area.type != 'VIEW_3D':
        area = max(views, key=lambda view: view.width * view.height)
    region = next(region for region in area.regions if region.type == 'WINDOW')
    context.view_layer.update()
    with context.temp_override(window=window, area=area, region=region):
        bpy.ops.view3d.view_selected()
    return True


def _boxes(context: Context) -> list[np.ndarray]:
    """Lowest and highest corner of each visible thing in the scene, ``(2, 3)``, in its metres."""
    context.view_layer.update()
    boxes = []
    for obj in context.view_layer.objects:
        if not obj.visible_get():
            continue
        if obj.instance_type == 'COLLECTION' and obj.instance_collection is not None:
            whole = obj.matrix_world @ Matrix.Translation(-obj.instance_collection.instance_offset)
            things = obj.instance_collection.all_objects
            boxes += [_box(thing, whole) for thing in things if thing.type not in _NOT_THERE]
        elif obj.type not in _NOT_THERE:
            boxes.append(_box(obj, Matrix()))
    return boxes


def _box(obj: Object, outer: Matrix) -> np.ndarray:
    whole = outer @ obj.matrix_world
    corners = np.array([whole @ Vector(corner) for corner in obj.bound_box])
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def _free_place(start: Vector, vertices: np.ndarray, boxes: list[np.ndarray]) -> Vector:
    """The place nearest to the right of ``start`` at which the head touches nothing."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    in_the_way = [
        box
        for box in boxes
        if box[1, 2] - box[0, 2] > _FLOOR and (box[1, :2] - box[0, :2]).max() < _ROOM
    ]
    place = np.array(start, dtype=np.float64)
    for _ in range(len(in_the_way) + 1):
        touched = [
            box
            for box in in_the_way
            if (place + high + _GAP > box[0]).all() and (place + low - _GAP < box[1]).all()
        ]
        if not touched:
            break
        place[0] = max(box[1, 0] for box in touched) + 1.01 * _GAP - low[0]
    return Vector(place.tolist())


def _mesh(arrays: dict[str, np.ndarray]) -> Mesh:
    vertices, sizes = arrays["vertices"], arrays["face_sizes"]
    corners = arrays["face_corners"].astype(np.int32)
    mesh = bpy.data.meshes.new(NAME)
    mesh.vertices.add(len(vertices))
    mesh.vertices.foreach_set("co", vertices.astype(np.float32).ravel())
    mesh.loops.add(len(corners))
    mesh.loops.foreach_set("vertex_index", corners)
    mesh.polygons.add(len(sizes))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    mesh.polygons.foreach_set("loop_start", starts)
    for name, color in zip(arrays["material_names"], arrays["material_colors"], strict=True):
        mesh.materials.append(_material(str(name), [float(value) for value in color]))
    mesh.polygons.foreach_set("material_index", arrays["face_materials"].astype(np.int32))
    mesh.polygons.foreach_set("use_smooth", np.ones(len(sizes), bool))
    mesh.update(calc_edges=True)
    if mesh.validate():
        raise ValueError("the mesh is not valid")
    return mesh


def _material(name: str, color: list[float]) -> bpy.types.Material:
    material = bpy.data.materials.new(name.title())
    material.diffuse_color = (*color, 1.0)  # what Solid shading shows
    if material.node_tree is None:  # 5.0 and later always make one
        material.use_nodes = True
    shader = material.node_tree.nodes.get("Principled BSDF")
    if shader is not None:
        shader.inputs["Base Color"].default_value = (*color, 1.0)
        shader.inputs["Roughness"].default_value = 0.5
    return material


def add_sentence(context: Context, obj: Object, path: Path) -> None:
    """Give the head something to say: a strip where the sequencer has no sound, else a file."""
    scene = compat.sequencer_scene(context)
    if any(strip.type == 'SOUND' for strip in compat.all_strips(scene)):
        return
    if not path.is_file():
        return
    strip = compat.new_sound_strip(scene, path, frame=scene.frame_start)
    if strip is None:
        settings_of(obj).sound_source = 'FILE'
        settings_of(obj).sound_file = str(path)
        settings_of(obj).sound_frame = scene.frame_start
    else:
        strip.sound.pack()  # the file lies in the extension's folder, which may go
        settings_of(obj).strip_name = strip.name
