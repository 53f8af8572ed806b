# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion files, compaction, and reading weights at a scene's frames."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("scipy")

from backend import io
from backend import motion as motions
from backend.errors import UserError

NTSC = Fraction(24000, 1001)


def some_motion(num_frames=20, num_shapes=4, num_vertices=30, seed=0):
    rng = np.random.default_rng(seed)
    return motions.Motion(
        weights=rng.normal(size=(num_frames, num_shapes)).astype(np.float32),
        shapes=rng.normal(0, 0.01, (num_shapes, num_vertices, 3)).astype(np.float32),
        names=tuple(f"shape {i}" for i in range(num_shapes)),
        template=rng.normal(size=(num_vertices, 3)).astype(np.float32),
        fps=NTSC,
        start_seconds=1.25,
        report={"warnings": ["ä"]},
    )


def test_frame_count_is_that_of_frames_inside_the_stretch():
    assert motions.num_frames(2.0, Fraction(24)) == 48
    assert motions.num_frames(2.001, Fraction(24)) == 49
    assert motions.num_frames(1e-9, Fraction(24)) == 1
    assert motions.num_frames(float(1000 / NTSC), NTSC) == 1000


def test_frame_times_do_not_drift_in_an_hour():
    count = motions.num_frames(3600.0, NTSC)
    assert count == math.ceil(3600 * NTSC)
    times = motions.frame_seconds(count, NTSC)
    for frame in (0, 1, 1000, count - 1):
        assert abs(Fraction(float(times[frame])) - frame / NTSC) < Fraction(1, 10**9)


def test_weights_at_times_are_right_after_an_hour():
    rate, seconds = 50.0, 3600
    clock = np.arange(rate * seconds) / rate
    weights = np.sin(2 * np.pi * 0.7 * clock)[:, None].astype(np.float32)
    times = motions.frame_seconds(motions.num_frames(seconds, NTSC), NTSC)
    read = motions.at_times(weights, times, rate=rate)
    assert read.shape == (len(times), 1)
    inside = times <= clock[-1]
    np.testing.assert_allclose(read[inside, 0], np.sin(2 * np.pi * 0.7 * times[inside]), atol=2e-3)


@pytest.mark.parametrize("fps", [NTSC, Fraction(24), Fraction(25), Fraction(30), Fraction(60)])
def test_every_short_closure_is_shown_by_some_frame(fps):
    rng = np.random.default_rng(0)
    rate, num_closures = 50.0, 300
    centres = np.cumsum(rng.integers(9, 20, num_closures))
    opening = np.full(centres[-1] + 20, 1.0)
    opening += 0.02 * rng.normal(size=len(opening))
    for centre in centres:
        opening[centre - 1 : centre + 2] *= 0.4
        opening[centre] = 0.0  # closed for a single row: 20 ms
    weights = opening[:, None].astype(np.float32)
    times = motions.frame_seconds(motions.num_frames(len(opening) / rate, fps), fps)
    kept = motions.at_times(weights, times, rate=rate, opening=opening)[:, 0]
    plain = motions.at_times(weights, times, rate=rate)[:, 0]

    def found(values):
        near = np.abs(times[:, None] - centres / rate) <= 0.5 / float(fps) + 1e-9
        return int(((values[:, None] < 0.05) & near).any(axis=0).sum())

    assert found(kept) == num_closures
    if fps < 50:
        assert found(plain) < 0.7 * num_closures  # or the test would show nothing
    far = np.abs(times[:, None] - centres / rate).min(axis=1) > 1.5 / float(fps)
    assert np.abs(kept - plain)[far].max() < 0.15


def test_reading_weights_never_overshoots_and_holds_the_ends():
    weights = np.array([[0.0], [0.0], [1.0], [1.0], [0.0]], np.float32)
    times = np.linspace(0, 1, 200)
    read = motions.at_times(weights, times, rate=5.0)
    assert read.min() >= 0
    assert read.max() <= 1
    assert read[-1] == 0
    np.testing.assert_allclose(motions.at_times(weights[:1], times, rate=5.0), 0)


def test_reading_in_blocks_equals_reading_at_once(monkeypatch):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(3000, 3)).astype(np.float32)
    times = motions.frame_seconds(1700, Fraction(30))
    once = motions.at_times(weights, times, rate=50.0, opening=weights[:, 0])
    monkeypatch.setattr(motions, "_BLOCK_FRAMES", 7)
    blocks = motions.at_times(weights, times, rate=50.0, opening=weights[:, 0])
    np.testing.assert_allclose(blocks, once, atol=1e-6)


def test_compaction_stays_within_its_tolerance():
    rng = np.random.default_rng(0)
    strength = 10.0 ** -np.arange(12)
    weights = (rng.normal(size=(700, 12)) @ np.diag(strength)).astype(np.float32)
    shapes = rng.normal(0, 0.01, (12, 200, 3)).astype(np.float32)
    mixing = rng.normal(size=(12, 12)).astype(np.float32)
    weights, shapes = weights @ mixing, np.tensordot(np.linalg.inv(mixing), shapes, 1)
    shapes = shapes.astype(np.float32)
    exact = np.tensordot(weights.astype(np.float64), shapes.astype(np.float64), 1)
    for tolerance in (1e-3, 1e-5):
        small = motions.compact(weights, shapes, tolerance=tolerance)
        error = np.linalg.norm(np.tensordot(small.weights, small.shapes, 1) - exact, axis=2).max()
        assert error <= tolerance
        assert small.largest_error == pytest.approx(error, rel=0.1, abs=1e-8)
        assert small.weights.shape[1] < 12
        assert np.abs(small.weights).max(axis=0) == pytest.approx(1.0, rel=1e-5)
        reach = np.linalg.norm(small.shapes, axis=2).max(axis=1)
        assert reach[0] == reach.max()


