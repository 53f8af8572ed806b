# SPDX-License-Identifier: GPL-3.0-or-later
"""Shape keys on a control rig: the controls are keyed, or the drivers muted and given back."""

import math

import bpy
import numpy as np
import pytest
from mathutils import Matrix

from tests.blender import test_end_to_end as end_to_end
from tests.blender.test_lines import push_down

KEYS = ("jawOpen", "mouthClose", "mouthFunnel")


def generate():
    return bpy.ops.ptalker.generate('EXEC_DEFAULT')


def warnings():
    return " ".join(w.text for w in bpy.context.window_manager.ptalker.warnings)


def make_armature(*bones, name="Rig"):
    """An armature whose bones lie apart, with nothing connected."""
    rig = bpy.data.objects.new(name, bpy.data.armatures.new(name))
    bpy.context.collection.objects.link(rig)
    active = bpy.context.view_layer.objects.active
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode='EDIT')
    for number, bone in enumerate(bones):
        made = rig.data.edit_bones.new(bone)
        made.head = (number, 0, 0)
        made.tail = (number, 0.3, 0.4)
    bpy.ops.object.mode_set(mode='OBJECT')
    bpy.context.view_layer.objects.active = active
    return rig


@pytest.fixture
def rig():
    return make_armature("jaw_ctrl", "mouth_ctrl")


@pytest.fixture
def speaker(fake_backend, head, addon):
    """The head with ARKit keys of its own; each moves one vertex."""
    head.shape_key_add(name="Basis", from_mix=False)
    for number, name in enumerate(addon.rig_names.ARKIT_NAMES):
        block = head.shape_key_add(name=name, from_mix=False)
        block.points[number % len(block.points)].co.z += 0.1
        block.value = 0.0
    head.ptalker.key_target = 'EXISTING'
    return head


@pytest.fixture
def wanted(speaker, addon, monkeypatch):
    """Key name -> the values that the motion has; filled by a run."""
    seen = {}
    load = addon.motion.load

    def spy(*args, **kwargs):
        found = load(*args, **kwargs)
        seen.update(zip(found.names, found.weights.T, strict=True))
        return found

    monkeypatch.setattr(addon.motion, "load", spy)
    return seen


def drive(obj, key, expression="var", **variable):
    """A driver as an artist makes it; the variable reads a transform or a property."""
    curve = obj.data.shape_keys.driver_add(f'key_blocks["{key}"].value')
    curve.driver.type = 'SCRIPTED'
    curve.driver.expression = expression
    add_variable(curve, **variable)
    return curve


def add_variable(curve, *, target, bone="", transform="", space='TRANSFORM_SPACE', path="",
                 name="var", id_type='OBJECT'):  # fmt: skip
    made = curve.driver.variables.new()
    made.name = name
    made.type = 'SINGLE_PROP' if path else 'TRANSFORMS'
    if path:
        made.targets[0].id_type = id_type
    made.targets[0].id = target
    made.targets[0].data_path = path
    made.targets[0].bone_target = bone
    if transform:
        made.targets[0].transform_type = transform
        made.targets[0].transform_space = space


def shown(obj, key):
    """Values of a key as Blender evaluates them during the speech, frames 10 to 57."""
    values = []
    for frame in range(10, 58):
        bpy.context.scene.frame_set(frame)
        keys = obj.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.shape_keys
        values.append(keys.key_blocks[key].value)
    return np.array(values)


def at_rest(owner):
    """An object as Blender evaluates it long after the speech, coming from its middle."""
    bpy.context.scene.frame_set(30)
    bpy.context.scene.frame_set(200)
    return owner.evaluated_get(bpy.context.evaluated_depsgraph_get())


def paths_of(addon, owner):
    return {(c.data_path, c.array_index) for c in addon.fcurves_of(owner)}


def reopened(addon, obj, tmp_path):
    """The object after the file was saved and loaded."""
    name, path = obj.name, tmp_path / "scene.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path), check_existing=False)
    bpy.ops.wm.open_mainfile(filepath=str(path))
    return bpy.data.objects[name]


