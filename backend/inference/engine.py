# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines: what runs a checkpoint's networks. Which one does, and what each offers.

There are two. ``onnx_engine.py`` runs graphs that were exported from the checkpoint, on the
processor; it needs little and starts fast. ``torch_engine.py`` runs the model itself, also on a
graphics card, with learned shapes, autoregressive decoding and HuBERT. Nothing else on the way from
sound to motion knows the difference, or imports torch.
"""

from __future__ import annotations

import ctypes.util
import platform
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.errors import UserError
from backend.heads.topology import Head
from backend.model.checkpoint_files import read_config
from backend.model.config import ModelConfig, why_not_exportable

EngineChoice = Literal["auto", "onnx", "torch"]
Floats = NDArray[np.float32]
StopCall = Callable[[], bool]
_ADD_TORCH: Final = "Choose Add GPU and Research (PyTorch) in the preferences."


class LearnedShapes(Protocol):
    """Shapes that a model has learned, which only heads of its own topology have."""

    def on(self, head: Head) -> Floats:
        """The shapes in the head's own space, ``(K, V, 3)``."""

    def to_model(self, head: Head) -> Floats:
        """The matrix, from the right, that takes offsets of a head to the model, ``(3, 3)``."""


class Engine(Protocol):
    """A loaded checkpoint.

    Attributes:
        name: ``onnx`` or ``torch``.
        device: Where it runs.
        config: The model's config.
        fingerprint: Fingerprint of the parameters; style codes are tied to it.
        num_parameters: Number of the model's parameters.
        neutral_code: Style code of no style in particular, ``(D,)``.
        learned_shapes: None for a model whose shapes are solved on each head.
        jobs_at_once: Jobs of a list that are worth being done at the same time.
    """

    name: str
    device: str
    config: ModelConfig
    fingerprint: str
    num_parameters: int
    neutral_code: Floats
    learned_shapes: LearnedShapes | None
    jobs_at_once: int

    def hear(self, features: Floats, should_stop: StopCall) -> Floats:
        """Log posteriors of phones.

        Args:
            features: Features of sound, ``(T, input_dim)``.
            should_stop: Asked before each chunk whether to give up.

        Returns:
            Natural logarithms of the phone classifier's posteriors, ``(T, num_phone_ids)``.

        Raises:
            Cancelled: ``should_stop`` said so.
            UserError: There is not enough memory.
        """

    def talk(
        self,
        speech: Floats,
        phones: NDArray[np.int64] | None,
        code: Floats,
        *,
        num_frames: int,
        decoder: str,
        report: Callable[[int, int], None],
        should_stop: StopCall,
    ) -> Floats:
        """Animate.

        Args:
            speech: Features ``(S, input_dim)``, or for HuBERT a waveform at 16 kHz ``(n,)``.
            phones: Phone input on the features' clock, ``(S,)``; None without any.
            code: Style code, ``(D,)``.
            num_frames: Frames ``T`` to make, at the model's rate.
            decoder: ``parallel`` or ``autoregressive``.
            report: Called with the frames done and ``num_frames``.
            should_stop: Asked several times whether to give up.

        Returns:
            Weights of the shapes, ``(T, K)``.

        Raises:
            Cancelled: ``should_stop`` said so.
            UserError: There is not enough memory.
        """

    def read_style(self, motion: Floats) -> Floats:
        """The style code ``(D,)`` of an exemplar at the model's rate.

        Args:
            motion: Weights ``(T, K)``, or for learned shapes offsets ``(T, V, 3)``.

        Returns:
            The style code.
        """

    def identity_code(self, speaker: str) -> Floats:
        """The style code ``(D,)`` of a speaker of training."""

    def participant(self) -> AbstractContextManager[None]:
        """Count the current thread as one that does a job of a list."""

    def close(self) -> None:
        """End what runs in the background."""


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
