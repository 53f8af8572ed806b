# SPDX-License-Identifier: GPL-3.0-or-later
"""D: content and style to motion, all frames at once or one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.config import ModelConfig
from backend.model.attention import MASKED, WindowedAttention


@dataclass(slots=True)
class DecoderCache:
    """What stepwise decoding keeps: bounded by the window, whatever the length.

    Attributes:
        keys: Of each layer's self-attention, the last ones, shape ``(B, H, n, D)``.
        values: Likewise.
    """

    keys: list[Tensor]
    values: list[Tensor]


@dataclass(frozen=True, slots=True)
class ContentMemory:
    """A stretch of content as each layer's cross-attention needs it.

    Attributes:
        keys: By layer, shape ``(B, H, T + 2 * window, D)``; of a linear alignment its result
            ``(B, T, F)``.
        values: Likewise; empty for a linear alignment.
        mask: True at valid frames, shape ``(B, T + 2 * window)``.
    """

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor


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
            x = x + self.dropout(self.content_attention(normed, content, mask))
        normed = self.self_norm(x, style)
        x = x + self.dropout(self.self_attention(normed, normed, mask, causal=causal))
        return x + self.dropout(self.feed_forward(self.ff_norm(x, style)))

    def remember(self, content: Tensor) -> tuple[Tensor, Tensor | None]:
        """What steps need of a stretch of content, computed once for all of them."""
        if self.content_linear is not None:
            return self.content_linear(content), None
        attention = self.content_attention
        pad = (0, 0, attention.left, attention.left)
        keys = F.pad(attention.split(attention.key(content)), pad)
        return keys, F.pad(attention.split(attention.value(content)), pad)

    def step(
        self,
        x: Tensor,
        frame: int,
        memory: tuple[Tensor, Tensor | None, Tensor],
        past: tuple[Tensor, Tensor],
        style: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One frame of the causal ``forward``.

        Args:
            x: Its query, shape ``(B, 1, F)``.
            frame: Its place in the stretch of content.
            memory: Keys, values and mask of that stretch.
            past: Keys and values of the frames before, as far as the window reaches.
            style: Shape ``(B, D)``.

        Returns:
            The frame, and the past for the next.
        """
        keys, values, mask = memory
        if values is None:
            x = x + keys[:, frame : frame + 1]
        else:
            seen = slice(frame, frame + 2 * self.content_attention.left + 1)
            normed = self.content_norm(x, style)
            x = x + _attend_once(
                self.content_attention,
                normed,
                (keys[:, :, seen], values[:, :, seen]),
                torch.where(
                    mask[:, None, None, seen],
                    self.content_attention.distance_bias.unsqueeze(1),
                    MASKED,
                ),
            )
        attention = self.self_attention
        normed = self.self_norm(x, style)
        keys = torch.cat((past[0], attention.split(attention.key(normed))), dim=2)
        values = torch.cat((past[1], attention.split(attention.value(normed))), dim=2)
        keys, values = keys[:, :, -attention.left - 1 :], values[:, :, -attention.left - 1 :]
        bias = attention.distance_bias[:, attention.left + 1 - keys.shape[2] : attention.left + 1]
        x = x + _attend_once(attention, normed, (keys, values), bias.unsqueeze(1))
        return x + self.feed_forward(self.ff_norm(x, style)), (keys, values)


def _attend_once(
    attention: WindowedAttention, x: Tensor, seen: tuple[Tensor, Tensor], bias: Tensor
) -> Tensor:
    """A single query over the keys and values that its window holds; bias ``(B or 1, H, 1, n)``."""
    query = attention.split(attention.query(x))
    out = F.scaled_dot_product_attention(query, *seen, attn_mask=bias)
    return attention.join(out)


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
        self.reach = config.decoder_layers * config.self_window + config.cross_window * (
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

    def empty_cache(self, batch_size: int) -> DecoderCache:
        """The past of a first frame."""
        attention = self.layers[0].self_attention
        width = attention.key.weight.shape[0]
        none = self.start.new_zeros(
            batch_size, attention.num_heads, 0, width // attention.num_heads
        )
        return DecoderCache([none] * len(self.layers), [none] * len(self.layers))

    def remember(self, content: Tensor, mask: Tensor) -> ContentMemory:
        """Prepare a stretch of content for steps; shapes ``(B, T, F)`` and ``(B, T)``."""
        kept = [layer.remember(content) for layer in self.layers]
        pad = (kept[0][0].shape[2] - content.shape[1]) // 2 if kept[0][1] is not None else 0
        values = [value for _, value in kept if value is not None]
        return ContentMemory([key for key, _ in kept], values, F.pad(mask, (pad, pad)))

    def step(
        self, query: Tensor, frame: int, memory: ContentMemory, cache: DecoderCache, style: Tensor
    ) -> Tensor:
        """Decode one frame as causal ``forward`` would, and move the cache on.

        Args:
            query: Shape ``(B, 1, F)``.
            frame: Its place in the stretch of content.
            memory: That stretch.
            cache: The frames before; changed.
            style: Shape ``(B, D)``.

        Returns:
            Shape ``(B, 1, F)``.
        """
        x = query
        for number, layer in enumerate(self.layers):
            values = memory.values[number] if memory.values else None
            past = cache.keys[number], cache.values[number]
            x, (keys, kept) = layer.step(
                x, frame, (memory.keys[number], values, memory.mask), past, style
            )
            cache.keys[number], cache.values[number] = keys, kept
        out: Tensor = self.norm(x, style)
        return out
