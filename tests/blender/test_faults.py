# SPDX-License-Identifier: GPL-3.0-or-later
"""The first errors that a user meets: one sentence with the remedy, and the scene as before."""

import dataclasses
import os
import sys
import time
from pathlib import Path

import bmesh
import bpy
import pytest


def result():
    state = bpy.context.window_manager.ptalker
    return state.result_kind, state.result_text


def expect_failure(snapshot, *parts):
    """Generate must fail, say all parts, and change nothing."""
    before = snapshot()
    with pytest.raises(RuntimeError) as raised:
        bpy.ops.ptalker.generate('EXEC_DEFAULT')
    text = str(raised.value)
    for part in parts:
        assert part in text, text
    assert "Traceback" not in text
    assert snapshot() == before
    assert not bpy.context.window_manager.ptalker.is_running
    return text


@pytest.fixture
def without_wheels(addon, monkeypatch):
    """As if Blender had unpacked none of the extension's wheels."""
    monkeypatch.delenv("PTALKER_BACKEND_PYTHON", raising=False)
    parts = dataclasses.replace(
        addon.paths.own_engine_parts(),
        wheels=Path(os.devnull),
        expected=("onnxruntime-1.23.2-py3-none-any.whl",),
    )
    monkeypatch.setattr(addon.paths, "own_engine_parts", lambda: parts)
    monkeypatch.setattr(addon.own_engine, "_missing_ground", lambda _parts: "")
    addon.backend_status.refresh()
    yield
    monkeypatch.undo()
    addon.backend_status.refresh()


def test_wheels_are_missing(head, snapshot, without_wheels):
    expect_failure(snapshot, "(onnxruntime)", "Install the zip of PTalker")


def test_button_names_the_one_thing_that_is_missing(
    fake_backend, head, addon, without_wheels, monkeypatch
):
    monkeypatch.setenv("PTALKER_BACKEND_PYTHON", sys.executable)

    def reason():
        return addon.poll_checks.missing(bpy.context)

    assert reason() == ""
    head.ptalker.sound_file = ""
    assert "Choose a sound file" in reason()
    head.ptalker.sound_source = 'STRIP'
    assert "no sound strip" in reason()
    bpy.context.view_layer.objects.active = None
    assert "Select the head" in reason()
    monkeypatch.delenv("PTALKER_BACKEND_PYTHON")
    assert "Install the zip of PTalker" in reason()


def test_python_in_the_environment_does_not_exist(head, addon, monkeypatch):
    monkeypatch.setenv("PTALKER_BACKEND_PYTHON", os.devnull + "-python")
    assert "does not exist" in addon.poll_checks.missing(bpy.context)


def test_no_head_is_selected(fake_backend, snapshot, addon):
    assert addon.poll_checks.missing(bpy.context) == "Select the head to animate."
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    bpy.context.collection.objects.link(camera)
    bpy.context.view_layer.objects.active = camera
    assert "not a mesh" in addon.poll_checks.missing(bpy.context)


def test_head_in_edit_mode(fake_backend, head, addon):
    bpy.ops.object.mode_set(mode='EDIT')
    assert "Leave Edit Mode" in addon.poll_checks.missing(bpy.context)
    bpy.ops.object.mode_set(mode='OBJECT')
    assert addon.poll_checks.missing(bpy.context) == ""


def store_points(addon, obj, vertices, state='HAND'):
    made = addon.face_points.State[state]
    points = {name: addon.face_points.Point(number, made) for name, number in vertices.items()}
    return addon.face_points.store(obj, points)


def subdivide(obj):
    """Enough vertices for all face points."""
    edited = bmesh.new()
    edited.from_mesh(obj.data)
    bmesh.ops.subdivide_edges(edited, edges=edited.edges, cuts=1, use_grid_fill=True)
    edited.to_mesh(obj.data)
    edited.free()
    assert len(obj.data.vertices) > 111


def test_unknown_head_is_told_before_the_click(head, addon, monkeypatch):
    def advice():
        return addon.poll_checks.advice(bpy.context)

    names = addon.face_points.names(addon.paths.backend_root())
    assert 'does not know "Head" (60 vertices)' in advice()
    store_points(addon, head, {names[0]: 0})
    assert advice().startswith(f"1 of {len(names)} face points")
    with monkeypatch.context() as own_model:
        settings = addon.preferences.Settings(checkpoint="my_model")
        own_model.setattr(addon.preferences, "read", lambda _: settings)
        assert advice() == ""
    subdivide(head)
    store_points(addon, head, {name: number for number, name in enumerate(names)})
    assert advice() == ""
    store_points(addon, head, {"chin": 150}, 'DOUBTFUL')
    assert "1 face point is doubtful" in advice()
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    assert advice() == ""


