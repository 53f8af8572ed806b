# SPDX-License-Identifier: GPL-3.0-or-later
"""Phone classifier on the features of the Moonshine encoder. Not in the paper.

It depends on no PTalker model and serves any that has the same phones.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from backend.model.lip_reader import ReadingLayer
from backend.model.optimizer_groups import optimised_by_adamw

_DILATIONS: Final = (1, 2, 4, 1)


class PhoneHead(nn.Module):
    """A few residual convolutions over time, as in the lip reader.

    Args:
        feature_dim: Width of the encoder's features.
        num_phone_ids: Phone ids that are classified.
        width: Width of the layers.
    """

    def __init__(self, feature_dim: int, num_phone_ids: int, *, width: int = 128) -> None:
        super().__init__()
        self.feature_norm = nn.LayerNorm(feature_dim)
        self.projection = optimised_by_adamw(nn.Linear(feature_dim, width))
        self.dropout = nn.Dropout(0.2)
        self.layers = nn.ModuleList(ReadingLayer(width, dilation) for dilation in _DILATIONS)
        self.norm = nn.LayerNorm(width)
        self.phone_head = optimised_by_adamw(nn.Linear(width, num_phone_ids))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Classify.

        Args:
            features: Features of the Moonshine encoder, shape ``(B, T, feature_dim)``.
            mask: True at valid frames, shape ``(B, T)``; the first of each is valid.

        Returns:
            Logits of phone ids, shape ``(B, T, num_phone_ids)``.
        """
        valid = mask.unsqueeze(-1).to(features.dtype)
        x = self.projection(self.feature_norm(features))
        for layer in self.layers:
            x = layer(self.dropout(x), valid)
        logits: Tensor = self.phone_head(self.norm(x))
        return logits
