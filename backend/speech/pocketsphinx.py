# SPDX-License-Identifier: GPL-3.0-or-later
"""English words and their phones in one segment of sound, by PocketSphinx.

Each of the two tasks, recognition and forced alignment, has two decoders: PocketSphinx as it is,
whose acoustic model knows native American speech best, and the hybrid of ``pocketsphinx_hybrid.py``
with phone posteriors of a model's speech encoder, which knows learners and noise. Longer sound is
split in ``recognition.py``.
"""

import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.speech import pocketsphinx_hybrid, viterbi
from backend.speech.phones import (
    PHONE_IDS,
    SILENCE,
    Phone,
    from_arpabet,
    merge_silences,
    phone_frames,
)
from backend.speech.pronunciation import pronounce
from backend.speech.transcript import Piece, Word

_FRAMES_PER_SECOND = 100
_FILLERS = frozenset({"<s>", "</s>", "<sil>", "[NOISE]", "[SPEECH]", "(NULL)"})

_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    # At most 5000 states in a frame: the default, 30000, takes a third longer and finds no more.
    "recognition": {"maxhmmpf": 5000},
    # Without the best path through the lattice, whose word times the phones' alignment cannot
    # always follow; with beams so wide that an odd pronunciation is not given up.
    "alignment": {"lm": None, "bestpath": False, "beam": 1e-100, "pbeam": 1e-100, "wbeam": 1e-80},
    # Weight of the language model, bonus of a word and beams: see docs/findings.md.
    "hybrid recognition": {
        "bestpath": False,
        "lw": 2.0,
        "wip": 10.0,
        "beam": 1e-30,
        "pbeam": 1e-30,
        "lpbeam": 1e-24,
        "wbeam": 1e-12,
        "lponlybeam": 1e-12,
        "maxhmmpf": 1500,
        "maxwpf": 5,
        "fwdflat": False,
    },
    # Pauses are likelier than by default, or short ones go to the phones beside them.
    "hybrid alignment": {
        "bestpath": False,
        "lm": None,
        "silprob": 0.2,
        "beam": 1e-200,
        "pbeam": 1e-200,
        "wbeam": 1e-200,
    },
}

# Limits of the goodness of pronunciation, from held-out speech. Of PocketSphinx's own words: 0.28
# to 0.74 for a native, mostly right, 0.1 to 0.7 for learners, mostly wrong. Of the hybrid's words:
# 0.61 and more for 19 of 20 learners, 0.75 and more for synthesised English, 0.25 to 0.59 for other
# languages. Tones that come and go can be good, but have 2 phones a second; learners have 4.3 and
# more.
_MIN_GOODNESS = 0.25
_MIN_HYBRID_GOODNESS = 0.58
_MIN_PHONES_PER_SECOND = 4.0
# PocketSphinx's own words are kept if their goodness is this share of that of the hybrid's: 99 of
# 100 prompts of a native, four of ten sentences of learners.
_MIN_GOODNESS_RATIO = 0.35
# Of words that were given or recognised elsewhere: 0.23 and more for 19 of 20 clear learners and
# natives, 0.2 to 0.7 in noise of 10 dB; at most 0.03 for what Moonshine makes of 14 other
# languages, 0.14 of laughter, 0 of music and noise.
_MIN_GIVEN_GOODNESS = 0.2
# PocketSphinx times clear speech better, the hybrid speech in noise: PocketSphinx's times are taken
# where the words have this goodness by the hybrid's times, and this share of it by PocketSphinx's.
_CLEAR_GOODNESS = 0.5
_MIN_TIMING_RATIO = 0.7