@pytest.mark.parametrize(("transform", "expression", "path"), [
    ("LOC_Y", "var * 2", ("location", 1)),
    ("LOC_X", "max(0, min(1, -var / 0.05))", ("location", 0)),
    ("LOC_Z", "clamp((var - 0.2) / 0.3)", ("location", 2)),
    ("SCALE_Y", "(var - 1) * 2", ("scale", 1)),
    ("ROT_X", "degrees(var) / 40", ("rotation_euler", 0)),
])  # fmt: skip
@pytest.mark.parametrize("space", ['TRANSFORM_SPACE', 'LOCAL_SPACE'])
def test_a_bone_is_keyed_in_place_of_its_key(
    speaker, rig, addon, wanted, transform, expression, path, space
):
    rig.pose.bones["jaw_ctrl"].rotation_mode = 'XYZ'
    drive(speaker, "jawOpen", expression, target=rig, bone="jaw_ctrl", transform=transform,
          space=space)  # fmt: skip
    assert "jawOpen: keyed by their controls" in " ".join(addon.poll_checks.notes(bpy.context))
    assert generate() == {'FINISHED'}
    assert paths_of(addon, rig) == {(f'pose.bones["jaw_ctrl"].{path[0]}', path[1])}
    assert ('key_blocks["jawOpen"].value', 0) not in paths_of(addon, speaker.data.shape_keys)
    assert np.ptp(wanted["jawOpen"]) > 0.9
    np.testing.assert_allclose(shown(speaker, "jawOpen"), wanted["jawOpen"], atol=1e-4)
    np.testing.assert_allclose(shown(speaker, "mouthClose"), wanted["mouthClose"], atol=1e-4)
    assert at_rest(rig).pose.bones["jaw_ctrl"].matrix_basis == Matrix()
    assert not speaker.data.shape_keys.animation_data.drivers[0].mute
    assert warnings() == ""
    assert "and 1 control of the rig" in bpy.context.window_manager.ptalker.result_text


def test_angles_of_a_bone_in_quaternions_are_keyed_as_such(speaker, rig, addon, wanted):
    bone = rig.pose.bones["jaw_ctrl"]
    assert bone.rotation_mode == 'QUATERNION'
    drive(speaker, "jawOpen", "var * 2", target=rig, bone="jaw_ctrl", transform="ROT_X")
    drive(speaker, "mouthFunnel", "-var * 3", target=rig, bone="jaw_ctrl", transform="ROT_Z")
    assert generate() == {'FINISHED'}
    assert paths_of(addon, rig) == {
        ('pose.bones["jaw_ctrl"].rotation_quaternion', index) for index in range(4)
    }
    for key in KEYS:
        np.testing.assert_allclose(shown(speaker, key), wanted[key], atol=1e-3)


def test_a_custom_property_is_keyed(speaker, rig, addon, wanted, tmp_path):
    bone = rig.pose.bones["jaw_ctrl"]
    bone["open"] = 25.0
    bone.id_properties_ui("open").update(min=0.0, max=100.0, default=25.0)
    drive(speaker, "jawOpen", "(var - 25) / 75", target=rig, path='pose.bones["jaw_ctrl"]["open"]')
    speaker["funnel"] = 0.0
    drive(speaker, "mouthFunnel", "var", target=speaker, path='["funnel"]')
    assert generate() == {'FINISHED'}
    assert paths_of(addon, rig) == {('pose.bones["jaw_ctrl"]["open"]', 0)}
    assert paths_of(addon, speaker) == {('["funnel"]', 0)}
    for key in KEYS:
        np.testing.assert_allclose(shown(speaker, key), wanted[key], atol=1e-4)
    speaker = reopened(addon, speaker, tmp_path)
    for key in KEYS:
        np.testing.assert_allclose(shown(speaker, key), wanted[key], atol=1e-4)


def test_an_object_is_keyed_from_where_it_stands(speaker, addon, wanted):
    empty = bpy.data.objects.new("Control", None)
    bpy.context.collection.objects.link(empty)
    empty.location = (1, 2, 3)
    drive(speaker, "jawOpen", "(var - 3) * 5", target=empty, transform="LOC_Z")
    assert generate() == {'FINISHED'}
    assert paths_of(addon, empty) == {("location", 2)}
    np.testing.assert_allclose(shown(speaker, "jawOpen"), wanted["jawOpen"], atol=1e-4)
    assert tuple(at_rest(empty).location) == pytest.approx((1, 2, 3))


