# SPDX-License-Identifier: GPL-3.0-or-later
"""Emotions as expressions with an amount, over time: which shapes, how far, and how they come.

The expressions are the prototypes of the Facial Action Coding System (Ekman, Friesen and Hager
2002, Investigator's Guide, table 10-1; for surprise's and fear's lids and brows also Ekman and
Friesen 1975), written in ARKit's names: AU 1 ``browInnerUp``, 2 ``browOuterUp``, 4 ``browDown``,
5 ``eyeWide``, 6 ``cheekSquint``, 7 ``eyeSquint``, 9 ``noseSneer``, 10 ``mouthUpperUp``,
12 ``mouthSmile``, 14 ``mouthDimple``, 15 ``mouthFrown``, 16 ``mouthLowerDown``,
17 ``mouthShrugLower``, 20 ``mouthStretch``, 23 and 24 ``mouthPress``, 26 ``jawOpen``, 43
``eyeBlink``. Calm and aroused are the two ends of the circumplex's other axis (Russell 1980).

An expression is an event with an onset, an apex that is held, and an offset (Ekman and Friesen
1978). Felt smiles take half a second and more to come and longer to go (Schmidt, Ambadar, Cohn and
Reed 2006), startle and surprise a fifth of it, and surprise is the shortest (Ekman 2003). Faces are
more expressive while their owner speaks and on accents (Ekman 1979; Cave et al. 1996), and on their
left side (Sackeim, Gur and Saucy 1978).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST_AMOUNT: Final = 1.5
_CLOCK_HZ: Final = 50.0
_LINGER_SECONDS: Final = 0.35
_READY_SECONDS: Final = 0.3
_SHORT_PAUSE_SECONDS: Final = 0.5
_SWELL: Final = 0.16
_SWELL_SECONDS: Final = 0.16
_MOUTH_LAG_SECONDS: Final = 0.07
_FADE_SECONDS: Final = 1.0
_SIDES: Final = {"mouth": 0.08, "cheek": 0.06, "brow": 0.05, "eye": 0.02, "nose": 0.07}
"""How much more the subject's left side does, and how much less the right."""


@dataclass(frozen=True, slots=True)
class Expression:
    """What a face does in an emotion at full amount.

    Attributes:
        targets: Weight by ARKit name; a name without its side means both.
        arousal: From -1, calm, to 1: by it the mouth opens less or more while speaking.
        onset_seconds: How long it takes to come.
        offset_seconds: How long it takes to go.
        rest: What is left of it between phrases, as a share.
        held: What is left of it in a long phrase, as a share.
    """

    targets: Mapping[str, float]
    arousal: float = 0.0
    onset_seconds: float = 0.5
    offset_seconds: float = 0.9
    rest: float = 0.75
    held: float = 1.0


def _expression(targets: dict[str, float], *timing: float) -> Expression:
    return Expression(MappingProxyType(targets), *timing)


