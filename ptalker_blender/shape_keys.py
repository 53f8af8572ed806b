# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a motion into Blender: shape keys, one action, one F-curve per key.

Either everything is written or the scene is as before: when a step fails, those before it are
undone in reverse, those of a character's other meshes too. Keys of an earlier run are used again;
those that the artist has reshaped keep their shape.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np
from bpy.types import Key, Mesh, Object

from . import compat, motion, nla_strips, rig_channels, rig_drivers, speech_action
from .motion import Floats, KeyedMotion
from .protocol import UserError
from .rig_mapping import listed
from .speech_action import Line
from .typed import keys_of, mesh_of

VALUE_LIMIT: Final = 10.0
"""Blender clamps a key's slider range, hence its value, to -10 .. 10."""
OWN_KEYS: Final = "ptalker_keys"
"""Property on the shape-key data-block: motion's name -> [key's name, three sums of its shape]."""
COMPANION: Final = "ptalker_companion"
"""Property on the shape-key data-block of a mesh that goes along with a head."""
_SAME_SHAPE: Final = 1e-4
_MIN_COORDINATE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Written:
    """A summary of what was written.

    Attributes:
        action: ``session_uid`` of the new Action.
        num_keys: Number of animated keys.
        num_controls: Number of values of the rig's controls that are keyed in place of keys.
        num_poses: Number of poses that are keyed on bones.
        other_lines: Names of the other lines of dialogue in the Action.
        warnings: Sentences that the artist should read.
    """

    action: int
    num_keys: int
    num_controls: int
    num_poses: int
    other_lines: tuple[str, ...]
    warnings: tuple[str, ...]


def own_key_names(obj: Object) -> set[str]:
    """Names of the keys that earlier runs made on the object."""
    keys = obj.data.shape_keys
    return {name for name, _ in _own_keys(keys).values()} if keys is not None else set()


def is_companion(obj: Object) -> bool:
    """Whether a mesh went along with a head when it was last keyed."""
    keys: Any = mesh_of(obj).shape_keys
    return keys is not None and COMPANION in keys


def mark_companion(obj: Object, undo: ExitStack) -> None:
    """Note that a mesh went along with a head and is none itself."""
    keys: Any = keys_of(obj)
    if COMPANION not in keys:
        keys[COMPANION] = True
        undo.callback(keys.pop, COMPANION)


def mesh_note(obj: Object) -> str:
    """What a run does to a mesh that is linked or shared; empty where it is the object's own."""
    mesh = mesh_of(obj)
    if mesh.library:
        return "The linked mesh will be overridden to hold the animation."
    if mesh.users > 1 and not mesh.override_library:
        other = next((o for o in bpy.data.objects if o.data == mesh and o != obj), None)
        if other is not None:
            return f'The mesh is shared with "{other.name}": "{obj.name}" will get its own.'
    return ""


def read_offsets(obj: Object, names: Iterable[str]) -> Floats:
    """``(K, V, 3)`` displacements that the named keys cause at value 1."""
    keys = obj.data.shape_keys
    blocks = [keys.key_blocks[name] for name in names]
    offsets = np.empty((len(blocks), len(obj.data.vertices), 3), np.float32)
    for row, block in enumerate(blocks):
        offsets[row] = _points(block) - _points(block.relative_key)
    return offsets


def write(obj: Object, keyed: KeyedMotion, *, line: Line, action_name: str,
          undo: ExitStack) -> Written:  # fmt: skip
    """Write shape keys and their animation, with one keyframe per frame.

    Args:
        obj: Head in object mode, checked by ``scene_inputs.head_problem``.
        keyed: Values over time, and shapes where keys are to be made.
        line: Where the values go; other lines of the head's Action stay.
        action_name: Name for the new action.
        undo: Stack that takes the callbacks by which everything is undone, should a step fail.

    Returns:
        A summary of what was written.

    Raises:
        UserError: The head cannot take it; what was changed before is on the stack.
    """
    warnings = list(keyed.warnings)
    if keyed.shapes is not None and keyed.shapes.shape[1] != len(obj.data.vertices):
        raise UserError(
            f'"{obj.name}" has {len(obj.data.vertices)} vertices now, '
            f"the motion is for {keyed.shapes.shape[1]}. Generate again."
        )
    names = list(keyed.names)
    if keyed.shapes is not None:
        _make_single_user(obj, undo, warnings)
        names = _write_keys(obj, keyed, undo, warnings)
    values = dict(zip(names, keyed.weights.T, strict=True))
    aside = rig_channels.find(obj, values)
    warnings += aside.warnings
    actions = rig_channels.write(aside, line=line, name=action_name, undo=undo, warnings=warnings)
    on_keys = {name: column for name, column in values.items() if name not in aside.names}
    if on_keys:
        own = keyed.shapes is None or not motion.has_unnamed_shapes(keyed.names)
        action = _write_values(
            obj, on_keys, aside.muted, line=line, name=action_name, keep=own,
            undo=undo, warnings=warnings,
        )  # fmt: skip
        actions.insert(0, action)
    obj.show_only_shape_key = False
    obj.data.update_tag()  # 4.2 shows nothing without it
    return Written(
        action=actions[0].session_uid,
        num_keys=len(on_keys),
        num_controls=aside.num_controls,
        num_poses=aside.num_poses,
        other_lines=tuple(speech_action.line_names(actions[0], but=line)),
        warnings=tuple(warnings),
    )


