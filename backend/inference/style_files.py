# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that styles come from: exemplar animations (.npz) and style codes (.json)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError, excerpt
from backend.heads.mesh_files import (
    MAX_ARRAY_BYTES,
    MAX_VERTICES,
    checked_mesh,
    read_face_points,
)
from backend.heads.topology import Head, identify
from backend.io import read_arrays, read_json, write_atomically

FORMAT: Final = "ptalker-style"
FORMAT_VERSION: Final = 1
EXEMPLAR_SECONDS: Final = (0.5, 40.0)
"""Shorter exemplars are refused, of longer ones the first part is used."""

_MAX_BYTES: Final = 1 << 20
_MAX_PRESET_BYTES: Final = 4 << 20
_MAX_NUMBER: Final = 1000.0
"""Largest size of a number of a style code; those of trained models are below 10."""
_STILL_POINTS: Final = (
    "crown", "head_back", "ear_top_left", "ear_top_right", "temple_left", "temple_right",
    "nose_root",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StyleCode:
    """A style code of one model.

    Attributes:
        code: The code, shape ``(D,)``.
        model: Fingerprint of the model that the code is for.
        source: Name of the style or of the exemplar it was made from, for people.
    """

    code: NDArray[np.float32]
    model: str
    source: str


@dataclass(frozen=True, slots=True)
class Exemplar:
    """An animation from which a style is taken.

    Attributes:
        offsets: Displacements from the head at rest, the head held still, shape ``(T, V, 3)``.
        head: The head at rest.
        fps: Frames a second.
    """

    offsets: NDArray[np.float32]
    head: Head
    fps: float


def write_style(path: Path, style: StyleCode) -> None:
    """Write a style code.

    Args:
        path: The ``.json`` file.
        style: The style code.

    Raises:
        UserError: The file cannot be written.
    """
    text = json.dumps(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "model": style.model,
            "source": style.source,
            "code": [round(float(value), 6) for value in style.code],
        }
    )

    def save(file: IO[bytes]) -> None:
        file.write(text.encode("utf-8"))

    write_atomically(path, save)


def read_style(path: Path) -> StyleCode:
    """Read a style code.

    Args:
        path: JSON file.

    Returns:
        The style code; its length and model are still to be compared.

    Raises:
        UserError: Missing, damaged, too large, or not a style.
    """
    remedy = "Choose a style saved by PTalker."
    data = read_json(path, what="a style file", remedy=remedy, max_bytes=_MAX_BYTES)
    name = excerpt(path.name)
    try:
        found = data["format"], data["format_version"]
        code, model = data["code"], str(data["model"])
        source = str(data.get("source", path.stem))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f'"{name}" is not a style file ({excerpt(error)}). {remedy}') from error
    if found != (FORMAT, FORMAT_VERSION):
        raise UserError(
            f'"{name}" has format {excerpt(found[0], 40)} {excerpt(found[1], 40)}, expected '
            f"{FORMAT} {FORMAT_VERSION}. Make the style again from its exemplar."
        )
    return StyleCode(_parse_code(code, f'"{name}" is not a style file', remedy), model, source)


def _parse_code(code: object, complaint: str, remedy: str) -> NDArray[np.float32]:
    """A style code as JSON holds it, checked."""
    if not isinstance(code, list) or not code:
        raise UserError(f"{complaint} (the code is no list of numbers). {remedy}")
    if not all(isinstance(value, int | float) and abs(value) <= _MAX_NUMBER for value in code):
        raise UserError(f"{complaint} (its code must be numbers up to {_MAX_NUMBER:g}). {remedy}")
    return np.array(code, np.float32)


