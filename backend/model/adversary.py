# SPDX-License-Identifier: GPL-3.0-or-later
"""The speaker adversary, which keeps content free of the speaker in training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Reverse(torch.autograd.Function):
    """Gradient reversal (Ganin and Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """The same values; their gradient times ``-strength``."""
    reversed_: Tensor = _Reverse.apply(x, strength)  # type: ignore[no-untyped-call]  # torch's
    return reversed_


class SpeakerAdversary(nn.Module):
    """Guesses the speaker from mean and spread of content, which is trained to prevent that.

    Departures: the released code has a linear layer on the mean of audio content alone.
    """

    def __init__(self, width: int, num_speakers: int) -> None:
        super().__init__()
        self.guess = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, num_speakers)
        )

    def forward(self, content: Tensor, mask: Tensor, strength: float) -> Tensor:
        """Shapes ``(B, T, F)`` and ``(B, T)``; returns logits ``(B, num_speakers)``."""
        weight = mask.unsqueeze(-1).to(content.dtype)
        count = weight.sum(1).clamp(min=1.0)
        mean = (content * weight).sum(1) / count
        variance = ((content - mean.unsqueeze(1)) * weight).square().sum(1) / count
        summary = torch.cat((mean, (variance + 1e-5).sqrt()), dim=-1)
        logits: Tensor = self.guess(reverse_gradient(summary, strength))
        return logits