def _write_values(obj: Object, values: dict[str, Floats], muted: Sequence[str], *, line: Line,
                  name: str, keep: bool, undo: ExitStack,
                  warnings: list[str]) -> bpy.types.Action:  # fmt: skip
    """Key values on a mesh's own shape keys.

    Args:
        obj: The head.
        values: Name of each key -> ``(T,)`` its values.
        muted: Names of keys whose drivers have to be muted.
        line: Where the values go.
        name: Name for the Action.
        keep: Whether other lines of the Action stay.
        undo: Stack that takes the callbacks by which everything is undone.
        warnings: Takes what the artist should know.

    Returns:
        The new Action.
    """
    _make_single_user(obj, undo, warnings)
    keys = keys_of(obj)
    if muted:
        rig_drivers.mute(obj, muted, undo)
        warnings.append(
            f"The drivers of {listed(list(muted))} were muted, so that the speech can be seen. "
            "Restore Drivers in the PTalker tab switches them on again."
        )
    ranges = {key: _range(keys.key_blocks[key]) for key in values}
    _make_room(keys, values, undo, warnings)
    if mesh_of(obj).override_library:
        _warn_of_lost_ranges(keys, ranges, warnings)
    if keep:
        warnings += speech_action.losses(keys, line, len(next(iter(values.values()))))
    else:
        _warn_of_lines_put_aside(keys, line, warnings)
    action = speech_action.write(
        keys,
        values,
        line,
        name=name,
        resting=own_key_names(obj) - set(values),
        keep=keep,
        undo=undo,
    )
    warnings += nla_strips.let_play(keys, undo)
    keys.update_tag()
    return action


def _warn_of_lines_put_aside(keys: Key, line: Line, warnings: list[str]) -> None:
    """Warn where the shapes are new for this line, so that lines before cannot stay."""
    old, _ = compat.assigned_action(keys)
    if old is not None and speech_action.line_names(old, but=line):
        warnings.append(
            f'This model makes its shapes anew for each line: the Action "{old.name}" with the '
            "lines before was put aside. Use a copy of the head for each line."
        )


def _make_single_user(obj: Object, undo: ExitStack, warnings: list[str]) -> None:
    """Give the object a mesh of its own: shape keys move every object that shares one.

    A linked mesh is overridden, since its own animation could not be saved.
    """
    shared = mesh_of(obj)
    if shared.library:
        linked: Any = shared
        override = linked.override_create(remap_local_usages=False)
        if override is None:
            raise UserError(
                f'The mesh of "{obj.name}" is linked and cannot be overridden. Make it local first '
                "(Object > Relations > Make Local)."
            )
        undo.callback(bpy.data.meshes.remove, override)
        obj.data = override
        undo.callback(_assign_data, obj, shared)
        warnings.append(f'The linked mesh of "{obj.name}" was overridden to hold the animation.')
        return
    others = [o for o in bpy.data.objects if o.data == shared and o != obj]
    if not others or shared.override_library:  # a copy would be no override
        return
    own: Any = shared.copy()
    undo.callback(bpy.data.meshes.remove, own)
    obj.data = own
    undo.callback(_assign_data, obj, shared)
    warnings.append(
        f'"{obj.name}" shared its mesh with "{others[0].name}"; it has a mesh of its own now.'
    )


def _assign_data(obj: Object, mesh: Mesh) -> None:
    obj.data = mesh


