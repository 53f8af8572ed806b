# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading of Alembic caches through Blender, which every user of this project has.

There is no reader of Alembic among Python's packages; Blender's importer is the one that artists
use. It runs as a process of its own, without add-ons and start-up files.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from backend.data.captures.raw_files import RawMotion
from backend.errors import UserError

_SCRIPT: Final = Path(__file__).with_name("alembic_in_blender.py")
_MAX_SECONDS: Final = 3600.0


def read_alembic(
    path: Path, *, fps: Fraction, blender: str = "blender", max_frames: int | None = None
) -> RawMotion:
    """The one moving mesh of an Alembic file, in the file's own axes (Y up) and unit.

    Args:
        path: The Alembic file.
        fps: Frames a second to sample the file at; it holds times, but no rate.
        blender: The program, or a Python that has the ``bpy`` module (its name begins with
            "python").
        max_frames: Number of frames to read from the first on; by default all.

    Returns:
        Positions in world space ``(T, V, 3)`` and the faces.

    Raises:
        UserError: Blender is not found, or the file is damaged or holds no single mesh.
    """
    program = shutil.which(blender)
    if program is None:
        raise UserError(
            f"Alembic is read by Blender, and there is no program {blender!r}. Say where it is "
            "with --blender, or export one .obj or .ply a frame."
        )
    with tempfile.TemporaryDirectory() as folder:
        _run(program, path, folder, fps, max_frames or 0)
        vertices = np.load(Path(folder, "vertices.npy"))
        corners = np.load(Path(folder, "face_corners.npy"))
        sizes = np.load(Path(folder, "face_sizes.npy"))
    return RawMotion(vertices, faces=(corners, sizes))


def _run(program: str, path: Path, folder: str, fps: Fraction, max_frames: int) -> None:
    start = ["--background", "--factory-startup", "--python-exit-code", "1", "--python"]
    if Path(program).name.startswith("python"):
        start = []
    numbers = (str(fps.numerator), str(fps.denominator), str(max_frames))
    command = [program, *start, str(_SCRIPT), "--", str(path), folder, *numbers]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # Blender says what failed on the one, Python on the other
            timeout=_MAX_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"Blender could not read {path.name} ({error!s:.120}).") from error
    refusal = Path(folder, "refusal.txt")
    if refusal.exists():
        raise UserError(f"{path.name} {refusal.read_text(encoding='utf-8')}")
    if done.returncode or not Path(folder, "face_sizes.npy").exists():
        lines = done.stdout.decode(errors="replace").split("\n")
        named = [line for line in lines if re.match(r"\w+Error: ", line)]  # Python's last word
        reason = (named or [line for line in lines if line.strip()] or ["it says nothing"])[-1]
        raise UserError(f"Blender could not read {path.name} ({reason.strip():.160}).")
