# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the backend is ready, kept in memory: drawing and poll read no files.

``job_runner`` has it read anew after each job, when a file is loaded, and every few seconds.
"""

from __future__ import annotations

import time
from typing import Final

import bpy

from . import backend_env, paths, protocol

REFRESH_SECONDS: Final = 5.0
"""Largest age of the status: a second Blender, for example, may change the environment."""


class _Known:
    """The status as it was last read, and when."""

    status: backend_env.Status | None = None
    read_at = 0.0


def status() -> backend_env.Status:
    """The status of the add-on's own environment, at most a few seconds old."""
    # No timer runs in the background, but nothing is drawn there either.
    is_old = bpy.app.background and time.monotonic() - _Known.read_at > REFRESH_SECONDS
    if _Known.status is None or is_old:
        refresh()
    return _Known.status or _read()


def read_at() -> float:
    """When the status was last read, by :func:`time.monotonic`."""
    return _Known.read_at


def refresh() -> bool:
    """Read the status anew; returns whether it changed."""
    before, _Known.status = _Known.status, _read()
    _Known.read_at = time.monotonic()
    return _Known.status != before


def _read() -> backend_env.Status:
    try:
        return backend_env.read_status(paths.user_dir(), paths.requirements())
    except protocol.UserError as error:
        return backend_env.Status('BROKEN', str(error))
