# SPDX-License-Identifier: GPL-3.0-or-later
"""The other meshes of a head's character: which they are, and how they are keyed with the head.

Those that have shape keys of known names get the head's values by name. The others (teeth, eyes,
lashes, …) are solved with the head as parts of one mesh, and get keys of their own for what moves
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import bpy
import numpy as np
from bpy.types import Collection, Object
from mathutils import Matrix, Vector
from numpy.typing import NDArray

from . import face_points, head_mesh, motion, paths, rig_names, rig_target, shape_keys
from .motion import Floats, KeyedMotion, Motion
from .typed import mesh_of, settings_of

MAX_VERTICES: Final = 400_000
"""Of all parts together: beyond it the largest stay behind."""
_ROOM: Final = 0.05
"""Part of the size of the head's box by which a part may lie outside of it."""
_SMALLEST_MOVE: Final = 1e-5
"""Part of the head's size by which a shape must move a mesh to be worth a key."""
_LISTED: Final = 4


@dataclass(frozen=True, slots=True)
class Character:
    """The meshes that belong to a head.

    Attributes:
        meshes: All that can go along, also those that the artist left out.
        left: Sentence for each that belongs to the head and cannot be keyed.
    """

    meshes: tuple[Object, ...]
    left: tuple[str, ...]

    @property
    def along(self) -> tuple[Object, ...]:
        """Those that go along."""
        return tuple(obj for obj in self.meshes if settings_of(obj).goes_along)

    @property
    def summary(self) -> str:
        """What goes along, as one line: ``with Teeth, Tongue and 2 more``."""
        return f"with {listed([obj.name for obj in self.along])}" if self.along else "alone"


@dataclass(frozen=True, slots=True)
class Companion:
    """A mesh that is keyed with a head, as a job takes it from the scene.

    Attributes:
        uid: ``session_uid`` of the object.
        name: Its name at the start of the job.
        vertices: ``(V, 3)`` in the head's space; none where keys that it has are driven.
        face_corners: Vertex number of each face corner.
        face_sizes: Number of corners of each face.
        to_own: Takes displacements in the head's space to the mesh's, ``(3, 3)`` from the left.
    """

    uid: int
    name: str
    vertices: Floats
    face_corners: NDArray[np.int32]
    face_sizes: NDArray[np.int32]
    to_own: Floats


def find(head: Object, selected: Iterable[Object] = ()) -> Character:
    """The other meshes of a head's character; fast enough for drawing.

    A mesh belongs to it that has the same armature, the same topmost parent, or is selected with
    it; or lies in one of the head's collections, unless that is a scene's own or holds another
    head: then it is no character's. In each case its box must meet the head's, and it must be no
    head itself: neither known, nor marked, nor one that spoke, nor a copy of this one. Without keys
    of known names it must also have its middle within the head's box.

    Args:
        head: The head.
        selected: The selected objects.

    Returns:
        The meshes, in the order of their names.
    """
    if head.type != 'MESH':
        return Character((), ())
    box = _Box.of(head)
    wanted = [obj for obj in _related(head, selected) if not _is_head(obj, head)]
    meshes, left, room = [], [], MAX_VERTICES
    for obj in sorted(wanted, key=lambda o: (len(mesh_of(o).vertices), o.name)):
        is_keyed = _is_keyed(obj, head)
        other = _Box.of(obj)
        if not box.meets(other) or not (is_keyed or box.holds_middle_of(other)):
            continue
        room -= 0 if is_keyed else len(mesh_of(obj).vertices)
        if reason := _reason(obj, is_keyed=is_keyed, room=room):
            left.append(f'"{obj.name}" stays behind: {reason}')
        else:
            meshes.append(obj)
    return Character(tuple(sorted(meshes, key=lambda o: o.name)), tuple(left))


def read(head: Object, objects: Iterable[Object]) -> tuple[Companion, ...]:
    """The meshes that go along, in the head's space where they are to be solved."""
    found = []
    from_world = _rest_matrix(head).inverted()
    for obj in objects:
        to_head = np.array(from_world @ _rest_matrix(obj), np.float64)
        vertices = np.zeros((0, 3), np.float32)
        corners = sizes = np.zeros(0, np.int32)
        if not _is_keyed(obj, head):
            _, corners, sizes = head_mesh.seen(obj)
            own = head_mesh.neutral_vertices(obj).astype(np.float64)
            vertices = (own @ to_head[:3, :3].T + to_head[:3, 3]).astype(np.float32)
            if head_mesh.is_mirrored(head):  # as the head itself is read
                vertices = head_mesh.mirrored(vertices)
        to_own = np.linalg.inv(to_head[:3, :3]).astype(np.float32)
        found.append(Companion(obj.session_uid, obj.name, vertices, corners, sizes, to_own))
    return tuple(found)


