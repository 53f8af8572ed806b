# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace

import pytest
import torch

from backend.model import losses
from backend.model.batch import TrainingBatch
from backend.model.loss_geometry import FaceGeometry
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from tests.backend.model.samples import TRAIN_CONFIG, build, random_batch, small

TINY = PRESETS["tiny"]


def geometry(model: PTalker) -> FaceGeometry:
    config, graph = model.config, model.graph_encoder
    pairs = torch.tensor([[0, 1], [2, 3]])
    if config.shape_kind == "solved":
        return FaceGeometry(graph.positions, graph.basis, torch.ones(config.num_nodes), pairs)
    points = torch.zeros(config.num_vertices, 3)
    return FaceGeometry(points, None, torch.ones(config.num_vertices), pairs)


def one_sample(batch: TrainingBatch, row: int) -> TrainingBatch:
    """A sequence alone and without padding."""
    T = int(batch.motion_lengths[row])
    S = int(batch.speech_lengths[row])
    pick = slice(row, row + 1)
    is_waveform = batch.speech.ndim == 2
    tokens = batch.phones.shape[1] if is_waveform else S
    return TrainingBatch(
        speech=batch.speech[pick, :S],
        speech_lengths=batch.speech_lengths[pick],
        motion=batch.motion[pick, :T],
        motion_lengths=batch.motion_lengths[pick],
        speaker=batch.speaker[pick],
        phones=batch.phones[pick, :tokens],
        style_motion=batch.style_motion[pick],
        style_motion_lengths=batch.style_motion_lengths[pick],
        style_speech=batch.style_speech[pick],
        style_speech_lengths=batch.style_speech_lengths[pick],
        style_strength=batch.style_strength[pick],
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_builds_and_takes_a_training_step(name):
    model = build(small(PRESETS[name])).train()
    batch = random_batch(model.config, (20, 13))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    outputs = model(batch, with_cycle=True)
    terms = losses.total(outputs, batch, geometry(model), TRAIN_CONFIG)
    sum(terms.values()).backward()
    optimizer.step()
    assert all(term.isfinite() for term in terms.values())
    moved = sum(
        not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)
    )
    assert moved > 0.5 * len(before)


def test_training_step_in_mixed_precision_agrees_with_whole_precision():
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (20, 13))
    whole = losses.total(model(batch, with_cycle=True), batch, geometry(model), TRAIN_CONFIG)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(batch, with_cycle=True, autoregressive=True, own_feedback_share=0.5)
        mixed = losses.total(outputs, batch, geometry(model), TRAIN_CONFIG)
        sum(mixed.values()).backward()
    assert all(term.dtype == torch.float32 for term in mixed.values())
    for name in ("phones", "orthogonality", "style_contrast", "adversary"):
        torch.testing.assert_close(mixed[name], whole[name], rtol=0.1, atol=0.02)


def test_every_block_of_the_default_model_is_trained():
    model = build(TINY, lively=True).train()
    batch = random_batch(TINY, (20, 13, 16))
    in_parallel = losses.total(model(batch, with_cycle=True), batch, geometry(model), TRAIN_CONFIG)
    fed_back = losses.total(model(batch, autoregressive=True), batch, geometry(model), TRAIN_CONFIG)
    sum((*in_parallel.values(), *fed_back.values())).backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().any()
    ]
    elsewhere = ("lip_reader.", "motion_style.components.")  # which has a stage of its own
    assert [name for name in idle if not name.startswith(elsewhere)] == []


@pytest.mark.parametrize("name", ["tiny", "vocaset"])
@pytest.mark.parametrize("autoregressive", [False, True])
def test_sample_does_not_depend_on_batch_mates_or_padding(name, autoregressive):
    model = build(small(PRESETS[name]), lively=True).eval()
    batch = random_batch(model.config, (20, 31, 15))
    together = model(batch, autoregressive=autoregressive)
    for row, length in enumerate(batch.motion_lengths.tolist()):
        alone = model(one_sample(batch, row), autoregressive=autoregressive)
        for field in ("motion", "motion_from_motion", "audio_content", "motion_content"):
            torch.testing.assert_close(
                getattr(together, field)[row, :length],
                getattr(alone, field)[0],
                atol=5e-5,
                rtol=1e-4,
            )
        torch.testing.assert_close(together.own_style.code[row], alone.own_style.code[0])
        for source, style in together.styles.items():
            torch.testing.assert_close(
                style.code[row], alone.styles[source].code[0], atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("modes", [("parallel", "autoregressive"), ("autoregressive",)])
def test_own_motion_is_fed_back_where_that_is_asked_for(modes):
    model = build(replace(TINY, modes=modes), lively=True).eval()
    batch = random_batch(TINY, (20,))
    other = replace(batch, motion=batch.motion.flip(1))

    def decode(batch: TrainingBatch, share: float) -> torch.Tensor:
        return model(batch, autoregressive=True, own_feedback_share=share).motion

    assert not torch.allclose(decode(batch, 0.0), decode(other, 0.0), atol=1e-3)
    if "parallel" in modes:  # the first pass does not need the truth, so nothing does
        torch.testing.assert_close(decode(batch, 1.0), decode(other, 1.0))
        own = replace(batch, motion=model(batch).motion.clamp(0.0, TINY.max_weight))
        torch.testing.assert_close(decode(batch, 1.0), decode(own, 0.0), atol=1e-5, rtol=0)
    else:
        assert not torch.allclose(decode(batch, 1.0), decode(batch, 0.0), atol=1e-3)


def test_weights_times_shapes_are_the_offsets_of_learned_shapes():
    model = build(small(PRESETS["vocaset"]), lively=True).eval()
    hidden = torch.randn(1, 5, model.config.feature_dim)
    composed = torch.einsum("btk,kvi->btvi", model.weights(hidden), model.shapes())
    torch.testing.assert_close(composed, model.motion(hidden))


def test_base_model_is_small_enough_to_bundle():
    count = sum(parameter.numel() for parameter in PTalker(PRESETS["base"]).parameters())
    assert 2 * count <= 19_000_000  # bytes in 16 bits; 20 MB with all that lies beside


def test_one_batch_can_be_overfitted():
    speech = replace(TINY.speech, dropout=0.0)
    model = build(replace(TINY, dropout=0.0, style_dropout=0.0, speech=speech)).train()
    batch = random_batch(TINY, (12, 9), style_frames=8)
    smooth = torch.nn.functional.avg_pool1d(batch.motion.transpose(1, 2), 5, 1, 2).transpose(1, 2)
    batch = replace(batch, motion=smooth)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(200):
        outputs = model(batch)
        both = (outputs.motion, outputs.motion_from_motion)
        errors = [losses.reconstruction(motion, batch.motion, outputs.mask) for motion in both]
        optimizer.zero_grad()
        sum(errors).backward()
        optimizer.step()
    spread = batch.motion.var()
    assert errors[0] < 0.1 * spread
    assert errors[1] < 0.1 * spread
