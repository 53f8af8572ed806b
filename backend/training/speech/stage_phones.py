# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages *phones* and *words*: the content encoder learns to classify phones.

In *phones* from audio alone; in *words* half of the crops also have recognised phones as input.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from backend.audio.rates import FEATURE_RATE_HZ
from backend.data.speech.batches import phone_batch
from backend.data.speech.dataset import SpeechData, fixed_choice
from backend.data.speech.phone_errors import corrupt
from backend.evaluation import curve_metrics
from backend.model.content_encoders import SpeechContentEncoder
from backend.speech.phones import BILABIALS, PHONE_IDS, phone_frames
from backend.training.loop import BATCHES_PER_STEP, Stage
from backend.training.phone_classification import PhoneAccuracy, phone_cross_entropy

_NUM_FRAMES: Final = 150
_VALIDATION_CLIPS: Final = 160


class _PhoneClassifier(nn.Module):
    """The content encoder as a classifier of phones."""

    def __init__(self, encoder: SpeechContentEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, speech: Tensor, lengths: Tensor, phones: Tensor | None = None) -> Tensor:
        logits: Tensor = self.encoder(speech, lengths, phones=phones).phone_logits
        return logits


def phone_stage(
    name: str,
    encoder: SpeechContentEncoder,
    data: SpeechData,
    *,
    seed: int,
    batch_size: int,
    num_steps: int,
    phone_input_probability: float,
) -> Stage:
    """A stage in which the encoder learns phones frame by frame.

    Args:
        name: Name of the stage.
        encoder: Content encoder to train.
        data: Speech to draw from.
        seed: Seed of the run.
        batch_size: Number of crops of 3 s in a step.
        num_steps: Length of the stage.
        phone_input_probability: Probability that a crop has recognised phones, with errors, as
            input.

    Returns:
        The stage.
    """

    def terms(module: nn.Module, number: int) -> Mapping[str, Tensor]:
        batch = phone_batch(
            data,
            seed=seed,
            number=number,
            batch_size=max(2, batch_size // BATCHES_PER_STEP),
            num_frames=_NUM_FRAMES,
            phone_input_probability=phone_input_probability,
        )
        phone_input = batch.phone_input if phone_input_probability else None
        logits = module(batch.speech, batch.lengths, phone_input)
        return {"phones": phone_cross_entropy(logits, batch.phones, label_smoothing=0.05)}

    return Stage(
        name=name,
        module=_PhoneClassifier(encoder),
        terms=terms,
        validate=partial(_validate, data=data),
        num_steps=num_steps,
        learning_rate=1e-3 if phone_input_probability else 3e-3,
        num_validations=4 if phone_input_probability else 6,
        batches_per_step=BATCHES_PER_STEP,
    )


@torch.no_grad()
def weigh_phone_input(encoder: SpeechContentEncoder, data: SpeechData) -> None:
    """Scales the embedding of input phones to half the size of the features it is added to.

    In the first stage no phones are given, and the projection of the features grows to many times
    the initial size of the embedding, beside which phones would be ignored.
    """
    clip = data.train[0]
    num_frames = clip.num_frames // encoder.stacking * encoder.stacking
    features = torch.from_numpy(data.features(clip)[:num_frames])
    stacked = features.reshape(1, -1, encoder.stacking * features.shape[1])
    weight = encoder.phone_embedding.weight
    projected = encoder.encoder.feature_projection(stacked.to(weight.device))[0]
    weight.mul_(0.5 * projected.std() / weight[1:].std())


def _validate(classifier: nn.Module, data: SpeechData) -> dict[str, float]:
    """Accuracy on held-out speech by audio alone and with recognised phones, and closures."""
    by_audio, with_phones = PhoneAccuracy(), PhoneAccuracy()
    counts = curve_metrics.ClosureCounts()
    rng = np.random.default_rng(0)
    closed_ids = [PHONE_IDS[symbol] for symbol in sorted(BILABIALS)]
    for clip in fixed_choice(data.validation, _VALIDATION_CLIPS):
        features = torch.from_numpy(data.features(clip))[None]
        lengths = torch.tensor([clip.num_frames])
        found = classifier(features, lengths)[0].argmax(-1).cpu().numpy()
        phones = phone_frames(corrupt(clip.phones, rng), clip.num_frames, FEATURE_RATE_HZ)
        logits = classifier(features, lengths, torch.from_numpy(phones)[None])
        truth = phone_frames(clip.phones, clip.num_frames, FEATURE_RATE_HZ)
        by_audio.add(found, truth)
        with_phones.add(logits[0].argmax(-1).cpu().numpy(), truth)
        counts += curve_metrics.closures(
            clip.phones, 1.0 - np.isin(found, closed_ids), threshold_mm=0.5
        )
    return {
        "score": by_audio.share + with_phones.share,
        "closures_f1": counts.f1,
        "phone_accuracy": by_audio.share,
        "phone_accuracy_with_recognised_phones": with_phones.share,
    }
