# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker processes: the cores they may use, and their end with the parent process."""

from __future__ import annotations

import multiprocessing
import os
import threading


def limit_cores(number: int) -> None:
    """Let this process work on fewer cores, since others like it run beside it.

    Args:
        number: Cores that `num_cores` then names at most.
    """
    _limit.append(number)


_limit: list[int] = []


def num_cores() -> int:
    """Processor cores that this process may use."""
    return min([_available_cores(), *_limit])


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_with_parent() -> None:
    """Makes a worker process end when its parent is killed; otherwise it would wait forever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
