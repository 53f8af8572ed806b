# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks of ``transformers`` that hear, and what is changed of them.

Apart from ``content_encoders.py``, which uses them and need not know how they are made.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    HubertConfig,
    HubertModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from backend.model.attention import alibi_table, windowed_attention
from backend.model.config import SpeechEncoderConfig

_WINDOWED = "ptalker_windowed"


def build_speech_encoder(config: SpeechEncoderConfig) -> HubertModel | Wav2Vec2BertModel:
    """The network of ``transformers``, with random weights.

    Two things of Wav2Vec2-BERT are changed. Its depthwise convolution pads on the left alone, as
    for streaming, so each layer would shift what it has heard to later frames; here it is
    centred, which undoes the delay and lets it see what follows, as lips must. Its layer norm
    over the input's bands would take away the loudness of each frame, which tells a closure from
    a vowel; it is left out, since the features come normalised. Its attention is bounded to a
    window, with a learned bias by distance.
    """
    if config.kind == "hubert":
        return HubertModel(_hubert_config(config))
    encoder = Wav2Vec2BertModel(
        Wav2Vec2BertConfig(
            feature_projection_input_dim=config.stacking * config.input_dim,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.ff_size,
            conv_depthwise_kernel_size=config.kernel_size,
            position_embeddings_type=None,
            hidden_dropout=config.dropout,
            activation_dropout=config.dropout,
            attention_dropout=0.0,
            feat_proj_dropout=config.dropout,
            conformer_conv_dropout=config.dropout,
            layerdrop=0.0,
            apply_spec_augment=False,
            mask_time_prob=0.0,
            mask_feature_prob=0.0,
            attn_implementation=_WINDOWED,  # type: ignore[call-arg]  # the base class takes it
        )
    )
    encoder.feature_projection.add_module("layer_norm", nn.Identity())
    for layer in encoder.encoder.layers:
        conv = _CentredConv(config.hidden_size, config.kernel_size)
        layer.get_submodule("conv_module").add_module("depthwise_conv", conv)
        table = alibi_table(config.num_heads, left=config.window, right=config.window)
        attention = layer.get_submodule("self_attn")
        attention.register_parameter("distance_bias", nn.Parameter(0.25 * table))
    return encoder


def load_published_weights(encoder: nn.Module, source: str, revision: str) -> None:
    """Fill a HuBERT with published weights: a local folder, the offline cache, or the hub.

    Args:
        encoder: A HuBERT, built from a config of the same sizes.
        source: Hub id or folder.
        revision: Commit, for a hub id; empty for a folder.

    Raises:
        OSError: Neither in the cache nor reachable, or damaged.
        ValueError: The weights are of other sizes.
    """

    def fetch(*, offline: bool) -> HubertModel:
        return HubertModel.from_pretrained(
            source,
            revision=revision or "main",
            local_files_only=offline,
            use_safetensors=True,  # never a pickle
        )

    try:
        found = fetch(offline=True)
    except OSError:
        if not revision:
            raise
        found = fetch(offline=False)
    try:
        encoder.load_state_dict(found.state_dict(), strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"The speech encoder {source} does not fit the config: {error}") from error


def _hubert_config(config: SpeechEncoderConfig) -> HubertConfig:
    """HuBERT-large's construction at the given sizes: layer norm everywhere, stable layer norm."""
    return HubertConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.ff_size,
        conv_dim=config.conv_widths,
        num_conv_pos_embeddings=config.kernel_size,
        feat_extract_norm="layer",  # per frame: a group norm over time would see the padding
        conv_bias=True,
        do_stable_layer_norm=True,
        hidden_dropout=config.dropout,
        activation_dropout=config.dropout,
        attention_dropout=config.dropout,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        apply_spec_augment=False,
    )


def conformer_receptive_field(config: SpeechEncoderConfig) -> int:
    """Frames on each side that an output frame depends on; chunks start at whole stacks."""
    return config.stacking * config.num_layers * (config.window + config.kernel_size // 2)


class _CentredConv(nn.Conv1d):
    """In place of the conformer's depthwise convolution, whose input is padded on the left."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__(width, width, kernel_size, groups=width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        half = self.kernel_size[0] // 2
        return super().forward(F.pad(x[:, :, 2 * half :], (half, half)))


def _attend_in_window(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of ``transformers``' interface; its scaling is the usual one."""
    bias = module.get_parameter("distance_bias")
    out = windowed_attention(query, key, value, bias, attention_mask, left=bias.shape[1] // 2)
    return out.transpose(1, 2), None


def _keep_padding_mask(*, attention_mask: Tensor, **_: object) -> Tensor:
    """The mask as it is, ``(B, S)``: none of size ``(S, S)`` is made."""
    return attention_mask


AttentionInterface.register(_WINDOWED, _attend_in_window)
AttentionMaskInterface.register(_WINDOWED, _keep_padding_mask)