def of_head(found: Motion, num_vertices: int) -> Motion:
    """The part of a motion that is the head's own."""
    return replace(
        found, shapes=found.shapes[:, :num_vertices], template=found.template[:num_vertices]
    )


def keyed(companion: Companion, obj: Object, found: Motion, start: int,
          on_head: KeyedMotion) -> KeyedMotion | None:  # fmt: skip
    """What a mesh that goes along is keyed with.

    Args:
        companion: The mesh as the job took it from the scene.
        obj: The same mesh now.
        found: The motion of the whole character.
        start: Number of its first vertex in the motion, where it was solved.
        on_head: What the head is keyed with.

    Returns:
        Values and shapes in the mesh's own space; None where nothing moves it.
    """
    if not len(companion.vertices):
        return _by_name(obj, found, on_head)
    shapes = found.shapes[:, start : start + len(companion.vertices)]
    size = float(np.ptp(found.template, axis=0).max())
    moves = np.abs(shapes).max(axis=(1, 2)) > _SMALLEST_MOVE * size
    if not moves.any():
        return None
    part = replace(
        found,
        names=tuple(name for name, is_moved in zip(found.names, moves, strict=True) if is_moved),
        weights=found.weights[:, moves],
        shapes=np.ascontiguousarray(shapes[moves] @ companion.to_own.T),
    )
    return motion.keyed_as_new(part, limit=shape_keys.VALUE_LIMIT)


def _by_name(obj: Object, found: Motion, on_head: KeyedMotion) -> KeyedMotion | None:
    """Keys of the head's names take its values, others those of ARKit's names that they have."""
    own = rig_target.key_names(obj)
    of_head_key = {name.casefold(): column for column, name in enumerate(on_head.names)}
    known = set(found.names)
    columns: dict[str, Floats] = {}
    for name, gains in _arkit_gains(own).items():
        used = {source: gain for source, gain in gains.items() if source in known}
        if used:
            columns[name] = sum(
                (gain * found.weights[:, found.names.index(source)]
                 for source, gain in used.items()),
                np.zeros(len(found.weights), np.float32),
            )  # fmt: skip
    for name in own:
        if (column := of_head_key.get(name.casefold())) is not None:
            columns[name] = on_head.weights[:, column]
    if not columns:
        return None
    weights = np.stack(list(columns.values()), axis=1).astype(np.float32)
    return KeyedMotion(names=tuple(columns), weights=weights, shapes=None)


@lru_cache(maxsize=256)
def _arkit_gains(names: tuple[str, ...]) -> Mapping[str, Mapping[str, float]]:
    return rig_names.find_arkit_keys(names).gains


def _is_keyed(obj: Object, head: Object) -> bool:
    """Whether keys that a mesh has are driven."""
    target = settings_of(head).key_target
    names = rig_target.key_names(obj)
    if target == 'NEW' or not names:
        return False
    if _arkit_gains(names):
        return True
    rig = rig_target.find(head, target)
    on_head = {name.casefold() for name in rig.names} if rig is not None else set()
    return bool(on_head & {name.casefold() for name in names})


def _related(head: Object, selected: Iterable[Object]) -> list[Object]:
    """Meshes that belong to the head by armature, parent, selection or collection."""
    found: dict[int, Object] = {}
    top = _top(head)
    if top != head or head.children:
        found |= {obj.session_uid: obj for obj in (top, *top.children_recursive)}
    armatures = set(_armatures(head))
    if armatures:
        scene_objects = {o.session_uid: o for c in head.users_scene for o in c.objects}
        found |= {k: o for k, o in scene_objects.items() if armatures & set(_armatures(o))}
    found |= {obj.session_uid: obj for obj in selected}
    for collection in head.users_collection:
        if _is_of_character(collection, head):
            found |= {obj.session_uid: obj for obj in collection.all_objects}
    found.pop(head.session_uid, None)
    return [obj for obj in found.values() if obj.type == 'MESH' and len(mesh_of(obj).polygons)]


