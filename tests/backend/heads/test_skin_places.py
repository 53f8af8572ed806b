# SPDX-License-Identifier: GPL-3.0-or-later
"""Named places of the skin, and the figures that are given at them."""

import numpy as np
import pytest

from backend.heads.find_face_points import find_face_points
from backend.heads.placed_figures import PlacedFigures
from backend.heads.shape_recipes import (
    EYE_RECIPES,
    JAW_RECIPES,
    MOUTH_RECIPES,
    PROFILE_POSITIONS,
    SIDEWAYS_RECIPES,
    measured_figures,
)
from backend.heads.skin_places import place_names, skin_places
from backend.heads.topology import FACE_POINT_NAMES, face_frame, identify, read_head

RECIPES = (*MOUTH_RECIPES, *JAW_RECIPES, *(r for _, _, *pair in SIDEWAYS_RECIPES for r in pair))


def test_places_lie_on_the_skin_near_the_mean_of_their_points(solved):
    places = skin_places(solved.face)
    at = places.rows @ solved.rest
    np.testing.assert_allclose(np.asarray(places.rows.sum(axis=1)).ravel(), 1.0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(places.normals, axis=1), 1.0, atol=1e-6)
    number = places.names.index("cheek+nose_side")
    ends = solved.rest[[solved.at("cheek_left"), solved.at("nose_side_left")]]
    assert np.linalg.norm(at[number] - ends.mean(axis=0)) < 8.0
    for name, side, place in zip(places.names, places.sides, at, strict=True):
        if "+" not in name and side == 1:
            assert place[0] > 0.0, name


def test_places_of_a_symmetric_head_mirror_each_other(demo):
    places = skin_places(demo.face)
    at = places.rows @ demo.rest
    left = dict(zip(np.array(places.names)[places.sides == 1], at[places.sides == 1], strict=True))
    right = dict(
        zip(np.array(places.names)[places.sides == -1], at[places.sides == -1], strict=True)
    )
    assert left.keys() == right.keys()
    for name, place in left.items():
        np.testing.assert_allclose(place * [-1.0, 1.0, 1.0], right[name], atol=0.1, err_msg=name)


def test_figures_name_places_that_exist_and_every_recipe_has_some():
    figures = measured_figures()
    known = set(place_names())
    assert set(figures.normals) == known
    for recipe in (*RECIPES, *EYE_RECIPES):
        shape = figures.shapes[recipe.name]
        assert shape.places and set(shape.places) <= known, recipe.name


LIP_RECIPES = [recipe for recipe in RECIPES if recipe.contact != "none"]


@pytest.mark.parametrize("recipe", LIP_RECIPES, ids=lambda recipe: recipe.name)
def test_figures_keep_closed_lips_closed_and_never_cross_them(recipe):
    lips = measured_figures().shapes[recipe.name].lips
    rows = [lips.contact, *lips.upper, *lips.lower]
    assert all(len(row) == len(PROFILE_POSITIONS) for row in rows)
    assert {row[-1] for row in rows} == {lips.contact[-1]}, "rows meet at the corner"
    if recipe.contact == "together":
        assert lips.contact_lower is None
    else:
        assert lips.contact_lower is not None
        heights = np.array(lips.contact)[:, 1] - np.array(lips.contact_lower)[:, 1]
        assert heights.min() >= 0.0
        if recipe.contact != "parting":
            assert heights.max() == 0.0


def test_figures_grow_with_the_mouth(demo):
    placed = PlacedFigures(demo.face)
    smile = next(r for r in MOUTH_RECIPES if r.name == "mouthSmile")
    expected = demo.face.mouth.half_width / measured_figures().sizes["mouth"]
    assert placed.scale(smile) == pytest.approx(expected)
    longest = np.linalg.norm(placed.values(smile), axis=1).max()
    given = max(np.linalg.norm(v) for v in measured_figures().shapes["mouthSmile"].places.values())
    assert longest == pytest.approx(expected * given, rel=1e-6)


def test_flame_and_the_demo_head_mean_the_same_by_every_face_point(flame_head):
    """The demo head's points, found on FLAME, lie where FLAME's own numbers say."""
    vertices, corners, sizes = read_head(flame_head)
    head = identify(vertices, corners, sizes)
    found = find_face_points((head.vertices, corners, sizes)).face_points
    millimetre = face_frame(head).unit_mm
    away = {
        name: np.linalg.norm(head.vertices[found[name]] - head.point(name)) / millimetre
        for name in FACE_POINT_NAMES
    }
    # Found points differ by up to 14 mm between left and right where the skin shows no feature.
    assert np.mean(list(away.values())) < 4.0
    lips = [away[n] for n in FACE_POINT_NAMES if n.startswith("lip_")]
    assert np.mean(lips) < 3.0 and max(lips) < 8.5
    loose = ("chin_", "neck", "cheek", "brow", "head_back", "jaw_line", "forehead", "ear_")
    assert max(d for n, d in away.items() if not n.startswith(loose)) < 9.0
