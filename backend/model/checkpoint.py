# SPDX-License-Identifier: GPL-3.0-or-later
"""A model as a folder: config.json, model.safetensors, README.md; strict, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from backend.errors import UserError, excerpt
from backend.io import write_text
from backend.model.checkpoint_files import (
    CARD_NAME,
    CONFIG_NAME,
    DIGEST_KEY,
    FORMAT,
    FORMAT_VERSION,
    REMEDY,
    WEIGHTS_NAME,
    checked_fingerprint,
    commands_of,
    digest,
    read_config,
)
from backend.model.config import ModelConfig
from backend.model.ptalker import PTalker
from backend.model.surgery import can_extend, with_deeper_speech_encoder, with_phone_context

_MAX_PARAMETERS: Final = 2_000_000_000
_PUBLISHED_PREFIX: Final = "speech_content.encoder."
_RENAMED_TENSORS: Final = {
    "head.": "output_layer.",
    "speech_content.spans.": "speech_content.phone_context.",
}
"""First parts of tensors' names in older checkpoints, with today's."""


def save(
    folder: Path,
    model: PTalker,
    *,
    card: str,
    training: Mapping[str, object] | None = None,
    half: bool = False,
) -> None:
    """Write a checkpoint; each file gets its name when it is complete.

    Args:
        folder: Made where it is missing; files of these names are replaced.
        model: The model, on any device.
        card: Text of the model card: data, recipe, measured quality, limits, licence.
        training: What else should be known of its making, the data split above all, as JSON holds.
        half: Store parameters in 16 bits, for half the size; buffers stay as they are.

    Raises:
        ValueError: A weight is not a finite number, or too large for 16 bits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {name for name, _ in model.named_parameters()}
    weights = {}
    for name, value in model.state_dict().items():
        if _is_published(model.config, name):
            continue
        stored = value.detach().cpu()
        if half and name in parameters:
            stored = stored.half()
        if stored.is_floating_point() and not stored.isfinite().all():
            raise ValueError(f"Weights {name} hold values that are not finite in {stored.dtype}")
        weights[name] = stored.contiguous().clone()
    unfinished = folder / (WEIGHTS_NAME + ".part")
    save_file(weights, unfinished, metadata={"format": "pt"})
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        DIGEST_KEY: digest(unfinished),
        "model": asdict(model.config),
        "training": dict(training or {}),
    }
    unfinished.replace(folder / WEIGHTS_NAME)
    write_text(folder / CARD_NAME, card)
    write_text(folder / CONFIG_NAME, json.dumps(config, indent=2) + "\n")


def load(folder: Path, device: torch.device | str = "cpu") -> PTalker:
    """Read a checkpoint.

    Sizes are compared before memory is taken, names and shapes must all agree, and the weights
    must be numbers. Published weights of a speech encoder that was left as it was are not in the
    folder; they come from the local cache or the hub.

    Args:
        folder: The folder.
        device: Where the model goes.

    Returns:
        The model, in 32 bits, in evaluation mode.

    Raises:
        UserError: Missing, damaged, of another version, or its speech encoder cannot be had.
    """
    config = read_config(folder)
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise UserError(f'The checkpoint "{excerpt(folder)}" has no {WEIGHTS_NAME}. {REMEDY}')
    try:
        with torch.device("meta"):
            model = PTalker(config)
    except RuntimeError as error:  # a size that overflows
        raise UserError(
            f'The config beside "{excerpt(path)}" asks for too large a model. {REMEDY}'
        ) from error
    expected = {
        name: value for name, value in model.state_dict().items() if not _is_published(config, name)
    }
    try:
        weights = _read_weights(path, expected)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f'"{excerpt(path)}" is damaged ({excerpt(error, 120)}). {REMEDY}'
        ) from error
    checked_fingerprint(folder)
    if len(weights) != len(model.state_dict()):
        _fetch_published(model)
    model.load_state_dict({**model.state_dict(), **weights}, strict=True, assign=True)
    return model.to(device).eval()


