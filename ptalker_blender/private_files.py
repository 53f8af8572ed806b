# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders and logs that nobody but the user may read; a log never grows beyond a limit."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

MAX_LOG_BYTES: Final = 1_000_000
"""A log that is longer is put aside, in place of the one put aside before."""
_OLD_SECONDS: Final = 7 * 86_400
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_BLOCK_BYTES: Final = 1 << 16


def make_folder(folder: Path) -> Path:
    """Make a folder, with those above it that are missing, for the user alone.

    Args:
        folder: The folder; one that is there already is closed to others.

    Returns:
        The folder.
    """
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        path.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    with suppress(OSError):  # a folder of another user, or a file system without permissions
        folder.chmod(_FOLDER_MODE)
    return folder


def remove_old_logs(folder: Path, pattern: str) -> None:
    """Delete the logs that nothing was written to for a week: each process has its own.

    Args:
        folder: Folder of the logs; it may be missing.
        pattern: Pattern of their names.
    """
    for path in folder.glob(pattern):
        with suppress(OSError):  # another Blender may remove it just then
            if abs(time.time() - path.lstat().st_mtime) > _OLD_SECONDS:
                path.unlink()


def old_log(path: Path) -> Path:
    """Where a log's earlier part is put aside."""
    return path.with_name(f"{path.stem}.old{path.suffix}")


class Log:
    """A log file for the user alone, of at most twice ``MAX_LOG_BYTES`` with its earlier part."""

    def __init__(self, path: Path) -> None:
        """Begin the log anew.

        Args:
            path: Its file; the folder is made where it is missing.
        """
        make_folder(path.parent)
        self._path = path
        self._size = 0
        self._file = self._open()

    def write(self, data: bytes) -> None:
        """Append bytes; a full disk costs the log, not the job."""
        with suppress(OSError, ValueError):
            if self._size + len(data) > MAX_LOG_BYTES:
                self._file.close()
                self._path.replace(old_log(self._path))
                self._file, self._size = self._open(), 0
            self._file.write(data)
            self._size += len(data)

    def close(self) -> None:
        """Close the file; what is written later is dropped."""
        with suppress(OSError):
            self._file.close()

    def _open(self) -> IO[bytes]:
        self._path.unlink(missing_ok=True)  # it may have been made readable for others
        descriptor = os.open(
            self._path,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0),
            _FILE_MODE,
        )
        return os.fdopen(descriptor, "wb", buffering=0)


def copy_to_log(stream: IO[bytes], log: Log) -> threading.Thread:
    """Write what comes from a pipe into a log, on a thread, until the pipe ends.

    Args:
        stream: Pipe that is read; it is closed in the end.
        log: Log that takes it; it is closed in the end.

    Returns:
        The running thread.
    """
    thread = threading.Thread(target=_copy, args=(stream, log), daemon=True)
    thread.start()
    return thread


def _copy(stream: IO[bytes], log: Log) -> None:
    with stream:
        while data := os.read(stream.fileno(), _BLOCK_BYTES):
            log.write(data)
    log.close()
