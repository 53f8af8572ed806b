# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains a model from speech: the content encoder on phones first, then the whole on motions."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from backend import checkpoint, losses
from backend.ablations import without
from backend.config import PRESETS, LossWeights, StyleSource, TrainConfig
from backend.data.batches import EXEMPLAR_FRAMES, MotionRecipe, motion_batch
from backend.data.dataset import SpeechData, open_speech
from backend.data.styles import STYLE_DIM
from backend.devices import training_precision
from backend.face_geometry import FaceGeometry, face_point_geometry
from backend.model import PTalker, Style, TrainingBatch
from backend.model_card import Trained, export
from backend.mouth import Mouth, demo_mouth
from backend.protocol import JobError
from backend.speech_start import new_model, trained_before
from backend.speech_validation import judge_motion
from backend.topology import FACE_POINT_NAMES
from backend.train_lips import lip_stage
from backend.train_phones import BATCHES_PER_STEP, make_phones_heard, phone_stage
from backend.train_styles import fit_style_head, fit_style_reader, style_stage
from backend.training_loop import Stage, run_stage

_log = logging.getLogger(__name__)
_FULL_EVERY: Final = 6
_CYCLE_EVERY: Final = 5
_STYLES_PER_CLIP: Final = 2
_SURE: Final = 0.5  # of its own phones, to be told them; ``generate`` decides sooner
_ABSOLUTE_FROM, _ABSOLUTE_BY = 0.6, 0.7
_ABSOLUTE_FACTOR: Final = 10.0
_FURTHER_RATE: Final = 0.5  # of the learning rates, for a model that was trained before
_TOLD_SHARE: Final = 0.5
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


@dataclass(frozen=True, slots=True)
class TrainArguments:
    """What the command line says.

    Attributes:
        preset: ``base`` or ``tiny``.
        data: Folders of speech; see ``dataset.open_speech``.
        run: Folder of the run: states to go on from, logs, and ``checkpoint``.
        seed: Of everything.
        phone_steps: Length of the first stage, in which the ear learns phones from sound; after
            ``start_from``, 0 leaves it out, as any other.
        word_steps: Of the second, in which it is told half of the time what a recogniser heard.
        style_steps: Of the third, in which styles are read from motions.
        lip_steps: Of the fourth, in which phones are read from motions.
        motion_steps: Of the last, in which the whole model learns to move.
        batch_size: Sequences of 3 s in a step.
        threads: Of torch on a CPU; 0 leaves it to torch.
        without: Parts to leave out; see ``ablations.without``.
        start_from: A checkpoint to go on from instead of random weights, at half the learning
            rate; the third stage is left out then. Of several, the mean of their weights.
    """

    preset: str
    data: tuple[Path, ...]
    run: Path
    seed: int = 0
    phone_steps: int = 3000
    word_steps: int = 250
    style_steps: int = 100
    lip_steps: int = 2000
    motion_steps: int = 1200
    batch_size: int = 16
    threads: int = 0
    without: tuple[str, ...] = ()
    start_from: tuple[Path, ...] = ()


