# SPDX-License-Identifier: GPL-3.0-or-later
"""PocketSphinx on one stretch of sound: words, phones with times, and how sure it is.

Its decoders are made once per process. ``listening.py`` spreads the pieces of long sound.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.letter_to_sound import pronounce
from backend.phones import SILENCE, Phone, from_arpabet, merge_silences
from backend.protocol import JobError

SAMPLE_RATE = 16000
_FRAMES_PER_SECOND = 100
HOP = SAMPLE_RATE // _FRAMES_PER_SECOND
_PIECE_MIN_SECONDS, _PIECE_MAX_SECONDS = 5.0, 15.0
_PAUSE_SECONDS = 0.18
_SILENT_DB = -65.0
_FILLERS = frozenset({"<s>", "</s>", "<sil>", "[NOISE]", "[SPEECH]", "(NULL)"})


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
        score: Mean acoustic score of the spoken frames; the higher the better they fit.
        confidence: Mean posterior of the recognised words, 0 to 1; 1 for given words.
        spoken_seconds: Length of the phones that are no silence.
        guessed: Words whose pronunciation came from letter-to-sound rules.
    """

    phones: tuple[Phone, ...] = ()
    words: tuple[Word, ...] = ()
    score: float = 0.0
    confidence: float = 1.0
    spoken_seconds: float = 0.0
    guessed: tuple[str, ...] = ()


def prepare_sound(samples: NDArray[np.float32]) -> NDArray[np.int16] | None:
    """Speech at a usual level as integers, or None where there is nothing to hear."""
    peak = float(np.abs(samples).max(initial=0.0))
    if len(samples) < SAMPLE_RATE // 10 or peak < 10.0 ** (_SILENT_DB / 20.0):
        return None
    return np.round(samples * (0.7 / peak) * 32767.0).astype(np.int16)


