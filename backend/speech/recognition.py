# SPDX-License-Identifier: GPL-3.0-or-later
"""English speech recognition and forced alignment of sound of any length.

Mode ``words``: Moonshine recognises English words (PocketSphinx where Moonshine is not installed),
and PocketSphinx finds when their phones are spoken. Mode ``text``: the words are given. What cannot
be trusted (another language, music, wrong words) is left without phones, with a warning: wrong
phones are worse than none; ``moonshine_phones.py`` then recognises phones without words (mode
``sound``). Long sound is cut at pauses, and the pieces are recognised in parallel processes.
"""

import difflib
import math
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.audio.segmentation import active_frames, cut_at_pauses, prepare_sound
from backend.errors import Cancelled, UserError
from backend.processes import end_with_parent
from backend.speech import moonshine_words, written_text
from backend.speech.phones import PhoneSource
from backend.speech.pocketsphinx import PocketSphinx
from backend.speech.transcript import Piece, Transcript, join_pieces, plausible_transcript

_POLL_SECONDS = 0.1
# Given words that score so much lower than recognised ones, or cover so little speech, are wrong.
_MAX_SCORE_LOSS = 12.0
_MIN_TEXT_SCORE = -45.0
_MIN_TEXT_COVERAGE = 0.7

_RECOGNITION_SHARE = 0.75  # of the time that aligning a text takes, for recognising words first
_MOONSHINE_SHARE = 0.6  # of the time that recognising words takes
_SILENT = "The sound is silent: the face stays at rest."

_Task = tuple[NDArray[np.int16], Sequence[str] | None, NDArray[np.float32] | None]
"""Sound of a piece, the words to align (None: recognise them), and phone log posteriors."""
Progress = Callable[[float, float], None]


class SpeechRecogniser:
    """Recognises and aligns English words in worker processes, kept until ``close``.

    A result depends on the arguments alone, not on earlier jobs.

    Args:
        workers: Number of worker processes; with 1 the caller's own process does the work.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._starting = threading.Lock()  # jobs of a list run in threads
        self._pool: ProcessPoolExecutor | None = None
        self._pocketsphinx = PocketSphinx()  # with one worker

    def close(self) -> None:
        """Ends the worker processes, also in the middle of their work."""
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
            samples: Sound at 16 kHz, -1 to 1, of any length.
            log_posteriors: Logarithms of phone posteriors of the whole sound, by a model's speech
                encoder; see ``PocketSphinx.recognise``.
            progress: Called with the seconds done and all seconds.
            is_cancelled: Called about ten times a second, and before each piece with Moonshine.

        Returns:
            Phones and words of mode ``words``; mode ``sound`` and a warning if no words can be
            trusted.

        Raises:
            Cancelled: ``is_cancelled`` returned true.
            UserError: PocketSphinx is not installed or its process died.
        """
        sound = prepare_sound(samples)
        if sound is None:
            return Transcript((), (), (_SILENT,), "sound")
        cuts = cut_at_pauses(sound)
        pieces = self._recognise_pieces(sound, cuts, log_posteriors, progress, is_cancelled)
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

        The words are recognised first: they show where long sound may be cut, and whether the text
        is what is spoken.

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
            UserError: The text holds no words, PocketSphinx is missing or its process died.
            Cancelled: ``is_cancelled`` returned true.
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
            return Transcript((), (), (_SILENT,), "sound")
        cuts = cut_at_pauses(sound)
        report = _part(progress, 0.0, _RECOGNITION_SHARE)
        recognised = self._recognise_pieces(sound, cuts, log_posteriors, report, is_cancelled)
        active = active_frames(sound)
        placed = _placed(cuts, recognised)

        def speech_seconds(start: float, end: float) -> float:
            return float(active[int(start * 100) : int(min(end, 1e6) * 100)].sum()) / 100

        fitted = written_text.fit(given, placed, speech_seconds)
        report = _part(progress, _RECOGNITION_SHARE, 1.0)
        text_cuts, pieces = self._place(
            sound, cuts, recognised, fitted.words, log_posteriors, report, is_cancelled
        )
        fits = _fits(pieces, recognised, float(active.sum()) / 100)
        if not fits:
            doubted = written_text.fit(given, placed, speech_seconds, is_doubted=True)
            if doubted.words != fitted.words:
                fitted = doubted
                text_cuts, pieces = self._place(
                    sound, cuts, recognised, fitted.words, log_posteriors, None, is_cancelled
                )
                fits = _fits(pieces, recognised, float(active.sum()) / 100)
        if not fits or fitted.given_share == 0.0:
            fallback = _recognised(sound, cuts, recognised)
            warning = (
                "The text does not fit what is spoken, so it was not used: check it against the"
                " sound."
            )
            return replace(fallback, warnings=(warning, *fallback.warnings))
        trusted = [piece.is_confirmed is not False for piece in pieces]
        is_text = fitted.given_share >= 0.5
        found = join_pieces(text_cuts, pieces, trusted, "text" if is_text else "words")
        source: PhoneSource = "given" if is_text or moonshine_words.is_installed() else "recognised"
        found = replace(found, source=source, warnings=(*fitted.warnings, *found.warnings))
        if all(trusted):
            return found
        warning = (
            "A part of the text does not fit what is spoken: there the face follows the sound"
            " alone."
        )
        return replace(found, warnings=(warning, *found.warnings))

    def _place(
        self,
        sound: NDArray[np.int16],
        cuts: Sequence[tuple[int, int]],
        recognised: Sequence[Piece],
        words: Sequence[str],
        log_posteriors: NDArray[np.float32] | None,
        progress: Progress | None,
        is_cancelled: Callable[[], bool] | None,
    ) -> tuple[list[tuple[int, int]], list[Piece]]:
        """Aligns words, in pieces where what was recognised tells which words they hold."""
        cuts, shares = _share_words(cuts, recognised, words)
        tasks: list[_Task] = [
            (sound[a:b], share, _part_of(log_posteriors, a, b))
            for (a, b), share in zip(cuts, shares, strict=True)
        ]
        return cuts, self._work(tasks, progress, is_cancelled)

    def _recognise_pieces(
        self,
        sound: NDArray[np.int16],
        cuts: Sequence[tuple[int, int]],
        log_posteriors: NDArray[np.float32] | None,
        progress: Progress | None,
        is_cancelled: Callable[[], bool] | None,
    ) -> list[Piece]:
        """Recognises words between cuts: Moonshine here, on all cores, PocketSphinx in parallel."""
        parts = [(sound[a:b], _part_of(log_posteriors, a, b)) for a, b in cuts]
        if not moonshine_words.is_installed():
            tasks: list[_Task] = [(part, None, posteriors) for part, posteriors in parts]
            return self._work(tasks, progress, is_cancelled)
        report, tasks = _part(progress, 0.0, _MOONSHINE_SHARE), []
        for (_, end), (part, posteriors) in zip(cuts, parts, strict=True):
            _raise_if(is_cancelled)
            tasks.append((part, moonshine_words.transcribe(part), posteriors))
            if report is not None:
                report(end / SAMPLE_RATE_HZ, len(sound) / SAMPLE_RATE_HZ)
        return self._work(tasks, _part(progress, _MOONSHINE_SHARE, 1.0), is_cancelled)

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
                pieces.append(_recognise_or_align(self._pocketsphinx, *task))
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
            futures = [pool.submit(_work_in_process, *task) for task in tasks]
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
        except Cancelled:
            self.close()
            raise
        except BrokenProcessPool as error:
            self.close()
            raise UserError(
                "The speech recogniser stopped unexpectedly: try again, or set Listen to Sound"
                " Only."
            ) from error


