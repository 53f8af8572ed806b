# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into the training pass and what comes out of it.

Apart from ``ptalker.py`` since data and losses need these records and not the network.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from backend.model.config import StyleSource
from backend.model.style_encoders import Style


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
        style_strength: How much of the shown style the motion has, 1 being all, float32 ``(B,)``.
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
    style_strength: Tensor | None = None

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The batch on a device."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(
            self, **{name: value.to(device) for name, value in values.items() if value is not None}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutputs:
    """All that the losses need; frames at padding hold values without meaning unless said.

    Attributes:
        motion: Decoded from what was heard: weights ``(B, T, K)`` or offsets ``(B, T, V, 3)``.
        motion_from_motion: Decoded from the motion's own content, likewise.
        mask: True at valid frames, shape ``(B, T)``.
        audio_content: Shape ``(B, T, F)``, zero at padding.
        motion_content: The same.
        content_mask: True where both are valid, shape ``(B, T)``.
        audio_style_frames: What each frame's sound says of the style, ``(B, T, D)``, zero at
        padding. reduced_content: Motion content at the motion encoders' rate, ``(B, T', F)``.
        motion_style_frames: What each such frame says of the style, ``(B, T', D)``. reduced_mask:
        True at their valid frames, shape ``(B, T')``. phone_logits: Shape ``(B, S,
        num_phone_ids)``. styles: Codes by source. own_style: Motion style of the sequence itself,
        which the decoder was not told. speaker_logits_audio: The adversary's guess at the speaker
        from audio content, shape
            ``(B, num_speakers)``; its gradient is reversed.
        speaker_logits_motion: From motion content.
        cycle: With styles swapped in the batch; None where not asked for.
    """

    motion: Tensor
    motion_from_motion: Tensor
    mask: Tensor
    audio_content: Tensor
    motion_content: Tensor
    content_mask: Tensor
    audio_style_frames: Tensor
    reduced_content: Tensor
    motion_style_frames: Tensor
    reduced_mask: Tensor
    phone_logits: Tensor
    styles: dict[StyleSource, Style]
    own_style: Style
    speaker_logits_audio: Tensor
    speaker_logits_motion: Tensor
    cycle: CycleOutputs | None

    def float(self) -> TrainingOutputs:
        """All numbers in 32 bits, as losses need them after mixed precision."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return TrainingOutputs(**{name: _as_float(value) for name, value in values.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleOutputs:
    """What the encoders find in motion decoded with the style of the next sequence of the batch.

    Attributes:
        content: Found in it, shape ``(B, T', F)``.
        style: Found in it, shape ``(B, D)``.
        wanted_style: The code of the next sequence, without gradient, shape ``(B, D)``.
        wanted: Where that is known, bool, shape ``(B,)``.
    """

    content: Tensor
    style: Tensor
    wanted_style: Tensor
    wanted: Tensor


def _as_float(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _as_float(item) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        values = {item.name: _as_float(getattr(value, item.name)) for item in fields(value)}
        return type(value)(**values)
    return value
