# SPDX-License-Identifier: GPL-3.0-or-later
"""When a job will be done: from the stage it is in, and from how long the stages took before."""

from __future__ import annotations

import time

from backend.stages import Stage


class ProgressEstimate:
    """Estimates the time that a job has left; learns from the jobs that ended."""

    def __init__(self) -> None:
        # Of sound, on two cores.
        self._seconds_per_second: dict[str, float] = {
            Stage.RECOGNISING_WORDS: 0.2,
            Stage.RECOGNISING_SOUNDS: 0.01,
            Stage.ANIMATING: 0.03,
        }
        self._expected: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._sound_seconds = 0.0

    def start(self, sound_seconds: float, *, with_words: bool) -> None:
        """A job begins."""
        stages = (
            Stage.RECOGNISING_WORDS if with_words else Stage.RECOGNISING_SOUNDS,
            Stage.ANIMATING,
        )
        self._sound_seconds = sound_seconds
        self._expected = {s: self._seconds_per_second[s] * sound_seconds for s in stages}
        self._began = {}

    def seconds_left(self, stage: str, done: float, total: float) -> float | None:
        """Time until the job is done, or None for a stage that is not foreseen."""
        if stage not in self._expected:
            return None
        now = time.monotonic()
        began = self._began.setdefault(stage, now)
        share = done / total if total > 0 else 1.0
        left = self._expected[stage] * (1 - share)
        if share > 0.05:  # by now it shows how fast this one goes
            left = (now - began) * (1 - share) / share
        stages = list(self._expected)
        return left + sum(self._expected[s] for s in stages[stages.index(stage) + 1 :])

    def finish(self) -> None:
        """The job ended well: what its stages took is what the next ones are expected to take."""
        if self._sound_seconds < 5.0:
            return
        ends = [*self._began.values(), time.monotonic()][1:]
        for (stage, began), ended in zip(self._began.items(), ends, strict=True):
            self._seconds_per_second[stage] = (ended - began) / self._sound_seconds
