# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a trained model as a checkpoint: weights, config, styles with names, and its model card.

Apart from ``train.py`` because it is read by people who judge a model and not its training.
"""

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
    """What a run made.

    Attributes:
        model: With its best weights.
        data: That it was trained on.
        command: That made it.
        seed: Of everything.
        figures: Of each stage on held-out speech, with its ``seconds``.
        history: Commands that made the checkpoint which this one went on from, if any.
    """

    model: PTalker
    data: SpeechData
    command: str
    seed: int
    figures: Mapping[str, Mapping[str, float]]
    history: tuple[str, ...] = ()


def export(trained: Trained, folder: Path) -> None:
    """Writes the checkpoint.

    Args:
        trained: The model and how it came about.
        folder: Made where it is missing.
    """
    model, data = trained.model.eval(), trained.data
    training = {
        "data_fingerprint": data.fingerprint,
        "data_hours": round(data.hours, 2),
        "validation_speakers": sorted({clip.speaker for clip in data.validation}),
        "seed": trained.seed,
        "history": list(trained.history),
        "command": trained.command,
        "figures": {name: dict(figures) for name, figures in trained.figures.items()},
    }
    checkpoint.save(folder, model, card=card(trained), training=training, half=True)
    styles = json.dumps(named_styles(model, data), indent=None)
    (folder / "styles.json").write_text(styles + "\n", encoding="utf-8")


def named_styles(model: PTalker, data: SpeechData) -> dict[str, list[float]]:
    """Codes of the styles that have names, each the mean over some exemplars, phones known."""
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
    """Text of the model card: data, recipe and figures on validation."""
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
    if trained.figures:
        lines += ["", "| stage | minutes | figures on held-out speech |", "|---|---|---|"]
    for name, figures in trained.figures.items():
        told = ", ".join(
            f"{key.replace('_', ' ')} {value:.3f}"
            for key, value in figures.items()
            if key not in ("seconds", "step", "score")
        )
        lines.append(f"| {name} | {figures['seconds'] / 60:.0f} | {told} |")
    return "\n".join(lines) + "\n"
