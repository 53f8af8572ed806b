# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of the jaw, lips, cheeks, nose and brows: recipes solved on a head's own skin."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from backend.heads.face_layout import FaceLayout
from backend.heads.laplacian import BiharmonicSolver, harmonic_weights
from backend.heads.shape_recipes import (
    BROW_RECIPES,
    JAW_OPENING_MM,
    JAW_SHARES,
    MOUTH_RECIPES,
    PROFILE_POSITIONS,
    SIDEWAYS_LIPS,
    SIDEWAYS_POINTS,
    LipRecipe,
    Profile,
    ShapeRecipe,
)
from backend.heads.topology import FACE_POINT_NAMES

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_RECIPE_HALF_WIDTH_MM = 24.0
_LOOSE = ("cheek", "cheek_hollow", "smile_fold", "chin_crease")  # free unless a recipe names them
_MOUTH_TOP_MM = 6.0  # above the eyes: nothing that the mouth does reaches higher
_BROW_BOTTOM_MM = -8.0
_ROW_REACH_MM = 4.0  # how deep the inside of the lips follows their contact rows
_JAW_SLIDE_MM = np.array([0.0, -4.0, 11.0])  # the condyles glide forward as the jaw opens
_TONGUE_OUT_MM = 9.0
_CORNERS_IN = LipRecipe(
    contact=((0, 0, 0), (-0.2, 0, -0.3), (-1.0, 0, -0.6), (-2.2, 0, -0.8)),
    upper=((0, 0, 0), (-0.2, 0, -0.3), (-1.0, 0, -0.6), (-2.2, 0, -0.8)),
    lower=((0, 0, 0), (-0.2, 0, -0.3), (-1.0, 0, -0.6), (-2.2, 0, -0.8)),
)


def mouth_and_brow_shapes(face: FaceLayout) -> dict[str, Floats]:
    """All shapes but those of the eyes, displacements ``(V, 3)`` in the face's axes, in mm."""
    solver = _SkinSolver(face)
    shapes: dict[str, Floats] = {}
    for recipe in MOUTH_RECIPES:
        lips = solver.lip_values(recipe.lips or LipRecipe())
        shapes |= _divided(face, recipe, solver.solve_mouth(lips, solver.point_values(recipe)))
    for recipe in BROW_RECIPES:
        shapes |= _divided(face, recipe, solver.solve_brows(solver.point_values(recipe)))
    for name, towards in (("mouthLeft", 1.0), ("mouthRight", -1.0)):
        shapes[name] = _sideways(solver, towards)
    return shapes | _jaw_shapes(solver) | {"tongueOut": _tongue_out(face)}


def _divided(face: FaceLayout, recipe: ShapeRecipe, whole: Floats) -> dict[str, Floats]:
    if len(recipe.names) == 1:
        return {recipe.names[0]: whole}
    step = np.clip(0.5 + face.points[:, 0] / (2 * recipe.seam), 0.0, 1.0)
    left = (step * step * (3 - 2 * step))[:, None]
    return {recipe.names[0]: left * whole, recipe.names[1]: (1 - left) * whole}


