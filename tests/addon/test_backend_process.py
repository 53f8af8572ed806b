# SPDX-License-Identifier: GPL-3.0-or-later
"""The process: hello, messages, cancel, and every way in which it can go wrong."""

import io
import os
import sys
import time

import numpy as np
import pytest

from ptalker_blender import backend_process
from ptalker_blender.backend_process import BackendProcess, child_env, find_backend_root
from ptalker_blender.options import GenerateOptions
from ptalker_blender.protocol import (
    FINAL_TYPES,
    PROTOCOL_VERSION,
    Cancelled,
    GenerateRequest,
    Progress,
    Result,
    UserError,
)


@pytest.fixture
def request_of(tmp_path):
    head = tmp_path / "head.npz"
    np.savez(head, vertices=np.random.default_rng(0).random((20, 3)))

    def make(job="a", **values):
        return GenerateRequest(
            job=job,
            head=str(head),
            audio="x.wav",
            fps_numerator=24,
            fps_denominator=1,
            out=str(tmp_path / f"{job}.npz"),
            **values,
        )

    return make


def collect(process, until, seconds=10.0):
    """Messages up to the first of a type."""
    found, deadline = [], time.monotonic() + seconds
    while not any(isinstance(message, until) for message in found):
        found += process.poll(wait=0.05)
        assert time.monotonic() < deadline, found
    return found


def test_job_ends_in_a_result(start, request_of):
    process = start()
    process.send(request_of())
    messages = collect(process, Result)
    assert process.hello.protocol_version == PROTOCOL_VERSION
    assert sum(isinstance(m, Progress) for m in messages) == 4
    assert messages[-1].path.endswith("a.npz")


def test_two_jobs_use_one_process(start, request_of):
    process = start()
    for job in ("a", "b"):
        process.send(request_of(job))
        assert collect(process, Result)[-1].job == job
    assert process.is_running


def test_poll_returns_at_once_when_nothing_came(start):
    process = start("silent")
    began = time.monotonic()
    assert process.poll() == []
    assert time.monotonic() - began < 0.05


def test_poll_is_bounded_when_the_backend_floods(start, request_of):
    process = start("flood")
    process.send(request_of())
    collect(process, Progress)
    time.sleep(0.5)
    began = time.monotonic()
    assert process.poll(seconds=0.05)
    assert time.monotonic() - began < 0.2


def test_sending_never_blocks(start, request_of):
    process = start("silent")
    began = time.monotonic()
    for _ in range(5):
        process.send(request_of(options=GenerateOptions(text="word " * 100_000)))
    assert time.monotonic() - began < 1.0


def test_cancel_is_answered(start, request_of):
    process = start("slow")
    process.send(request_of())
    collect(process, Progress)
    process.cancel("a")
    assert isinstance(collect(process, Cancelled)[-1], Cancelled)


def test_death_in_the_middle_is_one_sentence_with_the_remedy(start, request_of):
    process = start("crash")
    process.send(request_of())
    with pytest.raises(UserError, match=r"stopped unexpectedly \(status 1, .*a fake crash\)\. Try"):
        collect(process, Result)
    assert not process.is_running


def test_messages_before_the_death_are_not_lost(start, request_of):
    process = start("midline")
    process.send(request_of())
    with pytest.raises(UserError):
        for _ in range(100):
            process.poll(wait=0.1)


def test_kill_by_the_system_is_taken_for_want_of_memory(start):
    process = start("slow")
    while process.hello is None:
        process.poll(wait=0.05)
    os.kill(process.hello.pid, 9)
    with pytest.raises(UserError, match="memory ran out"):
        for _ in range(100):
            process.poll(wait=0.1)


def how_it_ended(process, seconds=10.0):
    """The sentence for the user, and the longest time that a poll took on the way."""
    longest, deadline = 0.0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        began = time.monotonic()
        try:
            process.poll()
        except UserError as error:
            return str(error), max(longest, time.monotonic() - began)
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.02)
    pytest.fail("the process is still there")


