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
from dataclasses import dataclass, replace
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
from backend.heads.mesh import Mesh, polygon_edges
from backend.heads.mesh_files import read_head
from backend.heads.parting import Openings
from backend.heads.point_transfer import Bend, nearest_facing, robust_similarity
from backend.heads.rasterise import Raster
from backend.heads.topology import (
    FACE_POINT_NAMES,
    Head,
    UnknownHeadError,
    face_frame,
    identify,
)
from backend.heads.weld import is_half, weld

VIEWS: Final = ((0.0, 0.0), (20.0, 0.0), (-20.0, 0.0), (0.0, 12.0), (0.0, -12.0))
"""Yaw and pitch of the cameras in degrees."""
_SIDE_VIEWS: Final = ((45.0, 0.0), (-45.0, 0.0))
"""Those that show where the jaw ends and the ear begins, on the side that is nearer."""
MIN_VIEWS: Final = 4
"""So many of the views must look like a face."""
_FACE_LANDMARKS: Final = 468
"""The others are the irises."""
_NOSE_TIP: Final = 4
_OUTLINE: Final = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""Landmarks on the outline of a face that is seen from the front: their depth is not seen."""
_DEEP_PIXELS: Final = 14.0
"""A landmark lies so near to the depth where the network expects it."""
_WINDOW: Final = 4
"""So many pixels off, a landmark is taken to the skin."""
_LEAST_SKIN: Final = 4 * len(FACE_POINT_NAMES)
"""Vertices of a part that may be the skin."""
_COVERED: Final = 0.012
"""Part of the picture's side by which something else lies before the skin."""
_HIDING: Final = 0.01
"""A part hides the face from this share of its pixels on."""
_LARGEST_FEATURE: Final = 0.6
"""What covers a face is wider or taller than this share of the face's width; an eye is smaller."""
_LEAST_FACING: Final = 0.3
"""Cosine under which a landmark lies too close to the outline to be placed on the surface."""


_LANDMARK_SLACK_MM: Final = 0.7
"""Standard deviation of a landmark that faces the viewer."""
_OUTLINE_SLACK_MM: Final = 3.0
"""That of a landmark of the outline."""
_SURFACE_SLACK_MM: Final = 2.0
"""That of the distance of surfaces that should lie on each other."""
_NEAR_LANDMARKS_MM: Final = 15.0
"""So near to a landmark, the surface follows the landmarks alone."""
_SETTLING_MM: Final = (40.0, 30.0, 25.0, 20.0)
"""How far the demo head's surface may lie from the head's, step after step, to be drawn to it."""
_TURN_MM: Final = 15.0
"""What a right angle between two normals counts, over the square root of two."""
_SAMPLES: Final = 500
"""Places of the demo head's skin that settle on the head's."""

