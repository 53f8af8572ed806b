# SPDX-License-Identifier: GPL-3.0-or-later
"""Gains of a style: how far each articulator goes in it, beside what the style code says.

A model that is shown a style finds how things are said and hardly how far they go. So a style keeps
the exemplar's own figures, the mean and the spread of each weight while it speaks, and a gain and
an offset that bring the model's to them. With ``w`` what the model gives, ``s`` the strength and
``c`` how closed the lips are (1 up to 0.4 mm, 0 from 2.5 mm):

    w' = max(0, w + s * (1 - c) * (gain * w + offset - w))

``c`` counts for the weights that part or seal the lips alone; ``mouthClose`` never exceeds
``jawOpen``; and a frame that would still open closed lips, or close open ones, is drawn back as far
as that needs. Gain and offset are found on a known sentence and kept in
the style's file; from a recording of 6 s of speech on they are found on that recording itself, of a
shorter one in proportion. A recording in which the model opens the jaw far less than in the known
sentence, such as a murmur, keeps what is less. Brows and lids have gains without offset, for the
sum of what is predicted and of life.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.heads.arkit import ARKIT_NAMES, CLOSED_MM, MAX_WEIGHT
from backend.inference.exemplar_parts import IS_UPPER, is_speaking

GAIN_LIMITS: Final = (0.2, 5.0)
OFFSET_LIMIT: Final = 0.3
SCALED_UPPER: Final = ("brow", "eyeSquint", "eyeWide")
"""What of the upper face is scaled: blinks and gaze are life's alone."""
_SHUT_MM: Final = (0.4, 2.5)
_SEALING: Final = (
    "jawOpen", "mouthClose", "mouthFunnel", "mouthLowerDown", "mouthUpperUp", "mouthRoll",
    "mouthShrug", "mouthPress", "tongueOut",
)  # fmt: skip
_MOST_SHUT_MM: Final = 0.8
_LEAST_OPEN_MM: Final = 1.3
"""Beyond these a frame is drawn back towards the model's where the lips were shut, or were not."""
_STEPS: Final = 25
_ENOUGH_SECONDS: Final = 6.0
_MOST_FRAMES: Final = 3000
_USUAL_SHARE: Final = 0.75
"""Of the jaw's spread in the known sentence, below which a recording keeps what is less."""
_DEAD: Final = (0.002, 0.004)
"""A weight with a smaller spread and mean was not seen by the tracker, or not moved at all."""

Floats = NDArray[np.float64]
LipCurves = Callable[[NDArray[np.floating]], Mapping[str, NDArray[np.float64]]]
_IS_SEALING: Final = np.array([name.startswith(_SEALING) for name in ARKIT_NAMES])


