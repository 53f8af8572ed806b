# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of a head without Blender: a small NumPy rasteriser, and a sheet of all shapes.

``python -m backend.contact_sheet --head FILE --out sheet.png`` draws the 52 shapes and the
combinations that speech uses, from the front and from the side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VIEWS = {"front": (0.0, 0.0), "side": (90.0, 0.0), "three_quarter": (35.0, 5.0)}
BACKGROUND = 235.0
_OVERSAMPLING = 2


def render(
    vertices: NDArray[np.floating],
    triangles: NDArray[np.integer],
    colours: NDArray[np.floating] | None,
    *,
    view: str | tuple[float, float] = "front",
    size: int = 200,
    centre: tuple[float, float, float] = (0.0, -30.0, 0.0),
    extent: float = 230.0,
) -> NDArray[np.uint8]:
    """Draw a shaded mesh by orthographic projection with a depth buffer.

    Args:
        vertices: ``(V, 3)`` in the face's axes (x = subject's left, y = up, z = out), in mm.
        triangles: ``(N, 3)``.
        colours: RGB per vertex, 0..1, ``(V, 3)``; None for a plain clay.
        view: A name of ``VIEWS``, or the camera's (yaw, pitch) in degrees; yaw 90 looks at the
            subject's left side.
        size: Width and height of the image in pixels.
        centre: What the image's middle shows, in mm.
        extent: What the image's height shows, in mm.

    Returns:
        ``(size, size, 3)``.
    """
    yaw, pitch = np.radians(VIEWS[view] if isinstance(view, str) else view)
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    seen = (np.asarray(vertices, np.float64) - np.array(centre)) @ (tilt @ turn).T
    pixels = size * _OVERSAMPLING
    scale = pixels / extent
    screen = np.stack([seen[:, 0] * scale + pixels / 2, pixels / 2 - seen[:, 1] * scale], axis=1)
    if colours is None:
        colours = np.full((len(seen), 3), 0.78)
    shaded = _shade(seen, triangles, np.asarray(colours, np.float64))
    image = _rasterise(screen, seen[:, 2], shaded, np.asarray(triangles), pixels)
    image = image.reshape(size, _OVERSAMPLING, size, _OVERSAMPLING, 3).mean(axis=(1, 3))
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _shade(
    seen: NDArray[np.float64], triangles: NDArray[np.integer], colours: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Lit RGB of each vertex, 0..255: a key light from above left, a fill light, some sky."""
    a, b, c = (seen[triangles[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    normals = np.stack(
        [
            np.bincount(triangles.ravel(), np.repeat(face[:, i], 3), minlength=len(seen))
            for i in range(3)
        ],
        axis=1,
    )
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    light = np.full(len(seen), 0.16)
    for direction, strength in (((-0.45, 0.6, 0.65), 0.72), ((0.8, -0.1, 0.5), 0.26)):
        unit = np.array(direction) / np.linalg.norm(direction)
        light += strength * np.maximum(normals @ unit, 0.0)
    light += 0.06 * normals[:, 1]
    light *= np.where(normals[:, 2] < 0.0, 0.55, 1.0)  # a surface seen from behind
    return np.asarray(255.0 * colours * np.clip(light, 0.03, 1.1)[:, None])


def _rasterise(
    screen: NDArray[np.float64],
    depth: NDArray[np.float64],
    shaded: NDArray[np.float64],
    triangles: NDArray[np.integer],
    pixels: int,
) -> NDArray[np.float64]:
    corners = screen[triangles]  # (N, 3, 2)
    low = np.clip(np.floor(corners.min(axis=1)).astype(int), 0, pixels)
    high = np.clip(np.ceil(corners.max(axis=1)).astype(int), 0, pixels)
    wide, tall = (high - low).T
    count = np.where((wide > 0) & (tall > 0), wide * tall, 0)
    owner = np.repeat(np.arange(len(triangles)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    x = low[owner, 0] + step % np.maximum(wide[owner], 1)
    y = low[owner, 1] + step // np.maximum(wide[owner], 1)
    p = np.stack([x, y], axis=1) + 0.5
    a, b, c = (corners[owner, i] for i in range(3))
    area = _cross(b - a, c - a)
    inside = area != 0
    safe = np.where(inside, area, 1.0)
    u, v = _cross(b - p, c - p) / safe, _cross(c - p, a - p) / safe
    w = 1.0 - u - v
    keep = np.flatnonzero(inside & (u >= -1e-9) & (v >= -1e-9) & (w >= -1e-9))
    weights = np.stack([u[keep], v[keep], w[keep]], axis=1)
    hit = triangles[owner[keep]]
    nearness = (weights * depth[hit]).sum(axis=1)
    order = np.argsort(nearness, kind="stable")  # the nearest is written last
    image = np.full((pixels, pixels, 3), BACKGROUND)
    colour = np.einsum("nk,nkc->nc", weights[order], shaded[hit[order]])
    image[y[keep][order], x[keep][order]] = colour
    return image


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
