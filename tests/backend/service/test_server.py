# SPDX-License-Identifier: GPL-3.0-or-later
"""The service as a process: requests in, messages out, faults. The model is a stub here."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

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
    def predictor(self, checkpoint, device):
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
        errors = {"UserError": UserError("Choose another sound."), "MemoryError": MemoryError(),
                  "KeyboardInterrupt": KeyboardInterrupt(), "bug": ZeroDivisionError("bug"),
                  "import": ModuleNotFoundError("No module named 'torch'"),
                  "RecursionError": RecursionError()}
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
     ("import", "Repair")],
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
    messages = service.until(*FINAL)
    assert [m["type"] for m in messages] == ["status", "status", "warning", "result"]
    if what != "UserError":
        assert "Traceback" in service.log.read_text()


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


@pytest.mark.parametrize(
    ("line", "job"),
    [(b"not json", ""), (b"[1, 2]", ""), (b'{"type": "fly", "job": "7"}', "7"),
     (b'{"type": "generate", "job": "7"}', "7"), (b"\xff\xfe\x00", ""),
     (b'{"type": "generate", "job": "7", "head": 3}', "7"), (b"[" * 200_000, "")],
)  # fmt: skip
def test_bad_requests_are_refused_and_the_next_job_works(service, line, job):
    service.next()
    service.send_bytes(line + b"\n")
    refusal = service.next()
    assert (refusal["type"], refusal["job"]) == ("error", job)
    assert refusal["detail"]
    service.generate("2")
    assert service.until(*FINAL)[-1]["type"] == "result"


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