class PocketSphinx:
    """Recognises and aligns words; a result depends on the arguments alone.

    Each decoder is made at its first use (half a second) and kept. A decoder holds the utterance
    that it works on, so threads take turns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoders: dict[str, Any] = {}
        self._added_words: set[str] = set()

    def recognise(
        self, samples: NDArray[np.int16], log_posteriors: NDArray[np.floating] | None = None
    ) -> Piece:
        """Recognises English words and aligns their phones.

        PocketSphinx's own acoustic model and the hybrid err on different speech, and where one is
        right the other mostly finds something like it. So PocketSphinx's words are kept unless the
        phone posteriors speak against them, or much more for the words of the hybrid.

        Args:
            samples: Sound at 16 kHz, at most a minute.
            log_posteriors: Logarithms of phone posteriors of the sound, as
                ``pocketsphinx_hybrid.as_features`` takes them; without them PocketSphinx decides
                alone.

        Returns:
            Words and phones; empty if nothing was recognised.
        """
        with self._lock:
            piece = self._recognise(samples)
            if log_posteriors is None:
                return piece
            goodness = goodness_of_pronunciation(piece.phones, log_posteriors)
            if goodness >= _MIN_GOODNESS_RATIO:  # no goodness is above 1
                return replace(piece, is_confirmed=True)
            hybrid = self._recognise_hybrid(log_posteriors)
            best = 0.0
            if hybrid.is_confirmed:
                best = goodness_of_pronunciation(hybrid.phones, log_posteriors)
            is_kept = goodness >= max(_MIN_GOODNESS, _MIN_GOODNESS_RATIO * best)
            return replace(piece, is_confirmed=True) if is_kept else hybrid

    def recognise_hybrid(self, log_posteriors: NDArray[np.floating]) -> Piece:
        """Recognises English words from phone posteriors.

        Args:
            log_posteriors: Logarithms of phone posteriors, as ``pocketsphinx_hybrid.as_features``
                takes them, of at most a minute.

        Returns:
            Words and phones; empty if nothing was recognised.
        """
        with self._lock:
            return self._recognise_hybrid(log_posteriors)

    def align(
        self,
        samples: NDArray[np.int16],
        words: Sequence[str],
        log_posteriors: NDArray[np.floating] | None = None,
    ) -> Piece:
        """Finds when words are spoken that were given or recognised elsewhere.

        With phone posteriors it also finds whether they are spoken, and speech in noise is timed by
        the hybrid.

        Args:
            samples: Sound at 16 kHz, at most a minute.
            words: Lower-case words, as ``pronunciation.words_of`` makes them.
            log_posteriors: Logarithms of phone posteriors of the sound, as for ``recognise``.

        Returns:
            Words and phones; empty without words and, without posteriors, if the words do not fit
            the sound. With posteriors ``is_confirmed`` says whether they fit.
        """
        with self._lock:
            if log_posteriors is None:
                return self._align(samples, words)
            return self._align_hybrid(samples, words, log_posteriors)

    def _recognise(self, samples: NDArray[np.int16]) -> Piece:
        decoder = self._decoder("recognition")
        decoder.activate_search()
        feed = _feed_sound(decoder, samples)
        try:
            _decode_utterance(decoder, feed)
            if decoder.hyp() is None:
                return Piece()
            posteriors = [part.prob for part in decoder.seg() if part.word not in _FILLERS]
            confidence = sum(posteriors) / max(len(posteriors), 1)
            return _align_phones(decoder, feed, confidence=confidence)
        except RuntimeError:  # in noise, words are found that cannot be aligned
            self._discard("recognition")
            return Piece()

    def _recognise_hybrid(self, log_posteriors: NDArray[np.floating]) -> Piece:
        try:
            return _decode_posteriors(self._decoder("hybrid recognition"), log_posteriors)
        except RuntimeError:
            self._discard("hybrid recognition")
            return Piece()

    def _align(self, samples: NDArray[np.int16], words: Sequence[str]) -> Piece:
        decoder = self._decoder("alignment")
        known, guessed = self._known_words(decoder, words)
        if not known:
            return Piece()
        decoder.set_align_text(" ".join(known))
        feed = _feed_sound(decoder, samples)
        try:
            _decode_utterance(decoder, feed)
            is_found = decoder.hyp() is not None
            piece = _align_phones(decoder, feed, confidence=1.0) if is_found else Piece()
        except RuntimeError:  # the sound ended before the words did
            self._discard("alignment")
            return Piece(guessed=guessed)
        return replace(piece if len(piece.words) == len(known) else Piece(), guessed=guessed)

    def _align_hybrid(
        self,
        samples: NDArray[np.int16],
        words: Sequence[str],
        log_posteriors: NDArray[np.floating],
    ) -> Piece:
        decoder = self._decoder("hybrid alignment")
        known, guessed = self._known_words(decoder, words)
        if not known:
            return Piece()
        decoder.set_align_text(" ".join(known))
        try:
            hybrid = _decode_posteriors(decoder, log_posteriors)
        except RuntimeError:
            self._discard("hybrid alignment")
            return Piece()
        goodness = goodness_of_pronunciation(hybrid.phones, log_posteriors)
        if len(hybrid.words) != len(known) or goodness < _MIN_GIVEN_GOODNESS:
            return replace(hybrid, is_confirmed=False)
        piece = self._align(samples, words)
        timing = goodness_of_pronunciation(piece.phones, log_posteriors)
        is_well_timed = timing >= _MIN_TIMING_RATIO * goodness
        best = piece if is_well_timed and goodness >= _CLEAR_GOODNESS else hybrid
        return replace(best, is_confirmed=True, guessed=guessed)

    def _known_words(self, decoder: Any, words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
        """Words that the decoder can align, and those of them that its lexicon lacked."""
        known, guessed = [], []
        for word in words:
            if decoder.lookup_word(word) is None:
                phones = pronounce(word)
                if not phones:
                    continue
                decoder.add_word(word, " ".join(phones), update=False)
                self._added_words.add(word)
            if word in self._added_words:
                guessed.append(word)
            known.append(word)
        return known, tuple(dict.fromkeys(guessed))

    def _decoder(self, name: str) -> Any:
        if name not in self._decoders:
            self._decoders[name] = _new_decoder(name)
        return self._decoders[name]

    def _discard(self, name: str) -> None:
        """Drops a decoder that an error has left inside an utterance."""
        del self._decoders[name]


def goodness_of_pronunciation(
    phones: Sequence[Phone], log_posteriors: NDArray[np.floating]
) -> float:
    """Agreement of phones with phone posteriors, 0 to 1 (Witt and Young 2000).

    The geometric mean over the frames of speech of the phone's posterior, divided by that of the
    likeliest phone.

    Args:
        phones: Phones in order of time.
        log_posteriors: Logarithms of phone posteriors, shape ``(T, 1 + len(PHONES))``.

    Returns:
        The goodness; 0 without speech.
    """
    ids = phone_frames(phones, len(log_posteriors), FEATURE_RATE_HZ)
    spoken = np.flatnonzero(ids > PHONE_IDS[SILENCE])
    if not len(spoken):
        return 0.0
    deficit = log_posteriors[spoken].max(axis=1) - log_posteriors[spoken, ids[spoken]]
    return float(np.exp(-deficit.mean()))


def _new_decoder(name: str) -> Any:
    """Makes a decoder by the name of its settings; a `UserError` says what is not installed."""
    try:
        import pocketsphinx
    except ImportError as error:
        raise UserError(
            "Recognising words needs PocketSphinx, which is not installed: run Repair in the"
            " preferences, or set Listen to Sound Only."
        ) from error
    settings = {"samprate": SAMPLE_RATE_HZ, "loglevel": "FATAL", **_SETTINGS[name]}
    if not name.startswith("hybrid"):
        return pocketsphinx.Decoder(**settings)
    with tempfile.TemporaryDirectory() as folder:
        pocketsphinx_hybrid.write_acoustic_model(Path(folder))
        return pocketsphinx.Decoder(hmm=folder, **settings)


def _feed_sound(decoder: Any, samples: NDArray[np.int16]) -> Callable[[], None]:
    """A function that gives sound to a decoder, which forgets the noise of sound before."""
    decoder.reinit_feat()
    return partial(decoder.process_raw, samples.astype("<i2").tobytes(), full_utt=True)


def _decode_utterance(decoder: Any, feed: Callable[[], None]) -> None:
    decoder.start_utt()
    feed()
    decoder.end_utt()


def _align_phones(decoder: Any, feed: Callable[[], None], *, confidence: float) -> Piece:
    """Second pass of PocketSphinx: the phones of the words that the first pass found."""
    decoder.set_alignment()
    _decode_utterance(decoder, feed)
    phones: list[Phone] = []
    words: list[Word] = []
    total, frames = 0.0, 0
    for entry in decoder.get_alignment() or ():
        for part in entry:
            symbol = SILENCE if part.name.startswith("+") else from_arpabet(part.name)
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


def _decode_posteriors(decoder: Any, log_posteriors: NDArray[np.floating]) -> Piece:
    """Words by a hybrid decoder, and the times of their phones by the Viterbi algorithm."""
    rate = FEATURE_RATE_HZ
    features = pocketsphinx_hybrid.as_features(log_posteriors)
    _decode_utterance(decoder, partial(decoder.process_cep, features.tobytes(), full_utt=True))
    phones: list[Phone] = []
    words: list[Word] = []
    for segment in decoder.seg() if decoder.hyp() is not None else ():
        first, end = segment.start_frame, min(segment.end_frame + 1, len(features))
        symbols = (decoder.lookup_word(segment.word) or SILENCE).split()
        bounds = first + viterbi.phone_boundaries(symbols, features[first:end])
        phones += [
            Phone(symbol, float(start) / rate, float(stop) / rate)
            for symbol, start, stop in zip(symbols, bounds[:-1], bounds[1:], strict=True)
        ]
        if segment.word not in _FILLERS:
            words.append(Word(segment.word.partition("(")[0], first / rate, end / rate))
    if not words:
        return Piece()
    spoken = [phone for phone in phones if phone.symbol != SILENCE]
    seconds = sum(phone.end_seconds - phone.start_seconds for phone in spoken)
    goodness = goodness_of_pronunciation(phones, log_posteriors)
    return Piece(
        phones=tuple(merge_silences(phones)),
        words=tuple(words),
        is_confirmed=goodness >= _MIN_HYBRID_GOODNESS
        and len(spoken) >= _MIN_PHONES_PER_SECOND * seconds,
        spoken_seconds=seconds,
    )
