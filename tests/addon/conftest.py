# SPDX-License-Identifier: GPL-3.0-or-later
"""A fake backend process for the tests without Blender."""

import sys
from pathlib import Path

import pytest

from ptalker_blender.backend_process import BackendProcess

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(tmp_path):
    """Starts tests/fake_backend.py in a mode; all of them end with the test."""
    processes = []

    def begin(mode="ok", *arguments):
        command = [sys.executable, str(ROOT / "tests" / "fake_backend.py"), "--mode", mode]
        process = BackendProcess(
            [*command, *arguments], cwd=tmp_path, log_path=tmp_path / "backend.log"
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.stop(grace_seconds=0)
