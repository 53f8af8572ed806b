# SPDX-License-Identifier: GPL-3.0-or-later
"""Face points on a mesh: kept through edits, saves and joins, unseen by weights and exporters."""

import itertools
import json
import types

import bmesh
import bpy
import mathutils
import numpy as np
import pytest

from tests.blender.test_faults import store_points, subdivide

ATTRIBUTE = ".ptalker_face_points"
SPOTS = {"lip_corner_left": 11, "chin": 25, "crown": 42}


@pytest.fixture
def marked(head, addon):
    """A head with three points."""
    store_points(addon, head, {"lip_corner_left": 11}, 'FOUND')
    store_points(addon, head, {"chin": 25}, 'DOUBTFUL')
    store_points(addon, head, {"crown": 42})
    return head


@pytest.fixture
def other(addon):
    """A second object with its own mesh."""
    bpy.ops.mesh.primitive_cube_add()
    return bpy.context.active_object


def activate(obj):
    for selected in bpy.context.selected_objects:
        selected.select_set(False)
    obj.select_set(True)
    bpy.context.view_layer.objects.active = obj


def places(obj, addon):
    """Point -> where its vertex lies."""
    return {
        name: tuple(round(x, 5) for x in obj.data.vertices[vertex].co)
        for name, vertex in addon.face_points.marked(obj).items()
    }


def edit(obj, function):
    activate(obj)
    bpy.ops.object.mode_set(mode='EDIT')
    edited = bmesh.from_edit_mesh(obj.data)
    edited.verts.ensure_lookup_table()
    function(edited)
    bmesh.update_edit_mesh(obj.data)
    bpy.ops.object.mode_set(mode='OBJECT')


def delete_first(edited):
    bmesh.ops.delete(edited, geom=edited.verts[:5], context='VERTS')


def turn_round(edited):
    edited.verts.sort(key=lambda vertex: -vertex.co.z)


def cut_all(_edited):
    bpy.ops.mesh.select_all(action='SELECT')
    bpy.ops.mesh.subdivide(number_cuts=3)


def twice(_edited):
    bpy.ops.mesh.select_all(action='SELECT')
    bpy.ops.mesh.duplicate()


def split_off(edited):
    bmesh.ops.split_edges(edited, edges=edited.edges[:40])


def triangles(edited):
    bmesh.ops.triangulate(edited, faces=edited.faces)


EDITS = [delete_first, turn_round, cut_all, twice, split_off, triangles]


@pytest.mark.parametrize("change", EDITS, ids=lambda change: change.__name__)
def test_points_follow_their_vertices_through_edits(marked, addon, change):
    before = places(marked, addon)
    edit(marked, change)
    assert places(marked, addon) == before
    states = {name: point.state.name for name, point in addon.face_points.points(marked).items()}
    assert states == {"lip_corner_left": 'FOUND', "chin": 'DOUBTFUL', "crown": 'HAND'}


def test_a_deleted_vertex_takes_its_point_with_it(marked, addon):
    edit(marked, lambda e: bmesh.ops.delete(e, geom=[e.verts[25]], context='VERTS'))
    assert addon.face_points.marked_names(marked) == {"lip_corner_left", "crown"}


def test_points_are_kept_by_shape_keys_and_evaluated_modifiers(marked, addon):
    before = addon.face_points.marked(marked)
    marked.shape_key_add(name="Basis")
    marked.shape_key_add(name="Up").points[3].co.z += 1
    edit(marked, lambda edited: None)
    assert addon.face_points.marked(marked) == before
    marked.modifiers.new("Mirror", 'MIRROR')
    shown = marked.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    assert len(shown.vertices) > len(marked.data.vertices)
    assert ATTRIBUTE in shown.attributes


