# SPDX-License-Identifier: GPL-3.0-or-later
"""PyTorch is added, checked, repaired and removed by operators; the steps are stand-ins here."""

import dataclasses
import os
import stat
import subprocess
import sys
import time

import bpy
import pytest


@pytest.fixture
def user_dir(addon, tmp_path, monkeypatch):
    monkeypatch.delenv("PTALKER_BACKEND_PYTHON", raising=False)
    monkeypatch.setattr(addon.paths, "user_dir", lambda: tmp_path)
    addon.backend_status.refresh()
    yield tmp_path
    monkeypatch.undo()
    addon.backend_status.refresh()


def steps_of(addon, *codes):
    return [
        addon.torch_setup_plan.Step(f"Step {number}", (sys.executable, "-I", "-c", code), 0.4)
        for number, code in enumerate(codes)
    ]


def test_every_operator_can_be_called(addon, user_dir):
    for name in ("setup_backend", "repair_backend", "check_backend", "remove_backend", "open_log"):
        assert getattr(bpy.ops.ptalker, name).poll()


def test_button_has_the_name_that_messages_give_it(addon):
    operator = addon.setup_operators.PTALKER_OT_setup_backend
    assert operator.bl_label == addon.backend_env.BUTTON


def test_without_online_access_it_says_what_to_switch_on(addon, user_dir):
    assert not bpy.app.online_access
    with pytest.raises(RuntimeError, match="Allow Online Access"):
        bpy.ops.ptalker.setup_backend('EXEC_DEFAULT')
    assert not addon.job_runner.is_running()


def test_setup_makes_pytorch_ready_and_removing_takes_it_away(addon, user_dir, monkeypatch):
    python = addon.backend_env.python_of(user_dir)
    make = (
        f"import pathlib; p = pathlib.Path({str(python)!r}); "
        "p.parent.mkdir(parents=True); p.touch()"
    )
    said = {"python": "3", "devices": ["cpu", "cuda"], "packages": {"torch": "9.9"}}
    steps = steps_of(addon, make, f"import json; print(json.dumps({said}))")
    monkeypatch.setattr(addon.setup_operators.PTALKER_OT_setup_backend, "steps",
                        lambda _self, _context: steps)  # fmt: skip
    torch, settings = addon.backend_status.torch, addon.preferences.Settings()
    assert torch().state == 'MISSING'
    assert bpy.ops.ptalker.setup_backend('EXEC_DEFAULT') == {'FINISHED'}
    assert torch().state == 'READY'
    assert bpy.context.window_manager.ptalker.result_text == "PyTorch is ready (9.9)."
    command = addon.paths.backend_command(settings)  # there is a card, so PyTorch is taken
    assert command[0] == str(python)
    assert "-I" in command
    own = dataclasses.replace(settings, engine="onnx")
    if addon.backend_status.own().state == 'READY':
        assert addon.paths.backend_command(own)[0] != str(python)
    assert addon.backend_status.chosen(settings) == torch()
    assert addon.backend_status.chosen(own) == addon.backend_status.own()
    assert bpy.ops.ptalker.remove_backend('EXEC_DEFAULT') == {'FINISHED'}
    assert torch().state == 'MISSING'
    assert not list(user_dir.glob("backend-env"))


def test_setup_that_fails_is_reported(addon, user_dir, monkeypatch):
    steps = steps_of(addon, "print('No space left on device'); raise SystemExit(1)", "")
    monkeypatch.setattr(addon.setup_operators.PTALKER_OT_setup_backend, "steps",
                        lambda _self, _context: steps)  # fmt: skip
    with pytest.raises(RuntimeError, match="disk is full"):
        bpy.ops.ptalker.setup_backend('EXEC_DEFAULT')
    assert bpy.context.window_manager.ptalker.is_setup  # the preferences tell of it


def test_failed_speech_is_not_told_of_in_the_preferences(addon, head, fake_backend):
    fake_backend("error")
    with pytest.raises(RuntimeError):
        bpy.ops.ptalker.generate('EXEC_DEFAULT')
    assert not bpy.context.window_manager.ptalker.is_setup


def test_setup_can_be_cancelled(addon, user_dir):
    steps = steps_of(addon, "import time; time.sleep(60)", "")
    job = addon.setup_operators.SetupJob("Add GPU and Research (PyTorch)", steps)
    addon.job_runner._begin(job)
    job.poll()
    assert bpy.ops.ptalker.cancel() == {'FINISHED'}
    deadline = time.monotonic() + 5
    while job.outcome is None and time.monotonic() < deadline:
        job.poll(wait=0.05)
    outcome = addon.job_runner._finish()
    assert outcome.kind == 'CANCELLED'
    assert "go on" in outcome.text


def test_log_that_was_written_is_shown_from_its_beginning(addon, user_dir):
    assert bpy.ops.ptalker.open_log() == {'CANCELLED'}
    addon.paths.backend_log().touch()
    assert bpy.ops.ptalker.open_log() == {'CANCELLED'}, "an empty page tells nothing"
    addon.paths.setup_log().write_text("what pip said\nlast line\n")
    assert bpy.ops.ptalker.open_log() == {'FINISHED'}
    text = bpy.data.texts["PTalker Log"]
    assert text.as_string().startswith("what pip said")
    assert text.current_line_index == 0
    addon.paths.backend_log().write_text("what the engine said")
    os.utime(addon.paths.setup_log(), (1, 1))
    assert bpy.ops.ptalker.open_log() == {'FINISHED'}
    assert [text.name for text in bpy.data.texts] == ["PTalker Log"]
    assert text.as_string().startswith("what the engine said")


