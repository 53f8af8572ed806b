# SPDX-License-Identifier: GPL-3.0-or-later
"""The head: nods on accents, a new posture with each phrase, drift, and a settle at the end.

Nods and beats of the head go with pitch accents (Hadar et al. 1983; Munhall et al. 2004); where the
eyes go far, the head follows with a part of the way (Freedman 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.life.movement import (
    Pulse,
    Step,
    add_pulses,
    child,
    drift,
    follow_steps,
    speaking_gate,
)
from backend.life.speech_cues import Span, SpeechCues

Floats = NDArray[np.float64]

_POSTURE_DEGREES: Final = (0.85, 1.5, 0.9)
_DRIFT_DEGREES: Final = (0.65, 0.75, 0.6)
_TREMBLE_DEGREES: Final = (0.18, 0.22, 0.17)
_FOLLOW_SHARE: Final = 0.16


def head_motion(
    times: Floats,
    cues: SpeechCues,
    away: Sequence[Span],
    steps: Sequence[Step],
    rng: np.random.Generator,
) -> Floats:
    """Rotation of the head about the face's axes, at rest in silence.

    Args:
        times: Times of the frames, ``(T,)``.
        cues: The speech.
        away: When the gaze is off the listener.
        steps: Saccades, which tell where the gaze goes then.
        rng: Source of chance.

    Returns:
        Degrees about x (positive nods), y (positive turns to the subject's left) and z (positive
        leans to the subject's right), ``(T, 3)``.
    """
    turned = follow_steps(times, _postures(cues, child(rng)))
    for axis in range(3):
        turned[:, axis] += _DRIFT_DEGREES[axis] * drift(
            times, rng, seconds=cues.seconds, spacing=0.9
        )
        turned[:, axis] += _TREMBLE_DEGREES[axis] * drift(
            times, rng, seconds=cues.seconds, spacing=0.32
        )
        turned[:, axis] += add_pulses(times, _beats(cues, axis, child(rng)))
    turned[:, 0] += add_pulses(times, _settles(cues))
    for axis, values in enumerate(_following(away, steps)):
        turned[:, axis] += add_pulses(times, values)
    return turned * speaking_gate(times, cues)[:, None]


def _postures(cues: SpeechCues, rng: np.random.Generator) -> list[Step]:
    steps = [Step(-np.inf, 1.0, (0.0, 0.0, 0.0))]
    for phrase in cues.phrases:
        now = phrase.start_seconds - 0.3
        while now < phrase.end_seconds - 0.4:
            if now > steps[-1].seconds + 1.0:
                x, y, z = rng.normal(0.0, _POSTURE_DEGREES)
                duration = float(rng.uniform(0.6, 1.0))
                steps.append(Step(now, duration, (float(x), float(y), float(z))))
            now += float(rng.uniform(1.4, 3.2))
    return steps if len(steps) > 1 else [Step(0.0, 1.0, (0.0, 0.0, 0.0))]


def _beats(cues: SpeechCues, axis: int, rng: np.random.Generator) -> list[Pulse]:
    """Nods on accents, some of them with a small lift before; few of the other axes."""
    pulses = []
    last = -np.inf
    for accent in cues.accents:
        chance = (0.3 + 0.5 * accent.strength) if axis == 0 else 0.18
        if accent.seconds - last < 0.55 or rng.random() > chance:
            continue
        last = accent.seconds
        size = float(rng.uniform(1.0, 2.8)) * (0.35 + 0.65 * accent.strength)
        if axis:
            size *= float(rng.choice([-0.7, 0.7]))
        elif rng.random() < 0.15:
            size = -0.6 * size  # a toss instead of a nod
        rise, fall = float(rng.uniform(0.18, 0.26)), float(rng.uniform(0.35, 0.6))
        pulses.append(Pulse(accent.seconds - rise, rise, 0.02, fall, size))
        if axis == 0 and rng.random() < 0.5:
            pulses.append(Pulse(accent.seconds - rise - 0.2, 0.18, 0.0, 0.2, -0.3 * size))
    return pulses


def _settles(cues: SpeechCues) -> list[Pulse]:
    """The chin sinks a little where a phrase ends, and stays until it goes on."""
    following = [*(p.start_seconds for p in cues.phrases), cues.seconds + 2.0][1:]
    return [
        Pulse(phrase.end_seconds - 0.25, 0.5, max(0.1, min(go_on - phrase.end_seconds, 1.5)), 0.6,
              -1.0 if phrase.is_question else 1.1)
        for phrase, go_on in zip(cues.phrases, following, strict=True)
    ]  # fmt: skip


def _following(away: Sequence[Span], steps: Sequence[Step]) -> tuple[list[Pulse], list[Pulse]]:
    """A part of each look away, about x and y, slower than the eyes."""
    nods, turns = [], []
    starts = np.array([step.seconds for step in steps])
    for begin, end in away:
        index = int(np.searchsorted(starts, begin - 1e-6))
        if index == len(steps):
            continue
        yaw, pitch = steps[index].values
        hold = max(0.0, end - begin - 0.45)
        nods.append(Pulse(begin, 0.45, hold, 0.6, -_FOLLOW_SHARE * pitch))
        turns.append(Pulse(begin, 0.45, hold, 0.6, _FOLLOW_SHARE * yaw))
    return nods, turns
