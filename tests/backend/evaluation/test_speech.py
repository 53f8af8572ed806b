# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation on speech, and what the bundled checkpoint must do at least."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from backend.articulation.coarticulation import articulate
from backend.articulation.speaking_style import NAMED_STYLES, SpeakingStyle
from backend.audio.features import num_feature_frames
from backend.audio.load import read_sound
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.evaluation import style_transfer
from backend.evaluation.clips import SpokenClip
from backend.evaluation.curve_metrics import closures
from backend.evaluation.speech import (
    lip_errors_mm,
    phone_opening,
    read_clips,
    score_motions,
    silent_frames,
    table,
)
from backend.heads.arkit import CLOSED_MM
from backend.heads.lip_measures import measured_demo_head
from backend.model import checkpoint
from backend.speech.phones import Phone
from tests.backend.evaluation.recordings import real_speech

ROOT = Path(__file__).parents[3]
BUNDLED = ROOT / "backend" / "checkpoints" / "base"
PHONES = (
    Phone("SIL", 0.0, 0.6),
    Phone("M", 0.6, 0.72),
    Phone("AA", 0.72, 0.95),
    Phone("P", 0.95, 1.05),
    Phone("AA", 1.05, 1.3),
    Phone("SIL", 1.3, 2.0),
)


@pytest.fixture(scope="module")
def mouth():
    return measured_demo_head()


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.01, 2 * 16000).astype(np.float32)
    return SpokenClip("map", samples, "mapa", PHONES)


def test_the_reference_itself_scores_best(mouth, clip):
    truth = clip.articulated(clip.phones, SpeakingStyle.neutral())
    metrics = score_motions([truth], [truth], [clip], mouth)
    assert metrics["closures_f1"] == 1.0
    assert metrics["opening"] == pytest.approx(1.0)
    assert metrics["lip_error_mm"] == 0.0
    assert metrics["lag_ms"] == 0.0
    assert metrics["open_in_silence_mm"] < 0.5


def test_a_still_face_scores_badly(mouth, clip):
    truth = clip.articulated(clip.phones, SpeakingStyle.neutral())
    metrics = score_motions([np.zeros_like(truth)], [truth], [clip], mouth)
    assert metrics["opening"] == 0.0
    assert metrics["lip_error_mm"] > 1.0


class _Voiced:
    """Stands for a model; its codes say whether they come from a voice."""

    def encode_audio_style(self, speech):
        return torch.ones(len(speech), 1)

    def neutral_style(self):
        return torch.zeros(1, 1)


@pytest.mark.parametrize(
    ("read_style", "ratio", "share"), [("broad", 0.0, 1.0), ("neutral", 1.0, 0.0)]
)
def test_voice_metrics_tell_a_style_that_is_read_from_none(
    mouth, clip, monkeypatch, read_style, ratio, share
):
    def animate(_, spoken, code, *, with_phones):
        assert with_phones
        return spoken.articulated(
            spoken.phones, NAMED_STYLES[read_style if code.item() else "neutral"]
        )

    monkeypatch.setattr(style_transfer, "generate", animate)
    monkeypatch.setattr(style_transfer, "style_for_voice", lambda *_: NAMED_STYLES["broad"])
    metrics = style_transfer.voice_style_metrics(_Voiced(), [clip], mouth)
    assert metrics["error_ratio_voice_to_own_neutral"] == pytest.approx(ratio)
    assert metrics["voice_nearer_share"] == share


def test_the_bundled_model_reads_a_part_of_most_voices_styles(mouth):
    clips = read_clips(real_speech("PTALKER_SPEECH_VOICES", "speech-voices"), "alignment.json")
    metrics = style_transfer.voice_style_metrics(checkpoint.load(BUNDLED), clips, mouth)
    assert metrics["error_ratio_voice_to_own_neutral"] < 0.9
    assert metrics["voice_nearer_share"] > 0.75


def test_a_late_motion_has_a_lag(mouth, clip):
    truth = clip.articulated(clip.phones, SpeakingStyle.neutral())
    metrics = score_motions([np.roll(truth, 2, axis=0)], [truth], [clip], mouth)
    assert metrics["lag_ms"] == pytest.approx(40.0)


def test_lip_error_is_in_millimetres_of_the_worst_point(mouth):
    rest = np.zeros((1, 52), np.float32)
    moved = rest.copy()
    moved[0, 17] = 1.0  # jawOpen
    error = lip_errors_mm(moved, rest, mouth)
    opening = mouth.opening_mm(moved)
    assert error.shape == (1,)
    assert 0.5 * opening[0] < error[0] < 2.0 * opening[0]


