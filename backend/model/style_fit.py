# SPDX-License-Identifier: GPL-3.0-or-later
"""The code of an exemplar, brought nearer to what the decoder makes of it.

E_m^s reads a style in one look and misreads a part of it. But the model can also say again what the
exemplar says, from E_m^c's content of it, and the code with which that comes nearest to the
exemplar is the better one. It is sought by descent from what E_m^s read, and held near it, since
the content knows a part of the style too and would explain the rest away. Not in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from backend.model.content_encoders import average_frames, stretch_frames

if TYPE_CHECKING:
    from backend.model.ptalker import PTalker

_MOST_FRAMES: Final = 500
_STEPS: Final = 30
_RATE: Final = 0.03
_NEARNESS: Final = 5.0
"""Weight of the squared step away from the first code, beside the exemplar's unexplained share."""


def fit_style(model: PTalker, motion: Tensor, code: Tensor) -> Tensor:
    """Seeks the code near a first one with which the model moves as an exemplar does.

    Args:
        model: In evaluation mode, with solved shapes.
        motion: Weights of the exemplar at the model's rate, shape ``(1, T, K)``.
        code: What E_m^s read of it, shape ``(1, D)``.

    Returns:
        Shape ``(1, D)``.
    """
    motion = motion[:, :_MOST_FRAMES]
    num_frames, stride = motion.shape[1], model.config.motion_stride
    mask = torch.ones(motion.shape[:2], dtype=torch.bool, device=motion.device)
    with torch.no_grad():
        shapes = model.node_shapes().flatten(1)  # (K, N * 3)
        nodes, reduced = average_frames(model.graph_encoder.displacements(motion), mask, stride)
        content = model.motion_content(model.graph_encoder(nodes), reduced)
        content = stretch_frames(content, reduced, stride, num_frames)
        wanted = motion @ shapes
        variance = (wanted - wanted.mean(1, keepdim=True)).square().mean().clamp(min=1e-12)
    fitted = code.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([fitted], lr=_RATE)
    with torch.enable_grad():
        for _ in range(_STEPS):
            queries = model.decoder.queries(fitted, num_frames)
            hidden = model.decoder(queries, content, mask, fitted, causal=False)
            unexplained = (model.weights(hidden) @ shapes - wanted).square().mean() / variance
            loss = unexplained + _NEARNESS * (fitted - code).square().mean()
            (fitted.grad,) = torch.autograd.grad(loss, fitted)
            optimizer.step()
    return fitted.detach()
