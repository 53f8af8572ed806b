# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace

import torch

from backend.model.attention import frame_mask
from backend.model.generate import generate
from backend.model.presets import PRESETS
from tests.backend.model.samples import build, random_batch, small

TINY = PRESETS["tiny"]


def test_told_phones_reach_the_decoder_past_an_ear_that_ignores_them():
    model = build(replace(TINY, phone_context_width=0), lively=True).eval()
    batch = random_batch(TINY, (20,))
    with torch.no_grad():
        model.speech_content.phone_embedding.weight.zero_()
    ear = model.speech_content
    phones = torch.full((1, 20), 5)
    plain, told = (
        ear(batch.speech, batch.speech_lengths, phones=given) for given in (None, phones)
    )
    torch.testing.assert_close(told.hidden, plain.hidden)
    spoken = ear.spoken_embedding.weight[5]
    torch.testing.assert_close(told.features, plain.features + spoken)
    certain = ear(batch.speech, batch.speech_lengths, phones=phones + ear.num_phones)
    torch.testing.assert_close(certain.features, told.features)


def test_an_ear_that_is_left_as_it_is_still_trains_what_reads_it():
    model = build(TINY)
    batch = random_batch(TINY, (20,))
    heard = model.speech_content(batch.speech, batch.speech_lengths, trains_encoder=False)
    heard.features.square().sum().backward()
    assert model.speech_content.content.weight.grad is not None
    assert all(value.grad is None for value in model.speech_content.encoder.parameters())
    assert not heard.phone_logits.requires_grad


def test_phones_are_optional_and_matter():
    model = build(TINY, lively=True).eval()
    speech, lengths = torch.randn(1, 20, 160), torch.tensor([20])
    without = model.speech_content(speech, lengths).features
    unknown = model.speech_content(
        speech, lengths, phones=torch.zeros(1, 20, dtype=torch.int64)
    ).features
    told = model.speech_content(speech, lengths, phones=torch.full((1, 20), 7)).features
    torch.testing.assert_close(without, unknown)
    assert not torch.allclose(without, told)


def test_phones_are_trusted_by_where_they_come_from():
    model = build(PRESETS["tiny"], lively=True).eval()
    ear, batch = model.speech_content, random_batch(model.config, (20,))
    told = batch.phones.clamp(min=1)
    heard = [
        ear(batch.speech, batch.speech_lengths, phones=told + shift * ear.num_phones).features
        for shift in range(3)
    ]
    assert not torch.allclose(heard[0], heard[1])
    assert not torch.allclose(heard[1], heard[2])
    nothing = torch.zeros_like(told)
    with torch.no_grad():
        ear.phones.bias[5] = 50.0  # surely this one
        own = ear.self_conditioned_phones(batch.speech, batch.speech_lengths, nothing)
        certain = told + ear.num_phones
        kept = ear.self_conditioned_phones(batch.speech, batch.speech_lengths, certain)
        ear.phones.bias[0] = 99.0  # surely none
        none = ear.self_conditioned_phones(batch.speech, batch.speech_lengths, nothing)
    assert (own == 5 + 2 * ear.num_phones).all()
    assert torch.equal(kept, certain)
    assert (none == 0).all()


def model_that_doubts(num_frames):
    """An ear that always hears 8, nearly as well 7, and never 9; told first 7, then 9."""
    model = build(PRESETS["tiny"], lively=True).eval()
    ear = model.speech_content
    with torch.no_grad():
        ear.phones.weight.zero_()
        ear.phones.bias.zero_()
        ear.phones.bias[7], ear.phones.bias[8] = 5.0, 5.4
    told = torch.full((1, num_frames), 7)
    told[:, num_frames // 2 :] = 9
    return model, torch.randn(1, num_frames, 160), told


@torch.no_grad()
def test_recognised_phones_count_as_much_as_the_ear_agrees_with_them():
    model, speech, told = model_that_doubts(200)
    ear, lengths = model.speech_content, torch.tensor([200])
    found = ear.self_conditioned_phones(speech, lengths, told)
    own = 2 * ear.num_phones
    assert (ear.self_conditioned_phones(speech, lengths, None) == 8 + own).all()
    assert (found[:, :20] == 7 + own).all()  # a word of which the ear thinks well
    assert (found[:, -20:] == 8 + own).all()  # one of which it thinks ill


def test_recognised_phones_are_weighed_alike_in_chunks_and_in_one_piece():
    model, speech, told = model_that_doubts(400)
    style = model.neutral_style()
    whole = generate(model, speech, style, num_frames=400, phones=told)
    cut = generate(model, speech, style, num_frames=400, phones=told, chunk_frames=20)
    torch.testing.assert_close(cut, whole, atol=1e-4, rtol=0)


def test_what_the_ear_thinks_is_the_same_in_chunks_and_in_one_piece():
    model = build(PRESETS["tiny"], lively=True).eval()
    ear, speech = model.speech_content, random_batch(model.config, (300,)).speech
    whole = ear.phone_log_posteriors(speech)
    assert whole.shape == (1, 300, model.config.num_phone_ids)
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(1, 300))
    assert whole.std(dim=1).max() > 0.01
    torch.testing.assert_close(
        ear.phone_log_posteriors(speech, chunk_frames=7), whole, atol=1e-4, rtol=0
    )


def test_content_of_a_slower_motion_is_interpolated_in_time():
    model = build(replace(TINY, motion_fps=25.0))
    content = torch.arange(20.0).reshape(1, 20, 1)
    mask = frame_mask(torch.tensor([20]), 20)
    found, valid = model.speech_content.to_motion_clock(content, mask, 11)
    torch.testing.assert_close(found[0, :10, 0], torch.arange(0.0, 20.0, 2.0))
    assert valid[0].tolist() == [True] * 10 + [False]
    late = build(small(PRESETS["vocaset"])).speech_content.to_motion_clock(content, mask, 4)[0]
    expected = [0.0, 5 / 3 - 0.625, 10 / 3 - 0.625, 5 - 0.625]
    torch.testing.assert_close(late[0, :, 0], torch.tensor(expected))


def test_own_phones_are_those_above_the_asked_certainty():
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (40,))
    ear = model.speech_content
    counts = [
        int(
            (
                ear.self_conditioned_phones(batch.speech, batch.speech_lengths, None, sure=sure) > 0
            ).sum()
        )
        for sure in (0.0, 0.05, 1.0)
    ]
    assert counts[0] >= counts[1] >= counts[2] == 0
    assert counts[0] > 0
