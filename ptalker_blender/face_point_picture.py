# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws small pictures of the demo head's face points: what the artist is to look for on a head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .face_point_fit import Array, Indices, Surface, vertex_normals

PIXELS: Final = 96
_FINE: Final = 2
"""Drawn larger by this, then averaged."""
_NEAR_M: Final = 0.075
_FAR_M: Final = 0.26
_SHIFT_FAR: Final = 0.75
"""How far a wide picture's middle goes from the point to the head's, 0..1."""
_SMALL_PARTS: Final = ("lip_", "lid_", "eye_", "nostril_", "nose_", "smile_fold_", "chin_crease")
"""What the names of points begin with that are seen only from near."""
_DIRECTIONS: Final = np.array(
    [[0, -1, 0], [1, -1, 0], [-1, -1, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0]]
)
"""From where the head may be seen, the front first; it looks to -Y, up is Z."""
_FRONT_ENOUGH: Final = 0.5
_LIGHT: Final = np.array([-0.3, 0.6, 0.75])
"""From the right of the viewer, from the viewer, from above."""
_DENSITY: Final = 1.2
"""Points on a triangle's longest side, by its pixels."""
_BACKGROUND: Final = (0.22, 0.22, 0.22, 1.0)
_DOT: Final = (0.05, 0.85, 0.95)
_DOT_PIXELS: Final = 3.5

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Model:
    """The demo head as it is drawn.

    Attributes:
        surface: Vertices in metres, and faces.
        normals: ``(V, 3)``.
        face_colors: ``(F, 3)``, 0..1.
        face_points: Vertex number of each point.
    """

    surface: Surface
    normals: Array
    face_colors: Array
    face_points: dict[str, int]


def load(path: Path) -> Model:
    """Read the demo head.

    Args:
        path: Its npz file.

    Returns:
        The head.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
        KeyError: It lacks something.
    """
    with np.load(path, allow_pickle=False) as data:
        found = {name: data[name] for name in data.files}
    surface = Surface.of(found["vertices"], found["face_corners"], found["face_sizes"])
    names, numbers = found["face_point_names"].tolist(), found["face_point_indices"].tolist()
    colors = found["material_colors"].astype(np.float64)[found["face_materials"]]
    return Model(surface, vertex_normals(surface), colors, dict(zip(names, numbers, strict=True)))


def draw(model: Model, name: str) -> Pixels:
    """A picture of the demo head around a face point, with a dot on it.

    Args:
        model: The demo head.
        name: Name of the point.

    Returns:
        Colours and opacity, the lowest row first, ``(PIXELS, PIXELS, 4)``, 0..1.
    """
    vertex = model.face_points[name]
    direction = _direction(model.normals[vertex])
    right = np.cross([0.0, 0.0, 1.0], direction)
    axes = np.stack([right, [0.0, 0.0, 1.0], direction])
    seen = model.surface.vertices @ axes.T  # right, up, towards the viewer
    extent, middle = _NEAR_M, seen[vertex, :2]
    if not name.startswith(_SMALL_PARTS):
        extent = _FAR_M
        whole = (seen[:, :2].min(axis=0) + seen[:, :2].max(axis=0)) / 2
        middle = middle + _SHIFT_FAR * (whole - middle)
    size = PIXELS * _FINE
    seen[:, :2] = ((seen[:, :2] - middle) / extent + 0.5) * size
    light = _LIGHT / np.linalg.norm(_LIGHT) @ axes
    picture = _shaded(model, seen, light, size)
    picture = picture.reshape(PIXELS, _FINE, PIXELS, _FINE, 4).mean(axis=(1, 3))
    _draw_dot(picture, seen[vertex, :2] / _FINE)
    return np.asarray(picture, np.float32)


def _direction(normal: Array) -> Array:
    """Where the viewer stands who sees a place with this normal well, the front if possible."""
    directions = _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)
    facing = directions @ normal
    chosen = 0 if facing[0] > _FRONT_ENOUGH else int(facing.argmax())
    return np.asarray(directions[chosen], np.float64)


def _shaded(model: Model, seen: Array, light: Array, size: int) -> Array:
    """The head from one side, by splatting points that lie dense on its triangles."""
    triangles, faces = _triangles(model.surface)
    corners = seen[triangles]  # (T, 3, 3)
    inside = (corners[..., :2].max(axis=1) > 0).all(axis=1)
    inside &= (corners[..., :2].min(axis=1) < size).all(axis=1)
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    inside &= edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0] > 0  # towards the viewer
    picture = np.tile(np.array(_BACKGROUND), (size * size, 1))
    depth = np.full(size * size, -np.inf)
    longest = np.ptp(corners[..., :2], axis=1).max(axis=1)
    steps = np.ceil(_DENSITY * longest).astype(np.int64)
    steps = np.where(steps < 4, np.maximum(steps, 1), (steps + 3) // 4 * 4)
    for count in np.unique(steps[inside]).tolist():
        chosen = np.flatnonzero(inside & (steps == count))
        shares = _shares(count)  # (N, 3)
        places = np.einsum("nk,tkc->tnc", shares, corners[chosen]).reshape(-1, 3)
        normals = np.einsum("nk,tkc->tnc", shares, model.normals[triangles[chosen]]).reshape(-1, 3)
        bright = 0.35 + 0.65 * np.clip(normals @ light, 0.0, 1.0)
        colors = np.repeat(model.face_colors[faces[chosen]], len(shares), axis=0)
        pixel = places[:, :2].astype(np.int64)
        shown = ((places[:, :2] >= 0) & (pixel < size)).all(axis=1)
        place = pixel[shown, 1] * size + pixel[shown, 0]
        order = np.argsort(places[shown, 2], kind="stable")  # the nearest last, so that it stays
        place, near = place[order], places[shown, 2][order]
        color = (colors * bright[:, None])[shown][order]
        last = np.zeros(size * size, np.int64)
        last[place] = np.arange(len(place))
        touched = np.unique(place)
        nearest = last[touched]
        wins = near[nearest] > depth[touched]
        depth[touched[wins]] = near[nearest[wins]]
        picture[touched[wins], :3] = color[nearest[wins]] ** (1 / 2.2)
    return picture.reshape(size, size, 4)


def _triangles(surface: Surface) -> tuple[Indices, Indices]:
    """Fans of the faces, ``(T, 3)``, and the face of each."""
    starts = np.concatenate([[0], np.cumsum(surface.face_sizes)[:-1]])
    counts = surface.face_sizes - 2
    faces = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(faces)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[faces]
    corners = np.stack([first, first + number + 1, first + number + 2], axis=1)
    return surface.face_corners[corners], faces


def _shares(count: int) -> Array:
    """Shares of a triangle's corners in points that lie evenly on it, ``(N, 3)``."""
    steps = np.stack(np.meshgrid(np.arange(count + 1), np.arange(count + 1)), axis=-1)
    second, third = steps[steps.sum(axis=-1) <= count].T / count
    return np.stack([1.0 - second - third, second, third], axis=1)


def _draw_dot(picture: Array, place: Array) -> None:
    """A dot with a dark rim."""
    rows, columns = np.mgrid[:PIXELS, :PIXELS] + 0.5
    away = np.hypot(columns - place[0], rows - place[1])[..., None]
    for radius, color in ((_DOT_PIXELS + 1.5, (0.02, 0.02, 0.02)), (_DOT_PIXELS, _DOT)):
        share = np.clip(radius + 0.5 - away, 0.0, 1.0)
        picture[..., :3] = share * np.array(color) + (1.0 - share) * picture[..., :3]
