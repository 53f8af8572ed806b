# SPDX-License-Identifier: GPL-3.0-or-later
"""``--command ptalker``: flags, job lists, exit codes, one line per failure."""

import dataclasses
import json
import os
import re
import shlex
import signal
import threading
import types
import typing
from pathlib import Path

import bpy
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


@pytest.fixture
def run(addon, fake_backend, head, tmp_path, capfd):
    """Runs the command on a saved file with the head in it."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "head.blend"))

    def command(*arguments, save="out.blend"):
        status = addon.command.main([*map(str, arguments), "--save", str(tmp_path / save)])
        return status, capfd.readouterr().err.splitlines()

    return command


def opened(path):
    bpy.ops.wm.open_mainfile(filepath=str(path))
    return bpy.data.objects["Head"].data.shape_keys


def test_one_job_is_done_and_saved(run, sound_file, tmp_path):
    status, errors = run("--object", "Head", "--audio", sound_file)
    assert status == DONE
    assert errors == []
    assert bpy.data.filepath.endswith("head.blend")
    keys = opened(tmp_path / "out.blend")
    assert len(keys.key_blocks) == 4
    assert keys.animation_data.action.frame_range[0] == 1 - 5  # at rest 0.2 s before


def test_active_object_is_the_default_and_start_and_frame_count(run, sound_file, tmp_path):
    status, _ = run("--audio", sound_file, "--start", "0.5", "--end", "1.5", "--frame", "101")
    assert status == DONE
    keys = opened(tmp_path / "out.blend")
    assert tuple(keys.animation_data.action.frame_range) == (101 - 5, 124 + 5)


def test_flags_reach_the_backend(run, addon, sound_file, monkeypatch, tmp_path):
    seen = []
    encode = addon.backend_process.encode
    monkeypatch.setattr(
        addon.backend_process, "encode", lambda request: seen.append(request) or encode(request)
    )
    text = tmp_path / "words.txt"
    text.write_text("hello there")
    run("--audio", sound_file, "--style", "happy", "--style-strength", "0.5", "--listen", "sound",
        "--text-file", text, "--checkpoint", "other", "--device", "cpu",
        "--decoder", "autoregressive", "--topology", "flame")  # fmt: skip
    request = seen[0]
    assert (request.style.kind, request.style.value) == ("named", "happy")
    options = request.options
    assert (options.style_strength, options.listen, options.text) == (0.5, "sound", "hello there")
    assert (options.checkpoint, options.device) == ("other", "cpu")
    assert (options.decoder, options.topology) == ("autoregressive", "flame")
    assert (request.fps_numerator, request.fps_denominator) == (24, 1)


def test_an_option_of_the_table_is_a_flag_a_key_and_read_off_properties(
    run, addon, sound_file, monkeypatch, tmp_path
):
    options = addon.options
    extended = dataclasses.make_dataclass(
        "GenerateOptions",
        [("sparkle", float, dataclasses.field(default=0.5, metadata=options.about("made up")))],
        bases=(options.GenerateOptions,), frozen=True, kw_only=True,
    )  # fmt: skip
    monkeypatch.setattr(options, "GenerateOptions", extended)
    seen = []
    encode = addon.backend_process.encode
    monkeypatch.setattr(
        addon.backend_process, "encode", lambda request: seen.append(request) or encode(request)
    )
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([{"sparkle": 0.25}, {"start": 0.5, "frame": 200}]))
    run("--audio", sound_file, "--sparkle", "0.75", "--jobs", jobs)
    assert [request.options.sparkle for request in seen] == [0.25, 0.75]
    assert options.values_of(types.SimpleNamespace(sparkle=0.125)) == {"sparkle": 0.125}


def test_properties_have_the_defaults_and_limits_of_the_options(addon, head):
    options = addon.options
    hints = typing.get_type_hints(options.GenerateOptions)
    found = set()
    for owner in (head.ptalker, preferences_of(addon)):
        for field in dataclasses.fields(options.GenerateOptions):
            prop = owner.bl_rna.properties.get(field.name)
            if prop is None:
                continue
            found.add(field.name)
            if choices := options.choices(hints[field.name]):
                items = {item.identifier.lower() for item in prop.enum_items}
                assert items - {"text"} == set(choices)  # words that are given go as a text
                assert prop.default.lower() == field.default
            elif isinstance(field.default, float):
                option = field.metadata["option"]
                limits = (prop.default, prop.hard_min, prop.hard_max)
                assert limits == (field.default, option.minimum, option.maximum)
            else:
                assert prop.default == field.default
    life = {"life", "blinks", "gaze", "brows", "head_motion", "breath", "seed"}
    others = {"style_strength", "listen", "text", "language", "device", "decoder", "engine"}
    assert found == others | life | {"emotion_from_voice", "upper_face_strength"}


def test_head_target_turns(run, sound_file, addon):
    data = bpy.data.armatures.new("Rig")
    rig = bpy.data.objects.new("Rig", data)
    neck = bpy.data.objects.new("Neck", None)
    head = bpy.context.view_layer.objects.active
    for obj in (rig, neck):
        bpy.context.scene.collection.objects.link(obj)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode='EDIT')
    data.edit_bones.new("head").tail = (0.0, 0.0, 0.2)
    bpy.ops.object.mode_set(mode='OBJECT')
    bpy.context.view_layer.objects.active = head
    bone = 'pose.bones["head"].rotation_quaternion'
    for name, turned, path in (("Neck", neck, "rotation_euler"), ("Rig:head", rig, bone)):
        assert run("--audio", sound_file, "--head-target", name) == (DONE, [])
        assert {curve.data_path for curve in addon.fcurves_of(turned)} == {path}


def test_unknown_head_target_is_named(run, sound_file):
    status, errors = run("--audio", sound_file, "--head-target", "Nobody")
    assert status == FAILED
    assert 'no object "Nobody"' in errors[0]


def preferences_of(addon):
    return bpy.context.preferences.addons[addon.preferences.__package__].preferences


def test_commands_of_the_readme_are_understood(addon):
    text = (ROOT / "README.md").read_text("utf-8").replace("\\\n", " ")
    found = re.findall(r"^blender -b \S+ --command ptalker (.*)$", text, re.MULTILINE)
    assert found
    for line in found:
        flags = addon.command._parser().parse_args(shlex.split(line, comments=True))
        assert addon.command._job_list(flags)
    named = re.findall(
        r"--command ptalker --help` lists the other options, among them (.*?)\.", text, re.DOTALL
    )
    known = addon.command._parser().format_help()
    flags = re.findall(r"--[a-z-]+", named[0])
    assert flags
    for flag in flags:
        assert flag in known


def test_failed_job_is_one_line_and_the_others_are_saved(run, sound_file, tmp_path):
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([
        {"object": "Nobody", "audio": sound_file.name},
        {"object": "Head", "audio": "gone.wav"},
        {"object": "Head", "audio": sound_file.name, "style-strength": 0.5},
    ]))  # fmt: skip
    status, errors = run("--jobs", jobs)
    assert status == FAILED
    assert len(errors) == 2
    assert errors[0].startswith("ptalker: job 1 (Nobody, ")
    assert 'no object "Nobody". Meshes of the file: Head.' in errors[0]
    assert "gone.wav does not exist" in errors[1]
    assert len(opened(tmp_path / "out.blend").key_blocks) == 4


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_job_list_from_windows_is_read(run, addon, sound_file, tmp_path, encoding):
    jobs = tmp_path / "sub" / "jobs.json"
    jobs.parent.mkdir()
    text = json.dumps([{"audio": f"..\\{sound_file.name}", "style-strength": 0.5}], indent=1)
    jobs.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    status, errors = run("--jobs", jobs)
    assert (status, errors) == (DONE, [])


def test_two_jobs_for_one_line_make_it_once_and_say_so(run, sound_file, tmp_path):
    jobs = tmp_path / "jobs.json"
    other = sound_file.with_name("other.wav")
    other.write_bytes(sound_file.read_bytes())
    jobs.write_text(json.dumps([
        {"object": "Head", "audio": sound_file.name},
        {"audio": f"./{sound_file.name}", "frame": 200},
        {"audio": other.name},
        {"audio": other.name, "frame": 200},
    ]))  # fmt: skip
    status, errors = run("--jobs", jobs)
    assert status == FAILED
    assert len(errors) == 2
    for number, error in zip((2, 3), errors, strict=True):
        assert error.startswith(f"ptalker: job {number} (")
        assert "Another job of the list wrote the line" in error


def test_two_files_of_one_name_in_a_list_are_two_lines(run, addon, sound_file, tmp_path):
    jobs = tmp_path / "jobs.json"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "speech.wav").write_bytes(sound_file.read_bytes())
    jobs.write_text(json.dumps([
        {"object": "Head", "audio": "a/speech.wav"},
        {"object": "Head", "audio": "b/speech.wav", "frame": 150},
    ]))  # fmt: skip
    assert run("--jobs", jobs) == (DONE, [])
    keys = opened(tmp_path / "out.blend")
    assert addon.speech_action.line_names(keys.animation_data.action) == ["speech", "speech"]


def test_nothing_is_saved_when_all_jobs_failed(run, fake_backend, sound_file, tmp_path):
    fake_backend("error")
    status, errors = run("--audio", sound_file)
    assert status == FAILED
    assert len(errors) == 1
    assert "The sound file is broken. Choose another one." in errors[0]
    assert not (tmp_path / "out.blend").exists()


def test_backend_that_dies_fails_the_job_only(run, fake_backend, sound_file):
    fake_backend("crash")
    status, errors = run("--audio", sound_file)
    assert status == FAILED
    assert len(errors) == 1
    assert "stopped unexpectedly" in errors[0]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "cannot be read"),
        ("no JSON", "cannot be read"),
        ("[]", "at least one"),
        ('{"audio": "x"}', "list of objects"),
        ('[{"audio": "x", "sound": 1}]', "unknown keys: sound"),
        ('[{"audio": 3}]', "audio is 3"),
        ('[{"audio": "x", "style_strength": "much"}]', "style_strength is 'much'"),
        ('[{"object": "Head"}]', "names no audio"),
        ("[" * 100_000, "cannot be read"),
        ('[{"audio": "x", "style-strength": 1, "style_strength": 2}]', "unknown keys: style-str"),
        ('[{"audio": "x", "' + "y" * 1_000_000 + '": 1}]', "unknown keys: yyy"),
    ],
)
def test_wrong_job_list_is_wrong_usage(run, tmp_path, content, part):
    jobs = tmp_path / "jobs.json"
    if content is not None:
        jobs.write_text(content)
    status, errors = run("--jobs", jobs)
    assert status == WRONG_USAGE
    assert part in "\n".join(errors)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--audio", "x", "--no-such-flag"], ["--audio", "x", "--style-strength", "much"],
     ["--audio", "x", "--device", "tpu"]],
)  # fmt: skip
def test_wrong_flags_are_wrong_usage(run, arguments):
    status, errors = run(*arguments)
    assert status == WRONG_USAGE
    assert "usage:" in "\n".join(errors) or "is needed" in errors[0]


def test_help_is_no_failure(addon, capfd):
    assert addon.command.main(["--help"]) == DONE
    out = capfd.readouterr().out
    for flag in ("--object", "--audio", "--style-strength", "--jobs", "--save", "--text-file"):
        assert flag in out


def test_without_a_file_it_is_wrong_usage(addon, fake_backend, sound_file, capfd):
    assert not bpy.data.filepath
    assert addon.command.main(["--audio", str(sound_file), "--save", "x.blend"]) == WRONG_USAGE
    assert ".blend" in capfd.readouterr().err


def test_interrupt_stops_the_job_and_the_backend(run, addon, fake_backend, sound_file, tmp_path):
    fake_backend("slow")
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    status, errors = run("--audio", sound_file)
    assert status == INTERRUPTED
    assert "interrupted" in errors[-1]
    assert addon.backend_job._Warm.process is None
    assert not (tmp_path / "out.blend").exists()
    assert signal.getsignal(signal.SIGINT) is not addon.command._interrupt


def test_signal_handlers_of_blender_itself_do_no_harm(run, addon, sound_file, monkeypatch):
    # The application installs them in C, and Python then knows them as None.
    monkeypatch.setattr(addon.command.signal, "signal", fake := SignalWithoutPast())
    status, errors = run("--audio", sound_file)
    assert (status, errors) == (DONE, [])
    assert fake.handlers[-1] == signal.SIG_DFL


class SignalWithoutPast:
    def __init__(self):
        self.handlers = []

    def __call__(self, _number, handler):
        if handler is None:
            raise TypeError("signal handler must be callable")
        self.handlers.append(handler)


def test_object_as_style_is_read_as_exemplar(run, addon, sound_file, head, monkeypatch):
    bpy.ops.ptalker.generate('EXEC_DEFAULT')
    seen = []
    monkeypatch.setattr(
        addon.lip_sync_job,
        "write_exemplar",
        lambda path, exemplar: seen.append(exemplar) or np.savez(path, a=1),
    )
    bpy.context.scene.frame_end = 60
    status, _ = run("--audio", sound_file, "--style", "Head")
    assert status == DONE
    assert seen[0].vertices.shape == (60, 60, 3)
