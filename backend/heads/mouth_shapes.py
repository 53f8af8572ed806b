# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of the jaw, lips, cheeks, nose and brows: recipes solved on a head's own skin."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from backend.heads.face_layout import FaceLayout
from backend.heads.laplacian import BiharmonicSolver, harmonic_weights
from backend.heads.placed_figures import STIFFNESS, PlacedFigures
from backend.heads.shape_recipes import (
    JAW_FORWARD,
    JAW_OPEN,
    JAW_OPEN_LIPS_CLOSED,
    LIP_ROWS,
    MOUTH_RECIPES,
    PROFILE_POSITIONS,
    SIDEWAYS_RECIPES,
    Profile,
    ShapeRecipe,
    measured_figures,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_FAR_MM: Final = 45.0  # from all places: the skin stays
_ROW_REACH_MM: Final = 4.0  # how deep the inside of the lips follows their contact rows
_JAW_SLIDE_MM: Final = np.array([0.0, -4.0, 11.0])  # the condyles glide forward as the jaw opens
_LIP_HEIGHT_RANGE: Final = (0.4, 1.3)
_EASE: Final = 2.0
_TONGUE_OUT_MM: Final = 9.0


def mouth_and_brow_shapes(face: FaceLayout, placed: PlacedFigures) -> dict[str, Floats]:
    """All shapes but those of the eyes, displacements ``(V, 3)`` in the face's axes, in mm."""
    solver = SkinSolver(face, placed)
    shapes: dict[str, Floats] = {}
    for recipe in MOUTH_RECIPES:
        shapes |= _divided(face, recipe, solver.solve(recipe))
    mouth, jaw = SIDEWAYS_RECIPES
    for to_left, to_right, turning, shared in (mouth, jaw):
        aside, both = (
            solver.solve(recipe, inside_follows_jaw=(to_left, to_right) == jaw[:2])
            for recipe in (turning, shared)
        )
        shapes |= {to_left: both + aside, to_right: both - aside}
    shapes |= _jaw_shapes(solver)
    _move_jaw_parts(face, shapes)
    return shapes | {"tongueOut": _tongue_out(face)}


def _divided(face: FaceLayout, recipe: ShapeRecipe, whole: Floats) -> dict[str, Floats]:
    if not recipe.seam:
        return {recipe.name: whole}
    step = np.clip(0.5 + face.points[:, 0] / (2 * recipe.seam), 0.0, 1.0)
    left = (step * step * (3 - 2 * step))[:, None]
    return dict(zip(recipe.names, (left * whole, (1 - left) * whole), strict=True))


class SkinSolver:
    """Smooth fields on the face, drawn to a recipe's figures; one factorisation for all."""

    def __init__(self, face: FaceLayout, placed: PlacedFigures) -> None:
        """Factorise.

        Args:
            face: The head's layout.
            placed: The figures on it.
        """
        self.face = face
        mouth = face.mouth
        self._skin = np.unique(face.skin_triangles)
        self.rows = np.unique(np.concatenate(list(mouth.rows.values())))
        self._near_rows = self._pocket_weights(_ROW_REACH_MM)
        self._all_rows = self._pocket_weights(None)
        self._near_skin = self._pocket_on_skin()
        self.placed = placed
        lids = [row for eye in face.eyes.values() for row in eye.rows.values()]
        away, _ = cKDTree(placed.places.rows @ face.points).query(face.points[self._skin])
        still = self._skin[face.still[self._skin] | (away > _FAR_MM)]
        at_rest = np.setdiff1d(np.concatenate([*lids, still]), mouth.lips)
        self._handles = np.concatenate([mouth.lips, at_rest])
        self._solver = BiharmonicSolver(
            face.points,
            face.skin_triangles,
            self._handles,
            anchors=placed.places.rows,
            stiffness=STIFFNESS,
        )

    def _pocket_weights(self, reach: float | None) -> Floats:
        """Weights with which the mouth's inside follows the contact rows, ``(pocket, rows)``."""
        face = self.face
        near = np.isin(face.pocket_triangles, face.mouth.pocket).any(axis=1)
        at_rest = face.mouth.pocket[face.still[face.mouth.pocket]]
        handles = np.concatenate([self.rows, at_rest])
        weights = harmonic_weights(face.points, face.pocket_triangles[near], handles, reach=reach)
        return weights[face.mouth.pocket, : len(self.rows)]

    def _pocket_on_skin(self) -> sparse.csr_matrix:
        """Weights with which the mouth's inside follows the skin over it, ``(pocket, V)``.

        Without them the inside would show through lips and cheeks that move inwards.
        """
        mouth, points = self.face.mouth, self.face.points
        pocket = mouth.pocket
        upper_rows = np.isin(self.rows, mouth.rows["upper"])
        is_upper = self._all_rows[:, upper_rows].sum(axis=1) > 0.5
        distance, nearest = np.ones((len(pocket), 8)), np.zeros((len(pocket), 8), dtype=np.int64)
        for side in (True, False):
            skin = np.setdiff1d(self._skin, mouth.lips[mouth.is_upper != side])
            own = is_upper == side
            distance[own], found = cKDTree(points[skin]).query(points[pocket[own]], k=8)
            nearest[own] = skin[found]
        step = np.clip(1.0 - (distance[:, 0] - 5.0) / 15.0, 0.0, 1.0)
        share = step * step * (3 - 2 * step) * (1.0 - self._near_rows.sum(axis=1))
        # The farthest neighbour counts nothing, so that ties between neighbours do not matter.
        closeness = (
            1.0 / np.maximum(distance, 0.1) ** 2 - 1.0 / np.maximum(distance[:, -1:], 0.11) ** 2
        )
        weights = closeness / closeness.sum(axis=1, keepdims=True) * share[:, None]
        row = np.repeat(np.arange(len(pocket)), 8)
        shape = (len(pocket), len(self.face.points))
        entries = (weights.ravel(), (row, nearest.ravel()))
        return sparse.coo_matrix(entries, shape=shape).tocsr()

    def solve(self, recipe: ShapeRecipe, *, inside_follows_jaw: bool = False) -> Floats:
        """The skin's displacements by a recipe, ``(V, 3)`` in mm."""
        values = np.zeros((len(self._handles), 3))
        if recipe.contact != "none":
            lips = lip_displacements(self.face, recipe)
            values[: len(lips)] = self.placed.scale(recipe) * lips
        shape = self._solver.solve(values, self.placed.values(recipe))
        inside = self._near_rows @ shape[self.rows] + self._near_skin @ shape
        if inside_follows_jaw:
            followed = self._near_rows.sum(axis=1) + np.asarray(self._near_skin.sum(axis=1)).ravel()
            rest = np.clip(1.0 - followed, 0.0, 1.0)[:, None]
            inside += rest * (self._all_rows @ shape[self.rows])
        shape[self.face.mouth.pocket] = inside
        return shape


def lip_displacements(face: FaceLayout, recipe: ShapeRecipe) -> Floats:
    """Displacements of ``mouth.lips`` by a recipe, ``(n, 3)`` in mm of the measured face.

    What the rows of a lip rise or sink against each other goes by the lip's height.
    """
    mouth, figures = face.mouth, measured_figures().shapes[recipe.name].lips
    contacts = {
        lip: lip_profile(profile, mouth.along, recipe.is_sideways)
        for lip, profile in (
            ("upper", figures.contact),
            ("lower", figures.contact_lower or figures.contact),
        )
    }
    result = np.zeros((len(mouth.lips), 3))
    shares = row_shares(np.abs(mouth.across))
    for lip, rows in (("upper", figures.upper), ("lower", figures.lower)):
        own = mouth.is_upper == (lip == "upper")
        contact = contacts[lip][own]
        profiles = np.stack(
            [contact, *(lip_profile(row, mouth.along[own], recipe.is_sideways) for row in rows)]
        )
        height = lip_heights(face)[lip] / measured_figures().lip_heights[lip]
        profiles[1:, :, 1] -= contact[:, 1]
        profiles[1:, :, 1] *= np.clip(height, *_LIP_HEIGHT_RANGE)
        profiles[1:, :, 1] += contact[:, 1]
        result[own] = np.einsum("rn,rni->ni", shares[:, own], profiles)
    return result


def lip_heights(face: FaceLayout) -> dict[str, float]:
    """Height of the upper and the lower lip's red in the middle, over half the mouth's width."""
    heights = {}
    for lip in ("upper", "lower"):
        inner, outer = (
            face.points[face.landmark_vertex[f"lip_{lip}_{ring}_center"]]
            for ring in ("inner", "outer")
        )
        heights[lip] = float(np.linalg.norm(inner - outer)) / face.mouth.half_width
    return heights


def row_shares(across: Floats) -> Floats:
    """Shares ``(rows, n)`` of the contact row and the ``LIP_ROWS`` at positions across the lip."""
    knots = np.array([0.0, *LIP_ROWS])
    near = across < LIP_ROWS[0]
    # Near the contact row the lip follows it closely, or thin lips would dip into each other.
    eased = np.where(near, LIP_ROWS[0] * (across / LIP_ROWS[0]) ** _EASE, across)
    return np.stack([np.interp(eased, knots, row) for row in np.eye(len(knots))])


def lip_profile(profile: Profile, along: Floats, is_sideways: bool) -> Floats:
    """Displacements along the lip, ``(n, 3)``; the right side is the left one's image."""
    knots = np.array(profile, dtype=np.float64)
    positions = np.concatenate([-np.array(PROFILE_POSITIONS[:0:-1]), PROFILE_POSITIONS])
    mirror = np.array([1.0, -1.0, -1.0]) if is_sideways else np.array([-1.0, 1.0, 1.0])
    spline = CubicSpline(
        positions, np.concatenate([knots[:0:-1] * mirror, knots]), bc_type="natural"
    )
    return np.asarray(spline(np.clip(along, -1.0, 1.0)))


def _jaw_shapes(solver: SkinSolver) -> dict[str, Floats]:
    opened, closed, forward = (
        solver.solve(recipe, inside_follows_jaw=True)
        for recipe in (JAW_OPEN, JAW_OPEN_LIPS_CLOSED, JAW_FORWARD)
    )
    return {"jawOpen": opened, "mouthClose": closed - opened, "jawForward": forward}


def _move_jaw_parts(face: FaceLayout, shapes: dict[str, Floats]) -> None:
    """What lies inside the mouth follows the jaw by its share; lower teeth and tongue wholly."""
    chin = face.landmark_vertex["chin"]
    jaw = _Jaw(face)
    jaw.fit(face.points[chin], -shapes["jawOpen"][chin, 1])
    inside = face.inside_mouth
    shares = face.jaw_shares[inside]
    shapes["jawOpen"][inside] = jaw.displacements(face.points[inside], shares)
    for name in ("jawForward", "jawLeft", "jawRight"):
        shapes[name][inside] = shares[:, None] * shapes[name][chin]


class _Jaw:
    """The lower jaw's bone: a turn about the hinges and a glide."""

    def __init__(self, face: FaceLayout) -> None:
        left, right = (
            face.points[face.landmark_vertex[f"jaw_hinge_{side}"]] for side in ("left", "right")
        )
        self.hinge = (left + right) / 2
        self.axis = (left - right) / np.linalg.norm(left - right)
        self.angle = 0.0

    def fit(self, place: Floats, opening: float) -> None:
        """Find the angle at which a place of the jaw sinks by ``opening``, in mm."""
        low, high = 0.0, np.radians(45.0)
        for _ in range(40):
            self.angle = (low + high) / 2
            sunk = -self.displacements(place[None], np.ones(1))[0, 1]
            low, high = (self.angle, high) if sunk < opening else (low, self.angle)

    def displacements(self, points: Floats, share: Floats) -> Floats:
        """Displacements ``(n, 3)`` of points that follow the jaw by a share ``(n,)`` each."""
        angle = (share * self.angle)[:, None]
        arm = points - self.hinge
        along = (arm @ self.axis)[:, None] * self.axis
        turned = along + np.cos(angle) * (arm - along) + np.sin(angle) * np.cross(self.axis, arm)
        moved = turned - arm + share[:, None] * _JAW_SLIDE_MM
        return np.where(share[:, None] == 0.0, 0.0, moved)


def _tongue_out(face: FaceLayout) -> Floats:
    """The tongue's front comes out between the lips (of an open mouth); its root stays."""
    shape = np.zeros_like(face.points)
    tongue = face.parts["tongue"]
    if len(tongue):
        y, z = face.points[tongue, 1], face.points[tongue, 2]
        lips = face.points[face.mouth.lips]
        front = z > np.quantile(z, 0.7)
        reach = max(lips[:, 2].max() + _TONGUE_OUT_MM - z.max(), _TONGUE_OUT_MM)
        contact = face.points[face.landmark_vertex["lip_lower_inner_center"], 1]
        lift = np.clip(contact + 1.0 - y[front].mean(), 0.0, 10.0)
        share = (z - z.min()) / max(np.ptp(z), 1e-9)
        shape[tongue] = (share**1.5)[:, None] * np.array([0.0, lift, reach])
    return shape
