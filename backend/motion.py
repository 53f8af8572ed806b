# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion = weights x shapes: composition, reduction by SVD, resampling, and motion.npz."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from backend.errors import UserError, excerpt
from backend.io import parse_json, read_arrays, write_atomically

LEARNED_SHAPE_NAME: Final = "PTalker {:02d}"
"""How the shapes of a model that learns them are named; they are those of one motion."""
_BLOCK_FRAMES: Final = 256
_MAX_RATE_LETTERS: Final = 24


@dataclass(frozen=True, slots=True)
class Layers:
    """What a motion's weights are the sum of, and the rotation of the head, which is in none.

    Attributes:
        speech: Weights of jaw, lips, tongue, cheeks and nose, ``(T, K)``.
        upper_face: Weights of brows, lids and eyes as predicted, ``(T, K)``.
        life: Weights of blinks, gaze, brows and breath from a seed, ``(T, K)``.
        emotion: What an emotion adds and, where it is negative, takes from the others, ``(T, K)``.
        head_rotation: Degrees about the face's axes, ``(T, 3)``: Euler angles XYZ, x first.
            Positive x nods, y turns to the subject's left, z leans to the subject's right.
        face_axes: Rows are the face's x (subject's left), y (up) and z (out of the face) in the
            head's own space, ``(3, 3)``.
    """

    speech: NDArray[np.float32]
    upper_face: NDArray[np.float32]
    life: NDArray[np.float32]
    emotion: NDArray[np.float32]
    head_rotation: NDArray[np.float32]
    face_axes: NDArray[np.float32]

    def total(self) -> NDArray[np.float32]:
        """The motion's weights, ``(T, K)``."""
        return np.asarray(self.speech + self.upper_face + self.life + self.emotion, np.float32)

    def with_upper_face_times(self, factors: NDArray[np.float32]) -> Layers:
        """The layers with predicted upper face and life scaled, each weight's sum at most 1.

        Args:
            factors: Factor of each weight, ``(K,)``; where it is 1 the weight stays as it is.

        Returns:
            The layers.
        """
        upper = np.minimum(self.upper_face * factors, np.maximum(self.upper_face, 1.0))
        room = np.maximum(1.0 - self.speech - upper, 0.0)
        life = np.where(factors == 1.0, self.life, np.minimum(self.life * factors, room))
        return replace(self, upper_face=upper.astype(np.float32), life=life.astype(np.float32))

    def of_speech_alone(self, weights: NDArray[np.float32]) -> Layers:
        """The same head under other shapes, without names, that carry speech alone."""
        none = np.zeros_like(weights)
        return replace(self, speech=weights, upper_face=none, life=none, emotion=none)


LAYER_KEYS: Final = {
    "speech": "weights_speech", "upper_face": "weights_upper_face", "life": "weights_life",
    "emotion": "weights_emotion", "head_rotation": "head_rotation", "face_axes": "face_axes",
}  # fmt: skip
"""Names of the layers' arrays in ``motion.npz``; a file has all of them or none."""


@dataclass(frozen=True, slots=True)
class Motion:
    """An animation: ``vertices[t] = template + sum over k of weights[t, k] * shapes[k]``.

    Attributes:
        weights: Weight of each shape in each frame, ``(T, K)``.
        shapes: Displacements in the head's own space, ``(K, V, 3)``.
        names: Name of each shape.
        template: Vertices of the head at rest, ``(V, 3)``.
        fps: Exact number of frames per second.
        start_seconds: Time of frame 0 in the sound file; frame ``i`` is ``i / fps`` later.
        report: Settings and results of the job, as JSON values.
        layers: What the weights are the sum of; None where that is not known.
    """

    weights: NDArray[np.float32]
    shapes: NDArray[np.float32]
    names: tuple[str, ...]
    template: NDArray[np.float32]
    fps: Fraction
    start_seconds: float = 0.0
    report: dict[str, object] = field(default_factory=dict)
    layers: Layers | None = None

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
        if self.layers is not None:
            _check_layers(self.layers, self.weights.shape)


def _check_layers(layers: Layers, shape: tuple[int, ...]) -> None:
    """Raise a ValueError where a layer has another shape than the weights need."""
    expected = dict.fromkeys(("speech", "upper_face", "life", "emotion"), shape)
    for name, wanted in {**expected, "head_rotation": (shape[0], 3), "face_axes": (3, 3)}.items():
        found = getattr(layers, name).shape
        if found != wanted:
            raise ValueError(f"{LAYER_KEYS[name]} has shape {found}, expected {wanted}")


@dataclass(frozen=True, slots=True)
class Compacted:
    """Result of `compact`.

    Attributes:
        weights: Weight of each new shape in each frame, ``(T, K')``.
        shapes: Displacements of the new shapes, ``(K', V, 3)``.
        largest_error: Largest distance by which any vertex in any frame is off.
    """

    weights: NDArray[np.float32]
    shapes: NDArray[np.float32]
    largest_error: float


