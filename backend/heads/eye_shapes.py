# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of the eyes: lids that slide over the eyeball, eyeballs that turn.

A lid's margin turns about the axis through the ball's centre and parallel to the line of the eye
corners, so it follows the ball; shape keys move vertices along straight lines, so the closed lid
keeps as much distance from the ball as the half-closed one needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from backend.heads.face_layout import EyeLayout, FaceLayout
from backend.heads.laplacian import BiharmonicSolver, harmonic_weights
from backend.heads.placed_figures import STIFFNESS, PlacedFigures
from backend.heads.shape_recipes import EYE_RECIPES, LidFigures, ShapeRecipe, measured_figures

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_KNOTS = np.linspace(0.0, 1.0, 7)  # from the inner to the outer corner: those and five points
_MEETING = (0.12, 0.5)  # of the opening, by which the lower lid rises in a blink
_CLEARANCE_MM = 0.25
_LOOK_DEGREES = {"In": 28.0, "Out": 28.0, "Up": 20.0, "Down": 26.0}


@dataclass(frozen=True)
class Lid:
    """Margin vertices in the cylinder coordinates of the eye's axis."""

    row: Ints
    along: Floats
    angle: Floats
    radius: Floats


@dataclass(frozen=True)
class EyeFrame:
    """The eye's axis (inner to outer corner), and two directions that span its plane.

    Attributes:
        centre: Centre of the eyeball, in mm.
        axes: Rows: along the axis, up, out; ``(3, 3)``.
    """

    centre: Floats
    axes: Floats

    def local(self, points: Floats) -> Floats:
        """Positions ``(n, 3)`` along the axis, up and out."""
        return np.asarray((points - self.centre) @ self.axes.T)

    def lid(self, points: Floats, row: Ints) -> Lid:
        """Margin vertices in cylinder coordinates."""
        local = self.local(points[row])
        angle = np.arctan2(local[:, 1], local[:, 2])
        return Lid(row, local[:, 0], angle, np.hypot(local[:, 1], local[:, 2]))

    def position(self, along: Floats, angle: Floats, radius: Floats) -> Floats:
        """Positions ``(n, 3)`` of cylinder coordinates."""
        local = np.stack([along, radius * np.sin(angle), radius * np.cos(angle)], axis=1)
        return np.asarray(local @ self.axes + self.centre)


def eye_frame(face: FaceLayout, side: str) -> EyeFrame:
    """The axes of one eye."""
    inner, outer = (
        face.points[face.landmark_vertex[f"eye_{corner}_{side}"]] for corner in ("inner", "outer")
    )
    axis = (outer - inner) / np.linalg.norm(outer - inner)
    up = np.array([0.0, 1.0, 0.0]) - axis[1] * axis
    up /= np.linalg.norm(up)
    out = np.cross(axis, up) * (1.0 if side == "left" else -1.0)
    return EyeFrame(face.eyes[side].centre, np.stack([axis, up, out]))


def lid_shapes(face: FaceLayout, placed: PlacedFigures) -> dict[str, Floats]:
    """The fourteen shapes of the eyes, displacements ``(V, 3)`` in the face's axes, in mm."""
    shapes: dict[str, Floats] = {}
    for side in ("left", "right"):
        eye = face.eyes[side]
        ending = side.capitalize()
        skin = LidSolver(face, side, placed)
        for recipe in EYE_RECIPES:
            shapes[f"{recipe.name}{ending}"] = skin.solve(recipe)
        outwards = 1.0 if side == "left" else -1.0
        for name, degrees in _LOOK_DEGREES.items():
            shape = shapes[f"eyeLook{name}{ending}"]
            yaw = {"Out": outwards, "In": -outwards}.get(name, 0.0) * np.radians(degrees)
            pitch = {"Up": -1.0, "Down": 1.0}.get(name, 0.0) * np.radians(degrees)
            turn = _rotation(1, yaw) @ _rotation(0, pitch)
            turning = np.concatenate([eye.ball, eye.turning])
            ball = face.points[turning] - eye.centre
            shape[turning] = ball @ turn.T - ball
    return shapes


def _rotation(axis: int, angle: float) -> Floats:
    turn = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn


