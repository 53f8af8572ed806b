# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the skin's vertices of the demo head lie: lips, lids and ears drawn, the rest relaxed.

A file of its own beside the surface's formula (``demo_head_surface``) and the quads
(``demo_head_layout``): it lays the one on the other. Millimetres, axes as in the surface.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.data import demo_head_layout as layout
from backend.data.demo_head_surface import EYE_CENTER, EYE_RADIUS, project

Floats = NDArray[np.float64]

FORWARD = np.array([0.0, -1.0, 0.0])
MOUTH_Z = -70.0
MOUTH_HALF_WIDTH = 25.0
CONTACT_GAP = 0.1  # between the lips at rest; not zero, lest their faces flicker

# Guide points of the grid's rows: row, then y and z in front, x, y and z at the side, y, z behind.
ROW_GUIDES = np.array(
    [
        (0, -20, -186, 55, 35, -186, 90, -186),
        (5, -27, -130, 54, 26, -128, 82, -140),
        (6, -42, -124, 54, 20, -121, 82, -132),
        (7, -58, -117, 54, 15, -113, 82, -124),
        (8, -74, -113, 54, 10, -104, 82, -116),
        (9, -88, -109, 54, 8, -96, 82, -108),
        (10, -94, -99, 55, 8, -90, 82, -100),
        (11, -90, -89, 56, 8, -84, 84, -94),
        (19, -96, -53, 62, 10, -53, 95, -62),
        (20, -99, -49, 63, 10, -50, 97, -57),
        (21, -108, -46, 64, 10, -42, 98, -51),
        (22, -115, -42, 65, 10, -34, 99, -46),
        (23, -117, -37, 66, 10, -27, 100, -40),
        (24, -112, -30, 67, 10, -20, 101, -35),
        (25, -106, -23, 68, 10, -12, 102, -29),
        (26, -101, -16, 69, 10, -5, 103, -24),
        (27, -96, -10, 70, 10, 2, 103, -18),
        (33, -91, 14, 73, 8, 32, 103, 14),
        (34, -92, 20, 73, 8, 38, 103, 20),
        (36, -94, 31, 73, 8, 50, 102, 32),
        (41, -76, 84, 58, 8, 84, 80, 84),
    ],
    dtype=np.float64,
)
COLUMN_ANGLES = (0, 4, 8, 12, 16, 20, 24, 28, 32.5, 37, 41, 47, 53, 59, 65, 70.5, 76, 81)
COLUMN_ANGLES += (86, 91, 96, 101, 106, 117, 129, 142, 155, 167.5, 180)


def place_skin(skin: layout.SkinLayout, mesh: layout.HalfMesh) -> Floats:
    """Positions of the skin of the half head, shape ``(mesh.num_vertices, 3)``."""
    points = np.zeros((mesh.num_vertices, 3))
    points[skin.grid[skin.grid >= 0]] = _initial_grid()[skin.grid >= 0]
    fixed = np.zeros(mesh.num_vertices, dtype=bool)
    for place in (_place_mouth, _place_eye, _place_ear, _place_brow, _place_profile):
        place(skin, points)
    brow = skin.grid[_BROW]
    profile = skin.grid[PROFILE_ROWS, 0]
    for drawn in (skin.mouth[2:], skin.mouth_back, skin.eye[2:], skin.socket_back, skin.ear[1:]):
        fixed[drawn] = True
    for drawn in (skin.ear_floor, brow, profile):
        fixed[drawn] = True
    inner = skin.crown[1:-1, :-1]
    points[inner] = _initial_crown(points[skin.crown])
    _relax(points, skin, mesh, fixed)
    return points


def _initial_grid() -> Floats:
    """The grid as rings of quarter ellipses through the guide points, (rows, columns, 3)."""
    rows = np.arange(layout.NUM_ROWS + 1)
    guides = [np.interp(rows, ROW_GUIDES[:, 0], column) for column in ROW_GUIDES[:, 1:].T]
    y_front, z_front, x_side, y_side, z_side, y_back, z_back = (g[:, None] for g in guides)
    angles = np.radians(np.array(COLUMN_ANGLES, dtype=np.float64))[None]
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
    degree = np.bincount(np.concatenate([first, second]), minlength=len(points))
    free = ~fixed & (degree > 0)
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
    for _ in range(30):
        total = np.zeros_like(points)
        np.add.at(total, first, points[second])
        np.add.at(total, second, points[first])
        mean = total[free] / degree[free, None]
        points[free] += 0.5 * (mean - points[free])
        points[middle, 0] = 0.0
        points[free] = project(points[free], num_steps=2)
        points[rim, 2] = rim_z
        points[middle, 0] = 0.0
    points[free] = project(points[free], num_steps=6)
    points[rim, 2] = rim_z
    points[middle, 0] = 0.0


