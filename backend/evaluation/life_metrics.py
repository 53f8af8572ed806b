# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of blinks, gaze, brows and head, as they were measured on captured people.

``python -m backend.evaluation.life_metrics MOTION.npz …`` prints those of some motions with the
ranges in which people lie who speak freely.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks, welch

from backend import motion
from backend.life.layers import GAZE_DEGREES

Floats = NDArray[np.floating]

RANGES: Final = {
    "blinks per minute": (15.0, 25.0),
    "blink peak, mean": (0.5, 1.0),
    "share of half blinks": (0.05, 0.5),
    "closing, s": (0.07, 0.12),
    "reopening, s": (0.15, 0.3),
    "lids between blinks": (0.05, 0.1),
    "gaze sd yaw, degrees": (3.0, 5.0),
    "gaze sd pitch, degrees": (2.0, 4.0),
    "saccades above 1 degree per minute": (40.0, 110.0),
    "saccade size, degrees": (3.0, 8.0),
    "brow raises per minute": (10.0, 45.0),
    "frowns per minute": (10.0, 25.0),
    "brow power below 0.4 Hz": (0.4, 0.75),
    "browInnerUp sd": (0.05, 0.3),
    "head sd yaw, degrees": (1.0, 1.8),
    "head sd pitch, degrees": (0.9, 1.6),
    "head sd roll, degrees": (0.6, 1.2),
    "head speed, degrees per s": (3.0, 6.0),
}
"""Where people lie who speak freely; the head's spreads within a quarter of the captured ones."""
_EVENT: Final = 0.08
"""Prominence by which a raise, a frown or a blink counts."""
_SACCADE_DEGREES_PER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Recording:
    """Motion to measure.

    Attributes:
        weights: ARKit name -> weights over time, each ``(T,)``.
        head_rotation: Degrees about the face's axes, ``(T, 3)``.
        fps: Frames per second, at least 40: a saccade takes 30 ms.
    """

    weights: Mapping[str, Floats]
    head_rotation: Floats
    fps: float


def gaze_of(weights: Mapping[str, Floats]) -> NDArray[np.float64]:
    """Yaw to the subject's left and pitch up of the eyes in degrees, ``(T, 2)``."""

    def turned(name: str) -> NDArray[np.float64]:
        both = [np.asarray(weights[f"eyeLook{name}{side}"]) for side in ("Left", "Right")]
        return np.asarray(np.stack(both) * GAZE_DEGREES[name], np.float64)

    out, inwards, up, down = (turned(name) for name in ("Out", "In", "Up", "Down"))
    yaw = 0.5 * (out[0] - inwards[0] + inwards[1] - out[1])
    return np.stack([yaw, 0.5 * (up - down).sum(axis=0)], axis=1)


def measure_life(recordings: Sequence[Recording]) -> dict[str, float]:
    """Figures pooled over recordings.

    Args:
        recordings: Motions, at least one.

    Returns:
        Values by the names of ``RANGES``; NaN where nothing of the kind happens.
    """
    minutes = sum(len(one.head_rotation) / one.fps for one in recordings) / 60.0
    blinks = np.concatenate([_blinks(one) for one in recordings])
    sizes = np.concatenate([_saccades(one) for one in recordings])
    gaze = np.concatenate([gaze_of(one.weights) for one in recordings])
    head = np.concatenate([one.head_rotation for one in recordings])
    speed = np.concatenate(
        [np.linalg.norm(np.diff(x.head_rotation, axis=0), axis=1) * x.fps for x in recordings]
    )
    brows = [_raise_of(one.weights) for one in recordings]
    frowns = [0.5 * (x.weights["browDownLeft"] + x.weights["browDownRight"]) for x in recordings]
    inner = np.concatenate([one.weights["browInnerUp"] for one in recordings])
    lids = np.concatenate([one.weights["eyeBlinkLeft"] for one in recordings])
    peaks, closing, opening = blinks.T
    large = sizes[sizes > 1.0]
    return {
        "blinks per minute": len(blinks) / minutes,
        "blink peak, mean": _mean(peaks),
        "share of half blinks": _mean(peaks < 0.7),
        "closing, s": _mean(closing),
        "reopening, s": _mean(opening),
        "lids between blinks": float(np.median(lids)),
        "gaze sd yaw, degrees": float(gaze[:, 0].std()),
        "gaze sd pitch, degrees": float(gaze[:, 1].std()),
        "saccades above 1 degree per minute": len(large) / minutes,
        "saccade size, degrees": _mean(large),
        "brow raises per minute": _events(brows, recordings) / minutes,
        "frowns per minute": _events(frowns, recordings) / minutes,
        "brow power below 0.4 Hz": _mean(
            [_slow_share(x, one.fps) for x, one in zip(brows, recordings, strict=True)]
        ),
        "browInnerUp sd": float(inner.std()),
        "head sd yaw, degrees": float(head[:, 1].std()),
        "head sd pitch, degrees": float(head[:, 0].std()),
        "head sd roll, degrees": float(head[:, 2].std()),
        "head speed, degrees per s": float(speed.mean()),
    }


