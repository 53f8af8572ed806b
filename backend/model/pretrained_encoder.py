# SPDX-License-Identifier: GPL-3.0-or-later
"""Pretrained speech encoders over the waveform: HuBERT of ``transformers``, unmodified.

This is the only module that imports ``transformers``; it is imported where a config asks for such
an encoder.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from backend.model.attention import frame_mask
from backend.model.config import SpeechEncoderConfig
from backend.model.optimizer_groups import optimised_by_adamw


def build_hubert(config: SpeechEncoderConfig) -> HubertModel:
    """A HuBERT of a config's sizes, with random parameters.

    It has HuBERT-large's construction: layer norm everywhere, the stable variant.
    """
    encoder = HubertModel(
        HubertConfig(
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
    )
    optimised_by_adamw(encoder.feature_projection.get_submodule("projection"))
    return encoder


def encode_waveform(encoder: HubertModel, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden frames of padded waveforms.

    Args:
        encoder: The HuBERT.
        speech: Normalised waveforms at 16 kHz, shape ``(B, N)``.
        lengths: Valid samples of each, int64 ``(B,)``.

    Returns:
        Hidden frames ``(B, S, hidden_size)`` and their mask ``(B, S)``.
    """
    samples = frame_mask(lengths, speech.shape[1])
    hidden = encoder(speech, attention_mask=samples).last_hidden_state
    assert hidden is not None
    counts = lengths
    for kernel, stride in zip(encoder.config.conv_kernel, encoder.config.conv_stride, strict=True):
        counts = (counts - kernel) // stride + 1
    return hidden, frame_mask(counts, hidden.shape[1])


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