EMOTIONS: Final[Mapping[str, Expression]] = MappingProxyType({
    # AU 6 + 12, with 7 and a little of 2 and 25.
    "joy": _expression({
        "cheekSquint": 0.75, "mouthSmile": 0.75, "eyeSquint": 0.32, "mouthDimple": 0.15,
        "mouthUpperUp": 0.14, "browOuterUp": 0.12, "browInnerUp": 0.06,
    }, 0.3, 0.55, 0.9, 0.75),
    # AU 4 + 5 + 7 + 23, with 9, 10, 17 and 24.
    "anger": _expression({
        "browDown": 0.95, "eyeWide": 0.28, "eyeSquint": 0.6, "mouthPress": 0.5, "noseSneer": 0.25,
        "mouthShrugLower": 0.22, "mouthFrown": 0.25, "mouthRollUpper": 0.18, "jawForward": 0.25,
        "mouthLowerDown": 0.12,
    }, 0.5, 0.3, 0.8, 0.85),
    # AU 1 + 4 + 15, with 17, a little of 6, and lids and gaze that droop (43, 64).
    "sadness": _expression({
        "browInnerUp": 1.0, "browDown": 0.42, "mouthFrown": 0.85, "mouthShrugLower": 0.35,
        "cheekSquint": 0.18, "eyeSquint": 0.14, "eyeBlink": 0.15, "eyeLookDown": 0.18,
        "mouthRollLower": 0.06,
    }, -0.7, 0.8, 1.5, 0.95),
    # AU 1 + 2 + 4 + 5 + 20 + 26.
    "fear": _expression({
        "browInnerUp": 0.95, "browOuterUp": 0.4, "browDown": 0.35, "eyeWide": 0.95,
        "mouthStretch": 0.7, "mouthFrown": 0.25, "mouthLowerDown": 0.18, "jawOpen": 0.06,
    }, 0.3, 0.2, 0.8, 0.85),
    # AU 9 + 15 + 16, with 4, 6, 7, 10 and 17.
    "disgust": _expression({
        "noseSneer": 0.8, "mouthUpperUp": 0.06, "browDown": 0.6, "eyeSquint": 0.55,
        "cheekSquint": 0.55, "mouthFrown": 0.6, "mouthShrugLower": 0.35, "mouthLowerDown": 0.05,
    }, -0.4, 0.35, 0.7, 0.75),
    # AU 1 + 2 + 5 + 26.
    "surprise": _expression({
        "browInnerUp": 0.95, "browOuterUp": 0.95, "eyeWide": 0.75, "jawOpen": 0.16,
        "mouthFunnel": 0.08,
    }, 0.4, 0.15, 0.6, 0.65, 0.75),
    "calm": _expression({
        "eyeBlink": 0.2, "mouthSmile": 0.1, "cheekSquint": 0.06, "mouthDimple": 0.06,
        "browOuterUp": 0.05,
    }, -0.9, 1.0, 1.5, 1.0),
    "aroused": _expression({
        "eyeWide": 0.5, "browInnerUp": 0.3, "browOuterUp": 0.4, "cheekSquint": 0.25,
        "noseSneer": 0.12, "mouthSmile": 0.14, "mouthStretch": 0.16, "mouthLowerDown": 0.12,
    }, 1.0, 0.3, 0.8, 0.7),
})  # fmt: skip
"""The emotions by the names that users give."""

_CROOKED: Final = _expression({
    "mouthLeft": 0.3, "jawLeft": 0.12, "mouthSmileLeft": 0.32, "mouthDimpleLeft": 0.25,
    "mouthFrownRight": 0.16, "cheekSquintLeft": 0.3, "mouthUpperUpLeft": 0.12,
    "mouthLowerDownLeft": 0.1, "browOuterUpLeft": 0.5, "browDownRight": 0.4, "eyeSquintRight": 0.25,
}, 0.0, 0.4, 0.8, 0.8)  # fmt: skip
EXPRESSIONS: Final[Mapping[str, Expression]] = MappingProxyType({**EMOTIONS, "crooked": _CROOKED})
"""The emotions, and what only named styles have."""

STYLE_EXPRESSIONS: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType({
    "sad": {"sadness": 0.85},
    "smile": {"joy": 0.35},
    "tense": {"anger": 0.35},
    "excited": {"aroused": 0.55, "joy": 0.2},
    "crooked": {"crooked": 1.0},
})  # fmt: skip
"""What named styles show beside their way of speaking, at strength 1."""


@dataclass(frozen=True, slots=True)
class Step:
    """Amounts that hold from one time on.

    Attributes:
        seconds: Since when, from the first frame.
        amounts: Amount by expression; those that are not named are 0.
    """

    seconds: float
    amounts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """What of the speech expressions go by.

    Attributes:
        seconds: Length of the motion.
        phrases: Start and end of each stretch of speech, in order.
        accents: Time and strength, 0 to 1, of syllables that stand out.
    """

    seconds: float
    phrases: Sequence[tuple[float, float]] = ()
    accents: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """Expressions over time.

    Attributes:
        weights: Weight by full ARKit name, each ``(T,)``.
        arousal: From -1 to 1, ``(T,)``.
    """

    weights: dict[str, Floats]
    arousal: Floats


