# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers on shape keys: which control of the rig they hang on, and muting what hangs otherwise.

A driver is simple where one value of a bone, an object or a custom property goes through a straight
line to the key; then that value can be keyed and the rig stays as it is. Other drivers are muted,
which is noted, so that the artist can have them back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import bpy
from bpy.types import ID, Key, Object

from . import driver_expression, speech_action
from .driver_expression import ClippedLine
from .typed import keys_of

MUTED: Final = "ptalker_muted_drivers"
"""Property of an object: which drivers of its shape keys were muted. A plain custom property would
be lost on a library override."""
_MAX_CHAIN: Final = 8
EULER_ORDERS: Final = ("XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX")
_LIMITS: Final = {'LIMIT_LOCATION', 'LIMIT_ROTATION', 'LIMIT_SCALE'}
"""Constraints that only cut a control's values off."""
_PROPERTIES: Final = {"LOC": ("location", 0.0), "SCALE": ("scale", 1.0)}
_CUSTOM: Final = re.compile(r'(.*)\["((?:[^"\\]|\\.)*)"\]')
_ITEM: Final = re.compile(r"(.*)\[(\d+)\]")
_STRAIGHT: Final = 1e-4
_MAX_STEP: Final = 0.05
"""Change of a key by one step of a whole-numbered property above which it would jump."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One value of a control that can be keyed.

    Attributes:
        owner: Data-block whose Action holds the curve.
        path: Data path of the property; where ``turns``, of the bone, empty for the object.
        index: Number within the property; where ``turns``, the axis of the Euler angle.
        turns: Whether it is an angle, which is keyed by the rotation mode.
        is_whole: Whether it takes whole numbers only.
        rests: Values it may have at rest, the likeliest first.
        group: Name of the bone.
    """

    owner: ID
    path: str
    index: int
    turns: bool = False
    is_whole: bool = False
    rests: tuple[float, ...] = field(default=(), compare=False)
    group: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Driven:
    """Shape keys of a mesh that have active drivers.

    Attributes:
        controls: Name of a key -> the channel that it hangs on, and how.
        followers: Name of a key -> shape keys of another mesh, or other keys of this one, that it
            follows.
        others: Names of keys whose drivers are not simple.
    """

    controls: dict[str, tuple[Channel, ClippedLine]] = field(default_factory=dict)
    followers: dict[str, ID] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Names of all these keys."""
        return [*self.controls, *self.followers, *self.others]


def find(keys: Key | None, names: Iterable[str]) -> Driven:
    """What drives shape keys; fast enough for drawing.

    Args:
        keys: Shape-key data-block; None where a mesh has none.
        names: Names of the keys of interest.

    Returns:
        Those that have active drivers.
    """
    found = Driven()
    if keys is None or keys.animation_data is None or not len(keys.animation_data.drivers):
        return found
    for name in names:
        curve = _driver_at(keys, speech_action.value_path(name), 0)
        if curve is None:
            continue
        control = _control_of(curve, _MAX_CHAIN)
        if control is None:
            found.others.append(name)
        elif control[0].owner.id_type == 'KEY':
            found.followers[name] = control[0].owner
        else:
            found.controls[name] = control
    return found


def _driver_at(owner: Any, path: str, index: int) -> Any:
    if owner.animation_data is None:
        return None
    curve = owner.animation_data.drivers.find(path, index=index)
    return None if curve is None or curve.mute else curve


def _control_of(curve: Any, depth: int) -> tuple[Channel, ClippedLine] | None:
    """The channel on which a driver hangs, through further drivers in between."""
    driver = curve.driver
    if len(driver.variables) != 1 or driver.use_self:
        return None
    variable = driver.variables[0]
    line: ClippedLine | None = ClippedLine()
    if driver.type == 'SCRIPTED':
        line = driver_expression.read(driver.expression, variable.name)
    shape = _line_of_curve(curve)
    channel = _READERS.get(variable.type, _no_channel)(variable)
    if line is None or shape is None or channel is None:
        return None
    if shape != ClippedLine():
        line = shape.after(line)
    if line.is_constant or not can_be_keyed(channel.owner):
        return None
    if channel.is_whole and abs(line.slope) > _MAX_STEP:
        return None
    further = None if channel.turns else _driver_at(channel.owner, channel.path, channel.index)
    if further is None:
        return channel, line
    inner = _control_of(further, depth - 1) if depth else None
    return inner and (inner[0], line.after(inner[1]))


def can_be_keyed(owner: Any) -> bool:
    """Whether keyframes of a data-block are saved: not where it is linked without an override."""
    override = owner.override_library
    return owner.library is None and (override is None or not override.is_system_override)


def _no_channel(_variable: Any) -> Channel | None:
    return None


def _line_of_curve(curve: Any) -> ClippedLine | None:
    """A driver's own F-curve, which its value goes through."""
    points = curve.keyframe_points
    if not len(points):
        if not any(not modifier.mute for modifier in curve.modifiers):
            return ClippedLine()
        return _straight(curve.evaluate, -1.0, 1.0, (-100.0, -3.0, 0.3, 100.0))
    first, last = points[0].co.x, points[len(points) - 1].co.x
    if last <= first:
        return None
    inside = [first + (last - first) * step / 8.0 for step in range(1, 8)]
    outside = (first - 1.0, first - 100.0, last + 1.0, last + 100.0)
    if whole := _straight(curve.evaluate, first, last, (*inside, *outside)):
        return whole
    line = _straight(curve.evaluate, first, last, inside)
    ends = [curve.evaluate(x) for x in (first - 1.0, first, last, last + 1.0)]
    if line is None or abs(ends[0] - ends[1]) > _STRAIGHT or abs(ends[2] - ends[3]) > _STRAIGHT:
        return None
    return line.limited(min(ends), max(ends))


