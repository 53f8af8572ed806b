# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault matrix, part 2: folders, logs, clocks, disks, memory, two Blenders on one folder."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import bpy
import numpy as np
import pytest

from tests.blender.faulty import open_files

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and locks of POSIX")
DAY = 86_400
CANNOT_MAKE = "PTalker cannot make a folder for the job's files in"
CANNOT_WRITE = "The job's files cannot be written to"
BUG = "Something went wrong inside the add-on. The system console has more."


@pytest.fixture
def user_dir(addon, monkeypatch, tmp_path):
    """A folder of its own for everything that the add-on writes; none is there yet."""
    folder = tmp_path / "user" / "ptalker"
    monkeypatch.setattr(addon.paths, "user_dir", lambda: folder)
    return folder


@pytest.fixture
def fresh(addon):
    """No backend runs yet, so that the next job starts one."""
    addon.backend_job.release_backend(grace_seconds=0)


@pytest.fixture
def other_blender():
    """Another process that works in a job's folder; it is ended with the test."""
    started = []

    def work_in(folder):
        code = """
            import fcntl, os, sys, time
            os.makedirs(sys.argv[1], exist_ok=True)
            lock = os.open(sys.argv[1] + "/lock", os.O_RDWR | os.O_CREAT)
            fcntl.flock(lock, fcntl.LOCK_EX)
            print("locked", flush=True)
            time.sleep(600)
        """
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", textwrap.dedent(code), str(folder)],
            stdout=subprocess.PIPE, text=True)  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield work_in
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def failing(code):
    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return fail


def raising(error):
    def fail(*_args, **_kwargs):
        raise error

    return fail


def expect_failure(faulty, *parts):
    before = faulty.snapshot()
    kind, text, _ = faulty.generate()
    assert kind == 'FAILED', text
    for part in parts:
        assert part in text, text
    assert "Traceback" not in text
    assert "\n" not in text
    assert len(text) < 1500
    assert faulty.snapshot() == before
    return text


# Folders that are not what they should be


@pytest.mark.parametrize("name", ["user", "user/ptalker", "user/ptalker/jobs"])
@pytest.mark.parametrize("kind", ["file", "dangling link", "pipe"])
def test_something_else_is_in_the_place_of_a_folder(faulty, user_dir, tmp_path, name, kind):
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    make = {"file": place.touch, "dangling link": lambda: place.symlink_to("nowhere"),
            "pipe": lambda: os.mkfifo(place)}  # fmt: skip
    make[kind]()
    faulty.mode("ok")
    expect_failure(faulty, CANNOT_MAKE, "Remove what is in its place")
    place.unlink()
    faulty.check_next_job()


@pytest.mark.parametrize("kind", ["folder", "folder with files"])
def test_log_cannot_be_written(faulty, addon, fresh, user_dir, kind):
    log = addon.paths.backend_log()
    log.mkdir(parents=True)
    if kind == "folder with files":
        (log / "x").touch()
    faulty.mode("ok")
    expect_failure(faulty, f"The backend's log {log} cannot be written: ", "try again")
    faulty.check_nothing_is_left()
    shutil.rmtree(log)
    faulty.check_next_job()


@pytest.mark.parametrize("kind", ["link to a file", "link to nothing"])
def test_log_that_is_a_link_is_replaced_and_its_target_unharmed(
    faulty, addon, fresh, user_dir, tmp_path, kind
):
    log, target = addon.paths.backend_log(), tmp_path / "target"
    log.parent.mkdir(parents=True)
    if kind == "link to a file":
        target.write_text("precious")
    log.symlink_to(target)
    faulty.expect_done("late:3 MB in the log")
    assert not log.is_symlink()
    assert target.exists() == (kind == "link to a file")
    assert not target.exists() or target.read_text() == "precious"


@pytest.mark.parametrize("which", ["job", "jobs", "user"])
@pytest.mark.parametrize("mode", ["slow", "hang"])
def test_folder_is_gone_in_the_middle_of_a_job(faulty, addon, fresh, user_dir, which, mode):
    before = faulty.snapshot()
    faulty.mode("stuck:silence" if mode == "hang" else "late:slow hello")
    job = faulty.start()
    folder = {"job": job._folder, "jobs": job._folder.parent, "user": user_dir}[which]
    shutil.rmtree(folder)
    if mode == "hang":
        until = time.monotonic() + 0.1
        faulty.poll_until(lambda: time.monotonic() > until, job)
        job.close()
        outcome = addon.job_runner._finish()
        assert outcome.kind == 'CANCELLED'
    else:
        outcome = faulty.end(job)
        assert outcome.kind == 'FAILED'
        # With the log went the reason.
        reason = "(status 1)" if which == "user" else "No such file or directory"
        assert reason in outcome.text
    assert faulty.snapshot() == before
    faulty.check_nothing_is_left()
    faulty.check_next_job()


