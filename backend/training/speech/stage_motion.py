# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage *motions*: the whole model learns the motions of speech in every style."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from backend.articulation.speaking_style import STYLE_DIM
from backend.data.speech.batches import EXEMPLAR_FRAMES, MotionRecipe, motion_batch
from backend.data.speech.dataset import SpeechData
from backend.heads.lip_measures import MeasuredHead
from backend.heads.topology import FACE_POINT_NAMES
from backend.model import losses
from backend.model.batch import TrainingBatch
from backend.model.config import LossWeights, StyleSource, TrainConfig
from backend.model.loss_geometry import FaceGeometry, face_point_geometry
from backend.model.optimizer_groups import optimised_by_adamw
from backend.model.ptalker import PTalker
from backend.model.style_encoders import StyleCodes
from backend.training.loop import BATCHES_PER_STEP, Stage
from backend.training.speech.validate import score_motion

_FULL_EVERY: Final = 6
_CYCLE_EVERY: Final = 5
_STYLES_PER_CLIP: Final = 2
_OWN_PHONE_PROBABILITY: Final = 0.5  # of self-conditioned phones; ``generate`` takes a lower one
_ABSOLUTE_FROM, _ABSOLUTE_BY = 0.6, 0.7
_ABSOLUTE_FACTOR: Final = 10.0
_STYLE_DIMENSIONS: Final = 1.0
_STYLE_NUMBERS: Final = 0.1

WEIGHTS: Final = LossWeights(
    reconstruction=10.0,
    displacement=300.0,
    velocity=20.0,
    spread=300.0,
    speed=3000.0,
    lip_distance=3.0,
    closure=2.0,
    motion_branch=0.3,
    contrastive=0.01,
    divergence=0.01,
    orthogonality=0.05,
    style_contrast=0.05,
    style_consistency=0.05,
    adversary=0.01,
    cycle=0.05,
    phones=0.3,
)
"""Distances are in interocular distances, so that 1 mm is 0.016 and its square 0.00026."""


