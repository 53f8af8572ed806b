# SPDX-License-Identifier: GPL-3.0-or-later
"""The time a job has left: which stages are foreseen, and that it learns."""

import pytest

from backend import schedule
from backend.schedule import ANIMATING, HEARING, LISTENING, Schedule


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("with_words", "first"), [(True, LISTENING), (False, HEARING)])
def test_both_stages_are_foreseen(clock, with_words, first):
    estimate = Schedule()
    estimate.start(100.0, with_words=with_words)
    per_second = {LISTENING: 0.2, HEARING: 0.01}[first]
    assert estimate.seconds_left(first, 0, 100) == pytest.approx(100 * (per_second + 0.03))
    assert estimate.seconds_left(ANIMATING, 0, 100) == pytest.approx(3.0)
    other = HEARING if with_words else LISTENING
    assert estimate.seconds_left(other, 0, 100) is None


def test_it_learns_from_jobs_that_ended(clock):
    estimate = Schedule()
    estimate.start(100.0, with_words=False)
    estimate.seconds_left(HEARING, 0, 100)
    clock[0] = 4.0
    estimate.seconds_left(ANIMATING, 0, 100)
    clock[0] = 14.0
    estimate.finish()
    estimate.start(50.0, with_words=False)
    assert estimate.seconds_left(HEARING, 0, 50) == pytest.approx(2.0 + 5.0)
