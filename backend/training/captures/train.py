# SPDX-License-Identifier: GPL-3.0-or-later
"""Training of a model of learned shapes on a prepared set of captured faces."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from backend import io
from backend.data.captures import prepared
from backend.data.captures.batches import BatchRecipe, CaptureBatches, EncodedSpeech
from backend.data.captures.prepared import PreparedSet
from backend.errors import UserError
from backend.model import losses
from backend.model.batch import TrainingBatch
from backend.model.config import LossWeights, TrainConfig
from backend.model.loss_geometry import FaceGeometry
from backend.model.presets import CAPTURE_PRESETS, PRESETS
from backend.model.ptalker import PTalker
from backend.training.ablations import without
from backend.training.captures.export import CaptureTrained, export, plot_curves, plot_sample
from backend.training.captures.init import (
    TrainingSetup,
    config_for,
    new_setup,
    to_own_unit,
    training_speakers,
)
from backend.training.captures.speech_encoder import (
    Frozen,
    find_source,
    frozen_speech_encoder,
    speech_encoder_fingerprint,
)
from backend.training.captures.validate import predicted, score, validation_clips
from backend.training.loop import Stage, run_stage

_log = logging.getLogger(__name__)
_STYLE_SECONDS: Final = 6.0
_CYCLE_SHARE: Final = 0.2
_STAGE: Final = "captures"
_FLAGS: Final = {"batches_per_step": "--accumulate"}

MOTION_WEIGHTS: Final = LossWeights(
    reconstruction=1.0,
    displacement=50.0,
    velocity=4.0,
    spread=0.0,
    speed=0.0,
    lip_distance=5.0,
    closure=5.0,
    motion_branch=0.0,
    contrastive=0.0,
    divergence=0.0,
    orthogonality=0.0,
    style_contrast=0.0,
    style_consistency=0.0,
    adversary=0.0,
    cycle=0.0,
    phones=0.0,
)
"""Reconstruction and velocity in shares of the motion's variance, the rest in interocular
distances (1 mm is 0.016). Peers have these terms alone."""

WEIGHTS: Final = replace(
    MOTION_WEIGHTS,
    motion_branch=0.3,
    contrastive=0.01,
    divergence=0.01,
    orthogonality=0.05,
    style_contrast=0.02,
    style_consistency=0.05,
    adversary=0.01,
    cycle=0.05,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureTrainArguments:
    """Options of a training on captured faces.

    Attributes:
        preset: Preset of the model, one of ``CAPTURE_PRESETS``.
        data: Folder of a prepared set.
        run: Folder of the run: state to go on from, logs, plots and ``checkpoint``.
        seed: Seed of the run.
        speech_encoder: Name of the speech encoder, see ``speech_encoder.find_source``; empty takes
            the preset's.
        freeze: What of the speech encoder is frozen; None takes the default of its kind.
        steps: Length of the training.
        batch_size: Number of sequences in a batch.
        batches_per_step: Number of batches, over all processes, whose mean gradient makes a step.
        precision: Mixed precision of the arithmetic; ``auto`` takes a fast one.
        learning_rate: Peak of the learning rate.
        validations: Number of validations.
        patience: Validations without a better score after which training ends; 0 is never.
        max_seconds: Length of a sequence in a batch; longer ones are cut.
        small: Whether to take a network of a fraction of the size.
        regions: File with the vertices of the lips.
        cache: Folder for the output of a frozen speech encoder; None takes one in the run's.
        threads: Number of threads of torch on a CPU; 0 leaves it to torch.
        stop_at: Number of steps after which to stop as if interrupted; 0 is at the end.
        without: Parts to leave out; see ``ablations.without``.
    """

    preset: str
    data: Path
    run: Path
    seed: int = 0
    speech_encoder: str = ""
    freeze: Frozen | None = None
    steps: int = 4000
    batch_size: int = 8
    batches_per_step: int = 1
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    learning_rate: float = 1e-3
    validations: int = 20
    patience: int = 8
    max_seconds: float = 8.0
    small: bool = False
    regions: Path | None = None
    cache: Path | None = None
    threads: int = 0
    stop_at: int = 0
    without: tuple[str, ...] = ()


def main(arguments: CaptureTrainArguments) -> CaptureTrained:
    """Trains a model, or goes on with its training, and writes checkpoint and plots.

    Args:
        arguments: Options of the command line.

    Returns:
        The model in the set's unit, with its metrics.

    Raises:
        UserError: The set, the speech encoder or the run folder cannot be used.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    data = prepared.open(arguments.data)
    _check(arguments, data)
    preset = PRESETS[arguments.preset]
    source = find_source(arguments.speech_encoder, preset.speech, arguments.freeze)
    torch.manual_seed(arguments.seed)
    config = config_for(arguments.preset, data, source, small=arguments.small)
    peer = "motion" not in config.style_sources
    config, weights = without(config, MOTION_WEIGHTS if peer else WEIGHTS, arguments.without)
    setup = new_setup(config, data, source, arguments.regions)
    precision = arguments.precision
    if precision == "auto":  # a CPU may have to emulate bf16
        precision = "bf16" if torch.cuda.is_available() else "no"
    accelerator = Accelerator(
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if arguments.batches_per_step % accelerator.num_processes:
        raise UserError(
            f"--accumulate {arguments.batches_per_step} batches cannot be shared by "
            f"{accelerator.num_processes} processes. Take a multiple of these."
        )
    with accelerator.main_process_first():
        _remember(arguments, data, accelerator.is_main_process)
        setup.model.to(accelerator.device)
        encoded = _encode_speech(arguments, data, setup.model)
    stage = _stage(arguments, data, setup, encoded, weights, accelerator.device)
    metrics = run_stage(
        stage,
        accelerator,
        folder=arguments.run,
        seed=arguments.seed,
        stop_at=arguments.stop_at or None,
    )
    model = setup.model.eval()
    to_own_unit(model, setup.factor)
    trained = CaptureTrained(model, data, command_of(arguments), arguments.seed, metrics)
    if accelerator.is_main_process:
        export(trained, arguments.run / "checkpoint")
        plot_curves(arguments.run / f"{_STAGE}-log.jsonl", arguments.run / "curves.png")
        clip = validation_clips(data)[0]
        made = predicted(model, encoded, data, clip, 1.0)
        plot_sample(data, clip, made, setup.head, arguments.run / "sample.png")
    accelerator.wait_for_everyone()
    return trained


def command_of(arguments: CaptureTrainArguments) -> str:
    """The command line that repeats this training, but for the names of folders."""
    parts = [f"python -m backend train --preset {arguments.preset} --data DATA --run RUN"]
    for name, value in asdict(arguments).items():
        if name not in ("preset", "data", "run", "cache", "threads", "stop_at"):
            flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
            if isinstance(value, Path) or (name == "speech_encoder" and Path(value).is_dir()):
                parts.append(f"{flag} PATH")
            elif value is True:
                parts.append(flag)
            elif name == "without":
                parts += [" ".join((flag, *value))] if value else []
            elif value not in (None, False, ""):
                parts.append(f"{flag} {value}")
    return " ".join(parts)


def _check(arguments: CaptureTrainArguments, data: PreparedSet) -> None:
    if arguments.preset not in CAPTURE_PRESETS:
        raise UserError(
            f"Preset {arguments.preset!r} is not made for captured faces; take one of "
            f"{', '.join(CAPTURE_PRESETS)}."
        )
    for name in ("steps", "batch_size", "batches_per_step", "validations", "max_seconds"):
        if getattr(arguments, name) < 1:
            flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
            raise UserError(f"{flag} is {getattr(arguments, name)}; it must be 1 or more.")
    if not data.split("train") or not data.split("validation"):
        raise UserError(
            f"{arguments.data} needs sequences of both splits, train and validation; it has "
            f"{len(data.split('train'))} and {len(data.split('validation'))}. Prepare more of it."
        )


def _remember(arguments: CaptureTrainArguments, data: PreparedSet, is_main: bool) -> None:
    """Writes the options of the run into its folder; refuses a folder with other options."""
    path = arguments.run / "run.json"
    wanted = {"command": command_of(arguments), "data": data.content_hash}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            raise UserError(
                f"{arguments.run} holds a run of other options or data: {found.get('command')}. "
                "Give the same, or another --run folder."
            )
    elif is_main:
        arguments.run.mkdir(parents=True, exist_ok=True)
        io.write_text(path, json.dumps(wanted, indent=1) + "\n")


def _encode_speech(
    arguments: CaptureTrainArguments, data: PreparedSet, model: PTalker
) -> EncodedSpeech:
    encode, rate_hz = frozen_speech_encoder(model)
    folder = arguments.cache or arguments.run / "encoded_speech"
    if encode is not None:
        folder /= f"{data.content_hash}-{speech_encoder_fingerprint(model)}"
    encoded = EncodedSpeech(data, folder, encode, rate_hz)
    clips = [clip for clip in data.manifest.sequences if clip.split in ("train", "validation")]

    def tell(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            _log.info("encoded the speech of %d of %d clips", done, total)

    encoded.fill(clips, tell)
    return encoded


class _TrainingModule(nn.Module):
    """The model in training; its output are the weighted loss terms."""

    def __init__(self, model: PTalker, geometry: FaceGeometry, weights: LossWeights) -> None:
        super().__init__()
        self.model = model
        self.geometry = geometry
        self.config = TrainConfig(weights=weights)

    def train(self, mode: bool = True) -> _TrainingModule:
        """Sets the mode; a frozen speech encoder stays in evaluation mode."""
        super().train(mode)
        if self.model.config.speech.frozen == "everything":
            encoder: nn.Module = self.model.speech_content.encoder
            encoder.eval()
        return self

    def forward(
        self, batch: TrainingBatch, *, autoregressive: bool, with_cycle: bool, reversal: float
    ) -> dict[str, Tensor]:
        """Loss terms, weighted."""
        content_encoder = self.model.speech_content
        if batch.phones is None and not content_encoder.takes_waveform:
            with torch.no_grad():
                own = content_encoder.self_conditioned_phones(
                    batch.speech, batch.speech_lengths, None
                )
            batch = replace(batch, phones=own)
        outputs = self.model(
            batch,
            reversal=reversal,
            autoregressive=autoregressive,
            own_feedback_share=self.config.own_feedback_share if autoregressive else 0.0,
            with_cycle=with_cycle,
        )
        terms = losses.total(outputs, batch, self.geometry, self.config)
        return {
            name: value for name, value in terms.items() if getattr(self.config.weights, name) > 0.0
        }


def _stage(
    arguments: CaptureTrainArguments,
    data: PreparedSet,
    setup: TrainingSetup,
    encoded: EncodedSpeech,
    weights: LossWeights,
    device: torch.device,
) -> Stage:
    fps = float(data.manifest.fps)
    recipe = BatchRecipe(
        batch_size=arguments.batch_size,
        max_frames=max(2, round(arguments.max_seconds * fps)),
        style_frames=round(_STYLE_SECONDS * fps),
        factor=setup.factor,
        seed=arguments.seed,
    )
    batches = CaptureBatches(data, data.split("train"), encoded, training_speakers(data), recipe)
    config = setup.model.config
    training_module = _TrainingModule(setup.model, setup.geometry.to(device), weights)
    clips = validation_clips(data)
    share = training_module.config.autoregressive_share if "parallel" in config.modes else 1.0
    if "autoregressive" not in config.modes:
        share = 0.0

    def terms(module: nn.Module, number: int) -> Mapping[str, Tensor]:
        # What is left out depends on the step alone: all processes use the same parameters.
        step = number // arguments.batches_per_step
        found: Mapping[str, Tensor] = module(
            batches.batch(number).to(device),
            autoregressive=_is_due(step, share),
            with_cycle=training_module.config.weights.cycle > 0.0 and _is_due(step, _CYCLE_SHARE),
            reversal=2.0 / (1.0 + math.exp(-10.0 * step / arguments.steps)) - 1.0,
        )
        return found

    return Stage(
        name=_STAGE,
        module=training_module,
        terms=terms,
        validate=lambda _: score(setup, encoded, data, clips),
        num_steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        num_validations=arguments.validations,
        batches_per_step=arguments.batches_per_step,
        patience=arguments.patience,
        fine_tuned="model.speech_content.encoder.",
    )


def _is_due(step: int, share: float) -> bool:
    """Whether something that happens in a share of the steps happens in this one."""
    return math.floor((step + 1) * share) > math.floor(step * share)
