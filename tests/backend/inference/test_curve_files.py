# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves of Live Link Face, Face Cap and .npz, as they come and as they are broken."""

from fractions import Fraction

import numpy as np
import pytest

from backend import motion as motions
from backend.cli.main import main
from backend.errors import UserError
from backend.heads.arkit import ARKIT_NAMES
from backend.inference.curve_files import read_curves, write_live_link
from backend.inference.style_files import is_exemplar, read_exemplar
from backend.service.requests import style_source

JAW = ARKIT_NAMES.index("jawOpen")
BROW_DOWN = ARKIT_NAMES.index("browDownLeft")
HEADER = ["Timecode", "BlendShapeCount", *(n[0].upper() + n[1:] for n in ARKIT_NAMES), "HeadYaw"]


def weights(num_frames, seed=0):
    return np.random.default_rng(seed).uniform(0, 0.9, (num_frames, 52)).astype(np.float32)


def live_link(path, values, fps=60, start=0, blank=()):
    lines = [",".join(HEADER)]
    for number, row in enumerate(values):
        frame = start + number
        code = f"23:59:{58 + frame // fps:02d}:{frame % fps:02d}.123"
        if frame // fps >= 2:
            code = f"00:00:{frame // fps - 2:02d}:{frame % fps:02d}.123"
        cells = [""] * 53 if number in blank else [*(f"{x:.6f}" for x in row), "0.1"]
        lines.append(",".join([code, "0" if number in blank else "61", *cells]))
    path.write_text("\n".join(lines))
    return path


def a_motion(values, fps=Fraction(30), names=ARKIT_NAMES, start=0.0):
    num = len(names)
    return motions.Motion(
        weights=values, shapes=np.zeros((num, 4, 3), np.float32), names=names,
        template=np.zeros((4, 3), np.float32), fps=fps, start_seconds=start,
    )  # fmt: skip


@pytest.mark.parametrize("fps", [30, 60])
def test_a_capture_of_live_link_is_read_over_midnight(tmp_path, fps):
    values = weights(3 * fps)
    found = read_curves(live_link(tmp_path / "take.csv", values, fps, start=fps // 2))
    assert found.fps == fps
    assert found.names == frozenset(ARKIT_NAMES)
    np.testing.assert_allclose(found.weights, values, atol=1e-5)


def test_frames_without_a_face_are_bridged(tmp_path):
    values = weights(120)
    found = read_curves(live_link(tmp_path / "take.csv", values, blank=range(40, 50)))
    assert len(found) == 120
    np.testing.assert_allclose(found.weights[39], values[39], atol=1e-5)
    halfway = (values[39] * 5 + values[50] * 6) / 11
    np.testing.assert_allclose(found.weights[45], halfway, atol=1e-4)


def test_a_text_of_face_cap_is_read(tmp_path):
    names = [n.replace("Left", "_L").replace("Right", "_R") for n in ARKIT_NAMES]
    names = [{"jaw_L": "jawLeft", "mouth_L": "mouthLeft"}.get(n, n) for n in names][::-1]
    values = weights(90)
    lines = ["info,iPhone,2026-12-01", "bs," + ",".join(names)]
    for number, row in enumerate(values[:, ::-1]):
        head = ["0.1"] * 10
        lines.append(
            ",".join(["k", f"{1000 * number / 60:.0f}", *head, *(f"{x:.5f}" for x in row)])
        )
    path = tmp_path / "take.txt"
    path.write_text("\n".join(lines))
    found = read_curves(path)
    assert found.fps == 60
    assert "browDownLeft" in found.names
    assert len(found) == 90
    np.testing.assert_allclose(found.weights[:, BROW_DOWN], values[:, BROW_DOWN], atol=0.05)
    np.testing.assert_allclose(found.weights[0], values[0], atol=1e-4)


def test_a_folder_is_joined_at_the_rate_of_the_first(tmp_path):
    live_link(tmp_path / "a.csv", weights(120))
    live_link(tmp_path / "b.csv", weights(60, seed=1), fps=30)
    (tmp_path / "notes.md").write_text("nothing")
    found = read_curves(tmp_path)
    assert found.fps == 60
    assert len(found) == pytest.approx(240, abs=2)
    assert is_exemplar(str(tmp_path))
    assert style_source(str(tmp_path)).kind == "exemplar"


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(60)])
def test_a_motion_is_read_back_as_it_was_written(tmp_path, fps):
    values = weights(round(float(3 * fps)))
    write_live_link(tmp_path / "out.csv", a_motion(values, fps, start=3.2))
    found = read_curves(tmp_path / "out.csv")
    assert found.fps == pytest.approx(float(fps), rel=2e-3)
    np.testing.assert_allclose(found.weights, values, atol=2e-6)


def test_the_command_writes_what_motion_holds(tmp_path, capsys):
    values = weights(60)
    motions.write(tmp_path / "motion.npz", a_motion(values))
    out = tmp_path / "out.csv"
    flags = ["--motion", str(tmp_path / "motion.npz"), "--out", str(out)]
    assert main(["export-curves", *flags]) == 0
    assert "60 frames at 30" in capsys.readouterr().out
    header, first = out.read_text().splitlines()[:2]
    assert header.split(",")[:3] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft"]
    assert first.split(",")[:2] == ["00:00:00:00.000", "61"]
    assert len(first.split(",")) == len(header.split(",")) == 63
    np.testing.assert_allclose(read_exemplar(tmp_path / "motion.npz").weights, values, atol=1e-6)


def test_learned_shapes_have_no_curves(tmp_path):
    names = ("PTalker 01", "PTalker 02")
    with pytest.raises(UserError, match="bundled model"):
        write_live_link(tmp_path / "out.csv", a_motion(np.zeros((9, 2), np.float32), names=names))


def test_an_npz_of_weights_needs_no_head(tmp_path):
    path = tmp_path / "curves.npz"
    values = weights(50)
    values[3, 0] = np.nan  # a tracker that has no such weight
    np.savez(path, weights=values, names=np.array(ARKIT_NAMES), fps=25.0)
    found = read_exemplar(path)
    assert found.fps == 25.0
    assert ARKIT_NAMES[0] not in found.names
    np.testing.assert_allclose(found.weights[:, JAW], values[:, JAW])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "first line"),
        ("a.csv", "time,JawOpen\n1,0.5", "first line"),
        ("a.csv", ",".join(HEADER), "no frames"),
        ("a.csv", ",".join(HEADER) + "\n" + ",".join(["soon", "61", *["0.1"] * 53]), "timecodes"),
        ("a.csv", ",".join(HEADER) + "\n" + ",".join(["0:0:0:0", "61", *["x"] * 53]), "no numbers"),
        ("a.csv", ",".join(HEADER) + "\n" + ",".join(["0:0:0:0", "61", *["nan"] * 53]), "no numb"),
        ("a.csv", ",".join(HEADER) + "\n" + ",".join(["0:0:0:0", "61", *["50"] * 53]), "percents"),
        ("a.txt", "hello", "Face Cap"),
        ("a.txt", "bs,jawOpen\nk,0,1", "Face Cap"),
        ("a.txt", "bs,jawOpen,mouthClose,cheekPuff,browInnerUp,mouthFunnel\n"
         + "k,5,1,1,1,1,1\n" * 9, "go on"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_with_a_sentence(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read_curves(tmp_path / name)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no files of curves"):
        read_curves(tmp_path)
