# SPDX-License-Identifier: GPL-3.0-or-later
import torch

from backend.model.presets import PRESETS
from tests.backend.model.samples import build

TINY = PRESETS["tiny"]


def test_causal_decoder_has_no_gradient_from_later_frames():
    model = build(TINY, lively=True).eval()
    T, frame = 20, 11
    features = torch.randn(1, T, model.graph_encoder.width, requires_grad=True)
    content, mask = torch.randn(1, T, TINY.feature_dim), torch.ones(1, T, dtype=torch.bool)
    style = model.neutral_style()
    queries = model.decoder.fed_back(style, features)
    model.decoder(queries, content, mask, style, causal=True)[:, frame].sum().backward()
    assert not features.grad[:, frame + 1 :].any()
    assert features.grad[:, : frame + 1].abs().sum(-1).gt(0).all()


def test_parallel_decoder_does_look_ahead():
    model = build(TINY, lively=True).eval()
    content = torch.randn(1, 20, TINY.feature_dim, requires_grad=True)
    style, mask = model.neutral_style(), torch.ones(1, 20, dtype=torch.bool)
    queries = model.decoder.queries(style, 20)
    model.decoder(queries, content, mask, style, causal=False)[:, 8].sum().backward()
    assert content.grad[:, 9:12].abs().sum() > 0


def test_a_style_may_look_for_content_elsewhere_in_time():
    model = build(TINY, lively=True).eval()
    layer = model.decoder.layers[0]
    styles = torch.stack((torch.zeros(TINY.style_dim), torch.ones(TINY.style_dim)))
    with torch.no_grad():
        layer.distance_scores.weight.zero_()
    plain = layer.content_bias(styles).clone()
    torch.testing.assert_close(plain[0], plain[1])
    with torch.no_grad():  # in a style of ones, the first head looks 3 frames ahead
        scores = layer.distance_scores.weight.view(TINY.decoder_heads, -1, TINY.style_dim)
        scores[0, TINY.cross_window + 3] = 1.0
    moved = layer.content_bias(styles)
    torch.testing.assert_close(moved[0], plain[0])
    difference = moved[1] - plain[1]
    assert difference[0, TINY.cross_window + 3] == TINY.style_dim
    assert difference.count_nonzero() == 1
