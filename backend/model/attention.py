# SPDX-License-Identifier: GPL-3.0-or-later
"""Attention within a window around each frame, and masks of padding.

Cost and memory are linear in length and the receptive field is bounded, so a sequence of any length
may be worked off in chunks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASKED = -1e4  # exp() of it is exactly 0 in float32, and it fits float16


def frame_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """True at valid frames, shape ``(B, num_frames)``."""
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def alibi_table(num_heads: int, *, left: int, right: int) -> Tensor:
    """Attention with linear biases, by distance, shape ``(num_heads, left + 1 + right)``.

    Entry ``[h, left + d]`` is ``-slope_h * |d|`` for a key ``d`` frames after the query; slopes
    fall by half from head to head, from 1/2. Source: Press et al. 2022, and FaceFormer's use of
    it; here per frame and not per period, and to both sides.
    """
    slopes = 0.5 ** torch.arange(1, num_heads + 1, dtype=torch.float32)
    distances = torch.arange(-left, right + 1, dtype=torch.float32).abs()
    return -slopes[:, None] * distances


def windowed_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, mask: Tensor, *, left: int
) -> Tensor:
    """Softmax attention in which frame ``i`` sees frames ``i - left`` to ``i + right`` only.

    Queries are cut into blocks, and each block gets the stretch of keys that its frames can see, so
    cost is ``O(T * (left + right))``.

    Args:
        query: Shape ``(B, H, T, D)``.
        key: The same shape.
        value: The same shape.
        bias: Added to the scores by distance, shape ``(H, left + 1 + right)``, or one for each
            sequence, ``(B, H, left + 1 + right)``.
        mask: True at valid keys, shape ``(B, T)``.
        left: Frames seen before the query's own.

    Returns:
        Shape ``(B, H, T, D)``; frames that see no valid key hold finite values without meaning.
    """
    B, H, T, D = query.shape
    receptive_field = bias.shape[-1] - 1
    block = max(receptive_field, 16)
    window = block + receptive_field
    padding = (-T) % block
    blocks = (T + padding) // block
    before_after = (left, padding + receptive_field - left)
    query = F.pad(query, (0, 0, 0, padding)).view(B, H, blocks, block, D)
    key = F.pad(key, (0, 0, *before_after)).unfold(2, window, block).transpose(3, 4)
    value = F.pad(value, (0, 0, *before_after)).unfold(2, window, block).transpose(3, 4)
    seen = F.pad(mask, before_after).unfold(1, window, block)  # (B, blocks, window)
    steps = torch.arange(window, device=query.device) - torch.arange(
        block, device=query.device
    ).unsqueeze(
        1
    )  # (block, window): place in the window, outside of it where < 0 or > receptive_field
    inside = (steps >= 0) & (steps <= receptive_field)
    scores = bias.to(query.dtype)[..., steps.clamp(0, receptive_field)]  # (..., H, block, window)
    visible = inside & seen[:, None, :, None, :]  # (B, 1, blocks, block, window)
    scores = torch.where(visible, scores.unsqueeze(-3), MASKED)  # (B, H, blocks, block, window)

    def fold(x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(B * blocks, H, x.shape[3], x.shape[4])

    out = F.scaled_dot_product_attention(
        fold(query), fold(key), fold(value), attn_mask=fold(scores)
    )
    out = out.view(B, blocks, H, block, D).transpose(1, 2).reshape(B, H, blocks * block, D)
    return out[:, :, :T]


class WindowedAttention(nn.Module):
    """Multi-head attention within a window, with a learned bias per head and distance.

    The bias starts as ALiBi's; it is learned because a fixed slope cannot tell earlier from later.
    """

    def __init__(self, width: int, num_heads: int, *, left: int, right: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.left = left
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # a bias of keys changes no softmax
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.distance_bias = nn.Parameter(alibi_table(num_heads, left=left, right=right))

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        mask: Tensor,
        *,
        causal: bool = False,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Attend from ``x`` to ``context``, ``(B, T, width)``, valid where ``mask`` ``(B, T)``.

        With ``causal``, no frame sees a later one. ``bias`` ``(B, H, left + 1 + right)`` takes the
        place of ``distance_bias``.
        """
        if bias is None:
            bias = self.distance_bias
        out = windowed_attention(
            self.split(self.query(x)),
            self.split(self.key(context)),
            self.split(self.value(context)),
            bias[..., : self.left + 1] if causal else bias,
            mask,
            left=self.left,
        )
        return self.join(out)

    def split(self, x: Tensor) -> Tensor:
        """Heads apart: ``(B, T, width)`` to ``(B, H, T, D)``."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def join(self, x: Tensor) -> Tensor:
        """Heads together again, through the last linear layer."""
        joined: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return joined


class TransformerLayer(nn.Module):
    """Pre-norm self-attention within a window and a feed-forward layer.

    The released encoders are post-norm with attention over everything; pre-norm trains without
    warm-up troubles, and the window bounds receptive field and cost.
    """

    def __init__(self, width: int, num_heads: int, *, window: int, ff: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowedAttention(width, num_heads, left=window, right=window)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, ff), nn.GELU(), nn.Linear(ff, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Shapes ``(B, T, width)`` and ``(B, T)``; returns the first."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, mask))
        return x + self.dropout(self.feed_forward(x))


class MaskedConv(nn.Module):
    """Convolution over time in which padding counts as silence: zeros, like the border."""

    def __init__(self, width_in: int, width_out: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width_in, width_out, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Shapes ``(B, T, width_in)`` and ``(B, T)``; returns ``(B, T, width_out)``."""
        masked = x * mask.unsqueeze(-1)
        out: Tensor = self.conv(masked.transpose(1, 2))
        return out.transpose(1, 2)
