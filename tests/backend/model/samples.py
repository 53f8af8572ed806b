# SPDX-License-Identifier: GPL-3.0-or-later
"""Small models and batches that the tests of model, losses and checkpoint share."""

from dataclasses import fields, replace

import torch

from backend.model.batch import TrainingBatch
from backend.model.config import LossWeights, ModelConfig, SpeechEncoderConfig, TrainConfig
from backend.model.graph_encoder import MotionGraph, coarse_mesh_graph, face_point_graph
from backend.model.ptalker import PTalker

SMALL_HUBERT = SpeechEncoderConfig(
    kind="hubert",
    input_dim=1,
    hidden_size=32,
    num_layers=1,
    num_heads=2,
    ff_size=32,
    kernel_size=16,
    offset_seconds=0.0125,
    conv_widths=(8,) * 7,
    frozen="convolutions",
)


TRAIN_CONFIG = TrainConfig(weights=LossWeights(**{item.name: 0.5 for item in fields(LossWeights)}))


def small(config: ModelConfig) -> ModelConfig:
    """The config with a HuBERT and a mesh that a test can afford."""
    if config.shape_kind == "solved":
        return config
    return replace(
        config, speech=SMALL_HUBERT, num_vertices=300, num_nodes=40, feature_dim=32, style_dim=16
    )


def random_graph(config: ModelConfig, *, seed: int = 0) -> MotionGraph:
    generator = torch.Generator().manual_seed(seed)
    if config.shape_kind == "solved":
        positions = torch.randn(config.num_nodes, 3, generator=generator)
        basis = 0.05 * torch.randn(
            len(config.shape_names), config.num_nodes, 3, generator=generator
        )
        return face_point_graph(positions, basis, config.num_neighbours)
    return coarse_mesh_graph(
        torch.randn(config.num_vertices, 3, generator=generator),
        torch.ones(config.num_vertices),
        num_nodes=config.num_nodes,
        num_neighbours=config.num_neighbours,
    )


def build(config: ModelConfig, *, seed: int = 0, lively: bool = False) -> PTalker:
    """A model with random weights; ``lively``: with styles that matter and motion of full size."""
    torch.manual_seed(seed)
    model = PTalker(config)
    model.set_graph(random_graph(config))
    if lively:
        silent = ("modulation", "distance_scores", "phone_context.leave")  # as they begin
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name == "fusion.neutral" or any(part in name for part in silent):
                    parameter.normal_(std=0.1)
            model.output_layer.weight.normal_(std=0.3)
            model.output_layer.bias.fill_(0.4 if config.shape_kind == "solved" else 0.0)
    return model


def random_batch(
    config: ModelConfig, lengths: tuple[int, ...], *, seed: int = 0, style_frames: int = 30
) -> TrainingBatch:
    """A padded batch of noise; the padding is noise too, so that a leak shows."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def motion(num_frames: int) -> torch.Tensor:
        if config.shape_kind == "solved":
            return noise(len(lengths), num_frames, len(config.shape_names)).abs().clamp(max=1.2)
        return 0.02 * noise(len(lengths), num_frames, config.num_vertices, 3)

    B, T = len(lengths), max(lengths)
    frames = torch.tensor(lengths)
    features = (frames * config.speech.rate_hz / config.motion_fps).round().long()
    S = int(features.max())
    is_waveform = config.speech.kind == "hubert"
    speech_lengths = features * 320 + 80 if is_waveform else features
    speech = noise(B, int(speech_lengths.max())) if is_waveform else noise(B, S, 160)
    style_speech = noise(B, 16000) if is_waveform else noise(B, 40, 160)
    return TrainingBatch(
        speech=speech,
        speech_lengths=speech_lengths,
        motion=motion(T),
        motion_lengths=frames,
        speaker=torch.arange(B) % max(1, len(config.speakers)) if config.speakers else -frames,
        phones=torch.randint(0, 41, (B, S), generator=generator),
        phone_targets=torch.randint(1, 41, (B, S), generator=generator),
        style_motion=motion(style_frames),
        style_motion_lengths=torch.full((B,), style_frames),
        style_speech=style_speech,
        style_speech_lengths=torch.full((B,), style_speech.shape[1]),
        style_strength=torch.linspace(1.0, 1.2, B),
    )
