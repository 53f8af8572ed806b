# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage *lips*: the lip reader learns to read phones off motions in any style."""

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from backend.articulation.coarticulation import articulate
from backend.articulation.speaking_style import SpeakingStyle
from backend.audio.rates import FEATURE_RATE_HZ
from backend.data.speech.batches import EXEMPLAR_FRAMES, IGNORED
from backend.data.speech.crops import draw_crop
from backend.data.speech.dataset import SpeechData
from backend.model.attention import frame_mask
from backend.model.ptalker import PTalker
from backend.motion import at_times
from backend.training.loop import BATCHES_PER_STEP, Stage
from backend.training.phone_classification import PhoneAccuracy, phone_cross_entropy

_CAMERA_SHARE: Final = 0.5
_CAMERA_FPS: Final = (24.0, 60.0)
_CAMERA_NOISE: Final = 0.01
_BLINK_SHARE: Final = 0.5
_VALIDATION_BATCHES: Final = 6


class _LipClassifier(nn.Module):
    """The lip reader as a classifier of phones in motions; only the reader is trained."""

    def __init__(self, model: PTalker) -> None:
        super().__init__()
        if model.lip_reader is None:
            raise ValueError("this model has no lip reader")
        self.lip_reader = model.lip_reader
        self._model = [model]  # in a list, so that the model is no submodule

    def forward(self, motion: Tensor, lengths: Tensor) -> Tensor:
        model = self._model[0]
        nodes = model.graph_encoder.displacements(motion) * model.config.motion_scale
        components = model.motion_style.components_of(nodes)
        logits: Tensor = self.lip_reader(components, frame_mask(lengths, motion.shape[1]))
        return logits


def lip_batch(
    data: SpeechData, *, seed: int, number: int, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of motions of sentences in random styles, some as captured by a camera.

    Args:
        data: Speech to draw from.
        seed: Seed of the run.
        number: Number of the batch; the same number gives the same batch.
        batch_size: Number of sentences ``B``.

    Returns:
        Motions ``(B, T, 52)``, their lengths ``(B,)`` and the frames' phones ``(B, T)``,
        ``IGNORED`` at padding.
    """
    rng = np.random.default_rng((seed, 5, number))
    motions, labels = [], []
    for _ in range(batch_size):
        wanted = int(rng.integers(*EXEMPLAR_FRAMES, endpoint=True))
        clip, start, phones = draw_crop(data, rng, num_frames=wanted)
        motion = articulate(
            clip.phones,
            style=SpeakingStyle.sample(rng),
            num_frames=clip.num_frames,
            fps=FEATURE_RATE_HZ,
            energy=data.energy(clip),
            f0=data.pitch(clip),
            blinks=rng.random() < _BLINK_SHARE,
        )[start : start + len(phones)]
        if rng.random() < _CAMERA_SHARE:
            motion = _captured(motion, rng)
        motions.append(torch.from_numpy(motion))
        labels.append(torch.from_numpy(phones))
    return (
        pad_sequence(motions, batch_first=True),
        torch.tensor([len(phones) for phones in labels]),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )


def _captured(motion: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A motion as if captured at another rate, with the noise of the capture."""
    rate = rng.uniform(*_CAMERA_FPS)
    frames = max(2, round(len(motion) / FEATURE_RATE_HZ * rate))
    seen = at_times(motion, np.arange(frames) / rate, rate=FEATURE_RATE_HZ)
    noise = rng.normal(0.0, _CAMERA_NOISE, seen.shape).astype(np.float32)
    seen = np.maximum(seen + noise, 0.0)
    return at_times(seen, np.arange(len(motion)) / FEATURE_RATE_HZ, rate=rate)


def lip_stage(
    model: PTalker, data: SpeechData, *, seed: int, batch_size: int, num_steps: int
) -> Stage:
    """The stage in which the lip reader is trained.

    Args:
        model: Model whose lip reader is trained.
        data: Speech to draw from.
        seed: Seed of the run.
        batch_size: Number of sentences in a step.
        num_steps: Length of the stage.

    Returns:
        The stage.
    """
    at_once = max(2, batch_size // BATCHES_PER_STEP)
    held_out = replace(data, train=data.validation)

    def terms(classifier: nn.Module, number: int) -> dict[str, Tensor]:
        motion, lengths, phones = lip_batch(data, seed=seed, number=number, batch_size=at_once)
        return {"lips": phone_cross_entropy(classifier(motion, lengths), phones)}

    def validate(classifier: nn.Module) -> dict[str, float]:
        accuracy = PhoneAccuracy()
        for number in range(_VALIDATION_BATCHES):
            motion, lengths, phones = lip_batch(held_out, seed=0, number=number, batch_size=16)
            found = classifier(motion, lengths).argmax(-1).cpu().numpy()
            accuracy.add(found, phones.numpy())
        return {"score": accuracy.share, "phone_accuracy": accuracy.share}

    return Stage(
        name="lips",
        module=_LipClassifier(model),
        terms=terms,
        validate=validate,
        num_steps=num_steps,
        learning_rate=3e-3,
        num_validations=6,
        batches_per_step=BATCHES_PER_STEP,
    )
