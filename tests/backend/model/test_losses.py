# SPDX-License-Identifier: GPL-3.0-or-later
import math
from dataclasses import fields, replace

import pytest
import torch
from torch.nn.functional import one_hot

from backend.model import losses
from backend.model.adversary import SpeakerAdversary, reverse_gradient
from backend.model.attention import frame_mask
from backend.model.config import LossWeights
from backend.model.loss_geometry import FaceGeometry, face_point_geometry
from backend.model.presets import PRESETS
from backend.model.style_encoders import StyleCodes
from tests.backend.model.samples import TRAIN_CONFIG, build, random_batch

CONTRAST = {
    "positive_frames": 1,
    "guard_frames": 5,
    "negative_share": 0.15,
    "temperature": 0.07,
}


def smooth_noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Noise that changes slowly along axis 1, as content does."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool1d(noise.transpose(1, 2), 5, 1, 2).transpose(1, 2)


def contrast(motion, audio, mask):
    return losses.contrastive(motion, audio, mask, **CONTRAST)


CONTENT_TERMS = {
    "contrastive": contrast,
    "divergence": losses.divergence,
    "orthogonality": losses.orthogonality,
    "reconstruction": losses.reconstruction,
    "velocity": losses.velocity,
    "displacement": lambda a, b, mask: losses.displacement(
        a.unflatten(2, (-1, 3)), b.unflatten(2, (-1, 3)), mask, torch.ones(a.shape[2] // 3)
    ),
    "spread": lambda a, b, mask: losses.spread(
        a.unflatten(2, (-1, 3)), b.unflatten(2, (-1, 3)), mask, torch.ones(a.shape[2] // 3)
    ),
    "speed": lambda a, b, mask: losses.speed(
        a.unflatten(2, (-1, 3)), b.unflatten(2, (-1, 3)), mask, torch.ones(a.shape[2] // 3)
    ),
    "lip_distance": lambda a, b, mask: losses.lip_distance(
        a.unflatten(2, (-1, 3)), b.unflatten(2, (-1, 3)), mask
    ),
    "closure": lambda a, b, mask: losses.closure(
        a.unflatten(2, (-1, 3)), b.unflatten(2, (-1, 3)), mask, 1.0
    ),
    "cycle": lambda a, b, mask: losses.cycle(
        a, b, mask, StyleCodes(a[:, 0], torch.ones(len(a), dtype=torch.bool)), b[:, 0]
    ),
}


@pytest.mark.parametrize("name", CONTENT_TERMS)
@pytest.mark.parametrize("lengths", [(40,), (1,), (40, 13, 1)])
def test_term_is_finite_at_batch_one_and_with_padding(name, lengths):
    shape = (len(lengths), max(lengths), 12)
    one, other = smooth_noise(*shape), smooth_noise(*shape, seed=1).requires_grad_()
    value = CONTENT_TERMS[name](one, other, frame_mask(torch.tensor(lengths), shape[1]))
    assert value.isfinite()
    assert value >= 0
    value.backward()
    assert other.grad.isfinite().all()


@pytest.mark.parametrize("name", CONTENT_TERMS)
def test_term_does_not_see_padding_or_the_order_of_the_batch(name):
    one, other = smooth_noise(3, 30, 12), smooth_noise(3, 30, 12, seed=1)
    lengths = torch.tensor([30, 21, 9])
    mask = frame_mask(lengths, 30)
    value = CONTENT_TERMS[name](one, other, mask)
    noisy = [torch.where(mask.unsqueeze(2), x, 100.0 * torch.randn_like(x)) for x in (one, other)]
    longer = [torch.cat((x, torch.randn(3, 8, 12)), dim=1) for x in noisy]
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(CONTENT_TERMS[name](*noisy, mask), value)
    torch.testing.assert_close(CONTENT_TERMS[name](*longer, frame_mask(lengths, 38)), value)
    torch.testing.assert_close(CONTENT_TERMS[name](one[order], other[order], mask[order]), value)


def test_contrast_orders_aligned_shifted_reversed_random():
    motion = smooth_noise(4, 80, 32)
    audio = motion + 0.1 * torch.randn_like(motion)
    mask = frame_mask(torch.tensor([80, 80, 70, 60]), 80)
    aligned = contrast(motion, audio, mask)
    shifted = contrast(motion, audio.roll(3, 1), mask)
    reversed_ = contrast(motion, audio.flip(1), mask)
    random = contrast(motion, smooth_noise(4, 80, 32, seed=5), mask)
    assert aligned < 0.5 * shifted
    assert shifted < reversed_
    assert shifted < random
    assert aligned < 0.2 * random


def test_divergence_orders_like_before_unlike():
    content, mask = smooth_noise(4, 80, 32), frame_mask(torch.full((4,), 80), 80)
    others = [
        content,
        content + 0.3 * torch.randn_like(content),
        content + torch.linspace(-2, 2, 32),
    ]
    values = [losses.divergence(content, other, mask) for other in others]
    assert values[0] < 1e-6
    assert values[0] < values[1] < values[2]


def test_contrast_of_few_frames_worked_by_hand():
    """Two frames of two directions, each its own positive. The guard band leaves no negative in the
    sequence; the other's first frame counts as the ceil(0.15 * 2) = 1 negative."""
    content = one_hot(torch.tensor([[0, 1], [0, 1]]), 2).float()
    value = losses.contrastive(
        content,
        content,
        torch.ones(2, 2, dtype=torch.bool),
        positive_frames=0,
        guard_frames=5,
        negative_share=0.15,
        temperature=1.0,
    )
    first = math.log((math.e + math.e) / math.e)  # the other's first frame is the same
    second = math.log((math.e + 1) / math.e)
    assert value == pytest.approx((first + second) / 2, abs=1e-5)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_directions_alone_count_where_that_is_claimed(scale):
    one, other = smooth_noise(2, 40, 12), smooth_noise(2, 40, 12, seed=1)
    mask = frame_mask(torch.tensor([40, 30]), 40)
    for term in (contrast, losses.orthogonality):
        torch.testing.assert_close(term(scale * one, other, mask), term(one, other, mask))
    torch.testing.assert_close(
        losses.divergence(scale * one, other, mask),
        losses.divergence(one, other, mask),
        rtol=0.05,
        atol=1e-3,
    )
    codes, same = torch.randn(6, 8), torch.eye(6, dtype=torch.bool).roll(1, 0)
    present = torch.ones(6, dtype=torch.bool)
    torch.testing.assert_close(
        losses.style_contrast(scale * codes, same, present, 0.1),
        losses.style_contrast(codes, same, present, 0.1),
    )


def test_divergence_worked_by_hand():
    """Means 1 apart at variance 1 in one of two dimensions, after layer norm of (+1, -1)."""
    motion = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])  # mean (0, 0), variance (1, 1)
    audio = torch.tensor([[[1.0, -1.0], [1.0, -1.0]]])  # mean (1, -1), variance floor 1e-4
    value = losses.divergence(motion, audio, torch.ones(1, 2, dtype=torch.bool))
    by_hand = 0.25 * ((1e-4 + 1) / 1 + (1 + 1) / 1e-4 - 2)
    assert value == pytest.approx(by_hand, rel=1e-3)


def test_orthogonality_is_one_for_a_copy_and_zero_for_independent_channels():
    time = torch.arange(64) / 64 * 2 * math.pi
    wave = torch.stack((time.sin(), (2 * time).sin()), dim=-1).unsqueeze(0)
    mask = torch.ones(1, 64, dtype=torch.bool)
    single = wave[:, :, :1]
    assert losses.orthogonality(single, 5 * single + 2, mask) == pytest.approx(1.0, abs=1e-5)
    assert losses.orthogonality(single, wave[:, :, 1:], mask) == pytest.approx(0.0, abs=1e-5)
    assert losses.orthogonality(wave, wave, mask) == pytest.approx(0.5, abs=1e-5)


def test_style_contrast_worked_by_hand():
    codes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    present = torch.tensor([True, True, True])
    value = losses.style_contrast(codes, same, present, 1.0)
    assert value == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-5)
    alone = losses.style_contrast(codes, same, torch.tensor([True, False, True]), 1.0)
    assert alone == 0.0  # nobody left has a positive


