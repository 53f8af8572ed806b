# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequences of frames: cut, averaged, and stretched between clocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def average_frames(x: Tensor, mask: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Means of ``stride`` frames, of the valid ones, and the mask of these; ``(B, T, ...)``."""
    if stride == 1:
        return x, mask
    padding = (-x.shape[1]) % stride
    weight = F.pad(mask, (0, padding)).unflatten(1, (-1, stride)).to(x.dtype)  # (B, T', stride)
    x = F.pad(x.flatten(2), (0, 0, 0, padding)).unflatten(1, (-1, stride)).unflatten(3, x.shape[2:])
    count = weight.sum(2)
    share = weight / count.clamp(min=1.0).unsqueeze(-1)
    return torch.einsum("bts...,bts->bt...", x, share), count > 0


def stretch_frames(x: Tensor, mask: Tensor, stride: int, num_frames: int) -> Tensor:
    """Back from means of ``stride`` frames to ``num_frames``, linear in time; ``(B, T', C)``."""
    if stride == 1:
        return x
    places = (torch.arange(num_frames, device=x.device) - (stride - 1) / 2) / stride
    last = (mask.sum(1, keepdim=True) - 1).clamp(min=0)  # (B, 1)
    places = torch.minimum(places.clamp(min=0.0).unsqueeze(0), last.to(places.dtype))
    low = places.floor().long()
    share = (places - low).unsqueeze(-1).to(x.dtype)
    return torch.lerp(take_frames(x, low), take_frames(x, torch.minimum(low + 1, last)), share)


def fit_frames(x: Tensor, num_frames: int) -> Tensor:
    """Cut, or filled with zeros, to ``num_frames`` along axis 1."""
    if x.shape[1] >= num_frames:
        return x[:, :num_frames]
    return torch.cat((x, x.new_zeros(x.shape[0], num_frames - x.shape[1], *x.shape[2:])), dim=1)


def take_frames(x: Tensor, frames: Tensor) -> Tensor:
    """Frames ``(B, T)`` of ``x`` ``(B, S, C)``."""
    return x.gather(1, frames.unsqueeze(-1).expand(-1, -1, x.shape[2]))
