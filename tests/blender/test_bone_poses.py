# SPDX-License-Identifier: GPL-3.0-or-later
"""Poses of an armature as targets of the mapping: a channel at 1 is the pose, poses add up."""

import math
from pathlib import Path

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix, Quaternion

from tests.blender.test_rig_drivers import at_rest, generate, make_armature, paths_of, warnings
from tests.blender.test_rigs import Drawn

FRAMES = range(10, 58)


@pytest.fixture
def rig(head):
    """An armature that deforms the head."""
    made = make_armature("jaw", "lips")
    head.modifiers.new("Armature", 'ARMATURE').object = made
    head.ptalker.key_target = 'EXISTING'
    return made


@pytest.fixture
def wanted(fake_backend, addon, monkeypatch):
    """Shape name -> the weights that the motion has; filled by a run. They are made small apart."""
    seen = {}
    load = addon.motion.load

    def spy(*args, **kwargs):
        found = load(*args, **kwargs)
        seen.update(zip(found.names, found.weights.T, strict=True))
        return found

    monkeypatch.setattr(addon.motion, "load", spy)
    return seen


def make_pose(addon, rig, name, frame=1, *, slots=None, **bones):
    """An Action of one frame, or a frame more of one: bone -> path -> values."""
    action = bpy.data.actions.get(name)
    if action is None:
        holder = bpy.data.objects.new("Poser", None)
        action, curves = addon.compat.new_fcurves(holder, name)
        bpy.data.objects.remove(holder)
    else:
        slot = action.slots[0] if hasattr(action, "slots") else None
        curves = addon.compat._fcurves_of(action, slot)
    action.use_fake_user = True
    for bone, paths in bones.items():
        for path, values in paths.items():
            dot = "" if path.startswith("[") else "."
            whole = f'pose.bones["{bone}"]{dot}{path}'
            for index, value in enumerate(values):
                curve = curves.find(whole, index=index) or curves.new(whole, index=index)
                curve.keyframe_points.insert(frame, value)
    return action


def table(head):
    return [(row.name, row.source, row.gain) for row in head.ptalker_key_rows]


def drive(head, **sources):
    """Rows of the table: pose -> source; the pose is frame 1 of the Action of that name."""
    for name, source in sources.items():
        pose = next((r for r in head.ptalker_key_rows if r.name == f"pose:{name}@1"), None)
        if pose is None:
            assert bpy.ops.ptalker.add_pose_row(action=name, frame=1) == {'FINISHED'}
            pose = head.ptalker_key_rows[-1]
        pose.source = source


def posed(rig, bone):
    """The bone's own transform at each frame, as Blender evaluates it."""
    found = []
    for frame in FRAMES:
        bpy.context.scene.frame_set(frame)
        shown = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())
        found.append(np.array(shown.pose.bones[bone].matrix_basis))
    return np.array(found)


def turned(x=0.0, y=0.0, z=0.0):
    return Euler((x, y, z)).to_quaternion()


def test_poses_move_bones_of_a_head_without_keys(rig, head, addon, wanted):
    make_pose(addon, rig, "jawOpen", jaw={"location": (0, -0.1, 0), "scale": (1, 1.5, 1)},
              lips={"location": (0, 0, 0)})  # fmt: skip
    make_pose(addon, rig, "Fat", jaw={"location": (9, 9, 9)})
    assert "no ARKit" in addon.poll_checks.missing(bpy.context)
    assert bpy.ops.ptalker.add_poses() == {'FINISHED'}
    assert table(head) == [("pose:Fat@1", "", 1.0), ("pose:jawOpen@1", "jawOpen", 1.0)]
    assert addon.poll_checks.missing(bpy.context) == ""
    assert "Poses of the armature among them: 1." in addon.poll_checks.advice(bpy.context)
    assert generate() == {'FINISHED'}
    assert head.data.shape_keys is None
    assert paths_of(addon, rig) == {
        ('pose.bones["jaw"].location', 1), ('pose.bones["jaw"].scale', 1)
    }  # fmt: skip
    jaw = posed(rig, "jaw")
    np.testing.assert_allclose(jaw[:, 1, 3], -0.1 * wanted["jawOpen"], atol=1e-6)
    np.testing.assert_allclose(jaw[:, 1, 1], 1 + 0.5 * wanted["jawOpen"], atol=1e-6)
    text = bpy.context.window_manager.ptalker.result_text
    assert text.startswith("Keyed 1 pose of Head from frame 10 to 57")
    assert addon.speech_action.line_names(rig.animation_data.action) == ["tone"]
    assert at_rest(rig).pose.bones["jaw"].matrix_basis == Matrix()


