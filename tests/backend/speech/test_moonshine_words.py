# SPDX-License-Identifier: GPL-3.0-or-later
"""Words by Moonshine: what it hears, when the ear agrees, and what happens without it."""

import logging
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from backend.audio import degradations
from backend.audio.segmentation import prepare_sound
from backend.data.speech.sentences import FOREIGN
from backend.data.speech.synthesis import Voice, available_engines, speak
from backend.errors import UserError
from backend.speech import moonshine_words, transcript
from backend.speech.phones import NUM_PHONE_IDS, PHONE_IDS, phone_frames
from backend.speech.pocketsphinx import align_words, place_words
from backend.speech.recognition import SpeechRecogniser
from backend.speech.written_text import words_of
from tests.backend.speech.samples import BIG_BROWN_BEAR, SENTENCE, sure_of

pytest.importorskip("pocketsphinx", reason="PocketSphinx is not installed")
needs_moonshine = pytest.mark.skipif(
    not moonshine_words.is_installed(),
    reason="moonshine-voice is not installed or does not run here",
)


@needs_moonshine
def test_nearly_every_word_is_heard_and_many_in_noise(spoken, hear):
    def share(sound):
        words = [word.text for word in SpeechRecogniser(1).recognise(sound, hear(sound)).words]
        return len(set(words_of(SENTENCE)) & set(words)) / len(set(words_of(SENTENCE)))

    assert share(spoken.samples) >= 0.9
    level = np.sqrt(np.mean(spoken.samples**2))
    shares = []
    for seed in range(4):
        noise = 0.2 * level * np.random.default_rng(seed).standard_normal(len(spoken.samples))
        shares.append(share((spoken.samples + noise).astype(np.float32)))
    assert np.mean(shares) >= 0.4


@needs_moonshine
def test_heard_words_are_timed_and_count_as_certain(spoken, hear):
    heard = SpeechRecogniser(1).recognise(spoken.samples, hear(spoken.samples))
    assert heard.way == "words"
    assert heard.is_certain
    truth = phone_frames(spoken.phones, 200, 50.0)
    found = phone_frames(heard.phones, 200, 50.0)
    assert np.mean((found == truth)[truth > PHONE_IDS["SIL"]]) > 0.7


@needs_moonshine
def test_long_sound_is_heard_as_in_one_process_with_progress(spoken, hear):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 3)
    progress: list[tuple[float, float]] = []
    listener = SpeechRecogniser(2)
    try:
        parallel = listener.recognise(
            sound, hear(sound), progress=lambda *told: progress.append(told)
        )
    finally:
        listener.close()
    assert parallel == SpeechRecogniser(1).recognise(sound, hear(sound))
    assert progress == sorted(progress)
    assert progress[-1][0] == pytest.approx(progress[-1][1])


@needs_moonshine
@pytest.mark.parametrize("language", ["de", "fr", "es", "it", "pl", "hi"])
def test_another_language_is_not_taken_for_english(language, hear):
    if "espeak" not in available_engines():
        pytest.skip("espeak-ng is not installed")
    parts = speak(Voice("espeak", language), list(FOREIGN[language])[:2])
    sound = np.concatenate([part.samples for part in parts])
    heard = SpeechRecogniser(1).recognise(sound, hear(sound))
    assert (heard.phones, heard.way) == ((), "sound")
    assert len(heard.warnings) == 1


@needs_moonshine
@pytest.mark.parametrize("kind", ["music", "laughter"])
def test_music_and_laughter_hold_no_words(kind, hear):
    sound = getattr(degradations, kind)(16000 * 6, np.random.default_rng(3))
    heard = SpeechRecogniser(1).recognise(sound.astype(np.float32), hear(sound.astype(np.float32)))
    assert (heard.phones, heard.way) == ((), "sound")


@needs_moonshine
def test_hardly_a_sound_is_transcribed_without_harm():
    assert isinstance(moonshine_words.transcribe(np.zeros(0, np.int16)), list)
    assert isinstance(moonshine_words.transcribe(np.full(1, 20000, np.int16)), list)
    assert isinstance(moonshine_words.transcribe(np.full(1600, -32768, np.int16)), list)


@needs_moonshine
def test_failure_of_moonshine_is_one_sentence(monkeypatch):
    from moonshine_voice import MoonshineError

    class Broken:
        def transcribe_without_streaming(self, *_):
            raise MoonshineError("out of order")

    monkeypatch.setattr(moonshine_words, "_moonshine", Broken)
    with pytest.raises(UserError, match=r"out of order.*listen to sound"):
        moonshine_words.transcribe(np.zeros(1600, np.int16))


def test_words_are_timed_by_what_an_ear_is_sure_of():
    symbols = BIG_BROWN_BEAR
    ear = sure_of(np.repeat([PHONE_IDS[symbol] for symbol in symbols], 5))
    silent = np.zeros(len(ear) * 320, np.int16)
    piece = place_words(silent, ["the", "big", "brown", "bear"], ear)
    assert piece.is_sure
    assert [phone.symbol for phone in piece.phones] == symbols
    starts = [phone.start_seconds for phone in piece.phones]
    np.testing.assert_allclose(starts, 0.1 * np.arange(len(symbols)), atol=0.021)
    nonsense = ear[:, np.random.default_rng(0).permutation(NUM_PHONE_IDS)]
    assert not place_words(silent, ["the", "big", "brown", "bear"], nonsense).is_sure
    assert not place_words(silent, words_of("entirely different things"), ear).is_sure
    assert place_words(silent, [], ear) == transcript.Piece()


