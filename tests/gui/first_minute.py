# SPDX-License-Identifier: GPL-3.0-or-later
"""In the real window: the very first minute, from the installed zip to a head that speaks.

Blender is as it comes, with its default cube; nothing of this machine is visible inside and there
is no network. What a newcomer presses is pressed here, in the same order, and timed.
"""

import sys
import time

import bpy
import gui  # given by the program that runs this script

PACKAGE = "bl_ext.user_default.ptalker"
GENERATE = (150, 96)  # of the button, from the sidebar's top left corner


def module(name):
    return sys.modules[f"{PACKAGE}.{name}"]


def job():
    return bpy.context.window_manager.ptalker


def steps():
    began = time.monotonic()
    print("GUI Blender", bpy.app.version_string, "Python", sys.version.split()[0])
    print("GUI engine:", module("backend_status").own())
    assert module("backend_status").own().state == 'READY'
    assert not bpy.app.online_access
    gui.sidebar()
    yield 0.5
    gui.sidebar("PTalker")
    yield 1.0
    gui.shot("01_first_look.png")
    for obj in list(bpy.data.objects):  # the default cube, as the README says
        bpy.data.objects.remove(obj)
    with gui.context():
        bpy.ops.ptalker.add_demo_head()
        bpy.ops.view3d.view_axis(type='FRONT')
        bpy.ops.view3d.view_selected()
    yield 1.0
    gui.shot("02_demo_head.png")
    gui.move(*gui.at(*GENERATE))
    yield 0.6  # a button hears a click only once it has seen the pointer
    gui.click(*gui.at(*GENERATE))
    yield from gui.wait_for(lambda: job().is_running, 20)
    yield 2.0
    if job().is_running:
        gui.shot("03_running.png")
    yield from gui.wait_for(lambda: not job().is_running, 300)
    seconds = time.monotonic() - began
    print("GUI result:", job().result_kind, job().result_text)
    print(f"GUI first minute: {seconds:.1f} s with the waits of this script")
    assert job().result_kind == 'DONE', job().result_text
    keys = bpy.data.objects["Demo Head"].data.shape_keys
    assert len(keys.key_blocks) > 40
    yield 1.0
    widest = max(range(1, 120), key=opening(keys))
    bpy.context.scene.frame_set(widest)
    yield 1.0
    gui.shot("04_speaks.png")
    foreign = {"onnxruntime", "scipy", "soxr", "soundfile", "torch"}
    assert not foreign & {name.partition(".")[0] for name in sys.modules}
    yield from preferences()
    print("OK")


def opening(keys):
    def value(frame):
        bpy.context.scene.frame_set(frame)
        return keys.key_blocks["jawOpen"].value

    return value


def preferences():
    bpy.ops.preferences.addon_show(module=PACKAGE)
    yield 3.0
    gui.shot("05_preferences.png")