def test_absolute_shape_keys(fake_backend, head, addon):
    head.shape_key_add(name="Basis")
    head.data.shape_keys.use_relative = False
    assert "Relative" in addon.poll_checks.missing(bpy.context)


def test_linked_head(fake_backend, head, addon, tmp_path):
    path = str(tmp_path / "library.blend")
    bpy.data.libraries.write(path, {head})
    with bpy.data.libraries.load(path, link=True) as (_, to):
        to.objects = ["Head"]
    linked = to.objects[0]
    bpy.context.collection.objects.link(linked)
    bpy.context.view_layer.objects.active = linked
    assert "Make it local" in addon.poll_checks.missing(bpy.context)


def test_sound_file_is_missing(fake_backend, head, addon, tmp_path):
    head.ptalker.sound_file = str(tmp_path / "gone.wav")
    assert "does not exist" in addon.poll_checks.missing(bpy.context)


def test_words_were_promised_but_not_given(fake_backend, head, addon):
    head.ptalker.listen = 'TEXT'
    assert "Type the spoken words" in addon.poll_checks.missing(bpy.context)
    head.ptalker.text_block = bpy.data.texts.new("Speech")
    head.ptalker.text_block.write("Hello")
    assert addon.poll_checks.missing(bpy.context) == ""


def test_error_of_the_backend_is_shown_as_it_is(fake_backend, head, snapshot):
    fake_backend("error")
    expect_failure(snapshot, "The sound file is broken. Choose another one.")
    assert result() == ('FAILED', "The sound file is broken. Choose another one.")


@pytest.mark.parametrize("mode", ["crash", "midline"])
def test_backend_dies_in_the_middle_of_a_job(fake_backend, head, snapshot, addon, mode):
    fake_backend(mode)
    expect_failure(snapshot, "stopped unexpectedly", "Try again")
    fake_backend("ok")
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}


def test_backend_dies_before_it_says_hello(fake_backend, head, snapshot):
    fake_backend("nohello")
    expect_failure(snapshot, "stopped unexpectedly", "a fake failure at start")


def test_backend_is_killed_by_the_system(fake_backend, head, snapshot, addon):
    fake_backend("slow")
    job = start(addon)
    before = snapshot()
    poll_until(lambda: job.fraction is not None, job)
    os.kill(addon.backend_job._Warm.process.hello.pid, 9)
    poll_until(lambda: job.outcome is not None, job)
    outcome = addon.job_runner._finish()
    assert outcome.kind == 'FAILED'
    assert "memory ran out" in outcome.text
    assert snapshot() == before


def test_backend_speaks_another_protocol(fake_backend, head, snapshot, addon):
    fake_backend("version")
    other = f"version {addon.protocol.PROTOCOL_VERSION + 1} of the protocol"
    expect_failure(snapshot, other, "Install the PTalker extension again")


def test_backend_never_says_hello(fake_backend, head, snapshot, addon, monkeypatch):
    monkeypatch.setattr(addon.backend_process, "HELLO_SECONDS", 0.5)
    fake_backend("silent")
    expect_failure(snapshot, "did not answer")


@pytest.mark.parametrize(
    ("mode", "part"),
    [
        ("badmotion", "cannot be read"),
        ("nofile", "cannot be read"),
        ("nan", "not finite"),
        ("wrongsize", "shapes has shape (3, 61, 3), expected (3, 60, 3)"),
    ],
)
def test_result_that_cannot_be_used(fake_backend, head, snapshot, mode, part):
    fake_backend(mode)
    expect_failure(snapshot, part)


@pytest.mark.parametrize("mode", ["garbage", "binary", "flood", "twice"])
def test_backend_that_babbles_does_not_matter(fake_backend, head, mode):
    fake_backend(mode)
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}


def build(addon):
    """The job of the button, not started."""
    context = bpy.context
    obj = context.active_object
    inputs = addon.scene_inputs.collect(context, obj, addon.scene_inputs.choices_of(context, obj))
    return addon.lip_sync_job.generate_job(inputs, addon.preferences.read(context))


def start(addon):
    """The job that the button starts, polled by hand instead of by the timer."""
    job = build(addon)
    addon.job_runner._begin(job)
    return job


