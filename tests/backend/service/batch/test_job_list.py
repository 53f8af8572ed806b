# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of jobs: batched in batches, taken up again, and shared out to workers that die."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import soundfile

from backend import bundled
from backend import motion as motions
from backend.cli import main as command_line
from backend.service.batch import job_list
from backend.service.batch.job_list import JobList, JobOutcome, run_list

ROOT = Path(__file__).resolve().parents[4]
HEAD = ROOT / "backend" / "demo" / "head.npz"


class ProgressReporter:
    def __init__(self):
        self.warnings, self.reports = [], []

    def warn(self, text):
        self.warnings.append(text)

    def progress(self, stage, done, total, unit, seconds_left):
        self.reports.append((done, total, unit))


def write_sounds(folder, count, seconds=1.0):
    for number in range(count):
        times = np.arange(round(16000 * (seconds + 0.2 * (number % 3)))) / 16000
        samples = 0.3 * np.sin(1500 * times) * np.sin((9 + number) * times)
        soundfile.write(folder / f"{number}.wav", samples, 16000)
    return [{"audio": f"{number}.wav", "out": f"{number}.npz"} for number in range(count)]


def run(folder, entries, checkpoint, *flags):
    path = folder / "jobs.json"
    path.write_text(json.dumps(entries))
    return command_line.main(
        ["generate", "--jobs", str(path), "--head", str(HEAD), "--listen", "sound", "--device",
         "cpu", "--checkpoint", str(checkpoint), *flags]
    )  # fmt: skip


# ---- a list that is taken up again


def test_what_is_there_is_kept_until_something_of_it_changes(tiny_checkpoint, tmp_path, capsys):
    entries = write_sounds(tmp_path, 4)
    assert run(tmp_path, entries, tiny_checkpoint) == 0
    assert capsys.readouterr().out.startswith("4 made, 0 there before, 0 failed")
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    (tmp_path / "0.npz.0123abcd.part").write_bytes(b"left by a run that was killed")
    (tmp_path / "1.npz").write_bytes(b"not a result")
    soundfile.write(tmp_path / "2.wav", np.sin(np.arange(20000) / 9), 16000)
    entries[3]["fps"] = 24
    assert run(tmp_path, entries, tiny_checkpoint) == 0
    assert capsys.readouterr().out.startswith("3 made, 1 there before, 0 failed")
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert [name for name in sorted(made) if again[name] == made[name]] == ["0.npz"]
    assert motions.read(tmp_path / "3.npz").fps == Fraction(24)
    assert not list(tmp_path.glob("*.part"))
    assert run(tmp_path, entries[:1], tiny_checkpoint, "--overwrite") == 0
    assert (tmp_path / "0.npz").stat().st_mtime_ns != made["0.npz"]


