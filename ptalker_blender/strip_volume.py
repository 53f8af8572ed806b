# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume of a strip over time: fades and keyed volume, as Blender plays them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import numpy as np
from bpy.types import Scene

from . import compat

_TOLERANCE: Final = 0.004
"""How far the straight lines of a fade may lie beside its curve, in linear volume."""


def loudest(scene: Scene, strip: Any) -> float:
    """The highest volume of a strip, whatever the playhead shows; fast enough for drawing."""
    curve = _curve(scene, strip)
    if curve is None or curve.mute or not len(curve.keyframe_points):
        return float(strip.volume)
    return max(float(point.co[1]) for point in curve.keyframe_points)


def over_time(
    scene: Scene, strip: Any, *, origin: Fraction, fps: Fraction
) -> tuple[float, tuple[tuple[float, float], ...]]:
    """A strip's volume in the time of its file.

    Args:
        scene: The strip's scene.
        strip: The sound strip.
        origin: Time on the scene's clock at which the file's second 0 lies.
        fps: Frame rate of the scene.

    Returns:
        A constant volume, and pairs of seconds in the file and volume where it is keyed.
    """
    curve = _curve(scene, strip)
    if curve is None or curve.mute or not len(curve.keyframe_points):
        return float(strip.volume), ()
    first, end, _ = compat.strip_frames(strip)
    frames = np.arange(int(first), int(end) + 1)
    volumes = np.array([max(0.0, curve.evaluate(frame)) for frame in frames])
    if np.ptp(volumes) <= _TOLERANCE:
        return float(volumes.max()), ()
    kept = _corners(volumes)
    seconds = frames[kept] / float(fps) - float(origin)
    return 1.0, tuple(zip(seconds.tolist(), volumes[kept].tolist(), strict=True))


def _curve(scene: Scene, strip: Any) -> Any:
    path = strip.path_from_id("volume")
    return compat.animation_curve(scene, path)


def _corners(values: np.ndarray) -> list[int]:
    """Indices between which straight lines follow the values (Douglas and Peucker 1973)."""
    kept = {0, len(values) - 1}
    open_parts = [(0, len(values) - 1)]
    while open_parts:
        first, last = open_parts.pop()
        line = np.interp(np.arange(first, last + 1), [first, last], values[[first, last]])
        beside = np.abs(values[first : last + 1] - line)
        farthest = int(beside.argmax())
        if beside[farthest] > _TOLERANCE:
            kept.add(first + farthest)
            open_parts += [(first, first + farthest), (first + farthest, last)]
    return sorted(kept)
