# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator with a fake backend: what it writes, and that it can be repeated."""

import bpy
import numpy as np
import pytest


def curves_of(obj, addon):
    return {c.data_path: c for c in addon.fcurves_of(obj.data.shape_keys)}


def generate():
    return bpy.ops.ptalker.generate('EXEC_DEFAULT')


def test_generate_keys_every_frame_of_the_sound(fake_backend, head, addon):
    assert generate() == {'FINISHED'}
    names = [block.name for block in head.data.shape_keys.key_blocks]
    assert names == ["Basis", "jawOpen", "mouthClose", "mouthFunnel"]
    curves = curves_of(head, addon)
    assert set(curves) == {f'key_blocks["{name}"].value' for name in names[1:]}
    for curve in curves.values():
        frames = [point.co.x for point in curve.keyframe_points]
        spoken = list(range(10, 10 + 48))  # 2 s at 24 frames a second
        assert frames == [5, *spoken, 62]  # at rest 0.2 s before and after
        assert curve.keyframe_points[0].co.y == curve.keyframe_points[-1].co.y == 0
        assert {point.interpolation for point in curve.keyframe_points} == {'LINEAR'}


def test_evaluated_vertices_are_template_plus_weights_times_shapes(
    fake_backend, head, addon, evaluated, monkeypatch
):
    seen = []
    load = addon.motion.load
    monkeypatch.setattr(
        addon.motion, "load", lambda *args, **kw: seen.append(load(*args, **kw)) or seen[0]
    )
    generate()
    for row in (0, 7, 20, 47):
        expected = seen[0].template + np.tensordot(seen[0].weights[row], seen[0].shapes, 1)
        np.testing.assert_allclose(evaluated(head, 10 + row), expected, atol=1e-6)


def test_result_shows_at_once_on_the_current_frame(fake_backend, head, addon):
    bpy.context.scene.frame_set(13)
    generate()
    bpy.context.view_layer.update()
    shown = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    co = np.empty((len(shown.vertices), 3), np.float32)
    shown.vertices.foreach_get("co", co.ravel())
    assert np.abs(co - addon.head_mesh.neutral_vertices(head)).max() > 1e-3
    assert bpy.context.scene.frame_current == 13


def test_action_is_named_after_the_sound_and_result_is_reported(fake_backend, head):
    generate()
    assert head.data.shape_keys.animation_data.action.name == "tone"
    state = bpy.context.window_manager.ptalker
    assert state.result_kind == 'DONE'
    assert "3 shape keys" in state.result_text
    assert "frame 10 to 57" in state.result_text
    assert not state.is_running


def test_result_that_was_taken_back_is_not_told_of(fake_backend, head, addon):
    assert not addon.job_runner.has_result()
    generate()
    assert addon.job_runner.has_result()
    bpy.data.actions.new("tone")  # another one
    assert addon.job_runner.has_result()
    bpy.data.actions.remove(head.data.shape_keys.animation_data.action)  # as undo does
    assert not addon.job_runner.has_result()
    assert bpy.context.window_manager.ptalker.result_kind == 'DONE'


def test_failure_is_told_of_until_the_next_run(fake_backend, head, addon):
    fake_backend("error")
    with pytest.raises(RuntimeError):
        generate()
    assert addon.job_runner.has_result()


def test_second_run_reuses_the_keys_and_keeps_the_first_action(fake_backend, head, addon):
    generate()
    first = head.data.shape_keys.animation_data.action
    first_curve = next(iter(curves_of(head, addon).values()))
    first_curve.keyframe_points[0].co.y = 0.123
    generate()
    assert len(head.data.shape_keys.key_blocks) == 4
    assert head.data.shape_keys.animation_data.action != first
    assert first.use_fake_user
    assert first_curve.keyframe_points[0].co.y == pytest.approx(0.123)
    assert len(bpy.data.actions) == 2


def test_shape_that_the_artist_edited_is_kept(fake_backend, head):
    generate()
    block = head.data.shape_keys.key_blocks["jawOpen"]
    block.points[3].co.x += 0.01
    edited = block.points[3].co.x
    generate()
    assert block.points[3].co.x == edited
    warnings = [w.text for w in bpy.context.window_manager.ptalker.warnings]
    assert any("jawOpen" in text and "kept" in text for text in warnings)


def test_shapes_follow_a_head_that_was_reshaped(fake_backend, head, addon, evaluated):
    generate()
    for block in head.data.shape_keys.key_blocks:  # as edit mode does it on the basis
        for point in block.points:
            point.co *= 2.0
    generate()
    offsets = addon.shape_keys.read_offsets(head, ["jawOpen"])[0]
    assert np.abs(offsets).max() == pytest.approx(0.1 * 0.5, rel=1e-4)  # a tenth of the height


