# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of moving faces: what they measure, and that the rules lie where captured people do."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from backend.articulation.speaking_style import SpeakingStyle
from backend.evaluation.clips import SpokenClip, read_clips
from backend.evaluation.motion_figures import (
    CAPTURED,
    RULES,
    motion_figures,
    num_inside,
    sound_level_db,
    speaking_frames,
    table,
)
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.lip_measures import measured_demo_head
from backend.speech.phones import Phone

RATE, FPS, SECONDS = 16000, 50, 8
SHARED = Path(__file__).parents[4] / "shared"
LIFE = {
    "brow raises per minute", "frowns per minute", "browInnerUp sd", "gaze sd (eyeLookOut)",
    "eyeBlink between blinks",
}  # fmt: skip
"""Made by another layer than articulation."""


@pytest.fixture(scope="module")
def mouth():
    return measured_demo_head()


def clip(level=0.1):
    """Noise for six seconds, then two of silence."""
    samples = np.random.default_rng(0).normal(0.0, level, SECONDS * RATE).astype(np.float32)
    samples[6 * RATE :] *= 1e-4
    return SpokenClip("noise", samples, "", (Phone("AA", 0.0, 6.0),))


def motion(**curves):
    weights = np.zeros((SECONDS * FPS, len(ARKIT_NAMES)), np.float32)
    for name, curve in curves.items():
        weights[:, ARKIT_NAMES.index(name)] = curve
    return weights


def test_speaking_frames_end_with_the_sound_and_bridge_short_pauses():
    samples = clip().samples.copy()
    samples[2 * RATE : 2 * RATE + RATE // 10] = 0.0
    speaking = speaking_frames(sound_level_db(samples, SECONDS * FPS))
    assert speaking[15 : 6 * FPS - 3].all()
    assert not speaking[6 * FPS + 5 :].any()


def test_a_swinging_jaw_is_measured_in_size_speed_and_frequency(mouth):
    times = np.arange(SECONDS * FPS) / FPS
    slow, fast = (
        motion_figures(
            [motion(jawOpen=0.2 + 0.2 * np.sin(2 * np.pi * hertz * times))], [clip()], mouth
        )
        for hertz in (1.0, 4.0)
    )
    assert slow["jawOpen sd"] == pytest.approx(0.2 / np.sqrt(2), rel=0.05)
    assert slow["jawOpen share of the power at 2 to 6 Hz"] < 0.1
    assert fast["jawOpen share of the power at 2 to 6 Hz"] > 0.9
    speeds = [found["jawOpen 95 % of the speed, per s"] for found in (slow, fast)]
    assert speeds[0] == pytest.approx(0.2 * 2 * np.pi, rel=0.05)
    assert speeds[1] > 3.3 * speeds[0]  # central differences take a little off
    assert slow["jawOpen 95 % of the power below, Hz"] < fast["jawOpen 95 % of the power below, Hz"]
    assert slow["gap 95 %, mm"] > 8.0


def test_channels_sides_and_events_are_told_apart(mouth):
    times = np.arange(SECONDS * FPS) / FPS
    wave = 0.2 + 0.1 * np.sin(2 * np.pi * 0.5 * times)
    found = motion_figures(
        [
            motion(
                mouthSmileLeft=1.2 * wave, mouthSmileRight=0.8 * wave, mouthStretchLeft=wave,
                mouthStretchRight=wave, browInnerUp=4 * (wave - 0.1),
            )
        ],
        [clip()],
        mouth,
    )  # fmt: skip
    assert found["correlation mouthSmile, mouthStretch"] == pytest.approx(1.0)
    assert found["asymmetry mouthSmile"] == pytest.approx(0.4, rel=0.01)
    assert found["asymmetry mouthStretch"] == 0.0
    assert found["brow raises per minute"] == pytest.approx(30.0, abs=8.0)


def test_a_still_face_is_outside_and_does_no_harm(mouth):
    found = motion_figures([motion()], [clip()], mouth)
    assert found.keys() == CAPTURED.keys()
    assert num_inside(found) < 5
    assert found["share of the time with lips shut"] == 1.0
    lines = table({RULES: found}).splitlines()
    assert len(lines) == len(CAPTURED) + 3
    assert f"{num_inside(found)} of {len(CAPTURED)}" in lines[-1]
    assert all(" *" in line for line in lines if line.startswith("| jawOpen 99"))


@pytest.mark.skipif(not (SHARED / "speech").is_dir(), reason="no recordings in ../shared")
def test_the_rules_move_a_face_as_captured_people_do(mouth):
    clips = [
        spoken
        for folder in ("speech", "speech-voices")
        for spoken in read_clips(SHARED / folder, "alignment.json")
    ]
    neutral = SpeakingStyle.neutral()
    motions = [spoken.articulated(spoken.phones, neutral) for spoken in clips]
    found = motion_figures(motions, clips, mouth)
    outside = {
        name: round(value, 3)
        for name, value in found.items()
        if name not in LIFE and not CAPTURED[name].low <= value <= CAPTURED[name].high
    }
    assert not outside
