# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the face points of any head with an open, human-like face: no click, no known topology.

The head is drawn from five directions and a face landmark network reads the pictures. The same is
done with the demo head, whose face points are known: the pairs of landmarks are the marks from
which all of its points follow on the other head, so what the network does wrong on both cancels.
Where the lips and the lids part is seen on the mesh itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from backend import bundled
from backend.errors import UserError
from backend.heads.face_search import CROP, FACE_SCORE, NO_FACE, FaceView, find_face
from backend.heads.landmark_network import LANDMARK_PIXELS, find_landmarks
from backend.heads.landmark_views import (
    Floats,
    Ints,
    Surface,
    View,
    normal_map,
    points_on_surface,
    raster_of,
    shade,
)
from backend.heads.mesh import Mesh
from backend.heads.mesh_files import read_head
from backend.heads.point_transfer import Bend, nearest_facing, robust_similarity
from backend.heads.topology import FACE_POINT_NAMES, Head, face_frame, identify

VIEWS: Final = ((0.0, 0.0), (20.0, 0.0), (-20.0, 0.0), (0.0, 12.0), (0.0, -12.0))
"""Yaw and pitch of the cameras in degrees."""
MIN_VIEWS: Final = 4
"""So many of the views must look like a face."""
_FACE_LANDMARKS: Final = 468
"""The others are the irises."""
_LEAST_FACING: Final = 0.3
"""Cosine under which a landmark lies too close to the outline to be placed on the surface."""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The network's landmarks on a head's surface.

    Attributes:
        points: Places in the mesh's space, ``(468, 3)``; NaN where no view places one.
        weights: How well each is seen, 0..1, ``(468,)``.
        spread: How far the views disagree about each, in the mesh's unit, ``(468,)``.
        scores: How much each view looks like a face (a logit), ``(5,)``.
    """

    points: Floats
    weights: Floats
    spread: Floats
    scores: Floats


def read_views(surface: Surface, skin: int, front: View) -> Landmarks:
    """Read a head's landmarks from five views.

    Args:
        surface: The head.
        skin: Which of its connected parts has the face.
        front: The view from the front; the others are turned from it.
    """
    views = [front.turned(yaw, pitch) for yaw, pitch in VIEWS]
    rasters = [raster_of(surface, view, LANDMARK_PIXELS) for view in views]
    pictures = [shade(normal_map(surface, v, r)) for v, r in zip(views, rasters, strict=True)]
    places, scores = find_landmarks(np.stack(pictures))
    places = places[:, :_FACE_LANDMARKS, :2]
    alone = surface.part(skin)
    has_others = len(alone.triangles) < len(surface.triangles)
    points, facing = [], []
    for view, raster, place in zip(views, rasters, places, strict=True):
        skin_raster = raster_of(alone, view, LANDMARK_PIXELS) if has_others else raster
        found = points_on_surface(alone, view, skin_raster, place)
        points.append(found[0])
        facing.append(found[1])
    weights = np.where(np.stack(facing) < _LEAST_FACING, 0.0, np.square(np.stack(facing)))
    middle, spread = _weighted_median(np.stack(points), weights)
    return Landmarks(middle, weights.max(axis=0), spread, scores.astype(np.float64))


def _weighted_median(points: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Geometric medians over the first axis, ``(N, 3)``, and the mean distances from them."""
    points = np.nan_to_num(points)
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore"):
        middle = (weights[..., None] * points).sum(axis=0) / total[:, None]
        for _ in range(12):
            away = np.linalg.norm(points - middle, axis=2)
            pull = weights / np.maximum(away, 1e-3 * away.max(axis=0) + 1e-12)
            middle = (pull[..., None] * points).sum(axis=0) / pull.sum(axis=0)[:, None]
        spread = (weights * np.linalg.norm(points - middle, axis=2)).sum(axis=0) / total
    return middle, spread


def front_view(axes: Floats, points: Floats) -> View:
    """The view from the front of a face whose landmarks lie at ``points``, cut out as usual."""
    seen = points[np.isfinite(points).all(axis=1)] @ axes.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    target = np.array([*(low + high)[:2] / 2, np.median(seen[:, 2])]) @ axes
    return View(axes, target, CROP * float((high - low)[:2].max()))


