# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the steps of a setup: one child process each, without a shell, polled.

The output goes to a log and is read for progress. A setup that was interrupted and is started again
takes what it had downloaded from pip's cache.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Final

from .backend_env import BUTTON, record_path, requirements_hash
from .backend_process import child_env, creation_flags
from .private_files import Log, make_folder
from .torch_setup_plan import MAX_PYTHON, MIN_PYTHON, SIZES_GB, Step, read_check

_SIZE: Final = re.compile(r"\(([\d.]+) (kB|MB|GB)\)")
_NO_NETWORK: Final = re.compile(
    r"connection|timed out|name resolution|getaddrinfo|SSLError|unreachable|ProxyError|Retrying \(",
    re.IGNORECASE,
)
_DISK_FULL: Final = "The disk is full."
_UNITS: Final = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


class Setup:
    """A running setup or check; poll it until ``is_done``.

    Attributes:
        stage: What the setup is doing.
        fraction: How much of the setup is done, 0 to 1.
        is_done: Whether the setup has ended: with an error, cancelled, or well.
        error: One sentence for the user where the setup failed; else empty.
        was_cancelled: Whether the user ended the setup.
        found: Python, devices and package versions as the check printed them.
    """

    stage: str
    fraction: float
    is_done: bool
    error: str
    was_cancelled: bool
    found: dict[str, object]

    def __init__(self, steps: Sequence[Step], *, user_dir: Path, requirements: Path,
                 log_path: Path) -> None:  # fmt: skip
        """Prepare the log; the first poll starts the first step.

        Args:
            steps: Child processes in order; a single one is a check and keeps the record.
            user_dir: The extension's user folder.
            requirements: File with the pinned requirements, for the record.
            log_path: File that takes the output of all steps.
        """
        self.stage = "Starting"
        self.fraction = 0.0
        self.is_done = False
        self.error = ""
        self.was_cancelled = False
        self.found = {}
        self._steps = list(steps)
        self._number = -1
        self._user_dir = user_dir
        self._requirements = requirements
        self._tail: list[str] = []
        self._downloaded = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._cancelled = False
        make_folder(user_dir)
        self._log_file = Log(log_path)
        self._log(f"{time.ctime()}, {platform.platform()}")
        if len(self._steps) > 1:
            record_path(user_dir).unlink(missing_ok=True)

    def poll(self, *, wait: float = 0.0) -> None:
        """Read what the running step has printed; start the next when it has ended."""
        if self.is_done:
            return
        if self._process is None:
            self._start_next()
            return
        deadline = time.monotonic() + 0.05
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=wait) if wait > 0 else self._lines.get_nowait()
            except Empty:
                break
            wait = 0.0
            if line is None:
                self._end_step()
                return
            self._read(line)

    def cancel(self) -> None:
        """End the running step at once; what was downloaded is kept."""
        self._cancelled = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End everything now, in whatever state."""
        self.cancel()
        if self._process is not None:
            self._process.wait()
        self.is_done = True
        self._log_file.close()

    def _start_next(self) -> None:
        self._number += 1
        if self._cancelled:
            self.is_done = self.was_cancelled = True
        elif self._number == len(self._steps):
            self._finish()
        else:
            self._start(self._steps[self._number].command)

    def _start(self, command: Sequence[str]) -> None:
        step = self._steps[self._number]
        self.stage, self._downloaded, self._tail = step.title, 0.0, []
        temporary = self._user_dir / "pip-temp"
        temporary.mkdir(parents=True, exist_ok=True)
        extra = {
            "PIP_CACHE_DIR": str(self._user_dir / "pip-cache"),
            "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary),
        }  # fmt: skip
        self._log("$ " + " ".join(command))
        try:
            self._process = subprocess.Popen(
                list(command),
                cwd=step.folder or self._user_dir,
                env=child_env(extra),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                creationflags=creation_flags(),
            )
        except OSError as error:
            self._fail(f"{command[0]} cannot be started: {error.strerror or error}")
            return
        if self._process.stdout is None:
            raise RuntimeError("the process has no pipe")
        self._lines = SimpleQueue()
        args = (self._process.stdout, self._lines)
        threading.Thread(target=_read_lines, args=args, daemon=True).start()

    def _read(self, line: str) -> None:
        line = line.rstrip()
        self._log(line)
        self._tail = [*self._tail[-30:], line]
        step = self._steps[self._number]
        if line.startswith("{"):
            self.found = read_check(line) or self.found
        elif line.startswith(("Collecting ", "Downloading ", "Processing ")):
            if size := _SIZE.search(line):
                self._downloaded += float(size[1]) * _UNITS[size[2]]
            self.stage = f"{step.title}: {_package(line)}"
        elif line.startswith("Installing collected"):
            self.stage = f"{step.title}: unpacking"
            self._downloaded = float("inf")
        total = SIZES_GB['CPU'][0] * 1e9
        before = sum(s.share for s in self._steps[: self._number])
        self.fraction = before + step.share * min(0.9, self._downloaded / total)

    def _end_step(self) -> None:
        if self._process is None:
            raise RuntimeError("no step is running")
        code = self._process.wait()
        self._process = None
        step = self._steps[self._number]
        if self._cancelled:
            self.is_done = self.was_cancelled = True
        elif code == 0 or step.if_failed:
            if code != 0:
                self._log(step.if_failed)
            self.fraction = sum(s.share for s in self._steps[: self._number + 1])
        else:
            reason = _explain(self._tail, code=code, title=step.title)
            self._fail(step.refusal if step.refusal and _DISK_FULL not in reason else reason)

    def _finish(self) -> None:
        record = {**self.found, "requirements": requirements_hash(self._requirements)}
        partial = record_path(self._user_dir).with_suffix(".part")
        partial.write_text(json.dumps(record, indent=1), "utf-8")
        partial.replace(record_path(self._user_dir))
        for name in ("pip-cache", "pip-temp"):
            shutil.rmtree(self._user_dir / name, ignore_errors=True)
        self.fraction, self.is_done = 1.0, True

    def _fail(self, reason: str) -> None:
        self._log(reason)
        self.error, self.is_done = reason, True

    def _log(self, line: str) -> None:
        self._log_file.write((line + "\n").encode("utf-8", "replace"))


def _package(line: str) -> str:
    """``torch`` from ``Downloading torch-2.13.0-cp311-....whl (190 MB)``, or a similar line."""
    word = line.split()[1].rpartition("/")[2]
    return re.split(r"[-=<>;\[(]", word, maxsplit=1)[0]


def _explain(tail: Sequence[str], *, code: int, title: str) -> str:
    """What went wrong in one sentence with the remedy, from a step's last lines."""
    text = "\n".join(tail)
    if "No space left" in text or "Errno 28" in text:
        return f"{_DISK_FULL} Make room and press {BUTTON} again."
    if "ensurepip" in text:
        return (
            "This Python cannot make environments. On Debian and Ubuntu install python3-venv, or "
            "choose another Python in the preferences."
        )
    # Before the next one: where there is no network pip says at last that it found no package.
    if _NO_NETWORK.search(text):
        return f"There is no network, or it broke off. Check it and press {BUTTON} to go on."
    if "No matching distribution" in text:
        return (
            "A package was not found for this Python. Choose a Python from "
            f"{'.'.join(map(str, MIN_PYTHON))} to {'.'.join(map(str, MAX_PYTHON))} "
            "in the preferences, or another folder of wheels."
        )
    if "DO NOT MATCH THE HASHES" in text:
        return f"A package was not served as it is pinned. Press {BUTTON} to try again."
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    return f"{title} failed (status {code}{', ' + last[:160] if last else ''}). See the setup log."


def _read_lines(stream: IO[str], lines: SimpleQueue[str | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)
