# SPDX-License-Identifier: GPL-3.0-or-later
"""The other meshes of a head's character: which go along, and that they move as one with it."""

import shutil
from pathlib import Path

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix


def generate():
    return bpy.ops.ptalker.generate('EXEC_DEFAULT')


def world_points(obj, evaluated_at=None, evaluated=None):
    local = evaluated(obj, evaluated_at) if evaluated else None
    if local is None:
        local = np.array([vertex.co for vertex in obj.data.vertices])
    matrix = np.array(obj.matrix_world)
    return local @ matrix[:3, :3].T + matrix[:3, 3]


def ball(name, centre, radius=0.03, rings=5, columns=6):
    """A mesh whose vertices lie around a place in the world."""
    height, angle = np.meshgrid(np.linspace(-1, 1, rings), np.arange(columns) * 2 * np.pi / columns)
    around = np.sqrt(1.04 - height**2)
    points = np.stack([around * np.cos(angle), around * np.sin(angle), height], -1)
    mesh = bpy.data.meshes.new(name)
    faces = [
        (c * rings + r, c * rings + r + 1,
         (c + 1) % columns * rings + r + 1, (c + 1) % columns * rings + r)
        for c in range(columns) for r in range(rings - 1)
    ]  # fmt: skip
    mesh.from_pydata((points.reshape(-1, 3) * radius + centre).tolist(), [], faces)
    obj = bpy.data.objects.new(name, mesh)
    bpy.context.collection.objects.link(obj)
    return obj


def move_into_another_space(obj, matrix):
    """Give an object a matrix, with its vertices where they were in the world."""
    obj.data.transform(matrix.inverted())
    obj.matrix_world = matrix
    bpy.context.view_layer.update()


@pytest.fixture
def teeth(head):
    """A part low in the head, parented to it, in a mirrored and scaled space."""
    obj = ball("Teeth", (0.0, 0.0, 0.06))
    obj.parent = head
    turn = Euler((0.4, -0.8, 1.1)).to_matrix().to_4x4()
    move_into_another_space(obj, Matrix.Translation((0, 0.02, 0.05)) @ turn @ Matrix.Diagonal(
        (-0.5, 2.0, 1.5, 1.0)))  # fmt: skip
    return obj


@pytest.fixture
def keyed(head):
    """A mesh that has keys of the head's names, in other spellings."""
    obj = ball("Tongue", (0.0, 0.01, 0.08))
    obj.parent = head
    bpy.context.view_layer.update()
    obj.shape_key_add(name="Basis", from_mix=False)
    for name in ("Jaw_Open", "mouthFunnel", "Sleepy"):
        obj.shape_key_add(name=name, from_mix=False).value = 0.0
    return obj


def curves_of(obj, addon):
    return {c.data_path.split('"')[1]: c for c in addon.fcurves_of(obj.data.shape_keys)}


def column(curve, first=10, count=48):
    return np.array([curve.evaluate(first + k) for k in range(count)])


def test_a_part_gets_keys_that_move_it_as_the_head_moves(
    fake_backend, head, teeth, addon, evaluated, monkeypatch
):
    head.location, head.rotation_euler, head.scale = (1, 2, 3), (0.2, 0.1, 0.5), (2, 2, 2)
    bpy.context.view_layer.update()
    seen = []
    load = addon.motion.load
    monkeypatch.setattr(addon.motion, "load", lambda *a, **k: seen.append(load(*a, **k)) or seen[0])
    rest = world_points(teeth)
    assert generate() == {'FINISHED'}
    own = seen[0].shapes[:, len(head.data.vertices) :]
    assert own.shape[1] == len(teeth.data.vertices)
    to_world = np.array(head.matrix_world)[:3, :3]
    for row in (3, 20, 41):
        expected = np.tensordot(seen[0].weights[row], own, 1) @ to_world.T
        moved = world_points(teeth, 10 + row, evaluated) - rest
        np.testing.assert_allclose(moved, expected, atol=2e-5)
        assert np.abs(expected).max() > 0.005
    state = bpy.context.window_manager.ptalker
    assert "with Teeth" in state.result_text


