# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the figures of the shapes on scans of people, and how well the solved shapes agree.

``python -m tools.measure_shapes --scans FILE.npz --points FILE.json [--face-vertices 9409]
[--write]`` runs in the backend's environment. With ``--write`` the figures in
``backend/heads/shape_figures.json`` are made anew: displacements along the lips (a least-squares
fit of their profiles), of the lids' margins, and at the named places of the skin, means of both
sides. No vertex of the scans goes in. The shipped figures come from USC ICT-FaceKit (MIT licence),
https://github.com/USC-ICT/ICT-FaceKit.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from backend import bundled
from backend.evaluation.shape_agreement import (
    ScannedShapes,
    read_points,
    read_scans,
    scanned_head,
    shape_agreement,
    table,
)
from backend.heads.eye_shapes import LidSolver
from backend.heads.face_layout import FaceLayout, examine
from backend.heads.mouth_shapes import SkinSolver, lip_heights, lip_profile, row_shares
from backend.heads.placed_figures import PlacedFigures, face_proportions
from backend.heads.shape_recipes import (
    EYE_RECIPES,
    JAW_RECIPES,
    LIP_ROWS,
    MOUTH_RECIPES,
    PROFILE_POSITIONS,
    SIDEWAYS_RECIPES,
    ShapeRecipe,
    measured_figures,
)
from backend.heads.skin_places import SkinPlaces, skin_places
from backend.heads.topology import Head

Floats = NDArray[np.float64]

SOURCE: Final = "USC ICT-FaceKit, light model, expressions made from scans; MIT licence"
_REST_MM: Final = 0.1  # smaller figures are left out
_ROUNDS: Final = 4  # of corrections by what the solved shapes miss
_REACH_MM: Final = 9.0  # around a place, that counts in its corrections
_ROLL_DEPTH: Final = 0.85  # of what a lip turns in by: the rest is out of sight
_CLOSING: Final = 0.6  # of its height, by which a lip's row may near the contact row
_RIDGE: Final = 1e-2


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the shapes' figures on scans.")
    parser.add_argument("--scans", required=True, type=Path, help=".npz with the scanned shapes")
    parser.add_argument("--points", type=Path, help="JSON with face points; else they are found")
    parser.add_argument("--face-vertices", type=int, help="compare only the first so many vertices")
    parser.add_argument("--person", type=int, default=-1, help="one of the other identities")
    parser.add_argument("--write", action="store_true", help="make the figures anew")
    options = parser.parse_args()
    scans = read_scans(options.scans)
    head = scanned_head(
        scans, read_points(options.points) if options.points else None, options.person
    )
    if options.write:
        write(head, scans)
    print(table(shape_agreement(head, scans, slice(options.face_vertices))))


def write(head: Head, scans: ScannedShapes) -> None:
    """Writes the figures measured on a head, and corrects them by what the solved shapes miss."""
    face = examine(head)
    scanned = {n: face.frame.offsets_to_face_mm(d) for n, d in scans.offsets.items()}
    whole = wholes(scanned)
    data = measured(face, whole)
    _save(data)
    add_lids(face, whole, data)
    _save(data)
    for _ in range(_ROUNDS):
        correct(face, whole, data)
        _save(data)


def wholes(scanned: dict[str, Floats]) -> dict[str, Floats]:
    """Displacements of both sides together, by the name of a recipe."""
    result = {}
    for recipe in MOUTH_RECIPES:
        result[recipe.name] = np.sum([scanned[name] for name in recipe.names], axis=0)
    for to_left, to_right, turning, shared in SIDEWAYS_RECIPES:
        result[turning.name] = (scanned[to_left] - scanned[to_right]) / 2
        result[shared.name] = (scanned[to_left] + scanned[to_right]) / 2
    result["jawOpen"] = scanned["jawOpen"]
    result["jawOpenLipsClosed"] = scanned["jawOpen"] + scanned["mouthClose"]
    result["jawForward"] = scanned["jawForward"]
    for recipe in EYE_RECIPES:
        result[recipe.name] = scanned[f"{recipe.name}Left"] + scanned[f"{recipe.name}Right"]
    return result


def recipes() -> tuple[ShapeRecipe, ...]:
    """All recipes that have figures."""
    aside = [recipe for _, _, *pair in SIDEWAYS_RECIPES for recipe in pair]
    return (*MOUTH_RECIPES, *aside, *JAW_RECIPES, *EYE_RECIPES)