def test_a_chain_of_drivers_is_followed_to_its_control(speaker, rig, addon, wanted):
    speaker["face"] = 0.0
    drive(speaker, "jawOpen", "var * 2", target=speaker, path='["face"]')
    curve = speaker.driver_add('["face"]')
    curve.driver.expression = "var / 3 + 0.1"
    add_variable(curve, target=rig, bone="jaw_ctrl", transform="LOC_Y")
    assert generate() == {'FINISHED'}
    assert paths_of(addon, rig) == {('pose.bones["jaw_ctrl"].location', 1)}
    np.testing.assert_allclose(shown(speaker, "jawOpen"), wanted["jawOpen"], atol=1e-4)


def test_one_control_goes_two_ways(speaker, rig, addon, wanted, monkeypatch):
    load = addon.motion.load

    def apart(*args, **kwargs):
        found = load(*args, **kwargs)
        found.weights[::2, found.names.index("mouthFunnel")] = 0.0
        found.weights[1::2, found.names.index("jawOpen")] = 0.0
        return found

    monkeypatch.setattr(addon.motion, "load", apart)
    for key, expression in (("jawOpen", "max(0, var)"), ("mouthFunnel", "max(0, -var * 2)")):
        drive(speaker, key, expression, target=rig, bone="jaw_ctrl", transform="LOC_X")
    assert generate() == {'FINISHED'}
    assert len(paths_of(addon, rig)) == 1
    for key in ("jawOpen", "mouthFunnel"):
        np.testing.assert_allclose(shown(speaker, key), wanted[key], atol=1e-4)
    assert warnings() == ""


def test_keys_that_cannot_move_apart_are_said(speaker, rig, addon, wanted):
    for key in ("jawOpen", "mouthFunnel"):
        drive(speaker, key, "var", target=rig, bone="jaw_ctrl", transform="LOC_X")
    assert generate() == {'FINISHED'}
    assert "jawOpen, mouthFunnel hang on one control (Rig, jaw_ctrl)" in warnings()
    middle = (wanted["jawOpen"] + wanted["mouthFunnel"]) / 2
    np.testing.assert_allclose(shown(speaker, "jawOpen"), middle, atol=1e-4)


def unclear(speaker, rig):
    """Drivers that are not simple; the last is muted by the artist."""
    sums = drive(speaker, "jawOpen", "var + more", target=rig, bone="jaw_ctrl", transform="LOC_Y")
    add_variable(sums, target=rig, bone="mouth_ctrl", transform="LOC_Y", name="more")
    drive(speaker, "mouthClose", "sin(var)", target=rig, bone="mouth_ctrl", transform="LOC_X")
    drive(speaker, "mouthFunnel", "var ** 2", target=rig, bone="mouth_ctrl",
          transform="LOC_Z").mute = True  # fmt: skip


def state_of_drivers(speaker):
    return [
        (c.data_path, c.mute, c.driver.expression, len(c.driver.variables))
        for c in speaker.data.shape_keys.animation_data.drivers
    ]


def test_other_drivers_are_muted_and_given_back(speaker, rig, addon, wanted, tmp_path):
    unclear(speaker, rig)
    before = state_of_drivers(speaker)
    told = " ".join(addon.poll_checks.notes(bpy.context))
    assert "The drivers of jawOpen, mouthClose will be muted" in told
    assert not bpy.ops.ptalker.restore_drivers.poll()
    assert generate() == {'FINISHED'}
    assert "The drivers of jawOpen, mouthClose were muted" in warnings()
    for _ in range(2):  # the second run finds them muted
        for key in KEYS:
            np.testing.assert_allclose(shown(speaker, key), wanted[key], atol=1e-4)
        assert generate() == {'FINISHED'}
    speaker = reopened(addon, speaker, tmp_path)
    bpy.context.view_layer.objects.active = speaker
    assert bpy.types.PTALKER_PT_drivers.poll(bpy.context)
    assert bpy.ops.ptalker.restore_drivers() == {'FINISHED'}
    assert state_of_drivers(speaker) == before
    assert not bpy.ops.ptalker.restore_drivers.poll()
    bpy.data.objects["Rig"].pose.bones["jaw_ctrl"].location.y = 0.25
    bpy.data.objects["Rig"].update_tag()
    bpy.context.view_layer.update()
    np.testing.assert_allclose(shown(speaker, "jawOpen"), 0.25, atol=1e-6)