def test_deformed_vertices_are_those_of_the_pose(rig, head, addon, wanted, evaluated):
    group = head.vertex_groups.new(name="jaw")
    group.add(range(30), 1.0, 'REPLACE')
    make_pose(addon, rig, "jawOpen", jaw={"rotation_quaternion": tuple(turned(x=0.3))})
    bpy.ops.ptalker.add_poses()
    assert generate() == {'FINISHED'}
    at = 10 + int(wanted["jawOpen"].argmax())
    assert wanted["jawOpen"].max() == pytest.approx(1.0, abs=1e-3)
    spoken = evaluated(head, at)
    rest = addon.head_mesh.neutral_vertices(head)
    assert np.abs(spoken - rest).max() > 0.01
    rig.animation_data.action = None
    rig.pose.bones["jaw"].rotation_quaternion = turned(x=0.3)
    np.testing.assert_allclose(spoken, evaluated(head, at), atol=1e-3)


@pytest.mark.parametrize("mode", ['QUATERNION', 'XYZ', 'ZYX', 'AXIS_ANGLE'])
@pytest.mark.parametrize("keyed", ["rotation_quaternion", "rotation_euler", "rotation_axis_angle"])
def test_turns_are_keyed_as_the_bone_turns_and_read_as_the_pose_says(
    rig, head, addon, wanted, mode, keyed
):
    rig.pose.bones["jaw"].rotation_mode = mode
    turn = turned(x=0.4)
    axis, angle = turn.to_axis_angle()
    values = {"rotation_quaternion": turn, "rotation_euler": turn.to_euler(),
              "rotation_axis_angle": (angle, *axis)}  # fmt: skip
    make_pose(addon, rig, "open", jaw={keyed: tuple(values[keyed])})
    drive(head, open="jawOpen")
    assert generate() == {'FINISHED'}
    (path,) = {path for path, _ in paths_of(addon, rig)}
    own = {'QUATERNION': "rotation_quaternion", 'AXIS_ANGLE': "rotation_axis_angle"}
    assert path == f'pose.bones["jaw"].{own.get(mode, "rotation_euler")}'
    angles = [2 * math.acos(min(1, m[0])) for m in map(quaternion_of, posed(rig, "jaw"))]
    np.testing.assert_allclose(angles, 0.4 * wanted["jawOpen"], atol=2e-3)


def quaternion_of(matrix):
    turn = Matrix(matrix.tolist()).to_quaternion()
    return turn if turn.w >= 0 else -turn


def test_poses_add_up_on_one_bone(rig, head, addon, wanted):
    make_pose(addon, rig, "open", jaw={"location": (0, -0.1, 0),
              "rotation_quaternion": tuple(turned(x=0.2))})  # fmt: skip
    make_pose(addon, rig, "close", jaw={"location": (0.05, 0.1, 0),
              "rotation_quaternion": tuple(turned(z=0.1)), "scale": (2, 1, 1)})  # fmt: skip
    drive(head, open="jawOpen", close="mouthClose")
    head.ptalker_key_rows[1].gain = 0.5
    assert generate() == {'FINISHED'}
    a, b = wanted["jawOpen"], 0.5 * wanted["mouthClose"]
    jaw = posed(rig, "jaw")
    np.testing.assert_allclose(jaw[:, 0, 3], 0.05 * b, atol=1e-6)
    np.testing.assert_allclose(jaw[:, 1, 3], 0.1 * (b - a), atol=1e-6)
    for number in range(0, len(a), 7):
        expected = Quaternion((0.2 * a[number], 0, 0.1 * b[number]))
        found = quaternion_of(jaw[number])
        assert found.rotation_difference(expected).angle < 2e-3


def test_keys_and_poses_stand_in_one_table(rig, head, addon, wanted):
    head.shape_key_add(name="Basis", from_mix=False)
    for name in ("mouthFunnel", "mouthClose"):
        head.shape_key_add(name=name, from_mix=False).value = 0.0
    make_pose(addon, rig, "open", jaw={"location": (0, -0.1, 0)})
    bpy.ops.ptalker.fill_key_map()
    for row in head.ptalker_key_rows:
        row.source = row.name
    drive(head, open="jawOpen")
    assert generate() == {'FINISHED'}
    keys = head.data.shape_keys
    assert paths_of(addon, keys) == {
        (f'key_blocks["{name}"].value', 0) for name in ("mouthFunnel", "mouthClose")
    }
    assert paths_of(addon, rig) == {('pose.bones["jaw"].location', 1)}
    text = bpy.context.window_manager.ptalker.result_text
    assert text.startswith("Keyed 2 shape keys and 1 pose of Head")


def test_visemes_can_be_poses(rig, head, addon, wanted):
    for number, name in enumerate(("AA", "E", "I", "O", "U", "PP", "FF")):
        make_pose(addon, rig, f"viseme_{name}", jaw={"location": (number + 1, 0, 0)})
    bpy.ops.ptalker.add_poses()
    assert ("pose:viseme_AA@1", "viseme_aa", 1.0) in table(head)
    assert generate() == {'FINISHED'}
    assert np.ptp(posed(rig, "jaw")[:, 0, 3]) > 0.1


