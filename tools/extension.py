# SPDX-License-Identifier: GPL-3.0-or-later
"""Assembles the extension's zips: one for a platform and a Python, with the wheels for it.

The same files always make the same bytes: fixed times, fixed order, wheels as they were served.
"""

import dataclasses
import functools
import os
import subprocess
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tools import environments, wheels
from tools.environments import ROOT, SetupError
from tools.wheels import Target

DIST = ROOT / "dist"
MANIFEST = ROOT / "blender_manifest.toml"
VALIDATOR = "blender-4.5"
"""The environment whose Blender validates zips and writes the index."""
MAX_ZIP_BYTES: Final = 120_000_000
# What of the two program folders belongs into the extension.
SUFFIXES = {
    ".py", ".txt", ".json", ".npz", ".safetensors", ".onnx", ".md", ".ogg", ".wav", ".toml",
}  # fmt: skip
STORED = {".whl", ".ogg", ".npz"}
"""Files that are compressed already."""
TORCH_SETUP = (
    "setup_operators.py", "env_installer.py", "torch_setup_plan.py", "backend/requirements.txt",
    "backend/requirements-words.txt", "backend/requirements-cluster.txt",
    "backend/locked/packages.txt", "backend/locked/torch.txt", "backend/locked/words.txt",
)  # fmt: skip
"""Files that the build for Blender's own platform is without: it must not fetch anything."""
ZIP_TIME = (2026, 1, 1, 0, 0, 0)
# The first Blender that a zip is for, by its Python. Blender 4.3 and later of some distributions
# have a newer Python than the official ones.
_OLDEST_BLENDER = {"3.11": "4.2.0", "3.13": "4.3.0", "3.14": "5.0.0"}


@dataclasses.dataclass(frozen=True, slots=True)
class Build:
    """One zip.

    Attributes:
        target: Platform and Python.
        for_platform: Whether it is the one for Blender's own platform, without PyTorch's setup.
    """

    target: Target
    for_platform: bool = False

    @property
    def file_name(self) -> str:
        """Name of the zip."""
        kind = "-extensions-platform" if self.for_platform else ""
        return f"ptalker-{version()}-{self.target.name}{kind}.zip"


def version() -> str:
    """The version, which only the manifest states."""
    return str(tomllib.loads(MANIFEST.read_text("utf-8"))["version"])


def extension_files() -> dict[str, Path]:
    """Every file of the extension that lies in the repository: name in the zip -> file."""
    files = {name: ROOT / name for name in ("LICENSE", "NOTICES.md")}
    for folder, prefix in (("ptalker_blender", ""), ("backend", "backend/")):
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT / folder)
            hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
            if path.is_file() and not hidden and path.suffix in SUFFIXES:
                files[prefix + inside.as_posix()] = path
    return files


def manifest_of(build: Build) -> str:
    """The manifest of a zip: the repository's, with platform, wheels and oldest Blender.

    Args:
        build: The zip.

    Returns:
        The text of ``blender_manifest.toml``.
    """
    text = MANIFEST.read_text("utf-8")
    oldest = _OLDEST_BLENDER[build.target.python]
    text = text.replace('blender_version_min = "4.2.0"', f'blender_version_min = "{oldest}"')
    files = "".join(f'  "./wheels/{wheel.file}",\n' for wheel in wheels.pinned(build.target))
    added = f'platforms = ["{build.target.platform}"]\nwheels = [\n{files}]\n\n'
    head, mark, permissions = text.partition("[permissions]")
    if build.for_platform:
        lines = permissions.splitlines(keepends=True)
        permissions = "".join(line for line in lines if not line.startswith("network"))
    return head + added + mark + permissions


def make_zip(build: Build, folder: Path = DIST) -> Path:
    """Assemble a zip; the wheels that it carries are fetched where they are not cached.

    Args:
        build: Which one.
        folder: Where to write it.

    Returns:
        Its path.

    Raises:
        SetupError: A wheel cannot be fetched, or the zip is too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / build.file_name
    content: dict[str, bytes | Path] = {"blender_manifest.toml": manifest_of(build).encode()}
    content |= extension_files()
    content |= _model_files()
    content |= {f"wheels/{name}": file for name, file in sorted(wheels.fetch(build.target).items())}
    if build.for_platform:
        content = {name: what for name, what in content.items() if name not in TORCH_SETUP}
    partial = path.with_suffix(f".{os.getpid()}.part")
    _write(partial, content)
    partial.replace(path)
    if (size := path.stat().st_size) > MAX_ZIP_BYTES:
        raise SetupError(f"{path.name} has {size / 1e6:.1f} MB, at most 120 are allowed.")
    return path


def _write(path: Path, content: Mapping[str, bytes | Path]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, what in content.items():
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.create_system = 3  # whatever system it is made on
            entry.external_attr = 0o644 << 16
            is_small = Path(name).suffix in STORED
            entry.compress_type = zipfile.ZIP_STORED if is_small else zipfile.ZIP_DEFLATED
            data = what if isinstance(what, bytes) else what.read_bytes()
            archive.writestr(entry, data, compresslevel=zlib.Z_BEST_COMPRESSION)


@functools.cache
def _model_files() -> dict[str, bytes | Path]:
    """Moonshine's model with its notice, out of its wheel: name in the zip -> content."""
    with zipfile.ZipFile(wheels.fetch_model()) as archive:
        names = archive.namelist()
        notice = next(name for name in names if name.endswith(".dist-info/licenses/LICENSE"))
        found = {**wheels.MODEL_FILES, notice: "LICENSE"}
        return {f"backend/moonshine/{new}": archive.read(old) for old, new in found.items()}


def blender_tool(*arguments: str) -> str:
    """Run Blender's own program for extensions.

    Args:
        *arguments: Its command and arguments.

    Returns:
        What it printed.

    Raises:
        SetupError: It failed; the text says why.
    """
    python = environments.ensure(VALIDATOR)
    pattern = "**/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"
    roots = [python.parents[1] / name for name in ("lib", "Lib")]
    tool = next(path for root in roots if root.is_dir() for path in root.glob(pattern))
    done = subprocess.run(
        [str(python), str(tool), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environments.clean_environment(),
    )
    if done.returncode != 0:
        raise SetupError(f"Blender's tool refuses it:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def validate(path: Path) -> None:
    """Have Blender's own extension tool validate a zip.

    Args:
        path: The zip.

    Raises:
        SetupError: It was refused; the text says why.
    """
    try:
        blender_tool("validate", str(path))
    except SetupError as problem:
        raise SetupError(f"{path.name}: {problem}") from problem


def size_table(paths: list[Path]) -> list[str]:
    """Lines of a table: zip, its size, and what of that are wheels, networks and code."""
    lines = [f"{'zip':52} {'MB':>6}  wheels  Moonshine  rest"]
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        sizes = [
            sum(e.compress_size for e in entries if e.filename.startswith(prefix)) / 1e6
            for prefix in ("wheels/", "backend/moonshine/")
        ]
        whole = path.stat().st_size / 1e6
        rest = whole - sum(sizes)
        lines.append(f"{path.name:52} {whole:6.1f} {sizes[0]:7.1f} {sizes[1]:10.1f} {rest:5.1f}")
    return lines
