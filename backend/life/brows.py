# SPDX-License-Identifier: GPL-3.0-or-later
"""Brows: raises on accents and questions, raises held for seconds, frowns, and their slow mood.

A raise leads its accent by some 60 ms (Cave et al. 1996; Flecha-Garcia 2010); many phrases are
spoken under brows that stay up (Ekman 1979). How often is a matter of the voice: a monotonous one
comes with a still face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.life.movement import Pulse, add_pulses, child, drift, speaking_gate
from backend.life.speech_cues import SpeechCues

Floats = NDArray[np.float64]

_LEAD_SECONDS: Final = 0.06
_LARGEST: Final = 0.8
_UNSTEADY: Final = 0.16
"""Share by which the height of a held raise or frown varies: muscles do not hold still."""


@dataclass(frozen=True, slots=True)
class Brows:
    """Weights over time, each ``(T,)``.

    Attributes:
        inner: Raise of the inner ends.
        outer: Raise of the outer ends.
        down: Frown.
    """

    inner: Floats
    outer: Floats
    down: Floats


def brow_motion(times: Floats, cues: SpeechCues, rng: np.random.Generator) -> Brows:
    """Brows of a speaker, at rest in silence.

    Args:
        times: Times of the frames, ``(T,)``.
        cues: The speech.
        rng: Source of chance.

    Returns:
        Weights at the times.
    """
    held = _holds(cues, child(rng))
    beats = _beats(cues, child(rng))
    asking = child(rng)
    asked = [
        Pulse(p.end_seconds - 0.75, 0.3, 0.75, 0.5, float(asking.uniform(0.22, 0.4)))
        for p in cues.phrases
        if p.is_question
    ]
    frowns = _frowns(cues, child(rng))
    gate = speaking_gate(times, cues)
    mood = drift(times, rng, seconds=cues.seconds, spacing=3.0)
    tension = drift(times, rng, seconds=cues.seconds, spacing=2.5)
    slow = 0.06 * cues.liveliness * np.maximum(mood, 0.0)
    share = 0.5 + 0.5 * rng.random()  # of the outer ends, a habit of the person
    lively, firm = (
        1.0 + _UNSTEADY * drift(times, rng, seconds=cues.seconds, spacing=0.8) for _ in range(2)
    )
    raised = lively * (add_pulses(times, held) + add_pulses(times, asked))
    beat = add_pulses(times, beats)
    down = firm * add_pulses(times, frowns) + 0.04 * np.maximum(tension, 0.0)
    worried = np.clip(1.0 - 1.6 * down, 0.25, 1.0)
    inner = (raised + 0.85 * beat) * worried + slow
    outer = (share * raised + beat) * worried + 0.5 * slow
    return Brows(*(_limited(np.maximum(x, 0.0)) * gate for x in (inner, outer, down)))


def _limited(values: Floats) -> Floats:
    """Values that approach the largest weight softly."""
    return np.asarray(_LARGEST * np.tanh(values / _LARGEST))


def _holds(cues: SpeechCues, rng: np.random.Generator) -> list[Pulse]:
    pulses = []
    free = -np.inf
    for phrase in cues.phrases:
        now = phrase.start_seconds - float(rng.uniform(-0.1, 0.25))
        while now < phrase.end_seconds - 0.5:
            hold = float(rng.uniform(0.6, 2.2))
            if now > free and rng.random() < 0.4 * cues.liveliness:
                rise, fall = float(rng.uniform(0.22, 0.4)), float(rng.uniform(0.45, 0.9))
                height = float(rng.uniform(0.14, 0.4))
                pulses.append(Pulse(now, rise, hold, fall, height))
                free = now + rise + hold + fall
            now += hold + float(rng.uniform(1.0, 2.5))
    return pulses


def _beats(cues: SpeechCues, rng: np.random.Generator) -> list[Pulse]:
    pulses = []
    last = -np.inf
    for accent in cues.accents:
        wish = (0.22 + 0.5 * accent.strength) * cues.liveliness
        if accent.seconds - last > 0.9 and rng.random() < wish:
            last = accent.seconds
            rise, hold = float(rng.uniform(0.13, 0.2)), float(rng.uniform(0.05, 0.25))
            height = float(rng.uniform(0.18, 0.46)) * (0.5 + 0.5 * accent.strength)
            start = accent.seconds - _LEAD_SECONDS - rise
            pulses.append(Pulse(start, rise, hold, float(rng.uniform(0.28, 0.5)), height))
    return pulses


def _frowns(cues: SpeechCues, rng: np.random.Generator) -> list[Pulse]:
    thinking, stressing = child(rng), child(rng)
    moments = [
        start for start, end in cues.pauses if end - start > 0.35 and thinking.random() < 0.35
    ]
    moments += [
        accent.seconds - 0.3
        for accent in cues.accents
        if stressing.random() < 0.4 * cues.liveliness * (0.5 + accent.strength)
    ]
    pulses = []
    free = -np.inf
    for moment in sorted(moments):
        if moment < free:
            continue
        rise, hold, fall = rng.uniform((0.2, 0.2, 0.4), (0.4, 1.3, 0.8))
        height = float(rng.uniform(0.12, 0.32))
        pulses.append(Pulse(moment, float(rise), float(hold), float(fall), height))
        free = moment + float(rise + hold + fall) + 0.3
    return pulses
