# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo head's loose parts: eyeballs, teeth and tongue, each a closed body of its own.

A file of its own because these are whole bodies, drawn and placed at once, unlike the skin.
Millimetres, axes as in ``demo_head_surface``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from backend.heads.demo.layout import HalfMesh, Ints
from backend.heads.demo.surface import EYE_CENTER, EYE_RADIUS

Floats = NDArray[np.float64]

PUPIL_RADIUS, IRIS_RADIUS = 2.4, 6.0
TEETH_PER_SIDE = 6
_GUM, _LOWER_SAG = 13.0, 4.0  # mm
# Length of the lashes in mm at the outer corner, a fifth and half of the way, the inner corner.
_LASH_UPPER, _LASH_LOWER = (4.6, 6.0, 5.6, 3.2), (1.8, 2.3, 2.1, 1.4)


def add_eyeball(mesh: HalfMesh) -> tuple[Ints, Floats]:
    """A sphere with its pole in front, its rings cut at the edges of pupil and iris."""
    segments = 20
    pupil, iris = np.arcsin(PUPIL_RADIUS / EYE_RADIUS), np.arcsin(IRIS_RADIUS / EYE_RADIUS)
    polar = [pupil, pupil + 0.76 * (iris - pupil), iris, *np.radians([44, 62, 84, 108, 134, 160])]
    materials = ["iris", "iris edge"] + ["eye white"] * 6
    numbers = mesh.add_vertices(len(polar) * segments + 2)
    rings = numbers[2:].reshape(len(polar), segments)
    way = np.arange(segments) * (2 * np.pi / segments)
    ball = [np.array([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]])]
    for angle in polar:
        circle = np.stack([np.cos(way), np.zeros(segments), np.sin(way)], axis=1) * np.sin(angle)
        ball.append(circle - (0.0, np.cos(angle), 0.0))
    for ring, material in enumerate(materials):
        mesh.add_grid(rings[ring : ring + 2][::-1], material, "eye", closed=True)
    for i in range(segments):
        j = (i + 1) % segments
        mesh.add_face((numbers[0], rings[0, i], rings[0, j]), "pupil", "eye")
        mesh.add_face((numbers[1], rings[-1, j], rings[-1, i]), "eye white", "eye")
    return numbers, EYE_CENTER + EYE_RADIUS * np.concatenate(ball)


def add_lashes(mesh: HalfMesh, margin: Floats, *, is_upper: bool) -> tuple[Ints, Floats]:
    """A row of lashes, each a blade of two faces that grows from the lid's edge.

    Args:
        mesh: Takes the faces.
        margin: The lid's edge from the outer corner to the inner one, ``(N, 3)``.
        is_upper: Whether they are those of the upper lid, which are longer.

    Returns:
        Numbers of the new vertices, and where they lie.
    """
    count, first, last = (20, 0.06, 0.82) if is_upper else (13, 0.12, 0.72)
    place = CubicSpline(np.linspace(0.0, 1.0, len(margin)), margin)
    ends = np.linspace(first, last, count + 1)
    share = (ends[1:] + ends[:-1]) / 2
    grown = _LASH_UPPER if is_upper else _LASH_LOWER
    length = np.interp(share, (0.0, 0.2, 0.5, 1.0), grown)
    base, side = place(ends), 1.0 - 1.6 * share
    away = place(share) - EYE_CENTER
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    lift = np.array([0.0, 0.0, 1.0 if is_upper else -1.0])
    sideways = np.stack([0.55 * side, np.zeros(count), np.zeros(count)], axis=1)
    along = place(share, 1)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    middle = place(share) + 0.5 * length[:, None] * (away + 0.3 * sideways)
    tip = place(share) + length[:, None] * (0.85 * away + 0.4 * lift + 0.8 * sideways)
    pairs = np.stack([middle - 0.22 * along, middle + 0.22 * along], axis=1)
    lash = mesh.add_vertices(count + 1)
    bent, ending = mesh.add_vertices(count, 2), mesh.add_vertices(count)
    for k in range(count):
        faces = [(lash[k], lash[k + 1], bent[k, 1], bent[k, 0]), (*bent[k], ending[k])]
        for face in faces:
            mesh.add_face(face[::-1] if is_upper else face, "lashes", "lashes")
    return (
        np.concatenate([lash, bent.ravel(), ending]),
        np.concatenate([base, pairs.reshape(-1, 3), tip]),
    )


