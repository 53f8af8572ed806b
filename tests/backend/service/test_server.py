# SPDX-License-Identifier: GPL-3.0-or-later
"""The service as a process: requests in, messages out, faults. The model is a stub here."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backend.service.protocol import MAX_LINE_BYTES

ROOT = Path(__file__).resolve().parents[3]
FINAL = {"result", "cancelled", "error"}

# The option `text` of a request says what its job does.
STUB = """
import os, signal, sys, time
# A shell starts background jobs deaf to Ctrl-C, and what they start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from backend.errors import Cancelled, UserError
from backend.service import server

class Worker:
    def predictor(self, checkpoint, engine, device):
        raise UserError("no such checkpoint")

    def run(self, request, reporter):
        what = request.options.text
        if what == "slow":
            for step in range(1000):
                reporter.progress("Animating", step, 1000, "s", 1.0)
                if reporter.is_cancelled():
                    raise Cancelled
                time.sleep(0.02)
        if what == "stuck":
            time.sleep(1000)
        if what == "print":
            print("a library prints")
            os.write(1, b"and so does C code\\n")
            os.system("echo and a child")
        if what == "flood":
            for step in range(100001):
                reporter.progress("Animating", step, 100000, "s", None)
        if what == "exit":
            sys.exit(5)
        if what == "nan":
            return {"loss": float("nan")}
        if what == "path":
            return {"path": {1, 2}}
        if what == "long report":
            return {"warnings": ["x" * 3_000_000] * 2}
        if what == "long error":
            raise UserError("я" * 3_000_000)
        if what == "long bug":
            raise KeyError("\\ud800" * 1_000_000)
        if what == "long texts":
            reporter.status("x" * 5_000_000)
            reporter.warn("\\ud800" * 1_000_000)
            reporter.progress("x" * 5_000_000, 1, 1, "x" * 5_000_000, None)
            raise UserError("Enough.")
        errors = {"UserError": UserError("Choose another sound."), "MemoryError": MemoryError(),
                  "KeyboardInterrupt": KeyboardInterrupt(), "bug": ZeroDivisionError("bug"),
                  "import": ModuleNotFoundError("No module named 'torch'"),
                  "RecursionError": RecursionError(),
                  "threads": RuntimeError("can't start new thread"),
                  "fork": OSError(11, "Resource temporarily unavailable"),
                  "files": OSError(24, "Too many open files"),
                  "disk": OSError(28, "No space left on device"),
                  "allocator": RuntimeError("DefaultCPUAllocator: not enough memory: x")}
        if what in errors:
            raise errors[what]
        reporter.status("Working")
        reporter.warn("Careful.")
        return {"ok": True}

