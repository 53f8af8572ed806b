# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated mouths beside captured ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")

from backend import bundled
from backend.errors import UserError
from backend.evaluation import captured_clips
from backend.evaluation.captured_clips import CapturedArguments, captured_metrics, read_captured

GRID = Path(__file__).resolve().parents[4] / "shared" / "captured" / "grid"
FPS, SECONDS = 25.0, 2.0


def write_clip(folder, name="bbaf2n", **changes):
    """A mouth that opens 8 mm twice a second; the sound is soft noise."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.01, int(SECONDS * 16000)).astype(np.float32)
    soundfile.write(folder / f"{name}.flac", samples, 16000)
    times = np.arange(round(SECONDS * FPS)) / FPS
    gap = (4.0 - 4.0 * np.cos(4.0 * np.pi * times)).astype(np.float32)
    arrays = {"gap_mm": gap, "width_mm": 50.0 - 0.5 * gap, "fps": np.array(FPS)} | changes
    np.savez(folder / f"{name}.npz", **arrays)


def test_the_same_mouth_later_and_half_as_wide_is_told(tmp_path):
    write_clip(tmp_path)
    clips = read_captured(tmp_path)
    truth = np.nan_to_num(clips[0].gap_mm, nan=0.0)
    late = np.concatenate([np.zeros(2), 0.5 * truth[:-2]])  # by two frames of 20 ms
    metrics = captured_metrics([(late, 50.0 - late)], clips)
    assert metrics["opening"] == pytest.approx(1.0, abs=0.01)
    assert metrics["width"] == pytest.approx(1.0, abs=0.01)
    assert metrics["lag_ms"] == pytest.approx(40.0)
    assert metrics["gap_95_ratio"] == pytest.approx(0.5, abs=0.02)
    assert metrics["closures_found"] == metrics["closures_right"] == 1.0


def test_a_mouth_that_never_shuts_finds_no_closure(tmp_path):
    write_clip(tmp_path)
    clips = read_captured(tmp_path)
    open_gap = 5.0 + np.nan_to_num(clips[0].gap_mm, nan=0.0)
    metrics = captured_metrics([(open_gap, open_gap)], clips)
    assert metrics["closures_found"] == 0.0


def test_words_follow_from_the_names_of_grid_or_stand_in_a_file(tmp_path):
    write_clip(tmp_path, "swiz8p")
    assert read_captured(tmp_path)[0].spoken.text == "set white in z eight please"
    write_clip(tmp_path, "mine")
    with pytest.raises(UserError, match=r"mine\.npz has no text in texts\.json"):
        read_captured(tmp_path)
    (tmp_path / "texts.json").write_text(json.dumps({"mine": "my own words"}))
    assert read_captured(tmp_path)[0].spoken.text == "my own words"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), "holds no captured mouth"),
        (lambda path: path.with_suffix(".flac").unlink(), "has no sound beside it"),
        (lambda path: path.write_bytes(b"no zip"), "does not hold gap_mm"),
        (lambda path: np.savez(path, gap_mm=np.zeros(50)), "does not hold gap_mm"),
        (lambda path: np.savez(path, gap_mm=1, width_mm=1, fps=25), "does not hold gap_mm"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path, spoil, sentence):
    write_clip(tmp_path)
    spoil(tmp_path / "bbaf2n.npz")
    with pytest.raises(UserError, match=sentence):
        read_captured(tmp_path)


def test_the_bundled_model_follows_captured_people_better_than_the_level_does(tmp_path):
    if not GRID.is_dir():
        pytest.skip("needs ../shared/captured/grid, captured mouths")
    out = tmp_path / "report.json"
    report = captured_clips.main(
        CapturedArguments(bundled.BASE_CHECKPOINT, GRID, modes=("text",), out=out)
    )
    assert json.loads(out.read_text()) == report
    level, network = report[captured_clips.LEVEL], report["network, text"]
    assert network["opening"] > level["opening"] + 0.1
    assert network["width"] > level["width"] + 0.1
    text = captured_clips.table(report)
    assert text.count("\n") == 4
    assert "| network, text | 0." in text