def read_exemplar(path: Path) -> Exemplar:
    """Read an exemplar animation.

    Args:
        path: The .npz file.

    Returns:
        The first 40 s of the animation.

    Raises:
        UserError: Missing, damaged, too short, or no animation of a head that is known.
    """
    keys = ["template", "fps", "face_corners", "face_sizes"]
    small = read_arrays(path, keys, max_bytes=MAX_ARRAY_BYTES)
    name = excerpt(path.name)
    fps = _parse_fps(name, small["fps"])
    template = small["template"]
    if template.ndim != 2 or len(template) > MAX_VERTICES:
        raise UserError(
            f'"{name}" has template {excerpt(template.shape, 40)}, expected (V, 3). Export it '
            "again."
        )
    rows = int(EXEMPLAR_SECONDS[1] * fps)
    vertices = read_arrays(path, ["vertices"], max_rows=rows)["vertices"]
    if vertices.dtype.kind not in "fiu" or template.dtype.kind not in "fiu":
        raise UserError(f'"{name}" holds positions that are not numbers. Export it again.')
    if vertices.ndim != 3 or vertices.shape[1:] != template.shape:
        raise UserError(
            f'"{name}" has vertices {excerpt(vertices.shape, 40)} and template '
            f"{excerpt(template.shape, 40)}, expected (T, V, 3) and (V, 3). Export it again."
        )
    if len(vertices) < EXEMPLAR_SECONDS[0] * fps:
        raise UserError(
            f"The exemplar is {len(vertices) / fps:.2g} s long; at least {EXEMPLAR_SECONDS[0]} s "
            "is needed. Choose a longer animation."
        )
    with np.errstate(over="ignore"):
        positions = vertices.astype(np.float32)
    if not np.isfinite(positions).all():
        raise UserError(f'"{name}" holds positions that are not numbers. Export it again.')
    mesh = checked_mesh(name, template, small["face_corners"], small["face_sizes"])
    head = identify(*mesh, face_points=read_face_points(path))
    return Exemplar(_held_still(positions, head), head, fps)


def _parse_fps(name: str, stored: NDArray[np.generic]) -> float:
    fps = float(stored.astype(np.float64).item()) if _is_number(stored) else math.nan
    if not 1 <= fps <= 1000:
        raise UserError(
            f'"{name}" has no frame rate of 1 to 1000 frames a second. Export it again.'
        )
    return fps


def _is_number(stored: NDArray[np.generic]) -> bool:
    return stored.size == 1 and stored.dtype.kind in "fiu"


def _held_still(vertices: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    """Offsets from the head at rest, with each frame's rigid motion of the skull taken out."""
    still = np.array([head.topology.face_points[name] for name in _STILL_POINTS])
    target = head.vertices[still]
    middle = target.mean(axis=0)
    points = vertices[:, still].astype(np.float64)  # (T, n, 3)
    middles = points.mean(axis=1, keepdims=True)
    u, _, vt = np.linalg.svd(np.swapaxes(points - middles, 1, 2) @ (target - middle))
    turn = np.ones((len(vertices), 1, 3))
    turn[:, 0, 2] = np.sign(np.linalg.det(u @ vt))  # no mirroring
    rotation = ((u * turn) @ vt).astype(np.float32)  # (T, 3, 3); points @ rotation
    moved = (vertices - middles.astype(np.float32)) @ rotation
    return np.asarray(moved + (middle - head.vertices).astype(np.float32), np.float32)


def read_presets(path: Path, style_dim: int) -> dict[str, list[float]]:
    """Style codes by name that come with a checkpoint; none where there is no such file.

    Args:
        path: The checkpoint's styles.json.
        style_dim: Length of the model's style codes.

    Returns:
        Style codes by the names of the styles.

    Raises:
        UserError: The file is damaged.
    """
    if not path.exists() and not path.is_symlink():
        return {}
    remedy = "Get the checkpoint again, or choose another."
    what = "the table of a checkpoint's styles"
    presets = read_json(path, what=what, remedy=remedy, max_bytes=_MAX_PRESET_BYTES)
    complaint = f'"{excerpt(path.name)}" is not {what}'
    if not isinstance(presets, dict):
        raise UserError(f"{complaint} (it holds no names). {remedy}")
    codes = {name: _parse_code(code, complaint, remedy) for name, code in presets.items()}
    if any(len(code) != style_dim for code in codes.values()):
        raise UserError(f"{complaint} (each must be {style_dim} numbers). {remedy}")
    return {name: [float(value) for value in presets[name]] for name in codes}
