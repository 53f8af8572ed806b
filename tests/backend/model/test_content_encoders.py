# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace

import torch

from backend.model.attention import frame_mask
from backend.model.generate import generate
from backend.model.presets import PRESETS
from tests.backend.model.samples import build, random_batch, small

TINY = PRESETS["tiny"]


def test_input_phones_bypass_an_encoder_that_ignores_them():
    model = build(replace(TINY, phone_context_width=0), lively=True).eval()
    batch = random_batch(TINY, (20,))
    with torch.no_grad():
        model.speech_content.phone_embedding.weight.zero_()
    encoder = model.speech_content
    phones = torch.full((1, 20), 5)
    plain, given = (
        encoder(batch.speech, batch.speech_lengths, phones=given) for given in (None, phones)
    )
    torch.testing.assert_close(given.hidden, plain.hidden)
    spoken = encoder.spoken_embedding.weight[5]
    torch.testing.assert_close(given.features, plain.features + spoken)
    marked = encoder(batch.speech, batch.speech_lengths, phones=phones + encoder.num_phones)
    torch.testing.assert_close(marked.features, given.features)


def test_a_frozen_speech_encoder_still_trains_what_reads_it():
    model = build(TINY)
    batch = random_batch(TINY, (20,))
    contents = model.speech_content(batch.speech, batch.speech_lengths, trains_encoder=False)
    contents.features.square().sum().backward()
    assert model.speech_content.content.weight.grad is not None
    assert all(value.grad is None for value in model.speech_content.encoder.parameters())
    assert not contents.phone_logits.requires_grad


def test_phones_are_optional_and_matter():
    model = build(TINY, lively=True).eval()
    speech, lengths = torch.randn(1, 20, 160), torch.tensor([20])
    without = model.speech_content(speech, lengths).features
    unknown = model.speech_content(
        speech, lengths, phones=torch.zeros(1, 20, dtype=torch.int64)
    ).features
    given = model.speech_content(speech, lengths, phones=torch.full((1, 20), 7)).features
    torch.testing.assert_close(without, unknown)
    assert not torch.allclose(without, given)


def test_recognised_given_and_own_phones_have_separate_embeddings():
    model = build(PRESETS["tiny"], lively=True).eval()
    encoder, batch = model.speech_content, random_batch(model.config, (20,))
    given = batch.phones.clamp(min=1)
    contents = [
        encoder(
            batch.speech, batch.speech_lengths, phones=given + shift * encoder.num_phones
        ).features
        for shift in range(3)
    ]
    assert not torch.allclose(contents[0], contents[1])
    assert not torch.allclose(contents[1], contents[2])
    nothing = torch.zeros_like(given)
    with torch.no_grad():
        encoder.phones.bias[5] = 50.0  # surely this one
        own = encoder.self_conditioned_phones(batch.speech, batch.speech_lengths, nothing)
        marked = given + encoder.num_phones
        kept = encoder.self_conditioned_phones(batch.speech, batch.speech_lengths, marked)
        encoder.phones.bias[0] = 99.0  # surely none
        none = encoder.self_conditioned_phones(batch.speech, batch.speech_lengths, nothing)
    assert (own == 5 + 2 * encoder.num_phones).all()
    assert torch.equal(kept, marked)
    assert (none == 0).all()


def model_that_doubts(num_frames):
    """A phone classifier for 8, nearly as much for 7, never for 9; recognised: first 7, then 9."""
    model = build(PRESETS["tiny"], lively=True).eval()
    encoder = model.speech_content
    with torch.no_grad():
        encoder.phones.weight.zero_()
        encoder.phones.bias.zero_()
        encoder.phones.bias[7], encoder.phones.bias[8] = 5.0, 5.4
    given = torch.full((1, num_frames), 7)
    given[:, num_frames // 2 :] = 9
    return model, torch.randn(1, num_frames, 160), given


@torch.no_grad()
def test_recognised_phones_count_as_much_as_the_phone_classifier_agrees():
    model, speech, given = model_that_doubts(200)
    encoder, lengths = model.speech_content, torch.tensor([200])
    found = encoder.self_conditioned_phones(speech, lengths, given)
    own = 2 * encoder.num_phones
    assert (encoder.self_conditioned_phones(speech, lengths, None) == 8 + own).all()
    assert (found[:, :20] == 7 + own).all()  # the classifier nearly agrees
    assert (found[:, -20:] == 8 + own).all()  # it never agrees


def test_recognised_phones_are_weighed_alike_in_chunks_and_in_one_piece():
    model, speech, given = model_that_doubts(400)
    style = model.neutral_style()
    whole = generate(model, speech, style, num_frames=400, phones=given)
    cut = generate(model, speech, style, num_frames=400, phones=given, chunk_frames=20)
    torch.testing.assert_close(cut, whole, atol=1e-4, rtol=0)


def test_phone_posteriors_are_the_same_in_chunks_and_in_one_piece():
    model = build(PRESETS["tiny"], lively=True).eval()
    encoder, speech = model.speech_content, random_batch(model.config, (300,)).speech
    whole = encoder.phone_log_posteriors(speech)
    assert whole.shape == (1, 300, model.config.num_phone_ids)
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(1, 300))
    assert whole.std(dim=1).max() > 0.01
    torch.testing.assert_close(
        encoder.phone_log_posteriors(speech, chunk_frames=7), whole, atol=1e-4, rtol=0
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


def test_own_phones_are_those_above_the_asked_confidence():
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (40,))
    encoder = model.speech_content
    counts = []
    for least in (0.0, 0.05, 1.0):
        own = encoder.self_conditioned_phones(
            batch.speech, batch.speech_lengths, None, confidence=least
        )
        counts.append(int((own > 0).sum()))
    assert counts[0] >= counts[1] >= counts[2] == 0
    assert counts[0] > 0