_HALF_A_HEAD: Final = (
    "This is half a head: it ends in a plane through its middle. Apply its Mirror modifier, or "
    "mirror and join the mesh, since a face moves on either side by itself."
)
_STILL_POINTS = ("ear_", "crown", "head_back", "neck_")
"""What the names of points begin with that only say where the head does not move."""
DOUBTFUL: Final = 0.4
"""A point of less confidence should be looked at."""
_SUPPORT_MM: Final = 50.0
_SPREAD_MM: Final = 8.0
_COST_MM: Final = 25.0
"""Confidence falls to 1/e: so far from the landmarks, with views so far from agreeing, and with the
chosen vertex so far from where the point should be."""
_SEEN_PARTING: Final = 0.8
"""Least confidence of a point where the surface is seen to part."""
_UNSEEN_PARTING: Final = 0.5
"""Factor of those that lie at such a place by their name, where none is seen."""
_OF_OPENINGS: Final = ("lip_corner", "lip_upper_inner", "lip_lower_inner", "lid_")
_LEAST_LIP_MM: Final = 0.5
"""An outer lip point lies so far above, or below, the row of its lip's inner ones."""
_STEPS: Final = 5


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

    Returns:
        Where the views, taken together, place each landmark.
    """
    views = [front.turned(yaw, pitch) for yaw, pitch in VIEWS + _SIDE_VIEWS]
    rasters = [raster_of(surface, view, LANDMARK_PIXELS) for view in views]
    pictures = [shade(normal_map(surface, v, r)) for v, r in zip(views, rasters, strict=True)]
    places, scores = find_landmarks(np.stack(pictures))
    places = places[:, :_FACE_LANDMARKS]
    alone = surface.part(skin)
    has_others = len(alone.triangles) < len(surface.triangles)
    points, facing = [], []
    for view, raster, place in zip(views, rasters, places, strict=True):
        shown = raster_of(alone, view, LANDMARK_PIXELS) if has_others else raster
        nearness = _nearness(alone, view, shown)
        if has_others:
            before = _nearness(surface, view, raster) - nearness
            nearness[before > _COVERED * view.extent] = np.nan
        moved = _to_skin(place, nearness * LANDMARK_PIXELS / view.extent)
        point, cosine = points_on_surface(alone, view, shown, moved)
        points.append(point)
        facing.append(cosine)
    weights = np.where(np.stack(facing) < _LEAST_FACING, 0.0, np.square(np.stack(facing)))
    to_left = places[0, :, 0] - places[0, _NOSE_TIP, 0]  # the subject's left is the picture's right
    outline = np.zeros(_FACE_LANDMARKS, dtype=bool)
    outline[list(_OUTLINE)] = True
    weights[: len(VIEWS), outline] = 0.0
    for number, (yaw, _) in enumerate(_SIDE_VIEWS, start=len(VIEWS)):
        is_far_side = to_left * np.sign(yaw) < -0.02 * LANDMARK_PIXELS
        weights[number, ~outline | is_far_side] = 0.0
    middle, spread = _weighted_median(np.stack(points), weights)
    seen = scores[: len(VIEWS)].astype(np.float64)
    return Landmarks(middle, weights.max(axis=0), spread, seen)


def _nearness(surface: Surface, view: View, raster: Raster) -> Floats:
    """How near to the viewer each pixel is, in the mesh's unit; NaN in the background."""
    _, depth = view.screen(surface.vertices, LANDMARK_PIXELS)
    found = np.full(raster.triangle.shape, np.nan)
    shown = raster.triangle >= 0
    found[shown] = raster.interpolated(depth[:, None], surface.triangles)[:, 0]
    return found


def _to_skin(places: NDArray[np.float32], nearness: Floats) -> Floats:
    """The landmarks moved to the nearest pixels of the skin; NaN where there are none.

    A landmark of a lid may lie a little beside it, where the picture shows the eye or its socket.

    Args:
        places: The network's: right, down, and away from the viewer, in pixels, ``(N, 3)``.
        nearness: Of the skin at each pixel, in pixels; NaN where there is none, ``(H, W)``.

    Returns:
        Right and down in pixels, ``(N, 2)``.
    """
    steps = np.arange(-_WINDOW, _WINDOW + 1)
    window = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    window = window[np.argsort((window**2).sum(axis=1), kind="stable")]
    pixel = np.floor(places[:, :2]).astype(np.int64)
    near = np.clip(pixel[:, None] + window, 0, LANDMARK_PIXELS - 1)  # (N, windows, 2)
    behind = -nearness[near[..., 1], near[..., 0]] - places[:, 2:]
    with np.errstate(invalid="ignore"):
        good = np.abs(behind - np.nanmedian(behind[:, 0])) < _DEEP_PIXELS
    first = good.argmax(axis=1)
    found = np.where((first == 0)[:, None], places[:, :2], pixel + window[first] + 0.5)
    found[~good.any(axis=1)] = np.nan
    return found


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


