# SPDX-License-Identifier: GPL-3.0-or-later
"""Find Face Points: the job in which the backend looks for a head's face."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import bpy
from bpy.types import Object

from . import (
    backend_job,
    face_point_results,
    face_points,
    lip_sync_job,
    paths,
    scene_inputs,
)
from .backend_job import BackendJob, Outcome
from .face_points import State
from .preferences import Settings
from .protocol import FacePointsRequest, Result, UserError
from .scene_inputs import Head
from .typed import scene_of, settings_of

TITLE: Final = "Find Face Points"


def find_job(obj: Object, settings: Settings) -> BackendJob:
    """Build the job and write its file; the runner starts it.

    Args:
        obj: The head; points that were set by hand stay.
        settings: The preferences.

    Returns:
        A job that was not started.

    Raises:
        UserError: There is no backend, the head cannot keep points, or the file cannot be written.
    """
    if problem := face_points.problem(obj):
        raise UserError(problem)
    command = paths.backend_command(settings)
    known = face_points.points(obj)
    by_hand = {name: p.vertex for name, p in known.items() if p.state == State.HAND}
    head = replace(scene_inputs.read_head(obj), face_points=by_hand)
    folder = backend_job.new_job_folder()
    path = folder / "head.npz"
    try:
        lip_sync_job.write_head(path, head)
    except OSError as error:
        raise UserError(
            f"The job's file cannot be written to {folder}: {error.strerror or error}."
        ) from error
    request = FacePointsRequest(job=folder.name, head=str(path), out=str(folder / "points.json"))
    return BackendJob(
        TITLE,
        request,
        command=command,
        folder=folder,
        apply=lambda result: _apply(head, result),
        keep_folder=settings.keep_job_files,
    )


def _apply(head: Head, result: Result) -> Outcome:
    obj = face_point_results.find_object(head)
    if obj is None:
        raise UserError(f'The head "{head.name}" was deleted in the meantime.')
    note = face_points.bring_over(obj)
    num_found = face_point_results.store(obj, head, result.report)
    if not num_found:
        raise UserError(f'"{obj.name}" has changed in the meantime. Find its face points again.')
    known = face_points.points(obj)
    doubtful = face_points.doubtful(known)
    text = f'Found {num_found} face points of "{obj.name}"'
    if num_kept := len(known) - num_found:
        text += f", {num_kept} stay where you set them"
    if doubtful:
        names = face_points.names(paths.backend_root())
        settings_of(obj).face_point = names.index(doubtful[0])
        what = "1 is" if len(doubtful) == 1 else f"{len(doubtful)} are"
        text += f"; {what} doubtful: look there, under Face Points"
    settings_of(scene_of(bpy.context)).show_face_points = True
    return Outcome('DONE', f"{text}.", (note,) if note else (), undo_text=TITLE)
