# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine that comes with the extension: its parts, whether they are there, how it is started.

Blender unpacks the wheels that the manifest names into a folder that all extensions share. The
engine runs in a process of Blender's own Python with that folder and Blender's NumPy; nothing of
the wheels is imported here.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .backend_env import Status

OLDEST_RUNTIME: Final = (1, 19)
"""The oldest ONNX Runtime that the engine works with."""
_RUNTIME: Final = "onnxruntime"

Engine = Literal['OWN', 'TORCH']
WantedEngine = Literal["auto", "onnx", "torch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the engine is made of.

    Attributes:
        python: Blender's own Python; None where it was not found.
        wheels: Folder into which Blender unpacks the wheels of extensions.
        numpy: Folder in which Blender's NumPy lies; None where Blender has none.
        expected: File names of the wheels that the extension's manifest names.
        bytecode: Folder for Python's compiled modules, since the extension's is not written to.
    """

    python: Path | None
    wheels: Path
    numpy: Path | None
    expected: tuple[str, ...]
    bytecode: Path


def expected_wheels(manifest: Path) -> tuple[str, ...]:
    """File names of the wheels that a manifest names; none in a developer's checkout."""
    try:
        listed = tomllib.loads(manifest.read_text("utf-8")).get("wheels", [])
    except (OSError, ValueError):
        return ()
    return tuple(str(path).rpartition("/")[2] for path in listed)


def find_python(executable: str, prefix: str) -> Path | None:
    """The Python that Blender runs on, as a program of its own.

    Args:
        executable: ``sys.executable``; in some builds it is Blender itself, or empty.
        prefix: ``sys.prefix``.

    Returns:
        The program; None where there is none.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = [Path(executable)] if Path(executable).name.lower().startswith("python") else []
    places += [Path(prefix, "bin", name) for name in ("python.exe", version, "python3")]
    return next((path for path in places if path.is_file()), None)


def installed_wheels(folder: Path) -> dict[str, str]:
    """Version by name of the packages in a folder, from the names of their records."""
    found = {}
    for path in folder.glob("*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        found[_plain(name)] = version
    return found


def read_status(parts: Parts) -> Status:
    """Whether the engine can run; it reads the names in a folder.

    Args:
        parts: What the engine is made of.

    Returns:
        ``READY`` with the versions that differ from those expected, or why not.
    """
    if problem := _missing_ground(parts):
        return Status('BROKEN', problem)
    there = installed_wheels(parts.wheels)
    wanted = {_plain(file.split("-")[0]): file.split("-")[1] for file in parts.expected}
    if missing := sorted(wanted.keys() - there.keys()):
        return Status(
            'BROKEN',
            f"PTalker's engine is incomplete ({', '.join(missing)}). Install the zip of PTalker "
            "for this computer and this Blender again.",
        )
    if (found := _version(there[_RUNTIME])) < OLDEST_RUNTIME:
        return Status(
            'BROKEN',
            f"Another extension has brought ONNX Runtime {there[_RUNTIME]}; PTalker needs "
            f"{_dotted(OLDEST_RUNTIME)} or later. Update or remove that extension, then install "
            "PTalker again.",
        )
    others = tuple(
        f"{name} {there[name]} of another extension, in place of {version}"
        for name, version in sorted(wanted.items())
        if there[name] != version
    )
    return Status('READY', "PTalker's own engine is ready.", (
        f"Python {sys.version_info.major}.{sys.version_info.minor}",
        f"ONNX Runtime {_dotted(found)}", *others))  # fmt: skip


def _missing_ground(parts: Parts) -> str:
    """What the engine stands on and is missing; empty where all is there."""
    if not parts.expected:
        return (
            "This copy of PTalker has no engine of its own. Install the zip of PTalker for this "
            "computer and this Blender."
        )
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    tags = {file.split("-")[2] for file in parts.expected if file.startswith(_RUNTIME)}
    if tags and here not in tags:
        other = ", ".join(re.sub(r"cp(\d)(\d+)", r"\1.\2", tag) for tag in sorted(tags))
        return (
            f"This zip of PTalker is for a Blender with Python {other}, and this one has "
            f"{sys.version_info.major}.{sys.version_info.minor}. Install the other zip."
        )
    if parts.numpy is None:
        return "This Blender has no NumPy. On Debian and Ubuntu install python3-numpy."
    if parts.python is None:
        return "Blender's own Python was not found. Install Blender from blender.org."
    return ""


def choose(*, wanted: WantedEngine, own: Status, torch: Status, devices: tuple[str, ...],
           needs_torch: bool) -> Engine:  # fmt: skip
    """The engine that a job is given to.

    Args:
        wanted: What the user chose.
        own: Status of the own engine.
        torch: Status of PyTorch's environment.
        devices: Devices that PyTorch has found there.
        needs_torch: Whether the job asks for what the own engine cannot do, or for a card.

    Returns:
        ``TORCH`` where the user wants it, or where it is ready and the job gains by it.
    """
    if wanted != "auto":
        return 'TORCH' if wanted == "torch" else 'OWN'
    if torch.state != 'READY':
        return 'OWN'
    has_card = any(name != "cpu" for name in devices)
    return 'TORCH' if has_card or needs_torch or own.state != 'READY' else 'OWN'


def command(parts: Parts, backend_root: Path, *arguments: str) -> list[str]:
    """The command line that runs a command of the backend in the own engine.

    Args:
        parts: What the engine is made of; nothing may be missing.
        backend_root: The folder that holds ``backend/``.
        *arguments: The command and its arguments.

    Returns:
        Program and arguments; Python reads nothing of the environment and no start-up file.
    """
    program = [str(parts.python), "-I", "-S", "-u", "-X", "utf8"]
    program += ["-X", f"pycache_prefix={parts.bytecode}"]
    script = str(backend_root / "backend" / "isolated.py")
    return [*program, script, str(parts.wheels), str(parts.numpy), *arguments]


def torch_command(python: Path, backend_root: Path, *arguments: str) -> list[str]:
    """The command line that runs a command of the backend in an environment with PyTorch.

    Args:
        python: Python of the environment.
        backend_root: The folder that holds ``backend/``.
        *arguments: The command and its arguments.

    Returns:
        Program and arguments.
    """
    script = str(backend_root / "backend" / "isolated.py")
    return [str(python), "-I", "-X", "utf8", "-u", script, "", "", *arguments]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
