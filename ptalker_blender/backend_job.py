# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs: the interface that the runner polls, and the jobs that the backend process does.

The backend process outlives a job, so that its model stays warm; it ends with the add-on, with
Blender, or after a failure, and the next job starts a new one.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from . import paths, private_files
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
    """An empty folder for one job's files; its name is the job's id."""
    paths.remove_stale_jobs()
    private_files.make_folder(paths.user_dir())  # what is said may be private
    return private_files.make_folder(paths.jobs_dir() / uuid.uuid4().hex[:12])


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
        self._kill_at: float | None = None
        self._backend: BackendProcess | None = None

    @property
    def is_busy(self) -> bool:
        return self._preparation is not None

    def start(self) -> None:
        self._backend = obtain_backend(self._command)  # it starts while the job is prepared
        if self._preparation is None:
            self._backend.send(self._request)

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
            for message in self._backend.poll(wait=wait):
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
        if not self._keep_folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare(self, preparation: Generator[Progress, None, None],
                 backend: BackendProcess) -> None:  # fmt: skip
        try:
            self._take(next(preparation))
        except StopIteration:
            self._preparation = None
            self.stage, self.fraction = "Starting", None
            backend.send(self._request)
        except UserError as error:
            self._end('FAILED', str(error))

    def _take(self, message: Message, *, is_waited_for: bool = False) -> None:
        if getattr(message, "job", self._request.job) != self._request.job:
            return  # left over from a job before
        if isinstance(message, Status) and self._kill_at is None:
            self.stage, self.fraction = message.text, None
        elif isinstance(message, Progress) and self._kill_at is None:
            self.stage = message.stage
            self.fraction = min(1.0, max(0.0, message.done / max(message.total, 1e-9)))
            self.seconds_left = message.seconds_left
        elif isinstance(message, JobWarning):
            self._warnings.append(message.text)
        elif isinstance(message, Error):
            _log.error("%s\n%s", message.message, message.detail)
            self._end('FAILED', message.message)
        elif isinstance(message, Cancelled):
            self._end('CANCELLED', "")
        elif isinstance(message, Result):
            self._finish(message, is_waited_for=is_waited_for)

    def _finish(self, result: Result, *, is_waited_for: bool) -> None:
        if self._kill_at is not None:  # it came after the artist had cancelled
            self._end('CANCELLED', "")
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
        warnings = tuple(dict.fromkeys((*self._warnings, *outcome.warnings)))
        self.outcome = replace(outcome, warnings=warnings)

    def _end(self, kind: Literal['CANCELLED', 'FAILED'], text: str) -> None:
        if kind == 'CANCELLED':
            text = f"{self.title} was cancelled. The scene is as it was."
        self.outcome = Outcome(kind, text, tuple(self._warnings))