def test_points_are_saved_and_linked(marked, addon, tmp_path):
    before = places(marked, addon)
    path = str(tmp_path / "head.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path, copy=True)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    with bpy.data.libraries.load(path, link=True) as (_, to):
        to.objects = ["Head"]
    linked = to.objects[0]
    assert places(linked, addon) == before
    assert "belongs to another file" in addon.face_points.problem(linked)
    bpy.ops.wm.open_mainfile(filepath=path)
    assert places(bpy.data.objects["Head"], addon) == before


@pytest.mark.parametrize("is_first", [True, False])
def test_points_stay_when_objects_are_joined_or_duplicated(marked, other, addon, is_first):
    before = places(marked, addon)
    activate(marked)
    bpy.ops.object.duplicate()
    copy = bpy.context.active_object
    assert places(copy, addon) == before
    bpy.data.objects.remove(copy)
    activate(marked)
    other.select_set(True)
    bpy.context.view_layer.objects.active = marked if is_first else other
    bpy.ops.object.join()
    assert places(bpy.context.active_object, addon) == before


def test_undo_in_edit_mode_takes_a_mark_back(marked, addon):
    activate(marked)
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.object.mode_set(mode='EDIT')
    bpy.ops.ed.undo_push(message="Edit Mode")
    store_points(addon, bpy.context.active_object, {"chin": 30})
    bpy.ops.ed.undo_push(message="Mark")
    assert addon.face_points.marked(bpy.context.active_object)["chin"] == 30
    bpy.ops.ed.undo()
    assert addon.face_points.marked(bpy.context.active_object) == SPOTS
    bpy.ops.object.mode_set(mode='OBJECT')


def test_weight_tools_and_vertex_groups_do_not_see_points(marked, addon):
    assert not marked.vertex_groups
    for bone, weight in (("a", 0.4), ("b", 0.3), ("c", 0.2), ("d", 0.1)):
        marked.vertex_groups.new(name=bone).add([11], weight, 'REPLACE')
    activate(marked)
    bpy.ops.object.vertex_group_limit_total(group_select_mode='ALL', limit=4)
    bpy.ops.object.vertex_group_normalize_all(group_select_mode='ALL', lock_active=False)
    weights = {g.group: round(g.weight, 3) for g in marked.data.vertices[11].groups}
    assert weights == {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1}
    assert addon.face_points.marked(marked) == SPOTS


EXPORTERS = {
    "gltf": lambda path: bpy.ops.export_scene.gltf(
        filepath=path, export_format='GLTF_SEPARATE', export_attributes=True
    ),
    "fbx": lambda path: bpy.ops.export_scene.fbx(filepath=path),
    "obj": lambda path: bpy.ops.wm.obj_export(filepath=path, export_vertex_groups=True),
    "ply": lambda path: bpy.ops.wm.ply_export(filepath=path, export_attributes=True),
    "usda": lambda path: bpy.ops.wm.usd_export(filepath=path),
}


@pytest.mark.parametrize("ending", EXPORTERS)
def test_exporters_write_no_points(marked, addon, tmp_path, ending):
    contents = []
    for name in ("with", "without"):
        path = tmp_path / f"{name}.{ending}"
        try:
            EXPORTERS[ending](str(path))
        except AttributeError:
            pytest.skip(f"this build has no exporter of {ending}")
        contents.append(path.read_bytes())
        addon.face_points.clear(marked)
    assert b"face_point" not in contents[0]
    if ending in ("obj", "ply"):
        assert contents[0].replace(b"with.", b"") == contents[1].replace(b"without.", b"")


def test_codes_are_told_apart_and_a_mix_with_an_unmarked_vertex_is_none(addon):
    names = addon.face_points.names(addon.paths.backend_root())
    states = list(addon.face_points.State)
    codes = {addon.face_points.code(n, state) for n in names for state in states}
    assert len(codes) == len(names) * len(states)
    assert min(codes) > 0
    assert max(codes) < 1 << 24
    for part, whole in ((1, 2), (1, 3), (2, 3), (1, 4), (3, 4), (1, 5)):
        assert not codes & {round(code * part / whole) for code in codes}


# Points of older files.


def old_points(obj, vertices):
    for name, vertex in vertices.items():
        group = obj.vertex_groups.new(name=f"face_point.{name}")
        group.add([vertex] if vertex is not None else [], 1.0, 'REPLACE')


def test_points_of_older_files_are_read_and_brought_over(head, addon, fake_backend):
    old_points(head, SPOTS)
    head.vertex_groups.new(name="jaw").add([11], 0.5, 'REPLACE')
    head.vertex_groups.new(name="face_point.of_mine").add([12, 13], 1.0, 'REPLACE')
    assert addon.face_points.marked(head) == SPOTS
    assert addon.scene_inputs.read_head(head).face_points == SPOTS
    assert len(head.vertex_groups) == 5  # reading changes nothing
    activate(head)
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    warnings = [warning.text for warning in bpy.context.window_manager.ptalker.warnings]
    assert any('3 face points of "Head" were vertex groups' in text for text in warnings)
    assert [group.name for group in head.vertex_groups] == ["jaw", "face_point.of_mine"]
    assert head.data.vertices[11].groups[0].weight == 0.5
    assert addon.face_points.marked(head) == SPOTS
    assert {p.state.name for p in addon.face_points.points(head).values()} == {'HAND'}
    assert addon.face_points.bring_over(head) == ""


def test_a_cancelled_or_failed_job_leaves_older_points_alone(head, fake_backend, addon, snapshot):
    old_points(head, SPOTS)
    fake_backend("error")
    activate(head)
    with pytest.raises(RuntimeError):
        bpy.ops.ptalker.generate('EXEC_DEFAULT')
    assert len(head.vertex_groups) == 3
    assert ATTRIBUTE not in head.data.attributes


def test_groups_that_something_uses_stay(head, addon):
    old_points(head, {**SPOTS, "nose_tip": None})
    head.modifiers.new("Smooth", 'SMOOTH').vertex_group = "face_point.chin"
    hook = bpy.data.objects.new("Hook", None)
    bpy.context.collection.objects.link(hook)
    constraint = hook.constraints.new('COPY_LOCATION')
    constraint.target, constraint.subtarget = head, "face_point.crown"
    note = addon.face_points.bring_over(head)
    assert "face_point.chin" in note
    assert [g.name for g in head.vertex_groups] == ["face_point.chin", "face_point.crown"]
    assert addon.face_points.marked(head) == SPOTS


def test_older_points_in_edit_mode_go_to_the_vertex_of_most_weight(head, addon):
    group = head.vertex_groups.new(name="face_point.chin")
    group.add([7], 0.5, 'REPLACE')  # as subdividing made them
    group.add([9], 1.0, 'REPLACE')
    activate(head)
    bpy.ops.object.mode_set(mode='EDIT')
    assert addon.face_points.marked(head) == {"chin": 9}
    assert addon.face_points.bring_over(head)
    bpy.ops.object.mode_set(mode='OBJECT')
    assert addon.face_points.marked(head) == {"chin": 9}
    assert not head.vertex_groups


# Setting them.


def test_a_point_takes_a_vertex_from_another_and_says_so(marked, addon):
    note = addon.face_point_set.set_point(marked, "nose_tip", 25, mirror=False)
    assert "vertex of Chin" in note
    assert addon.face_points.marked(marked) == {"lip_corner_left": 11, "crown": 42, "nose_tip": 25}


def test_both_sides_are_set_where_the_head_is_symmetric(addon):
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    obj = bpy.context.active_object
    topology = addon.paths.backend_root() / "backend" / "topologies" / "demo.json"
    truth = json.loads(topology.read_text())["face_points"]
    for mode in ('OBJECT', 'EDIT'):
        addon.face_points.clear(obj)
        bpy.ops.object.mode_set(mode=mode)
        for name in (
            "lip_corner_left",
            "lip_upper_inner_left_2",
            "ear_lobe_left",
            "lid_lower_right_3",
        ):
            assert addon.face_point_set.set_point(obj, name, truth[name], mirror=True) == ""
        bpy.ops.object.mode_set(mode='OBJECT')
        found = addon.face_points.marked(obj)
        assert len(found) == 8
        assert found == {name: truth[name] for name in found}
    point = truth["cheek_left"]
    for vertex in obj.data.vertices:
        if vertex.co.x < 0:
            vertex.co.x *= 2.0  # another head on that side
    addon.face_points.clear(obj)
    note = addon.face_point_set.set_point(obj, "cheek_left", point, mirror=True)
    assert "set Cheek Right too" in note
    assert "cheek_right" not in addon.face_points.marked(obj)


def test_what_is_asked_for(marked, addon):
    root = addon.paths.backend_root()
    addon.face_points.clear(marked)
    eight = list(addon.face_points.BY_HAND)
    assert addon.face_points.asked_for(marked, root) == eight
    store_points(addon, marked, {name: n for n, name in enumerate(eight[:3])})
    assert addon.face_points.asked_for(marked, root) == eight[3:]
    subdivide(marked)
    names = addon.face_points.names(root)
    store_points(addon, marked, {name: n for n, name in enumerate(names)}, 'FOUND')
    assert addon.face_points.asked_for(marked, root) == []
    store_points(addon, marked, {"chin": 120, "nose_tip": 121}, 'DOUBTFUL')
    assert addon.face_points.asked_for(marked, root) == ["nose_tip", "chin"]
    marked.ptalker.face_point = names.index("crown")
    assert bpy.ops.ptalker.step_face_point(step=1, only_asked=True) == {'FINISHED'}
    assert names[marked.ptalker.face_point] == "nose_tip"
    assert bpy.ops.ptalker.accept_face_point() == {'FINISHED'}
    assert addon.face_points.asked_for(marked, root) == ["chin"]
    assert names[marked.ptalker.face_point] == "chin"
    assert bpy.ops.ptalker.accept_face_point(all=True) == {'FINISHED'}
    assert addon.face_points.asked_for(marked, root) == []
    assert addon.face_points.points(marked)["chin"].state.name == 'HAND'


def test_found_points_are_stored_with_the_head(marked, addon, fake_backend):
    subdivide(marked)
    activate(marked)
    assert addon.face_points.points(marked)["crown"].state.name == 'HAND'
    hand = addon.face_points.marked(marked)["crown"]
    assert bpy.ops.ptalker.find_face_points('EXEC_DEFAULT') == {'FINISHED'}
    job = bpy.context.window_manager.ptalker
    names = addon.face_points.names(addon.paths.backend_root())
    points = addon.face_points.points(marked)
    assert points["crown"] == addon.face_points.Point(hand, addon.face_points.State.HAND)
    assert points["chin"].state.name == 'DOUBTFUL'
    assert points["nose_tip"] == addon.face_points.Point(
        names.index("nose_tip"), addon.face_points.State.FOUND
    )
    assert "1 is doubtful: look there" in job.result_text
    assert bpy.context.scene.ptalker.show_face_points
    assert names[marked.ptalker.face_point] == "chin"


def test_points_that_come_too_late_change_nothing(marked, addon, fake_backend, monkeypatch):
    settings = addon.preferences.read(bpy.context)
    job = addon.face_point_job.find_job(marked, settings)
    edit(marked, delete_first)
    before = places(marked, addon)
    outcome = addon.job_runner.run(job)
    assert (outcome.kind, "has changed" in outcome.text) == ('FAILED', True)
    assert places(marked, addon) == before
    job = addon.face_point_job.find_job(marked, settings)
    bpy.data.objects.remove(marked)
    assert "deleted" in addon.job_runner.run(job).text


def test_finding_can_be_cancelled(head, addon, fake_backend, snapshot):
    fake_backend("slow")
    before = snapshot()
    activate(head)
    job = addon.face_point_job.find_job(head, addon.preferences.read(bpy.context))
    addon.job_runner._begin(job)
    for _ in range(20):
        job.poll(wait=0.05)
    assert bpy.ops.ptalker.cancel() == {'FINISHED'}
    while job.outcome is None:
        job.poll(wait=0.05)
    assert addon.job_runner._finish().kind == 'CANCELLED'
    assert snapshot() == before
    assert ATTRIBUTE not in head.data.attributes


# What is shown.


def test_heads_that_need_no_points_are_not_told_of_any(head, addon):
    needed = addon.face_point_panel.is_needed
    assert needed(head)
    head.shape_key_add(name="Basis")
    for name in addon.rig_target.ARKIT_NAMES:
        head.shape_key_add(name=name)
    assert not needed(head)
    head.ptalker.key_target = 'NEW'
    assert needed(head)
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    demo = bpy.context.active_object
    assert not needed(demo)
    store_points(addon, demo, {"chin": 3})
    assert needed(demo)


def viewport(obj, *, towards):
    """What drawing reads of a context: an orthographic view along an axis, 200 by 100 pixels."""
    turn = mathutils.Vector(towards).to_track_quat('Z', 'Y').to_matrix().to_4x4()
    view = turn.inverted()
    size = mathutils.Matrix.Diagonal((1 / 2.0, 1 / 1.0, -0.01, 1.0))  # 4 by 2 metres
    return types.SimpleNamespace(
        evaluated_depsgraph_get=bpy.context.evaluated_depsgraph_get,
        region_data=types.SimpleNamespace(
            perspective_matrix=size @ view, view_matrix=view, is_perspective=False
        ),
        region=types.SimpleNamespace(width=200, height=100),
    )


def test_dots_lie_where_the_points_are_seen(marked, addon):
    marked.location = (0.3, 0.0, 0.2)
    marked.scale = (2.0, 2.0, 2.0)
    bpy.context.view_layer.update()
    find = addon.face_point_overlay.find_spots
    front, back = (
        {spot.name: spot for spot in find(marked, viewport(marked, towards=(0, y, 0)))}
        for y in (-1, 1)
    )
    assert all(spot.is_facing for spot in front.values())  # of so few points nothing is known
    for name, vertex in SPOTS.items():
        x, _, z = marked.matrix_world @ marked.data.vertices[vertex].co
        assert np.allclose(front[name].place, (100 + 50 * x, 50 + 50 * z), atol=0.01)
        assert np.allclose(back[name].place, (100 - 50 * x, 50 + 50 * z), atol=0.01)
    marked.modifiers.new("Array", 'ARRAY')
    moved = marked.shape_key_add(name="Basis") and marked.shape_key_add(name="Up")
    for point in moved.data:
        point.co.z += 0.1
    moved.value = 1.0
    bpy.context.view_layer.update()
    context = viewport(marked, towards=(0, -1, 0))
    up = {s.name: s for s in addon.face_point_overlay.find_spots(marked, context)}
    for name in SPOTS:
        assert np.allclose(up[name].place - front[name].place, (0, 10), atol=0.01)


def test_points_on_the_other_side_of_the_head_are_faint(addon):
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    obj = bpy.context.active_object
    topology = addon.paths.backend_root() / "backend" / "topologies" / "demo.json"
    store_points(addon, obj, json.loads(topology.read_text())["face_points"])
    find = addon.face_point_overlay.find_spots
    for y in (-1, 1):
        spots = find(obj, viewport(obj, towards=(0, y, 0)))
        seen = {spot.name for spot in spots if spot.is_facing}
        assert {"head_back", "neck_back"} & seen == ({"head_back", "neck_back"} if y > 0 else set())
        face = {s.name for s in spots if s.name.startswith(("lip_", "lid_", "eye_", "nose_tip"))}
        assert face & seen == (face if y < 0 else set())


def test_pictures_show_each_point_of_the_demo_head(addon):
    picture = addon.face_point_picture
    root = addon.paths.backend_root() / "backend"
    model = picture.load(root / "demo" / "head.npz")
    assert tuple(model.face_points) == addon.face_points.names(addon.paths.backend_root())
    drawn = {
        name: picture.draw(model, name) for name in ("lip_corner_left", "crown", "ear_top_right")
    }
    for pixels in drawn.values():
        assert pixels.shape == (picture.PIXELS, picture.PIXELS, 4)
        assert np.isfinite(pixels).all()
        assert 0.0 <= pixels.min() <= pixels.max() <= 1.0
        is_dot = (np.abs(pixels[..., :3] - picture._DOT) < 0.02).all(axis=2)
        assert 15 < is_dot.sum() < 80
    for a, b in itertools.combinations(drawn.values(), 2):
        assert np.abs(a - b).mean() > 0.02
    flat = np.array(picture._BACKGROUND)
    is_empty = (np.abs(drawn["lip_corner_left"] - flat) < 0.01).all(axis=2)
    assert is_empty.mean() < 0.4  # a face fills the picture


def test_an_icon_is_made_once(addon):
    icons = addon.face_point_icons
    icons.make("chin")  # without a window its number is 0
    made = icons._Pictures.previews["chin"]
    pixels = np.empty(len(made.image_pixels_float), np.float32)
    made.image_pixels_float.foreach_get(pixels)
    wanted = addon.face_point_picture.draw(icons._Pictures.model, "chin")
    assert np.allclose(pixels.reshape(wanted.shape), wanted, atol=1 / 255)
    icons.icon("crown")
    assert "crown" not in icons._Pictures.previews  # nothing is drawn while a panel is
    icons.release()