def test_driver_of_a_key_that_was_renamed_meanwhile_is_given_back(speaker, rig):
    unclear(speaker, rig)
    assert generate() == {'FINISHED'}
    speaker.data.shape_keys.key_blocks["mouthClose"].name = "Closed"
    assert bpy.ops.ptalker.restore_drivers() == {'FINISHED'}
    drivers = speaker.data.shape_keys.animation_data.drivers
    assert [c.data_path for c in drivers if c.mute] == ['key_blocks["mouthFunnel"].value']


def test_a_failure_gives_rig_and_drivers_back(speaker, rig, addon, snapshot, monkeypatch):
    drive(speaker, "eyeBlinkLeft", "var", target=rig, bone="jaw_ctrl", transform="LOC_X")
    unclear(speaker, rig)
    drive(speaker, "cheekPuff", "sin(var)", target=rig, bone="mouth_ctrl", transform="LOC_X")
    before = snapshot(), state_of_drivers(speaker)

    def fail(*_args, **_options):
        raise addon.protocol.UserError("The disk is full.")

    monkeypatch.setattr(addon.nla_strips, "let_play", fail)
    with pytest.raises(RuntimeError, match="The disk is full"):
        generate()
    assert (snapshot(), state_of_drivers(speaker)) == before
    assert rig.animation_data is None
    assert not addon.rig_drivers.muted_paths(speaker)


@pytest.mark.parametrize("variable", [
    {"transform": "LOC_Y", "space": 'WORLD_SPACE'},
    {"transform": "SCALE_AVG"},
    {"path": "pose.bones[\"jaw_ctrl\"].rotation_quaternion[1]"},
    {"path": "pose.bones[\"gone\"].location[1]"},
    {"path": "show_in_front"},
])  # fmt: skip
def test_what_cannot_be_turned_round_is_muted(speaker, rig, addon, wanted, variable):
    bone = {} if "path" in variable else {"bone": "jaw_ctrl"}
    drive(speaker, "jawOpen", "var", target=rig, **bone, **variable)
    assert generate() == {'FINISHED'}
    assert rig.animation_data is None
    np.testing.assert_allclose(shown(speaker, "jawOpen"), wanted["jawOpen"], atol=1e-4)


def test_constraints_other_than_limits_are_not_looked_through(speaker, rig, wanted):
    bone = rig.pose.bones["jaw_ctrl"]
    limit = bone.constraints.new('LIMIT_LOCATION')
    limit.use_min_y, limit.use_max_y, limit.max_y = True, True, 1.0
    limit.owner_space = 'LOCAL'
    curve = drive(speaker, "jawOpen", "var", target=rig, bone="jaw_ctrl", transform="LOC_Y",
                  space='LOCAL_SPACE')  # fmt: skip
    assert generate() == {'FINISHED'}
    assert not curve.mute
    np.testing.assert_allclose(shown(speaker, "jawOpen"), wanted["jawOpen"], atol=1e-4)
    copy = bone.constraints.new('COPY_LOCATION')
    copy.target = speaker
    assert generate() == {'FINISHED'}
    assert speaker.data.shape_keys.animation_data.drivers[0].mute


def test_the_curve_of_a_driver_counts(speaker, rig, wanted):
    curve = drive(speaker, "jawOpen", "var", target=rig, bone="jaw_ctrl", transform="LOC_Y")
    for modifier in list(curve.modifiers):
        curve.modifiers.remove(modifier)
    while len(curve.keyframe_points):
        curve.keyframe_points.remove(curve.keyframe_points[0])
    for x, y in ((0.0, 0.0), (0.02, 1.0)):
        point = curve.keyframe_points.insert(x, y)
        point.interpolation = 'LINEAR'
    curve.extrapolation = 'CONSTANT'
    assert generate() == {'FINISHED'}
    assert not curve.mute
    np.testing.assert_allclose(shown(speaker, "jawOpen"), wanted["jawOpen"], atol=1e-3)


