# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the engines are ready, kept in memory: drawing and poll read no files.

``job_runner`` has it read anew after each job, when a file is loaded, and every few seconds.
"""

from __future__ import annotations

import time
from typing import Final

import bpy

from . import backend_env, own_engine, paths, protocol

REFRESH_SECONDS: Final = 5.0
"""Largest age of the status: a second Blender, for example, may change the environment."""


class _Known:
    """The statuses as they were last read, own engine and PyTorch, and when."""

    statuses: tuple[backend_env.Status, backend_env.Status] | None = None
    read_at = 0.0


def own() -> backend_env.Status:
    """The status of the extension's own engine, at most a few seconds old."""
    return _statuses()[0]


def torch() -> backend_env.Status:
    """The status of the environment with PyTorch, at most a few seconds old."""
    return _statuses()[1]


def chosen(settings: paths.EngineSettings) -> backend_env.Status:
    """The status of the engine that a job would be given to."""
    engine = paths.choose_engine(settings, own(), torch())
    return torch() if engine == 'TORCH' else own()


def _statuses() -> tuple[backend_env.Status, backend_env.Status]:
    # No timer runs in the background, but nothing is drawn there either.
    is_old = bpy.app.background and time.monotonic() - _Known.read_at > REFRESH_SECONDS
    if _Known.statuses is None or is_old:
        refresh()
    return _Known.statuses or _read()


def read_at() -> float:
    """When the statuses were last read, by :func:`time.monotonic`."""
    return _Known.read_at


def refresh() -> bool:
    """Read the statuses anew; returns whether they changed."""
    before, _Known.statuses = _Known.statuses, _read()
    _Known.read_at = time.monotonic()
    return _Known.statuses != before


def _read() -> tuple[backend_env.Status, backend_env.Status]:
    own_status = own_engine.read_status(paths.own_engine_parts())
    try:
        return own_status, backend_env.read_status(paths.user_dir(), paths.requirements())
    except protocol.UserError as error:
        broken = backend_env.Status('BROKEN', str(error))
        return broken, broken
