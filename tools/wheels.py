# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheels that the extension's zips carry: which, pinned by hash, and fetched into a cache.

``backend/requirements-engine.txt`` says which versions; ``tools/wheels.json`` holds, for every
platform and Python, the files with their SHA-256. The cache lies outside the repository, in
``$PTALKER_WHEELS`` or the user's cache folder.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.environments import ROOT, SetupError, clean_environment, say

PINS_FILE = ROOT / "tools" / "wheels.json"
REQUIREMENTS = ROOT / "backend" / "requirements-engine.txt"
MODEL = "moonshine-voice==0.1.0"
"""The wheel whose model files are taken; nothing of its program."""
MODEL_PLATFORM = ("manylinux_2_34_x86_64", "3.11")
MODEL_FILES = {
    "moonshine_voice/assets/tiny-en/encoder_model.ort": "encoder_model.ort",
    "moonshine_voice/assets/tiny-en/decoder_model_merged.ort": "decoder_model_merged.ort",
    "moonshine_voice/assets/tiny-en/tokenizer.bin": "tokenizer.bin",
}

# Tags that pip may take for a platform of Blender's, best first. Blender 4.2 to 5.2 run on macOS
# 11.2 and later; the oldest that ONNX Runtime is made for is 13. On Intel, SciPy's wheel for 14
# uses Apple's own linear algebra and is 14 MB smaller, or that zip would be over its limit.
_LINUX = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 16, -1)] + ["manylinux2014_x86_64"]
TAGS = {
    "linux-x64": _LINUX,
    "windows-x64": ["win_amd64"],
    "macos-arm64": ["macosx_13_0_arm64"],
    "macos-x64": ["macosx_14_0_x86_64"],
}
_MARKERS = {
    "linux-x64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "windows-x64": {"sys_platform": "win32", "platform_machine": "AMD64"},
    "macos-arm64": {"sys_platform": "darwin", "platform_machine": "arm64"},
    "macos-x64": {"sys_platform": "darwin", "platform_machine": "x86_64"},
}


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What a zip is made for.

    Attributes:
        platform: Blender's name of a platform.
        python: Version of Blender's Python, ``major.minor``.
    """

    platform: str
    python: str

    @property
    def name(self) -> str:
        """The target as a part of a file's name."""
        return f"{self.platform}-py{self.python.replace('.', '')}"


# Blender 4.2 to 5.0 have Python 3.11, 5.1 and later 3.13, some distributions 3.14. Blender for
# Intel Macs ended with 4.5. Windows on ARM lacks a wheel of soxr.
TARGETS = (
    Target("linux-x64", "3.11"),
    Target("linux-x64", "3.13"),
    Target("linux-x64", "3.14"),
    Target("windows-x64", "3.11"),
    Target("windows-x64", "3.13"),
    Target("macos-arm64", "3.11"),
    Target("macos-arm64", "3.13"),
    Target("macos-x64", "3.11"),
)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file that is fetched.

    Attributes:
        file: Its name.
        sha256: Its hash, in hexadecimal digits.
        size: Its size in bytes.
        longest_path: Letters of the longest path in it; Windows allows 260 with what is before.
    """

    file: str
    sha256: str
    size: int
    longest_path: int

    @property
    def pin(self) -> str:
        """The wheel as pip names it: ``project==version``."""
        project, version = self.file.split("-")[:2]
        return f"{project.replace('_', '-')}=={version}"


def platform_here() -> str:
    """Find Blender's name of this machine's platform.

    Returns:
        The name, as a manifest has it.

    Raises:
        SetupError: No zip is made for it.
    """
    system = {"linux": "linux", "win32": "windows", "darwin": "macos"}.get(sys.platform, "")
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower(), ""
    )
    if f"{system}-{machine}" not in TAGS:
        raise SetupError(
            f"There are no wheels for this machine ({sys.platform}, {platform.machine()}); zips "
            f"are made for {', '.join(TAGS)}: build.py zip --platform NAME"
        )
    return f"{system}-{machine}"


def cache_dir() -> Path:
    """Where wheels are kept, outside the repository."""
    if given := os.environ.get("PTALKER_WHEELS"):
        return Path(given)
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ptalker-wheels"


def pinned(target: Target) -> tuple[Wheel, ...]:
    """The wheels of a target.

    Args:
        target: One of ``TARGETS``.

    Returns:
        The wheels by name.

    Raises:
        SetupError: Nothing is pinned for it.
    """
    entries = _read_pins().get(target.name)
    if entries is None:
        raise SetupError(
            f"No wheels are pinned for {target.name}; there are: "
            + ", ".join(target.name for target in TARGETS)
        )
    return tuple(Wheel(**entry) for entry in entries)


def model_wheel() -> Wheel:
    """The wheel that the model files of Moonshine are taken from."""
    return Wheel(**_read_pins()["model"][0])


def _read_pins() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(PINS_FILE.read_text("utf-8"))
    return found


def fetch(target: Target) -> dict[str, Path]:
    """Bring a target's wheels into the cache.

    Args:
        target: One of ``TARGETS``.

    Returns:
        Path by file name, each checked against its hash.

    Raises:
        SetupError: pip cannot fetch them, or a file is not the pinned one.
    """
    return _fetch(pinned(target), TAGS[target.platform], target.python)


def fetch_model() -> Path:
    """Bring the wheel with Moonshine's model into the cache; see :func:`fetch`."""
    tag, python = MODEL_PLATFORM
    wheel = model_wheel()
    return _fetch([wheel], [tag], python)[wheel.file]


