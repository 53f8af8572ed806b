# SPDX-License-Identifier: GPL-3.0-or-later
"""Training of a model from speech: its encoders stage by stage, then the whole on motions."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from backend.data.speech.dataset import SpeechData, open_speech
from backend.errors import UserError
from backend.heads.lip_measures import MeasuredHead, measured_demo_head
from backend.inference.devices import training_precision
from backend.model.checkpoint_files import commands_of
from backend.model.presets import PRESETS
from backend.training.ablations import without
from backend.training.loop import Stage, run_stage
from backend.training.speech.export import Trained, export
from backend.training.speech.init import new_model, trained_before
from backend.training.speech.stage_lips import lip_stage
from backend.training.speech.stage_motion import (
    WEIGHTS,
    MotionTrainingModule,
    geometry_of,
    motion_stage,
)
from backend.training.speech.stage_phones import phone_stage, weigh_phone_input
from backend.training.speech.stage_styles import fit_style_maps, fit_style_reader, style_stage

_log = logging.getLogger(__name__)
_FURTHER_RATE: Final = 0.5  # of the learning rates, for a model that was trained before
_PHONE_INPUT_PROBABILITY: Final = 0.5


@dataclass(frozen=True, slots=True)
class TrainArguments:
    """Options of a training from speech.

    Attributes:
        preset: Preset of the model, ``base`` or ``tiny``.
        data: Folders of speech; see ``dataset.open_speech``.
        run: Folder of the run: states to go on from, logs, and ``checkpoint``.
        seed: Seed of the run.
        phone_steps: Length of the stage *phones*, in which the speech encoder learns phones from
            audio; after ``start_from``, 0 leaves a stage out.
        word_steps: Length of the stage *words*, in which half of the crops have recognised phones
            as input.
        style_steps: Length of the stage *styles*, in which styles are read from motions.
        lip_steps: Length of the stage *lips*, in which phones are read from motions.
        motion_steps: Length of the stage *motions*, in which the whole model is trained; after
            ``start_from`` all but its speech encoder.
        batch_size: Number of sequences of 3 s in a step.
        threads: Number of threads of torch on a CPU; 0 leaves it to torch.
        without: Parts to leave out; see ``ablations.without``.
        start_from: Checkpoints to go on from instead of random parameters, at half the learning
            rate and without *styles*; of several, the mean of their parameters.
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
    """Trains all stages, or the rest of them, and writes the checkpoint.

    Args:
        arguments: Options of the command line.

    Returns:
        The model, as in ``checkpoint`` of the run folder, with its metrics.

    Raises:
        UserError: The data, the preset or the number of steps cannot be used.
    """
    if arguments.preset not in PRESETS or PRESETS[arguments.preset].shape_kind != "solved":
        raise UserError(f"Preset {arguments.preset!r} is not made for speech; take base or tiny.")
    steps = (
        arguments.phone_steps, arguments.word_steps, arguments.style_steps, arguments.lip_steps,
        arguments.motion_steps,
    )  # fmt: skip
    if min(steps) < 0 or (not arguments.start_from and 0 in steps):
        raise UserError("Give every stage 1 step or more; 0 leaves it out after --start-from only.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    accelerator = Accelerator(
        mixed_precision=training_precision(),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    with accelerator.main_process_first():  # which fills the cache
        data = open_speech(arguments.data, arguments.run / "cache")
    mouth = measured_demo_head()
    torch.manual_seed(arguments.seed)
    config, weights = without(PRESETS[arguments.preset], WEIGHTS, arguments.without)
    start_from = arguments.start_from
    if start_from:
        model = trained_before(start_from, config, lip_steps=arguments.lip_steps)
    else:
        model = new_model(config, mouth)
    geometry = geometry_of(mouth).to(accelerator.device)
    training_module = MotionTrainingModule(model, geometry, weights, is_pretrained=bool(start_from))
    training_module.to(accelerator.device)
    if start_from and arguments.motion_steps:
        fit_style_maps(
            model,
            training_module.style_head,
            training_module.style_codes,
            data,
            seed=arguments.seed,
        )
    metrics = {}
    for stage in _stages(arguments, training_module, data, mouth):
        if start_from and stage.name != "lips":  # whose lip reader is often new there
            stage = replace(stage, learning_rate=_FURTHER_RATE * stage.learning_rate)
        elif not start_from:
            _prepare_for(stage, training_module, data, seed=arguments.seed)
        metrics[stage.name] = run_stage(
            stage, accelerator, folder=arguments.run, seed=arguments.seed
        )
    history = dict.fromkeys(line for folder in start_from for line in commands_of(folder))
    trained = Trained(model, data, command_of(arguments), arguments.seed, metrics, tuple(history))
    if accelerator.is_main_process:
        export(trained, arguments.run / "checkpoint")
    return trained


def _stages(
    arguments: TrainArguments,
    training_module: MotionTrainingModule,
    data: SpeechData,
    mouth: MeasuredHead,
) -> Iterator[Stage]:
    """The stages that have steps; a pretrained model reads styles already."""
    phones_stage = partial(
        phone_stage,
        encoder=training_module.model.speech_content,
        data=data,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
    )
    if arguments.phone_steps:
        yield phones_stage("phones", num_steps=arguments.phone_steps, phone_input_probability=0.0)
    if arguments.word_steps:
        yield phones_stage(
            "words",
            num_steps=arguments.word_steps,
            phone_input_probability=_PHONE_INPUT_PROBABILITY,
        )
    if not arguments.start_from:
        yield style_stage(
            training_module.model,
            training_module.style_head,
            data,
            seed=arguments.seed,
            batch_size=max(2, arguments.batch_size * 3 // 2),
            num_steps=arguments.style_steps,
        )
    if arguments.lip_steps:
        yield lip_stage(
            training_module.model,
            data,
            seed=arguments.seed,
            batch_size=2 * arguments.batch_size,
            num_steps=arguments.lip_steps,
        )
    if arguments.motion_steps:
        yield motion_stage(
            training_module,
            data,
            mouth,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            num_steps=arguments.motion_steps,
        )


def _prepare_for(
    stage: Stage, training_module: MotionTrainingModule, data: SpeechData, *, seed: int
) -> None:
    """Prepares a new model for a stage."""
    content_encoder = training_module.model.speech_content
    if stage.name == "words":
        weigh_phone_input(content_encoder, data)
    elif stage.name == "motions":
        content_encoder.copy_recognised_embeddings()
    elif stage.name == "styles":
        error = fit_style_reader(
            training_module.model,
            training_module.style_head,
            data,
            seed=seed,
            num_steps=stage.num_steps,
        )
        _log.info("styles from statistics alone: squared error %.4f", error)


def command_of(arguments: TrainArguments) -> str:
    """The command line that repeats this training, but for the names of folders."""
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
