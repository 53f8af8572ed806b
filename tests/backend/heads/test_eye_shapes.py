# SPDX-License-Identifier: GPL-3.0-or-later
"""Lids that close over the eyeballs, and eyes that turn."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from backend.heads.arkit import ARKIT_NAMES
from tests.backend.heads.poses import samples

SIDES = ("left", "right")


@pytest.mark.parametrize("side", SIDES)
def test_lids_meet_and_stay_off_the_ball(solved, side):
    eye = solved.face.eyes[side]
    pose = solved.pose({f"eyeBlink{side.capitalize()}": 1.0})
    for lid, other in (("upper", "lower"), ("lower", "upper")):
        _, _, places = samples(pose, eye.rows[other])
        assert cKDTree(places).query(pose[eye.rows[lid]])[0].max() <= 0.3
    ball = solved.rest[eye.ball] - eye.centre
    radius = np.linalg.norm(ball, axis=1)
    directions = cKDTree(ball / radius[:, None])
    moving = np.abs(solved.shape(f"eyeBlink{side.capitalize()}")).max(axis=1) > 0
    moving[eye.pocket] = False
    lid = np.flatnonzero(moving)
    for weight in (0.5, 1.0):
        away = solved.pose({f"eyeBlink{side.capitalize()}": weight})[lid] - eye.centre
        distance = np.linalg.norm(away, axis=1)
        surface = radius[directions.query(away / distance[:, None])[1]]
        assert (distance - surface).min() > 0.0


@pytest.mark.parametrize("side", SIDES)
def test_eyeballs_turn_rigidly(solved, side):
    eye = solved.face.eyes[side]
    ball = solved.rest[eye.ball] - eye.centre
    for name in ("In", "Out", "Up", "Down"):
        moved = ball + solved.shape(f"eyeLook{name}{side.capitalize()}")[eye.ball]
        np.testing.assert_allclose(moved @ moved.T, ball @ ball.T, atol=2e-3)
        pupil = ball[:, 2].argmax()
        assert np.linalg.norm(moved[pupil] - ball[pupil]) > 3.0
    for name in set(ARKIT_NAMES) - {n for n in ARKIT_NAMES if n.startswith("eyeLook")}:
        assert np.abs(solved.shape(name)[eye.ball]).max() == 0.0


def test_eyes_look_where_their_names_say(solved):
    eye = solved.face.eyes["left"]
    pupil = eye.ball[solved.rest[eye.ball, 2].argmax()]
    assert solved.shape("eyeLookOutLeft")[pupil, 0] > 3
    assert solved.shape("eyeLookInLeft")[pupil, 0] < -3
    assert solved.shape("eyeLookUpLeft")[pupil, 1] > 3
    assert solved.shape("eyeLookDownLeft")[pupil, 1] < -3
