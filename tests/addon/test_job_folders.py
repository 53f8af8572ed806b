# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a job's folder is: this process's, another one's, or nobody's any more."""

import subprocess
import sys
from pathlib import Path

import pytest

from ptalker_blender import job_folders

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def jobs(tmp_path):
    yield tmp_path / "jobs"
    job_folders.remove_unclaimed()
    for folder in tuple(job_folders._Mine.locks):
        job_folders.remove(folder)


def test_folder_is_empty_but_for_its_lock_and_goes_with_the_job(jobs):
    folder = job_folders.make(jobs)
    job_folders.claim(folder)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert folder.parent == jobs
    job_folders.remove_unclaimed()
    job_folders.remove_left(jobs)
    assert folder.exists()
    job_folders.remove(folder)
    assert not folder.exists()
    assert job_folders._Mine.locks == {}


def test_folder_of_a_job_that_could_not_be_built_goes(jobs):
    folder = job_folders.make(jobs)
    job_folders.remove_unclaimed()
    assert not folder.exists()


def test_folder_that_is_kept_is_nobodys_and_stays(jobs):
    folder = job_folders.make(jobs)
    (folder / "motion.npz").touch()
    job_folders.keep(folder)
    job_folders.remove_left(jobs)
    assert [path.name for path in folder.iterdir()] == ["motion.npz"]


def test_folder_of_a_process_that_lives_stays_and_goes_after_its_end(jobs):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from ptalker_blender import job_folders
print(job_folders.make(Path({str(jobs)!r})), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:  # fmt: skip
        folder = Path(process.stdout.readline().strip())
        job_folders.remove_left(jobs)
        assert (folder / "lock").exists()
        process.kill()
        process.wait()
        job_folders.remove_left(jobs)
        assert not folder.exists()


def test_no_folder_of_jobs_is_no_error(jobs):
    job_folders.remove_left(jobs)