def _straight(value_at: Callable[[float], float], first: float, last: float,
              others: Iterable[float]) -> ClippedLine | None:  # fmt: skip
    """The line through two points of a function, where others lie on it too."""
    slope = (value_at(last) - value_at(first)) / (last - first)
    offset = value_at(first) - slope * first
    for x in others:
        if abs(value_at(x) - (slope * x + offset)) > _STRAIGHT * max(1.0, abs(slope * x)):
            return None
    return ClippedLine(slope, offset)


def _property_channel(variable: Any) -> Channel | None:
    """The property that a variable reads."""
    target = variable.targets[0]
    owner, path, index = target.id, target.data_path, 0
    if owner is None or not path:
        return None
    try:
        value = owner.path_resolve(path)
    except ValueError:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if item := _ITEM.fullmatch(path):
        path, index = item[1], int(item[2])
    bone = re.match(r'pose\.bones\["((?:[^"\\]|\\.)*)"\]', path)
    if re.search(r"\brotation_(quaternion|axis_angle)$", path):
        return None
    return Channel(
        owner,
        path,
        index,
        is_whole=isinstance(value, int),
        rests=(*default_of(owner, path, index), float(value)),
        group=bpy.utils.unescape_identifier(bone[1]) if bone else "",
    )


def default_of(owner: Any, path: str, index: int) -> tuple[float, ...]:
    """The value that a property has at rest, alone in a tuple; an empty one where there is none."""
    custom = _CUSTOM.fullmatch(path)
    try:
        if custom is None:
            holder, _, name = path.rpartition(".")
            if not holder:
                return ()  # an object stands anywhere
            known = owner.path_resolve(holder).bl_rna.properties[name]
            return (float(known.default_array[index] if known.is_array else known.default),)
        holder, name = custom[1], bpy.utils.unescape_identifier(custom[2])
        value = (owner.path_resolve(holder) if holder else owner).id_properties_ui(name)
        default = value.as_dict()["default"]
        return (float(default[index] if hasattr(default, "__len__") else default),)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return ()


def _transform_channel(variable: Any) -> Channel | None:
    """The location, angle or scale that a variable reads, in the control's own space."""
    target = variable.targets[0]
    owner: Any = target.id
    kind, _, axis = target.transform_type.partition("_")
    if owner is None or axis not in ("X", "Y", "Z") or target.transform_space == 'WORLD_SPACE':
        return None
    moved, base = owner, ""
    if target.bone_target:
        moved = owner.pose.bones.get(target.bone_target) if owner.pose is not None else None
        base = f'pose.bones["{bpy.utils.escape_identifier(target.bone_target)}"]'
    if moved is None or (target.transform_space == 'LOCAL_SPACE' and not _is_plain(moved)):
        return None
    index = "XYZ".index(axis)
    if kind == "ROT":
        if not _has_angles(moved.rotation_mode, target.rotation_mode):
            return None
        return Channel(owner, base, index, turns=True, rests=(0.0,), group=target.bone_target)
    name, rest = _PROPERTIES[kind]
    if kind == "LOC" and base and moved.bone.use_connect:
        return None
    rests = (rest,) if base else (float(getattr(moved, name)[index]),)
    path = f"{base}.{name}" if base else name
    return Channel(owner, path, index, rests=rests, group=target.bone_target)


