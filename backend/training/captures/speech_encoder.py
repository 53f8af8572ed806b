# SPDX-License-Identifier: GPL-3.0-or-later
"""Pretrained speech encoders of new models: of a checkpoint, from a folder, or from the hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, HubertConfig

from backend import bundled
from backend.audio.features import stacked_log_mel
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.data.captures.batches import EncodeSpeech
from backend.errors import UserError
from backend.model import checkpoint
from backend.model.checkpoint_files import CONFIG_NAME, FORMAT, read_config
from backend.model.config import SpeechEncoderConfig
from backend.model.pretrained_encoder import load_published_weights
from backend.model.ptalker import PTalker

Frozen = Literal["nothing", "convolutions", "everything"]

_WITHOUT_PHONES: Final = 1
_FOR_DECODER: Final = ("content.", "spoken_embedding.", "phone_context.")
"""Parts of a content encoder that belong to one decoder, and are new in a new model."""
_HOW: Final = (
    "Give --speech-encoder base, a folder with a HuBERT's config.json and model.safetensors, or "
    "HUB_ID@COMMIT."
)


@dataclass(frozen=True, slots=True)
class SpeechSource:
    """A pretrained speech encoder.

    Attributes:
        config: Sizes of the encoder, and what of it is frozen.
        num_phone_ids: Number of phone ids that the encoder takes as input; 1 without phones.
        place: Folder or hub id of the encoder.
        revision: Commit of the hub id; empty for a folder.
    """

    config: SpeechEncoderConfig
    num_phone_ids: int
    place: str
    revision: str = ""


def find_source(name: str, preset: SpeechEncoderConfig, frozen: Frozen | None) -> SpeechSource:
    """Finds a pretrained speech encoder by name.

    Args:
        name: ``base`` or a checkpoint's folder for the encoder of that model; a folder with a
            HuBERT; or ``HUB_ID@COMMIT``. Empty for the preset's encoder.
        preset: Speech encoder of the preset.
        frozen: What is frozen; None for all of a model's encoder and a HuBERT's convolutions.

    Returns:
        The speech encoder.

    Raises:
        UserError: There is no encoder of that name, or it is not built like HuBERT-large.
    """
    folder = bundled.BASE_CHECKPOINT if name == "base" else Path(name)
    if name and _is_checkpoint(folder):
        config = read_config(folder)
        kept = replace(config.speech, frozen=frozen or "everything")
        return SpeechSource(kept, config.num_phone_ids, str(folder))
    if name and folder.is_dir():
        sizes = _hubert_sizes(str(folder), "")
        return SpeechSource(
            replace(sizes, frozen=frozen or "convolutions"), _WITHOUT_PHONES, str(folder)
        )
    hub_id, _, revision = (name or f"{preset.hub_id}@{preset.revision}").rpartition("@")
    if not hub_id or not revision:
        raise UserError(f"There is no speech encoder {name[:80]!r}. {_HOW}")
    sizes = preset
    if (hub_id, revision) != (preset.hub_id, preset.revision):
        sizes = replace(_hubert_sizes(hub_id, revision), hub_id=hub_id, revision=revision)
    return SpeechSource(
        replace(sizes, frozen=frozen or "convolutions"), _WITHOUT_PHONES, hub_id, revision
    )


def fill_speech_encoder(model: PTalker, source: SpeechSource) -> None:
    """Loads pretrained parameters into the speech encoder of a new model.

    The layers for phones are frozen, since captures have no phones.

    Args:
        model: The new model.
        source: Pretrained speech encoder.

    Raises:
        UserError: The parameters cannot be had, or do not fit.
    """
    encoder = model.speech_content
    encoder.phone_embedding.requires_grad_(False)
    encoder.phones.requires_grad_(False)
    if encoder.takes_waveform:
        encoder.spoken_embedding.requires_grad_(False)
        try:
            load_published_weights(encoder.encoder, source.place, source.revision)
        except (OSError, ValueError) as error:
            raise _not_had(source.place, error) from error
        return
    prefix = "speech_content."
    weights = checkpoint.load_part(Path(source.place), prefix)
    given = {name.removeprefix(prefix): value for name, value in weights.items()}
    given = {name: value for name, value in given.items() if not name.startswith(_FOR_DECODER)}
    own = {
        name: value for name, value in encoder.state_dict().items() if name.startswith(_FOR_DECODER)
    }
    try:
        encoder.load_state_dict({**given, **own}, strict=True)
    except RuntimeError as error:
        raise _not_had(source.place, error) from error
    if source.config.frozen == "everything":
        encoder.unstack.requires_grad_(False)


def frozen_speech_encoder(model: PTalker) -> tuple[EncodeSpeech | None, float]:
    """The part of a speech encoder whose output can be cached, and the output's rows a second.

    Of a frozen HuBERT the hidden states are cached; of a frozen conformer the features and the
    phones that it recognises, which are its input in training, as in ``generate``; of others the
    features alone.
    """
    encoder, speech = model.speech_content, model.config.speech
    is_frozen = speech.frozen == "everything"
    if encoder.takes_waveform and not is_frozen:
        return None, float(SAMPLE_RATE_HZ)
    device = next(model.parameters()).device

    @torch.no_grad()
    def encode(samples: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        model.eval()
        rows = samples if encoder.takes_waveform else stacked_log_mel(samples)
        batch = torch.from_numpy(rows)[None].to(device)
        lengths = torch.tensor([len(rows)], device=device)
        if encoder.takes_waveform:
            hidden, _ = encoder.encode(encoder.prepare(batch, lengths), lengths, None)
            return {"speech": hidden[0].half().cpu().numpy()}
        if not is_frozen:
            return {"speech": rows}
        own = encoder.self_conditioned_phones(batch, lengths, None)
        return {"phones": own[0].cpu().numpy(), "speech": rows}

    return encode, speech.rate_hz


def speech_encoder_fingerprint(model: PTalker) -> str:
    """Hash of all that decides a frozen encoder's output; names the folder of its cache."""
    digest = hashlib.sha256(repr(model.config.speech).encode())
    for name, value in model.speech_content.state_dict().items():
        if not name.startswith(_FOR_DECODER):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _is_checkpoint(folder: Path) -> bool:
    path = folder / CONFIG_NAME
    return path.is_file() and f'"{FORMAT}"' in path.read_text(encoding="utf-8")