def face_landmarks_seen(surface: Surface, face: FaceView) -> tuple[Floats, int]:
    """Where a view's landmarks lie on the surface, ``(468, 3)``, and the part that has most."""
    raster = raster_of(surface, face.view, LANDMARK_PIXELS)
    places = face.landmarks[:_FACE_LANDMARKS]
    nearness = _nearness(surface, face.view, raster) * LANDMARK_PIXELS / face.view.extent
    moved = _to_skin(places, nearness)
    points, facing = points_on_surface(surface, face.view, raster, moved)
    points[facing < _LEAST_FACING] = np.nan
    pixel = np.clip(places[:, :2], 0, LANDMARK_PIXELS - 1).astype(np.int64)
    shown = raster.triangle[pixel[:, 1], pixel[:, 0]]
    parts = surface.components[surface.triangles[shown[shown >= 0], 0]]
    counts = np.bincount(parts, minlength=int(surface.components.max()) + 1)
    counts[np.bincount(surface.components) < _LEAST_SKIN] = 0
    return points, int(counts.argmax())


def covering_parts(surface: Surface, face: FaceView, skin: int) -> Ints:
    """Numbers of the parts that hide the face: hair, a mask, helper meshes; no eyes or lashes."""
    raster = raster_of(surface, face.view, LANDMARK_PIXELS)
    alone = raster_of(surface.part(skin), face.view, LANDMARK_PIXELS)
    low, high = np.clip(np.percentile(face.landmarks[:, :2], (2, 98), axis=0), 0, None).astype(int)
    box = slice(low[1], high[1]), slice(low[0], high[0])
    shown = raster.triangle[box][alone.triangle[box] >= 0]
    hiding = surface.components[surface.triangles[shown[shown >= 0], 0]]
    parts, pixels = np.unique(hiding[hiding != skin], return_counts=True)
    parts = parts[pixels > _HIDING * max(len(shown), 1)]
    screen, _ = face.view.screen(surface.vertices, LANDMARK_PIXELS)
    width = high[0] - low[0]
    sizes = [np.ptp(screen[surface.components == part], axis=0).max() for part in parts]
    return np.asarray(parts[np.array(sizes) > _LARGEST_FEATURE * width], dtype=np.int64)


