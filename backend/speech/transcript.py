# SPDX-License-Identifier: GPL-3.0-or-later
"""What was heard in a sound, and which of it can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import SAMPLE_RATE_HZ
from backend.audio.segmentation import HOP, active_frames
from backend.speech.phones import (
    SILENCE,
    Phone,
)

RecognitionMode = Literal["sound", "words", "text"]
# Limits that real English speech of 43 voices (natives and learners, children among them) passed,
# and music, noise and synthesised speech of other languages mostly did not. Score: -10 to -28
# against -30 to -53; confidence: 0.26 to 0.84 against 0.03 to 0.39; share of the sound that the
# words cover: 0.75 to 1.3 against 0.2 to 0.5. Held notes have few phones a second.
_MIN_SCORE = -30.0
_MIN_CONFIDENCE = 0.2
_MIN_PHONES_PER_SECOND = 5.5
_MIN_COVERAGE = 0.45


@dataclass(frozen=True, slots=True)
class Word:
    """A word that was heard or given.

    Attributes:
        text: Lower case.
        start_seconds: When it begins.
        end_seconds: When it ends.
    """

    text: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, slots=True)
class Piece:
    """What was found in one stretch of sound; times count from its start.

    Attributes:
        phones: All of the stretch; empty if nothing was found.
        words: Without pauses and noises.
        score: Mean acoustic score of the spoken frames; the higher the better they fit. 0 by ear.
        confidence: Mean posterior of the recognised words, 0 to 1; 1 for given words.
        is_sure: What a model's ear thinks of it; None where none was asked.
        spoken_seconds: Length of the phones that are no silence.
        guessed: Words whose pronunciation came from letter-to-sound rules.
    """

    phones: tuple[Phone, ...] = ()
    words: tuple[Word, ...] = ()
    score: float = 0.0
    confidence: float = 1.0
    is_sure: bool | None = None
    spoken_seconds: float = 0.0
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard.

    Attributes:
        phones: In order of time; stretches in which no words could be trusted have none until
            ``phone_recogniser.fill_gaps``.
        words: In order of time.
        warnings: Sentences for the user.
        way: How the phones came about; ``sound`` means that no words could be trusted.
        is_certain: The words were given, or come from Moonshine, as do phones without words: trust
            them before the own ear.
        gaps: First sample of each stretch without words, and the one after its last.
    """

    phones: tuple[Phone, ...]
    words: tuple[Word, ...]
    warnings: tuple[str, ...]
    way: RecognitionMode
    is_certain: bool = False
    gaps: tuple[tuple[int, int], ...] = ()


def judged(
    sound: NDArray[np.int16], cuts: Sequence[tuple[int, int]], pieces: Sequence[Piece]
) -> Transcript:
    """Keeps the pieces that can be trusted, and warns of the others.

    Args:
        sound: All of it, by ``pauses.prepare_sound``.
        cuts: First sample of each piece, and the one after its last.
        pieces: Words found between them.
    """
    active = active_frames(sound)
    trusted, reasons, spoken = [], [], np.zeros(len(pieces))
    for index, ((start, end), piece) in enumerate(zip(cuts, pieces, strict=True)):
        spoken[index] = float(active[start // HOP : end // HOP].sum()) / 100
        reason = _doubt(piece, float(spoken[index]))
        trusted.append(reason is None)
        reasons.append(reason)
    doubtful = spoken[~np.array(trusted)].sum()
    if doubtful == 0.0:
        return joined(cuts, pieces, trusted, "words")
    worst = reasons[int(np.argmax(np.where(trusted, -1.0, spoken)))]
    if doubtful > 0.5 * spoken.sum():
        warning = f"No English words could be made out ({worst}): listening to the sound alone."
        return Transcript((), (), (warning,), "sound", gaps=tuple(cuts))
    warning = (
        f"In {doubtful:.0f} s of {spoken.sum():.0f} s no words could be made out ({worst}):"
        " there, listening to the sound alone."
    )
    heard = joined(cuts, pieces, trusted, "words")
    return replace(heard, warnings=(warning, *heard.warnings))


def _doubt(piece: Piece, active_seconds: float) -> str | None:
    """Why a piece cannot be trusted, None if it can."""
    if not piece.words:
        return "nothing like speech" if active_seconds > 0.3 else None
    if piece.spoken_seconds < _MIN_COVERAGE * active_seconds:
        return "words found in too little of the sound"
    if piece.is_sure is not None:
        return None if piece.is_sure else "another language, music or much noise"
    spoken = sum(phone.symbol != SILENCE for phone in piece.phones)
    if spoken / max(piece.spoken_seconds, 0.01) < _MIN_PHONES_PER_SECOND:
        return "music or singing"
    if piece.score < _MIN_SCORE:
        return "another language, an unusual voice or much noise"
    if piece.confidence < _MIN_CONFIDENCE:
        return "unclear speech"
    return None


def joined(
    cuts: Sequence[tuple[int, int]],
    pieces: Sequence[Piece],
    trusted: Sequence[bool],
    way: RecognitionMode,
) -> Transcript:
    """One answer of the pieces that can be trusted.

    Args:
        cuts: First sample of each piece, and the one after its last.
        pieces: What was found between them.
        trusted: Which of them count.
        way: How they were found.
    """
    phones: list[Phone] = []
    words: list[Word] = []
    for (first, _), piece, good in zip(cuts, pieces, trusted, strict=True):
        start = first / SAMPLE_RATE_HZ
        if good:
            phones += [
                Phone(p.symbol, p.start_seconds + start, p.end_seconds + start)
                for p in piece.phones
            ]
            words += [
                Word(w.text, w.start_seconds + start, w.end_seconds + start) for w in piece.words
            ]
    guessed = sorted({word for piece in pieces for word in piece.guessed})
    warnings: tuple[str, ...] = ()
    if guessed:
        named = ", ".join(guessed[:8]) + (" and others" if len(guessed) > 8 else "")
        warnings = (f"Not in the lexicon, so pronounced by rule: {named}.",)
    gaps = tuple(cut for cut, good in zip(cuts, trusted, strict=True) if not good)
    return Transcript(tuple(phones), tuple(words), warnings, way, gaps=gaps)
