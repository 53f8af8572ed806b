# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker of a list of jobs: does several jobs at once with one loaded model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from backend.errors import Cancelled
from backend.inference.engine import Engine
from backend.service.batch.job_list import JobOutcome, ListJob
from backend.service.progress import ProgressEstimate
from backend.service.server import UNFORESEEN, describe
from backend.service.worker import Worker, read_inputs

_log = logging.getLogger(__name__)


class ListWorker:
    """Does groups of jobs, each in a thread of its own; the model computes batches of them."""

    def __init__(self) -> None:
        """Prepare a worker."""
        self._worker = Worker()
        self._is_ending = threading.Event()

    def do(self, jobs: Sequence[ListJob]) -> list[JobOutcome]:
        """Do jobs of one checkpoint and engine; one that fails does not disturb the others."""
        try:
            options = jobs[0].request.options
            engine = self._worker.predictor(
                options.checkpoint, options.engine, options.device, decoder=options.decoder
            ).engine
            with ThreadPoolExecutor(max_workers=engine.jobs_at_once) as pool:
                return list(pool.map(lambda job: self._do_one(job, engine), jobs))
        except Exception as error:  # noqa: BLE001 - the jobs after these are still to be done
            return [self._outcome(job, error=_sentence(job, error)) for job in jobs]

    def end(self) -> None:
        """Ask the running jobs to end soon, without results."""
        self._is_ending.set()

    def close(self) -> None:
        """End the model's processes and threads, once no job runs."""
        self._worker.close()

    def _do_one(self, job: ListJob, engine: Engine) -> JobOutcome:
        reporter = _WarningCollector(self._is_ending)
        try:
            with engine.participant():
                inputs = read_inputs(job.request, reporter.is_cancelled)
                self._worker.animate(inputs, reporter, estimate=ProgressEstimate(), key=job.key)
        except Cancelled:
            return self._outcome(job, error="It was interrupted.")
        except Exception as error:  # noqa: BLE001 - the jobs after it are still to be done
            return self._outcome(job, error=_sentence(job, error))
        return self._outcome(job, warnings=reporter.warnings, seconds=inputs.sound.seconds)

    def _outcome(
        self, job: ListJob, *, error: str = "", warnings: Sequence[str] = (), seconds: float = 0.0
    ) -> JobOutcome:
        return JobOutcome(job.number, error, tuple(warnings), seconds)


class _WarningCollector:
    """Keeps the warnings of one job and drops its progress: many jobs run at once."""

    def __init__(self, is_ending: threading.Event) -> None:
        self.warnings: list[str] = []
        self._is_ending = is_ending

    def is_cancelled(self) -> bool:
        return self._is_ending.is_set()

    def status(self, text: str) -> None:
        """Drop it."""

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def progress(
        self, stage: str, done: float, total: float, unit: str, seconds_left: float | None
    ) -> None:
        """Drop it."""


def _sentence(job: ListJob, error: Exception) -> str:
    """Why a job failed; the log has the rest of what was not foreseen."""
    text = describe(error)
    if text == UNFORESEEN:
        _log.error("%s", job.name, exc_info=error)
        text = f"Something unforeseen went wrong ({error!r:.200})."
    return " ".join(text.split())