def test_files_that_are_made_are_the_users_alone(faulty, addon, fresh, user_dir):
    umask = os.umask(0)
    try:
        faulty.mode("stuck:silence")
        job = faulty.start()
        for folder in (user_dir, addon.paths.jobs_dir(), job._folder):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(addon.paths.backend_log().stat().st_mode) == 0o600
        job.close()
        addon.job_runner._finish()
    finally:
        os.umask(umask)


# Disk and memory


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES])
def test_head_cannot_be_written(faulty, addon, monkeypatch, code):
    faulty.mode("ok")
    with monkeypatch.context() as broken:
        broken.setattr(np, "savez", failing(code))
        expect_failure(faulty, CANNOT_WRITE, os.strerror(code))
        faulty.check_nothing_is_left()
    faulty.check_next_job()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.ENAMETOOLONG])
def test_folder_cannot_be_made(faulty, addon, monkeypatch, code):
    faulty.mode("ok")
    with monkeypatch.context() as broken:
        broken.setattr(addon.job_folders, "make", failing(code))
        expect_failure(faulty, CANNOT_MAKE, os.strerror(code))
    faulty.check_next_job()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOENT])
def test_process_cannot_be_started(faulty, addon, fresh, monkeypatch, code):
    faulty.mode("ok")
    files = open_files()
    with monkeypatch.context() as broken:
        broken.setattr(subprocess, "Popen", failing(code))
        expect_failure(faulty, "The backend's Python cannot be started: " + os.strerror(code))
        faulty.check_nothing_is_left()
    assert open_files() <= files
    faulty.check_next_job()


@pytest.mark.parametrize(
    "command",
    [["/nowhere/python"], ["/"], ["/etc/hostname"], ["\0"], ["x" * 5000], ["/dev/null", "serve"]],
    ids=["missing", "folder", "no program", "NUL", "long", "device"],
)
def test_program_is_none(faulty, addon, fresh, monkeypatch, command):
    faulty.mode("ok")
    with monkeypatch.context() as broken:
        broken.setattr(addon.paths, "backend_command", lambda _settings: command)
        kind, text, _ = faulty.generate()
        assert kind == 'FAILED'
        assert "cannot be started" in text
        faulty.check_nothing_is_left()
    faulty.check_next_job()


@pytest.mark.parametrize(
    ("status", "part"),
    [("0", "(status 0)"), ("7", "(status 7)"), ("126", "(status 126)"), ("137", "memory ran out")],
)
def test_program_is_another_one_that_ends(faulty, addon, fresh, monkeypatch, status, part):
    faulty.mode("ok")
    with monkeypatch.context() as broken:
        command = ["/bin/sh", "-c", f"exit {status}"]
        broken.setattr(addon.paths, "backend_command", lambda _settings: command)
        expect_failure(faulty, part)
        faulty.check_nothing_is_left()
    faulty.check_next_job()


@pytest.mark.parametrize(
    ("place", "error", "part"),
    [
        ("motion.load", MemoryError(), "There is not enough memory to read the result."),
        ("motion.load", RuntimeError("a bug"), BUG),
        ("shape_keys.write", MemoryError(), "There is not enough memory to read the result."),
        ("shape_keys.write", ZeroDivisionError(), BUG),
        ("speech_action._replace_keys", MemoryError(), "There is not enough memory"),
        ("speech_action._replace_keys", RuntimeError("a bug"), BUG),
        ("speech_action._replace_keys", RecursionError(), BUG),
        ("numpy.savez", MemoryError(), BUG),
        ("numpy.savez", TypeError("a bug"), BUG),
        ("scene_inputs.collect", MemoryError(), BUG),
    ],
)
def test_bug_or_no_memory_inside_the_add_on(faulty, addon, monkeypatch, place, error, part):
    faulty.mode("ok")
    module, _, name = place.partition(".")
    with monkeypatch.context() as broken:
        target = np if module == "numpy" else getattr(addon, module)
        broken.setattr(target, name, raising(error))
        expect_failure(faulty, part)
    faulty.check_nothing_is_left()
    faulty.check_next_job()


def test_bug_in_the_timer_ends_the_job(faulty, addon, monkeypatch):
    faulty.mode("ok")
    before = faulty.snapshot()
    with monkeypatch.context() as broken:
        broken.setattr(addon.motion, "load", raising(RuntimeError("a bug")))
        faulty.start()
        deadline = time.monotonic() + 20
        while addon.job_runner._tick() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    state = bpy.context.window_manager.ptalker
    assert (state.result_kind, state.result_text) == ('FAILED', BUG)
    assert faulty.snapshot() == before
    faulty.check_nothing_is_left()
    faulty.check_next_job()


# What crashes left, clocks, and other Blenders