def test_style_contrast_is_zero_and_finite_at_batch_one():
    codes = torch.randn(2, 4, requires_grad=True)
    value = losses.style_contrast(
        codes, torch.ones(2, 2, dtype=torch.bool), torch.ones(2, dtype=torch.bool), 0.1
    )
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert codes.grad.isfinite().all()


def test_style_consistency_counts_pairs_that_are_present():
    one = StyleCodes(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([True, True]))
    other = StyleCodes(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([True, True]))
    opposite = StyleCodes(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor([False, True]))
    assert losses.style_consistency([one, other]) == pytest.approx(0.5)
    assert losses.style_consistency([one, opposite]) == pytest.approx(0.0)
    nobody = StyleCodes(one.code, torch.tensor([False, False]))
    assert losses.style_consistency([one, nobody]) == 0.0


def test_adversary_ignores_unknown_speakers():
    logits = torch.tensor([[0.0, 0.0], [50.0, -50.0]])
    assert losses.adversary(logits, torch.tensor([1, -1])) == pytest.approx(math.log(2))
    assert losses.adversary(logits, torch.tensor([-1, -1])) == 0.0


def test_phones_ignore_what_is_not_known():
    logits = torch.zeros(1, 3, 4)
    logits[0, 2] = 99.0 * one_hot(torch.tensor(1), 4)
    value = losses.phones(logits, torch.tensor([[2, -100, 3]]))
    assert value == pytest.approx((math.log(4) + 99.0) / 2)
    assert losses.phones(logits, torch.full((1, 3), -100)) == 0.0