def _hubert_sizes(place: str, revision: str) -> SpeechEncoderConfig:
    """Config of a HuBERT that is built like HuBERT-large."""
    try:
        found = AutoConfig.from_pretrained(
            place, revision=revision or "main", local_files_only=True
        )
    except OSError as error:
        if not revision:
            raise _not_had(place, error) from error
        try:
            found = AutoConfig.from_pretrained(place, revision=revision)
        except (OSError, ValueError) as online_error:
            raise _not_had(place, online_error) from online_error
    except ValueError as error:
        raise _not_had(place, error) from error
    is_known = isinstance(found, HubertConfig) and (
        found.feat_extract_norm == "layer"
        and found.do_stable_layer_norm
        and tuple(found.conv_stride) == tuple(HubertConfig().conv_stride)
        and tuple(found.conv_kernel) == tuple(HubertConfig().conv_kernel)
    )
    if not is_known:
        raise UserError(
            f"The speech encoder {place} is not built like HuBERT-large (hubert, layer norm in "
            f"its convolutions, stable layer norm). {_HOW}"
        )
    return SpeechEncoderConfig(
        kind="hubert",
        input_dim=1,
        hidden_size=found.hidden_size,
        num_layers=found.num_hidden_layers,
        num_heads=found.num_attention_heads,
        ff_size=found.intermediate_size,
        kernel_size=found.num_conv_pos_embeddings,
        offset_seconds=0.0125,
        conv_widths=tuple(found.conv_dim),
    )


def _not_had(place: str, error: Exception) -> UserError:
    return UserError(
        f"The speech encoder {place} cannot be had ({error!s:.160}). Go online once, or: {_HOW}"
    )
