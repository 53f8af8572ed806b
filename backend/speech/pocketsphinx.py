# SPDX-License-Identifier: GPL-3.0-or-later
"""PocketSphinx on one stretch of sound: words, phones with times, and how sure it is.

Its decoders are made once per process. ``listening.py`` spreads the pieces of long sound.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

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
_HYBRID_SEARCH = {
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
}
"""Weight of the language model, bonus of a word and beams of the search by ear; see the notes on
training."""
# By held-out speech. Goodness of what PocketSphinx heard by itself: 0.28 to 0.74 for a native,
# mostly right, 0.1 to 0.7 for learners, mostly wrong. Of what was heard by ear: 0.61 and more for
# 19 of 20 learners, 0.75 and more for synthesised English, 0.25 to 0.59 for other languages. Tones
# that come and go can be good, but have 2 phones a second; learners have 4.3 and more.
_AGREES, _SURE = 0.25, 0.58
# The goodness of what PocketSphinx heard by itself, as a share of that of what is heard by ear, at
# which it is kept: 99 of 100 prompts of a native, four of ten sentences of learners.
_AS_GOOD = 0.35
_SPOKEN_PER_SECOND = 4.0
# Of words that were recognised elsewhere: 0.23 and more for 19 of 20 clear learners and natives,
# 0.2 to 0.7 in noise of 10 dB; at most 0.03 for what Moonshine makes of 14 other languages, 0.14 of
# laughter, 0 of music and noise.
_TOLD_AGREES = 0.2
# PocketSphinx tells better when clear speech is spoken, the ear in noise: PocketSphinx's times are
# taken where the words are so good by the ear's times, and such a share of that by PocketSphinx's.
_CLEAR, _AS_WELL_TIMED = 0.5, 0.7
_MOST_STATES = 5000  # in a frame; 30000, its default, takes a third longer and hears no more
_taught: set[str] = set()  # words that the lexicon lacks, in this process
_FILLERS = frozenset({"<s>", "</s>", "<sil>", "[NOISE]", "[SPEECH]", "(NULL)"})


def _pocketsphinx() -> Any:
    try:
        import pocketsphinx
    except ImportError as error:
        raise UserError(
            "Listening to words needs PocketSphinx, which is not installed: run Repair in the"
            " preferences, or listen to sound."
        ) from error
    return pocketsphinx


def _new_decoder(*, for_text: bool) -> Any:
    pocketsphinx = _pocketsphinx()
    if not for_text:
        return pocketsphinx.Decoder(
            samprate=SAMPLE_RATE_HZ, loglevel="FATAL", maxhmmpf=_MOST_STATES
        )
    # Without the best path through the lattice, whose word times the phones' alignment cannot
    # always follow; with beams so wide that an odd pronunciation is not given up.
    return pocketsphinx.Decoder(
        samprate=SAMPLE_RATE_HZ,
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
def _hybrid_decoder() -> Any:
    return _new_hybrid_decoder(**_HYBRID_SEARCH)


@lru_cache(maxsize=1)
def _aligner() -> Any:
    return _new_decoder(for_text=True)


@lru_cache(maxsize=1)
def _hybrid_aligner() -> Any:
    # Pauses are likelier than by default, or short ones go to the phones beside them.
    return _new_hybrid_decoder(lm=None, silprob=0.2, beam=1e-200, pbeam=1e-200, wbeam=1e-200)


def _new_hybrid_decoder(**settings: Any) -> Any:
    pocketsphinx = _pocketsphinx()
    with tempfile.TemporaryDirectory() as folder:
        pocketsphinx_hybrid.write_acoustic_model(Path(folder))
        return pocketsphinx.Decoder(
            hmm=folder, samprate=SAMPLE_RATE_HZ, loglevel="FATAL", bestpath=False, **settings
        )


def recognise_words(
    samples: NDArray[np.int16], log_posteriors: NDArray[np.floating] | None = None
) -> Piece:
    """Recognises English words, then aligns their phones.

    PocketSphinx's acoustic model knows native American speech best, the bundled model's ear
    learners and noise; and where one is right the other mostly hears something like it. So
    PocketSphinx hears first, and what it heard is kept unless the ear thinks ill of it, or much
    better of what is heard with the ear itself.

    Args:
        samples: At 16 kHz, at most a minute.
        log_posteriors: What a model's ear says of them, as ``acoustic_model.as_features`` takes
            it; without it only PocketSphinx hears.

    Returns:
        Words and phones; empty where nothing could be made of the sound.
    """
    piece = _recognise_alone(samples)
    if log_posteriors is None:
        return piece
    goodness = _goodness(piece.phones, log_posteriors)
    if goodness >= _AS_GOOD:  # nothing can be so much better
        return replace(piece, is_sure=True)
    by_ear = recognise_words_hybrid(log_posteriors)
    best = _goodness(by_ear.phones, log_posteriors) if by_ear.is_sure else 0.0
    return replace(piece, is_sure=True) if goodness >= max(_AGREES, _AS_GOOD * best) else by_ear


def _recognise_alone(samples: NDArray[np.int16]) -> Piece:
    decoder = _decoder()
    decoder.activate_search()
    feed = partial(decoder.process_raw, samples.astype("<i2").tobytes(), full_utt=True)
    try:
        _pass(decoder, feed)
        if decoder.hyp() is None:
            return Piece()
        sure = [segment.prob for segment in decoder.seg() if segment.word not in _FILLERS]
        return _aligned(decoder, feed, confidence=sum(sure) / max(len(sure), 1))
    except RuntimeError:
        # In noise, words are found that cannot be aligned. The decoder is left inside an utterance;
        # a new one is made at the next call.
        _decoder.cache_clear()
        return Piece()


def recognise_words_hybrid(log_posteriors: NDArray[np.floating]) -> Piece:
    """Recognises English words from what a model's ear says, with the ear as acoustic model.

    Args:
        log_posteriors: As ``acoustic_model.as_features`` takes them, of at most a minute.

    Returns:
        Words and phones; empty where nothing could be made of the sound.
    """
    try:
        return _recognise_hybrid(_hybrid_decoder(), log_posteriors)
    except RuntimeError:
        _hybrid_decoder.cache_clear()  # it is left inside an utterance
        return Piece()


def _recognise_hybrid(decoder: Any, log_posteriors: NDArray[np.floating]) -> Piece:
    rate = FEATURE_RATE_HZ
    features = pocketsphinx_hybrid.as_features(log_posteriors)
    _pass(decoder, partial(decoder.process_cep, features.tobytes(), full_utt=True))
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
    return Piece(
        phones=tuple(merge_silences(phones)),
        words=tuple(words),
        is_sure=_goodness(phones, log_posteriors) >= _SURE
        and len(spoken) >= _SPOKEN_PER_SECOND * seconds,
        spoken_seconds=seconds,
    )


def _goodness(phones: Sequence[Phone], log_posteriors: NDArray[np.floating]) -> float:
    """How well an ear thinks of phones, 0 to 1 (goodness of pronunciation, Witt and Young 2000).

    The geometric mean, while something is spoken, of the probability of the phone as a share of
    that of the likeliest one.
    """
    ids = phone_frames(phones, len(log_posteriors), FEATURE_RATE_HZ)
    spoken = np.flatnonzero(ids > PHONE_IDS[SILENCE])
    if not len(spoken):
        return 0.0
    doubt = log_posteriors[spoken].max(axis=1) - log_posteriors[spoken, ids[spoken]]
    return float(np.exp(-doubt.mean()))


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
    feed = partial(decoder.process_raw, samples.astype("<i2").tobytes(), full_utt=True)
    try:
        _pass(decoder, feed)
        found = decoder.hyp() is not None
        piece = _aligned(decoder, feed, confidence=1.0) if found else Piece()
    except RuntimeError:
        # The sound ended before the words did. The aligner is left inside an utterance; a new one
        # is made at the next call.
        _aligner.cache_clear()
        return Piece(guessed=guessed)
    return replace(piece if len(piece.words) == len(known) else Piece(), guessed=guessed)


def place_words(
    samples: NDArray[np.int16], words: Sequence[str], log_posteriors: NDArray[np.floating]
) -> Piece:
    """Finds when words that were recognised elsewhere are spoken, and whether they are.

    Args:
        samples: At 16 kHz, at most a minute.
        words: Lower case, as ``letter_to_sound.words_of`` makes them.
        log_posteriors: What a model's ear says of the samples, as for ``recognise_words``.

    Returns:
        Words and phones, timed by PocketSphinx or, in noise, by the ear; not sure where the ear
        hears something else. Empty without words.
    """
    decoder = _hybrid_aligner()
    known, guessed = _known_words(decoder, words)
    if not known:
        return Piece()
    decoder.set_align_text(" ".join(known))
    try:
        by_ear = _recognise_hybrid(decoder, log_posteriors)
    except RuntimeError:
        _hybrid_aligner.cache_clear()  # it is left inside an utterance
        return Piece()
    goodness = _goodness(by_ear.phones, log_posteriors)
    if len(by_ear.words) != len(known) or goodness < _TOLD_AGREES:
        return replace(by_ear, is_sure=False)
    piece = align_words(samples, words)
    is_well_timed = _goodness(piece.phones, log_posteriors) >= _AS_WELL_TIMED * goodness
    best = piece if is_well_timed and goodness >= _CLEAR else by_ear
    return replace(best, is_sure=True, guessed=guessed)


def _known_words(decoder: Any, words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The words that the decoder can align, after teaching it the ones that it lacks."""
    known, guessed = [], []
    for word in words:
        if decoder.lookup_word(word) is None:
            phones = pronounce(word)
            if not phones:
                continue
            decoder.add_word(word, " ".join(phones), update=False)
            _taught.add(word)
        if word in _taught:
            guessed.append(word)
        known.append(word)
    return known, tuple(dict.fromkeys(guessed))


def _pass(decoder: Any, feed: Callable[[], None]) -> None:
    decoder.start_utt()
    feed()
    decoder.end_utt()


def _aligned(decoder: Any, feed: Callable[[], None], *, confidence: float) -> Piece:
    """Second pass of PocketSphinx: from words to phones."""
    decoder.set_alignment()
    _pass(decoder, feed)
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
