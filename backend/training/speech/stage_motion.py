# SPDX-License-Identifier: GPL-3.0-or-later
"""The last stage of training: the whole model learns to move, in every style.

Apart from ``train.py``, which puts the stages in order.
"""

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
from backend.training.loop import Stage
from backend.training.speech.stage_phones import BATCHES_PER_STEP
from backend.training.speech.validate import judge_motion

_FULL_EVERY: Final = 6
_CYCLE_EVERY: Final = 5
_STYLES_PER_CLIP: Final = 2
_SURE: Final = 0.5  # of its own phones, to be told them; ``generate`` decides sooner
_ABSOLUTE_FROM, _ABSOLUTE_BY = 0.6, 0.7
_ABSOLUTE_FACTOR: Final = 10.0
_STYLE_DIMENSIONS: Final = 1.0
_STYLE_NUMBERS: Final = 0.1

WEIGHTS: Final = LossWeights(
    reconstruction=10.0,
    displacement=300.0,
    velocity=20.0,
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


class MotionBody(nn.Module):
    """The model in training: its whole forward pass, or the one branch that speech takes.

    Most of a whole pass goes into encoding the motion itself and into the second branch. Most steps
    leave them out, take the exemplar's code as it is, and two of three leave the ear as it is: ear
    and eye learn slower than the rest by then; and each clip is heard once for several styles.
    Where nothing is told, all steps hear twice, as ``generate`` does.

    A model that goes on from a trained one keeps its ear. In every other sequence of its
    speech-only steps the exemplar's code gives way to ``style_codes`` of the style itself, of
    which E_m^s misreads a part, so that the decoder also learns what the whole looks like.
    """

    def __init__(
        self, model: PTalker, geometry: FaceGeometry, weights: LossWeights, *, goes_on: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.geometry = geometry
        self.config = TrainConfig(weights=weights)
        self.style_head = optimised_by_adamw(nn.Linear(model.config.style_dim, STYLE_DIM))
        self.style_codes = nn.Linear(STYLE_DIM, model.config.style_dim)
        self.goes_on = goes_on

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
        model, weights = self.model, self.config.weights
        told, targets = batch.phones, batch.phone_targets
        assert told is not None
        assert targets is not None
        if is_full:
            phones = self._with_own_phones(batch.speech, batch.speech_lengths, told)
            batch = replace(batch, phones=phones)
            outputs = model(
                batch,
                autoregressive=autoregressive,
                own_feedback_share=self.config.own_feedback_share if autoregressive else 0.0,
                with_cycle=with_cycle,
            )
            terms = losses.total(outputs, batch, self.geometry, self.config)[1]
            styles = outputs.styles
        else:
            size, num_frames = batch.motion.shape[:2]
            clips = slice(None, None, _STYLES_PER_CLIP)
            speech, lengths = batch.speech[clips], batch.speech_lengths[clips]
            heard = model.speech_content(
                speech,
                lengths,
                phones=self._with_own_phones(speech, lengths, told[clips]),
                num_frames=num_frames,
                trains_encoder=trains_speech_encoder,
            )
            content = heard.features.repeat_interleave(_STYLES_PER_CLIP, 0)
            mask = heard.mask.repeat_interleave(_STYLES_PER_CLIP, 0)
            styles = model.styles_of(batch, trains_motion_style=False)
            shown = self._with_true_codes(styles, style_vectors) if self.goes_on else styles
            style = model.fusion(shown, batch_size=size, strength=batch.style_strength)
            queries = model.decoder.queries(style, num_frames)
            motion = model.motion(model.decoder(queries, content, mask, style, causal=False))
            terms = losses.motion_terms(
                motion.float(), batch.motion, mask, self.geometry, self.config
            )
            if trains_speech_encoder:
                alone = model.speech_content(speech, lengths)  # which decides its own phones
                logits = torch.cat((heard.phone_logits, alone.phone_logits)).float()
                terms["phones"] = 2.0 * losses.phones(logits, targets[clips].repeat(2, 1))
        terms = {name: getattr(weights, name) * value for name, value in terms.items()}
        for name in ("lip_distance", "closure"):
            terms[name] = absolute_loss_factor * terms[name]
        return {**terms, **self._seen_styles(styles, style_vectors)}

    @torch.no_grad()
    def _with_own_phones(self, speech: Tensor, lengths: Tensor, told: Tensor) -> Tensor:
        """Told phones, and what the ear is sure of where none are."""
        ear = self.model.speech_content
        ear.eval()
        phones = ear.self_conditioned_phones(speech, lengths, told, confidence=_SURE)
        ear.train(self.training)
        return phones

    def _with_true_codes(
        self, styles: Mapping[StyleSource, StyleCodes], style_vectors: Tensor
    ) -> dict[StyleSource, StyleCodes]:
        """The codes of the styles themselves in place of every other one that was read."""
        read = styles["motion"]
        is_read = torch.arange(len(read.code), device=read.code.device) % _STYLES_PER_CLIP == 0
        true = self.style_codes(style_vectors).to(read.code.dtype)
        return {
            **styles,
            "motion": StyleCodes(torch.where(is_read.unsqueeze(1), read.code, true), read.present),
        }

    def _seen_styles(
        self, styles: Mapping[StyleSource, StyleCodes], style_vectors: Tensor
    ) -> dict[str, Tensor]:
        """What an exemplar shows must tell the style's dimensions, and be where its number is.

        Reconstruction alone teaches the numbers' codes within some hundred steps and leaves the
        encoder of motion style behind, whose codes hardly differ by then. The truth is known here,
        as no captured data set has it, so the encoder is told; the head is not part of the model.
        """
        motion = styles["motion"]
        told = self.style_head(motion.code).float()
        error = (told - style_vectors).square().mean(-1)
        numbered = styles["identity"]
        both = motion.present & numbered.present
        apart = (motion.code.float() - numbered.code.float()).square().mean(-1)
        terms = {
            "style_dimensions": _STYLE_DIMENSIONS * losses.masked_mean(error, motion.present),
            "style_numbers": _STYLE_NUMBERS * losses.masked_mean(apart, both),
        }
        if self.goes_on:
            apart = (motion.code - self.style_codes(style_vectors)).float().square().mean(-1)
            terms["style_codes"] = _STYLE_NUMBERS * losses.masked_mean(apart, motion.present)
        return terms


def absolute_loss_factor(progress: float, *, is_new: bool) -> float:
    """Factor of the absolute loss terms after a part of the last stage, 0 to 1.

    In doubt, squares settle between two mouths, half closed; absolute values settle on the likelier
    one. But their gradients do not shrink near the truth, which makes everything else slower to
    learn. So they count little at first and decide at the end. A model that was trained before has
    decided already, and loses closures where they grow once more (notes on training).
    """
    if not is_new:
        return 1.0
    share = (progress - _ABSOLUTE_FROM) / (_ABSOLUTE_BY - _ABSOLUTE_FROM)
    return 1.0 + (_ABSOLUTE_FACTOR - 1.0) * min(max(share, 0.0), 1.0)


def geometry_of(mouth: MeasuredHead) -> FaceGeometry:
    """Where the losses measure a mouth's face."""
    return face_point_geometry(
        FACE_POINT_NAMES, torch.from_numpy(mouth.points), torch.from_numpy(mouth.basis)
    )


def motion_stage(
    body: MotionBody,
    data: SpeechData,
    mouth: MeasuredHead,
    *,
    seed: int,
    batch_size: int,
    num_steps: int,
) -> Stage:
    """The stage.

    Args:
        body: Is trained; the ear of one that goes on stays as it is from here.
        data: The speech.
        mouth: Of the head on which closures are judged.
        seed: Of the run.
        batch_size: Sequences of 3 s in a step.
        num_steps: Length of the stage.
    """
    model = body.model
    if body.goes_on:
        model.speech_content.freeze_speech_encoder()
    num_styles = len(model.config.speakers)
    at_once = batch_size // BATCHES_PER_STEP
    whole = MotionRecipe(batch_size=max(2, at_once * 3 // 8), num_styles=num_styles)
    if body.goes_on:  # what the ear can tell is known by then
        whole = replace(whole, exact_share=0.45, corrupted_share=0.3, slow_share=0.15)
    speech_only = replace(
        whole,
        batch_size=_STYLES_PER_CLIP * max(1, at_once * 3 // 8),
        styles_per_clip=_STYLES_PER_CLIP,
        style_frames=EXEMPLAR_FRAMES,
        scaled_share=0.3,
    )

    def terms(module: nn.Module, number: int) -> Mapping[str, Tensor]:
        step = number // BATCHES_PER_STEP  # all processes do the same in a step
        is_full = step % _FULL_EVERY == 0
        recipe = whole if is_full else speech_only
        batch, vectors = motion_batch(data, recipe, seed=seed, number=number)
        full_step = step // _FULL_EVERY
        return module(
            batch,
            vectors,
            is_full=is_full,
            trains_speech_encoder=step % 3 == 0 and not body.goes_on,
            autoregressive=is_full and full_step % 4 == 3,
            with_cycle=is_full and full_step % _CYCLE_EVERY == 1,
            absolute_loss_factor=absolute_loss_factor(step / num_steps, is_new=not body.goes_on),
        )

    return Stage(
        name="motions",
        module=body,
        terms=terms,
        validate=lambda _: judge_motion(model, data, mouth),
        num_steps=num_steps,
        learning_rate=3e-3,
        num_validations=3,
        batches_per_step=BATCHES_PER_STEP,
    )
