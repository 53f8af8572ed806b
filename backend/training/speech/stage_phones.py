# SPDX-License-Identifier: GPL-3.0-or-later
"""The first stages of training: the content encoder learns phones, then to weigh what it is told.

Apart from ``train.py``, which puts the stages in order and trains the whole model.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from backend.audio.rates import FEATURE_RATE_HZ
from backend.data.speech.batches import IGNORED, phone_batch
from backend.data.speech.dataset import Clip, SpeechData
from backend.data.speech.phone_errors import corrupt
from backend.evaluation import curve_metrics
from backend.model.content_encoders import SpeechContentEncoder
from backend.speech.phones import BILABIALS, PHONE_IDS, SILENCE, phone_frames
from backend.training.loop import Stage

BATCHES_PER_STEP: Final = 2
"""Into so many batches each step is cut, for as many processes or fewer."""
_NUM_FRAMES: Final = 150
_PHONE_CLIPS: Final = 160


class _PhoneClassifier(nn.Module):
    """The content encoder as a recogniser of phones."""

    def __init__(self, encoder: SpeechContentEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, speech: Tensor, lengths: Tensor, told: Tensor | None = None) -> Tensor:
        logits: Tensor = self.encoder(speech, lengths, phones=told).phone_logits
        return logits


def phone_stage(
    name: str,
    encoder: SpeechContentEncoder,
    data: SpeechData,
    *,
    seed: int,
    batch_size: int,
    num_steps: int,
    told_share: float,
) -> Stage:
    """A stage in which the encoder learns phones frame by frame.

    Args:
        name: Of the stage.
        encoder: What is trained.
        data: The speech.
        seed: Of the run.
        batch_size: Crops of 3 s in a step.
        num_steps: Length of the stage.
        told_share: Crops for which a recogniser's phones are given, errors and all.
    """

    def terms(module: nn.Module, number: int) -> Mapping[str, Tensor]:
        batch = phone_batch(
            data,
            seed=seed,
            number=number,
            batch_size=max(2, batch_size // BATCHES_PER_STEP),
            num_frames=_NUM_FRAMES,
            told_share=told_share,
        )
        logits = module(batch.speech, batch.lengths, batch.told if told_share else None)
        loss = nn.functional.cross_entropy(
            logits.float().flatten(0, 1),
            batch.phones.flatten().to(logits.device),
            ignore_index=IGNORED,
            label_smoothing=0.05,
        )
        return {"phones": loss}

    return Stage(
        name=name,
        module=_PhoneClassifier(encoder),
        terms=terms,
        validate=partial(_score_speech_encoder, data=data),
        num_steps=num_steps,
        learning_rate=1e-3 if told_share else 3e-3,
        num_validations=4 if told_share else 6,
        batches_per_step=BATCHES_PER_STEP,
    )


@torch.no_grad()
def weigh_phone_input(encoder: SpeechContentEncoder, data: SpeechData) -> None:
    """Brings the embedding of told phones to half the size of what it is added to.

    In the first stage nothing is told, and the features' projection grows to many times the size
    that the embedding was made with; what is then told would drown in what is heard.
    """
    clip = data.train[0]
    num_frames = clip.num_frames // encoder.stacking * encoder.stacking
    features = torch.from_numpy(data.features(clip)[:num_frames])
    stacked = features.reshape(1, -1, encoder.stacking * features.shape[1])
    weight = encoder.phone_embedding.weight
    heard = encoder.encoder.feature_projection(stacked.to(weight.device))[0]
    weight.mul_(0.5 * heard.std() / weight[1:].std())


def _score_speech_encoder(ear: nn.Module, data: SpeechData) -> dict[str, float]:
    """Share of speech frames heard right, also when told misheard phones, and closures heard."""
    right = told_right = total = 0
    counts = curve_metrics.ClosureCounts()
    rng = np.random.default_rng(0)
    closed_ids = [PHONE_IDS[symbol] for symbol in sorted(BILABIALS)]
    for clip in some_clips(data.validation, _PHONE_CLIPS):
        features = torch.from_numpy(data.features(clip))[None]
        lengths = torch.tensor([clip.num_frames])
        heard = ear(features, lengths)[0].argmax(-1).cpu().numpy()
        told = phone_frames(corrupt(clip.phones, rng), clip.num_frames, FEATURE_RATE_HZ)
        mended = ear(features, lengths, torch.from_numpy(told)[None])[0].argmax(-1).cpu().numpy()
        truth = phone_frames(clip.phones, clip.num_frames, FEATURE_RATE_HZ)
        spoken = truth > PHONE_IDS[SILENCE]
        right += int((heard == truth)[spoken].sum())
        told_right += int((mended == truth)[spoken].sum())
        total += int(spoken.sum())
        counts += curve_metrics.closures(
            clip.phones, 1.0 - np.isin(heard, closed_ids), threshold_mm=0.5
        )
    shares = {"heard": right / max(1, total), "mended": told_right / max(1, total)}
    return {"score": sum(shares.values()), "closures_f1": counts.f1, **shares}


def some_clips(clips: tuple[Clip, ...], count: int) -> list[Clip]:
    """A fixed choice of clips."""
    chosen = np.random.default_rng(0).permutation(len(clips))[:count]
    return [clips[index] for index in chosen]
