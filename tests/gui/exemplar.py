# SPDX-License-Identifier: GPL-3.0-or-later
"""In the real window: a second head takes the way of speaking of a first one. Run by run.sh.

The first head speaks in a style of the library; the second one says the same twice, neutrally and
with the first one as its exemplar, and must then move more like it. The same is then shown by a
capture of Live Link Face, with an emotion. Pictures are to be looked at.
"""

import os
from pathlib import Path

import bpy
import gui  # given by the program that runs this script
import numpy as np

if gui.args:  # another Python than that of the zip's own engine
    os.environ["PTALKER_BACKEND_PYTHON"] = gui.args[0]
STYLE = "broad"
SHAPES = ("jawOpen", "mouthStretchLeft", "mouthUpperUpLeft", "mouthLowerDownLeft")


def job():
    return bpy.context.window_manager.ptalker


def steps():
    for obj in list(bpy.data.objects):
        bpy.data.objects.remove(obj)
    gui.sidebar()
    yield 0.5
    gui.sidebar("PTalker")
    yield 1.0
    shown = add_head(-0.12)
    shown.ptalker.style_source = 'SAVED'
    shown.ptalker.saved_style = STYLE
    yield from generate(shown)
    speaker = add_head(0.12)
    front_view()
    yield from generate(speaker)
    neutral = weights_of(speaker)
    speaker.ptalker.style_source = 'EXEMPLAR'
    yield 1.5  # panels slide to their places
    gui.shot("11_no_exemplar_yet.png")
    speaker.ptalker.exemplar = shown
    yield 1.5
    gui.shot("12_exemplar_chosen.png")
    yield from generate(speaker)
    wanted, taken = weights_of(shown), weights_of(speaker)
    bpy.context.scene.frame_set(1 + int(np.abs(wanted - neutral).sum(0).argmax()))
    yield 1.0
    gui.shot("13_in_the_exemplars_style.png")
    ratio = np.linalg.norm(taken - wanted) / np.linalg.norm(neutral - wanted)
    print(f"GUI distance to the exemplar's motion, of the neutral one's: {ratio:.2f}")
    assert ratio < 0.6
    speaker.ptalker.exemplar = None
    speaker.ptalker.exemplar_file = str(write_capture(shown))
    speaker.ptalker.first_emotion = 'JOY'
    yield 1.5
    gui.shot("14_capture_and_emotion.png")
    smile = np.mean(key_curve(speaker, "mouthSmileLeft"))
    yield from generate(speaker)
    assert np.mean(key_curve(speaker, "mouthSmileLeft")) > smile + 0.2
    bpy.context.scene.frame_set(1 + int(np.abs(wanted - neutral).sum(0).argmax()))
    yield 1.0
    gui.shot("15_by_the_capture_with_joy.png")
    print("OK")


def add_head(x):
    with gui.context():
        bpy.ops.ptalker.add_demo_head()
    head = bpy.context.object
    head.location.x = x
    return head


def front_view():
    with gui.context():
        bpy.ops.view3d.view_axis(type='FRONT')
        bpy.ops.view3d.view_all()


def generate(head):
    bpy.context.view_layer.objects.active = head
    with gui.context():
        bpy.ops.ptalker.generate('INVOKE_DEFAULT')
    yield from gui.wait_for(lambda: job().is_running, 20)
    yield from gui.wait_for(lambda: not job().is_running, 300)
    print("GUI result:", head.name, job().result_kind, job().result_text)
    assert job().result_kind == 'DONE', job().result_text


def key_curve(head, name):
    """Values of a shape at every frame of the line."""
    scene, keys = bpy.context.scene, head.data.shape_keys
    values = []
    for frame in range(1, int(keys.animation_data.action.frame_range[1]) + 1):
        scene.frame_set(frame)
        values.append(keys.key_blocks[name].value)
    return values


def write_capture(head):
    """What a head speaks, as the app Live Link Face writes it."""
    names = [key.name for key in head.data.shape_keys.key_blocks if key.name[0].islower()]
    curves = [key_curve(head, name) for name in names]
    rows = ["Timecode,BlendShapeCount," + ",".join(name[0].upper() + name[1:] for name in names)]
    for frame, values in enumerate(zip(*curves, strict=True)):
        seconds, part = divmod(frame, 24)
        numbers = ",".join(f"{value:.6f}" for value in values)
        rows.append(f"00:00:{seconds:02d}:{part:02d}.000,{len(names)},{numbers}")
    path = Path(bpy.app.tempdir) / "take.csv"
    path.write_text("\n".join(rows))
    return path


def weights_of(head):
    """Values of some shapes at every frame of the line, shape ``(shapes, frames)``."""
    return np.array([key_curve(head, name) for name in SHAPES])
