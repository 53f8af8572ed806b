# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones without words, by Moonshine's encoder and the model's: recognised, and as model input."""

import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch")
from backend import bundled
from backend.audio.load import read_sound
from backend.audio.segmentation import prepare_sound
from backend.data.speech.sentences import FOREIGN
from backend.data.speech.synthesis import Voice, available_engines, speak
from backend.errors import Cancelled, UserError
from backend.heads.arkit import CLOSED_MM
from backend.heads.lip_measures import measured_demo_head
from backend.inference.predictor import open_predictor
from backend.speech import moonshine_encoder, moonshine_phones
from backend.speech.moonshine_phones import empty_transcript, fill_gaps, recognise_phones
from backend.speech.phones import NUM_PHONE_IDS, PHONE_IDS, SILENCE, Phone, phone_frames
from backend.speech.transcript import Transcript

needs_encoder = pytest.mark.skipif(
    not moonshine_phones.can_recognise(), reason="moonshine-voice or onnxruntime is not installed"
)


def filled(sound, transcript, log_posteriors=None):
    return fill_gaps(sound, transcript, log_posteriors, lambda *_: None, lambda: False)


def share_right(phones, truth, num_frames):
    wanted = phone_frames(truth, num_frames, 50.0)
    found = phone_frames(phones, num_frames, 50.0)
    return float(np.mean((found == wanted)[wanted > PHONE_IDS[SILENCE]]))


# ---- times of the encoder's vectors


def test_vectors_are_put_at_the_middle_of_their_receptive_fields():
    centres = 895 / 2 + 384 * np.arange(40)  # of the receptive fields, in samples
    on_clock = moonshine_encoder.on_clock(centres[:, None].astype(np.float32), 15000)
    assert on_clock.shape == (47, 1)  # 46.9 frames of 320 samples
    middles = 160 + 320 * np.arange(47)
    np.testing.assert_allclose(on_clock[2:45, 0], middles[2:45], rtol=1e-5)
    np.testing.assert_allclose(on_clock[0, 0], centres[0])  # before the first: as the first


