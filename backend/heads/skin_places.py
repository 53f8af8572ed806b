# SPDX-License-Identifier: GPL-3.0-or-later
"""Named places of the face's skin: the face points, and places midway between some of them.

A place is known on every head whose face points are known: the skin nearest to the mean of one to
three face points. What a shape does is told at these places (see ``shape_recipes``). Names are
those of the left side without ``_left``; a place of two points is ``one+other``, and a point named
twice counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from backend.heads.face_layout import FaceLayout
from backend.heads.topology import FACE_POINT_NAMES

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_NORMAL_REACH_MM: Final = 9.0
_NEAR_VERTICES: Final = 10
_TIE_MM: Final = 0.05
_NO_PLACES: Final = ("lip_", "lid_", "eye_", "neck_", "head_back", "crown")
"""Lips and lids move row by row; neck and skull do not."""

_BETWEEN: Final = """
lip_upper_outer_center+nose_base lip_upper_outer_1+nostril lip_upper_outer_1+nose_base
lip_upper_outer_2+nostril lip_upper_outer_2+smile_fold lip_upper_outer_3+smile_fold
lip_corner+smile_fold lip_corner+cheek_hollow lip_corner+lip_corner+cheek_hollow
lip_corner+jaw_line_2 lip_corner+lip_corner+jaw_line_2
lip_lower_outer_center+chin_crease lip_lower_outer_1+chin_crease lip_lower_outer_1+chin_left
lip_lower_outer_2+chin_left lip_lower_outer_2+jaw_line_1
lip_lower_outer_2+lip_lower_outer_2+jaw_line_1 lip_lower_outer_3+jaw_line_1
lip_lower_outer_3+lip_lower_outer_3+jaw_line_2 lip_lower_outer_3+jaw_line_2
chin_crease+chin chin_crease+chin_left chin+chin_bottom chin_left+chin_bottom
chin_left+jaw_line_1 jaw_line_1+jaw_line_2 jaw_line_2+jaw_line_3 jaw_line_3+jaw_line_4
smile_fold+nostril smile_fold+nose_side smile_fold+cheek smile_fold+cheek_hollow
nostril+lip_upper_outer_3 nose_side+smile_fold+cheek cheek+nose_side cheek+nose_bridge
cheek+cheek_hollow cheek+cheekbone cheekbone+cheek_hollow cheek+cheekbone+cheek_hollow
cheek_hollow+jaw_line_2 cheek_hollow+jaw_line_3 cheek_hollow+jaw_line_4 cheek_hollow+jaw_hinge
cheek_hollow+ear_lobe cheekbone+jaw_hinge cheekbone+temple cheekbone+eye_outer
nose_tip+nostril nose_side+nose_bridge nose_tip+nose_bridge nose_side+eye_inner
nose_bridge+eye_inner nose_root+eye_inner nose_root+nose_bridge nose_root+brow_center
nose_bridge+nose_bridge+eye_inner
cheek+eye_inner cheek+eye_inner+eye_inner cheek+lid_lower_2 cheek+lid_lower_3
cheek+lid_lower_3+lid_lower_3 cheek+lid_lower_5 cheek+lid_lower_5+lid_lower_5
cheekbone+lid_lower_4 cheekbone+lid_lower_5 cheekbone+lid_lower_5+lid_lower_5
eye_outer+temple eye_outer+eye_outer+temple eye_outer+brow_5 eye_outer+brow_4
lid_upper_1+brow_1 lid_upper_2+brow_2 lid_upper_3+brow_3 lid_upper_4+brow_4 lid_upper_5+brow_5
lid_upper_1+lid_upper_1+brow_1 lid_upper_2+lid_upper_2+brow_2 lid_upper_3+lid_upper_3+brow_3
lid_upper_4+lid_upper_4+brow_4 lid_upper_5+lid_upper_5+brow_4
eye_inner+brow_1 eye_inner+eye_inner+brow_1 eye_inner+brow_center
brow_1+brow_center brow_1+forehead_center brow_1+brow_1+forehead_center
brow_2+forehead brow_2+forehead_center brow_3+forehead brow_3+brow_3+forehead brow_4+forehead
brow_4+temple brow_5+temple brow_5+forehead forehead+temple forehead+forehead_center
brow_center+forehead_center
""".split()  # noqa: SIM905  # a list of 90 lines otherwise
"""Places between face points."""


@dataclass(frozen=True, slots=True)
class SkinPlaces:
    """The places on one head.

    Attributes:
        names: Name of each place; one that has two sides comes twice.
        sides: 1 for the left side, -1 for the right side, 0 for the centre, ``(N,)``.
        rows: Weights of the mesh's vertices in each place, ``(N, V)``; each row sums to one.
        normals: Unit normals of the skin around each place, ``(N, 3)``.
    """

    names: tuple[str, ...]
    sides: Ints
    rows: sparse.csr_matrix
    normals: Floats


def place_names() -> tuple[str, ...]:
    """Names of all places, without sides."""
    points: dict[str, None] = {}
    for point in FACE_POINT_NAMES:
        name = point.replace("_left", "").replace("_right", "")
        if not name.startswith(_NO_PLACES):
            points["chin_left" if point.startswith("chin_") and point != name else name] = None
    return (*points, *_BETWEEN)


def on_side(name: str, side: str) -> str:
    """The face point of a name without its side, ``left`` or ``right``."""
    if name == "chin_left":
        return name.replace("left", side)
    if name in FACE_POINT_NAMES:
        return name
    base, _, number = name.rpartition("_")
    return f"{base}_{side}_{number}" if number.isdigit() else f"{name}_{side}"


def skin_places(face: FaceLayout) -> SkinPlaces:
    """Finds the places on a head's skin."""
    names: list[str] = []
    sides: list[int] = []
    targets: list[Floats] = []
    for name in place_names():
        points = {
            side: [face.landmark_vertex[on_side(part, side)] for part in name.split("+")]
            for side in ("left", "right")
        }
        is_central = points["left"] == points["right"]
        names += [name] if is_central else [name, name]
        sides += [0] if is_central else [1, -1]
        targets += [face.points[points["left"]].mean(axis=0)]
        targets += [] if is_central else [face.points[points["right"]].mean(axis=0)]
    at = np.array(targets)
    rows = _nearest_on(face.points, face.skin_triangles, at)
    skin = np.unique(face.skin_triangles)
    places = rows @ face.points
    around = cKDTree(face.points[skin]).query_ball_point(places, _NORMAL_REACH_MM)
    normals = rows @ face.normals
    for i, near in enumerate(around):
        away = np.linalg.norm(face.points[skin[near]] - places[i], axis=1)
        normals[i] += (1.0 - away / _NORMAL_REACH_MM) @ face.normals[skin[near]]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return SkinPlaces(tuple(names), np.array(sides), rows, normals)


