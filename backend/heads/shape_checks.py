# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells what will look wrong on a head: before its shapes are solved, and on the solved ones.

All lengths are in mm of a head with 62 mm between the eyes; left is the subject's.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from backend.heads.arkit import ARKIT_NAMES
from backend.heads.face_layout import FaceLayout, examine
from backend.heads.mesh import polygon_edges
from backend.heads.topology import Head, weld_head

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_SHALLOW_MM: Final = 10.0
"""A mouth that is less deep is a fold."""
_CLOSED_MM: Final = 3.0
"""Lids that are nowhere farther apart are closed."""
_FLAT: Final = 1.25
"""Where the way from lid to lid along the skin is hardly longer than straight, there is no eye."""
_OUT_OF_LINE_MM: Final = 4.5
"""A point of a lid or lip lies at most so far from between its neighbours."""
_TORN: Final = 3.0
_TORN_MM: Final = 2.0
"""An edge is torn where it gets so many times as long, and so much longer."""
_MANY_TORN: Final = 8
_OPEN_LIDS_MM: Final = 1.5
_OPEN_LIPS_MM: Final = 1.0
_CROSSED_MM: Final = 1.5
_AT_ONCE: Final = 4
"""So many warnings are read."""

_POSES: Final[dict[str, dict[str, float]]] = {
    "a blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "an open jaw": {"jawOpen": 1.0},
    "a closed mouth with an open jaw": {"jawOpen": 1.0, "mouthClose": 1.0},
    "a rounded mouth": {"jawOpen": 0.3, "mouthFunnel": 0.5, "mouthPucker": 0.6},
    "a smile": {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0},
}
_PLACES: Final = {
    "lip_corner": "mouth corner", "lip_upper": "upper lip", "lip_lower": "lower lip",
    "eye_inner": "inner eye corner", "eye_outer": "outer eye corner", "lid_upper": "upper lid",
    "lid_lower": "lower lid", "brow": "brow", "cheek": "cheek", "smile_fold": "cheek",
    "nose": "nose", "nostril": "nose", "chin": "chin", "jaw": "jaw", "forehead": "forehead",
    "temple": "temple", "ear": "ear", "neck": "neck", "crown": "head", "head": "head",
}  # fmt: skip


def check_before(head: Head) -> list[str]:
    """What of a head's mesh will look wrong when it moves; takes a fraction of a second.

    Args:
        head: A head with all face points.

    Returns:
        Sentences with the remedy.

    Raises:
        UserError: Its face cannot move at all; see ``face_layout.examine``.
    """
    face = examine(weld_head(head)[0])
    found = []
    edges = polygon_edges(
        face.pocket_triangles.ravel(), np.full(len(face.pocket_triangles), 3, np.int64)
    )
    depth = _way_across(face, edges, face.mouth.rows) / 2
    if depth < _SHALLOW_MM:
        found.append(
            f"The mouth is a fold, {depth:.0f} mm deep, without an inside: its ground will be seen "
            "stretched when the jaw opens. Model the inside of the mouth, or open it less."
        )
    found += _out_of_line(face)
    heights = {side: float(_gaps(face.points, eye.rows).max()) for side, eye in face.eyes.items()}
    closed = [side for side, height in heights.items() if height < _CLOSED_MM]
    if closed:
        eyes = "Both eyes are" if len(closed) == 2 else f"The {closed[0]} eye is"
        found.append(
            f"{eyes} closed in the rest shape, so blinks will not be seen. Choose a rest shape "
            "with open eyes."
        )
    for side in sorted(set(heights) - set(closed)):
        if _way_across(face, edges, face.eyes[side].rows) < _FLAT * heights[side]:
            found.append(
                f"The {side} eye has no opening: skin joins its lids, and a blink will crush it. "
                "Cut the mesh open between the lids, or delete the keys for blinks."
            )
    return found


def check_shapes(head: Head, offsets: NDArray[np.floating]) -> list[str]:
    """What looks wrong on a head's solved shapes.

    Args:
        head: A head with all face points.
        offsets: Of ``ARKIT_NAMES`` in the head's own space, ``(52, V, 3)``.

    Returns:
        Sentences that name the place; empty for a good head.
    """
    welded, number = weld_head(head)
    face = examine(welded)
    first = np.unique(number, return_index=True)[1]
    poses = {name: _posed(face, offsets, first, weights) for name, weights in _POSES.items()}
    found = [*_unmet_lids(face, poses["a blink"])]
    found += _unmet_lips(face, poses["a closed mouth with an open jaw"])
    found += _torn(face, poses)
    return found[:_AT_ONCE]


