# SPDX-License-Identifier: GPL-3.0-or-later
"""Config, graph, initial shapes and loss geometry of a new model, derived from a prepared set.

While training, offsets are in a unit in which they are about 1, so that one learning rate fits
metres and unit-area heads alike. The output layer and the graph are brought to the set's own unit
when the model is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.data.captures.batches import sample_frames
from backend.data.captures.prepared import PreparedSet
from backend.data.captures.regions import mean_head, regions_of
from backend.errors import UserError
from backend.heads.topology import FACE_POINT_NAMES, INTEROCULAR_MM, Head, face_frame
from backend.model.config import ModelConfig
from backend.model.graph_encoder import coarse_mesh_graph
from backend.model.loss_geometry import FaceGeometry
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from backend.training.captures.speech_encoder import SpeechSource, fill_speech_encoder

_FRAMES: Final = 600
_LIPS_COUNT: Final = 2.0
_EYES_TO_RADIUS: Final = 0.6  # of a FLAME head: between the eyes, against the root mean square

_SMALL: Final = {
    "feature_dim": 32,
    "style_dim": 16,
    "num_nodes": 60,
    "graph_channels": 4,
    "graph_heads": 2,
    "motion_width": 32,
    "motion_convs": 2,
    "motion_layers": 1,
    "speech_style_width": 16,
    "decoder_heads": 2,
    "decoder_ff": 64,
    "self_window": 12,
}


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """A new model for a prepared set, and the geometry on which its motion is measured.

    Attributes:
        model: The new model, in the unit of training.
        geometry: Geometry of the losses in the unit of training, on a CPU.
        factor: Factor that brings offsets in the set's unit to the unit of training.
        lips: Vertices of the lips; empty where they are not known.
        head: Mean face of the set; None where its face points are not known.
        mm: Millimetres per unit of the set; 0 where that is not known.
    """

    model: PTalker
    geometry: FaceGeometry
    factor: float
    lips: NDArray[np.int64]
    head: Head | None
    mm: float


def training_speakers(data: PreparedSet) -> tuple[str, ...]:
    """Subjects with training clips, in the set's order."""
    there = {clip.subject for clip in data.split("train")}
    return tuple(one.name for one in data.manifest.subjects if one.name in there)


def config_for(preset: str, data: PreparedSet, source: SpeechSource, *, small: bool) -> ModelConfig:
    """Fits a preset's sizes to a prepared set.

    Args:
        preset: Name of the preset.
        data: The prepared set.
        source: Pretrained speech encoder of the model.
        small: Whether to take a network of a fraction of the size.

    Returns:
        The config of the model.

    Raises:
        UserError: The set has too few vertices.
    """
    manifest = data.manifest
    config = PRESETS[preset]
    if small:
        layers = min(2, config.decoder_layers)
        config = replace(config, decoder_layers=layers, **_SMALL)  # type: ignore[arg-type]
    num_nodes = min(config.num_nodes, manifest.num_vertices)
    if num_nodes < 3:
        raise UserError(f"Heads of {manifest.num_vertices} vertices are too small to train on.")
    return replace(
        config,
        topology=manifest.topology or manifest.dataset,
        motion_fps=float(manifest.fps),
        num_vertices=manifest.num_vertices,
        num_nodes=num_nodes,
        num_neighbours=min(config.num_neighbours, num_nodes - 1),
        speakers=training_speakers(data),
        num_phone_ids=source.num_phone_ids,
        speech=source.config,
    )


