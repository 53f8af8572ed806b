# SPDX-License-Identifier: GPL-3.0-or-later
"""Hides what differs between Blender 4.2 and 5.2: features are tested for, never versions."""

from __future__ import annotations

import importlib
import importlib.util
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import bpy
from bpy.types import ID, Context, Scene

from .typed import scene_of

_SPEED_TOLERANCE_FRAMES: Final = 2


def sequencer_scene(context: Context) -> Scene:
    """The scene that the sequencer edits: from 5.0 on the workspace's, before the context's."""
    return getattr(context, "sequencer_scene", None) or scene_of(context)


def all_strips(scene: Scene) -> list[Any]:
    """Every strip of a scene, also those inside meta strips."""
    editor = scene.sequence_editor
    if editor is None:
        return []
    return list(editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all)


def active_strip(scene: Scene) -> Any:
    """The strip that was last clicked in the scene's sequencer; None without one."""
    editor = scene.sequence_editor
    return editor.active_strip if editor is not None else None


def _strip_value(strip: Any, new: str, old: str) -> float:
    # 5.1 renamed these, 6.0 is going to drop the old names.
    return float(getattr(strip, new if hasattr(strip, new) else old))


def strip_frames(strip: Any) -> tuple[float, float, float]:
    """First frame, end frame (exclusive) and the frame at which the strip's file starts."""
    first = _strip_value(strip, "left_handle", "frame_final_start")
    end = _strip_value(strip, "right_handle", "frame_final_end")
    start = _strip_value(strip, "content_start", "frame_start")
    trim = _strip_value(strip, "content_trim_start", "animation_offset_start")
    return first, end, start - trim


def is_retimed(strip: Any) -> bool:
    """Whether the strip's speed was changed; 4.2 and 4.3 do not tell scripts."""
    keys = getattr(strip, "retiming_keys", None)
    return keys is not None and len(keys) > 0


def is_muted(scene: Scene, strip: Any) -> bool:
    """Whether a strip is muted, by itself or with its channel."""
    if strip.mute:
        return True
    parent = strip.parent_meta()
    owner: Any = scene.sequence_editor if parent is None else parent
    channels = getattr(owner, "channels", ())
    return bool(strip.channel < len(channels) and channels[strip.channel].mute)


def unverified_seconds(scene: Scene, strip: Any) -> float | None:
    """How long this Blender takes a strip's file to be, where it cannot compare that with the file.

    A Blender before 4.4 that was built without its audio module does not tell whether a strip's
    speed was changed.

    Args:
        scene: The strip's scene.
        strip: The sound strip.

    Returns:
        The length in seconds; None where the speed is known.
    """
    if hasattr(strip, "retiming_keys") or importlib.util.find_spec("aud") is not None:
        return None
    return float(_content_frames(strip) * scene.render.fps_base / scene.render.fps)


def _content_frames(strip: Any) -> float:
    return float(strip.frame_duration + strip.animation_offset_start + strip.animation_offset_end)


def animation_curve(id_block: Any, data_path: str) -> Any:
    """The F-curve that animates a property of a data-block; None where there is none."""
    animation = id_block.animation_data
    if animation is None or animation.action is None:
        return None
    action: Any = animation.action
    if not hasattr(action, "slots"):
        return action.fcurves.find(data_path)
    for layer in action.layers:
        for part in layer.strips:
            bag = part.channelbag(animation.action_slot) if animation.action_slot else None
            if bag is not None and (curve := bag.fcurves.find(data_path)) is not None:
                return curve
    return None


def seems_retimed(scene: Scene, strip: Any) -> bool:
    """Whether a strip's length shows a changed speed, in versions that do not tell scripts.

    It needs Blender's own audio module, which some builds lack.
    """
    if hasattr(strip, "retiming_keys") or strip.sound.packed_file is not None:
        return False
    path = Path(bpy.path.abspath(strip.sound.filepath, library=strip.sound.library))
    try:
        seconds = _sound_seconds(path, path.stat().st_mtime_ns)
    except OSError:
        return False
    frames = seconds * scene.render.fps / scene.render.fps_base
    shown = _content_frames(strip)
    return bool(math.isfinite(frames) and abs(shown - frames) > _SPEED_TOLERANCE_FRAMES)


@lru_cache(maxsize=32)  # it is asked for at every redraw
def _sound_seconds(path: Path, _changed_at: int) -> float:
    """Length of a sound file; NaN where it is unknown."""
    try:
        aud: Any = importlib.import_module("aud")
    except ImportError:
        return math.nan
    try:
        sound = aud.Sound(str(path))
        rate = sound.specs[0]  # raises first: asking for data would abort on a broken file
        return float(sound.length / rate)
    except aud.error:
        return math.nan


def remove_strip(scene: Scene, strip: Any) -> None:
    """Take a top-level strip out of a scene's sequencer."""
    editor: Any = scene.sequence_editor
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    strips.remove(strip)


