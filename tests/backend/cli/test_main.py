# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line, as a user calls it, with a tiny model of random weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import typing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import soundfile

from backend import motion as motions
from backend.cli import main as command_line
from backend.cli.terminal import one_line
from backend.errors import UserError
from backend.motion import frame_rate
from backend.speech.speech_presence import NOBODY
from backend.speech.transcript import RecognitionMode

ROOT = Path(__file__).resolve().parents[3]
HEAD = ROOT / "backend" / "demo" / "head.npz"


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "wörds and spaces.wav"
    times = np.arange(24000) / 16000
    soundfile.write(path, 0.3 * np.sin(1500 * times) * np.sin(9 * times), 16000)
    return path


def generate(checkpoint, sound, out, *flags):
    return command_line.main(
        ["generate", "--audio", str(sound), "--head", str(HEAD), "--out", str(out),
         "--checkpoint", str(checkpoint), "--listen", "sound", "--device", "cpu", *flags]
    )  # fmt: skip


def test_generate_writes_the_motion_and_prints_the_report(tiny_checkpoint, sound, tmp_path, capsys):
    out = tmp_path / "m ö.npz"
    assert generate(tiny_checkpoint, sound, out, "--fps", "24000/1001", "--start", "0.25",
                    "--end", "1.25") == 0  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    motion = motions.read(out)
    assert motion.report == report
    assert (motion.fps, motion.start_seconds) == (Fraction(24000, 1001), 0.25)
    assert len(motion.weights) == 24
    assert report["audio_seconds"] == 1.001  # 24 frames of 1001 / 24000 s
    assert (report["listen"], report["device"]) == ("sound", "cpu")
    assert report["nobody_speaks"]  # in noise
    assert report["warnings"] == [NOBODY]
    assert np.isfinite(motion.weights).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name, sound.name]


def test_text_can_come_from_a_file(tiny_checkpoint, sound, tmp_path):
    (tmp_path / "words.txt").write_text("﻿hello", encoding="utf-8")
    flags = ("--text-file", str(tmp_path / "words.txt"))
    assert generate(tiny_checkpoint, sound, tmp_path / "m.npz", *flags) == 0


@pytest.mark.parametrize(
    "flags",
    [("--fps", "0"), ("--fps", "-24"), ("--fps", "nan"), ("--fps", "1/0"), ("--fps", "1e99"),
     ("--start", "-1", "--end", "1"), ("--start", "2", "--end", "1"), ("--end", "inf"),
     ("--style-strength", "nan"), ("--style-strength", "-1"), ("--style-strength", "99"),
     ("--end", "1e9"), ("--start", "nan"), ("--gain", "inf"), ("--text-file", "/none"),
     ("--gain", "-1"), ("--text", "a", "--text-file", "b")],
)  # fmt: skip
def test_values_that_make_no_sense_are_wrong_usage(flags, sound, tmp_path, capsys):
    assert generate("none", sound, tmp_path / "m.npz", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [("--device", "abacus"), ("--style-strength", "x"), ("--wrong",)],
)  # fmt: skip
def test_flags_that_do_not_exist_are_wrong_usage(flags, sound, tmp_path):
    with pytest.raises(SystemExit) as caught:
        generate("none", sound, tmp_path / "m.npz", *flags)
    assert caught.value.code == 2


def test_a_job_that_fails_has_status_1_and_one_line(tiny_checkpoint, sound, tmp_path, capsys):
    out = tmp_path / "m.npz"
    assert generate(tmp_path / "no checkpoint", sound, out) == 1
    assert generate(tiny_checkpoint, tmp_path / "none.wav", out) == 1
    assert generate(tiny_checkpoint, sound, out, "--style", "nobody") == 1
    assert generate(tiny_checkpoint, sound, out, "--style", str(tmp_path / "none.json")) == 1
    assert generate(tiny_checkpoint, sound, out, "--topology", "flame") == 1
    assert generate(tiny_checkpoint, sound, out, "--start", "5") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("error: ") for line in lines)
    assert not out.exists()


