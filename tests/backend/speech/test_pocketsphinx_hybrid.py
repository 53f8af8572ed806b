# SPDX-License-Identifier: GPL-3.0-or-later
"""Words recognised by PocketSphinx alone and by the ear of a model, and when which is believed."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from backend.audio.segmentation import prepare_sound
from backend.data.speech.synthesis import Voice, available_engines, speak
from backend.speech import moonshine_words
from backend.speech.phones import NUM_PHONE_IDS, PHONE_IDS, PHONES, phone_frames
from backend.speech.pocketsphinx import recognise_words, recognise_words_hybrid
from backend.speech.pocketsphinx_hybrid import as_features
from backend.speech.recognition import SpeechRecogniser
from backend.speech.viterbi import phone_boundaries
from backend.speech.written_text import words_of
from tests.backend.speech.samples import BIG_BROWN_BEAR, SENTENCE, no_speech, sure_of

pytest.importorskip("pocketsphinx", reason="PocketSphinx is not installed")


@pytest.fixture(autouse=True)
def without_moonshine(monkeypatch):
    monkeypatch.setattr(moonshine_words, "is_installed", lambda: False)


def test_by_ear_more_is_understood(spoken, hear):
    said = set(words_of(SENTENCE))

    def understood(sound, log_posteriors=None):
        words = SpeechRecogniser(1).recognise(sound, log_posteriors).words
        return len(said & {word.text for word in words})

    assert understood(spoken.samples, hear(spoken.samples)) >= 8
    level = np.sqrt(np.mean(spoken.samples**2))
    gained = []
    for seed in range(4):
        noise = 0.2 * level * np.random.default_rng(seed).standard_normal(len(spoken.samples))
        noisy = (spoken.samples + noise).astype(np.float32)
        gained.append(understood(noisy, hear(noisy)) - understood(noisy))
    assert min(gained) >= 4
    assert np.mean(gained) >= 5.5


def test_pieces_in_parallel_are_heard_by_ear_as_in_one_process(spoken, hear):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 3)
    log_posteriors = hear(sound)
    listener = SpeechRecogniser(2)
    try:
        parallel = listener.recognise(sound, log_posteriors)
    finally:
        listener.close()
    assert parallel == SpeechRecogniser(1).recognise(sound, log_posteriors)


def test_phones_heard_by_ear_are_when_they_are_spoken(spoken, hear):
    heard = recognise_words_hybrid(hear(spoken.samples))
    assert heard.is_sure
    assert all(one.end_seconds == other.start_seconds for one, other in pairwise(heard.phones))
    assert heard.phones[-1].end_seconds <= len(spoken.samples) / 16000 + 0.02
    truth = phone_frames(spoken.phones, 200, 50.0)
    found = phone_frames(heard.phones, 200, 50.0)
    assert np.mean((found == truth)[truth > PHONE_IDS["SIL"]]) > 0.7


@pytest.mark.parametrize("kind", ["silence", "empty", "noise", "tones"])
def test_what_is_no_speech_gives_no_phones_by_ear(kind, hear):
    sound = no_speech(kind)
    heard = SpeechRecogniser(1).recognise(sound, hear(sound) if len(sound) else None)
    assert (heard.phones, heard.way) == ((), "sound")
    assert len(heard.warnings) == 1


def test_another_language_is_not_taken_for_english_by_ear(hear):
    if "espeak" not in available_engines():
        pytest.skip("espeak-ng is not installed")
    text = "Der große braune Bär bewegte mein Boot, aber niemand hat ihm gestern geglaubt."
    sound = speak(Voice("espeak", "de"), [text])[0].samples
    heard = SpeechRecogniser(1).recognise(sound, hear(sound))
    assert (heard.phones, heard.way) == ((), "sound")
    assert "another language" in heard.warnings[0]


def test_wrong_text_falls_back_to_what_the_ear_heard(spoken, hear):
    heard = SpeechRecogniser(1).align(
        spoken.samples, "completely different things", hear(spoken.samples)
    )
    assert heard.way == "words"
    assert "does not fit" in heard.warnings[0]
    assert heard.words == SpeechRecogniser(1).recognise(spoken.samples, hear(spoken.samples)).words


def test_the_ear_takes_over_where_it_does_not_agree(spoken):
    samples = prepare_sound(spoken.samples)
    alone = recognise_words(samples)
    assert alone.words
    frames = phone_frames(alone.phones, len(samples) // 320, 50.0).clip(min=1)
    agrees = sure_of(frames)
    assert recognise_words(samples, agrees) == replace(alone, is_sure=True)
    disagrees = np.roll(agrees, len(agrees) // 3, axis=0)
    assert recognise_words(samples, disagrees) == recognise_words_hybrid(disagrees) != alone


@pytest.mark.parametrize(("chance", "is_kept"), [(0.3, False), (0.5, True)])
def test_the_ear_takes_over_where_it_thinks_much_better_of_its_own_words(spoken, chance, is_kept):
    samples = prepare_sound(spoken.samples)
    alone = recognise_words(samples)
    by_itself = phone_frames(alone.phones, len(samples) // 320, 50.0).clip(min=1)
    own = np.resize(np.repeat([PHONE_IDS[symbol] for symbol in BIG_BROWN_BEAR], 5), len(by_itself))
    ear = sure_of(own)
    ear[np.arange(len(own)), by_itself] = np.log(np.where(by_itself == own, 0.92, chance))
    expected = replace(alone, is_sure=True) if is_kept else recognise_words_hybrid(ear)
    assert recognise_words(samples, ear) == expected
    assert expected.is_sure


def test_words_are_found_in_what_an_ear_is_sure_of():
    symbols = BIG_BROWN_BEAR
    frames = np.repeat([PHONE_IDS[symbol] for symbol in symbols], 5)
    ear = sure_of(frames)
    piece = recognise_words_hybrid(ear)
    assert [word.text for word in piece.words] == ["the", "big", "brown", "bear"]
    assert [phone.symbol for phone in piece.phones] == symbols
    starts = [phone.start_seconds for phone in piece.phones]
    np.testing.assert_allclose(starts, 0.1 * np.arange(len(symbols)), atol=0.021)
    assert piece.is_sure
    nonsense = ear[:, np.random.default_rng(0).permutation(NUM_PHONE_IDS)]
    assert not recognise_words_hybrid(nonsense).is_sure


def test_boundaries_of_phones_worked_by_hand():
    features = np.full((8, len(PHONES)), -9.0, np.float32)
    b, aa = PHONES.index("B"), PHONES.index("AA")
    features[np.arange(8), [b, b, b, aa, aa, b, b, b]] = 0.0
    assert phone_boundaries(["B", "AA", "B"], features).tolist() == [0, 3, 5, 8]
    assert phone_boundaries(["B", "AA"], features).tolist() == [0, 3, 8]
    assert phone_boundaries(["SIL"], features).tolist() == [0, 8]
    features[4, [b, aa]] = -1.0, -2.0  # AA is likelier for one frame, but lasts two
    assert phone_boundaries(["B", "AA", "B"], features).tolist() == [0, 3, 5, 8]
    assert phone_boundaries(["B", "AA", "B"], features[:3]).tolist() == [0, 1, 2, 3]


def test_features_of_the_acoustic_model_by_hand():
    chances = np.full((1, NUM_PHONE_IDS), 1e-9)
    chances[0, [PHONE_IDS["SIL"], PHONE_IDS["M"]]] = 0.4, 0.2
    made = as_features(np.log(chances))
    assert made.shape == (1, len(PHONES))
    assert made[0, PHONES.index("M")] == 0.0  # likelier than silence, for how rare it is
    expected = np.log(0.4 / 0.2) - 0.6 * np.log(383.7 / 18.9)
    assert made[0, PHONES.index("SIL")] == pytest.approx(expected, abs=1e-4)
    assert made.min() == -12.0
