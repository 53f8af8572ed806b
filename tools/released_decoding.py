# SPDX-License-Identifier: GPL-3.0-or-later
"""How the released code decodes, written anew from its description, as the benchmark's reference.

For every frame: the whole prefix of vertices is embedded and its style encoded again, two masks
are made anew, the decoder runs over the prefix, and all of its frames are projected to vertices,
of which the last is kept. Nothing is cached. No weight or line of that code is here.
"""

import torch
from torch import Tensor, nn


class ReleasedDecoding(nn.Module):
    """Style encoder, decoder and projections, with random weights.

    Args:
        width: ``F``.
        num_layers: Of the decoder.
        style_layers: Of the style encoder's transformer; it has as many convolutions.
        num_heads: Of the decoder.
        num_vertices: ``V``.
        period: Frames of the positional encoding and of a step of the bias.
    """

    def __init__(
        self,
        *,
        width: int,
        num_layers: int,
        style_layers: int,
        num_heads: int,
        num_vertices: int,
        period: int,
    ) -> None:
        super().__init__()
        self.num_heads, self.period = num_heads, period
        self.embed = nn.Linear(3 * num_vertices, width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=1, bias=False) for _ in range(style_layers)
        )
        style_layer = nn.TransformerEncoderLayer(
            2 * width, 2, dim_feedforward=3 * width, batch_first=True
        )
        self.widen = nn.Linear(width, 2 * width)
        self.style = nn.TransformerEncoder(style_layer, style_layers, enable_nested_tensor=False)
        self.narrow = nn.Linear(2 * width, width)
        layer = nn.TransformerDecoderLayer(
            width, num_heads, dim_feedforward=2 * width, batch_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, num_layers)
        self.project = nn.Linear(width, 3 * num_vertices)
        phase = torch.arange(period)[:, None] / 10_000 ** (torch.arange(width) / width)
        self.positions: Tensor
        self.register_buffer("positions", phase.sin(), persistent=False)

    @torch.no_grad()
    def forward(self, content: Tensor) -> Tensor:
        """Vertices ``(1, T, 3V)`` from the sound's content ``(1, T, F)``."""
        num_frames = content.shape[1]
        motion = content.new_zeros(1, 1, self.embed.in_features)
        for frame in range(1, num_frames + 1):
            tokens = self.embed(motion)
            tokens = tokens + self._style_of(tokens)
            tokens = tokens + self.positions[torch.arange(frame) % self.period]
            decoded = self.decoder(
                tokens,
                content,
                tgt_mask=self._bias(frame),
                memory_mask=self._aligned(frame, num_frames),
            )
            vertices = self.project(decoded)
            motion = torch.cat([motion, vertices[:, -1:]], dim=1)
        return motion[:, 1:]

    def _style_of(self, tokens: Tensor) -> Tensor:
        x = tokens.transpose(1, 2)
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
        mean: Tensor = self.narrow(self.style(self.widen(x.transpose(1, 2)))).mean(
            dim=1, keepdim=True
        )
        return mean

    def _bias(self, num_frames: int) -> Tensor:
        """Causal, less attention by whole periods of distance, one slope per head."""
        slopes = torch.tensor(
            [2.0 ** (-8 * (head + 1) / self.num_heads) for head in range(self.num_heads)]
        )
        frames = torch.arange(num_frames)
        distance = frames[:, None] - frames[None]
        bias = -slopes[:, None, None] * (distance // self.period)
        return bias.masked_fill(distance < 0, -torch.inf)

    @staticmethod
    def _aligned(num_frames: int, num_tokens: int) -> Tensor:
        """A frame hears the token of its own time only."""
        return ~torch.eye(num_frames, num_tokens, dtype=torch.bool)