def test_backend_that_closed_its_output_and_lingers_is_ended(start, request_of, monkeypatch):
    monkeypatch.setattr(backend_process, "LINGER_SECONDS", 0.5, raising=False)
    process = start("linger")
    process.send(request_of())
    text, longest = how_it_ended(process)
    assert "PTalker ended it" in text
    assert "memory" not in text
    assert longest < 0.3
    assert not process.is_running
    process._process.wait(5)  # it was killed, not left behind


def test_backend_that_ends_after_its_output_was_closed_tells_its_status(start, request_of):
    process = start("lateexit")
    process.send(request_of())
    text, longest = how_it_ended(process)
    assert "status 3" in text
    assert longest < 0.25


def test_lingering_backend_is_not_taken_for_a_running_one(start, request_of):
    process = start("linger")
    process.send(request_of())
    deadline = time.monotonic() + 10
    while process.is_running and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not process.is_running


def test_signal_is_named(start):
    process = start("slow")
    while process.hello is None:
        process.poll(wait=0.05)
    os.kill(process.hello.pid, 6)
    text, _ = how_it_ended(process)
    assert "signal SIGABRT" in text


def test_memory_that_ran_out_long_ago_is_not_the_reason(tmp_path):
    code = (
        "import sys; print('CUDA out of memory: the processor is used', file=sys.stderr);"
        "print(*['next clip'] * 5, sep='\\n', file=sys.stderr); sys.exit(1)"
    )
    process = BackendProcess([sys.executable, "-c", code], cwd=tmp_path, log_path=tmp_path / "log")
    text, _ = how_it_ended(process)
    assert "status 1, next clip" in text
    assert "memory" not in text


def test_memory_error_is_told(start, tmp_path):
    process = BackendProcess([sys.executable, "-c", "raise MemoryError"], cwd=tmp_path,
                             log_path=tmp_path / "log")  # fmt: skip
    text, _ = how_it_ended(process)
    assert "memory ran out" in text
    assert "system" not in text


def test_missing_module_asks_for_a_repair(tmp_path):
    process = BackendProcess([sys.executable, "-m", "no_such_backend"], cwd=tmp_path,
                             log_path=tmp_path / "log")  # fmt: skip
    with pytest.raises(UserError, match=r"incomplete .*Install"):
        for _ in range(100):
            process.poll(wait=0.1)


def test_program_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="cannot be started"):
        BackendProcess([str(tmp_path / "python")], cwd=tmp_path, log_path=tmp_path / "log")


@pytest.mark.parametrize("text", ["", "x" * 10, "x" * (5 << 20)])
def test_line_without_an_end_ends_with_the_process(tmp_path, text):
    code = f"import sys; sys.stdout.write('x' * {len(text)}); sys.stdout.flush(); sys.exit(3)"
    process = BackendProcess([sys.executable, "-c", code], cwd=tmp_path, log_path=tmp_path / "log")
    text, _ = how_it_ended(process)
    assert "status 3" in text


def test_lines_over_the_limit_are_dropped_and_the_next_one_is_read():
    stream = io.BytesIO(b"a\n" + b"x" * (9 << 20) + b"\nb\n" + b"y" * (4 << 20) + b"\n" + b"c")
    too_long = backend_process._TOO_LONG
    found = list(backend_process._split(stream))
    assert [line for line in found if line != too_long] == [b"a\n", b"b\n", b"c"]
    assert found.count(too_long) == 3


def test_backend_speaks_its_hello_first(start):
    process = start("start:a result first")
    text, _ = how_it_ended(process)
    assert "another program" in text
    assert not process.is_running


def test_foreign_lines_are_counted_for_each_request(start, request_of):
    process = start("line:99 lines")
    for job in ("a", "b", "c"):
        process.send(request_of(job))
        assert collect(process, Result)[-1].job == job


