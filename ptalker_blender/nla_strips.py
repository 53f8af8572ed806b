# SPDX-License-Identifier: GPL-3.0-or-later
"""Strips of the Nonlinear Animation editor: lines that were pushed down go on playing.

The Action of a new line would hold its first and last values over all strips. Where strips have
curves of the same values, it is made to act on its own frames only; no strip is changed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bpy.types import ID

from . import compat, speech_action


def let_play(owner: ID, undo: ExitStack) -> list[str]:
    """Have an owner's Action leave the frames beside it to the strips below.

    Args:
        owner: Data-block to which a line was written.
        undo: Stack that takes the callbacks by which everything is undone.

    Returns:
        Sentences about strips that cannot be seen, or hide the line.
    """
    block: Any = owner
    animation = block.animation_data
    action, slot = compat.assigned_action(owner)
    if action is None or not animation.use_nla:
        return []
    ours = {(c.data_path, c.array_index) for c in compat.read_fcurves(action, slot)}
    strips = [
        strip
        for track in animation.nla_tracks
        for strip in track.strips
        if not track.mute and not strip.mute and _has_any(strip, ours, owner)
    ]
    warnings = []
    if any(track.is_solo for track in animation.nla_tracks):
        warnings.append(
            f'An NLA track of "{owner.name}" plays solo and hides the new line. '
            "Switch off its star in the Nonlinear Animation editor."
        )
    if animation.nla_tracks and (
        animation.action_blend_type != 'REPLACE' or animation.action_influence < 1
    ):
        warnings.append(
            f'The Action of "{owner.name}" is blended ({animation.action_blend_type.title()}, '
            f"influence {animation.action_influence:.2g}): the speech is not seen as it was made. "
            "Change it in the sidebar of the Nonlinear Animation editor."
        )
    if not strips:
        return warnings
    if animation.action_extrapolation != 'NOTHING':
        undo.callback(setattr, animation, "action_extrapolation", animation.action_extrapolation)
        animation.action_extrapolation = 'NOTHING'
    first, last = action.frame_range
    frames = speech_action.frames_of_lines(action)
    for strip in strips:
        inside = max(strip.frame_start, first) < min(strip.frame_end, last)
        if inside and not any(a <= strip.frame_start and strip.frame_end <= b for a, b in frames):
            warnings.append(
                f'The NLA strip "{strip.name}" (frames {strip.frame_start:g} to '
                f"{strip.frame_end:g}) is covered where the Action with the lines runs from "
                f"{first:g} to {last:g}. Push that Action down too to see both."
            )
    return warnings


def _has_any(strip: Any, places: set[tuple[str, int]], owner: Any) -> bool:
    """Whether a strip has curves of some values; meta strips may hold others."""
    if strip.type == 'META':
        return any(_has_any(inner, places, owner) for inner in strip.strips)
    if strip.action is None:
        return False
    curves = compat.read_fcurves(
        strip.action, getattr(strip, "action_slot", None), id_type=owner.id_type
    )
    return any((curve.data_path, curve.array_index) in places for curve in curves)
