# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint that animates the sequences of a prepared set, at the set's rate and in its units.

Time and memory are measured.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray

from backend import motion
from backend.audio.features import stacked_log_mel
from backend.data.captures.prepared import PreparedSet, Sequence
from backend.data.captures.regions import mean_head
from backend.errors import UserError
from backend.heads.fit_weights import fit_weights
from backend.heads.mesh import similarity_fit
from backend.heads.topology import Head, load_topology, shipped_topologies
from backend.inference.devices import memory_errors, pick_device
from backend.inference.shapes_for_head import HeadShapes
from backend.model import checkpoint
from backend.model.checkpoint_files import WEIGHTS_NAME
from backend.model.generate import generate
from backend.model.style_inversion import style_of_motion

StyleFrom = Literal["auto", "identity", "motion", "speech", "neutral"]

_SAME_SIZE: Final = 1.15
_SAME_WAY: Final = math.cos(math.radians(10.0))
_SAMPLING_SECONDS: Final = 0.01
_MAX_EXEMPLAR_FRAMES: Final = 300


@dataclass(frozen=True, slots=True)
class SourcedCode:
    """A style code ``(1, D)`` and the kind of source it was taken from."""

    code: torch.Tensor
    source: str


class CaptureModel:
    """A loaded checkpoint and the prepared set that it animates."""

    preset: str
    """Preset that the checkpoint was built from."""
    fingerprint: str
    """Hash of the checkpoint's parameters."""
    num_parameters: int
    """Number of the checkpoint's parameters."""
    device: torch.device
    """Device of the model."""
    seconds_taken: float
    """Time that all motions so far took: features, network, vertices."""
    seconds_of_sound: float
    """Length of all motions so far."""
    peak_memory_mb: float
    """Most memory in use while motions were made: of the process on a CPU, of torch on a GPU."""

    def __init__(self, folder: Path, prepared: PreparedSet, device: str) -> None:
        """Loads a checkpoint.

        Args:
            folder: Folder of the checkpoint.
            prepared: The set to animate.
            device: Name of the device, or ``auto``.

        Raises:
            UserError: The checkpoint is missing or damaged, or for heads of another topology.
        """
        self.device = pick_device(device)
        with memory_errors():
            self._model = checkpoint.load(folder, self.device).eval()
        self._prepared = prepared
        self._config = self._model.config
        self.preset = self._config.preset
        self.num_parameters = sum(value.numel() for value in self._model.parameters())
        with (folder / WEIGHTS_NAME).open("rb") as file:
            self.fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        self.seconds_taken = self.seconds_of_sound = self.peak_memory_mb = 0.0
        self._kept: dict[str, NDArray[np.float32]] = {}
        if self._config.shape_kind == "learned":
            self._to_set = self._learned_to_set(folder)
        elif mean_head(prepared) is None or prepared.faces() is None:
            raise UserError(
                f'The model "{folder.name}" solves its shapes on each head, which needs face '
                f"points and faces; {prepared.folder} lacks them. Choose a model trained on it."
            )
        self._solver = HeadShapes(self._config)

    def style(self, sequence: Sequence, source: StyleFrom) -> SourcedCode:
        """The style in which a sequence is to be animated, never taken from the sequence itself.

        Args:
            sequence: The sequence to animate.
            source: ``auto`` takes the subject's number if the model was trained on it, else another
                clip's motion, else none.

        Returns:
            The style code and its source.

        Raises:
            UserError: The model knows no such source.
        """
        known = sequence.subject in self._config.speakers
        sources = self._config.style_sources
        if source == "auto":
            source = "neutral"
            if known:
                source = "identity"
            elif "motion" in sources and self._other_clip(sequence) is not None:
                source = "motion"
        if source == "neutral":
            return SourcedCode(self._model.neutral_style(), source)
        if source not in sources:
            raise UserError(
                f"The model {self.preset} takes no style from {source}, only from "
                f"{', '.join(sources) or 'nothing'}. Choose --style-from auto."
            )
        if source == "identity":
            if not known:
                raise UserError(
                    f"The model {self.preset} was not trained on {sequence.subject} and has no "
                    "number for it. Choose --style-from auto or motion."
                )
            return SourcedCode(self._model.encode_identity_style(sequence.subject), source)
        other = self._other_clip(sequence)
        if other is None:
            raise UserError(
                f"There is no other clip of {sequence.subject} to take a style from. Choose "
                "--style-from auto or neutral."
            )
        if source == "speech":
            return SourcedCode(self._model.encode_audio_style(self._speech(other)), source)
        return SourcedCode(style_of_motion(self._model, self._exemplar(other)), source)

    def style_of(self, clip: Sequence) -> SourcedCode:
        """The style of a clip, for other sequences: of its motion, else of its subject."""
        if "motion" in self._config.style_sources:
            return SourcedCode(style_of_motion(self._model, self._exemplar(clip)), "motion")
        if clip.subject in self._config.speakers:
            return SourcedCode(self._model.encode_identity_style(clip.subject), "identity")
        return SourcedCode(self._model.neutral_style(), "neutral")

    def offsets(self, sequence: Sequence, style: SourcedCode) -> NDArray[np.float32]:
        """Animates a sequence from its audio.

        Args:
            sequence: The sequence to animate.
            style: Style code of the model.

        Returns:
            Offsets from the subject's template, ``(T, V, 3)`` in the set's units.

        Raises:
            UserError: The model made something that is no number, or memory is short.
        """
        shapes = self._shapes(sequence.subject)
        fps = self._prepared.manifest.fps
        rate = self._config.motion_fps
        count = sequence.num_frames
        rows = math.ceil(count / float(fps) * rate)
        started = time.monotonic()
        with self._memory(), memory_errors():
            made = generate(
                self._model,
                self._speech(sequence),
                style.code,
                num_frames=rows,
                mode=self._config.modes[0],
            )
            weights = made[0].float().cpu().numpy()
            if rows != count or float(fps) != rate:
                weights = motion.at_times(weights, motion.frame_seconds(count, fps), rate=rate)
            found = np.tensordot(weights, shapes, axes=1)
        self.seconds_taken += time.monotonic() - started
        self.seconds_of_sound += count / float(fps)
        if not np.isfinite(found).all():
            raise UserError(
                f"The model {self.preset} made positions that are not numbers of {sequence.name}. "
                "Its training went wrong; choose another checkpoint."
            )
        return np.asarray(found, np.float32)

    def _learned_to_set(self, folder: Path) -> NDArray[np.float32]:
        """The matrix that takes learned offsets to the set's units and axes.

        Identity where both have the same units: heads differ by a few percent, and a fit to them
        would scale what was learned without reason.
        """
        manifest, config = self._prepared.manifest, self._config
        is_shipped = config.topology in shipped_topologies()
        marks = (
            manifest.fingerprint,
            load_topology(config.topology).fingerprint if is_shipped else "",
        )
        if config.num_vertices != manifest.num_vertices or (all(marks) and marks[0] != marks[1]):
            raise UserError(
                f'The model "{folder.name}" is for heads of the topology {config.topology} with '
                f"{config.num_vertices} vertices; those of {self._prepared.folder} are "
                f"{manifest.topology or 'of an unknown one'} with {manifest.num_vertices}. Choose "
                "a model trained on such heads."
            )
        graph = self._model.graph_encoder
        templates = [self._prepared.template(one.name) for one in manifest.subjects]
        mean = torch.from_numpy(np.mean(templates, axis=0, dtype=np.float64).astype(np.float32))
        nodes = graph.pool(mean.to(self.device)).cpu().numpy()
        fit = similarity_fit(graph.positions.cpu().numpy(), nodes)
        size = float(graph.scale) * fit.scale
        cosine = (np.trace(fit.rotation) - 1.0) / 2.0
        if 1.0 / _SAME_SIZE < size < _SAME_SIZE and cosine > _SAME_WAY:
            return np.eye(3, dtype=np.float32)
        return np.asarray(size * fit.rotation.T, np.float32)

    def _shapes(self, subject: str) -> NDArray[np.float32]:
        """The model's shapes on a subject's head, ``(K, V, 3)``, in the set's units."""
        if self._config.shape_kind == "learned":
            if not self._kept:
                self._kept[""] = self._model.shapes().cpu().numpy() @ self._to_set
            return self._kept[""]
        if subject not in self._kept:
            mean, faces = mean_head(self._prepared), self._prepared.faces()
            assert mean is not None  # checked when the model was loaded
            assert faces is not None
            template = self._prepared.template(subject).astype(np.float64)
            self._kept = {subject: self._solver.on(Head(template, *faces, mean.topology))[1]}
        return self._kept[subject]

    def _speech(self, sequence: Sequence) -> torch.Tensor:
        """Input of the model's speech encoder, with silence up to the end of the motion."""
        samples = self._prepared.samples_to_motion_end(sequence)
        if self._config.speech.kind != "hubert":
            samples = stacked_log_mel(samples)
        return torch.from_numpy(samples)[None].to(self.device)

    def _other_clip(self, sequence: Sequence) -> Sequence | None:
        """The longest other clip of the subject with another sentence; of training if there is."""
        others = [
            one
            for one in self._prepared.manifest.sequences
            if one.subject == sequence.subject and one.sentence != sequence.sentence
        ]
        others = [one for one in others if one.split == "train"] or others
        return max(others, key=lambda one: one.num_frames, default=None)

    def _exemplar(self, clip: Sequence) -> torch.Tensor:
        """Input of the motion style encoder from a clip, ``(1, T, K)`` or ``(1, T, V, 3)``."""
        offsets = self._prepared.offsets(clip, 0, _MAX_EXEMPLAR_FRAMES)
        fps, rate = float(self._prepared.manifest.fps), self._config.motion_fps
        if self._config.shape_kind == "learned":
            moved = (offsets @ np.linalg.inv(self._to_set)).astype(np.float32)
        else:
            moved = fit_weights(offsets, self._shapes(clip.subject))
        if fps != rate:
            times = np.arange(max(1, round(len(moved) / fps * rate))) / rate
            flat = motion.at_times(moved.reshape(len(moved), -1), times, rate=fps)
            moved = flat.reshape(-1, *moved.shape[1:])
        return torch.from_numpy(moved)[None].to(self.device)

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Watches how much memory is in use."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            yield
            used = torch.cuda.max_memory_allocated(self.device)
            self.peak_memory_mb = max(self.peak_memory_mb, used / 1e6)
            return
        process, is_over = psutil.Process(), threading.Event()

        def watch() -> None:
            while True:
                used = process.memory_info().rss
                self.peak_memory_mb = max(self.peak_memory_mb, used / 1e6)
                if is_over.wait(_SAMPLING_SECONDS):
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()