def _lip_lines(columns: NDArray[np.int_]) -> tuple[Floats, Floats, Floats]:
    """Contact line (N, 2) and vermilion border (N, 2) as x and z, and the fullness (N,)."""
    corner = layout.MOUTH_CORNER
    is_upper = columns > corner
    t = np.where(is_upper, 2 * corner - columns, columns) / corner
    s = 0.6 * t + 0.4 * np.sin(np.pi / 2 * t)  # 0 in the middle, 1 at the corner
    line_z = MOUTH_Z - 0.9 * np.exp(-((s / 0.17) ** 2)) + 0.8 * s**4
    gap = 0.5 * CONTACT_GAP * np.sign(columns - corner)
    contact = np.stack([MOUTH_HALF_WIDTH * s, line_z + gap], axis=1)
    taper = np.sqrt(np.clip(1.0 - s**2, 0.0, 1.0))
    bow = 1.0 + 0.12 * np.exp(-(((s - 0.26) / 0.13) ** 2)) - 0.14 * np.exp(-((s / 0.11) ** 2))
    height = np.where(is_upper, 7.6 * taper**1.3 * bow, -9.2 * taper**1.6)
    border_x = MOUTH_HALF_WIDTH * s * (1.0 + 0.06 * s**6)
    border_z = np.where(is_upper, MOUTH_Z, MOUTH_Z - 0.4) + 0.8 * s**4 + height
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
    swell_upper = (0.0, 0.0, 0.1, 0.5, 1.2, 3.0, 4.0, 3.2, -0.6)
    swell_lower = (0.0, 0.0, 0.0, 0.1, 0.5, 2.8, 4.4, 3.9, -0.6)
    shares = (0.0, 0.34, 0.64, 0.86, 1.0)
    drops = (0.0, 0.3, 0.58, 0.84, 1.0)
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


def _place_mouth_bag(
    skin: layout.SkinLayout, points: Floats, columns: NDArray[np.int_]
) -> None:
    """Rings behind the contact line: depth, height above and below, half width."""
    table = (
        (2.0, 0.3, 0.3, 24.6),
        (4.5, 1.4, 1.4, 24.6),
        (6.5, 5.0, 5.0, 25.2),
        (7.5, 10.0, 10.0, 26.0),
        (10.0, 15.0, 15.0, 27.0),
        (20.0, 18.0, 20.0, 27.0),
        (36.0, 15.0, 17.0, 21.0),
    )
    contact = points[skin.mouth[layout.CONTACT_RING]]
    share = contact[:, 0] / MOUTH_HALF_WIDTH
    lift = np.sqrt(np.clip(1.0 - share**2, 0.0, 1.0))
    corner = layout.MOUTH_CORNER
    for number, (depth, up, down, half_width) in enumerate(table, start=1):
        height = np.where(columns > corner, up, -down) * lift
        height = np.where(columns == corner, 0.0, height)
        back = (contact[:, 1] - contact[0, 1]) * max(1.0 - depth / 45.0, 0.0)
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
    z = -1.2 + 1.8 * along + np.where(is_upper, 5.6 * arch_upper, -5.0 * arch_lower)
    return np.stack([x, z], axis=1), is_upper


def _on_eye_sphere(flat: Floats, radius: float) -> Floats:
    """Points with offsets x, z in front of the eye, on a sphere about its centre."""
    inside = radius**2 - (flat**2).sum(axis=1)
    floor = (0.36 * radius) ** 2
    depth = np.sqrt(0.5 * (inside + floor + np.sqrt((inside - floor) ** 2 + 60.0)))
    return EYE_CENTER + np.stack([flat[:, 0], -depth, flat[:, 1]], axis=1)


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
    pulled = 0.96 - 0.1 * np.exp(-(((columns - 27) / 1.2) ** 2))  # the inner corner's flesh
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


