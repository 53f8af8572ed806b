# SPDX-License-Identifier: GPL-3.0-or-later
"""Clips of speech: reading, measuring, caching, another pace."""

import numpy as np
import pytest

from backend.audio.features import stacked_log_mel
from backend.audio.load import read_sound
from backend.data.speech import dataset
from backend.errors import UserError
from tests.backend.data.speech.samples import write_recordings


def test_holds_out_speakers_and_keeps_all_clips(data):
    assert len(data.train) == 9
    assert [clip.speaker for clip in data.validation] == ["s3"]
    assert not {clip.speaker for clip in data.train} & {clip.speaker for clip in data.validation}


def test_features_are_those_of_the_backend(data, tmp_path):
    clip = data.train[0]
    folder = write_recordings(tmp_path / "again")
    samples = read_sound(folder / "audio" / f"{clip.key}.wav").samples
    expected = stacked_log_mel(samples)
    assert data.features(clip).shape == expected.shape
    assert np.abs(data.features(clip) - expected).max() < 0.02  # kept as float16


def test_clips_of_two_folders_with_the_same_names_keep_their_own_voices(tmp_path):
    first = write_recordings(tmp_path / "first")
    second = write_recordings(tmp_path / "second", seed=1)
    alone = dataset.open_speech([second], tmp_path / "cache")
    both = dataset.open_speech([first, second], tmp_path / "cache")
    voices = [both.voices[clip.first_frame] for clip in (both.train[0], both.train[9])]
    assert both.train[0].key == both.train[9].key
    assert voices[0] != voices[1]
    assert voices[1] == alone.voices[alone.train[0].first_frame]


def test_a_bad_folder_is_one_clear_sentence(tmp_path):
    with pytest.raises(UserError, match=r"holds no speech to train on.*prepare"):
        dataset.open_speech([tmp_path], tmp_path / "cache")


def test_the_cache_is_used_again(tmp_path, monkeypatch):
    folder = write_recordings(tmp_path / "speech", num_speakers=5)
    first = dataset.open_speech([folder], tmp_path / "cache")
    monkeypatch.setattr(dataset, "log_mel_power", None)
    second = dataset.open_speech([folder], tmp_path / "cache")
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.features(second.train[0]), first.features(first.train[0]))


def test_another_pace_moves_phones_and_sound_alike(data):
    clip = data.train[0]
    fast = clip.at_pace(1.5)
    assert fast.num_frames == round(clip.num_frames / 1.5)
    assert fast.phones[1].start_seconds == pytest.approx(
        clip.phones[1].start_seconds * fast.num_frames / clip.num_frames
    )
    mel, level = data.mel(fast).mean(1), data.energy(fast)
    assert len(mel) == 2 * fast.num_frames
    assert len(data.pitch(fast)) == len(level) == fast.num_frames
    onset = int(np.argmax(np.diff(mel))) / 100  # the silent first half second ends
    assert onset == pytest.approx(0.5 / 1.5, abs=0.04)
    assert np.array_equal(data.mel(clip.at_pace(1.0)), data.mel(clip))


def test_a_held_vowel_lasts_longer_in_phones_and_sound(data):
    clip = data.train[0]  # silence to 0.5 s, M to 0.7, AE to 1.2, P to 1.5
    held = clip.with_held(2, 1.0)
    assert held.num_frames == clip.num_frames + 50
    spans = [(phone.start_seconds, phone.end_seconds) for phone in held.phones]
    assert np.allclose(spans, [(0.0, 0.5), (0.5, 0.7), (0.7, 2.2), (2.2, 2.5)])
    assert len(data.mel(held)) == 2 * held.num_frames
    assert len(data.pitch(held)) == len(data.energy(held)) == held.num_frames
    mel, held_mel = data.mel(clip), data.mel(held)
    assert np.abs(held_mel[:80] - mel[:80]).max() < 1e-4  # before the vowel nothing changes
    assert np.abs(held_mel[-40:] - mel[-40:]).max() < 1e-4  # nor after it
    steady = held.stored_places()[40:105]
    assert steady.min() >= 0.7 * 50
    assert steady.max() <= 1.2 * 50
