# SPDX-License-Identifier: GPL-3.0-or-later
"""The Action of a head's speech: each line of dialogue has its frames; other keyframes stay.

Shape keys have one, and so has an armature whose bones speak.

Every run writes a new Action. It starts as a copy of the present one, with the lines spoken before,
the artist's changes to them and other curves; then the keyframes within the new line's frames are
replaced. The Action before is kept as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import bpy
import numpy as np
from bpy.types import ID, Key
from numpy.typing import NDArray

from . import compat
from .motion import Floats

LINES: Final = "ptalker_lines"
"""Property on an Action: list of {name, key, first, last, fps}: the frames that each line's keys
take up, and the rate at which they were made; parts of a line have the same key."""
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
_SAME_RATE: Final = 1e-4

FrameRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of dialogue and its place in the Action.

    Attributes:
        name: What the artist reads.
        first_frame: Scene frame of the line's first row of values.
        fps: Frames per second of the scene.
        key: What tells the line from others of its name; empty where the name does. The same line
            is replaced, and so is one that begins at the same time: another take of it.
        follows: Whether the line was moved where it speaks at other frames than before: a strip
            was, a file may be heard twice.
    """

    name: str
    first_frame: int
    fps: float
    key: str = ""
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """What one F-curve does during a line.

    Attributes:
        values: ``(T,)`` one per frame.
        rest: Its value where nothing is spoken.
        group: Name of the group in which the curve is shown; empty for none.
    """

    values: Floats
    rest: float = 0.0
    group: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line, or a part of one, in an Action: the frames that its keys take up."""

    name: str
    key: str
    first: int
    last: int
    fps: float

    def is_of(self, line: Line) -> bool:
        """Whether the entry is the line as it was before; Actions of before have no keys."""
        if self.key and line.key:
            return self.key == line.key
        return self.name == line.name

    def is_take_of(self, line: Line) -> bool:
        """Whether it begins when the line does."""
        margin = _margin(line)
        return abs(self.first - (line.first_frame - margin)) <= margin


def line_names(action: Any, but: Line | None = None) -> list[str]:
    """Names of the lines in an Action, in the order in which they are spoken.

    Args:
        action: The Action.
        but: A line that is left out.

    Returns:
        The names; two lines may have the same.
    """
    entries = sorted(_entries(action), key=lambda entry: entry.first)
    named = {
        entry.key or entry.name: entry.name
        for entry in entries
        if but is None or not entry.is_of(but)
    }
    return list(named.values())


def frames_of_lines(action: Any) -> list[FrameRange]:
    """First and last frame of each line in an Action, or of its parts, with their rests."""
    return [(entry.first, entry.last) for entry in _entries(action)]


def has_line(action: Any, line: Line) -> bool:
    """Whether an Action has a line at its place."""
    return any(entry.is_of(line) and entry.is_take_of(line) for entry in _entries(action))


def losses(owner: ID, line: Line, num_frames: int) -> list[str]:
    """What a line is going to take away from the lines before, as sentences for the artist.

    The line itself at the same place, which is generated anew, is not worth one.
    """
    action, _ = compat.assigned_action(owner)
    if action is None:
        return []
    margin = _margin(line)
    first, last = line.first_frame + margin, line.first_frame + num_frames - 1 - margin
    found = []
    for entry in _entries(action):
        meets = entry.first <= last and entry.last >= first
        if entry.is_of(line):
            if not meets and not line.follows:
                found.append(
                    f'"{line.name}" no longer speaks at frames {entry.first} to {entry.last}, '
                    "where the same file spoke before. To have it twice, use a strip for each"
                )
        elif entry.is_take_of(line):
            found.append(f'The line "{entry.name}", which began at the same time, was replaced')
        elif meets:
            found.append(
                f'The line "{entry.name}" (frames {entry.first} to {entry.last}) was cut where '
                "this one speaks"
            )
    return [f"{text}; the Action before was kept." for text in found]


def lines_at_another_rate(owner: ID, fps: float) -> list[tuple[str, float]]:
    """Name and frame rate of each line whose keys were made at another rate than the scene's."""
    action, _ = compat.assigned_action(owner)
    if action is None:
        return []
    found = {
        entry.key or entry.name: (entry.name, entry.fps)
        for entry in _entries(action)
        if entry.fps and abs(entry.fps - fps) > _SAME_RATE * fps
    }
    return list(found.values())


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
    curves = {(value_path(key_name), 0): Curve(column) for key_name, column in values.items()}
    resting = [value_path(key_name) for key_name in resting]
    return write_curves(keys, curves, line, name=name, resting=resting, keep=keep, undo=undo)


