# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads that PTalker does not know, and heads with keys of their own, with the real backend.

Slow: the backend is started once and kept warm over all tests of this file.
"""

import json
from pathlib import Path

import bmesh
import bpy
import numpy as np
import pytest

from tests.blender import test_end_to_end as end_to_end
from tests.blender.test_end_to_end import (  # noqa: F401  # fixtures
    demo,
    fresh_file,
    motions,
    real_backend,
    stop_at_the_end,
)

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [*end_to_end.pytestmark, end_to_end.needs_weights]
FACE_POINTS = json.loads((ROOT / "backend" / "topologies" / "demo.json").read_text())["face_points"]
MARKED = (
    "lip_corner_left", "lip_corner_right", "lip_upper_inner_center", "lip_lower_inner_center",
    "nose_tip", "chin", "eye_outer_left", "eye_outer_right",
)  # fmt: skip
EYES_MM = 90.0
"""About the distance of the outer eye corners: makes millimetres on any head."""


def select_vertex(obj, index):
    edited = bmesh.from_edit_mesh(obj.data)
    edited.verts.ensure_lookup_table()
    for vertex in edited.verts:
        vertex.select = False
    edited.verts[index].select = True
    edited.select_flush_mode()


def mark_by_hand(obj, vertices):
    """Mark points as the artist does: in Edit Mode, each with its button."""
    names = list(FACE_POINTS)
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode='EDIT')
    for name, vertex in vertices.items():
        obj.ptalker.face_point = names.index(name)
        select_vertex(obj, vertex)
        assert bpy.ops.ptalker.mark_face_point() == {'FINISHED'}
    bpy.ops.object.mode_set(mode='OBJECT')


@pytest.fixture
def other_head(demo):  # noqa: F811
    """The demo head as no topology knows it: triangles, a part of the neck cut away, another order.

    With it comes where each face point is now.
    """
    edited = bmesh.new()
    edited.from_mesh(demo.data)
    edited.verts.ensure_lookup_table()
    number = edited.verts.layers.int.new("number")
    for vertex in edited.verts:
        vertex[number] = vertex.index
    bmesh.ops.triangulate(edited, faces=edited.faces)
    kept = set(FACE_POINTS.values())
    around = {v.index for v in edited.verts
              if any(e.other_vert(v).index in kept for e in v.link_edges)}  # fmt: skip
    lowest = sorted(edited.verts, key=lambda v: v.co.z)[:60]
    gone = [v for v in lowest if v.index not in kept | around]
    bmesh.ops.delete(edited, geom=gone, context='VERTS')
    edited.verts.sort(key=lambda v: v.co.x)
    edited.verts.index_update()
    now = {vertex[number]: vertex.index for vertex in edited.verts}
    edited.to_mesh(demo.data)
    edited.free()
    demo.name = "Other Head"
    return demo, {name: now[vertex] for name, vertex in FACE_POINTS.items()}


def lip_gap(obj, points, first, count, evaluated):
    """Distance of the inner lips' centres over frames, in millimetres."""
    rest = np.array([v.co for v in obj.data.vertices])
    unit = np.linalg.norm(rest[points["eye_outer_left"]] - rest[points["eye_outer_right"]])
    gaps = []
    for frame in range(first, first + count):
        shown = evaluated(obj, frame)
        upper = shown[points["lip_upper_inner_center"]]
        gaps.append(np.linalg.norm(upper - shown[points["lip_lower_inner_center"]]))
    return np.array(gaps) / unit * EYES_MM


def span_of(obj):
    action = obj.data.shape_keys.animation_data.action
    entry = action["ptalker_lines"][0]
    rest = round(0.2 * bpy.context.scene.render.fps)
    first, last = int(entry["first"]) + rest, int(entry["last"]) - rest
    return first, last - first + 1


def check_that_it_speaks(gap, reference):
    """Opens and closes as the demo head does with the same sound."""
    assert np.corrcoef(gap, reference)[0, 1] > 0.95
    closed = reference < 0.1 * reference.max()
    assert closed.sum() >= 4
    assert gap.max() > 3.0
    assert np.median(gap[closed]) < 0.15 * gap.max()


@pytest.fixture
def reference(demo, evaluated):  # noqa: F811
    """The lips' gap of the demo head as PTalker knows it."""
    assert end_to_end.generate() == {'FINISHED'}
    gap = lip_gap(demo, FACE_POINTS, *span_of(demo), evaluated)
    demo.shape_key_clear()
    return gap


def test_unknown_head_speaks_without_a_mark(reference, other_head, evaluated):
    head, points = other_head
    assert end_to_end.generate() == {'FINISHED'}
    gap = lip_gap(head, points, *span_of(head), evaluated)
    check_that_it_speaks(gap, reference)


