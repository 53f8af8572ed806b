# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend process: start, check its hello, send, poll, cancel, stop.

Nothing here blocks but :meth:`BackendProcess.stop`, which waits at most the grace period. One
daemon thread only reads lines into a queue, another only writes them; neither decides anything.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Final

from .protocol import (
    PROTOCOL_VERSION,
    CancelRequest,
    Hello,
    Message,
    ProtocolError,
    Request,
    UserError,
    encode,
    parse,
)

logger = logging.getLogger(__name__)

HELLO_SECONDS: Final = 60.0
STOP_SECONDS: Final = 2.0
MAX_FOREIGN_LINES: Final = 100
"""After so many lines that are no messages, what speaks is not the backend."""
LOG_TAIL_BYTES: Final = 20_000

_DROPPED: Final = (
    "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__", "LD_PRELOAD", "LD_LIBRARY_PATH",
)  # fmt: skip


def child_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child Python, without what would leak another Python into it."""
    env = {key: value for key, value in os.environ.items() if key not in _DROPPED}
    env.update(PYTHONNOUSERSITE="1", PYTHONUTF8="1", PYTHONUNBUFFERED="1")
    env.update(extra or {})
    return env


def creation_flags() -> int:
    """Windows: no console window for the child."""
    return int(getattr(subprocess, "CREATE_NO_WINDOW", 0))


def find_backend_root(package_dir: Path) -> Path:
    """The folder that holds ``backend/``: the extension's own, or the repository's.

    Raises:
        UserError: There is none.
    """
    for root in (package_dir, package_dir.resolve(), package_dir.resolve().parent):
        if (root / "backend" / "__init__.py").is_file():
            return root
    raise UserError(
        f"The folder backend is missing from {package_dir}. Install the PTalker extension again."
    )


class BackendProcess:
    """A running ``python -m backend serve``.

    Attributes:
        command: The command line it was started with.
        hello: Its first message; None until it came.
    """

    def __init__(self, command: Sequence[str], *, cwd: Path, log_path: Path) -> None:
        """Start the process; its standard error goes into the log file.

        Raises:
            UserError: The program cannot be started.
        """
        self.command = tuple(command)
        self.hello: Hello | None = None
        self._log_path = log_path
        self._started = time.monotonic()
        self._foreign_lines = 0
        self._ended = False
        log_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log_path.open("wb") as log:
                self._process = subprocess.Popen(
                    self.command,
                    cwd=cwd,
                    env=child_env(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    creationflags=creation_flags(),
                )
        except OSError as error:
            raise UserError(
                f"The backend's Python cannot be started: {error.strerror or error} "
                f"({self.command[0]}). Repair the backend in the preferences."
            ) from error
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._requests: SimpleQueue[str | None] = SimpleQueue()
        for work, *args in (
            (_read_lines, self._process.stdout, self._lines),
            (_write_lines, self._process.stdin, self._requests),
        ):
            threading.Thread(target=work, args=args, daemon=True).start()

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return not self._ended and self._process.poll() is None

    def send(self, request: Request) -> None:
        """Hand a request to the process; returns at once."""
        self._requests.put(encode(request))

    def cancel(self, job: str) -> None:
        """Ask the process to end a job."""
        self.send(CancelRequest(job=job))

    def poll(self, *, seconds: float = 0.05, wait: float = 0.0) -> list[Message]:
        """The messages that have come.

        Args:
            seconds: Stop after so long, however many there are.
            wait: Wait so long for the first one.

        Raises:
            UserError: The process ended, said no hello in time, or speaks another protocol.
        """
        messages: list[Message] = []
        deadline = time.monotonic() + seconds
        while not messages or time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=wait) if wait > 0 else self._lines.get_nowait()
            except Empty:
                break
            wait = 0.0
            if line is None:
                self._ended = True
                if messages:  # a final message may be among them
                    self._lines.put(None)
                    break
                raise UserError(self._death_notice())
            message = self._parse(line)
            if isinstance(message, Hello):
                self._check_hello(message)
            elif message is not None:
                messages.append(message)
        if self.hello is None and time.monotonic() - self._started > HELLO_SECONDS:
            self.stop(grace_seconds=0)
            raise UserError(
                f"The backend did not answer within {HELLO_SECONDS:.0f} s. "
                "Try again; if it stays so, repair the backend in the preferences."
            )
        return messages

    def stop(self, *, grace_seconds: float = STOP_SECONDS) -> None:
        """End the process: politely by closing its stdin, after the grace period by force."""
        self._requests.put(None)
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._ended = True

    def _parse(self, line: bytes) -> Message | None:
        try:
            return parse(line)
        except ProtocolError as error:
            logger.warning("The backend's line is no message: %s", error)
            self._foreign_lines += 1
            if self._foreign_lines > MAX_FOREIGN_LINES:
                self.stop(grace_seconds=0)
                raise UserError(
                    "What was started as the backend is another program. "
                    "Check the Python that is set in the preferences."
                ) from error
            return None

    def _check_hello(self, hello: Hello) -> None:
        if hello.protocol_version != PROTOCOL_VERSION:
            self.stop(grace_seconds=0)
            raise UserError(
                f"The backend speaks version {hello.protocol_version} of the protocol, the add-on "
                f"version {PROTOCOL_VERSION}. Install the PTalker extension again."
            )
        self.hello = hello

    def _death_notice(self) -> str:
        """Why the process is gone, for the user; the log has the rest."""
        try:
            code: int | None = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        tail = read_tail(self._log_path)
        last = next((line for line in reversed(tail.splitlines()) if line.strip()), "")
        if code in (-9, 137) or "MemoryError" in tail or "out of memory" in tail.lower():
            return (
                "The backend was ended by the system, most likely because memory ran out. "
                "Choose a shorter sound or close other programs, then try again."
            )
        if self.hello is None and "No module named" in tail:
            return f"The backend is incomplete ({last.strip()}). Repair it in the preferences."
        reason = f"status {code}" + (f", {last.strip()[:200]}" if last else "")
        return f"The backend stopped unexpectedly ({reason}). Try again; its log tells more."


def read_tail(path: Path, num_bytes: int = LOG_TAIL_BYTES) -> str:
    """The end of a text file; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - num_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _read_lines(stream: IO[bytes], lines: SimpleQueue[bytes | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _write_lines(stream: IO[bytes], requests: SimpleQueue[str | None]) -> None:
    while (line := requests.get()) is not None:
        try:
            stream.write(line.encode())
            stream.flush()
        except OSError:  # the process is gone; the reader tells
            break
    try:
        stream.close()
    except OSError:
        return
