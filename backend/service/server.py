# SPDX-License-Identifier: GPL-3.0-or-later
"""The request loop: requests on stdin, messages on stdout, one job at a time, the model kept warm.

File descriptor 1 is duplicated for the messages and then points to stderr, so that nothing that a
library prints can get between them. One thread reads stdin: it takes cancels at once, queues the
other requests, and ends the process when stdin closes, whatever the main thread is doing then.
"""

from __future__ import annotations

import errno
import functools
import logging
import multiprocessing
import os
import platform
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn

from backend import errors, version
from backend.service.options import Engine as EngineChoice
from backend.service.protocol import (
    MAX_LINE_BYTES,
    PROTOCOL_VERSION,
    Cancelled,
    CancelRequest,
    Error,
    GenerateRequest,
    Hello,
    JobRequest,
    JobWarning,
    Message,
    Progress,
    ProtocolError,
    Request,
    Result,
    Status,
    encode,
    parse,
    shortened,
)
from backend.stages import Stage

if TYPE_CHECKING:
    from backend.service.worker import Worker

MAX_WAITING: Final = 1000
_PROGRESS_SECONDS: Final = 0.1
_UNWIND_SECONDS: Final = 1.0
_MAX_SENTENCE: Final = 1000

_log = logging.getLogger(__name__)

_NO_MEMORY: Final = (
    "There is not enough memory for this job. Close other programs, or animate a shorter stretch."
)
_NO_THREADS: Final = (
    "The system allows this program no more memory, threads or open files. Close other programs, "
    "then try again."
)
UNFORESEEN: Final = "Something unforeseen went wrong in the backend; its log says what."


class Outbox:
    """Queue of messages, which a thread of its own writes to the pipe.

    Nobody waits for the reader of the pipe, so that requests are read and stdin's end is seen also
    where it reads nothing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._write, name="stdout", daemon=True).start()

    @property
    def is_full(self) -> bool:
        """Whether so much is unread that what can be done without is not to be sent."""
        return self._lines.qsize() > MAX_WAITING

    def send(self, message: Message) -> None:
        """Send one message; returns at once."""
        self._lines.put(encode(message).encode("utf-8"))

    def flush(self, deadline: float) -> None:
        """Wait until all is written, at most until ``time.monotonic()`` is at the deadline."""
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)

    def _write(self) -> NoReturn:
        """Write lines as they come; ends the process when the pipe is closed."""
        try:
            while True:
                data = self._lines.get()
                while data:
                    data = data[os.write(self._descriptor, data) :]
                self._lines.task_done()
        finally:
            leave(1)


class Inbox:
    """Queue of requests, and which jobs are to stop. `listen` fills it on a thread of its own."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._waiting: queue.Queue[JobRequest] = queue.Queue(MAX_WAITING)
        self._open_jobs: list[str] = []  # waiting or running, oldest first
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._closing = False

    def take(self) -> JobRequest:
        """Wait for the next request and return it."""
        return self._waiting.get()

    def is_cancelled(self, job: str) -> bool:
        """Whether the job is to stop, because of a cancel or since stdin has closed."""
        return self._closing or job in self._cancelled

    def finish(self, job: str, final: Message) -> None:
        """Send the message that ends a job, and forget the job."""
        with self._lock:  # so that `_refuse` cannot end it a second time
            self._outbox.send(final)
            self._open_jobs.remove(job)
            self._cancelled.discard(job)

    def listen(self) -> NoReturn:
        """Read stdin until it closes, then end the process, which nobody could reach any more."""
        status = 1
        try:
            self._read_requests()
            _log.info("stdin closed")
            self._closing = True
            deadline = time.monotonic() + _UNWIND_SECONDS
            while self._open_jobs and time.monotonic() < deadline:  # they remove what they wrote
                time.sleep(0.01)
            self._outbox.flush(deadline)
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it is, nobody could end the process then
            _log.exception("stdin is not read any more")
        finally:
            leave(status)

    def _read_requests(self) -> None:
        buffer, is_too_long = b"", False
        while data := _read_stdin():
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                if is_too_long:
                    is_too_long = False  # this is the rest of a line that was refused
                elif line.strip():
                    self._accept(line)
            if len(buffer) > MAX_LINE_BYTES and not is_too_long:
                is_too_long = True
                self._refuse("", f"a line of more than {MAX_LINE_BYTES} bytes")
            if is_too_long:
                buffer = b""

    def _accept(self, line: bytes) -> None:
        try:
            request: Request = parse(line)
        except ProtocolError as error:
            self._refuse(error.job, str(error))
            return
        if isinstance(request, CancelRequest):
            self._cancel(request.job)
            return
        with self._lock:
            is_known, is_full = request.job in self._open_jobs, self._waiting.full()
            if not (is_known or is_full):
                self._open_jobs.append(request.job)
                self._waiting.put_nowait(request)
        if is_known:  # no error message: it would end the job that has the name
            _log.error("job %r is already waiting or running; its second request is dropped",
                       request.job)  # fmt: skip
        elif is_full:
            self._refuse(request.job, f"{MAX_WAITING} jobs are waiting already")

    def _cancel(self, job: str) -> None:
        with self._lock:
            is_open = job in self._open_jobs
            if is_open:
                self._cancelled.add(job)
        if not is_open:
            _log.info("cancel of the job %r, which is not there (any more)", job)

    def _refuse(self, job: str, reason: str) -> None:
        _log.error("refused: %s", reason)
        text = "The add-on and the backend do not understand each other. Set the backend up again."
        with self._lock:
            # An open job's one final message is still to come.
            if job not in self._open_jobs and not self._outbox.is_full:
                self._outbox.send(Error(job=job, message=text, detail=reason))


