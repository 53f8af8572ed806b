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
import tracemalloc
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


# ---- lists from elsewhere, and entries that are no jobs

WINDOWS = {
    "utf-8": "utf-8", "utf-8 with a mark": "utf-8-sig", "utf-16": "utf-16",
    "utf-16 of Windows": "utf-16-le with a mark",
}  # fmt: skip


@pytest.mark.parametrize("encoding", WINDOWS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lists_that_were_written_on_windows_are_read(tmp_path, encoding, line_end):
    entries = [{"audio": "ä 日.wav", "out": "a.npz"}, {"audio": "b.wav", "out": "b.npz"}]
    text = json.dumps(entries, indent=1, ensure_ascii=False).replace("\n", line_end)
    mark, codec = "", WINDOWS[encoding]
    if codec.endswith("with a mark"):
        mark, codec = "\ufeff", "utf-16-le"
    (tmp_path / "jobs.json").write_bytes((mark + text).encode(codec))
    assert job_list.read_list(tmp_path / "jobs.json") == entries


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"3", b"[3]", b"[{]", b"[" * 100_000, b'["a.wav"]', b"\xe4", b"\xff\xfe",
     b'[{"fps": ' + b"1" * 5000 + b"}]", "[{}]".encode("utf-16-be")[:-1]],
)  # fmt: skip
def test_files_that_are_no_lists_are_one_sentence(tmp_path, content):
    (tmp_path / "jobs.json").write_bytes(content)
    with pytest.raises(job_list.UserError) as caught:
        job_list.read_list(tmp_path / "jobs.json")
    assert "jobs.json" in str(caught.value)


@pytest.mark.skipif(os.sep != "/", reason="backslashes are separators")
def test_backslashes_of_windows_count_as_slashes_unless_a_file_is_named_so(tmp_path):
    (tmp_path / "sub").mkdir()
    entries = write_sounds(tmp_path / "sub", 1)
    (tmp_path / "odd\\name.wav").write_bytes(b"")
    jobs = JobList(
        [{"audio": "sub\\0.wav", "out": "sub\\0.npz"}, {"audio": "odd\\name.wav", "out": "1.npz"}],
        tmp_path, defaults={"head": str(HEAD)},
    )  # fmt: skip
    first, second = (job.request for job in (*jobs.group(1), *jobs.group(1)))
    assert (first.audio, first.out) == tuple(
        str(tmp_path / "sub" / entries[0][key]) for key in ("audio", "out")
    )
    assert second.audio == str(tmp_path / "odd\\name.wav")


def planned(entries, folder):
    """Sounds of the jobs to do, and why the other entries are none."""
    jobs = JobList(entries, folder, defaults={"head": str(HEAD)})
    names = []
    while group := jobs.group(1):
        names += [Path(job.request.audio).name for job in group]
    return names, [reason for _, reason in jobs.finish(0.0).failed]


def test_keys_may_have_hyphens_as_flags_have(tmp_path):
    entries = write_sounds(tmp_path, 2)
    entries[0]["style-strength"] = 0.25
    jobs = JobList(entries, tmp_path, defaults={"head": str(HEAD)})
    assert jobs.group(1)[0].request.options.style_strength == 0.25
    entries[0]["style_strength"] = 0.5
    names, reasons = planned(entries, tmp_path)
    assert names == ["1.wav"]
    assert reasons[0].startswith("Unknown: style-strength.")


