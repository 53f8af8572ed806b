# SPDX-License-Identifier: GPL-3.0-or-later
"""Style taken from captures of invented people."""

import numpy as np
import pytest

pytest.importorskip("torch")

from backend import bundled
from backend.evaluation import invented_people
from backend.evaluation.clips import read_clips
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.lip_measures import measured_demo_head
from backend.inference.predictor import open_predictor
from tests.backend.evaluation.recordings import real_speech


def test_the_mouth_stays_under_brows_that_go_their_own_way():
    weights = np.full((200, 52), 0.3, np.float32)
    other = invented_people._under_another_face(weights, np.random.default_rng(0))
    mouth = [not name.startswith(("brow", "eye")) for name in ARKIT_NAMES]
    np.testing.assert_array_equal(other[:, mouth], weights[:, mouth])
    brow = other[:, ARKIT_NAMES.index("browInnerUp")]
    assert brow.std() > 0.1
    assert np.abs(np.diff(brow)).max() < 0.05  # slow
    assert other[:, ARKIT_NAMES.index("eyeSquintLeft")].min() >= 0.34


def test_mouths_of_invented_people_arrive():
    clips = read_clips(real_speech("PTALKER_SPEECH", "speech"), "alignment.json")
    predictor = open_predictor(bundled.BASE_CHECKPOINT, device="cpu")
    try:
        metrics = invented_people.invented_people_metrics(
            predictor, clips[:5], measured_demo_head(), count=2
        )
    finally:
        predictor.close()
    assert metrics["mouth_mean_error_ratio"] <= 0.5
    assert metrics["mouth_spread_error_ratio"] <= 0.7
    assert metrics["jaw_spread_worst_ratio"] <= 1.25
    assert metrics["closures_f1_loss"] <= 0.05
