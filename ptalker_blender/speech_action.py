# SPDX-License-Identifier: GPL-3.0-or-later
"""The Action of a head's speech: each line of dialogue has its frames; other keyframes stay.

Every run writes a new Action. It starts as a copy of the present one, with the lines spoken before,
the artist's changes to them and other curves; then the keyframes within the new line's frames are
replaced. The Action before is kept as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np
from bpy.types import Key, Object
from numpy.typing import NDArray

from . import compat
from .motion import Floats

LINES: Final = "ptalker_lines"
"""Property on an Action: list of {name, first, last}, the frames that each line's keys take up."""
REST_SECONDS: Final = 0.2
"""The mouth comes to rest this long before and after a line, where nothing else is keyed."""
_POINT_ARRAYS: Final = (
    ("co", np.float32, 2), ("handle_left", np.float32, 2), ("handle_right", np.float32, 2),
    ("interpolation", np.int32, 1), ("easing", np.int32, 1), ("type", np.int32, 1),
    ("handle_left_type", np.int32, 1), ("handle_right_type", np.int32, 1),
)  # fmt: skip
_FRESH: Final = {
    "interpolation": 1, "easing": 0, "type": 0, "handle_left_type": 4, "handle_right_type": 4,
}  # fmt: skip
"""A keyframe of a line: linear, with automatic clamped handles in case the artist bends it."""
_SAME_FRAME: Final = 1e-3

FrameRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of dialogue and its place in the Action.

    Attributes:
        name: Name that identifies the line; a line of the same name is replaced, and so is one that
            begins at the same time.
        first_frame: Scene frame of the line's first row of values.
        fps: Frames per second of the scene.
    """

    name: str
    first_frame: int
    fps: float


@dataclass(frozen=True, slots=True)
class Curve:
    """What a line says of one F-curve.

    Attributes:
        path: Data path from the animated data-block.
        index: Index in an array property; 0 for a number.
        values: ``(T,)`` one value per frame.
        rest: Value before the first line and after the last.
    """

    path: str
    index: int
    values: Floats
    rest: float = 0.0


def line_names(action: Any) -> list[str]:
    """Names of the lines in an Action, in the order in which they are spoken."""
    return list(dict.fromkeys(name for name, _, _ in sorted(_lines(action), key=lambda x: x[1])))


def write(keys: Key, values: Mapping[str, Floats], line: Line, *, name: str, resting: Iterable[str],
          keep: bool, undo: ExitStack) -> bpy.types.Action:  # fmt: skip
    """Give shape keys a new Action with a line in it; the present one is kept, whoever made it.

    Args:
        keys: Shape-key data-block.
        values: Name of each animated key -> ``(T,)`` its values, one per frame.
        line: The line of dialogue and its place.
        name: Name for the Action.
        resting: Names of keys that are at rest during the line.
        keep: Whether the present Action's keyframes outside of the line go into the new one.
        undo: Stack that takes the callbacks by which everything is undone.

    Returns:
        The new Action.
    """
    return write_curves(
        keys,
        [Curve(value_path(key_name), 0, column) for key_name, column in values.items()],
        line,
        name=name,
        resting=map(value_path, resting),
        keep=keep,
        undo=undo,
    )


def write_curves(owner: Key | Object, values: Iterable[Curve], line: Line, *, name: str,
                 resting: Iterable[str], keep: bool,
                 undo: ExitStack) -> bpy.types.Action:  # fmt: skip
    """Give a data-block a new Action with a line in it; the present one is kept.

    Args:
        owner: Data-block that is animated.
        values: The curves of the line, at least one.
        line: The line of dialogue and its place.
        name: Name for the Action.
        resting: Data paths that are at rest, at 0, during the line.
        keep: Whether the present Action's keyframes outside of the line go into the new one.
        undo: Stack that takes the callbacks by which everything is undone.

    Returns:
        The new Action.
    """
    had_animation = owner.animation_data is not None
    old, old_slot = compat.assigned_action(owner)
    undo.callback(_restore, owner, old, old_slot, had_animation)
    if old is not None:
        undo.callback(setattr, old, "use_fake_user", old.use_fake_user)
        old.use_fake_user = True  # without a user it would not be saved
    undo.callback(_remove_new, set(bpy.data.actions))
    kept = compat.copy_assigned_action(owner, name) if keep else None
    action, curves = kept or compat.new_fcurves(owner, name)
    values = list(values)
    num_frames = len(values[0].values)
    frames = np.arange(line.first_frame, line.first_frame + num_frames, dtype=np.float32)
    spoken = (line.first_frame, line.first_frame + num_frames - 1)
    margin = max(1, round(REST_SECONDS * line.fps))
    lines = _lines(action)
    # The line as it was before, and what began at the same time: another take of it.
    replaced = [
        entry
        for entry in lines
        if entry[0] == line.name or abs(entry[1] - (spoken[0] - margin)) <= margin
    ]
    cleared = [spoken, *((first, last) for _, first, last in replaced)]
    for made in values:
        curve = curves.find(made.path, index=made.index)
        curve = curve or curves.new(made.path, index=made.index)
        _replace_keys(curve, cleared, frames, made.values, margin=margin, rest=made.rest)
    for path in resting:
        curve = curves.find(path)
        if curve is not None:
            ends = np.array(sorted(set(spoken)), np.float32)
            _replace_keys(curve, cleared, ends, np.zeros_like(ends), margin=margin)
    others = _outside((entry for entry in lines if entry not in replaced), spoken)
    begin = max([spoken[0] - margin, *(last + 1 for _, _, last in others if last < spoken[0])])
    end = min([spoken[1] + margin, *(first - 1 for _, first, _ in others if first > spoken[1])])
    _store_lines(action, [*others, (line.name, begin, end)])
    return action


def value_path(key_name: str) -> str:
    """Data path of a shape key's value, from its data-block."""
    return f'key_blocks["{bpy.utils.escape_identifier(key_name)}"].value'


