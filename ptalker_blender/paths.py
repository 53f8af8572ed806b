# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of the backend's code, of the user's folder, and of the Python that runs the backend."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from functools import cache
from pathlib import Path
from typing import Final

import bpy

from . import backend_env, backend_process, protocol

PYTHON_VARIABLE: Final = "PTALKER_BACKEND_PYTHON"
"""Environment variable with the Python of a ready environment, for tests and developers."""
_STALE_SECONDS: Final = 86_400


def package_dir() -> Path:
    """The add-on's own folder; never write into it."""
    return Path(__file__).parent


@cache
def backend_root() -> Path:
    """The folder in which ``python -m backend`` works.

    Returns:
        The folder that holds ``backend/``; it is looked for once.

    Raises:
        UserError: The backend's code is missing.
    """
    return backend_process.find_backend_root(package_dir())


def requirements() -> Path:
    """The pinned requirements of the backend."""
    return backend_root() / "backend" / "requirements.txt"


def user_dir() -> Path:
    """The folder for everything that the add-on writes; it is made by whatever writes first."""
    return Path(bpy.utils.extension_path_user(__package__))


def jobs_dir() -> Path:
    """The folder of the running jobs' files."""
    return user_dir() / "jobs"


def styles_dir() -> Path:
    """The folder of saved styles."""
    return user_dir() / "styles"


def saved_style_names() -> list[str]:
    """Names of the styles that were saved, sorted."""
    return sorted((path.stem for path in styles_dir().glob("*.json")), key=str.casefold)


def model_style_names(checkpoint: str) -> list[str]:
    """Names of the styles that come with a checkpoint, sorted.

    Args:
        checkpoint: Name of a bundled checkpoint, or the folder of another one.

    Returns:
        The names; none where there is no such checkpoint.
    """
    try:
        bundled = backend_root() / "backend" / "checkpoints" / checkpoint
        folder = bundled if bundled.is_dir() else Path(checkpoint)
        names = json.loads((folder / "styles.json").read_text("utf-8"))
    except (protocol.UserError, OSError, ValueError, RecursionError):
        return []
    return sorted(map(str, names), key=str.casefold) if isinstance(names, dict) else []


def backend_log() -> Path:
    """The log of the backend: its standard error since it was started."""
    return user_dir() / "backend.log"


def setup_log() -> Path:
    """The log of the last setup."""
    return user_dir() / "setup.log"


def other_python(preference: str) -> Path | None:
    """The Python of an environment that is not the add-on's own; None for the own one."""
    named = os.environ.get(PYTHON_VARIABLE) or bpy.path.abspath(preference)
    return Path(named) if named else None


def python_problem(python: Path) -> str:
    """Why a Python named by the user cannot run the backend; empty where it may."""
    if python.is_file():
        return ""
    return f"The Python {python} for the backend does not exist. Choose another."


def base_python(preference: str) -> Path:
    """The Python that the backend's environment is made from."""
    return Path(bpy.path.abspath(preference) or sys.executable)


def backend_python(preference: str) -> Path:
    """The Python that runs the backend.

    Args:
        preference: Python of a ready environment as the preferences name it; may be empty.

    Returns:
        That Python, or the one of the add-on's own environment.

    Raises:
        UserError: There is none yet.
    """
    other = other_python(preference)
    if other is not None:
        if problem := python_problem(other):
            raise protocol.UserError(problem)
        return other
    status = backend_env.read_status(user_dir(), requirements())
    if status.state != 'READY':
        raise protocol.UserError(status.text)
    return backend_env.python_of(user_dir())


def backend_command(preference: str) -> list[str]:
    """The command line that starts the backend in :func:`backend_root`.

    Args:
        preference: Python of a ready environment as the preferences name it; may be empty.

    Returns:
        Program and arguments.

    Raises:
        UserError: There is no backend yet.
    """
    return [str(backend_python(preference)), "-m", "backend", "serve",
            *([] if bpy.app.online_access else ["--offline"])]  # fmt: skip


def remove_stale_jobs() -> None:
    """Delete the files of jobs that a crash of Blender left."""
    if not jobs_dir().is_dir():
        return
    for folder in jobs_dir().iterdir():
        with contextlib.suppress(OSError):  # another Blender may have removed it
            if time.time() - folder.lstat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
