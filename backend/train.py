# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains a model from speech: the content encoder on phones first, then the whole on motions."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from backend import losses, metrics
from backend.config import PRESETS, LossWeights, TrainConfig
from backend.data.batches import (
    IGNORED,
    MotionRecipe,
    misheard,
    motion_batch,
    motion_of,
    phone_batch,
    plain_batch,
    unseen_styles,
)
from backend.data.dataset import FPS, Clip, SpeechData, open_speech
from backend.data.styles import Style
from backend.face_geometry import FaceGeometry, face_point_geometry
from backend.model import PTalker, SpeechContentEncoder, TrainingBatch, face_point_graph
from backend.model_card import Trained, export
from backend.mouth import CLOSED_MM, Mouth, demo_mouth
from backend.phones import BILABIALS, PHONE_IDS, SILENCE, phone_frames
from backend.protocol import JobError
from backend.topology import FACE_POINT_NAMES
from backend.training_loop import Stage, run_stage

_log = logging.getLogger(__name__)
_NUM_FRAMES: Final = 150
_PHONE_CLIPS: Final = 160
_MOTION_CLIPS: Final = 48
_FULL_EVERY: Final = 4
_CYCLE_EVERY: Final = 5
_TOLD_SHARE: Final = 0.5

WEIGHTS: Final = LossWeights(
    reconstruction=10.0,
    displacement=100.0,
    velocity=20.0,
    lip_distance=15.0,
    closure=5.0,
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
        phone_steps: Length of the first stage, in which the ear learns phones from sound.
        word_steps: Of the second, in which it is told half of the time what a recogniser heard.
        motion_steps: Of the third, in which the whole model learns to move.
        batch_size: Sequences of 3 s in a batch.
        threads: Of torch on a CPU; 0 leaves it to torch.
    """

    preset: str
    data: tuple[Path, ...]
    run: Path
    seed: int = 0
    phone_steps: int = 3000
    word_steps: int = 300
    motion_steps: int = 1500
    batch_size: int = 16
    threads: int = 0


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
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    data = open_speech(arguments.data, arguments.run / "cache")
    mouth = demo_mouth()
    torch.manual_seed(arguments.seed)
    model = new_model(arguments.preset, mouth)
    accelerator = Accelerator(mixed_precision="bf16")
    figures = {}
    for stage in (
        _phone_stage(arguments, model, data, name="phones", told_share=0.0),
        _phone_stage(arguments, model, data, name="words", told_share=_TOLD_SHARE),
        _motion_stage(arguments, model, data, mouth),
    ):
        if stage.name == "words":
            make_phones_heard(model.speech_content, data)
        figures[stage.name] = run_stage(
            stage, accelerator, folder=arguments.run, seed=arguments.seed
        )
    trained = Trained(model, data, command_of(arguments), arguments.seed, figures)
    if accelerator.is_main_process:
        export(trained, arguments.run / "checkpoint")
    return trained


def command_of(arguments: TrainArguments) -> str:
    """The command line that does this training again, but for the names of folders."""
    return (
        f"python -m backend train --preset {arguments.preset} --data CORPUS --run RUN"
        f" --seed {arguments.seed} --phone-steps {arguments.phone_steps}"
        f" --word-steps {arguments.word_steps} --motion-steps {arguments.motion_steps}"
        f" --batch-size {arguments.batch_size}"
    )


def new_model(preset: str, mouth: Mouth) -> PTalker:
    """A model with random weights whose graph is the face points of a head."""
    model = PTalker(PRESETS[preset])
    graph = face_point_graph(
        torch.from_numpy(mouth.points),
        torch.from_numpy(mouth.basis),
        model.config.num_neighbours,
    )
    model.set_graph(graph)
    return model


# --- phones -------------------------------------------------------------------------------------


class _Ear(nn.Module):
    """The content encoder as a recogniser of phones."""

    def __init__(self, encoder: SpeechContentEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, speech: Tensor, lengths: Tensor, told: Tensor | None = None) -> Tensor:
        logits: Tensor = self.encoder(speech, lengths, phones=told).phone_logits
        return logits


def _phone_stage(
    arguments: TrainArguments, model: PTalker, data: SpeechData, *, name: str, told_share: float
) -> Stage:
    num_steps = arguments.word_steps if told_share else arguments.phone_steps

    def terms(module: nn.Module, number: int) -> Mapping[str, Tensor]:
        batch = phone_batch(
            data,
            seed=arguments.seed,
            number=number,
            batch_size=arguments.batch_size,
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
        module=_Ear(model.speech_content),
        terms=terms,
        validate=partial(_judge_ear, data=data),
        num_steps=num_steps,
        learning_rate=1e-3 if told_share else 3e-3,
        num_validations=4 if told_share else 12,
    )


@torch.no_grad()
def make_phones_heard(encoder: SpeechContentEncoder, data: SpeechData) -> None:
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


def _judge_ear(ear: nn.Module, data: SpeechData) -> dict[str, float]:
    """Share of speech frames heard right, also when told misheard phones, and closures heard."""
    right = told_right = total = 0
    counts = metrics.ClosureCounts()
    rng = np.random.default_rng(0)
    closed_ids = [PHONE_IDS[symbol] for symbol in sorted(BILABIALS)]
    for clip in _some(data.validation, _PHONE_CLIPS):
        features = torch.from_numpy(data.features(clip))[None]
        lengths = torch.tensor([clip.num_frames])
        heard = ear(features, lengths)[0].argmax(-1).numpy()
        told = phone_frames(misheard(clip.phones, rng), clip.num_frames, FPS)
        mended = ear(features, lengths, torch.from_numpy(told)[None])[0].argmax(-1).numpy()
        truth = phone_frames(clip.phones, clip.num_frames, FPS)
        spoken = truth > PHONE_IDS[SILENCE]
        right += int((heard == truth)[spoken].sum())
        told_right += int((mended == truth)[spoken].sum())
        total += int(spoken.sum())
        counts += closures(clip, 1.0 - np.isin(heard, closed_ids), threshold_mm=0.5)
    shares = {"heard": right / max(1, total), "mended": told_right / max(1, total)}
    return {"score": sum(shares.values()), "closures_f1": counts.f1, **shares}


def closures(
    clip: Clip, opening_mm: NDArray[np.floating], *, threshold_mm: float
) -> metrics.ClosureCounts:
    """Closures of a clip that an opening shows."""
    rows = [(phone.symbol, phone.start_seconds, phone.end_seconds) for phone in clip.phones]
    return metrics.match_closures(
        metrics.runs_of(rows, BILABIALS),
        metrics.closed_intervals(opening_mm, FPS, threshold_mm),
        silences=[(start, end) for symbol, start, end in rows if symbol == SILENCE],
    )


def _some(clips: tuple[Clip, ...], count: int) -> list[Clip]:
    chosen = np.random.default_rng(0).permutation(len(clips))[:count]
    return [clips[index] for index in chosen]


# --- motions ------------------------------------------------------------------------------------


class _Body(nn.Module):
    """The model in training: its whole forward pass, or the one branch that speech takes.

    Most of a whole pass goes into graph attention and the decoding of the second branch. Most steps
    leave them out and take styles from their numbers, which costs less than half; and half of the
    steps leave the ear as it is, which learns slower than the rest by then.
    """

    def __init__(self, model: PTalker, geometry: FaceGeometry) -> None:
        super().__init__()
        self.model = model
        self.geometry = geometry
        self.config = TrainConfig(weights=WEIGHTS)

    def forward(
        self,
        batch: TrainingBatch,
        *,
        is_full: bool,
        trains_ear: bool,
        autoregressive: bool,
        with_cycle: bool,
    ) -> dict[str, Tensor]:
        """Loss terms, weighted."""
        model, weights = self.model, self.config.weights
        if is_full:
            outputs = model(
                batch,
                autoregressive=autoregressive,
                own_feedback_share=self.config.own_feedback_share if autoregressive else 0.0,
                with_cycle=with_cycle,
            )
            terms = losses.total(outputs, batch, self.geometry, self.config)[1]
        else:
            size, num_frames = batch.motion.shape[:2]
            with torch.set_grad_enabled(trains_ear):
                heard = model.speech_content(
                    batch.speech, batch.speech_lengths, phones=batch.phones, num_frames=num_frames
                )
            numbered = model.identity_style(batch.speaker)
            style = model.fusion({"identity": numbered}, batch_size=size)
            queries = model.decoder.queries(style, num_frames)
            hidden = model.decoder(queries, heard.features, heard.mask, style, causal=False)
            motion = model.motion(hidden).float()
            terms = losses.motion_terms(
                motion, batch.motion, heard.mask, self.geometry, self.config
            )
            if trains_ear and batch.phone_targets is not None:
                terms["phones"] = losses.phones(heard.phone_logits.float(), batch.phone_targets)
        return {name: getattr(weights, name) * value for name, value in terms.items()}


def _motion_stage(
    arguments: TrainArguments, model: PTalker, data: SpeechData, mouth: Mouth
) -> Stage:
    geometry = face_point_geometry(
        FACE_POINT_NAMES, torch.from_numpy(mouth.points), torch.from_numpy(mouth.basis)
    )
    num_styles = len(model.config.speakers)
    whole = MotionRecipe(batch_size=max(2, arguments.batch_size // 2), num_styles=num_styles)
    speech_only = MotionRecipe(
        batch_size=max(2, arguments.batch_size * 3 // 4), num_styles=num_styles, identity_share=1.0
    )

    def terms(module: nn.Module, number: int) -> Mapping[str, Tensor]:
        is_full = number % _FULL_EVERY == 0
        recipe = whole if is_full else speech_only
        batch = motion_batch(data, recipe, seed=arguments.seed, number=number)
        full_number = number // _FULL_EVERY
        return module(
            batch,
            is_full=is_full,
            trains_ear=number % 2 == 0,
            autoregressive=is_full and full_number % 4 == 3,
            with_cycle=is_full and full_number % _CYCLE_EVERY == 1,
        )

    return Stage(
        name="motions",
        module=_Body(model, geometry),
        terms=terms,
        validate=lambda _: judge_motion(model, data, mouth),
        num_steps=arguments.motion_steps,
        learning_rate=1.5e-3,
        num_validations=8,
    )


def judge_motion(model: PTalker, data: SpeechData, mouth: Mouth) -> dict[str, float]:
    """Closures and opening on held-out speech by what the model is told, and style by exemplar."""
    clips = _some(data.validation, _MOTION_CLIPS)
    figures: dict[str, float] = {}
    for told in ("nothing", "misheard", "truth"):
        counts = metrics.ClosureCounts()
        pairs = []
        for clip in clips:
            batch = plain_batch(data, [clip], Style.neutral(), told=told)
            motion = model(batch, autoregressive=False).motion[0].clamp(0, 1.5).float().numpy()
            opening, true = mouth.opening_mm(motion), mouth.opening_mm(batch.motion[0].numpy())
            counts += closures(clip, opening, threshold_mm=CLOSED_MM)
            pairs.append((opening, true))
        figures[f"closures_f1_{told}"] = counts.f1
        ours, true = (np.concatenate(curves) for curves in zip(*pairs, strict=True))
        figures[f"opening_{told}"] = metrics.lagged_correlation(ours, true, FPS)[0]
    ratios = []
    for number, style in enumerate(unseen_styles(8)):
        clip, other = clips[number % len(clips)], clips[-1 - number % len(clips)]
        exemplar = motion_of(data, other, style)[:250]
        batch = plain_batch(data, [clip], style, told="truth", exemplars=[exemplar])
        motion = model(batch, autoregressive=False).motion[0].clamp(0, 1.5).float().numpy()
        neutral = motion_of(data, clip, Style.neutral())
        ratios.append(metrics.style_error_ratio(motion, batch.motion[0].numpy(), neutral))
    figures["style_error_ratio"] = float(np.mean(ratios))
    score = sum(figures[f"closures_f1_{told}"] for told in ("nothing", "misheard"))
    return {"score": score - figures["style_error_ratio"], **figures}
