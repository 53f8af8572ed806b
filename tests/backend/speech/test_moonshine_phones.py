# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones of sound alone, by Moonshine's encoder and the own ear: what is heard, and without it."""

import itertools
import logging
import sys
import types
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from backend import bundled
from backend.audio.segmentation import prepare_sound
from backend.data.speech.sentences import FOREIGN
from backend.data.speech.synthesis import Voice, available_engines, speak
from backend.errors import Cancelled, UserError
from backend.heads.arkit import CLOSED_MM
from backend.heads.lip_measures import measured_demo_head
from backend.inference.predictor import Predictor
from backend.speech import moonshine_encoder, moonshine_phones, viterbi
from backend.speech.moonshine_phones import fill_gaps, recognise_phones, sound_alone
from backend.speech.phones import NUM_PHONE_IDS, PHONE_IDS, PHONES, SILENCE, Phone, phone_frames
from backend.speech.recognition import SpeechRecogniser
from backend.speech.transcript import Transcript

needs_encoder = pytest.mark.skipif(
    not moonshine_phones.can_recognise(), reason="moonshine-voice or onnxruntime is not installed"
)


def filled(sound, heard, own=None):
    return fill_gaps(sound, heard, own, lambda *_: None, lambda: False)


def share_right(phones, truth, num_frames):
    wanted = phone_frames(truth, num_frames, 50.0)
    found = phone_frames(phones, num_frames, 50.0)
    return float(np.mean((found == wanted)[wanted > PHONE_IDS[SILENCE]]))


# ---- the encoder's clock


def test_vectors_are_put_where_they_hear():
    heard_at = 895 / 2 + 384 * np.arange(40)  # the middle of what each vector hears, in samples
    on_clock = moonshine_encoder._on_clock(heard_at[:, None].astype(np.float32), 15000)
    assert on_clock.shape == (47, 1)  # 46.9 frames of 320 samples
    middles = 160 + 320 * np.arange(47)
    np.testing.assert_allclose(on_clock[2:45, 0], middles[2:45], rtol=1e-5)
    np.testing.assert_allclose(on_clock[0, 0], heard_at[0])  # before the first: as the first


