# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading an exemplar: in slices of time, with progress, and without a trace in the scene."""

import time

import bpy
import numpy as np
import pytest

FRAMES = 60


@pytest.fixture
def exemplar(fake_backend, head, addon):
    """A head that speaks from frame 10 to 57, chosen as the exemplar of another one."""
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    speaker = bpy.data.objects.new("Speaker", head.data.copy())
    speaker.data.shape_keys.animation_data_clear()
    speaker.shape_key_clear()
    bpy.context.collection.objects.link(speaker)
    bpy.context.view_layer.objects.active = speaker
    for name in ("sound_source", "sound_file", "sound_frame"):
        setattr(speaker.ptalker, name, getattr(head.ptalker, name))
    speaker.ptalker.style_source = 'EXEMPLAR'
    speaker.ptalker.exemplar = head
    bpy.context.scene.frame_end = FRAMES
    bpy.context.scene.frame_set(7, subframe=0.25)
    return head


@pytest.fixture
def short_slices(addon, monkeypatch):
    """One frame is read in each poll."""
    for name in ("SLICE_SECONDS", "BACKGROUND_SLICE_SECONDS"):
        monkeypatch.setattr(addon.exemplar_reader, name, 0.0)


@pytest.fixture
def written(addon, monkeypatch):
    """The exemplars that are written for the backend."""
    found = []
    write = addon.lip_sync_job.write_exemplar
    monkeypatch.setattr(
        addon.lip_sync_job,
        "write_exemplar",
        lambda path, exemplar: found.append(exemplar) or write(path, exemplar),
    )
    return found


def start(addon):
    context = bpy.context
    obj = context.active_object
    inputs = addon.scene_inputs.collect(context, obj, addon.scene_inputs.choices_of(context, obj))
    job = addon.lip_sync_job.generate_job(inputs, addon.preferences.read(context))
    addon.job_runner._begin(job)
    return job


def finish(addon, job, seconds=10):
    deadline = time.monotonic() + seconds
    while job.outcome is None:
        job.poll(wait=0.05)
        assert time.monotonic() < deadline
    return addon.job_runner._finish()


def frame():
    scene = bpy.context.scene
    return scene.frame_current, scene.frame_subframe


def test_vertices_are_those_that_blender_shows(exemplar, addon, written, evaluated):
    assert finish(addon, start(addon)).kind == 'DONE'
    assert written[0].vertices.shape == (FRAMES, 60, 3)
    for row in (0, 9, 20, 59):
        np.testing.assert_array_equal(written[0].vertices[row], evaluated(exemplar, 1 + row))


def test_each_poll_reads_a_slice_and_leaves_the_scene_as_it_was(
    exemplar, addon, short_slices, snapshot, written
):
    before = snapshot()
    job = start(addon)
    fractions = []
    for _ in range(FRAMES):
        assert job.is_busy
        job.poll()
        assert snapshot() == before
        assert job.stage == "Reading the exemplar"
        fractions.append(job.fraction)
    assert fractions == pytest.approx([(k + 1) / FRAMES for k in range(FRAMES)])
    assert finish(addon, job).kind == 'DONE'
    assert not job.is_busy
    assert len(written) == 1


def test_a_slice_is_bounded_in_time(exemplar, addon, monkeypatch):
    monkeypatch.setattr(addon.exemplar_reader, "BACKGROUND_SLICE_SECONDS", 0.05)
    bpy.context.scene.frame_end = 900
    slow = lambda *_: time.sleep(0.01)  # noqa: E731
    bpy.app.handlers.frame_change_post.append(slow)
    try:
        job = start(addon)
        longest = 0.0
        for _ in range(5):
            began = time.monotonic()
            job.poll()
            longest = max(longest, time.monotonic() - began)
    finally:
        bpy.app.handlers.frame_change_post.remove(slow)
    assert longest < 0.2
    assert 0 < job.fraction < 0.1
    job.cancel()
    assert addon.job_runner._finish().kind == 'CANCELLED'


def test_starting_the_job_reads_nothing(exemplar, addon):
    bpy.context.scene.frame_end = 900
    seen = []
    watch = lambda *_: seen.append(True)  # noqa: E731
    bpy.app.handlers.frame_change_post.append(watch)
    try:
        start(addon)
    finally:
        bpy.app.handlers.frame_change_post.remove(watch)
    assert not seen
    addon.job_runner._abandon()


def test_cancel_while_reading(exemplar, addon, short_slices, snapshot):
    before = snapshot()
    job = start(addon)
    for _ in range(3):
        job.poll()
    assert bpy.ops.ptalker.cancel() == {'FINISHED'}
    job.poll()
    process = addon.backend_job._Warm.process
    assert addon.job_runner._finish().kind == 'CANCELLED'
    assert snapshot() == before
    assert process.is_running  # it was asked for nothing yet