def test_keys_of_known_names_take_the_heads_values(fake_backend, head, keyed, addon):
    assert generate() == {'FINISHED'}
    assert [b.name for b in keyed.data.shape_keys.key_blocks] == [
        "Basis", "Jaw_Open", "mouthFunnel", "Sleepy",
    ]  # fmt: skip
    on_head, own = curves_of(head, addon), curves_of(keyed, addon)
    assert set(own) == {"Jaw_Open", "mouthFunnel"}
    for theirs, ours in (("Jaw_Open", "jawOpen"), ("mouthFunnel", "mouthFunnel")):
        np.testing.assert_allclose(column(own[theirs]), column(on_head[ours]), atol=1e-6)
    assert column(own["Jaw_Open"]).max() > 0.9
    actions = {o.data.shape_keys.animation_data.action for o in (head, keyed)}
    assert len(actions) == 2


def test_lines_and_keys_stay_together_over_runs(fake_backend, head, teeth, keyed, addon, tmp_path):
    generate()
    names = [block.name for block in teeth.data.shape_keys.key_blocks]
    other = tmp_path / "other.wav"
    other.write_bytes(Path(head.ptalker.sound_file).read_bytes())
    head.ptalker.sound_file, head.ptalker.sound_frame = str(other), 200
    assert generate() == {'FINISHED'}
    for obj in (head, teeth, keyed):
        action = obj.data.shape_keys.animation_data.action
        assert addon.speech_action.line_names(action) == ["tone", "other"]
        spoken = next(iter(curves_of(obj, addon).values()))
        assert np.ptp(column(spoken, 10)) > 0.1 < np.ptp(column(spoken, 200))
    assert [block.name for block in teeth.data.shape_keys.key_blocks] == names


def test_a_failure_leaves_every_mesh_as_it_was(
    fake_backend, head, teeth, keyed, addon, snapshot, monkeypatch
):
    def fail(*_args):
        raise RuntimeError("after everything was written")

    before = snapshot()
    monkeypatch.setattr(addon.shape_keys, "mark_companion", fail)
    with pytest.raises(RuntimeError):
        generate()
    assert snapshot() == before


def names_of(addon, head, selected=()):
    bpy.context.view_layer.update()
    return [obj.name for obj in addon.character.find(head, selected).along]


def test_switched_off_or_left_out_nothing_else_is_keyed(fake_backend, head, teeth, keyed, addon):
    assert names_of(addon, head) == ["Teeth", "Tongue"]
    teeth.ptalker.goes_along = False
    assert names_of(addon, head) == ["Tongue"]
    generate()
    assert teeth.data.shape_keys is None
    head.ptalker.with_character = False
    bpy.data.actions.remove(keyed.data.shape_keys.animation_data.action)
    generate()
    assert not addon.fcurves_of(keyed.data.shape_keys)


def test_a_second_head_is_never_swallowed(fake_backend, head, addon):
    twin = head.copy()
    twin.data = head.data.copy()
    twin.name = "Twin"
    marked = ball("Marked", (0, 0, 0.1))
    spoke = ball("Spoke", (0, 0, 0.1))
    for obj in (twin, marked, spoke):
        obj.parent = head
    bpy.context.collection.objects.link(twin)
    point = addon.face_points.Point(3, addon.face_points.State.HAND)
    addon.face_points.store(marked, {"nose_tip": point})
    spoke.shape_key_add(name="Basis")
    spoke.data.shape_keys["ptalker_keys"] = {"jawOpen": {"key": "jawOpen", "shape": [1.0] * 3}}
    assert names_of(addon, head, [twin, marked, spoke]) == []


def test_what_stands_apart_is_not_of_the_character(head, addon):
    near, far = ball("Near", (0, 0, 0.1)), ball("Far", (3, 0, 0.1))
    near.parent = far.parent = head
    assert names_of(addon, head, [far]) == ["Near"]


def test_a_collection_counts_where_it_is_the_characters_own(head, addon):
    brow = ball("Brow", (0, 0.05, 0.2))
    assert names_of(addon, head) == []  # both lie in the scene's own collection
    hers = bpy.data.collections.new("Hers")
    bpy.context.scene.collection.children.link(hers)
    for obj in (head, brow):
        hers.objects.link(obj)
    assert names_of(addon, head) == ["Brow"]
    other = head.copy()
    other.data = head.data.copy()
    other.location.x = 2.0
    hers.objects.link(other)
    assert names_of(addon, head) == []  # a set with two heads


def test_an_armature_joins_meshes(head, addon):
    rig = bpy.data.objects.new("Rig", bpy.data.armatures.new("Rig"))
    bpy.context.collection.objects.link(rig)
    lash, prop = ball("Lash", (0, 0.05, 0.2)), ball("Prop", (0, 0.05, 0.2))
    for obj in (head, lash):
        obj.modifiers.new("Armature", 'ARMATURE').object = rig
    assert names_of(addon, head) == ["Lash"]
    assert names_of(addon, head, [prop]) == ["Lash", "Prop"]


