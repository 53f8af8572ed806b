# SPDX-License-Identifier: GPL-3.0-or-later
"""Characters that have shape keys for speech: those are driven by name, whatever the mesh is."""

import bpy
import numpy as np
import pytest

from tests.blender import test_end_to_end as end_to_end
from tests.blender.test_faults import store_points, subdivide

VOWELS = [f"Fcl_MTH_{vowel}" for vowel in "AIUEO"]


def generate():
    return bpy.ops.ptalker.generate('EXEC_DEFAULT')


def give_keys(obj, names):
    """Keys as a rigger leaves them; each moves one vertex."""
    obj.shape_key_add(name="Basis", from_mix=False)
    for number, name in enumerate(names):
        block = obj.shape_key_add(name=name, from_mix=False)
        block.points[number % len(block.points)].co.z += 0.1
        block.value = 0.0


def curves_of(obj, addon):
    """Key name -> its keyed values during the speech."""
    found = {}
    for curve in addon.fcurves_of(obj.data.shape_keys):
        values = [point.co.y for point in curve.keyframe_points]
        found[curve.data_path.split('"')[1]] = np.array(values[1:-1])
    return found


@pytest.fixture
def motions(addon, monkeypatch):
    """Every motion that the add-on loads."""
    seen = []
    load = addon.motion.load

    def spy(*args, **kwargs):
        seen.append(load(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(addon.motion, "load", spy)
    return seen


@pytest.fixture
def cube(head):
    """A mesh that is no head at all; it speaks what the head would."""
    mesh = bpy.data.meshes.new("Cube")
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    mesh.from_pydata(corners, [], faces)
    head.data = mesh
    head.name = "Cube"
    return head


@pytest.fixture
def arkit_names(addon):
    return addon.rig_names.ARKIT_NAMES


def num_demo_vertices(addon):
    path = addon.rig_target.demo_head_file(addon.paths.backend_root())
    with np.load(path) as data:
        return len(data["vertices"])


@pytest.mark.parametrize("prefix", ["", "blendShape1.", "CTRL_expressions_"])
@pytest.mark.parametrize("key_target", ['AUTO', 'EXISTING'])
def test_a_cube_with_the_arkit_keys_speaks(
    fake_backend, cube, addon, arkit_names, motions, prefix, key_target
):
    give_keys(cube, [prefix + name for name in arkit_names])
    cube.ptalker.key_target = key_target
    assert generate() == {'FINISHED'}
    assert len(cube.data.shape_keys.key_blocks) == 53
    assert motions[0].shapes.shape[1] == num_demo_vertices(addon)
    curves = curves_of(cube, addon)
    for name, expected in zip(motions[0].names, motions[0].weights.T, strict=True):
        np.testing.assert_allclose(curves[prefix + name], expected, atol=1e-6)
    assert "demo head" in bpy.context.window_manager.ptalker.result_text


def test_five_vowels_of_an_unknown_head_suffice(fake_backend, cube, addon):
    give_keys(cube, VOWELS)
    assert generate() == {'FINISHED'}
    assert [block.name for block in cube.data.shape_keys.key_blocks[1:]] == VOWELS
    curves = curves_of(cube, addon)
    assert set(curves) == set(VOWELS)
    assert max(curve.max() for curve in curves.values()) > 0.3


def test_new_keys_are_made_on_the_head_itself(fake_backend, head, addon, arkit_names, motions):
    give_keys(head, arkit_names)
    head.ptalker.key_target = 'NEW'
    assert generate() == {'FINISHED'}
    assert motions[0].shapes.shape[1] == len(head.data.vertices)


def mark_all(obj, addon):
    subdivide(obj)
    names = addon.face_points.names(addon.paths.backend_root())
    store_points(addon, obj, {name: number for number, name in enumerate(names)})


def test_visemes_of_a_head_whose_points_are_marked_are_fitted_on_it(
    fake_backend, head, addon, motions
):
    mark_all(head, addon)
    give_keys(head, VOWELS)
    assert generate() == {'FINISHED'}
    assert motions[0].shapes.shape[1] == len(head.data.vertices)


def test_marked_points_that_the_backend_would_refuse_do_not_hinder_arkit_keys(
    fake_backend, head, addon, arkit_names, motions
):
    mark_all(head, addon)  # this head has no mouth
    give_keys(head, arkit_names)
    assert generate() == {'FINISHED'}
    assert motions[0].shapes.shape[1] == num_demo_vertices(addon)


def test_arkit_keys_of_a_shipped_topology_keep_their_own_lips(addon, arkit_names):
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    demo = bpy.context.active_object
    give_keys(demo, arkit_names)
    assert not addon.rig_target.goes_by_name(
        demo,
        key_target='AUTO',
        topology="auto",
        checkpoint="base",
        backend_root=addon.paths.backend_root(),
    )


def test_a_head_of_a_named_topology_keeps_its_own_lips(addon, cube, arkit_names):
    give_keys(cube, arkit_names)
    asked = {"key_target": 'AUTO', "checkpoint": "base", "backend_root": addon.paths.backend_root()}
    assert addon.rig_target.goes_by_name(cube, topology="auto", **asked)
    assert not addon.rig_target.goes_by_name(cube, topology="flame", **asked)


def test_a_model_with_shapes_of_its_own_needs_its_own_head(addon, cube, arkit_names, tmp_path):
    give_keys(cube, arkit_names)
    (tmp_path / "config.json").write_text('{"model": {"shape_kind": "learned"}}')
    assert not addon.rig_target.goes_by_name(
        cube,
        key_target='AUTO',
        topology="auto",
        checkpoint=str(tmp_path),
        backend_root=addon.paths.backend_root(),
    )


def test_panel_says_which_keys_are_driven(fake_backend, cube, addon, arkit_names):
    assert "looks for its face" in addon.poll_checks.advice(bpy.context)
    give_keys(cube, [n for n in arkit_names if n not in ("tongueOut", "cheekPuff")])
    text = addon.poll_checks.advice(bpy.context)
    assert text == "50 of 52 ARKit shape keys are driven; not found: cheekPuff, tongueOut."
    cube.ptalker.key_target = 'NEW'
    assert "looks for its face" in addon.poll_checks.advice(bpy.context)


def test_existing_keys_that_are_not_there_are_missed_before_the_run(fake_backend, cube, addon):
    cube.ptalker.key_target = 'EXISTING'
    assert "Set Shape Keys to New" in addon.poll_checks.missing(bpy.context)
    assert not bpy.ops.ptalker.generate.poll()


def test_keys_that_are_gone_when_the_motion_comes_change_nothing(
    fake_backend, cube, addon, arkit_names, monkeypatch, snapshot
):
    give_keys(cube, arkit_names)
    load = addon.motion.load

    def load_late(*args, **kwargs):
        for block in cube.data.shape_keys.key_blocks[1:]:
            block.name = f"other {block.name} key"
        late.append(snapshot())
        return load(*args, **kwargs)

    late = []
    monkeypatch.setattr(addon.motion, "load", load_late)
    with pytest.raises(RuntimeError, match="no shape keys that this motion can drive"):
        generate()
    assert snapshot() == late[0]


@pytest.fixture
def overridden(head, arkit_names, tmp_path):
    """A character of a library, overridden with its mesh; call it with the names of its keys.

    Nobody has chosen anything in the library itself.
    """

    def make(names, *, with_mesh=True):
        if names:
            give_keys(head, names)
        sound = head.ptalker.sound_file
        for choice in ("sound_source", "sound_file", "sound_frame"):
            head.ptalker.property_unset(choice)
        library = tmp_path / "library.blend"
        bpy.ops.wm.save_as_mainfile(filepath=str(library), check_existing=False)
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
        with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
            wanted.objects = ["Head"]
        obj = bpy.data.objects["Head"].override_create(remap_local_usages=True)
        if with_mesh:
            obj.data = obj.data.override_create(remap_local_usages=True)
        bpy.context.collection.objects.link(obj)
        bpy.context.view_layer.objects.active = obj
        obj.ptalker.sound_source = 'FILE'
        obj.ptalker.sound_file = sound
        obj.ptalker.sound_frame = 10
        return obj

    return make


@pytest.mark.parametrize("key_target", ['AUTO', 'EXISTING'])
def test_keys_of_an_override_are_animated_and_saved(
    fake_backend, overridden, addon, arkit_names, tmp_path, key_target
):
    obj = overridden(arkit_names)
    obj.ptalker.key_target = key_target
    assert generate() == {'FINISHED'}
    assert obj.data.override_library is not None
    before = curves_of(obj, addon)["jawOpen"]
    path = tmp_path / "scene.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path), check_existing=False)
    bpy.ops.wm.open_mainfile(filepath=str(path))
    obj = bpy.context.view_layer.objects.active
    np.testing.assert_array_equal(curves_of(obj, addon)["jawOpen"], before)
    bpy.context.scene.frame_set(10 + int(before.argmax()))
    shown = obj.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.shape_keys
    assert shown.key_blocks["jawOpen"].value == pytest.approx(before.max())
    assert obj.ptalker.sound_frame == 10
    assert obj.ptalker.key_target == key_target


def test_ranges_that_an_override_cannot_keep_are_said(
    fake_backend, overridden, addon, arkit_names, monkeypatch
):
    overridden(arkit_names)
    load = addon.motion.load

    def load_wide(*args, **kwargs):
        found = load(*args, **kwargs)
        found.weights[:] *= 1.5
        return found

    monkeypatch.setattr(addon.motion, "load", load_wide)
    assert generate() == {'FINISHED'}
    warnings = [w.text for w in bpy.context.window_manager.ptalker.warnings]
    assert any("Widen the range in the library" in text for text in warnings)


def test_new_keys_of_an_override_are_refused_with_the_remedy(overridden, addon, arkit_names):
    obj = overridden(arkit_names)
    obj.ptalker.key_target = 'NEW'
    assert "Set Shape Keys to Existing" in addon.scene_inputs.head_problem(obj)


def test_an_override_without_keys_is_refused(overridden, addon):
    obj = overridden(["Fat"])
    assert "has no shape keys for speech" in addon.scene_inputs.head_problem(obj)


def test_keys_of_a_linked_mesh_are_animated_and_saved(
    fake_backend, overridden, addon, arkit_names, tmp_path
):
    obj = overridden(arkit_names, with_mesh=False)
    assert obj.data.library is not None
    assert "will be overridden" in " ".join(addon.poll_checks.notes(bpy.context))
    assert generate() == {'FINISHED'}
    assert obj.data.override_library is not None
    before = curves_of(obj, addon)["jawOpen"]
    path = tmp_path / "scene.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path), check_existing=False)
    bpy.ops.wm.open_mainfile(filepath=str(path))
    obj = bpy.context.view_layer.objects.active
    np.testing.assert_array_equal(curves_of(obj, addon)["jawOpen"], before)
    bpy.context.scene.frame_set(10 + int(before.argmax()))
    shown = obj.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.shape_keys
    assert shown.key_blocks["jawOpen"].value == pytest.approx(before.max())


def test_new_keys_of_a_linked_mesh_are_refused_with_the_remedy(overridden, addon, arkit_names):
    obj = overridden(arkit_names, with_mesh=False)
    obj.ptalker.key_target = 'NEW'
    assert "Set Shape Keys to Existing" in addon.scene_inputs.head_problem(obj)


def test_a_linked_mesh_without_keys_is_refused(overridden, addon):
    obj = overridden(["Fat"], with_mesh=False)
    assert "Make it local" in addon.scene_inputs.head_problem(obj)


def test_failure_after_the_override_takes_it_back(
    fake_backend, overridden, addon, arkit_names, monkeypatch, snapshot
):
    obj = overridden(arkit_names, with_mesh=False)
    before = snapshot()

    def fail(*_args, **_options):
        raise addon.protocol.UserError("The disk is full.")

    monkeypatch.setattr(addon.speech_action, "_store_lines", fail)
    with pytest.raises(RuntimeError, match="The disk is full"):
        generate()
    assert obj.data.library is not None
    assert snapshot() == before


@pytest.mark.slow
@pytest.mark.skipif(end_to_end._python() is None, reason="there is no environment for the backend")
@end_to_end.needs_weights
def test_a_cube_speaks_as_the_demo_head_does(cube, addon, arkit_names, monkeypatch, motions):
    monkeypatch.setenv("PTALKER_BACKEND_PYTHON", end_to_end._python())
    speech = end_to_end.ROOT / "backend" / "demo" / "speech.ogg"
    cube.ptalker.sound_file = str(speech)
    cube.ptalker.listen = 'SOUND'
    give_keys(cube, [f"Head_{name}" for name in arkit_names])
    assert generate() == {'FINISHED'}
    by_name = motions[-1]
    curves = curves_of(cube, addon)
    assert curves["Head_jawOpen"].max() > 0.1
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    demo = bpy.context.active_object
    demo.ptalker.sound_source, demo.ptalker.sound_frame = 'FILE', 10
    demo.ptalker.sound_file = str(speech)
    demo.ptalker.listen = 'SOUND'
    assert generate() == {'FINISHED'}
    np.testing.assert_array_equal(motions[-1].weights, by_name.weights)
    for name, values in curves_of(demo, addon).items():
        np.testing.assert_allclose(curves[f"Head_{name}"], values, atol=1e-6)


def test_table_is_filled_by_the_names_and_gains_of_its_rows_count(
    fake_backend, cube, addon, arkit_names, motions
):
    give_keys(cube, [*arkit_names, "Fat"])
    assert bpy.ops.ptalker.fill_key_map() == {'FINISHED'}
    rows = cube.ptalker_key_rows
    assert [(row.name, row.source) for row in rows[:52]] == [(n, n) for n in arkit_names]
    assert (rows["Fat"].source, rows["Fat"].gain) == ("", 1.0)
    rows["jawOpen"].gain = 0.5
    rows["mouthClose"].source = ""
    rows["Fat"].source = "mouthFunnel"
    assert generate() == {'FINISHED'}
    curves = curves_of(cube, addon)
    weights = dict(zip(motions[0].names, motions[0].weights.T, strict=True))
    np.testing.assert_allclose(curves["jawOpen"], 0.5 * weights["jawOpen"], atol=1e-6)
    np.testing.assert_allclose(curves["Fat"], weights["mouthFunnel"], atol=1e-6)
    assert "mouthClose" not in curves
    assert "not found: mouthClose" in addon.poll_checks.advice(bpy.context)


def test_keys_of_unknown_names_are_driven_by_a_table(fake_backend, cube, addon, motions):
    give_keys(cube, ["Kiefer", "Kuss"])
    cube.ptalker.key_target = 'EXISTING'
    assert "Set Shape Keys to New" in addon.poll_checks.missing(bpy.context)
    bpy.ops.ptalker.fill_key_map()
    assert "drives no shape key" in addon.poll_checks.missing(bpy.context)
    cube.ptalker_key_rows["Kiefer"].source = "jawOpen"
    assert generate() == {'FINISHED'}
    assert set(curves_of(cube, addon)) == {"Kiefer"}
    bpy.ops.ptalker.clear_key_map()
    assert "Set Shape Keys to New" in addon.poll_checks.missing(bpy.context)


def test_rows_are_added_and_removed(fake_backend, cube):
    give_keys(cube, ["Smile", "Open"])
    bpy.ops.ptalker.fill_key_map()
    rows = cube.ptalker_key_rows
    cube.ptalker_active_key_row = 0
    bpy.ops.ptalker.add_key_row()
    assert [row.name for row in rows] == ["Smile", "Smile", "Open"]
    assert cube.ptalker_active_key_row == 1
    bpy.ops.ptalker.remove_key_row()
    assert [row.name for row in rows] == ["Smile", "Open"]
    for _ in range(2):
        bpy.ops.ptalker.remove_key_row()
    assert not bpy.ops.ptalker.remove_key_row.poll()


def test_table_goes_through_a_file_to_another_character(fake_backend, cube, addon, tmp_path):
    give_keys(cube, ["Kiefer", "Kuss"])
    bpy.ops.ptalker.fill_key_map()
    cube.ptalker_key_rows["Kiefer"].source = "jawOpen"
    cube.ptalker_key_rows["Kiefer"].gain = 0.7
    path = tmp_path / "rig"
    assert bpy.ops.ptalker.save_key_map(filepath=str(path)) == {'FINISHED'}
    bpy.ops.ptalker.clear_key_map()
    assert bpy.ops.ptalker.load_key_map(filepath=f"{path}.json") == {'FINISHED'}
    assert [(row.name, row.source) for row in cube.ptalker_key_rows] == [("Kiefer", "jawOpen")]
    assert cube.ptalker_key_rows[0].gain == pytest.approx(0.7)
    with pytest.raises(RuntimeError, match="cannot be read"):
        bpy.ops.ptalker.load_key_map(filepath=str(tmp_path / "none.json"))
    assert len(cube.ptalker_key_rows) == 1


def test_table_of_an_override_is_saved(overridden, arkit_names, tmp_path):
    obj = overridden(arkit_names)
    bpy.ops.ptalker.fill_key_map()
    obj.ptalker_key_rows["jawOpen"].gain = 0.5
    path = tmp_path / "scene.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path), check_existing=False)
    bpy.ops.wm.open_mainfile(filepath=str(path))
    rows = bpy.context.view_layer.objects.active.ptalker_key_rows
    assert len(rows) == 52
    assert rows["jawOpen"].gain == pytest.approx(0.5)


class Drawn:
    """Stands in for a layout: notes what was drawn, and takes the arguments only that exist."""

    def __init__(self, notes):
        self.notes = notes

    def __getattr__(self, name):
        function = bpy.types.UILayout.bl_rna.functions[name]

        def draw(*args, **kwargs):
            known = {p.identifier: p for p in function.parameters}
            assert kwargs.keys() <= known.keys()
            if "icon" in kwargs:
                assert kwargs["icon"] in known["icon"].enum_items
            if name == "operator":
                bpy.ops.ptalker.__getattr__(args[0].removeprefix("ptalker.")).get_rna_type()
            self.notes.append((name, *args))
            return Drawn(self.notes)

        return draw


def test_the_table_is_drawn(fake_backend, cube, addon):
    def draw():
        assert bpy.types.PTALKER_PT_key_map.poll(bpy.context)
        notes = []
        panel = type("Panel", (), {"layout": Drawn(notes)})
        addon.key_map_ui.PTALKER_PT_key_map.draw(panel, bpy.context)
        for row in cube.ptalker_key_rows:
            addon.key_map_ui.PTALKER_UL_key_map.draw_item(
                None, bpy.context, Drawn(notes), cube, row, 0, None, "", 0, 0
            )
        return notes

    give_keys(cube, ["Kiefer"])
    assert ("operator", "ptalker.fill_key_map") in draw()
    bpy.ops.ptalker.fill_key_map()
    row = cube.ptalker_key_rows[0]
    assert ("prop", row, "gain") in draw()
    cube.ptalker.key_target = 'NEW'
    assert not bpy.types.PTALKER_PT_key_map.poll(bpy.context)
