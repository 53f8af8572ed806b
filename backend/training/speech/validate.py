# SPDX-License-Identifier: GPL-3.0-or-later
"""How good a model trained from speech is so far: lips and styles on held-out speech.

Apart from ``train.py``, which trains, and from ``evaluate.py``, which judges a finished model on a
head by recordings that training never chooses by.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.articulation.speaking_style import SpeakingStyle, validation_styles
from backend.audio.rates import FEATURE_RATE_HZ
from backend.data.speech.batches import motion_of, plain_batch
from backend.data.speech.dataset import SpeechData
from backend.evaluation import curve_metrics
from backend.heads.lip_measures import MeasuredHead
from backend.model.batch import TrainingBatch
from backend.model.generate import generate
from backend.model.ptalker import PTalker
from backend.model.style_inversion import style_of_motion
from backend.training.speech.stage_phones import some_clips

_CLIPS: Final = 160  # of 48, chance in some ten closures chose what should be kept
_STYLES: Final = 24


def judge_motion(model: PTalker, data: SpeechData, mouth: MeasuredHead) -> dict[str, float]:
    """Closures and opening on held-out speech by what the model is told, and style by exemplar."""
    clips = some_clips(data.validation, _CLIPS)
    figures: dict[str, float] = {}
    for told in ("nothing", "misheard", "truth"):
        counts = curve_metrics.ClosureCounts()
        pairs = []
        for clip in clips:
            batch = plain_batch(data, [clip], SpeakingStyle.neutral(), told=told)
            motion = _generated(model, batch, model.neutral_style())
            opening, true = mouth.opening_mm(motion), mouth.opening_mm(batch.motion[0].numpy())
            counts += curve_metrics.closures(clip.phones, opening)
            pairs.append((opening, true))
        figures[f"closures_f1_{told}"] = counts.f1
        ours, true = (np.concatenate(curves) for curves in zip(*pairs, strict=True))
        figures[f"opening_{told}"] = curve_metrics.lagged_correlation(ours, true, FEATURE_RATE_HZ)[
            0
        ]
    ratios = []
    for number, style in enumerate(validation_styles(_STYLES)):
        clip, other = clips[number % len(clips)], clips[-1 - number % len(clips)]
        exemplar = motion_of(data, other, style)[:250]
        batch = plain_batch(data, [clip], style, told="truth")
        shown = torch.from_numpy(exemplar)[None].to(model.neutral_style().device)
        code = style_of_motion(model, shown)
        motion = _generated(model, batch, code)
        neutral = motion_of(data, clip, SpeakingStyle.neutral())
        ratios.append(curve_metrics.style_error_ratio(motion, batch.motion[0].numpy(), neutral))
    figures["style_error_ratio"] = float(np.mean(ratios))
    score = sum(figures[f"closures_f1_{told}"] for told in ("nothing", "misheard"))
    return {"score": score - figures["style_error_ratio"], **figures}


def _generated(model: PTalker, batch: TrainingBatch, code: Tensor) -> NDArray[np.float32]:
    """Weights ``(T, K)`` of a batch of one, as the backend makes them, where the code is."""
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
