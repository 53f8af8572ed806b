# SPDX-License-Identifier: GPL-3.0-or-later
"""PTalker, assembled: the forward pass of training and the one way to generate."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from backend.config import ModelConfig
from backend.model.content_encoders import SpeechContentEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """Sequences with what they should become, padded at the end.

    Attributes:
        speech: Features ``(B, S, input_dim)``, or a waveform ``(B, N)``.
        speech_lengths: Valid frames, or samples, int64 ``(B,)``.
        motion: Weights ``(B, T, K)`` (solved shapes) or offsets ``(B, T, V, 3)`` (learned).
        motion_lengths: Valid frames, int64 ``(B,)``.
        speaker: Number of the speaker or style among the config's ``identity_names``, -1 for
            unknown, int64 ``(B,)``.
        phones: What a recogniser said, ids on the clock of the speech encoder's output, 0 for
            none, int64 ``(B, S)``.
        phone_targets: What was said in truth, -100 where not known, int64 ``(B, S)``.
        style_motion: Another clip in the same style: weights or offsets as ``motion``.
        style_motion_lengths: Its valid frames, 0 for none, int64 ``(B,)``.
        style_speech: Speech of another clip of the same speaker, as ``speech``.
        style_speech_lengths: Its valid frames or samples, 0 for none, int64 ``(B,)``.
    """

    speech: Tensor
    speech_lengths: Tensor
    motion: Tensor
    motion_lengths: Tensor
    speaker: Tensor
    phones: Tensor | None = None
    phone_targets: Tensor | None = None
    style_motion: Tensor | None = None
    style_motion_lengths: Tensor | None = None
    style_speech: Tensor | None = None
    style_speech_lengths: Tensor | None = None

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The batch on a device."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(
            self, **{name: value.to(device) for name, value in values.items() if value is not None}
        )


class PTalker(nn.Module):
    """Being assembled."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.speech_content = SpeechContentEncoder(config)