def _top(obj: Object) -> Object:
    while obj.parent is not None:
        obj = obj.parent
    return obj


def _armatures(obj: Object) -> Iterator[Object]:
    for modifier in obj.modifiers:
        target: Any = getattr(modifier, "object", None)
        if modifier.type == 'ARMATURE' and target is not None:
            yield target
    parent = obj.parent
    while parent is not None:
        if parent.type == 'ARMATURE':
            yield parent
        parent = parent.parent


def _is_of_character(collection: Collection, head: Object) -> bool:
    if any(scene.collection == collection for scene in bpy.data.scenes):
        return False
    return not any(
        _is_head(obj, head) for obj in collection.all_objects if obj.type == 'MESH' and obj != head
    )


def _is_head(obj: Object, head: Object) -> bool:
    """Whether a mesh is a head of its own."""
    spoke = bool(shape_keys.own_key_names(obj)) and not shape_keys.is_companion(obj)
    return bool(
        spoke
        or len(mesh_of(obj).vertices) == len(mesh_of(head).vertices)
        or face_points.is_known_size(obj, paths.backend_root())
        or face_points.marked_names(obj)
    )


def _reason(obj: Object, *, is_keyed: bool, room: int) -> str:
    """Why a mesh cannot be keyed, with the remedy; empty where it can."""
    mesh, keys = mesh_of(obj), mesh_of(obj).shape_keys
    if obj.library:
        return "it is linked from another file. Make it local, or override it."
    if not is_keyed and (mesh.library or mesh.override_library):
        return "new shape keys of a linked mesh would be lost. Make the mesh local."
    if obj.mode not in ('OBJECT', 'POSE'):
        return f"leave {obj.mode.replace('_', ' ').title()} Mode first."
    if keys is not None and not keys.use_relative:
        return "switch on Relative in its shape keys."
    if keys is not None and keys.animation_data and keys.animation_data.use_tweak_mode:
        return "leave Tweak Mode in the Nonlinear Animation editor first."
    if abs(obj.matrix_world.determinant()) < 1e-12:
        return "it is scaled to nothing."
    if room < 0:
        return f"the parts have more than {MAX_VERTICES} vertices together."
    return ""


def _rest_matrix(obj: Object) -> Matrix:
    """An object's place in the world; where it hangs on a bone, with the armature at rest.

    The skin is solved at rest, so what a pose moves must be brought back.
    """
    parent = obj.parent
    if parent is None or obj.parent_type not in ('OBJECT', 'BONE', 'ARMATURE'):
        return obj.matrix_world
    hook = _rest_matrix(parent)
    if obj.parent_type == 'BONE':
        armature: Any = parent.data
        bone = armature.bones.get(obj.parent_bone)
        if bone is None:
            return obj.matrix_world
        hook = hook @ bone.matrix_local @ Matrix.Translation((0.0, bone.length, 0.0))
    elif hook == parent.matrix_world:
        return obj.matrix_world  # constraints and all
    return hook @ obj.matrix_parent_inverse @ obj.matrix_basis


@dataclass(frozen=True, slots=True)
class _Box:
    """The box of an object in the world: its lowest and its highest corner, each ``(3,)``."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, obj: Object) -> _Box:
        """The box around an object's own box."""
        corners = np.array([obj.matrix_world @ Vector(corner) for corner in obj.bound_box])
        return cls(corners.min(axis=0), corners.max(axis=0))

    def meets(self, other: _Box) -> bool:
        """Whether another box reaches into this one."""
        low, high = self.low - self._room, self.high + self._room
        return bool((low <= other.high).all() and (other.low <= high).all())

    def holds_middle_of(self, other: _Box) -> bool:
        """Whether the middle of another box lies in this one."""
        middle = (other.low + other.high) / 2
        return bool(
            (self.low - self._room <= middle).all() and (middle <= self.high + self._room).all()
        )

    @property
    def _room(self) -> float:
        return _ROOM * float(np.linalg.norm(self.high - self.low))


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    if len(names) <= _LISTED:
        return ", ".join(names)
    return f"{', '.join(names[: _LISTED - 1])} and {len(names) - _LISTED + 1} more"
