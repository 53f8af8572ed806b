# SPDX-License-Identifier: GPL-3.0-or-later
"""When words are spoken that are known: forced alignment by phone posteriors (Viterbi).

Two phone classifiers score each frame, as in ``moonshine_phones.py``: that of the model's speech
encoder and the head on Moonshine's encoder. The words are a chain of phones, with a pause where
there is one, and each word in the pronunciation that fits best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ
from backend.speech.phones import (
    PHONE_IDS,
    PHONES,
    SILENCE,
    Phone,
    merge_silences,
    phone_frames,
)
from backend.speech.pronunciation import pronounce, pronunciations
from backend.speech.transcript import Piece, Word

_MIN_FRAMES: Final = 2
"""Shortest duration of a phone."""
_MIN_PAUSE_FRAMES: Final = 5
"""Shortest pause: in a shorter one the lips do not come to rest."""
_PAUSE: Final = -3.0
"""Log score of a pause between two words."""
_BEAM: Final = 250.0
"""States that score so much less than the best are given up; wide, since pauses cost much."""
_PRIORS: Final = np.array((
    383.7, 14.4, 23.1, 45.6, 12.6, 6.1, 24.0, 6.8, 2.8, 16.0, 12.9, 17.4, 13.0, 14.3, 12.5, 5.4,
    14.0, 32.5, 39.5, 2.4, 19.1, 16.9, 18.9, 31.5, 7.5, 15.8, 0.5, 8.4, 15.0, 28.4, 6.1, 47.2,
    5.2, 4.5, 24.0, 6.9, 18.2, 7.1, 19.9, 0.2,
))  # fmt: skip
"""Frames per thousand of each phone in the training recordings, in the order of ``PHONES``."""
_PRIOR_SCALE: Final = 0.3
_SILENCE_COST: Final = 1.5
"""Log score that silence gets less: in a pause that is none, the lips would close."""
_FLOOR: Final = -12.0
_HEAD_WEIGHT: Final = 1.0
_MODEL_WEIGHT: Final = 0.5

# Of words that were given or recognised elsewhere: 0.23 and more for 19 of 20 clear learners and
# natives, 0.2 to 0.7 in noise of 10 dB; at most 0.03 for what Moonshine makes of 14 other
# languages, 0.14 of laughter, 0 of music and noise.
_MIN_GOODNESS: Final = 0.2


def align_words(
    words: Sequence[str],
    log_posteriors: NDArray[np.floating] | None,
    head_log_posteriors: NDArray[np.floating] | None,
    certainties: Sequence[float] | None = None,
) -> Piece:
    """Finds when words are spoken, and whether they are.

    Args:
        words: Lower-case words, as ``written_text.words_of`` makes them.
        log_posteriors: Logarithms of phone posteriors of the sound by the model's speech encoder,
            shape ``(T, 1 + len(PHONES))`` at ``FEATURE_RATE_HZ``; None without such a model.
        head_log_posteriors: The same by the head on Moonshine's encoder; None without it.
        certainties: How certain the recogniser is of each word; None of given words.

    Returns:
        Words and phones; ``is_confirmed`` says whether the posteriors agree with them. Empty
        without words, or where the sound is too short for them.
    """
    pronounced: list[tuple[str, list[tuple[str, ...]]]] = []
    guessed: list[str] = []
    numbers: list[int] = []
    for number, word in enumerate(words):
        ways = pronunciations(word)
        if not ways and (by_rule := pronounce(word)):
            ways = [by_rule]
            guessed.append(word)
        if ways:
            pronounced.append((word, ways))
            numbers.append(number)
    piece = align_pronounced(
        pronounced, log_posteriors, head_log_posteriors, min_goodness=_MIN_GOODNESS
    )
    heard = head_log_posteriors if head_log_posteriors is not None else log_posteriors
    if certainties is not None and heard is not None and piece.words:
        sure = tuple(
            replace(word, certainty=certainties[number] * _goodness_of_word(word, piece, heard))
            for word, number in zip(piece.words, numbers, strict=True)
        )
        piece = replace(piece, words=sure)
    return replace(piece, guessed=tuple(dict.fromkeys(guessed)))


def align_pronounced(
    words: Sequence[tuple[str, Sequence[tuple[str, ...]]]],
    log_posteriors: NDArray[np.floating] | None,
    head_log_posteriors: NDArray[np.floating] | None,
    *,
    min_goodness: float,
) -> Piece:
    """Finds when words of any language are spoken whose pronunciations are known.

    Args:
        words: Each word with the ways in which it may be pronounced, in phones without silence.
        log_posteriors: As for `align_words`.
        head_log_posteriors: As for `align_words`.
        min_goodness: Goodness of pronunciation from which on the words count as confirmed.

    Returns:
        As `align_words`.
    """
    chain = _chain(words)
    known = log_posteriors if log_posteriors is not None else head_log_posteriors
    if not chain.words or known is None:
        return Piece()
    path = _best_path(chain, _scores(log_posteriors, head_log_posteriors))
    if path is None:
        return Piece(is_confirmed=False)
    piece = _as_piece(chain, path)
    goodness = goodness_of_pronunciation(piece.phones, known)
    return replace(piece, is_confirmed=goodness >= min_goodness)


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


def _goodness_of_word(word: Word, piece: Piece, log_posteriors: NDArray[np.floating]) -> float:
    """Root of the goodness of a word's own phones."""
    middle = 0.5 / FEATURE_RATE_HZ
    own = [
        phone
        for phone in piece.phones
        if word.start_seconds <= phone.start_seconds + middle
        and phone.end_seconds - middle <= word.end_seconds
    ]
    return float(np.sqrt(goodness_of_pronunciation(own, log_posteriors)))


