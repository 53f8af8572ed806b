# SPDX-License-Identifier: GPL-3.0-or-later
"""Viterbi search: alignment of given phones, and free phone decoding."""

import itertools

import numpy as np
import pytest

from backend.speech import viterbi
from backend.speech.phones import PHONES, Phone, phone_frames


def score_of(path, scores):
    """Sum of the path's scores and changes; minus infinity if a phone lasts one frame only."""
    runs = [list(run) for _, run in itertools.groupby(path)]
    if any(len(run) < 2 for run in runs):
        return -np.inf
    changes = viterbi._CHANGE * (len(runs) - 1)
    return sum(scores[t, phone] for t, phone in enumerate(path)) + changes


@pytest.mark.parametrize("seed", range(8))
def test_the_path_is_the_best_of_all(seed):
    scores = np.full((7, len(PHONES)), -100.0)
    scores[:, :3] = np.random.default_rng(seed).normal(0.0, 2.0, (7, 3))
    best = max(itertools.product(range(3), repeat=7), key=lambda path: score_of(path, scores))
    ids = phone_frames(viterbi.most_likely_phones(scores), 7, 50.0)
    assert tuple(ids - 1) == best


def test_phones_follow_one_another_without_gaps():
    scores = np.random.default_rng(3).normal(0.0, 3.0, (200, len(PHONES)))
    phones = viterbi.most_likely_phones(scores)
    assert phones[0].start_seconds == 0.0
    assert phones[-1].end_seconds == 4.0
    for one, other in itertools.pairwise(phones):
        assert one.end_seconds == other.start_seconds
        assert one.symbol != other.symbol
    assert all(phone.end_seconds - phone.start_seconds > 0.039 for phone in phones)


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_short_stretches_have_one_phone(num_frames):
    scores = np.zeros((num_frames, len(PHONES)))
    scores[:, PHONES.index("M")] = 5.0
    phones = viterbi.most_likely_phones(scores)
    assert phones == [Phone("M", 0.0, num_frames / 50)]
