# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault matrix, part 1: whatever a broken or foreign backend says, writes or does.

The cases are those of tests/hostile.py. Of each: the scene is as it was or as a good job leaves it,
the user reads one clear sentence, no file, thread or process stays behind, and the next job works.
"""

import os
import re
import time

import bpy
import pytest

from tests import hostile
from tests.hostile import ENDS, FINALS, GOOD_MOTIONS, LATE, LINES, MESSAGES, MOTIONS, STARTS, STUCK

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")

UNREADABLE = "The backend's result cannot be read (.*). Repair the backend"
WRONG = "The backend's result is wrong: .*. Repair the backend"
ELSEWHERE = "The backend's result is in another place than it was asked for. Install"
STOPPED = "The backend stopped unexpectedly (.*). Try again; its log tells more."
FOREIGN = "What was started as the backend is another program. Check the Python"
NO_MEMORY = "The backend ended since memory ran out. Choose a shorter sound"
KILLED = "The backend was killed by the system, most likely as memory ran out. Choose"
LINGERED = "The backend closed its connection but did not end, so PTalker ended it. Try again"
NO_HELLO = "The backend did not answer within"

EXPECTED_FINAL = {
    "error": "The sound is broken.",
    "error without a job": "Do not understand.",
    "error without a word": "The backend failed without a word; its log tells more.",
    "error is long": "eeeee",
    "error of many lines": "One sentence .",
    "error with a long detail": "Broken.",
    "error that no encoding has": "x?y",
    "error, then result": "The sound is broken.",
    "warnings, then error": "The sound is broken.",
    "cancelled though nobody asked": "Generate Lip Sync was cancelled. The scene is as it was.",
    "result that was not written": UNREADABLE,
}
EXPECTED_END = {
    "status 0": "(status 0)",
    "status 1": "(status 1)",
    "status 255": "(status 255)",
    "killed": KILLED,
    "terminated": "(signal SIGTERM)",
    "segmentation fault": "(signal SIGSEGV",
    "aborted": "(signal SIGABRT",
    "illegal instruction": "(signal SIGILL",
    "bus error": "(signal SIGBUS",
    "shell's status of a killed program": KILLED,
    "half a line, then killed": KILLED,
    "traceback": "(status 1, KeyError: 'weights')",
    "no memory in Python": NO_MEMORY,
    "no memory in C++": NO_MEMORY,
    "no memory for a process": NO_MEMORY,
    "no memory on the card": NO_MEMORY,
    "full disk": "No space left on device",
    "missing module": "No module named 'scipy'",
    "output closed, lives on": LINGERED,
    "output closed, then status 3": "(status 3)",
    "log closed, then status 3": "(status 3)",
    "child holds the output, status 3": "(status 3)",
    "line without an end": FOREIGN,
    "lines of no sense for ever": FOREIGN,
    "101 lines of no sense": FOREIGN,
}
EXPECTED_START = {
    "status 0": "(status 0)",
    "status 3": "(status 3)",
    "killed": KILLED,
    "traceback": "a fake failure at start",
    "missing module": "The backend is incomplete (.*No module named 'backend'). Install",
    "no memory": NO_MEMORY,
    "output closed": "(status 4)",
    "line without an end": FOREIGN,
    "lines of no sense": FOREIGN,
    "bytes": FOREIGN,
    "silence": NO_HELLO,
    "flood in the log": NO_HELLO,
    "a result first": FOREIGN,
    "a status first": FOREIGN,
    "older protocol": "The backend speaks version 1 of the protocol, the add-on version",
    "child holds the output": "(status 5)",
}


@pytest.fixture(autouse=True)
def impatient(addon, monkeypatch):
    monkeypatch.setattr(addon.backend_process, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(addon.backend_job, "CANCEL_SECONDS", 0.2)


def check_sentence(text, expected):
    pattern = re.escape(expected).replace(r"\.\*", ".*").replace(r"\ ", " ")
    assert re.search(pattern, text), text
    assert len(text) < 1500
    assert "\n" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("case", LINES)
def test_lines_that_are_no_messages_do_not_matter(faulty, case):
    faulty.expect_done(f"line:{case}")


@pytest.mark.parametrize("case", MESSAGES)
def test_messages_that_make_no_sense_do_no_harm(faulty, case):
    warnings = faulty.expect_done(f"message:{case}")
    assert len(warnings) <= 21
    assert all(0 < len(text) <= 1000 and "\n" not in text for text in warnings)
    if case == "20,000 warnings":
        assert warnings[-1] == "And 19,980 more warnings."


@pytest.mark.parametrize("case", FINALS)
def test_message_in_place_of_the_result(faulty, case):
    check_sentence(faulty.expect_failure(f"final:{case}"), EXPECTED_FINAL.get(case, ELSEWHERE))


@pytest.mark.parametrize("case", ENDS)
def test_end_in_the_middle_of_a_job(faulty, case):
    text = faulty.expect_failure(f"end:{case}")
    check_sentence(text, EXPECTED_END.get(case, STOPPED))


@pytest.mark.parametrize("case", STARTS)
def test_end_before_the_hello(faulty, addon, monkeypatch, case):
    if EXPECTED_START[case] is NO_HELLO:
        monkeypatch.setattr(addon.backend_process, "HELLO_SECONDS", 0.5)
    text = faulty.expect_failure(f"start:{case}", fresh=True)
    check_sentence(text, EXPECTED_START[case])


@pytest.mark.parametrize("case", LATE)
def test_hello_may_be_late_and_words_may_come_before(faulty, case):
    faulty.expect_done(f"late:{case}", fresh=True)


@pytest.mark.parametrize("case", STUCK)
def test_backend_that_is_stuck_can_be_cancelled(faulty, addon, case):
    faulty.expect_cancelled(f"stuck:{case}")


@pytest.mark.parametrize("case", ["line without an end", "silence", "flood in the log"])
def test_backend_that_is_stuck_before_its_hello_can_be_cancelled(faulty, addon, case):
    faulty.expect_cancelled(f"start:{case}", fresh=True)


def test_silence_is_said_and_taken_back(faulty, addon, monkeypatch):
    monkeypatch.setattr(addon.backend_job, "SILENT_SECONDS", 0.2)
    faulty.mode("stuck:silence")
    job = faulty.start()
    faulty.poll_until(lambda: job.stage.startswith("No sign of the backend for 1 min"), job)
    job._take(addon.protocol.Status(job=job._request.job, text="Animating"))
    assert job.stage == "Animating"
    job.close()
    addon.job_runner._finish()


def test_flood_waits_in_its_pipe_and_not_in_memory(faulty, addon):
    faulty.mode("stuck:empty messages for ever")
    job = faulty.start()
    faulty.poll_until(lambda: addon.backend_job._Warm.process.hello, job)
    time.sleep(0.5)
    lines = addon.backend_job._Warm.process._lines
    limit = addon.backend_process.MAX_UNREAD_BYTES + addon.protocol.MAX_LINE_BYTES
    assert 0 < lines._num_bytes < limit
    job.close()
    assert addon.job_runner._finish().kind == 'CANCELLED'
    faulty.check_nothing_is_left()


@pytest.mark.parametrize("case", GOOD_MOTIONS)
def test_odd_result_is_written(faulty, case):
    faulty.expect_done(f"good:{case}")
    weights = [b.value for b in bpy.context.active_object.data.shape_keys.key_blocks]
    assert len(weights) == 4


@pytest.mark.parametrize("case", MOTIONS)
def test_damaged_result_is_refused(faulty, case):
    text = faulty.expect_failure(f"motion:{case}")
    assert re.search("The backend's result (cannot be read|is wrong|is .* GB large)", text), text
    assert "Repair the backend in the preferences and try again." in text
    check_sentence(text, "")


def test_every_case_has_its_sentence():
    assert set(EXPECTED_FINAL) <= set(FINALS)
    assert set(EXPECTED_END) <= set(ENDS)
    assert set(EXPECTED_START) == set(STARTS)
    tables = (LINES, MESSAGES, FINALS, ENDS, STARTS, LATE, STUCK, GOOD_MOTIONS, MOTIONS)
    assert sum(map(len, tables)) >= 200
    assert hostile.LONG == 1 << 22