@dataclass(slots=True)
class _Chain:
    """States of the words' phones in order; each phone has ``_MIN_FRAMES`` of them.

    Attributes:
        phones: Column of each state's phone in the scores.
        before: States from which each can be entered, besides the one that it repeats.
        costs: Log score of each of these entries.
        stays: Whether a state may follow itself.
        words: Words that are aligned.
        word_of: Number of each state's word; -1 in pauses.
        first_of: First state of the phone that each state is a part of.
        ends: States in which the chain may end.
    """

    phones: list[int] = field(default_factory=list)
    before: list[list[int]] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    stays: list[bool] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    word_of: list[int] = field(default_factory=list)
    first_of: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, symbols: Sequence[str], entries: Sequence[int], cost: float, word: int) -> int:
        """Appends phones that are entered from some states; returns the last state."""
        for symbol in symbols:
            first = len(self.phones)
            shortest = _MIN_PAUSE_FRAMES if symbol == SILENCE else _MIN_FRAMES
            for part in range(shortest):
                self.phones.append(PHONES.index(symbol))
                self.before.append(list(entries))
                self.costs.append(cost)
                self.stays.append(part == shortest - 1)
                self.word_of.append(word)
                self.first_of.append(first)
                entries, cost = [len(self.phones) - 1], 0.0
        return len(self.phones) - 1


_START: Final = -1
"""Stands for the time before the first frame among the states that a state is entered from."""


def _chain(words: Sequence[tuple[str, Sequence[tuple[str, ...]]]]) -> _Chain:
    """The chain of words with their pronunciations."""
    chain = _Chain()
    ends = [_START]
    for word, ways in words:
        pause = chain.add([SILENCE], ends, _PAUSE, -1)
        entries = [*ends, pause]
        ends = [chain.add(way, entries, 0.0, len(chain.words)) for way in ways]
        chain.words.append(word)
    chain.ends = [*ends, chain.add([SILENCE], ends, _PAUSE, -1)]
    return chain


