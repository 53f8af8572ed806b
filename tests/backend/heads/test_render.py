# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures without Blender: depth, views, and the sheet's command line."""

import sys

import numpy as np

from backend import bundled
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.render import BACKGROUND, COMBINATIONS, main, render, sheet

DEMO = bundled.DEMO_HEAD
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def two_squares():
    """A red square in front (z = 10) of a blue one twice its size."""
    square = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    vertices = np.concatenate([20 * square + [0, 0, 10], 40 * square])
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    colours = np.array([RED] * 4 + [BLUE] * 4)
    return vertices, np.concatenate([triangles, triangles + 4]), colours


def picture(view):
    vertices, triangles, colours = two_squares()
    return render(
        vertices, triangles, colours, view=view, size=50, centre=(0.0, 0.0, 0.0), extent=100.0
    ).astype(int)


def test_nearer_faces_hide_farther_ones():
    image = picture("front")
    assert image.shape == (50, 50, 3)
    assert image[25, 25, 0] > 100 > image[25, 25, 2]
    assert image[25, 8, 2] > 100 > image[25, 8, 0]
    assert (image[2, 2] == BACKGROUND).all()


def test_a_view_from_behind_swaps_front_and_back():
    image = picture((180.0, 0.0))
    assert image[25, 25, 2] > image[25, 25, 0]


def test_side_view_has_the_face_to_the_left():
    """Seen from the subject's left, what is in front lies to the left in the picture."""
    vertices = np.array([[0.0, -10, 40], [0, 10, 40], [0, 0, 20]])
    image = render(
        vertices, np.array([[0, 1, 2]]), None, view="side", size=50, centre=(0, 0, 0), extent=100.0
    )
    drawn = np.argwhere((image != BACKGROUND).any(axis=2))
    assert len(drawn)
    assert drawn[:, 1].max() < 25


def test_an_incomplete_row_of_the_sheet_is_filled_up():
    tile = np.zeros((4, 6, 3), np.uint8)
    assert sheet([tile] * 5, 3).shape == (8, 18, 3)


def test_combinations_use_known_shapes():
    assert {name for weights in COMBINATIONS.values() for name in weights} <= set(ARKIT_NAMES)


def test_command_writes_a_picture(tmp_path, monkeypatch):
    out = tmp_path / "sheet.png"
    arguments = ["--head", str(DEMO), "--out", str(out), "--size", "40", "--only", "jawOpen,m"]
    monkeypatch.setattr(sys, "argv", ["contact_sheet", *arguments])
    main()
    assert out.read_bytes().startswith(b"\x89PNG")
