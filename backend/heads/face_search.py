# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the face of a mesh of any size and orientation: which way it looks, and how large it is.

The mesh is drawn along the axes, from the top of its box downwards in smaller and smaller windows,
until the face detector sees a face and the landmark network agrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.heads.landmark_network import (
    DETECTOR_PIXELS,
    LANDMARK_PIXELS,
    Detection,
    detect,
    find_landmarks,
)
from backend.heads.landmark_views import (
    Floats,
    Surface,
    View,
    cut_out,
    normal_map,
    raster_of,
    shade,
    upright_axes,
)

FACE_SCORE: Final = 9.0
"""What the landmark network gives at least to a face (a logit)."""
_DETECTED: Final = 0.7
"""The detector's score from which on a landmark network's score is believed at once.

On ten heads the right orientation had 0.74 to 0.96 with 14 to 24; wrong ones with a score of
``FACE_SCORE`` at most 0.64.
"""
_WORTH_A_LOOK: Final = 0.3
"""The least one."""
_WINDOWS: Final = ((1.0, 0.75, 0.5), (0.35, 0.25, 0.17), (0.12, 0.085))
"""Heights of the windows, as shares of the mesh's height; tried group after group."""
_MARGIN: Final = 0.05
_MAP_PIXELS: Final = 384
_Maps = dict[tuple[float, ...], tuple[View, NDArray[np.float32]]]
"""Normal maps by the direction from which they are seen."""
CROP: Final = 1.5
"""Side of the landmark network's picture over that of the face's box."""

NO_FACE = (
    "No face is seen on this mesh: the face points are found on an open, human-like face with "
    "eyes, nose and mouth. Choose the head's own mesh, or mark its face points."
)


@dataclass(frozen=True, slots=True)
class FaceView:
    """A view that shows the face as the landmark network wants it.

    Attributes:
        view: The camera.
        landmarks: Places in the picture of ``LANDMARK_PIXELS`` (right, down, near), ``(478, 3)``.
        score: How much it looks like a face (a logit).
        detection: The detector's score, 0..1.
    """

    view: View
    landmarks: NDArray[np.float32]
    score: float
    detection: float


def find_face(surface: Surface) -> FaceView:
    """The face of a mesh, seen from its front.

    Args:
        surface: The mesh, in any unit and orientation.

    Returns:
        The view that shows it best.

    Raises:
        UserError: None is seen.
    """
    orientations = upright_axes()
    seen: list[FaceView] = []
    maps: _Maps = {}
    for group in (orientations[:2], orientations[2:]):
        for shares in _WINDOWS:
            tried = [axes for axes in group if shares[0] == 1.0 or _may_stand(surface, axes)]
            found = [c for axes in tried for c in _detections(surface, axes, shares, maps)]
            found = [c for c in found if c[0].score >= _WORTH_A_LOOK]
            for detection, view in sorted(found, key=lambda c: -c[0].score)[:3]:
                seen.append(_closer(surface, detection, view))
                if detection.score >= _DETECTED and seen[-1].score >= FACE_SCORE:
                    return seen[-1]
    best = max(seen, key=lambda face: face.score, default=None)
    if best is None or best.score < FACE_SCORE:
        raise UserError(NO_FACE)
    return best


def _may_stand(surface: Surface, axes: Floats) -> bool:
    """Whether a whole body may stand so: its box is flat, and no other side much longer."""
    extents = np.ptp(surface.vertices @ axes.T, axis=0)
    return bool(extents[1] > 0.75 * extents.max() and extents.min() < 0.55 * extents.max())


def _detections(
    surface: Surface, axes: Floats, shares: tuple[float, ...], maps: _Maps
) -> list[tuple[Detection, View]]:
    """What the detector sees in windows at the top of the mesh."""
    points = surface.vertices @ axes.T
    low, high = points.min(axis=0), points.max(axis=0)
    height, width = float(high[1] - low[1]), float(high[0] - low[0])
    views = []
    for share in shares:
        extent = height * share
        near = points[points[:, 1] >= high[1] - extent, 0]
        middle = float(near.min() + near.max()) / 2
        if share == 1.0:
            extent, middle = max(width, height), float(low[0] + high[0]) / 2
        extent *= 1.0 + 2 * _MARGIN
        top = high[1] + _MARGIN * height * share
        target = np.array([middle, top - extent / 2, 0.0]) @ axes
        views.append(View(axes, target, extent))
    # One drawing serves all rolls and windows in which it is fine enough.
    direction = tuple(axes[2]) if shares[0] == 1.0 else (*axes[1], *axes[2], shares[0])
    if direction not in maps:
        maps[direction] = (views[0], _normals(surface, views[0], _MAP_PIXELS))
    base, normals = maps[direction]
    pictures = [shade(cut_out(normals, base, view, DETECTOR_PIXELS)) for view in views]
    return list(zip(detect(np.stack(pictures)), views, strict=True))


def _normals(surface: Surface, view: View, pixels: int) -> NDArray[np.float32]:
    return normal_map(surface, view, raster_of(surface, view, pixels))


def _closer(surface: Surface, detection: Detection, view: View) -> FaceView:
    shift = ((detection.centre - 0.5) * (1.0, -1.0) * view.extent) @ view.axes[:2]
    extent = CROP * detection.size * view.extent
    closer = View(view.axes, view.target + shift, extent)
    landmarks, scores = find_landmarks(shade(_normals(surface, closer, LANDMARK_PIXELS))[None])
    return FaceView(closer, landmarks[0], float(scores[0]), detection.score)
