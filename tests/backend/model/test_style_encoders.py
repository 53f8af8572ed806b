# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace

import pytest
import torch

from backend.model.presets import PRESETS
from backend.model.style_encoders import lead_lag, node_statistics
from tests.backend.model.samples import build, random_batch

TINY = PRESETS["tiny"]


def test_style_strength_goes_from_neutral_to_the_style():
    model = build(TINY, lively=True).eval()
    style = model.encode_motion_style(torch.rand(1, 40, 52))
    neutral = model.neutral_style()
    torch.testing.assert_close(model.scaled_style(style, 0.0), neutral)
    torch.testing.assert_close(model.scaled_style(style, 1.0), style)
    torch.testing.assert_close(model.scaled_style(style, 0.5), (style + neutral) / 2)
    assert not torch.allclose(style, neutral)


@pytest.mark.parametrize("kept", [(), ("identity",), ("speech",), ("motion",)])
def test_any_source_of_style_alone_suffices(kept):
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (10, 10))
    styles = {source: style for source, style in model(batch).styles.items() if source in kept}
    fused = model.fusion(styles, batch_size=2)
    assert fused.isfinite().all()
    assert torch.allclose(fused, model.neutral_style(2)) == (not kept)


def test_a_fitted_reader_estimates_known_dimensions_in_the_first_of_the_code():
    model = build(PRESETS["tiny"])
    style = model.motion_style
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(800, 2, generator=generator)
    # One cause moves every node's mean; the other moves when half of them follow the others.
    beats = torch.randn(800, 64, generator=generator)
    early = (known[:, 1] > 0).unsqueeze(1)
    half = torch.where(early, beats.roll(-2, 1), beats.roll(2, 1))
    num_nodes = model.config.num_nodes
    nodes = beats[:, :, None, None].repeat(1, 1, num_nodes, 3)
    nodes[:, :, num_nodes // 2 :] = half[:, :, None, None]
    shape = torch.randn(num_nodes, 3, generator=generator)
    nodes = nodes * shape + known[:, 0, None, None, None]
    nodes += 0.1 * torch.randn(nodes.shape, generator=generator)
    mask = torch.ones(800, 64, dtype=torch.bool)
    found = torch.stack((known[:, 0], torch.sign(known[:, 1])), dim=1)
    parts = zip(nodes.split(200), mask.split(200), found.split(200), strict=True)
    assert style.fit(parts) < 0.02

    seen = style.decorrelation(node_statistics(nodes, mask))
    with torch.no_grad():
        part = lead_lag(style.components(nodes.flatten(2)), mask, style.lags)
        read = style.linear(torch.cat((seen.clamp(-4, 4), part), dim=1))[:, :2]
        blind = style.linear(torch.cat((seen.clamp(-4, 4), part.mean(0).expand_as(part)), dim=1))
    assert float((read - found).square().mean()) < 0.02
    assert float((blind[:, 1] - found[:, 1]).square().mean()) > 0.5  # no mean shows what leads
    assert not style.decorrelation.weight.requires_grad
    assert not style.components.weight.requires_grad
    torch.testing.assert_close(seen.mean(0), torch.zeros(seen.shape[1]), atol=1e-2, rtol=0.0)


def test_what_leads_is_the_odd_part_of_the_correlation_at_a_lag():
    pulse = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    both = torch.stack((pulse, pulse.roll(2)), dim=1)
    x = torch.stack((both, both.flip(1), torch.full_like(both, 9.0)))
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[2] = False
    found = lead_lag(x, mask, (2, 10))
    assert found.shape == (3, 2)
    mean, spread = 1 / 6, (5 / 36) ** 0.5
    low, high = -mean / (spread + 0.1), (1 - mean) / (spread + 0.1)
    forward = (high * high + 3 * low * low) / 6  # frames 0 to 3 of one, 2 to 5 of the other
    backward = (high * low + 3 * low * low) / 6
    torch.testing.assert_close(found[0], torch.tensor([forward - backward, 0.0]))
    torch.testing.assert_close(found[1], -found[0])
    assert (found[2] == 0).all()  # padding only, and a lag longer than the motion


def test_the_nodes_statistics_leave_padding_out():
    nodes = torch.zeros(2, 4, 1, 3)
    nodes[:, :, 0, 0] = torch.tensor([1.0, 3.0, 1.0, 99.0])
    mask = torch.tensor([[True, True, True, False], [False] * 4])
    found = node_statistics(nodes, mask)[0].reshape(5, 3)[:, 0]
    mean, spread, speed = 5 / 3, (8 / 9) ** 0.5, 10 * (8 / 3) ** 0.5
    torch.testing.assert_close(found, torch.tensor([mean, spread, speed, 3.0, 1.0]))
    assert (node_statistics(nodes, mask)[1] == 0).all()


def test_the_strength_of_a_batch_scales_each_sequences_step_from_neutral():
    model = build(PRESETS["tiny"], lively=True).eval()
    batch = random_batch(model.config, (12, 12))
    styles = model.styles_of(batch)
    neutral = model.neutral_style(2)
    whole = model.fusion(styles, batch_size=2) - neutral
    scaled = model.fusion(styles, batch_size=2, strength=torch.tensor([0.0, 1.5])) - neutral
    torch.testing.assert_close(scaled, whole * torch.tensor([[0.0], [1.5]]))


def test_absent_sources_are_as_if_not_given():
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (10, 10))
    absent = replace(
        batch,
        speaker=torch.tensor([-1, -1]),
        style_motion_lengths=torch.tensor([0, 30]),
        style_speech_lengths=torch.tensor([0, 0]),
    )
    styles = model(absent).styles
    fused = model.fusion(styles, batch_size=2)
    torch.testing.assert_close(fused[0], model.neutral_style()[0])
    torch.testing.assert_close(
        fused[1], model.fusion({"motion": styles["motion"]}, batch_size=2)[1]
    )


def test_dropping_styles_in_training_leaves_one():
    model = build(replace(TINY, style_dropout=0.99), lively=True).train()
    present = torch.tensor([[True, True, True], [False, True, False], [False, False, False]])
    for _ in range(30):
        kept = model.fusion._drop(present)
        assert kept.any(1).tolist() == [True, True, False]
        assert not (kept & ~present).any()
