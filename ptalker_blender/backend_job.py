# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs: the interface that the runner polls, and the jobs that the backend process does.

The backend process outlives a job, so that its model stays warm; it ends with the add-on, with
Blender, or after a failure, and the next job starts a new one.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from . import job_folders, paths, private_files
from .backend_process import BackendProcess
from .protocol import (
    Cancelled,
    Error,
    JobRequest,
    JobWarning,
    Message,
    Progress,
    Result,
    Status,
    UserError,
)

_log = logging.getLogger(__name__)

CANCEL_SECONDS: Final = 3.0
"""A backend that does not answer a cancel is killed after this time."""
SILENT_SECONDS: Final = 60.0
"""After this time without a message the panel says so."""
MAX_WARNINGS: Final = 20
_MAX_STAGE: Final = 100
_MAX_SENTENCE: Final = 1000
_LONGEST_SECONDS: Final = 1e6
"""An estimate beyond this is none."""
_NO_MEMORY: Final = (
    "There is not enough memory to read the result. Close other programs, or animate a shorter "
    "stretch."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        kind: ``DONE``, ``CANCELLED`` or ``FAILED``.
        text: One sentence for the user.
        warnings: Further sentences that the user should know.
        undo_text: Name of the undo step where the scene was changed; else empty.
        action: ``session_uid`` of the Action that was written; 0 where none was.
        words: What was recognised, for the artist to see and correct.
        head: ``session_uid`` of the head that speaks these words.
    """

    kind: Literal['DONE', 'CANCELLED', 'FAILED']
    text: str
    warnings: tuple[str, ...] = ()
    undo_text: str = ""
    action: int = 0
    words: str = ""
    head: int = 0


class Job(Protocol):
    """A job as the runner sees it.

    Attributes:
        title: What the job does, for the panel.
        is_setup: Whether the job changes or checks the backend's environment.
        stage: What the job is doing now.
        fraction: How much of the stage is done, 0 to 1; None while unknown.
        seconds_left: Estimated seconds for the whole job; None while unknown.
        outcome: How the job ended; None while it runs.
    """

    title: str
    is_setup: bool
    stage: str
    fraction: float | None
    seconds_left: float | None
    outcome: Outcome | None

    @property
    def is_busy(self) -> bool:
        """Whether the job works inside Blender now and is to be polled again soon."""

    def start(self) -> None:
        """Begin; the runner calls it once.

        Raises:
            UserError: The job cannot begin.
        """

    def poll(self, *, wait: float = 0.0) -> None:
        """Do what there is to do, at most a few hundredths of a second.

        Args:
            wait: Longest time to wait for something to do, in seconds.
        """

    def cancel(self) -> None:
        """Ask for the end; a later poll brings the outcome."""

    def close(self) -> None:
        """Release everything; end it where it still runs. It may never have been started."""


class _Warm:
    """The backend process that is kept between jobs."""

    process: BackendProcess | None = None


def obtain_backend(command: list[str]) -> BackendProcess:
    """The running backend, or a new one.

    Args:
        command: Command line of the backend.

    Returns:
        A process that was started with that command.

    Raises:
        UserError: The backend cannot be started.
    """
    if _Warm.process is not None:
        if _Warm.process.is_running and _Warm.process.command == tuple(command):
            return _Warm.process
        release_backend()
    private_files.remove_old_logs(paths.user_dir(), "backend*.log")
    # Not the extension's folder: Windows lets nobody delete the folder that a process works in.
    folder = Path(tempfile.gettempdir())
    _Warm.process = BackendProcess(command, cwd=folder, log_path=paths.backend_log())
    return _Warm.process


def release_backend(*, grace_seconds: float = 2.0) -> None:
    """End the backend, if it runs."""
    process, _Warm.process = _Warm.process, None
    if process is not None:
        process.stop(grace_seconds=grace_seconds)


def new_job_folder() -> Path:
    """An empty folder for one job's files; its name is the job's id.

    Returns:
        The folder, which the job that is given it deletes.

    Raises:
        UserError: It cannot be made.
    """
    job_folders.remove_unclaimed()  # of a job before that could not be built
    try:
        private_files.make_folder(paths.user_dir())  # what is said may be private
        private_files.make_folder(paths.jobs_dir())
        job_folders.remove_left(paths.jobs_dir())
        return job_folders.make(paths.jobs_dir())
    except OSError as error:
        raise UserError(
            f"PTalker cannot make a folder for the job's files in {paths.jobs_dir()}: "
            f"{error.strerror or error}. Remove what is in its place, or free some space, then "
            "try again."
        ) from error


class BackendJob:
    """A request that the backend works on, and what is done with its result.

    See :class:`Job` for the attributes.
    """

    is_setup = False

    def __init__(
        self,
        title: str,
        request: JobRequest,
        *,
        command: list[str],
        folder: Path,
        apply: Callable[[Result], Outcome],
        prepare: Generator[Progress, None, None] | None = None,
        hold: Callable[[], str] | None = None,
        keep_folder: bool = False,
    ) -> None:
        """Build the job; it starts nothing.

        Args:
            title: What the job does, for the panel.
            request: What to send.
            command: Command line of the backend.
            folder: The job's files, deleted in the end.
            apply: Called once with the result, on the main thread; may raise UserError.
            prepare: Work inside Blender before the request is sent, a slice of it at each step;
                may raise UserError.
            hold: Says, in a few words for the panel, what the result has to wait for; empty where
                it need not. It is not asked where the caller waits for the job, since nothing
                could change then.
            keep_folder: Leave the files where they are.
        """
        self.title = title
        self.stage = "Starting the backend"
        self.fraction: float | None = None
        self.seconds_left: float | None = None
        self.outcome: Outcome | None = None
        self._request = request
        self._command = command
        self._folder = folder
        self._keep_folder = keep_folder
        self._apply = apply
        self._preparation = prepare
        self._hold = hold
        self._held: Result | None = None
        self._warnings: list[str] = []
        self._num_warnings = 0
        self._heard_at = 0.0
        self._kill_at: float | None = None
        self._backend: BackendProcess | None = None
        job_folders.claim(folder)

    @property
    def is_busy(self) -> bool:
        return self._preparation is not None

    def start(self) -> None:
        self._backend = obtain_backend(self._command)  # it starts while the job is prepared
        if self._preparation is None:
            self._send(self._backend)

    def poll(self, *, wait: float = 0.0) -> None:
        if self.outcome is not None or self._backend is None:
            return
        if self._preparation is not None:
            self._prepare(self._preparation, self._backend)
            return
        if self._held is not None:
            self._finish(self._held, is_waited_for=wait > 0)
            return
        try:
            messages = self._backend.poll(wait=wait)
            self._notice_silence(is_silent=not messages)
            for message in messages:
                self._take(message, is_waited_for=wait > 0)
                if self.outcome is not None or self._held is not None:
                    return
        except UserError as error:  # the process is gone
            release_backend(grace_seconds=0)
            self._end('CANCELLED' if self._kill_at else 'FAILED', str(error))
            return
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            _log.warning("The backend did not answer the cancel and was killed")
            release_backend(grace_seconds=0)
            self._end('CANCELLED', "")

    def cancel(self) -> None:
        if self.outcome is not None or self._kill_at is not None:
            return
        if self._preparation is not None or self._held is not None:
            self._end('CANCELLED', "")
        elif self._backend is not None:
            self.stage = "Cancelling"
            self.fraction = self.seconds_left = None
            self._kill_at = time.monotonic() + CANCEL_SECONDS
            self._backend.cancel(self._request.job)

    def close(self) -> None:
        if self.outcome is None:
            is_idle = self._preparation is not None or self._held is not None
            if self._backend is not None and not is_idle:  # it works on this job
                release_backend(grace_seconds=0)
            self._end('CANCELLED', "")
        if self._keep_folder:
            job_folders.keep(self._folder)
        else:
            job_folders.remove(self._folder)

    def _send(self, backend: BackendProcess) -> None:
        self._heard_at = time.monotonic()
        backend.send(self._request)

    def _notice_silence(self, *, is_silent: bool) -> None:
        """Say in the panel that nothing comes; the next message takes it back."""
        now = time.monotonic()
        if not is_silent:
            self._heard_at = now
        elif now - self._heard_at > SILENT_SECONDS and self._kill_at is None:
            minutes = max(1, int((now - self._heard_at) / 60))
            self.stage = f"No sign of the backend for {minutes} min. Wait or cancel"
            self.fraction = self.seconds_left = None

    def _prepare(self, preparation: Generator[Progress, None, None],
                 backend: BackendProcess) -> None:  # fmt: skip
        try:
            self._take(next(preparation))
        except StopIteration:
            self._preparation = None
            self.stage, self.fraction = "Starting", None
            self._send(backend)
        except UserError as error:
            self._end('FAILED', str(error))

    def _take(self, message: Message, *, is_waited_for: bool = False) -> None:
        about = getattr(message, "job", self._request.job)
        # An error without a job is about a request that could not be read: this one.
        if about != self._request.job and not (isinstance(message, Error) and not about):
            return  # left over from a job before
        if isinstance(message, Status) and self._kill_at is None:
            self.stage, self.fraction = _one_line(message.text, _MAX_STAGE), None
        elif isinstance(message, Progress) and self._kill_at is None:
            self.stage = _one_line(message.stage, _MAX_STAGE)
            self.fraction = min(1.0, max(0.0, message.done / max(message.total, 1e-9)))
            left = message.seconds_left
            self.seconds_left = left if left is not None and 0 <= left < _LONGEST_SECONDS else None
        elif isinstance(message, JobWarning):
            self._warn(message.text)
        elif isinstance(message, Error):
            _log.error("%s\n%s", message.message, message.detail)
            text = _one_line(message.message, _MAX_SENTENCE)
            self._end('FAILED', text or "The backend failed without a word; its log tells more.")
        elif isinstance(message, Cancelled):
            self._end('CANCELLED', "")
        elif isinstance(message, Result):
            self._finish(message, is_waited_for=is_waited_for)

    def _finish(self, result: Result, *, is_waited_for: bool) -> None:
        if self._kill_at is not None:  # it came after the artist had cancelled
            self._end('CANCELLED', "")
            return
        if result.path != self._request.out:
            self._end('FAILED', "The backend's result is in another place than it was asked for. "
                      "Install the PTalker extension again.")  # fmt: skip
            return
        if self._hold is not None and not is_waited_for and (reason := self._hold()):
            self._held = result
            self.stage, self.fraction, self.seconds_left = reason, 1.0, None
            return
        try:
            outcome = self._apply(result)
        except UserError as error:
            self._end('FAILED', str(error))
            return
        except MemoryError:
            _log.exception("The result is too large")
            self._end('FAILED', _NO_MEMORY)
            return
        for text in outcome.warnings:
            self._warn(text)
        self.outcome = replace(outcome, warnings=self._shown_warnings())

    def _warn(self, text: str) -> None:
        text = _one_line(text, _MAX_SENTENCE)
        if text and text not in self._warnings:
            self._num_warnings += 1
            if len(self._warnings) < MAX_WARNINGS:
                self._warnings.append(text)

    def _shown_warnings(self) -> tuple[str, ...]:
        more = self._num_warnings - len(self._warnings)
        return (*self._warnings, f"And {more:,} more warnings.") if more else tuple(self._warnings)

    def _end(self, kind: Literal['CANCELLED', 'FAILED'], text: str) -> None:
        if kind == 'CANCELLED':
            text = f"{self.title} was cancelled. The scene is as it was."
        self.outcome = Outcome(kind, text, self._shown_warnings())


def _one_line(text: str, limit: int) -> str:
    """What another program wrote, as Blender can hold it and the panel can show it."""
    line = " ".join(text[: 4 * limit].replace("\0", " ").split())
    line = line.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