def measured(face: FaceLayout, whole: dict[str, Floats]) -> dict[str, Any]:
    """The figures as they are stored."""
    places = skin_places(face)
    shapes: dict[str, Any] = {}
    for recipe in recipes():
        field = whole[recipe.name]
        shapes[recipe.name] = {"places": _by_place(places, places.rows @ field, recipe)}
        if recipe.contact != "none":
            shapes[recipe.name]["lips"] = _lip_figures(face, field[face.mouth.lips], recipe)
    _roll_alike(shapes["mouthRollLower"]["lips"], shapes["mouthRollUpper"]["lips"])
    return {
        "source": SOURCE,
        "sizes": {name: round(size, 2) for name, size in face_proportions(face).items()},
        "lip_heights": {lip: round(height, 3) for lip, height in lip_heights(face).items()},
        "normals": _by_place(places, places.normals, None),
        "shapes": shapes,
    }


def correct(face: FaceLayout, whole: dict[str, Floats], data: dict[str, Any]) -> None:
    """Moves the figures at the places by what the solved skin misses around them."""
    solver = SkinSolver(face, PlacedFigures(face))
    places = solver.placed.places
    skin = np.unique(face.skin_triangles)
    lips = np.isin(skin, face.mouth.lips)
    skin = skin[~face.still[skin] & ~lips]
    away, nearest = cKDTree(places.rows @ face.points).query(face.points[skin])
    skin, nearest = skin[away < _REACH_MM], nearest[away < _REACH_MM]
    counts = np.maximum(np.bincount(nearest, minlength=len(places.names)), 1)
    for recipe in recipes():
        if recipe in EYE_RECIPES or recipe.scaled_by == "jaw":
            continue
        solved = solver.solve(recipe) / solver.placed.scale(recipe)
        missed = (whole[recipe.name] - solved)[skin]
        means = (
            np.stack(
                [np.bincount(nearest, missed[:, k], len(places.names)) for k in range(3)], axis=1
            )
            / counts[:, None]
        )
        figures = data["shapes"][recipe.name]["places"]
        for name, change in _by_place(places, means, recipe, keep=True).items():
            old = np.array(figures.get(name, (0.0, 0.0, 0.0)))
            new = old + np.array(change)
            figures[name] = _rounded(new)
            if np.abs(new).max() < _REST_MM:
                del figures[name]


def _by_place(
    places: SkinPlaces, values: Floats, recipe: ShapeRecipe | None, *, keep: bool = False
) -> dict[str, list[float]]:
    """Means of both sides at each place; small displacements are left out."""
    sideways = recipe is not None and recipe.is_sideways
    mirror = np.array([1.0, -1.0, -1.0]) if sideways else np.array([-1.0, 1.0, 1.0])
    found: dict[str, list[Floats]] = {}
    for name, side, value in zip(places.names, places.sides, values, strict=True):
        images = [value, value * mirror] if side == 0 else [value * (mirror if side < 0 else 1.0)]
        found.setdefault(name, []).extend(images)
    means = {name: np.mean(images, axis=0) for name, images in found.items()}
    return {
        name: _rounded(mean)
        for name, mean in means.items()
        if keep or recipe is None or np.abs(mean).max() >= _REST_MM
    }


def _lip_figures(face: FaceLayout, field: Floats, recipe: ShapeRecipe) -> dict[str, Any]:
    """Profiles of the lips' rows that fit the displacements ``(n, 3)`` of ``mouth.lips`` best."""
    mouth = face.mouth
    shares = row_shares(np.abs(mouth.across))  # (3, n)
    number = _row_numbers(together=recipe.contact == "together")
    rows = np.where(mouth.is_upper[:, None], number[0], number[1])  # (n, 3)
    knots = len(PROFILE_POSITIONS)
    last = number.max() + 1
    profiles = np.zeros((last, knots, 3))
    units = np.eye(knots)
    for axis in range(3):
        design = np.zeros((len(field), last, knots))
        for k in range(knots):
            profile = tuple((float(v),) * 3 for v in units[k])
            along = lip_profile(profile, mouth.along, recipe.is_sideways)[:, axis]
            for row in range(3):
                design[np.arange(len(field)), rows[:, row], k] += shares[row] * along
        odd = (axis == 0) != recipe.is_sideways
        free = [(r, k) for r in range(last) for k in range(int(odd), knots - 1)]
        columns = [design[:, r, k] for r, k in free] + [design[:, :, -1].sum(axis=1)]
        system = np.stack(columns, axis=1)
        normal = system.T @ system + _RIDGE * np.eye(system.shape[1])
        solution = np.linalg.solve(normal, system.T @ field[:, axis])
        for (r, k), value in zip(free, solution[:-1], strict=True):
            profiles[r, k, axis] = value
        profiles[:, -1, axis] = solution[-1]
    upper, lower = profiles[number[0]], profiles[number[1]]
    _keep_lips_apart(upper, lower, recipe)
    for lip, rows, up in (("upper", upper, 1.0), ("lower", lower, -1.0)):
        _keep_order(rows, _CLOSING * _row_heights(face, lip), up)
    figures = {
        "contact": _rounded(upper[0]),
        "upper": [_rounded(row) for row in upper[1:]],
        "lower": [_rounded(row) for row in lower[1:]],
    }
    if recipe.contact != "together":
        figures["contact_lower"] = _rounded(lower[0])
    return figures


