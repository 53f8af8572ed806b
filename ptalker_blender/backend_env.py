# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment with PyTorch, which the user may add: where it lies and whether it is ready.

``torch_setup_plan.py`` says how it is set up.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

State = Literal['MISSING', 'OUTDATED', 'BROKEN', 'READY']

BUTTON: Final = "Add GPU and Research (PyTorch)"
"""Label of the button that sets the environment up."""


@dataclass(frozen=True, slots=True)
class Status:
    """Whether an engine is ready.

    Attributes:
        state: ``READY`` or why not.
        text: One sentence for the user, with the remedy.
        details: Versions, where known.
        devices: Devices that PyTorch has found.
    """

    state: State
    text: str
    details: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


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


def locked_dir(requirements: Path) -> Path:
    """The folder of all packages by hash; some of them not every system can install."""
    return requirements.with_name("locked")


def requirements_hash(requirements: Path) -> str:
    """A hash of all that is installed."""
    locked = sorted(locked_dir(requirements).glob("*.txt"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in locked)).hexdigest()[:16]


def read_status(user_dir: Path, requirements: Path) -> Status:
    """Whether PyTorch is ready; it reads a few small files."""
    try:
        record = _read_record(record_path(user_dir))
    except (OSError, ValueError, RecursionError):
        if venv_dir(user_dir).exists():
            text = f"PyTorch's setup was not finished. Press {BUTTON} to go on with it."
            return Status('BROKEN', text)
        return Status('MISSING', "PyTorch is not there; PTalker speaks without it.")
    if not python_of(user_dir).exists():
        # also when Blender's own Python, from which it was made, is gone
        return Status('BROKEN', "PyTorch's Python is gone. Press Repair in the preferences.")
    devices = tuple(map(str, record["devices"]))
    details = _details(record, devices)
    if record["requirements"] != requirements_hash(requirements):
        text = "PyTorch is from another version of PTalker. Press Repair in the preferences."
        return Status('OUTDATED', text, details, devices)
    return Status('READY', "PyTorch is ready.", details, devices)


def _read_record(path: Path) -> dict[str, Any]:
    """What a setup wrote.

    Args:
        path: The file.

    Returns:
        Values by name, with those of the right kind that are needed.

    Raises:
        OSError: There is no such file.
        ValueError: It is not what a setup writes.
    """
    record = json.loads(path.read_text("utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"{path.name} holds no object")  # noqa: TRY004 - as JSON's own
    known = {"devices": [], "packages": {}, "requirements": "", "python": "?", **record}
    kinds = {"devices": list, "packages": dict, "requirements": str, "python": str}
    if wrong := [name for name, kind in kinds.items() if not isinstance(known[name], kind)]:
        raise ValueError(f"{path.name} has wrong values for {', '.join(wrong)}")
    return known


def _details(record: dict[str, Any], devices: tuple[str, ...]) -> tuple[str, ...]:
    """What was found in the environment, in words."""
    packages = record["packages"]
    hears_words = "onnxruntime" in packages
    words = () if hears_words else ("No words are recognised here: Words > Sound Only",)
    return (
        f"Python {record['python']}",
        *(f"{name} {version}" for name, version in sorted(packages.items())),
        *words,
        f"Devices: {', '.join(devices) or '?'}",
    )
