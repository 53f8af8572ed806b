# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the ONNX engine beside a checkpoint: graphs, and ``engine.json`` about the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backend.checks import require
from backend.errors import UserError, excerpt
from backend.io import read_json, write_text

GRAPHS: Final = ("talk.onnx", "hear.onnx", "read_style.onnx", "restyle.onnx")
FACTS_NAME: Final = "engine.json"
FORMAT_VERSION: Final = 1
_MAX_BYTES: Final = 1 << 22
_CHECK_FRAMES: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the ONNX engine must know of a model besides its config.

    Attributes:
        fingerprint: Of the parameters that the graphs point to.
        num_parameters: Number of the model's parameters.
        neutral_code: The style code of no style in particular.
        identity_codes: Style codes of the speakers of training.
        talk_around: Frames before and after a frame that its weights depend on.
        hear_around: Frames before and after a frame that its log posteriors depend on.
        stacked: Frames that the speech encoder takes as one; chunks begin at a multiple.
        expected_weights: Weights of the middle frame for ``check_features``, in the neutral style.
    """

    fingerprint: str
    num_parameters: int
    neutral_code: tuple[float, ...]
    identity_codes: dict[str, tuple[float, ...]]
    talk_around: int
    hear_around: int
    stacked: int
    expected_weights: tuple[float, ...]


def check_features(input_dim: int) -> NDArray[np.float32]:
    """Features by which an engine checks itself, the same everywhere, ``(T, input_dim)``."""
    numbers = np.arange(_CHECK_FRAMES * input_dim, dtype=np.float64).reshape(-1, input_dim)
    return (2.0 * np.sin(0.37 * numbers + 0.001 * numbers**1.5)).astype(np.float32)


def write_facts(path: Path, facts: Facts) -> None:
    """Write ``engine.json``.

    Args:
        path: The file.
        facts: What it is to hold.

    Raises:
        UserError: It cannot be written.
    """
    text = json.dumps({"format_version": FORMAT_VERSION, **_shortened(asdict(facts))})
    write_text(path, text + "\n")


def _shortened(value: Any) -> Any:
    """Numbers with the digits that 32 bits hold."""
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(each) for each in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def read_facts(folder: Path) -> Facts:
    """Read ``engine.json``.

    Args:
        folder: Folder of the graphs.

    Returns:
        What it holds.

    Raises:
        UserError: It is missing, damaged or of another version, or a graph is missing.
    """
    remedy = "Export the checkpoint again, or use PyTorch."
    path = folder / FACTS_NAME
    data = read_json(path, what="about an engine", remedy=remedy, max_bytes=_MAX_BYTES)
    try:
        require(data.pop("format_version") == FORMAT_VERSION, "it is of another version")
        facts = Facts(**data)
        numbers = [*facts.neutral_code, *facts.expected_weights]
        counts = [facts.num_parameters, facts.talk_around, facts.hear_around, facts.stacked]
        are_numbers = all(isinstance(number, int | float) for number in numbers)
        require(are_numbers and min(counts) >= 0, "it holds no numbers of use")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'"{path.name}" is damaged ({excerpt(error)}). {remedy}') from error
    for name in GRAPHS:
        if not (folder / name).is_file():
            raise UserError(f'The graph "{name}" is missing. {remedy}')
    return facts
