# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs and outputs of the training pass: records that data and losses share with the network."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from backend.model.config import StyleSource
from backend.model.style_encoders import StyleCodes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """Speech with the motion it should become, padded at the end.

    Attributes:
        speech: Features ``(B, S, input_dim)``, or a waveform ``(B, N)``.
        speech_lengths: Valid frames, or samples, of the speech, int64 ``(B,)``.
        motion: Weights ``(B, T, K)`` (solved shapes) or offsets ``(B, T, V, 3)`` (learned).
        motion_lengths: Valid frames of the motion, int64 ``(B,)``.
        speaker: Number of the speaker or style among the config's ``speakers``, -1 for unknown,
            int64 ``(B,)``.
        phones: Phone input: ids on the clock of the speech encoder's output, 0 for none, int64
            ``(B, S)``.
        phone_targets: True phone ids on that clock, -100 where not known, int64 ``(B, S)``.
        style_motion: Motion of another clip in the same style, as ``motion``.
        style_motion_lengths: Valid frames of ``style_motion``, 0 for none, int64 ``(B,)``.
        style_speech: Speech of another clip of the same speaker, as ``speech``.
        style_speech_lengths: Valid frames or samples of ``style_speech``, 0 for none, int64
            ``(B,)``.
        style_strength: Strength of the style in the motion, 1 being full, float32 ``(B,)``.
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
        motion: Motion decoded from audio content: weights ``(B, T, K)`` or offsets
            ``(B, T, V, 3)``.
        motion_from_motion: Motion decoded from motion content, shaped as ``motion``.
        mask: True at valid frames of the motion, shape ``(B, T)``.
        audio_content: Content of the speech, shape ``(B, T, F)``, zero at padding.
        motion_content: Content of the motion, shape ``(B, T, F)``, zero at padding.
        content_mask: True where both contents are valid, shape ``(B, T)``.
        audio_style_frames: Style of each frame's sound, shape ``(B, T, D)``, zero at padding.
        reduced_content: Motion content at the motion encoders' rate, shape ``(B, T', F)``.
        motion_style_frames: Style of each frame of the motion at that rate, ``(B, T', D)``.
        reduced_mask: True at valid frames at that rate, shape ``(B, T')``.
        phone_logits: Logits of phone ids from the speech, shape ``(B, S, num_phone_ids)``.
        styles: Style codes by source.
        own_style: Motion style of the sequence itself, which the decoder does not get.
        speaker_logits_audio: The adversary's logits of the speakers from audio content, shape
            ``(B, num_speakers)``; their gradient is reversed.
        speaker_logits_motion: The adversary's logits from motion content, ``(B, num_speakers)``.
        cycle: Outputs with styles swapped in the batch; None where they were not asked for.
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
    styles: dict[StyleSource, StyleCodes]
    own_style: StyleCodes
    speaker_logits_audio: Tensor
    speaker_logits_motion: Tensor
    cycle: CycleOutputs | None

    def float(self) -> TrainingOutputs:
        """All numbers in 32 bits, as losses need them after mixed precision."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return TrainingOutputs(**{name: _as_float(value) for name, value in values.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleOutputs:
    """Codes of motion that was decoded with the style of the next sequence of the batch.

    Attributes:
        content: Motion content of the decoded motion, shape ``(B, T', F)``.
        style: Motion style of the decoded motion, shape ``(B, D)``.
        wanted_style: Style code of the next sequence, without gradient, shape ``(B, D)``.
        wanted: True where ``wanted_style`` is known, shape ``(B,)``.
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