def test_points_are_found_by_the_button_and_used(other_head, addon, motions):  # noqa: F811
    head, points = other_head
    assert addon.face_points.is_unknown(head, addon.paths.backend_root())
    assert bpy.ops.ptalker.find_face_points('EXEC_DEFAULT') == {'FINISHED'}
    assert "Found 111 face points" in bpy.context.window_manager.ptalker.result_text
    found = distances(head, points, addon)
    assert max(found[name] for name in MARKED) < 5.0
    assert max(found[name] for name in MARKED if name.startswith("lip_")) < 3.0
    assert addon.face_points.advice(head, addon.paths.backend_root()) == ""
    before = addon.face_points.points(head)
    assert end_to_end.generate() == {'FINISHED'}
    assert "face_points" not in motions[-1].report  # they were not looked for again
    assert addon.face_points.points(head) == before


def test_generate_keeps_the_points_that_it_found(other_head, addon, motions):  # noqa: F811
    head, points = other_head
    moved = points["chin_bottom"]  # a point that the artist has set is left where it is
    point = addon.face_points.Point(moved, addon.face_points.State.HAND)
    addon.face_points.store(head, {"chin": point})
    root = addon.paths.backend_root()
    assert "Generate finds the others" in addon.face_points.advice(head, root)
    assert end_to_end.generate() == {'FINISHED'}
    assert motions[-1].report["face_points"]["chin"] == moved
    kept = addon.face_points.points(head)
    assert kept.keys() == FACE_POINTS.keys()
    assert kept["chin"] == point
    assert kept["nose_tip"].state.name == 'FOUND'
    assert addon.face_points.advice(head, root) == ""
    found = distances(head, points, addon)
    assert max(found[name] for name in MARKED if name.startswith("lip_")) < 3.0


def test_a_mesh_without_a_human_face_is_refused_with_the_remedy(demo, addon):  # noqa: F811
    bpy.ops.mesh.primitive_monkey_add()
    suzanne = bpy.context.active_object
    with pytest.raises(RuntimeError, match=r"No face is seen.*mark its face points"):
        bpy.ops.ptalker.find_face_points('EXEC_DEFAULT')
    assert addon.face_points.points(suzanne) == {}
    assert addon.face_points.asked_for(suzanne, addon.paths.backend_root()) == [*MARKED]


def test_the_search_can_be_cancelled_and_the_next_one_works(other_head, addon, snapshot):
    head, _ = other_head
    before = snapshot()
    job = addon.face_point_job.find_job(head, addon.preferences.read(bpy.context))
    addon.job_runner._begin(job)
    while job.stage != "Finding the face points" and job.outcome is None:
        job.poll(wait=0.02)
    assert bpy.ops.ptalker.cancel() == {'FINISHED'}
    while job.outcome is None:
        job.poll(wait=0.05)
    assert addon.job_runner._finish().kind == 'CANCELLED'
    assert snapshot() == before
    assert bpy.ops.ptalker.find_face_points('EXEC_DEFAULT') == {'FINISHED'}


def test_head_with_all_points_marked_speaks(reference, other_head, evaluated):
    head, points = other_head
    mark_by_hand(head, points)
    assert end_to_end.generate() == {'FINISHED'}
    gap = lip_gap(head, points, *span_of(head), evaluated)
    check_that_it_speaks(gap, reference)


def misses(obj, truth, addon):
    """Distance of each transferred point from its true vertex, in millimetres."""
    found = addon.face_points.marked(obj)
    assert all(found[name] == truth[name] for name in MARKED)
    return distances(obj, truth, addon)


def distances(obj, truth, addon):
    """Distance of each point from its true vertex, in millimetres."""
    found = addon.face_points.marked(obj)
    assert found.keys() == FACE_POINTS.keys()
    assert len(set(found.values())) == len(found)
    place = np.array([v.co for v in obj.data.vertices])
    unit = np.linalg.norm(place[truth["eye_outer_left"]] - place[truth["eye_outer_right"]])
    return {
        name: np.linalg.norm(place[vertex] - place[truth[name]]) / unit * EYES_MM
        for name, vertex in found.items()
    }


def test_points_are_transferred_from_the_demo_head(other_head, addon):
    head, points = other_head
    mark_by_hand(head, {name: points[name] for name in MARKED})
    assert bpy.ops.ptalker.transfer_face_points() == {'FINISHED'}
    assert max(misses(head, points, addon).values()) < 0.1  # it is the same surface


def test_points_are_transferred_from_a_head_of_other_proportions(demo, flame_head, addon):  # noqa: F811
    bpy.ops.wm.ply_import(filepath=str(flame_head))
    flame = bpy.context.active_object
    truth = json.loads((ROOT / "backend" / "topologies" / "flame.json").read_text())["face_points"]
    flame.rotation_euler.x = 0.3  # objects' transforms do not matter
    mark_by_hand(flame, {name: truth[name] for name in MARKED})
    demo.select_set(True)
    flame.select_set(True)
    bpy.context.view_layer.objects.active = flame
    assert bpy.ops.ptalker.transfer_face_points() == {'FINISHED'}
    miss = misses(flame, truth, addon)
    assert np.mean([m for name, m in miss.items() if name.startswith("lip_")]) < 6
    assert np.mean([m for name, m in miss.items() if name.startswith("lid_")]) < 6


