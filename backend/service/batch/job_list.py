# SPDX-License-Identifier: GPL-3.0-or-later
"""A list of jobs, shared out among workers: processes of this machine or actors of a cluster.

Apart from ``jobs.py``, which does one job: this is about who does which, and loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

from backend import bundled, io, version
from backend.errors import UserError
from backend.service.protocol import GenerateRequest
from backend.service.requests import check, request_from_flags, resolve_paths
from backend.stages import Stage

MAX_GROUP: Final = 32
"""Jobs that a worker gets at a time."""

RECOGNISERS: Final = ("moonshine-voice", "onnxruntime", "pocketsphinx")
"""Packages that decide what is recognised in a sound."""

_CHECKPOINT_FILES: Final = ("model.safetensors", "config.json", "styles.json")
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class ListJob:
    """One job of a list.

    Attributes:
        number: Its place in the list, from 0.
        name: What people know it by.
        request: What is to be done; all paths are absolute.
        key: Of the request and the state of its files; stands in the result's report.
    """

    number: int
    name: str
    request: GenerateRequest
    key: str


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What came of a job.

    Attributes:
        number: The job's.
        error: Why it failed, a sentence; empty if it did not.
        warnings: Sentences for the user.
        audio_seconds: Length of its sound, where it was done.
        worker: Who did it: host and process.
    """

    number: int
    error: str
    warnings: tuple[str, ...] = ()
    audio_seconds: float = 0.0
    worker: str = ""


class WorkerHandle(Protocol):
    """A worker as the list sees it."""

    def submit(self, jobs: Sequence[ListJob]) -> Future[list[JobOutcome]]:
        """Have it do jobs; the next ones are given to it when these are done."""

    def close(self) -> None:
        """End it, also in the middle of its work."""


class Executor(Protocol):
    """Where workers come from.

    Attributes:
        size: Workers side by side.
        num_lost: What a future raises whose worker died.
        tries_again: Whether what failed may succeed elsewhere.
    """

    size: int
    num_lost: tuple[type[BaseException], ...]
    tries_again: bool

    def start_worker(self) -> WorkerHandle:
        """A new worker.

        Raises:
            UserError: There can be none.
        """

    def close(self) -> None:
        """Once all members are closed."""


class ListReporter(Protocol):
    """Hears of the list."""

    def warn(self, text: str) -> None:
        """Something the user should know."""

    def progress(
        self, stage: str, done: float, total: float, unit: str, seconds_left: float | None
    ) -> None:
        """How many files are done."""


@dataclass(slots=True)
class Summary:
    """What came of a list.

    Attributes:
        made: Results that were made.
        kept: Results of an earlier run that were left as they are.
        failed: Names and reasons of the jobs without a result, in the list's order.
        audio_seconds: Length of the sound of those that were made.
        seconds: What it took.
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
    """The entries of a list: objects with the command line's flags as keys.

    Raises:
        UserError: It cannot be read or is none.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f'"{path}" cannot be read: {error.strerror or error}.') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'"{path.name}" is not JSON ({error}).') from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'"{path.name}" must hold a list of objects like {{"audio": "a.wav"}}.')
    return entries