LID_FOLD_RING = 4
PROFILE_ROWS = slice(layout.MOUTH_ROWS[1], layout.EYE_ROWS[0] + 1)
_BROW = (
    slice(layout.BROW_ROWS[0], layout.BROW_ROWS[1] + 1),
    slice(layout.BROW_COLUMNS[0], layout.BROW_COLUMNS[1] + 1),
)


def _place_profile(skin: layout.SkinLayout, points: Floats) -> None:
    """The middle line of the nose, kept at the heights of the guide points."""
    line = skin.grid[PROFILE_ROWS, 0]
    points[line] = project(points[line], direction=FORWARD)


def _place_brow(skin: layout.SkinLayout, points: Floats) -> None:
    """The brow, three rows of vertices from its head to its tail."""
    share = np.linspace(0.0, 1.0, layout.BROW_COLUMNS[1] - layout.BROW_COLUMNS[0] + 1)
    x = 11.5 + 42.5 * share
    arch = 17.5 + 8.0 * np.sin(np.pi * np.clip(0.05 + 0.72 * share, 0, 1)) - 1.5 * share
    thickness = 6.5 * (1.0 - share**2.2) + 1.6
    thickness[0] *= 0.8
    for row, (level, relief) in enumerate(((-0.5, 0.1), (0.0, 0.9), (0.5, 0.1))):
        flat = np.stack([x + 0.12 * level * thickness, np.zeros_like(x), arch + level * thickness], axis=1)
        flat[:, 1] = -92.0 + 0.012 * x**2
        placed = project(flat, direction=FORWARD)
        placed[:, 1] -= relief
        points[skin.grid[_BROW][row]] = placed


# Rings of the ear from the head to its hollow: reach to the front, back, top and bottom, and how
# far it stands out in front, behind and, where it differs there from behind, at the lobe.
EAR_RINGS = (
    (17.0, 18.0, 33.0, 33.0, 0.0, 0.0, 0.0),
    (14.5, 10.0, 26.0, 25.0, 0.6, 1.0, 1.0),
    (13.5, 13.0, 29.0, 28.5, 1.2, 6.0, 2.5),
    (12.8, 18.5, 32.5, 31.0, 2.2, 13.0, 4.0),
    (11.8, 18.0, 32.0, 30.5, 3.4, 15.5, 6.0),
    (10.6, 14.0, 27.5, 26.0, 3.0, 12.0, 6.8),
    (9.2, 10.5, 21.0, 19.0, 3.0, 13.0, 6.5),
    (6.6, 7.5, 12.0, 14.0, 1.0, 6.5, 4.5),
    (4.0, 4.5, 6.0, 9.0, -3.5, -1.0, -1.0),
)
EAR_CENTER = np.array([70.0, 13.0, -18.0])


def _place_ear(skin: layout.SkinLayout, points: Floats) -> None:
    """The ear as rings that leave the head, turn over at the rim and sink into the hollow."""
    columns = np.arange(28)
    angle = np.radians(np.interp(columns, (0, 5, 14, 19, 28), (-122, -55, 55, 122, 238)))
    behind, up = np.cos(angle), np.sin(angle)
    lobe = np.clip(-up, 0.0, 1.0) ** 2
    tilt = np.radians(9.0)
    sideways = np.array([1.0, 0.0, 0.0])
    for ring, (front, back, top, bottom, out_front, out_back, out_lobe) in enumerate(EAR_RINGS):
        a = behind * np.where(behind > 0, back * (1.0 + 0.12 * up), front)
        b = up * np.where(up > 0, top, bottom)
        y = a * np.cos(tilt) + b * np.sin(tilt)
        z = b * np.cos(tilt) - a * np.sin(tilt)
        start = np.stack([np.zeros(28), y, z], axis=1) + EAR_CENTER
        placed = project(start, direction=sideways)
        if ring >= 2:  # the ear is flatter than the head: it goes on from where it grows in front
            in_front = start * (1.0, 0.0, 1.0)
            placed[:, 0] = project(in_front, direction=sideways)[:, 0]
        out = out_front + (out_back - out_front) * (0.5 + 0.5 * behind)
        placed[:, 0] += out + lobe * (out_lobe - out)
        points[skin.ear[ring]] = placed
    _fill_cap(points, skin.ear_floor, 0.0)