@dataclass(frozen=True, slots=True)
class _Reference:
    """The demo head in the face's axes, in mm.

    Attributes:
        points: Its face points in the order of ``FACE_POINT_NAMES``, ``(111, 3)``.
        normals: Which way its surface faces there, ``(111, 3)``.
        landmarks: What the network reads on it.
        skin: A sample of its outer skin, ``(N, 3)``.
        skin_normals: Which way the skin faces there, ``(N, 3)``.
    """

    points: Floats
    normals: Floats
    landmarks: Landmarks
    skin: Floats
    skin_normals: Floats


@cache
def reference() -> _Reference:
    """The demo head, read once in a process."""
    mesh = read_head(bundled.DEMO_HEAD)
    head = identify(*mesh)
    frame = face_frame(head)
    surface = Surface.from_mesh((frame.to_face_mm(head.vertices), *mesh[1:]))
    numbers = head.topology.face_point_vertices
    skin = int(surface.components[numbers[0]])
    view = front_view(np.eye(3), surface.vertices[numbers[:_NUM_FACE]])
    for _ in range(2):  # the second time with the network's own crop
        landmarks = read_views(surface, skin, view)
        view = front_view(np.eye(3), landmarks.points)
    outer = _sample(surface.vertices, _outer_skin(head), _SAMPLES)
    return _Reference(
        surface.vertices[numbers],
        surface.normals[numbers],
        landmarks,
        surface.vertices[outer],
        surface.normals[outer],
    )


def _outer_skin(head: Head) -> Ints:
    inside = [head.part(role) for role in ("mouth_inside", "socket_left", "socket_right")]
    return np.setdiff1d(head.part("skin"), np.concatenate(inside))


def _sample(points: Floats, numbers: Ints, count: int) -> Ints:
    """Some of the numbered points, evenly far from each other: each next is the farthest."""
    places = points[numbers]
    chosen = [0]
    distance = np.linalg.norm(places - places[0], axis=1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(places - places[chosen[-1]], axis=1))
    return numbers[chosen]


_SAMPLES: Final = 500


_NUM_FACE: Final = FACE_POINT_NAMES.index("crown")
"""The first points lie on the face and ears."""


def bend_to(found: Landmarks, surface: Surface, skin: int) -> Bend:
    """The bend that brings the demo head onto a head.

    Args:
        found: Landmarks of the head, in the demo head's face axes and mm.
        surface: The head, in the same.
        skin: Which of its connected parts has the face.
    """
    known = reference()
    weights = np.minimum(found.weights, known.landmarks.weights)
    weights[list(_OUTLINE)] = 0.0
    used = np.flatnonzero(weights > 0.0)
    at, goal = known.landmarks.points[used], found.points[used]
    slack = _LANDMARK_SLACK_MM / np.sqrt(weights[used])
    bend = Bend.through(at, goal, slack)
    vertices = np.unique(surface.triangles[surface.components[surface.triangles[:, 0]] == skin])
    places, facing = surface.vertices[vertices], surface.normals[vertices]
    # Where no landmark is, the bent surface settles on the head's own: nearest, facing alike.
    scaled = np.concatenate([places, _TURN_MM * facing], axis=1)
    tree = cKDTree(scaled)
    far = cKDTree(at).query(known.skin)[0] > _NEAR_LANDMARKS_MM
    skin_points, skin_normals = known.skin[far], known.skin_normals[far]
    for limit in _SETTLING_MM:
        moved = bend.apply(skin_points)
        _, nearest = tree.query(np.concatenate([moved, _TURN_MM * skin_normals], axis=1))
        normals = facing[nearest]
        gap = ((places[nearest] - moved) * normals).sum(axis=1)
        close = np.linalg.norm(places[nearest] - moved, axis=1) < limit
        close &= (normals * skin_normals).sum(axis=1) > 0.5
        bend = Bend.through(
            np.concatenate([at, skin_points[close]]),
            np.concatenate([goal, moved[close] + gap[close, None] * normals[close]]),
            np.concatenate([slack, np.full(close.sum(), _SURFACE_SLACK_MM)]),
        )
    return bend


_LANDMARK_SLACK_MM: Final = 0.7
_SURFACE_SLACK_MM: Final = 2.0
_TURN_MM: Final = 15.0
_NEAR_LANDMARKS_MM: Final = 15.0
_SETTLING_MM: Final = (40.0, 30.0, 25.0, 20.0)
_OUTLINE: Final = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""Landmarks on the outline of a face that is seen from the front: their depth is not seen."""