def test_silent_frames_leave_the_edges_of_pauses_and_breaths_out():
    silent = silent_frames(PHONES, 100)
    assert silent[75]
    assert not silent[67]  # lips still closing
    assert not silent[28]
    longer = (*PHONES[:-1], Phone("SIL", 1.3, 2.6), Phone("M", 2.6, 2.7), Phone("SIL", 2.7, 3.0))
    silent = silent_frames(longer, 150)
    assert silent[90]
    assert not silent[120]  # breath before the next phrase
    assert not silent[148]


def test_opening_by_phone_is_high_in_vowels_and_low_in_closures():
    opening = phone_opening(PHONES, 100)
    assert opening[42] > 0.7
    assert opening[50] < 0.5
    assert opening[10] < 0.01


def test_a_folder_without_alignment_is_one_clear_sentence(tmp_path):
    with pytest.raises(UserError, match=r"has no alignment\.json"):
        read_clips(tmp_path, "alignment.json")


def test_reads_clips_in_the_shared_format(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000, np.float32), 16000)
    entry = {"file": "a.wav", "text": "hm", "phones": [["M", 0.0, 0.5]]}
    (tmp_path / "alignment.json").write_text(json.dumps({"a": entry}))
    found = read_clips(tmp_path, "alignment.json")
    assert found[0].phones == (Phone("M", 0.0, 0.5),)
    assert found[0].num_frames == 25


def test_the_table_has_a_row_for_each_recognition_mode(mouth, clip):
    truth = clip.articulated(clip.phones, SpeakingStyle.neutral())
    metrics = score_motions([truth], [truth], [clip], mouth)
    text = table({"modes": {"sound": metrics, "words": metrics}, "styles": {"retrieval": 1.0}})
    assert text.count("\n| ") == 2
    assert "retrieval: 1.000" in text


@pytest.fixture(scope="module")
def predictor():
    if not (BUNDLED / "model.safetensors").is_file():
        pytest.skip("there is no bundled checkpoint")
    from backend.inference.predictor import open_predictor

    found = open_predictor(BUNDLED, device="cpu")
    yield found
    found.close()


def predict(predictor, samples, mouth, **options):
    return predictor.predict(
        samples,
        SAMPLE_RATE_HZ,
        mouth.head,
        fps=Fraction(FEATURE_RATE_HZ),
        num_frames=num_feature_frames(len(samples)),
        progress=lambda *_: None,
        warn=lambda _: None,
        is_cancelled=lambda: False,
        **options,
    )


def test_the_bundled_checkpoint_is_small_and_has_a_card():
    if not BUNDLED.is_dir():
        pytest.skip("there is no bundled checkpoint")
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < 20e6
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    for word in ("speechocean762", "2104.01378", "CC BY 4.0", "flite", "GPL-3.0-or-later"):
        assert word in card, word


def test_the_bundled_checkpoint_moves_the_lips_of_the_demo_speech(predictor, mouth):
    samples = read_sound(ROOT / "backend" / "demo" / "speech.ogg").samples
    weights = predict(predictor, samples, mouth, listen="sound").weights
    opening = mouth.opening_mm(weights)
    assert opening.max() > 5.0
    assert (opening < CLOSED_MM).any()


def test_the_bundled_checkpoint_rests_in_silence(predictor, mouth):
    silence = np.random.default_rng(0).normal(0, 1e-4, 2 * 16000).astype(np.float32)
    opening = mouth.opening_mm(predict(predictor, silence, mouth, listen="sound").weights)
    assert np.abs(opening[25:-25]).max() < 1.5


def test_the_bundled_checkpoint_closes_lips_on_real_speech(predictor, mouth):
    folder = real_speech("PTALKER_SPEECH", "speech")
    counts = None
    for clip in read_clips(folder, "alignment_mfa.json")[:5]:
        weights = predict(predictor, clip.samples, mouth, listen="sound").weights
        found = closures(clip.phones, mouth.opening_mm(weights))
        counts = found if counts is None else counts + found
    assert counts.f1 > 0.6


def test_articulation_of_the_demo_mouth_opens_for_vowels(mouth):
    weights = articulate(
        PHONES, style=SpeakingStyle.neutral(), num_frames=100, fps=FEATURE_RATE_HZ, blinks=False
    )
    opening = mouth.opening_mm(weights)
    assert opening[40:46].max() > 4.0
    assert opening[30:35].min() < 0.3
