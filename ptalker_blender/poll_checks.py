# SPDX-License-Identifier: GPL-3.0-or-later
"""The one thing that is missing before a job can start; fast enough for poll and draw."""

from __future__ import annotations

from . import face_points, job_runner, paths, preferences, protocol, rig_target, scene_inputs
from .untyped import Context


def backend_missing(context: Context) -> str:
    """Why the backend cannot be asked now; empty where it can."""
    if job_runner.is_running():
        return "A job is running."
    try:
        paths.backend_python(preferences.read(context).ready_python)
    except protocol.UserError as error:
        return str(error)
    return ""


def needs_setup(context: Context) -> bool:
    """Whether the next thing to press is Set Up Backend."""
    other = paths.other_python(preferences.read(context).ready_python)
    return other is None and preferences.status_of_backend().state != 'READY'


def missing(context: Context) -> str:
    """The one thing that is missing before a head can be animated; empty where none is."""
    return backend_missing(context) or scene_inputs.missing(context)


def advice(context: Context) -> str:
    """Which keys of its own a head will move, or what to do about one that will hardly be known.

    A model of one's own may know heads that the bundled one does not.
    """
    obj = scene_inputs.find_head(context)
    if obj is None or preferences.read(context).checkpoint != preferences.Settings().checkpoint:
        return ""
    if text := rig_target.advice(obj, obj.ptalker.key_target):
        return text
    try:
        return face_points.advice(obj, paths.backend_root())
    except protocol.UserError as error:
        return str(error)