def show(
    steps: Sequence[Step], times: Floats, rhythm: Rhythm, *, factor: Floats | float = 1.0
) -> Shown:
    """Lets expressions come, stay and go with the speech.

    Args:
        steps: What is wanted, in order of time.
        times: Times of the frames in seconds, ascending, ``(T,)``.
        rhythm: The speech.
        factor: Multiplies all amounts, ``(T,)`` or one number.

    Returns:
        Weights and arousal at the times.
    """
    clock = np.arange(math.ceil(max(rhythm.seconds, 1.0 / _CLOCK_HZ) * _CLOCK_HZ) + 1) / _CLOCK_HZ
    swell = _swell(clock, rhythm.accents)
    factors = np.interp(clock, times, np.broadcast_to(factor, times.shape)) if len(times) else 1.0
    weights: dict[str, Floats] = {}
    arousal = np.zeros(len(times))
    for name in sorted({name for step in steps for name in step.amounts}):
        expression = EXPRESSIONS[name]
        wanted = _wanted(clock, steps, name) * factors
        aimed = wanted * _presence(clock, rhythm.phrases, expression) * swell
        level = np.clip(_eased(aimed, expression), 0.0, LARGEST_AMOUNT)
        arousal += expression.arousal * np.interp(times, clock, level)
        for shape, target in _both_sides(expression.targets):
            lag = 0.0 if shape.startswith(("brow", "eye")) else _MOUTH_LAG_SECONDS
            weight = np.clip(target * np.interp(times - lag, clock, level), 0.0, 1.0)
            known = weights.get(shape, np.zeros(len(times)))
            weights[shape] = 1.0 - (1.0 - known) * (1.0 - weight)
    return Shown(weights, np.clip(arousal, -1.0, 1.0))


def _both_sides(targets: Mapping[str, float]) -> list[tuple[str, float]]:
    """Full names with their weights, the left side's a little larger."""
    sided = ("brow", "eye", "cheekSquint", "noseSneer", "mouth")
    single = ("browInnerUp", "mouthRoll", "mouthShrug", "mouthFunnel", "mouthLeft", "mouthRight")
    full = []
    for name, weight in targets.items():
        is_single = not name.startswith(sided) or name.startswith(single)
        if is_single or name.endswith(("Left", "Right")):
            full.append((name, weight))
            continue
        more = next(share for part, share in _SIDES.items() if name.startswith(part))
        full += [(f"{name}Left", weight * (1.0 + more)), (f"{name}Right", weight * (1.0 - more))]
    return full


def _wanted(clock: Floats, steps: Sequence[Step], name: str) -> Floats:
    starts = np.array([step.seconds for step in steps])
    amounts = np.array([0.0, *(step.amounts.get(name, 0.0) for step in steps)])
    return np.asarray(amounts[np.searchsorted(starts, clock, side="right")])


def _presence(
    clock: Floats, phrases: Sequence[tuple[float, float]], expression: Expression
) -> Floats:
    """1 in phrases, or down to ``held`` in long ones; ``rest`` between them."""
    presence = np.full(len(clock), expression.rest)
    begun = -math.inf
    ended = -math.inf
    for start, end in phrases:
        if start - ended > _SHORT_PAUSE_SECONDS:
            begun, ended = start - _READY_SECONDS, start - _READY_SECONDS
        first, last = np.searchsorted(clock, [max(ended, begun), end + _LINGER_SECONDS])
        since = np.maximum(clock[first:last] - begun - _FADE_SECONDS, 0.0)
        fading = np.exp(-since / _FADE_SECONDS)
        presence[first:last] = expression.held + (1.0 - expression.held) * fading
        ended = end
    return presence


def _swell(clock: Floats, accents: Sequence[tuple[float, float]]) -> Floats:
    """Around 1: a little more on accents, a little less between them."""
    swell = np.zeros(len(clock))
    for seconds, strength in accents:
        first, last = np.searchsorted(clock, [seconds - 0.6, seconds + 0.6])
        bump = np.exp(-0.5 * np.square((clock[first:last] - seconds) / _SWELL_SECONDS))
        np.maximum(swell[first:last], strength * bump, out=swell[first:last])
    return 1.0 + _SWELL * (swell - 0.35)


def _eased(aimed: Floats, expression: Expression) -> Floats:
    """Follows an aim with two equal lags in a row: quicker up than down, no corner, no overshoot.

    Such a pair has 90 % of its way behind it after 3.9 lags.
    """
    rise, fall = (
        1.0 - math.exp(-3.9 / (_CLOCK_HZ * seconds))
        for seconds in (expression.onset_seconds, expression.offset_seconds)
    )
    eased = np.empty(len(aimed))
    first = second = float(aimed[0])
    for index, aim in enumerate(aimed.tolist()):
        first += (rise if aim > first else fall) * (aim - first)
        second += (rise if first > second else fall) * (first - second)
        eased[index] = second
    return eased