def main(arguments: TrainArguments) -> Trained:
    """Trains all stages, or what is left of them, and writes the checkpoint.

    Args:
        arguments: From the command line.

    Returns:
        The model and how it did, as it lies in ``checkpoint`` of the run folder.

    Raises:
        JobError: The data or the preset is no good; one sentence says what to do.
    """
    if arguments.preset not in PRESETS or PRESETS[arguments.preset].shape_kind != "solved":
        raise JobError(f"Preset {arguments.preset!r} is not made for speech; take base or tiny.")
    steps = (
        arguments.phone_steps, arguments.word_steps, arguments.style_steps, arguments.lip_steps,
        arguments.motion_steps,
    )  # fmt: skip
    if min(steps) < 0 or (not arguments.start_from and 0 in steps):
        raise JobError("Give every stage 1 step or more; 0 leaves it out after --start-from only.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    accelerator = Accelerator(
        mixed_precision=training_precision(),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    with accelerator.main_process_first():  # which fills the cache
        data = open_speech(arguments.data, arguments.run / "cache")
    mouth = demo_mouth()
    torch.manual_seed(arguments.seed)
    config, weights = without(PRESETS[arguments.preset], WEIGHTS, arguments.without)
    start = arguments.start_from
    if start:
        model = trained_before(start, config, lip_steps=arguments.lip_steps)
    else:
        model = new_model(config, mouth)
    body = _Body(model, geometry_of(mouth).to(accelerator.device), weights)
    body.to(accelerator.device)
    if start and arguments.motion_steps:
        fit_style_head(model, body.style_head, data, seed=arguments.seed)
    figures = {}
    for stage in _stages(arguments, body, data, mouth):
        if start and stage.name != "lips":  # whose reader is often new there
            stage = replace(stage, learning_rate=_FURTHER_RATE * stage.learning_rate)
        elif not start:
            _make_ready_for(stage, body, data, seed=arguments.seed)
        figures[stage.name] = run_stage(
            stage, accelerator, folder=arguments.run, seed=arguments.seed
        )
    history = dict.fromkeys(line for folder in start for line in checkpoint.commands_of(folder))
    trained = Trained(model, data, command_of(arguments), arguments.seed, figures, tuple(history))
    if accelerator.is_main_process:
        export(trained, arguments.run / "checkpoint")
    return trained


def _stages(
    arguments: TrainArguments, body: "_Body", data: SpeechData, mouth: Mouth
) -> Iterator[Stage]:
    """All that have steps; a model that was trained before knows styles already."""
    listen = partial(
        phone_stage,
        encoder=body.model.speech_content,
        data=data,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
    )
    if arguments.phone_steps:
        yield listen("phones", num_steps=arguments.phone_steps, told_share=0.0)
    if arguments.word_steps:
        yield listen("words", num_steps=arguments.word_steps, told_share=_TOLD_SHARE)
    if not arguments.start_from:
        yield style_stage(
            body.model,
            body.style_head,
            data,
            seed=arguments.seed,
            batch_size=max(2, arguments.batch_size * 3 // 2),
            num_steps=arguments.style_steps,
        )
    if arguments.lip_steps:
        yield lip_stage(
            body.model,
            data,
            seed=arguments.seed,
            batch_size=2 * arguments.batch_size,
            num_steps=arguments.lip_steps,
        )
    if arguments.motion_steps:
        yield _motion_stage(arguments, body, data, mouth)


def _make_ready_for(stage: Stage, body: "_Body", data: SpeechData, *, seed: int) -> None:
    """What a new model needs between two stages."""
    ear = body.model.speech_content
    if stage.name == "words":
        make_phones_heard(ear, data)
    elif stage.name == "motions":
        ear.trust_as_recognised()
    elif stage.name == "styles":
        error = fit_style_reader(
            body.model, body.style_head, data, seed=seed, num_steps=stage.num_steps
        )
        _log.info("styles from statistics alone: squared error %.4f", error)


def command_of(arguments: TrainArguments) -> str:
    """The command line that does this training again, but for the names of folders."""
    return (
        f"python -m backend train --preset {arguments.preset} --data CORPUS --run RUN"
        f" --seed {arguments.seed} --phone-steps {arguments.phone_steps}"
        f" --word-steps {arguments.word_steps} --style-steps {arguments.style_steps}"
        f" --lip-steps {arguments.lip_steps} --motion-steps {arguments.motion_steps}"
        f" --batch-size {arguments.batch_size}"
        + (" --start-from" if arguments.start_from else "")
        + " CHECKPOINT" * len(arguments.start_from)
        + (" --without " + " ".join(arguments.without) if arguments.without else "")
    )


class _Body(nn.Module):
    """The model in training: its whole forward pass, or the one branch that speech takes.

    Most of a whole pass goes into encoding the motion itself and into the second branch. Most steps
    leave them out, take the exemplar's code as it is, and two of three leave the ear as it is: ear
    and eye learn slower than the rest by then; and each clip is heard once for several styles.
    Where nothing is told, all steps hear twice, as ``generate`` does.
    """

    def __init__(self, model: PTalker, geometry: FaceGeometry, weights: LossWeights) -> None:
        super().__init__()
        self.model = model
        self.geometry = geometry
        self.config = TrainConfig(weights=weights)
        self.style_head = nn.Linear(model.config.style_dim, STYLE_DIM)

    def forward(
        self,
        batch: TrainingBatch,
        style_vectors: Tensor,
        *,
        is_full: bool,
        trains_ear: bool,
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
                trains_encoder=trains_ear,
            )
            content = heard.features.repeat_interleave(_STYLES_PER_CLIP, 0)
            mask = heard.mask.repeat_interleave(_STYLES_PER_CLIP, 0)
            styles = model.styles_of(batch, trains_motion_style=False)
            style = model.fusion(styles, batch_size=size, strength=batch.style_strength)
            queries = model.decoder.queries(style, num_frames)
            motion = model.motion(model.decoder(queries, content, mask, style, causal=False))
            terms = losses.motion_terms(
                motion.float(), batch.motion, mask, self.geometry, self.config
            )
            if trains_ear:
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
        phones = ear.with_own_phones(speech, lengths, told, sure=_SURE)
        ear.train(self.training)
        return phones

    def _seen_styles(
        self, styles: Mapping[StyleSource, Style], style_vectors: Tensor
    ) -> dict[str, Tensor]:
        """What an exemplar shows must tell the style's dimensions, and be where its number is.

        Reconstruction alone teaches the numbers' codes within some hundred steps and leaves the
        encoder of motion style behind, whose codes hardly differ by then. The truth is known here,
        as no captured data set has it, so the encoder is told; the head is not part of the model.
        """
        motion = styles["motion"]
        told = self.style_head(motion.code).float()
        error = (told - style_vectors.to(told.device)).square().mean(-1)
        numbered = styles["identity"]
        both = motion.present & numbered.present
        apart = (motion.code.float() - numbered.code.float()).square().mean(-1)
        return {
            "style_dimensions": _STYLE_DIMENSIONS * losses.masked_mean(error, motion.present),
            "style_numbers": _STYLE_NUMBERS * losses.masked_mean(apart, both),
        }


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


def geometry_of(mouth: Mouth) -> FaceGeometry:
    """Where the losses measure a mouth's face."""
    return face_point_geometry(
        FACE_POINT_NAMES, torch.from_numpy(mouth.points), torch.from_numpy(mouth.basis)
    )


def _motion_stage(arguments: TrainArguments, body: _Body, data: SpeechData, mouth: Mouth) -> Stage:
    model = body.model
    num_styles = len(model.config.speakers)
    at_once = arguments.batch_size // BATCHES_PER_STEP
    whole = MotionRecipe(batch_size=max(2, at_once * 3 // 8), num_styles=num_styles)
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
        batch, vectors = motion_batch(data, recipe, seed=arguments.seed, number=number)
        full_step = step // _FULL_EVERY
        return module(
            batch,
            vectors,
            is_full=is_full,
            trains_ear=step % 3 == 0,
            autoregressive=is_full and full_step % 4 == 3,
            with_cycle=is_full and full_step % _CYCLE_EVERY == 1,
            absolute_loss_factor=absolute_loss_factor(
                step / arguments.motion_steps, is_new=not arguments.start_from
            ),
        )

    return Stage(
        name="motions",
        module=body,
        terms=terms,
        validate=lambda _: judge_motion(model, data, mouth),
        num_steps=arguments.motion_steps,
        learning_rate=3e-3,
        num_validations=5,
        batches_per_step=BATCHES_PER_STEP,
        fine_tuned="model.speech_content.encoder." if arguments.start_from else "",
    )
