# SPDX-License-Identifier: GPL-3.0-or-later
"""Large libraries are loaded only where a config asks for what they hold."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
IMPORTED = """
import backend.model.checkpoint, backend.model.generate, backend.model.ptalker
"""
GENERATED = """
import torch
from backend import bundled
from backend.model import checkpoint
from backend.model.generate import generate
from backend.model.style_inversion import style_of_motion
model = checkpoint.load(bundled.BASE_CHECKPOINT)
style = style_of_motion(model, torch.rand(1, 20, 52))
generate(model, torch.zeros(1, 50, 160), style, num_frames=50)
"""


@pytest.mark.parametrize("program", [IMPORTED, GENERATED])
def test_generation_loads_neither_transformers_nor_torch_geometric(program):
    absent = {"transformers", "torch_geometric"}
    checked = f"{program}\nimport sys\nassert not {absent} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", checked], cwd=ROOT, check=True)
