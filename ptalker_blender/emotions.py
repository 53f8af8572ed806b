# SPDX-License-Identifier: GPL-3.0-or-later
"""The emotions that a face can show, and how a choice of them is put into a job's options.

No bpy here. The names are those of ``backend/articulation/emotion.py``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

EMOTIONS: Final = (
    ("joy", "Joy", "Cheeks and corners of the mouth rise"),
    ("anger", "Anger", "Brows come down, lids and lips are tense"),
    ("sadness", "Sadness", "Inner brows rise, corners of the mouth and lids sink"),
    ("fear", "Fear", "Brows rise and draw together, eyes are wide, lips stretched"),
    ("disgust", "Disgust", "The nose is wrinkled, corners of the mouth sink"),
    ("surprise", "Surprise", "Brows rise, eyes are wide, the jaw drops in pauses"),
    ("calm", "Calm", "Lids sink, the mouth opens less"),
    ("aroused", "Aroused", "Eyes are wide, the mouth opens more"),
)
"""Name, label and description."""
LARGEST_AMOUNT: Final = 1.5
_MAX_LETTERS: Final = 450_000
_FINEST_STEP: Final = 0.01


@dataclass(frozen=True, slots=True)
class EmotionChoice:
    """What the artist chose for a head.

    Attributes:
        shares: Emotions with their part of the amount.
        amount: The amount, where it has no keys.
    """

    shares: tuple[tuple[str, float], ...]
    amount: float


def choose(first: str, second: str, mix: float, amount: float) -> EmotionChoice | None:
    """One emotion, or a blend of two.

    Args:
        first: Name of an emotion, in any case; ``none`` for no emotion.
        second: The same; ``none`` for no blend.
        mix: 0 is the first, 1 the second.
        amount: How much.

    Returns:
        The choice; None for no emotion.
    """
    first, second = first.lower(), second.lower()
    if first == "none":
        return None
    if second in ("none", first):
        return EmotionChoice(((first, 1.0),), amount)
    shares = ((first, 1.0 - mix), (second, mix))
    return EmotionChoice(tuple((name, share) for name, share in shares if share > 0.0), amount)


def as_option(choice: EmotionChoice, amounts: Sequence[float] | None, *, fps: float) -> str:
    """The option ``emotion`` of a job.

    Args:
        choice: The choice.
        amounts: Amount at each frame of the motion; None where it has no keys.
        fps: Frames per second.

    Returns:
        ``joy:0.5+surprise:0.2``, or a list of seconds, emotion and amount.
    """
    if not amounts:
        within = _within(choice.amount)
        return "+".join(f"{name}:{share * within:.4g}" for name, share in choice.shares)
    every = 1
    while len(text := _listed(choice, amounts, fps=fps, every=every)) > _MAX_LETTERS:
        every *= 2  # minutes of keys that never stand still
    return text


def _listed(choice: EmotionChoice, amounts: Sequence[float], *, fps: float, every: int) -> str:
    """A row wherever the amount has changed; each holds until the next.

    Only ``every`` so many frames are looked at.
    """
    rows: list[list[float | str]] = []
    told: float | None = None
    for frame in range(0, len(amounts), every):
        amount = _within(amounts[frame])
        # 0 and the end are told exactly: nothing is left of an emotion that has ended.
        is_end = amount == 0.0 or frame + every >= len(amounts)
        if told is None or abs(amount - told) >= _FINEST_STEP or (is_end and amount != told):
            rows += [
                [round(frame / fps, 4), name, round(share * amount, 4)]
                for name, share in choice.shares
            ]
            told = amount
    return json.dumps(rows, separators=(",", ":"))


def _within(amount: float) -> float:
    return min(max(amount, 0.0), LARGEST_AMOUNT)
