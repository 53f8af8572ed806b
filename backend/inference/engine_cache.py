# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the graphs of a checkpoint are: beside it, in a cache, or made now.

The bundled checkpoint has its graphs; one of the user's own gets them when it is first chosen,
where PyTorch is installed. They are made beside it if its folder can be written, else in a cache,
where the parameters are linked or copied, since graphs may only point to files of their own folder.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

from backend import bundled
from backend.errors import UserError
from backend.inference.engine_files import read_facts
from backend.model.checkpoint_files import WEIGHTS_NAME, checked_fingerprint

_log = logging.getLogger(__name__)


def graphs_folder(checkpoint: Path) -> Path:
    """Folder of the graphs of a checkpoint; they are exported where they are missing.

    Args:
        checkpoint: The checkpoint.

    Returns:
        The folder.

    Raises:
        UserError: The checkpoint is damaged, or there are no graphs and they cannot be made.
    """
    fingerprint = checked_fingerprint(checkpoint)
    cached = cache_folder() / fingerprint
    problem = ""
    for folder in (checkpoint, cached):
        try:
            if read_facts(folder).fingerprint == fingerprint:
                return folder
            problem = "The graphs beside this checkpoint were made for other parameters."
        except UserError as error:
            problem = problem or str(error)
    if not all(map(bundled.is_installed, ("torch", "onnx", "onnxscript"))):
        raise UserError(
            f'The checkpoint "{checkpoint.name}" has no graphs for ONNX Runtime ({problem}) '
            f"Export it where PyTorch is: python -m backend export --engine --checkpoint DIR."
        )
    return _exported(checkpoint, cached)


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
