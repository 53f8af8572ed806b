# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of the jobs' files, each locked by the Blender that works in it.

The system releases a lock when its process ends, however it ends: so what a crash left is told from
the folder of another Blender's running job without asking the clock.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from .private_files import make_folder

LOCK_NAME: Final = "lock"
FORGOTTEN_SECONDS: Final = 86_400
"""What has no lock, as folders that are kept for a look at them, is removed after this time."""


class _Mine:
    """This process's folders, with the open lock of each, and those that no job has taken yet."""

    locks: dict[Path, int] = {}
    unclaimed: set[Path] = set()


def make(jobs: Path) -> Path:
    """Make an empty folder for one job's files and lock it; its name is the job's id.

    Args:
        jobs: Folder of all jobs.

    Returns:
        The folder; it is deleted by :func:`remove`, or by :func:`remove_unclaimed`.

    Raises:
        OSError: It cannot be made.
    """
    folder = make_folder(jobs / uuid.uuid4().hex[:12])
    lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    _Mine.unclaimed.add(folder)
    if _lock(lock):
        _Mine.locks[folder] = lock
    else:  # a file system without locks
        os.close(lock)
        (folder / LOCK_NAME).unlink()
    return folder


def claim(folder: Path) -> None:
    """Say that a job has taken a folder and will delete it."""
    _Mine.unclaimed.discard(folder)


def remove(folder: Path) -> None:
    """Delete a job's folder."""
    _release(folder)
    shutil.rmtree(folder, ignore_errors=True)


def keep(folder: Path) -> None:
    """Leave a job's folder for a look at it; it is deleted a day later."""
    _release(folder)
    with suppress(OSError):
        (folder / LOCK_NAME).unlink()


def remove_unclaimed() -> None:
    """Delete the folders that were made for jobs that could not be built."""
    for folder in tuple(_Mine.unclaimed):
        remove(folder)


def remove_left(jobs: Path) -> None:
    """Delete the folders that a crash left.

    Args:
        jobs: Folder of all jobs; it may be missing.
    """
    try:
        found = tuple(jobs.iterdir())
    except OSError:
        return
    for folder in found:
        if folder not in _Mine.locks and _is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _release(folder: Path) -> None:
    _Mine.unclaimed.discard(folder)
    lock = _Mine.locks.pop(folder, None)
    if lock is not None:
        os.close(lock)


def _is_left(folder: Path) -> bool:
    """Whether nobody works in a folder."""
    try:
        if not (folder / LOCK_NAME).is_file():
            # Either way: a clock may have been set back since.
            return abs(time.time() - folder.lstat().st_mtime) > FORGOTTEN_SECONDS
        lock = os.open(folder / LOCK_NAME, os.O_RDWR)
    except OSError:  # another Blender has just removed it
        return False
    try:
        return _lock(lock)
    finally:
        os.close(lock)


def _lock(descriptor: int) -> bool:
    """Lock an open file without waiting; returns whether it was free."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
