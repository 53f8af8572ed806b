# SPDX-License-Identifier: GPL-3.0-or-later
"""Export of a model trained on captured faces: checkpoint with its card, curves, and a sample."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from backend.data.captures.prepared import PreparedSet
from backend.data.captures.prepared import Sequence as Clip
from backend.heads.render import render, sheet
from backend.heads.topology import Head, face_frame
from backend.io import write_text
from backend.model import checkpoint
from backend.model.ptalker import PTalker

_SHOWN_FRAMES: Final = 6
_SHOWN_VERTICES: Final = 3
_FIGURE_INCHES: Final = (10.0, 6.0)


@dataclass(frozen=True, slots=True)
class CaptureTrained:
    """Result of a training on captured faces.

    Attributes:
        model: The model with its best parameters, in the set's unit.
        data: Prepared set that the model was trained on.
        command: Command line of the training.
        seed: Seed of the run.
        metrics: Metrics of the best parameters on the validation split, with ``step`` and
            ``seconds``.
    """

    model: PTalker
    data: PreparedSet
    command: str
    seed: int
    metrics: Mapping[str, float]


def export(trained: CaptureTrained, folder: Path) -> None:
    """Writes the checkpoint: config.json, model.safetensors, README.md, styles.json for the panel.

    Args:
        trained: Result of the training.
        folder: Folder of the checkpoint; made where it is missing.
    """
    manifest = trained.data.manifest
    training = {
        "dataset": manifest.dataset,
        "data_fingerprint": trained.data.content_hash,
        "topology_fingerprint": manifest.fingerprint,
        "split": manifest.protocol,
        "sequences": dict(Counter(clip.split for clip in manifest.sequences)),
        "seed": trained.seed,
        "command": trained.command,
        "metrics": _finite(trained.metrics),
    }
    checkpoint.save(folder, trained.model, card=card(trained), training=training)
    model = trained.model
    styles = {name: model.encode_identity_style(name)[0].tolist() for name in model.config.speakers}
    write_text(folder / "styles.json", json.dumps(styles) + "\n")


def card(trained: CaptureTrained) -> str:
    """Text of the model card: data, split, command, metrics on validation, limits."""
    manifest, config = trained.data.manifest, trained.model.config
    counts = Counter(clip.split for clip in manifest.sequences)
    splits = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
    metrics = _finite(trained.metrics)
    size = sum(value.numel() for value in trained.model.parameters()) / 1e6
    lines = [
        f"# PTalker checkpoint: {config.preset} on {manifest.dataset}",
        "",
        f"Made by `{trained.command}` with seed {trained.seed}.",
        "",
        f"- Data: {manifest.dataset}, fingerprint `{trained.data.content_hash}`; "
        f"sequences: {splits}.",
        f"- Split: {manifest.protocol}. Validation alone chose the weights.",
        f"- Heads: topology {config.topology}, {config.num_vertices} vertices; {manifest.units}.",
        f"- Rate: {config.motion_fps:g} frames a second.",
        f"- Styles by name: {', '.join(config.speakers)}.",
        f"- Speech encoder: {config.speech.hub_id or config.speech.kind}, frozen: "
        f"{config.speech.frozen}.",
        f"- Parameters: {size:.2f} million.",
        "- Limits: animates heads of this topology only, by sound, in these speakers' styles. "
        "The licence of the data holds for these weights.",
        "",
        "| on the validation split | |",
        "|---|---|",
        *(
            f"| {name.replace('_', ' ')} | {value:.3f} |"
            for name, value in metrics.items()
            if name != "score"
        ),
    ]
    return "\n".join(lines) + "\n"


def plot_curves(log: Path, path: Path) -> None:
    """Plots loss terms, gradient norms and validation metrics over the steps."""
    curves: dict[str, dict[int, float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        for name, value in entry.items():
            if name != "step" and math.isfinite(value):
                curves.setdefault(name, {})[entry["step"]] = value
    validation = [name for name in curves if "_error_" in name]
    norms = [name for name in curves if name.startswith("gradient_norm")]
    terms = sorted(set(curves) - {*validation, *norms, "score", "learning_rate"})
    figure = Figure(figsize=_FIGURE_INCHES, layout="constrained")
    rows = (("loss terms", terms), ("gradient norms", norms), ("validation", validation))
    for axes, (title, names) in zip(figure.subplots(1, 3), rows, strict=True):
        for name in names:
            steps, values = zip(*sorted(curves[name].items()), strict=True)
            axes.plot(steps, np.maximum(values, 1e-9), label=name.replace("_", " "))
        axes.set(title=title, xlabel="step", yscale="log")
        if names:
            axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=120)


def plot_sample(
    data: PreparedSet, clip: Clip, made: NDArray[np.float32], head: Head | None, path: Path
) -> None:
    """Draws a validation clip: faces where the face points are known, else curves.

    Args:
        data: The prepared set.
        clip: Clip to draw.
        made: The model's motion of the clip, in the set's unit, ``(T, V, 3)``.
        head: Mean face of the set; its polygons may be missing.
        path: PNG file to write.
    """
    truth = data.offsets(clip)
    if head is not None and len(head.corners):
        template = data.template(clip.subject).astype(np.float64)
        frame = face_frame(Head(template, head.corners, head.sizes, head.topology))
        chosen = np.linspace(0, clip.num_frames - 1, _SHOWN_FRAMES + 2)[1:-1].round().astype(int)
        pictures = [
            render(frame.to_face_mm(template + motion[number]), head.triangles, None)
            for motion in (truth, made)
            for number in chosen
        ]
        Image.fromarray(sheet(pictures, columns=len(chosen))).save(path)
        return
    seconds = np.arange(clip.num_frames) / float(data.manifest.fps)
    moving = np.argsort(-np.square(truth).sum((0, 2)))[:_SHOWN_VERTICES]
    figure = Figure(figsize=_FIGURE_INCHES, layout="constrained")
    for axes, vertex in zip(
        figure.subplots(len(moving), 1, squeeze=False)[:, 0], moving, strict=True
    ):
        axis = int(np.square(truth[:, vertex]).sum(0).argmax())
        axes.plot(seconds, truth[:, vertex, axis], label="captured")
        axes.plot(seconds, made[:, vertex, axis], label="model")
        axes.set(ylabel=f"vertex {vertex}, {'xyz'[axis]}", xlabel="s")
    axes.legend()
    figure.suptitle(clip.name)
    figure.savefig(path, dpi=120)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
