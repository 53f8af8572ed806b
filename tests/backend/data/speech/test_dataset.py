# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech as training data: reading, measuring, augmenting, batches that depend on number only."""

import json

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from backend.audio.features import log_mel_power, num_feature_frames, stacked_log_mel
from backend.audio.load import read_sound
from backend.data.speech import augment_features, batches, crops, dataset
from backend.data.speech.corpus import load_corpus, prepare_speech
from backend.data.speech.held_out import is_held_out
from backend.errors import UserError
from backend.speech.phones import PHONE_IDS
from tests.backend.data.speech.samples import SECONDS, write_recordings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return dataset.open_speech([write_recordings(folder / "speech")], folder / "cache")


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


def test_a_speaker_is_on_the_same_side_in_every_folder_and_corpus(tmp_path):
    """With a corpus and its recordings given together, nobody is both trained on and held out."""
    recordings = write_recordings(tmp_path / "recordings")
    corpora = [
        prepare_speech(
            tmp_path / f"corpus{seed}", recordings=recordings, hours_synthesised=0, seed=seed,
            workers=1,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    folders = [recordings, *(corpus.folder for corpus in corpora)]
    both = dataset.open_speech(folders, tmp_path / "cache")
    assert len(both.train) + len(both.validation) == 30
    assert not {clip.speaker for clip in both.train} & {clip.speaker for clip in both.validation}
    assert {clip.speaker for clip in both.validation} == {"s3"}


def test_clips_of_two_folders_with_the_same_names_keep_their_own_voices(tmp_path):
    first = write_recordings(tmp_path / "first")
    second = write_recordings(tmp_path / "second", seed=1)
    alone = dataset.open_speech([second], tmp_path / "cache")
    both = dataset.open_speech([first, second], tmp_path / "cache")
    voices = [both.voices[clip.first_frame] for clip in (both.train[0], both.train[9])]
    assert both.train[0].key == both.train[9].key
    assert voices[0] != voices[1]
    assert voices[1] == alone.voices[alone.train[0].first_frame]


def test_what_an_older_corpus_says_of_its_splits_is_not_used(tmp_path):
    recordings = write_recordings(tmp_path / "recordings")
    folder = tmp_path / "corpus"
    prepare_speech(folder, recordings=recordings, hours_synthesised=0, seed=1, workers=1)
    index = json.loads((folder / "index.json").read_text())
    for entry in index["utterances"]:
        entry["split"] = "validation" if entry["speaker"] == "s0" else "train"
    (folder / "index.json").write_text(json.dumps(index))
    found = load_corpus(folder)
    assert {utterance.speaker for utterance in found.split("validation")} == {"s3"}


def test_about_a_tenth_of_the_speakers_is_held_out():
    held_out = [is_held_out(f"speaker {number}") for number in range(2000)]
    assert 0.08 < np.mean(held_out) < 0.12


def test_speech_that_holds_nobody_out_is_refused(tmp_path):
    folder = write_recordings(tmp_path / "speech", num_speakers=3)
    with pytest.raises(UserError, match=r"3 speakers, of whom 0 are held out.*Add recordings"):
        dataset.open_speech([folder], tmp_path / "cache")


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


def test_augmentation_keeps_shape_and_time(data):
    mel = data.mel(data.train[0])
    rng = np.random.default_rng(3)
    for _ in range(10):
        changed = augment_features.augment(mel, rng, babble=data.mel(data.train[1]))
        assert changed.shape == mel.shape
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert changed[60:].mean() > changed[:40].mean() - 0.5


def test_white_noise_lies_well_within_the_colours_of_noise():
    def slope(log_power):
        return np.polyfit(np.linspace(-0.5, 0.5, 80), log_power.mean(axis=0), 1)[0]

    samples = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    white = slope(log_mel_power(samples))
    made = [augment_features.no_speech(200, np.random.default_rng(seed)) for seed in range(400)]
    slopes = np.array([slope(sound) for sound in made])
    assert np.mean(slopes > white) > 0.07  # brighter ones
    assert np.mean(slopes < white - 9.0) > 0.07  # brown and darker


def test_a_voice_laid_under_speech_comes_at_times_as_several():
    loud, quiet = np.zeros((60, 80), np.float32), np.full((60, 80), -20.0, np.float32)
    speech = np.concatenate([loud, quiet, quiet])
    other = np.concatenate([quiet, loud, quiet])  # its copies alone can sound in the last third
    swing = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        level = augment_features.augment(speech, rng, babble=other)[140:].mean(axis=1)
        swing.append(level.max() - level.min())
    assert np.mean(np.array(swing) > 6.0) > 0.05


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


def test_sounds_without_speech_are_finite_and_of_many_kinds():
    made = [augment_features.no_speech(200, np.random.default_rng(seed)) for seed in range(30)]
    assert all(one.shape == (200, 80) and np.isfinite(one).all() for one in made)
    levels = [float(one.mean()) for one in made]
    assert max(levels) - min(levels) > 10.0  # from silence to noise
    assert made[0].dtype == np.float32


def test_some_sounds_without_speech_are_music_that_holds_its_notes():
    def held(sound):
        """How alike the spectrum is after 50 ms, its coarse shape apart."""
        fine = sound - uniform_filter1d(sound, 15, axis=1)
        fine = fine - fine.mean(0)
        return float((fine[5:] * fine[:-5]).sum() / (np.square(fine).sum() + 1e-9))

    made = [augment_features.no_speech(300, np.random.default_rng(seed)) for seed in range(60)]
    tonal = [held(one) > 0.2 for one in made]
    assert 0.25 < np.mean(tonal) < 0.55  # noises and silence: 0.02 at most


def test_masking_blanks_some_bands_and_frames():
    features = np.ones((100, 160), np.float32)
    masked = augment_features.mask(features.copy(), np.random.default_rng(0))
    assert 0.0 < (masked == 0).mean() < 0.5


def test_a_phone_batch_depends_on_seed_and_number_only(data):
    made = [
        batches.phone_batch(data, seed=seed, number=number, batch_size=3, num_frames=50)
        for seed, number in ((0, 5), (0, 5), (0, 6), (1, 5))
    ]
    assert made[0].speech.equal(made[1].speech)
    assert not made[0].speech.equal(made[2].speech)
    assert not made[0].speech.equal(made[3].speech)


def test_a_phone_batch_is_padded_and_labelled(data):
    batch = batches.phone_batch(data, seed=0, number=0, batch_size=16, num_frames=120)
    frames = num_feature_frames(int(SECONDS * 16000))
    slowest, fastest = crops.PACES
    assert batch.speech.shape == (16, 120, 160)
    assert int(batch.lengths.min()) >= frames / fastest - 1
    for speech, phones, length in zip(batch.speech, batch.phones, batch.lengths, strict=True):
        assert (phones[length:] == batches.IGNORED).all()
        assert (phones[:length] > 0).all()
        assert (speech[length:] == 0).all()
        if (phones[:length] != PHONE_IDS["SIL"]).any():  # somebody speaks
            assert length <= frames / slowest + 1
            assert phones[length * 2 // 5] == PHONE_IDS["M"]  # at any pace


def test_a_share_of_the_crops_is_slow(data):
    usual = max(clip.num_frames for clip in data.train) / crops.PACES[0] + 1

    def share_of_slow(slow_share: float) -> float:
        rng = np.random.default_rng(0)
        drawn = [
            crops.draw_crop(data, rng, num_frames=50, slow_share=slow_share) for _ in range(80)
        ]
        return float(np.mean([clip.num_frames > usual for clip, _, _ in drawn]))

    assert share_of_slow(0.0) == 0.0
    assert 0.3 < share_of_slow(0.5) < 0.7