def front_view(axes: Floats, points: Floats, view: View, places: NDArray[np.floating]) -> View:
    """The view from the front of a face, cut out as the network wants it.

    Args:
        axes: The face's.
        points: Its landmarks in the mesh's space, ``(N, 3)``; NaN where unknown.
        view: One in which they were read.
        places: Right and down in its picture of ``LANDMARK_PIXELS``, ``(N, 2)``.

    Returns:
        The view.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    scale = view.extent / LANDMARK_PIXELS
    shift = ((low + high) / 2 - LANDMARK_PIXELS / 2) * (scale, -scale)
    target = view.target + shift @ view.axes[:2]
    depth = np.nanmedian((points - target) @ view.axes[2])
    return View(axes, target + depth * view.axes[2], CROP * scale * float((high - low).max()))


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
    seen = find_face(surface)
    points, _ = face_landmarks_seen(surface, seen)
    view = front_view(np.eye(3), points, seen.view, seen.landmarks[:_FACE_LANDMARKS, :2])
    landmarks = read_views(surface, skin, view)
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


def bend_to(found: Landmarks, surface: Surface, skin: int) -> Bend:
    """The bend that brings the demo head onto a head.

    Args:
        found: Landmarks of the head, in the demo head's face axes and mm.
        surface: The head, in the same.
        skin: Which of its connected parts has the face.

    Returns:
        The bend, in mm.
    """
    known = reference()
    weights = np.minimum(found.weights, known.landmarks.weights)
    used = np.flatnonzero(weights > 0.0)
    at, goal = known.landmarks.points[used], found.points[used]
    slack = np.where(np.isin(used, _OUTLINE), _OUTLINE_SLACK_MM, _LANDMARK_SLACK_MM)
    slack = slack / np.sqrt(weights[used])
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


@dataclass(frozen=True, slots=True)
class FoundPoints:
    """The face points of a head.

    Attributes:
        face_points: Name to vertex number, all of ``FACE_POINT_NAMES``.
        confidence: Name to how far the point can be trusted, 0..1.
        scores: How much each of the five views looks like a face (a logit).
        axes: The face's axes in the mesh's space: left, up, out of the face; rows of ``(3, 3)``.
        interocular: Distance of the eyes' centres in the mesh's unit.
        seconds: How long it took.
    """

    face_points: dict[str, int]
    confidence: dict[str, float]
    scores: list[float]
    axes: Floats
    interocular: float
    seconds: float

    @property
    def doubtful(self) -> list[str]:
        """Names of the points that should be looked at."""
        return [n for n in FACE_POINT_NAMES if self.confidence[n] < DOUBTFUL]

    @property
    def doubtful_in_face(self) -> list[str]:
        """The doubtful ones without ears, neck and skull, which never move."""
        return [name for name in self.doubtful if not name.startswith(_STILL_POINTS)]

    def warning(self, *, of_the_face: bool = False) -> str:
        """What the user should look at.

        Args:
            of_the_face: Whether to leave out ears, neck and skull, which never move.

        Returns:
            One or two sentences; empty where nothing is doubtful.
        """
        names = self.doubtful_in_face if of_the_face else self.doubtful
        if not names:
            return ""
        listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        return (
            f"{len(names)} of {len(FACE_POINT_NAMES)} face points were found but are doubtful: "
            f"{listed}. Look at the head there; mark them by hand where they are wrong."
        )

    def keeping(self, marked: dict[str, int], mesh: Mesh) -> FoundPoints:
        """The same points, those that the user has marked where they were marked.

        A found point whose vertex is marked as another one goes to the nearest vertex beside it.

        Args:
            marked: Name to vertex number of the marked points; other names are ignored.
            mesh: The mesh on which both were found.

        Returns:
            All points; a marked one is never doubtful.

        Raises:
            UserError: The mesh has no such vertex.
        """
        kept = {name: marked[name] for name in FACE_POINT_NAMES if name in marked}
        vertices, corners, sizes = mesh
        if any(not 0 <= vertex < len(vertices) for vertex in kept.values()):
            raise UserError("A marked face point is no vertex of the head. Mark it again.")
        if not kept:
            return self
        edges = polygon_edges(corners, sizes)
        points = self.face_points | kept
        for name in FACE_POINT_NAMES:
            others = {vertex for other, vertex in points.items() if other != name}
            if name not in kept and points[name] in others:
                points[name] = _free_neighbour(points[name], others, vertices, edges)
        confidence = self.confidence | dict.fromkeys(kept, 1.0)
        return replace(self, face_points=points, confidence=confidence)

    def as_report(self) -> dict[str, object]:
        """What the report of a job says of the points; those that never move are not doubtful."""
        return {"face_points": self.face_points, "doubtful_face_points": self.doubtful_in_face}

    def as_json(self) -> dict[str, object]:
        """All of it, as JSON can hold it."""
        return {
            "face_points": self.face_points,
            "confidence": self.confidence,
            "doubtful": self.doubtful,
            "scores": self.scores,
            "axes": [[round(float(x), 6) for x in row] for row in self.axes],
            "interocular": self.interocular,
            "seconds": round(self.seconds, 3),
        }


def _free_neighbour(vertex: int, taken: set[int], vertices: Floats, edges: Ints) -> int:
    """The nearest vertex along edges that is not taken, within a few rings of a vertex."""
    reached = {vertex}
    while True:
        listed = list(reached)
        beside = edges[np.isin(edges, listed).any(axis=1)].ravel()
        grown = reached | set(beside.tolist())
        free = np.array(sorted(grown - taken), dtype=np.int64)
        if len(free):
            away = np.linalg.norm(vertices[free] - vertices[vertex], axis=1)
            return int(free[away.argmin()])
        if grown == reached:
            return vertex  # a part of marked points alone; what identifies the head says so
        reached = grown


def find_face_points(
    mesh: Mesh, *, progress: Callable[[float, float], None] | None = None
) -> FoundPoints:
    """Find all face points of a head.

    Args:
        mesh: In any unit and orientation; a whole body too.
        progress: Called with the steps done and their number.

    Returns:
        Vertex numbers of all points, how far each can be trusted, and how the face was found.

    Raises:
        UserError: No face is seen on it.
    """
    started = time.monotonic()
    report = progress or (lambda _done, _total: None)
    welded = weld(mesh)
    mesh = welded.mesh
    vertices = mesh[0]
    surface = Surface.from_mesh(mesh)
    report(0, _STEPS)
    try:
        face = find_face(surface)
    except UserError as error:
        if is_half(mesh):
            raise UserError(_HALF_A_HEAD) from error
        raise
    report(1, _STEPS)
    known = reference()
    report(2, _STEPS)
    points, skin = face_landmarks_seen(surface, face)
    covering = covering_parts(surface, face, skin)
    if len(covering):
        surface = surface.without(covering)
        face = find_face(surface)
        points, skin = face_landmarks_seen(surface, face)
    usable = np.isfinite(points).all(axis=1) & (known.landmarks.weights > 0.0)
    if usable.sum() < _FACE_LANDMARKS // 4:
        raise UserError(_HALF_A_HEAD if is_half(mesh) else NO_FACE)
    axes = robust_similarity(known.landmarks.points, points, usable.astype(float)).rotation.T
    places = face.landmarks[:_FACE_LANDMARKS, :2]
    found = read_views(surface, skin, front_view(axes, points, face.view, places))
    if (found.scores >= FACE_SCORE).sum() < MIN_VIEWS:
        raise UserError(_HALF_A_HEAD if is_half(mesh) else NO_FACE)
    report(3, _STEPS)
    weights = np.minimum(found.weights, known.landmarks.weights)
    fit = robust_similarity(known.landmarks.points, found.points, weights)
    in_mm = replace(
        surface,
        vertices=(vertices - fit.translation) @ fit.rotation / fit.scale,
        normals=surface.normals @ fit.rotation,
    )
    landmarks = replace(
        found,
        points=(found.points - fit.translation) @ fit.rotation / fit.scale,
        spread=found.spread / fit.scale,
    )
    bend = bend_to(landmarks, in_mm, skin)
    report(4, _STEPS)
    numbers, confidence = _choose(bend, landmarks, in_mm, mesh, skin)
    face_points = {name: int(numbers[name]) for name in FACE_POINT_NAMES}
    frame = face_frame(identify(*mesh, face_points=face_points))
    report(_STEPS, _STEPS)
    return FoundPoints(
        {name: int(welded.first[vertex]) for name, vertex in face_points.items()},
        confidence,
        [round(float(score), 1) for score in found.scores],
        frame.axes,
        frame.interocular,
        time.monotonic() - started,
    )


def _choose(
    bend: Bend, landmarks: Landmarks, surface: Surface, mesh: Mesh, skin: int
) -> tuple[dict[str, int], dict[str, float]]:
    """A vertex for each point, and how far it can be trusted."""
    known = reference()
    at = dict(zip(FACE_POINT_NAMES, bend.apply(known.points), strict=True))
    is_skin = surface.components[surface.triangles[:, 0]] == skin
    edges = polygon_edges(mesh[1], mesh[2])
    openings = Openings(
        surface.vertices,
        surface.triangles[is_skin],
        surface.triangles[~is_skin],
        edges[surface.components[edges[:, 0]] == skin],
    )
    chosen = openings.lips(at)
    for side in ("left", "right"):
        chosen |= openings.lids(at, side, set(chosen.values()))
    parted = set(chosen)
    candidates = np.flatnonzero(surface.components == skin)
    costs: dict[str, float] = {}
    for names, allowed in _groups(chosen, surface.vertices, candidates):
        numbers, group_costs = nearest_facing(
            np.stack([at[name] for name in names]),
            known.normals[[FACE_POINT_NAMES.index(name) for name in names]],
            surface.vertices,
            surface.normals,
            np.setdiff1d(allowed, list(chosen.values())),
        )
        chosen |= dict(zip(names, numbers.tolist(), strict=True))
        costs |= dict(zip(names, group_costs.tolist(), strict=True))
    seen = landmarks.weights > 0.0
    seen &= known.landmarks.weights > 0.0
    support = cKDTree(known.landmarks.points[seen])
    confidence = {}
    for name in FACE_POINT_NAMES:
        away, near = support.query(known.points[FACE_POINT_NAMES.index(name)], k=4)
        spread = float(np.mean(landmarks.spread[seen][near]))
        trust = float(np.exp(-float(away.mean()) / _SUPPORT_MM) * np.exp(-spread / _SPREAD_MM))
        confidence[name] = trust
    for name, cost in costs.items():
        confidence[name] *= float(np.exp(-cost / _COST_MM))
        if name.startswith(_OF_OPENINGS):  # the surface was not seen to part there
            confidence[name] *= _UNSEEN_PARTING
    for name in parted:  # seen on the mesh itself
        confidence[name] = max(confidence[name], _SEEN_PARTING)
    return chosen, {name: round(value, 2) for name, value in confidence.items()}


def _groups(
    chosen: dict[str, int], points: Floats, candidates: Ints
) -> list[tuple[list[str], Ints]]:
    """Names that are still to be chosen, and from which vertices: a lip's from its own side."""
    rest = [name for name in FACE_POINT_NAMES if name not in chosen]
    groups: list[tuple[list[str], Ints]] = []
    for lip, sign in (("upper", 1.0), ("lower", -1.0)):
        row = [v for name, v in chosen.items() if name.startswith((f"lip_{lip}_in", "lip_corner"))]
        if row:
            along = points[sorted(row, key=lambda v: points[v, 0])]
            height = np.interp(points[candidates, 0], along[:, 0], along[:, 1])
            beyond = sign * (points[candidates, 1] - height) > _LEAST_LIP_MM
            names = [name for name in rest if name.startswith(f"lip_{lip}_outer")]
            groups.append((names, candidates[beyond]))
            rest = [name for name in rest if name not in names]
    return [*groups, (rest, candidates)]