def _out_of_line(face: FaceLayout) -> list[str]:
    """Names the point of lids and inner lips that lies farthest from between its neighbours."""
    worst, how_far = "", _OUT_OF_LINE_MM
    for names in _lines():
        line = face.points[[face.landmark_vertex[name] for name in names]]
        for name, before, point, after in zip(
            names[1:], line[:-2], line[1:-1], line[2:], strict=False
        ):
            way = after - before
            share = np.clip((point - before) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
            off = float(np.linalg.norm(point - before - share * way))
            if off > how_far:
                worst, how_far = name, off
    if not worst:
        return []
    place = place_of(face, face.points[face.landmark_vertex[worst]])
    return [
        f"The face point {worst} lies {how_far:.0f} mm out of line with those beside it. Move it "
        f"to the edge of {place}."
    ]


def _lines() -> list[list[str]]:
    """Names of the points along each lid and each inner lip."""
    found = []
    for row in ("upper", "lower"):
        for side in ("left", "right"):
            middle = [f"lid_{row}_{side}_{i}" for i in range(1, 6)]
            found.append([f"eye_inner_{side}", *middle, f"eye_outer_{side}"])
        right, left = (
            [f"lip_{row}_inner_{side}_{i}" for i in (1, 2, 3)] for side in ("right", "left")
        )
        center = f"lip_{row}_inner_center"
        found.append(["lip_corner_right", *right[::-1], center, *left, "lip_corner_left"])
    return found


def _posed(
    face: FaceLayout, offsets: NDArray[np.floating], first: Ints, weights: dict[str, float]
) -> Floats:
    moved = face.points.copy()
    for name, weight in weights.items():
        own = offsets[ARKIT_NAMES.index(name), first]
        moved += weight * face.frame.offsets_to_face_mm(own)
    return moved


def _gaps(points: Floats, rows: dict[str, Ints]) -> Floats:
    """How far the upper of two rows lies over the lower one, along the inner 80 % of it."""
    upper, lower = (points[rows[name]] for name in ("upper", "lower"))
    upper, lower = (row[np.argsort(row[:, 0], kind="stable")] for row in (upper, lower))
    low, high = max(upper[0, 0], lower[0, 0]), min(upper[-1, 0], lower[-1, 0])
    x = np.linspace(low + 0.1 * (high - low), high - 0.1 * (high - low), 25)
    return np.asarray(
        np.interp(x, upper[:, 0], upper[:, 1]) - np.interp(x, lower[:, 0], lower[:, 1])
    )


def _way_across(face: FaceLayout, edges: Ints, rows: dict[str, Ints]) -> float:
    """Length of the shortest way behind two rows from one's middle to the other's; inf: none."""
    points = face.points
    x = points[np.concatenate(list(rows.values())), 0]
    middle, half = (x.min() + x.max()) / 2, (x.max() - x.min()) / 2
    inner = np.abs(points[edges, 0] - middle).max(axis=1) < 0.7 * half
    used = edges[inner]
    numbers, local = np.unique(used, return_inverse=True)
    local = local.reshape(-1, 2)
    length = np.linalg.norm(points[used[:, 0]] - points[used[:, 1]], axis=1)
    graph = sparse.coo_matrix(
        (np.maximum(length, 1e-9), (local[:, 0], local[:, 1])), shape=(len(numbers),) * 2
    ).tocsr()
    ends = [
        np.flatnonzero(np.isin(numbers, row) & (np.abs(points[numbers, 0] - middle) < half / 3))
        for row in (rows["upper"], rows["lower"])
    ]
    if not (len(ends[0]) and len(ends[1])):
        return float("inf")
    reached = csgraph.dijkstra(graph, directed=False, indices=ends[0], min_only=True)
    return float(reached[ends[1]].min())


def _unmet_lids(face: FaceLayout, blink: Floats) -> list[str]:
    found = []
    for side, eye in face.eyes.items():
        gap = _gaps(blink, eye.rows)
        if gap.max() > _OPEN_LIDS_MM:
            found.append(
                f"The lids of the {side} eye stay {gap.max():.1f} mm apart in a blink. Move the "
                f"face points of the {side} lids to their edges."
            )
        elif gap.min() < -_CROSSED_MM:
            found.append(
                f"The lids of the {side} eye cross by {-gap.min():.1f} mm in a blink. Move the "
                f"face points of the {side} lids to their edges."
            )
    return found


def _unmet_lips(face: FaceLayout, closed: Floats) -> list[str]:
    rest = np.maximum(_gaps(face.points, face.mouth.rows), 0.0)
    gap = _gaps(closed, face.mouth.rows)
    apart = gap - rest
    if apart.max() > _OPEN_LIPS_MM:
        what, how_far = "do not close", apart.max()
    elif gap.min() < -_CROSSED_MM:
        what, how_far = "pass through each other", -gap.min()
    else:
        return []
    return [
        f"The lips {what} by {how_far:.1f} mm when the mouth is closed with an open jaw. Move the "
        "face points of the inner lips to where the lips touch."
    ]


def _torn(face: FaceLayout, poses: dict[str, Floats]) -> list[str]:
    edges = polygon_edges(
        face.skin_triangles.ravel(), np.full(len(face.skin_triangles), 3, np.int64)
    )
    rest = np.linalg.norm(face.points[edges[:, 0]] - face.points[edges[:, 1]], axis=1)
    found = []
    for name, posed in poses.items():
        length = np.linalg.norm(posed[edges[:, 0]] - posed[edges[:, 1]], axis=1)
        longer = length - rest
        torn = np.flatnonzero((length > _TORN * rest) & (longer > _TORN_MM))
        if len(torn) < _MANY_TORN:
            continue
        worst = torn[longer[torn].argmax()]
        place = place_of(face, face.points[edges[worst]].mean(axis=0))
        found.append(
            f"The skin tears at {place} in {name}: {len(torn)} edges get over three times as long, "
            f"one by {longer[worst]:.0f} mm. Move the face points there."
        )
    return found


def place_of(face: FaceLayout, point: Floats) -> str:
    """Where a place of a face is, in words: ``the left mouth corner``."""
    names = list(face.landmark_vertex)
    away = np.linalg.norm(face.points[[face.landmark_vertex[n] for n in names]] - point, axis=1)
    name = names[int(away.argmin())]
    words = next(text for start, text in _PLACES.items() if name.startswith(start))
    side = next((f"{side} " for side in ("left", "right") if f"_{side}" in name), "")
    return f"the {side}{words}"
