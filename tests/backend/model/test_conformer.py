# SPDX-License-Identifier: GPL-3.0-or-later
"""The conformer against the published one, with the same parameters, where both are defined."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

from backend.model.attention import frame_mask
from backend.model.conformer import Conformer
from backend.model.presets import PRESETS
from tests.backend.model.samples import build

TINY = PRESETS["tiny"]
WINDOW_OF_ALL = replace(TINY.speech, window=40, dropout=0.0)


def published(config) -> Wav2Vec2BertModel:
    model = Wav2Vec2BertModel(
        Wav2Vec2BertConfig(
            feature_projection_input_dim=config.stacking * config.input_dim,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.ff_size,
            conv_depthwise_kernel_size=config.kernel_size,
            position_embeddings_type=None,
            apply_spec_augment=False,
            mask_time_prob=0.0,
            mask_feature_prob=0.0,
        )
    )
    return model.eval()


def with_parameters_of(model: Wav2Vec2BertModel, config) -> Conformer:
    """Ours with the published parameters; without a bias by distance, which it has none of."""
    ours = Conformer(config).eval()
    given = {k: v for k, v in model.state_dict().items() if "projection.layer_norm" not in k}
    biases = {k: torch.zeros_like(v) for k, v in ours.state_dict().items() if "distance_bias" in k}
    ours.load_state_dict(given | biases, strict=True)
    return ours


@torch.no_grad()
def test_conformer_equals_the_published_one_where_all_is_seen_and_kernels_are_1():
    torch.manual_seed(0)
    config = replace(WINDOW_OF_ALL, kernel_size=1, num_layers=3)
    model = published(config)
    ours = with_parameters_of(model, config)
    features, lengths = torch.randn(2, 40, config.input_dim), torch.tensor([40, 23])
    mask = frame_mask(lengths, 40)
    expected = model(features, attention_mask=mask).last_hidden_state
    found = ours(F.layer_norm(features, features.shape[-1:]), mask)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row, :length], expected[row, :length])


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [3, 5, 15])
def test_convolution_is_the_published_one_without_its_delay(kernel_size):
    torch.manual_seed(0)
    config = replace(WINDOW_OF_ALL, kernel_size=kernel_size)
    model = published(config)
    ours = with_parameters_of(model, config).encoder.layers[0].conv_module
    delay = kernel_size // 2
    x, mask = torch.randn(2, 20, config.hidden_size), frame_mask(torch.tensor([20, 11]), 20)
    late = model.encoder.layers[0].conv_module(
        F.pad(x, (0, 0, 0, delay)), attention_mask=F.pad(mask, (0, delay))
    )
    torch.testing.assert_close(ours(x, mask), late[:, delay:])


def test_an_encoded_frame_does_not_lead_or_lag():
    """The depthwise convolution is centred: the receptive field is symmetric around a frame."""
    model = build(TINY, lively=True).eval()
    speech = torch.randn(1, 81, 160, requires_grad=True)
    content = model.speech_content(speech, torch.tensor([81]))
    content.features[0, 40].sum().backward()
    reached = speech.grad[0].abs().sum(-1).nonzero().flatten()
    assert reached.max() - 40 == 40 - reached.min() == model.speech_content.receptive_field
