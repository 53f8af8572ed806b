# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``export``: a model as one ONNX file, or as the graphs of the ONNX engine."""

import argparse
from pathlib import Path

from backend import bundled
from backend.cli.terminal import DONE
from backend.service.options import GenerateOptions, add_flags


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_flags(command, GenerateOptions, only=("checkpoint",))
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--out", type=Path, metavar="FILE.onnx", help="file to write, for programs without PTalker"
    )
    what.add_argument(
        "--engine",
        action="store_true",
        help="write the graphs of the engine onnx beside the checkpoint's parameters instead",
    )


def run(options: argparse.Namespace) -> int:
    """Export, and say what was written; the exit status."""
    folder = bundled.checkpoint_folder(options.checkpoint)
    if options.engine:
        from backend.inference.engine_export import export_engine  # brings torch

        print(f"{export_engine(folder)}: the graphs of the engine onnx")
        return DONE
    from backend.inference import onnx_export  # brings torch

    difference = onnx_export.export(folder, options.out)
    checked = "not compared: onnxruntime is missing"
    if difference is not None:
        checked = f"differs from PyTorch by {difference:.1g} at most"
    print(f"{options.out} ({checked})")
    return DONE
