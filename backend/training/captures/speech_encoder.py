# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the ear of a new model comes from: another model's, published weights, or a folder.

Apart from ``model/speech_encoders.py``, which builds networks and reads no files.
"""

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
from backend.model.config import SpeechEncoderConfig
from backend.model.pretrained_encoder import load_published_weights
from backend.model.ptalker import PTalker

Frozen = Literal["nothing", "convolutions", "everything"]

_WITHOUT_PHONES: Final = 1
_UNHEARD: Final = ("content.", "spoken_embedding.", "phone_context.")
"""Parts of an ear that were made for one decoder."""
_HOW: Final = (
    "Give --speech-encoder base, a folder with a HuBERT's config.json and model.safetensors, or "
    "HUB_ID@COMMIT."
)


@dataclass(frozen=True, slots=True)
class SpeechSource:
    """An ear that is trained already.

    Attributes:
        config: Its sizes, and what of it stays as it is.
        num_phone_ids: Phones that it can be told, and none; 1 where it knows no phones.
        place: Folder or hub id.
        revision: Commit, for a hub id.
    """

    config: SpeechEncoderConfig
    num_phone_ids: int
    place: str
    revision: str = ""


def find_source(name: str, preset: SpeechEncoderConfig, frozen: Frozen | None) -> SpeechSource:
    """The ear of a name.

    Args:
        name: ``base`` or a checkpoint's folder: the ear of that model. A folder with a HuBERT, or
            ``HUB_ID@COMMIT``. Empty: the preset's.
        preset: Of the preset.
        frozen: What stays as it is; None: all of a model's ear, the convolutions of a HuBERT.

    Raises:
        UserError: There is none of that name, or it is built otherwise.
    """
    folder = bundled.BASE_CHECKPOINT if name == "base" else Path(name)
    if name and _is_checkpoint(folder):
        config = checkpoint.read_config(folder)
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
    """Give a new model the trained ear; what tells phones stays as it is, for no capture says them.

    Raises:
        UserError: The weights cannot be had, or do not fit.
    """
    ear = model.speech_content
    ear.phone_embedding.requires_grad_(False)
    ear.phones.requires_grad_(False)
    if ear.takes_waveform:
        ear.spoken_embedding.requires_grad_(False)
        try:
            load_published_weights(ear.encoder, source.place, source.revision)
        except (OSError, ValueError) as error:
            raise _not_had(source.place, error) from error
        return
    prefix = "speech_content."
    weights = checkpoint.load_part(Path(source.place), prefix)
    given = {name.removeprefix(prefix): value for name, value in weights.items()}
    given = {name: value for name, value in given.items() if not name.startswith(_UNHEARD)}
    own = {name: value for name, value in ear.state_dict().items() if name.startswith(_UNHEARD)}
    try:
        ear.load_state_dict({**given, **own}, strict=True)
    except RuntimeError as error:
        raise _not_had(source.place, error) from error
    if source.config.frozen == "everything":
        ear.unstack.requires_grad_(False)


def frozen_speech_encoder(model: PTalker) -> tuple[EncodeSpeech | None, float]:
    """What hears a clip once and for all as far as the ear is frozen, and its rows a second.

    Of a frozen HuBERT its output is kept, of a frozen conformer the phones that it makes out, which
    it is told when it hears again, as in ``generate``; of others what they hear.
    """
    ear, speech = model.speech_content, model.config.speech
    is_frozen = speech.frozen == "everything"
    if ear.takes_waveform and not is_frozen:
        return None, float(SAMPLE_RATE_HZ)
    device = next(model.parameters()).device

    @torch.no_grad()
    def hear(samples: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        model.eval()
        rows = samples if ear.takes_waveform else stacked_log_mel(samples)
        batch = torch.from_numpy(rows)[None].to(device)
        lengths = torch.tensor([len(rows)], device=device)
        if ear.takes_waveform:
            hidden, _ = ear.encode(ear.prepare(batch, lengths), lengths, None)
            return {"speech": hidden[0].half().cpu().numpy()}
        if not is_frozen:
            return {"speech": rows}
        own = ear.self_conditioned_phones(batch, lengths, None)
        return {"phones": own[0].cpu().numpy(), "speech": rows}

    return hear, speech.rate_hz


def speech_encoder_fingerprint(model: PTalker) -> str:
    """Of all that decides what an ear hears; names the folder in which that is kept."""
    digest = hashlib.sha256(repr(model.config.speech).encode())
    for name, value in model.speech_content.state_dict().items():
        if not name.startswith(_UNHEARD):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _is_checkpoint(folder: Path) -> bool:
    path = folder / checkpoint.CONFIG_NAME
    return path.is_file() and f'"{checkpoint.FORMAT}"' in path.read_text(encoding="utf-8")


def _hubert_sizes(place: str, revision: str) -> SpeechEncoderConfig:
    """The sizes of a HuBERT that is built like HuBERT-large."""
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
