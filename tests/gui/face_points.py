# SPDX-License-Identifier: GPL-3.0-or-later
"""In the real window: points of an unknown head are found, shown, moved by a click, and used.

Pictures are to be looked at; the assertions only see what a script can see.
Run by tests/gui/run.sh. An argument is a .blend with another head: its mesh with most
vertices is taken.
"""

import sys

import bmesh
import bpy
import gpu
import gui  # given by the program that runs this script
from mathutils import Vector

PACKAGE = "bl_ext.user_default.ptalker"


def module(name):
    return sys.modules[f"{PACKAGE}.{name}"]


def job():
    return bpy.context.window_manager.ptalker


def steps():
    print("GUI Blender", bpy.app.version_string, "GPU", gpu.platform.backend_type_get())
    for obj in list(bpy.data.objects):
        bpy.data.objects.remove(obj)
    open_panel()
    head = unknown_head()
    name = head.name
    yield from show_panel()
    yield from find(head)
    yield from move_by_click(head)
    yield from move_in_edit_mode(name)
    yield from delete_while_shown(name)
    yield from generate(name)
    yield from click_eight(name)
    yield from refuse()
    print("OK")


def open_panel():
    """Face Points open, what stands before it closed, so that all of it is in the pictures."""
    closed = [getattr(bpy.types, f"PTALKER_PT_{name}") for name in ("sound", "style")]
    for panel in (*closed, bpy.types.PTALKER_PT_face_points):
        bpy.utils.unregister_class(panel)
        panel.bl_options = {'DEFAULT_CLOSED'} if panel in closed else set()
        bpy.utils.register_class(panel)


def unknown_head():
    """The demo head as no topology knows it, or the head of another file."""
    with gui.context():
        bpy.ops.ptalker.add_demo_head()
    head = bpy.context.active_object
    if gui.args:
        settings = head.ptalker
        strip, source = settings.strip_name, settings.sound_source
        sound_file = settings.sound_file
        bpy.data.objects.remove(head)
        with bpy.data.libraries.load(gui.args[0]) as (there, here):
            here.objects = there.objects
        meshes = [o for o in here.objects if o is not None and o.type == 'MESH']
        for obj in meshes:
            bpy.context.collection.objects.link(obj)
        head = max(meshes, key=lambda o: len(o.data.vertices))
        head.ptalker.strip_name, head.ptalker.sound_source = strip, source
        head.ptalker.sound_file = sound_file
        bpy.context.view_layer.objects.active = head
        head.select_set(True)
    else:
        edited = bmesh.new()
        edited.from_mesh(head.data)
        bmesh.ops.triangulate(edited, faces=edited.faces)
        edited.to_mesh(head.data)
        edited.free()
        lowest = min(vertex.co.z for vertex in head.data.vertices)
        edited = bmesh.new()
        edited.from_mesh(head.data)
        gone = [v for v in edited.verts if v.co.z < lowest + 0.02]
        bmesh.ops.delete(edited, geom=gone, context='VERTS')
        edited.to_mesh(head.data)
        edited.free()
        head.name = "Somebody"
    head.ptalker.listen = 'SOUND'
    with gui.context():
        bpy.ops.view3d.view_axis(type='FRONT')
        bpy.ops.view3d.view_selected()
        bpy.ops.ed.undo_push(message="Head")
    print("GUI head", head.name, len(head.data.vertices), "vertices")
    return head


def show_panel():
    gui.sidebar()
    yield 0.5
    gui.sidebar("PTalker")
    yield 1.0
    gui.shot("01_unknown.png")


def find(head):
    with gui.context():
        bpy.ops.ptalker.find_face_points('INVOKE_DEFAULT')
    yield 1.0
    gui.shot("02_running.png")
    yield from gui.wait_for(lambda: not job().is_running, 200)
    yield 2.0
    print("GUI", job().result_kind, job().result_text)
    assert job().result_kind == 'DONE', job().result_text
    assert len(module("face_points").points(head)) == 111
    assert bpy.context.scene.ptalker.show_face_points
    gui.shot("03_found.png")
    face_points = module("face_points")
    known = face_points.points(head)
    if not face_points.doubtful(known):  # to see how such a one looks
        state = face_points.State.DOUBTFUL
        names = ("chin", "lip_upper_outer_left_2", "lid_lower_right_3", "jaw_hinge_left")
        face_points.store(
            head, {name: face_points.Point(known[name].vertex, state) for name in names}
        )
        choose(head, "chin")
    zoom_to_the_face(head)
    yield 2.0
    gui.shot("03_face.png")
    assert not module("face_point_panel")._Drawing.is_broken
    with gui.context():
        bpy.ops.view3d.view_axis(type='LEFT')
    yield 1.0
    gui.shot("04_from_the_side.png")
    with gui.context():
        bpy.ops.view3d.view_axis(type='FRONT')
    yield 0.5


def zoom_to_the_face(head):
    face_points = module("face_points").marked(head)
    places = [head.matrix_world @ head.data.vertices[n].co for n in face_points.values()]
    view = gui.region().data
    view.view_location = sum(places, Vector()) / len(places)
    view.view_distance = 2.2 * max((p - view.view_location).length for p in places)


def choose(head, name):
    names = module("face_points").names(module("paths").backend_root())
    head.ptalker.face_point = names.index(name)


def on_screen(head, place):
    """Screen position, as gui.click takes it, of a place in the head's space."""
    from bpy_extras import view3d_utils

    region = gui.region()
    spot = view3d_utils.location_3d_to_region_2d(
        region, region.data, head.matrix_world @ Vector(place)
    )
    return region.x + spot.x, gui.H - (region.y + spot.y)


