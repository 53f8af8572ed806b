# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders and logs that are the user's alone, and logs that do not grow without end."""

import os
import stat
import sys

import pytest

from ptalker_blender import private_files
from ptalker_blender.backend_process import BackendProcess
from ptalker_blender.private_files import Log, make_folder, old_log

on_posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@on_posix
def test_folders_are_made_for_the_user_alone(tmp_path):
    folder = make_folder(tmp_path / "a" / "b")
    assert mode(folder) == mode(folder.parent) == 0o700
    folder.chmod(0o755)
    assert mode(make_folder(folder)) == 0o700


@on_posix
def test_log_that_others_could_read_is_replaced(tmp_path):
    path = tmp_path / "logs" / "backend.log"
    path.parent.mkdir()
    path.write_text("of before")
    path.chmod(0o644)
    log = Log(path)
    log.write(b"new")
    log.close()
    assert path.read_text() == "new"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700


def test_log_is_put_aside_when_it_is_long(tmp_path, monkeypatch):
    monkeypatch.setattr(private_files, "MAX_LOG_BYTES", 100)
    path = tmp_path / "backend.log"
    log = Log(path)
    for number in range(50):
        log.write(f"line {number:05}\n".encode())
    log.close()
    log.write(b"after the end")
    assert path.read_text().endswith("line 00049\n")
    assert old_log(path).name == "backend.old.log"
    assert path.stat().st_size <= 100
    assert old_log(path).stat().st_size <= 100
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_process_floods_the_log_with_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(private_files, "MAX_LOG_BYTES", 200_000)
    code = "import sys\nfor i in range(20000): sys.stderr.write('x' * 99 + '\\n')\nsys.exit(7)"
    path = tmp_path / "backend.log"
    process = BackendProcess([sys.executable, "-c", code], cwd=tmp_path, log_path=path)
    process._process.wait(30)
    process._log_copy.join(10)
    assert path.stat().st_size + old_log(path).stat().st_size <= 400_000
    assert path.read_text().endswith("x\n")


def test_full_disk_costs_the_log_and_not_the_job(tmp_path):
    class Full:
        def write(self, _data):
            raise OSError(28, "No space left on device")

        def close(self):
            raise OSError(28, "No space left on device")

    log = Log(tmp_path / "backend.log")
    log._file.close()
    log._file = Full()
    log.write(b"lost")
    log.close()
