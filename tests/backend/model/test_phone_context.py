# SPDX-License-Identifier: GPL-3.0-or-later
"""Told phones as wholes: where a frame lies in its phone, how long and how loud that is."""

import dataclasses
import json

import pytest
import torch

from backend.model import checkpoint
from backend.model.checkpoint_files import CONFIG_NAME
from backend.model.config import ModelConfig
from backend.model.generate import generate
from backend.model.phone_context import CONTEXT_FRAMES, NUM_TIMES, phone_durations
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from backend.model.surgery import with_phone_context
from backend.training.speech.init import trained_before

TINY = PRESETS["tiny"]
BARE = dataclasses.replace(TINY, phone_context_width=0)


def perturbed(config: ModelConfig, seed: int = 0) -> PTalker:
    """A model whose phone context is not zero."""
    torch.manual_seed(seed)
    model = PTalker(config).eval()
    if model.speech_content.phone_context is not None:
        torch.nn.init.normal_(model.speech_content.phone_context.leave.weight, std=0.3)
    return model


def test_a_phone_of_three_frames_worked_by_hand():
    symbols = torch.tensor([[0, 4, 4, 4, 7]])
    values = torch.tensor([[[9.0], [1.0], [2.0], [6.0], [5.0]]])
    times, means = phone_durations(symbols, values)
    assert means[0, :, 0].tolist() == pytest.approx([0.0, 3.0, 3.0, 3.0, 5.0])
    assert times.shape == (1, 5, NUM_TIMES)
    # The middles of three frames lie at 1/6, 1/2 and 5/6 of the phone: half a wave from 1 to -1.
    half = 0.5 * 3.0**0.5
    assert times[0, 1:4, 0].tolist() == pytest.approx([half, 0.0, -half], abs=1e-6)
    assert times[0, 1:4, 1].tolist() == pytest.approx([0.5, 1.0, 0.5])
    assert times[0, 1:4, 4].exp().tolist() == pytest.approx([0.6] * 3)  # of five frames
    assert times[0, 0].tolist() == [0.0] * NUM_TIMES


def test_the_ends_of_a_phone_mirror_each_other():
    symbols = torch.tensor([[1, *[2] * 9, 3]])
    times, _ = phone_durations(symbols, torch.zeros(1, 11, 1))
    from_start, to_end = times[0, 1:10, 5:7], times[0, 1:10, 7:9]
    assert torch.equal(from_start, to_end.flip(0))
    assert from_start[:, 0].diff().max() < 0.0


def test_phones_of_any_length_as_counted_one_by_one():
    generator = torch.Generator().manual_seed(3)
    lengths = [1, 2, 3, 63, 64, 65, 127, 1, 5, 90]
    numbers = torch.tensor([1, 2] * 5)
    symbols = torch.repeat_interleave(numbers, torch.tensor(lengths))[None]
    values = torch.randn(1, symbols.shape[1], 2, generator=generator)
    times, means = phone_durations(symbols, values)
    start = 0
    for length in lengths:
        for place in range(length):
            before = min(place + 1, CONTEXT_FRAMES)
            after = min(length - place, CONTEXT_FRAMES)
            frame = start + place
            seen = values[0, frame + 1 - before : frame + after]
            torch.testing.assert_close(means[0, frame], seen.mean(0), atol=1e-5, rtol=0.0)
            assert float(times[0, frame, 4].exp()) * 5.0 == pytest.approx(before + after - 1)
        start += length


def test_the_same_frames_of_a_longer_phone_have_other_content():
    encoder = perturbed(TINY).speech_content
    speech = torch.zeros(1, 40, TINY.speech.input_dim)
    short, long = torch.full((2, 1, 40), 5)
    short[:, :10], short[:, 30:], long[:, :4], long[:, 36:] = 3, 3, 3, 3
    symbols = [short, long]
    contents = [
        encoder(speech, torch.tensor([40]), phones=phones, trains_encoder=False)
        for phones in symbols
    ]
    moved = [
        encoder.content_of(speech, each.hidden, each.mask, phones) - encoder.content(each.hidden)
        for each, phones in zip(contents, symbols, strict=True)
    ]
    assert (moved[0][0, 20] - moved[1][0, 20]).abs().max() > 0.01


def test_phones_in_the_padding_do_not_lengthen_the_last_one():
    encoder = perturbed(TINY).speech_content
    speech, lengths = torch.randn(1, 30, TINY.speech.input_dim), torch.tensor([20])
    speech[:, 20:] = 0.0
    phones = torch.full((1, 30), 5)
    whole = encoder(speech, lengths, phones=phones).features[:, :20]
    alone = encoder(speech[:, :20], lengths, phones=phones[:, :20]).features
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=0.0)


def test_a_long_phone_across_borders_of_chunks_is_one_phone():
    model = perturbed(TINY)
    speech = torch.randn(1, 400, TINY.speech.input_dim)
    phones = torch.full((1, 400), 5 + model.speech_content.num_phones)
    phones[:, 90:300] += 3
    style = model.neutral_style()
    whole = generate(model, speech, style, num_frames=400, phones=phones)
    cut = generate(model, speech, style, num_frames=400, phones=phones, chunk_frames=23)
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=0.0)


def test_a_model_without_it_gets_it_and_does_the_same(tmp_path):
    bare = perturbed(BARE)
    extended = with_phone_context(bare, TINY)
    speech, phones = torch.randn(1, 50, TINY.speech.input_dim), torch.full((1, 50), 5)
    made = [
        generate(model, speech, model.neutral_style(), num_frames=50, phones=phones)
        for model in (bare, extended)
    ]
    assert torch.equal(*made)
    assert with_phone_context(extended, TINY) is extended
    checkpoint.save(tmp_path, bare, card="")
    assert trained_before([tmp_path], TINY, lip_steps=0).config == TINY


def test_a_mean_with_a_model_from_before_halves_what_it_adds(tmp_path):
    command = {"command": "train"}
    new = perturbed(TINY)
    checkpoint.save(tmp_path / "old", perturbed(BARE), card="", training=command)
    checkpoint.save(tmp_path / "new", new, card="", training=command)
    mean = checkpoint.load_mean([tmp_path / "old", tmp_path / "new"])
    assert mean.config == TINY
    part, halved = new.speech_content.phone_context, mean.speech_content.phone_context
    torch.testing.assert_close(halved.leave.weight, 0.5 * part.leave.weight, atol=1e-3, rtol=0.0)


def test_checkpoints_from_before_still_load(tmp_path):
    checkpoint.save(tmp_path, perturbed(BARE), card="")
    path = tmp_path / CONFIG_NAME
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["model"]["phone_context_width"]
    path.write_text(json.dumps(config), encoding="utf-8")
    assert checkpoint.load(tmp_path).speech_content.phone_context is None


def test_it_needs_phones_and_features():
    with pytest.raises(ValueError, match="phone_context_width needs"):
        dataclasses.replace(TINY, num_phone_ids=1)
    with pytest.raises(ValueError, match="phone_context_width needs"):
        dataclasses.replace(PRESETS["vocaset"], phone_context_width=8)
