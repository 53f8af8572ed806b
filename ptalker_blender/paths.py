# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of the backend's code, of the user's folder, and of the Python that runs the backend."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Final, Protocol

import bpy

from . import backend_env, backend_process, own_engine, protocol

PYTHON_VARIABLE: Final = "PTALKER_BACKEND_PYTHON"
"""Environment variable with the Python of a ready environment, for tests and developers."""


class EngineSettings(Protocol):
    """What of the preferences decides which engine does a job; see ``preferences.Settings``."""

    @property
    def engine(self) -> own_engine.WantedEngine:
        """Which engine the user wants."""

    @property
    def ready_python(self) -> str:
        """Python of another, ready environment; empty for none."""

    @property
    def device(self) -> str:
        """Where the model is to run."""

    @property
    def decoder(self) -> str:
        """How the motion is computed."""

    @property
    def checkpoint(self) -> str:
        """Name or folder of the model."""


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
    """The log of this Blender's backend: its standard error since it was started."""
    return user_dir() / f"backend-{os.getpid()}.log"


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


def has_torch_setup() -> bool:
    """Whether this build of the extension can set up PyTorch; that for a platform cannot."""
    return f"{__package__}.env_installer" in sys.modules  # every module is, used or not


@cache
def own_engine_parts() -> own_engine.Parts:
    """What the extension's own engine is made of; looked for once."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    extensions = Path(bpy.utils.user_resource('EXTENSIONS'))
    numpy = importlib.util.find_spec("numpy")
    return own_engine.Parts(
        python=own_engine.find_python(sys.executable, sys.prefix),
        wheels=extensions / ".local" / "lib" / version / "site-packages",
        numpy=Path(numpy.origin).parents[1] if numpy is not None and numpy.origin else None,
        expected=own_engine.expected_wheels(package_dir() / "blender_manifest.toml"),
        bytecode=user_dir() / "pycache",
    )


def needs_torch(settings: EngineSettings) -> bool:
    """Whether the settings ask for what only PyTorch can do."""
    has_graphs = settings.checkpoint == "base" and settings.decoder == "parallel"
    return settings.device in ("cuda", "mps") or not has_graphs


def choose_engine(settings: EngineSettings, own: backend_env.Status,
                  torch: backend_env.Status) -> own_engine.Engine:  # fmt: skip
    """The engine that a job is given to, by the settings and by what is ready."""
    return own_engine.choose(
        wanted=settings.engine,
        own=own,
        torch=torch,
        devices=torch.devices,
        needs_torch=needs_torch(settings),
    )


def backend_command(settings: EngineSettings) -> list[str]:
    """The command line that starts the backend.

    Args:
        settings: The preferences.

    Returns:
        Program and arguments.

    Raises:
        UserError: The engine that is chosen cannot run, and why.
    """
    serve = ("serve", *([] if bpy.app.online_access else ["--offline"]))
    other = other_python(settings.ready_python)
    if other is not None:
        if problem := python_problem(other):
            raise protocol.UserError(problem)
        return own_engine.torch_command(other, backend_root(), *serve)
    own = own_engine.read_status(own_engine_parts())
    torch = backend_env.read_status(user_dir(), requirements())
    engine = choose_engine(settings, own, torch)
    status = torch if engine == 'TORCH' else own
    if status.state != 'READY':
        raise protocol.UserError(status.text)
    if engine == 'TORCH':
        return own_engine.torch_command(backend_env.python_of(user_dir()), backend_root(), *serve)
    return own_engine.command(own_engine_parts(), backend_root(), *serve)
