# SPDX-License-Identifier: GPL-3.0-or-later
"""The code of an exemplar, brought nearer to what the decoder makes of it.

E_m^s reads a style in one look and misreads a part of it. But once it is known what an exemplar
says, the model can say the same again, and the code with which that comes nearest to the exemplar
is the better one. The lip reader tells the phones, which know nothing of the style; the code is
sought by descent from what E_m^s read, and held near it. Not in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from backend.speech.phones import PHONE_IDS, SILENCE

if TYPE_CHECKING:
    from backend.model.ptalker import PTalker

_MOST_FRAMES: Final = 500
_STEPS: Final = 45
_RATE: Final = 0.04
_NEARNESS: Final = 0.3
"""Weight of the squared step away from the first code, beside what is unexplained."""
_SOFTNESS: Final = 0.25
"""Of Charbonnier's penalty: below so many spreads of a point an error counts as a square, above as
an absolute value."""


def fit_style(model: PTalker, motion: Tensor, code: Tensor, phones: Tensor | None = None) -> Tensor:
    """Seeks the code near a first one with which the model moves as an exemplar does.

    Args:
        model: In evaluation mode; one without a lip reader leaves the code as it is.
        motion: Weights of the exemplar at the model's rate, shape ``(1, T, K)``.
        code: What E_m^s read of it, shape ``(1, D)``.
        phones: Ids of what it says by frame, 0 for silence too, int64 ``(1, T)``; by default they
            are read off the lips.

    Returns:
        Shape ``(1, D)``.
    """
    if model.lip_reader is None:
        return code
    motion = motion[:, :_MOST_FRAMES]
    mask = torch.ones(motion.shape[:2], dtype=torch.bool, device=motion.device)
    with torch.no_grad():
        nodes = model.graph_encoder.displacements(motion)
        if phones is None:
            seen = model.motion_style.components_of(nodes * model.config.motion_scale)
            phones = model.lip_reader(seen, mask).argmax(-1)
        content = _content(model, phones[:, :_MOST_FRAMES])
        spread = (nodes - nodes.mean(1, keepdim=True)).square().sum(-1).mean().sqrt()
        spread = spread.clamp(min=1e-6)
    fitted = code.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([fitted], lr=_RATE)
    with torch.enable_grad():
        for _ in range(_STEPS):
            queries = model.decoder.queries(fitted, motion.shape[1])
            hidden = model.decoder(queries, content, mask, fitted, causal=False)
            made = model.graph_encoder.displacements(model.weights(hidden))
            squares = ((made - nodes) / spread).square().sum(-1)  # (1, T, N)
            unexplained = (squares + _SOFTNESS**2).sqrt().mean()  # what is misread counts less
            loss = unexplained + _NEARNESS * (fitted - code).square().mean()
            (fitted.grad,) = torch.autograd.grad(loss, fitted)
            optimizer.step()
    return fitted.detach()


def _content(model: PTalker, phones: Tensor) -> Tensor:
    """Content of phones that are certain and of which nothing is heard, ``(1, T, F)``."""
    ear, speech = model.speech_content, model.config.speech
    num_frames = phones.shape[1]
    frames = torch.arange(round(num_frames * speech.rate_hz / model.config.motion_fps))
    at = (frames * model.config.motion_fps / speech.rate_hz).long().clamp(max=num_frames - 1)
    told = phones[:, at.to(phones.device)].clamp(min=PHONE_IDS[SILENCE]) + ear.num_phones
    silence = model.decoder.start.new_zeros(1, len(frames), speech.input_dim)
    lengths = torch.tensor([len(frames)], device=phones.device)
    return ear(silence, lengths, phones=told, num_frames=num_frames).features
