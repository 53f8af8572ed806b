# SPDX-License-Identifier: GPL-3.0-or-later
"""Words by Moonshine: recognition, confirmation by phone posteriors, and what is without it."""

import logging
import sys

import numpy as np
import pytest

from backend import bundled
from backend.audio import degradations
from backend.audio.segmentation import prepare_sound
from backend.data.speech.sentences import FOREIGN
from backend.data.speech.synthesis import Voice, available_engines, speak
from backend.errors import UserError
from backend.speech import moonshine_encoder, moonshine_words, recognition
from backend.speech.phones import NUM_PHONE_IDS, PHONE_IDS, phone_frames
from backend.speech.speech_presence import NOBODY
from backend.speech.transcript import Piece, Word, doubtful_words, join_pieces
from backend.speech.written_text import words_of
from tests.backend.speech.samples import SENTENCE

needs_moonshine = pytest.mark.skipif(
    not moonshine_words.is_installed(),
    reason="Moonshine is not there or does not run here",
)


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
    assert (transcript.words, transcript.mode) == ((), "sound")
    assert (transcript.warnings == (NOBODY,)) == (kind == "music")


@needs_moonshine
def test_hardly_a_sound_is_transcribed_without_harm():
    assert isinstance(moonshine_words.transcribe(np.zeros(0, np.int16)), list)
    assert isinstance(moonshine_words.transcribe(np.full(1, 20000, np.int16)), list)
    assert isinstance(moonshine_words.transcribe(np.full(1600, -32768, np.int16)), list)


@needs_moonshine
def test_a_repeated_token_ends(monkeypatch):
    """A decoder that never says the end is stopped after so many tokens a second."""
    decoder, tokens = moonshine_words._decoder()

    class Stuttering:
        outputs = decoder.outputs
        calls = 0

        def run(self, outputs, feeds):
            self.calls += 1
            made = decoder.run(outputs, feeds)
            made[0] = np.zeros_like(made[0])
            made[0][..., 300] = 1.0
            return made

    stuttering = Stuttering()
    monkeypatch.setattr(moonshine_words, "_decoder", lambda: (stuttering, tokens))
    moonshine_words.transcribe(np.full(32000, 300, np.int16))
    assert stuttering.calls == 13


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
    words = words_of(SENTENCE)
    reading = moonshine_words.Reading(words, [1.0] * len(words))
    monkeypatch.setattr(moonshine_words, "read_vectors", lambda *_: reading)
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
    nothing = moonshine_words.Reading([], [])
    monkeypatch.setattr(moonshine_words, "read_vectors", lambda *_: nothing)
    transcript = recogniser.align(spoken.samples, SENTENCE)
    assert transcript.mode == "text"
    assert [word.text for word in transcript.words] == words_of(SENTENCE)


@needs_moonshine
def test_words_do_not_depend_on_the_silence_before_them(spoken):
    readings = {
        tuple(
            moonshine_words.transcribe(
                prepare_sound(np.pad(spoken.samples.astype(np.float32), (lead, 0)))
            )
        )
        for lead in (0, 1600, 3333, 8000, 16000)
    }
    assert len(readings) == 1


def test_a_word_is_as_certain_as_its_least_likely_token():
    tokens = [b"", b"", b"", " hel".replace(" ", "\u2581").encode(), b"lo", "\u2581you".encode()]
    found = moonshine_words._reading(tokens, [3, 4, 5, 2], [0.9, 0.4, 0.8, 1.0])
    assert found == moonshine_words.Reading(["hello", "you"], [0.4, 0.8])


def test_doubtful_words_are_named():
    words = (Word("sure", 0.0, 0.5, 0.9), Word("foolish", 0.5, 1.0, 0.1), Word("given", 1.0, 1.5))
    piece = Piece((), words, True, 1.5)
    found = join_pieces([(0, 24000)], [piece], [True], "words")
    assert doubtful_words(found) == ["foolish"]
    assert [text for text in found.warnings if "Not sure of these words: foolish." in text]


@pytest.fixture
def fresh():
    def forget():
        moonshine_words._decoder.cache_clear()
        moonshine_encoder._session.cache_clear()

    forget()
    yield
    forget()


def test_without_its_files_nothing_is_recognised_and_the_remedy_named(spoken, fresh, monkeypatch):
    monkeypatch.setattr(bundled, "moonshine_folder", lambda: None)
    assert not moonshine_words.is_installed()
    with pytest.raises(UserError, match="install PTalker's zip again"):
        recognition.recognise(spoken.samples)


def test_files_that_do_not_run_here_are_done_without(fresh, monkeypatch, caplog, tmp_path):
    for name in ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"):
        (tmp_path / name).write_bytes(b"no model")
    monkeypatch.setattr(bundled, "moonshine_folder", lambda: tmp_path)
    with caplog.at_level(logging.WARNING):
        assert not moonshine_words.is_installed()
    assert "does not run here" in caplog.text


@needs_moonshine
def test_files_are_found_in_the_backend_first_and_the_package_is_not_imported(
    monkeypatch, tmp_path
):
    sys.modules.pop("moonshine_voice", None)
    assert bundled._data_folder(tmp_path, "moonshine_voice", "assets/tiny-en") == tmp_path
    bundled._data_folder(tmp_path / "none", "moonshine_voice", "assets/tiny-en")
    assert bundled._data_folder(tmp_path / "none", "no_such_package", "x") is None
    assert "moonshine_voice" not in sys.modules


def test_tokens_may_be_long(tmp_path):
    tokens = [b"a", b"", b"x" * 127, b"y" * 128, b"z" * 300]
    lengths = [b"\x01", b"\x00", b"\x7f", b"\x80\x01", bytes([128 + 300 % 128, 300 // 128])]
    path = tmp_path / "tokens"
    path.write_bytes(b"".join(a + b for a, b in zip(lengths, tokens, strict=True)))
    assert moonshine_words._read_tokens(path) == tokens
