# SPDX-License-Identifier: GPL-3.0-or-later
"""Poses of a head's armature as targets: a weight of 1 is the pose, several poses add up.

A pose is what an Action says at one frame: a pose asset, a pose marker, any frame. Its effect is
its difference from rest. Locations are added, turns as rotation vectors, which is exact where they
are small or about one axis, scales by how far they differ from 1, custom properties by how far they
differ from their defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np
from bpy.types import Object
from mathutils import Euler, Quaternion, Vector

from . import compat, key_map, rig_drivers
from .motion import Floats
from .speech_action import Curve

_BONE: Final = re.compile(r'pose\.bones\["((?:[^"\\]|\\.)*)"\](.*)')
_PARTS: Final = {
    ".location": 3, ".scale": 3, ".rotation_quaternion": 4, ".rotation_euler": 3,
    ".rotation_axis_angle": 4,
}  # fmt: skip
_REST: Final = {".scale": (1.0, 1.0, 1.0), ".rotation_quaternion": (1.0, 0.0, 0.0, 0.0),
                ".rotation_axis_angle": (0.0, 0.0, 1.0, 0.0)}  # fmt: skip
_NOTHING: Final = 1e-6

Paths = dict[tuple[str, int], Curve]


@dataclass(frozen=True, slots=True)
class Pose:
    """How a pose differs from rest.

    Attributes:
        moves: Name of a bone -> ``(9,)`` its location, rotation vector in radians, and scale.
        values: Data path and index of a custom property -> its difference from the default.
    """

    moves: Mapping[str, Floats]
    values: Mapping[tuple[str, int], float]


def armature_of(obj: Object) -> Object | None:
    """The armature that deforms or carries a mesh."""
    found: Object | None = obj.find_armature()
    return found


def is_there(name: str) -> bool:
    """Whether the Action of a pose is in the file."""
    pose = key_map.pose_of(name)
    return pose is not None and pose[0] in bpy.data.actions


def problem(obj: Object, names: Iterable[str]) -> str:
    """Why the poses of a table cannot be keyed, with the remedy; empty where they can."""
    if not any(key_map.pose_of(name) for name in names):
        return ""
    armature = armature_of(obj)
    if armature is None:
        return (
            f'The mapping names poses, but "{obj.name}" has no armature. Parent it to its armature '
            "(Ctrl+P), or remove their rows."
        )
    if not rig_drivers.can_be_keyed(armature):
        return (
            f'The armature "{armature.name}" is linked from another file. Override it first '
            "(Object > Library Override > Make)."
        )
    return ""


def listed(armature: Object) -> Iterator[tuple[str, str]]:
    """Every pose of the file for an armature: what the table calls it, and the artist's name.

    Poses are pose assets, Actions of one frame, and pose markers.
    """
    bones = armature.pose.bones
    for action in bpy.data.actions:
        curves = compat.read_fcurves(action, id_type='OBJECT')
        if not any((at := _BONE.match(c.data_path)) and _unescaped(at[1]) in bones for c in curves):
            continue
        span: Any = action.frame_range
        first, last = float(span[0]), float(span[1])
        for marker in action.pose_markers:
            yield key_map.pose_name(action.name, marker.frame), marker.name
        if not len(action.pose_markers) and (action.asset_data is not None or last - first < 1.0):
            yield key_map.pose_name(action.name, round(first)), action.name


def read(armature: Object, name: str) -> Pose:
    """A pose that the table names.

    Args:
        armature: Object with the bones.
        name: What the table calls the pose; its Action is there.

    Returns:
        What it says of bones that the armature has.
    """
    found = key_map.pose_of(name)
    if found is None:
        raise ValueError(f"{name} names no pose")
    action, frame = bpy.data.actions[found[0]], found[1]
    parts: dict[str, dict[str, list[float]]] = {}
    values: dict[tuple[str, int], float] = {}
    for curve in compat.read_fcurves(action, id_type='OBJECT'):
        match = _BONE.fullmatch(curve.data_path)
        bone = _unescaped(match[1]) if match else ""
        if match is None or bone not in armature.pose.bones:
            continue
        part, value = match[2], float(curve.evaluate(frame))
        if part in _PARTS:
            rest = _REST.get(part, (0.0,) * _PARTS[part])
            parts.setdefault(bone, {}).setdefault(part, list(rest))[curve.array_index] = value
        elif part.startswith('["'):
            default = rig_drivers.default_of(armature, curve.data_path, curve.array_index)
            if default and abs(value - default[0]) > _NOTHING:
                values[curve.data_path, curve.array_index] = value - default[0]
    moves = {bone: _move(armature.pose.bones[bone], found) for bone, found in parts.items()}
    return Pose({b: m for b, m in moves.items() if np.abs(m).max() > _NOTHING}, values)


def _unescaped(name: str) -> str:
    return bpy.utils.unescape_identifier(name)


def _move(bone: Any, parts: Mapping[str, list[float]]) -> Floats:
    scale = np.array(parts.get(".scale", _REST[".scale"])) - 1.0
    location = parts.get(".location", (0.0, 0.0, 0.0))
    turn = _turn(bone, parts).to_exponential_map()
    return np.array([*location, *turn, *scale], np.float32)


def _turn(bone: Any, parts: Mapping[str, list[float]]) -> Any:
    """A bone's turn: by the curves of its mode, else by those there are."""
    order = bone.rotation_mode if bone.rotation_mode in rig_drivers.EULER_ORDERS else 'XYZ'
    euler, quaternion = parts.get(".rotation_euler"), parts.get(".rotation_quaternion")
    angle = parts.get(".rotation_axis_angle")
    if euler and (bone.rotation_mode == order or not (quaternion or angle)):
        return Euler(euler, order).to_quaternion()
    if quaternion:
        return Quaternion(quaternion).normalized()
    if angle:
        return Quaternion(Vector(angle[1:]).normalized(), angle[0])
    return Quaternion()


