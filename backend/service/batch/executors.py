# SPDX-License-Identifier: GPL-3.0-or-later
"""Executors of a list of jobs: in this process, in several processes, or in a Ray cluster.

Torch is loaded where a worker runs, not here.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import TYPE_CHECKING, Any

from backend import bundled
from backend.errors import UserError
from backend.processes import end_with_parent, limit_cores, num_cores
from backend.service.batch.job_list import MAX_GROUP, Executor, JobOutcome, ListJob, WorkerHandle

if TYPE_CHECKING:
    from backend.service.batch.list_worker import ListWorker


def executor_for(num_jobs: int, *, device: str, workers: int | None, ray: str | None) -> Executor:
    """Choose the executor for a list of jobs.

    Args:
        num_jobs: Length of the list.
        device: Device of most of its jobs.
        workers: Number of workers; None leaves the choice to this.
        ray: Address of a Ray cluster, ``auto`` or ``local``; None for this machine without Ray.

    Returns:
        The executor; it starts no worker by itself.

    Raises:
        UserError: Ray is not installed or the cluster does not answer.
    """
    if ray is not None:
        return RayExecutor(ray, device=device, workers=workers)
    if workers is None:
        is_small = num_jobs < 2 * MAX_GROUP  # a process takes seconds to load torch
        workers = 1 if is_small or _may_use_gpu(device) else num_cores()
    return InProcessExecutor() if workers == 1 else ProcessExecutor(workers)


def _may_use_gpu(device: str) -> bool:
    """Whether the model will probably run on a GPU; torch would be certain, but is slow to load."""
    has_gpu = sys.platform == "darwin" or shutil.which("nvidia-smi") is not None
    return device in ("cuda", "mps") or (device == "auto" and has_gpu)


class InProcessExecutor:
    """Runs one worker in a thread of this process; see `Executor`."""

    size = 1
    worker_lost: tuple[type[BaseException], ...] = ()
    may_retry = False

    def start_worker(self) -> WorkerHandle:
        """Start the worker."""
        from backend.service.batch.list_worker import ListWorker  # brings torch

        return _InProcessHandle(ListWorker())

    def close(self) -> None:
        """Do nothing: each worker was closed by itself."""


class _InProcessHandle:
    def __init__(self, worker: ListWorker) -> None:
        self._worker = worker
        self._pool = ThreadPoolExecutor(max_workers=1)

    def submit(self, jobs: Sequence[ListJob]) -> Future[list[JobOutcome]]:
        return self._pool.submit(self._worker.do, jobs)

    def close(self) -> None:
        self._worker.end()
        self._pool.shutdown()
        self._worker.close()


class ProcessExecutor:
    """Runs each worker in a process of its own; see `Executor`."""

    worker_lost: tuple[type[BaseException], ...] = (BrokenProcessPool,)
    may_retry = False

    def __init__(self, size: int) -> None:
        """Prepare an executor.

        Args:
            size: Number of workers.
        """
        self.size = size

    def start_worker(self) -> WorkerHandle:
        """Start a worker; its process starts with its first jobs."""
        return _ProcessHandle()

    def close(self) -> None:
        """Do nothing: each worker was closed by itself."""


class _ProcessHandle:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin_process)

    def submit(self, jobs: Sequence[ListJob]) -> Future[list[JobOutcome]]:
        return self._pool.submit(_do_in_process, jobs)

    def close(self) -> None:
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    limit_cores(1)
    end_with_parent()


@cache
def _process_worker() -> ListWorker:
    from backend.service.batch.list_worker import ListWorker  # brings torch

    return ListWorker()


def _do_in_process(jobs: Sequence[ListJob]) -> list[JobOutcome]:
    return _process_worker().do(jobs)


class RayExecutor:
    """Runs each worker as an actor of a Ray cluster, on a core or a GPU; see `Executor`."""

    may_retry = True  # another machine may have what this one lacks

    def __init__(self, address: str, *, device: str, workers: int | None) -> None:
        """Connect to a cluster.

        Args:
            address: ``auto``, ``host:port``, or ``local`` for a Ray of its own on this machine.
            device: Device of most jobs.
            workers: Largest number of actors; None takes all that there is room for.

        Raises:
            UserError: Ray is not installed or the cluster does not answer.
        """
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                "Ray is not installed. Install what backend/requirements-cluster.txt names into "
                "the backend's environment on every machine, or leave --ray out."
            )
        ray: Any = importlib.import_module("ray")  # optional
        self._ray = ray
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # A cluster's machines need the requirements only: the backend itself is sent to them.
        environment = {} if address == "local" else {"py_modules": [str(bundled.BACKEND_DIR)]}
        try:
            ray.init(
                address=address, runtime_env=environment, include_dashboard=False,
                num_cpus=workers if address == "local" else None, log_to_driver=False,
                logging_level=logging.ERROR,
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f'No Ray cluster answers at "{address}" ({error!s:.200}). Start one with '
                '"ray start --head", or use --ray local.'
            ) from error
        resources = ray.cluster_resources()
        self._gpus = 1 if device != "cpu" and resources.get("GPU", 0) >= 1 else 0
        room = int(resources.get("GPU" if self._gpus else "CPU", 1))
        self.size = max(1, room if workers is None else min(workers, room))
        self.worker_lost: tuple[type[BaseException], ...] = (ray.exceptions.RayActorError,)

    def start_worker(self) -> WorkerHandle:
        """Start an actor."""
        from backend.service.batch.list_worker import ListWorker  # brings torch

        options = {"num_cpus": 1, "num_gpus": self._gpus, "max_restarts": 0}
        return _RayHandle(self._ray, self._ray.remote(**options)(ListWorker).remote())

    def close(self) -> None:
        """Disconnect from the cluster; a local one ends."""
        self._ray.shutdown()


class _RayHandle:
    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def submit(self, jobs: Sequence[ListJob]) -> Future[list[JobOutcome]]:
        future: Future[list[JobOutcome]] = self._actor.do.remote(list(jobs)).future()
        return future

    def close(self) -> None:
        self._ray.kill(self._actor)