@cache
def _process_pocketsphinx() -> PocketSphinx:
    """The decoders of a worker process."""
    return PocketSphinx()


def _work_in_process(
    sound: NDArray[np.int16],
    words: Sequence[str] | None,
    log_posteriors: NDArray[np.float32] | None,
) -> Piece:
    return _recognise_or_align(_process_pocketsphinx(), sound, words, log_posteriors)


def _recognise_or_align(
    pocketsphinx: PocketSphinx,
    sound: NDArray[np.int16],
    words: Sequence[str] | None,
    log_posteriors: NDArray[np.float32] | None,
) -> Piece:
    if words is None:
        return pocketsphinx.recognise(sound, log_posteriors)
    return pocketsphinx.align(sound, words, log_posteriors)


def _part_of(
    log_posteriors: NDArray[np.float32] | None, start: int, end: int
) -> NDArray[np.float32] | None:
    """Log posteriors between two samples; each cut lies at the start of a frame."""
    if log_posteriors is None:
        return None
    samples_per_frame = SAMPLE_RATE_HZ // FEATURE_RATE_HZ
    return log_posteriors[start // samples_per_frame : -(-end // samples_per_frame)]


def _part(progress: Progress | None, first: float, last: float) -> Progress | None:
    """Progress of one stage, which takes the share ``first`` to ``last`` of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(first * total + (last - first) * done, total)


def _raise_if(is_cancelled: Callable[[], bool] | None) -> None:
    if is_cancelled is not None and is_cancelled():
        raise Cancelled


def _recognised(
    sound: NDArray[np.int16], cuts: Sequence[tuple[int, int]], pieces: Sequence[Piece]
) -> Transcript:
    """The trusted pieces; Moonshine's words are as good as given ones."""
    transcript = plausible_transcript(sound, cuts, pieces)
    return replace(transcript, source="given" if moonshine_words.is_installed() else "recognised")


def _placed(
    cuts: Sequence[tuple[int, int]], pieces: Sequence[Piece]
) -> list[written_text.RecognisedWord]:
    """Recognised words with times in the whole sound."""
    return [
        written_text.RecognisedWord(
            word.text,
            word.start_seconds + start / SAMPLE_RATE_HZ,
            word.end_seconds + start / SAMPLE_RATE_HZ,
            piece.is_confirmed is True,
        )
        for (start, _), piece in zip(cuts, pieces, strict=True)
        for word in piece.words
    ]


def _fits(pieces: Sequence[Piece], recognised: Sequence[Piece], active_seconds: float) -> bool:
    """Whether given words are what is spoken: by phone posteriors, without them by scores."""
    trusted = [piece for piece in pieces if piece.is_confirmed is not False]
    if sum(piece.spoken_seconds for piece in trusted) < _MIN_TEXT_COVERAGE * active_seconds:
        return False
    if any(piece.is_confirmed is not None for piece in pieces):
        return True
    recognised_score = _mean_score([piece for piece in recognised if piece.words])
    return _mean_score(pieces) >= max(recognised_score - _MAX_SCORE_LOSS, _MIN_TEXT_SCORE)


def _mean_score(pieces: Sequence[Piece]) -> float:
    """Mean acoustic score of the spoken frames; minus infinity if a piece has no words."""
    if not pieces or not all(piece.words for piece in pieces):
        return -math.inf
    seconds = sum(piece.spoken_seconds for piece in pieces)
    return sum(piece.score * piece.spoken_seconds for piece in pieces) / max(seconds, 0.01)


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
