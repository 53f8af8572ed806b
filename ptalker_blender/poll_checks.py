# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells poll and draw what is missing before a job can start; it reads no file."""

from __future__ import annotations

from bpy.types import Context

from . import (
    backend_status,
    face_points,
    job_runner,
    motion,
    paths,
    preferences,
    protocol,
    rig_target,
    scene_inputs,
    shape_keys,
)
from .character import Character
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
    if obj is None or _has_own_model(context):
        return ""
    if text := rig_target.advice(obj, settings_of(obj).key_target):
        return text
    try:
        return face_points.advice(obj, paths.backend_root())
    except protocol.UserError as error:
        return str(error)


def is_face_unknown(context: Context) -> bool:
    """Whether Find Face Points would tell the backend something about the panel's head."""
    obj = scene_inputs.find_head(context)
    if obj is None or obj.type != 'MESH' or _has_own_model(context):
        return False
    if rig_target.advice(obj, settings_of(obj).key_target) or face_points.problem(obj):
        return False
    try:
        return face_points.is_unknown(obj, paths.backend_root())
    except protocol.UserError:
        return False


def _has_own_model(context: Context) -> bool:
    return preferences.read(context).checkpoint != preferences.Settings().checkpoint


def character(context: Context) -> Character | None:
    """The other meshes of the head's character; None where there are none."""
    obj = scene_inputs.find_head(context)
    if obj is None or obj.type != 'MESH':
        return None
    found = scene_inputs.find_character(context, obj)
    return found if found.meshes else None


def notes(context: Context) -> list[str]:
    """What a run is going to do to the rig, to a shared mesh and to other lines.

    And which meshes of the character stay behind.
    """
    obj = scene_inputs.find_head(context)
    if obj is None or obj.type != 'MESH':
        return []
    fps = motion.frame_rate(context.scene.render.fps, context.scene.render.fps_base)
    settings = settings_of(obj)
    along = scene_inputs.find_character(context, obj) if settings.with_character else None
    found = [
        *(along.left if along is not None else ()),
        *rig_target.notes(obj, settings.key_target, float(fps)),
        shape_keys.mesh_note(obj),
    ]
    return [text for text in found if text]
