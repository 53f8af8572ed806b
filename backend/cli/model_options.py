# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say which model runs and where, shared by several commands."""

import argparse


def add_model_options(command: argparse.ArgumentParser, *, checkpoint: str = "base") -> None:
    """Add ``--checkpoint`` and ``--device``."""
    command.add_argument(
        "--checkpoint",
        default=checkpoint,
        metavar="DIR|NAME",
        help="a checkpoint folder or a bundled one's name (default: base)",
    )
    command.add_argument(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda", "mps"],
        help="where the model runs (default: auto, the fastest there is)",
    )
