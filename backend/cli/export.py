# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``export``: a model as an ONNX file."""

import argparse
from pathlib import Path

from backend import bundled
from backend.cli.terminal import DONE
from backend.service.options import GenerateOptions, add_flags


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_flags(command, GenerateOptions, only=("checkpoint",))
    command.add_argument(
        "--out", required=True, type=Path, metavar="FILE.onnx", help="file to write"
    )


def run(options: argparse.Namespace) -> int:
    """Export, and print how far it differs from PyTorch; the exit status."""
    from backend.inference import onnx_export  # brings torch

    difference = onnx_export.export(bundled.checkpoint_folder(options.checkpoint), options.out)
    checked = "not compared: onnxruntime is missing"
    if difference is not None:
        checked = f"differs from PyTorch by {difference:.1g} at most"
    print(f"{options.out} ({checked})")
    return DONE
