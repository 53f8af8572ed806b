# SPDX-License-Identifier: GPL-3.0-or-later
"""The head's rotation, keyed on an object or a bone beside the shape keys."""

import math

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix, Vector

FIRST, FRAMES = 10, 48
NOD = math.radians(5.0)


def nod(frame):
    """What the fake backend's head does at a frame: radians about the face's x."""
    return NOD * math.sin(3.0 * (frame - FIRST) / 24)


@pytest.fixture
def empty(head):
    """An empty that the head hangs on."""
    found = bpy.data.objects.new("Neck", None)
    bpy.context.scene.collection.objects.link(found)
    head.parent = found
    head.ptalker.head_target = 'OBJECT'
    head.ptalker.head_object = found
    bpy.context.view_layer.update()
    return found


@pytest.fixture
def armature(head):
    """An armature with a head bone that leans forward and lies in no axis of the world."""
    data = bpy.data.armatures.new("Rig")
    found = bpy.data.objects.new("Rig", data)
    bpy.context.scene.collection.objects.link(found)
    bpy.context.view_layer.objects.active = found
    bpy.ops.object.mode_set(mode='EDIT')
    bone = data.edit_bones.new("head")
    bone.head, bone.tail, bone.roll = (0.0, 0.02, 0.1), (0.05, -0.03, 0.4), 0.7
    bpy.ops.object.mode_set(mode='OBJECT')
    bpy.context.view_layer.objects.active = head
    head.ptalker.head_target = 'BONE'
    head.ptalker.head_object = found
    head.ptalker.head_bone = "head"
    return found


def generate():
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    return bpy.context.window_manager.ptalker


def turned(matrix, rest):
    """Rotation from a rest matrix to another, both in the world."""
    return (matrix @ rest.inverted()).to_3x3().normalized()


def assert_nods(matrix, rest, frame):
    expected = Euler((nod(frame), 0.0, 0.0)).to_matrix()  # the face looks along -Y: its x is X
    np.testing.assert_allclose(turned(matrix, rest), expected, atol=2e-4)


@pytest.mark.parametrize("mode", ['XYZ', 'ZYX', 'QUATERNION', 'AXIS_ANGLE'])
def test_an_empty_nods_from_where_it_stood(fake_backend, head, empty, mode):
    empty.rotation_mode = mode
    empty.matrix_world = Matrix.Translation((1, 2, 3)) @ Euler((0.0, 0.0, 0.4)).to_matrix().to_4x4()
    head.matrix_parent_inverse = empty.matrix_world.inverted()
    bpy.context.view_layer.update()
    rest = empty.matrix_world.copy()
    state = generate()
    assert 'the rotation of "Neck"' in state.result_text
    for frame in (FIRST, FIRST + 12, FIRST + 40):
        bpy.context.scene.frame_set(frame)
        assert_nods(empty.matrix_world, rest, frame)
        assert empty.matrix_world.translation == rest.translation
    bpy.context.scene.frame_set(FIRST + FRAMES + 20)
    np.testing.assert_allclose(empty.matrix_world, rest, atol=1e-5)


def test_a_face_that_looks_elsewhere_nods_about_its_own_axis(fake_backend, head, empty):
    head.rotation_euler.z = math.pi / 2  # looks along +X now
    bpy.context.view_layer.update()
    rest = empty.matrix_world.copy()
    generate()
    frame = FIRST + 12
    bpy.context.scene.frame_set(frame)
    out = turned(empty.matrix_world, rest) @ Vector((1.0, 0.0, 0.0))
    assert out.z == pytest.approx(-math.sin(nod(frame)), abs=1e-4)  # the nose goes down
    assert out.y == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("mode", ['QUATERNION', 'YXZ'])
def test_a_bone_nods_whatever_its_axes(fake_backend, head, armature, mode):
    bone = armature.pose.bones["head"]
    bone.rotation_mode = mode
    armature.rotation_euler = (0.2, -0.1, 0.9)
    bpy.context.view_layer.update()
    rest = armature.matrix_world @ bone.matrix
    state = generate()
    assert 'bone "head" of "Rig"' in state.result_text
    for frame in (FIRST + 12, FIRST + 30):
        bpy.context.scene.frame_set(frame)
        assert_nods(armature.matrix_world @ bone.matrix, rest, frame)


def values(obj, addon):
    return {
        (curve.data_path, curve.array_index, round(point.co.x)): point.co.y
        for curve in addon.fcurves_of(obj)
        for point in curve.keyframe_points
    }


