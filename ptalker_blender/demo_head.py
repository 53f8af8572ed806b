# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds the demo head to the scene: mesh, materials, smooth shading, and its sentence."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
from bpy.types import Context, Mesh, Object

from . import compat
from .protocol import UserError
from .typed import settings_of

NAME = "Demo Head"


def add(context: Context, path: Path) -> Object:
    """Make the head at the 3D cursor and select it.

    Args:
        context: For its scene and collection.
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
    obj.location = context.scene.cursor.location
    context.collection.objects.link(obj)
    for other in context.selected_objects:
        other.select_set(False)
    obj.select_set(True)
    context.view_layer.objects.active = obj
    return obj


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
