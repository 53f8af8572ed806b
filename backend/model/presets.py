# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets of models: the bundled one, the paper's, peers of the same blocks, and one for tests."""

from __future__ import annotations

from dataclasses import replace

from backend.model.config import ModelConfig, SpeechEncoderConfig

_HUBERT_LARGE = SpeechEncoderConfig(
    kind="hubert",
    input_dim=1,
    hidden_size=1024,
    num_layers=24,
    num_heads=16,
    ff_size=4096,
    kernel_size=128,
    offset_seconds=0.0125,
    conv_widths=(512,) * 7,
    frozen="convolutions",
    hub_id="facebook/hubert-large-ls960-ft",
    revision="ba42e7f7a888fd65f7af7849c452e3e7d5216aad",
)
_VOCASET = ModelConfig(
    preset="vocaset",
    shape_kind="learned",
    topology="flame",
    motion_fps=30.0,
    shape_names=(),
    num_vertices=5023,
    num_nodes=400,
    num_neighbours=8,
    graph_channels=16,
    feature_dim=64,
    motion_stride=1,
    motion_convs=6,
    motion_layers=6,
    motion_heads=2,
    decoder_layers=6,
    decoder_ff=128,
    self_window=60,
    cross_window=8,
    speakers=tuple(f"speaker_{number}" for number in range(1, 9)),
    speech=_HUBERT_LARGE,
)
PRESETS: dict[str, ModelConfig] = {
    "base": ModelConfig(
        preset="base",
        motion_stride=4,
        lip_layers=8,
        phone_context_width=96,
        speakers=tuple(f"style_{number}" for number in range(64)),
        dropout=0.0,
        speech=SpeechEncoderConfig(stacking=2, num_layers=9, window=24, dropout=0.0),
    ),
    "vocaset": _VOCASET,
    "biwi": replace(
        _VOCASET,
        preset="biwi",
        topology="biwi",
        motion_fps=25.0,
        num_vertices=23370,
        feature_dim=128,
        style_dim=128,
        motion_width=256,
        decoder_ff=256,
        self_window=50,
        speakers=tuple(f"speaker_{number}" for number in range(1, 7)),
    ),
    "faceformer": replace(
        _VOCASET,
        preset="faceformer",
        modes=("autoregressive",),
        decoder_layers=1,
        motion_encoder="linear",
        alignment="linear",
        style_sources=("identity",),
    ),
    "regression": replace(
        _VOCASET,
        preset="regression",
        modes=("parallel",),
        decoder_layers=1,
        self_window=1,
        motion_encoder="linear",
        alignment="linear",
        style_sources=("identity",),
    ),
    "tiny": ModelConfig(
        preset="tiny",
        feature_dim=32,
        style_dim=16,
        graph_channels=4,
        graph_heads=2,
        motion_width=32,
        motion_convs=1,
        motion_layers=1,
        motion_heads=2,
        lip_layers=2,
        lip_width=16,
        phone_context_width=8,
        speech_style_width=16,
        decoder_layers=2,
        decoder_heads=2,
        decoder_ff=48,
        self_window=6,
        cross_window=4,
        speakers=("one", "two", "three"),
        speech=SpeechEncoderConfig(
            hidden_size=32, num_layers=2, num_heads=2, ff_size=48, kernel_size=5, window=6
        ),
    ),
}
"""Named configs. The numbers of identities and of vertices are those of the data that they name."""
CAPTURE_PRESETS = tuple(name for name, config in PRESETS.items() if config.shape_kind == "learned")
"""Names of the presets that are trained on captured faces; the others are trained on speech."""
