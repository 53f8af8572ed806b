# SPDX-License-Identifier: GPL-3.0-or-later
"""Breath before a phrase: jaw and lips part a little, and are back before the first sound.

Speakers breathe in for some 0.5 s before a phrase, longer before a long one (Rochet-Capellan and
Fuchs 2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.life.movement import Pulse, add_pulses
from backend.life.speech_cues import SpeechCues

Floats = NDArray[np.float64]

_BACK_BEFORE = 0.09
_SHORTEST_PAUSE = 0.35


def breath_depth(times: Floats, cues: SpeechCues, rng: np.random.Generator) -> Floats:
    """How far the mouth is open to breathe, 0 to 1, ``(T,)``."""
    pulses = []
    last_end = 0.0
    for phrase in cues.phrases:
        pause = phrase.start_seconds - last_end
        length = phrase.end_seconds - phrase.start_seconds
        last_end = phrase.end_seconds
        if pause < _SHORTEST_PAUSE or length < 0.4:
            continue
        inhaled = min(0.75 * pause, float(rng.uniform(0.4, 0.7)))
        start = phrase.start_seconds - _BACK_BEFORE - inhaled
        height = float(rng.uniform(0.55, 0.8)) + 0.2 * min(length / 4.0, 1.0)
        rise, hold = 0.5 * inhaled, 0.15 * inhaled
        pulses.append(Pulse(start, rise, hold, inhaled - rise - hold, height))
    return np.minimum(add_pulses(times, pulses), 1.0)
