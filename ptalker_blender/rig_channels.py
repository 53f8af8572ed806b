# SPDX-License-Identifier: GPL-3.0-or-later
"""Where values go that are not keyed on shape keys themselves: controls of the rig, and bones.

What ``shape_keys`` writes is divided here; the rest becomes F-curves of armatures and other owners
of controls, in an Action with the same line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import bpy
import numpy as np
from bpy.types import ID, Object
from mathutils import Euler

from . import (
    bone_poses,
    compat,
    driver_expression,
    key_map,
    nla_strips,
    rig_drivers,
    speech_action,
)
from .bone_poses import Paths
from .driver_expression import ClippedLine
from .motion import Floats
from .protocol import UserError
from .rig_drivers import Channel, Driven
from .rig_mapping import listed
from .speech_action import Curve, Line
from .typed import mesh_of

_LARGE_MISS: Final = 0.15
_SAME: Final = 1e-5
_TURN: Final = 100
"""Added to the axis of an angle until it is known how its owner is turned."""


@dataclass(frozen=True, slots=True)
class Aside:
    """What is keyed elsewhere than on shape keys.

    Attributes:
        names: Names of the keys and poses that need no curve of their own.
        curves: Owner of controls or bones -> its curves.
        muted: Names of keys whose drivers have to be muted.
        num_controls: Number of controls' values that are keyed.
        num_poses: Number of poses that are keyed.
        warnings: What the artist should know.
    """

    names: frozenset[str] = frozenset()
    curves: Mapping[ID, Paths] = field(default_factory=dict)
    muted: tuple[str, ...] = ()
    num_controls: int = 0
    num_poses: int = 0
    warnings: tuple[str, ...] = ()


def find(obj: Object, values: Mapping[str, Floats]) -> Aside:
    """What of a motion goes elsewhere than to an object's shape keys.

    Args:
        obj: The head.
        values: Name of each key or pose -> ``(T,)`` its values.

    Returns:
        The curves of other owners, and what is to be muted.

    Raises:
        UserError: All keys follow those of another mesh, or the armature is gone.
    """
    keys = mesh_of(obj).shape_keys
    poses = {name: column for name, column in values.items() if is_pose(obj, name)}
    driven = rig_drivers.find(keys, [name for name in values if name not in poses])
    curves: dict[ID, Paths] = {}
    warnings = []
    if poses:
        if problem := bone_poses.problem(obj, poses):
            raise UserError(problem)
        armature: Any = bone_poses.armature_of(obj)
        curves[armature] = bone_poses.curves(armature, poses)
        if not curves[armature]:
            raise UserError(
                f'The poses {listed([*poses])} move no bone of "{armature.name}". Choose others.'
            )
    for channel, hanging in _by_channel(driven).items():
        name = _control_name(channel)
        lines = [line for _, line in hanging]
        wanted = np.stack([values[key] for key, _ in hanging], axis=1)
        column = driver_expression.invert(lines, wanted, rests=channel.rests)
        rest = driver_expression.rest_of(lines, channel.rests)
        paths = curves.setdefault(channel.owner, {})
        paths[channel.path, _TURN + channel.index if channel.turns else channel.index] = Curve(
            column, rest, channel.group
        )
        if _miss(lines, wanted, column) > _LARGE_MISS:
            warnings.append(
                f"{listed([key for key, _ in hanging])} hang on one control ({name}) and cannot "
                "move apart: it takes the nearest value."
            )
    if keys is not None:
        rig_drivers.revive(keys, driven.controls)
    if driven.followers and len(driven.followers) == len(values):
        other = next(iter(driven.followers.values()))
        raise UserError(
            f'The shape keys of "{obj.name}" follow those of another mesh ({other.name}) by '
            "drivers. Select that mesh as the head."
        )
    return Aside(
        frozenset([*poses, *driven.controls, *driven.followers]),
        {owner: _with_turns(owner, paths) for owner, paths in curves.items()},
        tuple(driven.others),
        len(_by_channel(driven)),
        len(poses),
        tuple(warnings),
    )


def is_pose(obj: Object, name: str) -> bool:
    """Whether a name of the table is a pose: it is not where a shape key has that name."""
    keys = mesh_of(obj).shape_keys
    is_key = keys is not None and name in keys.key_blocks
    return not is_key and key_map.pose_of(name) is not None


def _by_channel(driven: Driven) -> dict[Channel, list[tuple[str, ClippedLine]]]:
    found: dict[Channel, list[tuple[str, ClippedLine]]] = {}
    for key, (channel, line) in driven.controls.items():
        found.setdefault(channel, []).append((key, line))
    return found


def _control_name(channel: Channel) -> str:
    return f"{channel.owner.name}, {channel.group}" if channel.group else channel.owner.name


def _miss(lines: Iterable[ClippedLine], wanted: Floats, column: Floats) -> float:
    """How far the worst key stays from its values, within its limits."""
    missed = [
        np.abs(line(column) - np.clip(wanted[:, number], line.low, line.high)).max()
        for number, line in enumerate(lines)
    ]
    return float(max(missed))


def _with_turns(owner: Any, paths: Paths) -> Paths:
    """The curves with angles turned into those that the rotation mode wants."""
    found = {place: curve for place, curve in paths.items() if place[1] < _TURN}
    turned: dict[str, dict[int, Curve]] = {}
    for (path, index), curve in paths.items():
        if index >= _TURN:
            turned.setdefault(path, {})[index - _TURN] = curve
    for base, angles in turned.items():
        bone = owner.path_resolve(base) if base else owner
        any_curve = next(iter(angles.values()))
        if bone.rotation_mode == 'QUATERNION':
            still = np.zeros_like(any_curve.values)
            columns = [angles[axis].values if axis in angles else still for axis in range(3)]
            rows = np.stack(columns, axis=1).tolist()
            turns = [Euler(row, 'XYZ').to_quaternion() for row in rows]
            group = any_curve.group
            found.update(bone_poses.turn_curves(bone, base, turns, group=group))
        else:
            path = f"{base}.rotation_euler" if base else "rotation_euler"
            found.update({(path, axis): curve for axis, curve in angles.items()})
    return found


def write(aside: Aside, *, line: Line, name: str, undo: ExitStack,
          warnings: list[str]) -> list[bpy.types.Action]:  # fmt: skip
    """Key controls and bones.

    Args:
        aside: What :func:`find` found.
        line: The line of dialogue and its place.
        name: Name for the Actions, behind that of their owner.
        undo: Stack that takes the callbacks by which everything is undone.
        warnings: Takes what the artist should know.

    Returns:
        The Actions, which are new where the line was not there already: the meshes of a character
        may hang on the same controls.
    """
    actions = []
    for owner, curves in aside.curves.items():
        if _is_there(owner, curves, line):
            actions.append(compat.assigned_action(owner)[0])
            continue
        num_frames = len(next(iter(curves.values())).values)
        warnings += speech_action.losses(owner, line, num_frames)
        action_name = f"{owner.name} {name}"
        actions.append(speech_action.write_curves(owner, curves, line, name=action_name, undo=undo))
        warnings += nla_strips.let_play(owner, undo)
        owner.update_tag()
    return actions


def _is_there(owner: ID, curves: Paths, line: Line) -> bool:
    """Whether the owner's Action has the line with these values already."""
    action, slot = compat.assigned_action(owner)
    if action is None or not speech_action.has_line(action, line):
        return False
    written = {(c.data_path, c.array_index): c for c in compat.read_fcurves(action, slot)}
    for place, curve in curves.items():
        if place not in written:
            return False
        keyed = written[place]
        for frame, value in enumerate(curve.values, line.first_frame):
            if abs(keyed.evaluate(frame) - value) > _SAME:
                return False
    return True