def left_folder(addon, name="0123456789ab", *, age=0.0, lock=True):
    """The folder of a job whose Blender is gone."""
    folder = addon.paths.jobs_dir() / name
    folder.mkdir(parents=True)
    (folder / "template.npz").write_bytes(b"x" * 1000)
    if lock:
        (folder / "lock").touch()
    os.utime(folder, (time.time() - age, time.time() - age))
    return folder


@pytest.mark.parametrize("age", [0, 60, DAY + 60, 400 * DAY, -60, -2 * DAY])
def test_folder_that_a_crash_left_goes_at_the_next_job(faulty, addon, user_dir, age):
    folder = left_folder(addon, age=age)
    faulty.expect_done("ok")
    assert not folder.exists()


@pytest.mark.parametrize(("age", "stays"), [(0, True), (DAY - 60, True), (DAY + 60, False),
                                            (-60, True), (-2 * DAY, False)])  # fmt: skip
def test_folder_without_a_lock_goes_after_a_day_whatever_the_clock(
    faulty, addon, user_dir, age, stays
):
    folder = left_folder(addon, age=age, lock=False)
    faulty.mode("ok")
    assert faulty.generate()[0] == 'DONE'
    assert folder.exists() == stays


@pytest.mark.parametrize("age", [0, DAY + 60, 400 * DAY, -2 * DAY])
def test_folder_of_another_blender_stays_whatever_the_clock(
    faulty, addon, user_dir, other_blender, age
):
    folder = addon.paths.jobs_dir() / "ba9876543210"
    process = other_blender(folder)
    os.utime(folder, (time.time() - age, time.time() - age))
    faulty.mode("ok")
    assert faulty.generate()[0] == 'DONE'
    assert (folder / "lock").exists()
    process.kill()  # as a crash does
    process.wait()
    faulty.expect_done("ok")
    assert not folder.exists()


@pytest.mark.parametrize("shift", [-400 * DAY, -2 * DAY, -3600, 3600, 2 * DAY, 400 * DAY])
def test_clock_is_set_in_the_middle_of_a_job(faulty, addon, fresh, user_dir, monkeypatch, shift):
    faulty.mode("late:slow hello")
    job = faulty.start()
    now = time.time
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: now() + shift)
        addon.job_folders.remove_left(addon.paths.jobs_dir())
        assert job._folder.exists()
        assert faulty.end(job).kind == 'DONE'
        faulty.check_nothing_is_left()
        faulty.check_next_job()


@pytest.mark.parametrize(
    "kind",
    ["dangling link", "link to a folder", "file", "pipe", "device link", "lock is a folder",
     "lock is a link to nothing", "deep"],
)  # fmt: skip
def test_odd_things_among_the_jobs_do_not_hinder(faulty, addon, user_dir, tmp_path, kind):
    jobs = addon.paths.jobs_dir()
    jobs.mkdir(parents=True)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    place = jobs / "odd"
    make = {
        "dangling link": lambda: place.symlink_to("nowhere"),
        "link to a folder": lambda: place.symlink_to(precious),
        "file": place.touch,
        "pipe": lambda: os.mkfifo(place),
        "device link": lambda: place.symlink_to("/dev/zero"),
        "lock is a folder": lambda: (place / "lock").mkdir(parents=True),
        "lock is a link to nothing": lambda: (
            place.mkdir(), (place / "lock").symlink_to("nowhere")),
        "deep": lambda: place.joinpath(*["d"] * 200).mkdir(parents=True),
    }  # fmt: skip
    make[kind]()
    faulty.mode("ok")
    assert faulty.generate()[0] == 'DONE'
    assert (precious / "file").exists()


def test_a_link_to_a_left_folder_is_not_followed(faulty, addon, user_dir, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "lock").touch()
    addon.paths.jobs_dir().mkdir(parents=True)
    (addon.paths.jobs_dir() / "link").symlink_to(precious)
    faulty.mode("ok")
    assert faulty.generate()[0] == 'DONE'
    assert (precious / "lock").exists()


def test_two_hundred_left_folders_go_at_once(faulty, addon, user_dir):
    for number in range(200):
        left_folder(addon, f"{number:012}")
    faulty.expect_done("ok")
    assert list(addon.paths.jobs_dir().iterdir()) == []


def test_two_blenders_tidy_up_at_the_same_time(faulty, addon, user_dir):
    jobs = addon.paths.jobs_dir()
    for number in range(100):
        left_folder(addon, f"{number:012}")
    errors = []

    def tidy():
        try:
            addon.job_folders.remove_left(jobs)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=tidy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(jobs.iterdir()) == []
    faulty.expect_done("ok")