def _read_stdin() -> bytes:
    # Not sys.stdin: a thread inside its buffer makes Python abort at exit.
    try:
        return os.read(0, 1 << 16)
    except OSError:
        return b""


def leave(status: int) -> NoReturn:
    """End the process at once, with its children, from any thread."""
    for child in multiprocessing.active_children():
        child.kill()
    logging.shutdown()
    os._exit(status)


class JobReporter:
    """Sends the messages of a running job; progress is throttled to ten messages a second."""

    def __init__(self, job: str, outbox: Outbox, is_cancelled: Callable[[str], bool]) -> None:
        self._job = job
        self._outbox = outbox
        self._is_cancelled = is_cancelled
        self._stage = ""
        self._last_sent = 0.0

    def status(self, text: str) -> None:
        """Report what the job is doing."""
        self._outbox.send(Status(job=self._job, text=text))

    def warn(self, text: str) -> None:
        """Report what the user should know."""
        self._outbox.send(JobWarning(job=self._job, text=text))

    def progress(
        self, stage: str, done: float, total: float, unit: str, seconds_left: float | None
    ) -> None:
        """Report how far the stage is."""
        now = time.monotonic()
        if stage == self._stage and now - self._last_sent < _PROGRESS_SECONDS and done < total:
            return
        if self._outbox.is_full:
            return
        self._stage, self._last_sent = stage, now
        self._outbox.send(
            Progress(
                job=self._job,
                stage=stage,
                done=float(done),
                total=float(total),
                unit=unit,
                seconds_left=seconds_left,
            )
        )

    def is_cancelled(self) -> bool:
        """Whether the job is to stop."""
        return self._is_cancelled(self._job)


def run_job(request: JobRequest, load: Callable[[], Worker], reporter: JobReporter) -> Message:
    """Do a job.

    Args:
        request: What to do.
        load: Returns the worker; the first call loads torch.
        reporter: Receives the job's messages.

    Returns:
        The one message that ends the job, whatever happens.
    """
    job = request.job
    try:
        if reporter.is_cancelled():
            return Cancelled(job=job)
        reporter.status(Stage.STARTING)  # the first job loads torch, which takes seconds
        final = Result(job=job, path=request.out, report=load().run(request, reporter))
        encode(final)
    except BaseException as error:  # noqa: BLE001 - a library's exit too must end in a message
        return _ending(job, error)
    return final


def _ending(job: str, error: BaseException) -> Message:
    if isinstance(error, errors.Cancelled | KeyboardInterrupt):
        return Cancelled(job=job)
    _log.error("job %r failed", job, exc_info=error)
    text = describe(error)
    detail = "".join(traceback.format_exception(error))
    return Error(job=job, message=text, detail=detail)


def describe(error: BaseException) -> str:
    """What went wrong, as a sentence for the user; what it quotes is cut."""
    text = str(error)
    if isinstance(error, errors.UserError):
        return shortened(text, _MAX_SENTENCE)
    if isinstance(error, ImportError):
        return f"The backend's packages are incomplete ({text:.200}). Repair the backend."
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or code == errno.ENOMEM:
        return _NO_MEMORY
    if isinstance(error, RuntimeError) and ("not enough memory" in text or "out of memory" in text):
        return _NO_MEMORY
    if code in (errno.EAGAIN, errno.EMFILE, errno.ENFILE) or "can't start new thread" in text:
        return _NO_THREADS
    if code == errno.ENOSPC:
        return "The disk is full. Free some space, then try again."
    return UNFORESEEN


def _for_log(request: JobRequest) -> str:
    """A request without the spoken words, which are the user's own."""
    if isinstance(request, GenerateRequest):
        text = f"{len(request.options.text)} letters"
        request = replace(request, options=replace(request.options, text=text))
    return f"{request!r:.2000}"


def serve(*, checkpoint: str = "", engine: EngineChoice = "auto", device: str = "auto") -> NoReturn:
    """Do the jobs of requests until stdin closes.

    Args:
        checkpoint: Checkpoint to load before the first request; empty loads none.
        engine: Engine that this checkpoint is loaded into.
        device: Device that this checkpoint is loaded to.
    """
    outbox = Outbox(os.dup(1))
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    hello = Hello(
        protocol_version=PROTOCOL_VERSION,
        backend_version=version(),
        python=platform.python_version(),
        pid=os.getpid(),
    )
    outbox.send(hello)
    inbox = Inbox(outbox)
    threading.Thread(target=inbox.listen, name="stdin", daemon=True).start()
    load = functools.cache(_load_worker)
    if checkpoint:
        _load_ahead(load, checkpoint, engine, device)
    try:
        while True:
            request = inbox.take()
            started = time.monotonic()
            _log.info("job %r: %s", request.job, _for_log(request))
            final = run_job(request, load, JobReporter(request.job, outbox, inbox.is_cancelled))
            inbox.finish(request.job, final)
            seconds = time.monotonic() - started
            _log.info("job %r: %s after %.2f s", request.job, type(final).__name__, seconds)
    except KeyboardInterrupt:
        leave(130)


def _load_worker() -> Worker:
    from backend.service.worker import (
        Worker,  # brings SciPy, which takes a while: hello comes first
    )

    return Worker()


def _load_ahead(
    load: Callable[[], Worker], checkpoint: str, engine: EngineChoice, device: str
) -> None:
    try:
        load().predictor(checkpoint, engine, device)
    except (errors.UserError, ImportError):
        _log.exception("%s is not loaded ahead", checkpoint)  # the first job will say so
