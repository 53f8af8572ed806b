# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fault matrix does in each of its cases, and what it checks afterwards."""

import threading
import time
from pathlib import Path

import bpy


class Faulty:
    """A fake backend that can be told to misbehave, and the checks."""

    def __init__(self, addon, control_file, snapshot, monkeypatch):
        self._addon = addon
        self._control_file = control_file
        self.snapshot = snapshot
        self._threads = threading.active_count()
        self._pids = set()
        self._obtain = addon.backend_job.obtain_backend
        monkeypatch.setattr(addon.backend_job, "obtain_backend", self._obtain_noted)

    def _obtain_noted(self, command):
        process = self._obtain(command)
        self._pids.add(process._process.pid)
        return process

    def mode(self, mode, *, fresh=False):
        """Tell the backend what to do with the next job, or with its start."""
        self._control_file.write_text(mode)
        if fresh:
            self._addon.backend_job.release_backend(grace_seconds=0)

    def generate(self):
        """Press the button, in scripts; returns how it ended, the sentence and the warnings."""
        try:
            bpy.ops.ptalker.generate('EXEC_DEFAULT')
        except RuntimeError as error:  # how an operator's error is told a script
            state = bpy.context.window_manager.ptalker
            said = str(error).removeprefix("Error: ").strip()
            return 'FAILED', said, tuple(entry.text for entry in state.warnings)
        state = bpy.context.window_manager.ptalker
        texts = tuple(entry.text for entry in state.warnings)
        return state.result_kind, state.result_text, texts

    def start(self):
        """The job that the button starts, polled by hand instead of by the timer."""
        addon, context = self._addon, bpy.context
        obj = context.active_object
        choices = addon.scene_inputs.choices_of(context, obj)
        inputs = addon.scene_inputs.collect(context, obj, choices)
        job = addon.lip_sync_job.generate_job(inputs, addon.preferences.read(context))
        addon.job_runner._begin(job)
        return job

    def poll_until(self, condition, job, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            job.poll()
            time.sleep(0.005)
            assert time.monotonic() < deadline, (job.stage, job.outcome)

    def end(self, job):
        """Poll a job to its end, as the timer does; returns its outcome."""
        self.poll_until(lambda: job.outcome is not None, job)
        return self._addon.job_runner._finish()

    def expect_failure(self, mode, *, fresh=False):
        """One job fails, or is cancelled by nobody, and the next works; returns the sentence."""
        self.mode(mode, fresh=fresh)
        before = self.snapshot()
        kind, text, _ = self.generate()
        assert kind != 'DONE', text
        assert self.snapshot() == before
        self.check_nothing_is_left()
        self.check_next_job()
        return text

    def expect_done(self, mode, *, fresh=False):
        """One job is done in spite of all, and the next too; returns the warnings."""
        self.mode(mode, fresh=fresh)
        kind, text, warnings = self.generate()
        assert kind == 'DONE', text
        assert text.startswith("Keyed 3 shape keys of Head from frame 10 to 57")
        self.check_nothing_is_left()
        self.check_next_job()
        return warnings

    def expect_cancelled(self, mode, *, fresh=False):
        """One job gets stuck, the user cancels it at once, and the next works."""
        self.mode(mode, fresh=fresh)
        before = self.snapshot()
        job = self.start()
        until = time.monotonic() + 0.3
        self.poll_until(lambda: time.monotonic() > until, job)
        assert job.outcome is None
        began = time.monotonic()
        assert bpy.ops.ptalker.cancel() == {'FINISHED'}
        self.poll_until(lambda: job.outcome is not None, job, seconds=5)
        assert time.monotonic() - began < 3
        outcome = self._addon.job_runner._finish()
        assert outcome.kind == 'CANCELLED'
        assert outcome.text == "Generate Lip Sync was cancelled. The scene is as it was."
        assert self.snapshot() == before
        self.check_nothing_is_left()
        self.check_next_job()

    def check_next_job(self):
        """The next job works, on the backend that is there or on a new one."""
        self.mode("ok")
        kind, text, _ = self.generate()
        assert kind == 'DONE', text
        self.check_nothing_is_left()

    def check_nothing_is_left(self):
        """No files, no processes but a backend that can take the next job, none of its threads."""
        addon = self._addon
        assert not addon.job_runner.is_running()
        assert not bpy.context.window_manager.ptalker.is_running
        assert [p for p in addon.paths.jobs_dir().glob("*") if p.is_dir()] == []
        process = addon.backend_job._Warm.process
        assert process is None or process.is_running
        kept = set() if process is None else {process._process.pid}
        deadline = time.monotonic() + 5
        while left := [pid for pid in self._pids - kept if _group_lives(pid)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
        allowed = self._threads + 3  # a reader, a writer and one for the log
        while threading.active_count() > allowed:
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.01)


def _group_lives(leader):
    """Whether a process of the group lives; one that has ended and is waited for does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            return True
    return False


def open_files():
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
