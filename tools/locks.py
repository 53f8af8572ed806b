# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of PyTorch's environment, all of them and by hash: ``backend/locked/*.txt``.

``requirements.txt`` and ``requirements-words.txt`` say which packages; here are those that they
need in turn, for every system and Python, with the SHA-256 of every file that may be served.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.environments import ROOT, SetupError, clean_environment, say

FOLDER = ROOT / "backend" / "locked"
RESOLVER = "uv==0.13.9"
SOURCES = ("requirements.txt", "requirements-words.txt")
_OF_TORCH = ("torch", "triton", "cuda-", "nvidia-")
_OF_WORDS = ("moonshine-voice", "onnxruntime", "flatbuffers", "protobuf")
_TITLES = {
    "torch": "PyTorch as the Python Package Index has it: with CUDA for Linux",
    "words": "What hears words; not every system has them",
    "packages": "Everything else",
}


def file_of(package: str) -> str:
    """The file that locks a package: ``torch``, ``words`` or ``packages``."""
    if package == "torch" or package.startswith(_OF_TORCH[1:]):
        return "torch"
    return "words" if package in _OF_WORDS else "packages"


def entries(text: str) -> dict[str, list[str]]:
    """The entries of a locked file, or of all: package -> its entries with their hashes."""
    found: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
        if name := re.match(r"([A-Za-z0-9._-]+)==", entry):
            found.setdefault(name[1], []).append(entry.rstrip())
    return found


def write() -> None:
    """Resolve the requirements anew, for every system and Python from 3.11 on.

    Raises:
        SetupError: They cannot be resolved.
    """
    with tempfile.TemporaryDirectory(prefix="ptalker-locks-") as folder:
        python = Path(folder, "venv", "Scripts" if sys.platform == "win32" else "bin", "python")
        _run(sys.executable, "-m", "venv", str(Path(folder, "venv")))
        _run(str(python), "-m", "pip", "install", "-q", RESOLVER)
        lock = Path(folder, "lock.txt")
        sources = [str(ROOT / "backend" / name) for name in SOURCES]
        _run(
            str(python), "-m", "uv", "pip", "compile", "--universal", "--generate-hashes",
            "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links",
            "--python-version=3.11", f"--output-file={lock}", *sources,
        )  # fmt: skip
        found = entries(lock.read_text("utf-8"))
    FOLDER.mkdir(exist_ok=True)
    for name, title in _TITLES.items():
        listed = [entry for package in sorted(found) if file_of(package) == name
                  for entry in found[package]]  # fmt: skip
        (FOLDER / f"{name}.txt").write_text("\n".join([f"# {title}.", *listed, ""]), "utf-8")
        say(f"locked/{name}.txt: {len(listed)} packages")


def _run(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_environment()
    )
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command[:4])} failed:\n{done.stderr[-2000:]}")
