# SPDX-License-Identifier: GPL-3.0-or-later
"""Conformer over speech features, written out after Wav2Vec2-BERT.

The arithmetic and the names of parameters are those of ``Wav2Vec2BertModel`` of ``transformers``
(Conformer: Gulati et al. 2020), which a test compares. It is written out because four things
differ, for none of which the published model has a setting:

- The depthwise convolution is centred. The published one pads on the left alone, as for streaming,
  so each layer would move what was said to later frames; centred, it also sees what follows, as
  lips must.
- The input has no layer norm over its bands, which would take away the loudness of each frame,
  which tells a closure from a vowel; the features come normalised.
- Attention is bounded to a window, so that cost is linear in length and the receptive field is
  finite.
- Attention has a learned bias by distance, in place of position embeddings.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from backend.model.attention import alibi_table, windowed_attention
from backend.model.config import SpeechEncoderConfig
from backend.model.optimizer_groups import optimised_by_adamw

_BIAS_SCALE = 0.25  # of ALiBi's slopes, where the learned bias by distance begins


class Conformer(nn.Module):
    """Projection of stacked feature frames, then conformer layers.

    Args:
        config: Sizes of the encoder; its ``kind`` is not looked at.
    """

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.feature_projection = FeatureProjection(config)
        self.encoder = ConformerStack(config)
        self.apply(_initialise)
        bound = self.feature_projection.projection.in_features**-0.5
        for parameter in self.feature_projection.projection.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, features: Tensor, mask: Tensor, added: Tensor | None = None) -> Tensor:
        """Encode.

        Args:
            features: Stacked feature frames, shape ``(B, S, stacking * input_dim)``.
            mask: True at valid frames, shape ``(B, S)``.
            added: Embeddings that are added to the projected features, ``(B, S, hidden_size)``.

        Returns:
            Hidden frames, shape ``(B, S, hidden_size)``.
        """
        hidden: Tensor = self.feature_projection(features)
        if added is not None:
            hidden = hidden + added
        out: Tensor = self.encoder(hidden, mask)
        return out


class FeatureProjection(nn.Module):
    """Linear layer from features to the encoder's width."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.projection = optimised_by_adamw(
            nn.Linear(config.stacking * config.input_dim, config.hidden_size)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Shape ``(B, S, features)``; returns ``(B, S, hidden_size)``."""
        out: Tensor = self.dropout(self.projection(features))
        return out


class ConformerStack(nn.Module):
    """The conformer layers, one after the other."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Shapes ``(B, S, hidden_size)`` and ``(B, S)``; returns the first."""
        x = self.dropout(x.masked_fill(~mask.unsqueeze(-1), 0.0))
        for layer in self.layers:
            x = layer(x, mask)
        return x


class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, layer norm."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.ffn1_layer_norm = nn.LayerNorm(width)
        self.ffn1 = FeedForward(config)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn = SelfAttention(config)
        self.conv_module = ConvolutionModule(config)
        self.ffn2_layer_norm = nn.LayerNorm(width)
        self.ffn2 = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Shapes ``(B, S, hidden_size)`` and ``(B, S)``; returns the first."""
        x = self.ffn1(self.ffn1_layer_norm(x)) * 0.5 + x
        x = self.self_attn(self.self_attn_layer_norm(x), mask) + x
        x = x + self.conv_module(x, mask)
        x = self.ffn2(self.ffn2_layer_norm(x)) * 0.5 + x
        out: Tensor = self.final_layer_norm(x)
        return out


class FeedForward(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.ff_size)
        self.output_dense = nn.Linear(config.ff_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(B, S, hidden_size)``, kept."""
        x = self.dropout(F.silu(self.intermediate_dense(x)))
        out: Tensor = self.dropout(self.output_dense(x))
        return out


class SelfAttention(nn.Module):
    """Multi-head attention within a window, with a learned bias per head and distance."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        width, self.num_heads, self.window = config.hidden_size, config.num_heads, config.window
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        table = alibi_table(config.num_heads, left=config.window, right=config.window)
        self.distance_bias = nn.Parameter(_BIAS_SCALE * table)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Shapes ``(B, S, hidden_size)`` and ``(B, S)``; returns the first."""
        query, key, value = (
            linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, S, D)
            for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        out = windowed_attention(query, key, value, self.distance_bias, mask, left=self.window)
        joined: Tensor = self.linear_out(out.transpose(1, 2).flatten(2))
        return joined


class ConvolutionModule(nn.Module):
    """Gated pointwise convolution, centred depthwise convolution, pointwise convolution."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        width, self.margin = config.hidden_size, config.kernel_size // 2
        self.layer_norm = nn.LayerNorm(width)
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(width, width, config.kernel_size, groups=width, bias=False)
        self.depthwise_layer_norm = nn.LayerNorm(width)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Shapes ``(B, S, hidden_size)`` and ``(B, S)``; returns the first."""
        x = self.layer_norm(x).masked_fill(~mask.unsqueeze(-1), 0.0)
        x = F.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)  # (B, C, S)
        x = self.depthwise_conv(F.pad(x, (self.margin, self.margin)))
        x = F.silu(self.depthwise_layer_norm(x.transpose(1, 2)).transpose(1, 2))
        out: Tensor = self.dropout(self.pointwise_conv2(x))
        return out.transpose(1, 2)


def conformer_receptive_field(config: SpeechEncoderConfig) -> int:
    """Feature frames on each side that an output frame depends on; chunks start at whole stacks."""
    return config.stacking * config.num_layers * (config.window + config.kernel_size // 2)


def _initialise(module: nn.Module) -> None:
    """Wav2Vec2-BERT's random parameters; depthwise convolutions keep PyTorch's."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv1d) and module.groups == 1:
        nn.init.kaiming_normal_(module.weight)
