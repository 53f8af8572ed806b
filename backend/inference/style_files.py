# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that styles come from: exemplar animations (.npz) and style codes (.json)."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError, excerpt
from backend.heads.arkit import ARKIT_NAMES, MAX_WEIGHT
from backend.heads.mesh_files import (
    MAX_ARRAY_BYTES,
    MAX_VERTICES,
    checked_mesh,
    read_face_points,
)
from backend.heads.topology import Head, identify
from backend.inference.curve_files import SUFFIXES, Curves, read_curves
from backend.inference.style_gains import (
    GAIN_LIMITS,
    OFFSET_LIMIT,
    Figures,
    Gains,
    StyleGains,
)
from backend.io import check_path, read_arrays, read_json, write_atomically

FORMAT: Final = "ptalker-style"
FORMAT_VERSION: Final = 2
"""Files of version 1 have no gains."""
EXEMPLAR_SECONDS: Final = (0.5, 40.0)
"""Shorter exemplars are refused, of longer ones the first part is used."""

_MAX_BYTES: Final = 1 << 20
_MAX_PRESET_BYTES: Final = 4 << 20
_MAX_NUMBER: Final = 1000.0
"""Largest size of a number of a style code; those of trained models are below 10."""
_GAIN_RANGES: Final = (
    (0.0, GAIN_LIMITS[1]), (-OFFSET_LIMIT, OFFSET_LIMIT), (0.0, MAX_WEIGHT), (0.0, MAX_WEIGHT),
)  # fmt: skip
"""Of gain, offset, mean and spread."""
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
        gains: How far the articulators go beside the code; None where the code says all.
    """

    code: NDArray[np.float32]
    model: str
    source: str
    gains: StyleGains | None = None


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

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.offsets)


def write_style(path: Path, style: StyleCode) -> None:
    """Write a style code.

    Args:
        path: The ``.json`` file.
        style: The style code.

    Raises:
        UserError: The file cannot be written.
    """
    values: dict[str, object] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": style.model,
        "source": style.source,
        "code": [round(float(value), 6) for value in style.code],
    }
    if style.gains is not None:
        values["gains"] = _gains_as_json(style.gains)
        values["jaw_spread"] = round(style.gains.jaw_spread, 4)
    text = json.dumps(values)

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
    is_known = isinstance(found[1], int) and 1 <= found[1] <= FORMAT_VERSION
    if found[0] != FORMAT or not is_known:
        raise UserError(
            f'"{name}" has format {excerpt(found[0], 40)} {excerpt(found[1], 40)}, expected '
            f"{FORMAT} {FORMAT_VERSION}. Make the style again from its exemplar."
        )
    complaint = f'"{name}" is not a style file'
    gains = _parse_gains(data.get("gains"), data.get("jaw_spread"), complaint)
    return StyleCode(_parse_code(code, complaint, remedy), model, source, gains)


def _gains_as_json(gains: StyleGains) -> dict[str, list[float]]:
    """Gain and offset, and where they are known mean and spread, of each weight that has some."""
    columns = (gains.known.gain, gains.known.offset, gains.figures.mean, gains.figures.spread)
    rows = {}
    for name, *row in zip(ARKIT_NAMES, *columns, strict=True):
        kept = row if math.isfinite(row[2]) else row[:2]
        if kept != [1.0, 0.0]:
            rows[name] = [round(float(value), 4) for value in kept]
    return rows


def _parse_gains(stored: object, jaw_spread: object, complaint: str) -> StyleGains | None:
    """Gains as JSON holds them, checked; None where there are none."""
    if stored is None:
        return None
    remedy = "Make it again from its exemplar."
    if not isinstance(stored, dict):
        raise UserError(f"{complaint} (its gains have no names). {remedy}")
    if not isinstance(jaw_spread, int | float) or not 0.0 <= jaw_spread <= MAX_WEIGHT:
        raise UserError(f"{complaint} (its jaw_spread is no share of 1). {remedy}")
    gains, figures = Gains.none(), np.full((2, len(ARKIT_NAMES)), np.nan)
    for name, row in stored.items():
        is_row = isinstance(row, list) and len(row) in (2, len(_GAIN_RANGES))
        if name not in ARKIT_NAMES or not is_row or not all(
            isinstance(value, int | float) and low <= value <= high
            for value, (low, high) in zip(row, _GAIN_RANGES, strict=False)
        ):  # fmt: skip
            raise UserError(
                f'{complaint} (its gain of "{excerpt(name, 40)}" must be two or four numbers of '
                f"moderate size). {remedy}"
            )
        number = ARKIT_NAMES.index(name)
        gains.gain[number], gains.offset[number] = row[:2]
        if len(row) > 2:
            figures[:, number] = row[2:]
    return StyleGains(gains, Figures(*figures), float(jaw_spread))


def _parse_code(code: object, complaint: str, remedy: str) -> NDArray[np.float32]:
    """A style code as JSON holds it, checked."""
    if not isinstance(code, list) or not code:
        raise UserError(f"{complaint} (the code is no list of numbers). {remedy}")
    if not all(isinstance(value, int | float) and abs(value) <= _MAX_NUMBER for value in code):
        raise UserError(f"{complaint} (its code must be numbers up to {_MAX_NUMBER:g}). {remedy}")
    return np.array(code, np.float32)


def is_exemplar(path: str) -> bool:
    """Whether a path is that of an exemplar: curves as text, an .npz, or a folder of them."""
    suffix = Path(path).suffix.lower()
    return suffix in (*SUFFIXES, ".npz") or (bool(path) and os.path.isdir(path))  # noqa: PTH112


def read_exemplar(path: Path) -> Exemplar | Curves:
    """Read an exemplar animation.

    Args:
        path: An .npz of a head's vertices; or curves: a .csv of Live Link Face, a .txt of Face Cap,
            an .npz of weights, or a folder of them.

    Returns:
        The first 40 s of a head's animation, or all of the curves.

    Raises:
        UserError: Missing, damaged, too short, or no animation of a head that is known.
    """
    check_path(str(path))
    if path.suffix.lower() in SUFFIXES or path.is_dir() or _holds_weights(path):
        return read_curves(path)
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


def _holds_weights(path: Path) -> bool:
    """Whether an .npz holds weights over time, and not the vertices of a head."""
    found = read_arrays(path, [], optional=["names", "vertices"], max_rows=1)
    return "names" in found and "vertices" not in found


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
