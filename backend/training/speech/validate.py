# SPDX-License-Identifier: GPL-3.0-or-later
"""Validation of a model in training from speech: its lips and styles on held-out speech.

``backend.evaluation.speech`` evaluates finished models, on recordings that choose nothing here.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.articulation.speaking_style import SpeakingStyle, validation_styles
from backend.audio.rates import FEATURE_RATE_HZ
from backend.data.speech.batches import PhoneInput, motion_of, plain_batch
from backend.data.speech.dataset import SpeechData, fixed_choice
from backend.evaluation import curve_metrics
from backend.heads.lip_measures import MeasuredHead
from backend.model.batch import TrainingBatch
from backend.model.generate import generate
from backend.model.ptalker import PTalker
from backend.model.style_inversion import style_of_motion

_CLIPS: Final = 160  # of 48, chance in some ten closures chose what should be kept
_STYLES: Final = 24
_PHONE_INPUTS: Final[tuple[PhoneInput, ...]] = ("none", "recognised", "given")


def score_motion(model: PTalker, data: SpeechData, mouth: MeasuredHead) -> dict[str, float]:
    """Closures and opening on held-out speech by phone input, and style by exemplar."""
    clips = fixed_choice(data.validation, _CLIPS)
    metrics: dict[str, float] = {}
    for phone_input in _PHONE_INPUTS:
        counts = curve_metrics.ClosureCounts()
        pairs = []
        for clip in clips:
            batch = plain_batch(data, [clip], SpeakingStyle.neutral(), phone_input=phone_input)
            motion = _generated(model, batch, model.neutral_style())
            opening, true = mouth.opening_mm(motion), mouth.opening_mm(batch.motion[0].numpy())
            counts += curve_metrics.closures(clip.phones, opening)
            pairs.append((opening, true))
        metrics[f"closures_f1_phones_{phone_input}"] = counts.f1
        ours, true = (np.concatenate(curves) for curves in zip(*pairs, strict=True))
        correlation, _ = curve_metrics.lagged_correlation(ours, true, FEATURE_RATE_HZ)
        metrics[f"opening_phones_{phone_input}"] = correlation
    ratios = []
    for number, style in enumerate(validation_styles(_STYLES)):
        clip, other = clips[number % len(clips)], clips[-1 - number % len(clips)]
        exemplar = motion_of(data, other, style)[:250]
        batch = plain_batch(data, [clip], style, phone_input="given")
        shown = torch.from_numpy(exemplar)[None].to(model.neutral_style().device)
        code = style_of_motion(model, shown)
        motion = _generated(model, batch, code)
        neutral = motion_of(data, clip, SpeakingStyle.neutral())
        ratios.append(curve_metrics.style_error_ratio(motion, batch.motion[0].numpy(), neutral))
    metrics["style_error_ratio"] = float(np.mean(ratios))
    score = metrics["closures_f1_phones_none"] + metrics["closures_f1_phones_recognised"]
    return {"score": score - metrics["style_error_ratio"], **metrics}


def _generated(model: PTalker, batch: TrainingBatch, code: Tensor) -> NDArray[np.float32]:
    """Blendshape weights ``(T, K)`` of a batch of one, made on the device of the style code."""
    moved = batch.to(code.device)
    weights = generate(
        model,
        moved.speech,
        code,
        num_frames=batch.motion.shape[1],
        lengths=moved.speech_lengths,
        phones=moved.phones,
        mode="parallel",
    )
    return np.asarray(weights[0].float().cpu().numpy(), np.float32)
