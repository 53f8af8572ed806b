# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint's files without its parameters: their names, config.json, checksums. No torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from backend.errors import UserError, excerpt
from backend.io import from_json, open_file, read_json
from backend.model.config import ModelConfig

FORMAT: Final = "ptalker-checkpoint"
FORMAT_VERSION: Final = 2
CONFIG_NAME: Final = "config.json"
WEIGHTS_NAME: Final = "model.safetensors"
CARD_NAME: Final = "README.md"
STYLES_NAME: Final = "styles.json"
DIGEST_KEY: Final = "weights_sha256"
"""Key of the config under which the weights' checksum stands; older checkpoints lack it."""
REMEDY: Final = "Get the checkpoint again, or choose another."

_MAX_CONFIG_BYTES: Final = 4 << 20
_MAX_WEIGHT_BYTES: Final = 1 << 34
_OLDER_FIELDS: Final = {"lip_layers": 0, "lip_width": 144, "phone_context_width": 0}
"""Config fields that older checkpoints lack, with the values that describe their models."""
_RENAMED_FIELDS: Final = {"span_width": "phone_context_width"}
"""Config fields by the names that older checkpoints give them."""


def read_config(folder: Path) -> ModelConfig:
    """The config of a checkpoint's model.

    Args:
        folder: The checkpoint.

    Returns:
        The config.

    Raises:
        UserError: Missing, damaged, or of another version.
    """
    path = folder / CONFIG_NAME
    if not path.exists():
        raise UserError(
            f'"{excerpt(folder)}" is no checkpoint: it has no {CONFIG_NAME}. Choose a folder with '
            f"{CONFIG_NAME} and {WEIGHTS_NAME}."
        )
    data = read_document(folder)
    try:
        found = data["format"], data["format_version"]
    except KeyError as error:
        raise UserError(f'"{excerpt(path)}" is damaged ({excerpt(error)}). {REMEDY}') from error
    if found[0] != FORMAT:
        raise UserError(
            f'"{excerpt(path)}" is of the format {excerpt(found[0], 40)}, expected {FORMAT}. '
            f"{REMEDY}"
        )
    if found[1] != FORMAT_VERSION:
        is_older = isinstance(found[1], int) and found[1] < FORMAT_VERSION
        remedy = "Train it anew" if is_older else "Update PTalker"
        raise UserError(
            f'The checkpoint "{excerpt(folder)}" has format version {excerpt(found[1], 20)}; this '
            f"PTalker reads {FORMAT_VERSION}. {remedy}, or choose another checkpoint."
        )
    try:
        given = {_RENAMED_FIELDS.get(name, name): value for name, value in data["model"].items()}
        return from_json(ModelConfig, json.dumps(_OLDER_FIELDS | given))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f'"{excerpt(path)}" is damaged ({excerpt(error, 120)}). {REMEDY}'
        ) from error


def read_document(folder: Path) -> dict[str, Any]:
    """The whole of a checkpoint's config.json.

    Args:
        folder: The checkpoint.

    Returns:
        The object that the file holds.

    Raises:
        UserError: Missing or damaged.
    """
    path, what = folder / CONFIG_NAME, "a checkpoint's config"
    data = read_json(path, what=what, remedy=REMEDY, max_bytes=_MAX_CONFIG_BYTES)
    if not isinstance(data, dict):
        raise UserError(f'"{excerpt(path)}" is damaged: it holds no object. {REMEDY}')
    return data


def digest(path: Path) -> str:
    """SHA-256 of a file of parameters.

    Args:
        path: The file.

    Returns:
        Hexadecimal digits.

    Raises:
        UserError: Missing, too large, or reading fails.
    """
    with open_file(path, max_bytes=_MAX_WEIGHT_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_fingerprint(folder: Path) -> str:
    """Fingerprint of a checkpoint's parameters, to which style codes and graphs are tied.

    Args:
        folder: The checkpoint.

    Returns:
        The first 16 digits of the checksum.

    Raises:
        UserError: Missing, or not what its config says.
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise UserError(f'The checkpoint "{excerpt(folder)}" has no {WEIGHTS_NAME}. {REMEDY}')
    found = digest(path)
    if read_document(folder).get(DIGEST_KEY) not in (None, found):
        raise UserError(f'"{excerpt(path)}" is damaged: its checksum differs. {REMEDY}')
    return found[:16]


def commands_of(folder: Path) -> tuple[str, ...]:
    """The commands that made a checkpoint.

    Args:
        folder: The checkpoint.

    Returns:
        The commands that the checkpoint names, the first one first.

    Raises:
        UserError: Missing or damaged.
    """
    read_config(folder)
    training = read_document(folder).get("training")
    if not isinstance(training, dict):
        return ()
    history = training.get("history")
    commands = [*(history if isinstance(history, list) else []), training.get("command")]
    return tuple(command for command in commands if isinstance(command, str))
