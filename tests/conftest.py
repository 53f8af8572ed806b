# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test may use: one thread a process, and material that a checkout may not have."""

import os
from pathlib import Path

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

ROOT = Path(__file__).resolve().parents[1]


def _material(variable: str, default: str) -> Path:
    """A path from the environment or beside the repository; skips the test where it is absent."""
    path = Path(os.environ.get(variable) or ROOT.parent / "shared" / default)
    if not path.exists():
        pytest.skip(f"{variable} is not set and there is no {default} beside the repository")
    return path


@pytest.fixture(scope="session")
def flame_head() -> Path:
    """A mesh of the FLAME topology, which the project may not ship."""
    return _material("PTALKER_FLAME_HEAD", "flame/FLAME_sample.ply")


@pytest.fixture(scope="session")
def real_speech() -> Path:
    """A folder of recordings with their phone times."""
    return _material("PTALKER_SPEECH", "speech")


@pytest.fixture(scope="session")
def demo_sound() -> Path:
    """The sentence that the demo head speaks."""
    return ROOT / "backend" / "demo" / "speech.ogg"
