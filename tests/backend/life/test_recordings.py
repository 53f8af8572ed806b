# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a face's life on ten recordings of real voices, beside those of captured people."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from backend.evaluation.clips import SpokenClip, read_clips
from backend.evaluation.life_metrics import RANGES, Recording, measure_life, table
from backend.heads.arkit import ARKIT_NAMES
from backend.life.layers import LifeAmounts, make_life
from backend.life.speech_cues import read_cues
from backend.speech.phones import Phone

ROOT = Path(__file__).resolve().parents[3]
FPS = 50


@pytest.fixture(scope="module")
def clips():
    folder = Path(
        os.environ.get("PTALKER_SPEECH_VOICES") or ROOT.parent / "shared" / "speech-voices"
    )
    if not folder.exists():
        pytest.skip("PTALKER_SPEECH_VOICES is not set and speech-voices is not beside the checkout")
    return read_clips(folder, "alignment.json")


def minute(clips: list[SpokenClip], seed: int) -> tuple[np.ndarray, list[Phone], float]:
    """A minute of clips in random order, with pauses of 0.3 to 1.2 s between them."""
    rng = np.random.default_rng(seed)
    sound, phones, now = [], [], 0.0
    for index in rng.permutation(len(clips)):
        pause = round(rng.uniform(0.3, 1.2) * 16000)
        sound += [np.zeros(pause, np.float32), clips[index].samples]
        now += pause / 16000
        phones += [
            Phone(p.symbol, p.start_seconds + now, p.end_seconds + now) for p in clips[index].phones
        ]
        now += len(clips[index].samples) / 16000
        if now > 60.0:
            break
    return np.concatenate(sound), phones, now


def test_ten_minutes_of_real_voices_lie_within_the_ranges_of_people(clips, capsys):
    recordings = []
    for seed in range(10):
        samples, phones, seconds = minute(clips, seed)
        times = np.arange(int(seconds * FPS)) / FPS
        life = make_life(times, read_cues(samples, phones, seconds=seconds), LifeAmounts())
        none = np.zeros(len(times))
        weights = {name: life.weights.get(name, none) for name in ARKIT_NAMES}
        recordings.append(Recording(weights, life.head_rotation, float(FPS)))
    figures = measure_life(recordings)
    with capsys.disabled():
        sys.stdout.write("\n" + table(figures) + "\n")
    outside = [k for k, v in figures.items() if not RANGES[k][0] <= v <= RANGES[k][1]]
    assert not outside
