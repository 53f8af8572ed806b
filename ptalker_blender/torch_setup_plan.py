# SPDX-License-Identifier: GPL-3.0-or-later
"""How the environment with PyTorch is set up and removed: the plan, its checks and its steps.

``env_installer.py`` carries the steps out.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .backend_env import BUTTON, locked_dir, python_of, record_path, venv_dir
from .own_engine import torch_command
from .protocol import UserError

TorchBuild = Literal['AUTO', 'CPU', 'CUDA']

TORCH_INDEX: Final = "https://download.pytorch.org/whl/"
CUDA_BUILD: Final = "cu130"
SIZES_GB: Final = {'CPU': (0.6, 1.8), 'CUDA': (3.1, 7.6)}
"""Build of PyTorch -> size of the download, and space on the disk in the end, in GB."""
_REMOVED: Final = ".removed"
MIN_PYTHON: Final = (3, 11)
MAX_PYTHON: Final = (3, 14)

_CHECK: Final = ("info", "--json", "--devices", "--check")
_NAMED_PACKAGES: Final = ("torch", "transformers", "numpy", "onnxruntime")
"""Packages whose versions the preferences show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the environment is to be set up.

    Attributes:
        user_dir: The extension's user folder.
        requirements: File with the pinned requirements; ``locked/`` beside it has all by hash.
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
            f"PyTorch takes about {needed:.1f} GB, but only {free:.1f} GB are free "
            f"in {plan.user_dir}. Make room and press {BUTTON} again."
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
        refusal: What to say where the command fails, but for a full disk; empty: what pip said.
        folder: Working directory; None: the user's folder.
        if_failed: For the log, what a failure of the step means; empty: the setup has failed.
    """

    title: str
    command: tuple[str, ...]
    share: float
    refusal: str = ""
    folder: Path | None = None
    if_failed: str = ""


def setup_steps(plan: Plan) -> list[Step]:
    """The steps of a setup in order.

    Every file is checked against its hash, but for PyTorch's own builds, which only its server has.
    """
    python = str(python_of(plan.user_dir))
    make = [str(plan.base_python), "-I", "-m", "venv", str(venv_dir(plan.user_dir))]
    if plan.clear:
        make.append("--clear")
    pip = [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check",
           "--progress-bar=off", "--retries=2", "--timeout=20", "--no-deps"]  # fmt: skip
    if plan.wheels is not None:
        pip += ["--no-index", f"--find-links={plan.wheels}"]
    locked = locked_dir(plan.requirements)
    without = "What hears words cannot be installed here: the bundled model hears alone."
    return [
        Step("Making the environment", tuple(make), 0.05),
        _torch_step(plan, pip),
        Step("Installing packages", (*pip, *_hashed(locked / "packages.txt")), 0.35),
        Step("Installing the recogniser", (*pip, *_hashed(locked / "words.txt")), 0.05,
             if_failed=without),
        check_step(plan.user_dir, plan.requirements.parents[1]),
    ]  # fmt: skip


def _hashed(requirements: Path) -> tuple[str, ...]:
    return ("--require-hashes", "-r", str(requirements))


def _torch_step(plan: Plan, pip: list[str]) -> Step:
    """The step that installs PyTorch: never another build than the one of the plan."""
    title, share = "Installing PyTorch", 0.45
    locked = locked_dir(plan.requirements) / "torch.txt"
    index = torch_index(plan.build)
    if not index:
        return Step(title, (*pip, *_hashed(locked)), share)
    pins = [line.split()[0] for line in locked.read_text("utf-8").splitlines()]
    torch = [pin for pin in pins if pin.startswith("torch==")]
    if plan.wheels is not None:
        return Step(title, (*pip, *torch), share)
    return Step(title, (*pip, f"--index-url={index}", *torch), share, refusal=_refusal(plan.build))


def _refusal(build: Literal['CPU', 'CUDA']) -> str:
    """What to say where PyTorch's own server does not give a build."""
    host = TORCH_INDEX.split("/")[2]
    if build == 'CUDA':
        return (
            f"PyTorch's own server ({host}) cannot be reached, and only it has the build for "
            "graphics cards. Check the network and try again, or choose CPU as the build of "
            "PyTorch in the preferences."
        )
    download, disk = SIZES_GB['CUDA']
    return (
        f"PyTorch's own server ({host}) cannot be reached; the other has only the large build "
        f"({download:.1f} GB to download, {disk:.1f} GB on the disk). Check the network and try "
        "again, or choose CUDA as the build of PyTorch in the preferences to take that one."
    )


def check_step(user_dir: Path, backend_root: Path) -> Step:
    """The step in which the backend imports its packages and prints their versions.

    Args:
        user_dir: The extension's user folder.
        backend_root: The folder that holds ``backend/``.

    Returns:
        The step; :func:`read_check` reads what it prints.
    """
    command = torch_command(python_of(user_dir), backend_root, *_CHECK)
    return Step("Checking", tuple(command), 0.1)


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
