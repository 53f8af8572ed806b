# SPDX-License-Identifier: GPL-3.0-or-later
"""Export of a model's path from speech to weights as an ONNX file; see docs/export.md."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import IO, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend import bundled
from backend.errors import UserError
from backend.inference.style_files import read_presets
from backend.io import write_atomically
from backend.model import checkpoint
from backend.model.config import why_not_exportable
from backend.model.generate import generate_in_one_pass
from backend.model.ptalker import PTalker
from backend.speech.phones import PHONES

FORMAT_VERSION: Final = 1
INPUTS: Final = ("features", "phones", "style")
OUTPUT: Final = "weights"

TOLERANCE: Final = 1e-3
"""Largest difference of a weight that an engine may make."""


class SoundPath(nn.Module):
    """What an engine runs: features, phones and a style to weights, in one parallel pass.

    It is ``generate`` of a single chunk, which tests hold to the same curves.

    Args:
        model: A model of solved shapes whose features are on the motion's clock.
    """

    def __init__(self, model: PTalker) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, phones: Tensor, style: Tensor) -> Tensor:
        """Shapes ``(1, T, input_dim)``, ``(1, T)`` and ``(1, D)``; returns ``(1, T, K)``."""
        stacking, num_frames = self.model.speech_content.stacking, features.shape[1]
        # The encoder would fill the last stack itself, but then the graph would be traced for even
        # lengths alone.
        stacks = (num_frames + stacking - 1) // stacking
        missing = stacks * stacking - num_frames
        return generate_in_one_pass(
            self.model,
            F.pad(features, (0, 0, 0, missing)),
            style,
            F.pad(phones, (0, missing)),
            num_frames=num_frames,
        )


def export(folder: Path, out: Path) -> float | None:
    """Write a checkpoint's sound path as an ONNX file and compare it with the model.

    Args:
        folder: The checkpoint.
        out: The ``.onnx`` file; it appears complete or not at all.

    Returns:
        The largest difference of a weight between ONNX Runtime and torch on noise; None where ONNX
        Runtime is not installed.

    Raises:
        UserError: The checkpoint is missing or damaged, its model has no sound path that can be
            exported, packages are missing, the file cannot be written, or ONNX Runtime makes
            other curves of it than torch.
    """
    require_packages()
    model = checkpoint.load(folder)
    reason = why_not_exportable(model.config)
    if reason:
        raise UserError(f"{reason} Choose such a checkpoint, like the bundled one.")
    path = SoundPath(model).eval()
    length = {1: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision's absence
    with torch.no_grad():
        traced = torch.export.export(
            path, _noise(model, example_frames(model)), dynamic_shapes=(length, length, None),
            strict=False,
        )  # fmt: skip
        program = torch.onnx.export(
            traced, dynamo=True, input_names=INPUTS, output_names=(OUTPUT,), verbose=False
        )
    assert program is not None
    program.model.metadata_props.update(_metadata(model, folder))
    content = program.model_proto.SerializeToString()

    def save(file: IO[bytes]) -> None:
        file.write(content)

    write_atomically(out, save)
    difference = _largest_difference(path, out)
    if difference is not None and not difference <= TOLERANCE:
        raise UserError(
            f"ONNX Runtime's curves differ from PyTorch's by {difference:.2g}; at most "
            f"{TOLERANCE:g} is expected. Install another version of onnxruntime."
        )
    return difference


def require_packages() -> None:
    """Refuse where a package that exports is missing.

    Raises:
        UserError: A package is missing.
    """
    absent = [name for name in ("onnx", "onnxscript") if not bundled.is_installed(name)]
    if absent:
        raise UserError(
            f"Export needs the Python packages onnx and onnxscript; {' and '.join(absent)} is "
            "missing. Install them into the backend's environment with pip."
        )


def example_frames(model: PTalker) -> int:
    """Frames in which every windowed attention works on several blocks.

    Where the example has one block only, the graph is traced for ever one.
    """
    config = model.config
    encoder = 2 * config.speech.window * config.speech.stacking
    return 4 * max(encoder, 2 * config.self_window, 2 * config.cross_window) + 67


def _noise(model: PTalker, num_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of the sound path."""
    config = model.config
    generator = torch.Generator().manual_seed(num_frames)
    features = torch.randn(1, num_frames, config.speech.input_dim, generator=generator)
    phones = torch.randint(0, config.num_phone_ids, (1, num_frames), generator=generator)
    return features, phones, model.neutral_style().clone()


def _metadata(model: PTalker, folder: Path) -> dict[str, str]:
    """What an engine must know besides the graph; values are JSON."""
    config, encoder = model.config, model.speech_content
    styles = read_presets(folder / "styles.json", config.style_dim)
    values: dict[str, object] = {
        "ptalker_format_version": FORMAT_VERSION,
        "frames_per_second": config.motion_fps,
        "shape_names": list(config.shape_names),
        "max_weight": config.max_weight,
        "phones": list(PHONES),
        "styles": {"neutral": model.neutral_style()[0].tolist(), **styles},
        "frames_around": model.decoder.receptive_field + encoder.full_receptive_field + 3,
        "frames_stacked": encoder.stacking,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def _largest_difference(path: SoundPath, file: Path) -> float | None:
    if not bundled.is_installed("onnxruntime"):
        return None
    import onnxruntime  # optional: only the comparison needs it

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs = _noise(path.model, example_frames(path.model) + 48)
    feeds = {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)}
    (made,) = session.run([OUTPUT], feeds)
    with torch.no_grad():
        return float(np.abs(made - path(*inputs).numpy()).max())
