# SPDX-License-Identifier: GPL-3.0-or-later
"""The style code of an exemplar: encoded by E_m^s, then refined by inverting the decoder.

E_m^s reads a style in one pass and misreads a part of it. Once it is known what an exemplar says,
the model can say the same again, and the code with which that comes nearest to the exemplar is the
better one. The lip reader recognises the phones, which do not depend on the style; the code is
sought from what E_m^s read, and held near it, by ``style_search.py``. Not in the paper.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.model.ptalker import PTalker
from backend.model.style_search import MOST_FRAMES, search_code
from backend.speech.phones import PHONE_IDS, SILENCE


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


@torch.no_grad()
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
    motion = motion[:, :MOST_FRAMES]
    mask = torch.ones(motion.shape[:2], dtype=torch.bool, device=motion.device)
    nodes = model.graph_encoder.displacements(motion)
    if phones is None:
        components = model.motion_style.components_of(nodes * model.config.motion_scale)
        phones = model.lip_reader(components, mask).argmax(-1)
    content = content_of_phones(model, phones[:, :MOST_FRAMES])

    def restyle(codes: NDArray[np.float32]) -> NDArray[np.float32]:
        styles = torch.from_numpy(codes).to(code)
        everywhere = mask.expand(len(styles), -1)
        queries = model.decoder.queries(styles, motion.shape[1])
        repeated = content.expand(len(styles), -1, -1)
        hidden = model.decoder(queries, repeated, everywhere, styles, causal=False)
        made = model.graph_encoder.displacements(model.weights(hidden))
        return np.asarray(made.float().cpu().numpy())

    fitted = search_code(restyle, nodes[0].float().cpu().numpy(), code[0].float().cpu().numpy())
    return torch.from_numpy(fitted)[None].to(code)


@torch.no_grad()
def content_of_phones(model: PTalker, phones: Tensor, num_frames: int | None = None) -> Tensor:
    """Content of given phones over silent features.

    Args:
        model: The model, in evaluation mode.
        phones: Phone ids of the motion's frames, 0 counting as silence, int64 ``(1, T)``.
        num_frames: How many of the ``T`` frames there really are; by default all.

    Returns:
        Content on the motion's clock, ``(1, num_frames, F)``.
    """
    encoder, speech = model.speech_content, model.config.speech
    if speech.rate_hz == model.config.motion_fps:
        at = torch.arange(phones.shape[1])
    else:
        frames = torch.arange(round(phones.shape[1] * speech.rate_hz / model.config.motion_fps))
        at = frames * model.config.motion_fps / speech.rate_hz
        at = at.long().clamp(max=phones.shape[1] - 1)
    given = phones[:, at.to(phones.device)].clamp(min=PHONE_IDS[SILENCE]) + encoder.num_phones
    silence = model.decoder.start.new_zeros(1, at.shape[0], speech.input_dim)
    count = phones.shape[1] if num_frames is None else num_frames
    lengths = torch.full((1,), at.shape[0] if num_frames is None else num_frames)
    lengths = lengths.to(phones.device)
    return encoder(silence, lengths, phones=given, num_frames=count).features
