# SPDX-License-Identifier: GPL-3.0-or-later
"""The one thing that is missing before a job can start; for poll and draw, it reads no file."""

from __future__ import annotations

from bpy.types import Context

from . import (
    backend_status,
    face_points,
    job_runner,
    paths,
    preferences,
    protocol,
    scene_inputs,
)


def backend_missing(context: Context) -> str:
    """Why the backend cannot be asked now; empty where it can."""
    if job_runner.is_running():
        return "A job is running."
    other = paths.other_python(preferences.read(context).ready_python)
    if other is not None:
        return paths.python_problem(other)
    status = backend_status.status()
    return "" if status.state == 'READY' else status.text


def needs_setup(context: Context) -> bool:
    """Whether the next thing to press is Set Up Backend."""
    other = paths.other_python(preferences.read(context).ready_python)
    return other is None and backend_status.status().state != 'READY'


def missing(context: Context) -> str:
    """The one thing that is missing before a head can be animated; empty where none is."""
    return backend_missing(context) or scene_inputs.missing(context)


def advice(context: Context) -> str:
    """What to do about a head that will hardly be known, where nothing is missing; else empty.

    A model of one's own may know heads that the bundled one does not.
    """
    obj = scene_inputs.find_head(context)
    if obj is None or preferences.read(context).checkpoint != preferences.Settings().checkpoint:
        return ""
    try:
        return face_points.advice(obj, paths.backend_root())
    except protocol.UserError as error:
        return str(error)
