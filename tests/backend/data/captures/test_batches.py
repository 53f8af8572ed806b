# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches of captured faces."""

import numpy as np
import pytest
import torch

from backend.data.captures import prepared
from backend.data.captures.batches import BatchRecipe, CaptureBatches, EncodedSpeech, sample_frames
from backend.data.captures.prepare import prepare
from tests.backend.training.captures.samples import write_captures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("captures")
    prepare("folder", write_captures(root / "raw"), root / "set")
    return root / "set"


def test_batches_show_all_speakers_other_sentences_and_no_padding(folder):
    data = prepared.open(folder)
    clips = data.split("train")
    encoded = EncodedSpeech(data, folder, None, 16000.0)
    recipe = BatchRecipe(batch_size=4, max_frames=40, style_frames=20, factor=10.0, seed=3)
    batches = CaptureBatches(data, clips, encoded, ("anna", "ben"), recipe)
    hidden = 0
    for number in range(30):
        batch = batches.batch(number)
        known = batch.speaker[batch.speaker >= 0]
        hidden += int((batch.speaker < 0).sum())
        assert (batch.style_motion_lengths[batch.speaker < 0] == 0).all()
        if len(known) == 4:
            assert known.sort().values.tolist() == [0, 0, 1, 1]
        assert int(batch.motion_lengths.max()) <= 40
        assert torch.equal(batch.speech_lengths, (batch.motion_lengths * 16000 / 30).ceil().long())
        for row, length in zip(batch.motion, batch.motion_lengths, strict=True):
            assert (row[length:] == 0).all()
        for row, shown in zip(batch.motion, batch.style_motion, strict=True):
            assert shown.abs().max() == 0 or not torch.equal(row[:10], shown[:10])
    assert 2 <= hidden <= 30
    again = batches.batch(7)
    assert torch.equal(again.motion, batches.batch(7).motion)
    assert not torch.equal(again.motion, batches.batch(8).motion[:, : again.motion.shape[1]])


def test_sampled_frames_are_spread_over_all_clips(folder):
    data = prepared.open(folder)
    clips = data.split("train")
    total = sum(clip.num_frames for clip in clips)
    frames = sample_frames(data, clips, 50)
    every = total // 50
    assert len(frames) == -(-total // every)
    everything = np.concatenate([data.offsets(clip) for clip in clips])
    np.testing.assert_array_equal(frames, everything[::every])
