# SPDX-License-Identifier: GPL-3.0-or-later
"""English speech recognition and forced alignment of sound of any length.

Mode ``words``: Moonshine recognises English words, and forced alignment finds when their phones are
spoken. Mode ``text``: the words are given. What cannot be trusted (another language, music, wrong
words) is left without phones, with a warning: wrong phones are worse than none;
``moonshine_phones.py`` then recognises phones without words (mode ``sound``). Long sound is cut at
pauses, and the pieces are recognised in threads.
"""

import difflib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.audio.segmentation import active_frames, cut_at_pauses, prepare_sound
from backend.errors import Cancelled, UserError
from backend.processes import num_cores
from backend.speech import moonshine_encoder, moonshine_phones, moonshine_words, written_text
from backend.speech.forced_alignment import align_words
from backend.speech.phones import SILENCE, Phone
from backend.speech.speech_presence import NOBODY, spoken_frames
from backend.speech.transcript import (
    Piece,
    Transcript,
    join_pieces,
    plausible_transcript,
    without_unspoken,
)

_POLL_SECONDS = 0.1
_MIN_TEXT_COVERAGE = 0.7
"""Given words that cover less of the speech are wrong."""
_SILENT = "The sound is silent: the face stays at rest."

Progress = Callable[[float, float], None]
Floats = NDArray[np.float32]
_HeardPiece = tuple[Piece, Floats | None, NDArray[np.bool_] | None]
"""A piece, the head's log posteriors, and when somebody may be speaking."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """A sound that was listened to.

    Attributes:
        cuts: First and one past the last sample of each piece.
        pieces: Recognised words of each piece.
        model: Log posteriors of the whole sound by the model, ``(T, C)``; None without them.
        head: The same by the phone head; None without it.
        spoken: When somebody may be speaking, ``(T,)``; None where that cannot be told.
    """

    cuts: list[tuple[int, int]]
    pieces: list[Piece]
    model: Floats | None
    head: Floats | None
    spoken: NDArray[np.bool_] | None


def recognise(
    samples: NDArray[np.float32],
    log_posteriors: NDArray[np.float32] | None = None,
    *,
    progress: Progress | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Transcript:
    """Recognises English words and aligns their phones.

    Args:
        samples: Sound at 16 kHz, -1 to 1, of any length.
        log_posteriors: Logarithms of phone posteriors of the whole sound, by a model's speech
            encoder; see ``forced_alignment.align_words``.
        progress: Called with the seconds done and all seconds.
        is_cancelled: Called about ten times a second.

    Returns:
        Phones and words of mode ``words``; mode ``sound`` and a warning if no words can be trusted.

    Raises:
        Cancelled: ``is_cancelled`` returned true.
        UserError: Moonshine is not there, or there is not enough memory.
    """
    sound = prepare_sound(samples)
    if sound is None:
        return Transcript((), (), (_SILENT,), "sound")
    heard = _listen(sound, log_posteriors, progress, is_cancelled)
    return _recognised(sound, heard)


def align(
    samples: NDArray[np.float32],
    text: str,
    log_posteriors: NDArray[np.float32] | None = None,
    *,
    progress: Progress | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Transcript:
    """Finds when the words of a text are spoken.

    The words are recognised first: they show where long sound may be cut, and whether the text is
    what is spoken.

    Args:
        samples: Sound at 16 kHz, -1 to 1, of any length.
        text: The spoken words in order, with any punctuation.
        log_posteriors: Logarithms of phone posteriors, as for ``recognise``.
        progress: Called with the seconds done and all seconds.
        is_cancelled: Called as in ``recognise``.

    Returns:
        Phones and words of mode ``text``; if the text does not fit, the result of ``recognise``
        with a warning.

    Raises:
        UserError: The text holds no words, Moonshine is not there, or memory is short.
        Cancelled: ``is_cancelled`` returned true.
    """
    given = written_text.read(text)
    if not text.strip():
        raise UserError("The text is empty: type what is spoken, or leave it out.")
    if not given.words:
        raise UserError("The text holds no words to align: type what is spoken, or leave it empty.")
    sound = prepare_sound(samples)
    if sound is None:
        return Transcript((), (), (_SILENT,), "sound")
    heard = _listen(sound, log_posteriors, progress, is_cancelled)
    active = active_frames(sound)
    placed = _placed(heard.cuts, heard.pieces)

    def speech_seconds(start: float, end: float) -> float:
        return float(active[int(start * 100) : int(min(end, 1e6) * 100)].sum()) / 100

    fitted = written_text.fit(given, placed, speech_seconds)
    text_cuts, pieces = _place(heard, fitted.words, is_cancelled)
    fits = _fits(pieces, float(active.sum()) / 100)
    if not fits:
        doubted = written_text.fit(given, placed, speech_seconds, is_doubted=True)
        if doubted.words != fitted.words:
            fitted = doubted
            text_cuts, pieces = _place(heard, fitted.words, is_cancelled)
            fits = _fits(pieces, float(active.sum()) / 100)
    if not fits or fitted.given_share == 0.0:
        fallback = _recognised(sound, heard)
        warning = (
            "The text does not fit what is spoken, so it was not used: check it against the sound."
        )
        return replace(fallback, warnings=(warning, *fallback.warnings))
    trusted = [piece.is_confirmed for piece in pieces]
    is_text = fitted.given_share >= 0.5
    found = join_pieces(text_cuts, pieces, trusted, "text" if is_text else "words")
    found = replace(found, source="given", warnings=(*fitted.warnings, *found.warnings))
    if all(trusted):
        return found
    warning = (
        "A part of the text does not fit what is spoken: there the face follows the sound alone."
    )
    return replace(found, warnings=(warning, *found.warnings))


def _listen(
    sound: NDArray[np.int16],
    log_posteriors: NDArray[np.float32] | None,
    progress: Progress | None,
    is_cancelled: Callable[[], bool] | None,
) -> _Heard:
    """Recognises the words of each piece, and what the phone head says of it, in threads."""
    if not moonshine_words.is_installed():
        raise UserError(moonshine_encoder.MISSING)
    cuts = cut_at_pauses(sound)
    parts = [sound[start:end] for start, end in cuts]
    has_head = moonshine_phones.can_recognise()

    def hear(number: int) -> _HeardPiece:
        _raise_if(is_cancelled)
        part, model = parts[number], _part_of(log_posteriors, *cuts[number])
        encoded = moonshine_encoder.encode(part)
        head = spoken = None
        if has_head:
            head = moonshine_phones.head_log_posteriors(encoded, len(part))
            if model is not None:
                spoken = spoken_frames(model, head, part)
        if spoken is not None and not spoken.any():
            return Piece(), head, spoken
        read = moonshine_words.read_vectors(encoded.vectors, len(part))
        piece = align_words(read.words, model, head, read.certainties)
        return piece if spoken is None else without_unspoken(piece, spoken), head, spoken

    seconds = [len(part) / SAMPLE_RATE_HZ for part in parts]
    found = _in_threads(hear, seconds, progress, is_cancelled)
    pieces, heads, spoken = zip(*found, strict=True)
    return _Heard(cuts, list(pieces), log_posteriors, _joined(heads), _joined(spoken))


def _joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None


def _in_threads(
    hear: Callable[[int], _HeardPiece],
    seconds: Sequence[float],
    progress: Progress | None,
    is_cancelled: Callable[[], bool] | None,
) -> list[_HeardPiece]:
    """Hears the pieces, whose lengths in seconds are given, on all cores."""
    done = 0.0
    with ThreadPoolExecutor(max_workers=min(num_cores(), len(seconds))) as pool:
        futures = [pool.submit(hear, number) for number in range(len(seconds))]
        lengths = dict(zip(futures, seconds, strict=True))
        waiting: set[Future[_HeardPiece]] = set(futures)
        try:
            while waiting:
                _raise_if(is_cancelled)
                ended, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                done += sum(lengths[future] for future in ended)
                if ended and progress is not None:
                    progress(done, sum(seconds))
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _place(
    heard: _Heard, words: Sequence[str], is_cancelled: Callable[[], bool] | None
) -> tuple[list[tuple[int, int]], list[Piece]]:
    """Aligns words, in pieces where what was recognised tells which words they hold."""
    cuts, shares = _share_words(heard.cuts, heard.pieces, words)
    pieces = []
    for cut, share in zip(cuts, shares, strict=True):
        _raise_if(is_cancelled)
        pieces.append(align_words(share, _part_of(heard.model, *cut), _part_of(heard.head, *cut)))
    return cuts, pieces


def _part_of(
    log_posteriors: NDArray[np.float32] | None, start: int, end: int
) -> NDArray[np.float32] | None:
    """Log posteriors between two samples; each cut lies at the start of a frame."""
    if log_posteriors is None:
        return None
    samples_per_frame = SAMPLE_RATE_HZ // FEATURE_RATE_HZ
    return log_posteriors[start // samples_per_frame : -(-end // samples_per_frame)]


def _raise_if(is_cancelled: Callable[[], bool] | None) -> None:
    if is_cancelled is not None and is_cancelled():
        raise Cancelled


def _recognised(sound: NDArray[np.int16], heard: _Heard) -> Transcript:
    """The trusted pieces; Moonshine's words are as good as given ones."""
    found = plausible_transcript(sound, heard.cuts, heard.pieces, heard.spoken)
    if heard.spoken is not None and not found.words and not found.gaps:
        silence = Phone(SILENCE, 0.0, len(sound) / SAMPLE_RATE_HZ)
        return Transcript((silence,), (), (NOBODY,), "sound", source="given")
    return replace(found, source="given")


