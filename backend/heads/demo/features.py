# SPDX-License-Identifier: GPL-3.0-or-later
"""The features of the demo head that are drawn line by line: lips, lids, nostrils, brows, ears.

A file of its own beside ``demo_head_shape``, which lays the rest of the skin about them.
Millimetres, axes as in ``demo_head_surface``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from backend.heads.demo import layout as layout
from backend.heads.demo.surface import EYE_CENTER, EYE_RADIUS, project

Floats = NDArray[np.float64]

FORWARD = np.array([0.0, -1.0, 0.0])
MOUTH_Z = -70.0
MOUTH_HALF_WIDTH = 25.0
CONTACT_GAP = 0.1  # between the lips at rest; not zero, lest their faces flicker
LID_FOLD_RING = 4
BROW = (
    slice(layout.BROW_ROWS[0], layout.BROW_ROWS[1] + 1),
    slice(layout.BROW_COLUMNS[0], layout.BROW_COLUMNS[1] + 1),
)


NOSE_LAST_COLUMN = 5
# Rows of the grid to x and z of the nose's columns, the last one NOSE_LAST_COLUMN.
NOSE_GUIDES = {
    20: ((13.5, -50.0), (17.5, -51.0)),
    21: ((16.4, -46.8), (19.4, -46.8)),
    22: ((16.9, -42.0), (20.0, -42.0)),
    23: ((4.6, -38.5), (8.4, -38.6), (12.2, -38.0), (15.8, -37.6), (19.4, -37.2)),
    24: ((3.9, -32.2), (7.4, -32.2), (10.6, -32.2), (13.8, -32.2), (18.2, -32.2)),
    25: ((3.5, -23.8), (6.7, -24.0), (9.6, -24.4), (12.8, -25.0), (17.2, -25.8)),
    26: ((3.3, -16.0), (6.3, -16.2), (9.4, -16.8), (12.9, -18.2), (17.2, -20.2)),
}


def place_features(skin: layout.SkinLayout, points: Floats) -> layout.Ints:
    """Draw the features into ``points`` (V, 3); returns the vertices that may not move again."""
    for place in (_place_mouth, _place_eye, _place_ear, _place_nose, _place_nostril, _place_brow):
        place(skin, points)
    # The outermost rings of mouth, eye and ear are left out: they may follow the skin around them.
    drawn = [skin.mouth[2:], skin.mouth_back, skin.eye[2:], skin.socket_back, skin.ear[1:]]
    drawn += [skin.grid[row, _nose_columns(flat)] for row, flat in NOSE_GUIDES.items()]
    drawn += [skin.ear_floor, skin.nostril, skin.nostril_top, skin.grid[BROW]]
    return np.unique(np.concatenate([rings.ravel() for rings in drawn]))


def _lip_lines(columns: NDArray[np.int_]) -> tuple[Floats, Floats, Floats]:
    """Contact line (N, 2) and vermilion border (N, 2) as x and z, and the fullness (N,)."""
    corner = layout.MOUTH_CORNER
    is_upper = columns > corner
    t = np.where(is_upper, 2 * corner - columns, columns) / corner
    s = 0.6 * t + 0.4 * np.sin(np.pi / 2 * t)  # 0 in the middle, 1 at the corner
    line_z = MOUTH_Z - 0.9 * np.exp(-((s / 0.17) ** 2)) + 1.3 * s**4
    gap = 0.5 * CONTACT_GAP * np.sign(columns - corner)
    contact = np.stack([MOUTH_HALF_WIDTH * s, line_z + gap], axis=1)
    taper = np.sqrt(np.clip(1.0 - s**2, 0.0, 1.0))
    bow = 1.0 + 0.12 * np.exp(-(((s - 0.26) / 0.13) ** 2)) - 0.14 * np.exp(-((s / 0.11) ** 2))
    height = np.where(is_upper, 7.2 * taper**1.3 * bow, -8.8 * taper**1.6)
    border_x = MOUTH_HALF_WIDTH * s * (1.0 + 0.1 * s**6)
    border_z = np.where(is_upper, MOUTH_Z, MOUTH_Z - 0.4) + 1.3 * s**4 + height
    border_z = np.where(columns == corner, line_z, border_z)
    return contact, np.stack([border_x, border_z], axis=1), taper


def _place_mouth(skin: layout.SkinLayout, points: Floats) -> None:
    """The rings around the slit, the lips, and the bag behind them."""
    columns = np.arange(layout.NUM_MOUTH_COLUMNS)
    is_upper = columns > layout.MOUTH_CORNER
    contact, border, taper = _lip_lines(columns)
    angle = np.radians(np.interp(columns, (0, 10, 18, 28), (-90, -40, 40, 90)))
    edge_x = 35.0 * np.abs(np.cos(angle)) ** 0.8
    edge_x[[0, -1]] = 0.0
    edge_z = MOUTH_Z - 0.5 + 18.5 * np.sign(angle) * np.abs(np.sin(angle)) ** 0.8
    edge = np.stack([edge_x, edge_z], axis=1)
    swell_upper = (0.0, 0.0, 0.5, 1.2, 1.9, 3.1, 3.6, 3.0, 0.9)
    swell_lower = (0.0, 0.0, 0.0, 0.2, 0.8, 2.6, 3.7, 3.4, 0.9)
    shares = (0.0, 0.34, 0.64, 0.86, 1.0)
    drops = (0.0, 0.31, 0.6, 0.87, 1.0)
    for ring in range(layout.CONTACT_RING + 1):
        if ring <= layout.BORDER_RING:
            flat = edge + shares[ring] * (border - edge)
        else:
            flat = border + drops[ring - layout.BORDER_RING] * (contact - border)
        start = np.stack([flat[:, 0], -99.0 + flat[:, 0] ** 2 / 55.0, flat[:, 1]], axis=1)
        placed = project(start, direction=FORWARD)
        swell = np.where(is_upper, swell_upper[ring], swell_lower[ring])
        placed[:, 1] -= swell * (taper**0.8 + 0.08)
        points[skin.mouth[ring]] = placed
    _place_mouth_bag(skin, points, columns)


def _place_mouth_bag(skin: layout.SkinLayout, points: Floats, columns: NDArray[np.int_]) -> None:
    """Rings behind the contact line: depth, height above and below, half width."""
    table = (
        (1.4, 0.3, 0.3, 24.6),
        (2.4, 1.6, 1.6, 24.8),
        (3.3, 5.5, 5.5, 25.6),
        (4.2, 10.5, 10.5, 27.0),
        (9.5, 15.5, 15.5, 29.5),
        (24.0, 18.0, 20.0, 31.0),
        (46.0, 15.0, 17.0, 25.0),
    )
    contact = points[skin.mouth[layout.CONTACT_RING]]
    share = contact[:, 0] / MOUTH_HALF_WIDTH
    lift = np.sqrt(np.clip(1.0 - share**2, 0.0, 1.0))
    corner = layout.MOUTH_CORNER
    for number, (depth, up, down, half_width) in enumerate(table, start=1):
        height = np.where(columns > corner, up, -down) * lift
        height = np.where(columns == corner, 0.0, height)
        back = (contact[:, 1] - contact[0, 1]) * max(1.0 - depth / 50.0, 0.0)
        line = contact[:, 2] + (MOUTH_Z - contact[:, 2]) * min(depth / 10.0, 1.0)
        placed = np.stack([half_width * share, contact[0, 1] + back + depth, line + height], axis=1)
        points[skin.mouth[layout.CONTACT_RING + number]] = placed
    _fill_cap(points, skin.mouth_back, 4.0)


def _fill_cap(points: Floats, cap: layout.Ints, depth: float) -> None:
    """Spread the inside of a cap between its edges and push it ``depth`` backwards."""
    edge = points[cap]
    rows, columns = cap.shape
    u = np.linspace(0.0, 1.0, columns)[None, :, None]
    v = np.linspace(0.0, 1.0, rows)[:, None, None]
    across = edge[:, :1] * (1 - u) + edge[:, -1:] * u
    upward = edge[:1] * (1 - v) + edge[-1:] * v
    if np.all(edge[[0, -1], 0, 0] == 0.0):  # half a cap: its first column is no edge
        filled = upward.copy()
        filled[..., 0] = edge[:, -1:, 0] * u[..., 0]
        filled[..., 1] = (upward[..., 1] + edge[:, -1:, 1]) / 2
        bulge = np.sin(np.pi * v) * np.cos(np.pi / 2 * u)
    else:
        corners = (
            edge[0, 0] * (1 - u) * (1 - v)
            + edge[0, -1] * u * (1 - v)
            + edge[-1, 0] * (1 - u) * v
            + edge[-1, -1] * u * v
        )
        filled = across + upward - corners
        bulge = np.sin(np.pi * v) * np.sin(np.pi * u)
    filled[..., 1] += depth * bulge[..., 0]
    first = 0 if np.all(edge[[0, -1], 0, 0] == 0.0) else 1
    points[cap[1:-1, first:-1]] = filled[1:-1, first:-1]


def _lid_margin(columns: NDArray[np.int_]) -> tuple[Floats, NDArray[np.bool_]]:
    """Edge of the lids as x and z from the eye's centre (30, 2), and which columns are upper."""
    inner, outer = 27, 12
    is_upper = (columns >= outer) & (columns <= inner)
    t = np.where(is_upper, (inner - columns) / 15.0, ((columns - inner) % 30) / 15.0)
    along = 0.75 * t + 0.25 * (1.0 - np.cos(np.pi * t)) / 2.0
    arch_upper = np.sin(np.pi * t**0.9) ** 0.8
    arch_lower = np.sin(np.pi * t**1.15) ** 0.85
    x = -14.2 + 28.2 * along
    z = -1.3 + 2.2 * along + np.where(is_upper, 5.6 * arch_upper, -5.2 * arch_lower)
    return np.stack([x, z], axis=1), is_upper