def test_reconstruction_and_velocity_worked_by_hand():
    predicted = torch.tensor([[[1.0], [3.0], [9.0]]])
    true = torch.tensor([[[1.0], [1.0], [1.0]]])
    mask = torch.tensor([[True, True, False]])
    assert losses.reconstruction(predicted, true, mask) == pytest.approx(2.0)
    assert losses.velocity(predicted, true, mask) == pytest.approx(4.0)


def test_spread_and_speed_ask_for_how_much_moves_and_not_for_where():
    true = torch.zeros(1, 4, 1, 3)
    true[0, :, 0, 1] = torch.tensor([0.0, 2.0, 0.0, 2.0])  # deviation 1, steps of 2
    weights, mask = torch.ones(1), torch.ones(1, 4, dtype=torch.bool)
    moved = 5.0 + true
    assert losses.spread(moved, true, mask, weights) == pytest.approx(0.0)
    assert losses.speed(moved, true, mask, weights) == pytest.approx(0.0)
    half = 0.5 * true
    assert losses.spread(half, true, mask, weights) == pytest.approx(0.5**2)
    assert losses.speed(half, true, mask, weights) == pytest.approx(1.0)
    still = torch.ones_like(true)
    assert losses.spread(still, true, mask, weights) == pytest.approx(1.0, abs=1e-4)


