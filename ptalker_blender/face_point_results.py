# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the face points that a job's report holds on the head that they were found on."""

from __future__ import annotations

import bpy
from bpy.types import Object

from . import face_points
from .face_points import Point, State
from .scene_inputs import Head


def find_object(head: Head) -> Object | None:
    """The object that a job's head was read from; None where it was deleted."""
    return next((o for o in bpy.data.objects if o.session_uid == head.uid), None)


def keep(head: Head, report: dict[str, object]) -> tuple[str, ...]:
    """Keep the points that the backend found on a head while it did another job.

    Args:
        head: The head as the job took it from the scene.
        report: The job's report.

    Returns:
        Sentences that the artist should read.
    """
    obj = find_object(head)
    if obj is None or face_points.problem(obj):
        return ()
    note = face_points.bring_over(obj)
    store(obj, head, report)
    return (note,) if note else ()


def store(obj: Object, head: Head, report: dict[str, object]) -> int:
    """Store a report's points, but for those that were set by hand since.

    Args:
        obj: The head's object, whose mesh can be edited.
        head: The head as the job took it from the scene.
        report: The job's report.

    Returns:
        How many were stored; none where the mesh has other vertices now.
    """
    found, doubtful = report.get("face_points"), report.get("doubtful_face_points")
    if not isinstance(found, dict) or face_points.num_vertices(obj) != len(head.vertices):
        return 0
    unsure = set(doubtful) if isinstance(doubtful, list) else set()
    known = face_points.points(obj)
    by_hand = {name: p.vertex for name, p in known.items() if p.state == State.HAND}
    new = {
        name: Point(int(vertex), State.DOUBTFUL if name in unsure else State.FOUND)
        for name, vertex in found.items()
        if name not in by_hand
        and int(vertex) not in by_hand.values()
        and 0 <= int(vertex) < len(head.vertices)
    }
    if new:
        face_points.store(obj, new)
    return len(new)