def _on_eye_sphere(flat: Floats, radius: float) -> Floats:
    """Points with offsets x, z in front of the eye, on a sphere about its centre."""
    inside = radius**2 - (flat**2).sum(axis=1)
    floor = (0.36 * radius) ** 2
    depth = np.sqrt(0.5 * (inside + floor + np.sqrt((inside - floor) ** 2 + 60.0)))
    return np.asarray(EYE_CENTER + np.stack([flat[:, 0], -depth, flat[:, 1]], axis=1))


def _place_eye(skin: layout.SkinLayout, points: Floats) -> None:
    """The rings around the eye, the lids' margins, and the socket behind them."""
    columns = np.arange(30)
    margin, is_upper = _lid_margin(columns)
    angle = np.radians(
        np.interp(columns, (0, 9, 12, 15, 24, 27, 30), (-140, -42, 0, 42, 138, 180, 220))
    )
    edge = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    edge = np.sign(edge) * np.abs(edge) ** 0.85 * (21.5, 17.5) + (0.3, -0.5)
    shares = (0.0, 0.3, 0.52, 0.68, 0.8, 0.92, 1.0)
    for ring, share in enumerate(shares):
        flat = edge + share * (margin - edge)
        start = np.stack([flat[:, 0], np.full(30, -16.0), flat[:, 1]], axis=1) + EYE_CENTER
        placed = project(start, direction=FORWARD)
        if ring == layout.MARGIN_RING:
            placed = _on_eye_sphere(flat, EYE_RADIUS + 1.7)
        if ring == layout.MARGIN_RING - 1:
            placed[:, 1] = np.minimum(placed[:, 1], _on_eye_sphere(flat, EYE_RADIUS + 1.8)[:, 1])
        points[skin.eye[ring]] = placed
    fold = np.exp(-(((columns - 18.5) / 5.5) ** 2)) * is_upper
    points[skin.eye[LID_FOLD_RING], 1] += 1.3 * fold
    points[skin.eye[LID_FOLD_RING - 1], 1] -= 0.5 * fold
    pulled = 0.96 - 0.13 * np.exp(-(((columns - 27) / 1.4) ** 2))  # the inner corner's flesh
    inner_edge = _on_eye_sphere(margin * pulled[:, None], EYE_RADIUS + 0.55)
    points[skin.eye[layout.NUM_LID_RINGS]] = inner_edge
    _place_socket(skin, points)