def test_frame_that_the_artist_goes_to_meanwhile_stays(exemplar, addon, short_slices, written):
    job = start(addon)
    for number in range(20):
        bpy.context.scene.frame_set(100 + number)
        job.poll()
        assert frame() == (100 + number, 0.0)
    assert finish(addon, job).kind == 'DONE'
    assert frame() == (119, 0.0)
    assert np.ptp(written[0].vertices, axis=0).max() > 0.01


def test_exemplar_is_deleted_meanwhile(exemplar, addon, short_slices):
    job = start(addon)
    job.poll()
    bpy.data.objects.remove(exemplar)
    outcome = finish(addon, job)
    assert outcome.kind == 'FAILED'
    assert outcome.text == 'The exemplar "Head" was deleted in the meantime.'
    assert frame() == (7, 0.25)


def test_exemplar_is_renamed_meanwhile(exemplar, addon, short_slices):
    job = start(addon)
    job.poll()
    exemplar.name = "Renamed"
    assert finish(addon, job).kind == 'DONE'


def test_exemplar_is_changed_meanwhile(exemplar, addon, short_slices):
    job = start(addon)
    job.poll()
    exemplar.data = bpy.data.meshes.new("Empty")
    outcome = finish(addon, job)
    assert outcome.kind == 'FAILED'
    assert "0 vertices instead of 60" in outcome.text


def test_another_scene_is_shown_meanwhile(exemplar, addon, short_slices, written):
    job = start(addon)
    job.poll()
    home = bpy.context.window.scene
    bpy.context.window.scene = bpy.data.scenes.new("Other")
    try:
        for _ in range(FRAMES):
            job.poll()
        assert bpy.context.scene.name == "Other"
        assert bpy.context.scene.frame_current == 1
        assert (home.frame_current, home.frame_subframe) == (7, 0.25)
    finally:
        bpy.context.window.scene = home
    assert np.ptp(written[0].vertices, axis=0).max() > 0.01
    addon.job_runner._abandon()


def test_modifiers_that_add_vertices_are_on_again(exemplar, addon, short_slices, written):
    exemplar.modifiers.new("Subdivision", 'SUBSURF')
    job = start(addon)
    job.poll()
    assert exemplar.modifiers[0].show_viewport
    assert finish(addon, job).kind == 'DONE'
    assert written[0].vertices.shape[1] == 60


@pytest.mark.parametrize("how", ["object", "collection", "excluded"])
def test_exemplar_that_is_not_evaluated(exemplar, addon, snapshot, how):
    scene = bpy.context.scene
    collection = bpy.data.collections.new("Hidden")
    scene.collection.children.link(collection)
    collection.objects.link(exemplar)
    for other in [c for c in exemplar.users_collection if c != collection]:
        other.objects.unlink(exemplar)
    if how == "object":
        exemplar.hide_viewport = True
    elif how == "collection":
        collection.hide_viewport = True
    else:
        bpy.context.view_layer.layer_collection.children["Hidden"].exclude = True
    before = snapshot()
    outcome = finish(addon, start(addon))
    assert outcome.kind == 'FAILED'
    assert "Enable it in the Outliner" in outcome.text
    assert snapshot() == before


def test_exemplar_with_a_closed_eye_is_read(exemplar, addon, written):
    exemplar.hide_set(True)
    assert finish(addon, start(addon)).kind == 'DONE'
    assert np.ptp(written[0].vertices, axis=0).max() > 0.01


def test_reading_waits_while_blender_renders(exemplar, addon, short_slices, monkeypatch):
    class App:
        background = True

        @staticmethod
        def is_job_running(kind):
            return kind == 'RENDER'

    job = start(addon)
    with monkeypatch.context() as rendering:
        rendering.setattr(addon.exemplar_reader, "bpy", Blender(App))
        job.poll()
        assert job.fraction == 0.0
    assert finish(addon, job).kind == 'DONE'


class Blender:
    """bpy with another ``app``."""

    def __init__(self, app):
        self.app = app

    def __getattr__(self, name):
        return getattr(bpy, name)


def test_save_style_reads_in_slices_too(exemplar, addon, fake_backend, short_slices, written):
    assert bpy.ops.ptalker.save_style(name="Test Style") == {'FINISHED'}
    assert written[0].vertices.shape == (FRAMES, 60, 3)
    assert frame() == (7, 0.25)
    addon.style_library.delete("Test Style")


def test_timer_comes_back_soon_while_the_exemplar_is_read(exemplar, addon, short_slices):
    runner = addon.job_runner
    start(addon)
    pauses = [runner._tick() for _ in range(FRAMES)]
    assert set(pauses) == {runner.BUSY_POLL_SECONDS}
    assert bpy.context.window_manager.ptalker.stage == "Reading the exemplar"
    assert bpy.context.window_manager.ptalker.fraction == pytest.approx(1.0)
    assert runner._tick() == runner.POLL_SECONDS
    deadline = time.monotonic() + 10
    while runner._tick() is not None:
        time.sleep(0.02)
        assert time.monotonic() < deadline
    assert bpy.context.window_manager.ptalker.result_kind == 'DONE'