def _replace_keys(curve: Any, cleared: Iterable[FrameRange], frames: Floats, values: Floats, *,
                  margin: int, rest: float = 0.0) -> None:  # fmt: skip
    """Write linear keyframes in place of those within some frames; the others stay.

    ``margin`` frames before and after, the curve is keyed with the value that it had there, which
    is rest where it had no keyframes; not where a keyframe that stays lies as near.
    """
    points = curve.keyframe_points
    arrays = {name: _read(points, name, kind, width) for name, kind, width in _POINT_ARRAYS}
    at = arrays["co"][:, 0]
    gone = np.zeros(len(at), bool)
    for first, last in cleared:
        gone |= (at >= first - _SAME_FRAME) & (at <= last + _SAME_FRAME)
    stays = at[~gone]
    before, after = frames[0] - margin, frames[-1] + margin
    new = np.stack([frames, values], axis=1)
    if not ((stays >= before) & (stays < frames[0])).any():
        new = np.concatenate([[(before, _value_at(curve, before, cleared, rest))], new])
    if not ((stays > frames[-1]) & (stays <= after)).any():
        new = np.concatenate([new, [(after, _value_at(curve, after, cleared, rest))]])
    order = np.argsort(np.concatenate([stays, new[:, 0]]), kind="stable")
    points.clear()
    points.add(len(order))
    for name, kind, width in _POINT_ARRAYS:
        fresh = new if width == 2 else np.full((len(new), 1), _FRESH[name])
        both = np.concatenate([arrays[name][~gone], fresh])[order]
        points.foreach_set(name, np.ascontiguousarray(both, kind).ravel())
    curve.update()  # without it the handles stay where they are


def _read(points: Any, name: str, kind: type, width: int) -> NDArray[Any]:
    flat: NDArray[Any] = np.empty(len(points) * width, kind)
    points.foreach_get(name, flat)
    return flat.reshape(-1, width)


def _value_at(curve: Any, frame: float, cleared: Iterable[FrameRange], rest: float) -> float:
    """A curve's value at a frame; rest where its keyframes there are about to be replaced."""
    is_cleared = any(first <= frame <= last for first, last in cleared)
    return rest if is_cleared or curve.is_empty else float(curve.evaluate(frame))


def _outside(
    lines: Iterable[tuple[str, int, int]], spoken: FrameRange
) -> list[tuple[str, int, int]]:
    """The parts of lines that lie before and after some frames."""
    parts = []
    for name, first, last in lines:
        parts.append((name, first, min(last, spoken[0] - 1)))
        parts.append((name, max(first, spoken[1] + 1), last))
    return [part for part in dict.fromkeys(parts) if part[1] <= part[2]]


def _lines(action: Any) -> list[tuple[str, int, int]]:
    return [
        (str(entry["name"]), int(entry["first"]), int(entry["last"]))
        for entry in action.get(LINES, [])
    ]


def _store_lines(action: Any, lines: Iterable[tuple[str, int, int]]) -> None:
    action[LINES] = [{"name": name, "first": a, "last": b} for name, a, b in lines]


def _restore(owner: Key | Object, action: Any, slot: Any, had_animation: bool) -> None:
    if had_animation:
        compat.assign_action(owner, action, slot)
    else:
        owner.animation_data_clear()


def _remove_new(before: set[bpy.types.Action]) -> None:
    for action in set(bpy.data.actions) - before:
        bpy.data.actions.remove(action)
