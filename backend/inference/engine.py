# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines: what runs a checkpoint's networks, and what each offers.

There are two. ``onnx_engine.py`` runs graphs that were exported from the checkpoint, on the
processor; it needs little and starts fast. ``torch_engine.py`` runs the model itself, also on a
graphics card, with learned shapes, autoregressive decoding and HuBERT. Nothing else on the way from
sound to motion knows the difference, or imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.heads.topology import Head
from backend.model.config import ModelConfig

Floats = NDArray[np.float32]
StopCall = Callable[[], bool]


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
