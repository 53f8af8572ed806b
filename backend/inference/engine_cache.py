# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the graphs of a checkpoint are: beside it, in a cache, or made now.

The bundled checkpoint has its graphs; one of the user's own gets them when the engine onnx is
first asked for, where PyTorch is installed. They are made beside it if its folder can be written,
else in a cache, where the parameters are linked or copied, since graphs may only point to files of
their own folder.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

from backend import bundled
from backend.errors import UserError
from backend.inference.engine_files import FACTS_NAME, read_facts
from backend.model.checkpoint_files import WEIGHTS_NAME, checked_fingerprint

_log = logging.getLogger(__name__)


def find_graphs(checkpoint: Path) -> tuple[Path | None, str]:
    """Looks for the graphs of a checkpoint.

    Args:
        checkpoint: The checkpoint.

    Returns:
        Their folder, None without any; and why those that are there cannot be used, as a sentence.

    Raises:
        UserError: The checkpoint is damaged.
    """
    fingerprint = checked_fingerprint(checkpoint)
    problem = ""
    for folder in (checkpoint, cache_folder() / fingerprint):
        if not (folder / FACTS_NAME).exists():
            continue
        try:
            if read_facts(folder).fingerprint == fingerprint:
                return folder, ""
            problem = "The graphs beside this checkpoint were made for other parameters."
        except UserError as error:
            problem = str(error)
    return None, problem


def make_graphs(checkpoint: Path, problem: str) -> Path:
    """Exports the graphs of a checkpoint, which takes minutes.

    Args:
        checkpoint: The checkpoint.
        problem: Why those that are there cannot be used.

    Returns:
        The folder of the graphs.

    Raises:
        UserError: They cannot be made here.
    """
    if not all(map(bundled.is_installed, ("torch", "onnx", "onnxscript"))):
        raise UserError(
            f"{problem or 'This checkpoint has no graphs for ONNX Runtime.'} Where PyTorch, onnx "
            "and onnxscript are, make them: python -m backend export --engine --checkpoint DIR."
        )
    return _exported(checkpoint, cache_folder() / checked_fingerprint(checkpoint))


def _exported(checkpoint: Path, cached: Path) -> Path:
    from backend.inference.engine_export import export_engine  # brings torch

    _log.warning("The checkpoint is exported for ONNX Runtime; this takes minutes, once.")
    if os.access(checkpoint, os.W_OK):
        return export_engine(checkpoint)
    try:
        cached.mkdir(parents=True, exist_ok=True)
        target = cached / WEIGHTS_NAME
        if not target.exists():
            try:
                target.hardlink_to(checkpoint / WEIGHTS_NAME)
            except OSError:  # another disk
                shutil.copyfile(checkpoint / WEIGHTS_NAME, target)
    except OSError as error:
        raise UserError(f'"{cached}" cannot be written ({error.strerror}).') from error
    return export_engine(checkpoint, cached)


def cache_folder() -> Path:
    """The user's folder of what can be made again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "ptalker", "engines")
