# SPDX-License-Identifier: GPL-3.0-or-later
"""Gaze: fixations on a listener's face, saccades between them, and looks away to think.

Speakers look away in pauses and where they plan a long phrase, and back at its end, when the
listener may speak (Kendon 1967; Ho et al. 2015). A saccade takes 21 ms and 2.2 ms more a degree
(Bahill et al. 1975); on a face the eyes go between its eyes and its mouth (Yarbus 1967).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.life.movement import WARM_UP_SECONDS, Step, child, drift, follow_steps
from backend.life.speech_cues import Span, SpeechCues

Floats = NDArray[np.float64]

_LISTENER: Final = ((-2.4, 0.9), (2.4, 0.9), (0.0, -2.6))
"""A listener's eyes and mouth at some 75 cm: yaw and pitch in degrees."""
_SHORTEST_FIXATION, _LONGEST_FIXATION = 0.2, 2.4
_BACK_BEFORE_END: Final = 0.5
_ATTENTIVE_AFTER_END: Final = 1.8
_LONG_PAUSE: Final = 0.35
_SILENCE_SECONDS: Final = 4.0


def looks_away(cues: SpeechCues, rng: np.random.Generator) -> list[Span]:
    """When the speaker looks away from the listener, in order of time and apart."""
    found = [*_thinking(cues, child(rng)), *_planning(cues, child(rng))]
    found += _wandering(cues, child(rng))
    if cues.phrases:
        end = cues.phrases[-1].end_seconds
        kept = (end - _BACK_BEFORE_END, end + _ATTENTIVE_AFTER_END)
        found = [(a, min(b, kept[0]) if a < kept[0] else b) for a, b in found]
        found = [(a, b) for a, b in found if b <= kept[0] or a >= kept[1]]
    apart: list[Span] = []
    for start, end in sorted(found):
        if end - start < 0.3 or (apart and start < apart[-1][1] + 0.35):
            continue
        apart.append((start, end))
    return apart


def _thinking(cues: SpeechCues, rng: np.random.Generator) -> Iterator[Span]:
    """Looks away in pauses."""
    for start, end in cues.pauses:
        if end - start > _LONG_PAUSE and rng.random() < 0.6:
            longest = start + min(end - start + float(rng.uniform(0.1, 0.9)), 3.5)
            yield start - float(rng.uniform(0.0, 0.25)), longest


def _planning(cues: SpeechCues, rng: np.random.Generator) -> Iterator[Span]:
    """Looks away at the start of long phrases, and now and then within them."""
    for phrase in cues.phrases:
        if phrase.end_seconds - phrase.start_seconds > 1.6 and rng.random() < 0.45:
            start = phrase.start_seconds - float(rng.uniform(-0.05, 0.3))
            yield start, start + float(rng.uniform(0.6, 1.5))
        moment = phrase.start_seconds + float(rng.uniform(1.8, 4.5))
        while moment < phrase.end_seconds - 1.2:
            yield moment, moment + float(rng.uniform(0.5, 1.3))
            moment += float(rng.uniform(3.0, 6.5))


def _wandering(cues: SpeechCues, rng: np.random.Generator) -> list[Span]:
    """Looks away in silence of some seconds."""
    edges = [-WARM_UP_SECONDS]
    for phrase in cues.phrases:
        edges += [phrase.start_seconds, phrase.end_seconds]
    edges.append(cues.seconds + WARM_UP_SECONDS)
    found = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        moment = start + float(rng.uniform(1.5, 4.0))
        while end - start > _SILENCE_SECONDS and moment < end - 1.0:
            found.append((moment, moment + float(rng.uniform(0.6, 1.8))))
            moment = found[-1][1] + float(rng.uniform(1.5, 5.0))
    return found


def fixations(cues: SpeechCues, away: list[Span], rng: np.random.Generator) -> list[Step]:
    """Saccades in order of time, to yaw (to the subject's left) and pitch (up) in degrees."""
    steps: list[Step] = []
    place = np.zeros(2)
    side = float(rng.choice([-1.0, 1.0]))
    now, coming = -WARM_UP_SECONDS, list(away)
    centre = np.zeros(2)
    was_away = False
    while now < cues.seconds:
        while coming and coming[0][1] <= now:
            coming.pop(0)
        is_away = bool(coming) and coming[0][0] <= now
        if is_away and not was_away:
            side = side if rng.random() < 0.35 else -side
            centre = np.array([side * rng.uniform(4.5, 9.5), _away_pitch(rng)])
            target = centre
        elif is_away:
            target = centre + np.clip(rng.normal(0.0, (1.9, 1.5)), -3.0, 3.0)
        else:
            target = _on_the_face(place, rng)
        size = float(np.hypot(*(target - place)))
        steps.append(Step(now, 0.021 + 0.0022 * size, (float(target[0]), float(target[1]))))
        place, was_away = target, is_away
        stay = float(rng.gamma(2.4, 0.31 if is_away else 0.42))
        stay = min(max(stay, _SHORTEST_FIXATION), _LONGEST_FIXATION)
        change = coming[0][1 if is_away else 0] if coming else np.inf
        now = change if now + _SHORTEST_FIXATION < change < now + stay + 0.2 else now + stay
    return steps


def _away_pitch(rng: np.random.Generator) -> float:
    kind = rng.random()
    if kind < 0.5:
        return float(rng.uniform(-6.5, -2.5))
    return float(rng.uniform(2.5, 5.5) if kind < 0.8 else rng.uniform(-1.0, 1.0))


def _on_the_face(place: Floats, rng: np.random.Generator) -> Floats:
    """Another point of the listener's face than the one that is looked at."""
    points = np.array(_LISTENER) + rng.normal(0.0, 0.45, (len(_LISTENER), 2))
    far = np.hypot(*(points - place).T) > 1.5
    return np.asarray(points[rng.choice(np.flatnonzero(far))])


def gaze_degrees(
    times: Floats, steps: list[Step], rng: np.random.Generator, *, seconds: float
) -> Floats:
    """Direction of the gaze: yaw to the subject's left and pitch up, in degrees, ``(T, 2)``."""
    wander = [drift(times, rng, seconds=seconds, spacing=0.4) for _ in range(2)]
    return np.asarray(follow_steps(times, steps) + 0.12 * np.stack(wander, axis=1))
