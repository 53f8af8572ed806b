# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend's Python environment: whether it is ready, and the steps that set it up.

``env_installer.py`` carries the steps out.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .protocol import UserError

TorchBuild = Literal['AUTO', 'CPU', 'CUDA']
State = Literal['MISSING', 'OUTDATED', 'BROKEN', 'READY']

TORCH_INDEX: Final = "https://download.pytorch.org/whl/"
CUDA_BUILD: Final = "cu130"
SIZES_GB: Final = {'CPU': (0.6, 1.8), 'CUDA': (3.1, 7.6)}
"""Build of PyTorch -> size of the download, and space on the disk in the end, in GB."""
_REMOVED: Final = ".removed"
MIN_PYTHON: Final = (3, 11)
MAX_PYTHON: Final = (3, 14)

_CHECK: Final = ("-m", "backend", "info", "--json", "--devices", "--check")
_NAMED_PACKAGES: Final = ("torch", "transformers", "numpy", "moonshine-voice")
"""Packages whose versions the preferences show."""


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the backend is ready.

    Attributes:
        state: ``READY`` or why not.
        text: One sentence for the user, with the remedy.
        details: Versions, where known.
    """

    state: State
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the environment is to be set up.

    Attributes:
        user_dir: The extension's user folder.
        requirements: File with the pinned requirements; a file beside it may pin optional ones.
        base_python: Python to make the environment from.
        build: Build of PyTorch to install.
        wheels: Folder of wheels to install from without a network; None: download.
        clear: Whether to delete an existing environment first.
    """

    user_dir: Path
    requirements: Path
    base_python: Path
    build: Literal['CPU', 'CUDA']
    wheels: Path | None = None
    clear: bool = False


def venv_dir(user_dir: Path) -> Path:
    """The environment's folder."""
    return user_dir / "backend-env"


def python_of(user_dir: Path) -> Path:
    """The environment's Python; it may not exist."""
    inside = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return venv_dir(user_dir).joinpath(*inside)


def record_path(user_dir: Path) -> Path:
    """The file that says what was set up; it exists only after a whole setup."""
    return user_dir / "backend.json"


def optional_requirements(requirements: Path) -> Path:
    """The pins of the Moonshine recogniser, which not every system can install."""
    return requirements.with_name("requirements-words.txt")


def requirements_hash(requirements: Path) -> str:
    """A hash of the pinned requirements, optional ones included."""
    optional = optional_requirements(requirements)
    pins = requirements.read_bytes() + (optional.read_bytes() if optional.exists() else b"")
    return hashlib.sha256(pins).hexdigest()[:16]


def read_status(user_dir: Path, requirements: Path) -> Status:
    """Whether the backend is ready; it reads a few small files."""
    try:
        record = json.loads(record_path(user_dir).read_text("utf-8"))
    except (OSError, ValueError):
        if venv_dir(user_dir).exists():
            return Status(
                'BROKEN',
                "The backend's setup was not finished. Press Set Up Backend to go on with it.",
            )
        return Status('MISSING', "The backend is not set up yet. Press Set Up Backend.")
    if not python_of(user_dir).exists():
        # also when Blender's own Python, from which it was made, is gone
        return Status(
            'BROKEN', "The backend's Python is gone. Press Repair in the add-on's preferences."
        )
    packages = record.get("packages", {})
    details = (
        f"Python {record.get('python', '?')}",
        *(f"{name} {version}" for name, version in sorted(packages.items())),
        *(() if "moonshine-voice" in packages else ("Words are recognised by PocketSphinx only",)),
        f"Devices: {', '.join(record.get('devices', [])) or '?'}",
    )
    if record.get("requirements") != requirements_hash(requirements):
        text = "The backend is from another version of PTalker. Press Repair in the preferences."
        return Status('OUTDATED', text, details)
    return Status('READY', "The backend is ready.", details)


def choose_build(wanted: TorchBuild) -> Literal['CPU', 'CUDA']:
    """The build of PyTorch for this computer; on a Mac the one build has MPS in it."""
    if sys.platform == "darwin":
        return 'CPU'
    if wanted == 'AUTO':
        return 'CUDA' if shutil.which("nvidia-smi") else 'CPU'
    return wanted


def torch_index(build: Literal['CPU', 'CUDA'], system: str = sys.platform) -> str:
    """Package index that has a build of PyTorch; empty for the standard index.

    The standard index has the CUDA build for Linux, the CPU build for Windows, MPS for macOS.
    """
    if build == 'CPU' and system == "linux":
        return TORCH_INDEX + "cpu"
    if build == 'CUDA' and system == "win32":
        return TORCH_INDEX + CUDA_BUILD
    return ""


def describe(plan: Plan) -> tuple[str, ...]:
    """What a setup will do, in lines for the user."""
    download, disk = SIZES_GB[plan.build]
    source = f"From {plan.wheels}" if plan.wheels else f"Downloads about {download:.1f} GB"
    build = {'CPU': "CPU", 'CUDA': "CUDA (NVIDIA)"}[plan.build]
    if sys.platform == "darwin":
        build = "macOS"
    return (
        f"{source}, PyTorch for {build}",
        f"Takes about {disk:.1f} GB in {plan.user_dir}",
        f"{free_gb(plan.user_dir):.0f} GB are free there",
    )