def test_command_adds_pytorch_where_there_is_no_window(addon, user_dir, monkeypatch, capfd):
    operator = addon.setup_operators.PTALKER_OT_setup_backend
    monkeypatch.setattr(operator, "steps", lambda _self, _context: steps_of(addon, "", ""))
    assert addon.command.main(["--setup"]) == 0
    assert "PyTorch is ready" in capfd.readouterr().out
    steps = steps_of(addon, "print('No space left on device'); raise SystemExit(1)", "")
    monkeypatch.setattr(operator, "steps", lambda _self, _context: steps)
    assert addon.command.main(["--setup"]) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("ptalker:")]
    assert len(lines) == 1
    assert "disk is full" in lines[0]
    monkeypatch.undo()
    assert addon.command.main(["--setup"]) == 1
    assert "Allow Online Access" in capfd.readouterr().err


def test_command_takes_another_python(addon, user_dir, monkeypatch, capfd):
    assert addon.command.main(["--backend-python", "no/such/python", "--save", "x"]) == 2
    assert "does not exist" in capfd.readouterr().err
    monkeypatch.setenv("PTALKER_BACKEND_PYTHON", "")  # so that it is put back
    addon.command._use_python(sys.executable)
    command = addon.paths.backend_command(addon.preferences.Settings())
    assert command[0] == sys.executable


def test_build_for_blenders_platform_offers_no_pytorch(addon, user_dir, monkeypatch, capfd):
    monkeypatch.setattr(addon.paths, "has_torch_setup", lambda: False)
    assert addon.command.main(["--setup"]) == 2
    assert "cannot add PyTorch" in capfd.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")
def test_what_is_written_is_the_users_alone(addon, user_dir, head, fake_backend):
    user_dir.chmod(0o755)
    folder = addon.backend_job.new_job_folder()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (user_dir, folder.parent, folder)] == [
        0o700, 0o700, 0o700,
    ]  # fmt: skip
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    assert stat.S_IMODE(addon.paths.backend_log().stat().st_mode) == 0o600


def test_face_points_are_marked_and_sent(fake_backend, head, addon):
    names = addon.face_points.names(addon.paths.backend_root())
    assert len(names) == 111
    bpy.ops.object.mode_set(mode='EDIT')
    for vertex in (5, 9):
        select_only(head, vertex)
        assert bpy.ops.ptalker.mark_face_point() == {'FINISHED'}
    head.ptalker.face_point = 0
    select_only(head, 7)
    bpy.ops.ptalker.mark_face_point()  # again: the first moves
    bpy.ops.object.mode_set(mode='OBJECT')
    assert addon.face_points.marked(head) == {names[0]: 7, names[1]: 9}
    assert addon.scene_inputs.read_head(head).face_points == {names[0]: 7, names[1]: 9}
    assert bpy.ops.ptalker.clear_face_points('EXEC_DEFAULT') == {'FINISHED'}
    assert addon.face_points.marked(head) == {}


def select_only(obj, vertex):
    import bmesh

    edited = bmesh.from_edit_mesh(obj.data)
    edited.select_history.clear()
    for other in edited.verts:
        other.select = other.index == vertex
    edited.select_flush_mode()
    bmesh.update_edit_mesh(obj.data)


def test_styles_are_saved_blended_and_deleted(user_dir, head, addon):
    library = addon.style_library
    for name, value in (("Shy", 0.0), ("Loud", 1.0)):
        library.save(name, library.StyleCode((value, 2.0), "model", 1, name))
    assert addon.paths.saved_style_names() == ["Loud", "Shy"]
    head.ptalker.saved_style = "Shy"
    assert bpy.ops.ptalker.blend_styles(second="Loud", factor=0.25) == {'FINISHED'}
    assert head.ptalker.saved_style == "Shy and Loud"
    mixed = library.load(library.existing_path("Shy and Loud"))
    assert mixed.code == (0.25, 2.0)
    assert bpy.ops.ptalker.delete_style('EXEC_DEFAULT') == {'FINISHED'}
    assert addon.paths.saved_style_names() == ["Loud", "Shy"]
    library.save("Other", library.StyleCode((1.0,), "another", 1, ""))
    head.ptalker.saved_style = "Shy"
    with pytest.raises(RuntimeError, match="different models"):
        bpy.ops.ptalker.blend_styles(second="Other")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 61])
def test_odd_names_of_styles_are_refused(addon, name):
    with pytest.raises(addon.protocol.UserError, match="cannot be the name"):
        addon.style_library.path_of(name)


def test_nothing_of_the_wheels_is_imported_inside_blender(addon):
    foreign = {"torch", "transformers", "scipy", "onnxruntime", "soxr", "soundfile", "inflect"}
    assert not foreign & sys.modules.keys()


def test_import_without_blender_works():
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    code = "import ptalker_blender.motion, sys; assert 'bpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