def _mean(values: Sequence[float] | Floats | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _raise_of(weights: Mapping[str, Floats]) -> Floats:
    outer = 0.5 * (weights["browOuterUpLeft"] + weights["browOuterUpRight"])
    return np.asarray(0.5 * (outer + weights["browInnerUp"]))


def _events(curves: Sequence[Floats], recordings: Sequence[Recording]) -> int:
    return sum(
        len(find_peaks(curve, prominence=_EVENT, distance=max(1, round(0.2 * one.fps)))[0])
        for curve, one in zip(curves, recordings, strict=True)
    )


def _slow_share(curve: Floats, fps: float) -> float:
    """Share of a curve's power below 0.4 Hz, of that between 0.05 and 8 Hz."""
    at, power = welch(curve - np.mean(curve), fps, nperseg=min(len(curve), round(20 * fps)))
    used = (at >= 0.05) & (at <= 8.0)
    return float(power[used & (at < 0.4)].sum() / max(power[used].sum(), 1e-12))


def _blinks(one: Recording) -> NDArray[np.float64]:
    """Peak, closing and reopening time in s of each blink, ``(n, 3)``.

    The times go from a tenth of the way to nine tenths and back, and the rest of the way at the
    same speed.
    """
    lid = np.asarray(one.weights["eyeBlinkLeft"], np.float64)
    rest = float(np.median(lid))
    found = []
    for row in find_peaks(lid, height=rest + 0.25, distance=max(1, round(0.2 * one.fps)))[0]:
        low, high = rest + 0.1 * (lid[row] - rest), rest + 0.9 * (lid[row] - rest)
        first = _crossing(lid, row, -1, high) - _crossing(lid, row, -1, low)
        last = _crossing(lid, row, 1, low) - _crossing(lid, row, 1, high)
        found.append((lid[row], first / 0.8 / one.fps, last / 0.8 / one.fps))
    return np.array(found).reshape(-1, 3)


def _crossing(curve: NDArray[np.float64], row: int, step: int, level: float) -> float:
    """Row, with its fraction, where a curve first falls below a level on one side of a peak."""
    while 0 <= row + step < len(curve) and curve[row + step] > level:
        row += step
    beyond = min(max(row + step, 0), len(curve) - 1)
    fall = curve[row] - curve[beyond]
    return row + step * float((curve[row] - level) / fall if fall > 1e-9 else 0.0)


def _saccades(one: Recording) -> NDArray[np.float64]:
    """Size in degrees of each fast movement of the gaze."""
    gaze = gaze_of(one.weights)
    moves = np.diff(gaze, axis=0)
    is_fast = np.linalg.norm(moves, axis=1) * one.fps > _SACCADE_DEGREES_PER_S
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_fast, [False]]).astype(np.int8)))
    sizes = [np.linalg.norm(gaze[b] - gaze[a]) for a, b in edges.reshape(-1, 2)]
    return np.array(sizes, dtype=np.float64)


def table(figures: Mapping[str, float]) -> str:
    """Figures with the ranges in which people lie, one a line."""
    lines = []
    for name, value in figures.items():
        low, high = RANGES[name]
        mark = "" if low <= value <= high else "   outside"
        lines.append(f"{name:36s} {value:7.3f}   {low:g} to {high:g}{mark}")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Figures of a face's life in motions.")
    parser.add_argument("motions", nargs="+", type=Path, help="motion.npz at 50 fps or more")
    recordings = []
    for path in parser.parse_args().motions:
        found = motion.read(path)
        rotation = np.zeros((len(found.weights), 3), np.float32)
        if found.layers is not None:
            rotation = found.layers.head_rotation
        weights = dict(zip(found.names, found.weights.T, strict=True))
        recordings.append(Recording(weights, rotation, float(found.fps)))
    sys.stdout.write(table(measure_life(recordings)) + "\n")


if __name__ == "__main__":
    main()
