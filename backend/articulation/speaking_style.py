# SPDX-License-Identifier: GPL-3.0-or-later
"""Speaking styles as vectors: how a speaker departs from the neutral one."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from backend.audio.prosody import VoiceCharacter

STYLE_LIMIT = 2.0
"""Beyond this many units the articulation no longer follows a style."""


@dataclass(frozen=True, slots=True)
class SpeakingStyle:
    """A speaking style; 0 is neutral everywhere, -1 and 1 are usual extremes.

    Attributes:
        articulation: Hypo- to hyperarticulated (Lindblom's H and H): size and sharpness of all.
        jaw: Size of the jaw's opening.
        rounding: Size of funnel, pucker and protrusion.
        spread: Size of stretched and smiling lips in ee, eh, s.
        upper_lip: Size of the upper lip's raising.
        lower_lip: Size of the lower lip's lowering.
        press: Firmness with which p, b, m press the lips together.
        smile: Smiling (positive) or frowning (negative) all the time.
        asymmetry: The subject's left (positive) or right half of the mouth does more.
        lead: Everything but closures comes early (positive) or late; one unit is 40 ms.
        smoothness: Slow and soft (positive) or jerky transitions.
        loudness: Degree to which the jaw follows loudness and stress; -1 not at all, 1 twice.
        protrusion: Lips pushed forward (positive) or drawn back while speaking.
        lip_part: Lips held apart (positive) or nearly closed while speaking.
        jaw_side: The jaw opens to the subject's left (positive) or right.
        jaw_forward: The jaw is pushed forward (positive), or the lower lip is tucked in.
        mouth_side: The mouth is drawn to the subject's left (positive) or right while speaking.
        brow_raise: Brows raised (positive) or lowered all the time.
        brow_activity: Degree to which the brows follow pitch accents; -1 not at all, 1 twice.
        blink_rate: More (positive) or fewer blinks; one unit is a factor of 1.6.
        squint: Narrowed eyes and raised cheeks (positive) or wide eyes.
    """

    articulation: float = 0.0
    jaw: float = 0.0
    rounding: float = 0.0
    spread: float = 0.0
    upper_lip: float = 0.0
    lower_lip: float = 0.0
    press: float = 0.0
    smile: float = 0.0
    asymmetry: float = 0.0
    lead: float = 0.0
    smoothness: float = 0.0
    loudness: float = 0.0
    protrusion: float = 0.0
    lip_part: float = 0.0
    jaw_side: float = 0.0
    jaw_forward: float = 0.0
    mouth_side: float = 0.0
    brow_raise: float = 0.0
    brow_activity: float = 0.0
    blink_rate: float = 0.0
    squint: float = 0.0

    @classmethod
    def neutral(cls) -> "SpeakingStyle":
        """The style of the neutral speaker: zero everywhere."""
        return cls()

    @classmethod
    def from_vector(cls, vector: Sequence[float] | NDArray[np.float32]) -> "SpeakingStyle":
        """Inverse of ``to_vector``.

        Args:
            vector: One number per dimension, in the order of ``STYLE_NAMES``.

        Returns:
            The style of these numbers.

        Raises:
            ValueError: The vector has another length or holds a number that is not finite.
        """
        values = np.asarray(vector, dtype=np.float64)
        if values.shape != (STYLE_DIM,) or not np.isfinite(values).all():
            raise ValueError(
                f"style vector has shape {values.shape}, expected ({STYLE_DIM},) finite numbers"
            )
        return cls(*(float(value) for value in values))

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "SpeakingStyle":
        """A random training style: everything a little, three dimensions strongly.

        Args:
            rng: Source of randomness.

        Returns:
            A style within -1.2 and 1.2 in each dimension.
        """
        vector = rng.normal(0.0, 0.4, STYLE_DIM)
        strong = rng.choice(STYLE_DIM, 3, replace=False)
        vector[strong] = rng.choice([-1.0, 1.0], 3) * rng.uniform(0.6, 1.2, 3)
        return cls.from_vector(np.clip(vector, -1.2, 1.2))

    def to_vector(self) -> NDArray[np.float32]:
        """The style as numbers, shape ``(STYLE_DIM,)``, in the order of ``STYLE_NAMES``."""
        return np.array([getattr(self, name) for name in STYLE_NAMES], dtype=np.float32)

    def blend(self, other: "SpeakingStyle", share: float) -> "SpeakingStyle":
        """Mixes two styles; a share beyond 1 exaggerates the other.

        Args:
            other: The style at share 1.
            share: Share of the other style; 0 gives this style.

        Returns:
            The mixed style.
        """
        mixed = (1.0 - share) * self.to_vector() + share * other.to_vector()
        return SpeakingStyle.from_vector(mixed)

    def limited(self) -> "SpeakingStyle":
        """The same style with each dimension brought within ``STYLE_LIMIT``."""
        return SpeakingStyle.from_vector(np.clip(self.to_vector(), -STYLE_LIMIT, STYLE_LIMIT))


STYLE_NAMES: tuple[str, ...] = tuple(field.name for field in fields(SpeakingStyle))
STYLE_DIM = len(STYLE_NAMES)

NAMED_STYLES: dict[str, SpeakingStyle] = {
    "neutral": SpeakingStyle(),
    "mumble": SpeakingStyle(
        articulation=-1.0,
        jaw=-0.8,
        spread=-0.6,
        upper_lip=-0.8,
        lower_lip=-0.6,
        smoothness=0.8,
        loudness=-0.6,
        lip_part=-0.5,
        brow_activity=-0.7,
        squint=0.2,
    ),
    "broad": SpeakingStyle(
        articulation=1.0,
        jaw=0.8,
        rounding=0.8,
        spread=0.8,
        upper_lip=0.5,
        lower_lip=0.6,
        press=0.5,
        loudness=0.6,
        brow_activity=0.8,
    ),
    "smile": SpeakingStyle(
        smile=1.0,
        spread=0.6,
        rounding=-0.4,
        upper_lip=0.4,
        squint=0.6,
        brow_raise=0.3,
        brow_activity=0.4,
        protrusion=-0.4,
    ),
    "tense": SpeakingStyle(
        jaw=-0.7,
        press=1.2,
        smile=-0.6,
        protrusion=-0.3,
        smoothness=-0.8,
        lower_lip=0.4,
        brow_raise=-0.9,
        squint=0.6,
        loudness=-0.4,
        blink_rate=-0.5,
    ),
    "sad": SpeakingStyle(
        articulation=-0.5,
        jaw=-0.2,
        smile=-1.0,
        smoothness=0.6,
        lower_lip=0.3,
        brow_raise=0.5,
        brow_activity=-0.8,
        blink_rate=0.4,
        lead=-0.4,
    ),
    "excited": SpeakingStyle(
        articulation=0.6,
        jaw=1.0,
        loudness=1.0,
        smile=0.5,
        upper_lip=0.6,
        lip_part=0.4,
        smoothness=-0.4,
        brow_raise=0.6,
        brow_activity=1.2,
        squint=-0.6,
        lead=0.4,
    ),
    "pout": SpeakingStyle(
        protrusion=1.1, rounding=0.7, spread=-0.7, smile=-0.3, jaw=-0.2, brow_raise=-0.3
    ),
    "crooked": SpeakingStyle(
        asymmetry=1.1, mouth_side=0.7, jaw_side=0.6, smile=0.3, brow_activity=0.3
    ),
}
"""Styles with names, for tests, galleries and the artist's library."""


@cache
def training_styles(count: int) -> list[SpeakingStyle]:
    """The numbered styles of training; the same for every seed."""
    rng = np.random.default_rng(64)
    return [SpeakingStyle.sample(rng) for _ in range(count)]


def validation_styles(count: int) -> list[SpeakingStyle]:
    """Styles by which training chooses, drawn apart from those of training and of tests."""
    rng = np.random.default_rng(16)
    return [SpeakingStyle.sample(rng) for _ in range(count)]


def unseen_styles(count: int) -> list[SpeakingStyle]:
    """Styles for tests, drawn apart from those of training and validation."""
    rng = np.random.default_rng(32)
    return [SpeakingStyle.sample(rng) for _ in range(count)]


def style_for_voice(voice: VoiceCharacter, rng: np.random.Generator) -> SpeakingStyle:
    """A random style that fits a voice.

    A voice with a wide range of level and pitch gets a jaw and brows that follow it more, a fast
    one is hypoarticulated and smooth, a flat one keeps its lips closer, a bright one smiles (a
    smile shortens the vocal tract and raises the formants: Ohala 1980). These dimensions
    are half random too, so the sound suggests a style and never dictates one.

    Args:
        voice: Statistics of the voice, by ``prosody.voice_character``.
        rng: Source of randomness.

    Returns:
        The style.
    """
    style = SpeakingStyle.sample(rng)
    lively = float(np.clip((voice.f0_range_semitones - 6.0) / 4.0, -1.2, 1.2))
    dynamic = float(np.clip((voice.level_range_db - 12.0) / 5.0, -1.2, 1.2))
    fast = float(np.clip((voice.phones_per_second - 12.0) / 4.0, -1.2, 1.2))
    bright = float(np.clip(voice.brightness, -1.2, 1.2))
    audible = {
        "articulation": 0.4 * dynamic - 0.6 * fast,
        "jaw": 0.7 * dynamic,
        "loudness": 0.5 * dynamic + 0.5 * lively,
        "smoothness": 0.3 * fast - 0.4 * dynamic,
        "brow_activity": 0.9 * lively,
        "smile": 0.7 * bright,
        "lip_part": 0.4 * dynamic + 0.3 * bright,
        "spread": 0.5 * bright,
    }
    return replace(
        style,
        **{name: 0.5 * getattr(style, name) + value for name, value in audible.items()},
    )