def test_displacement_weighs_points():
    predicted = torch.zeros(1, 1, 2, 3)
    true = torch.tensor([[[[1.0, 2.0, 2.0], [1.0, 0.0, 0.0]]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    value = losses.displacement(predicted, true, mask, torch.tensor([1.5, 0.5]))
    assert value == pytest.approx((9 * 1.5 + 1 * 0.5) / 2)


def test_lips_that_should_meet_are_told_apart_from_open_ones():
    true = torch.tensor([[[[0.0, 0.0, 0.0]], [[0.0, 0.5, 0.0]]]])
    predicted = torch.tensor([[[[0.0, 0.3, 0.0]], [[0.0, 0.9, 0.0]]]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert losses.lip_distance(predicted, true, mask) == pytest.approx(0.35, abs=1e-4)
    assert losses.closure(predicted, true, mask, 0.02) == pytest.approx(0.3, abs=1e-4)


def test_lips_that_pass_through_each_other_do_not_count_as_closed():
    true, mask = torch.zeros(1, 1, 1, 3), torch.ones(1, 1, dtype=torch.bool)
    crossed = torch.tensor([[[[0.0, -0.1, 0.0]]]])
    assert losses.closure(crossed, true, mask, 0.02) == pytest.approx(0.1, abs=1e-4)


def test_gradient_reversal_reverses():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    reversed_ = reverse_gradient(x, 0.3)
    (reversed_ * torch.tensor([1.0, -2.0])).sum().backward()
    torch.testing.assert_close(reversed_, x)
    torch.testing.assert_close(x.grad, torch.tensor([-0.3, 0.6]))


def test_adversary_learns_while_content_unlearns():
    torch.manual_seed(0)
    content = torch.randn(4, 10, 8, requires_grad=True)
    guesser = SpeakerAdversary(8, 3)
    mask, speaker = torch.ones(4, 10, dtype=torch.bool), torch.tensor([0, 1, 2, 0])
    losses.adversary(guesser(content, mask, 1.0), speaker).backward()
    step = 0.1
    with torch.no_grad():
        before = losses.adversary(guesser(content, mask, 1.0), speaker)
        followed = losses.adversary(guesser(content - step * content.grad, mask, 1.0), speaker)
        for parameter in guesser.parameters():
            parameter -= step * parameter.grad
        learned = losses.adversary(guesser(content, mask, 1.0), speaker)
    assert followed > before  # content that follows its gradient hides the speaker
    assert learned < before


def test_lips_count_more_than_the_skull_and_pairs_are_named():
    names = ["lip_upper_inner_center", "lip_lower_inner_center", "crown", "chin"]
    geometry = face_point_geometry(names, torch.zeros(4, 3), torch.zeros(2, 4, 3))
    assert geometry.lip_pairs.tolist() == [[0, 1]]
    assert geometry.point_weights[0] > geometry.point_weights[3] > geometry.point_weights[2]
    assert geometry.point_weights.mean() == pytest.approx(1.0)


def test_total_weighs_every_named_term():
    model = build(PRESETS["tiny"], lively=True).eval()
    batch = random_batch(model.config, (14, 10))
    geometry = FaceGeometry(
        model.graph_encoder.positions,
        model.graph_encoder.basis,
        torch.ones(111),
        torch.tensor([[0, 1]]),
    )
    terms = losses.total(model(batch, with_cycle=True), batch, geometry, TRAIN_CONFIG)
    assert set(terms) == {field.name for field in fields(LossWeights)}
    doubled = replace(TRAIN_CONFIG.weights, phones=2.0 * TRAIN_CONFIG.weights.phones)
    heavier = losses.total(
        model(batch, with_cycle=True), batch, geometry, replace(TRAIN_CONFIG, weights=doubled)
    )
    for name, value in terms.items():
        torch.testing.assert_close(heavier[name], value * (2.0 if name == "phones" else 1.0))
    order = torch.tensor([1, 0])
    swapped = type(batch)(
        **{field.name: getattr(batch, field.name)[order] for field in fields(batch)}
    )
    again = losses.total(model(swapped, with_cycle=True), swapped, geometry, TRAIN_CONFIG)
    torch.testing.assert_close(sum(again.values()), sum(terms.values()), rtol=1e-4, atol=1e-4)


def test_a_loss_term_without_a_weight_is_refused():
    term = torch.ones(())
    with pytest.raises(ValueError, match="no weight for the loss terms new"):
        losses.weighted({"phones": term, "new": term}, TRAIN_CONFIG.weights)
    with pytest.raises(TypeError, match="phones"):
        LossWeights(reconstruction=1.0)
