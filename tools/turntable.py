# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the demo scene's head turning once while it speaks, frame by frame, in Blender's Python.

Usage: ``turntable.py DEMO.BLEND FOLDER workbench|cycles``; FOLDER takes the pictures ``000.png`` …,
which ``tools/heads_pictures.py`` joins. A missing graphics driver aborts the process, so this is a
process of its own. The turn begins and ends at the back of the head, where its seam is not seen.
"""

import math
import os
import sys
from pathlib import Path

import bpy
import numpy as np
from mathutils import Vector

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.demo_render import set_engine  # noqa: E402 - found by the line above
from tools.demo_scene import all_fcurves, look_at  # noqa: E402

NUM_PICTURES = 60
FRAMES_PER_PICTURE = 2
SIZE = 280  # pixels
SAMPLES = 24


def first_frame(scene: bpy.types.Scene, head: bpy.types.Object) -> int:
    """The frame from which the head speaks most while its face is seen."""
    curve = next(c for c in all_fcurves(head) if c.data_path == 'key_blocks["jawOpen"].value')
    length = NUM_PICTURES * FRAMES_PER_PICTURE
    frames = np.arange(scene.frame_start, scene.frame_end)
    opened = np.array([curve.evaluate(float(frame)) for frame in frames])
    seen = np.clip(-np.cos(2 * np.pi * np.arange(length) / length), 0.0, 1.0)
    starts = range(max(1, len(frames) - length))
    score = [float(seen[: len(opened) - i] @ opened[i : i + length]) for i in starts]
    return int(frames[int(np.argmax(score))])


def main() -> int:
    """Render all pictures."""
    blend, folder, engine = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    bpy.ops.wm.open_mainfile(filepath=str(blend))
    scene = bpy.data.scenes[0]
    head = next(obj for obj in scene.objects if obj.type == 'MESH')
    set_engine(scene, engine, SAMPLES)
    scene.render.resolution_x = scene.render.resolution_y = SIZE
    scene.render.image_settings.file_format = 'PNG'
    start = first_frame(scene, head)
    corners = np.array([head.matrix_world @ Vector(corner) for corner in head.bound_box])
    low, high = corners.min(axis=0), corners.max(axis=0)
    centre = Vector(
        ((low[0] + high[0]) / 2, 0.43 * low[1] + 0.57 * high[1], (low[2] + high[2]) / 2)
    )
    distance = 2.9 * float(high[2] - low[2])
    camera = scene.camera
    assert camera is not None
    for number in range(NUM_PICTURES):
        # The lights turn with the camera, as if the head stood on a turntable.
        turn = 2 * math.pi * number / NUM_PICTURES + math.pi
        scene.frame_set(start + number * FRAMES_PER_PICTURE)
        head.rotation_euler.z = turn
        pivot = Vector((centre.x, centre.y, 0.0)) - head.location
        head.delta_location = pivot - pivot_turned(pivot, turn)
        camera.location = centre + Vector((0.0, -distance, 0.03 * distance))
        look_at(camera, centre)
        scene.render.filepath = str(folder / f"{number:03}.png")
        bpy.ops.render.render(write_still=True)
        if number % 10 == 0:
            print(f"| picture {number} of {NUM_PICTURES}", flush=True)
    return 0


def pivot_turned(pivot: Vector, turn: float) -> Vector:
    """A point turned about the vertical axis."""
    cos, sin = math.cos(turn), math.sin(turn)
    return Vector((cos * pivot.x - sin * pivot.y, sin * pivot.x + cos * pivot.y, pivot.z))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # bpy's own exit may hang