def _write_keys(obj: Object, keyed: KeyedMotion, undo: ExitStack,
                warnings: list[str]) -> list[str]:  # fmt: skip
    """Make or update a key for each shape; returns the keys' names."""
    if keyed.shapes is None:
        raise ValueError("the motion has no shapes")
    index = obj.active_shape_key_index
    if obj.data.shape_keys is None:
        obj.shape_key_add(name="Basis", from_mix=False)
        undo.callback(obj.shape_key_clear)
    keys = keys_of(obj)
    undo.callback(_store_own_keys, keys, _own_keys(keys))
    own = _own_keys(keys)
    basis = _points(keys.reference_key)
    names: list[str] = []
    kept: list[str] = []
    for name, shape in zip(keyed.names, keyed.shapes, strict=True):
        found, signature = own.get(name, ("", []))
        block = keys.key_blocks.get(found)
        if block is None:
            block = obj.shape_key_add(name=name, from_mix=False)
            undo.callback(obj.shape_key_remove, block)
            _set_points(block, basis + shape)
        elif _is_same(_signature(_points(block) - basis), signature):
            if not _is_same(_signature(shape), signature):
                undo.callback(_set_points, block, _points(block))
                _set_points(block, basis + shape)
        else:
            kept.append(block.name)
            own[name] = (block.name, signature)
            names.append(block.name)
            continue
        own[name] = (block.name, _signature(shape))
        names.append(block.name)
    _rest_others(keys, own, set(names), undo)
    _store_own_keys(keys, own)
    obj.active_shape_key_index = max(index or 0, 0)
    if kept:
        listed = ", ".join(kept[:3]) + (" and others" if len(kept) > 3 else "")
        warnings.append(f"Your changes to the shape of {listed} were kept.")
    return names


def _rest_others(keys: Key, own: dict[str, tuple[str, list[float]]], used: set[str],
                 undo: ExitStack) -> None:  # fmt: skip
    """Set keys of an earlier run that this one does not use to rest."""
    for name, _ in own.values():
        block = keys.key_blocks.get(name)
        if block is not None and name not in used and block.value != 0:
            undo.callback(setattr, block, "value", block.value)
            block.value = 0.0


def _make_room(keys: Key, values: dict[str, Floats], undo: ExitStack,
               warnings: list[str]) -> None:  # fmt: skip
    """Widen slider ranges to the values, since Blender clamps also animated ones; rest at 0."""
    silent = []
    for name, column in values.items():
        block = keys.key_blocks[name]
        for attribute in ("slider_min", "slider_max", "value"):
            undo.callback(setattr, block, attribute, getattr(block, attribute))
        if column.min() < block.slider_min:
            block.slider_min = max(-VALUE_LIMIT, math.floor(column.min()))
        if column.max() > block.slider_max:
            block.slider_max = min(VALUE_LIMIT, math.ceil(column.max()))
        block.value = 0.0  # 5.0 and later make it 1
        if block.mute:
            silent.append(name)
    if silent:
        warnings.append(
            f"Some shape keys do not follow the animation, since they are muted: "
            f"{', '.join(silent[:5])}. Unmute them."
        )


def _range(block: bpy.types.ShapeKey) -> tuple[float, float]:
    return block.slider_min, block.slider_max


def _warn_of_lost_ranges(keys: Key, before: dict[str, tuple[float, float]],
                         warnings: list[str]) -> None:  # fmt: skip
    """A library override keeps values and animation, the range of a value is the library's."""
    widened = [name for name, old in before.items() if _range(keys.key_blocks[name]) != old]
    if widened:
        listed = ", ".join(widened[:3]) + (" and others" if len(widened) > 3 else "")
        warnings.append(
            f"Values of {listed} go beyond their range, which an override cannot widen: they will "
            "be cut when the file is loaded again. Widen the range in the library's file."
        )


def _points(block: bpy.types.ShapeKey) -> Floats:
    flat = np.empty(len(block.points) * 3, np.float32)
    block.points.foreach_get("co", flat)
    return flat.reshape(-1, 3)


def _set_points(block: bpy.types.ShapeKey, vertices: Floats) -> None:
    block.points.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())


def _signature(offsets: Floats) -> list[float]:
    """Three sums over a shape that differ between shapes and hardly change under rounding."""
    flat = offsets.astype(np.float64).ravel()
    place = np.arange(len(flat))
    return [float(flat @ np.cos(place * step)) for step in (0.7, 1.9)] + [float(flat @ flat) ** 0.5]


def _is_same(a: list[float], b: list[float]) -> bool:
    size = max(*map(abs, (*a, *b)), _MIN_COORDINATE) if a and b else 0.0
    return bool(a and b) and all(
        abs(x - y) <= _SAME_SHAPE * size for x, y in zip(a, b, strict=True)
    )


def _own_keys(keys: Key) -> dict[str, tuple[str, list[float]]]:
    stored = keys.get(OWN_KEYS)
    if stored is None:
        return {}
    return {
        name: (str(entry["key"]), [float(v) for v in entry["shape"]])
        for name, entry in stored.items()
    }


def _store_own_keys(keys: Key, own: dict[str, tuple[str, list[float]]]) -> None:
    if own:
        keys[OWN_KEYS] = {name: {"key": key, "shape": shape} for name, (key, shape) in own.items()}
    else:
        with contextlib.suppress(KeyError):
            del keys[OWN_KEYS]