def load_mean(folders: Sequence[Path]) -> PTalker:
    """The mean of the parameters of checkpoints that were trained on from each other.

    Such a mean ("model soup", Wortsman et al. 2022) can be better than each of them; a mean of
    models with separate random starts is no model. Shallower speech encoders are first made as deep
    as the deepest, and models without phone context get one, neither of which changes their output.

    Args:
        folders: One or more.

    Returns:
        The model, in 32 bits, in evaluation mode.

    Raises:
        UserError: As of ``load``; or they differ in sizes or in the command that began them.
    """
    models = [load(folder) for folder in folders]
    widest = max((model.config for model in models), key=lambda each: each.phone_context_width)
    models = [with_phone_context(model, widest) for model in models]
    deepest = max((model.config for model in models), key=lambda each: each.speech.num_layers)
    models = [
        with_deeper_speech_encoder(model, deepest) if can_extend(model.config, deepest) else model
        for model in models
    ]
    for folder, model in zip(folders[1:], models[1:], strict=True):
        begun = commands_of(folder)[:1]
        if model.config != models[0].config or not begun or begun != commands_of(folders[0])[:1]:
            raise UserError(
                f'"{folder}" and "{folders[0]}" do not come from one training, so a mean of'
                " their weights would be no model. Give checkpoints that went on from each other."
            )
    weights = [model.state_dict() for model in models]
    for name, value in weights[0].items():
        if value.is_floating_point():
            value.copy_(torch.stack([each[name] for each in weights]).mean(0))
    return models[0]


def load_part(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of one part of a checkpoint.

    Args:
        folder: The checkpoint.
        prefix: First part of the tensors' names.

    Returns:
        Tensors in 32 bits by their names in the whole model.

    Raises:
        UserError: Missing or damaged.
    """
    path = folder / WEIGHTS_NAME
    try:
        with safe_open(path, framework="pt") as file:
            stored = {todays_name(name): name for name in file.keys()}  # noqa: SIM118
            found = {
                name: file.get_tensor(old)
                for name, old in stored.items()
                if name.startswith(prefix)
            }
    except (SafetensorError, OSError) as error:
        raise UserError(f'"{path}" cannot be read ({error!s:.120}). {REMEDY}') from error
    return {
        name: value.float() if value.is_floating_point() else value for name, value in found.items()
    }


def _is_published(config: ModelConfig, name: str) -> bool:
    """Whether a weight is a published one that training left alone."""
    is_kept_elsewhere = config.speech.frozen == "everything" and bool(config.speech.hub_id)
    return is_kept_elsewhere and name.startswith(_PUBLISHED_PREFIX)


def todays_name(name: str) -> str:
    """Today's name of a tensor of an older checkpoint; of a later one the same."""
    for old, new in _RENAMED_TENSORS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, in 32 bits, if they are those of ``expected``, whose tensors hold no memory."""
    if sum(value.numel() for value in expected.values()) > _MAX_PARAMETERS:
        raise UserError(f'The config beside "{path}" asks for too large a model. {REMEDY}')
    with safe_open(path, framework="pt") as file:
        stored_names = {todays_name(name): name for name in file.keys()}  # noqa: SIM118
        odd = sorted(set(expected) ^ set(stored_names))
        if odd:
            raise UserError(f'"{path}" does not fit its config (see {excerpt(odd[0])}). {REMEDY}')
        for name, value in expected.items():
            shape = tuple(file.get_slice(stored_names[name]).get_shape())
            if shape != tuple(value.shape):
                raise UserError(
                    f'"{path}" does not fit its config: {name} has shape {shape}, expected '
                    f"{tuple(value.shape)}. {REMEDY}"
                )
        weights = {}
        for name, value in expected.items():
            stored = file.get_tensor(stored_names[name])
            if stored.is_floating_point() != value.is_floating_point() or (
                stored.is_floating_point() and not stored.isfinite().all()
            ):
                raise UserError(f'"{path}" is damaged: {name} holds no numbers of use. {REMEDY}')
            weights[name] = stored.to(value.dtype)
    return weights


def _fetch_published(model: PTalker) -> None:
    from backend.model.pretrained_encoder import load_published_weights  # loads transformers

    speech = model.config.speech
    try:
        load_published_weights(model.speech_content.encoder, speech.hub_id, speech.revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The speech encoder {speech.hub_id} that this checkpoint builds on is neither in the "
            f"local cache nor reachable ({error!s:.120}). Go online once, or choose another."
        ) from error