def free_gb(folder: Path) -> float:
    """Free space on the disk of a folder."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9


def check_plan(plan: Plan) -> None:
    """Refuse early what cannot work.

    Args:
        plan: How the environment is to be set up.

    Raises:
        UserError: What is missing, and the remedy.
    """
    needed = SIZES_GB[plan.build][1]
    if (free := free_gb(plan.user_dir)) < needed:
        raise UserError(
            f"The backend takes about {needed:.1f} GB, but only {free:.1f} GB are free "
            f"in {plan.user_dir}. Make room and press Set Up Backend again."
        )
    if plan.wheels is not None and not any(plan.wheels.glob("*.whl")):
        raise UserError(
            f"There are no wheels (.whl files) in {plan.wheels}. Choose another folder."
        )
    if not plan.base_python.is_file():
        raise UserError(f"The Python {plan.base_python} does not exist. Choose another one.")


def remove(user_dir: Path) -> threading.Thread:
    """Delete the environment and all that belongs to it; saved styles stay.

    Its folders are renamed at once; their many files are deleted on a thread. What a Blender that
    quits leaves of them is deleted with the next removal.

    Args:
        user_dir: The extension's user folder.

    Returns:
        The running thread.

    Raises:
        UserError: A file of the environment is in use.
    """
    record_path(user_dir).unlink(missing_ok=True)
    try:
        for folder in (venv_dir(user_dir), user_dir / "pip-cache", user_dir / "pip-temp"):
            if folder.exists():
                folder.rename(folder.with_name(f"{folder.name}-{time.time_ns()}{_REMOVED}"))
    except OSError as error:
        raise UserError(
            f"Not everything could be removed ({error}). Close other Blenders and try again."
        ) from error
    thread = threading.Thread(target=_delete_removed, args=(user_dir,), daemon=True)
    thread.start()
    return thread


def _delete_removed(user_dir: Path) -> None:
    for folder in user_dir.glob(f"*{_REMOVED}"):
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One child process of a setup.

    Attributes:
        title: What the step does, for the panel.
        command: Program and arguments.
        share: Part of the whole setup's time that the step takes, 0 to 1.
        fallback: Program and arguments to run where the command fails.
        folder: Working directory; None: the user's folder.
        if_failed: For the log, what a failure of the step means; empty: the setup has failed.
    """

    title: str
    command: tuple[str, ...]
    share: float
    fallback: tuple[str, ...] = ()
    folder: Path | None = None
    if_failed: str = ""


def setup_steps(plan: Plan) -> list[Step]:
    """The steps of a setup in order."""
    python = str(python_of(plan.user_dir))
    make = [str(plan.base_python), "-I", "-m", "venv", str(venv_dir(plan.user_dir))]
    if plan.clear:
        make.append("--clear")
    pip = [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check",
           "--progress-bar=off"]  # fmt: skip
    if plan.wheels is not None:
        pip += ["--no-index", f"--find-links={plan.wheels}"]
    everything = (*pip, "-r", str(plan.requirements))
    steps = [Step("Making the environment", tuple(make), 0.05)]
    index = torch_index(plan.build) if plan.wheels is None else ""
    pins = [
        line.split(";")[0].strip() for line in plan.requirements.read_text("utf-8").splitlines()
    ]
    torch = [pin for pin in pins if pin.startswith("torch==")]
    if index and torch:
        # Where that server cannot be reached the standard build comes with the rest.
        special = (*pip, f"--index-url={index}", *torch)
        steps.append(Step("Installing PyTorch", special, 0.4, fallback=(*pip, *torch)))
    steps.append(Step("Installing packages", everything, 0.85 - sum(s.share for s in steps)))
    optional = optional_requirements(plan.requirements)
    if optional.exists():
        without = (
            "Moonshine cannot be installed here: words are left to PocketSphinx, phones to the "
            "bundled model."
        )
        command = (*pip, "-r", str(optional))
        steps.append(Step("Installing the recogniser", command, 0.05, if_failed=without))
    return [*steps, check_step(plan.user_dir, plan.requirements.parents[1])]


def check_step(user_dir: Path, backend_root: Path) -> Step:
    """The step in which the backend imports its packages and prints their versions.

    Args:
        user_dir: The extension's user folder.
        backend_root: The folder that holds ``backend/``.

    Returns:
        The step; :func:`read_check` reads what it prints.
    """
    return Step("Checking", (str(python_of(user_dir)), *_CHECK), 0.1, folder=backend_root)


def read_check(line: str) -> dict[str, object]:
    """Python, devices and versions from a line that the check printed; empty for other lines."""
    try:
        said = json.loads(line)
        packages = {
            name: said["packages"][name]
            for name in _NAMED_PACKAGES
            if said["packages"].get(name, "missing") != "missing"
        }
        return {"python": said["python"], "devices": said["devices"], "packages": packages}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