def _place_socket(skin: layout.SkinLayout, points: Floats) -> None:
    """The skin behind the lids, a bag about the eyeball."""
    rim = points[skin.eye[layout.NUM_LID_RINGS]] - EYE_CENTER
    opening = np.arccos(np.clip(-rim[:, 1] / np.linalg.norm(rim, axis=1), -1.0, 1.0))
    way = np.arctan2(rim[:, 2], rim[:, 0])
    first = np.maximum(opening + np.radians(9.0), np.radians(40.0))
    for number, (degrees, gap) in enumerate(((0, 0.6), (97, 0.8), (122, 1.0), (148, 1.0)), start=1):
        polar = np.maximum(first + np.radians(4.0) * (number - 1), np.radians(degrees))
        ball = np.stack(
            [np.sin(polar) * np.cos(way), -np.cos(polar), np.sin(polar) * np.sin(way)], axis=1
        )
        points[skin.eye[layout.NUM_LID_RINGS + number]] = EYE_CENTER + (EYE_RADIUS + gap) * ball
    _fill_cap(points, skin.socket_back, 0.0)
    inner = skin.socket_back[1:-1, 1:-1]
    away = points[inner] - EYE_CENTER
    away *= (EYE_RADIUS + 1.0) / np.linalg.norm(away, axis=-1, keepdims=True)
    points[inner] = EYE_CENTER + away