def _placed(
    cuts: Sequence[tuple[int, int]], pieces: Sequence[Piece]
) -> list[written_text.RecognisedWord]:
    """Recognised words with times in the whole sound."""
    return [
        written_text.RecognisedWord(
            word.text,
            word.start_seconds + start / SAMPLE_RATE_HZ,
            word.end_seconds + start / SAMPLE_RATE_HZ,
            piece.is_confirmed,
        )
        for (start, _), piece in zip(cuts, pieces, strict=True)
        for word in piece.words
    ]


def _fits(pieces: Sequence[Piece], active_seconds: float) -> bool:
    """Whether given words are what is spoken: by phone posteriors."""
    spoken = sum(piece.spoken_seconds for piece in pieces if piece.is_confirmed)
    return spoken >= _MIN_TEXT_COVERAGE * active_seconds


def _share_words(
    cuts: Sequence[tuple[int, int]], recognised: Sequence[Piece], words: Sequence[str]
) -> tuple[list[tuple[int, int]], list[list[str]]]:
    """Shares the words of a text out to the pieces; joins pieces where the border is uncertain.

    A cut stays where the recognised word before it and the one after it are neighbours in the text.
    """
    recognised_words = [word.text for piece in recognised for word in piece.words]
    text_index = [-1] * len(recognised_words)  # of each recognised word
    matcher = difflib.SequenceMatcher(None, recognised_words, list(words), autojunk=False)
    for block in matcher.get_matching_blocks():
        for index in range(block.size):
            text_index[block.a + index] = block.b + index
    kept_cuts: list[tuple[int, int]] = []
    shares: list[list[str]] = []
    piece_start, text_start, count = cuts[0][0], 0, 0
    for (_, end), piece in zip(cuts[:-1], recognised[:-1], strict=True):
        count += len(piece.words)
        is_inside = 0 < count < len(recognised_words) and text_index[count - 1] >= text_start
        if is_inside and text_index[count] == text_index[count - 1] + 1:
            kept_cuts.append((piece_start, end))
            shares.append(list(words[text_start : text_index[count]]))
            piece_start, text_start = end, text_index[count]
    kept_cuts.append((piece_start, cuts[-1][1]))
    shares.append(list(words[text_start:]))
    return kept_cuts, shares