@needs_encoder
@pytest.mark.parametrize("num_samples", [1, 894, 895, 16000, 16001])
def test_any_sound_has_a_vector_for_each_frame_begun(num_samples):
    vectors = moonshine_encoder.vectors(np.full(num_samples, 3000, np.int16))
    features = moonshine_encoder.on_clock(vectors, num_samples)
    assert features.shape == (-(-num_samples // 320), moonshine_encoder.WIDTH)
    assert np.isfinite(features).all()


@needs_encoder
def test_phones_of_delayed_speech_are_delayed(spoken):
    sound = spoken.samples.astype(np.float32)
    late = np.concatenate([np.zeros(16000, np.float32), sound])
    ahead = recognise_phones(prepare_sound(sound))
    behind = recognise_phones(prepare_sound(late))
    moved = [Phone(one.symbol, one.start_seconds + 1, one.end_seconds + 1) for one in ahead]
    assert share_right(behind, moved, len(late) // 320) > 0.8


# ---- phones in the gaps of a transcript


def test_silent_sound_has_no_gap_to_fill():
    assert empty_transcript(np.zeros(16000, np.float32)).gaps == ()


@needs_encoder
def test_phones_are_recognised_in_the_gaps_only(spoken):
    sound = spoken.samples.astype(np.float32)
    half = len(sound) // 640 * 320
    transcript = Transcript((Phone("M", 0.0, 0.1),), (), (), "words", gaps=((half, len(sound)),))
    found = filled(sound, transcript)
    assert found.source == "recognised"  # as the words are
    assert filled(sound, replace(transcript, source="given")).source == "given"
    assert filled(sound, empty_transcript(sound)).source == "given"
    assert found.phones[:1] == transcript.phones
    assert found.phones[1].start_seconds == half / 16000
    assert found.phones[-1].end_seconds == pytest.approx(len(sound) / 16000, abs=0.02)
    truth = [phone for phone in spoken.phones if phone.start_seconds >= half / 16000]
    assert share_right(found.phones, truth, len(sound) // 320) > 0.7


@needs_encoder
def test_long_sound_is_recognised_in_pieces_with_progress(spoken):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 4).astype(np.float32)
    seconds: list[float] = []
    transcript = empty_transcript(sound)
    assert len(transcript.gaps) > 1
    phones = fill_gaps(
        sound, transcript, None, lambda done, *_: seconds.append(done), lambda: False
    ).phones
    assert seconds == sorted(seconds)
    assert seconds[-1] == len(sound) / 16000
    length = (len(spoken.samples) + 16000) / 16000
    for turn in range(4):
        truth = [
            Phone(one.symbol, one.start_seconds + turn * length, one.end_seconds + turn * length)
            for one in spoken.phones
        ]
        assert share_right(phones, truth, len(sound) // 320) > 0.7


@needs_encoder
def test_cancel_is_noticed(spoken):
    sound = spoken.samples.astype(np.float32)
    with pytest.raises(Cancelled):
        fill_gaps(sound, empty_transcript(sound), None, lambda *_: None, lambda: True)


@needs_encoder
def test_posteriors_of_the_model_are_added_to_those_of_the_head(spoken, monkeypatch):
    monkeypatch.setattr(  # impartial posteriors agree with nothing
        moonshine_phones, "spoken_frames", lambda _, head, __: np.ones(len(head), bool)
    )
    sound = prepare_sound(spoken.samples)
    alone = recognise_phones(sound)
    frames = len(sound) // 320
    impartial = np.full((frames, NUM_PHONE_IDS), -np.log(NUM_PHONE_IDS))
    assert recognise_phones(sound, impartial) == alone
    for_m = impartial.copy()
    for_m[: frames // 2, PHONE_IDS["M"]] += 100.0
    together = phone_frames(recognise_phones(sound, for_m), frames, 50.0)
    assert (together[: frames // 2] == PHONE_IDS["M"]).all()
    rest = frames // 2 + 5  # a phone at the border may begin later
    assert (together[rest:] == phone_frames(alone, frames, 50.0)[rest:]).mean() > 0.95


@needs_encoder
@pytest.mark.parametrize("level", [0.0005, 0.1])
def test_noise_without_speech_is_recognised_as_silence(level, posteriors_of):
    sound = np.random.default_rng(1).normal(0.0, level, 48000)
    sound = sound.astype(np.float32)
    phones = filled(sound, empty_transcript(sound), posteriors_of(sound)).phones
    silent = sum(one.end_seconds - one.start_seconds for one in phones if one.symbol == SILENCE)
    assert silent > 2.7


@needs_encoder
@pytest.mark.parametrize("language", ["de", "es"])
def test_speech_of_other_languages_has_phones_but_no_words(language, posteriors_of, recogniser):
    if "espeak" not in available_engines():
        pytest.skip("espeak-ng is not installed")
    parts = speak(Voice("espeak", language), list(FOREIGN[language])[:2])
    sound = np.concatenate([part.samples for part in parts]).astype(np.float32)
    log_posteriors = posteriors_of(sound)
    transcript = recogniser.recognise(sound, log_posteriors)
    assert (transcript.mode, transcript.phones) == ("sound", ())
    found = filled(sound, transcript, log_posteriors)
    truth, start = [], 0.0
    for part in parts:
        truth += [
            Phone(one.symbol, one.start_seconds + start, one.end_seconds + start)
            for one in part.phones
        ]
        start += len(part.samples) / 16000
    assert share_right(found.phones, truth, len(sound) // 320) > 0.6


# ---- from sound to the lips


@pytest.fixture(scope="module")
def predictor():
    predictor = open_predictor(bundled.BASE_CHECKPOINT, "onnx")
    yield predictor
    predictor.close()


def opening_of(predictor, sound, mouth):
    motion = predictor.predict(
        sound, 16000, mouth.head, fps=Fraction(50), num_frames=len(sound) // 320, listen="sound",
        progress=lambda *_: None, warn=lambda _: None, is_cancelled=lambda: False,
    )  # fmt: skip
    assert motion.report["listen"] == "sound"
    return mouth.opening_mm(motion.layers.speech)


def looped(samples, start, period, seconds):
    """Sound in which a vowel is held: four periods of it, faded into each other."""
    part = samples[start : start + 4 * period]
    held, fade = part.copy(), np.linspace(0.0, 1.0, period, dtype=np.float32)
    while len(held) < seconds * 16000:
        held[-period:] = held[-period:] * (1.0 - fade) + part[:period] * fade
        held = np.concatenate([held, part[period:]])
    return np.concatenate([samples[:start], held, samples[start:]])


@needs_encoder
def test_a_held_vowel_of_the_demo_voice_stays_open_to_its_end(predictor):
    mouth = measured_demo_head()
    samples = read_sound(bundled.DEMO_HEAD.with_name("speech.ogg")).samples
    start = round(4.82 * 16000)
    held = looped(samples, start, period=93, seconds=2.5)
    opening = opening_of(predictor, held, mouth)
    assert opening[round(4.9 * 50) : round(7.2 * 50)].min() > 4.0
    pause = round((9.05 - 2.5) * 50) + 125
    assert opening[pause - 2 : pause + 2].max() < 1.5


@needs_encoder
def test_in_mode_sound_a_model_follows_recognised_phones(spoken, predictor, monkeypatch):
    mouth = measured_demo_head()
    sound = spoken.samples.astype(np.float32)
    with_phones = opening_of(predictor, sound, mouth)
    monkeypatch.setattr(moonshine_phones, "can_recognise", lambda: False)
    alone = opening_of(predictor, sound, mouth)
    assert np.abs(with_phones - alone).max() > 0.5
    monkeypatch.undo()
    monkeypatch.setattr(
        moonshine_phones, "recognise_phones", lambda part, _: [Phone("M", 0.0, len(part) / 16000)]
    )
    shut = opening_of(predictor, sound, mouth)  # an M of 4 s
    assert shut.mean() < 0.75 * alone.mean()  # the sound itself says something else


@needs_encoder
def test_in_mode_sound_the_mouth_rests_in_noise(predictor):
    noise = np.random.default_rng(2).normal(0.0, 0.1, 32000).astype(np.float32)
    assert np.abs(opening_of(predictor, noise, measured_demo_head())[10:-10]).max() < CLOSED_MM


# ---- where it is not installed


@pytest.fixture
def fresh():
    moonshine_encoder._session.cache_clear()
    yield
    moonshine_encoder._session.cache_clear()


@pytest.mark.parametrize("missing", ["onnxruntime", "files"])
def test_without_the_encoder_gaps_stay_empty(missing, fresh, monkeypatch):
    if missing == "files":
        monkeypatch.setattr(bundled, "moonshine_folder", lambda: None)
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    assert not moonshine_phones.can_recognise()
    sound = np.random.default_rng(0).normal(0.0, 0.1, 32000).astype(np.float32)
    transcript = empty_transcript(sound, "No words.")
    assert filled(sound, transcript) == transcript
    with pytest.raises(UserError, match="requirements-words"):
        moonshine_encoder.vectors(np.zeros(16000, np.int16))