def poll_until(condition, job, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        job.poll(wait=0.05)
        assert time.monotonic() < deadline


@pytest.mark.parametrize("mode", ["slow", "stubborn", "hang"])
def test_cancel_leaves_the_scene_as_it_was(fake_backend, head, snapshot, addon, mode, monkeypatch):
    monkeypatch.setattr(addon.backend_job, "CANCEL_SECONDS", 0.5)
    fake_backend(mode)
    before = snapshot()
    job = start(addon)
    poll_until(lambda: job.fraction is not None, job)
    assert bpy.ops.ptalker.cancel() == {'FINISHED'}
    poll_until(lambda: job.outcome is not None, job, seconds=3)
    outcome = addon.job_runner._finish()
    assert outcome.kind == 'CANCELLED'
    assert "cancelled" in outcome.text
    assert snapshot() == before
    fake_backend("ok")
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}


def test_second_job_is_refused_while_one_runs(fake_backend, head, addon):
    fake_backend("slow")
    start(addon)
    assert addon.poll_checks.missing(bpy.context) == "A job is running."
    addon.job_runner._abandon()
    assert addon.poll_checks.missing(bpy.context) == ""


def test_job_that_is_only_built_starts_no_backend(fake_backend, head, addon):
    job = build(addon)
    assert addon.backend_job._Warm.process is None
    job.close()
    assert list(addon.paths.jobs_dir().iterdir()) == []


def test_job_that_is_refused_does_no_harm_to_the_running_one(fake_backend, head, addon):
    fake_backend("slow", "--seconds", "1")
    job = start(addon)
    with pytest.raises(addon.protocol.UserError, match="Another job of PTalker is running"):
        addon.job_runner.start(build(addon))
    poll_until(lambda: job.outcome is not None, job)
    assert addon.job_runner._finish().kind == 'DONE'
    assert list(addon.paths.jobs_dir().iterdir()) == []


def test_job_that_cannot_be_started_leaves_no_files(fake_backend, head, addon, monkeypatch):
    monkeypatch.setattr(addon.paths, "backend_command", lambda _: [os.devnull + "-python"])
    with pytest.raises(RuntimeError, match="cannot be started"):
        bpy.ops.ptalker.generate('EXEC_DEFAULT')
    assert not addon.job_runner.is_running()
    assert list(addon.paths.jobs_dir().iterdir()) == []


def test_loading_a_file_ends_the_job(fake_backend, head, addon):
    fake_backend("slow")
    job = start(addon)
    poll_until(lambda: job.fraction is not None, job)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert not addon.job_runner.is_running()
    assert job.outcome.kind == 'CANCELLED'
    assert not bpy.context.window_manager.ptalker.is_running


