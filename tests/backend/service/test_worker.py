# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of one worker after each other: nothing of one reaches the next."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import soundfile

from backend import motion as motions
from backend.audio.load import QUIET
from backend.errors import Cancelled, UserError
from backend.heads.arkit import ARKIT_NAMES
from backend.inference import predictor
from backend.service import worker as worker_module
from backend.service.options import GenerateOptions
from backend.service.protocol import FacePointsRequest, GenerateRequest, StyleSource
from backend.service.worker import Worker

ROOT = Path(__file__).resolve().parents[3]


class Reporter:
    def __init__(self):
        self.warnings = []

    def status(self, text):
        pass

    def warn(self, text):
        self.warnings.append(text)

    def progress(self, stage, done, total, unit, seconds_left):
        pass

    def is_cancelled(self):
        return False


@pytest.fixture
def request_of(tiny_checkpoint, demo_head_file, tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", rng.normal(0, 0.1, 16000), 16000)
    return GenerateRequest(
        job="1", head=str(demo_head_file), audio=str(tmp_path / "a.wav"),
        out=str(tmp_path / "m.npz"), fps_numerator=25, fps_denominator=1,
        options=GenerateOptions(checkpoint=str(tiny_checkpoint), device="cpu", listen="sound"),
    )  # fmt: skip


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


def weights(worker, request, reporter=None):
    worker.run(request, reporter or Reporter())
    return motions.read(Path(request.out)).weights


def test_style_and_options_of_a_job_do_not_reach_the_next(worker, request_of, exemplar):
    plain = weights(worker, request_of)
    loud = replace(
        request_of,
        gain=0.2,
        style=StyleSource(kind="exemplar", value=str(exemplar)),
        options=replace(request_of.options, style_strength=2.5, decoder="autoregressive"),
    )
    assert np.abs(weights(worker, loud) - plain).max() > 1e-3
    named = replace(request_of, style=StyleSource(kind="named", value="two"))
    assert np.abs(weights(worker, named) - plain).max() > 1e-4
    np.testing.assert_array_equal(weights(worker, request_of), plain)


def test_emotions_come_from_the_options_and_from_what_a_named_style_shows(
    worker, request_of, monkeypatch
):
    def emotion_layer(request):
        worker.run(request, Reporter())
        return motions.read(Path(request.out)).layers.emotion

    frown = ARKIT_NAMES.index("browDownLeft")
    angry = replace(request_of, options=replace(request_of.options, emotion="anger:0.8"))
    assert emotion_layer(angry)[-1, frown] > 0.3
    assert not emotion_layer(request_of).any()
    monkeypatch.setattr(worker_module, "STYLE_EXPRESSIONS", {"two": {"anger": 0.4}})
    named = replace(request_of, style=StyleSource(kind="named", value="two"))
    one = emotion_layer(named)[-1, frown]
    strong = replace(named, options=replace(named.options, style_strength=2.0))
    assert emotion_layer(strong)[-1, frown] > 1.5 * one > 0.2
    with pytest.raises(UserError, match='"love" is no emotion'):
        emotion_layer(replace(request_of, options=replace(request_of.options, emotion="love")))


def test_frames_that_are_asked_for_are_made_at_any_rate(worker, request_of):
    for fps in ((24000, 1001), (30, 1), (120, 1), (997, 7)):
        request = replace(request_of, fps_numerator=fps[0], fps_denominator=fps[1])
        for num_frames in (15, 18, 21):
            request = replace(request, num_frames=num_frames, start_seconds=0.1)
            assert len(weights(worker, request)) == num_frames


def test_a_sound_that_ends_early_gives_its_own_frames_and_a_warning(worker, request_of):
    reporter = Reporter()
    assert len(weights(worker, replace(request_of, num_frames=50), reporter)) == 25
    assert "The sound ends 1.0 s before the end that was asked for." in reporter.warnings


def test_a_silent_sound_is_refused_and_a_quiet_one_warned_of(worker, request_of, tmp_path):
    with pytest.raises(UserError, match="silent"):
        worker.run(replace(request_of, gain=0.0), Reporter())
    reporter = Reporter()
    worker.run(replace(request_of, gain=0.02), reporter)
    assert reporter.warnings.count(QUIET) == 1


THREADS = """
import sys, torch
usual = torch.get_num_threads()
from backend.inference import devices
from backend.service.worker import Worker

worker = Worker()
worker.predictor(sys.argv[1], "torch", "cpu")
assert torch.get_num_threads() == 1, torch.get_num_threads()
devices._FEW_PARAMETERS = 0  # the next one counts as large
worker.predictor(sys.argv[2], "torch", "cpu")
assert torch.get_num_threads() == usual, torch.get_num_threads()
"""


def test_each_model_gets_the_threads_that_suit_it(tiny_checkpoint, tmp_path):
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    subprocess.run(
        [sys.executable, "-c", THREADS, str(tiny_checkpoint), str(other)],
        cwd=ROOT, env={"OMP_NUM_THREADS": "2", "PATH": ""}, check=True,
    )  # fmt: skip


def speech_layer(worker, request):
    worker.run(request, Reporter())
    return motions.read(Path(request.out)).layers.speech


def test_a_cut_stretch_moves_as_it_does_within_the_whole(worker, request_of, tmp_path, monkeypatch):
    monkeypatch.setattr(predictor, "NOBODY", "never said")  # the noise is to be followed
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "long.wav", rng.normal(0, 0.1, 4 * 16000), 16000)
    whole = replace(request_of, audio=str(tmp_path / "long.wav"))
    expected = speech_layer(worker, whole)[50:75]
    cut = speech_layer(worker, replace(whole, start_seconds=2.0, num_frames=25))
    assert len(cut) == 25
    soundfile.write(tmp_path / "part.wav", soundfile.read(whole.audio)[0][32000:48000], 16000)
    alone = speech_layer(worker, replace(request_of, audio=str(tmp_path / "part.wav")))
    assert np.abs(cut - expected).mean() < 0.5 * np.abs(alone - expected).mean()
    report = motions.read(Path(request_of.out)).report
    assert report["audio_seconds"] == 1.0