def _scores(
    log_posteriors: NDArray[np.floating] | None, head: NDArray[np.floating] | None
) -> NDArray[np.float64]:
    """Log likelihood of each phone in each frame, up to a term that all share, ``(T, P)``."""
    given = [
        weight * values[:, 1:].astype(np.float64)
        for weight, values in ((_MODEL_WEIGHT, log_posteriors), (_HEAD_WEIGHT, head))
        if values is not None
    ]
    num_frames = min(map(len, given))
    total = sum((values[:num_frames] for values in given), np.zeros((num_frames, len(PHONES))))
    scaled = total - _PRIOR_SCALE * len(given) * np.log(_PRIORS)
    scaled[:, PHONES.index(SILENCE)] -= _SILENCE_COST * len(given)
    return np.maximum(scaled - scaled.max(axis=1, keepdims=True), _FLOOR * len(given))


def _best_path(chain: _Chain, scores: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """State of each frame on the best path; None where the sound is too short.

    States are in the order of the words, so those that are worth following lie in one range.
    """
    num_states, num_frames = len(chain.phones), len(scores)
    widest = max(map(len, chain.before)) + 1
    entries = np.full((num_states, widest), num_states, np.int64)  # num_states: never reached
    entry_costs = np.zeros((num_states, widest))
    for state, (before, cost) in enumerate(zip(chain.before, chain.costs, strict=True)):
        inside = [other for other in before if other != _START]
        entries[state, 0] = state if chain.stays[state] else num_states
        entries[state, 1 : 1 + len(inside)] = inside
        entry_costs[state, 1:] = cost
    columns = np.array(chain.phones)
    best = np.full(num_states + 1, -np.inf)
    for state, before in enumerate(chain.before):
        if _START in before:
            best[state] = scores[0, columns[state]] + chain.costs[state]
    choices: list[tuple[int, NDArray[np.int8]]] = []
    step = _longest_step(chain)
    for frame in range(1, num_frames):
        alive = np.flatnonzero(best[:-1] > best[:-1].max() - _BEAM)
        low = int(alive[0])
        high = min(num_states, int(alive[-1]) + step + 1)
        part = best[entries[low:high]] + entry_costs[low:high]
        chosen = part.argmax(axis=1)
        best = np.full(num_states + 1, -np.inf)
        best[low:high] = part[np.arange(high - low), chosen] + scores[frame, columns[low:high]]
        choices.append((low, chosen.astype(np.int8)))
    state = max(chain.ends, key=lambda end: best[end])
    if not np.isfinite(best[state]):
        return None
    path = np.empty(num_frames, np.int64)
    for frame in range(num_frames - 1, 0, -1):
        path[frame] = state
        low, chosen = choices[frame - 1]
        state = int(entries[state, chosen[state - low]])
    path[0] = state
    return path


def _longest_step(chain: _Chain) -> int:
    """States between one and the farthest that can follow it."""
    return max(
        state - other
        for state, before in enumerate(chain.before)
        for other in before
        if other != _START
    )


def _as_piece(chain: _Chain, path: NDArray[np.int64]) -> Piece:
    """Phones and words of a path."""
    first_of, word_of = np.array(chain.first_of)[path], np.array(chain.word_of)[path]
    edges = [0, *(np.flatnonzero(np.diff(first_of)) + 1).tolist(), len(path)]
    phones: list[Phone] = []
    spans: dict[int, tuple[int, int]] = {}
    for start, end in pairwise(edges):
        symbol = PHONES[chain.phones[first_of[start]]]
        phones.append(Phone(symbol, start / FEATURE_RATE_HZ, end / FEATURE_RATE_HZ))
        word = int(word_of[start])
        if word >= 0:
            spans[word] = (spans.get(word, (start, end))[0], end)
    spoken = [phone for phone in phones if phone.symbol != SILENCE]
    return Piece(
        phones=tuple(merge_silences(phones)),
        words=tuple(
            Word(chain.words[word], first / FEATURE_RATE_HZ, end / FEATURE_RATE_HZ)
            for word, (first, end) in spans.items()
        ),
        spoken_seconds=sum(phone.end_seconds - phone.start_seconds for phone in spoken),
    )
