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
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Final

from .private_files import Log, copy_to_log
from .protocol import (
    MAX_LINE_BYTES,
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
"""A program that prints more lines that are no messages, for one request, is not the backend."""
MAX_UNREAD_BYTES: Final = 1 << 24
"""What a backend writes beyond this waits in its pipe until some of it was read."""
_BYTES_PER_LINE: Final = 200
"""Memory that a short line takes besides its letters."""
_TOO_LONG: Final = b"(a line without an end)"
LOG_TAIL_BYTES: Final = 20_000
_LAST_LINES: Final = 3
"""Lines at the end of the log in which a lack of memory counts as the reason of the end."""
_KILLED: Final = (-9, 137)
"""Exit status of a process killed by SIGKILL, directly and through a shell."""
_WANT_OF_MEMORY: Final = ("MemoryError", "out of memory", "bad_alloc", "Cannot allocate memory")
_NOT_THE_BACKEND: Final = (
    "What was started as the backend is another program. "
    "Check the Python that is set in the preferences."
)

_DROPPED: Final = (
    "PYTHON", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT",
    "DYLD_", "GCONV_PATH", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES",
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

    It leads a process group of its own, so that what it starts ends with it.

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
            UserError: The program cannot be started, or the log cannot be written.
        """
        self.command = tuple(command)
        self.hello = None
        self._log_path = log_path
        self._started = time.monotonic()
        self._foreign_lines = 0
        self._ended = False
        self._gone_since: float | None = None
        self._output_closed_at: float | None = None
        try:
            log = Log(log_path)
        except OSError as error:
            raise UserError(
                f"The backend's log {log_path} cannot be written: {error.strerror or error}. "
                "Remove what is in its place, or free some space, then try again."
            ) from error
        try:
            self._process = subprocess.Popen(
                self.command,
                cwd=cwd,
                env=child_env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                creationflags=creation_flags(),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a name that no program can have
            reason = getattr(error, "strerror", None) or error
            log.close()
            raise UserError(
                f"The backend's Python cannot be started: {reason} ({self.command[0]}). {REMEDY}"
            ) from error
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        if stdin is None or stdout is None or stderr is None:
            raise RuntimeError("the process has no pipes")
        self._log_copy = copy_to_log(stderr, log)
        self._lines = _UnreadLines()
        self._taken: deque[bytes | None] = deque()
        self._requests: SimpleQueue[str | None] = SimpleQueue()
        self._reader = _start_thread(_read_lines, stdout, self._lines)
        self._writer = _start_thread(_write_lines, stdin, self._requests)

    @property
    def is_running(self) -> bool:
        """Whether the process lives and can answer."""
        threads_live = self._reader.is_alive() and self._writer.is_alive()
        return not self._ended and threads_live and self._process.poll() is None

    def send(self, request: Request) -> None:
        """Hand a request to the process; returns at once."""
        self._requests.put(encode(request))
        self._foreign_lines = 0

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
            UserError: The process ended, said no hello first or in time, closed its connection,
                or speaks another protocol.
        """
        if self._output_closed_at is not None:
            self._check_end(wait=wait)
            return []
        messages: list[Message] = []
        deadline = time.monotonic() + seconds
        while not messages or time.monotonic() < deadline:
            if not self._taken:
                self._taken.extend(self._lines.take(wait))
            if not self._taken:
                self._notice_end()
                break
            line = self._taken.popleft()
            wait = 0.0
            if line is None:
                self._output_closed_at = time.monotonic()
                break  # how it ended is said by a later poll: a final message may be among these
            message = self._parse(line)
            if isinstance(message, Hello):
                self._check_hello(message)
            elif message is not None and self.hello is None:
                self._kill()
                raise UserError(_NOT_THE_BACKEND)
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
        self._lines.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_seconds)
        _kill_with_children(self._process)
        with suppress(subprocess.TimeoutExpired):  # it may hang in a driver
            self._process.wait(STOP_SECONDS)

    def _kill(self) -> None:
        """End the process by force, without waiting for it."""
        self._ended = True
        self._requests.put(None)
        self._lines.close()
        _kill_with_children(self._process)

    def _notice_end(self) -> None:
        """Notice what its output does not tell, since a child may hold that open: it has ended.

        Or it takes no requests any more. What it wrote before is waited for.
        """
        if self._process.poll() is None and self._writer.is_alive():
            return
        now = time.monotonic()
        if self._gone_since is None:
            self._gone_since = now
        elif now - self._gone_since > _LAST_WORDS_SECONDS:
            self._output_closed_at = now

    def _parse(self, line: bytes) -> Message | None:
        try:
            return parse(line)
        except ProtocolError as error:
            _log.warning("The backend's line is no message: %s", error)
            self._foreign_lines += 1
            if self._foreign_lines > MAX_FOREIGN_LINES:
                self._kill()
                raise UserError(_NOT_THE_BACKEND) from error
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
        notice = self._death_notice(code)
        self._kill()  # what it started and left behind
        raise UserError(notice)

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


def _kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started, by force; they may have ended already."""
    if sys.platform != "win32":
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


class _UnreadLines:
    """Lines on their way from the reading thread; it waits where nobody takes them."""

    def __init__(self) -> None:
        self._lines: list[bytes | None] = []
        self._num_bytes = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, line: bytes | None) -> None:
        """Append a line, or None for the end, once there is room; drop it where closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._num_bytes < MAX_UNREAD_BYTES)
            if not self._is_closed:
                self._lines.append(line)
                self._num_bytes += len(line or b"") + _BYTES_PER_LINE
                self._changed.notify_all()

    def take(self, seconds: float) -> list[bytes | None]:
        """All lines, the oldest first; where there is none, one is waited for, at most so long."""
        with self._changed:
            if seconds > 0:
                self._changed.wait_for(lambda: bool(self._lines), seconds)
            lines, self._lines, self._num_bytes = self._lines, [], 0
            self._changed.notify_all()
            return lines

    def close(self) -> None:
        """Drop what is there and what comes, so that the reading thread can end."""
        with self._changed:
            self._is_closed = True
            self._lines, self._num_bytes = [], 0
            self._changed.notify_all()


def _read_lines(stream: IO[bytes], lines: _UnreadLines) -> None:
    with stream:
        for line in _split(stream):
            lines.put(line)
    lines.put(None)


def _split(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a stream, in bounded memory; a line without an end becomes lines of no sense."""
    is_rest = False
    while piece := stream.readline(MAX_LINE_BYTES + 1):
        has_end = piece.endswith(b"\n")
        if len(piece) > MAX_LINE_BYTES:
            yield _TOO_LONG
        elif not is_rest:
            yield piece
        is_rest = not has_end


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
