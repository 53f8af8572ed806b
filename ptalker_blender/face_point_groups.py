# SPDX-License-Identifier: GPL-3.0-or-later
"""Face points of older files: vertex groups of one vertex, which weight tools and exporters see."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

import bmesh
import bpy
from bpy.types import Object

from .typed import mesh_of

PREFIX: Final = "face_point."


def marked(obj: Object, names: Collection[str]) -> dict[str, int]:
    """Vertex of each point that is a vertex group; the one with most weight where there are more.

    Args:
        obj: A mesh object in any mode.
        names: Names of all points; other groups are the artist's own.

    Returns:
        Vertex numbers by the points' names.
    """
    numbers = {number: name for number, name in _groups(obj) if name in names}
    if not numbers:
        return {}
    best: dict[str, tuple[float, int]] = {}
    for vertex, group, weight in _weights(obj):
        name = numbers.get(group)
        if name is not None and weight > best.get(name, (0.0, 0))[0]:
            best[name] = (weight, vertex)
    return {name: vertex for name, (_, vertex) in best.items()}


def remove(obj: Object, names: Collection[str]) -> list[str]:
    """Remove the groups of points, but none that anything else uses.

    Args:
        obj: A mesh object in any mode.
        names: Names of all points; other groups are the artist's own.

    Returns:
        Names of the groups that had to stay.
    """
    own = [PREFIX + name for _, name in _groups(obj) if name in names]
    if not own:
        return []
    used = _used_names(obj)
    for name in own:
        if name not in used:
            obj.vertex_groups.remove(obj.vertex_groups[name])
    return [name for name in own if name in used]


def has_any(obj: Object, names: Collection[str]) -> bool:
    """Whether a point is a vertex group, also one without a vertex."""
    return any(name in names for _, name in _groups(obj))


def _groups(obj: Object) -> Iterator[tuple[int, str]]:
    """Number of each group with the prefix, and its name without."""
    for group in obj.vertex_groups:
        if group.name.startswith(PREFIX):
            yield group.index, group.name.removeprefix(PREFIX)


def _weights(obj: Object) -> Iterator[tuple[int, int, float]]:
    """Vertex, number of the group, and weight, of all weights."""
    if obj.mode == 'EDIT':
        edited = bmesh.from_edit_mesh(mesh_of(obj))
        layer = edited.verts.layers.deform.active
        vertex: Any
        for vertex in edited.verts if layer is not None else ():
            for group, weight in vertex[layer].items():
                yield vertex.index, group, weight
        return
    for vertex in mesh_of(obj).vertices:
        for membership in vertex.groups:
            yield vertex.index, membership.group, membership.weight


def _used_names(obj: Object) -> set[str]:
    """Names of groups that modifiers, particles, shape keys or constraints may use."""
    found: set[str] = set()
    keys = mesh_of(obj).shape_keys
    if keys is not None:
        found |= {block.vertex_group for block in keys.key_blocks}
    for other in bpy.data.objects:
        found |= {str(getattr(c, "subtarget", "")) for c in _constraints(other)}
        if other.data != obj.data:
            continue
        for user in (*other.modifiers, *other.particle_systems):
            found |= _texts(user)
    return found


def _constraints(obj: Object) -> list[Any]:
    bones = obj.pose.bones if obj.pose is not None else ()
    return [*obj.constraints, *(c for bone in bones for c in bone.constraints)]


def _texts(user: Any) -> set[str]:
    """All texts among the properties of a modifier or a particle system, also of its nodes."""
    texts = {
        getattr(user, prop.identifier)
        for prop in user.bl_rna.properties
        if prop.type == 'STRING' and not prop.is_readonly
    }
    inputs = user.values() if hasattr(user, "node_group") else ()
    return texts | {value for value in inputs if isinstance(value, str)}