class _SkinSolver:
    """Biharmonic fields on the face; one factorisation per set of handles."""

    def __init__(self, face: FaceLayout) -> None:
        self.face = face
        mouth = face.mouth
        self.scale = float(np.clip(mouth.half_width / _RECIPE_HALF_WIDTH_MM, 0.6, 1.8))
        self._skin = np.unique(face.skin_triangles)
        self._lids = np.unique(
            np.concatenate([row for eye in face.eyes.values() for row in eye.rows.values()])
        )
        self._solvers: dict[frozenset[int], BiharmonicSolver] = {}
        self.rows = np.unique(np.concatenate(list(mouth.rows.values())))
        self._near_rows = self._pocket_weights(_ROW_REACH_MM)
        self._all_rows = self._pocket_weights(None)
        self._near_skin = self._pocket_on_skin()

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

    def lip_values(self, recipe: LipRecipe, *, is_even: bool = False) -> Floats:
        """Displacements of ``mouth.lips``, ``(n, 3)`` in mm."""
        mouth = self.face.mouth
        upper = _profile(recipe.contact, mouth.along, is_even=is_even)
        lower = upper
        if recipe.contact_lower is not None:
            lower = _profile(recipe.contact_lower, mouth.along)
        is_upper, share = mouth.is_upper[:, None], np.abs(mouth.across)[:, None]
        contact = np.where(is_upper, upper, lower)
        border = np.where(
            is_upper,
            _profile(recipe.upper, mouth.along, is_even=is_even),
            _profile(recipe.lower, mouth.along, is_even=is_even),
        )
        share = share ** np.array([1.0, recipe.bend, 1.0])
        return np.asarray(self.scale * ((1 - share) * contact + share * border))

    def point_values(self, recipe: ShapeRecipe) -> dict[int, Floats]:
        """Displacements in mm of the vertices that a recipe names, on both sides."""
        values: dict[int, Floats] = {}
        for name, (out, up, bulge) in recipe.points.items():
            for full, x in self.sided(name):
                values[self.face.landmark_vertex[full]] = self.slide(full, (out * x, up), bulge)
        return values

    def sided(self, name: str) -> Iterable[tuple[str, float]]:
        if name in FACE_POINT_NAMES and name != "chin_left":
            return [(name, 0.0)]
        base, _, number = name.rpartition("_")
        if name == "chin_left":
            return [("chin_left", 1.0), ("chin_right", -1.0)]
        parts = (base, f"_{number}") if number.isdigit() else (name, "")
        return [(f"{parts[0]}_left{parts[1]}", 1.0), (f"{parts[0]}_right{parts[1]}", -1.0)]

    def slide(self, name: str, move: tuple[float, float], bulge: float) -> Floats:
        """A displacement along the skin at a face point, plus a bulge along its normal."""
        normal = self.face.normals[self.face.landmark_vertex[name]]
        flat = np.array([move[0], move[1], 0.0])
        tangent = flat - (flat @ normal) * normal
        length = np.linalg.norm(tangent)
        if length > 1e-9:
            tangent *= min(np.linalg.norm(flat) / length, 1.5)
        return np.asarray(self.scale * (tangent + bulge * normal))

    def solve_mouth(self, lips: Floats, points: dict[int, Floats]) -> Floats:
        """A field ``(V, C)`` from values at ``mouth.lips`` and at face points."""
        field = self.solve_skin(lips, points)
        field[self.face.mouth.pocket] = self._near_rows @ field[self.rows] + self._near_skin @ field
        return field

    def solve_skin(self, lips: Floats, points: dict[int, Floats]) -> Floats:
        """The same without the mouth's inside."""
        landmark_vertex = self.face.landmark_vertex
        loose = {landmark_vertex[full] for name in _LOOSE for full, _ in self.sided(name)}
        pinned = {landmark_vertex[n]: np.zeros(lips.shape[1]) for n in FACE_POINT_NAMES}
        given = {k: v for k, v in pinned.items() if k not in loose} | points
        given |= {int(k): np.zeros(lips.shape[1]) for k in self._lids}
        given |= dict(zip(self.face.mouth.lips.tolist(), lips, strict=True))
        y = self.face.points[self._skin, 1]
        return self._solve(given, self._skin[y < _MOUTH_TOP_MM])

    def solve_brows(self, points: dict[int, Floats]) -> Floats:
        """A field ``(V, 3)`` around the brows; the lids' margins stay."""
        given = {int(k): np.zeros(3) for k in self._lids} | points
        y = self.face.points[self._skin, 1]
        return self._solve(given, self._skin[y > _BROW_BOTTOM_MM])

    def inside_follows_jaw(self, shares: Floats) -> Floats:
        """Extend jaw shares ``(V, C)`` of the contact rows into the mouth."""
        result = shares.copy()
        followed = self._near_rows.sum(axis=1) + np.asarray(self._near_skin.sum(axis=1)).ravel()
        rest = np.clip(1.0 - followed, 0.0, 1.0)[:, None]
        near = self._near_rows @ shares[self.rows] + self._near_skin @ shares
        result[self.face.mouth.pocket] = near + rest * (self._all_rows @ shares[self.rows])
        return result

    def _solve(self, given: dict[int, Floats], region: Ints) -> Floats:
        region = region[~self.face.still[region]]
        outside = np.setdiff1d(self._skin, region)
        handles = np.array(sorted(set(given) & set(region.tolist())), dtype=np.int64)
        key = frozenset(handles.tolist())
        if key not in self._solvers:
            self._solvers[key] = BiharmonicSolver(
                self.face.points, self.face.skin_triangles, np.concatenate([handles, outside])
            )
        values = np.stack([given[int(handle)] for handle in handles])
        zeros = np.zeros((len(outside), values.shape[1]))
        return self._solvers[key].solve(np.concatenate([values, zeros]))


def _profile(profile: Profile, along: Floats, *, is_even: bool = False) -> Floats:
    """Displacements along the lip, ``(n, 3)``; x changes its sign with the side, unless even."""
    knots = np.array(profile, dtype=np.float64)
    positions = np.concatenate([-np.array(PROFILE_POSITIONS[:0:-1]), PROFILE_POSITIONS])
    mirrored = knots[:0:-1] * np.array([1.0 if is_even else -1.0, 1.0, 1.0])
    spline = CubicSpline(positions, np.concatenate([mirrored, knots]), bc_type="natural")
    return np.asarray(spline(np.clip(along, -1.0, 1.0)))