def _nearest_on(points: Floats, triangles: Ints, targets: Floats) -> sparse.csr_matrix:
    """Barycentric weights ``(N, V)`` of about the nearest place of a surface to each target."""
    used = np.unique(triangles)
    _, near = cKDTree(points[used]).query(targets, k=_NEAR_VERTICES)
    order = np.argsort(triangles, axis=None, kind="stable")
    starts = np.searchsorted(triangles.ravel()[order], np.arange(len(points) + 1))
    rows, columns, weights = [], [], []
    for i, (target, vertices) in enumerate(zip(targets, used[near], strict=True)):
        of = np.unique(np.concatenate([order[starts[v] : starts[v + 1]] // 3 for v in vertices]))
        a, b, c = (points[triangles[of, k]] for k in range(3))
        shares = _clamped_barycentric(a, b, c, target)
        at = np.einsum("nk,nki->ni", shares, np.stack([a, b, c], axis=1))
        # Quads are cut both ways, so places come in pairs: all that are about nearest count.
        away = np.linalg.norm(at - target, axis=1)
        closeness = np.exp((away.min() - away) / _TIE_MM)
        rows += [i] * (3 * len(of))
        columns += triangles[of].ravel().tolist()
        weights += (shares * (closeness / closeness.sum())[:, None]).ravel().tolist()
    shape = (len(targets), len(points))
    return sparse.coo_matrix((weights, (rows, columns)), shape=shape).tocsr()


def _clamped_barycentric(a: Floats, b: Floats, c: Floats, target: Floats) -> Floats:
    """Shares of the corners ``(n, 3)`` in the target's projection on triangles, kept inside."""
    u, v, w = b - a, c - a, target - a
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    wu, wv = (w * u).sum(1), (w * v).sum(1)
    area = np.maximum(uu * vv - uv * uv, 1e-12)
    s, t = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    shares = np.clip(np.stack([1 - s - t, s, t], axis=1), 0.0, None)
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12))