@pytest.mark.parametrize(("shift", "keeps"), [(0, True), (5, False)])
def test_times_are_pocketsphinx_s_unless_the_ear_hears_them_elsewhere(spoken, shift, keeps):
    sound, words = prepare_sound(spoken.samples), words_of(SENTENCE)
    alone = align_words(sound, words)
    frames = phone_frames(alone.phones, len(sound) // 320, 50.0).clip(min=1)
    shifted = np.concatenate([np.full(shift, PHONE_IDS["SIL"]), frames[: len(frames) - shift]])
    piece = place_words(sound, words, sure_of(shifted))
    assert piece.is_sure
    m, other = (next(p.start_seconds for p in x.phones if p.symbol == "M") for x in (piece, alone))
    assert m - other == pytest.approx(0.0 if keeps else shift / 50, abs=0.03)
    assert (piece.score != 0.0) is keeps  # PocketSphinx scores, the ear does not


def test_given_text_is_timed_in_noise(spoken, hear):
    level = np.sqrt(np.mean(spoken.samples**2))
    noise = 0.5 * level * np.random.default_rng(0).standard_normal(len(spoken.samples))
    noisy = (spoken.samples + noise).astype(np.float32)
    heard = SpeechRecogniser(1).align(noisy, SENTENCE, hear(noisy))
    assert heard.way == "text"
    assert heard.is_certain
    truth, found = (
        [phone for phone in phones if phone.symbol in ("P", "B", "M")]
        for phones in (spoken.phones, heard.phones)
    )
    assert [phone.symbol for phone in found] == [phone.symbol for phone in truth]
    errors = [abs(a.start_seconds - b.start_seconds) for a, b in zip(truth, found, strict=True)]
    assert np.median(errors) < 0.05
    other = "Completely different things have happened since yesterday morning."
    assert SpeechRecogniser(1).align(noisy, other, hear(noisy)).way != "text"


def test_part_of_a_text_that_is_not_spoken_is_named(spoken, hear, monkeypatch):
    """The same sentence four times; the ear hears the last one as something else."""
    monkeypatch.setattr(moonshine_words, "is_installed", lambda: True)
    monkeypatch.setattr(moonshine_words, "transcribe", lambda _sound: words_of(SENTENCE))
    pause = np.zeros(7 * 16000, np.float32)  # so long that each sentence is a piece of its own
    sound = np.concatenate([spoken.samples, pause] * 4)
    ear = hear(sound).copy()
    last = 3 * len(ear) // 4
    ear[last:] = ear[last:, np.random.default_rng(0).permutation(NUM_PHONE_IDS)]
    heard = SpeechRecogniser(1).align(sound, " ".join([SENTENCE] * 4), ear)
    assert heard.way == "text"
    assert "A part of the text" in heard.warnings[0]
    assert len(heard.words) == 3 * len(words_of(SENTENCE))
    assert heard.phones[-1].end_seconds < 0.8 * len(sound) / 16000


def test_text_fits_also_where_no_words_are_heard(spoken, monkeypatch):
    monkeypatch.setattr(moonshine_words, "is_installed", lambda: True)
    monkeypatch.setattr(moonshine_words, "transcribe", lambda _sound: [])
    heard = SpeechRecogniser(1).align(spoken.samples, SENTENCE)
    assert heard.way == "text"
    assert [word.text for word in heard.words] == words_of(SENTENCE)


def test_unknown_words_are_pronounced_by_rule_and_named(spoken, hear):
    words = [word.replace("nobody", "noeboddy") for word in words_of(SENTENCE)]
    piece = place_words(prepare_sound(spoken.samples), words, hear(spoken.samples))
    assert piece.is_sure
    assert piece.guessed == ("noeboddy",)


@pytest.fixture
def fresh():
    moonshine_words._moonshine.cache_clear()
    yield
    moonshine_words._moonshine.cache_clear()


def test_without_its_package_pocketsphinx_hears(spoken, fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)
    assert not moonshine_words.is_installed()
    heard = SpeechRecogniser(1).recognise(spoken.samples)
    assert heard.words
    assert not heard.is_certain


def test_package_that_does_not_run_here_is_done_without(fresh, monkeypatch, caplog):
    class NoModelError(Exception):
        pass

    def no_model(*_, **__):
        raise NoModelError("needs a newer system")

    package = types.ModuleType("moonshine_voice")
    package.ModelArch = types.SimpleNamespace(TINY=0)
    package.MoonshineError = NoModelError
    package.get_model_path = Path
    inside = types.ModuleType("moonshine_voice.transcriber")
    inside.Transcriber = no_model
    monkeypatch.setitem(sys.modules, "moonshine_voice", package)
    monkeypatch.setitem(sys.modules, "moonshine_voice.transcriber", inside)
    with caplog.at_level(logging.WARNING):
        assert not moonshine_words.is_installed()
    assert "newer system" in caplog.text