def test_the_result_never_overwrites_an_input(tiny_checkpoint, sound, capsys):
    before = sound.read_bytes()
    assert generate(tiny_checkpoint, sound, sound) == 2
    assert sound.read_bytes() == before
    assert "overwrite" in capsys.readouterr().err


def test_nothing_given_is_wrong_usage(capsys):
    assert command_line.main(["generate"]) == 2
    assert "audio" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        command_line.main([])
    assert caught.value.code == 2


def test_a_list_of_jobs_does_the_good_ones_and_reports_the_others(
    tiny_checkpoint, sound, tmp_path, capsys
):
    shutil.copy(HEAD, tmp_path / "head.npz")
    worker = [
        {"audio": sound.name, "out": "1.npz"},
        {"audio": "missing.wav", "out": "2.npz"},
        {"audio": sound.name, "out": "3.npz", "fps": 60, "style": "nobody"},
        {"audio": sound.name, "out": "4.npz", "fps": "23.976", "start": 0.5, "end": 1},
        {"audio": sound.name, "out": "1.npz"},
        {"audio": sound.name, "out": "6.npz", "colour": "red"},
        {"audio": sound.name, "out": "7.npz", "style_strength": "much"},
        {"out": "8.npz"},
        {"audio": sound.name, "out": "9.npz"},
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(worker))
    status = command_line.main(
        ["generate", "--jobs", str(tmp_path / "jobs.json"), "--head", str(HEAD), "--fps", "25",
         "--listen", "sound", "--checkpoint", str(tiny_checkpoint), "--device", "cpu"]
    )  # fmt: skip
    assert status == 1
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if not line.startswith("warning: ")]
    assert [line.split("(")[0] for line in errors] == [
        f"error: job {n} " for n in (2, 3, 5, 6, 7, 8)
    ]
    made = {p.name for p in tmp_path.glob("?.npz")}
    assert made == {"1.npz", "4.npz", "9.npz"}
    assert len(motions.read(tmp_path / "1.npz").weights) == 38
    assert motions.read(tmp_path / "4.npz").fps == Fraction(24000, 1001)


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]", "[" * 100_000])
def test_a_list_that_is_none_is_one_error(content, tmp_path, capsys):
    (tmp_path / "jobs.json").write_text(content)
    assert command_line.main(["generate", "--jobs", str(tmp_path / "jobs.json")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_an_exemplar_becomes_a_style_that_generate_takes(
    tiny_checkpoint, sound, exemplar, tmp_path, capsys
):
    style = tmp_path / "style.json"
    common = ["--checkpoint", str(tiny_checkpoint), "--device", "cpu"]
    assert command_line.main(
        ["style", "--exemplar", str(exemplar), "--out", str(style), *common]
    ) == 0  # fmt: skip
    assert json.loads(style.read_text())["format"] == "ptalker-style"
    assert generate(tiny_checkpoint, sound, tmp_path / "a.npz", "--style", str(style)) == 0
    assert generate(tiny_checkpoint, sound, tmp_path / "b.npz", "--style", str(exemplar)) == 0
    assert generate(tiny_checkpoint, sound, tmp_path / "c.npz") == 0
    assert generate(tiny_checkpoint, sound, tmp_path / "d.npz", "--style", str(style),
                    "--style-strength", "0") == 0  # fmt: skip
    a, b, c, d = (motions.read(tmp_path / f"{name}.npz").weights for name in "abcd")
    np.testing.assert_allclose(a, b, atol=1e-4)
    np.testing.assert_allclose(c, d, atol=1e-5)
    assert np.abs(a - c).max() > 1e-3
    capsys.readouterr()


def test_info_says_what_there_is(capsys):
    assert command_line.main(["info"]) == 0
    assert "topologies: demo, demo-1, flame" in capsys.readouterr().out
    assert command_line.main(["info", "--json"]) == 0
    packages = json.loads(capsys.readouterr().out)["packages"]
    files = [ROOT / "backend" / name for name in ("requirements.txt", "requirements-words.txt")]
    pinned = {line.partition("==")[0] for file in files for line in file.read_text().splitlines()}
    assert set(packages) <= pinned  # a misspelt name would be reported as missing
    assert packages["torch"] != "missing"


def test_info_can_check_that_packages_can_be_imported(monkeypatch, capsys):
    assert command_line.main(["info", "--check"]) == 0
    monkeypatch.setitem(sys.modules, "soxr", None)
    assert command_line.main(["info", "--check"]) != 0
    assert "packages are incomplete (import of soxr" in capsys.readouterr().err


def test_recognition_modes_to_evaluate_are_those_of_a_transcript():
    modes = typing.get_args(RecognitionMode)
    arguments = ["evaluate", "--speech", "DIR", "--listen"]
    assert command_line.make_parser().parse_args([*arguments, *modes]).listen == list(modes)


@pytest.mark.parametrize(
    ("text", "fps"),
    [("24", Fraction(24)), ("24000/1001", Fraction(24000, 1001)), ("23.976", Fraction(24000, 1001)),
     ("23.98", Fraction(24000, 1001)), ("29.97", Fraction(30000, 1001)),
     ("59.94", Fraction(60000, 1001)), ("12.5", Fraction(25, 2)), ("23.5", Fraction(47, 2)),
     ("25.0", Fraction(25))],
)  # fmt: skip
def test_frame_rates_are_exact(text, fps):
    assert frame_rate(text) == fps


def test_frame_rates_that_are_none_are_refused():
    for text in ("", "x", "0", "-1", "1001", "1/0", "nan", "inf"):
        with pytest.raises(UserError):
            frame_rate(text)


@pytest.mark.parametrize("flags", [["--help"], ["generate", "--help"], ["info"], ["--version"]])
def test_it_answers_quickly_without_torch(flags):
    code = "import sys; from backend.cli.main import main\ntry: main(sys.argv[1:])\n" \
           "except SystemExit: pass\nassert 'torch' not in sys.modules"  # fmt: skip
    subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, check=True, capture_output=True)


def test_a_bug_in_one_job_of_a_list_leaves_the_others(
    tiny_checkpoint, sound, tmp_path, capsys, monkeypatch
):
    from backend.service import worker

    animate = worker.Worker.animate

    def fail_once(self, inputs, reporter, *, estimate, key):
        if inputs.request.out.endswith("1.npz"):
            raise ZeroDivisionError("a bug")
        return animate(self, inputs, reporter, estimate=estimate, key=key)

    monkeypatch.setattr(worker.Worker, "animate", fail_once)
    entries = [{"out": f"{number}.npz"} for number in (1, 2)]
    (tmp_path / "jobs.json").write_text(json.dumps(entries))
    status = command_line.main(
        ["generate", "--jobs", str(tmp_path / "jobs.json"), "--head", str(HEAD), "--audio",
         str(sound), "--listen", "sound", "--checkpoint", str(tiny_checkpoint)]
    )  # fmt: skip
    assert status == 1
    assert "job 1" in capsys.readouterr().err
    assert (tmp_path / "2.npz").exists()


@pytest.mark.parametrize(("flags", "expected"), [([], None), (["--offline"], "1")])
def test_the_service_downloads_nothing_where_it_is_to_stay_offline(monkeypatch, flags, expected):
    seen = []
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(
        command_line, "serve", lambda **_options: seen.append(os.environ.get("HF_HUB_OFFLINE"))
    )
    options = command_line.make_parser().parse_args(["serve", *flags])
    options.run(options)
    assert seen == [expected]


def test_what_the_terminal_shows_is_one_line_that_can_be_shown():
    assert one_line("a\nb\x1b[2J \ud800\u202e ä 日") == "a b\ufffd[2J \ufffd\ufffd ä 日"
