# SPDX-License-Identifier: GPL-3.0-or-later
"""Both halves of the protocol against each other, and the fake backend against both."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from backend.articulation import emotion as backend_emotion
from backend.service import options as backend_options
from backend.service import protocol as backend
from backend.speech import languages as backend_languages
from ptalker_blender import emotions as addon_emotions
from ptalker_blender import languages as addon_languages
from ptalker_blender import options as addon_options
from ptalker_blender import protocol as addon

ROOT = Path(__file__).resolve().parents[1]

JOB = {"job": "1", "head": "h", "audio": "a", "out": "o", "fps_numerator": 25, "fps_denominator": 1}
REQUESTS = [
    (
        "GenerateRequest",
        {**JOB, "audio": "ä \udcff.wav", "fps_numerator": 24000, "fps_denominator": 1001},
    ),
    (
        "GenerateRequest",
        {
            **JOB,
            "num_frames": 50,
            "style": addon.StyleSource(kind="exemplar", value="e.npz"),
            "options": addon_options.GenerateOptions(
                text='say "hi"\n日本', listen="words", style_strength=1.5, device="cpu"
            ),
        },
    ),
    ("StyleRequest", {"job": "3", "exemplar": "e.npz", "out": "s.json"}),
    ("FacePointsRequest", {"job": "4", "head": "h.npz", "out": "p.json"}),
    ("CancelRequest", {"job": "1"}),
]
PARTS = ["StyleSource", "GenerateOptions"]
"""What is nested in messages."""
MESSAGES = [
    ("Hello", {"protocol_version": 3, "backend_version": "0.1.0", "python": "3.11", "pid": 7}),
    ("Status", {"job": "1", "text": "Loading"}),
    ("Progress", {"job": "1", "stage": "Animating", "done": 1.5, "total": 3, "unit": "s"}),
    ("Progress", {"job": "1", "stage": "x", "done": 0, "total": 1, "unit": "s", "seconds_left": 4}),
    ("JobWarning", {"job": "1", "text": "silence"}),
    ("Result", {"job": "1", "path": "m.npz", "report": {"warnings": [], "seconds": 1.0}}),
    ("Cancelled", {"job": "1"}),
    ("Error", {"job": "", "message": "No.", "detail": "Traceback\n"}),
]  # fmt: skip


def test_both_halves_have_the_same_version_and_names():
    assert addon.PROTOCOL_VERSION == backend.PROTOCOL_VERSION
    assert addon.MAX_LINE_BYTES == backend.MAX_LINE_BYTES
    assert addon.MAX_JOB_LETTERS == backend.MAX_JOB_LETTERS
    assert {m.name: m.value for m in addon.MessageType} == {
        m.name: m.value for m in backend.MessageType
    }
    assert set(addon.FINAL_TYPES) == set(backend.FINAL_TYPES)


def plain(value):
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def test_both_halves_have_the_same_fields():
    for name in [*(name for name, _ in REQUESTS + MESSAGES), *PARTS]:
        here, there = (
            [
                (f.name, f.type, "none" if f.default is dataclasses.MISSING else plain(f.default))
                for f in dataclasses.fields(getattr(half, name))
            ]
            for half in (addon, backend)
        )
        assert here == there, name


def test_both_halves_have_the_same_choices_ranges_and_help():
    here, there = (
        [
            (f.name, half.choices(hints[f.name]), dataclasses.asdict(f.metadata["option"]))
            for hints in [typing.get_type_hints(half.GenerateOptions)]
            for f in dataclasses.fields(half.GenerateOptions)
        ]
        for half in (addon_options, backend_options)
    )
    assert here == there
    kinds = [typing.get_type_hints(half.StyleSource)["kind"] for half in (addon, backend)]
    assert kinds[0] == kinds[1]


def test_both_programs_mean_the_same_by_texts_of_the_motion_file():
    pytest.importorskip("scipy")
    from backend import motion as written
    from backend.speech import transcript
    from ptalker_blender import motion as read

    assert set(read.RECOGNITION_MODES) == set(typing.get_args(transcript.RecognitionMode))
    assert read.LEARNED_SHAPE_NAME == written.LEARNED_SHAPE_NAME
    names = [written.LEARNED_SHAPE_NAME.format(number) for number in (1, 12, 123)]
    assert read.has_unnamed_shapes(names)
    assert not read.has_unnamed_shapes(["jawOpen"])


NEW_OPTION = """
    sparkle: float = field(
        default=0.5, metadata=about("made up", metavar="X", minimum=0.0, maximum=1.0)
    )