def test_the_line_again_gives_the_same_keys_wherever_the_playhead_is(
    fake_backend, head, empty, addon
):
    generate()
    first = values(empty, addon)
    bpy.context.scene.frame_set(FIRST + 12)  # the head leans now
    generate()
    again = values(empty, addon)
    assert again.keys() == first.keys()
    assert all(again[key] == pytest.approx(first[key], abs=1e-6) for key in first)
    assert len({key[2] for key in first}) == FRAMES + 2


def test_a_second_line_leaves_the_first(fake_backend, head, empty, addon, tmp_path, sound_file):
    generate()
    first = values(empty, addon)
    other = tmp_path / "other.wav"
    other.write_bytes(sound_file.read_bytes())
    head.ptalker.sound_file, head.ptalker.sound_frame = str(other), 100
    generate()
    both = values(empty, addon)
    assert all(both[key] == pytest.approx(value) for key, value in first.items())
    assert any(key[2] > 100 for key in both)


def test_keys_of_the_artist_are_left_alone(fake_backend, head, empty, addon):
    empty.keyframe_insert("rotation_euler", frame=1)
    empty.keyframe_insert("location", frame=1)
    before = empty.animation_data.action
    state = generate()
    assert empty.animation_data.action == before
    assert "has keyframes of its own" in state.warnings[-1].text
    assert head.data.shape_keys.animation_data.action is not None


def test_other_curves_of_the_target_stay(fake_backend, head, empty, addon):
    empty.location.x = 4.0
    empty.keyframe_insert("location", frame=1)
    before = empty.animation_data.action
    generate()
    assert empty.animation_data.action != before
    assert before.use_fake_user
    assert ("location", 0, 1) in values(empty, addon)


def test_without_a_target_nothing_turns_and_the_eyes_need_not_make_up_for_it(
    fake_backend, head, addon, monkeypatch
):
    seen = []
    encode = addon.backend_process.encode
    monkeypatch.setattr(
        addon.backend_process, "encode", lambda request: seen.append(request) or encode(request)
    )
    head.ptalker.brows, head.ptalker.seed = 0.5, 7
    generate()
    options = seen[0].options
    assert (options.head_motion, options.brows, options.seed) == (0.0, 0.5, 7)
    assert head.animation_data is None


def test_one_undo_takes_the_rotation_back_too(fake_backend, head, empty):
    name = head.name
    bpy.ops.ed.undo_push(message="before")
    generate()
    assert empty.animation_data is not None
    bpy.ops.ed.undo()
    assert bpy.data.objects["Neck"].animation_data is None
    assert bpy.data.objects[name].data.shape_keys is None


@pytest.mark.parametrize("heading", [0.0, 1.2])
def test_a_head_that_goes_by_name_is_taken_to_look_along_minus_y(head, empty, addon, heading):
    # As an importer leaves it: lying on its back in its own space, and turned in the world.
    head.rotation_euler = (math.pi / 2, 0.0, heading)
    bpy.context.view_layer.update()
    axes = addon.head_motion._world_axes(head, None)
    ahead = Vector((math.sin(heading), -math.cos(heading), 0.0))
    assert (axes @ Vector((0.0, 0.0, 1.0)) - ahead).length < 1e-5
    assert (axes @ Vector((0.0, 1.0, 0.0)) - Vector((0.0, 0.0, 1.0))).length < 1e-5


def test_motion_without_layers_is_taken_as_before(fake_backend, head, empty):
    fake_backend("nolayers")
    generate()
    assert empty.animation_data is None


@pytest.mark.parametrize(
    ("target", "name", "text"),
    [('OBJECT', None, "Choose the object"), ('BONE', "Rig", "Choose the bone"),
     ('BONE', "Rig:jaw", 'has no bone "jaw"')],
)  # fmt: skip
def test_a_missing_target_is_named_before_the_run(
    fake_backend, head, armature, addon, target, name, text
):
    head.ptalker.head_target = target
    head.ptalker.head_object = armature if name else None
    head.ptalker.head_bone = name.partition(":")[2] if name else ""
    assert text in addon.scene_inputs.missing(bpy.context)
    assert not bpy.ops.ptalker.generate.poll()


def test_a_failure_leaves_the_target_as_it_was(fake_backend, head, empty, addon, monkeypatch):
    def fail(*_args, **_kwargs):
        raise addon.protocol.UserError("No room.")

    monkeypatch.setattr(addon.shape_keys, "write", fail)
    empty.rotation_euler.x = 0.3
    actions = set(bpy.data.actions)
    with pytest.raises(RuntimeError, match="No room"):
        bpy.ops.ptalker.generate('EXEC_DEFAULT')
    assert empty.animation_data is None
    assert empty.rotation_euler.x == pytest.approx(0.3)
    assert set(bpy.data.actions) == actions
