# SPDX-License-Identifier: GPL-3.0-or-later
"""One frame of the causal decoder at a time, with cached keys and values.

It runs the layers of ``decoder.py`` with their parameters laid out anew: a step is so little
arithmetic that its cost is the number of operations, so there are as few as possible.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.model.attention import MASKED, WindowedAttention
from backend.model.decoder import DecoderLayer, MotionDecoder, StyledNorm


class CachedDecoder:
    """A decoder that goes through a motion frame by frame.

    Memory is bounded: keys and values of one stretch of content and of the window before it.

    Args:
        decoder: The decoder, in evaluation mode.
        style: Codes, shape ``(B, D)``.
    """

    def __init__(self, decoder: MotionDecoder, style: Tensor) -> None:
        self._norm, self._style = decoder.norm, style
        self._feedback = decoder.feedback.weight.T
        self._feedback_bias = decoder.feedback.bias + decoder.style_query(style)
        self._layers = [
            _Layer(layer, style) for layer in decoder.layers if isinstance(layer, DecoderLayer)
        ]

    def enter(self, content: Tensor, mask: Tensor, *, before: int, num_frames: int) -> None:
        """Take up the next stretch.

        Args:
            content: The stretch and what its frames see around it, shape ``(B, T, F)``.
            mask: True at valid frames of it, shape ``(B, T)``.
            before: Frames of it that lie before the stretch.
            num_frames: Frames of the stretch.
        """
        for layer in self._layers:
            layer.enter(content, mask, before, num_frames)

    def step(self, features: Tensor, frame: int) -> Tensor:
        """Decode the next frame.

        Args:
            features: E_G's of the frame before, shape ``(B, features)``.
            frame: Its number in the stretch; frames must come in order.

        Returns:
            Shape ``(B, F)``.
        """
        x = torch.addmm(self._feedback_bias, features, self._feedback)
        for layer in self._layers:
            x = layer.step(x, frame)
        return self._norm(x.unsqueeze(1), self._style).squeeze(1)


class _NormedLinear:
    """A styled norm and the linear layer after it, at a fixed style; ``(B, F)`` to ``(B, n)``.

    For a single sequence the style's gain and shift go into the layer's own weights.
    """

    def __init__(self, norm: StyledNorm, style: Tensor, weight: Tensor, bias: Tensor) -> None:
        scale, shift = norm.modulation(style).chunk(2, dim=-1)
        self.gain = norm.norm.weight * (1.0 + scale)
        self.shift = norm.norm.bias * (1.0 + scale) + shift
        self.width, self.epsilon = norm.norm.normalized_shape, norm.norm.eps
        self.is_folded = len(style) == 1
        if self.is_folded:
            weight, bias = weight * self.gain, bias + self.shift[0] @ weight.T
        self.weight, self.bias = weight.T.contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        x = torch.layer_norm(x, self.width, None, None, self.epsilon)
        if not self.is_folded:
            x = torch.addcmul(self.shift, x, self.gain)
        return torch.addmm(self.bias, x, self.weight)


class _Attention:
    """Attention of single queries; heads and batch are one axis of size ``B * H``."""

    def __init__(
        self,
        attention: WindowedAttention,
        norm: StyledNorm,
        style: Tensor,
        bias: Tensor,
        *,
        with_keys: bool,
    ) -> None:
        self.heads, self.left = attention.num_heads, attention.left
        width = attention.query.weight.shape[0]
        scale = (width // self.heads) ** -0.5
        weights, biases = [attention.query.weight * scale], [attention.query.bias * scale]
        if with_keys:
            weights += [attention.key.weight, attention.value.weight]
            biases += [torch.zeros_like(attention.query.bias), attention.value.bias]
        self.query = _NormedLinear(norm, style, torch.cat(weights), torch.cat(biases))
        self.rows = len(style) * self.heads
        self.out, self.out_bias = attention.out.weight.T.contiguous(), attention.out.bias
        self.distance_bias = bias.expand(len(style), -1, -1).reshape(self.rows, -1, 1)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Query ``(B, F)``, keys and values ``(B * H, n, D)``, bias ``(B * H, n, 1)``."""
        scores = torch.baddbmm(bias, keys, query.reshape(self.rows, -1, 1))
        attended = torch.bmm(torch.softmax(scores, 1).transpose(1, 2), values)
        return torch.addmm(self.out_bias, attended.view(query.shape), self.out)

    def split(self, x: Tensor) -> Tensor:
        """``(B, T, F)`` to ``(B * H, T, D)``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1).contiguous()


class _Layer:
    def __init__(self, layer: DecoderLayer, style: Tensor) -> None:
        enter, _, leave = layer.feed_forward
        assert isinstance(enter, nn.Linear)
        assert isinstance(leave, nn.Linear)
        self.enter_ff = _NormedLinear(layer.ff_norm, style, enter.weight, enter.bias)
        self.leave_ff, self.leave_bias = leave.weight.T.contiguous(), leave.bias
        own = layer.self_attention
        self.own = _Attention(own, layer.self_norm, style, own.distance_bias, with_keys=True)
        self.past = 0  # frames before the stretch that the window holds
        B, width = len(style), layer.self_attention.out.in_features
        self.width = width
        self.cache = style.new_zeros(2, B, self.own.heads, 0, width // self.own.heads)
        self.linear = layer.content_linear
        if self.linear is None:
            self.attention = layer.content_attention
            bias = layer.content_bias(style)
            self.content = _Attention(
                self.attention, layer.content_norm, style, bias, with_keys=False
            )

    def enter(self, content: Tensor, mask: Tensor, before: int, num_frames: int) -> None:
        kept = self.cache[:, :, :, max(0, self.cache.shape[3] - self.own.left) :]
        self.past = kept.shape[3]
        room = kept.new_zeros(*kept.shape[:3], num_frames, kept.shape[4])
        self.cache = torch.cat((kept, room), dim=3)
        self.own_keys, self.own_values = self.cache.flatten(1, 2)
        if self.linear is not None:
            linear = self.linear(content)
            self.given = linear[:, before : before + num_frames].transpose(0, 1).contiguous()
            return
        window = self.attention.left
        first, last = before - window, before + num_frames + window
        around = (max(0, -first), max(0, last - content.shape[1]))
        seen_frames = slice(max(0, first), last)
        padding = (0, 0, *around)
        keys = self.attention.key(content[:, seen_frames])
        values = self.attention.value(content[:, seen_frames])
        self.keys = self.content.split(F.pad(keys, padding))
        self.values = self.content.split(F.pad(values, padding))
        self.num_seen = 2 * window + 1
        seen = F.pad(mask[:, seen_frames], around).unfold(1, self.num_seen, 1)
        seen = seen.repeat_interleave(self.content.heads, dim=0)  # (B * H, num_frames, n)
        bias = torch.where(seen, self.content.distance_bias.transpose(1, 2), MASKED)
        self.bias = bias.transpose(0, 1).unsqueeze(3).contiguous()  # (num_frames, B * H, n, 1)

    def step(self, x: Tensor, frame: int) -> Tensor:
        if self.linear is not None:
            x = x + self.given[frame]
        else:
            x = x + self.content.attend(
                self.content.query(x),
                self.keys.narrow(1, frame, self.num_seen),
                self.values.narrow(1, frame, self.num_seen),
                self.bias[frame],
            )
        own, place, width = self.own, self.past + frame, self.width
        made = own.query(x)
        remembered = made.narrow(1, width, 2 * width).view(len(x), 2, own.heads, -1)
        self.cache.select(3, place).copy_(remembered.transpose(0, 1))
        count = min(place, own.left) + 1
        x = x + own.attend(
            made.narrow(1, 0, width),
            self.own_keys.narrow(1, place + 1 - count, count),
            self.own_values.narrow(1, place + 1 - count, count),
            own.distance_bias.narrow(1, own.left + 1 - count, count),
        )
        hidden = F.gelu(self.enter_ff(x))
        return x + torch.addmm(self.leave_bias, hidden, self.leave_ff)
