# SPDX-License-Identifier: GPL-3.0-or-later
"""Transcripts of a part of the sound."""

from __future__ import annotations

import numpy as np
import pytest

from backend.speech.phones import Phone
from backend.speech.transcript import Piece, Transcript, Word, plausible_transcript


def test_a_stretch_keeps_what_is_spoken_in_it_on_its_own_clock():
    whole = Transcript(
        phones=(Phone("M", 0.0, 1.0), Phone("AA", 1.0, 2.0), Phone("P", 2.0, 3.0)),
        words=(Word("ma", 0.0, 2.0), Word("up", 2.0, 3.0)),
        warnings=("careful",),
        mode="words",
        gaps=((0, 100),),
    )
    part = whole.between(1.5, 2.75)
    assert part.phones == (Phone("AA", -0.5, 0.5), Phone("P", 0.5, 1.5))
    assert part.words == (Word("up", 0.5, 1.5),)
    assert (part.mode, part.warnings, part.gaps) == ("words", ("careful",), ())


def _transcript(certainties):
    words = tuple(
        Word(f"word{k}", 0.4 * k, 0.4 * k + 0.4, certainty)
        for k, certainty in enumerate(certainties)
    )
    phones = tuple(Phone("AA", word.start_seconds, word.end_seconds) for word in words)
    seconds = 0.4 * len(words)
    piece = Piece(phones, words, is_confirmed=True, spoken_seconds=seconds)
    sound = np.random.default_rng(0).normal(0, 3000, round(seconds * 16000)).astype(np.int16)
    return plausible_transcript(sound, [(0, len(sound))], [piece])


@pytest.mark.parametrize(
    ("certainties", "mode"),
    [
        ((0.9, 0.8, 0.95, 0.7), "words"),
        ((0.9, 0.2, 0.3, 0.4), "words"),  # one reader in noise: some words are not made out
        ((0.2, 0.4, 0.1, 0.3, 0.5, 0.1), "sound"),  # "perfavor in greece one and away"
        ((0.1, 0.2), "words"),  # too few to tell
        ((1.0, 1.0, 1.0), "words"),
    ],
)
def test_words_of_which_none_is_certain_are_those_of_another_language(certainties, mode):
    found = _transcript(certainties)
    assert found.mode == mode
    assert bool(found.words) == (mode == "words")
    assert ("another language" in " ".join(found.warnings)) == (mode == "sound")
    assert bool(found.gaps) == (mode == "sound")
