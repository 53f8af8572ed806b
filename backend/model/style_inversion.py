# SPDX-License-Identifier: GPL-3.0-or-later
"""The style code of an exemplar: encoded by E_m^s, then refined by inverting the decoder.

E_m^s reads a style in one pass and misreads a part of it. Once it is known what an exemplar says,
the model can say the same again, and the code with which that comes nearest to the exemplar is the
better one. The lip reader recognises the phones, which do not depend on the style; the code is
sought by gradient descent from what E_m^s read, and held near it. Not in the paper.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from backend.model.ptalker import PTalker
from backend.speech.phones import PHONE_IDS, SILENCE

_MOST_FRAMES: Final = 500
_STEPS: Final = 45
_LEARNING_RATE: Final = 0.04
_NEARNESS: Final = 0.3
"""Weight of the squared distance from the encoded code, beside the motion's error."""
_SOFTNESS: Final = 0.25
"""Of Charbonnier's penalty: below so many spreads of a node an error counts as a square, above as
an absolute value."""


def style_of_motion(model: PTalker, motion: Tensor, phones: Tensor | None = None) -> Tensor:
    """The style code of an exemplar, as every caller gets it.

    Args:
        model: The model, in evaluation mode.
        motion: The exemplar at the model's rate: weights ``(1, T, K)`` for solved shapes, offsets
            ``(1, T, V, 3)`` for learned ones.
        phones: Phone ids of the exemplar's frames, int64 ``(1, T)``, where they are known.

    Returns:
        Style code for ``generate``, shape ``(1, D)``. It is refined by ``fit_style`` where the
        model has solved shapes, a lip reader, and decodes in parallel.
    """
    code = model.encode_motion_style(motion)
    config = model.config
    can_fit = config.shape_kind == "solved" and "parallel" in config.modes
    return fit_style(model, motion, code, phones) if can_fit else code


def fit_style(model: PTalker, motion: Tensor, code: Tensor, phones: Tensor | None = None) -> Tensor:
    """Refine a style code so that the model moves as the exemplar does.

    Args:
        model: The model, in evaluation mode; without a lip reader the code stays as it is.
        motion: Weights of the exemplar at the model's rate, shape ``(1, T, K)``.
        code: Style code that E_m^s encoded, shape ``(1, D)``.
        phones: Phone ids of the exemplar's frames, 0 counting as silence, int64 ``(1, T)``; by
            default the lip reader recognises them.

    Returns:
        Refined style code, shape ``(1, D)``.
    """
    if model.lip_reader is None:
        return code
    motion = motion[:, :_MOST_FRAMES]
    mask = torch.ones(motion.shape[:2], dtype=torch.bool, device=motion.device)
    with torch.no_grad():
        nodes = model.graph_encoder.displacements(motion)
        if phones is None:
            components = model.motion_style.components_of(nodes * model.config.motion_scale)
            phones = model.lip_reader(components, mask).argmax(-1)
        content = _content(model, phones[:, :_MOST_FRAMES])
        spread = (nodes - nodes.mean(1, keepdim=True)).square().sum(-1).mean().sqrt()
        spread = spread.clamp(min=1e-6)
    fitted = code.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([fitted], lr=_LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(_STEPS):
            queries = model.decoder.queries(fitted, motion.shape[1])
            hidden = model.decoder(queries, content, mask, fitted, causal=False)
            made = model.graph_encoder.displacements(model.weights(hidden))
            squares = ((made - nodes) / spread).square().sum(-1)  # (1, T, N)
            error = (squares + _SOFTNESS**2).sqrt().mean()  # frames of misread phones count less
            loss = error + _NEARNESS * (fitted - code).square().mean()
            (fitted.grad,) = torch.autograd.grad(loss, fitted)
            optimizer.step()
    return fitted.detach()


def _content(model: PTalker, phones: Tensor) -> Tensor:
    """Content ``(1, T, F)`` of given phones ``(1, T)`` over silent features."""
    encoder, speech = model.speech_content, model.config.speech
    num_frames = phones.shape[1]
    frames = torch.arange(round(num_frames * speech.rate_hz / model.config.motion_fps))
    at = (frames * model.config.motion_fps / speech.rate_hz).long().clamp(max=num_frames - 1)
    given = phones[:, at.to(phones.device)].clamp(min=PHONE_IDS[SILENCE]) + encoder.num_phones
    silence = model.decoder.start.new_zeros(1, len(frames), speech.input_dim)
    lengths = torch.tensor([len(frames)], device=phones.device)
    return encoder(silence, lengths, phones=given, num_frames=num_frames).features