"""
USE_NEW_OPTION = """
from types import SimpleNamespace
from backend.cli.main import make_parser
from backend.errors import UserError
from backend.service import options, protocol, requests
from ptalker_blender import options as addon_options, protocol as addon

files = {"audio": "a", "head": "h", "out": "o.npz"}
arguments = ["generate", "--audio", "a", "--head", "h", "--out", "o.npz", "--sparkle", "0.7"]
flags = vars(make_parser().parse_args(arguments))
keys = [*options.names(options.JobFlags), *options.names(options.GenerateOptions)]
request = requests.request_from_flags("1", {key: flags[key] for key in keys})
assert request.options.sparkle == 0.7
requests.check(request)
entry = {**files, "sparkle": 0.25}
assert requests.request_from_flags("1", entry).options.sparkle == 0.25
for wrong in (2, "much"):
    try:
        requests.check(requests.request_from_flags("1", {**files, "sparkle": wrong}))
    except UserError as error:
        assert "sparkle" in str(error)
    else:
        raise AssertionError(wrong)

chosen = addon_options.values_of(SimpleNamespace(sparkle=0.125))
sent = addon.GenerateRequest(
    job="1", **files, fps_numerator=25, fps_denominator=1,
    options=addon_options.GenerateOptions(**chosen),
)
assert protocol.parse(addon.encode(sent)).options.sparkle == 0.125
"""


def test_an_option_is_declared_in_one_line_of_each_half(tmp_path):
    pytest.importorskip("soxr")
    for folder in ("backend", "ptalker_blender"):
        for source in (ROOT / folder).rglob("*.py"):
            copy = tmp_path / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text("utf-8")
            if source.name == "options.py":
                before, after = text.split("    topology: str", 1)
                text = f"{before}{NEW_OPTION}    topology: str{after}"
            copy.write_text(text, "utf-8")
    subprocess.run([sys.executable, "-c", USE_NEW_OPTION], cwd=tmp_path, check=True)


def test_every_message_name_has_an_example_here():
    named = {name for name, _ in REQUESTS + MESSAGES}
    for half in (addon, backend):
        kinds = [*half._REQUESTS.values(), *half._MESSAGES.values()]
        assert {kind.__name__ for kind in kinds} == named
        assert {*half._REQUESTS, *half._MESSAGES} == set(half.MessageType)


@pytest.mark.parametrize(("name", "values"), REQUESTS)
def test_backend_reads_what_the_addon_sends(name, values):
    sent = getattr(addon, name)(**values)
    line = addon.encode(sent)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    read = backend.parse(line.encode("utf-8"))
    assert type(read).__name__ == name
    assert dataclasses.asdict(read) == dataclasses.asdict(sent)


@pytest.mark.parametrize(("name", "values"), MESSAGES)
def test_addon_reads_what_the_backend_sends(name, values):
    sent = getattr(backend, name)(**values)
    line = backend.encode(sent)
    read = addon.parse(line)
    assert type(read).__name__ == name
    assert dataclasses.asdict(read) == dataclasses.asdict(sent)


GOOD = {"type": "cancel", "job": "9"}


@pytest.mark.parametrize(
    ("line", "job"),
    [
        ("", ""),
        ("{", ""),
        ("[]", ""),
        ("null", ""),
        ("[" * 100_000, ""),
        (json.dumps({**GOOD, "type": "kancel"}), "9"),
        (json.dumps({**GOOD, "type": ["cancel"]}), "9"),
        (json.dumps({**GOOD, "type": "hello"}), "9"),
        (json.dumps({**GOOD, "extra": 1}), "9"),
        (json.dumps({"type": "cancel"}), ""),
        (json.dumps({**GOOD, "job": 9}), ""),
        ('{"type": "cancel", "job": NaN}', ""),
        (json.dumps({**GOOD, "job": "x" * (1 << 22)}), ""),
        (json.dumps({**GOOD, "job": "x" * (1 << 20)}), ""),
        (json.dumps({**GOOD, "x" * (1 << 20): 1}), "9"),
        (json.dumps({**GOOD, **{f"x{number}": 1 for number in range(100_000)}}), "9"),
        (json.dumps({**GOOD, "type": "x" * (1 << 20)}), "9"),
        (json.dumps({**GOOD, "type": ["x" * (1 << 20)]}), "9"),
        ('{"type": "cancel", "job": "9", "job ' + "\\ud800" * 1000 + '": 1}', "9"),
        (b"\xff\xfe{}", ""),
    ],
)
def test_backend_refuses_what_is_no_request(line, job):
    with pytest.raises(backend.ProtocolError) as caught:
        backend.parse(line)
    assert caught.value.job == job
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "change",
    [
        {"start_seconds": "0"},
        {"start_seconds": True},
        {"start_seconds": None},
        {"fps_numerator": 23.976},
        {"fps_numerator": None},
        {"head": None},
        {"gain": [1.0]},
        {"fade": [1.0]},
        {"fade": [[0.0, "1"]]},
        {"file_seconds": "3"},
        {"num_frames": 2.5},
        {"style": "neutral"},
        {"style": None},
        {"style": {"kind": "loud"}},
        {"style": {"kind": ["file"]}},
        {"style": {"kind": "file", "path": "s.json"}},
        {"options": []},
        {"options": {"listen": "hard"}},
        {"options": {"text": 3}},
        {"options": {"style_strength": True}},
        {"options": {"volume": 1}},
    ],
)
def test_backend_refuses_values_of_the_wrong_type(change):
    values = {"type": "generate", **REQUESTS[0][1], **change}
    name, value = next(iter(change.items()))
    inner = next(iter(value)) if isinstance(value, dict) else name
    with pytest.raises(backend.ProtocolError, match="path" if "path" in str(value) else inner):
        backend.parse(json.dumps(values))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" + "0" * 400])
def test_backend_refuses_numbers_that_are_not_finite(number):
    values = json.dumps({"type": "generate", **REQUESTS[0][1]})
    for part in (f'"gain": {number}', f'"options": {{"style_strength": {number}}}'):
        with pytest.raises(backend.ProtocolError):
            backend.parse(f"{values[:-1]}, {part}}}")


def test_addon_refuses_a_line_that_is_no_message():
    for line in ("", "Traceback (most recent call last):", '{"type": "generate"}', '{"type": 3}'):
        with pytest.raises(addon.ProtocolError):
            addon.parse(line)


def test_what_json_cannot_say_is_not_sent():
    with pytest.raises(backend.ProtocolError, match="JSON"):
        backend.encode(backend.Result(job="1", path="m", report={"loss": float("nan")}))
    with pytest.raises(backend.ProtocolError, match="cannot be sent"):
        backend.encode(backend.Result(job="1", path="m", report={"path": Path()}))
    with pytest.raises(backend.ProtocolError, match="cannot be sent"):
        nested = []
        for _ in range(100_000):
            nested = [nested]
        backend.encode(backend.Result(job="1", path="m", report={"nested": nested}))
    with pytest.raises(addon.UserError, match="500,000 letters"):
        addon.encode(addon.CancelRequest(job="x" * (1 << 22)))


@pytest.mark.parametrize("letter", ["a", "я", "語", "𝄞", "\"", "\n", "\x01", "\ud800"])
def test_the_longest_text_can_be_sent_in_any_script(letter):
    options = addon_options.GenerateOptions(text=letter * 500_000)
    line = addon.encode(addon.GenerateRequest(**JOB, options=options)).encode()
    assert len(line) <= addon.MAX_LINE_BYTES
    assert backend.parse(line.rstrip(b"\n")).options.text == letter * 500_000


LONG = ["x" * 3_000_000, "я" * 2_000_000, "\ud800" * 1_000_000, "\x01" * 3_000_000]


@pytest.mark.parametrize("text", LONG, ids=["ascii", "cyrillic", "surrogates", "control"])
def test_no_message_of_the_backend_is_too_long_to_be_sent(text):
    for message in (
        backend.Status(job=text, text=text),
        backend.Progress(job="1", stage=text, done=0, total=1, unit=text),
        backend.JobWarning(job="1", text=text),
        backend.Error(job=text, message=text, detail=text),
        backend.Result(job="1", path=text, report={"warnings": [text, text], text: 1}),
        backend.Result(job="1", path="m.npz", report={"words": [[text[:3000]] * 1000] * 3}),
    ):
        line = backend.encode(message)
        assert len(line.encode()) <= addon.MAX_LINE_BYTES
        assert line.count("\n") == 1
        read = addon.parse(line)
        for name in ("text", "message", "stage"):
            getattr(read, name, "").encode()  # what is shown holds no lone surrogate
            assert len(getattr(read, name, "")) <= 1000


def test_a_long_detail_keeps_its_end():
    error = backend.Error(job="1", message="No.", detail="start" + "x" * 100_000 + "the cause")
    read = addon.parse(backend.encode(error))
    assert read.detail.startswith("start")
    assert read.detail.endswith("the cause")
    assert len(read.detail) <= 20_000


def test_a_report_that_is_too_long_loses_its_ends():
    warnings = ["Careful."] * 3
    report = {"warnings": warnings, "transcript": "word " * 2_000_000}
    read = addon.parse(backend.encode(backend.Result(job="1", path="m.npz", report=report)))
    assert read.report["warnings"] == warnings
    assert read.report["transcript"].startswith("word word")


def test_an_id_of_a_job_has_a_length():
    for half, line in ((backend, {**GOOD}), (addon, {"type": "cancelled"})):
        half.parse(json.dumps({**line, "job": "я" * half.MAX_JOB_LETTERS}))
        with pytest.raises(half.ProtocolError, match="201 letters") as caught:
            half.parse(json.dumps({**line, "job": "я" * (half.MAX_JOB_LETTERS + 1)}))
        assert caught.value.job == ""


def _fake(tmp_path, mode, *, lines=1, timeout=20):
    np = pytest.importorskip("numpy")
    head = tmp_path / "head.npz"
    vertices = np.random.default_rng(0).normal(0, 0.1, (50, 3)).astype(np.float32)
    np.savez(head, vertices=vertices)
    request = addon.GenerateRequest(
        job="job 1", head=str(head), audio="a.wav", out=str(tmp_path / "motion.npz"),
        fps_numerator=25, fps_denominator=1, num_frames=25,
    )  # fmt: skip
    command = [sys.executable, str(ROOT / "tests" / "fake_backend.py"), "--mode", mode, "serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdin.write(addon.encode(request).encode() * lines)
        process.stdin.flush()
        messages = []
        while line := process.stdout.readline():
            messages.append(addon.parse(line))
            if isinstance(messages[-1], addon.Result | addon.Cancelled | addon.Error):
                break
            if mode == "slow":
                process.stdin.write(addon.encode(addon.CancelRequest(job="job 1")).encode())
                process.stdin.flush()
        process.stdin.close()
        process.wait(timeout)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return messages


def test_fake_backend_speaks_the_protocol(tmp_path):
    messages = _fake(tmp_path, "ok")
    assert isinstance(messages[0], addon.Hello)
    assert messages[0].protocol_version == addon.PROTOCOL_VERSION
    assert isinstance(messages[-1], addon.Result)
    assert any(isinstance(m, addon.Progress) for m in messages)
    np = pytest.importorskip("numpy")
    with np.load(tmp_path / "motion.npz") as motion:
        assert motion["weights"].shape == (25, len(motion["names"]))
        assert motion["shapes"].shape == (len(motion["names"]), 50, 3)
        assert json.loads(str(motion["report"]))["warnings"] == []


def test_fake_backend_fails_as_told(tmp_path):
    assert isinstance(_fake(tmp_path, "error")[-1], addon.Error)
    assert isinstance(_fake(tmp_path, "cancelled")[-1], addon.Cancelled)
    assert isinstance(_fake(tmp_path, "slow")[-1], addon.Cancelled)
    assert _fake(tmp_path, "version")[0].protocol_version != addon.PROTOCOL_VERSION
    assert not isinstance(_fake(tmp_path, "crash")[-1], addon.Error)
    with pytest.raises(addon.ProtocolError):
        _fake(tmp_path, "garbage")
    with pytest.raises(addon.ProtocolError):
        _fake(tmp_path, "midline")


def test_both_halves_name_the_same_emotions():
    assert [name for name, _, _ in addon_emotions.EMOTIONS] == list(backend_emotion.EMOTIONS)
    assert addon_emotions.LARGEST_AMOUNT == backend_emotion.LARGEST_AMOUNT


def test_both_halves_name_the_same_languages():
    assert dict(addon_languages.LANGUAGES) == backend_languages.LANGUAGES
    names = [name for _, name in addon_languages.LANGUAGES]
    assert names == sorted(names)
