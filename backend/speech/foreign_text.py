# SPDX-License-Identifier: GPL-3.0-or-later
"""When the words of a given text are spoken, in languages whose words cannot be recognised.

espeak-ng pronounces the text, and forced alignment finds its phones in the sound. There are no
recognised words to check it against, so the goodness of pronunciation alone decides, part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.audio.segmentation import cut_at_pauses, prepare_sound
from backend.errors import Cancelled, UserError
from backend.speech import moonshine_encoder, moonshine_phones
from backend.speech.espeak import pronounce_text
from backend.speech.forced_alignment import align_pronounced
from backend.speech.languages import LANGUAGES
from backend.speech.phones import SILENCE, Phone, PhoneKind
from backend.speech.transcript import Transcript

_MIN_GOODNESS: Final = 0.06
"""60 prompts in four languages have 0.07 and more with their own texts, others' texts far less."""


def align_text(
    samples: NDArray[np.float32],
    text: str,
    language: str,
    log_posteriors: NDArray[np.float32] | None,
    *,
    progress: Callable[[float, float], None],
    is_cancelled: Callable[[], bool],
) -> Transcript:
    """Finds when the words of a text are spoken.

    Args:
        samples: Sound at 16 kHz, -1 to 1, of any length.
        text: The spoken words in order, in the language's usual script.
        language: A code of ``LANGUAGES``.
        log_posteriors: Logarithms of phone posteriors by a model's speech encoder; None without.
        progress: Called with the seconds done and all seconds.
        is_cancelled: Called before each segment of sound.

    Returns:
        Mode ``text``; mode ``sound`` and a warning where the text is not what is spoken.

    Raises:
        UserError: The text holds no words, cannot be read, or espeak-ng is missing.
        Cancelled: ``is_cancelled`` returned true.
    """
    spoken = [word for word in pronounce_text(text, language) if word.kinds]
    words = [(word.text, [word.phones]) for word in spoken]
    if not words:
        raise UserError("The text holds no words to align: type what is spoken, or leave it empty.")
    sound = prepare_sound(samples)
    if sound is None:
        return moonshine_phones.empty_transcript(samples)
    heads = []
    cuts = cut_at_pauses(sound)
    for start, end in cuts:
        if is_cancelled():
            raise Cancelled
        encoded = moonshine_encoder.encode(sound[start:end])
        heads.append(moonshine_phones.head_log_posteriors(encoded, end - start))
        progress(end / SAMPLE_RATE_HZ, len(sound) / SAMPLE_RATE_HZ)
    head = np.concatenate(heads)
    first = cuts[0][0]
    model = None
    if log_posteriors is not None:
        model = log_posteriors[first * FEATURE_RATE_HZ // SAMPLE_RATE_HZ :]
    piece = align_pronounced(words, model, head, min_goodness=_MIN_GOODNESS)
    if not piece.is_confirmed:
        return moonshine_phones.empty_transcript(
            samples,
            f"The text does not fit what is spoken, read as {LANGUAGES[language]}, so it was not "
            "used: check the text and the language.",
        )
    phones = _with_variants(piece.phones, [kind for word in spoken for kind in word.kinds])
    moved = Transcript(phones, piece.words, (), "text", source="given")
    return moved.between(-first / SAMPLE_RATE_HZ, len(sound) / SAMPLE_RATE_HZ)


def _with_variants(phones: Sequence[Phone], kinds: Sequence[PhoneKind]) -> tuple[Phone, ...]:
    """Aligned phones with their variants; but for pauses they are these kinds in order."""
    ordered = iter(kinds)
    return tuple(
        phone if phone.symbol == SILENCE else replace(phone, variant=next(ordered).variant)
        for phone in phones
    )
