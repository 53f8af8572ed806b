# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion = weights x shapes: compose, compact, bring to a frame rate, write and read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from backend.errors import UserError
from backend.io import read_arrays, write_atomically

LEARNED_SHAPE_NAME: Final = "PTalker {:02d}"
"""How the shapes of a model that learns them are named; they are those of one motion."""
_BLOCK_FRAMES: Final = 256


@dataclass(frozen=True, slots=True)
class Motion:
    """An animation: ``vertices[t] = template + sum over k of weights[t, k] * shapes[k]``.

    Attributes:
        weights: Shape ``(T, K)``.
        shapes: Offsets in the head's own space, shape ``(K, V, 3)``.
        names: One per shape.
        template: The head at rest, shape ``(V, 3)``.
        fps: Frames a second, exact.
        start_seconds: Time of frame 0 in the sound file; frame ``i`` is ``i / fps`` later.
        report: What was done, as JSON can hold it.
    """

    weights: NDArray[np.float32]
    shapes: NDArray[np.float32]
    names: tuple[str, ...]
    template: NDArray[np.float32]
    fps: Fraction
    start_seconds: float = 0.0
    report: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_shapes, num_vertices = len(self.names), len(self.template)
        if self.weights.ndim != 2 or self.weights.shape[1] != num_shapes:
            raise ValueError(f"weights has shape {self.weights.shape}, expected (T, {num_shapes})")
        expected = (num_shapes, num_vertices, 3)
        if self.shapes.shape != expected or self.template.shape != (num_vertices, 3):
            raise ValueError(
                f"shapes has shape {self.shapes.shape} and template {self.template.shape}, "
                f"expected {expected} = (shapes, vertices, 3) and ({num_vertices}, 3)"
            )


@dataclass(frozen=True, slots=True)
class Compacted:
    """Result of `compact`: ``largest_error`` is that of any vertex in any frame."""

    weights: NDArray[np.float32]
    shapes: NDArray[np.float32]
    largest_error: float


def num_frames(seconds: float, fps: Fraction) -> int:
    """Frames of a stretch: those whose time ``i / fps`` lies before its end; at least one.

    A stretch that ends on a frame to within a thousandth of a frame ends before it.
    """
    return max(1, math.ceil(Fraction(seconds) * fps - Fraction(1, 1000)))


def frame_seconds(count: int, fps: Fraction, start_seconds: float = 0.0) -> NDArray[np.float64]:
    """Times of frames 0 to ``count - 1``, each exact to rounding: nothing is summed up."""
    times: NDArray[np.float64] = np.arange(count) * fps.denominator / fps.numerator
    return times + start_seconds


def compose(motion: Motion, frames: slice = slice(None)) -> NDArray[np.float32]:
    """Vertices of the given frames, shape ``(frames, V, 3)``."""
    offsets = np.tensordot(motion.weights[frames], motion.shapes, axes=1)
    return np.asarray(motion.template + offsets, np.float32)


def compact(
    weights: NDArray[np.float32], shapes: NDArray[np.float32], *, tolerance: float
) -> Compacted:
    """The same motion with the fewest shapes, those that carry most motion first.

    Shapes without names are rotated by SVD of ``weights x shapes`` and the last are dropped while a
    bound of the largest vertex error stays within ``tolerance``. Every new weight peaks at 1.

    Args:
        weights: Shape ``(T, K)``.
        shapes: Shape ``(K, V, 3)``.
        tolerance: In the unit of ``shapes``.

    Returns:
        At least one shape, and the largest vertex error as measured (at most ``tolerance``).
    """
    flat = shapes.reshape(len(shapes), -1).astype(np.float64)
    q, r = np.linalg.qr(flat.T)  # (3V, K), (K, K): flat = r.T @ q.T
    moment = np.zeros((len(r), len(r)))
    for block in _blocks(len(weights)):
        part = weights[block].astype(np.float64) @ r.T
        moment += part.T @ part
    turn = np.linalg.eigh(moment)[1][:, ::-1]  # the direction of most motion first
    new_weights = weights @ (r.T @ turn)  # (T, K)
    new_shapes = (q @ turn).T.reshape(-1, *shapes.shape[1:])
    peak = np.abs(new_weights).max(axis=0)
    sign = np.sign(new_weights[np.abs(new_weights).argmax(axis=0), np.arange(len(peak))])
    scale = np.where(peak > 0, peak * sign, 1.0)
    new_weights /= scale
    new_shapes *= scale[:, None, None]
    reach = np.linalg.norm(new_shapes, axis=2).max(axis=1)
    bound = np.cumsum((np.abs(new_weights) * reach)[:, ::-1], axis=1)[:, ::-1].max(axis=0)
    kept = max(1, int((bound > tolerance).sum()))
    kept_weights = new_weights[:, :kept].astype(np.float32)
    kept_shapes = new_shapes[:kept].astype(np.float32)
    error = _largest_error(weights, shapes, kept_weights, kept_shapes)
    return Compacted(kept_weights, kept_shapes, error)