def write_curves(owner: ID, curves: Mapping[tuple[str, int], Curve], line: Line, *, name: str,
                 undo: ExitStack, resting: Iterable[str] = (),
                 keep: bool = True) -> bpy.types.Action:  # fmt: skip
    """Give a data-block a new Action with a line in it; the present one is kept.

    Args:
        owner: Data-block that is animated.
        curves: Data path and index of each animated value -> what it does.
        line: The line of dialogue and its place.
        name: Name for the Action.
        undo: Stack that takes the callbacks by which everything is undone.
        resting: Data paths that are at rest, at 0, during the line.
        keep: Whether the present Action's keyframes outside of the line go into the new one.

    Returns:
        The new Action.
    """
    block: Any = owner
    had_animation = block.animation_data is not None
    old, old_slot = compat.assigned_action(owner)
    undo.callback(_restore, owner, old, old_slot, had_animation)
    if old is not None:
        undo.callback(setattr, old, "use_fake_user", old.use_fake_user)
        old.use_fake_user = True  # without a user it would not be saved
    undo.callback(_remove_new, set(bpy.data.actions))
    kept = compat.copy_assigned_action(owner, name) if keep else None
    action, written = kept or compat.new_fcurves(owner, name)
    num_frames = len(next(iter(curves.values())).values)
    frames = np.arange(line.first_frame, line.first_frame + num_frames, dtype=np.float32)
    spoken = (line.first_frame, line.first_frame + num_frames - 1)
    margin = _margin(line)
    entries = _entries(action)
    replaced = [entry for entry in entries if entry.is_of(line) or entry.is_take_of(line)]
    cleared = [spoken, *((entry.first, entry.last) for entry in replaced)]
    for (path, index), wanted in curves.items():
        curve = written.find(path, index=index) or compat.new_fcurve(
            written, path, index=index, group=wanted.group
        )
        _replace_keys(curve, cleared, frames, wanted.values, margin=margin, rest=wanted.rest)
    for path in resting:
        curve = written.find(path)
        if curve is not None:
            ends = np.array(sorted(set(spoken)), np.float32)
            _replace_keys(curve, cleared, ends, np.zeros_like(ends), margin=margin)
    others = _outside((entry for entry in entries if entry not in replaced), spoken)
    begin = max([spoken[0] - margin, *(e.last + 1 for e in others if e.last < spoken[0])])
    end = min([spoken[1] + margin, *(e.first - 1 for e in others if e.first > spoken[1])])
    _store_lines(action, [*others, _Entry(line.name, line.key, begin, end, line.fps)])
    return action


def _margin(line: Line) -> int:
    return max(1, round(REST_SECONDS * line.fps))


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


def _outside(entries: Iterable[_Entry], spoken: FrameRange) -> list[_Entry]:
    """The parts of lines that lie before and after some frames."""
    parts = []
    for entry in entries:
        parts.append(replace(entry, last=min(entry.last, spoken[0] - 1)))
        parts.append(replace(entry, first=max(entry.first, spoken[1] + 1)))
    return [part for part in dict.fromkeys(parts) if part.first <= part.last]


def _entries(action: Any) -> list[_Entry]:
    return [
        _Entry(
            str(entry["name"]),
            str(entry.get("key", "")),
            int(entry["first"]),
            int(entry["last"]),
            float(entry.get("fps", 0.0)),
        )
        for entry in action.get(LINES, [])
    ]


def _store_lines(action: Any, entries: Iterable[_Entry]) -> None:
    action[LINES] = [asdict(entry) for entry in entries]


def _restore(owner: Any, action: Any, slot: Any, had_animation: bool) -> None:
    if had_animation:
        compat.assign_action(owner, action, slot)
    else:
        owner.animation_data_clear()


def _remove_new(before: set[bpy.types.Action]) -> None:
    for action in set(bpy.data.actions) - before:
        bpy.data.actions.remove(action)
