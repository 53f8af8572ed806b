# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that styles come from: exemplar animations (.npz) and style codes (.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.heads.mesh_files import read_face_points
from backend.heads.topology import Head, identify
from backend.io import read_arrays, write_atomically

FORMAT: Final = "ptalker-style"
FORMAT_VERSION: Final = 1
EXEMPLAR_SECONDS: Final = (0.5, 40.0)
"""Shorter exemplars are refused, of longer ones the first part is used."""

_MAX_BYTES: Final = 16 << 20
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
        path: The ``.json`` file.

    Returns:
        The style code.

    Raises:
        UserError: Missing, damaged, too large, or not a style.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f'"{path.name}" is too large for a style. Choose a style file.')
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data["format"], data["format_version"]
        code = np.array(data["code"], np.float32)
        style = StyleCode(code, str(data["model"]), str(data.get("source", path.stem)))
    except OSError as error:
        raise UserError(f'The style "{path}" cannot be read: {error.strerror or error}.') from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f'"{path.name}" is no style file ({error!r:.200}). Choose a style saved by PTalker.'
        ) from error
    if found != (FORMAT, FORMAT_VERSION) or code.ndim != 1 or not np.isfinite(code).all():
        raise UserError(
            f'"{path.name}" has format {found[0]!r:.40} {found[1]!r:.40} and a code of shape '
            f"{code.shape}, expected {FORMAT} {FORMAT_VERSION} and finite numbers. Make the style "
            "again from its exemplar."
        )
    return style


def read_exemplar(path: Path) -> Exemplar:
    """Read an exemplar animation.

    Args:
        path: The ``.npz`` file.

    Returns:
        The animation, with the head held still.

    Raises:
        UserError: Missing, damaged, too short, or no animation of a head that is known.
    """
    keys = ["vertices", "template", "fps", "face_corners", "face_sizes"]
    small = read_arrays(path, keys[1:])
    fps = float(small["fps"].astype(np.float64).reshape(-1)[0])
    if not (np.isfinite(fps) and 1 <= fps <= 1000):
        raise UserError(f'"{path.name}" has {fps} frames a second, expected 1 to 1000.')
    rows = int(EXEMPLAR_SECONDS[1] * fps)
    vertices = read_arrays(path, ["vertices"], max_rows=rows)["vertices"].astype(np.float32)
    template = small["template"].astype(np.float64)
    if vertices.ndim != 3 or vertices.shape[1:] != template.shape:
        raise UserError(
            f'"{path.name}" has vertices {vertices.shape} and template {template.shape}, expected '
            "(T, V, 3) and (V, 3). Export it again."
        )
    if len(vertices) < EXEMPLAR_SECONDS[0] * fps:
        raise UserError(
            f"The exemplar is {len(vertices) / fps:.2g} s long; at least {EXEMPLAR_SECONDS[0]} s "
            "is needed. Choose a longer animation."
        )
    if not np.isfinite(vertices).all():
        raise UserError(f'"{path.name}" holds positions that are not numbers. Export it again.')
    corners, sizes = (small[key].astype(np.int32) for key in ("face_corners", "face_sizes"))
    if (
        sizes.min(initial=3) < 3
        or sizes.sum() != len(corners)
        or not (0 <= corners.min(initial=0) <= corners.max(initial=0) < len(template))
    ):
        raise UserError(f'"{path.name}" has faces that do not add up. Export it again.')
    head = identify(template, corners, sizes, face_points=read_face_points(path))
    return Exemplar(_held_still(vertices, head), head, fps)


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


def read_presets(path: Path) -> dict[str, list[float]]:
    """The named style codes of a checkpoint.

    Args:
        path: The checkpoint's ``styles.json``.

    Returns:
        Codes by name; none where there is no such file.

    Raises:
        UserError: The file is damaged.
    """
    if not path.exists():
        return {}
    try:
        presets = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): [float(value) for value in code] for name, code in presets.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"The checkpoint's {path.name} is damaged ({error}). Set the backend up again."
        ) from error