def test_files_that_are_kept_for_a_look_stay_for_a_day(faulty, addon, user_dir, monkeypatch):
    settings = addon.preferences.Settings(keep_job_files=True)
    faulty.mode("ok")
    with monkeypatch.context() as kept:
        kept.setattr(addon.preferences, "read", lambda _: settings)
        assert faulty.generate()[0] == 'DONE'
        assert faulty.generate()[0] == 'DONE'
    folders = list(addon.paths.jobs_dir().iterdir())
    assert len(folders) == 2
    assert all((folder / "motion.npz").is_file() for folder in folders)
    for folder in folders:
        os.utime(folder, (time.time() - 2 * DAY,) * 2)
    faulty.expect_done("ok")


def test_a_file_system_without_locks_does(faulty, addon, user_dir, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(addon.job_folders, "_lock", lambda _descriptor: False)
        faulty.expect_done("ok")


def test_log_of_another_blender_is_left_alone(faulty, addon, fresh, user_dir):
    user_dir.mkdir(parents=True)
    others = user_dir / "backend-1.log"
    others.write_text("of another Blender")
    old = user_dir / "backend-2.log"
    old.touch()
    os.utime(old, (time.time() - 8 * DAY,) * 2)
    faulty.expect_done("late:words before the hello")
    assert others.read_text() == "of another Blender"
    assert not old.exists()
    assert addon.paths.backend_log().name == f"backend-{os.getpid()}.log"


def test_two_backends_on_one_folder_do_their_jobs(faulty, addon, fresh, user_dir):
    """As of two Blenders: one works on while the other starts, does a job and ends."""
    faulty.mode("late:slow hello")
    job = faulty.start()
    first, addon.backend_job._Warm.process = addon.backend_job._Warm.process, None
    running, addon.job_runner._Running.job = addon.job_runner._Running.job, None
    faulty.mode("ok")
    other = faulty.start()
    assert faulty.end(other).kind == 'DONE'
    assert job._folder.exists()
    addon.backend_job.release_backend(grace_seconds=0)
    addon.backend_job._Warm.process, addon.job_runner._Running.job = first, running
    assert faulty.end(job).kind == 'DONE'
    faulty.check_nothing_is_left()
    faulty.check_next_job()


# The child's surroundings


@pytest.mark.parametrize(
    "variable",
    ["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONSAFEPATH", "PYTHONOPTIMIZE",
     "PYTHONWARNINGS", "PYTHONEXECUTABLE", "PYTHONPLATLIBDIR", "PYTHONMALLOC", "PYTHONHASHSEED",
     "PYTHONINSPECT", "PYTHONUSERBASE", "PYTHONBREAKPOINT", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV",
     "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "GCONV_PATH",
     "OPENSSL_CONF"],
)  # fmt: skip
def test_environment_brings_nothing_into_the_backend(faulty, addon, fresh, monkeypatch, variable):
    monkeypatch.setitem(os.environ, variable, "/nowhere")  # no putenv: this process must live on
    monkeypatch.setattr(os, "environ", {**os.environ, variable: "/nowhere"})
    faulty.mode("ok")
    assert faulty.generate()[0] == 'DONE'
    pid = addon.backend_job._Warm.process._process.pid
    given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert not any(entry == f"{variable}=/nowhere".encode() for entry in given)


def test_folder_that_blender_works_in_brings_no_module(faulty, addon, fresh, monkeypatch, tmp_path):
    for name in ("json", "random", "numpy", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    faulty.expect_done("ok")
    assert not (tmp_path / "ran").exists()


# Many jobs


def figures():
    """Megabytes in memory, threads, open files and children of this process."""
    status = Path("/proc/self/status").read_text().split()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    memory = int(status[status.index("VmRSS:") + 1]) // 1024
    return memory, threading.active_count(), open_files(), len(children)


def remove_takes_before(head):
    """The Actions of the jobs before are the artist's to delete."""
    for action in tuple(bpy.data.actions):
        if action != head.data.shape_keys.animation_data.action:
            bpy.data.actions.remove(action)


def test_many_warm_jobs_leave_everything_flat(faulty, addon, head):
    """Every tenth job fails, every tenth ends the backend: PTALKER_WARM_JOBS says how many."""
    num_jobs = int(os.environ.get("PTALKER_WARM_JOBS", "60"))
    rows = []
    for number in range(num_jobs):
        faulty.mode({3: "final:error", 7: "end:status 1"}.get(number % 10, "ok"))
        kind, text, _ = faulty.generate()
        assert kind == ('FAILED' if number % 10 in (3, 7) else 'DONE'), text
        if number % 10 == 9:
            remove_takes_before(head)
            rows.append(figures())
    first, last = rows[1], rows[-1]
    sys.stdout.write(f"MB, threads, files, children: {first} after 20 jobs, {last} in the end\n")
    assert last[1:] == first[1:]
    assert last[0] < first[0] * 1.05 + 5
    assert len(head.data.shape_keys.key_blocks) == 4
    faulty.check_nothing_is_left()
