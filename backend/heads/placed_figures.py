# SPDX-License-Identifier: GPL-3.0-or-later
"""Measured figures brought to another face: found on it, scaled to it, turned with its skin."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.heads.face_layout import FaceLayout
from backend.heads.shape_recipes import Proportion, ShapeRecipe, measured_figures
from backend.heads.skin_places import skin_places

Floats = NDArray[np.float64]

STIFFNESS: Final = 0.5  # per square millimetre, with which the skin is drawn to the figures
_SCALE_RANGE: Final = (0.6, 1.8)
_MAX_TURN: Final = np.radians(40.0)


class PlacedFigures:
    """The figures at the places of one head's skin."""

    def __init__(self, face: FaceLayout) -> None:
        """Find the places.

        Args:
            face: The head's layout.
        """
        self.places = skin_places(face)
        self._figures = measured_figures()
        proportions = face_proportions(face)
        self._scales = {
            name: float(np.clip(size / self._figures.sizes[name], *_SCALE_RANGE))
            for name, size in proportions.items()
        }
        normals = np.array([self._figures.normals[name] for name in self.places.names])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        normals[:, 0] *= np.where(self.places.sides < 0, -1.0, 1.0)
        self._turns = np.stack(
            [_turn(a, b) for a, b in zip(normals, self.places.normals, strict=True)]
        )

    def scale(self, recipe: ShapeRecipe) -> float:
        """Millimetres on this face for one of a recipe's figures."""
        return recipe.size * self._scales[recipe.scaled_by]

    def values(self, recipe: ShapeRecipe) -> Floats:
        """Displacements at the places ``(N, 3)`` in mm of this face."""
        figures = self._figures.shapes[recipe.name].places
        given = np.array([figures.get(name, (0.0, 0.0, 0.0)) for name in self.places.names])
        mirror = np.array([1.0, -1.0, -1.0] if recipe.is_sideways else [-1.0, 1.0, 1.0])
        given = given * np.where(self.places.sides[:, None] < 0, mirror, 1.0)
        if recipe.scaled_by != "jaw":  # the skin goes with the bone there
            given = np.einsum("nij,nj->ni", self._turns, given)
        return np.asarray(self.scale(recipe) * given)


def face_proportions(face: FaceLayout) -> dict[Proportion, float]:
    """Half the mouth's width, the chin's depth below the eyes, the mean width of an eye, in mm."""
    points, vertex = face.points, face.landmark_vertex
    widths = [
        np.linalg.norm(points[vertex[f"eye_inner_{side}"]] - points[vertex[f"eye_outer_{side}"]])
        for side in ("left", "right")
    ]
    return {
        "mouth": face.mouth.half_width,
        "jaw": -float(points[vertex["chin"], 1]),
        "eye": float(np.mean(widths)),
    }


def _turn(start: Floats, end: Floats) -> Floats:
    """The smallest rotation from one unit vector towards another, ``(3, 3)``."""
    axis = np.cross(start, end)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3)
    angle = min(float(np.arctan2(sine, start @ end)), _MAX_TURN)
    x, y, z = axis / sine
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
