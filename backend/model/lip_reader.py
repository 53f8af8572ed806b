# SPDX-License-Identifier: GPL-3.0-or-later
"""Lip reader: phones recognised from motion, frame by frame. Not in the paper.

The content of E_m^c holds a part of the style; phones hold none. So they separate what an exemplar
says from how it says it, see ``style_inversion.py``.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.model.config import ModelConfig
from backend.model.optimizer_groups import optimised_by_adamw
from backend.model.style_encoders import MotionStyle

_STACKED: Final = 2  # frames to a token: half the work, and hardly less is read
_DILATIONS: Final = (1, 2, 4, 8)


class LipReader(nn.Module):
    """Residual convolutions over time, each of which also gets the mean of all frames.

    The mean identifies the speaker: the same lips are another phone on another face.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.lip_width
        self.projection = optimised_by_adamw(
            nn.Linear(3 * _STACKED * MotionStyle.COMPONENTS, width)
        )
        dilations = islice(cycle(_DILATIONS), config.lip_layers)
        self.layers = nn.ModuleList(ReadingLayer(width, dilation) for dilation in dilations)
        self.norm = nn.LayerNorm(width)
        self.phone_head = optimised_by_adamw(nn.Linear(width, _STACKED * config.num_phone_ids))

    def forward(self, components: Tensor, mask: Tensor) -> Tensor:
        """Recognise phones.

        Args:
            components: As of ``MotionStyle.components_of``, shape ``(B, T, COMPONENTS)``.
            mask: True at valid frames, shape ``(B, T)``; the first of each is valid.

        Returns:
            Logits of phone ids, shape ``(B, T, num_phone_ids)``.
        """
        num_frames = components.shape[1]
        filled = -num_frames % _STACKED
        frames = F.pad(components * mask.unsqueeze(-1), (0, 0, 0, filled))
        tokens = frames.reshape(frames.shape[0], -1, _STACKED * frames.shape[2])
        valid = F.pad(mask, (0, filled))[:, ::_STACKED].unsqueeze(-1).to(tokens.dtype)
        x = self.projection(_with_neighbours(tokens, 1))
        for layer in self.layers:
            x = layer(x, valid)
        logits: Tensor = self.phone_head(self.norm(x)).unflatten(-1, (_STACKED, -1))
        return logits.flatten(1, 2)[:, :num_frames]


class ReadingLayer(nn.Module):
    """A residual convolution of three tokens, which also gets the mean of all tokens.

    Args:
        width: Width of a token.
        dilation: Distance of the three tokens.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.around = nn.Linear(3 * width, width)
        self.everywhere = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Shapes ``(B, T, width)`` and, 1 at valid tokens, ``(B, T, 1)``; returns the first."""
        normed = self.norm(x) * valid
        mean = normed.sum(1, keepdim=True) / valid.sum(1, keepdim=True)
        hidden = self.around(_with_neighbours(normed, self.dilation)) + self.everywhere(mean)
        out: Tensor = x + self.out(F.gelu(hidden))
        return out


def _with_neighbours(x: Tensor, distance: int) -> Tensor:
    """Each token between the ones so far before and after it: ``(B, T, C)`` to ``(B, T, 3 C)``."""
    padded = F.pad(x, (0, 0, distance, distance))
    before, after = padded[:, : x.shape[1]], padded[:, 2 * distance :]
    return torch.cat((before, x, after), dim=-1)
