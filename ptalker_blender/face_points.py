# SPDX-License-Identifier: GPL-3.0-or-later
"""Face points (landmarks) of a head: named vertices, kept in an attribute of the mesh.

The backend finds them, or the artist marks them. With all of them it can animate any head. Their
names are those of the shipped topologies.

The attribute has a number for each vertex: 0, or the code of a point. Its name begins with a dot,
so no list shows it and no exporter writes it, and weight tools do not look there. What Blender does
to a mesh it does to the attribute too; where it mixes two vertices, the mixed number is no code.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

import bmesh
import numpy as np
from bpy.types import Object
from numpy.typing import NDArray

from . import face_point_groups, paths
from .protocol import UserError
from .typed import mesh_of

ATTRIBUTE: Final = ".ptalker_face_points"
BY_HAND: Final = (
    "lip_corner_left", "lip_corner_right", "lip_upper_inner_center", "lip_lower_inner_center",
    "nose_tip", "chin", "eye_outer_left", "eye_outer_right",
)  # fmt: skip
"""Where no face is found, these are asked for; the others are transferred by them."""
_CODE_MASK: Final = 0xFFFFFF
"""Blender mixes numbers as floats, which hold 24 bits."""


class State(StrEnum):
    """Where a point comes from."""

    HAND = "by hand"
    FOUND = "found"
    DOUBTFUL = "doubtful"


@dataclass(frozen=True, slots=True)
class Point:
    """A face point of a mesh.

    Attributes:
        vertex: Number of its vertex.
        state: Where it comes from.
    """

    vertex: int
    state: State


@cache
def names(backend_root: Path) -> tuple[str, ...]:
    """All names in the order in which they are shown."""
    path = backend_root / "backend" / "topologies" / "demo.json"
    return tuple(json.loads(path.read_text("utf-8"))["face_points"])


@cache
def _known_sizes(backend_root: Path) -> frozenset[int]:
    """Numbers of vertices of the heads that need no points."""
    folder = backend_root / "backend" / "topologies"
    read = (json.loads(path.read_text("utf-8")) for path in folder.glob("*.json"))
    return frozenset(int(topology["num_vertices"]) for topology in read)


def is_known_size(obj: Object, backend_root: Path) -> bool:
    """Whether a mesh has as many vertices as a head that PTalker knows; the faces may differ."""
    return len(mesh_of(obj).vertices) in _known_sizes(backend_root)


def advice(obj: Object, backend_root: Path) -> str:
    """What the artist should know of a head's points; empty where they need not be thought of.

    It goes by the number of vertices, fast enough for drawing; the backend compares the faces too.
    """
    wanted, known = names(backend_root), points(obj)
    if known.keys() >= set(wanted):
        count = len(doubtful(known))
        are = "point is" if count == 1 else "points are"
        return f"{count} face {are} doubtful: look at them under Face Points." if count else ""
    if is_known_size(obj, backend_root):
        return ""
    if known:
        return f"{len(known)} of {len(wanted)} face points are marked: Generate finds the others."
    return (
        f'PTalker does not know "{obj.name}" ({len(mesh_of(obj).vertices)} vertices): Generate '
        "looks for its face. Find Face Points shows beforehand where."
    )


def is_unknown(obj: Object, backend_root: Path) -> bool:
    """Whether neither a shipped topology nor the points of a mesh tell where its face is."""
    is_complete = points(obj).keys() >= set(names(backend_root))
    return not is_complete and not is_known_size(obj, backend_root)


def problem(obj: Object) -> str:
    """Why points cannot be put on an object; empty where they can."""
    if obj.type != 'MESH':
        return f'"{obj.name}" is not a mesh. Select the mesh of the head.'
    mesh = mesh_of(obj)
    if mesh.library or mesh.override_library:
        return (
            f'The mesh of "{obj.name}" belongs to another file, and face points are kept in it. '
            "Find them there, or make the mesh local first (Object > Relations > Make Local)."
        )
    return ""


def title(name: str) -> str:
    """The name of a point for the panel: ``Lip Upper Outer Left 2``."""
    return name.replace("_", " ").title()


def doubtful(known: Mapping[str, Point]) -> list[str]:
    """Names of the points that should be looked at."""
    return [name for name, point in known.items() if point.state == State.DOUBTFUL]


def asked_for(obj: Object, backend_root: Path) -> list[str]:
    """Names of the points that the artist is to set, in order.

    Those that are doubtful or missing; where none was found, the eight by which the others are
    transferred.
    """
    known = points(obj)
    if all(point.state == State.HAND for point in known.values()):
        return [name for name in BY_HAND if name not in known]
    wanted = names(backend_root)
    asked = {*doubtful(known), *(name for name in wanted if name not in known)}
    return [name for name in wanted if name in asked]


def code(name: str, state: State) -> int:
    """The number of a point in the attribute, in 24 bits."""
    return zlib.crc32(f"{state}.{name}".encode()) & _CODE_MASK


@cache
def _codes() -> dict[int, tuple[str, State]]:
    """Code -> name and state, of all points."""
    wanted = names(paths.backend_root())
    return {code(name, state): (name, state) for name in wanted for state in State}


def points(obj: Object) -> dict[str, Point]:
    """The marked points by their names; fast enough for drawing.

    Of two vertices with one point, as after duplicating a part, the first counts. Points that are
    still vertex groups, as older versions made them, are by hand.

    Args:
        obj: A mesh object in any mode.

    Returns:
        The points; one whose vertex was deleted is left out.
    """
    found: dict[str, Point] = {}
    values = _values(obj)
    if values is not None:
        known = _codes()
        for vertex in np.flatnonzero(values).tolist():
            name, state = known.get(int(values[vertex]), ("", State.HAND))
            if name:
                found.setdefault(name, Point(vertex, state))
    if obj.vertex_groups:
        old = face_point_groups.marked(obj, names(paths.backend_root()))
        for name, vertex in old.items():
            found.setdefault(name, Point(vertex, State.HAND))
    return found


def marked(obj: Object) -> dict[str, int]:
    """Vertex number of each marked point."""
    return {name: point.vertex for name, point in points(obj).items()}


def marked_names(obj: Object) -> set[str]:
    """Names of the marked points."""
    return set(points(obj))


def store(obj: Object, new: Mapping[str, Point]) -> list[str]:
    """Put points on a head, each in place of where it was, in edit or any other mode.

    Args:
        obj: A mesh object whose mesh can be edited.
        new: Points by their names; those that are not among them stay.

    Returns:
        Names of the points that lost their vertex to one of these.
    """
    before = points(obj)
    values = _values(obj)
    if values is None:
        values = np.zeros(num_vertices(obj), np.int32)
    gone = [code(name, state) for name in new for state in State]
    values[np.isin(values, gone)] = 0
    for name, point in new.items():
        values[point.vertex] = code(name, point.state)
    _set_values(obj, values)
    after = points(obj)
    return [name for name in before if name not in after]


def bring_over(obj: Object) -> str:
    """Take points that are vertex groups of an older file into the attribute.

    Groups go only where nothing else uses them, and never one of another name.

    Args:
        obj: A mesh object in any mode.

    Returns:
        A sentence that says what was done; empty where there was nothing to do.
    """
    mesh, wanted = mesh_of(obj), names(paths.backend_root())
    if mesh.library or mesh.override_library or not face_point_groups.has_any(obj, wanted):
        return ""
    known = points(obj)
    store(obj, known)
    kept = face_point_groups.remove(obj, wanted)
    text = f'{len(known)} face points of "{obj.name}" were vertex groups, where weight tools and '
    text += "exporters saw them; they are kept apart from the weights now."
    if kept:
        listed = ", ".join(kept[:3]) + (" and others" if len(kept) > 3 else "")
        text += f" The groups {listed} stay, since a modifier, constraint or shape key uses them."
    return text


def clear(obj: Object) -> None:
    """Remove every point."""
    face_point_groups.remove(obj, names(paths.backend_root()))
    if obj.mode == 'EDIT':
        edited = bmesh.from_edit_mesh(mesh_of(obj))
        layer = edited.verts.layers.int.get(ATTRIBUTE)
        if layer is not None:
            edited.verts.layers.int.remove(layer)
            bmesh.update_edit_mesh(mesh_of(obj), loop_triangles=False, destructive=False)
        return
    attribute = mesh_of(obj).attributes.get(ATTRIBUTE)
    if attribute is not None:
        mesh_of(obj).attributes.remove(attribute)


def chosen_vertex(obj: Object) -> int:
    """In edit mode: the only selected vertex, or the active one.

    Args:
        obj: A mesh object in edit mode.

    Returns:
        Its number.

    Raises:
        UserError: Neither is.
    """
    edited = bmesh.from_edit_mesh(mesh_of(obj))
    selected = [vertex for vertex in edited.verts if vertex.select]
    if len(selected) == 1:
        return selected[0].index
    active = edited.select_history.active
    if not isinstance(active, bmesh.types.BMVert):
        raise UserError("Select one vertex.")
    return active.index


def select(obj: Object, name: str) -> None:
    """In edit mode: select the vertex of a marked point alone; nothing where it is not marked."""
    point = points(obj).get(name)
    if point is None:
        return
    edited = bmesh.from_edit_mesh(mesh_of(obj))
    vertex: bmesh.types.BMVert
    for vertex in edited.verts:
        vertex.select = vertex.index == point.vertex
    edited.select_flush_mode()
    bmesh.update_edit_mesh(mesh_of(obj), loop_triangles=False, destructive=False)


def num_vertices(obj: Object) -> int:
    """How many vertices a mesh object has, also in edit mode."""
    if obj.mode == 'EDIT':
        return len(bmesh.from_edit_mesh(mesh_of(obj)).verts)
    return len(mesh_of(obj).vertices)


def _values(obj: Object) -> NDArray[np.int32] | None:
    """The attribute as it is now, also in edit mode; None where there is none."""
    if obj.mode == 'EDIT':
        edited = bmesh.from_edit_mesh(mesh_of(obj))
        layer: Any = edited.verts.layers.int.get(ATTRIBUTE)
        if layer is None:
            return None
        edited.verts.index_update()
        return np.array([vertex[layer] for vertex in edited.verts], np.int32)
    attribute: Any = mesh_of(obj).attributes.get(ATTRIBUTE)
    if attribute is None or (attribute.domain, attribute.data_type) != ('POINT', 'INT'):
        return None
    values = np.zeros(len(attribute.data), np.int32)
    attribute.data.foreach_get("value", values)
    return values


def _set_values(obj: Object, values: NDArray[np.int32]) -> None:
    mesh = mesh_of(obj)
    if obj.mode == 'EDIT':
        edited = bmesh.from_edit_mesh(mesh)
        found: Any = edited.verts.layers.int.get(ATTRIBUTE)
        layer = found or edited.verts.layers.int.new(ATTRIBUTE)
        vertex: Any
        for vertex, value in zip(edited.verts, values.tolist(), strict=True):
            vertex[layer] = value
        bmesh.update_edit_mesh(mesh, loop_triangles=False, destructive=False)
        return
    attribute: Any = mesh.attributes.get(ATTRIBUTE)
    if attribute is not None and (attribute.domain, attribute.data_type) != ('POINT', 'INT'):
        mesh.attributes.remove(attribute)
        attribute = None
    if attribute is None:
        attribute = mesh.attributes.new(ATTRIBUTE, 'INT', 'POINT')
    attribute.data.foreach_set("value", values)
    mesh.update_tag()
