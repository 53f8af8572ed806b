# SPDX-License-Identifier: GPL-3.0-or-later
"""Configs of a model and of its training: frozen, checked, and read from JSON by ``backend.io``.

Everything that differs between models is a field here; model code knows no data set. Presets:
``base`` is the bundled model, ``vocaset`` and ``biwi`` have the released widths (made consistent:
the released code mixes 64 and 128), ``tiny`` is for tests, the others are peers of the same blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from backend.checks import require, require_moderate_sizes, require_positive, require_share
from backend.heads.arkit import ARKIT_NAMES
from backend.speech.phones import NUM_PHONE_IDS

Mode = Literal["parallel", "autoregressive"]
StyleSource = Literal["identity", "speech", "motion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechEncoderConfig:
    """The speech encoder.

    Attributes:
        kind: ``wav2vec2-bert`` (a conformer over features, trained from scratch) or ``hubert``
            (over the waveform, pretrained, of ``transformers``).
        input_dim: Features of a frame; 1 for a waveform.
        stacking: Feature frames that the conformer stacks into one token; 1 for a waveform.
        hidden_size: Width of the layers.
        num_layers: Transformer or conformer layers.
        num_heads: Attention heads; must divide the width.
        ff_size: Width of the feed-forward layers.
        kernel_size: Kernel of the conformer's depthwise convolution or HuBERT's positional one.
        window: Tokens a conformer layer attends to on each side; HuBERT attends to all.
        rate_hz: Output frames a second.
        offset_seconds: Time of the centre of output frame 0.
        conv_widths: Channels of HuBERT's convolutions over the waveform.
        dropout: Dropout while training.
        frozen: Parameters that training leaves alone: none, HuBERT's convolutions, or all.
        hub_id: Hub id of the pretrained encoder; empty for none.
        revision: Commit of the pretrained encoder on the hub.
    """

    kind: Literal["wav2vec2-bert", "hubert"] = "wav2vec2-bert"
    input_dim: int = 160
    stacking: int = 1
    hidden_size: int = 160
    num_layers: int = 6
    num_heads: int = 4
    ff_size: int = 480
    kernel_size: int = 15
    window: int = 32
    rate_hz: float = 50.0
    offset_seconds: float = 0.0
    conv_widths: tuple[int, ...] = ()
    dropout: float = 0.1
    frozen: Literal["nothing", "convolutions", "everything"] = "nothing"
    hub_id: str = ""
    revision: str = ""

    def __post_init__(self) -> None:
        require_positive(
            self, "input_dim", "stacking", "hidden_size", "num_layers", "num_heads", "ff_size",
            "kernel_size",
            "window", "rate_hz",
        )  # fmt: skip
        require_moderate_sizes(self)
        require_share(self, "dropout")
        require(
            self.hidden_size % self.num_heads == 0,
            f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}",
        )
        require(math.isfinite(self.offset_seconds), "offset_seconds is not a finite number")
        if self.kind == "hubert":
            require(self.input_dim == 1, "hubert takes a waveform: input_dim must be 1")
            require(self.stacking == 1, "hubert takes a waveform: stacking must be 1")
            require(
                len(self.conv_widths) == 7 and min(self.conv_widths) > 0,
                "hubert needs 7 conv_widths above 0",
            )
        else:
            require(self.kernel_size % 2 == 1, f"kernel_size {self.kernel_size} must be odd")
            require(self.frozen != "convolutions", "only hubert has convolutions to freeze")
        require(bool(self.hub_id) == bool(self.revision), "hub_id and revision belong together")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The sizes and parts of a model.

    Attributes:
        preset: Name of the preset that this is or was made from, for people.
        shape_kind: ``solved``: weights of named shapes that every head has; ``learned``: a linear
            layer to the vertices of one topology.
        topology: Name of the topology that learned shapes belong to; empty for solved shapes.
        motion_fps: Motion frames a second.
        shape_names: Solved: names of the ``K`` shapes, in the order of the weights. Learned: none,
            and ``K = feature_dim + 1``.
        max_weight: Solved: generated weights lie between 0 and this.
        num_vertices: Learned: vertices ``V``. Solved: 0.
        num_nodes: Nodes ``N`` of the motion graph.
        num_neighbours: Other nodes that each node attends to.
        motion_scale: Displacements, in the unit of the nodes' positions, are multiplied by it where
            they enter the graph, so that they are about 1.
        feature_dim: Width ``F`` of content and decoder.
        style_dim: Length ``D`` of a style code.
        motion_encoder: ``graph``, or ``linear`` as in the released code.
        graph_channels: Channels of each graph attention head.
        graph_heads: Graph attention heads.
        graph_layers: Graph attention layers.
        motion_stride: Frames that are averaged into one for the motion encoders.
        motion_width: Width of the motion encoders.
        motion_convs: Convolutions of each motion encoder.
        motion_layers: Transformer layers of each motion encoder.
        motion_heads: Attention heads of the motion encoders.
        motion_window: Averaged frames a motion encoder's layer attends to on each side.
        lip_layers: Layers of the lip reader; 0 for none.
        lip_width: Width of the lip reader's layers.
        speech_style_width: Width of the speech style encoder.
        modes: Decoding modes that the model is trained for; the first is the default.
        decoder_layers: Layers of the decoder.
        decoder_heads: Attention heads of the decoder.
        decoder_ff: Width of the decoder's feed-forward layers.
        self_window: Frames the decoder attends to on each side (autoregressive: only back).
        cross_window: Frames of content the decoder attends to on each side.
        alignment: ``attention`` over ``cross_window``, or ``linear``: the same frame's content.
        style_sources: Sources that a style may come from.
        style_dropout: Share of sequences for which a style source is dropped while training.
        speakers: Names of the speakers or styles that the identity embedding has.
        num_phone_ids: Phone ids, 0 meaning no phone.
        phone_context_width: Width of the hidden layer of the phone context; 0 for none.
        dropout: Dropout while training.
        feedback_noise: Spread of the noise added to fed-back features while training, in
            standard deviations of the features.
        speech: Sizes of the speech encoder.
    """

    preset: str = ""
    shape_kind: Literal["solved", "learned"] = "solved"
    topology: str = ""
    motion_fps: float = 50.0
    shape_names: tuple[str, ...] = ARKIT_NAMES
    max_weight: float = 1.5
    num_vertices: int = 0
    num_nodes: int = 111
    num_neighbours: int = 6
    motion_scale: float = 10.0
    feature_dim: int = 160
    style_dim: int = 64
    motion_encoder: Literal["graph", "linear"] = "graph"
    graph_channels: int = 4
    graph_heads: int = 4
    graph_layers: int = 2
    motion_stride: int = 2
    motion_width: int = 128
    motion_convs: int = 3
    motion_layers: int = 2
    motion_heads: int = 4
    motion_window: int = 32
    lip_layers: int = 0
    lip_width: int = 144
    speech_style_width: int = 96
    modes: tuple[Mode, ...] = ("parallel", "autoregressive")
    decoder_layers: int = 4
    decoder_heads: int = 4
    decoder_ff: int = 480
    self_window: int = 24
    cross_window: int = 12
    alignment: Literal["attention", "linear"] = "attention"
    style_sources: tuple[StyleSource, ...] = ("identity", "speech", "motion")
    style_dropout: float = 0.3
    speakers: tuple[str, ...] = ()
    num_phone_ids: int = NUM_PHONE_IDS
    phone_context_width: int = 0
    dropout: float = 0.1
    feedback_noise: float = 0.05
    speech: SpeechEncoderConfig = field(default_factory=SpeechEncoderConfig)

    def __post_init__(self) -> None:
        require_positive(
            self, "motion_fps", "max_weight", "num_nodes", "num_neighbours", "motion_scale",
            "feature_dim", "style_dim", "graph_channels", "graph_heads", "graph_layers",
            "motion_stride", "motion_width", "motion_heads", "motion_window", "lip_width",
            "speech_style_width", "decoder_layers", "decoder_heads", "decoder_ff", "self_window",
            "cross_window", "num_phone_ids",
        )  # fmt: skip
        require_moderate_sizes(self)
        require_share(self, "style_dropout", "dropout")
        for name in (
            "motion_convs",
            "motion_layers",
            "lip_layers",
            "phone_context_width",
            "feedback_noise",
        ):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}, expected >= 0")
        for width, heads in (("feature_dim", "decoder_heads"), ("motion_width", "motion_heads")):
            require(
                getattr(self, width) % getattr(self, heads) == 0,
                f"{width} {getattr(self, width)} is not a multiple of {heads}",
            )
        for name in ("modes", "style_sources", "speakers", "shape_names"):
            values = getattr(self, name)
            require(len(set(values)) == len(values), f"{name} names something twice: {values}")
        require(len(self.modes) > 0, "modes is empty")
        require(
            "identity" in self.style_sources or not self.speakers,
            "speakers are given, but identity is not among style_sources",
        )
        solved = self.shape_kind == "solved"
        require(
            bool(self.shape_names) == solved and (self.num_vertices > 0) == (not solved),
            f"{self.shape_kind} shapes with {len(self.shape_names)} shape_names and num_vertices "
            f"{self.num_vertices}: solved needs the first alone, learned the second alone",
        )
        require(
            solved or self.num_nodes <= self.num_vertices,
            f"num_nodes {self.num_nodes} is above num_vertices {self.num_vertices}",
        )
        has_phones = self.num_phone_ids > 1 and self.speech.kind != "hubert"
        require(
            has_phones or not self.phone_context_width,
            "phone_context_width needs a conformer and phone ids",
        )
        require(solved or bool(self.topology), "learned shapes belong to a topology: name it")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Factors of the loss terms; 0 leaves a term out. Terms are defined in ``losses.py``.

    The paper's own factors are not known and those of the released code make every term of
    disentanglement and alignment vanish (1e-5 and less), so each training has its own. No weight
    has a default, so that a new loss term cannot enter a training unnoticed.
    """

    reconstruction: float
    displacement: float
    velocity: float
    spread: float
    speed: float
    lip_distance: float
    closure: float
    motion_branch: float
    contrastive: float
    divergence: float
    orthogonality: float
    style_contrast: float
    style_consistency: float
    adversary: float
    cycle: float
    phones: float

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            require(math.isfinite(value) and value >= 0, f"{item.name} is {value}, expected >= 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How a model is trained; sizes of batches and stages belong to the training itself.

    Attributes:
        weights: Factors of the loss terms.
        guard_frames: Frames around a frame that are never its negatives in the contrast of content.
        positive_frames: Frames around it that count as the same.
        negative_share: Share of the other frames, the most alike, that are negatives.
        content_temperature: Of the contrast of content.
        closed_lips: Distance of the lips, in the unit of the face geometry (interocular distances
            for solved shapes), below which they count as closed.
        style_temperature: Of the contrast of styles.
        autoregressive_share: Share of training steps that feed motion back, where the model has
            both ways to decode.
        own_feedback_share: In those, frames that get the model's own motion instead of the truth.
    """

    weights: LossWeights
    guard_frames: int = 5
    positive_frames: int = 1
    negative_share: float = 0.15
    content_temperature: float = 0.07
    closed_lips: float = 0.02
    style_temperature: float = 0.1
    autoregressive_share: float = 0.15
    own_feedback_share: float = 0.5

    def __post_init__(self) -> None:
        require_positive(self, "closed_lips", "content_temperature", "style_temperature")
        require(
            0 <= self.positive_frames < self.guard_frames,
            f"positive_frames is {self.positive_frames}, expected 0 to below guard_frames "
            f"{self.guard_frames}",
        )
        for name in ("negative_share", "autoregressive_share", "own_feedback_share"):
            value = getattr(self, name)
            require(0.0 <= value <= 1.0, f"{name} is {value}, expected 0 to 1")


def why_not_exportable(config: ModelConfig) -> str:
    """Why a model cannot run without PyTorch, as a sentence; empty if it can.

    Args:
        config: The model's config.

    Returns:
        The sentence.
    """
    is_on_clock = (config.motion_fps, 0.0) == (config.speech.rate_hz, config.speech.offset_seconds)
    if (
        config.shape_kind == "solved"
        and config.speech.kind != "hubert"
        and "parallel" in config.modes
        and is_on_clock
    ):
        return ""
    return (
        f"The model {config.preset} cannot be exported: only models of solved shapes that take "
        "features at the motion's frame rate and decode in parallel can."
    )