def _nose_columns(flat: tuple[tuple[float, float], ...]) -> slice:
    return slice(NOSE_LAST_COLUMN + 1 - len(flat), NOSE_LAST_COLUMN + 1)


def _place_nose(skin: layout.SkinLayout, points: Floats) -> None:
    """The columns beside the ridge of the nose, down to the creases behind its wings."""
    for row, flat in NOSE_GUIDES.items():
        x, z = np.array(flat).T
        share = np.clip(x / 18.0, 0.0, 1.0)
        ridge_y = points[skin.grid[row, 0], 1]
        start = np.stack([x, ridge_y + (-90.0 - ridge_y) * share**1.5, z], axis=1)
        points[skin.grid[row, _nose_columns(flat)]] = project(start)


def _place_nostril(skin: layout.SkinLayout, points: Floats) -> None:
    """Rings on the underside of the nose, the last one drawn up into it."""
    angle = np.radians(np.array([-135.0, -90.0, -45.0, 0.0, 45.0, 90.0, 135.0, 180.0]))
    backward, inward = np.array([0.0, 0.92, -0.39]), np.array([0.0, 0.39, 0.92])
    rings = ((4.3, 5.3, 0.0), (2.7, 3.5, 0.3), (2.0, 2.8, 2.8))
    for ring, (half_width, half_length, rise) in enumerate(rings):
        back = -half_length * np.sin(angle)
        x = 7.3 + half_width * np.cos(angle) + 0.3 * back
        placed = back[:, None] * backward + (0.0, -103.0, -47.0) - 4.0 * inward
        placed[:, 0] = x
        points[skin.nostril[ring]] = project(placed, direction=inward) + rise * inward
    _fill_cap(points, skin.nostril_top, 0.0)
    points[skin.nostril_top[1, 1], 2] += 1.5


def _place_brow(skin: layout.SkinLayout, points: Floats) -> None:
    """The brow, three rows of vertices from its head to its tail."""
    share = np.linspace(0.0, 1.0, layout.BROW_COLUMNS[1] - layout.BROW_COLUMNS[0] + 1)
    x = 11.5 + 42.5 * share
    arch = 18.6 + 5.6 * np.sin(np.pi * np.clip(0.05 + 0.7 * share, 0, 1)) - 2.5 * share
    thickness = 5.0 * (1.0 - share**2) * np.minimum(0.5 + 3.2 * share, 1.0) + 0.9
    rounding = np.exp(-share / 0.08) + 1.2 * np.exp((share - 1.0) / 0.05)
    for row, (level, relief) in enumerate(((-0.5, 0.2), (0.0, 1.1), (0.5, 0.2))):
        flat = np.stack(
            [x + 0.3 * level * thickness, np.zeros_like(x), arch + level * thickness], axis=1
        )
        flat[:, 0] += np.where(level == 0.0, (share > 0.5) * 2.0 - 1.0, 0.0) * rounding
        flat[:, 1] = -92.0 + 0.012 * x**2
        placed = project(flat, direction=FORWARD)
        placed[:, 1] -= relief * (1.0 - share**2)
        points[skin.grid[BROW][row]] = placed