def identify_or_find(
    mesh: Mesh,
    *,
    topology: str,
    face_points: dict[str, int] | None,
    num_own: int | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> tuple[Head, FoundPoints | None]:
    """The head that a mesh is: known, marked, or else with face points that are found.

    Args:
        mesh: In any unit and orientation.
        topology: ``auto``, a shipped topology's name, or a JSON file.
        face_points: Points marked on this very mesh; those that are missing are found.
        num_own: Number of first vertices that are the head's own, where the points are looked for;
            after them come other meshes of its character.
        progress: Called with the steps done and their number, where points are looked for.

    Returns:
        The head, and its points where they had to be found.

    Raises:
        UserError: It is none of these; the message says why and what to do.
    """
    marked = face_points or {}
    is_complete = not marked or marked.keys() >= set(FACE_POINT_NAMES) or topology != "auto"
    try:
        head = identify(*mesh, topology=topology, face_points=face_points if is_complete else None)
    except UnknownHeadError:
        own = mesh if num_own is None else _first_vertices(mesh, num_own)
        found = find_face_points(own, progress=progress).keeping(marked, own)
        return identify(*mesh, face_points=found.face_points), found
    if not is_complete:  # a known head on which some points were moved by hand
        head = identify(*mesh, face_points=dict(head.topology.face_points) | marked)
    return head, None


def _first_vertices(mesh: Mesh, count: int) -> Mesh:
    """The part of a mesh that its first vertices and the faces among them are."""
    vertices, corners, sizes = mesh
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    is_own = np.maximum.reduceat(corners, starts) < count
    return vertices[:count], corners[np.repeat(is_own, sizes)], sizes[is_own]
