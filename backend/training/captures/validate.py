# SPDX-License-Identifier: GPL-3.0-or-later
"""Validation of a model in training on captured faces, which chooses its parameters.

``backend.evaluation.captures`` evaluates checkpoints under a named evaluation protocol.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from backend.data.captures.batches import EncodedSpeech
from backend.data.captures.prepared import PreparedSet
from backend.data.captures.prepared import Sequence as Clip
from backend.model.generate import generate
from backend.model.ptalker import PTalker
from backend.model.style_inversion import style_of_motion
from backend.training.captures.init import TrainingSetup

_MAX_CLIPS: Final = 24


def validation_clips(data: PreparedSet) -> list[Clip]:
    """An even choice of the validation clips, of all subjects."""
    clips = data.split("validation")
    return clips[:: max(1, math.ceil(len(clips) / _MAX_CLIPS))]


def score(
    setup: TrainingSetup, encoded: EncodedSpeech, data: PreparedSet, clips: Sequence[Clip]
) -> dict[str, float]:
    """Mean error of all vertices, and of the worst lip vertex, on validation clips."""
    unit, mm = ("mm", setup.mm) if setup.mm else ("units", 1.0)
    errors: list[tuple[float, float]] = []
    for clip in clips:
        made = predicted(setup.model, encoded, data, clip, setup.factor) / setup.factor
        distance = np.linalg.norm(made - data.offsets(clip), axis=-1) * mm  # (T, V)
        worst = distance[:, setup.lips].max(axis=1) if len(setup.lips) else distance.max(axis=1)
        errors.append((float(distance.mean()), float(worst.mean())))
    mean, worst_mean = np.mean(errors, axis=0)
    place = "lip" if len(setup.lips) else "worst"
    return {
        "score": -float(worst_mean),
        f"vertex_error_{unit}": float(mean),
        f"{place}_error_{unit}": float(worst_mean),
    }


def predicted(
    model: PTalker, encoded: EncodedSpeech, data: PreparedSet, clip: Clip, factor: float
) -> NDArray[np.float32]:
    """Animates a clip in the style of its subject, else of another clip's motion, else neutral.

    Args:
        model: The model, in evaluation mode.
        encoded: Speech input of the set's clips.
        data: The prepared set.
        clip: Clip to animate.
        factor: Factor that brings offsets in the set's unit to the model's unit.

    Returns:
        Offsets in the model's unit, ``(T, V, 3)``.
    """
    device = model.output_layer.weight.device
    others = [
        one
        for one in data.split(clip.split)
        if one.subject == clip.subject and one.name != clip.name
    ]
    style = model.neutral_style()
    if clip.subject in model.config.speakers:
        style = model.encode_identity_style(clip.subject)
    elif others and "motion" in model.config.style_sources:
        motion = torch.from_numpy(data.offsets(others[0]) * np.float32(factor))
        style = style_of_motion(model, motion[None].to(device))
    speech = torch.from_numpy(encoded.speech(clip))[None].to(device)
    weights = generate(model, speech, style, num_frames=clip.num_frames)
    made = torch.tensordot(weights[0].float(), model.shapes(), dims=1)
    return np.asarray(made.cpu().numpy(), np.float32)
