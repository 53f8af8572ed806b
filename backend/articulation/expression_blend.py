# SPDX-License-Identifier: GPL-3.0-or-later
"""Expression and speech on one face: where both want a place, who gets it.

The lips are the speech's. What parts them belongs to an expression only as far as the sound parts
them itself, so that lips which close stay closed and f and v stay at the teeth; rounded lips are
drawn apart less. Mouth corners are shared: what is added to a smile or a frown fills what is left
up to a limit, and a smile and a frown take from each other. Brows, lids and cheeks add up and never
beyond a whole movement, and a blink closes whatever the expression does. That speech sounds and
expressions share a face in this way, the lips bound by the sounds and the rest free, is what was
measured in emotional speech (Nordstrand et al. 2004; Busso and Narayanan 2007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.articulation.emotion import Shown
from backend.articulation.gestures import ramp

Floats = NDArray[np.float64]

_PARTING: Final = ("jawOpen", "mouthLowerDown", "mouthUpperUp", "mouthFunnel", "noseSneer")
"""What parts the lips; a sneer lifts the upper one."""
_SCALED: Final = ("jawOpen", "mouthClose", "mouthLowerDown", "mouthUpperUp")
"""What opens the mouth in speech, and what closes it against the jaw."""
_OPENING_BY_AROUSAL: Final = 0.3
_CLOSED_GAP_MM, _FREE_GAP_MM = 0.8, 5.0
_BITTEN_ROLL: Final = (0.25, 0.5)
_CORNER_LIMIT: Final = 0.95
_SNEER_OVER_LIPS: Final = 0.4
_OPPOSITES: Final = {
    "mouthSmile": "mouthFrown", "mouthFrown": "mouthSmile",
    "browDown": "browOuterUp", "browOuterUp": "browDown",
}  # fmt: skip
_YIELDING: Final = 0.7


def blend(
    weights: NDArray[np.float32],
    names: Sequence[str],
    shown: Shown,
    *,
    gap_mm: Floats,
    speaking: Floats,
) -> NDArray[np.float32]:
    """Puts an expression on a face that speaks.

    Args:
        weights: Weights without the expression, ``(T, K)``.
        names: Names of the ``K`` shapes.
        shown: The expression.
        gap_mm: How far the lips part without it, ``(T,)``.
        speaking: 1 in speech, 0 in pauses, where the lips are free, ``(T,)``.

    Returns:
        Weights with it, ``(T, K)``, 0 or more.
    """
    column = {name: index for index, name in enumerate(names)}

    def weight(name: str) -> Floats:
        if name not in column:
            return np.zeros(len(weights))
        return weights[:, column[name]].astype(np.float64)

    bitten = speaking * ramp((weight("mouthRollLower") - _BITTEN_ROLL[0]) / np.ptp(_BITTEN_ROLL))
    share = _Shares(
        parted=lip_freedom(gap_mm, speaking) * (1.0 - bitten),
        bitten=bitten,
        rounded=speaking * np.clip((weight("mouthPucker") + weight("mouthFunnel")) / 0.6, 0, 1),
        wide=ramp(gap_mm / 12.0),
        blinking={side: np.clip(weight(f"eyeBlink{side}"), 0, 1) for side in ("Left", "Right")},
    )
    gain = 1.0 + _OPENING_BY_AROUSAL * shown.arousal * share.parted * speaking
    blended = weights.astype(np.float64)
    for name, index in column.items():
        if name.startswith(_SCALED):
            blended[:, index] *= gain
        stem = name.removesuffix("Left").removesuffix("Right")
        side = name[len(stem) :]
        opposite = shown.weights.get(_OPPOSITES.get(stem, "") + side)
        if opposite is not None:
            blended[:, index] *= 1.0 - _YIELDING * opposite
        if name in shown.weights:
            added = shown.weights[name] * share.of(stem, side)
            limit = _CORNER_LIMIT if stem.startswith("mouth") else 1.0
            room = np.clip(1.0 - blended[:, index] / limit, 0.0, 1.0)
            blended[:, index] += added * room
    return np.asarray(blended, np.float32)


def lip_freedom(gap_mm: Floats, speaking: Floats) -> Floats:
    """How far an expression may part the lips, 0 to 1, ``(T,)``; all the way in pauses."""
    freedom = ramp((gap_mm - _CLOSED_GAP_MM) / (_FREE_GAP_MM - _CLOSED_GAP_MM))
    return 1.0 - speaking * (1.0 - freedom)


@dataclass(frozen=True, slots=True)
class _Shares:
    """How much of an expression each place of a speaking face takes; all ``(T,)``, 0 to 1.

    Attributes:
        parted: How far the sound parts the lips.
        bitten: The lower lip at the upper teeth.
        rounded: Rounded lips.
        wide: A wide open mouth.
        blinking: Shut lids, by side.
    """

    parted: Floats
    bitten: Floats
    rounded: Floats
    wide: Floats
    blinking: Mapping[str, Floats]

    def of(self, stem: str, side: str) -> Floats | float:
        """Share of a shape, whose name is given without and with its side."""
        if stem == "noseSneer":  # the nose stays wrinkled over closed lips
            return _SNEER_OVER_LIPS + (1.0 - _SNEER_OVER_LIPS) * self.parted
        if stem in _PARTING:
            return self.parted
        if stem in ("mouthSmile", "mouthStretch", "mouthDimple"):
            return (1.0 - 0.6 * self.rounded) * (1.0 - 0.35 * self.bitten)
        if stem in ("mouthPress", "mouthRollUpper", "mouthRollLower", "mouthShrugLower"):
            return (1.0 - 0.75 * self.wide) * (1.0 - self.bitten)
        if stem == "mouthFrown":
            return (1.0 - 0.3 * self.rounded) * (1.0 - 0.3 * self.bitten)
        if stem in ("eyeWide", "eyeSquint"):
            return 1.0 - (1.0 if stem == "eyeWide" else 0.6) * self.blinking[side]
        return 1.0