server._load_worker = Worker
server.serve(checkpoint=sys.argv[1] if len(sys.argv) > 1 else "")
"""


class Service:
    def __init__(self, tmp_path, *arguments, command=(sys.executable, "-c", STUB)):
        self.log = tmp_path / "log.txt"
        command = [*command, *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log)  # fmt: skip
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def send(self, **message):
        self.send_bytes(json.dumps(message).encode() + b"\n")

    def send_bytes(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def generate(self, job, text=""):
        self.send(type="generate", job=job, head="h", audio="a", out="o", fps_numerator=24,
                  fps_denominator=1, options={"text": text})  # fmt: skip

    def next(self, timeout=120):
        return self.lines.get(timeout=timeout)

    def until(self, *types):
        messages = [self.next()]
        while messages[-1]["type"] not in types:
            messages.append(self.next())
        return messages


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.process.kill()
    service.process.wait()
    service.process.stdin.close()
    service.reader.join(60)
    service.process.stdout.close()


def test_hello_comes_first_and_jobs_end_one_after_the_other(service):
    hello = service.next()
    assert hello["type"] == "hello"
    assert hello["pid"] == service.process.pid
    for job in ("1", "2", "ä 3"):
        service.generate(job)
    for job in ("1", "2", "ä 3"):
        messages = service.until(*FINAL)
        assert [m["type"] for m in messages] == ["status", "status", "warning", "result"]
        assert {m["job"] for m in messages} == {job}
    assert messages[-1]["report"] == {"ok": True}


def test_a_checkpoint_that_cannot_be_loaded_ahead_does_not_end_the_service(tmp_path):
    service = Service(tmp_path, "damaged")
    assert service.next()["type"] == "hello"
    service.generate("1")
    assert service.until(*FINAL)[-1]["type"] == "result"
    service.process.stdin.close()
    assert service.process.wait(60) == 0
    assert "no such checkpoint" in service.log.read_text()
    service.process.stdout.close()


@pytest.mark.parametrize(
    ("what", "words"),
    [("UserError", "Choose another sound."), ("MemoryError", "not enough memory"),
     ("bug", "log"), ("exit", "log"), ("nan", "log"), ("path", "log"), ("RecursionError", "log"),
     ("import", "Repair"), ("threads", "threads"), ("fork", "threads"), ("files", "open files"),
     ("disk", "disk is full"), ("allocator", "not enough memory"), ("long error", "яя"),
     ("long bug", "log"), ("long texts", "Enough")],
)  # fmt: skip
def test_every_failure_is_one_error_and_the_next_job_works(service, what, words):
    service.next()
    service.generate("1", what)
    service.generate("2")
    messages = service.until(*FINAL)
    assert messages[-1]["type"] == "error"
    assert words in messages[-1]["message"]
    assert "\n" not in messages[-1]["message"]
    assert "Traceback" in messages[-1]["detail"]
    assert len(messages[-1]["message"]) <= 1000
    messages = service.until(*FINAL)
    assert [m["type"] for m in messages] == ["status", "status", "warning", "result"]
    if what != "UserError":
        assert "Traceback" in service.log.read_text()


def test_a_report_of_megabytes_loses_its_middle(service):
    service.next()
    service.generate("1", "long report")
    result = service.until(*FINAL)[-1]
    assert result["type"] == "result"
    assert result["report"]["warnings"][0].startswith("xxx")


def test_the_log_has_no_spoken_words(service):
    service.next()
    service.generate("1", "what was spoken")
    service.until(*FINAL)
    log = service.log.read_text()
    assert "what was spoken" not in log
    assert "15 letters" in log


def test_300_jobs_take_no_more_memory_threads_or_files(service):
    service.next()

    def used():
        folder = Path(f"/proc/{service.process.pid}")
        if not folder.exists():
            return None
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return int(status["VmRSS"].split()[0]), status["Threads"], len(list(folder.glob("fd/*")))

    for number in range(301):
        service.generate(str(number), ("", "bug", "UserError", "nan")[number % 4])
        service.until(*FINAL)
        if number == 100:
            before = used()
    if before is not None:
        after = used()
        assert after[0] < before[0] + 3000  # kB
        assert after[1:] == before[1:]


def test_an_interrupt_inside_a_job_cancels_it(service):
    service.next()
    service.generate("1", "KeyboardInterrupt")
    assert service.until(*FINAL)[-1] == {"type": "cancelled", "job": "1"}


def test_prints_of_libraries_do_not_reach_the_messages(service):
    service.next()
    service.generate("1", "print")
    assert [m["type"] for m in service.until(*FINAL)] == ["status", "status", "warning", "result"]
    log = service.log.read_text()
    for line in ("a library prints", "and so does C code", "and a child"):
        assert line in log


def test_cancel_ends_the_running_job_and_no_other(service):
    service.next()
    service.generate("1", "slow")
    service.generate("2")
    service.until("progress")
    service.send(type="cancel", job="unknown")
    service.send(type="cancel", job="1")
    assert service.until(*FINAL)[-1] == {"type": "cancelled", "job": "1"}
    assert service.until(*FINAL)[-1]["type"] == "result"


def test_cancel_of_a_waiting_job_ends_it_when_its_turn_comes(service):
    service.next()
    service.generate("1", "slow")
    service.generate("2")
    service.send(type="cancel", job="2")
    service.send(type="cancel", job="1")
    assert service.until(*FINAL)[-1] == {"type": "cancelled", "job": "1"}
    assert service.until(*FINAL) == [{"type": "cancelled", "job": "2"}]


def test_cancel_of_a_job_that_ended_is_ignored(service):
    service.next()
    service.generate("1")
    service.until(*FINAL)
    service.send(type="cancel", job="1")
    service.generate("1")
    messages = service.until(*FINAL)
    assert messages[-1]["type"] == "result"


GENERATE = {
    "type": "generate", "job": "7", "head": "h", "audio": "a", "out": "o", "fps_numerator": 24,
    "fps_denominator": 1,
}  # fmt: skip
MEGABYTES = 3_000_000


def changed(**values):
    return json.dumps({**GENERATE, **values}).encode()


def with_number(number):
    return changed(gain=1).replace(b'"gain": 1', b'"gain": ' + number)


def nested(depth):
    return changed(num_frames=1).replace(b'"num_frames": 1', b'"num_frames": ' + b"[" * depth
                                         + b"]" * depth)  # fmt: skip


# Lines, and the job of the error that each is answered with; None where there may be none.
HOSTILE = {
    "text": (b"not json", ""),
    "array": (b"[1, 2]", ""),
    "number": (b"12", ""),
    "string": (b'"generate"', ""),
    "null": (b"null", ""),
    "true": (b"true", ""),
    "empty object": (b"{}", ""),
    "empty": (b"", None),
    "spaces": (b"  \t \r", None),
    "cut in the middle": (changed()[:40], ""),
    "cut before the end": (changed()[:-1], ""),
    "end alone": (changed()[40:], ""),
    "two in a line": (changed() + changed(), ""),
    "single quotes": (b"{'type': 'cancel', 'job': '7'}", ""),
    "comment": (b"// " + changed(), ""),
    "trailing comma": (b'{"type": "cancel", "job": "7",}', ""),
    "no quotes": (b"{type: cancel}", ""),
    "not utf-8": (b"\xff\xfe\x00", ""),
    "utf-8 cut": (b'{"job": "\xe4', ""),
    "utf-8 cut in a name": (b'{"type": "cancel", "job": "\xc3"}', ""),
    "latin-1": ('{"type": "cancel", "job": "ä"}'.encode("latin-1"), ""),
    "utf-16": (changed().decode().encode("utf-16"), ""),
    "utf-16-le": (changed(type="x").decode().encode("utf-16-le"), ""),
    "utf-32": (changed(type="x").decode().encode("utf-32"), ""),
    "byte order mark": (b"\xef\xbb\xbf" + changed(type="x"), ""),
    "zero bytes": (b"\x00" * 1000, ""),
    "zero byte inside": (changed().replace(b"7", b"\x00"), ""),
    "control characters": (bytes(range(1, 10)), ""),
    "escape sequences": (b"\x1b[2J\x1b[31m", ""),
    "delete": (b"\x7f" * 10, ""),
    "random bytes": (random.Random(0).randbytes(100_000).replace(b"\n", b""), ""),
    "megabytes of random bytes": (random.Random(1).randbytes(MEGABYTES).replace(b"\n", b""), ""),
    "megabytes of text": (b"x" * MEGABYTES, ""),
    "more than a line may have": (b"x" * (MAX_LINE_BYTES + 1), ""),
    "megabytes of spaces": (b" " * MEGABYTES, None),
    "NaN": (with_number(b"NaN"), ""),
    "infinity": (with_number(b"-Infinity"), ""),
    "1e999": (with_number(b"1e999"), "7"),
    "-1e999": (with_number(b"-1e999"), "7"),
    "5,000 digits": (with_number(b"1" * 5000), ""),
    "4,000 digits": (with_number(b"1" * 4000), "7"),
    "leading zero": (with_number(b"007"), ""),
    "hexadecimal": (with_number(b"0x10"), ""),
    "number as text": (with_number(b'"1"'), "7"),
    "boolean as number": (with_number(b"true"), "7"),
    "100,000 brackets": (b"[" * 100_000, ""),
    "100,000 braces": (b'{"a":' * 100_000, ""),
    "100,000 nested arrays": (nested(100_000), ""),
    **{f"{depth} nested arrays": (nested(depth), None) for depth in range(930, 1001, 5)},
    "unknown type": (b'{"type": "fly", "job": "7"}', "7"),
    "type of the other half": (b'{"type": "hello", "job": "7"}', "7"),
    "type of megabytes": (changed(type="x" * MEGABYTES), "7"),
    "type is an array": (changed(type=["x" * MEGABYTES]), "7"),
    "fields missing": (b'{"type": "generate", "job": "7"}', "7"),
    "wrong kind": (b'{"type": "generate", "job": "7", "head": 3}', "7"),
    "unknown field": (changed(extra=1), "7"),
    "unknown field of megabytes": (changed(**{"x" * MEGABYTES: 1}), "7"),
    "unknown field almost as long as a line": (changed(**{"x" * (MAX_LINE_BYTES - 200): 1}), "7"),
    "100,000 unknown fields": (changed(**{f"x{n}": 1 for n in range(100_000)}), "7"),
    "unknown field of lone surrogates": (changed(**{"\ud800" * 1000: 1}), "7"),
    "value of megabytes of the wrong kind": (changed(fps_numerator="я" * 400_000), "7"),
    "choice of megabytes": (changed(options={"device": "x" * MEGABYTES}), "7"),
    "job is missing": (b'{"type": "cancel"}', ""),
    "job is a number": (changed(job=7), ""),
    "job is an object": (changed(job={"a": 1}), ""),
    "job of megabytes": (changed(job="x" * MEGABYTES), ""),
    "job of 201 letters": (changed(job="x" * 201), ""),
    "job of megabytes of Cyrillic": (changed(job="я" * 600_000), ""),
    "job of lone surrogates, unknown type": (changed(job="\ud800", type="x"), "\ud800"),
    "job with line feeds, unknown type": (changed(job="7\n8", type="x"), "7\n8"),
    "cancel of an unknown job": (b'{"type": "cancel", "job": "nobody"}', None),
    "cancel of megabytes": (b'{"type": "cancel", "job": "' + b"x" * MEGABYTES + b'"}', ""),
    "style of the wrong kind": (changed(style="neutral"), "7"),
    "style of a wrong field": (changed(style={"kind": "file", "path": "s.json"}), "7"),
    "options is an array": (changed(options=[]), "7"),
    "the same name twice": (b'{"type": "x", "job": "6", "job": "7"}', "7"),
}  # fmt: skip


@pytest.fixture(scope="module")
def lasting_service(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("service"))
    assert service.next()["type"] == "hello"
    yield service
    service.process.stdin.close()
    assert service.process.wait(60) == 0
    service.reader.join(60)
    service.process.stdout.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_line_is_one_error_or_silence_and_the_next_job_works(lasting_service, name):
    line, job = HOSTILE[name]
    lasting_service.send_bytes(line + b"\n")
    lasting_service.generate("next")
    *errors, starting, working, warning, result = lasting_service.until("result")
    assert [m["job"] for m in (starting, working, warning, result)] == ["next"] * 4
    assert len(errors) <= 1
    if job is not None:
        assert len(errors) == 1
    for error in errors:
        assert error["type"] == "error"
        assert job is None or error["job"] == job
        assert "do not understand each other" in error["message"]
        assert 0 < len(error["detail"]) < 1000


def test_an_endless_line_is_refused_once_and_takes_no_memory(service):
    service.next()
    for _ in range(64):
        service.send_bytes(b"x" * (1 << 18))  # 16 MB
    service.send_bytes(b"\n\n  \n")
    assert service.next()["type"] == "error"
    service.generate("2")
    messages = service.until(*FINAL)
    assert [m["type"] for m in messages] == ["status", "status", "warning", "result"]
    status = Path(f"/proc/{service.process.pid}/status")
    if status.exists():
        peak = int(status.read_text().split("VmHWM:")[1].split()[0])
        assert peak < 100_000  # kB


def test_a_bad_request_with_a_running_jobs_name_does_not_end_that_job(service):
    service.next()
    service.generate("1", "slow")
    service.until("progress")
    service.send(type="fly", job="1")
    service.generate("1")  # the same name again: dropped
    service.send(type="cancel", job="1")
    finals = [m for m in service.until(*FINAL) if m["type"] in FINAL]
    assert finals == [{"type": "cancelled", "job": "1"}]
    service.generate("2")
    assert {m["job"] for m in service.until(*FINAL)} == {"2"}


def test_progress_is_throttled_but_its_end_is_sent(service):
    service.next()
    service.generate("1", "flood")
    progress = [m for m in service.until(*FINAL) if m["type"] == "progress"]
    assert len(progress) < 100
    assert progress[0]["done"] == 0
    assert progress[-1]["done"] == progress[-1]["total"] == 100000


@pytest.mark.parametrize("text", ["", "slow", "stuck"])
def test_it_ends_when_stdin_closes(service, text):
    service.next()
    if text:
        service.generate("1", text)
        time.sleep(0.3)
    started = time.monotonic()
    service.process.stdin.close()
    assert service.process.wait(60) == 0
    assert time.monotonic() - started < 30
    rest = list(iter(service.next, None))
    assert [m for m in rest if m["type"] in FINAL] == (
        [{"type": "cancelled", "job": "1"}] if text == "slow" else []
    )


def test_it_ends_when_nobody_reads_its_messages(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", STUB],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        request = {
            "type": "generate", "job": "1", "head": "h", "audio": "a", "out": "o",
            "fps_numerator": 24, "fps_denominator": 1, "options": {"text": "slow"},
        }  # fmt: skip
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        try:
            assert process.wait(60) == 1
        finally:
            process.kill()


def silent_service(stub):
    """A service whose messages nobody reads, so that the pipe fills up."""
    return subprocess.Popen([sys.executable, "-c", stub], cwd=ROOT, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip


def test_requests_are_read_and_it_ends_though_its_messages_are_not_read():
    with silent_service(STUB) as process:
        try:
            line = json.dumps({**GENERATE, "type": "fly"}).encode() + b"\n"
            for number in range(5000):  # their errors are more than the pipe holds
                process.stdin.write(line)
                if number % 1000 == 0:
                    request = {**GENERATE, "job": str(number), "options": {"text": "bug"}}
                    process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.close()
            started = time.monotonic()
            assert process.wait(60) == 0
            assert time.monotonic() - started < 10
        finally:
            process.kill()


DEAF = STUB.replace(
    "server.serve(",
    """
