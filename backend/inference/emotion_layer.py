# SPDX-License-Identifier: GPL-3.0-or-later
"""Emotion as a layer of a motion: how it was asked for, and what it adds to speech and life."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.articulation.emotion import EMOTIONS, LARGEST_AMOUNT, Rhythm, Step, show
from backend.articulation.expression_blend import blend, lip_freedom
from backend.articulation.gestures import ramp
from backend.audio.arousal import voice_arousal
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import UserError, excerpt
from backend.heads.lip_measures import lip_curves
from backend.heads.topology import Head
from backend.life.speech_cues import read_cues
from backend.motion import Layers, frame_seconds
from backend.speech.phones import Phone

_HELP: Final = (
    'Give one like joy:0.7, a blend like joy:0.5+surprise:0.3, or a list like [[0, "joy", 0.5], '
    '[2.5, "sadness", 1]] of seconds, emotion and amount.'
)
_NO_SHAPES: Final = (
    "This model makes shapes of its own, so no expression is known of them; the emotion is left "
    "out."
)
_STRENGTH_BY_VOICE: Final = 0.7
_READY_SECONDS: Final = (0.3, 0.08)
_RELEASE_SECONDS: Final = 0.35

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Emotion:
    """The emotion of a motion.

    Attributes:
        steps: What is wanted, in order of time.
        always: Amount by expression that is there besides all the time.
        from_voice: How far the voice's arousal sets the strength, 0 to 1.
    """

    steps: tuple[Step, ...] = ()
    always: Mapping[str, float] = field(default_factory=dict)
    from_voice: float = 0.0

    @property
    def is_neutral(self) -> bool:
        """Whether it does nothing."""
        return not (self.steps or self.always or self.from_voice)


def parse_emotion(text: str) -> tuple[Step, ...]:
    """Parses the option ``emotion``.

    Args:
        text: ``joy:0.7``, ``joy:0.5+surprise:0.3``, or a JSON list of ``[seconds, emotion,
            amount]``, in which an emotion holds until the next time and those of one time are a
            blend. Nothing, or ``neutral``, is no emotion.

    Returns:
        The steps in order of time.

    Raises:
        UserError: It is none of these, names no emotion, or an amount is not from 0 to 1.5.
    """
    text = text.strip()
    if text in ("", "neutral"):
        return ()
    if text.startswith("["):
        return _listed_steps(text)
    amounts: dict[str, float] = {}
    for part in text.split("+"):
        name, _, amount = part.partition(":")
        amounts[_known(name)] = _number(amount or "1", "amount", LARGEST_AMOUNT)
    return (Step(0.0, amounts),)


def _listed_steps(text: str) -> tuple[Step, ...]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        text = excerpt(error, 80)
        raise UserError(f"The list of emotions is no JSON ({text}). {_HELP}") from error
    by_time: dict[float, dict[str, float]] = {}
    for row in rows:
        if not isinstance(row, list) or len(row) != 3 or not isinstance(row[1], str):
            raise UserError(f"{excerpt(row, 60)} is no seconds, emotion and amount. {_HELP}")
        seconds = _number(row[0], "time", math.inf)
        amounts = by_time.setdefault(seconds, {})
        if row[1].strip().lower() != "neutral":
            amounts[_known(row[1])] = _number(row[2], "amount", LARGEST_AMOUNT)
    return tuple(Step(seconds, by_time[seconds]) for seconds in sorted(by_time))


def _known(name: str) -> str:
    found = name.strip().lower()
    if found not in EMOTIONS:
        raise UserError(
            f'"{excerpt(name.strip(), 40)}" is no emotion. There are: {", ".join(EMOTIONS)}.'
        )
    return found


def _number(value: object, what: str, largest: float) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0.0 <= number <= largest or isinstance(value, bool) or math.isinf(number):
        allowed = f"from 0 to {largest:g}" if math.isfinite(largest) else "0 or more"
        raise UserError(
            f"The {what} of an emotion is {excerpt(value, 30)}; it must be a number {allowed}."
        )
    return number


def add_emotion(
    layers: Layers,
    names: Sequence[str],
    shapes: NDArray[np.float32],
    head: Head,
    emotion: Emotion,
    *,
    samples: NDArray[np.float32],
    phones: Sequence[Phone] | None,
    fps: Fraction,
    warn: Callable[[str], None],
) -> Layers:
    """Adds the layer of an emotion to speech, upper face and life.

    Args:
        layers: The layers so far.
        names: ARKit names of the ``K`` shapes.
        shapes: Displacements of the shapes in the head's own space, ``(K, V, 3)``.
        head: The head.
        emotion: What is wanted.
        samples: Mono sound at 16 kHz from the first frame on.
        phones: Phones with times from the first frame; None if unknown.
        fps: Frames per second, exact.
        warn: Called with what the user should know.

    Returns:
        The same layers and that of the emotion, which takes from the others where it is negative.
    """
    if emotion.is_neutral:
        return layers
    if not names:
        warn(_NO_SHAPES)
        return layers
    before = layers.total()
    times, seconds = frame_seconds(len(before), fps), float(len(before) / fps)
    cues = read_cues(samples[: math.ceil(seconds * SAMPLE_RATE_HZ)], phones, seconds=seconds)
    spans = [(phrase.start_seconds, phrase.end_seconds) for phrase in cues.phrases]
    accents = [(accent.seconds, accent.strength) for accent in cues.accents]
    steps, factor = emotion.steps, np.ones(len(times))
    if emotion.from_voice:
        aroused = emotion.from_voice * voice_arousal(samples, spans, phones, times)
        factor = 1.0 + _STRENGTH_BY_VOICE * aroused
        if not steps:  # a voice alone tells how aroused its owner is, and not of what
            factor = np.ones(len(times))
            steps = _steps_of_arousal(aroused, times, spans)
    rhythm = Rhythm(seconds, spans, accents)
    shown = show(_with_always(steps, emotion.always), times, rhythm, factor=factor)
    gap_mm, speaking = lip_curves(before, shapes, head)["gap_mm"], _speaking(times, spans)
    after = blend(before, names, shown, gap_mm=gap_mm, speaking=speaking)
    held = speaking * (1.0 - lip_freedom(gap_mm, speaking))
    after = _closed_again(after, before, names, shapes, head, held=held)
    return replace(layers, emotion=after - before)


def _with_always(steps: Sequence[Step], always: Mapping[str, float]) -> tuple[Step, ...]:
    if not always:
        return tuple(steps)
    from_start = steps if steps and steps[0].seconds <= 0.0 else (Step(0.0, {}), *steps)
    return tuple(
        Step(
            step.seconds,
            {n: step.amounts.get(n, 0.0) + always.get(n, 0.0) for n in {*step.amounts, *always}},
        )
        for step in from_start
    )


def _steps_of_arousal(
    aroused: Floats, times: Floats, spans: Sequence[tuple[float, float]]
) -> tuple[Step, ...]:
    """Calm or aroused in each phrase, by the voice."""
    steps = [Step(0.0, {})]
    for start, end in spans:
        value = float(np.interp(0.5 * (start + end), times, aroused))
        name = "aroused" if value > 0.0 else "calm"
        steps.append(Step(max(0.0, start - _READY_SECONDS[0]), {name: abs(value)}))
    return tuple(steps)


def _speaking(times: Floats, spans: Sequence[tuple[float, float]]) -> Floats:
    """1 in phrases, with ramps before and after, ``(T,)``: the lips are ready for the first."""
    speaking = np.zeros(len(times))
    ready, start_at = _READY_SECONDS
    for start, end in spans:
        rise = ramp((times - start + ready) / (ready - start_at))
        fall = 1.0 - ramp((times - end - 0.05) / _RELEASE_SECONDS)
        np.maximum(speaking, np.minimum(rise, fall), out=speaking)
    return speaking


def _closed_again(
    after: NDArray[np.float32],
    before: NDArray[np.float32],
    names: Sequence[str],
    shapes: NDArray[np.float32],
    head: Head,
    *,
    held: Floats,
) -> NDArray[np.float32]:
    """The lips as near to each other as before where a sound holds them, on this very head.

    What a sneer lifts or a smile on this head parts, ``mouthClose`` takes back.
    """
    if "mouthClose" not in names:
        return after
    column = list(names).index("mouthClose")
    alone = np.zeros((1, len(names)), np.float32)
    alone[0, column] = 1.0
    reach = -float(lip_curves(alone, shapes, head)["opening_mm"][0])
    if reach <= 1.0:  # a shape that does not close anything
        return after
    parted = lip_curves(after - before, shapes, head)["opening_mm"]
    closed = after.copy()
    closed[:, column] += (held * np.maximum(parted, 0.0) / reach).astype(np.float32)
    return closed
