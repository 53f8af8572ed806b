# SPDX-License-Identifier: GPL-3.0-or-later
"""Face points (landmarks) of a head: named vertices, each stored as a vertex group of one vertex.

The artist marks them, or has those that are missing transferred from a known head. With all of
them the backend can animate any head. Their names are those of the shipped topologies.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import bmesh
import numpy as np
from bpy.types import Object

from . import face_point_fit, head_mesh
from .face_point_fit import Surface
from .protocol import UserError
from .typed import mesh_of

PREFIX: Final = "face_point."


@cache
def names(backend_root: Path) -> tuple[str, ...]:
    """All names in the order in which they are marked."""
    path = backend_root / "backend" / "topologies" / "demo.json"
    return tuple(json.loads(path.read_text("utf-8"))["face_points"])


@cache
def _known_sizes(backend_root: Path) -> frozenset[int]:
    """Numbers of vertices of the heads that need no marked points."""
    folder = backend_root / "backend" / "topologies"
    read = (json.loads(path.read_text("utf-8")) for path in folder.glob("*.json"))
    return frozenset(int(topology["num_vertices"]) for topology in read)


def advice(obj: Object, backend_root: Path) -> str:
    """What to do about a head that the backend will not know; empty where it may know it.

    It goes by the number of vertices, fast enough for drawing; the backend compares the faces too.
    """
    count, wanted = len(obj.data.vertices), names(backend_root)
    num_marked = len(marked_names(obj).intersection(wanted))
    if num_marked == len(wanted) or (num_marked == 0 and count in _known_sizes(backend_root)):
        return ""
    if num_marked:
        return f"{num_marked} of {len(wanted)} face points are marked. Mark the others too."
    return (
        f'PTalker does not know "{obj.name}" ({count} vertices): Generate looks for its face. '
        "Where that fails, mark its face points."
    )


def title(name: str) -> str:
    """The name of a point for the panel: ``Lip Upper Outer Left 2``."""
    return name.replace("_", " ").title()


def marked(obj: Object) -> dict[str, int]:
    """Vertex number of each marked point; one whose vertex was deleted is left out."""
    groups = {
        group.index: group.name.removeprefix(PREFIX)
        for group in obj.vertex_groups
        if group.name.startswith(PREFIX)
    }
    if not groups:
        return {}
    found: dict[str, int] = {}
    for vertex in obj.data.vertices:
        for membership in vertex.groups:
            name = groups.get(membership.group)
            if name is not None:
                found.setdefault(name, vertex.index)
    return found


def marked_names(obj: Object) -> set[str]:
    """Names that have a vertex group; fast enough for drawing."""
    return {g.name.removeprefix(PREFIX) for g in obj.vertex_groups if g.name.startswith(PREFIX)}


def chosen_vertex(obj: Object) -> int | None:
    """In edit mode: the only selected vertex, or the active one; None where neither is."""
    edited = bmesh.from_edit_mesh(mesh_of(obj))
    selected = [vertex for vertex in edited.verts if vertex.select]
    if len(selected) == 1:
        return selected[0].index
    active = edited.select_history.active
    return active.index if isinstance(active, bmesh.types.BMVert) else None


def select(obj: Object, name: str) -> None:
    """In edit mode: select the vertex of a marked point alone; nothing where it is not marked."""
    group = obj.vertex_groups.get(PREFIX + name)
    edited = bmesh.from_edit_mesh(mesh_of(obj))
    layer = edited.verts.layers.deform.active
    if group is None or layer is None:
        return
    vertex: bmesh.types.BMVert
    for vertex in edited.verts:
        vertex.select = group.index in vertex[layer]
    edited.select_flush_mode()
    bmesh.update_edit_mesh(mesh_of(obj), loop_triangles=False, destructive=False)


def mark(obj: Object, name: str, vertex: int) -> None:
    """Store a vertex as a face point in place of the one it was; in edit or object mode."""
    group = obj.vertex_groups.get(PREFIX + name)
    is_new = group is None
    if is_new:
        group = obj.vertex_groups.new(name=PREFIX + name)
    if obj.mode != 'EDIT':
        if not is_new:
            group.remove(list(range(len(obj.data.vertices))))
        group.add([vertex], 1.0, 'REPLACE')
        return
    edited = bmesh.from_edit_mesh(mesh_of(obj))
    layer = edited.verts.layers.deform.verify()
    for other in () if is_new else edited.verts:
        weights: Any = other[layer]  # of the vertex, by number of the group
        if group.index in weights:
            del weights[group.index]
    edited.verts.ensure_lookup_table()
    weights = edited.verts[vertex][layer]
    weights[group.index] = 1.0
    bmesh.update_edit_mesh(mesh_of(obj), loop_triangles=False, destructive=False)


def clear(obj: Object) -> None:
    """Remove every marked point."""
    for group in [g for g in obj.vertex_groups if g.name.startswith(PREFIX)]:
        obj.vertex_groups.remove(group)


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
    found = face_point_fit.transfer(source, points, _surface(obj), marked(obj))
    for name, vertex in found.items():
        mark(obj, name, vertex)
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
    points = marked(obj)
    wanted = set(names(backend_root))
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
