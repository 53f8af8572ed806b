# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains a model of learned shapes on a prepared set of captured faces."""

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
    new_start,
    to_own_unit,
    training_speakers,
)
from backend.training.captures.speech_encoder import (
    Frozen,
    find_source,
    frozen_speech_encoder,
    speech_encoder_fingerprint,
)
from backend.training.captures.validate import judge, judged_clips, predicted
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
    """What the command line says.

    Attributes:
        preset: One of ``CAPTURE_PRESETS``.
        data: What ``prepare`` made.
        run: Folder of the run: state to go on from, logs, plots and ``checkpoint``.
        seed: Of everything.
        speech_encoder: See ``speech_sources.find_source``; empty is the preset's.
        freeze: What of it stays as it is; None leaves it to its kind.
        steps: Length of the training.
        batch_size: Sequences in a batch.
        batches_per_step: Batches whose mean gradient makes a step, over all processes.
        precision: Of the arithmetic; ``auto`` is what is fast here.
        learning_rate: At its peak.
        validations: How often the model is judged on the validation split.
        patience: Validations without a better score before it ends early; 0 is never.
        max_seconds: Of a sequence in a batch.
        small: A network of a fraction of the size.
        regions: File that says which vertices are lips.
        cache: Folder for what a frozen ear heard; None is in the run's.
        threads: Of torch on a CPU; 0 leaves it to torch.
        stop_at: Steps after which to stop as if interrupted; 0 is at the end.
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
    """Trains, or what is left of it, and writes checkpoint and plots.

    Args:
        arguments: From the command line.

    Returns:
        The model in the set's unit and how it did.

    Raises:
        UserError: Something of the set, the ear or the run folder is no good.
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
    start = new_start(config, data, source, arguments.regions)
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
        start.model.to(accelerator.device)
        heard = _heard(arguments, data, start.model)
    stage = _stage(arguments, data, start, heard, weights, accelerator.device)
    figures = run_stage(
        stage,
        accelerator,
        folder=arguments.run,
        seed=arguments.seed,
        stop_at=arguments.stop_at or None,
    )
    model = start.model.eval()
    to_own_unit(model, start.factor)
    trained = CaptureTrained(model, data, command_of(arguments), arguments.seed, figures)
    if accelerator.is_main_process:
        export(trained, arguments.run / "checkpoint")
        plot_curves(arguments.run / f"{_STAGE}-log.jsonl", arguments.run / "curves.png")
        clip = judged_clips(data)[0]
        made = predicted(model, heard, data, clip, 1.0)
        plot_sample(data, clip, made, start.head, arguments.run / "sample.png")
    accelerator.wait_for_everyone()
    return trained


def command_of(arguments: CaptureTrainArguments) -> str:
    """The command line that does this training again, but for the names of folders."""
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
    """Note what the run is, and refuse to go on with another."""
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


def _heard(arguments: CaptureTrainArguments, data: PreparedSet, model: PTalker) -> EncodedSpeech:
    ear, rate_hz = frozen_speech_encoder(model)
    kept = arguments.cache or arguments.run / "heard"
    folder = kept / f"{data.content_hash}-{speech_encoder_fingerprint(model)}" if ear else kept
    heard = EncodedSpeech(data, folder, ear, rate_hz)
    clips = [clip for clip in data.manifest.sequences if clip.split in ("train", "validation")]

    def tell(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            _log.info("heard %d of %d clips", done, total)

    heard.fill(clips, tell)
    return heard


class _Body(nn.Module):
    """The model in training, with its loss terms."""

    def __init__(self, model: PTalker, geometry: FaceGeometry, weights: LossWeights) -> None:
        super().__init__()
        self.model = model
        self.geometry = geometry
        self.config = TrainConfig(weights=weights)

    def train(self, mode: bool = True) -> _Body:
        """A frozen ear hears as it will when the model is used."""
        super().train(mode)
        if self.model.config.speech.frozen == "everything":
            encoder: nn.Module = self.model.speech_content.encoder
            encoder.eval()
        return self

    def forward(
        self, batch: TrainingBatch, *, autoregressive: bool, with_cycle: bool, reversal: float
    ) -> dict[str, Tensor]:
        """Loss terms, weighted."""
        ear = self.model.speech_content
        if batch.phones is None and not ear.takes_waveform:
            with torch.no_grad():
                own = ear.self_conditioned_phones(batch.speech, batch.speech_lengths, None)
            batch = replace(batch, phones=own)
        outputs = self.model(
            batch,
            reversal=reversal,
            autoregressive=autoregressive,
            own_feedback_share=self.config.own_feedback_share if autoregressive else 0.0,
            with_cycle=with_cycle,
        )
        terms = losses.total(outputs, batch, self.geometry, self.config)[1]
        weighted = {name: getattr(self.config.weights, name) * terms[name] for name in terms}
        return {
            name: value
            for name, value in weighted.items()
            if getattr(self.config.weights, name) > 0.0
        }


def _stage(
    arguments: CaptureTrainArguments,
    data: PreparedSet,
    start: TrainingSetup,
    heard: EncodedSpeech,
    weights: LossWeights,
    device: torch.device,
) -> Stage:
    fps = float(data.manifest.fps)
    recipe = BatchRecipe(
        batch_size=arguments.batch_size,
        max_frames=max(2, round(arguments.max_seconds * fps)),
        style_frames=round(_STYLE_SECONDS * fps),
        factor=start.factor,
        seed=arguments.seed,
    )
    batches = CaptureBatches(data, data.split("train"), heard, training_speakers(data), recipe)
    config = start.model.config
    body = _Body(start.model, start.geometry.to(device), weights)
    judged = judged_clips(data)
    share = TrainConfig().autoregressive_share if "parallel" in config.modes else 1.0
    if "autoregressive" not in config.modes:
        share = 0.0

    def terms(module: nn.Module, number: int) -> Mapping[str, Tensor]:
        # What is left out depends on the step alone: all processes use the same parameters.
        step = number // arguments.batches_per_step
        found: Mapping[str, Tensor] = module(
            batches.batch(number).to(device),
            autoregressive=_is_due(step, share),
            with_cycle=body.config.weights.cycle > 0.0 and _is_due(step, _CYCLE_SHARE),
            reversal=2.0 / (1.0 + math.exp(-10.0 * step / arguments.steps)) - 1.0,
        )
        return found

    return Stage(
        name=_STAGE,
        module=body,
        terms=terms,
        validate=lambda _: judge(start, heard, data, judged),
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
