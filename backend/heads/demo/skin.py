# SPDX-License-Identifier: GPL-3.0-or-later
"""Positions of the demo head's skin: the features as drawn, the rest relaxed.

A file of its own beside the surface's formula (``demo_head_surface``) and the quads
(``demo_head_layout``): it lays the one on the other. Millimetres, axes as in the surface.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.heads.demo import layout as layout
from backend.heads.demo.features import place_features
from backend.heads.demo.surface import project

Floats = NDArray[np.float64]

NUM_RELAX_STEPS = 25
KEPT_UNEVENNESS = 0.7  # share of the neck's and chin's first spacing that outlives the relaxing
NOSE_ROWS = slice(layout.MOUTH_ROWS[1] + 1, layout.EYE_ROWS[0] + 1)

# Guide points of the grid's rows: row, then y and z in front, x, y and z at the side, y, z behind.
ROW_GUIDES = np.array(
    [
        (0, -20, -186, 55, 35, -186, 90, -186),
        (4, -27, -130, 54, 26, -128, 82, -140),
        (5, -42, -124, 54, 20, -121, 82, -132),
        (6, -60, -117, 54, 15, -113, 82, -124),
        (7, -74, -113, 54, 11, -106, 82, -117),
        (8, -85, -110.5, 54, 8, -100, 82, -111),
        (9, -91, -105, 54, 8, -95, 82, -105),
        (10, -93, -97, 55, 8, -90, 82, -100),
        (11, -90, -89, 56, 8, -84, 84, -94),
        (19, -96, -53, 62, 10, -53, 95, -62),
        (20, -99, -49, 63, 10, -50, 97, -57),
        (21, -108, -46, 64, 10, -42, 98, -51),
        (22, -113, -44, 65, 10, -34, 99, -46),
        (23, -117, -38.5, 66, 10, -27, 100, -40),
        (24, -114, -32, 67, 10, -20, 101, -35),
        (25, -107, -24.5, 68, 10, -12, 102, -29),
        (26, -101, -16, 69, 10, -5, 103, -24),
        (27, -96, -10, 70, 10, 2, 103, -18),
        (33, -91, 14, 73, 8, 32, 103, 14),
        (34, -92, 20, 73, 8, 38, 103, 20),
        (36, -94, 31, 73, 8, 50, 102, 32),
        (41, -76, 84, 58, 8, 84, 80, 84),
    ],
    dtype=np.float64,
)
# Around the head from the front (0) to the back (180), in degrees.
COLUMN_ANGLES = np.array(
    (
        *(0, 4, 8, 12, 16, 20, 24, 28, 32.5, 37, 41, 47, 53, 59, 65, 70.5, 76, 81, 86, 91, 96),
        *(101, 106, 117, 129, 142, 155, 167.5, 180),
    )
)


def place_skin(skin: layout.SkinLayout, mesh: layout.HalfMesh) -> Floats:
    """Positions of the skin of the half head, shape ``(mesh.num_vertices, 3)``."""
    points = np.zeros((mesh.num_vertices, 3))
    points[skin.grid[skin.grid >= 0]] = _initial_grid()[skin.grid >= 0]
    fixed = np.zeros(mesh.num_vertices, dtype=bool)
    ridge = skin.grid[NOSE_ROWS, 0]
    points[ridge] = project(points[ridge]) * (0.0, 1.0, 1.0)
    fixed[place_features(skin, points)] = True
    fixed[ridge] = True
    points[skin.crown[1:-1, :-1]] = _initial_crown(points[skin.crown])
    _relax(points, skin, mesh, fixed)
    return points


def _initial_grid() -> Floats:
    """The grid as rings of quarter ellipses through the guide points, (rows, columns, 3)."""
    rows = np.arange(layout.NUM_ROWS + 1)
    guides = [np.interp(rows, ROW_GUIDES[:, 0], column) for column in ROW_GUIDES[:, 1:].T]
    y_front, z_front, x_side, y_side, z_side, y_back, z_back = (g[:, None] for g in guides)
    angles = np.radians(COLUMN_ANGLES)[None]
    is_front = angles <= np.pi / 2
    y_end = np.where(is_front, y_front, y_back)
    z_end = np.where(is_front, z_front, z_back)
    along = np.abs(np.cos(angles))
    x = x_side * np.sin(angles)
    y = y_side + (y_end - y_side) * along
    z = z_side + (z_end - z_side) * along**1.5
    x[:, [0, -1]] = 0.0
    return np.stack([x, y, z], axis=-1)


def _initial_crown(edge: Floats) -> Floats:
    """The inside of the crown's cap, between its edges; ``edge`` (R, C, 3) -> (R - 2, C - 1, 3)."""
    rows, columns = edge.shape[:2]
    across = np.linspace(0.0, 1.0, rows)[1:-1, None, None]
    out = np.linspace(0.0, 1.0, columns)[None, :-1, None]
    fore_aft = edge[None, 0, :-1] * (1 - across) + edge[None, -1, :-1] * across
    side = edge[1:-1, -1:]
    inner = fore_aft.copy()
    inner[..., 0:1] = side[..., 0:1] * out
    inner[..., 1] = side[..., 1]
    inner[..., 2] = 84.0 + 28.0 * (1 - out[..., 0] ** 2) * np.sin(np.pi * across[..., 0])
    return inner


def _relax(
    points: Floats, skin: layout.SkinLayout, mesh: layout.HalfMesh, fixed: NDArray[np.bool_]
) -> None:
    """Slide the vertices that are not ``fixed`` along the surface until the quads are even."""
    edges = {
        tuple(sorted(pair))
        for face in mesh.faces
        for pair in zip(face, face[1:] + face[:1], strict=True)
    }
    first, second = np.array(sorted(edges)).T
    free = ~fixed
    middle = np.concatenate(
        [
            skin.grid[:, 0][skin.grid[:, 0] >= 0],
            skin.grid[:, -1],
            skin.crown[:, 0],
            skin.mouth[:2, [0, -1]].ravel(),
        ]
    )
    rim = skin.grid[0]
    rim_z = points[rim, 2].copy()
    kept = np.zeros((len(points), 1))
    kept[skin.grid[1 : layout.MOUTH_ROWS[0]]] = KEPT_UNEVENNESS  # else the chin gets too few rows
    uneven = (kept * (points - _neighbour_mean(points, first, second)))[free]
    for _ in range(NUM_RELAX_STEPS):
        mean = _neighbour_mean(points, first, second)[free]
        points[free] += 0.5 * (mean + uneven - points[free])
        points[middle, 0] = 0.0
        points[free] = project(points[free], num_steps=2)
        points[rim, 2] = rim_z
        points[middle, 0] = 0.0
    points[free] = project(points[free], num_steps=6)
    points[rim, 2] = rim_z
    points[middle, 0] = 0.0


def _neighbour_mean(points: Floats, first: layout.Ints, second: layout.Ints) -> Floats:
    """For each vertex the mean of those that edges ``first``-``second`` join it to, (V, 3)."""
    total = np.zeros_like(points)
    np.add.at(total, first, points[second])
    np.add.at(total, second, points[first])
    degree = np.bincount(np.concatenate([first, second]), minlength=len(points))
    return total / np.maximum(degree, 1)[:, None]
