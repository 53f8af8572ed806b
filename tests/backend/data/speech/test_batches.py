# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches and crops of speech depend on seed and number only, and are padded and labelled."""

import dataclasses

import numpy as np
import torch

from backend.articulation.speaking_style import (
    STYLE_DIM,
)
from backend.audio.features import num_feature_frames
from backend.data.speech import batches, crops
from backend.speech.phones import PHONE_IDS, PHONES
from tests.backend.data.speech.samples import SECONDS


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


def test_in_a_share_of_the_crops_a_vowel_is_held(data):
    def longest_vowels(held_share: float) -> list[int]:
        rng = np.random.default_rng(0)
        drawn = [
            crops.draw_crop(data, rng, num_frames=150, held_share=held_share) for _ in range(80)
        ]
        return [int((labels == PHONE_IDS["AE"]).sum()) for _, _, labels in drawn]

    longest = 0.5 * 50 / crops.PACES[0] + 1  # frames of the vowel at the slowest pace
    assert max(longest_vowels(0.0)) <= longest
    share = np.mean(np.array(longest_vowels(0.5)) > longest)
    assert 0.3 < share < 0.7


def test_a_motion_batch_shows_styles_by_other_clips_and_hides_the_neutral(data):
    recipe = batches.MotionRecipe(batch_size=32, num_frames=60, num_styles=3)
    batch, vectors = batches.motion_batch(data, recipe, seed=0, number=0)
    again, _ = batches.motion_batch(data, recipe, seed=0, number=0)
    assert torch.equal(batch.motion, again.motion)
    shown = batch.style_motion_lengths > 0
    assert 0 < int((~shown).sum()) < 32
    assert (batch.speaker[~shown] == -1).all()
    assert (vectors[~shown] == 0).all()
    assert int(batch.speaker.max()) < 3
    assert (batch.phones == 0).all(dim=1).any()
    certain = (batch.phones > len(PHONES)).any(dim=1)
    doubtful = ((batch.phones > 0) & (batch.phones <= len(PHONES))).any(dim=1)
    assert certain.any()
    assert doubtful.any()
    assert not (certain & doubtful).any()
    has_no_audio = (batch.speech == 0).all(dim=2).all(dim=1)
    assert not (has_no_audio & ~certain).any()  # audio dropout only where phones are given
    frames = torch.arange(batch.phone_targets.shape[1])
    padding = frames[None] >= batch.speech_lengths[:, None]
    assert (batch.phone_targets[padding] == batches.IGNORED).all()


def test_neighbours_in_a_motion_batch_share_speech_in_several_styles(data):
    recipe = batches.MotionRecipe(
        batch_size=24, num_frames=60, neutral_share=0.0, styles_per_clip=2
    )
    batch, vectors = batches.motion_batch(data, recipe, seed=0, number=0)
    for field in ("speech", "speech_lengths", "motion_lengths", "phones", "phone_targets"):
        value = getattr(batch, field)
        assert torch.equal(value[::2], value[1::2])
    assert len(batch.speech[::2].flatten(1).sum(1).unique()) == 12
    assert len(vectors.unique(dim=0)) == 24
    assert ((batch.motion[::2] - batch.motion[1::2]).abs().amax((1, 2)) > 0).all()


def test_a_share_of_motions_has_more_or_less_of_the_style_than_is_shown(data):
    plain = batches.MotionRecipe(batch_size=24, num_frames=60, neutral_share=0.0)
    scaled = dataclasses.replace(plain, scaled_share=1.0)
    one, vectors = batches.motion_batch(data, plain, seed=0, number=0)
    assert (one.style_strength == 1.0).all()
    other, _ = batches.motion_batch(data, scaled, seed=0, number=0)
    low, high = batches.STRENGTHS
    assert (low <= other.style_strength).all()
    assert (other.style_strength <= high).all()
    assert len(other.style_strength.unique()) == 24
    assert vectors.shape == (24, STYLE_DIM)
