# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of movements in continuous time: steps, pulses, drift, and the gate of speech.

Everything is a function of time that is only sampled at the frames, so that a face does the same
at every frame rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from backend.life.speech_cues import SpeechCues

Floats = NDArray[np.float64]

WARM_UP_SECONDS: Final = 8.0
"""Processes begin this long before the first frame, so that it is like any other."""
_GATE_RISE_SECONDS: Final = 0.5
_GATE_HOLD_SECONDS: Final = 0.7
_GATE_FALL_SECONDS: Final = 1.6


@dataclass(frozen=True, slots=True)
class Step:
    """A move to a new posture.

    Attributes:
        seconds: When it begins.
        duration: How long it takes.
        values: Where it goes, one number per axis.
    """

    seconds: float
    duration: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pulse:
    """A rise from rest, a hold, and a return.

    Attributes:
        seconds: When it begins.
        rise: Duration of the rise.
        hold: Duration at full height.
        fall: Duration of the return.
        height: Its height.
    """

    seconds: float
    rise: float
    hold: float
    fall: float
    height: float


def child(rng: np.random.Generator) -> np.random.Generator:
    """A source of chance for one process; how much that takes of it changes no other.

    So a line that is cut at its end lives up to there as before.
    """
    return np.random.default_rng(int(rng.integers(1 << 62)))


def ease(share: Floats) -> Floats:
    """The path of a reaching movement with the least jerk, from 0 to 1 (Flash and Hogan 1985)."""
    u = np.clip(share, 0.0, 1.0)
    return np.asarray(u * u * u * (10.0 + u * (6.0 * u - 15.0)))


def follow_steps(times: Floats, steps: Sequence[Step]) -> Floats:
    """A posture that moves from step to step.

    Args:
        times: Times of the frames, ascending, ``(T,)``.
        steps: Steps in order of time; each ends before the next begins, the first is from rest.

    Returns:
        Values at the times, ``(T, axes)``.
    """
    starts = np.array([step.seconds for step in steps])
    durations = np.array([step.duration for step in steps])
    values = np.array([step.values for step in steps])
    before = np.concatenate([np.zeros_like(values[:1]), values[:-1]])
    index = np.searchsorted(starts, times, side="right") - 1
    at = np.maximum(index, 0)
    share = ease((times - starts[at]) / durations[at])[:, None]
    moved = before[at] + (values[at] - before[at]) * share
    return np.where(index[:, None] >= 0, moved, 0.0)


def add_pulses(times: Floats, pulses: Sequence[Pulse]) -> Floats:
    """Sum of pulses at the times, ``(T,)``."""
    total = np.zeros(len(times))
    for pulse in pulses:
        top, fall = pulse.seconds + pulse.rise, pulse.seconds + pulse.rise + pulse.hold
        part = slice(*np.searchsorted(times, [pulse.seconds, fall + pulse.fall]))
        up = ease((times[part] - pulse.seconds) / max(top - pulse.seconds, 1e-6))
        down = ease((times[part] - fall) / max(pulse.fall, 1e-6))
        total[part] += pulse.height * np.minimum(up, 1.0 - down)
    return total


def drift(times: Floats, rng: np.random.Generator, *, seconds: float, spacing: float) -> Floats:
    """Smooth noise of about unit spread through random values at regular times.

    Args:
        times: Times of the frames, ``(T,)``.
        rng: Source of chance.
        seconds: Time up to which it is needed.
        spacing: Seconds between the random values.

    Returns:
        Values at the times, ``(T,)``.
    """
    count = int(np.ceil((seconds + 2.0 * WARM_UP_SECONDS) / spacing)) + 3
    knots = np.arange(count) * spacing - WARM_UP_SECONDS
    return np.asarray(CubicSpline(knots, child(rng).normal(size=count))(times))


def speaking_gate(times: Floats, cues: SpeechCues) -> Floats:
    """1 during speech and short pauses, 0 in silence, with soft edges; ``(T,)``."""
    gate = np.zeros(len(times))
    for phrase in cues.phrases:
        start = phrase.start_seconds - _GATE_RISE_SECONDS
        close = phrase.end_seconds + _GATE_HOLD_SECONDS
        end = close + _GATE_FALL_SECONDS
        part = slice(*np.searchsorted(times, [start, end]))
        up = ease((times[part] - start) / (2.0 * _GATE_RISE_SECONDS))
        down = ease((times[part] - close) / _GATE_FALL_SECONDS)
        gate[part] = np.maximum(gate[part], np.minimum(up, 1.0 - down))
    return gate
