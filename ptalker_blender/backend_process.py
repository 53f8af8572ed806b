# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend process: start, check its hello, send, poll, cancel, stop.

Nothing here blocks but :meth:`BackendProcess.stop`, which waits at most the grace period and as
long again for the system. One daemon thread only reads lines into a queue, another only writes
them; neither decides anything.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Final

from .private_files import Log, copy_to_log
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

_log = logging.getLogger(__name__)

HELLO_SECONDS: Final = 60.0
REMEDY: Final = "Install the PTalker extension again, or see its preferences."
_LAST_WORDS_SECONDS: Final = 0.2
"""Longest time to wait for what a process wrote before it ended."""
STOP_SECONDS: Final = 2.0
LINGER_SECONDS: Final = 2.0
"""A backend that closed its output and does not end is killed after this time."""
MAX_FOREIGN_LINES: Final = 100
"""A program that prints more lines that are no messages is not the backend."""
LOG_TAIL_BYTES: Final = 20_000
_LAST_LINES: Final = 3
"""Lines at the end of the log in which a lack of memory counts as the reason of the end."""
_KILLED: Final = (-9, 137)
"""Exit status of a process killed by SIGKILL, directly and through a shell."""
_WANT_OF_MEMORY: Final = ("MemoryError", "out of memory")

_DROPPED: Final = (
    "PYTHON", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT",
    "DYLD_",
)  # fmt: skip
"""Beginnings of the names of variables that would bring code into a child."""


