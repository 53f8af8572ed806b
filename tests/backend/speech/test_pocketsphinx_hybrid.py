# SPDX-License-Identifier: GPL-3.0-or-later
"""Words by PocketSphinx alone and by the hybrid, and which of them are kept."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from backend.audio.segmentation import prepare_sound
from backend.data.speech.synthesis import Voice, available_engines, speak
from backend.speech import moonshine_words
from backend.speech.phones import NUM_PHONE_IDS, PHONE_IDS, PHONES, phone_frames
from backend.speech.pocketsphinx import PocketSphinx
from backend.speech.pocketsphinx_hybrid import as_features
from backend.speech.recognition import SpeechRecogniser
from backend.speech.written_text import words_of
from tests.backend.speech.samples import BIG_BROWN_BEAR, SENTENCE, confident_in, no_speech

pytest.importorskip("pocketsphinx", reason="PocketSphinx is not installed")


@pytest.fixture(autouse=True)
def without_moonshine(monkeypatch):
    monkeypatch.setattr(moonshine_words, "is_installed", lambda: False)


@pytest.fixture(scope="module")
def engine():
    return PocketSphinx()


def test_the_hybrid_recognises_more_words_in_noise(spoken, posteriors_of, recogniser):
    said = set(words_of(SENTENCE))

    def num_recognised(sound, log_posteriors=None):
        words = recogniser.recognise(sound, log_posteriors).words
        return len(said & {word.text for word in words})

    assert num_recognised(spoken.samples, posteriors_of(spoken.samples)) >= 8
    level = np.sqrt(np.mean(spoken.samples**2))
    noise = 0.2 * level * np.random.default_rng(0).standard_normal(len(spoken.samples))
    noisy = (spoken.samples + noise).astype(np.float32)
    assert num_recognised(noisy, posteriors_of(noisy)) >= num_recognised(noisy) + 4


def test_pieces_in_parallel_give_the_same_with_posteriors(spoken, posteriors_of, recogniser):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 3)
    log_posteriors = posteriors_of(sound)
    parallel = SpeechRecogniser(2)
    try:
        transcript = parallel.recognise(sound, log_posteriors)
    finally:
        parallel.close()
    assert transcript == recogniser.recognise(sound, log_posteriors)


def test_phones_of_the_hybrid_are_when_they_are_spoken(spoken, posteriors_of, engine):
    found = engine.recognise_hybrid(posteriors_of(spoken.samples))
    assert found.is_confirmed
    assert all(one.end_seconds == other.start_seconds for one, other in pairwise(found.phones))
    assert found.phones[-1].end_seconds <= len(spoken.samples) / 16000 + 0.02
    truth = phone_frames(spoken.phones, 200, 50.0)
    found = phone_frames(found.phones, 200, 50.0)
    assert np.mean((found == truth)[truth > PHONE_IDS["SIL"]]) > 0.7


@pytest.mark.parametrize("kind", ["silence", "empty", "noise", "tones"])
def test_what_is_no_speech_gives_no_phones_with_posteriors(kind, posteriors_of, recogniser):
    sound = no_speech(kind)
    found = recogniser.recognise(sound, posteriors_of(sound) if len(sound) else None)
    assert (found.phones, found.mode) == ((), "sound")
    assert len(found.warnings) == 1


def test_another_language_is_not_taken_for_english_with_posteriors(posteriors_of, recogniser):
    if "espeak" not in available_engines():
        pytest.skip("espeak-ng is not installed")
    text = "Der große braune Bär bewegte mein Boot, aber niemand hat ihm gestern geglaubt."
    sound = speak(Voice("espeak", "de"), [text])[0].samples
    found = recogniser.recognise(sound, posteriors_of(sound))
    assert (found.phones, found.mode) == ((), "sound")
    assert "another language" in found.warnings[0]


def test_wrong_text_falls_back_to_recognised_words(spoken, posteriors_of, recogniser):
    found = recogniser.align(
        spoken.samples, "completely different things", posteriors_of(spoken.samples)
    )
    assert found.mode == "words"
    assert "does not fit" in found.warnings[0]
    assert found.words == recogniser.recognise(spoken.samples, posteriors_of(spoken.samples)).words


def test_the_hybrid_takes_over_where_the_posteriors_do_not_agree(spoken, engine):
    samples = prepare_sound(spoken.samples)
    alone = engine.recognise(samples)
    assert alone.words
    frames = phone_frames(alone.phones, len(samples) // 320, 50.0).clip(min=1)
    agrees = confident_in(frames)
    assert engine.recognise(samples, agrees) == replace(alone, is_confirmed=True)
    disagrees = np.roll(agrees, len(agrees) // 3, axis=0)
    assert engine.recognise(samples, disagrees) == engine.recognise_hybrid(disagrees) != alone


@pytest.mark.parametrize(("chance", "is_kept"), [(0.3, False), (0.5, True)])
def test_the_hybrid_takes_over_where_its_own_words_are_much_better(spoken, chance, is_kept, engine):
    samples = prepare_sound(spoken.samples)
    alone = engine.recognise(samples)
    ids_alone = phone_frames(alone.phones, len(samples) // 320, 50.0).clip(min=1)
    words_ids = [PHONE_IDS[symbol] for symbol in BIG_BROWN_BEAR]
    ids_hybrid = np.resize(np.repeat(words_ids, 5), len(ids_alone))
    log_posteriors = confident_in(ids_hybrid)
    posteriors = np.where(ids_alone == ids_hybrid, 0.92, chance)
    log_posteriors[np.arange(len(ids_hybrid)), ids_alone] = np.log(posteriors)
    expected = replace(alone, is_confirmed=True)
    if not is_kept:
        expected = engine.recognise_hybrid(log_posteriors)
    assert engine.recognise(samples, log_posteriors) == expected
    assert expected.is_confirmed


def test_words_are_recognised_in_clear_posteriors(engine):
    symbols = BIG_BROWN_BEAR
    frames = np.repeat([PHONE_IDS[symbol] for symbol in symbols], 5)
    log_posteriors = confident_in(frames)
    piece = engine.recognise_hybrid(log_posteriors)
    assert [word.text for word in piece.words] == ["the", "big", "brown", "bear"]
    assert [phone.symbol for phone in piece.phones] == symbols
    starts = [phone.start_seconds for phone in piece.phones]
    np.testing.assert_allclose(starts, 0.1 * np.arange(len(symbols)), atol=0.021)
    assert piece.is_confirmed
    nonsense = log_posteriors[:, np.random.default_rng(0).permutation(NUM_PHONE_IDS)]
    assert not engine.recognise_hybrid(nonsense).is_confirmed


def test_features_of_the_acoustic_model_by_hand():
    chances = np.full((1, NUM_PHONE_IDS), 1e-9)
    chances[0, [PHONE_IDS["SIL"], PHONE_IDS["M"]]] = 0.4, 0.2
    made = as_features(np.log(chances))
    assert made.shape == (1, len(PHONES))
    assert made[0, PHONES.index("M")] == 0.0  # likelier than silence, for how rare it is
    expected = np.log(0.4 / 0.2) - 0.6 * np.log(383.7 / 18.9)
    assert made[0, PHONES.index("SIL")] == pytest.approx(expected, abs=1e-4)
    assert made.min() == -12.0
