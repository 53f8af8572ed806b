# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault matrix, part 3: the head, the scene, the file or the add-on is changed in mid-run."""

import os
import time

import addon_utils
import bpy
import pytest

from tests.blender.conftest import MODULE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="as the other parts")


def other_object(name="Other"):
    obj = bpy.data.objects.new(name, bpy.context.active_object.data.copy())
    bpy.context.collection.objects.link(obj)
    return obj


def mesh_of(count):
    mesh = bpy.data.meshes.new("New")
    faces = [(n, n + 1, n + 2) for n in range(count - 2)]
    mesh.from_pydata([(n, n % 2, 0.0) for n in range(count)], [], faces)
    return mesh


def activate_other(_head):
    bpy.context.view_layer.objects.active = other_object()


def deactivate(_head):
    bpy.context.view_layer.objects.active = None


def unlink(head):
    bpy.context.collection.objects.unlink(head)


def move_to_collection(head):
    collection = bpy.data.collections.new("Elsewhere")
    bpy.context.scene.collection.children.link(collection)
    collection.objects.link(head)
    bpy.context.scene.collection.objects.unlink(head)


def exclude_collection(head):
    move_to_collection(head)
    bpy.context.view_layer.layer_collection.children["Elsewhere"].exclude = True


def clear_mesh(head):
    head.data.clear_geometry()


def move_vertices(head):
    for vertex in head.data.vertices:
        vertex.co.z += 0.1


def share_mesh(head):
    bpy.context.collection.objects.link(bpy.data.objects.new("Twin", head.data))


def add_own_key(head):
    head.shape_key_add(name="Basis")
    head.shape_key_add(name="Mine").value = 0.5


def add_animated_key(head):
    add_own_key(head)
    head.data.shape_keys.key_blocks["Mine"].keyframe_insert("value", frame=3)


def add_key_of_the_name(head):
    head.shape_key_add(name="Basis")
    head.shape_key_add(name="jawOpen")


def absolute_keys(head):
    head.shape_key_add(name="Basis")
    head.data.shape_keys.use_relative = False


def new_scene(_head):
    scene = bpy.data.scenes.new("New")
    bpy.context.window.scene = scene if bpy.context.window else bpy.context.scene


def remove_scene(_head):
    old = bpy.context.scene
    bpy.data.scenes.new("New")
    bpy.data.scenes.remove(old)


def remove_sound(head):
    os.unlink(head.ptalker.sound_file)  # noqa: PTH108 - Blender's text


def settings(head):
    head.ptalker.sound_file, head.ptalker.sound_frame = "", 99


def rate(_head):
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = 30, 1.001


def armature(head):
    rig = bpy.data.objects.new("Rig", bpy.data.armatures.new("Rig"))
    bpy.context.collection.objects.link(rig)
    head.parent = rig
    head.modifiers.new("Armature", 'ARMATURE').object = rig


def tamper_state(_head):
    state = bpy.context.window_manager.ptalker
    state.is_running, state.stage, state.result_kind = False, "x" * 5000, 'DONE'


def purge(_head):
    bpy.data.orphans_purge()