def _row_numbers(*, together: bool) -> NDArray[np.int64]:
    """Numbers of the profiles of both lips' rows, from the contact row outwards, ``(2, 3)``."""
    count = 1 + len(LIP_ROWS)
    upper = np.arange(count)
    lower = np.arange(count, 2 * count)
    if together:
        lower = np.array([0, *range(count, 2 * count - 1)])
    return np.stack([upper, lower])


def _keep_lips_apart(upper: Floats, lower: Floats, recipe: ShapeRecipe) -> None:
    """Changes the contact rows of the lips' rows ``(3, 5, 3)`` where one would pass the other."""
    above, below = upper[0], lower[0]
    middle = (above + below) / 2
    if recipe.contact == "sliding":
        above[:, 1] = below[:, 1] = middle[:, 1]
    elif recipe.contact == "lower rolls":
        below[:, :2] = above[:, :2]
        _roll(lower)
    elif recipe.contact == "upper rolls":
        above[:, :2] = below[:, :2]
        _roll(upper)
    elif recipe.contact == "parting":
        crossed = above[:, 1] < below[:, 1]
        above[crossed, 1] = below[crossed, 1] = middle[crossed, 1]


def _roll(rows: Floats) -> None:
    """Lets the contact row turn in no deeper than the middle of the lip: it would stretch."""
    rows[1, :-1, 2] *= _ROLL_DEPTH
    rows[0, :-1, 2] = np.maximum(rows[0, :-1, 2], rows[1, :-1, 2])


def _roll_alike(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    """Gives both rolls one depth at the contact rows, so that the lips meet when both turn in."""
    for a, b in zip(lower["contact_lower"][:-1], upper["contact"][:-1], strict=True):
        a[2] = b[2] = round((a[2] + b[2]) / 2, 1)


def _keep_order(rows: Floats, heights: Floats, up: float) -> None:
    """Keeps a lip's rows ``(3, 5, 3)`` on their side of its contact row.

    Args:
        rows: Displacements of the contact row, the middle one and the border.
        heights: By how much the latter two may near the contact row, ``(2, 5)``.
        up: 1 for the upper lip, -1 for the lower one.
    """
    for row, height in zip(rows[1:], heights, strict=True):
        apart = up * (row[:, 1] - rows[0, :, 1])
        row[:, 1] = rows[0, :, 1] + up * np.maximum(apart, -height)
    rows[1:, -1] = rows[0, -1]


def _row_heights(face: FaceLayout, lip: str) -> Floats:
    """Heights of a lip's middle row and border over its contact row at the knots, ``(2, 5)``."""
    mouth = face.mouth
    own = mouth.is_upper == (lip == "upper")
    contact = face.points[mouth.rows[lip]]
    x = np.abs(mouth.along[own]) * mouth.half_width
    floor = np.interp(face.points[mouth.lips[own], 0], contact[:, 0], contact[:, 1])
    height = np.abs(face.points[mouth.lips[own], 1] - floor)
    share = np.abs(mouth.across[own])
    near = cKDTree(np.stack([x, share * mouth.half_width], axis=1))
    wanted = [
        (along * mouth.half_width, row * mouth.half_width)
        for row in LIP_ROWS
        for along in PROFILE_POSITIONS
    ]
    _, found = near.query(wanted, k=4)
    return np.asarray(height[found].mean(axis=1)).reshape(len(LIP_ROWS), -1)


def add_lids(face: FaceLayout, whole: dict[str, Floats], data: dict[str, Any]) -> None:
    """Adds the figures of the lids' margins, means of both eyes; needs the other figures."""
    placed = PlacedFigures(face)
    solvers = [LidSolver(face, side, placed) for side in ("left", "right")]
    for recipe in EYE_RECIPES:
        sides = [solver.measured(whole[recipe.name]) for solver in solvers]
        data["shapes"][recipe.name]["lids"] = {
            key: np.mean([side[key] for side in sides], axis=0).round(2).tolist()
            for key in sides[0]
        }


def _rounded(values: Floats) -> Any:
    return (np.asarray(values).round(1) + 0.0).tolist()


def _save(data: dict[str, Any]) -> None:
    """Writes the figures, one place or one row of a lip a line."""
    text = json.dumps(data, indent=1)
    flat = re.sub(
        r"\[\s+(?:-?[\d.]+,?\s+)+\]", lambda found: re.sub(r"\s+", " ", found.group()), text
    )
    flat = re.sub(r"\](,?)\n\s+\[", r"]\1 [", flat)
    bundled.SHAPE_FIGURES.write_text(flat.replace("[ ", "[").replace(" ]", "]") + "\n", "utf-8")
    measured_figures.cache_clear()


if __name__ == "__main__":
    main()
