# SPDX-License-Identifier: GPL-3.0-or-later
"""The time a job has left: which stages are foreseen, and that it learns."""

import pytest

from backend.service import progress
from backend.service.progress import ProgressEstimate
from backend.stages import Stage


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("with_words", "first"), [(True, Stage.RECOGNISING_WORDS), (False, Stage.RECOGNISING_SOUNDS)]
)
def test_both_stages_are_foreseen(clock, with_words, first):
    estimate = ProgressEstimate()
    estimate.start(100.0, with_words=with_words)
    per_second = {Stage.RECOGNISING_WORDS: 0.2, Stage.RECOGNISING_SOUNDS: 0.01}[first]
    assert estimate.seconds_left(first, 0, 100) == pytest.approx(100 * (per_second + 0.03))
    assert estimate.seconds_left(Stage.ANIMATING, 0, 100) == pytest.approx(3.0)
    other = Stage.RECOGNISING_SOUNDS if with_words else Stage.RECOGNISING_WORDS
    assert estimate.seconds_left(other, 0, 100) is None


def test_it_learns_from_jobs_that_ended(clock):
    estimate = ProgressEstimate()
    estimate.start(100.0, with_words=False)
    estimate.seconds_left(Stage.RECOGNISING_SOUNDS, 0, 100)
    clock[0] = 4.0
    estimate.seconds_left(Stage.ANIMATING, 0, 100)
    clock[0] = 14.0
    estimate.finish()
    estimate.start(50.0, with_words=False)
    assert estimate.seconds_left(Stage.RECOGNISING_SOUNDS, 0, 50) == pytest.approx(2.0 + 5.0)