def fail(line):
    raise ZeroDivisionError("a bug")

server.parse = fail
server.serve(""",
)


def test_a_listener_that_dies_ends_the_process(tmp_path):
    service = Service(tmp_path, command=(sys.executable, "-c", DEAF))
    service.next()
    service.generate("1")
    assert service.process.wait(60) == 1
    assert "ZeroDivisionError: a bug" in service.log.read_text()
    service.process.stdin.close()
    service.reader.join(60)
    service.process.stdout.close()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_while_idle_ends_it(service):
    service.next()
    service.generate("1")
    service.until(*FINAL)
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(60) == 130


def test_hello_comes_before_torch_is_loaded():
    code = (
        "import sys, backend.service.server; print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert out.stdout.split() == [b"False", b"False"]


@pytest.fixture
def real_service(tmp_path):
    service = Service(tmp_path, command=(sys.executable, "-m", "backend", "serve"))
    yield service
    service.process.stdin.close()
    service.process.wait(60)
    service.reader.join(60)
    service.process.stdout.close()


def test_the_real_worker_makes_motions_styles_and_errors(
    real_service, tiny_checkpoint, demo_head_file, exemplar, tmp_path
):
    np = pytest.importorskip("numpy")
    soundfile = pytest.importorskip("soundfile")
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a b.wav", rng.normal(0, 0.1, 16000), 16000)
    assert real_service.next()["type"] == "hello"
    common = {"checkpoint": str(tiny_checkpoint), "device": "cpu"}
    request = {
        "type": "generate", "head": str(demo_head_file), "audio": str(tmp_path / "a b.wav"),
        "fps_numerator": 24000, "fps_denominator": 1001, "options": {"listen": "sound", **common},
    }  # fmt: skip
    style = {"type": "style", "exemplar": str(exemplar), "out": str(tmp_path / "s.json"), **common}
    real_service.send(**style, job="style")
    first, bad, second = tmp_path / "1.npz", tmp_path / "2.npz", tmp_path / "3.npz"
    real_service.send(
        **request,
        job="1",
        out=str(first),
        style={"kind": "file", "value": str(tmp_path / "s.json")},
    )
    real_service.send(**request, job="2", out=str(bad), style={"kind": "named", "value": "nobody"})
    real_service.send(**request, job="3", out=str(second), num_frames=12, start_seconds=0.5)
    finals = [real_service.until(*FINAL) for _ in range(4)]
    assert [messages[-1]["type"] for messages in finals] == ["result", "result", "error", "result"]
    assert "nobody" in finals[2][-1]["message"]
    assert any(m["type"] == "progress" for m in finals[1])
    with np.load(first) as motion, np.load(second) as part:
        assert motion["weights"].shape == (24, 52)
        assert part["weights"].shape == (12, 52)
        assert json.loads(str(motion["report"])) == finals[1][-1]["report"]
    assert not bad.exists()
    assert not list(tmp_path.glob("*.part"))