class LidSolver:
    """The skin around one eye, with the lid margins as handles, drawn to a recipe's figures."""

    def __init__(self, face: FaceLayout, side: str, placed: PlacedFigures) -> None:
        """Factorise.

        Args:
            face: The head's layout.
            side: ``left`` or ``right``.
            placed: The figures on the head.
        """
        self.face = face
        self.placed = placed
        self.eye: EyeLayout = face.eyes[side]
        points = face.points
        self.frame = eye_frame(face, side)
        self.lids = {k: self.frame.lid(points, row) for k, row in self.eye.rows.items()}
        self.margin = np.unique(np.concatenate(list(self.eye.rows.values())))

        free = self._zone(side)
        self.handles = np.setdiff1d(np.unique(face.skin_triangles), free)
        self.handles = np.union1d(self.handles, self.margin)
        self.solver = BiharmonicSolver(
            points,
            face.skin_triangles,
            self.handles,
            anchors=placed.places.rows,
            stiffness=STIFFNESS,
        )
        self.free = np.setdiff1d(free, self.margin)
        near = np.isin(face.pocket_triangles, self.eye.pocket).any(axis=1)
        weights = harmonic_weights(points, face.pocket_triangles[near], self.margin, reach=6.0)
        self.pocket_weights = weights[self.eye.pocket]
        # What the lids slide over: a cornea may be a part of its own, and a ball have layers.
        cover = self.eye.ball
        if len(cover):
            cover = np.concatenate([cover, self.eye.turning])
        direction, self._ball_distance = _directions(points[cover] - self.eye.centre)
        self._ball = cKDTree(direction)
        self._neighbours = 8 if self.eye.has_layers else 3

    def _zone(self, side: str) -> Ints:
        """Skin that may move: an ellipse around the eye, up to the brow."""
        points, landmark_vertex = self.face.points, self.face.landmark_vertex
        middle = points[self.margin].mean(axis=0)
        half = np.ptp(points[self.margin], axis=0)[0] / 2
        away = points - middle
        brow = points[landmark_vertex[f"brow_{side}_3"]][1] - middle[1]
        height = np.where(away[:, 1] > 0, 1.2 * max(brow, 0.6 * half), 2.4 * half)
        inside = (away[:, 0] / (2.2 * half)) ** 2 + (away[:, 1] / height) ** 2 < 1.0
        inside[self.face.mouth.lips] = False
        inside &= (points[:, 0] * middle[0] > 0) & (away[:, 2] > -2.5 * half)
        used = np.unique(self.face.skin_triangles)
        return np.asarray(used[inside[used] & ~self.face.still[used]])

    def closing(self, figures: LidFigures, scale: float) -> Floats:
        """Displacements of the margins that bring the lids together, ``(V, 3)``."""
        upper, lower = self.lids["upper"], self.lids["lower"]
        result = np.zeros_like(self.face.points)
        for lid in (upper, lower):
            across = [margin_at(other, lid.along) for other in (upper, lower)]
            (up_angle, up_radius), (low_angle, low_radius) = across
            share = np.clip(self._along_lid(figures.lower, lid.along), *_MEETING)
            meeting = low_angle + share * (up_angle - low_angle)
            half_turn = np.cos((up_angle - meeting) / 2)
            along = lid.along + scale * self._along_lid(figures.along, lid.along, at_corners=0.0)
            ball = self._ball_radius(along, meeting) + _CLEARANCE_MM
            needed = 2 * ball / np.maximum(half_turn, 0.5) - up_radius
            radius = np.maximum(np.maximum(ball, low_radius), np.minimum(needed, ball + 2.0))
            ends = np.minimum(1.0, 4.0 * (up_angle - low_angle) / max(np.ptp(up_angle), 1e-6))
            radius = low_radius + (radius - low_radius) * np.clip(ends, 0.0, 1.0)
            target = self.frame.position(along, meeting, radius)
            result[lid.row] = target - self.face.points[lid.row]
        return result

    def turned(self, figures: LidFigures, scale: float, size: float) -> Floats:
        """Displacements of the margins by shares of the opening, and along it, ``(V, 3)``."""
        result = np.zeros_like(self.face.points)
        for lid, shares in (
            (self.lids["upper"], figures.upper),
            (self.lids["lower"], figures.lower),
        ):
            opening = self._opening(lid.along)
            angle = lid.angle + size * self._along_lid(shares, lid.along) * opening
            along = lid.along + scale * self._along_lid(figures.along, lid.along, at_corners=0.0)
            ball = self._ball_radius(along, angle)
            radius = lid.radius + ball - self._ball_radius(lid.along, lid.angle)
            target = self.frame.position(along, angle, np.maximum(radius, ball + _CLEARANCE_MM))
            result[lid.row] = np.where(
                opening[:, None] > 0, target - self.face.points[lid.row], 0.0
            )
        return result

    def measured(self, shape: Floats) -> dict[str, Floats]:
        """The margins' movement in a shape ``(V, 3)`` as ``LidFigures`` have it."""
        found: dict[str, Floats] = {}
        systems, shifts = [], []
        for name, lid in self.lids.items():
            moved = self.frame.lid(self.face.points + shape, lid.row)
            opening = self._opening(lid.along)
            hats = self._hats(lid.along)
            shares = hats.copy()
            shares[:, 1] += hats[:, 0]
            shares[:, 5] += hats[:, 6]
            system = opening[:, None] * shares[:, 1:6]
            found[name] = _least_squares(system, moved.angle - lid.angle)
            systems.append(hats[:, 1:6])
            shifts.append(moved.along - lid.along)
        found["along"] = _least_squares(np.concatenate(systems), np.concatenate(shifts))
        return found

    def _opening(self, along: Floats) -> Floats:
        angles = [margin_at(self.lids[name], along)[0] for name in ("upper", "lower")]
        return np.asarray(np.maximum(angles[0] - angles[1], 0.0))

    def _hats(self, along: Floats) -> Floats:
        """Shares ``(n, 7)`` of the knots at positions along the eye's axis."""
        ends = self.lids["upper"].along[[0, -1]]
        place = (along - ends[0]) / (ends[1] - ends[0])
        return np.stack([np.interp(place, _KNOTS, knot) for knot in np.eye(len(_KNOTS))], axis=1)

    def _along_lid(
        self, values: tuple[float, ...], along: Floats, *, at_corners: float | None = None
    ) -> Floats:
        """A figure at positions along the eye's axis; at the corners as next to them, or given."""
        inner, outer = (values[0], values[-1]) if at_corners is None else (at_corners,) * 2
        return np.asarray(self._hats(along) @ np.array([inner, *values, outer]))

    def solve(self, recipe: ShapeRecipe) -> Floats:
        """The displacements by a recipe, ``(V, 3)`` in mm."""
        lids, scale = measured_figures().shapes[recipe.name].lids, self.placed.scale(recipe)
        is_blink = recipe.name == "eyeBlink"
        margin = self.closing(lids, scale) if is_blink else self.turned(lids, scale, recipe.size)
        shape = self.solver.solve(margin[self.handles], self.placed.values(recipe))
        self._keep_off_ball(shape)
        shape[self.eye.pocket] = self.pocket_weights @ shape[self.margin]
        return shape

    def _keep_off_ball(self, shape: Floats) -> None:
        """Push the lid's skin outwards where it would cut into the ball, halfway or at the end."""
        points = self.face.points
        rest, rest_distance = _directions(points[self.free] - self.eye.centre)
        gap = np.minimum(rest_distance - self._surface(rest), 0.6)
        for share in (0.5, 1.0, 0.5):
            moved = points[self.free] + share * shape[self.free] - self.eye.centre
            direction, distance = _directions(moved)
            lacking = np.maximum(self._surface(direction) + gap - distance, 0.0)
            shape[self.free] += direction * (lacking / share)[:, None]

    def _surface(self, directions: Floats) -> Floats:
        """The ball's radius in given directions: a cornea bulges."""
        ball = self._ball_distance
        if not len(ball):
            return np.full(len(directions), self.eye.radius)
        _, nearest = self._ball.query(directions, k=min(self._neighbours, len(ball)))
        return np.asarray(ball[nearest].reshape(len(directions), -1).max(axis=1))

    def _ball_radius(self, along: Floats, angle: Floats) -> Floats:
        """Distance of the ball's surface from the eye's axis."""
        guess = np.sqrt(np.maximum(self.eye.radius**2 - along**2, 1.0))
        away = self.frame.position(along, angle, guess) - self.eye.centre
        radius = self._surface(_directions(away)[0])
        return np.asarray(np.sqrt(np.maximum(radius**2 - along**2, 0.0)))


def margin_at(lid: Lid, along: Floats) -> tuple[Floats, Floats]:
    """Angle and radius of a margin at positions along the eye's axis."""
    order = np.argsort(lid.along)
    known = lid.along[order]
    return np.interp(along, known, lid.angle[order]), np.interp(along, known, lid.radius[order])


def _directions(vectors: Floats) -> tuple[Floats, Floats]:
    length = np.linalg.norm(vectors, axis=1)
    return vectors / np.maximum(length, 1e-9)[:, None], length


def _least_squares(system: Floats, values: Floats) -> Floats:
    return np.asarray(np.linalg.lstsq(system, values, rcond=1e-6)[0], dtype=np.float64)
