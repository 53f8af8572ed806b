# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's result: reads and checks ``motion.npz``; converts seconds to scene frames."""

from __future__ import annotations

import json
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .languages import LANGUAGES
from .protocol import UserError

Floats = NDArray[np.float32]

MAX_BYTES: Final = 4 << 30
"""A motion file that unpacks to more than this is refused before memory is taken."""
MAX_SHAPES: Final = 1000
MAX_VALUE: Final = 1e9
"""Weights and positions beyond this are damage, and Blender could not draw them."""
MAX_NAME_BYTES: Final = 63
"""Blender cuts longer names, after which two may be alike."""
_UNREADABLE: Final = (
    OSError, EOFError, KeyError, TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip
"""What NumPy, zipfile and JSON raise at files that are damaged, encrypted or not what they seem."""
LEARNED_SHAPE_NAME: Final = "PTalker {:02d}"
"""How the backend names the shapes of a model that learns them; they are those of one motion."""
RECOGNITION_MODES: Final = {
    "words": "the recognised words and the sound",
    "text": "the given words and the sound",
    "sound": "the sound alone",
}
"""What the report's ``listen`` says of the phones of a motion, and how this is told the artist."""
_LANGUAGE_NAMES: Final = frozenset(name for _, name in LANGUAGES)
_LEARNED: Final = re.compile(re.escape(LEARNED_SHAPE_NAME.partition("{")[0]) + r"\d+")
FRAME_TOLERANCE: Final = 1e-4
"""Part of a frame by which a time may miss a frame and still count as on it."""


def followed(report: Mapping[str, object]) -> str:
    """What a motion goes by, and in which language that was heard.

    Args:
        report: What the backend tells of a motion.

    Returns:
        As of ``RECOGNITION_MODES``; empty where the report does not say.
    """
    source = RECOGNITION_MODES.get(str(report.get("listen")), "")
    language = report.get("language")
    if isinstance(language, str) and language in _LANGUAGE_NAMES:
        return source.replace(" words", f" {language} words")
    return source


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

    speech: Floats
    upper_face: Floats
    life: Floats
    emotion: Floats
    head_rotation: Floats
    face_axes: Floats


LAYER_KEYS: Final = {
    "speech": "weights_speech", "upper_face": "weights_upper_face", "life": "weights_life",
    "emotion": "weights_emotion", "head_rotation": "head_rotation", "face_axes": "face_axes",
}  # fmt: skip
"""Names of the layers' arrays in ``motion.npz``; a file has all of them or none."""


@dataclass(frozen=True, slots=True)
class Motion:
    """``vertices(t) = template + weights[t] @ shapes``, as the backend computed it.

    Attributes:
        weights: ``(T, K)``, one row per scene frame.
        shapes: ``(K, V, 3)`` offsets in the head's own space.
        names: ``(K,)`` names of the shapes.
        template: ``(V, 3)`` the neutral head.
        fps: Frames per second, exact.
        start_seconds: Time in the sound file of frame 0.
        report: What the backend says about the run: model, style, time taken, warnings.
        layers: What the weights are the sum of; None where the file does not tell.
    """

    weights: Floats
    shapes: Floats
    names: tuple[str, ...]
    template: Floats
    fps: Fraction
    start_seconds: float
    report: dict[str, object]
    layers: Layers | None = None


@dataclass(frozen=True, slots=True)
class KeyedMotion:
    """What is written into Blender: values over time for named shape keys.

    Attributes:
        names: ``(K,)`` names of the keys.
        weights: ``(T, K)`` values, one row per scene frame.
        shapes: ``(K, V, 3)`` offsets of the keys; None where keys that exist are driven.
        residual_mean: Mean distance from the motion in the head's own unit (fitted keys only).
        residual_max: Largest distance from the motion in the head's own unit.
        warnings: What the artist should know about the mapping.
    """

    names: tuple[str, ...]
    weights: Floats
    shapes: Floats | None
    residual_mean: float = 0.0
    residual_max: float = 0.0
    warnings: tuple[str, ...] = ()


def load(path: Path, *, num_vertices: int, fps: Fraction) -> Motion:
    """The motion in a file, checked against what was asked for.

    Args:
        path: ``motion.npz``.
        num_vertices: Vertices of the head it must be for.
        fps: Frame rate it must have.

    Returns:
        The motion.

    Raises:
        UserError: The file is missing, broken, or for another head or rate.
    """
    advice = "Repair the backend in the preferences and try again."
    try:
        if not path.is_file():
            raise OSError("it is no file")
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise UserError(f"The backend's result is {size / 1e9:.1f} GB large. {advice}")
        with np.load(path, allow_pickle=False) as data, np.errstate(over="ignore"):
            motion = Motion(
                weights=np.ascontiguousarray(data["weights"], np.float32),
                shapes=np.ascontiguousarray(data["shapes"], np.float32),
                names=tuple(str(name) for name in data["names"]),
                template=np.ascontiguousarray(data["template"], np.float32),
                fps=Fraction(int(data["fps_numerator"]), int(data["fps_denominator"])),
                start_seconds=float(data["start_seconds"]),
                report=_report(str(data["report"])),
                layers=_layers(data),
            )
    except _UNREADABLE as error:
        reason = f"{error!s:.200}" or type(error).__name__
        raise UserError(f"The backend's result cannot be read ({reason}). {advice}") from error
    if problem := _problem(motion, num_vertices=num_vertices, fps=fps):
        raise UserError(f"The backend's result is wrong: {problem}. {advice}")
    return motion


def _layers(data: Mapping[str, NDArray[np.generic]]) -> Layers | None:
    if not set(data) >= set(LAYER_KEYS.values()):
        return None
    return Layers(
        **{name: np.ascontiguousarray(data[key], np.float32) for name, key in LAYER_KEYS.items()}
    )


def _report(text: str) -> dict[str, object]:
    report = json.loads(text)
    if not isinstance(report, dict):
        raise TypeError(f"the report is a {type(report).__name__}, expected an object")
    return report


def _problem(motion: Motion, *, num_vertices: int, fps: Fraction) -> str:
    """Why the motion cannot be used; empty where it can."""
    expected = (len(motion.names), num_vertices, 3)
    if motion.shapes.shape != expected:
        return f"shapes has shape {motion.shapes.shape}, expected {expected}"
    if motion.weights.ndim != 2 or motion.weights.shape[1] != len(motion.names):
        return f"weights has shape {motion.weights.shape}, expected (frames, {len(motion.names)})"
    if motion.template.shape != (num_vertices, 3):
        return f"template has shape {motion.template.shape}, expected ({num_vertices}, 3)"
    if len(motion.weights) == 0 or not motion.names:
        return "it has no frames or no shapes"
    if problem := _names_problem(motion.names):
        return problem
    if problem := _values_problem(motion):
        return problem
    if motion.layers is not None and (problem := _layers_problem(motion.layers, motion.weights)):
        return problem
    if motion.fps != fps:
        return f"its frame rate is {float(motion.fps):.3f}, expected {float(fps):.3f}"
    return ""


def _layers_problem(layers: Layers, weights: Floats) -> str:
    """Why layers cannot be those of some weights; empty where they can."""
    shapes = {"head_rotation": (len(weights), 3), "face_axes": (3, 3)}
    for name, key in LAYER_KEYS.items():
        values = getattr(layers, name)
        expected = shapes.get(name, weights.shape)
        if values.shape != expected:
            return f"{key} has shape {values.shape}, expected {expected}"
        if not np.isfinite(values).all():
            return f"{key} holds values that are not finite"
    return ""


def _values_problem(motion: Motion) -> str:
    """Why the numbers of a motion cannot be used; empty where they can."""
    for name in ("weights", "shapes", "template"):
        values = getattr(motion, name)
        if not np.isfinite(values).all():
            return f"{name} holds values that are not finite"
        if (largest := float(np.abs(values).max(initial=0.0))) > MAX_VALUE:
            return f"{name} holds values up to {largest:.3g}"
    return ""


def _names_problem(names: tuple[str, ...]) -> str:
    """Why shape keys cannot have these names; empty where they can."""
    if len(names) > MAX_SHAPES:
        return f"it has {len(names)} shapes, at most {MAX_SHAPES} are allowed"
    if len(set(names)) != len(names) or "" in names:
        return "names of shapes are empty or occur twice"
    if any(len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES for name in names):
        return f"a name of a shape has more than {MAX_NAME_BYTES} bytes"
    return ""


def keyed_as_new(motion: Motion, *, limit: float) -> KeyedMotion:
    """The motion as new shape keys; weights beyond a key's range are moved into the shape.

    Args:
        motion: The motion.
        limit: Largest magnitude that a key's value may have.

    Returns:
        Values and shapes of the keys, with the same product as the motion's.
    """
    peaks = np.abs(motion.weights).max(axis=0)
    scale = np.maximum(peaks / limit, 1.0).astype(np.float32)
    return KeyedMotion(
        names=motion.names,
        weights=motion.weights / scale,
        shapes=motion.shapes * scale[:, None, None],
    )


def has_unnamed_shapes(names: Sequence[str]) -> bool:
    """Whether shapes are principal components of one motion, numbered by their share of it."""
    return bool(names) and all(_LEARNED.fullmatch(name) for name in names)


def frame_rate(fps: int, fps_base: float) -> Fraction:
    """Blender's frame rate ``fps / fps_base`` as an exact fraction: 24 and 1.001 give 24000/1001.

    Blender keeps ``fps_base`` in single precision, which 1.001 does not fit exactly.
    """
    return Fraction(fps) / Fraction(fps_base).limit_denominator(10000)


def first_frame_at(seconds: float, *, fps: Fraction) -> int:
    """The first whole scene frame at or after a time on the scene's clock (frame 0 is 0 s)."""
    return math.ceil(seconds * fps - FRAME_TOLERANCE)