@needs_encoder
@pytest.mark.parametrize("num_samples", [1, 894, 895, 16000, 16001])
def test_any_sound_has_a_vector_for_each_frame_begun(num_samples):
    features = moonshine_encoder.encode(np.full(num_samples, 0.1, np.float32))
    assert features.shape == (-(-num_samples // 320), moonshine_encoder.WIDTH)
    assert np.isfinite(features).all()


@needs_encoder
def test_what_is_said_later_is_heard_later(spoken):
    sound = spoken.samples.astype(np.float32)
    late = np.concatenate([np.zeros(16000, np.float32), sound])
    ahead = recognise_phones(prepare_sound(sound))
    behind = recognise_phones(prepare_sound(late))
    moved = [Phone(one.symbol, one.start_seconds + 1, one.end_seconds + 1) for one in ahead]
    assert share_right(behind, moved, len(late) // 320) > 0.8


# ---- the likeliest phones


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


# ---- what a model is told


def test_silent_sound_has_no_gap_to_fill():
    assert sound_alone(np.zeros(16000, np.float32)).gaps == ()


@needs_encoder
def test_phones_are_recognised_in_the_gaps_only(spoken):
    sound = spoken.samples.astype(np.float32)
    half = len(sound) // 640 * 320
    heard = Transcript((Phone("M", 0.0, 0.1),), (), (), "words", gaps=((half, len(sound)),))
    found = filled(sound, heard)
    assert not found.is_certain  # as the words are
    assert filled(sound, replace(heard, is_certain=True)).is_certain
    assert filled(sound, sound_alone(sound)).is_certain
    assert found.phones[:1] == heard.phones
    assert found.phones[1].start_seconds == half / 16000
    assert found.phones[-1].end_seconds == pytest.approx(len(sound) / 16000, abs=0.02)
    truth = [phone for phone in spoken.phones if phone.start_seconds >= half / 16000]
    assert share_right(found.phones, truth, len(sound) // 320) > 0.7


@needs_encoder
def test_long_sound_is_heard_in_pieces_with_progress(spoken):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 4).astype(np.float32)
    told: list[float] = []
    heard = sound_alone(sound)
    assert len(heard.gaps) > 1
    phones = fill_gaps(sound, heard, None, lambda done, *_: told.append(done), lambda: False).phones
    assert told == sorted(told)
    assert told[-1] == len(sound) / 16000
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
        fill_gaps(sound, sound_alone(sound), None, lambda *_: None, lambda: True)


@needs_encoder
def test_head_and_own_ear_hear_better_together(spoken, hear):
    """In noise, in which both err."""
    rng = np.random.default_rng(0)
    level = np.sqrt(np.mean(spoken.samples**2))
    right = {"head": [], "both": []}
    for _ in range(4):
        noise = 0.3 * level * rng.standard_normal(len(spoken.samples))
        noisy = (spoken.samples + noise).astype(np.float32)
        sound, own = prepare_sound(noisy), hear(noisy)
        frames = len(noisy) // 320
        right["head"].append(share_right(recognise_phones(sound), spoken.phones, frames))
        right["both"].append(share_right(recognise_phones(sound, own), spoken.phones, frames))
    assert np.mean(right["both"]) > np.mean(right["head"])
    assert np.mean(right["both"]) > 0.5


@needs_encoder
@pytest.mark.parametrize("level", [0.0005, 0.1])
def test_nobody_speaking_is_heard_as_silence(level, hear):
    sound = np.random.default_rng(1).normal(0.0, level, 48000)
    sound = sound.astype(np.float32)
    phones = filled(sound, sound_alone(sound), hear(sound)).phones
    silent = sum(one.end_seconds - one.start_seconds for one in phones if one.symbol == SILENCE)
    assert silent > 2.7


@needs_encoder
@pytest.mark.parametrize("language", ["de", "es"])
def test_where_words_are_refused_phones_are_told(language, hear):
    if "espeak" not in available_engines():
        pytest.skip("espeak-ng is not installed")
    parts = speak(Voice("espeak", language), list(FOREIGN[language])[:2])
    sound = np.concatenate([part.samples for part in parts]).astype(np.float32)
    own = hear(sound)
    heard = SpeechRecogniser(1).recognise(sound, own)
    assert (heard.way, heard.phones) == ("sound", ())
    found = filled(sound, heard, own)
    truth, start = [], 0.0
    for part in parts:
        truth += [
            Phone(one.symbol, one.start_seconds + start, one.end_seconds + start)
            for one in part.phones
        ]
        start += len(part.samples) / 16000
    assert share_right(found.phones, truth, len(sound) // 320) > 0.6


# ---- the whole way to the lips


@pytest.fixture(scope="module")
def predictor():
    predictor = Predictor(bundled.BASE_CHECKPOINT, "cpu", listeners=1)
    yield predictor
    predictor.close()


def opening_of(predictor, sound, mouth):
    motion = predictor.predict(
        sound, 16000, mouth.head, fps=Fraction(50), num_frames=len(sound) // 320, listen="sound",
        progress=lambda *_: None, warn=lambda _: None, is_cancelled=lambda: False,
    )  # fmt: skip
    assert motion.report["listen"] == "sound"
    return mouth.opening_mm(motion.weights)


@needs_encoder
def test_by_sound_a_model_goes_by_recognised_phones(spoken, predictor, monkeypatch):
    mouth = measured_demo_head()
    sound = spoken.samples.astype(np.float32)
    told = opening_of(predictor, sound, mouth)
    monkeypatch.setattr(moonshine_phones, "can_recognise", lambda: False)
    alone = opening_of(predictor, sound, mouth)
    assert np.abs(told - alone).max() > 0.5
    monkeypatch.undo()
    monkeypatch.setattr(
        moonshine_phones, "recognise_phones", lambda part, _: [Phone("M", 0.0, len(part) / 16000)]
    )
    shut = opening_of(predictor, sound, mouth)  # an M of 4 s
    assert (shut < CLOSED_MM).mean() > (alone < CLOSED_MM).mean() + 0.2


@needs_encoder
def test_by_sound_the_mouth_rests_in_noise(predictor):
    noise = np.random.default_rng(2).normal(0.0, 0.1, 32000).astype(np.float32)
    assert np.abs(opening_of(predictor, noise, measured_demo_head())[10:-10]).max() < CLOSED_MM


# ---- where it is not installed


@pytest.fixture
def fresh():
    moonshine_encoder._session.cache_clear()
    yield
    moonshine_encoder._session.cache_clear()


@pytest.mark.parametrize("missing", ["onnxruntime", "moonshine_voice"])
def test_without_a_package_the_model_hears_alone(missing, fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    assert not moonshine_phones.can_recognise()
    sound = np.random.default_rng(0).normal(0.0, 0.1, 32000).astype(np.float32)
    heard = sound_alone(sound, "No words.")
    assert filled(sound, heard) == heard
    with pytest.raises(UserError, match="requirements-words"):
        moonshine_encoder.encode(sound)


def test_encoder_that_does_not_run_here_is_done_without(fresh, monkeypatch, caplog):
    class CannotRunError(Exception):
        pass

    def no_session(*_, **__):
        raise CannotRunError("illegal instruction")

    runtime = types.ModuleType("onnxruntime")
    runtime.SessionOptions = lambda: types.SimpleNamespace(add_session_config_entry=lambda *_: None)
    runtime.InferenceSession = no_session
    package = types.ModuleType("moonshine_voice")
    package.get_model_path = Path
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setitem(sys.modules, "moonshine_voice", package)
    with caplog.at_level(logging.WARNING):
        assert not moonshine_encoder.is_installed()
    assert "illegal instruction" in caplog.text


def test_the_bundled_head_is_small_and_says_where_it_comes_from():
    from safetensors import safe_open

    size = bundled.PHONE_HEAD.stat().st_size
    checkpoint = sum(path.stat().st_size for path in bundled.BASE_CHECKPOINT.iterdir())
    assert size + checkpoint < 20e6
    with safe_open(bundled.PHONE_HEAD, "pt") as file:
        said = file.metadata()
        assert file.get_tensor("phone_head.weight").shape[0] == NUM_PHONE_IDS
    assert said["command"].startswith("python -m backend train --preset phone-head")
    assert float(said["closures_f1"]) > 0.8
