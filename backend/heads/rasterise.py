# SPDX-License-Identifier: GPL-3.0-or-later
"""A depth buffer in NumPy: which triangle of a mesh each pixel of a picture shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BEHIND = -1e6
"""Depth of the background."""
_AT_LEAST = 1e-6
"""A pixel's centre may lie so far outside of a triangle's box."""


@dataclass(frozen=True, slots=True)
class Raster:
    """What the pixels of a picture show.

    Attributes:
        triangle: Number of the triangle in each pixel, -1 for the background, ``(H, W)``.
        shares: Shares of the triangle's three corners at the pixel's centre, ``(H, W, 3)``.
    """

    triangle: NDArray[np.int64]
    shares: NDArray[np.float64]

    def interpolated(
        self, values: NDArray[np.floating], triangles: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """Values of vertices ``(V, C)`` at the pixels that show a triangle, ``(N, C)``."""
        shown = self.triangle >= 0
        corners = triangles[self.triangle[shown]]
        return np.einsum("nk,nkc->nc", self.shares[shown], values[corners])


def rasterise(
    screen: NDArray[np.floating],
    depth: NDArray[np.floating],
    triangles: NDArray[np.integer],
    *,
    width: int,
    height: int,
) -> Raster:
    """Find the nearest triangle at the centre of each pixel.

    Args:
        screen: Places of the vertices in pixels, right and down from the upper left, ``(V, 2)``.
        depth: Their nearness to the viewer, ``(V,)``.
        triangles: ``(N, 3)``; both of their sides are seen.
        width: Pixels across.
        height: Pixels down.

    Returns:
        What each pixel shows.
    """
    bounds = np.array([width, height])
    first, last = boxes(screen, triangles)
    low = np.clip(np.ceil(first - (0.5 + _AT_LEAST)).astype(np.int64), 0, bounds)
    high = np.clip(np.floor(last + (0.5 + _AT_LEAST)).astype(np.int64), 0, bounds)
    wide, tall = np.maximum(high - low, 0).T  # the centres of pixels in a triangle's box
    count = wide * tall
    inside = np.flatnonzero(count)
    count, low, wide, triangles = count[inside], low[inside], wide[inside], triangles[inside]
    owner = np.repeat(np.arange(len(inside)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    x = low[owner, 0] + step % wide[owner]
    y = low[owner, 1] + step // wide[owner]
    a, b, c = (screen[triangles[:, k]] for k in range(3))
    area = _cross(b - a, c - a)
    flat = area == 0
    scale = 1.0 / np.where(flat, 1.0, area)
    # The share of a corner is linear in the place: gradient and value at the origin, per triangle.
    shares = []
    for p, q in ((b, c), (c, a)):
        slope = np.stack([p[:, 1] - q[:, 1], q[:, 0] - p[:, 0]], axis=1) * scale[:, None]
        offset = np.where(flat, -9.0, _cross(p, q) * scale)
        shares.append(slope[owner, 0] * (x + 0.5) + slope[owner, 1] * (y + 0.5) + offset[owner])
    u, v = shares
    keep = np.flatnonzero((u >= -1e-9) & (v >= -1e-9) & (u + v <= 1.0 + 1e-9))
    u, v, owner = u[keep], v[keep], owner[keep]
    place = y[keep] * width + x[keep]
    weights = np.stack([u, v, 1.0 - u - v], axis=1)
    nearness = (weights * depth[triangles[owner]]).sum(axis=1)
    nearest = np.full(width * height, _BEHIND)
    np.maximum.at(nearest, place, nearness)
    seen = np.flatnonzero(nearness >= nearest[place])
    triangle = np.full(width * height, -1, dtype=np.int64)
    triangle[place[seen]] = inside[owner[seen]]
    all_shares = np.zeros((width * height, 3))
    all_shares[place[seen]] = weights[seen]
    return Raster(triangle.reshape(height, width), all_shares.reshape(height, width, 3))


def boxes(
    screen: NDArray[np.floating], triangles: NDArray[np.integer]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Lowest and highest coordinates of triangles ``(N, 3)``, each ``(N, 2)``."""
    a, b, c = (screen[triangles[:, k]] for k in range(3))
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


def _cross(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
