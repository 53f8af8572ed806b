# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the demo scene with the installed extension, as a user would. Runs in Blender's Python.

Installs the zip, adds the demo head and its sentence, presses Generate Lip Sync, sets light and
camera, and saves. ``BLENDER_USER_RESOURCES`` names a folder that may be thrown away.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Vector

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT / "backend" / "demo" / "speech.ogg"
FPS = 25
BACKGROUND = (0.16, 0.21, 0.26)
# Name, location in metres, size in metres, power in watts, colour.
LIGHTS = (
    ("Key", (-0.75, -0.95, 0.75), 0.7, 15.0, (1.0, 0.94, 0.86)),
    ("Fill", (0.95, -0.75, 0.25), 1.2, 6.0, (0.85, 0.90, 1.0)),
    ("Rim", (0.65, 0.75, 0.75), 0.5, 8.0, (0.9, 0.93, 1.0)),
)


def install(extension: Path) -> None:
    """Install and enable the zip the way the preferences do."""
    result = bpy.ops.extensions.package_install_files(
        filepath=str(extension), repo="user_default", enable_on_install=True
    )
    if result != {'FINISHED'} or not hasattr(bpy.types, "PTALKER_OT_generate"):
        raise RuntimeError(f"Blender did not enable {extension.name}")


def operators() -> Any:
    """The extension's operators, of which the stubs know nothing."""
    return bpy.ops.ptalker  # type: ignore[attr-defined]


def choices(head: bpy.types.Object) -> Any:
    """What the panel would let the artist choose for a head."""
    return head.ptalker  # type: ignore[attr-defined]


def strips_of(scene: bpy.types.Scene) -> Any:
    """The strips of the scene's sequencer, whatever this Blender calls them."""
    editor = scene.sequence_editor_create()
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def add_head() -> bpy.types.Object:
    """The demo head, with its sentence in the sequencer where that is empty."""
    operators().add_demo_head()
    return bpy.data.objects[bpy.context.view_layer.objects.active.name]


def add_sound(scene: bpy.types.Scene, head: bpy.types.Object, path: Path) -> None:
    """A sound strip from the first frame on, the only one."""
    strips = strips_of(scene)
    for strip in list(strips):
        strips.remove(strip)
    strip = strips.new_sound(path.stem, str(path), channel=1, frame_start=scene.frame_start)
    choices(head).strip_name = strip.name


def generate(head: bpy.types.Object, listen: str = "auto") -> None:
    """Press Generate Lip Sync and wait.

    Args:
        head: The head to animate.
        listen: Recognition mode, as the panel's property has it in capitals.

    Raises:
        RuntimeError: The job failed; the text is the one that users see.
    """
    choices(head).listen = listen.upper()
    if operators().generate() != {'FINISHED'}:
        raise RuntimeError("Generate was cancelled")


def fit_scene(scene: bpy.types.Scene, head: bpy.types.Object) -> None:
    """The scene ends with the sound, which is packed; the picture is of an open mouth."""
    scene.frame_end = max(int(strip.frame_final_end) for strip in strips_of(scene)) - 1
    for sound in bpy.data.sounds:
        sound.pack()
    curves = {curve.data_path.split('"')[1]: curve for curve in all_fcurves(head)}
    signs = {"jawOpen": 1.0, "eyeBlinkLeft": -2.0, "mouthSmileLeft": 0.3, "mouthUpperUpLeft": 0.2}
    frames = range(scene.frame_start + 5, scene.frame_end - 5)
    score = [
        sum(sign * curves[name].evaluate(frame) for name, sign in signs.items() if name in curves)
        for frame in frames
    ]
    scene["ptalker_demo_frame"] = frames[int(np.argmax(score))]


def all_fcurves(head: bpy.types.Object) -> list[bpy.types.FCurve]:
    """The curves that animate the head's shape keys."""
    animation = head.data.shape_keys.animation_data
    bags = animation.action.layers[0].strips[0].channelbags
    return [curve for bag in bags for curve in bag.fcurves]


def look_at(item: bpy.types.Object, target: Vector) -> None:
    """Turn a camera or light, which look along -Z, to a point."""
    item.rotation_euler = (target - item.location).to_track_quat('-Z', 'Y').to_euler()


def add_light_and_camera(scene: bpy.types.Scene, head: bpy.types.Object) -> None:
    """A portrait: three lights, a long lens, the face slightly turned."""
    corners = np.array([head.matrix_world @ Vector(corner) for corner in head.bound_box])
    low, high = Vector(corners.min(axis=0)), Vector(corners.max(axis=0))
    size = high.z - low.z
    centre = Vector(((low.x + high.x) / 2, (low.y + high.y) / 2, low.z + 0.58 * size))
    for name, offset, extent, power, color in LIGHTS:
        light = bpy.data.lights.new(name, 'AREA')
        assert isinstance(light, bpy.types.AreaLight)
        light.size, light.energy, light.color = extent, power, color
        item = bpy.data.objects.new(name, light)
        item.location = centre + Vector(offset)
        look_at(item, centre)
        scene.collection.objects.link(item)
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.data.lens = 85
    turn, distance = math.radians(14), 2.3 * size
    camera.location = centre + Vector(
        (distance * math.sin(turn), -distance * math.cos(turn), 0.04 * size)
    )
    look_at(camera, centre)
    scene.collection.objects.link(camera)
    scene.camera = camera


def set_look(scene: bpy.types.Scene) -> None:
    """Background, colours and Workbench's studio light; Cycles takes the lights and materials."""
    scene.render.resolution_x = scene.render.resolution_y = 640
    scene.render.dither_intensity = 0.0  # noise that a picture pays for with twice the size
    scene.view_settings.view_transform = 'Standard'
    world = bpy.data.worlds.new("Backdrop")
    world.color = BACKGROUND
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (*BACKGROUND, 1.0)
    scene.world = world
    shading = scene.display.shading
    shading.light = 'STUDIO'
    shading.studio_light = 'paint.sl'
    shading.color_type = 'MATERIAL'
    shading.show_shadows = True
    shading.shadow_intensity = 0.25
    shading.show_specular_highlight = True
    for material in bpy.data.materials:
        shader = material.node_tree.nodes.get("Principled BSDF") if material.use_nodes else None
        if shader is not None:
            shiny = material.name.lower().startswith(("eye", "iris", "pupil", "teeth", "tongue"))
            shader.inputs["Roughness"].default_value = 0.15 if shiny else 0.55


def main() -> int:
    """Make and save the scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zip", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sound", type=Path, default=SPEECH)
    arguments = parser.parse_args()
    install(arguments.zip)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    scene = bpy.data.scenes[0]
    scene.render.fps = FPS
    head = add_head()
    if arguments.sound != SPEECH:
        add_sound(scene, head, arguments.sound)
    started = time.monotonic()
    generate(head)
    print(f"| spoken in {time.monotonic() - started:.1f} s", flush=True)
    fit_scene(scene, head)
    bpy.context.view_layer.update()
    add_light_and_camera(scene, head)
    set_look(scene)
    scene.frame_set(scene["ptalker_demo_frame"])
    bpy.context.preferences.filepaths.save_version = 0  # no demo.blend1
    bpy.ops.wm.save_as_mainfile(filepath=str(arguments.out), compress=True)
    return 0


if __name__ == "__main__":
    status = 1
    try:
        status = main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # bpy's own exit may hang