@dataclass(frozen=True, slots=True)
class Figures:
    """How far a speaking face goes, in the order of ``ARKIT_NAMES``.

    Attributes:
        mean: Mean of each weight, ``(52,)``; NaN where it is not known.
        spread: Its standard deviation, ``(52,)``; NaN where it is not known.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, weights: NDArray[np.floating], known: NDArray[np.bool_]) -> Figures:
        """Figures of the frames in which an exemplar speaks.

        Args:
            weights: These frames, without the rest, ``(T, 52)``.
            known: Which weights the exemplar's tracker knows, ``(52,)``.

        Returns:
            The figures; a weight that never moves is not known.
        """
        mean, spread = weights.mean(axis=0, dtype=np.float64), weights.std(axis=0, dtype=np.float64)
        seen = known & ((spread > _DEAD[0]) | (mean > _DEAD[1]))
        return cls(np.where(seen, mean, np.nan), np.where(seen, spread, np.nan))


@dataclass(frozen=True, slots=True)
class Gains:
    """Gain and offset of weights, in the order of ``ARKIT_NAMES``.

    Attributes:
        gain: Factor of each weight, ``(52,)``.
        offset: What is added to it, ``(52,)``.
    """

    gain: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def none(cls) -> Gains:
        """Gains that change nothing."""
        return cls(np.ones(len(ARKIT_NAMES)), np.zeros(len(ARKIT_NAMES)))

    def on_speech(
        self,
        weights: NDArray[np.floating],
        names: Sequence[str],
        gap_mm: NDArray[np.floating],
        strength: float,
    ) -> NDArray[np.float32]:
        """The weights of mouth, cheeks and nose with their gains.

        Args:
            weights: What the model gives, ``(T, K)``.
            names: Names of the ``K`` weights; those that are not ARKit's stay.
            gap_mm: Largest parting of the lips under these weights, ``(T,)``.
            strength: 0 changes nothing, 1 is the style, more exaggerates it.

        Returns:
            Weights, ``(T, K)``, those of brows and eyes as they were.
        """
        columns, numbers = _columns(names, ~IS_UPPER)
        closed = _closed(gap_mm)[:, None] * _IS_SEALING[numbers]
        values = weights[:, columns].astype(np.float64)
        step = self.gain[numbers] * values + self.offset[numbers] - values
        moved = np.clip(values + strength * (1.0 - closed) * step, 0.0, MAX_WEIGHT)
        result = np.array(weights, np.float32)
        result[:, columns] = moved
        if "jawOpen" in names and "mouthClose" in names:
            close, jaw = names.index("mouthClose"), names.index("jawOpen")
            room = result[:, jaw] + np.maximum(weights[:, close] - weights[:, jaw], 0.0)
            result[:, close] = np.minimum(result[:, close], room)
        return result

    def of_upper_face(self, names: Sequence[str], strength: float) -> NDArray[np.float32]:
        """Factors ``(K,)`` of what brows and lids do; 1 for all other weights."""
        columns, numbers = _columns(names, IS_UPPER)
        factors = np.ones(len(names), np.float32)
        factors[columns] = np.maximum(1.0 + strength * (self.gain[numbers] - 1.0), 0.0)
        return factors


def _columns(names: Sequence[str], wanted: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """Columns of the weights that are wanted, and their numbers in ``ARKIT_NAMES``."""
    pairs = [
        (column, ARKIT_NAMES.index(name))
        for column, name in enumerate(names)
        if name in ARKIT_NAMES and wanted[ARKIT_NAMES.index(name)]
    ]
    return [column for column, _ in pairs], [number for _, number in pairs]


def _closed(gap_mm: NDArray[np.floating]) -> Floats:
    low, high = _SHUT_MM
    share = np.clip((high - np.asarray(gap_mm, np.float64)) / (high - low), 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share))


@dataclass(frozen=True, slots=True)
class StyleGains:
    """What a style's file says of how far articulators go.

    Attributes:
        known: Gains on the known sentence.
        figures: The exemplar's own.
        jaw_spread: Spread of ``jawOpen`` that the model gives in the known sentence.
    """

    known: Gains
    figures: Figures
    jaw_spread: float

    def on_speech(
        self,
        weights: NDArray[np.floating],
        names: Sequence[str],
        lips: LipCurves,
        fps: float,
        strength: float,
    ) -> NDArray[np.float32]:
        """The weights of mouth, cheeks and nose with the gains of their recording.

        Args:
            weights: What the model gives in this style, ``(T, K)``.
            names: Names of the ``K`` weights; those that are not ARKit's stay.
            lips: Opening and gap of the lips on the head under any such weights, in mm.
            fps: Frames a second.
            strength: 0 changes nothing, 1 is the style, more exaggerates it.

        Returns:
            Weights, ``(T, K)``, under which the lips are shut when they were and at no other time.
        """
        before = lips(weights)
        gains = self.on_recording(weights, names, before["gap_mm"], fps)
        moved = gains.on_speech(weights, names, before["gap_mm"], strength)
        was, now = before["opening_mm"], lips(moved)["opening_mm"]
        nearest = np.minimum(was, np.where(was < CLOSED_MM, np.inf, _LEAST_OPEN_MM))
        farthest = np.where(was < CLOSED_MM, np.maximum(was, _MOST_SHUT_MM), np.inf)
        limit = np.clip(now, nearest, farthest)
        back = np.where(limit == now, 0.0, (limit - now) / np.where(was == now, 1.0, was - now))
        return (moved + np.clip(back, 0.0, 1.0)[:, None] * (weights - moved)).astype(np.float32)

    def on_recording(
        self,
        weights: NDArray[np.floating],
        names: Sequence[str],
        gap_mm: NDArray[np.floating],
        fps: float,
    ) -> Gains:
        """The gains of a recording.

        Args:
            weights: What the model gives in this style, ``(T, K)``.
            names: Names of the ``K`` weights.
            gap_mm: Largest parting of the lips under these weights, ``(T,)``.
            fps: Frames a second.

        Returns:
            The gains, those of brows and lids as on the known sentence.
        """
        columns, numbers = _columns(names, np.ones(len(ARKIT_NAMES), bool))
        made = np.zeros((len(weights), len(ARKIT_NAMES)))
        made[:, numbers] = weights[:, columns]
        speaks = np.flatnonzero(is_speaking(made, fps))
        share = min(1.0, len(speaks) / fps / _ENOUGH_SECONDS)
        rows = speaks[:: math.ceil(len(speaks) / _MOST_FRAMES)]
        made = made[rows]
        moves = made[:, ARKIT_NAMES.index("jawOpen")].std() / max(self.jaw_spread, 1e-3)
        less = min(1.0, moves / _USUAL_SHARE)
        scale = np.where(_IS_SEALING, less, 1.0)
        wanted = Figures(self.figures.mean * scale, self.figures.spread * scale)
        here = fit_speech(wanted, made, np.asarray(gap_mm)[rows])
        is_here = ~IS_UPPER & np.isfinite(self.figures.mean)
        blended = [
            np.where(is_here, share * new + (1.0 - share) * old, old)
            for new, old in ((here.gain, self.known.gain), (here.offset, self.known.offset))
        ]
        return Gains(*blended)


def fit_speech(wanted: Figures, made: NDArray[np.floating], gap_mm: NDArray[np.floating]) -> Gains:
    """Gains with which what a model gives has the means and spreads of an exemplar.

    Gain and offset of each weight are corrected by what is still missing, since clipping at 0 and
    closed lips take a part of them.

    Args:
        wanted: Figures of the exemplar.
        made: Frames in which the model speaks in the exemplar's style, ``(T, 52)``.
        gap_mm: Parting of the lips in these, ``(T,)``.

    Returns:
        Gains of the mouth, and of brows and eyes those that change nothing.
    """
    fitted = ~IS_UPPER & np.isfinite(wanted.mean)
    mean, spread = (np.where(fitted, x, 0.0) for x in (wanted.mean, wanted.spread))
    centre = made.mean(axis=0, dtype=np.float64)
    gain, offset = Gains.none().gain, Gains.none().offset
    for _ in range(_STEPS):
        now = Gains(gain, offset).on_speech(made, ARKIT_NAMES, gap_mm, 1.0).astype(np.float64)
        ratio = np.clip((spread + 1e-3) / (now.std(axis=0) + 1e-3), 0.5, 2.0) ** 0.7
        new = np.where(fitted, np.clip(gain * ratio, *GAIN_LIMITS), 1.0)
        step = mean - now.mean(axis=0) - (new - gain) * centre
        offset = np.where(fitted, np.clip(offset + step, -OFFSET_LIMIT, OFFSET_LIMIT), 0.0)
        gain = new
    return Gains(gain, offset)


def fit_upper_face(wanted: Figures, made: NDArray[np.floating]) -> NDArray[np.float64]:
    """Gains of brows and lids by their spreads.

    Args:
        wanted: Figures of the exemplar.
        made: Predicted upper face and life of a model in that style, ``(T, 52)``.

    Returns:
        Gains, ``(52,)``; 1 for all other weights.
    """
    is_scaled = np.array([name.startswith(SCALED_UPPER) for name in ARKIT_NAMES])
    own = made.std(axis=0, dtype=np.float64)
    fitted = is_scaled & np.isfinite(wanted.spread) & (own > _DEAD[0])
    ratio = np.where(fitted, wanted.spread, 1.0) / np.where(fitted, own, 1.0)
    return np.clip(ratio, 0.0, GAIN_LIMITS[1])