def add_teeth(mesh: HalfMesh, *, is_upper: bool) -> tuple[Ints, Floats]:
    """One row of teeth with its gum, a bent band with a bulge for each tooth."""
    columns_per_tooth = 3
    columns = TEETH_PER_SIDE * columns_per_tooth + 1
    role = "teeth_upper" if is_upper else "teeth_lower"
    sign = 1.0 if is_upper else -1.0
    front_y, half_width, tip_z = (-89.0, 25.0, -73.0) if is_upper else (-86.4, 23.0, -71.6)
    share = np.linspace(0.0, 1.0, columns)
    bend = np.radians(82.0) * share
    depth = 33.0
    center = np.stack([half_width * np.sin(bend), front_y + depth * (1 - np.cos(bend))], axis=1)
    outward = np.stack([np.sin(bend) / half_width, -np.cos(bend) / depth], axis=1)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    bulge = np.minimum(np.arange(columns) % columns_per_tooth, 1.0)  # 0 between two teeth
    # Around the band: how far out, how far from the tips, how much of the tooth's bulge.
    profile = (
        (0.6, 0.0, 0.3), (1.5, 1.2, 0.8), (2.0, 5.0, 1.0), (1.5, 9.0, 0.3),
        (1.0, _GUM, 0.0), (-2.5, _GUM, 0.0), (-2.0, 5.0, 0.0), (-0.8, 0.3, 0.3),
    )  # fmt: skip
    # Molars as high as the front teeth show as a lone tooth at the far corner of an open mouth.
    sideways = np.clip((center[:, 0] / half_width - 0.35) / 0.65, 0.0, 1.0)
    sag = np.zeros(columns) if is_upper else _LOWER_SAG * sideways**1.5
    numbers = mesh.add_vertices(len(profile), columns)
    points = np.zeros((*numbers.shape, 3))
    for row, (out, rise, swell) in enumerate(profile):
        reach = out + 0.7 * swell * (bulge - 0.6)
        points[row, :, :2] = center + reach[:, None] * outward
        points[row, :, 2] = tip_z + sign * (rise + (0.3 * (1.0 - bulge) if row in (0, 7) else 0.0))
        points[row, :, 2] -= sag * (1.0 - rise / _GUM)  # the gum's base stays
    points[:, 0, 0] = 0.0
    around = np.vstack([numbers, numbers[:1]])
    rows = around if is_upper else around[::-1]
    names = ["teeth"] * 3 + ["tongue"] * 3 + ["teeth"] * 2
    for row, material in enumerate(names if is_upper else names[::-1]):
        mesh.add_grid(rows[row : row + 2], material, role)
    end = numbers[:, -1] if is_upper else numbers[::-1, -1]
    mesh.add_grid(np.stack([end[:4], end[:3:-1]]).T, "teeth", role)
    return numbers.ravel(), points.reshape(-1, 3)


def add_tongue(mesh: HalfMesh) -> tuple[Ints, Floats]:
    """A flattened drop, its tip behind the lower teeth."""
    half_circle, length = 8, 11
    role = "tongue"
    numbers = mesh.add_vertices(length, half_circle + 1)
    along = np.linspace(0.06, 0.97, length)[:, None]
    way = np.linspace(0.0, np.pi, half_circle + 1)[None]  # from the underside to the back
    width = 17.5 * np.sin(np.pi * along**0.75) ** 0.5
    rise = 5.0 * np.sin(np.pi * along**0.8) ** 0.5
    height = -77.0 + 9.0 * np.sin(np.pi / 2 * along) - rise * np.cos(way)
    groove = 1.5 * np.exp(-(((way - np.pi) / 0.4) ** 2)) * np.sin(np.pi * along)
    y = np.broadcast_to(-80.0 + 28.0 * along, height.shape)
    points = np.stack([width * np.sin(way), y, height - groove], axis=-1)
    points[:, [0, -1], 0] = 0.0
    mesh.add_grid(numbers.T, "tongue", role)
    poles = mesh.add_vertices(2)
    tips = np.array([[0.0, -80.6, -76.0], [0.0, -51.8, -69.0]])
    for i in range(half_circle):
        mesh.add_face((poles[0], numbers[0, i], numbers[0, i + 1]), "tongue", role)
        mesh.add_face((poles[1], numbers[-1, i + 1], numbers[-1, i]), "tongue", role)
    return (
        np.concatenate([numbers.ravel(), poles]),
        np.concatenate([points.reshape(-1, 3), tips]),
    )
