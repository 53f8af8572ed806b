# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside Blender: an Alembic file's mesh, frame by frame, into .npy files.

Usage: ``blender -b --python THIS -- FILE.abc FOLDER RATE_NUMERATOR RATE_DENOMINATOR MAX_FRAMES``;
0 frames are all. Why a file is refused is written to ``refusal.txt`` in the folder.
"""

import math
import sys
from pathlib import Path

import bpy  # type: ignore[import-not-found]
import numpy as np

_MAX_FRAMES = 1_000_000


def main(file: str, folder: str, numerator: str, denominator: str, max_frames: str) -> str:
    """Saves ``vertices`` (T, V, 3), ``face_corners`` and ``face_sizes``.

    Args:
        file: The Alembic file.
        folder: Folder to write the arrays into.
        numerator: Numerator of the frame rate.
        denominator: Denominator of the frame rate.
        max_frames: Number of frames to read; 0 reads all.

    Returns:
        Why the file cannot be read; empty where it was read.
    """
    if "alembic_import" not in dir(bpy.ops.wm):  # some Linux distributions' builds
        return "needs a Blender that was built with Alembic. Name another with --blender."
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    rate = int(numerator) / int(denominator)
    scene.render.fps = math.ceil(rate)
    scene.render.fps_base = scene.render.fps / rate
    try:
        bpy.ops.wm.alembic_import(filepath=file, set_frame_range=True, as_background_job=False)
    except RuntimeError as error:
        return f"is damaged or no Alembic file ({str(error).strip():.120})."
    meshes = [one for one in scene.objects if one.type == "MESH"]
    if not meshes:  # of most damage, the importer only prints a line
        return "is damaged or holds no mesh. Export it again."
    if len(meshes) > 1:
        return f"holds {len(meshes)} meshes. Export the face alone."
    count = scene.frame_end - scene.frame_start + 1
    if not 0 < count <= _MAX_FRAMES:
        return f"goes from frame {scene.frame_start} to {scene.frame_end}. Export a shorter range."
    count = min(count, int(max_frames) or count)
    mesh = _mesh(meshes[0], scene.frame_start)
    corners = np.empty(len(mesh.loops), np.int32)
    sizes = np.empty(len(mesh.polygons), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    mesh.polygons.foreach_get("loop_total", sizes)
    shape = (count, len(mesh.vertices), 3)
    out = np.lib.format.open_memmap(
        Path(folder, "vertices.npy"), mode="w+", dtype=np.float32, shape=shape
    )
    for frame in range(count):
        mesh = _mesh(meshes[0], scene.frame_start + frame)
        if len(mesh.vertices) != shape[1]:
            return f"changes from {shape[1]} to {len(mesh.vertices)} vertices. Export one topology."
        out[frame] = _places(mesh, meshes[0])
    out.flush()
    np.save(Path(folder, "face_corners.npy"), corners)
    np.save(Path(folder, "face_sizes.npy"), sizes)
    return ""


def _mesh(thing: "bpy.types.Object", frame: int) -> "bpy.types.Mesh":
    bpy.context.scene.frame_set(frame)
    return thing.evaluated_get(bpy.context.evaluated_depsgraph_get()).data


def _places(mesh: "bpy.types.Mesh", thing: "bpy.types.Object") -> np.ndarray:
    """World positions (V, 3), turned back from Blender's Z up to the file's Y up."""
    flat = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", flat)
    evaluated = thing.evaluated_get(bpy.context.evaluated_depsgraph_get())
    world = np.array(evaluated.matrix_world, np.float64)
    places = flat.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3]
    return places[:, (0, 2, 1)] * np.array([1.0, 1.0, -1.0])


if __name__ == "__main__":
    given = sys.argv[sys.argv.index("--") + 1 :]
    if refusal := main(*given):
        Path(given[1], "refusal.txt").write_text(refusal, encoding="utf-8")
