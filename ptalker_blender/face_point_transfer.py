# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks the face points that are missing by those of another head: the fallback of finding them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from bpy.types import Object

from . import face_point_fit, face_points, head_mesh
from .face_point_fit import Surface
from .face_points import Point, State
from .protocol import UserError


def transfer(obj: Object, other: Object | None, backend_root: Path) -> int:
    """Mark the points that are not marked yet, by those of another head.

    Args:
        obj: Head with some marked points, in edit or object mode.
        other: Head that PTalker knows; None for the demo head.
        backend_root: Where the shipped topologies lie.

    Returns:
        How many points were marked.

    Raises:
        UserError: The other head is not known, or the marked points do not suffice.
    """
    if obj.mode == 'EDIT':
        obj.update_from_editmode()
    if other is None:
        source, points = _demo_head(backend_root)
    else:
        source, points = _surface(other), _all_points(other, backend_root)
    found = face_point_fit.transfer(source, points, _surface(obj), face_points.marked(obj))
    face_points.store(obj, {name: Point(vertex, State.FOUND) for name, vertex in found.items()})
    return len(found)


def _surface(obj: Object) -> Surface:
    return Surface.of(*head_mesh.seen(obj))


def _demo_head(backend_root: Path) -> tuple[Surface, dict[str, int]]:
    """The demo head and its points.

    Args:
        backend_root: The folder that holds ``backend/``.

    Returns:
        Its surface, and the vertex number of each point.

    Raises:
        UserError: Its files cannot be read.
    """
    folder = backend_root / "backend"
    try:
        with np.load(folder / "demo" / "head.npz", allow_pickle=False) as data:
            arrays = [data[name] for name in ("vertices", "face_corners", "face_sizes")]
        points = _topology_points(folder / "topologies" / "demo.json", len(arrays[0]))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The demo head cannot be read ({error}). Install the PTalker extension again."
        ) from error
    return Surface.of(*arrays), points


def _all_points(obj: Object, backend_root: Path) -> dict[str, int]:
    """The points of a head on which all are marked, or which has a shipped topology.

    Args:
        obj: The head.
        backend_root: Where the shipped topologies lie.

    Returns:
        Vertex number of each point.

    Raises:
        UserError: The head is not known.
    """
    points = face_points.marked(obj)
    wanted = set(face_points.names(backend_root))
    for path in sorted((backend_root / "backend" / "topologies").glob("*.json")):
        if not wanted <= points.keys():
            points = _topology_points(path, len(obj.data.vertices))
    if not wanted <= points.keys():
        raise UserError(
            f'PTalker does not know "{obj.name}". Select a head with all face points marked, a '
            "FLAME head or the demo head besides, or none at all to use the demo head."
        )
    return points


def _topology_points(path: Path, num_vertices: int) -> dict[str, int]:
    """The points of a shipped topology; none where it has another number of vertices."""
    data = json.loads(path.read_text("utf-8"))
    return dict(data["face_points"]) if data["num_vertices"] == num_vertices else {}