def curves(armature: Object, weights: Mapping[str, Floats]) -> Paths:
    """The curves of an armature by which its poses add up.

    Args:
        armature: Object with the bones.
        weights: What the table calls each pose -> ``(T,)`` how much of it there is.

    Returns:
        Data path and index -> the curve; only what some pose moves.
    """
    moves: dict[str, Floats] = {}
    used: dict[str, Floats] = {}
    values: dict[tuple[str, int], Floats] = {}
    for name, column in weights.items():
        pose = read(armature, name)
        for bone, move in pose.moves.items():
            moves[bone] = moves.get(bone, np.float32(0)) + column[:, None] * move
            used[bone] = np.maximum(used.get(bone, np.float32(0)), np.abs(move))
        for place, value in pose.values.items():
            values[place] = values.get(place, np.float32(0)) + column * np.float32(value)
    found: Paths = {}
    for (path, index), sums in values.items():
        rest = rig_drivers.default_of(armature, path, index)[0]
        match = _BONE.fullmatch(path)
        found[path, index] = Curve(sums + rest, rest, _unescaped(match[1]) if match else "")
    for name, move in moves.items():
        moved = armature.pose.bones[name]
        base = f'pose.bones["{bpy.utils.escape_identifier(name)}"]'
        for part, at, rest in ((".location", 0, 0.0), (".scale", 6, 1.0)):
            for axis in range(3):
                if used[name][at + axis] > _NOTHING:
                    values_of = move[:, at + axis] + np.float32(rest)
                    found[base + part, axis] = Curve(values_of, rest, name)
        if used[name][3:6].max() > _NOTHING:
            turns = [Quaternion(row) for row in move[:, 3:6].tolist()]
            found.update(turn_curves(moved, base, turns, group=name))
    return found


def turn_curves(turned: Any, base: str, turns: Iterable[Any], *,
                group: str) -> Paths:  # fmt: skip
    """The curves of a turn over time, as the rotation mode of a bone or object wants them.

    Args:
        turned: Bone or object.
        base: Its data path; empty for an object.
        turns: One turn per frame; none is half a turn away from the one before.
        group: Name of the curves' group.

    Returns:
        Data path and index -> the curve.
    """
    mode = turned.rotation_mode
    rows: list[tuple[float, ...]] = []
    if mode == 'QUATERNION':
        part, rest = "rotation_quaternion", _REST[".rotation_quaternion"]
        rows = [tuple(turn) for turn in turns]
    elif mode == 'AXIS_ANGLE':
        part, rest = "rotation_axis_angle", _REST[".rotation_axis_angle"]
        for turn in turns:
            axis, angle = turn.to_axis_angle()
            rows.append((angle, *axis))
    else:
        part, rest = "rotation_euler", (0.0, 0.0, 0.0)
        last: Any = Euler(rest, mode)
        for turn in turns:
            last = turn.to_euler(mode, last)
            rows.append(tuple(last))
    columns = np.array(rows, np.float32).T
    path = f"{base}.{part}" if base else part
    return {
        (path, index): Curve(column, rest[index], group)
        for index, column in enumerate(columns)
        if mode in ('QUATERNION', 'AXIS_ANGLE') or np.abs(column).max() > _NOTHING
    }