def test_key_of_the_artist_with_the_same_name_is_left_alone(fake_backend, head):
    head.shape_key_add(name="Basis", from_mix=False)
    own = head.shape_key_add(name="jawOpen", from_mix=False)
    own.points[0].co.z += 0.5
    place = own.points[0].co.z
    head.ptalker.key_target = 'NEW'
    generate()
    names = [block.name for block in head.data.shape_keys.key_blocks]
    assert names == ["Basis", "jawOpen", "jawOpen.001", "mouthClose", "mouthFunnel"]
    assert own.points[0].co.z == place
    generate()
    assert [block.name for block in head.data.shape_keys.key_blocks] == names


def test_existing_keys_with_the_motions_names_are_driven(fake_backend, head, addon):
    head.shape_key_add(name="Basis", from_mix=False)
    for name in ("jawOpen", "mouthClose", "mouthFunnel", "brow"):
        head.shape_key_add(name=name, from_mix=False).value = 0.0
    generate()
    assert len(head.data.shape_keys.key_blocks) == 5
    assert len(curves_of(head, addon)) == 3
    assert "miss the motion" in bpy.context.window_manager.ptalker.result_text


def test_mesh_of_two_objects_is_made_single_user(fake_backend, head):
    other = bpy.data.objects.new("Other", head.data)
    bpy.context.collection.objects.link(other)
    generate()
    assert other.data != head.data
    assert other.data.shape_keys is None
    assert any("Other" in w.text for w in bpy.context.window_manager.ptalker.warnings)


def test_rest_value_is_zero_and_range_fits(fake_backend, head, addon):
    generate()
    head.data.shape_keys.animation_data.action = None
    for block in head.data.shape_keys.key_blocks[1:]:
        assert block.slider_min <= 0 <= 1 <= block.slider_max
    state = [block.value for block in head.data.shape_keys.key_blocks[1:]]
    assert len(state) == 3


def test_frame_times_are_exact_at_23976(fake_backend, head, addon):
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = 24, 1.001
    generate()
    curve = next(iter(curves_of(head, addon).values()))
    assert len(curve.keyframe_points) == 1 + 48 + 1
    assert curve.keyframe_points[1].co.x == 10


def test_warnings_of_the_backend_are_shown(fake_backend, head):
    fake_backend("warning")
    generate()
    texts = [w.text for w in bpy.context.window_manager.ptalker.warnings]
    assert texts[:2] == ["The sound is quiet.", "The first 0.5 s are silent."]
    assert texts.count("The sound is quiet.") == 1


def test_job_folder_is_deleted(fake_backend, head, addon):
    generate()
    assert list(addon.paths.jobs_dir().iterdir()) == []


def test_backend_stays_warm_between_runs(fake_backend, head, addon):
    generate()
    first = addon.backend_job._Warm.process
    generate()
    assert addon.backend_job._Warm.process is first
    assert first.is_running


def test_enable_after_disable_works(fake_backend, head):
    import addon_utils

    addon_utils.disable("bl_ext.user_default.ptalker")
    assert not hasattr(bpy.types.Object, "ptalker")
    assert addon_utils.enable("bl_ext.user_default.ptalker") is not None
    assert hasattr(bpy.types, "PTALKER_OT_generate")


def test_disabling_ends_the_backend(fake_backend, head, addon):
    import addon_utils

    generate()
    process = addon.backend_job._Warm.process
    addon_utils.disable("bl_ext.user_default.ptalker")
    assert not process.is_running
    addon_utils.enable("bl_ext.user_default.ptalker")


def test_heard_words_become_the_given_ones(fake_backend, head, addon):
    generate()
    assert not bpy.ops.ptalker.use_words.poll()
    fake_backend("words")
    generate()
    state = bpy.context.window_manager.ptalker
    assert state.words == "my face is maid of formulas"
    assert bpy.ops.ptalker.use_words() == {'FINISHED'}
    assert (head.ptalker.listen, head.ptalker.text) == ('TEXT', state.words)
    state.words = "many words " * 20
    assert bpy.ops.ptalker.use_words() == {'FINISHED'}
    assert head.ptalker.text_block.as_string().split() == state.words.split()
    bpy.data.objects.remove(head)
    with pytest.raises(RuntimeError, match="deleted"):
        bpy.ops.ptalker.use_words()
