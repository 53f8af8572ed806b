# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening to speech: which phones are spoken when, and whether that can be trusted.

Three ways, of which the second and third are made here: ``sound`` (``phone_recogniser.py``),
``words`` (Moonshine recognises English words, PocketSphinx where that is not installed; then their
phones are timed) and ``text`` (the words are given). What is not to be trusted (another language,
music, wrong words) falls back to the next weaker way, with a warning: wrong phones are worse than
none. Long sound is cut at pauses; the pieces are worked off in parallel processes.
"""

import difflib
import math
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.audio.segmentation import active_frames, cut_at_pauses, prepare_sound
from backend.errors import UserError
from backend.processes import end_with_parent
from backend.speech import moonshine_words, written_text
from backend.speech.pocketsphinx import align_words, place_words, recognise_words
from backend.speech.transcript import Piece, Transcript, joined, judged

_POLL_SECONDS = 0.1
# Given words that score so much lower than recognised ones, or leave so much unsaid, are wrong.
_WORSE_THAN_HEARD = 12.0
_MIN_TEXT_SCORE = -45.0
_MIN_TEXT_COVERAGE = 0.7

_HEARING_SHARE = 0.75  # of the time that aligning a text takes, for recognising it first
_TRANSCRIBING_SHARE = 0.6  # of the time that recognising takes, for what Moonshine does of it

_Task = tuple[NDArray[np.int16], Sequence[str] | None, NDArray[np.float32] | None]
Progress = Callable[[float, float], None]


class ListeningCancelledError(Exception):
    """The caller's ``is_cancelled`` said so."""


