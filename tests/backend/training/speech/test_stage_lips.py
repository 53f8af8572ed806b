# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader of lips, and the stage that trains it."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from backend.data.speech.batches import EXEMPLAR_FRAMES, IGNORED
from backend.data.speech.dataset import open_speech
from backend.errors import UserError
from backend.heads.lip_measures import measured_demo_head
from backend.model import checkpoint
from backend.model.attention import frame_mask
from backend.model.checkpoint_files import CONFIG_NAME
from backend.model.lip_reader import LipReader
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from backend.model.style_encoders import MotionStyle
from backend.model.surgery import with_lip_reader
from backend.speech.phones import PHONES
from backend.training.speech.init import new_model, trained_before
from backend.training.speech.stage_lips import _captured, lip_batch, lip_stage
from tests.backend.data.speech.samples import write_recordings

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return open_speech((write_recordings(folder / "recordings"),), folder / "cache")


@pytest.fixture
def reader():
    torch.manual_seed(0)
    return LipReader(dataclasses.replace(TINY, lip_layers=5)).eval()


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 37, 40])
def test_padding_does_not_change_what_is_read(reader, length):
    seen = torch.randn(2, 40, MotionStyle.COMPONENTS)
    lengths = torch.tensor([40, length])
    padded = seen.clone()
    padded[1, length:] = 1e3
    both = reader(padded, frame_mask(lengths, 40))
    alone = reader(seen[1:, :length], frame_mask(lengths[1:], length))
    assert both.shape == (2, 40, TINY.num_phone_ids)
    torch.testing.assert_close(both[1:, :length], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_frame_depends_on_the_whole_clip(reader):
    """The mean over all frames reaches frames that are out of reach of the convolutions."""
    seen = torch.randn(1, 400, MotionStyle.COMPONENTS)
    mask = torch.ones(1, 400, dtype=torch.bool)
    before = reader(seen, mask)
    seen[:, 300:] += 2.0
    assert not torch.allclose(reader(seen, mask)[:, :50], before[:, :50], atol=1e-4)


def test_frames_next_to_each_other_are_read_apart(reader):
    seen = torch.randn(1, 8, MotionStyle.COMPONENTS)
    read = reader(seen, torch.ones(1, 8, dtype=torch.bool))
    assert not torch.allclose(read[:, ::2], read[:, 1::2], atol=1e-3)


def test_a_batch_is_the_same_again_and_pads_phones(data):
    first = lip_batch(data, seed=3, number=1, batch_size=5)
    again = lip_batch(data, seed=3, number=1, batch_size=5)
    other = lip_batch(data, seed=3, number=2, batch_size=5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1]) or not torch.equal(first[2], other[2])
    motion, lengths, phones = first
    assert motion.shape[:2] == phones.shape
    assert int(lengths.max()) <= EXEMPLAR_FRAMES[1]
    mask = frame_mask(lengths, phones.shape[1])
    assert (phones[~mask] == IGNORED).all()
    assert ((phones[mask] >= 1) & (phones[mask] <= len(PHONES))).all()


def test_a_captured_motion_keeps_its_time_and_its_range():
    times = np.arange(200) / 50.0
    motion = np.repeat((0.4 - 0.4 * np.cos(2 * np.pi * times))[:, None], 52, 1).astype(np.float32)
    seen = _captured(motion, np.random.default_rng(0))
    assert seen.shape == motion.shape
    assert seen.min() >= 0.0
    assert 0.0 < np.abs(seen - motion).mean() < 0.02
    lag = np.argmax(np.correlate(seen.mean(1) - 0.4, motion.mean(1) - 0.4, "full")) - 199
    assert lag == 0


def test_the_stage_learns_to_read_and_leaves_the_rest(data):
    torch.manual_seed(0)
    model = new_model(TINY, measured_demo_head())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage = lip_stage(model, data, seed=0, batch_size=16, num_steps=1)
    optimizer = torch.optim.Adam(stage.module.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        (loss,) = stage.terms(stage.module, 0).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert 0.0 <= stage.validate(stage.module)["phone_accuracy"] <= 1.0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("lip_reader."), name


def test_a_model_without_a_reader_gets_one_and_stays_the_same(tmp_path, data):
    bare = PTalker(dataclasses.replace(TINY, lip_layers=0))
    checkpoint.save(tmp_path, bare, card="")
    extended = trained_before([tmp_path], TINY, lip_steps=1)
    assert extended.config == TINY
    for name, value in bare.state_dict().items():
        assert torch.equal(extended.state_dict()[name], value), name
    with pytest.raises(UserError, match="give --lip-steps 1 or more"):
        trained_before([tmp_path], TINY, lip_steps=0)
    with pytest.raises(ValueError, match="no lip reader"):
        lip_stage(bare, data, seed=0, batch_size=4, num_steps=1)


def test_checkpoints_from_before_lips_were_read_still_load(tmp_path):
    bare = PTalker(dataclasses.replace(TINY, lip_layers=0))
    checkpoint.save(tmp_path, bare, card="")
    path = tmp_path / CONFIG_NAME
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["model"]["lip_layers"], config["model"]["lip_width"]
    path.write_text(json.dumps(config), encoding="utf-8")
    assert checkpoint.load(tmp_path).lip_reader is None


def test_components_that_the_lip_reader_reads_are_frozen():
    assert not PTalker(TINY).motion_style.components.weight.requires_grad
    extended = with_lip_reader(PTalker(dataclasses.replace(TINY, lip_layers=0)), TINY)
    assert not extended.motion_style.components.weight.requires_grad