class MotionTrainingModule(nn.Module):
    """Loss terms of the model: of its whole forward pass, or of the speech branch alone.

    Most of a whole pass goes into encoding the motion itself and into the second branch. Most steps
    leave them out and take the exemplar's code without a gradient, and two of three do not train
    the speech encoder: both encoders learn slower than the rest by then. Each clip is encoded once
    for several styles. Where no phones are given, the model is conditioned on its own, as in
    ``generate``.

    A pretrained model keeps its speech encoder. In every other sequence of its speech-only steps
    ``style_codes`` of the style itself take the place of the exemplar's code, since E_m^s misreads
    a part of it, so that the decoder also learns the whole style.
    """

    def __init__(
        self, model: PTalker, geometry: FaceGeometry, weights: LossWeights, *, is_pretrained: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.geometry = geometry
        self.config = TrainConfig(weights=weights)
        self.style_head = optimised_by_adamw(nn.Linear(model.config.style_dim, STYLE_DIM))
        self.style_codes = nn.Linear(STYLE_DIM, model.config.style_dim)
        self.is_pretrained = is_pretrained

    def forward(
        self,
        batch: TrainingBatch,
        style_vectors: Tensor,
        *,
        is_full: bool,
        trains_speech_encoder: bool,
        autoregressive: bool,
        with_cycle: bool,
        absolute_loss_factor: float,
    ) -> dict[str, Tensor]:
        """Loss terms, weighted; the absolute ones ``absolute_loss_factor`` times more."""
        model = self.model
        phone_input, targets = batch.phones, batch.phone_targets
        assert phone_input is not None
        assert targets is not None
        if is_full:
            phones = self._with_own_phones(batch.speech, batch.speech_lengths, phone_input)
            batch = replace(batch, phones=phones)
            outputs = model(
                batch,
                autoregressive=autoregressive,
                own_feedback_share=self.config.own_feedback_share if autoregressive else 0.0,
                with_cycle=with_cycle,
            )
            terms = losses.total(outputs, batch, self.geometry, self.config)
            styles = outputs.styles
        else:
            size, num_frames = batch.motion.shape[:2]
            clips = slice(None, None, _STYLES_PER_CLIP)
            speech, lengths = batch.speech[clips], batch.speech_lengths[clips]
            spoken = model.speech_content(
                speech,
                lengths,
                phones=self._with_own_phones(speech, lengths, phone_input[clips]),
                num_frames=num_frames,
                trains_encoder=trains_speech_encoder,
            )
            content = spoken.features.repeat_interleave(_STYLES_PER_CLIP, 0)
            mask = spoken.mask.repeat_interleave(_STYLES_PER_CLIP, 0)
            styles = model.styles_of(batch, trains_motion_style=False)
            shown = self._with_true_codes(styles, style_vectors) if self.is_pretrained else styles
            style = model.fusion(shown, batch_size=size, strength=batch.style_strength)
            queries = model.decoder.queries(style, num_frames)
            motion = model.motion(model.decoder(queries, content, mask, style, causal=False))
            terms = losses.motion_terms(
                motion.float(), batch.motion, mask, self.geometry, self.config
            )
            if trains_speech_encoder:
                # Without phone input it predicts the phones that condition it.
                alone = model.speech_content(speech, lengths)
                logits = torch.cat((spoken.phone_logits, alone.phone_logits)).float()
                terms["phones"] = 2.0 * losses.phones(logits, targets[clips].repeat(2, 1))
            terms = losses.weighted(terms, self.config.weights)
        for name in ("lip_distance", "closure"):
            terms[name] = absolute_loss_factor * terms[name]
        return {**terms, **self._style_code_terms(styles, style_vectors)}

    @torch.no_grad()
    def _with_own_phones(self, speech: Tensor, lengths: Tensor, phone_input: Tensor) -> Tensor:
        """Input phones, and confident ones of the phone classifier where there are none."""
        encoder = self.model.speech_content
        encoder.eval()
        phones = encoder.self_conditioned_phones(
            speech, lengths, phone_input, confidence=_OWN_PHONE_PROBABILITY
        )
        encoder.train(self.training)
        return phones

    def _with_true_codes(
        self, styles: Mapping[StyleSource, StyleCodes], style_vectors: Tensor
    ) -> dict[StyleSource, StyleCodes]:
        """Replaces every other code of an exemplar by the code of the style itself."""
        read = styles["motion"]
        is_read = torch.arange(len(read.code), device=read.code.device) % _STYLES_PER_CLIP == 0
        true = self.style_codes(style_vectors).to(read.code.dtype)
        return {
            **styles,
            "motion": StyleCodes(torch.where(is_read.unsqueeze(1), read.code, true), read.present),
        }

    def _style_code_terms(
        self, styles: Mapping[StyleSource, StyleCodes], style_vectors: Tensor
    ) -> dict[str, Tensor]:
        """Supervision of exemplars' codes: by the style's dimensions and the identity's code.

        Reconstruction alone teaches the identities' codes within some hundred steps and leaves the
        motion style encoder behind, whose codes hardly differ by then. Unlike in captured data, the
        true style is known here and supervises the encoder; the head is not part of the model.
        """
        motion = styles["motion"]
        read = self.style_head(motion.code).float()
        error = (read - style_vectors).square().mean(-1)
        numbered = styles["identity"]
        both = motion.present & numbered.present
        apart = (motion.code.float() - numbered.code.float()).square().mean(-1)
        terms = {
            "style_dimensions": _STYLE_DIMENSIONS * losses.masked_mean(error, motion.present),
            "style_numbers": _STYLE_NUMBERS * losses.masked_mean(apart, both),
        }
        if self.is_pretrained:
            apart = (motion.code - self.style_codes(style_vectors)).float().square().mean(-1)
            terms["style_codes"] = _STYLE_NUMBERS * losses.masked_mean(apart, motion.present)
        return terms


def absolute_loss_factor(progress: float, *, is_new: bool) -> float:
    """Factor of the absolute loss terms after a part of the last stage, 0 to 1.

    In doubt, squared errors settle between two mouths, half closed; absolute errors settle on the
    likelier one. But their gradients do not shrink near the truth, which makes everything else
    slower to learn. So they have little weight at first and much at the end. A pretrained model is
    past that, and loses closures where they grow once more (docs/findings.md).
    """
    if not is_new:
        return 1.0
    share = (progress - _ABSOLUTE_FROM) / (_ABSOLUTE_BY - _ABSOLUTE_FROM)
    return 1.0 + (_ABSOLUTE_FACTOR - 1.0) * min(max(share, 0.0), 1.0)


def geometry_of(mouth: MeasuredHead) -> FaceGeometry:
    """Geometry of a head on which the losses are measured."""
    return face_point_geometry(
        FACE_POINT_NAMES, torch.from_numpy(mouth.points), torch.from_numpy(mouth.basis)
    )


def motion_stage(
    training_module: MotionTrainingModule,
    data: SpeechData,
    mouth: MeasuredHead,
    *,
    seed: int,
    batch_size: int,
    num_steps: int,
) -> Stage:
    """The stage in which the whole model is trained.

    Args:
        training_module: Module to train; the speech encoder of a pretrained model is frozen from
            here on.
        data: Speech to draw from.
        mouth: Head on which closures are measured in validation.
        seed: Seed of the run.
        batch_size: Number of sequences of 3 s in a step.
        num_steps: Length of the stage.

    Returns:
        The stage.
    """
    model = training_module.model
    if training_module.is_pretrained:
        model.speech_content.freeze_speech_encoder()
    num_styles = len(model.config.speakers)
    at_once = batch_size // BATCHES_PER_STEP
    whole = MotionRecipe(batch_size=max(2, at_once * 3 // 8), num_styles=num_styles)
    if (
        training_module.is_pretrained
    ):  # whose speech encoder is frozen, so that more sequences can have phones
        whole = replace(
            whole,
            given_phones_probability=0.45,
            recognised_phones_probability=0.3,
            slow_share=0.15,
            held_share=0.1,
        )
    speech_only = replace(
        whole,
        batch_size=_STYLES_PER_CLIP * max(1, at_once * 3 // 8),
        styles_per_clip=_STYLES_PER_CLIP,
        style_frames=EXEMPLAR_FRAMES,
        scaled_share=0.3,
    )

    def terms(module: nn.Module, number: int) -> Mapping[str, Tensor]:
        step = number // BATCHES_PER_STEP  # all processes take the same kind of step
        is_full = step % _FULL_EVERY == 0
        recipe = whole if is_full else speech_only
        batch, vectors = motion_batch(data, recipe, seed=seed, number=number)
        full_step = step // _FULL_EVERY
        return module(
            batch,
            vectors,
            is_full=is_full,
            trains_speech_encoder=step % 3 == 0 and not training_module.is_pretrained,
            autoregressive=is_full and full_step % 4 == 3,
            with_cycle=is_full and full_step % _CYCLE_EVERY == 1,
            absolute_loss_factor=absolute_loss_factor(
                step / num_steps, is_new=not training_module.is_pretrained
            ),
        )

    return Stage(
        name="motions",
        module=training_module,
        terms=terms,
        validate=lambda _: score_motion(model, data, mouth),
        num_steps=num_steps,
        learning_rate=3e-3,
        num_validations=3,
        batches_per_step=BATCHES_PER_STEP,
    )