def test_action_of_the_rig_is_kept_and_goes_on(speaker, rig, addon, wanted):
    body = rig.pose.bones["mouth_ctrl"]
    for frame, x in ((1, 0.0), (100, 2.0)):
        body.location.x = x
        body.keyframe_insert("location", index=0, frame=frame)
    before = rig.animation_data.action
    drive(speaker, "jawOpen", "var", target=rig, bone="jaw_ctrl", transform="LOC_Y")
    assert generate() == {'FINISHED'}
    assert rig.animation_data.action != before
    assert before.use_fake_user
    curves = {c.data_path: c for c in addon.fcurves_of(rig)}
    assert len(curves['pose.bones["mouth_ctrl"].location'].keyframe_points) == 2
    assert addon.speech_action.line_names(rig.animation_data.action) == ["tone"]
    bpy.context.scene.render.fps = 30
    speaker.data.shape_keys.animation_data.action = None
    assert "scene's 30: tone." in " ".join(addon.poll_checks.notes(bpy.context))


def test_strips_of_the_rig_go_on_playing_and_are_not_tweaked(speaker, rig, addon, wanted):
    drive(speaker, "jawOpen", "var", target=rig, bone="jaw_ctrl", transform="LOC_Y")
    assert generate() == {'FINISHED'}
    for owner in (rig, speaker.data.shape_keys):
        push_down(owner)
    expected = shown(speaker, "jawOpen")
    speaker.ptalker.sound_frame = 100
    assert generate() == {'FINISHED'}
    np.testing.assert_allclose(shown(speaker, "jawOpen"), expected, atol=1e-6)
    np.testing.assert_allclose(expected, wanted["jawOpen"], atol=1e-4)
    rig.animation_data.action = None
    rig.animation_data.nla_tracks.active = rig.animation_data.nla_tracks[0]
    rig.animation_data.nla_tracks[0].strips[0].select = True
    rig.animation_data.use_tweak_mode = True
    assert rig.animation_data.use_tweak_mode
    assert "Leave Tweak Mode" in addon.poll_checks.missing(bpy.context)


def test_meshes_on_one_control_make_one_action(speaker, rig, addon, wanted):
    drive(speaker, "jawOpen", "var", target=rig, bone="jaw_ctrl", transform="LOC_Y")
    assert generate() == {'FINISHED'}
    action = rig.animation_data.action
    assert generate() == {'FINISHED'}
    assert rig.animation_data.action == action


def test_keys_that_follow_another_mesh_are_left_to_it(speaker, rig, addon, wanted):
    teeth = bpy.data.objects.new("Teeth", speaker.data.copy())
    bpy.context.collection.objects.link(teeth)
    for key in addon.rig_names.ARKIT_NAMES:
        drive(teeth, key, "var", target=speaker.data.shape_keys, id_type='KEY',
              path=f'key_blocks["{key}"].value')  # fmt: skip
    assert generate() == {'FINISHED'}
    np.testing.assert_allclose(shown(teeth, "jawOpen"), wanted["jawOpen"], atol=1e-4)
    teeth.ptalker.sound_source = 'FILE'
    teeth.ptalker.sound_file = speaker.ptalker.sound_file
    bpy.context.view_layer.objects.active = teeth
    with pytest.raises(RuntimeError, match="follow those of another mesh"):
        generate()


def test_a_turned_jaw_of_degrees_reaches_its_key(speaker, rig, wanted):
    bone = rig.pose.bones["jaw_ctrl"]
    bone.rotation_mode = 'ZXY'
    drive(speaker, "jawOpen", f"var / {math.radians(25)}", target=rig, bone="jaw_ctrl",
          transform="ROT_Y", space='LOCAL_SPACE')  # fmt: skip
    assert generate() == {'FINISHED'}
    np.testing.assert_allclose(shown(speaker, "jawOpen"), wanted["jawOpen"], atol=1e-4)


