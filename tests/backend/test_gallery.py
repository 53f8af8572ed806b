# SPDX-License-Identifier: GPL-3.0-or-later
"""The gallery: which moments are shown, the strips' layout, films that play with their sound."""

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest

from backend.articulation.speaking_style import SpeakingStyle
from backend.audio.rates import FEATURE_RATE_HZ
from backend.evaluation.clips import SpokenClip
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.solve import solve_shapes
from backend.life.layers import LifeAmounts, add_life
from backend.motion import Motion
from backend.speech.phones import Phone
from tools import gallery

PHONES = (
    Phone("SIL", 0.0, 0.2),
    Phone("M", 0.2, 0.32),
    Phone("AA", 0.32, 0.5),
    Phone("T", 0.5, 0.6),
    Phone("IY", 0.6, 0.8),
)


@pytest.fixture(scope="module")
def portrait():
    return gallery.read_portrait(gallery.DEMO_HEAD)


@pytest.fixture(scope="module")
def clip():
    samples = 0.1 * np.sin(np.arange(round(0.8 * 16000)) * 0.1).astype(np.float32)
    return SpokenClip("me", samples, "me", PHONES)


@pytest.fixture(scope="module")
def motion(portrait, clip):
    return Motion(
        weights=clip.articulated(PHONES, SpeakingStyle.neutral()),
        shapes=solve_shapes(portrait.head).offsets,
        names=ARKIT_NAMES,
        template=portrait.head.vertices.astype(np.float32),
        fps=Fraction(FEATURE_RATE_HZ),
        start_seconds=0.0,
        report={},
    )


def test_moments_are_the_middles_of_the_longest_phones_of_each_kind():
    found = gallery.moments(PHONES)
    assert [symbol for symbol, _ in found] == ["SIL", "M", "AA", "IY"]
    assert found[2][1] == pytest.approx(0.41)
    many = [Phone("B", start, start + 0.01 * start) for start in map(float, range(1, 9))]
    assert [seconds for _, seconds in gallery.moments(many)] == pytest.approx(
        [start * 1.005 for start in (5, 6, 7, 8)]
    )


def test_a_head_is_named_and_aimed_at_its_mouth(portrait):
    assert portrait.name == "demo"
    (face, face_mm), (mouth, mouth_mm) = portrait.aims
    assert mouth[1] < face[1] < 0
    assert mouth_mm < face_mm


def test_a_strip_shows_an_open_mouth_in_the_vowel_only(motion, portrait, clip):
    picture = gallery.strip(motion, portrait, clip)
    size = gallery._STRIP_PIXELS
    assert picture.shape == (2 * size + gallery._LABEL_PIXELS, 6 * size, 3)
    close_ups = picture[size : 2 * size].reshape(size, 6, size, 3).transpose(1, 0, 2, 3).astype(int)
    dark_red = (close_ups[..., 0] < 150) & (close_ups[..., 0] > 2 * close_ups[..., 1])
    inside = dark_red.sum(axis=(1, 2))
    assert inside[2] > 2 * inside[1]


def test_a_film_has_every_second_frame_and_the_sound(motion, portrait, clip, tmp_path):
    path = tmp_path / "film.mp4"
    gallery.film(path, {"neutral": motion, "again": motion}, portrait, clip)
    assert list(tmp_path.iterdir()) == [path]
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        loud = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(pictures) == 20
    assert pictures[0].shape[1] == 2 * gallery._FILM_PIXELS
    assert np.abs(pictures[0].astype(int) - pictures[10]).mean() > 0.5
    assert np.abs(loud).max() == pytest.approx(0.1, abs=0.05)


class Recorder:
    """Stands for a predictor: keeps what it is asked for."""

    style_names = ("neutral", "broad")

    def named_style(self, name):
        return f"code of {name}"

    def exemplar_style(self, exemplar, warn):
        assert np.abs(exemplar.offsets).max() > 0
        return "code of an exemplar"

    def predict(self, *_, style, emotion, **__):
        return style, emotion


@pytest.mark.parametrize(
    ("name", "style", "amounts"),
    [
        ("broad", "code of broad", None),
        ("exemplar", "code of an exemplar", None),
        ("joy:0.5", None, {"joy": 0.5}),
    ],
)
def test_a_performance_is_a_style_an_emotion_or_an_exemplar(portrait, clip, name, style, amounts):
    found, emotion = gallery.performed(Recorder(), clip, portrait.head, name, "words", clip)
    assert found == style
    assert [dict(step.amounts) for step in emotion.steps] == ([amounts] if amounts else [])


def test_the_head_turns_with_the_motion(portrait, motion):
    layers = add_life(
        motion.weights, ARKIT_NAMES, np.zeros(12800, np.float32), phones=PHONES,
        fps=motion.fps, amounts=LifeAmounts(), face_axes=np.eye(3),
    )  # fmt: skip
    nod = np.zeros_like(layers.head_rotation)
    nod[:, 0] = 20.0
    still = gallery.posed(motion, portrait, 3)
    turned = gallery.posed(
        dataclasses.replace(motion, layers=dataclasses.replace(layers, head_rotation=nod)),
        portrait,
        3,
    )
    top = still[:, 1].argmax()
    assert turned[top, 2] > still[top, 2] + 20.0  # a nod brings the crown forward
    distances = [np.linalg.norm(points[top] - points[0]) for points in (still, turned)]
    assert distances[0] == pytest.approx(distances[1])