def move_by_click(head):
    face_points = module("face_points")
    choose(head, "nose_tip")
    name = head.name
    yield 1.0
    gui.shot("05_chosen.png")
    goal = face_points.marked(head)["nose_base"]
    beside = next(v for e in head.data.edges if goal in e.vertices for v in e.vertices if v != goal)
    place = head.data.vertices[beside].co
    with gui.context(region_kind="UI"):
        bpy.ops.ptalker.click_face_points('INVOKE_DEFAULT')
    yield 0.5
    gui.move(*on_screen(head, place))
    yield 1.0
    gui.move(*on_screen(head, place))
    yield 1.5
    gui.shot("06_aiming.png")
    print("GUI aim", module("face_point_overlay").Aim.vertex, beside)
    before = face_points.marked(head)["nose_tip"]
    gui.click(*on_screen(head, place))
    yield 1.0
    point = face_points.points(head)["nose_tip"]
    print("GUI nose_tip", before, "->", point.vertex, point.state.name)
    assert point.vertex != before
    assert point.state.name == 'HAND'
    away = (head.data.vertices[point.vertex].co - place).length
    assert away < 0.02 * max(head.dimensions), away
    gui.key("Escape")
    yield 1.0
    gui.shot("07_clicked.png")
    gui.key("ctrl+z")
    yield 1.5
    head = bpy.data.objects[name]
    assert face_points.marked(head)["nose_tip"] == before
    gui.key("ctrl+shift+z")
    yield 1.5
    print("GUI a click is one undo step")


def move_in_edit_mode(name):
    head = bpy.data.objects[name]
    with gui.context():
        bpy.ops.object.mode_set(mode='EDIT')
    choose(head, "chin")
    with gui.context():
        bpy.ops.ptalker.step_face_point(step=0)
    yield 1.0
    gui.shot("08_edit_mode.png")
    with gui.context():
        assert bpy.ops.ptalker.mark_face_point() == {'FINISHED'}
        bpy.ops.object.mode_set(mode='OBJECT')
    yield 0.5
    assert module("face_points").points(head)["chin"].state.name == 'HAND'


def delete_while_shown(name):
    with gui.context():
        bpy.ops.scene.new(type='EMPTY')
    yield 1.0
    bpy.context.scene.ptalker.show_face_points = True
    yield 0.5
    other = bpy.context.scene
    bpy.context.window.scene = next(s for s in bpy.data.scenes if s != other)
    bpy.data.scenes.remove(other)
    yield 0.5
    copy = bpy.data.objects[name].copy()
    copy.data = copy.data.copy()
    bpy.context.collection.objects.link(copy)
    bpy.context.view_layer.objects.active = copy
    yield 0.5
    bpy.data.objects.remove(copy)  # while its points are shown
    yield 0.5
    bpy.context.view_layer.objects.active = bpy.data.objects[name]
    bpy.data.objects[name].select_set(True)
    yield 0.5
    assert not module("face_point_panel")._Drawing.is_broken


def generate(name):
    bpy.context.view_layer.objects.active = bpy.data.objects[name]
    with gui.context():
        bpy.ops.ptalker.generate('INVOKE_DEFAULT')
    yield 0.5
    yield from gui.wait_for(lambda: not job().is_running, 300)
    yield 1.0
    print("GUI", job().result_kind, job().result_text)
    for warning in job().warnings:
        print("GUI warning:", warning.text)
    assert job().result_kind == 'DONE', job().result_text
    bpy.context.scene.frame_set(bpy.context.scene.frame_start + 20)
    yield 1.0
    gui.shot("09_generated.png")


def click_eight(name):
    """The fallback: eight clicks, then the others after the demo head."""
    head, face_points = bpy.data.objects[name], module("face_points")
    bpy.context.scene.frame_set(-100)  # at rest
    zoom_to_the_face(head)
    before = face_points.marked(head)
    face_points.clear(head)
    yield 1.0
    gui.shot("10_none.png")
    with gui.context(region_kind="UI"):
        bpy.ops.ptalker.click_face_points('INVOKE_DEFAULT')
    yield 0.5
    for point in face_points.BY_HAND:
        place = head.data.vertices[before[point]].co.copy()
        if "_inner_" in point:  # the lips touch: click on the one that is asked for
            place.z += (0.004 if "upper" in point else -0.004) * head.dimensions.z
        gui.move(*on_screen(head, place))
        yield 0.7
        gui.click(*on_screen(head, place))
        yield 0.7
    found = face_points.marked(head)
    print("GUI clicked", sorted(found))
    assert found.keys() == set(face_points.BY_HAND)
    gui.shot("11_eight.png")
    with gui.context():
        assert bpy.ops.ptalker.transfer_face_points() == {'FINISHED'}
    yield 1.5
    gui.shot("12_transferred.png")
    assert len(face_points.points(head)) == 111


def refuse():
    bpy.ops.mesh.primitive_monkey_add(location=(0, 0, 5))
    monkey = bpy.context.active_object
    with gui.context():
        bpy.ops.view3d.view_selected()
    yield 0.5
    with gui.context():
        bpy.ops.ptalker.find_face_points('INVOKE_DEFAULT')
    yield from gui.wait_for(lambda: not job().is_running, 200)
    yield 1.0
    assert job().result_kind == 'FAILED'
    print("GUI", job().result_text)
    assert not module("face_points").points(monkey)
    gui.shot("13_refused.png")