def test_compaction_of_no_motion_keeps_one_shape():
    small = motions.compact(np.zeros((5, 3), np.float32), np.zeros((3, 9, 3), np.float32),
                            tolerance=1e-5)  # fmt: skip
    assert small.weights.shape == (5, 1)
    assert small.largest_error == 0
    assert np.isfinite(small.shapes).all()


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "mot ion ü.npz"
    motion = some_motion()
    motions.write(path, motion)
    read = motions.read(path)
    assert (read.names, read.fps, read.start_seconds) == (motion.names, NTSC, 1.25)
    assert read.report == motion.report
    np.testing.assert_array_equal(read.weights, motion.weights)
    np.testing.assert_array_equal(motions.compose(read), motions.compose(motion))
    assert motions.compose(read, slice(3, 5)).shape == (2, 30, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["mot ion ü.npz"]
    with np.load(path, allow_pickle=False) as data:
        assert json.loads(str(data["report"])) == motion.report
        assert set(data.files) == {"weights", "shapes", "names", "template", "fps_numerator",
                                   "fps_denominator", "start_seconds", "report"}  # fmt: skip


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "motion.npz"
    path.write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match="No space left"):
        motions.write(path, some_motion())
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="cannot be written"):
        motions.write(tmp_path / "no folder" / "motion.npz", some_motion())


def test_values_that_are_no_numbers_are_not_written(tmp_path):
    motion = some_motion()
    motion.weights[3, 1] = np.nan
    with pytest.raises(UserError, match="NaN"):
        motions.write(tmp_path / "motion.npz", motion)
    assert not list(tmp_path.iterdir())


def test_wrong_shapes_are_named():
    motion = some_motion()
    with pytest.raises(ValueError, match=r"expected \(T, 3\)"):
        motions.Motion(motion.weights, motion.shapes, ("a", "b", "c"), motion.template, NTSC)
    with pytest.raises(ValueError, match="shapes, vertices, 3"):
        motions.Motion(motion.weights, motion.shapes, motion.names, motion.template[:5], NTSC)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    whole = tmp_path / "whole.npz"
    motions.write(whole, some_motion())
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole.read_bytes()[:2000])
    text = tmp_path / "text.npz"
    text.write_text("hello")
    objects = tmp_path / "objects.npz"
    np.savez(objects, **{"weights": np.array([{"a": 1}], dtype=object)})
    for path in (cut, text, tmp_path / "none.npz", tmp_path, objects):
        with pytest.raises(UserError):
            motions.read(path)
    with pytest.raises(UserError, match="Python objects"):
        io.read_arrays(objects, ["weights"])


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    path = tmp_path / "huge.npz"
    np.savez(path, weights=np.zeros((4, 2)))
    import zipfile
    from io import BytesIO

    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", header.getvalue())
    with pytest.raises(UserError, match="at most"):
        io.read_arrays(path, ["weights"])


def test_only_the_rows_asked_for_are_read(tmp_path):
    rows = np.arange(30.0).reshape(10, 3)
    np.savez(tmp_path / "a.npz", rows=rows, fortran=np.asfortranarray(rows))
    read = io.read_arrays(tmp_path / "a.npz", ["rows"], max_rows=4)["rows"]
    np.testing.assert_array_equal(read, rows[:4])
    read = io.read_arrays(tmp_path / "a.npz", ["fortran"])["fortran"]
    np.testing.assert_array_equal(read, rows)


def layered(motion):
    parts = np.stack([share * motion.weights for share in (0.75, 0.25, 0.25, -0.25)])
    frames = len(motion.weights)
    layers = motions.Layers(*parts, np.ones((frames, 3), np.float32), np.eye(3, dtype=np.float32))
    return dataclasses.replace(motion, layers=layers)


def test_layers_survive_the_file_and_may_be_missing(tmp_path):
    path = tmp_path / "motion.npz"
    motions.write(path, layered(some_motion()))
    found = motions.read(path)
    np.testing.assert_allclose(found.layers.total(), found.weights, atol=1e-6)
    np.testing.assert_array_equal(found.layers.head_rotation, np.ones((20, 3)))
    np.testing.assert_allclose(found.layers.emotion, -0.25 * found.weights, atol=1e-6)
    assert set(np.load(path)) >= set(motions.LAYER_KEYS.values())
    motions.write(path, some_motion())
    assert motions.read(path).layers is None


def test_layers_of_another_length_are_refused(tmp_path):
    path = tmp_path / "motion.npz"
    motions.write(path, layered(some_motion()))
    arrays = dict(np.load(path))
    arrays["head_rotation"] = arrays["head_rotation"][:-1]
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="head_rotation has shape"):
        motions.read(path)
