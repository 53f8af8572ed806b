# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of real recordings, for tests that need them."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def real_speech(variable, name):
    """A folder of recordings with phone times; skips where there is none."""
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not (folder / "alignment.json").is_file():
        pytest.skip(f"no real speech in {folder}; set {variable}")
    return folder
