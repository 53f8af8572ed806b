# SPDX-License-Identifier: GPL-3.0-or-later
"""Gestures of the mouth: constrictions that must arrive, preparation, breath, and rest.

Gestures are those of articulatory phonology (Browman and Goldstein 1992): a constriction has an
onset, a plateau on which it is reached, and a release.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.articulation.speaking_style import SpeakingStyle
from backend.speech.phones import SILENCE, Phone

PAUSE_SECONDS = 0.18
"""Shorter pauses do not bring the mouth to rest."""
BREATH_SECONDS = 0.46
"""Breath is taken so long before a phrase, after a pause of ``BREATH_PAUSE_SECONDS`` or more."""
BREATH_PAUSE_SECONDS = 0.5


def spoken_stretches(phones: list[Phone]) -> NDArray[np.float64]:
    """Start and end of each stretch of speech, short pauses inside it; shape ``(n, 2)``."""
    stretches: list[list[float]] = []
    for phone in phones:
        if phone.symbol == SILENCE:
            continue
        if stretches and phone.start_seconds - stretches[-1][1] < PAUSE_SECONDS:
            stretches[-1][1] = phone.end_seconds
        else:
            stretches.append([phone.start_seconds, phone.end_seconds])
    return np.array(stretches).reshape(-1, 2)


def ramp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The minimum-jerk step from 0 to 1 while ``values`` go from 0 to 1 (Flash and Hogan 1985)."""
    x = np.clip(values, 0.0, 1.0)
    return x**3 * (10.0 - 15.0 * x + 6.0 * x**2)


def activity(phones: list[Phone], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 while speaking, 0 at rest: the mouth gets ready 0.2 s before and relaxes within 0.26 s."""
    activity = np.zeros(len(times))
    for start, end in spoken_stretches(phones):
        rise = ramp((times - (start - 0.2)) / 0.19)
        fall = 1.0 - ramp((times - end) / 0.26)
        np.maximum(activity, np.minimum(rise, fall), out=activity)
    return activity


def breath(phones: list[Phone], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intake of breath before phrases that follow a pause of half a second or more.

    Speakers breathe in through the mouth in the last half second before they speak (Winkworth et
    al. 1995), deeper after a longer pause; it is 1 after a pause of 0.8 s, 1.5 at most.
    """
    breath = np.zeros(len(times))
    for silence, phone in pairwise(phones):
        pause = phone.start_seconds - silence.start_seconds
        if silence.symbol == SILENCE and pause >= BREATH_PAUSE_SECONDS:
            end, depth = phone.start_seconds, min(pause / 0.8, 1.5)
            bump = ramp((times - (end - BREATH_SECONDS)) / 0.25) * (
                1.0 - ramp((times - (end - 0.12)) / 0.14)
            )
            np.maximum(breath, depth * bump, out=breath)
    return breath


def gesture(
    phones: list[Phone],
    has_it: Callable[[Phone], bool],
    times: NDArray[np.float64],
    *,
    fps: float,
    style: SpeakingStyle,
    ramps: tuple[float, float] = (0.075, 0.06),
) -> NDArray[np.float64]:
    """Activation, 0 to 1, of a constriction that is reached at any rate of speech; shape ``(T,)``.

    The plateau is never shorter than a frame, so that a frame lies on it at any frame rate. Ramps
    shrink where two constrictions are close, so that the mouth opens for the vowel in between.
    """
    holds = plateaus(phones, has_it, shortest=max(0.042, 1.02 / fps))
    activation = np.zeros(len(times))
    if not len(holds):
        return activation
    gaps = np.concatenate([[np.inf], holds[1:, 0] - holds[:-1, 1], [np.inf]])
    pace = math.exp(0.2 * style.smoothness - 0.15 * style.articulation)
    attacks = np.maximum(np.minimum(ramps[0] * pace, 0.55 * gaps[:-1]), 0.01)
    releases = np.maximum(np.minimum(ramps[1] * pace, 0.55 * gaps[1:]), 0.01)
    for (start, end), attack, release in zip(holds, attacks, releases, strict=True):
        first, last = np.searchsorted(times, [start - attack, end + release])
        near = times[first:last]
        bump = np.minimum(ramp((near - start) / attack + 1.0), 1.0 - ramp((near - end) / release))
        np.maximum(activation[first:last], bump, out=activation[first:last])
    return activation


def plateaus(
    phones: list[Phone], has_it: Callable[[Phone], bool], *, shortest: float
) -> NDArray[np.float64]:
    """Times at which runs of phones with a constriction hold it; shape ``(n, 2)``, seconds.

    A stop's label includes its burst and aspiration, during which the lips are already apart.
    """
    holds: list[list[float]] = []
    goes_on = False
    for phone in phones:
        if has_it(phone):
            length = phone.end_seconds - phone.start_seconds
            early = {"P": min(0.4 * length, 0.05), "B": min(0.2 * length, 0.025)}.get(
                phone.symbol, 0.08 * length
            )
            start, end = phone.start_seconds + min(0.1 * length, 0.01), phone.end_seconds - early
            missing = max(shortest - (end - start), 0.0)
            start, end = start - 0.4 * missing, end + 0.6 * missing
            if goes_on:
                holds[-1][1] = max(end, holds[-1][1])
            else:
                holds.append([start, end])
        goes_on = has_it(phone)
    return np.array(holds).reshape(-1, 2)
