# SPDX-License-Identifier: GPL-3.0-or-later
"""D: content and style to motion, all frames at once or one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.model.attention import WindowedAttention
from backend.model.config import ModelConfig
from backend.model.optimizer_groups import optimised_by_adamw


class StyledNorm(nn.Module):
    """Layer norm whose scale and shift the style moves (Mimic's style-adaptive layer norm)."""

    def __init__(self, width: int, style_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.modulation = nn.Linear(style_dim, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Shapes ``(B, T, width)`` and ``(B, D)``; returns the first."""
        scale, shift = self.modulation(style).unsqueeze(1).chunk(2, dim=-1)
        normed: Tensor = self.norm(x)
        return normed * (1.0 + scale) + shift


class DecoderLayer(nn.Module):
    """Content, then self-attention, then feed-forward, each residual after a styled norm.

    Departures: content comes first, since the queries of parallel decoding are all alike until they
    have seen it; the released decoder sees exactly one frame of content and has no style in its
    norms.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads = config.feature_dim, config.decoder_heads
        self.content_norm = StyledNorm(width, config.style_dim)
        self.self_norm = StyledNorm(width, config.style_dim)
        self.ff_norm = StyledNorm(width, config.style_dim)
        self.content_linear: nn.Linear | None = None
        if config.alignment == "linear":
            self.content_linear = nn.Linear(width, width)
        else:
            self.content_attention = WindowedAttention(
                width, heads, left=config.cross_window, right=config.cross_window
            )
            num_distances = 2 * config.cross_window + 1
            self.distance_scores = optimised_by_adamw(
                nn.Linear(config.style_dim, heads * num_distances, bias=False)
            )
            nn.init.zeros_(self.distance_scores.weight)
        self.self_attention = WindowedAttention(
            width, heads, left=config.self_window, right=config.self_window
        )
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.decoder_ff), nn.GELU(), nn.Linear(config.decoder_ff, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, content: Tensor, mask: Tensor, style: Tensor, *, causal: bool
    ) -> Tensor:
        """Shapes ``(B, T, F)`` twice, ``(B, T)`` and ``(B, D)``; returns the first."""
        if self.content_linear is not None:
            x = x + self.dropout(self.content_linear(content))
        else:
            normed = self.content_norm(x, style)
            bias = self.content_bias(style)
            x = x + self.dropout(self.content_attention(normed, content, mask, bias=bias))
        normed = self.self_norm(x, style)
        x = x + self.dropout(self.self_attention(normed, normed, mask, causal=causal))
        return x + self.dropout(self.feed_forward(self.ff_norm(x, style)))

    def content_bias(self, style: Tensor) -> Tensor:
        """Where in time each head looks for content, in a style ``(B, D)``; ``(B, H, distances)``.

        A style may come early or late, which no attention can follow whose bias by distance is
        the same for all styles.
        """
        bias = self.content_attention.distance_bias
        moved: Tensor = bias + self.distance_scores(style).unflatten(-1, bias.shape)
        return moved


class MotionDecoder(nn.Module):
    """D: queries, content and style to one hidden frame per frame.

    Positions are relative only (a bias by distance), so there is no longest sequence. In
    parallel, a query is a learned vector and the style; autoregressive, the motion of the frame
    before (encoded by E_G) and the style, and self-attention sees no later frame. Content is
    known ahead either way.
    """

    def __init__(self, config: ModelConfig, feedback_features: int) -> None:
        super().__init__()
        width = config.feature_dim
        self.receptive_field = config.decoder_layers * config.self_window + config.cross_window * (
            config.alignment == "attention"
        )
        self.start = nn.Parameter(torch.zeros(width))
        self.style_query = nn.Linear(config.style_dim, width)
        self.feedback = nn.Linear(feedback_features, width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = StyledNorm(width, config.style_dim)

    def queries(self, style: Tensor, num_frames: int) -> Tensor:
        """Of parallel decoding, shape ``(B, T, F)``."""
        return (self.start + self.style_query(style)).unsqueeze(1).expand(-1, num_frames, -1)

    def fed_back(self, style: Tensor, features: Tensor) -> Tensor:
        """Autoregressive: from E_G's features of the frames *before*, ``(B, T, features)``."""
        queries: Tensor = self.feedback(features) + self.style_query(style).unsqueeze(1)
        return queries

    def forward(
        self, queries: Tensor, content: Tensor, mask: Tensor, style: Tensor, *, causal: bool
    ) -> Tensor:
        """Decode all frames at once.

        Args:
            queries: Shape ``(B, T, F)``.
            content: Shape ``(B, T, F)``.
            mask: True at valid frames, shape ``(B, T)``.
            style: Shape ``(B, D)``.
            causal: Whether self-attention sees no later frame.

        Returns:
            Shape ``(B, T, F)``.
        """
        x = queries
        for layer in self.layers:
            x = layer(x, content, mask, style, causal=causal)
        out: Tensor = self.norm(x, style)
        return out
