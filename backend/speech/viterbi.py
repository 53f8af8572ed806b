# SPDX-License-Identifier: GPL-3.0-or-later
"""Viterbi search for the likeliest phones without words; that for given words is elsewhere."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ
from backend.speech.phones import PHONES, Phone

_CHANGE = -1.4
"""Log score of each change of phone."""


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
