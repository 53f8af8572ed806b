# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening to speech: which phones are spoken when, and whether that can be trusted.

Three ways, of which the second and third are made here: ``sound`` (the model alone hears),
``words`` (PocketSphinx recognises English words, by itself or by the model's ear, and aligns them)
and ``text`` (the words are given). What is not to be trusted (another language, music, wrong words)
falls back to the next weaker way, with a warning: wrong phones are worse than none. Long sound is
cut at pauses; the pieces are worked off in parallel processes.
"""

import difflib
import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.acoustic_model import FRAMES_PER_SECOND
from backend.letter_to_sound import words_of
from backend.phones import SILENCE, Phone
from backend.protocol import JobError
from backend.recogniser import (
    HOP,
    SAMPLE_RATE,
    Piece,
    Word,
    active_frames,
    align_words,
    cut_at_pauses,
    hear_words,
    prepare_sound,
)

_POLL_SECONDS = 0.1
# Limits that real English speech of 43 voices (natives and learners, children among them) passed,
# and music, noise and synthesised speech of other languages mostly did not. Score: -10 to -28
# against -30 to -53; confidence: 0.26 to 0.84 against 0.03 to 0.39; share of the sound that the
# words cover: 0.75 to 1.3 against 0.2 to 0.5. Held notes have few phones a second.
_MIN_SCORE = -30.0
_MIN_CONFIDENCE = 0.2
_MIN_PHONES_PER_SECOND = 5.5
_MIN_COVERAGE = 0.45
# Given words that score so much lower than recognised ones, or leave so much unsaid, are wrong.
_WORSE_THAN_HEARD = 12.0
_MIN_TEXT_SCORE = -45.0
_MIN_TEXT_COVERAGE = 0.7

_HEARING_SHARE = 0.75  # of the time that aligning a text takes, for recognising it first

_Task = tuple[NDArray[np.int16], Sequence[str] | None, NDArray[np.float32] | None]
Progress = Callable[[float, float], None]
Way = Literal["sound", "words", "text"]


class ListeningCancelledError(Exception):
    """The caller's ``is_cancelled`` said so."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard.

    Attributes:
        phones: In order of time; stretches that could not be trusted have none.
        words: In order of time.
        warnings: Sentences for the user.
        way: How the phones came about; ``sound`` means there are none.
    """

    phones: tuple[Phone, ...]
    words: tuple[Word, ...]
    warnings: tuple[str, ...]
    way: Way


class Listener:
    """Keeps the recogniser's processes between jobs; ``close`` ends them.

    Args:
        workers: Processes side by side; 1 works in the caller's own process.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._starting = threading.Lock()  # jobs of a list run in threads
        self._pool: ProcessPoolExecutor | None = None

    def close(self) -> None:
        """Ends the processes, also in the middle of their work."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def recognise(
        self,
        samples: NDArray[np.float32],
        log_posteriors: NDArray[np.float32] | None = None,
        *,
        progress: Progress | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> Heard:
        """Recognises English words and aligns their phones.

        Args:
            samples: At 16 kHz, -1 to 1, any length.
            log_posteriors: Of phones in the whole sound, by a model's ear; see
                ``recogniser.hear_words``.
            progress: Told seconds done and in all.
            is_cancelled: Asked about ten times a second.

        Returns:
            Phones and words; way ``sound`` and a warning where they cannot be trusted.

        Raises:
            ListeningCancelledError: ``is_cancelled`` said so.
            JobError: PocketSphinx is not installed or its process died.
        """
        sound = prepare_sound(samples)
        if sound is None:
            return Heard((), (), ("The sound is silent: the face stays at rest.",), "sound")
        cuts = cut_at_pauses(sound)
        tasks = [(sound[a:b], None, _part_of(log_posteriors, a, b)) for a, b in cuts]
        pieces = self._work(tasks, progress, is_cancelled)
        return _judged(sound, cuts, pieces)

    def align(
        self,
        samples: NDArray[np.float32],
        text: str,
        log_posteriors: NDArray[np.float32] | None = None,
        *,
        progress: Progress | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> Heard:
        """Finds when the words of a text are spoken.

        The words are first recognised too: that tells where long sound may be cut, and whether the
        text is what is spoken.

        Args:
            samples: At 16 kHz, -1 to 1, any length.
            text: The words in order, with any punctuation.
            log_posteriors: As for ``recognise``, which is what is fallen back to.
            progress: Told seconds done and in all.
            is_cancelled: Asked about ten times a second.

        Returns:
            Way ``text``; or what ``recognise`` gives, with a warning, where the text does not fit.

        Raises:
            JobError: The text holds no words, PocketSphinx is missing or its process died.
            ListeningCancelledError: ``is_cancelled`` said so.
        """
        words = words_of(text)
        if not words:
            raise JobError(
                "The text holds no words to align: type what is spoken, or leave it empty."
            )
        sound = prepare_sound(samples)
        if sound is None:
            return Heard((), (), ("The sound is silent: the face stays at rest.",), "sound")
        cuts = cut_at_pauses(sound)
        tasks: list[_Task] = [(sound[a:b], None, None) for a, b in cuts]
        heard = self._work(tasks, _part(progress, 0.0, _HEARING_SHARE), is_cancelled)
        cuts, shares = _share_words(cuts, heard, words)
        tasks = [(sound[a:b], share, None) for (a, b), share in zip(cuts, shares, strict=True)]
        pieces = self._work(tasks, _part(progress, _HEARING_SHARE, 1.0), is_cancelled)
        heard_score = _mean_score([piece for piece in heard if piece.words])
        spoken = sum(piece.spoken_seconds for piece in pieces)
        if (
            _mean_score(pieces) < max(heard_score - _WORSE_THAN_HEARD, _MIN_TEXT_SCORE)
            or spoken < _MIN_TEXT_COVERAGE * float(active_frames(sound).sum()) / 100
        ):
            if log_posteriors is None:
                fallen = _judged(sound, cut_at_pauses(sound), heard)
            else:
                fallen = self.recognise(samples, log_posteriors, is_cancelled=is_cancelled)
            warning = (
                "The text does not fit what is spoken, so it was not used: check it against the"
                " sound."
            )
            return replace(fallen, warnings=(warning, *fallen.warnings))
        return _joined(cuts, pieces, [True] * len(pieces), "text")

    def _work(
        self,
        tasks: Sequence[_Task],
        progress: Progress | None,
        is_cancelled: Callable[[], bool] | None,
    ) -> list[Piece]:
        total = sum(len(sound) for sound, _, _ in tasks) / SAMPLE_RATE
        done = 0.0
        if self._workers <= 1:
            pieces = []
            for task in tasks:
                _raise_if(is_cancelled)
                pieces.append(_one(*task))
                done += len(task[0]) / SAMPLE_RATE
                if progress is not None:
                    progress(done, total)
            return pieces
        with self._starting:
            if self._pool is None:
                # Not forked: the caller may hold locks and threads of torch.
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(
                    self._workers, mp_context=context, initializer=end_with_parent
                )
            pool = self._pool
        try:
            futures = [pool.submit(_one, *task) for task in tasks]
            seconds = {
                future: len(sound) / SAMPLE_RATE
                for future, (sound, _, _) in zip(futures, tasks, strict=True)
            }
            waiting: set[Future[Piece]] = set(futures)
            while waiting:
                _raise_if(is_cancelled)
                finished, waiting = wait(
                    waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED
                )
                done += sum(seconds[future] for future in finished)
                if finished and progress is not None:
                    progress(done, total)
            return [future.result() for future in futures]
        except ListeningCancelledError:
            self.close()
            raise
        except BrokenProcessPool as error:
            self.close()
            raise JobError(
                "The speech recogniser stopped unexpectedly: try again, or listen to sound."
            ) from error


def end_with_parent() -> None:
    """Makes a worker end when its parent is killed; by itself it would wait for work for ever.

    PocketSphinx keeps Python's lock while it works, so the end comes with that of the piece.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _one(
    sound: NDArray[np.int16],
    words: Sequence[str] | None,
    log_posteriors: NDArray[np.float32] | None,
) -> Piece:
    return hear_words(sound, log_posteriors) if words is None else align_words(sound, words)


