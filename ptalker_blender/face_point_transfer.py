# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks the missing face points of a head after one that PTalker knows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import face_point_fit, face_points, scene_inputs
from .face_point_fit import MIN_POINTS, Surface
from .protocol import UserError
from .untyped import Object

__all__ = ["MIN_POINTS", "transfer"]
Numbers = NDArray[np.floating] | NDArray[np.integer]


def transfer(obj: Object, other: Object | None, backend_root: Path) -> int:
    """Mark the points that are not marked yet; returns how many.

    Args:
        obj: Head with some marked points, in edit or object mode.
        other: Head that PTalker knows; None for the demo head.
        backend_root: Where the shipped topologies lie.

    Raises:
        UserError: The other head is not known, or the marked points do not suffice.
    """
    if obj.mode == 'EDIT':
        obj.update_from_editmode()
    head = scene_inputs.read_head(obj)
    source, source_points = (
        _demo_head(backend_root) if other is None else _known_head(other, backend_root)
    )
    found = face_point_fit.transfer(
        source,
        source_points,
        _surface(head.vertices, head.face_corners, head.face_sizes),
        head.face_points,
    )
    for name, vertex in found.items():
        face_points.mark(obj, name, vertex)
    return len(found)


def _demo_head(backend_root: Path) -> tuple[Surface, dict[str, int]]:
    folder = backend_root / "backend"
    try:
        with np.load(folder / "demo" / "head.npz", allow_pickle=False) as data:
            arrays = [data[name] for name in ("vertices", "face_corners", "face_sizes")]
        points = _topology_points(folder / "topologies" / "demo.json", len(arrays[0]))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The demo head cannot be read ({error}). Install the PTalker extension again."
        ) from error
    return _surface(*arrays), points


def _known_head(obj: Object, backend_root: Path) -> tuple[Surface, dict[str, int]]:
    """A head with all points marked, or with as many vertices as a shipped topology."""
    head = scene_inputs.read_head(obj)
    points = dict(head.face_points)
    wanted = set(face_points.names(backend_root))
    for path in sorted((backend_root / "backend" / "topologies").glob("*.json")):
        if not wanted <= points.keys():
            points = _topology_points(path, len(head.vertices))
    if not wanted <= points.keys():
        raise UserError(
            f'PTalker does not know "{obj.name}". Select a head with all face points marked, a '
            "FLAME head or the demo head besides, or none at all to use the demo head."
        )
    return _surface(head.vertices, head.face_corners, head.face_sizes), points


def _topology_points(path: Path, num_vertices: int) -> dict[str, int]:
    """The points of a shipped topology; none where it has another number of vertices."""
    data = json.loads(path.read_text("utf-8"))
    return dict(data["face_points"]) if data["num_vertices"] == num_vertices else {}


def _surface(vertices: Numbers, corners: Numbers, sizes: Numbers) -> Surface:
    return Surface(vertices.astype(np.float64), corners.astype(np.int64), sizes.astype(np.int64))