@pytest.fixture
def overridden(speaker, rig, tmp_path):
    """The character with its rig, of a library, as Object > Library Override > Make has it."""
    drive(speaker, "jawOpen", "var*2", target=rig, bone="jaw_ctrl", transform="LOC_Y")
    drive(speaker, "mouthClose", "sin(var)", target=rig, bone="jaw_ctrl", transform="LOC_Y")
    sound = speaker.ptalker.sound_file
    collection = bpy.data.collections.new("Character")
    bpy.context.scene.collection.children.link(collection)
    for obj in (speaker, rig):
        bpy.context.scene.collection.objects.unlink(obj)
        collection.objects.link(obj)
    speaker.parent = rig
    for choice in ("sound_source", "sound_file", "sound_frame"):
        speaker.ptalker.property_unset(choice)
    library = tmp_path / "library.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(library), check_existing=False)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.collections = ["Character"]
    bpy.data.collections["Character"].override_hierarchy_create(
        bpy.context.scene, bpy.context.view_layer, do_fully_editable=True
    )
    obj = next(o for o in bpy.data.objects if o.name.startswith("Head") and not o.library)
    bpy.context.view_layer.objects.active = obj
    obj.ptalker.sound_source, obj.ptalker.sound_frame = 'FILE', 10
    obj.ptalker.sound_file = sound
    return obj


def test_controls_of_an_override_are_keyed_and_saved(overridden, addon, wanted, tmp_path):
    obj = overridden
    assert generate() == {'FINISHED'}
    rig = obj.parent
    assert rig.override_library is not None
    assert paths_of(addon, rig) == {('pose.bones["jaw_ctrl"].location', 1)}
    for _ in range(2):
        for key in KEYS:
            np.testing.assert_allclose(shown(obj, key), wanted[key], atol=1e-4)
        obj = reopened(addon, obj, tmp_path)
    bpy.context.view_layer.objects.active = obj
    assert bpy.ops.ptalker.restore_drivers() == {'FINISHED'}
    obj = reopened(addon, obj, tmp_path)
    assert not any(c.mute for c in obj.data.shape_keys.animation_data.drivers)


def test_a_control_that_is_only_linked_is_not_keyed(speaker, rig, addon, wanted, tmp_path):
    path = str(tmp_path / "rig.blend")
    bpy.data.libraries.write(path, {rig})
    with bpy.data.libraries.load(path, link=True) as (_, to):
        to.objects = ["Rig"]
    linked = to.objects[0]
    bpy.context.collection.objects.link(linked)
    drive(speaker, "jawOpen", "var", target=linked, bone="jaw_ctrl", transform="LOC_Y")
    assert generate() == {'FINISHED'}
    assert linked.animation_data is None
    np.testing.assert_allclose(shown(speaker, "jawOpen"), wanted["jawOpen"], atol=1e-4)


SIDES = (("LOC_X", 0), ("LOC_Z", 2))


def make_board(obj, names):
    """A board of controls for every key: two keys a control, each 2 cm for a whole key."""
    board = make_armature(*(f"ctrl_{number}" for number in range((len(names) + 1) // 2)))
    for number, name in enumerate(names):
        transform, _ = SIDES[number % 2]
        drive(obj, name, "clamp(var / 0.02)", target=board, bone=f"ctrl_{number // 2}",
              transform=transform, space='LOCAL_SPACE')  # fmt: skip
    return board


@pytest.mark.slow
@pytest.mark.skipif(end_to_end._python() is None, reason="there is no environment for the backend")
@end_to_end.needs_weights
def test_demo_head_speaks_by_a_board_as_by_its_keys(addon, monkeypatch, evaluated):
    monkeypatch.setenv("PTALKER_BACKEND_PYTHON", end_to_end._python())
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    demo = bpy.context.active_object
    demo.ptalker.sound_source = 'FILE'
    demo.ptalker.sound_file = str(end_to_end.ROOT / "backend" / "demo" / "speech.ogg")
    demo.ptalker.listen = 'SOUND'
    assert generate() == {'FINISHED'}
    frames = range(1, 150, 7)
    expected = [evaluated(demo, frame) for frame in frames]
    names = [block.name for block in demo.data.shape_keys.key_blocks[1:]]
    demo.data.shape_keys.animation_data.action = None
    board = make_board(demo, names)
    assert generate() == {'FINISHED'}
    assert demo.data.shape_keys.animation_data.action is None
    assert len(paths_of(addon, board)) == len(names)
    for frame, vertices in zip(frames, expected, strict=True):
        assert np.abs(evaluated(demo, frame) - vertices).max() < 2e-5
    assert max(np.ptp(np.array(expected)[:, :, 2], axis=0)) > 0.004


def test_the_note_of_muted_drivers_has_one_name(addon):
    assert addon.rig_ui.MUTED == addon.rig_drivers.MUTED
