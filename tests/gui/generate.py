# SPDX-License-Identifier: GPL-3.0-or-later
"""In the real window: the panel, Generate by a click, Cancel, undo. Run by tests/gui/run.sh.

Pictures are to be looked at; the assertions only see what a script can see.
"""

import os
import sys

import bpy
import gui  # given by the program that runs this script

GENERATE = (150, 96)  # of the button, from the sidebar's top left corner
CANCEL = (235, 96)

if gui.args:  # another Python than that of the zip's own engine
    os.environ["PTALKER_BACKEND_PYTHON"] = gui.args[0]
PACKAGE = "bl_ext.user_default.ptalker"


def job():
    return bpy.context.window_manager.ptalker


def keys_of(head):
    keys = head.data.shape_keys
    return 0 if keys is None else len(keys.key_blocks)


def curves_of(head):
    keys = head.data.shape_keys
    action = keys and keys.animation_data and keys.animation_data.action
    if not action:
        return []
    if hasattr(action, "layers") and action.layers:
        return [c for bag in action.layers[0].strips[0].channelbags for c in bag.fcurves]
    return list(action.fcurves)


def head_of_scene():
    return bpy.data.objects["Demo Head"]


def front_view():
    with gui.context():
        bpy.ops.view3d.view_axis(type='FRONT')
        bpy.ops.view3d.view_selected()


def steps():
    print("GUI Blender", bpy.app.version_string, "Python", sys.version.split()[0])
    assert "torch" not in sys.modules
    for obj in list(bpy.data.objects):
        bpy.data.objects.remove(obj)
    yield from show_panel()
    yield from cancel_a_run()
    yield from run_to_the_end()
    yield from undo_and_redo()
    yield from play()
    yield from second_line()
    yield from disable_and_enable()
    print("OK")


def press(place):
    gui.move(*gui.at(*place))
    yield 0.6  # a button hears a click only once it has seen the pointer
    gui.click(*gui.at(*place))
    yield 0.4


def show_panel():
    gui.sidebar()
    yield 0.5
    gui.sidebar("PTalker")
    yield 1.0
    gui.shot("01_no_head.png")
    with gui.context():
        bpy.ops.ptalker.add_demo_head()
        bpy.ops.ed.undo_push(message="Head")
    yield 0.3
    front_view()
    yield 1.0
    gui.shot("02_ready.png")
    assert keys_of(head_of_scene()) == 0


def cancel_a_run():
    yield from press(GENERATE)
    yield from gui.wait_for(lambda: job().is_running, 20)
    yield 1.5
    gui.shot("03_running.png")
    yield from press(CANCEL)
    yield from gui.wait_for(lambda: not job().is_running, 60)
    yield 0.5
    gui.shot("04_cancelled.png")
    assert job().result_kind == 'CANCELLED', job().result_text
    assert keys_of(head_of_scene()) == 0
    print("GUI cancelled:", job().result_text)


def run_to_the_end():
    yield from press(GENERATE)
    yield from gui.wait_for(lambda: job().is_running, 20)
    for number in range(3):
        yield 4.0
        if job().is_running:
            gui.shot(f"05_running_{number}.png")
    yield from gui.wait_for(lambda: not job().is_running, 300)
    yield 1.0
    print("GUI result:", job().result_kind, job().result_text)
    assert job().result_kind == 'DONE', job().result_text
    head = head_of_scene()
    curves = curves_of(head)
    print("GUI keys", keys_of(head), "curves", len(curves))
    assert keys_of(head) > 40
    assert curves
    opened = max(curves, key=lambda c: "jawOpen" in c.data_path)
    frames = range(1, int(opened.range()[1]))
    bpy.context.scene.frame_set(max(frames, key=opened.evaluate))
    yield 1.0
    gui.shot("06_done.png")


def undo_and_redo():
    gui.move(*gui.centre())
    gui.key("ctrl+z")
    for _ in range(3):  # the undone scene is drawn a redraw later
        yield 1.5
    gui.shot("07_undone.png")
    assert keys_of(head_of_scene()) == 0, "one Ctrl-Z takes the result back"
    runner = sys.modules[PACKAGE + ".job_runner"]
    assert not runner.has_result(), "the panel does not tell of what was undone"
    gui.move(*gui.centre())
    gui.key("ctrl+shift+z")
    yield 1.5
    assert keys_of(head_of_scene()) > 40, "redo brings it again"
    assert runner.has_result()
    print("GUI undo and redo: one step each")


def play():
    with gui.context():
        bpy.ops.screen.animation_play()
    yield 2.0
    with gui.context():
        bpy.ops.screen.animation_play()
    yield 0.5


def second_line():
    compat, paths = (sys.modules[f"{PACKAGE}.{name}"] for name in ("compat", "paths"))
    speech = paths.backend_root() / "backend" / "demo" / "speech.ogg"
    strip = compat.new_sound_strip(bpy.context.scene, speech, frame=300)
    strip.name = "Second"
    head_of_scene().ptalker.strip_name = strip.name
    bpy.ops.ed.undo_push(message="Second strip")
    yield 0.5
    last = lines_of(head_of_scene())[-1]["last"]
    yield from press(GENERATE)
    yield from gui.wait_for(lambda: job().is_running, 20)
    yield from gui.wait_for(lambda: not job().is_running, 300)
    yield 1.0
    print("GUI result:", job().result_kind, job().result_text)
    gui.shot("08_second_line.png")
    names = [str(line["name"]) for line in lines_of(head_of_scene())]
    assert names == ["speech", "Second"], names
    gui.move(*gui.centre())
    gui.key("ctrl+z")
    yield 2.0
    assert [int(line["last"]) for line in lines_of(head_of_scene())] == [last]
    print("GUI the second line is undone, the first one stays")


def lines_of(head):
    return head.data.shape_keys.animation_data.action["ptalker_lines"]


def disable_and_enable():
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    yield 0.5
    bpy.ops.preferences.addon_enable(module=PACKAGE)
    yield 0.5
    assert hasattr(bpy.types, "PTALKER_PT_main")
    gui.shot("09_enabled_again.png")