# What changes, and how the job ends where the backend does its part.
CHANGES = {
    "renamed": (lambda head: setattr(head, "name", "Renamed"), 'DONE'),
    "name is taken by another": (
        lambda head: (setattr(head, "name", "Gone"), other_object("Head")), 'DONE'),
    "deleted": (lambda head: bpy.data.objects.remove(head), "was deleted in the meantime"),
    "deleted, and a new one has its name": (
        lambda head: (other_object("Twin"), bpy.data.objects.remove(head),
                      setattr(bpy.data.objects["Twin"], "name", "Head")),
        "was deleted in the meantime"),
    "unlinked from the scene": (unlink, 'DONE'),
    "in another collection": (move_to_collection, 'DONE'),
    "in an excluded collection": (exclude_collection, 'DONE'),
    "hidden": (lambda head: head.hide_set(True), 'DONE'),
    "hidden everywhere": (lambda head: setattr(head, "hide_viewport", True), 'DONE'),
    "another is active": (activate_other, 'DONE'),
    "nothing is active": (deactivate, 'DONE'),
    "mesh is another of its size": (lambda head: setattr(head, "data", mesh_of(60)), 'DONE'),
    "mesh is another, smaller": (lambda head: setattr(head, "data", mesh_of(12)), "12 vertices"),
    "mesh is another, larger": (lambda head: setattr(head, "data", mesh_of(99)), "99 vertices"),
    "mesh has a vertex more": (lambda head: head.data.vertices.add(1), "61 vertices"),
    "mesh is empty": (clear_mesh, "has no faces"),
    "mesh is renamed": (lambda head: setattr(head.data, "name", "x" * 60), 'DONE'),
    "mesh is shared": (share_mesh, 'DONE'),
    "vertices are moved": (move_vertices, 'DONE'),
    "moved and turned": (lambda head: setattr(head, "location", (9, 9, 9)), 'DONE'),
    "scaled to nothing": (lambda head: setattr(head, "scale", (0, 0, 0)), 'DONE'),
    "mirrored": (lambda head: setattr(head, "scale", (-1, 1, 1)), 'DONE'),
    "has a rig now": (armature, 'DONE'),
    "is subdivided": (lambda head: head.modifiers.new("Smooth", 'SUBSURF'), 'DONE'),
    "has a vertex group": (lambda head: head.vertex_groups.new(name="Neck"), 'DONE'),
    "has a UV map": (lambda head: head.data.uv_layers.new(), 'DONE'),
    "has a shape key": (add_own_key, 'DONE'),
    "has an animated shape key": (add_animated_key, 'DONE'),
    "has a shape key of the name": (add_key_of_the_name, 'DONE'),
    "has absolute shape keys": (absolute_keys, "Relative"),
    "scene is renamed": (lambda _: setattr(bpy.context.scene, "name", "Renamed"), 'DONE'),
    "another scene is shown": (new_scene, 'DONE'),
    "scene is removed": (remove_scene, None),
    "another frame is shown": (lambda _: bpy.context.scene.frame_set(77), 'DONE'),
    "frame rate is another": (rate, 'DONE'),
    "scene ends earlier": (lambda _: setattr(bpy.context.scene, "frame_end", 5), 'DONE'),
    "sound is deleted": (remove_sound, 'DONE'),
    "settings are others": (settings, 'DONE'),
    "another kind of keys is wanted": (
        lambda head: setattr(head.ptalker, "key_target", 'EXISTING'), 'DONE'),
    "text was added": (
        lambda head: setattr(head.ptalker, "text_block", bpy.data.texts.new("Speech")), 'DONE'),
    "unused data is purged": (purge, 'DONE'),
    "panel's state is tampered with": (tamper_state, 'DONE'),
}  # fmt: skip


def begin(faulty, head, mode, change):
    """Start a job, and change the scene before anything of the job's end is read."""
    faulty.mode(mode)
    job = faulty.start()
    change(head)
    return job


@pytest.mark.parametrize("case", CHANGES)
def test_change_while_the_job_is_done(faulty, addon, head, case):
    change, expected = CHANGES[case]
    job = begin(faulty, head, "ok", change)
    after_change = faulty.snapshot()
    outcome = faulty.end(job)
    if expected == 'DONE':
        assert outcome.kind == 'DONE', outcome.text
        assert "from frame 10 to 57" in outcome.text
        assert {"jawOpen", "mouthClose"} <= {b.name for b in head.data.shape_keys.key_blocks}
    elif expected is not None:
        assert outcome.kind == 'FAILED'
        assert expected in outcome.text
    if outcome.kind == 'FAILED':
        assert len(outcome.text) < 300
        assert "\n" not in outcome.text
        assert faulty.snapshot() == after_change
    faulty.check_nothing_is_left()


@pytest.mark.parametrize("case", CHANGES)
def test_change_while_the_backend_dies(faulty, addon, head, case):
    change, _ = CHANGES[case]
    job = begin(faulty, head, "end:status 1", change)
    after_change = faulty.snapshot()
    outcome = faulty.end(job)
    assert outcome.kind == 'FAILED'
    assert "stopped unexpectedly (status 1" in outcome.text
    assert faulty.snapshot() == after_change
    faulty.check_nothing_is_left()


