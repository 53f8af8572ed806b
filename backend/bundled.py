# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files lie that come with the backend. Imports nothing of it."""

from pathlib import Path
from typing import Final

BACKEND_DIR: Final = Path(__file__).resolve().parent
CHECKPOINTS_DIR: Final = BACKEND_DIR / "checkpoints"
BASE_CHECKPOINT: Final = CHECKPOINTS_DIR / "base"
TOPOLOGIES_DIR: Final = BACKEND_DIR / "topologies"
DEMO_HEAD: Final = BACKEND_DIR / "demo" / "head.npz"