EAR_CENTER = np.array([70.0, 13.0, -18.0])
EAR_HOLLOW = np.array([-1.5, -4.5])  # what the ear's inner rings draw in to
# Columns at which the ear is drawn: lobe's end, lobe, behind it, lower back, back, upper back, back
# of the top, top, front of the top, root of the helix, above the tragus, tragus, below it.
_EAR_COLUMNS = (0, 2, 3.5, 6, 9.5, 12, 14, 16, 18, 20.5, 22.5, 24.5, 26.5)
_EAR_RIM = (  # backwards and up from the centre
    (-7.5, -27.0), (-1.5, -31.5), (4.5, -29.0), (11.5, -17.5), (18.0, 0.5), (20.0, 14.0),
    (16.5, 24.5), (6.5, 31.0), (-5.0, 29.5), (-12.0, 17.0), (-13.0, 3.0), (-13.0, -7.5),
    (-11.5, -18.5),
)  # fmt: skip
# For each ring from the head to the hollow: how far it is drawn in from the rim (0) to the hollow
# (1), and how far it stands out from where the ear grows, by the columns above.
_EAR_DRAWN_IN = (
    (-0.35, -0.22, -0.1, 0.1, 0.06, 0.02, -0.05, -0.12, -0.24, -0.31, -0.33, -0.34, -0.35),
    (-0.14, 0.04, 0.26, 0.36, 0.34, 0.3, 0.22, 0.12, -0.04, -0.14, -0.18, -0.2, -0.18),
    (-0.08, 0.04, 0.2, 0.3, 0.3, 0.26, 0.18, 0.1, -0.02, -0.08, -0.1, -0.11, -0.1),
    (-0.03, 0.03, 0.09, 0.11, 0.1, 0.09, 0.07, 0.05, 0.0, -0.03, -0.04, -0.05, -0.05),
    (0.0,) * 13,
    (0.06, 0.1, 0.11, 0.13, 0.15, 0.15, 0.15, 0.15, 0.14, 0.16, 0.12, 0.04, 0.06),
    (0.16, 0.25, 0.26, 0.25, 0.28, 0.29, 0.29, 0.28, 0.28, 0.34, 0.28, 0.22, 0.18),
    (0.34, 0.46, 0.45, 0.44, 0.46, 0.5, 0.52, 0.5, 0.46, 0.5, 0.46, 0.38, 0.36),
    (0.58, 0.66, 0.62, 0.6, 0.62, 0.66, 0.68, 0.68, 0.64, 0.66, 0.62, 0.46, 0.52),
)
_EAR_OUT = (
    (0.0,) * 13,
    (0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 0.8, 0.5, 0.3, 0.2, 0.1, 0.1, 0.1),
    (0.4, 1.0, 2.6, 4.5, 5.0, 4.5, 3.2, 2.0, 1.0, 0.5, 0.2, 0.2, 0.2),
    (0.8, 2.4, 5.5, 9.0, 12.0, 11.5, 9.0, 6.0, 3.0, 1.2, 0.4, 0.5, 0.4),
    (1.4, 4.0, 7.2, 12.0, 16.0, 16.5, 14.0, 10.0, 6.0, 2.6, 0.8, 1.0, 0.8),
    (2.0, 5.2, 8.4, 13.2, 17.2, 17.8, 15.4, 11.4, 7.4, 3.8, 1.2, 2.8, 1.4),
    (2.6, 5.8, 8.2, 10.4, 12.6, 13.0, 11.2, 8.0, 5.0, 3.6, 1.0, 4.8, 1.8),
    (2.4, 5.4, 8.8, 13.2, 15.6, 15.0, 12.6, 9.4, 5.4, 3.0, 0.2, 4.2, 1.0),
    (0.0, 2.4, 4.2, 4.8, 4.8, 5.6, 6.2, 5.0, 2.2, 0.4, -2.0, 0.6, -1.0),
)


def _place_ear(skin: layout.SkinLayout, points: Floats) -> None:
    """The ear as rings that leave the head, roll over at the rim and sink into the hollow."""
    tilt = np.radians(9.0)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    sideways = np.array([1.0, 0.0, 0.0])
    rim = _around_ear(_EAR_RIM)
    for ring, (drawn_in, out) in enumerate(zip(_EAR_DRAWN_IN, _EAR_OUT, strict=True)):
        flat = (rim + _around_ear(drawn_in)[:, None] * (EAR_HOLLOW - rim)) @ turn.T
        start = np.concatenate([np.zeros((28, 1)), flat], axis=1) + EAR_CENTER
        placed = project(start, direction=sideways)
        if ring >= 2:  # the ear is flatter than the head: it goes on from where it grows in front
            in_front = start * (1.0, 0.0, 1.0)
            placed[:, 0] = project(in_front, direction=sideways)[:, 0]
        placed[:, 0] += _around_ear(out)
        points[skin.ear[ring]] = placed
    _fill_cap(points, skin.ear_floor, 0.0)
    points[skin.ear_floor[1:-1, 1:-1], 0] -= 4.0


def _around_ear(values: Sequence[float] | Sequence[tuple[float, float]]) -> Floats:
    """Values at the drawn columns of the ear, smoothly at all 28 of them."""
    known = np.array([*values, values[0]])
    spline = CubicSpline((*_EAR_COLUMNS, 28.0), known, bc_type="periodic")
    return np.asarray(spline(np.arange(28.0)))
