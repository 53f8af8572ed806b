# SPDX-License-Identifier: GPL-3.0-or-later
"""Phone context: the duration of each input phone, a frame's position in it, and its mean sound.

The frames of a long phone have the same phone input for longer than the decoder's receptive field;
without this context a held vowel moved as if it were said twice. Compare the positions within a
phone that statistical speech synthesis gives its networks (Zen et al. 2013).
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONTEXT_FRAMES: Final = 64
"""Frames on each side over which a phone is followed; a power of two."""
NUM_TIMES: Final = 9
_USUAL_FRAMES: Final = 5.0
_NEAR_FRAMES: Final = (2.5, 10.0)


def same_before(symbols: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The stretch of equal symbols that ends at each frame, at most ``CONTEXT_FRAMES`` of it.

    By doubling, so that it can be traced for any length: of a full stretch, the one before it
    counts too where it is of the same symbol.

    Args:
        symbols: Shape ``(B, S)``.
        values: Shape ``(B, S, C)``.

    Returns:
        Frames of the stretch, of ``values``' type, ``(B, S, 1)``, and the sum of its values
        ``(B, S, C)``.
    """
    counted = torch.cat((values, torch.ones_like(values[..., :1])), dim=-1)
    width = 1
    while width < CONTEXT_FRAMES:
        joins = (symbols == _later(symbols, width)) & (counted[..., -1] == width)
        counted = counted + _later(counted, width) * joins.unsqueeze(-1)
        width *= 2
    return counted[..., -1:], counted[..., :-1]


def phone_durations(symbols: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Position and duration of each frame's phone, and means over the phone.

    Args:
        symbols: Ids of phones, 0 for none, shape ``(B, S)``.
        values: Features to average over each phone, shape ``(B, S, C)``.

    Returns:
        Times ``(B, S, NUM_TIMES)``: the place in the phone as two waves, how long it is, how near
        its ends are; and the means ``(B, S, C)``. Both are 0 where there is no phone.
    """
    before, until = same_before(symbols, values)
    after, following = (part.flip(1) for part in same_before(symbols.flip(1), values.flip(1)))
    length = before + after - 1.0
    means = (until + following - values) / length
    elapsed, remaining = before - 0.5, after - 0.5
    angle = math.pi * elapsed / length
    times = [angle.cos(), angle.sin(), (2.0 * angle).cos(), (2.0 * angle).sin()]
    times += [(length / _USUAL_FRAMES).log()]
    times += [(-side / near).exp() for side in (elapsed, remaining) for near in _NEAR_FRAMES]
    is_phone = (symbols > 0).unsqueeze(-1)
    return torch.cat(times, dim=-1) * is_phone, means * is_phone


class PhoneContext(nn.Module):
    """Content of whole input phones, beyond that of their single frames. Not in the paper.

    Args:
        symbol_dim: Width of a phone's embedding.
        speech_dim: Features of a frame of sound.
        width: Width of the hidden layer.
        feature_dim: Width of content.
    """

    def __init__(self, symbol_dim: int, speech_dim: int, width: int, feature_dim: int) -> None:
        super().__init__()
        self.enter = nn.Linear(symbol_dim + NUM_TIMES + speech_dim, width)
        self.leave = nn.Linear(width, feature_dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, symbols: Tensor, embedded: Tensor, speech: Tensor) -> Tensor:
        """Content to add.

        Args:
            symbols: Phone ids, 0 for none, shape ``(B, S)``.
            embedded: Embeddings of the phones, shape ``(B, S, symbol_dim)``.
            speech: Features, shape ``(B, S, speech_dim)``.

        Returns:
            Shape ``(B, S, feature_dim)``; 0 where there is no input phone.
        """
        times, means = phone_durations(symbols, speech.float())
        seen = torch.cat((embedded, times.to(embedded.dtype), means.to(embedded.dtype)), dim=-1)
        content: Tensor = self.leave(F.gelu(self.enter(seen)))
        return content * (symbols > 0).unsqueeze(-1)


def _later(x: Tensor, num_frames: int) -> Tensor:
    """Moved to later frames; what comes in at the front is 0."""
    padding = (0, 0, num_frames, 0) if x.ndim == 3 else (num_frames, 0)
    return F.pad(x, padding)[:, : x.shape[1]]