def num_frames(seconds: float, fps: Fraction) -> int:
    """Number of frames whose time ``i / fps`` lies before the end of a duration; at least one.

    A duration that ends on a frame to within a thousandth of a frame ends before it.
    """
    return max(1, math.ceil(Fraction(seconds) * fps - Fraction(1, 1000)))


def frame_seconds(count: int, fps: Fraction) -> NDArray[np.float64]:
    """Times of frames 0 to ``count - 1``, each exact to rounding: nothing is summed up."""
    times: NDArray[np.float64] = np.arange(count) * fps.denominator / fps.numerator
    return times


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
        weights: Weight of each shape in each frame, ``(T, K)``.
        shapes: Displacements, ``(K, V, 3)``.
        tolerance: Largest allowed vertex error in the unit of ``shapes``.

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
    """Resamples weights to other times and keeps every lip closure.

    Between samples a monotone cubic is read (Fritsch and Butland 1984, as SciPy's pchip), which
    never overshoots. A closure may be shorter than a frame of the scene (42 ms at 24 fps) and fall
    between two of them. So a closure that no frame's time hits is shown by the frame nearest to it:
    all weights from that one moment, at most half a frame early or late, which nobody sees, where
    a missing m is seen.

    Args:
        weights: Weights at a regular rate, ``(n, K)``; row ``j`` belongs to the time ``j / rate``.
        times: New times in seconds, ascending and evenly spaced; the last row is held beyond it.
        rate: Rows per second.
        opening: Distance of the lips per row in any unit, ``(n,)``; None keeps no closure.

    Returns:
        Weights at the new times, ``(len(times), K)``.
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
    """Writes ``motion.npz``, which appears complete or not at all.

    Args:
        path: The file.
        motion: The motion to write.

    Raises:
        UserError: The file cannot be written, or the motion holds values that are not finite.
    """
    layers = {
        key: np.asarray(getattr(motion.layers, name), np.float32)
        for name, key in LAYER_KEYS.items()
        if motion.layers is not None
    }
    if not all(np.isfinite(x).all() for x in (motion.weights, motion.shapes, *layers.values())):
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
        **layers,
    }

    def save(file: IO[bytes]) -> None:
        np.savez(file, **arrays)  # type: ignore[arg-type] # its stubs miss the array keywords

    write_atomically(path, save)


def read(path: Path) -> Motion:
    """Reads ``motion.npz``.

    Args:
        path: The file.

    Returns:
        The motion.

    Raises:
        UserError: The file is missing, damaged, or not a motion.
    """
    arrays = read_arrays(
        path, ["weights", "shapes", "names", "template", "fps_numerator", "fps_denominator",
               "start_seconds", "report"],
        optional=LAYER_KEYS.values(),
    )  # fmt: skip
    name = excerpt(path.name)
    numbers = ["weights", "shapes", "template", *(k for k in LAYER_KEYS.values() if k in arrays)]
    if any(arrays[key].dtype.kind not in "fiu" for key in numbers):
        raise UserError(f'"{name}" is not a motion (its values are no numbers). Generate it again.')
    if arrays["names"].ndim != 1 or arrays["names"].dtype.kind != "U":
        raise UserError(f'"{name}" is not a motion (it names no shapes). Generate it again.')
    try:
        return Motion(
            weights=arrays["weights"].astype(np.float32),
            shapes=arrays["shapes"].astype(np.float32),
            names=tuple(str(name) for name in arrays["names"]),
            template=arrays["template"].astype(np.float32),
            fps=Fraction(int(arrays["fps_numerator"]), int(arrays["fps_denominator"])),
            start_seconds=float(arrays["start_seconds"]),
            report=dict(parse_json(str(arrays["report"]))),
            layers=_layers_of(arrays),
        )
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UserError(
            f'"{name}" is not a motion ({excerpt(error)}). Generate it again.'
        ) from error


def _layers_of(arrays: Mapping[str, NDArray[np.generic]]) -> Layers | None:
    """The layers of a file; None for a file of before, or one that was written without."""
    if not arrays.keys() >= set(LAYER_KEYS.values()):
        return None
    return Layers(**{name: arrays[key].astype(np.float32) for name, key in LAYER_KEYS.items()})


def frame_rate(text: str) -> Fraction:
    """Parses a frame rate.

    Args:
        text: Frames per second: ``30``, ``24000/1001``, or ``23.976``, which means 24000/1001.

    Returns:
        The exact rate.

    Raises:
        UserError: The text is no rate from 1 to 1000.
    """
    shown = excerpt(text, 40)
    try:
        is_plain = len(text) <= _MAX_RATE_LETTERS and "e" not in text.lower()
        fps = Fraction(text if is_plain else "")  # 1e99999999 would be written out
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"{shown!r} is no frame rate like 30 or 24000/1001.") from error
    if not 1 <= fps <= 1000:
        raise UserError(f"{shown} is no frame rate from 1 to 1000.")
    broadcast = Fraction(round(fps) * 1000, 1001)
    is_rounded = fps.denominator != 1 and "/" not in text and abs(fps - broadcast) < 0.006
    return broadcast if is_rounded else fps.limit_denominator(100_000)