def _part_of(
    log_posteriors: NDArray[np.float32] | None, start: int, end: int
) -> NDArray[np.float32] | None:
    """Those between two samples; where pieces are cut, a frame begins."""
    if log_posteriors is None:
        return None
    samples_per_frame = SAMPLE_RATE // FRAMES_PER_SECOND
    return log_posteriors[start // samples_per_frame : -(-end // samples_per_frame)]


def _part(progress: Progress | None, first: float, last: float) -> Progress | None:
    """The progress of one stage of several, from the share ``first`` to ``last`` of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(first * total + (last - first) * done, total)


def _raise_if(is_cancelled: Callable[[], bool] | None) -> None:
    if is_cancelled is not None and is_cancelled():
        raise ListeningCancelledError


def _judged(
    sound: NDArray[np.int16], cuts: Sequence[tuple[int, int]], pieces: Sequence[Piece]
) -> Heard:
    """Keeps the pieces that can be trusted."""
    active = active_frames(sound)
    trusted, reasons, spoken = [], [], np.zeros(len(pieces))
    for index, ((start, end), piece) in enumerate(zip(cuts, pieces, strict=True)):
        spoken[index] = float(active[start // HOP : end // HOP].sum()) / 100
        reason = _doubt(piece, float(spoken[index]))
        trusted.append(reason is None)
        reasons.append(reason)
    doubtful = spoken[~np.array(trusted)].sum()
    if doubtful == 0.0:
        return _joined(cuts, pieces, trusted, "words")
    worst = reasons[int(np.argmax(np.where(trusted, -1.0, spoken)))]
    if doubtful > 0.5 * spoken.sum():
        warning = f"No English words could be made out ({worst}): listening to the sound alone."
        return Heard((), (), (warning,), "sound")
    warning = (
        f"In {doubtful:.0f} s of {spoken.sum():.0f} s no words could be made out ({worst}):"
        " there, listening to the sound alone."
    )
    heard = _joined(cuts, pieces, trusted, "words")
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


def _joined(
    cuts: Sequence[tuple[int, int]], pieces: Sequence[Piece], trusted: Sequence[bool], way: Way
) -> Heard:
    phones: list[Phone] = []
    words: list[Word] = []
    for (first, _), piece, good in zip(cuts, pieces, trusted, strict=True):
        start = first / SAMPLE_RATE
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
    return Heard(tuple(phones), tuple(words), warnings, way)


def _mean_score(pieces: Sequence[Piece]) -> float:
    """Mean acoustic score of the spoken frames; minus infinity if a piece has no words."""
    if not all(piece.words for piece in pieces):
        return -math.inf
    seconds = sum(piece.spoken_seconds for piece in pieces)
    return sum(piece.score * piece.spoken_seconds for piece in pieces) / max(seconds, 0.01)


def _share_words(
    cuts: Sequence[tuple[int, int]], heard: Sequence[Piece], words: Sequence[str]
) -> tuple[list[tuple[int, int]], list[list[str]]]:
    """Says which words of the text belong to which piece; joins pieces where that is not certain.

    A cut stays where the recognised word before it and the one after it are neighbours in the text.
    """
    recognised = [word.text for piece in heard for word in piece.words]
    place = [-1] * len(recognised)  # of each recognised word in the text
    matcher = difflib.SequenceMatcher(None, recognised, list(words), autojunk=False)
    for block in matcher.get_matching_blocks():
        for index in range(block.size):
            place[block.a + index] = block.b + index
    joined: list[tuple[int, int]] = []
    shares: list[list[str]] = []
    piece_start, text_start, count = cuts[0][0], 0, 0
    for (_, end), piece in zip(cuts[:-1], heard[:-1], strict=True):
        count += len(piece.words)
        known = 0 < count < len(recognised) and place[count - 1] >= text_start
        if known and place[count] == place[count - 1] + 1:
            joined.append((piece_start, end))
            shares.append(list(words[text_start : place[count]]))
            piece_start, text_start = end, place[count]
    joined.append((piece_start, cuts[-1][1]))
    shares.append(list(words[text_start:]))
    return joined, shares