def active_frames(sound: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which hundredths of a second hold sound well above the quietest, shape ``(n // 160,)``."""
    usable = len(sound) // HOP * HOP
    frames = sound[:usable].astype(np.float32).reshape(-1, HOP)
    level = 10.0 * np.log10(np.mean(frames**2, axis=1) + 1.0)
    floor, top = np.percentile(level, [5, 95])
    return level > max(floor + 0.3 * (top - floor), top - 40.0)


def cut_at_pauses(sound: NDArray[np.int16]) -> list[tuple[int, int]]:
    """Pieces of 5 to 15 s, cut in the middle of the longest pauses; sample numbers."""
    active = active_frames(sound)
    quiet_for = np.zeros(len(active))  # at the middle of each pause, its length in seconds
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (~active).astype(np.int8), [0]])))
    for start, end in edges.reshape(-1, 2):
        quiet_for[(start + end) // 2] = (end - start) / 100
    cuts, start = [], 0
    shortest, longest = round(_PIECE_MIN_SECONDS * 100), round(_PIECE_MAX_SECONDS * 100)
    while len(active) - start > longest:
        window = quiet_for[start + shortest : start + longest]
        cut = start + shortest + int(np.argmax(window))
        if window.max(initial=0.0) < _PAUSE_SECONDS:
            cut = start + longest
        cuts.append((start * HOP, cut * HOP))
        start = cut
    return [*cuts, (start * HOP, len(sound))]


def _new_decoder(*, for_text: bool) -> Any:
    try:
        import pocketsphinx
    except ImportError as error:
        raise JobError(
            "Listening to words needs PocketSphinx, which is not installed: run Repair in the"
            " preferences, or listen to sound."
        ) from error
    if not for_text:
        return pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
    # Without the best path through the lattice, whose word times the phones' alignment cannot
    # always follow; with beams so wide that an odd pronunciation is not given up.
    return pocketsphinx.Decoder(
        samprate=SAMPLE_RATE,
        loglevel="FATAL",
        lm=None,
        bestpath=False,
        beam=1e-100,
        pbeam=1e-100,
        wbeam=1e-80,
    )


@lru_cache(maxsize=1)
def _decoder() -> Any:
    return _new_decoder(for_text=False)


@lru_cache(maxsize=1)
def _aligner() -> Any:
    return _new_decoder(for_text=True)


def hear_words(samples: NDArray[np.int16]) -> Piece:
    """Recognises English words, then aligns their phones.

    Args:
        samples: At 16 kHz, at most a minute.

    Returns:
        Words and phones; empty where nothing could be made of the sound.
    """
    decoder = _decoder()
    decoder.activate_search()
    sound = samples.astype("<i2").tobytes()
    try:
        _pass(decoder, sound)
        if decoder.hyp() is None:
            return Piece()
        sure = [segment.prob for segment in decoder.seg() if segment.word not in _FILLERS]
        return _aligned(decoder, sound, confidence=sum(sure) / max(len(sure), 1))
    except RuntimeError:
        # In noise, words are found that cannot be aligned. The decoder is left inside an utterance;
        # a new one is made at the next call.
        _decoder.cache_clear()
        return Piece()


def align_words(samples: NDArray[np.int16], words: Sequence[str]) -> Piece:
    """Finds when given words are spoken.

    Args:
        samples: At 16 kHz.
        words: Lower case, as ``letter_to_sound.words_of`` makes them.

    Returns:
        Words and phones; empty if the words do not fit the sound.
    """
    decoder = _aligner()
    known, guessed = _known_words(decoder, words)
    if not known:
        return Piece()
    decoder.set_align_text(" ".join(known))
    sound = samples.astype("<i2").tobytes()
    try:
        _pass(decoder, sound)
        found = decoder.hyp() is not None
        piece = _aligned(decoder, sound, confidence=1.0) if found else Piece()
    except RuntimeError:
        # The sound ended before the words did. The aligner is left inside an utterance; a new one
        # is made at the next call.
        _aligner.cache_clear()
        return Piece(guessed=guessed)
    return replace(piece if len(piece.words) == len(known) else Piece(), guessed=guessed)


def _known_words(decoder: Any, words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The words that the decoder can align, after teaching it the ones that it lacks."""
    known, guessed = [], []
    for word in words:
        if decoder.lookup_word(word) is None:
            phones = pronounce(word)
            if not phones:
                continue
            decoder.add_word(word, " ".join(phones), update=False)
            guessed.append(word)
        known.append(word)
    return known, tuple(dict.fromkeys(guessed))


def _pass(decoder: Any, sound: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(sound, full_utt=True)
    decoder.end_utt()


def _aligned(decoder: Any, sound: bytes, *, confidence: float) -> Piece:
    """Second pass of PocketSphinx: from words to phones."""
    decoder.set_alignment()
    _pass(decoder, sound)
    alignment = decoder.get_alignment()
    phones: list[Phone] = []
    words: list[Word] = []
    total, frames = 0.0, 0
    for entry in alignment or ():
        for part in entry:
            symbol = _symbol(part.name)
            end = part.start + part.duration
            phones.append(Phone(symbol, part.start / _FRAMES_PER_SECOND, end / _FRAMES_PER_SECOND))
            if symbol != SILENCE:
                total, frames = total + part.score, frames + part.duration
        if entry.name not in _FILLERS:
            start, end = entry.start, entry.start + entry.duration
            name = entry.name.partition("(")[0]
            words.append(Word(name, start / _FRAMES_PER_SECOND, end / _FRAMES_PER_SECOND))
    if not words:
        return Piece()
    return Piece(
        phones=tuple(merge_silences(phones)),
        words=tuple(words),
        score=total / max(frames, 1),
        confidence=confidence,
        spoken_seconds=frames / _FRAMES_PER_SECOND,
    )


def _symbol(name: str) -> str:
    return SILENCE if name.startswith("+") else from_arpabet(name)
