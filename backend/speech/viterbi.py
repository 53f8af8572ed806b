# SPDX-License-Identifier: GPL-3.0-or-later
"""Viterbi search over phone scores per frame: alignment of given phones, and free decoding."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ
from backend.speech.phones import PHONES, Phone

_MIN_FRAMES = 2
"""Shortest duration of a phone; the three states of ``pocketsphinx_hybrid`` allow it too."""
_CHANGE = -1.4
"""Log score of each change of phone in free decoding."""


def phone_boundaries(symbols: Sequence[str], features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Aligns the phones of a word with its frames; PocketSphinx's own aligner fails on some words.

    Args:
        symbols: The word's ``N`` phones in order.
        features: Log likelihoods in the word's frames, by ``pocketsphinx_hybrid.as_features``,
            shape ``(T, len(PHONES))``.

    Returns:
        First frame of each phone, then ``T``, shape ``(N + 1,)``. In too few frames for the
        shortest durations, all phones last equally long.
    """
    num_frames, num_states = len(features), _MIN_FRAMES * len(symbols)
    if num_frames <= num_states:
        return np.linspace(0, num_frames, len(symbols) + 1).round().astype(np.int64)
    columns = np.repeat([PHONES.index(symbol) for symbol in symbols], _MIN_FRAMES)
    may_stay = np.arange(num_states) % _MIN_FRAMES == _MIN_FRAMES - 1
    best = np.full((num_frames, num_states), -np.inf)
    best[0, 0] = features[0, columns[0]]
    for frame in range(1, num_frames):
        best[frame, may_stay] = best[frame - 1, may_stay]
        np.maximum(best[frame, 1:], best[frame - 1, :-1], out=best[frame, 1:])
        best[frame] += features[frame, columns]
    starts = [0] * num_states
    state = num_states - 1
    for frame in range(num_frames - 1, 0, -1):
        stays = best[frame - 1, state] if may_stay[state] else -np.inf
        if state > 0 and best[frame - 1, state - 1] > stays:
            starts[state] = frame
            state -= 1
    return np.array([*starts[::_MIN_FRAMES], num_frames])


def most_likely_phones(scores: NDArray[np.floating]) -> list[Phone]:
    """Phone sequence of the highest score, in which every phone lasts two frames or more.

    Args:
        scores: Log score of each phone in each frame, shape ``(T, len(PHONES))``.

    Returns:
        Phones without gaps between them, silences included.
    """
    num_frames, num_phones = scores.shape
    first = np.asarray(scores[0], np.float64)  # best path to each phone's first frame, ending there
    later = np.full(num_phones, -np.inf)  # and to a frame after its first
    previous = np.zeros(num_frames, np.int64)  # the phone before one that begins in this frame
    was_first = np.zeros((num_frames, num_phones), bool)
    for frame in range(1, num_frames):
        previous[frame] = int(later.argmax())
        begins = later[previous[frame]] + _CHANGE
        was_first[frame] = first > later
        later = np.maximum(first, later) + scores[frame]
        first = begins + scores[frame]
    spoken = np.empty(num_frames, np.int64)
    phone, is_first = int(later.argmax() if num_frames > 1 else first.argmax()), num_frames == 1
    for frame in range(num_frames - 1, -1, -1):
        spoken[frame] = phone
        if is_first:
            phone, is_first = int(previous[frame]), False
        else:
            is_first = bool(was_first[frame, phone])
    edges = [0, *(np.flatnonzero(np.diff(spoken)) + 1).tolist(), num_frames]
    return [
        Phone(PHONES[spoken[start]], start / FEATURE_RATE_HZ, end / FEATURE_RATE_HZ)
        for start, end in pairwise(edges)
    ]
