# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion files: what is accepted, what is refused, and the frames that times fall on."""

import json
import os
import zipfile
from fractions import Fraction

import numpy as np
import pytest

from ptalker_blender import motion
from ptalker_blender.protocol import UserError


@pytest.fixture
def save(tmp_path):
    def write(**changes):
        values = {
            "weights": np.ones((3, 2), np.float32),
            "shapes": np.ones((2, 4, 3), np.float32),
            "names": np.array(["jawOpen", "mouthClose"]),
            "template": np.zeros((4, 3), np.float32),
            "fps_numerator": 24000,
            "fps_denominator": 1001,
            "start_seconds": 0.5,
            "report": json.dumps({"warnings": []}),
        } | changes
        path = tmp_path / "motion.npz"
        np.savez(path, **{key: value for key, value in values.items() if value is not None})
        return path

    return write


def load(path, num_vertices=4):
    return motion.load(path, num_vertices=num_vertices, fps=Fraction(24000, 1001))


def test_loads_what_the_backend_writes(save):
    found = load(save())
    assert found.names == ("jawOpen", "mouthClose")
    assert found.weights.shape == (3, 2)
    assert found.fps == Fraction(24000, 1001)
    assert found.start_seconds == 0.5
    assert found.report == {"warnings": []}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"weights": np.ones((3, 5), np.float32)}, "weights has shape"),
        ({"weights": np.ones((0, 2), np.float32)}, "no frames"),
        ({"weights": np.full((3, 2), np.inf, np.float32)}, "not finite"),
        ({"shapes": np.ones((2, 5, 3), np.float32)}, "shapes has shape"),
        ({"names": np.array(["jawOpen", "jawOpen"])}, "occur twice"),
        ({"names": np.array(["jawOpen", object()], dtype=object)}, "cannot be read"),
        ({"template": np.zeros((5, 3), np.float32)}, "template has shape"),
        ({"fps_numerator": 25000}, "frame rate"),
        ({"fps_denominator": 0}, "cannot be read"),
        ({"report": "no JSON"}, "cannot be read"),
        ({"report": "[]"}, "cannot be read"),
        ({"weights": None}, "cannot be read"),
        ({"report": "[" * 100_000}, "cannot be read"),
        ({"start_seconds": np.array(["a"])}, "cannot be read"),
        ({"names": np.array(["a" * 63 + "b", "a" * 63 + "c"])}, "more than 63 bytes"),
        (
            {
                "names": np.array([f"k{k}" for k in range(1001)]),
                "shapes": np.zeros((1001, 4, 3), np.float32),
                "weights": np.ones((3, 1001), np.float32),
            },
            "at most 1000",
        ),
    ],
)
def test_refuses_a_wrong_file_with_the_reason(save, changes, part):
    with pytest.raises(UserError, match=part):
        load(save(**changes))


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "gone.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "text.npz")


def test_refuses_a_file_that_unpacks_to_too_much(save, monkeypatch):
    monkeypatch.setattr(motion, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="large"):
        load(save())


def test_weights_beyond_a_keys_range_go_into_the_shape(save):
    found = load(save(weights=np.array([[20, 1], [-5, 0], [0, 2]], np.float32)))
    keyed = motion.keyed_as_new(found, limit=10)
    assert np.abs(keyed.weights).max() == 10
    before = np.tensordot(found.weights, found.shapes, 1)
    np.testing.assert_allclose(np.tensordot(keyed.weights, keyed.shapes, 1), before, rtol=1e-6)
    np.testing.assert_array_equal(keyed.weights[:, 1], found.weights[:, 1])


@pytest.mark.parametrize(
    ("fps", "base", "expected"),
    [
        (24, 1.0, Fraction(24)),
        (24, float(np.float32(1.001)), Fraction(24000, 1001)),
        (30, float(np.float32(1.001)), Fraction(30000, 1001)),
        (25, 0.5, Fraction(50)),
    ],
)
def test_frame_rate_is_exact(fps, base, expected):
    assert motion.frame_rate(fps, base) == expected


def test_times_on_a_frame_stay_on_it():
    fps = Fraction(24000, 1001)
    for frame in (1, 7, 100_000):
        assert motion.first_frame_at(float(frame / fps), fps=fps) == frame
    assert motion.first_frame_at(0.01, fps=fps) == 1
    assert motion.first_frame_at(-0.05, fps=fps) == -1


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.9])
def test_refuses_damaged_files(save, place):
    path = save(weights=np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32))
    with np.load(path) as data:
        np.savez_compressed(path, **data)
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at : at + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        load(path)


def test_refuses_an_encrypted_file_and_a_header_that_is_no_header(save):
    path = save()
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 4)
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        load(path)
    header = b"{'descr': " + b"[" * 9000
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", array)
    with pytest.raises(UserError, match="cannot be read"):
        load(path)


def test_refuses_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "motion.npz")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "motion.npz")


def layers(**changes):
    values = {
        "weights_speech": np.full((3, 2), 0.75, np.float32),
        "weights_upper_face": np.zeros((3, 2), np.float32),
        "weights_life": np.full((3, 2), 0.5, np.float32),
        "weights_emotion": np.full((3, 2), -0.25, np.float32),
        "head_rotation": np.ones((3, 3), np.float32),
        "face_axes": np.eye(3, dtype=np.float32),
    }
    return values | changes


def test_reads_the_layers_where_there_are_some(save):
    assert load(save()).layers is None
    found = load(save(**layers())).layers
    total = found.speech + found.upper_face + found.life + found.emotion
    np.testing.assert_array_equal(total, np.ones((3, 2)))
    assert found.head_rotation.shape == (3, 3)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"weights_life": np.ones((2, 2), np.float32)}, "weights_life has shape"),
        ({"head_rotation": np.full((3, 3), np.nan, np.float32)}, "head_rotation holds values"),
        ({"face_axes": np.ones(3, np.float32)}, "face_axes has shape"),
        ({"weights_speech": np.array(["a"])}, "cannot be read"),
    ],
)
def test_refuses_layers_that_do_not_fit(save, changes, part):
    with pytest.raises(UserError, match=part):
        load(save(**layers(**changes)))


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ({"listen": "words", "language": "English"}, "the recognised English words and the sound"),
        ({"listen": "text", "language": "French"}, "the given French words and the sound"),
        ({"listen": "sound", "language": ""}, "the sound alone"),
        ({"listen": "text", "language": 7}, "the given words and the sound"),
        ({"listen": "text", "language": "no\nlanguage"}, "the given words and the sound"),
        ({"language": "French"}, ""),
        ({"listen": ["words"]}, ""),
    ],
)
def test_the_language_that_was_listened_in_is_told(report, text):
    assert motion.followed(report) == text