def test_what_a_backend_started_ends_with_it(start, request_of):
    process = start("end:child holds the output, status 3")
    process.send(request_of())
    text, _ = how_it_ended(process)
    assert "status 3" in text
    process._reader.join(5)
    assert not process._reader.is_alive()  # nobody holds the pipe any more


def test_unread_lines_wait_in_the_pipe(monkeypatch):
    monkeypatch.setattr(backend_process, "MAX_UNREAD_BYTES", 1000)
    lines = backend_process._UnreadLines()
    stream = io.BytesIO((b"x" * 99 + b"\n") * 1000)
    reader = backend_process._start_thread(backend_process._read_lines, stream, lines)
    taken = []
    while None not in taken:
        found = lines.take(5.0)
        assert 0 < len(found) <= 5
        taken += found
    assert len(taken) == 1001
    reader.join(5)


def test_reader_of_what_nobody_takes_ends_when_it_is_closed(monkeypatch):
    monkeypatch.setattr(backend_process, "MAX_UNREAD_BYTES", 1000)
    lines = backend_process._UnreadLines()
    stream = io.BytesIO((b"x" * 99 + b"\n") * 1000)
    reader = backend_process._start_thread(backend_process._read_lines, stream, lines)
    reader.join(0.1)
    assert reader.is_alive()
    lines.close()
    reader.join(5)
    assert not reader.is_alive()
    assert lines.take(0.0) == []


def test_no_hello_in_time(start, monkeypatch):
    monkeypatch.setattr(backend_process, "HELLO_SECONDS", 0.1)
    process = start("silent")
    time.sleep(0.15)
    with pytest.raises(UserError, match="did not answer"):
        process.poll()
    assert not process.is_running


def test_other_protocol_version(start):
    process = start("version")
    with pytest.raises(UserError, match=f"version {PROTOCOL_VERSION + 1} of the protocol"):
        for _ in range(100):
            process.poll(wait=0.1)


def test_another_program_is_found_out(tmp_path):
    babble = "import time\nfor i in range(200): print('hello')\ntime.sleep(60)"
    process = BackendProcess([sys.executable, "-c", babble], cwd=tmp_path,
                             log_path=tmp_path / "log")  # fmt: skip
    with pytest.raises(UserError, match="another program"):
        for _ in range(100):
            process.poll(wait=0.1)
    assert not process.is_running


@pytest.mark.parametrize("mode", ["ok", "slow"])
def test_stop_is_polite_first(start, mode):
    process = start(mode)
    while process.hello is None:
        process.poll(wait=0.05)
    process.stop()
    assert process._process.returncode == 0


def test_stop_kills_what_does_not_listen(start):
    process = start("hang")
    while process.hello is None:
        process.poll(wait=0.05)
    began = time.monotonic()
    process.stop(grace_seconds=0.3)
    assert not process.is_running
    assert time.monotonic() - began < 2


def test_backend_ends_when_its_stdin_closes(start):
    process = start()
    while process.hello is None:
        process.poll(wait=0.05)
    process._requests.put(None)
    assert process._process.wait(5) == 0


def test_child_environment_keeps_blenders_python_out(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "x")
    monkeypatch.setenv("LD_LIBRARY_PATH", "x")
    env = child_env({"TMPDIR": "y"})
    assert not {"PYTHONHOME", "LD_LIBRARY_PATH"} & env.keys()
    assert env["PYTHONNOUSERSITE"] == "1"
    assert env["TMPDIR"] == "y"


def test_backend_is_found_in_the_zip_and_in_the_repository(tmp_path):
    backend = tmp_path / "repository" / "backend"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    package = tmp_path / "repository" / "ptalker_blender"
    package.mkdir()
    assert find_backend_root(package) == tmp_path / "repository"
    assert find_backend_root(tmp_path / "repository") == tmp_path / "repository"
    with pytest.raises(UserError, match="Install the PTalker extension again"):
        find_backend_root(tmp_path)


def test_final_types_are_three():
    assert len(FINAL_TYPES) == 3