def _sideways(solver: _SkinSolver, towards: float) -> Floats:
    """The mouth slides to one side along the arc of the teeth."""
    face, mouth = solver.face, solver.face.mouth
    lips = solver.lip_values(SIDEWAYS_LIPS, is_even=True)
    lips[:, 0] *= towards
    row = face.points[mouth.rows["lower"]]
    x, z = row[:, 0], row[:, 2]
    quarter = max(len(row) // 4, 1)
    slopes = [
        (z[quarter] - z[0]) / (x[quarter] - x[0]),
        (z[-1] - z[-1 - quarter]) / (x[-1] - x[-1 - quarter]),
    ]
    reach = mouth.half_width
    arc_x = np.concatenate([[x[0] - reach], x, [x[-1] + reach]])
    arc_z = np.concatenate([[z[0] - slopes[0] * reach], z, [z[-1] + slopes[1] * reach]])
    here = face.points[mouth.lips, 0]
    lips[:, 2] += 0.7 * (np.interp(here + lips[:, 0], arc_x, arc_z) - np.interp(here, arc_x, arc_z))
    points = {
        face.landmark_vertex[name]: solver.slide(name, (towards * x_mm, 0.0), 0.0)
        for name, x_mm in SIDEWAYS_POINTS.items()
    }
    return solver.solve_mouth(lips, points)


class _Jaw:
    """The lower jaw: a turn about the hinges and a glide, by a share from 0 to 1."""

    def __init__(self, face: FaceLayout) -> None:
        left, right = (
            face.points[face.landmark_vertex[f"jaw_hinge_{side}"]] for side in ("left", "right")
        )
        self.hinge = (left + right) / 2
        self.axis = (left - right) / np.linalg.norm(left - right)
        self.angle = 0.0

    def fit(self, lip: Floats, opening: float) -> None:
        """Find the angle at which a vertex of the lower lip sinks by ``opening``, in mm."""
        low, high = 0.0, np.radians(45.0)
        for _ in range(40):
            self.angle = (low + high) / 2
            sunk = -self.displacements(lip[None], np.ones(1))[0, 1]
            low, high = (self.angle, high) if sunk < opening else (low, self.angle)

    def displacements(self, points: Floats, share: Floats) -> Floats:
        """Displacements ``(n, 3)`` of points that follow the jaw by a share ``(n,)`` each."""
        angle = (share * self.angle)[:, None]
        arm = points - self.hinge
        along = (arm @ self.axis)[:, None] * self.axis
        turned = along + np.cos(angle) * (arm - along) + np.sin(angle) * np.cross(self.axis, arm)
        moved = turned - arm + share[:, None] * _JAW_SLIDE_MM
        return np.where(share[:, None] == 0.0, 0.0, moved)


def _jaw_shapes(solver: _SkinSolver) -> dict[str, Floats]:
    face = solver.face
    named = {n: share for name, share in JAW_SHARES.items() for n, _ in solver.sided(name)}
    points = {face.landmark_vertex[n]: np.full(3, share) for n, share in named.items()}
    points[face.landmark_vertex["chin_crease"]] = np.array([1.0, 0.78, 0.9])
    shares = np.clip(solver.solve_skin(_jaw_lip_shares(solver), points), 0.0, 1.0)
    shares = solver.inside_follows_jaw(shares)
    inside = face.inside_mouth
    shares[inside] = face.jaw_shares[inside, None]
    jaw = _Jaw(face)
    centre = face.landmark_vertex["lip_lower_inner_center"]
    jaw.fit(face.points[centre], solver.scale * JAW_OPENING_MM / shares[centre, 0])
    corners_in = solver.solve_mouth(solver.lip_values(_CORNERS_IN), {})
    open_jaw = jaw.displacements(face.points, shares[:, 0]) + corners_in
    closed = jaw.displacements(face.points, shares[:, 1])
    closed[inside] = open_jaw[inside]
    shift = solver.scale * shares[:, 2:]
    return {
        "jawOpen": open_jaw,
        "mouthClose": closed - open_jaw,
        "jawForward": shift * np.array([0.0, -0.4, 5.5]),
        "jawLeft": shift * np.array([7.0, 0.0, 0.0]),
        "jawRight": shift * np.array([-7.0, 0.0, 0.0]),
    }


def _jaw_lip_shares(solver: _SkinSolver) -> Floats:
    """Shares with which the lips follow the jaw, ``(n, 3)``: open, with closed lips, pushed aside.

    Open, the gap narrows along the lip to nothing at the corners, like an oval. With the lips
    closed and pushed aside, both contact rows follow one function, so that they stay together.
    """
    mouth = solver.face.mouth
    u, s = np.abs(mouth.along), np.abs(mouth.across)
    corner = 0.37
    upper = corner * u**2.5
    gap = np.maximum(1.0 - u**2, 0.0) ** 0.6
    lower = upper + (0.97 - upper) * gap
    border = np.where(mouth.is_upper, 0.7 * upper + 0.3 * corner * u**6, lower + 0.03 * gap)
    opened = (1 - s) * np.where(mouth.is_upper, upper, lower) + s * border
    closed = 0.38 + 0.04 * u**2 + s * gap * np.where(mouth.is_upper, -0.12, 0.15)
    pushed = 0.60 - 0.22 * u**2 + s * gap * np.where(mouth.is_upper, -0.22, 0.25)
    return np.stack([opened, closed, pushed], axis=1)


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
