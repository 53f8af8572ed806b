# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine on PyTorch: the model itself, on any device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from backend.errors import UserError
from backend.heads.mesh import similarity_fit
from backend.heads.topology import Head, load_topology, shipped_topologies
from backend.inference.devices import memory_errors, pick_device, set_threads
from backend.inference.dynamic_batching import SIZES, DynamicBatcher
from backend.inference.engine import Floats, LearnedShapes, StopCall
from backend.model import checkpoint
from backend.model.checkpoint_files import checked_fingerprint
from backend.model.generate import generate
from backend.model.ptalker import PTalker
from backend.model.style_inversion import style_of_motion

_LARGEST_MISFIT = 0.35
"""Mean distance of fitted nodes in radii: faces differ by a tenth, another order by 1."""


class TorchEngine:
    """See `Engine`.

    Args:
        folder: The checkpoint.
        device: Name of the device, or ``auto``.

    Raises:
        UserError: The checkpoint is missing or damaged, or there is no such device.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.name = "torch"
        self._device = pick_device(device)
        with memory_errors():
            self.model = checkpoint.load(folder, self._device).eval()
        self.device = str(self._device)
        self.config = self.model.config
        self.fingerprint = checked_fingerprint(folder)
        self.num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        set_threads(self.num_parameters)
        self.neutral_code = self.model.neutral_style()[0].float().cpu().numpy()
        is_learned = self.config.shape_kind == "learned"
        self.learned_shapes: LearnedShapes | None = TorchShapes(self.model) if is_learned else None
        self.jobs_at_once = 2 * SIZES[self._device.type]  # half decode and write beside the model
        self._batcher: DynamicBatcher | None = None

    def hear(self, features: Floats, should_stop: StopCall) -> Floats:
        """See `Engine`."""
        with memory_errors():
            known = self.model.speech_content.phone_log_posteriors(
                torch.from_numpy(features)[None].to(self._device), should_stop=should_stop
            )
            return np.asarray(known[0].float().cpu().numpy())

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
        """See `Engine`."""
        call = self._batcher.generate if self._batcher else partial(generate, self.model)
        with memory_errors():
            weights = call(
                torch.from_numpy(speech)[None].to(self._device),
                torch.from_numpy(code)[None].to(self._device),
                num_frames=num_frames,
                phones=None if phones is None else torch.from_numpy(phones)[None].to(self._device),
                mode=next(mode for mode in self.config.modes if mode == decoder),
                on_progress=report,
                should_stop=should_stop,
            )
            return np.asarray(weights[0].cpu().numpy(), np.float32)

    def read_style(self, motion: Floats) -> Floats:
        """See `Engine`."""
        with memory_errors():
            code = style_of_motion(self.model, torch.from_numpy(motion)[None].to(self._device))
            return code[0].float().cpu().numpy()

    def identity_code(self, speaker: str) -> Floats:
        """See `Engine`."""
        return self.model.encode_identity_style(speaker)[0].float().cpu().numpy()

    def participant(self) -> AbstractContextManager[None]:
        """Batch this thread's calls of ``talk`` with those of the others; see `Engine`."""
        if self._batcher is None:
            self._batcher = DynamicBatcher(self.model, SIZES[self._device.type])
        return self._batcher.participant()

    def close(self) -> None:
        """See `Engine`."""
        if self._batcher is not None:
            self._batcher.close()


class TorchShapes:
    """Learned shapes of a model, brought to a head of its own topology; see `LearnedShapes`.

    Args:
        model: The model.
    """

    def __init__(self, model: PTalker) -> None:
        self._model = model

    def on(self, head: Head) -> Floats:
        """See `LearnedShapes`."""
        return np.asarray(self._model.shapes().cpu().numpy() @ self._from_model(head))

    def to_model(self, head: Head) -> Floats:
        """See `LearnedShapes`."""
        return np.asarray(np.linalg.inv(self._from_model(head)), np.float32)

    def _from_model(self, head: Head) -> Floats:
        """The matrix, from the right, that takes offsets of the shapes to the head, ``(3, 3)``.

        Found by a similarity fit of the model's graph nodes to the same nodes on the head. Raises
        `UserError` where the head has another topology, or its vertices another order.
        """
        config = self._model.config
        wanted = config.topology
        is_whole = len(head.vertices) >= config.num_vertices
        if head.topology.num_vertices != config.num_vertices or not is_whole:
            raise UserError(
                f"This model animates heads of the topology {config.topology} "
                f"({config.num_vertices} vertices); this one is {head.topology.name} "
                f"({len(head.vertices)}). Choose such a head, or the bundled model."
            )
        graph = self._model.graph_encoder
        own = torch.from_numpy(head.vertices[: config.num_vertices])
        nodes = graph.pool(own.to(graph.positions.device)).cpu().numpy()
        positions = graph.positions.cpu().numpy()
        fit = similarity_fit(positions, nodes)
        radius = np.linalg.norm(nodes - nodes.mean(axis=0), axis=1).mean()
        misfit = np.linalg.norm(fit.apply(positions) - nodes, axis=1).mean() / radius
        is_shipped = wanted in shipped_topologies()
        has_same_faces = (
            not is_shipped or load_topology(wanted).fingerprint == head.topology.fingerprint
        )
        if not has_same_faces or misfit > _LARGEST_MISFIT:
            raise UserError(
                f"This head has as many vertices as those that the model animates ({wanted}, "
                f"{config.num_vertices}), but in another order, for example by an OBJ import. "
                "Import it again with the vertex order kept, or choose the bundled model."
            )
        return np.asarray(float(graph.scale) * fit.scale * fit.rotation.T, np.float32)