def test_points_with_sides_mixed_up_are_refused(other_head):
    head, points = other_head
    other_side = {"left": "right", "right": "left"}
    mixed = {}
    for name in MARKED:
        stem, _, side = name.rpartition("_")
        mixed[name] = points[f"{stem}_{other_side[side]}" if side in other_side else name]
    mark_by_hand(head, mixed)
    with pytest.raises(RuntimeError, match="left and right are mixed up"):
        bpy.ops.ptalker.transfer_face_points()


def test_transfer_wants_some_points_first(other_head):
    head, points = other_head
    mark_by_hand(head, {name: points[name] for name in MARKED[:3]})
    with pytest.raises(RuntimeError, match="Mark at least 4 points"):
        bpy.ops.ptalker.transfer_face_points()


# What each viseme of the Oculus set looks like, in ARKit's shapes.
VISEMES = {
    "sil": {}, "PP": {"mouthPressLeft": 0.5, "mouthPressRight": 0.5, "mouthClose": 0.05},
    "FF": {"mouthRollLower": 0.5, "jawOpen": 0.05}, "TH": {"jawOpen": 0.15},
    "DD": {"jawOpen": 0.12, "mouthStretchLeft": 0.2, "mouthStretchRight": 0.2},
    "kk": {"jawOpen": 0.2}, "CH": {"mouthFunnel": 0.6, "jawOpen": 0.1},
    "SS": {"mouthStretchLeft": 0.4, "mouthStretchRight": 0.4, "jawOpen": 0.05},
    "nn": {"jawOpen": 0.15, "mouthUpperUpLeft": 0.2, "mouthUpperUpRight": 0.2},
    "RR": {"mouthFunnel": 0.4, "jawOpen": 0.15}, "aa": {"jawOpen": 0.7},
    "E": {"jawOpen": 0.35, "mouthSmileLeft": 0.3, "mouthSmileRight": 0.3},
    "I": {"jawOpen": 0.2, "mouthSmileLeft": 0.5, "mouthSmileRight": 0.5},
    "O": {"jawOpen": 0.4, "mouthFunnel": 0.6}, "U": {"jawOpen": 0.15, "mouthPucker": 0.8},
}  # fmt: skip


def offsets_of(obj, addon):
    """ARKit name -> offsets of the key that a run made."""
    names = [block.name for block in obj.data.shape_keys.key_blocks[1:]]
    return dict(zip(names, addon.shape_keys.read_offsets(obj, names), strict=True))


def give_keys(obj, shapes):
    """A head as a rigger leaves it: a basis and keys of its own."""
    obj.shape_key_clear()
    obj.shape_key_add(name="Basis", from_mix=False)
    rest = np.array([v.co for v in obj.data.vertices], np.float32)
    for name, shape in shapes.items():
        block = obj.shape_key_add(name=name, from_mix=False)
        block.points.foreach_set("co", (rest + shape).astype(np.float32).ravel())
        block.value = 0.0


def visemes(offsets):
    still = np.zeros_like(offsets["jawOpen"])
    return {
        f"viseme_{name}": still + sum(w * offsets[shape] for shape, w in weights.items())
        for name, weights in VISEMES.items()
    }


def expressions(offsets):
    """Directions that mix what the ARKit shapes do, as a statistical model's do."""
    mouth = [n for n in offsets if n.startswith(("jaw", "mouth"))]
    mixing = np.linalg.qr(np.random.default_rng(1).normal(size=(len(mouth), len(mouth))))[0]
    stacked = np.stack([offsets[name] for name in mouth])
    return {f"Exp{k + 1}": shape for k, shape in enumerate(np.tensordot(mixing, stacked, 1))}


@pytest.mark.parametrize("make_keys", [visemes, expressions])
def test_keys_of_a_rig_are_driven(demo, addon, evaluated, make_keys):  # noqa: F811
    assert end_to_end.generate() == {'FINISHED'}
    reference = lip_gap(demo, FACE_POINTS, *span_of(demo), evaluated)
    shapes = make_keys(offsets_of(demo, addon))
    give_keys(demo, shapes)
    demo.ptalker.key_target = 'EXISTING'
    assert end_to_end.generate() == {'FINISHED'}
    blocks = demo.data.shape_keys.key_blocks
    assert [block.name for block in blocks[1:]] == list(shapes)
    gap = lip_gap(demo, FACE_POINTS, *span_of(demo), evaluated)
    assert np.corrcoef(gap, reference)[0, 1] > 0.9
    assert gap.max() > 0.5 * reference.max()
    closed = reference < 0.1 * reference.max()
    assert np.median(gap[closed]) < 0.17 * gap.max()
    assert "they miss the motion by" in bpy.context.window_manager.ptalker.result_text
    for curve in addon.fcurves_of(demo.data.shape_keys):
        values = np.array([point.co.y for point in curve.keyframe_points])
        block = blocks[curve.data_path.split('"')[1]]
        assert block.slider_min <= values.min()
        assert values.max() <= block.slider_max
        assert np.abs(np.diff(values)).max() < 0.6 * max(1.0, np.ptp(values))  # no flicker