def test_markers_and_frames_of_an_action_are_poses(rig, head, addon, wanted):
    for frame, name, x in ((3, "jawOpen", 0.1), (7, "mouthFunnel", -0.2)):
        action = make_pose(addon, rig, "Library", frame, jaw={"location": (x, 0, 0)})
        action.pose_markers.new(name).frame = frame
    bpy.ops.ptalker.add_poses()
    assert table(head) == [("pose:Library@3", "jawOpen", 1.0),
                           ("pose:Library@7", "mouthFunnel", 1.0)]  # fmt: skip
    bpy.ops.ptalker.add_poses()
    assert len(head.ptalker_key_rows) == 2
    assert generate() == {'FINISHED'}
    expected = 0.1 * wanted["jawOpen"] - 0.2 * wanted["mouthFunnel"]
    np.testing.assert_allclose(posed(rig, "jaw")[:, 0, 3], expected, atol=1e-6)


def test_controls_that_are_properties_belong_to_a_pose(rig, head, addon, wanted):
    bone = rig.pose.bones["jaw"]
    bone["smile"] = 0.2
    bone.id_properties_ui("smile").update(default=0.2)
    make_pose(addon, rig, "open", jaw={'["smile"]': (0.8,)})
    drive(head, open="jawOpen")
    assert generate() == {'FINISHED'}
    curve = addon.fcurves_of(rig)[0]
    assert curve.data_path == 'pose.bones["jaw"]["smile"]'
    values = [curve.evaluate(frame) for frame in FRAMES]
    np.testing.assert_allclose(values, 0.2 + 0.6 * wanted["jawOpen"], atol=1e-6)
    assert curve.evaluate(0) == pytest.approx(0.2)


def test_table_with_poses_goes_through_a_file(rig, head, addon, tmp_path):
    make_pose(addon, rig, "jaw open", jaw={"location": (0, -0.1, 0)})
    drive(head, **{"jaw open": "jawOpen"})
    path = tmp_path / "rig.json"
    assert bpy.ops.ptalker.save_key_map(filepath=str(path)) == {'FINISHED'}
    assert path.read_text() == '{\n  "pose:jaw open@1": {\n    "jawOpen": 1.0\n  }\n}\n'
    bpy.ops.ptalker.clear_key_map()
    assert bpy.ops.ptalker.load_key_map(filepath=str(path)) == {'FINISHED'}
    assert table(head) == [("pose:jaw open@1", "jawOpen", 1.0)]
    bpy.data.actions.remove(bpy.data.actions["jaw open"])
    assert "drives no shape key or pose" in addon.poll_checks.missing(bpy.context)


def test_what_hinders_is_said_before_the_run(rig, head, addon, fake_backend):
    make_pose(addon, rig, "open", jaw={"location": (0, -0.1, 0)})
    with pytest.raises(RuntimeError, match="There is no Action"):
        bpy.ops.ptalker.add_pose_row(action="gone")
    make_pose(addon, rig, "other", tail={"location": (0, -0.1, 0)})
    with pytest.raises(RuntimeError, match="moves no bone"):
        bpy.ops.ptalker.add_pose_row(action="other")
    drive(head, open="jawOpen")
    head.modifiers.clear()
    assert "has no armature" in addon.poll_checks.missing(bpy.context)


def test_failure_leaves_the_rig_as_it_was(rig, head, addon, wanted, snapshot, monkeypatch):
    make_pose(addon, rig, "open", jaw={"location": (0, -0.1, 0)})
    drive(head, open="jawOpen")
    before = snapshot()

    def fail(*_args, **_options):
        raise addon.protocol.UserError("The disk is full.")

    monkeypatch.setattr(addon.nla_strips, "let_play", fail)
    with pytest.raises(RuntimeError, match="The disk is full"):
        generate()
    assert snapshot() == before
    assert rig.animation_data is None


def test_two_lines_share_the_action_of_the_armature(rig, head, addon, wanted, tmp_path):
    make_pose(addon, rig, "open", jaw={"location": (0, -0.1, 0)})
    drive(head, open="jawOpen")
    assert generate() == {'FINISHED'}
    first = posed(rig, "jaw")
    other = tmp_path / "other.wav"
    other.write_bytes(Path(head.ptalker.sound_file).read_bytes())
    head.ptalker.sound_file, head.ptalker.sound_frame = str(other), 100
    assert generate() == {'FINISHED'}
    assert addon.speech_action.line_names(rig.animation_data.action) == ["tone", "other"]
    np.testing.assert_array_equal(posed(rig, "jaw"), first)
    assert "beside 1 other line" in bpy.context.window_manager.ptalker.result_text
    assert "cut" not in warnings()


def test_poses_are_drawn(rig, head, addon, fake_backend):
    make_pose(addon, rig, "open", jaw={"location": (0, -0.1, 0)})

    def draw():
        notes = []
        panel = type("Panel", (), {"layout": Drawn(notes)})
        addon.key_map_ui.PTALKER_PT_key_map.draw(panel, bpy.context)
        for row in head.ptalker_key_rows:
            addon.key_map_ui.PTALKER_UL_key_map.draw_item(
                None, bpy.context, Drawn(notes), head, row, 0, None, "", 0, 0
            )
        return notes

    assert bpy.types.PTALKER_PT_key_map.poll(bpy.context)
    assert ("operator", "ptalker.add_poses") in draw()
    drive(head, open="jawOpen")
    assert ("operator", "ptalker.add_pose_row") in draw()