def new_setup(
    config: ModelConfig, data: PreparedSet, source: SpeechSource, regions: Path | None
) -> TrainingSetup:
    """Builds a model: speech encoder as given, graph and shapes from the set, the rest random.

    Args:
        config: Config of the model, from `config_for`.
        data: The prepared set.
        source: Pretrained speech encoder of the model.
        regions: File with the vertices of the lips, for sets of unknown topology.

    Returns:
        The model and the geometry of the set.

    Raises:
        UserError: The speech encoder or the regions cannot be had, or nothing moves in the set.
    """
    clips = data.split("train")
    frames = sample_frames(data, clips, _FRAMES)  # (n, V, 3)
    spread = np.sqrt(np.square(frames).sum(-1).mean(0))  # (V,)
    if not spread.max() > 0.0:
        raise UserError(f"Nothing moves in {data.folder}. Prepare it again from the right files.")
    factor = float(1.0 / np.sqrt(np.square(frames).mean()))
    head = mean_head(data)
    lips = np.zeros(0, np.int64)
    if regions is not None or (head is not None and len(head.corners)):
        lips = regions_of(data, regions).lips
    elif head is not None:
        place = head.topology.face_points
        lips = np.array([place[name] for name in FACE_POINT_NAMES if name.startswith("lip_")])
    template = _mean_template(data)
    model = PTalker(config)
    fill_speech_encoder(model, source)
    density = 1.0 + 4.0 * spread / spread.max()
    density[lips] *= _LIPS_COUNT
    graph = coarse_mesh_graph(
        torch.from_numpy(template),
        torch.from_numpy(density),
        num_nodes=config.num_nodes,
        num_neighbours=config.num_neighbours,
    )
    model.set_graph(replace(graph, scale=graph.scale / factor))
    _initialise_shapes(model, frames * np.float32(factor))
    radius = float(np.sqrt(np.square(template).sum(-1).mean()))
    unit = face_frame(head).interocular if head is not None else _EYES_TO_RADIUS * radius
    weights = 0.2 + spread / spread.mean()
    weights[lips] *= _LIPS_COUNT
    geometry = FaceGeometry(
        points=torch.from_numpy(template / np.float32(unit)),
        basis=None,
        point_weights=torch.from_numpy((weights / weights.mean()).astype(np.float32)),
        lip_pairs=_lip_pairs(head),
        scale=1.0 / (factor * unit),
    )
    mm = 1000.0 * data.manifest.metres_per_unit
    if mm == 0.0 and head is not None:
        mm = INTEROCULAR_MM / unit
    return TrainingSetup(model, geometry, factor, lips, head, mm)


def to_own_unit(model: PTalker, factor: float) -> None:
    """Converts a model from the unit of training to the set's unit; its motion stays the same."""
    with torch.no_grad():
        model.output_layer.weight.div_(factor)
        model.output_layer.bias.div_(factor)
        model.graph_encoder.scale.mul_(factor)


def _mean_template(data: PreparedSet) -> NDArray[np.float32]:
    """Mean template of the training subjects, centred, ``(V, 3)``."""
    templates = [data.template(name) for name in training_speakers(data)]
    mean = np.mean(templates, axis=0, dtype=np.float64)
    return np.asarray(mean - mean.mean(0), np.float32)


def _initialise_shapes(model: PTalker, frames: NDArray[np.float32]) -> None:
    """Initialises the output layer with the principal components of the motion, the rest randomly.

    Departure from the released code, which starts at zero, where shapes are first learned from
    wrong weights.
    """
    flat = torch.from_numpy(frames.reshape(len(frames), -1))
    mean = flat.mean(0)
    flat = flat - mean
    values, vectors = torch.linalg.eigh((flat @ flat.T).double() / len(flat))
    count = min(model.config.feature_dim, len(flat) - 1)
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    count = int((values > 1e-6 * values[0]).sum())
    # A component of length sqrt(value) times a weight of variance 1 is what the motion shows.
    parts = flat.T @ vectors[:, :count].float() / len(flat) ** 0.5  # (3V, count)
    with torch.no_grad():
        model.output_layer.weight.normal_(std=1e-3)
        model.output_layer.weight[:, :count] = parts
        model.output_layer.bias.copy_(mean)


def _lip_pairs(head: Head | None) -> Tensor:
    """Pairs of vertices that meet when the lips close, int64 ``(L, 2)``; none where unknown."""
    if head is None:
        return torch.zeros(0, 2, dtype=torch.int64)
    place = head.topology.face_points
    names = [name for name in FACE_POINT_NAMES if name.startswith("lip_upper_inner")]
    return torch.tensor([[place[name], place[name.replace("upper", "lower")]] for name in names])
