# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine does a job: by what is asked for, what the model needs, and what is there."""

from __future__ import annotations

import ctypes.util
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from backend import bundled
from backend.errors import UserError
from backend.inference.engine import Engine
from backend.model.checkpoint_files import read_config
from backend.model.config import ModelConfig, why_not_exportable

EngineChoice = Literal["auto", "onnx", "torch"]
_ADD_TORCH: Final = "Choose Add GPU and Research (PyTorch) in the preferences."


def open_engine(
    folder: Path,
    engine: EngineChoice = "auto",
    device: str = "auto",
    *,
    decoder: str = "parallel",
    warn: Callable[[str], None] = lambda _text: None,
) -> Engine:
    """Load a checkpoint into the engine that is asked for, or that suits it best.

    ``auto`` is PyTorch where it is installed and has a graphics card, or where the model needs it;
    else ONNX Runtime.

    Args:
        folder: The checkpoint.
        engine: Which engine.
        device: Name of the device, or ``auto``.
        decoder: How is to be decoded.
        warn: Called with what the user should know of the choice.

    Returns:
        The engine.

    Raises:
        UserError: The checkpoint is missing or damaged, there is no such device, or what is asked
            for needs PyTorch and it is not installed.
    """
    config = read_config(folder)
    lacking = why_not_onnx(config, decoder)
    if engine == "torch":
        return _torch_engine(folder, device, "The engine torch needs PyTorch.")
    if engine == "onnx":
        if lacking:
            raise UserError(f"{lacking} {_remedy()}")
        if device not in ("auto", "cpu"):
            raise UserError(f"The engine onnx runs on the processor, not on {device}. {_remedy()}")
        return _onnx_engine(folder)
    if device not in ("auto", "cpu"):
        return _torch_engine(folder, device, f"The device {device} needs PyTorch.")
    if lacking:
        return _torch_engine(folder, device, lacking)
    if device == "auto" and is_torch_installed() and may_have_gpu():
        from backend.inference.devices import usable_gpu  # brings torch

        gpu, problem = usable_gpu()
        if problem:
            warn(problem)
        if gpu:
            return _torch_engine(folder, gpu, "")
    return _onnx_or_torch(folder, warn)


def why_not_onnx(config: ModelConfig, decoder: str) -> str:
    """Why the ONNX engine cannot do a job, as a sentence; empty if it can.

    Args:
        config: The model's config.
        decoder: How is to be decoded.

    Returns:
        The sentence.
    """
    if decoder in config.modes and decoder != "parallel":
        return "Decoding frame after frame needs PyTorch."
    if config.shape_kind == "learned":
        return "A model with learned shapes needs PyTorch."
    if config.speech.kind == "hubert":
        return "A model that hears by HuBERT needs PyTorch."
    return "This model needs PyTorch." if why_not_exportable(config) else ""


def is_torch_installed() -> bool:
    """Whether PyTorch is installed, without loading it."""
    return bundled.is_installed("torch")


def may_have_gpu() -> bool:
    """Whether there may be a graphics card; PyTorch would be certain, but is slow to load."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return (
        shutil.which("nvidia-smi") is not None
        or Path("/dev/nvidiactl").exists()
        or Path("/dev/kfd").exists()
        or (sys.platform == "win32" and ctypes.util.find_library("nvcuda") is not None)
    )


def _onnx_or_torch(folder: Path, warn: Callable[[str], None]) -> Engine:
    """ONNX Runtime, or PyTorch where the graphs are missing or do not run, which it says."""
    from backend.inference.engine_cache import find_graphs
    from backend.inference.onnx_engine import OnnxEngine

    graphs, problem = find_graphs(folder)
    if graphs is None and not is_torch_installed():
        return _onnx_engine(folder)  # says what to do
    if graphs is not None:
        try:
            return OnnxEngine(folder, graphs)
        except UserError as error:
            if not is_torch_installed():
                raise
            problem = str(error)
    engine = _torch_engine(folder, "cpu", "")
    if problem:
        warn(f"{problem} PyTorch does the work instead.")
    return engine


def _onnx_engine(folder: Path) -> Engine:
    from backend.inference.engine_cache import find_graphs, make_graphs
    from backend.inference.onnx_engine import OnnxEngine

    graphs, problem = find_graphs(folder)
    return OnnxEngine(folder, graphs or make_graphs(folder, problem))


def _torch_engine(folder: Path, device: str, reason: str) -> Engine:
    if not is_torch_installed():
        raise UserError(f"{reason} {_ADD_TORCH}")
    from backend.inference.torch_engine import TorchEngine  # brings torch

    return TorchEngine(folder, device)


def _remedy() -> str:
    return "Set the engine to auto." if is_torch_installed() else _ADD_TORCH
