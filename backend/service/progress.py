# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimates the time that a job has left, from its stage and from the stages of earlier jobs."""

from __future__ import annotations

import time

from backend.stages import Stage

_MIN_SOUND_SECONDS = 5.0
"""Jobs with less sound say too little of the speed of a stage."""


class ProgressEstimate:
    """Estimates the remaining time of jobs; learns the speed of each stage from jobs that ended."""

    def __init__(self) -> None:
        # Seconds that a stage takes for a second of sound; at first as measured on two cores.
        self._seconds_per_second: dict[str, float] = {
            Stage.RECOGNISING_WORDS: 0.2,
            Stage.RECOGNISING_SOUNDS: 0.01,
            Stage.ANIMATING: 0.03,
        }
        self._expected: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._sound_seconds = 0.0

    def start(self, sound_seconds: float, *, with_words: bool) -> None:
        """Begin a job.

        Args:
            sound_seconds: Length of its sound.
            with_words: Whether words are recognised or aligned, and not phones alone.
        """
        stages = (
            Stage.RECOGNISING_WORDS if with_words else Stage.RECOGNISING_SOUNDS,
            Stage.ANIMATING,
        )
        self._sound_seconds = sound_seconds
        self._expected = {s: self._seconds_per_second[s] * sound_seconds for s in stages}
        self._began = {}

    def seconds_left(self, stage: str, done: float, total: float) -> float | None:
        """Estimate the time until the job is done.

        Args:
            stage: The stage that the job is in.
            done: Work done in the stage.
            total: All work of the stage, in the same unit.

        Returns:
            Seconds, or None for a stage that is not foreseen.
        """
        if stage not in self._expected:
            return None
        now = time.monotonic()
        began = self._began.setdefault(stage, now)
        share = done / total if total > 0 else 1.0
        left = self._expected[stage] * (1 - share)
        if share > 0.05:  # the speed of this job is known by now
            left = (now - began) * (1 - share) / share
        stages = list(self._expected)
        return left + sum(self._expected[s] for s in stages[stages.index(stage) + 1 :])

    def finish(self) -> None:
        """End a job that succeeded; the next ones are expected to take as long."""
        if self._sound_seconds < _MIN_SOUND_SECONDS:
            return
        ends = [*self._began.values(), time.monotonic()][1:]
        for (stage, began), ended in zip(self._began.items(), ends, strict=True):
            self._seconds_per_second[stage] = (ended - began) / self._sound_seconds
