# SPDX-License-Identifier: GPL-3.0-or-later
"""Words and phones with their times, for one segment of sound and for the whole of it.

Of recognised segments only the plausible ones are kept: wrong phones are worse than none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.audio.segmentation import HOP, active_frames
from backend.speech.phones import SILENCE, Phone, PhoneSource
from backend.speech.speech_presence import rest_elsewhere

RecognitionMode = Literal["sound", "words", "text"]
"""Phones of the sound alone, of recognised words, or of a given text."""

_CERTAIN = 0.3
"""Certainty that one right word in fifty lacks in clear speech, and three wrong ones in ten; in
babble of 10 dB one right word in eight, and two wrong ones in three."""
_MIN_MEAN_CERTAINTY = 0.35
"""Mean certainty of the words of a segment: 0.5 and more of natives, 0.4 in noise of 5 and 10 dB;
of another language that passes for English by its phones 0.24 on average, 0.45 at most."""
_NOT_ENGLISH = "another language, music or much noise"
_FEWEST_WORDS = 3
"""Words that can tell by their certainty; a single one may be rare."""
NO_WORDS = "No English words could be recognised"
_MIN_COVERAGE = 0.45
"""Share of the active sound that words cover: 0.75 to 1.3 of real English speech, 0.2 to 0.5 of
music, noise and other languages."""


@dataclass(frozen=True, slots=True)
class Word:
    """A recognised or given word.

    Attributes:
        text: The word in lower case.
        start_seconds: Time at which the word begins.
        end_seconds: Time at which the word ends.
        certainty: Of a recognised word, the probability of its least likely token times the root
            of its phones' goodness, 0 to 1; 1 of a given word.
    """

    text: str
    start_seconds: float
    end_seconds: float
    certainty: float = 1.0

    @property
    def is_doubtful(self) -> bool:
        """Whether the word may well be another one."""
        return self.certainty < _CERTAIN


@dataclass(frozen=True, slots=True)
class Piece:
    """Recognition result of one segment of sound; times count from the segment's start.

    Attributes:
        phones: Phones that cover the segment; empty if nothing was recognised.
        words: Words without pauses and noises.
        is_confirmed: Whether phone posteriors agree with the phones.
        spoken_seconds: Total length of the phones other than silence.
        guessed: Words whose pronunciation came from letter-to-sound rules.
    """

    phones: tuple[Phone, ...] = ()
    words: tuple[Word, ...] = ()
    is_confirmed: bool = False
    spoken_seconds: float = 0.0
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """Phones and words of a whole sound.

    Attributes:
        phones: Phones in order of time; there are none in the gaps until
            ``moonshine_phones.fill_gaps``.
        words: Words in order of time.
        warnings: Sentences for the user.
        mode: Where the phones come from; ``sound`` if no words could be recognised.
        source: The set of phone ids that the model gets. ``given`` stands for phones that are
            trusted before the model's own: those of given words, of Moonshine's words, and of
            sound without words.
        gaps: First and one past the last sample of each segment without words.
    """

    phones: tuple[Phone, ...]
    words: tuple[Word, ...]
    warnings: tuple[str, ...]
    mode: RecognitionMode
    source: PhoneSource = "recognised"
    gaps: tuple[tuple[int, int], ...] = ()

    def between(self, start_seconds: float, end_seconds: float) -> "Transcript":
        """What is spoken in a stretch, in part or whole, with times from the stretch's start.

        Args:
            start_seconds: Start of the stretch.
            end_seconds: End of the stretch.

        Returns:
            Phones that touch the stretch, and words that lie in it for the most part.
        """
        phones = [
            p
            for p in self.phones
            if start_seconds < p.end_seconds and p.start_seconds < end_seconds
        ]
        words = [
            w
            for w in self.words
            if start_seconds <= (w.start_seconds + w.end_seconds) / 2 < end_seconds
        ]
        return replace(
            self,
            phones=tuple(
                replace(
                    p,
                    start_seconds=p.start_seconds - start_seconds,
                    end_seconds=p.end_seconds - start_seconds,
                )
                for p in phones
            ),
            words=tuple(
                Word(w.text, w.start_seconds - start_seconds, w.end_seconds - start_seconds)
                for w in words
            ),
            gaps=(),
        )


def doubtful_words(transcript: Transcript) -> list[str]:
    """Recognised words that may well be others.

    Args:
        transcript: What was recognised.

    Returns:
        Each of them once, in order of time.
    """
    return list(dict.fromkeys(word.text for word in transcript.words if word.is_doubtful))


def without_unspoken(piece: Piece, spoken: NDArray[np.bool_]) -> Piece:
    """A segment without what was recognised where nobody speaks.

    Args:
        piece: Its recognition result.
        spoken: When somebody may be speaking in it, by ``speech_presence.spoken_frames``.

    Returns:
        The segment with silence there.
    """
    phones = rest_elsewhere(list(piece.phones), spoken)
    said = [phone for phone in phones if phone.symbol != SILENCE]

    def is_said(word: Word) -> bool:
        return any(
            phone.start_seconds < word.end_seconds and word.start_seconds < phone.end_seconds
            for phone in said
        )

    return replace(
        piece,
        phones=tuple(phones),
        words=tuple(word for word in piece.words if is_said(word)),
        spoken_seconds=sum(phone.end_seconds - phone.start_seconds for phone in said),
    )


def plausible_transcript(
    sound: NDArray[np.int16],
    cuts: Sequence[tuple[int, int]],
    pieces: Sequence[Piece],
    speech: NDArray[np.bool_] | None = None,
) -> Transcript:
    """Joins the recognised pieces that can be trusted, and warns of the others.

    Args:
        sound: The whole sound, by ``segmentation.prepare_sound``.
        cuts: First and one past the last sample of each segment.
        pieces: Recognition result of each segment.
        speech: When somebody may be speaking, at ``FEATURE_RATE_HZ``; None where that cannot be
            told. Segments without speech are rests, and no reason for a warning.

    Returns:
        Mode ``words``; ``sound`` and no phones if most of the speech cannot be trusted.
    """
    active = active_frames(sound)
    if speech is not None:
        active &= np.repeat(speech, 100 // FEATURE_RATE_HZ)[: len(active)]
        pieces = [_or_rest(piece, speech, *cut) for piece, cut in zip(pieces, cuts, strict=True)]
    trusted, reasons, spoken = [], [], np.zeros(len(pieces))
    for index, ((start, end), piece) in enumerate(zip(cuts, pieces, strict=True)):
        spoken[index] = float(active[start // HOP : end // HOP].sum()) / 100
        reason = _reason_to_reject(piece, float(spoken[index]))
        trusted.append(reason is None)
        reasons.append(reason)
    rejected = spoken[~np.array(trusted)].sum()
    if rejected == 0.0:
        return join_pieces(cuts, pieces, trusted, "words")
    worst = reasons[int(np.argmax(np.where(trusted, -1.0, spoken)))]
    if rejected > 0.5 * spoken.sum():
        warning = f"{NO_WORDS} ({worst}): the face follows the sound alone."
        return Transcript((), (), (warning,), "sound", gaps=tuple(cuts))
    warning = (
        f"In {rejected:.0f} s of {spoken.sum():.0f} s no words could be recognised ({worst}):"
        " there the face follows the sound alone."
    )
    transcript = join_pieces(cuts, pieces, trusted, "words")
    return replace(transcript, warnings=(warning, *transcript.warnings))


def _or_rest(piece: Piece, speech: NDArray[np.bool_], start: int, end: int) -> Piece:
    """The piece, or silence where nobody speaks in it at all."""
    per_frame = SAMPLE_RATE_HZ // FEATURE_RATE_HZ
    if piece.words or speech[start // per_frame : -(-end // per_frame)].any():
        return piece
    return Piece(phones=(Phone(SILENCE, 0.0, (end - start) / SAMPLE_RATE_HZ),))


def _reason_to_reject(piece: Piece, active_seconds: float) -> str | None:
    """Why a piece cannot be trusted, None if it can."""
    if not piece.words:
        return "nothing like speech" if active_seconds > 0.3 else None
    if piece.spoken_seconds < _MIN_COVERAGE * active_seconds:
        return "words found in too little of the sound"
    certainty = float(np.mean([word.certainty for word in piece.words]))
    is_guessed = len(piece.words) >= _FEWEST_WORDS and certainty < _MIN_MEAN_CERTAINTY
    return None if piece.is_confirmed and not is_guessed else _NOT_ENGLISH


def join_pieces(
    cuts: Sequence[tuple[int, int]],
    pieces: Sequence[Piece],
    trusted: Sequence[bool],
    mode: RecognitionMode,
) -> Transcript:
    """Puts the trusted pieces one after the other.

    Args:
        cuts: First and one past the last sample of each segment.
        pieces: Recognition result of each segment.
        trusted: Whether to keep each piece; segments of the others become gaps.
        mode: Mode of the transcript.

    Returns:
        Phones and words with times from the start of the whole sound.
    """
    phones: list[Phone] = []
    words: list[Word] = []
    for (first, _), piece, is_trusted in zip(cuts, pieces, trusted, strict=True):
        start = first / SAMPLE_RATE_HZ
        if is_trusted:
            phones += [
                replace(p, start_seconds=p.start_seconds + start, end_seconds=p.end_seconds + start)
                for p in piece.phones
            ]
            words += [
                replace(w, start_seconds=w.start_seconds + start, end_seconds=w.end_seconds + start)
                for w in piece.words
            ]
    guessed = sorted({word for piece in pieces for word in piece.guessed})
    warnings: tuple[str, ...] = ()
    if guessed:
        named = ", ".join(guessed[:8]) + (" and others" if len(guessed) > 8 else "")
        warnings = (f"Not in the lexicon, so pronounced by rule: {named}.",)
    gaps = tuple(cut for cut, is_trusted in zip(cuts, trusted, strict=True) if not is_trusted)
    joined = Transcript(tuple(phones), tuple(words), warnings, mode, gaps=gaps)
    doubtful = doubtful_words(joined)
    if not doubtful:
        return joined
    named = ", ".join(doubtful[:8]) + (" and others" if len(doubtful) > 8 else "")
    warning = f"Not sure of these words: {named}. Give the words to correct them."
    return replace(joined, warnings=(*warnings, warning))