def test_file_saved_in_the_middle_of_a_job_opens_at_rest(fake_backend, head, addon, tmp_path):
    fake_backend("slow")
    job = start(addon)
    poll_until(lambda: job.fraction is not None, job)
    path = str(tmp_path / "saved.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    addon.job_runner._abandon()
    bpy.ops.wm.open_mainfile(filepath=path)
    assert not bpy.context.window_manager.ptalker.is_running


def test_head_deleted_during_the_job(fake_backend, head, addon):
    job = start(addon)
    bpy.data.objects.remove(head)
    poll_until(lambda: job.outcome is not None, job)
    assert addon.job_runner._finish().text.startswith('The head "Head" was deleted')


def test_head_renamed_during_the_job_is_found(fake_backend, head, addon):
    job = start(addon)
    head.name = "Renamed"
    poll_until(lambda: job.outcome is not None, job)
    assert addon.job_runner._finish().kind == 'DONE'


@pytest.mark.parametrize("mode", ['EDIT', 'SCULPT', 'WEIGHT_PAINT'])
def test_result_waits_until_the_mode_is_left(fake_backend, head, addon, mode):
    job = start(addon)
    bpy.ops.object.mode_set(mode=mode)
    poll_until_stage(job, "Done. Leave ")
    assert head.data.shape_keys is None
    job.poll()
    assert job.outcome is None
    bpy.ops.object.mode_set(mode='OBJECT')
    job.poll()
    assert addon.job_runner._finish().kind == 'DONE'
    assert len(head.data.shape_keys.key_blocks) == 4


def test_result_waits_while_another_object_is_edited(fake_backend, head, addon):
    job = start(addon)
    other = bpy.data.objects.new("Other", head.data.copy())
    bpy.context.collection.objects.link(other)
    bpy.context.view_layer.objects.active = other
    bpy.ops.object.mode_set(mode='EDIT')
    poll_until_stage(job, "Done. Leave Edit Mode")
    bpy.ops.object.mode_set(mode='OBJECT')
    job.poll()
    assert addon.job_runner._finish().kind == 'DONE'


def test_result_that_waits_can_be_cancelled_and_keeps_the_backend(
    fake_backend, head, addon, snapshot
):
    before = snapshot()
    job = start(addon)
    bpy.ops.object.mode_set(mode='EDIT')
    poll_until_stage(job, "Done. Leave ")
    backend = addon.backend_job._Warm.process
    job.cancel()
    assert addon.job_runner._finish().kind == 'CANCELLED'
    assert addon.backend_job._Warm.process is backend
    assert backend.is_running
    bpy.ops.object.mode_set(mode='OBJECT')
    assert snapshot() == before


def poll_until_stage(job, text, seconds=10):
    deadline = time.monotonic() + seconds
    while not job.stage.startswith(text):
        job.poll()
        time.sleep(0.01)
        assert job.outcome is None
        assert time.monotonic() < deadline


def test_head_changed_during_the_job(fake_backend, head, addon):
    job = start(addon)
    head.data.vertices.add(1)
    poll_until(lambda: job.outcome is not None, job)
    outcome = addon.job_runner._finish()
    assert outcome.kind == 'FAILED'
    assert "61 vertices now" in outcome.text


def test_failure_while_writing_takes_everything_back(
    fake_backend, head, addon, snapshot, monkeypatch
):
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    other = bpy.data.objects.new("Other", head.data)  # so that the mesh is copied as well
    bpy.context.collection.objects.link(other)
    before = snapshot()
    calls = []

    def fail(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise addon.protocol.UserError("The disk is full.")
        return replace_keys(*args, **options)

    replace_keys = addon.speech_action._replace_keys
    monkeypatch.setattr(addon.speech_action, "_replace_keys", fail)
    expect_failure(snapshot, "The disk is full.")
    assert snapshot() == before


def test_failure_on_a_head_without_keys_leaves_none(
    fake_backend, head, addon, snapshot, monkeypatch
):
    def fail(*_args, **_options):
        raise addon.protocol.UserError("The disk is full.")

    monkeypatch.setattr(addon.speech_action, "_replace_keys", fail)
    expect_failure(snapshot, "The disk is full.")
    assert head.data.shape_keys is None


def test_exemplar_that_does_not_move(fake_backend, head, addon, snapshot):
    other = bpy.data.objects.new("Other", head.data.copy())
    bpy.context.collection.objects.link(other)
    head.ptalker.style_source = 'EXEMPLAR'
    assert "Choose an animated head" in addon.poll_checks.missing(bpy.context)
    head.ptalker.exemplar = other
    expect_failure(snapshot, "does not move")


def test_saved_style_is_gone(fake_backend, head, snapshot):
    head.ptalker.style_source = 'SAVED'
    head.ptalker.saved_style = "Gone"
    expect_failure(snapshot, 'no saved style "Gone"')


def test_existing_keys_are_wanted_but_there_are_none(fake_backend, head, snapshot):
    head.ptalker.key_target = 'EXISTING'
    expect_failure(snapshot, "no ARKit, viseme or FLAME shape keys", "Set Shape Keys to New")


def test_leftovers_that_cannot_be_looked_at_do_not_hinder(fake_backend, head, addon):
    jobs = addon.paths.jobs_dir()
    jobs.mkdir(parents=True, exist_ok=True)
    (jobs / "dangling").symlink_to(jobs / "nowhere")
    old = jobs / "old"
    old.mkdir()
    os.utime(old, (0, 0))
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    assert not old.exists()
    (jobs / "dangling").unlink(missing_ok=True)


def test_texts_that_no_encoding_has_are_shown(addon):
    outcome = addon.backend_job.Outcome('FAILED', "a\udcff", ("b\ud800",), words="c\udfff")
    addon.job_runner._show_outcome(outcome)
    state = bpy.context.window_manager.ptalker
    assert (state.result_text, state.warnings[0].text, state.words) == ("a?", "b?", "c?")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"code": [1e999]}', '{"code": [1], "format_version": 1e999}',
             '{"code": [1' + "0" * 400 + "]}", "[]", '{"format": "ptalker-style", "code": []}'],
)  # fmt: skip
def test_styles_that_are_none_are_refused(addon, tmp_path, text):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(addon.protocol.UserError, match=r"odd\.json is not a style of PTalker"):
        addon.style_library.load(path)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "styles.json").write_text(text)
    assert isinstance(addon.paths.model_style_names(str(folder)), list)


def test_a_mesh_that_was_changed_in_mid_run_is_told(fake_backend, head, addon):
    job = start(addon)
    head.data.vertices[0].co.x += 0.5
    poll_until(lambda: job.outcome is not None, job)
    outcome = addon.job_runner._finish()
    assert any("changed in the meantime" in text for text in outcome.warnings)
