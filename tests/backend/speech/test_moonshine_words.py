# SPDX-License-Identifier: GPL-3.0-or-later
"""Words by Moonshine: recognition, confirmation by phone posteriors, and work without Moonshine."""

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
from backend.speech import moonshine_words
from backend.speech.phones import NUM_PHONE_IDS, PHONE_IDS, phone_frames
from backend.speech.pocketsphinx import PocketSphinx
from backend.speech.recognition import SpeechRecogniser
from backend.speech.transcript import Piece
from backend.speech.written_text import words_of
from tests.backend.speech.samples import BIG_BROWN_BEAR, SENTENCE, confident_in

pytest.importorskip("pocketsphinx", reason="PocketSphinx is not installed")
needs_moonshine = pytest.mark.skipif(
    not moonshine_words.is_installed(),
    reason="moonshine-voice is not installed or does not run here",
)


@pytest.fixture(scope="module")
def engine():
    return PocketSphinx()


@needs_moonshine
def test_nearly_every_word_is_recognised_and_many_in_noise(spoken, posteriors_of, recogniser):
    def share(sound):
        words = [word.text for word in recogniser.recognise(sound, posteriors_of(sound)).words]
        return len(set(words_of(SENTENCE)) & set(words)) / len(set(words_of(SENTENCE)))

    assert share(spoken.samples) >= 0.9
    level = np.sqrt(np.mean(spoken.samples**2))
    shares = []
    for seed in range(4):
        noise = 0.2 * level * np.random.default_rng(seed).standard_normal(len(spoken.samples))
        shares.append(share((spoken.samples + noise).astype(np.float32)))
    assert np.mean(shares) >= 0.4


@needs_moonshine
def test_recognised_words_are_timed_and_trusted_like_given_ones(spoken, posteriors_of, recogniser):
    transcript = recogniser.recognise(spoken.samples, posteriors_of(spoken.samples))
    assert transcript.mode == "words"
    assert transcript.source == "given"
    truth = phone_frames(spoken.phones, 200, 50.0)
    found = phone_frames(transcript.phones, 200, 50.0)
    assert np.mean((found == truth)[truth > PHONE_IDS["SIL"]]) > 0.7


@needs_moonshine
def test_long_sound_is_recognised_as_in_one_process_with_progress(
    spoken, posteriors_of, recogniser
):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 3)
    progress: list[tuple[float, float]] = []
    parallel = SpeechRecogniser(2)
    try:
        transcript = parallel.recognise(
            sound, posteriors_of(sound), progress=lambda *report: progress.append(report)
        )
    finally:
        parallel.close()
    assert transcript == recogniser.recognise(sound, posteriors_of(sound))
    assert progress == sorted(progress)
    assert progress[-1][0] == pytest.approx(progress[-1][1])


@needs_moonshine
@pytest.mark.parametrize("language", ["de", "fr", "es", "it", "pl", "hi"])
def test_another_language_is_not_taken_for_english(language, posteriors_of, recogniser):
    if "espeak" not in available_engines():
        pytest.skip("espeak-ng is not installed")
    parts = speak(Voice("espeak", language), list(FOREIGN[language])[:2])
    sound = np.concatenate([part.samples for part in parts])
    transcript = recogniser.recognise(sound, posteriors_of(sound))
    assert (transcript.phones, transcript.mode) == ((), "sound")
    assert len(transcript.warnings) == 1


@needs_moonshine
@pytest.mark.parametrize("kind", ["music", "laughter"])
def test_music_and_laughter_hold_no_words(kind, posteriors_of, recogniser):
    sound = getattr(degradations, kind)(16000 * 6, np.random.default_rng(3))
    transcript = recogniser.recognise(
        sound.astype(np.float32), posteriors_of(sound.astype(np.float32))
    )
    assert (transcript.phones, transcript.mode) == ((), "sound")


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
    with pytest.raises(UserError, match=r"out of order.*Sound Only"):
        moonshine_words.transcribe(np.zeros(1600, np.int16))


def test_words_are_timed_and_confirmed_by_clear_posteriors(engine):
    symbols = BIG_BROWN_BEAR
    log_posteriors = confident_in(np.repeat([PHONE_IDS[symbol] for symbol in symbols], 5))
    silent = np.zeros(len(log_posteriors) * 320, np.int16)
    piece = engine.align(silent, ["the", "big", "brown", "bear"], log_posteriors)
    assert piece.is_confirmed
    assert [phone.symbol for phone in piece.phones] == symbols
    starts = [phone.start_seconds for phone in piece.phones]
    np.testing.assert_allclose(starts, 0.1 * np.arange(len(symbols)), atol=0.021)
    nonsense = log_posteriors[:, np.random.default_rng(0).permutation(NUM_PHONE_IDS)]
    assert not engine.align(silent, ["the", "big", "brown", "bear"], nonsense).is_confirmed
    assert not engine.align(
        silent, words_of("entirely different things"), log_posteriors
    ).is_confirmed
    assert engine.align(silent, [], log_posteriors) == Piece()