def _fetch(wheels: Iterable[Wheel], tags: list[str], python: str) -> dict[str, Path]:
    folder = cache_dir()
    paths = {wheel.file: folder / wheel.sha256[:16] / wheel.file for wheel in wheels}
    missing = [wheel for wheel in wheels if not _is_good(paths[wheel.file], wheel)]
    if missing:
        size = sum(wheel.size for wheel in missing) / 1e6
        say(f"fetching {len(missing)} wheels, {size:.0f} MB, into {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as temporary:
            _download(missing, tags, python, Path(temporary))
            for wheel in missing:
                got = Path(temporary, wheel.file)
                if not _is_good(got, wheel):
                    raise SetupError(f"{wheel.file} was not served as it is pinned; try again.")
                paths[wheel.file].parent.mkdir(exist_ok=True)
                got.replace(paths[wheel.file])  # whole or not at all: others may read it
    return paths


def _is_good(path: Path, wheel: Wheel) -> bool:
    return path.is_file() and sha256_of(path) == wheel.sha256


def sha256_of(path: Path) -> str:
    """A file's hash, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(wheels: Iterable[Wheel], tags: list[str], python: str, folder: Path) -> None:
    requirements = folder / "requirements.txt"
    lines = [f"{wheel.pin} --hash=sha256:{wheel.sha256}\n" for wheel in wheels]
    requirements.write_text("".join(lines), "utf-8")
    command = [*_pip_download(tags, python, folder), "--require-hashes", "-r", str(requirements)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_environment()
    )
    if done.returncode != 0:
        raise SetupError(
            f"pip could not fetch wheels:\n{(done.stdout + done.stderr)[-2000:]}\n"
            "Check the network, then run the same command again; what was fetched is kept."
        )


def _pip_download(tags: list[str], python: str, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += [f"--platform={tag}" for tag in tags]
    command += [f"--python-version={python}", "--implementation=cp", "--dest", str(folder)]
    return command + [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]


def write_pins() -> None:
    """Resolve ``requirements-engine.txt`` for every target anew and write ``wheels.json``.

    Raises:
        SetupError: A wheel that is wanted does not exist.
    """
    pins = {}
    with tempfile.TemporaryDirectory(prefix="ptalker-pins-") as folder:
        for target in TARGETS:
            wanted = requirements_of(target)
            pins[target.name] = _resolve(wanted, TAGS[target.platform], target.python, folder)
            size = sum(int(str(entry["size"])) for entry in pins[target.name]) / 1e6
            say(f"{target.name:20} {len(wanted)} wheels, {size:6.1f} MB")
        pins["model"] = _resolve([MODEL], [MODEL_PLATFORM[0]], MODEL_PLATFORM[1], folder)
    PINS_FILE.write_text(json.dumps(pins, indent=1) + "\n", "utf-8")


def requirements_of(target: Target) -> list[str]:
    """The pins of the engine's requirements whose markers hold for a target."""
    from pip._vendor.packaging.requirements import Requirement

    environment = {"python_version": target.python, **_MARKERS[target.platform]}
    found = []
    for line in REQUIREMENTS.read_text("utf-8").splitlines():
        if text := line.split("#")[0].strip():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                found.append(f"{requirement.name}{requirement.specifier}")
    return found


def _resolve(pins: list[str], tags: list[str], python: str,
             folder: str) -> list[dict[str, str | int]]:  # fmt: skip
    """Download exact pins and note what came."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [*_pip_download(tags, python, Path(place)), *pins]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=clean_environment()
        )
        if done.returncode != 0:
            raise SetupError(f"{tags[0]}, Python {python}:\n{done.stderr[-1500:]}")
        files = sorted(Path(place).glob("*.whl"), key=lambda path: path.name.lower())
        return [_note(path) for path in files]


def _note(path: Path) -> dict[str, str | int]:
    with zipfile.ZipFile(path) as archive:
        longest = max(map(len, archive.namelist()))
    size = path.stat().st_size
    return {
        "file": path.name, "sha256": sha256_of(path), "size": size, "longest_path": longest,
    }  # fmt: skip