def top_level_strips(scene: Scene) -> list[Any]:
    """The strips of a scene that lie in no meta strip."""
    editor = scene.sequence_editor
    if editor is None:
        return []
    return list(editor.strips if hasattr(editor, "strips") else editor.sequences)


def new_fcurves(id_block: ID, name: str) -> tuple[bpy.types.Action, Any]:
    """A new action on a data-block; returns it and its empty F-curve collection."""
    owner: Any = id_block
    animation = owner.animation_data or owner.animation_data_create()
    action: Any = bpy.data.actions.new(name)
    animation.action = action
    slot = None
    if hasattr(action, "slots"):  # 4.4 and later
        slot = action.slots.new(id_type=owner.id_type, name=id_block.name)
        animation.action_slot = slot
    return action, _fcurves_of(action, slot)


def copy_assigned_action(id_block: ID, name: str) -> tuple[bpy.types.Action, Any] | None:
    """Replace the action that animates a data-block by a copy of it.

    Args:
        id_block: Data-block that can be animated.
        name: Name for the copy.

    Returns:
        The copy and its F-curve collection for the data-block; None where there is no action.
    """
    action, slot = assigned_action(id_block)
    if action is None or (hasattr(action, "slots") and slot is None):
        return None
    copy = action.copy()
    copy.name = name
    own_slot = None
    if slot is not None:
        own_slot = next(other for other in copy.slots if other.handle == slot.handle)
    assign_action(id_block, copy, own_slot)
    return copy, _fcurves_of(copy, own_slot)


def _fcurves_of(action: Any, slot: Any) -> Any:
    """The F-curve collection of an action, since 4.4 that of one slot."""
    if slot is None:
        return action.fcurves
    layer = action.layers[0] if len(action.layers) else action.layers.new("Layer")
    strip = layer.strips[0] if len(layer.strips) else layer.strips.new(type='KEYFRAME')
    return strip.channelbag(slot, ensure=True).fcurves


def read_fcurves(action: Any, slot: Any = None, *, id_type: str = 'KEY') -> list[Any]:
    """The F-curves of an action, to be read only.

    Args:
        action: The action.
        slot: Its slot; None for the first one that has curves for ``id_type``.
        id_type: Type of the data-block that is animated.

    Returns:
        The curves; none where there is no such slot.
    """
    if not hasattr(action, "slots"):
        return list(action.fcurves)
    slots = [s for s in action.slots if s.target_id_type in (id_type, 'UNSPECIFIED')]
    for one in [slot] if slot is not None else slots:
        for layer in action.layers:
            for strip in layer.strips:
                bag = strip.channelbag(one)
                if bag is not None and len(bag.fcurves):
                    return list(bag.fcurves)
    return []


def new_fcurve(curves: Any, path: str, *, index: int, group: str) -> Any:
    """A new F-curve, in a group of a name where that is not empty and the version lets one."""
    parameters = curves.bl_rna.functions["new"].parameters.keys()
    for keyword in ("action_group", "group_name"):
        if group and keyword in parameters:
            return curves.new(path, index=index, **{keyword: group})
    return curves.new(path, index=index)


def fcurve_paths(id_block: ID) -> set[str]:
    """Data paths that the assigned action animates; the action is left as it is."""
    action, slot = assigned_action(id_block)
    if action is None or (hasattr(action, "slots") and slot is None):
        return set()
    return {curve.data_path for curve in read_fcurves(action, slot)}


def assigned_action(id_block: ID) -> tuple[Any, Any]:
    """The action and slot that animate a data-block; None where there is none."""
    owner: Any = id_block
    animation = owner.animation_data
    if animation is None or animation.action is None:
        return None, None
    return animation.action, getattr(animation, "action_slot", None)


def assign_action(id_block: ID, action: Any, slot: Any) -> None:
    """Have an action animate a data-block; None removes the present action."""
    owner: Any = id_block
    animation = owner.animation_data
    if animation is None:
        return
    animation.action = action
    if action is not None and slot is not None:
        animation.action_slot = slot


def quit_handlers() -> list[Any] | None:
    """Handlers that run before Blender quits: 5.1 and later."""
    return getattr(bpy.app.handlers, "exit_pre", None)


def new_sound_strip(scene: Scene, path: Path, *, frame: int) -> Any:
    """A sound strip in the first free channel; None in a build without sound."""
    if not bpy.app.build_options.audaspace:
        return None
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    channel = 1 + max((strip.channel for strip in all_strips(scene)), default=0)
    return strips.new_sound(path.stem, str(path), channel, frame)


def mix_down(scene: Scene, path: Path) -> None:
    """Mix a scene's sound into a WAV file; some builds write nothing and say nothing.

    Args:
        scene: Scene whose frame range is mixed.
        path: The WAV file.

    Raises:
        RuntimeError: Blender refused.
    """
    with bpy.context.temp_override(scene=scene):
        bpy.ops.sound.mixdown(
            filepath=str(path),
            check_existing=False,
            container='WAV',
            codec='PCM',
            format='S16',
            mixrate=48000,
            channels='MONO',
        )