class SpeechRecogniser:
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
    ) -> Transcript:
        """Recognises English words and aligns their phones.

        Args:
            samples: At 16 kHz, -1 to 1, any length.
            log_posteriors: Of phones in the whole sound, by a model's ear; see
                ``recogniser.recognise_words``.
            progress: Told seconds done and in all.
            is_cancelled: Asked about ten times a second, and once a piece while Moonshine hears.

        Returns:
            Phones and words; way ``sound`` and a warning where they cannot be trusted.

        Raises:
            ListeningCancelledError: ``is_cancelled`` said so.
            UserError: PocketSphinx is not installed or its process died.
        """
        sound = prepare_sound(samples)
        if sound is None:
            return Transcript((), (), ("The sound is silent: the face stays at rest.",), "sound")
        cuts = cut_at_pauses(sound)
        pieces = self._hear(sound, cuts, log_posteriors, progress, is_cancelled)
        return _recognised(sound, cuts, pieces)

    def align(
        self,
        samples: NDArray[np.float32],
        text: str,
        log_posteriors: NDArray[np.float32] | None = None,
        *,
        progress: Progress | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> Transcript:
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
            Mode ``text``; or what ``recognise`` gives, with a warning, where the text does not fit.

        Raises:
            UserError: The text holds no words, PocketSphinx is missing or its process died.
            ListeningCancelledError: ``is_cancelled`` said so.
        """
        given = written_text.read(text)
        if not text.strip():
            raise UserError("The text is empty: type what is spoken, or leave it out.")
        if not given.words:
            raise UserError(
                "The text holds no words to align: type what is spoken, or leave it empty."
            )
        sound = prepare_sound(samples)
        if sound is None:
            return Transcript((), (), ("The sound is silent: the face stays at rest.",), "sound")
        cuts = cut_at_pauses(sound)
        report = _part(progress, 0.0, _HEARING_SHARE)
        heard = self._hear(sound, cuts, log_posteriors, report, is_cancelled)
        active = active_frames(sound)
        placed = _placed(cuts, heard)

        def speech_seconds(start: float, end: float) -> float:
            return float(active[int(start * 100) : int(min(end, 1e6) * 100)].sum()) / 100

        fitted = written_text.fit(given, placed, speech_seconds)
        report = _part(progress, _HEARING_SHARE, 1.0)
        text_cuts, pieces = self._place(
            sound, cuts, heard, fitted.words, log_posteriors, report, is_cancelled
        )
        fits = _fits(pieces, heard, float(active.sum()) / 100)
        if not fits:
            doubted = written_text.fit(given, placed, speech_seconds, is_doubted=True)
            if doubted.words != fitted.words:
                fitted = doubted
                text_cuts, pieces = self._place(
                    sound, cuts, heard, fitted.words, log_posteriors, None, is_cancelled
                )
                fits = _fits(pieces, heard, float(active.sum()) / 100)
        if not fits or fitted.given_share == 0.0:
            fallen = _recognised(sound, cuts, heard)
            warning = (
                "The text does not fit what is spoken, so it was not used: check it against the"
                " sound."
            )
            return replace(fallen, warnings=(warning, *fallen.warnings))
        trusted = [piece.is_sure is not False for piece in pieces]
        is_text = fitted.given_share >= 0.5
        found = joined(text_cuts, pieces, trusted, "text" if is_text else "words")
        is_certain = is_text or moonshine_words.is_installed()
        found = replace(found, is_certain=is_certain, warnings=(*fitted.warnings, *found.warnings))
        if all(trusted):
            return found
        warning = (
            "A part of the text does not fit what is spoken: there, listening to the sound alone."
        )
        return replace(found, warnings=(warning, *found.warnings))

    def _place(
        self,
        sound: NDArray[np.int16],
        cuts: Sequence[tuple[int, int]],
        heard: Sequence[Piece],
        words: Sequence[str],
        log_posteriors: NDArray[np.float32] | None,
        progress: Progress | None,
        is_cancelled: Callable[[], bool] | None,
    ) -> tuple[list[tuple[int, int]], list[Piece]]:
        """Aligns words, in pieces where what was recognised tells which words they hold."""
        cuts, shares = _share_words(cuts, heard, words)
        tasks: list[_Task] = [
            (sound[a:b], share, _part_of(log_posteriors, a, b))
            for (a, b), share in zip(cuts, shares, strict=True)
        ]
        return cuts, self._work(tasks, progress, is_cancelled)

    def _hear(
        self,
        sound: NDArray[np.int16],
        cuts: Sequence[tuple[int, int]],
        log_posteriors: NDArray[np.float32] | None,
        progress: Progress | None,
        is_cancelled: Callable[[], bool] | None,
    ) -> list[Piece]:
        """Recognises the words between cuts: Moonshine on all cores here, the rest in parallel."""
        parts = [(sound[a:b], _part_of(log_posteriors, a, b)) for a, b in cuts]
        if not moonshine_words.is_installed():
            tasks: list[_Task] = [(part, None, heard) for part, heard in parts]
            return self._work(tasks, progress, is_cancelled)
        report, tasks = _part(progress, 0.0, _TRANSCRIBING_SHARE), []
        for (_, end), (part, heard) in zip(cuts, parts, strict=True):
            _raise_if(is_cancelled)
            tasks.append((part, moonshine_words.transcribe(part), heard))
            if report is not None:
                report(end / SAMPLE_RATE_HZ, len(sound) / SAMPLE_RATE_HZ)
        return self._work(tasks, _part(progress, _TRANSCRIBING_SHARE, 1.0), is_cancelled)

    def _work(
        self,
        tasks: Sequence[_Task],
        progress: Progress | None,
        is_cancelled: Callable[[], bool] | None,
    ) -> list[Piece]:
        total = sum(len(sound) for sound, _, _ in tasks) / SAMPLE_RATE_HZ
        done = 0.0
        if self._workers <= 1:
            pieces = []
            for task in tasks:
                _raise_if(is_cancelled)
                pieces.append(_one(*task))
                done += len(task[0]) / SAMPLE_RATE_HZ
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
                future: len(sound) / SAMPLE_RATE_HZ
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
            raise UserError(
                "The speech recogniser stopped unexpectedly: try again, or listen to sound."
            ) from error


def _one(
    sound: NDArray[np.int16],
    words: Sequence[str] | None,
    log_posteriors: NDArray[np.float32] | None,
) -> Piece:
    if words is None:
        return recognise_words(sound, log_posteriors)
    if log_posteriors is None:
        return align_words(sound, words)
    return place_words(sound, words, log_posteriors)


def _part_of(
    log_posteriors: NDArray[np.float32] | None, start: int, end: int
) -> NDArray[np.float32] | None:
    """Those between two samples; where pieces are cut, a frame begins."""
    if log_posteriors is None:
        return None
    samples_per_frame = SAMPLE_RATE_HZ // FEATURE_RATE_HZ
    return log_posteriors[start // samples_per_frame : -(-end // samples_per_frame)]


def _part(progress: Progress | None, first: float, last: float) -> Progress | None:
    """The progress of one stage of several, from the share ``first`` to ``last`` of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(first * total + (last - first) * done, total)


def _raise_if(is_cancelled: Callable[[], bool] | None) -> None:
    if is_cancelled is not None and is_cancelled():
        raise ListeningCancelledError


def _recognised(
    sound: NDArray[np.int16], cuts: Sequence[tuple[int, int]], pieces: Sequence[Piece]
) -> Transcript:
    """What can be trusted of recognised words; those of Moonshine count as certain."""
    return replace(judged(sound, cuts, pieces), is_certain=moonshine_words.is_installed())


def _placed(
    cuts: Sequence[tuple[int, int]], pieces: Sequence[Piece]
) -> list[written_text.RecognisedWord]:
    """Recognised words with times in the whole sound."""
    return [
        written_text.RecognisedWord(
            word.text,
            word.start_seconds + start / SAMPLE_RATE_HZ,
            word.end_seconds + start / SAMPLE_RATE_HZ,
            piece.is_sure is True,
        )
        for (start, _), piece in zip(cuts, pieces, strict=True)
        for word in piece.words
    ]


def _fits(pieces: Sequence[Piece], heard: Sequence[Piece], active_seconds: float) -> bool:
    """Whether given words are what is spoken: by the ear, or by scores where none was asked."""
    sure = [piece for piece in pieces if piece.is_sure is not False]
    if sum(piece.spoken_seconds for piece in sure) < _MIN_TEXT_COVERAGE * active_seconds:
        return False
    if any(piece.is_sure is not None for piece in pieces):
        return True
    heard_score = _mean_score([piece for piece in heard if piece.words])
    return _mean_score(pieces) >= max(heard_score - _WORSE_THAN_HEARD, _MIN_TEXT_SCORE)


def _mean_score(pieces: Sequence[Piece]) -> float:
    """Mean acoustic score of the spoken frames; minus infinity if a piece has no words."""
    if not pieces or not all(piece.words for piece in pieces):
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
