# SPDX-License-Identifier: GPL-3.0-or-later
"""How well a model in training does on clips that it is not trained on.

Apart from ``evaluate_captures.py``, which judges checkpoints under a named protocol; this only
chooses weights.
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

_MOST_JUDGED: Final = 24


def judged_clips(data: PreparedSet) -> list[Clip]:
    """The validation clips that decide, of all subjects alike."""
    clips = data.split("validation")
    return clips[:: max(1, math.ceil(len(clips) / _MOST_JUDGED))]


def judge(
    start: TrainingSetup, heard: EncodedSpeech, data: PreparedSet, clips: Sequence[Clip]
) -> dict[str, float]:
    """Mean distance of all vertices, and of the lips' worst, on clips that are not trained on."""
    unit, mm = ("mm", start.mm) if start.mm else ("units", 1.0)
    errors: list[tuple[float, float]] = []
    for clip in clips:
        made = predicted(start.model, heard, data, clip, start.factor) / start.factor
        distance = np.linalg.norm(made - data.offsets(clip), axis=-1) * mm  # (T, V)
        worst = distance[:, start.lips].max(axis=1) if len(start.lips) else distance.max(axis=1)
        errors.append((float(distance.mean()), float(worst.mean())))
    mean, worst_mean = np.mean(errors, axis=0)
    place = "lip" if len(start.lips) else "worst"
    return {
        "score": -float(worst_mean),
        f"vertex_error_{unit}": float(mean),
        f"{place}_error_{unit}": float(worst_mean),
    }


def predicted(
    model: PTalker, heard: EncodedSpeech, data: PreparedSet, clip: Clip, factor: float
) -> NDArray[np.float32]:
    """What a model makes of a clip's sound, in the model's unit, ``(T, V, 3)``.

    In the style of the speaker's number, else of the motion of another clip, else in none.

    Args:
        model: In evaluation mode.
        heard: What it is given of the sound.
        data: The set.
        clip: Which.
        factor: Offsets in the set's unit times this are in the model's.
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
    speech = torch.from_numpy(heard.speech(clip))[None].to(device)
    weights = generate(model, speech, style, num_frames=clip.num_frames)
    made = torch.tensordot(weights[0].float(), model.shapes(), dims=1)
    return np.asarray(made.cpu().numpy(), np.float32)