class JobList:
    """The jobs of a list that are still to be done, and what came of the others.

    Args:
        entries: What ``read_list`` gave.
        folder: What their paths are relative to.
        defaults: What an entry does not say; its paths are relative to the working folder.
        overwrite: Whether results that are there are made again.
    """

    def __init__(
        self,
        entries: Sequence[Mapping[str, object]],
        folder: Path,
        *,
        defaults: Mapping[str, object],
        overwrite: bool = False,
    ) -> None:
        self.entries = entries
        self.summary = Summary()
        self._folder, self._overwrite = folder.absolute(), overwrite
        self._defaults = resolve_paths(defaults, Path.cwd())
        self._failed: dict[int, str] = {}
        self._tries: dict[int, int] = {}
        self._again: deque[ListJob] = deque()
        self._outs: set[str] = set()
        self._leftovers: dict[Path, dict[str, list[Path]]] = {}
        self._planned = self._plan()
        self._next = next(self._planned, None)

    @property
    def num_ended(self) -> int:
        """Jobs that are done or have failed for good."""
        return self.summary.made + self.summary.kept + len(self._failed)

    def group(self, members: int) -> list[ListJob]:
        """The next jobs for one of so many members: of one checkpoint and device, none if no more.

        What failed before is alone in its group, and comes last.
        """
        left = len(self.entries) - self.num_ended
        size = max(1, min(MAX_GROUP, math.ceil(left / (2 * members))))
        jobs: list[ListJob] = []
        while self._next is not None and len(jobs) < size:
            if jobs and _model(jobs[0]) != _model(self._next):
                break
            jobs.append(self._next)
            self._next = next(self._planned, None)
        if not jobs and self._again:
            jobs.append(self._again.popleft())
        return jobs

    def take(self, job: ListJob, outcome: JobOutcome, *, may_try_again: bool) -> None:
        """Note what came of a job."""
        if not outcome.error:
            self.summary.made += 1
            self.summary.audio_seconds += outcome.audio_seconds
            return
        self._tries[job.number] = self._tries.get(job.number, 0) + 1
        if may_try_again and self._tries[job.number] < _TRIES:
            self._again.append(job)
        else:
            self._failed[job.number] = outcome.error

    def take_dead(self, jobs: Sequence[ListJob]) -> int:
        """Note that the worker of these jobs died; returns how many are to be done again."""
        lost = 0
        for job in jobs:
            out = Path(job.request.out)
            for partial in out.parent.glob(f"{_escaped(out.name)}.????????.part"):
                partial.unlink(missing_ok=True)
            if is_finished(out, job.key):  # written, only not told
                self.take(job, JobOutcome(job.number, ""), may_try_again=True)
                continue
            lost += 1
            error = f"The process that worked on it ended unexpectedly, {_TRIES} times."
            self.take(job, JobOutcome(job.number, error), may_try_again=True)
        return lost

    def finish(self, seconds: float) -> Summary:
        """What came of all."""
        self.summary.seconds = seconds
        self.summary.failed = [
            (self._name(number), self._failed[number]) for number in sorted(self._failed)
        ]
        return self.summary

    def _name(self, number: int) -> str:
        return f"job {number + 1} ({self.entries[number].get('audio', '')})"

    def _plan(self) -> Iterator[ListJob]:
        """Requests are made one after the other, since there may be very many."""
        for number in range(len(self.entries)):
            try:
                request = self._request(number)
            except UserError as error:
                self._failed[number] = " ".join(str(error).split())
                continue
            out, key = Path(request.out), request_key(request)
            for partial in self._partials(out.parent).pop(out.name, ()):
                partial.unlink(missing_ok=True)
            if not self._overwrite and is_finished(out, key):
                self.summary.kept += 1
                continue
            yield ListJob(number, self._name(number), request, key)

    def _request(self, number: int) -> GenerateRequest:
        own = resolve_paths(self.entries[number], self._folder)
        if own.keys() & {"text", "text_file"}:
            own = {"text": "", "text_file": "", **own}  # not one of each
        request = request_from_flags(str(number), {**self._defaults, **own})
        check(request)
        out = str(Path(request.out).resolve())
        if out in self._outs:
            raise UserError(f'Another job of the list writes "{request.out}" too.')
        self._outs.add(out)
        return replace(request, out=out)

    def _partials(self, folder: Path) -> dict[str, list[Path]]:
        """By the result's name, what a run that was killed left of it in a folder."""
        if folder not in self._leftovers:
            found = self._leftovers[folder] = {}
            for path in folder.glob("*.????????.part"):
                found.setdefault(path.name[: -len(".12345678.part")], []).append(path)
        return self._leftovers[folder]


def run_list(jobs: JobList, executor: Executor, reporter: ListReporter) -> Summary:
    """Do all jobs of a list; each result is written once, whatever happens to a worker.

    Raises:
        UserError: There can be no worker.
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
                if isinstance(future.exception(), executor.num_lost):
                    lost = jobs.take_dead(group)
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
        jobs.take(job, outcome, may_try_again=executor.tries_again)
        for text in outcome.warnings:
            reporter.warn(f"{job.name}: {text}")


def _report(jobs: JobList, reporter: ListReporter, seconds: float) -> None:
    ended, total = jobs.num_ended, len(jobs.entries)
    worked = ended - jobs.summary.kept
    left = seconds / worked * (total - ended) if worked else None
    reporter.progress(Stage.ANIMATING, ended, total, "files", left)


def is_finished(out: Path, key: str) -> bool:
    """Whether a result is there and was made by a request with this key."""
    if not out.is_file():
        return False
    try:
        report = json.loads(str(io.read_arrays(out, ["report"])["report"]))
    except (UserError, ValueError):
        return False
    return isinstance(report, dict) and report.get("key") == key


def request_key(request: GenerateRequest) -> str:
    """The same for requests that give the same result.

    It depends on the request, on the state of the files that it names, on the backend's version,
    on the parameters of the checkpoint and of the phone head, and on the installed recognisers.

    Args:
        request: A request that was checked; all its paths are absolute.
    """
    about: dict[str, object] = asdict(replace(request, job=""))
    about["options"] = asdict(replace(request.options, device="auto"))
    about["version"] = version()
    about["recognisers"] = [bundled.package_version(name) for name in RECOGNISERS]
    checkpoint = request.options.checkpoint
    folders = (bundled.CHECKPOINTS_DIR / checkpoint, Path(checkpoint))
    weights = [folder / name for folder in folders for name in _CHECKPOINT_FILES]
    about["parameters"] = [_digest(path) for path in (*weights, bundled.PHONE_HEAD)]
    for name in (request.audio, request.head, request.style.value, request.options.topology):
        if name and "\0" not in name and Path(name).is_file():
            state = Path(name).stat()
            about[name] = [state.st_size, state.st_mtime_ns]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def _digest(path: Path) -> str:
    """Digest of a file's content; empty where there is no such file."""
    if "\0" in str(path) or not path.is_file():
        return ""
    state = path.stat()
    return _digest_of_state(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_of_state(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model(job: ListJob) -> tuple[str, str]:
    return job.request.options.checkpoint, job.request.options.device


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "[?*" else letter for letter in name)