def test_results_are_made_again_after_a_repair(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    entries = write_sounds(tmp_path, 1)
    own = shutil.copytree(tiny_checkpoint, tmp_path / "own")
    phone_head = tmp_path / "phone_head.safetensors"
    shutil.copy(bundled.PHONE_HEAD, phone_head)
    monkeypatch.setattr(bundled, "PHONE_HEAD", phone_head)
    versions = dict.fromkeys(job_list.RECOGNISERS, "1.0")
    monkeypatch.setattr(bundled, "package_version", versions.get)

    def made():
        jobs = JobList(
            entries, tmp_path, defaults={"head": str(HEAD), "checkpoint": str(own)}
        )  # fmt: skip
        found = jobs.group(1)
        for job in found:
            PlayedExecutor({}).write(job)
        return len(found)

    assert (made(), made()) == (1, 0)
    phone_head.unlink()
    assert (made(), made()) == (1, 0)
    shutil.copy(bundled.CHECKPOINTS_DIR / "phone_head" / "model.safetensors", phone_head)
    assert (made(), made()) == (1, 0)
    for name in job_list.RECOGNISERS:
        versions[name] = "missing"
        assert (made(), made()) == (1, 0), name
    for name in ("model.safetensors", "config.json"):
        with (own / name).open("ab") as file:
            file.write(b" ")
        assert (made(), made()) == (1, 0), name
    (own / "styles.json").write_text("{}")
    assert (made(), made()) == (1, 0)
    os.utime(own / "model.safetensors", (1, 1))  # set up again, to the same parameters
    assert made() == 0


# ---- workers that die, played by threads


class DeadError(Exception):
    pass


class PlayedExecutor:
    """Workers that write results, and die when they come to a job they are to die at."""

    size, worker_lost, may_retry = 2, (DeadError,), False

    def __init__(self, lost_at, writes_before_dying=False):
        self.lost_at, self.writes_before_dying = lost_at, writes_before_dying
        self.written = []
        self.started = self.closed = 0

    def start_worker(self):
        self.started += 1
        return self

    def close(self):
        self.closed += 1

    def submit(self, jobs):
        future = Future()
        outcomes = []
        for job in jobs:
            dies = self.lost_at.get(job.number, 0) > 0
            if not dies or self.writes_before_dying:
                self.write(job)
                outcomes.append(JobOutcome(job.number, "", audio_seconds=1.0))
            if dies:
                self.lost_at[job.number] -= 1
                Path(job.request.out + ".89abcdef.part").write_bytes(b"unfinished")
                future.set_exception(DeadError())
                return future
        future.set_result(outcomes)
        return future

    def write(self, job):
        self.written.append(job.number)
        zeros = np.zeros((1, 1, 3), np.float32)
        motions.write(
            Path(job.request.out),
            motions.Motion(zeros[0, :, :1], zeros, ("a",), zeros[0], Fraction(30),
                           report={"key": job.key}),
        )  # fmt: skip


def played(tmp_path, executor, count=20):
    entries = write_sounds(tmp_path, count, seconds=0.2)
    reporter = ProgressReporter()
    jobs = JobList(entries, tmp_path, defaults={"head": str(HEAD), "checkpoint": "none"})
    summary = run_list(jobs, executor, reporter)
    assert not list(tmp_path.glob("*.part"))
    return summary, reporter


def test_jobs_of_a_dead_worker_are_done_again_once(tmp_path):
    executor = PlayedExecutor({3: 1, 11: 1})
    summary, reporter = played(tmp_path, executor)
    assert (summary.made, summary.failed) == (20, [])
    assert sorted(executor.written) == list(range(20))
    assert len(reporter.warnings) == 2
    assert reporter.reports[-1] == (20, 20, "files")
    assert executor.started == 4


def test_a_result_that_was_written_but_not_reported_is_not_made_again(tmp_path):
    executor = PlayedExecutor({3: 1}, writes_before_dying=True)
    summary, _ = played(tmp_path, executor)
    assert summary.made == 20
    assert sorted(executor.written) == list(range(20))


def test_a_job_that_kills_every_worker_is_given_up_and_reported(tmp_path):
    executor = PlayedExecutor({7: 99})
    summary, _ = played(tmp_path, executor)
    assert summary.made == 19
    assert [name for name, _ in summary.failed] == ["job 8 (7.wav)"]
    assert "3 times" in summary.failed[0][1]


def test_groups_shrink_towards_the_end_and_hold_one_model(tmp_path):
    entries = write_sounds(tmp_path, 9, seconds=0.2)
    for entry in entries[5:]:
        entry["device"] = "cpu"
    jobs = JobList(entries, tmp_path, defaults={"head": str(HEAD)})
    sizes = []
    while group := jobs.group(2):
        assert len({job.request.options.device for job in group}) == 1
        assert all(Path(job.request.out).is_absolute() for job in group)
        for job in group:
            jobs.take(job, JobOutcome(job.number, ""), may_retry=False)
        sizes.append(len(group))
    assert sizes == [3, 2, 1, 1, 1, 1]


# ---- a cluster


def test_ray_is_named_where_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(tmp_path, write_sounds(tmp_path, 1), "none", "--ray", "auto") == 1
    assert "requirements-cluster.txt" in capsys.readouterr().err


def descendants(pid):
    """Processes that a process started, and their command lines."""
    children, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, waiting = {}, [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found[child] = commands[child]
            waiting.append(child)
    return found


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the workers")
def test_a_ray_worker_killed_in_the_middle_costs_no_result(tiny_checkpoint, tmp_path):
    count = 31
    entries = [*write_sounds(tmp_path, count, seconds=5.0), {"audio": "no.wav", "out": "no.npz"}]
    (tmp_path / "jobs.json").write_text(json.dumps(entries))
    command = subprocess.Popen(
        [sys.executable, "-m", "backend", "generate", "--jobs", tmp_path / "jobs.json", "--head",
         HEAD, "--listen", "sound", "--device", "cpu", "--checkpoint", tiny_checkpoint, "--ray",
         "local", "--workers", "2"],
        cwd=ROOT, env=os.environ | {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        workers = []
        while len(workers) < 2 or not list(tmp_path.glob("*.npz")):
            assert command.poll() is None, command.communicate()
            time.sleep(0.02)
            lines = descendants(command.pid).items()
            workers = [pid for pid, line in lines if "ListWorker" in line]
        os.kill(workers[0], signal.SIGKILL)
        out, errors = command.communicate(timeout=300)
    finally:
        command.kill()
    assert command.returncode == 1
    assert f"{count} made, 0 there before, 1 failed" in out
    assert "A worker ended unexpectedly" in errors
    assert f"error: job {count + 1} (no.wav): The sound file" in errors
    assert {path.name for path in tmp_path.glob("*.npz*")} == {f"{n}.npz" for n in range(count)}
    for number in range(count):
        report = motions.read(tmp_path / f"{number}.npz").report
        assert Path(str(report["audio"])).name == f"{number}.wav"