def child_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables for a child Python, without those of another Python."""
    env = {key: value for key, value in os.environ.items() if not key.upper().startswith(_DROPPED)}
    env.update(PYTHONNOUSERSITE="1", PYTHONUTF8="1", PYTHONUNBUFFERED="1")
    env.update(extra or {})
    return env


def creation_flags() -> int:
    """Windows: no console window for the child."""
    return int(getattr(subprocess, "CREATE_NO_WINDOW", 0))


def find_backend_root(package_dir: Path) -> Path:
    """The folder that holds ``backend/``: the extension's own, or the repository's.

    Args:
        package_dir: Folder of the add-on's modules.

    Returns:
        The working directory for ``python -m backend``.

    Raises:
        UserError: There is no such folder.
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
        command: Command line that the process was started with.
        hello: First message of the process; None until it came.
    """

    command: tuple[str, ...]
    hello: Hello | None

    def __init__(self, command: Sequence[str], *, cwd: Path, log_path: Path) -> None:
        """Start the process.

        Args:
            command: Command line of the backend.
            cwd: Working directory of the process.
            log_path: File that takes its standard error.

        Raises:
            UserError: The program cannot be started.
        """
        self.command = tuple(command)
        self.hello = None
        self._log_path = log_path
        self._started = time.monotonic()
        self._foreign_lines = 0
        self._ended = False
        self._output_closed_at: float | None = None
        log = Log(log_path)
        try:
            self._process = subprocess.Popen(
                self.command,
                cwd=cwd,
                env=child_env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                creationflags=creation_flags(),
            )
        except OSError as error:
            log.close()
            raise UserError(
                f"The backend's Python cannot be started: {error.strerror or error} "
                f"({self.command[0]}). {REMEDY}"
            ) from error
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        if stdin is None or stdout is None or stderr is None:
            raise RuntimeError("the process has no pipes")
        self._log_copy = copy_to_log(stderr, log)
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._requests: SimpleQueue[str | None] = SimpleQueue()
        self._reader = _start_thread(_read_lines, stdout, self._lines)
        _start_thread(_write_lines, stdin, self._requests)

    @property
    def is_running(self) -> bool:
        """Whether the process lives and can answer."""
        return not self._ended and self._reader.is_alive() and self._process.poll() is None

    def send(self, request: Request) -> None:
        """Hand a request to the process; returns at once."""
        self._requests.put(encode(request))

    def cancel(self, job: str) -> None:
        """Ask the process to end a job."""
        self.send(CancelRequest(job=job))

    def poll(self, *, seconds: float = 0.05, wait: float = 0.0) -> list[Message]:
        """The messages that have come.

        Args:
            seconds: Time after which to stop, however many messages there are.
            wait: Longest time to wait for the first message, in seconds.

        Returns:
            The messages in order; hello is not among them.

        Raises:
            UserError: The process ended, said no hello in time, or speaks another protocol.
        """
        if self._output_closed_at is not None:
            self._check_end(wait=wait)
            return []
        messages: list[Message] = []
        deadline = time.monotonic() + seconds
        while not messages or time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=wait) if wait > 0 else self._lines.get_nowait()
            except Empty:
                break
            wait = 0.0
            if line is None:
                self._output_closed_at = time.monotonic()
                break  # how it ended is said by a later poll: a final message may be among these
            message = self._parse(line)
            if isinstance(message, Hello):
                self._check_hello(message)
            elif message is not None:
                messages.append(message)
        if self.hello is None and time.monotonic() - self._started > HELLO_SECONDS:
            self._kill()
            raise UserError(
                f"The backend did not answer within {HELLO_SECONDS:.0f} s. "
                f"Try again; if it stays so: {REMEDY}"
            )
        return messages

    def stop(self, *, grace_seconds: float = STOP_SECONDS) -> None:
        """End the process: politely by closing its stdin, after the grace period by force."""
        self._ended = True
        self._requests.put(None)
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # it may hang in a driver
                self._process.wait(STOP_SECONDS)

    def _kill(self) -> None:
        """End the process by force, without waiting for it."""
        self._ended = True
        self._requests.put(None)
        self._process.kill()

    def _parse(self, line: bytes) -> Message | None:
        try:
            return parse(line)
        except ProtocolError as error:
            _log.warning("The backend's line is no message: %s", error)
            self._foreign_lines += 1
            if self._foreign_lines > MAX_FOREIGN_LINES:
                self._kill()
                raise UserError(
                    "What was started as the backend is another program. "
                    "Check the Python that is set in the preferences."
                ) from error
            return None

    def _check_hello(self, hello: Hello) -> None:
        if hello.protocol_version != PROTOCOL_VERSION:
            self._kill()
            raise UserError(
                f"The backend speaks version {hello.protocol_version} of the protocol, the add-on "
                f"version {PROTOCOL_VERSION}. Install the PTalker extension again."
            )
        self.hello = hello

    def _check_end(self, *, wait: float) -> None:
        """Say how the process ended, once it has; kill it where it lingers without an output.

        Args:
            wait: Longest time to wait for its end, in seconds.

        Raises:
            UserError: The process ended.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(wait)
        code = self._process.poll()
        closed_at = self._output_closed_at or 0.0
        if code is None and time.monotonic() - closed_at < LINGER_SECONDS:
            return
        if code is None:
            self._kill()
            raise UserError(
                "The backend closed its connection but did not end, so PTalker ended it. "
                "Try again; its log tells more."
            )
        self._ended = True
        raise UserError(self._death_notice(code))

    def _death_notice(self, code: int) -> str:
        """Why the process is gone, for the user; the log has the rest.

        Args:
            code: Its exit status, negative for the signal that killed it.

        Returns:
            Sentences with the remedy.
        """
        self._log_copy.join(_LAST_WORDS_SECONDS)
        lines = [line for line in read_tail(self._log_path).splitlines() if line.strip()]
        last = lines[-1].strip() if lines else ""
        remedy = "Choose a shorter sound or close other programs, then try again."
        if code in _KILLED:
            return f"The backend was killed by the system, most likely as memory ran out. {remedy}"
        if any(sign in line for line in lines[-_LAST_LINES:] for sign in _WANT_OF_MEMORY):
            return f"The backend ended since memory ran out. {remedy}"
        if self.hello is None and "No module named" in last:
            return f"The backend is incomplete ({last}). {REMEDY}"
        reason = _ending(code) + (f", {last[:200]}" if last else "")
        return f"The backend stopped unexpectedly ({reason}). Try again; its log tells more."


def _ending(code: int) -> str:
    """An exit status in words."""
    try:
        return f"status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
    except ValueError:  # not a signal of this system
        return f"status {code}"


def read_tail(path: Path, num_bytes: int = LOG_TAIL_BYTES) -> str:
    """The end of a text file; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - num_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _start_thread(work: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


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
