# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo head's outer form: an implicit surface, a smooth union of rounded bodies.

Units are millimetres, the eyes' centres lie at ``z = 0``, the face looks to ``-y`` and the
subject's left is ``+x``. The proportions are those that drawing books teach (eyes at half the
head's height, five eye widths across, nose and mouth at thirds), not those of any person or scan.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EYE_CENTER = np.array([31.0, -67.0, 0.0])
EYE_RADIUS = 13.0

# Rounded bodies: centre, radii, width of the smooth blend with what comes before.
ELLIPSOIDS = (
    ((0.0, 10.0, 28.0), (73.0, 92.0, 79.0), 1.0),  # cranium
    ((0.0, -24.0, 34.0), (60.0, 67.0, 58.0), 20.0),  # forehead
    ((0.0, -34.0, -28.0), (55.0, 57.0, 60.0), 22.0),  # middle of the face
    ((0.0, -36.0, -64.0), (44.0, 49.0, 42.0), 24.0),  # jaw
    ((41.0, -14.0, -46.0), (13.0, 28.0, 30.0), 26.0),  # chewing muscle
    ((0.0, -64.0, -68.0), (30.0, 32.0, 27.0), 18.0),  # arch of the teeth
    ((0.0, -79.0, -97.0), (16.0, 14.5, 14.0), 20.0),  # chin
    ((44.0, -50.0, -22.0), (17.0, 23.0, 13.0), 24.0),  # cheekbone
    ((29.0, -66.0, -36.0), (17.0, 18.0, 16.0), 22.0),  # apple of the cheek
    ((32.0, -48.0, -58.0), (18.0, 27.0, 26.0), 26.0),  # flesh of the cheek
    ((0.0, -54.0, -97.0), (22.0, 26.0, 10.0), 22.0),  # floor of the mouth
    ((0.0, -31.0, -142.0), (8.0, 7.0, 17.0), 18.0),  # larynx
    ((0.0, 36.0, -226.0), (96.0, 62.0, 30.0), 44.0),  # beginning of the shoulders
)
# Capsules with round ends: end, end, radius at each, width of the smooth blend.
CAPSULES = (
    ((41.0, -4.0, -62.0), (13.0, -72.0, -98.0), 10.0, 10.0, 26.0),  # jaw bone
    ((0.0, 24.0, -60.0), (0.0, 36.0, -220.0), 43.0, 45.0, 42.0),  # neck
    ((0.0, -14.0, -116.0), (0.0, -2.0, -220.0), 21.0, 24.0, 26.0),  # windpipe
    ((54.0, 22.0, -46.0), (9.0, -20.0, -196.0), 9.0, 6.5, 18.0),  # muscle from ear to breastbone
    ((0.0, -83.0, 3.0), (0.0, -102.0, -34.0), 7.0, 8.6, 9.0),  # ridge of the nose
    ((0.0, -104.0, -38.5), (0.0, -99.0, -42.0), 9.6, 8.0, 6.0),  # tip of the nose
    ((9.6, -98.0, -42.5), (12.2, -92.0, -42.0), 6.2, 6.6, 5.0),  # wing of the nose
)
# Raised (or, below zero, sunken) places: centre, spread along x, y, z, height.
BUMPS = (
    ((22.0, -92.0, 18.0), (16.0, 14.0, 7.0), 1.6),  # ridge of the brow
    ((0.0, -95.0, -87.0), (17.0, 16.0, 6.0), -2.2),  # crease over the chin
    ((0.0, -98.0, -56.0), (2.8, 8.0, 6.0), -1.2),  # groove under the nose
    ((20.5, -92.0, -42.0), (4.0, 9.0, 8.0), -1.6),  # crease behind the wing of the nose
)


def signed_distance(points: Floats) -> Floats:
    """About the distance from the surface, below zero inside; ``points`` (N, 3) -> (N,)."""
    p = points.copy()
    p[:, 0] = np.abs(p[:, 0])
    distance = np.full(len(p), 1e3)
    for center, radii, blend in ELLIPSOIDS:
        distance = _smooth_union(distance, _ellipsoid(p, center, radii), 1.5 * blend)
    for first, last, first_radius, last_radius, blend in CAPSULES:
        body = _capsule(p, first, last, first_radius, last_radius)
        distance = _smooth_union(distance, body, 1.5 * blend)
    socket = _ellipsoid(p, (31.0, -92.0, -1.0), (20.0, 15.0, 13.0))
    distance = -_smooth_union(-distance, socket, 13.0)
    eyeball = np.linalg.norm(p - EYE_CENTER, axis=1) - (EYE_RADIUS + 1.6)
    distance = _smooth_union(distance, eyeball, 4.5)
    for center, spread, height in BUMPS:
        distance = distance - height * np.exp(-(((p - center) / spread) ** 2).sum(axis=1))
    return distance


def gradient(points: Floats) -> Floats:
    """Gradient of :func:`signed_distance` by central differences, (N, 3)."""
    step = 0.05
    columns = []
    for axis in np.eye(3) * step:
        columns.append(signed_distance(points + axis) - signed_distance(points - axis))
    return np.stack(columns, axis=1) / (2.0 * step)


def project(points: Floats, *, direction: Floats | None = None, num_steps: int = 8) -> Floats:
    """Move points onto the surface, along its gradient or along ``direction`` (3,) or (N, 3)."""
    p = points.copy()
    for _ in range(num_steps):
        slope = gradient(p)
        way = slope if direction is None else np.broadcast_to(direction, p.shape)
        along = (slope * way).sum(axis=1)
        along = np.where(np.abs(along) < 0.2, np.copysign(0.2, along), along)
        step = np.clip(signed_distance(p) / along, -6.0, 6.0)
        p -= step[:, None] * way
    return p


def _smooth_union(first: Floats, second: Floats, blend: float) -> Floats:
    """Lesser of two distances, rounded where they differ by less than ``blend``.

    The cubic form, whose curvature is continuous: a jump of it would show in the shading.
    """
    overlap = np.maximum(blend - np.abs(first - second), 0.0) / blend
    return np.minimum(first, second) - overlap**3 * blend / 6.0


def _ellipsoid(
    p: Floats, center: tuple[float, float, float], radii: tuple[float, float, float]
) -> Floats:
    scaled = (p - center) / radii
    length = np.linalg.norm(scaled, axis=1)
    slope = np.linalg.norm(scaled / radii, axis=1)
    return np.asarray(length * (length - 1.0) / np.maximum(slope, 1e-9))


def _capsule(
    p: Floats,
    first: tuple[float, float, float],
    last: tuple[float, float, float],
    first_radius: float,
    last_radius: float,
) -> Floats:
    axis = np.subtract(last, first)
    share = np.clip(((p - first) @ axis) / (axis @ axis), 0.0, 1.0)
    nearest = np.asarray(first) + share[:, None] * axis
    radius = first_radius + share * (last_radius - first_radius)
    return np.asarray(np.linalg.norm(p - nearest, axis=1) - radius)
