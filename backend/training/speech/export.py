# SPDX-License-Identifier: GPL-3.0-or-later
"""Export of a model trained from speech: the checkpoint, its named styles and its model card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from backend.articulation.speaking_style import NAMED_STYLES, SpeakingStyle
from backend.audio.rates import FEATURE_RATE_HZ
from backend.data.speech.batches import motion_of
from backend.data.speech.dataset import Clip, SpeechData
from backend.model import checkpoint
from backend.model.ptalker import PTalker
from backend.model.style_inversion import style_of_motion
from backend.speech.phones import phone_frames

_EXEMPLARS: Final = 4
_EXEMPLAR_FRAMES: Final = 400


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of a training from speech.

    Attributes:
        model: The model with its best parameters.
        data: Speech that the model was trained on.
        command: Command line of the training.
        seed: Seed of the run.
        metrics: Metrics of each stage on held-out speech, with its ``seconds``.
        history: Command lines that made the checkpoint from which this training went on, if any.
    """

    model: PTalker
    data: SpeechData
    command: str
    seed: int
    metrics: Mapping[str, Mapping[str, float]]
    history: tuple[str, ...] = ()


def export(trained: Trained, folder: Path) -> None:
    """Writes the checkpoint.

    Args:
        trained: Result of the training.
        folder: Folder of the checkpoint; made where it is missing.
    """
    model, data = trained.model.eval(), trained.data
    training = {
        "data_fingerprint": data.fingerprint,
        "data_hours": round(data.hours, 2),
        "validation_speakers": sorted({clip.speaker for clip in data.validation}),
        "seed": trained.seed,
        "history": list(trained.history),
        "command": trained.command,
        "metrics": {name: dict(metrics) for name, metrics in trained.metrics.items()},
    }
    checkpoint.save(folder, model, card=card(trained), training=training, half=True)
    styles = json.dumps(named_styles(model, data), indent=None)
    (folder / "styles.json").write_text(styles + "\n", encoding="utf-8")


def named_styles(model: PTalker, data: SpeechData) -> dict[str, list[float]]:
    """Codes of the named styles, each the mean over some exemplars with given phones."""
    clips = sorted(data.validation, key=lambda clip: -clip.num_frames)[:_EXEMPLARS]
    codes = {}
    for name, style in NAMED_STYLES.items():
        if name == "neutral":
            continue
        found = [_code_of(model, data, clip, style) for clip in clips]
        mean = torch.stack(found).mean(0).double().cpu().numpy()
        codes[name] = [round(float(value), 5) for value in np.asarray(mean)]
    return codes


def _code_of(model: PTalker, data: SpeechData, clip: Clip, style: SpeakingStyle) -> Tensor:
    device = model.fusion.neutral.device
    motion = torch.from_numpy(motion_of(data, clip, style)[None, :_EXEMPLAR_FRAMES]).to(device)
    phones = torch.from_numpy(phone_frames(clip.phones, clip.num_frames, FEATURE_RATE_HZ)[None])
    return style_of_motion(model, motion, phones[:, :_EXEMPLAR_FRAMES].to(device))[0]


def card(trained: Trained) -> str:
    """Text of the model card: data, command and metrics on validation."""
    data = trained.data
    lines = ["# PTalker checkpoint", ""]
    for command in trained.history:
        lines += [f"Begun by `{command}`, its CHECKPOINT the one before.", ""]
    lines += [
        f"Made by `{trained.command}` with seed {trained.seed}.",
        "",
        f"- Data: {data.hours:.1f} hours of speech in {len(data.train)} utterances, fingerprint"
        f" `{data.fingerprint}`; validation on {len(data.validation)} of other speakers.",
        "- Motions: by the project's articulation model, in numbered and in random styles.",
        f"- Parameters: {sum(p.numel() for p in trained.model.parameters()) / 1e6:.2f} million.",
    ]
    if trained.metrics:
        lines += ["", "| stage | minutes | metrics on held-out speech |", "|---|---|---|"]
    for name, metrics in trained.metrics.items():
        values = ", ".join(
            f"{key.replace('_', ' ')} {value:.3f}"
            for key, value in metrics.items()
            if key not in ("seconds", "step", "score")
        )
        lines.append(f"| {name} | {metrics['seconds'] / 60:.0f} | {values} |")
    return "\n".join(lines) + "\n"
