# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells poll and draw what is missing before a job can start; it reads no file."""

from __future__ import annotations

from bpy.types import Context

from . import (
    backend_status,
    face_points,
    job_runner,
    paths,
    preferences,
    protocol,
    rig_target,
    scene_inputs,
)
from .typed import settings_of


def backend_missing(context: Context) -> str:
    """Why the backend cannot take a job now; empty where it can."""
    if job_runner.is_running():
        return "A job is running."
    settings = preferences.read(context)
    other = paths.other_python(settings.ready_python)
    if other is not None:
        return paths.python_problem(other)
    status = backend_status.chosen(settings)
    return "" if status.state == 'READY' else status.text


def missing(context: Context) -> str:
    """What is missing before a head can be animated, the first thing alone; else empty."""
    return backend_missing(context) or scene_inputs.missing(context)


def advice(context: Context) -> str:
    """Which keys of its own a head will move, or what to do about one that is not known.

    Another model may know the head, so nothing is said then.
    """
    obj = scene_inputs.find_head(context)
    if obj is None or preferences.read(context).checkpoint != preferences.Settings().checkpoint:
        return ""
    if text := rig_target.advice(obj, settings_of(obj).key_target):
        return text
    try:
        return face_points.advice(obj, paths.backend_root())
    except protocol.UserError as error:
        return str(error)