@pytest.mark.parametrize(("shift", "keeps"), [(0, True), (5, False)])
def test_times_are_pocketsphinx_s_unless_posteriors_lie_elsewhere(spoken, shift, keeps, engine):
    sound, words = prepare_sound(spoken.samples), words_of(SENTENCE)
    alone = engine.align(sound, words)
    frames = phone_frames(alone.phones, len(sound) // 320, 50.0).clip(min=1)
    shifted = np.concatenate([np.full(shift, PHONE_IDS["SIL"]), frames[: len(frames) - shift]])
    piece = engine.align(sound, words, confident_in(shifted))
    assert piece.is_confirmed
    m, other = (next(p.start_seconds for p in x.phones if p.symbol == "M") for x in (piece, alone))
    assert m - other == pytest.approx(0.0 if keeps else shift / 50, abs=0.03)
    assert (piece.score != 0.0) is keeps  # PocketSphinx scores, the hybrid does not


def test_given_text_is_timed_in_noise(spoken, posteriors_of, recogniser):
    level = np.sqrt(np.mean(spoken.samples**2))
    noise = 0.5 * level * np.random.default_rng(0).standard_normal(len(spoken.samples))
    noisy = (spoken.samples + noise).astype(np.float32)
    transcript = recogniser.align(noisy, SENTENCE, posteriors_of(noisy))
    assert transcript.mode == "text"
    assert transcript.source == "given"
    truth, found = (
        [phone for phone in phones if phone.symbol in ("P", "B", "M")]
        for phones in (spoken.phones, transcript.phones)
    )
    assert [phone.symbol for phone in found] == [phone.symbol for phone in truth]
    errors = [abs(a.start_seconds - b.start_seconds) for a, b in zip(truth, found, strict=True)]
    assert np.median(errors) < 0.05
    other = "Completely different things have happened since yesterday morning."
    assert recogniser.align(noisy, other, posteriors_of(noisy)).mode != "text"


def test_part_of_a_text_that_is_not_spoken_is_named(spoken, posteriors_of, monkeypatch, recogniser):
    """The same sentence four times; the posteriors of the last one are of something else."""
    monkeypatch.setattr(moonshine_words, "is_installed", lambda: True)
    monkeypatch.setattr(moonshine_words, "transcribe", lambda _sound: words_of(SENTENCE))
    pause = np.zeros(7 * 16000, np.float32)  # so long that each sentence is a piece of its own
    sound = np.concatenate([spoken.samples, pause] * 4)
    log_posteriors = posteriors_of(sound).copy()
    last = 3 * len(log_posteriors) // 4
    log_posteriors[last:] = log_posteriors[
        last:, np.random.default_rng(0).permutation(NUM_PHONE_IDS)
    ]
    transcript = recogniser.align(sound, " ".join([SENTENCE] * 4), log_posteriors)
    assert transcript.mode == "text"
    assert "A part of the text" in transcript.warnings[0]
    assert len(transcript.words) == 3 * len(words_of(SENTENCE))
    assert transcript.phones[-1].end_seconds < 0.8 * len(sound) / 16000


def test_text_fits_also_where_no_words_are_recognised(spoken, monkeypatch, recogniser):
    monkeypatch.setattr(moonshine_words, "is_installed", lambda: True)
    monkeypatch.setattr(moonshine_words, "transcribe", lambda _sound: [])
    transcript = recogniser.align(spoken.samples, SENTENCE)
    assert transcript.mode == "text"
    assert [word.text for word in transcript.words] == words_of(SENTENCE)


def test_unknown_words_are_pronounced_by_rule_and_named(spoken, posteriors_of, engine):
    words = [word.replace("nobody", "noeboddy") for word in words_of(SENTENCE)]
    piece = engine.align(prepare_sound(spoken.samples), words, posteriors_of(spoken.samples))
    assert piece.is_confirmed
    assert piece.guessed == ("noeboddy",)


@pytest.fixture
def fresh():
    moonshine_words._moonshine.cache_clear()
    yield
    moonshine_words._moonshine.cache_clear()


def test_without_its_package_pocketsphinx_recognises_words(spoken, fresh, monkeypatch, recogniser):
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)
    assert not moonshine_words.is_installed()
    transcript = recogniser.recognise(spoken.samples)
    assert transcript.words
    assert transcript.source == "recognised"


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