def test_a_strip_of_another_length_than_its_file_is_refused(worker, request_of):
    worker.run(replace(request_of, file_seconds=1.1), Reporter())
    for seconds in (0.7, 2.0):
        with pytest.raises(UserError, match="speed of the strip"):
            worker.run(replace(request_of, file_seconds=seconds), Reporter())


class CancelAfterAStep(Reporter):
    steps = 0

    def progress(self, stage, done, total, unit, seconds_left):
        self.steps += 1

    def is_cancelled(self):
        return self.steps > 0


def test_face_points_are_found_without_a_model(worker, demo_head_file, tmp_path):
    head, out = tmp_path / "marked.npz", tmp_path / "points.json"
    with np.load(demo_head_file) as data:
        arrays = dict(data)
    arrays |= {"face_point_names": np.array(["chin"]), "face_point_indices": np.array([17])}
    np.savez(head, **arrays)
    request = FacePointsRequest(job="1", head=str(head), out=str(out))
    with pytest.raises(Cancelled):
        worker.run(request, CancelAfterAStep())
    assert not out.exists()
    report = worker.run(request, Reporter())
    written = json.loads(out.read_text("utf-8"))
    assert report["face_points"] == written["face_points"]
    assert report["face_points"]["chin"] == 17  # marked points stay
    assert len(report["face_points"]) == 111
    assert set(report["doubtful_face_points"]) <= set(written["doubtful"])
    own = ROOT / "backend" / "topologies" / "demo.json"
    for wrong in (str(head), str(own)):
        with pytest.raises(UserError):
            worker.run(replace(request, out=wrong), Reporter())
