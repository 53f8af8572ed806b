# SPDX-License-Identifier: GPL-3.0-or-later
"""Blinks, and the lids between them.

People blink some 20 times a minute while they speak (Bentivoglio et al. 1997), at the ends of
phrases (Condon and Ogston 1967; Cummins 2012) and with large shifts of the gaze (Evinger et al.
1994); a lid shuts two to three times as fast as it opens (Trutoiu et al. 2011), and many blinks are
not whole.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.life.movement import WARM_UP_SECONDS, Step, child, drift, ease
from backend.life.speech_cues import SpeechCues

Floats = NDArray[np.float64]

_MEAN_INTERVAL: Final = 3.25
_REGULARITY: Final = 6.0
_SNAP_BEFORE, _SNAP_AFTER = 1.1, 0.9
_LARGE_SHIFT_DEGREES: Final = 5.0
_HALF_SHARE: Final = 0.22
_DOUBLE_SHARE: Final = 0.08
_SHUT_SECONDS: Final = 0.042
"""Time at the peak: at 24 frames a second one frame falls into it."""


def blink_times(
    cues: SpeechCues, steps: list[Step], rng: np.random.Generator, *, rate: float
) -> Floats:
    """When blinks begin.

    Args:
        cues: The speech; blinks go to the ends of its phrases.
        steps: Saccades; blinks go with large ones.
        rng: Source of chance.
        rate: 1 for a usual number of blinks, 2 for twice as many.

    Returns:
        Times in seconds, ascending.
    """
    late = child(rng)
    ends = [phrase.end_seconds + float(late.uniform(0.0, 0.15)) for phrase in cues.phrases]
    places = np.array([(0.0, 0.0), *(step.values for step in steps)])
    sizes = np.hypot(*np.diff(places, axis=0).T)
    shifts = [
        step.seconds - 0.02
        for step, size in zip(steps, sizes, strict=True)
        if size > _LARGE_SHIFT_DEGREES
    ]
    reasons = np.sort(np.array([*ends, *shifts]))
    pace = 1.0 / rate
    found: list[float] = []
    now = -WARM_UP_SECONDS
    while now < cues.seconds:
        due = now + pace * max(0.5, float(rng.gamma(_REGULARITY, _MEAN_INTERVAL / _REGULARITY)))
        near = reasons[(reasons > due - _SNAP_BEFORE * pace) & (reasons < due + _SNAP_AFTER * pace)]
        near = near[near > now + 0.6 * pace]
        if len(near) and rng.random() < 0.85:
            due = float(near[np.argmin(np.abs(near - due))])
        now = due
        found.append(now)
        if rng.random() < _DOUBLE_SHARE:
            found.append(now + float(rng.uniform(0.36, 0.5)))
            now = found[-1]
    return np.array(found)


def lids(
    times: Floats, moments: Floats, pitch: Floats, rng: np.random.Generator, *, seconds: float
) -> Floats:
    """Weight of both lids.

    Args:
        times: Times of the frames, ``(T,)``.
        moments: When blinks begin.
        pitch: Pitch of the gaze at the times in degrees, up is positive, ``(T,)``.
        rng: Source of chance.
        seconds: Length of the stretch.

    Returns:
        Weight of ``eyeBlink``, 0 to 1, ``(T,)``.
    """
    weary = drift(times, rng, seconds=seconds, spacing=2.5)
    rest = np.clip(0.068 + 0.008 * weary - 0.005 * pitch, 0.03, 0.12)
    closed = np.zeros(len(times))
    for moment in moments:
        is_half = rng.random() < _HALF_SHARE
        peak = float(rng.uniform(0.5, 0.65) if is_half else rng.uniform(0.82, 1.0))
        closing, opening = float(rng.uniform(0.095, 0.15)), float(rng.uniform(0.22, 0.38))
        turn = moment + closing + _SHUT_SECONDS
        part = slice(*np.searchsorted(times, [moment, turn + opening]))
        down = ease((times[part] - moment) / closing)
        up = ease(np.clip((times[part] - turn) / opening, 0.0, 1.0) ** 0.75)
        np.maximum(closed[part], peak * np.minimum(down, 1.0 - up), out=closed[part])
    return np.asarray(rest + (1.0 - rest) * closed)