def _is_plain(moved: Any) -> bool:
    """Whether a bone or object stands, in its own space, where its channels say."""
    if any(
        not constraint.mute and constraint.influence > 0 and constraint.type not in _LIMITS
        for constraint in moved.constraints
    ):
        return False
    return not isinstance(moved, bpy.types.PoseBone) or moved.bone.use_local_location


def _has_angles(own: str, asked: str) -> bool:
    """Whether the angle that a driver reads is the one of the control's own order."""
    order = own if own in EULER_ORDERS else "XYZ"
    return own != 'AXIS_ANGLE' and asked in ('AUTO', order)


_READERS: Final[dict[str, Callable[[Any], Channel | None]]] = {
    'SINGLE_PROP': _property_channel,
    'TRANSFORMS': _transform_channel,
}


def revive(keys: Key, names: Iterable[str]) -> None:
    """Have drivers evaluated again that Blender gave up when what they read was not there yet."""
    for name in names:
        curve = _driver_at(keys, speech_action.value_path(name), 0)
        if curve is not None and not curve.driver.is_valid:
            curve.driver.is_valid = True


def mute(obj: Object, names: Iterable[str], undo: ExitStack) -> None:
    """Mute the drivers of shape keys, and note it for :func:`restore`.

    Args:
        obj: Object of the mesh with the shape keys.
        names: Names of keys that have active drivers.
        undo: Stack that takes the callbacks by which everything is undone.
    """
    noted = _noted(obj)
    undo.callback(_note, obj, noted)
    keys = keys_of(obj)
    others = noted.others if noted.ours else tuple(_muted_drivers(keys))
    ours = list(noted.ours)
    for name in names:
        curve = _driver_at(keys, speech_action.value_path(name), 0)
        if curve is not None:
            undo.callback(setattr, curve, "mute", False)
            curve.mute = True
            ours.append(curve.data_path)
    _note(obj, _Noted(tuple(dict.fromkeys(ours)), others))


def muted_paths(obj: Object) -> tuple[str, ...]:
    """Data paths of the drivers of a mesh's shape keys that PTalker muted."""
    return _noted(obj).ours


def _muted_drivers(keys: Key) -> dict[str, Any]:
    animation = keys.animation_data
    return {c.data_path: c for c in animation.drivers if c.mute} if animation else {}


def restore(obj: Object) -> list[str]:
    """Unmute the drivers that PTalker muted; those that the artist muted stay so.

    Args:
        obj: Object of the mesh with the shape keys.

    Returns:
        Data paths of drivers that were not found, since keys were deleted.
    """
    noted, keys = _noted(obj), keys_of(obj)
    ours = list(noted.ours)
    muted = _muted_drivers(keys)
    gone = [p for p in ours if not keys.animation_data or not keys.animation_data.drivers.find(p)]
    # A key that was renamed took its driver along.
    renamed = [path for path in muted if path not in ours and path not in noted.others]
    if gone and len(renamed) == len(gone):
        ours, gone = [*ours, *renamed], []
    for path in ours:
        if path in muted:
            muted[path].mute = False
    _note(obj, _Noted())
    keys.update_tag()
    return gone


@dataclass(frozen=True, slots=True)
class _Noted:
    """Data paths of drivers: those that PTalker muted, and those that were muted before."""

    ours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def _noted(obj: Object) -> _Noted:
    text = getattr(obj, MUTED)
    if not text:
        return _Noted()
    ours, others = json.loads(text)
    return _Noted(tuple(ours), tuple(others))


def _note(obj: Object, noted: _Noted) -> None:
    setattr(obj, MUTED, json.dumps([noted.ours, noted.others]) if noted.ours else "")