@pytest.mark.parametrize("case", CHANGES)
def test_change_and_then_cancel(faulty, addon, head, case, monkeypatch):
    monkeypatch.setattr(addon.backend_job, "CANCEL_SECONDS", 0.05)
    change, _ = CHANGES[case]
    job = begin(faulty, head, "slow", change)
    after_change = faulty.snapshot()
    job.cancel()
    outcome = faulty.end(job)
    assert outcome.kind == 'CANCELLED'
    assert faulty.snapshot() == after_change
    faulty.check_nothing_is_left()


# The file and the add-on


def test_new_file_in_mid_run(faulty, addon):
    faulty.mode("slow")
    job = faulty.start()
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert job.outcome.kind == 'CANCELLED'
    assert len(bpy.data.objects) == 0
    faulty.check_nothing_is_left()


@pytest.mark.parametrize("times", [1, 2])
def test_file_is_opened_again_in_mid_run(faulty, addon, head, tmp_path, times):
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    for _ in range(times):
        faulty.mode("slow")
        job = faulty.start()
        bpy.ops.wm.open_mainfile(filepath=path)
        assert job.outcome.kind == 'CANCELLED'
        assert bpy.data.objects["Head"].data.shape_keys is None
        faulty.check_nothing_is_left()
    faulty.check_next_job()


def test_file_is_saved_in_mid_run(faulty, addon, head, tmp_path):
    path = str(tmp_path / "scene.blend")
    faulty.mode("ok")
    job = faulty.start()
    bpy.ops.wm.save_as_mainfile(filepath=path)
    assert faulty.end(job).kind == 'DONE'
    bpy.ops.wm.open_mainfile(filepath=path)
    assert not bpy.context.window_manager.ptalker.is_running
    assert bpy.data.objects["Head"].data.shape_keys is None
    faulty.check_next_job()


def test_file_that_cannot_be_opened_in_mid_run(faulty, addon, head, tmp_path):
    path = tmp_path / "broken.blend"
    path.write_bytes(b"BLENDER-v999" + b"\0" * 100)
    faulty.mode("ok")
    job = faulty.start()
    with pytest.raises(RuntimeError):
        bpy.ops.wm.open_mainfile(filepath=str(path))
    if job.outcome is None:
        assert faulty.end(job).kind == 'DONE'
    faulty.check_nothing_is_left()


def test_second_job_is_refused_and_leaves_no_folder(faulty, addon, head):
    faulty.mode("slow")
    job = faulty.start()
    with pytest.raises(RuntimeError, match=r"A job is running|poll"):
        bpy.ops.ptalker.generate('EXEC_DEFAULT')
    assert [path for path in addon.paths.jobs_dir().iterdir() if path.is_dir()] == [job._folder]
    job.close()
    addon.job_runner._finish()
    faulty.check_nothing_is_left()
    faulty.check_next_job()


@pytest.mark.parametrize("mode", ["slow", "stuck:silence", "stuck:stopped by a signal",
                                  "stuck:child holds the output"])  # fmt: skip
def test_add_on_is_disabled_in_mid_run(faulty, addon, head, mode):
    faulty.mode(mode)
    before = faulty.snapshot()
    job = faulty.start()
    time.sleep(0.1)
    began = time.monotonic()
    addon_utils.disable(MODULE)
    try:
        assert time.monotonic() - began < 4
        assert job.outcome.kind == 'CANCELLED'
        assert not hasattr(bpy.types.Object, "ptalker")
    finally:
        assert addon_utils.enable(MODULE) is not None
    head.ptalker.sound_frame = 10
    assert addon.backend_job._Warm.process is None
    after = faulty.snapshot()
    assert after == before
    faulty.check_nothing_is_left()


def test_backend_idle_is_ended(faulty, addon, head):
    faulty.mode("ok")
    assert faulty.generate()[0] == 'DONE'
    addon.job_runner._end_idle_backend()
    assert addon.backend_job._Warm.process is None
    faulty.check_nothing_is_left()
    faulty.check_next_job()


def test_another_command_ends_the_backend_of_before(faulty, addon, head, monkeypatch):
    faulty.mode("ok")
    assert faulty.generate()[0] == 'DONE'
    first = addon.backend_job._Warm.process
    command = [*first.command, "--other"]
    with monkeypatch.context() as changed:
        changed.setattr(addon.paths, "backend_command", lambda _settings: command)
        assert faulty.generate()[0] == 'DONE'
    assert addon.backend_job._Warm.process is not first
    assert not first.is_running
    faulty.check_nothing_is_left()