BAD = {
    "an out of 300 letters": {"out": "x" * 300},
    "an out of 100,000 letters": {"out": "x" * 100_000},
    "an out with a lone surrogate": {"out": "\ud800.npz"},
    "an out with a zero byte": {"out": "\0.npz"},
    "an out in no folder": {"out": "none/a.npz"},
    "an out that is a folder": {"out": "."},
    "an out that is a number": {"out": 3},
    "no out": {"out": None},
    "a style of 300 letters": {"style": "x" * 300 + ".json"},
    "a deep topology": {"topology": {"a": [[[[]]]]}},
    "frames of 4,000 digits": {"fps": 10**4000},
    "frames of no number": {"fps": float("nan")},
    "an endless gain": {"gain": float("inf")},
    "an unknown key of a megabyte": {"x" * 1_000_000: 1},
    "an unknown key with a line feed": {"a\nb": 1},
    "a text of a million letters": {"text": "x" * 1_000_000},
    "a text file of 300 letters": {"text_file": "x" * 300},
    "an unknown device": {"device": "abacus"},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_entry_fails_alone_with_a_sentence(tmp_path, name):
    entries = write_sounds(tmp_path, 3, seconds=0.2)
    entries[1] |= BAD[name]
    names, reasons = planned(entries, tmp_path)
    assert names == ["0.wav", "2.wav"]
    assert len(reasons) == 1
    assert "\n" not in reasons[0]
    assert "understood" not in reasons[0]
    assert len(reasons[0]) < 1000


@pytest.mark.parametrize("key", ["audio", "head", "style", "checkpoint", "topology"])
@pytest.mark.parametrize("value", ["\ud800", "x" * 300, "x" * 100_000, "\0", "a\nb"])
def test_odd_names_of_inputs_do_not_end_the_planning(tmp_path, key, value):
    entries = write_sounds(tmp_path, 3, seconds=0.2)
    entries[1][key] = value
    jobs = JobList(entries, tmp_path, defaults={"head": str(HEAD)})
    names = []
    while group := jobs.group(1):
        names += [Path(job.request.audio).name for job in group]
        assert all(len(job.name) < 120 for job in group)
    assert {"0.wav", "2.wav"} <= set(names)
    assert len(names) + len(jobs.finish(0.0).failed) == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_with_a_line_feed_is_made_and_told_in_one_line(tiny_checkpoint, tmp_path, capsys):
    entries = write_sounds(tmp_path, 1)
    (tmp_path / "0.wav").rename(tmp_path / "a\nb [1]*.wav")
    entries = [
        {"audio": "a\nb [1]*.wav", "out": "a\nb [1]*.npz"},
        {"audio": "c\n\x1b[2J", "out": "d"},
    ]
    (tmp_path / "a\nb [1]*.npz.0123abcd.part").write_bytes(b"left by a run that was killed")
    assert run(tmp_path, entries, tiny_checkpoint) == 1
    assert run(tmp_path, entries, tiny_checkpoint) == 1
    out, errors = capsys.readouterr()
    assert "1 made, 0 there before, 1 failed" in out
    assert "0 made, 1 there before, 1 failed" in out
    assert len([line for line in errors.splitlines() if line.startswith("error: job 2 (c")]) == 2
    assert "\x1b" not in errors
    assert motions.read(tmp_path / "a\nb [1]*.npz").report["key"]
    assert not list(tmp_path.glob("*.part"))


def test_two_jobs_for_one_output_by_any_spelling_are_one_job(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    spellings = ["a.npz", "./a.npz", "sub/../a.npz", str(tmp_path / "a.npz")]
    if os.name != "nt":
        (tmp_path / "link").symlink_to(tmp_path)
        spellings += ["link/a.npz", "sub\\..\\a.npz"]
    entries = [{"audio": "0.wav", "out": out} for out in spellings]
    names, reasons = planned(entries, tmp_path)
    assert names == ["0.wav"]
    assert all(reason.startswith("Another job of the list writes") for reason in reasons)
    entries = [{"audio": "0.wav", "out": out} for out in ("ä.npz", "Ä.npz", "A\u0308.npz")]
    if sys.platform == "linux":
        assert len(planned(entries, tmp_path)[0]) == 3
    monkeypatch.setattr(job_list.sys, "platform", "darwin")
    assert len(planned(entries, tmp_path)[0]) == 1


def test_a_worker_that_cannot_load_its_model_fails_its_jobs_only(tmp_path, monkeypatch):
    from backend.service.batch import list_worker

    def fail(*_arguments, **_options):
        raise RuntimeError("can't start new thread")

    jobs = JobList(write_sounds(tmp_path, 2), tmp_path, defaults={"head": str(HEAD)})
    worker = list_worker.ListWorker()
    monkeypatch.setattr(worker._worker, "predictor", fail)
    outcomes = worker.do([*jobs.group(1), *jobs.group(1)])
    assert [outcome.number for outcome in outcomes] == [0, 1]
    assert all("no more memory, threads" in outcome.error for outcome in outcomes)


def test_2000_jobs_are_planned_in_flat_memory(tmp_path):
    write_sounds(tmp_path, 1, seconds=0.2)
    entries = [{"audio": "0.wav", "out": f"{number}.npz"} for number in range(2000)]
    jobs = JobList(entries, tmp_path, defaults={"head": str(HEAD)})
    tracemalloc.start()
    sizes = []
    while group := jobs.group(2):
        for job in group:
            jobs.take(job, JobOutcome(job.number, ""), may_retry=False)
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert jobs.num_ended == 2000
    assert sizes[-1] - sizes[len(sizes) // 4] < 2_000_000


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_run_killed_anywhere_and_started_again_makes_each_result_once(tiny_checkpoint, tmp_path):
    count, rng = 40, np.random.default_rng(0)
    (tmp_path / "jobs.json").write_text(json.dumps(write_sounds(tmp_path, count, seconds=1.0)))
    command = [sys.executable, "-m", "backend", "generate", "--jobs", tmp_path / "jobs.json",
               "--head", HEAD, "--listen", "sound", "--device", "cpu", "--checkpoint",
               tiny_checkpoint, "--workers", "2"]  # fmt: skip

    def there():
        paths = [tmp_path / f"{number}.npz" for number in range(count)]
        return {path.name: path.stat().st_mtime_ns for path in paths if path.exists()}

    for _ in range(3):
        before = there()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with process:
            while len(there()) == len(before) and process.poll() is None:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
        time.sleep(0.5)  # its workers end with it
        after = there()
        assert all(after[name] == before[name] for name in before)
        for name in after:
            motions.read(tmp_path / name)
    kept = there()
    made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert f"{count - len(kept)} made, {len(kept)} there before, 0 failed" in made.stdout
    assert all(there()[name] == kept[name] for name in kept)
    assert not list(tmp_path.glob("*.part"))


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