def _largest_error(
    weights: NDArray[np.float32],
    shapes: NDArray[np.float32],
    new_weights: NDArray[np.float32],
    new_shapes: NDArray[np.float32],
) -> float:
    """Of any vertex in any frame, by composing both."""
    both_weights = np.concatenate([weights, -new_weights], axis=1)
    both_shapes = np.concatenate([shapes, new_shapes]).reshape(both_weights.shape[1], -1)
    largest = 0.0
    for block in _blocks(len(weights)):
        error = (both_weights[block] @ both_shapes).reshape(-1, shapes.shape[1], 3)
        largest = max(largest, float(np.square(error).sum(axis=2).max()))
    return math.sqrt(largest)


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK_FRAMES):
        yield slice(start, min(start + _BLOCK_FRAMES, count))


def at_times(
    weights: NDArray[np.float32],
    times: NDArray[np.float64],
    *,
    rate: float,
    opening: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Weights on a regular clock, read at other times, with every lip closure kept.

    Between samples a monotone cubic is read (Fritsch and Butland 1984, as SciPy's pchip), which
    never overshoots. A closure may be shorter than a frame of the scene (42 ms at 24 fps) and fall
    between two of them. So a closure that no frame's time hits is shown by the frame nearest to it:
    all weights from that one moment, at most half a frame early or late, which nobody sees, where
    a missing m is seen.

    Args:
        weights: Shape ``(n, K)``; row ``j`` belongs to the time ``j / rate``.
        times: Where to read, ascending, evenly spaced, in seconds; held beyond the last row.
        rate: Rows a second.
        opening: Distance of the lips per row in any unit, shape ``(n,)``; None keeps no closure.

    Returns:
        Shape ``(len(times), K)``.
    """
    positions = np.clip(times * rate, 0, len(weights) - 1)
    if opening is not None and len(times) > 1:
        positions = _snapped(positions, opening, reach=0.5 * rate * (times[1] - times[0]))
    result = np.empty((len(times), weights.shape[1]), np.float32)
    for block in _blocks(len(times)):
        low = max(0, int(positions[block].min()) - 2)
        high = min(len(weights), int(positions[block].max()) + 4)
        result[block] = _pchip(weights[low:high].astype(np.float64), positions[block] - low)
    return result


def _snapped(
    positions: NDArray[np.float64], opening: NDArray[np.floating], *, reach: float
) -> NDArray[np.float64]:
    """Positions, with those nearest to a closure that they all miss moved onto it."""
    values = np.asarray(opening, np.float64)
    span = float(np.percentile(values, 95) - values.min())
    slack = 0.02 * span
    minima = _marked_minima(values, depth=max(0.08 * span, 1e-9))
    snapped = positions.copy()
    depth = np.full(len(positions), np.inf)
    for minimum in minima:
        first = last = minimum  # the closure: as deep as the minimum, but for the slack
        while first > 0 and values[first - 1] <= values[minimum] + slack:
            first -= 1
        while last + 1 < len(values) and values[last + 1] <= values[minimum] + slack:
            last += 1
        after = int(np.searchsorted(positions, first))
        if after < len(positions) and positions[after] <= last:
            continue
        for frame, edge in ((after - 1, first), (after, last)):
            if not 0 <= frame < len(positions) or abs(positions[frame] - edge) > reach + 1e-9:
                continue
            if values[edge] < depth[frame]:
                depth[frame], snapped[frame] = values[edge], edge
                break
    return snapped


def _marked_minima(values: NDArray[np.float64], *, depth: float) -> list[int]:
    """Rows from which one must climb by ``depth`` on both sides before coming lower."""

    def is_enclosed(row: int, step: int) -> bool:
        here = values[row]
        while 0 <= row + step < len(values):
            row += step
            if values[row] < here:
                return False
            if values[row] >= here + depth:
                return True
        return False

    inner = values[1:-1]
    low = np.flatnonzero((inner < values[:-2]) & (inner <= values[2:])) + 1
    rows = [int(row) for row in low]
    return [row for row in rows if is_enclosed(row, -1) and is_enclosed(row, 1)]


def _pchip(values: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) == 1:
        return np.repeat(values, len(positions), axis=0)
    interpolated: NDArray[np.float64] = PchipInterpolator(np.arange(len(values)), values)(positions)
    return interpolated


def write(path: Path, motion: Motion) -> None:
    """Write ``motion.npz``: it appears complete or not at all.

    Raises:
        UserError: It cannot be written, or the motion holds values that are not finite.
    """
    if not (np.isfinite(motion.weights).all() and np.isfinite(motion.shapes).all()):
        raise UserError(
            "The model gave values that are not numbers (NaN). Its checkpoint is damaged; set the "
            "backend up again or choose another checkpoint."
        )
    arrays = {
        "weights": motion.weights.astype(np.float32),
        "shapes": motion.shapes.astype(np.float32),
        "names": np.array(motion.names, dtype=np.str_),
        "template": motion.template.astype(np.float32),
        "fps_numerator": np.int64(motion.fps.numerator),
        "fps_denominator": np.int64(motion.fps.denominator),
        "start_seconds": np.float64(motion.start_seconds),
        "report": np.array(json.dumps(motion.report, allow_nan=False)),
    }

    def save(file: IO[bytes]) -> None:
        np.savez(file, **arrays)  # type: ignore[arg-type] # its stubs miss the array keywords

    write_atomically(path, save)


def read(path: Path) -> Motion:
    """Read ``motion.npz``.

    Raises:
        UserError: Missing, damaged, or not a motion.
    """
    arrays = read_arrays(
        path, ["weights", "shapes", "names", "template", "fps_numerator", "fps_denominator",
               "start_seconds", "report"],
    )  # fmt: skip
    try:
        return Motion(
            weights=arrays["weights"].astype(np.float32),
            shapes=arrays["shapes"].astype(np.float32),
            names=tuple(str(name) for name in arrays["names"]),
            template=arrays["template"].astype(np.float32),
            fps=Fraction(int(arrays["fps_numerator"]), int(arrays["fps_denominator"])),
            start_seconds=float(arrays["start_seconds"]),
            report=dict(json.loads(str(arrays["report"]))),
        )
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f'"{path.name}" is not a motion ({error}). Generate it again.') from error


def frame_rate(text: str) -> Fraction:
    """``30``, ``24000/1001`` or ``23.976``, which means 24000/1001.

    Raises:
        UserError: It is no rate from 1 to 1000.
    """
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"{text[:40]!r} is no frame rate like 30 or 24000/1001.") from error
    if not 1 <= fps <= 1000:
        raise UserError(f"{text[:40]} is no frame rate from 1 to 1000.")
    broadcast = Fraction(round(fps) * 1000, 1001)
    is_rounded = fps.denominator != 1 and "/" not in text and abs(fps - broadcast) < 0.006
    return broadcast if is_rounded else fps.limit_denominator(100_000)