def test_what_hangs_on_a_bone_is_read_at_rest(head, addon):
    armature = bpy.data.armatures.new("Rig")
    rig = bpy.data.objects.new("Rig", armature)
    bpy.context.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode='EDIT')
    bone = armature.edit_bones.new("head")
    bone.head, bone.tail = (0, 0, 0), (0, 0, 0.1)
    bpy.ops.object.mode_set(mode='OBJECT')
    head.modifiers.new("Armature", 'ARMATURE').object = rig
    eye = ball("Eye", (0.02, 0.05, 0.2))
    eye.parent, eye.parent_type, eye.parent_bone = rig, 'BONE', "head"
    eye.matrix_parent_inverse = Matrix.Translation((0, -0.1, 0)) @ rig.matrix_world.inverted()
    bpy.context.view_layer.update()
    at_rest = addon.character.read(head, [eye])[0].vertices
    rig.pose.bones["head"].rotation_mode = 'XYZ'
    rig.pose.bones["head"].rotation_euler = (0.3, 0.0, 0.5)
    bpy.context.view_layer.update()
    assert np.abs(np.array(eye.matrix_world) - np.eye(4)).max() > 0.1
    np.testing.assert_allclose(addon.character.read(head, [eye])[0].vertices, at_rest, atol=1e-6)


def test_what_cannot_be_keyed_is_said(fake_backend, head, teeth, addon):
    teeth.shape_key_add(name="Basis", from_mix=False)
    teeth.data.shape_keys.use_relative = False
    bpy.context.view_layer.update()
    found = addon.character.find(head)
    assert found.along == ()
    assert found.left == ('"Teeth" stays behind: switch on Relative in its shape keys.',)
    assert found.left[0] in addon.poll_checks.notes(bpy.context)
    head.ptalker.with_character = False
    assert found.left[0] not in addon.poll_checks.notes(bpy.context)
    assert generate() == {'FINISHED'}


def test_a_mesh_that_is_deleted_meanwhile_is_named(fake_backend, head, teeth, keyed, addon):
    inputs = addon.scene_inputs.collect(
        bpy.context, head, addon.scene_inputs.choices_of(bpy.context, head)
    )
    job = addon.lip_sync_job.generate_job(inputs, addon.preferences.read(bpy.context))
    file = Path(job._request.head)
    with np.load(file) as data:
        counts = [len(head.data.vertices), len(teeth.data.vertices)]
        assert data["object_sizes"].tolist() == counts
        assert len(data["vertices"]) == sum(counts)
        template = data["vertices"]
    shapes = np.full((1, len(template), 3), 0.01, np.float32)
    found = addon.motion.Motion(
        np.ones((5, 1), np.float32), shapes, ("jawOpen",), template, inputs.fps, 0.0, {}
    )
    shutil.rmtree(file.parent)
    bpy.data.objects.remove(teeth)
    outcome = addon.lip_sync_job.write_motion(inputs, found)
    assert '"Teeth" was deleted.' in outcome.warnings
    assert "with Tongue" in outcome.text


def test_shared_meshes_hidden_objects_and_modifiers_are_keyed(fake_backend, head, addon):
    left = ball("Eye.L", (0.02, 0.05, 0.1))
    right = bpy.data.objects.new("Eye.R", left.data)
    bpy.context.collection.objects.link(right)
    right.location.x = -0.04
    for obj in (left, right):
        obj.parent = head
        obj.modifiers.new("Subdivision", 'SUBSURF')
    right.hide_viewport = True
    bpy.context.view_layer.update()
    assert generate() == {'FINISHED'}
    assert left.data != right.data
    for obj in (left, right):
        assert addon.fcurves_of(obj.data.shape_keys)


def test_a_part_without_keys_stays_behind_where_the_head_goes_by_name(
    fake_backend, head, teeth, keyed, addon
):
    head.shape_key_add(name="Basis", from_mix=False)
    for name in addon.rig_names.ARKIT_NAMES:
        head.shape_key_add(name=name, from_mix=False).value = 0.0
    assert generate() == {'FINISHED'}
    state = bpy.context.window_manager.ptalker
    warnings = [warning.text for warning in state.warnings]
    assert any('"Teeth" has no shape keys of known names' in text for text in warnings)
    assert "with Tongue," in state.result_text
    assert teeth.data.shape_keys is None
    np.testing.assert_allclose(
        column(curves_of(keyed, addon)["Jaw_Open"]), column(curves_of(head, addon)["jawOpen"])
    )
