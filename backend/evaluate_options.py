# SPDX-License-Identifier: GPL-3.0-or-later
"""Command-line options of ``evaluate``.

Apart from the modules that do the work, which bring NumPy and torch: ``--help`` and the service
that Blender starts must not wait for them.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    add = parser.add_argument
    add(
        "--checkpoint",
        default="base",
        metavar="DIR|NAME",
        help="a checkpoint folder or a bundled one's name (default: base)",
    )
    add(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda", "mps"],
        help="where the model runs (default: auto, the fastest there is)",
    )
    text = "recordings with phone times"
    add("--speech", required=True, type=Path, metavar="DIR", help=text)
    add("--out", type=Path, metavar="FILE.json", help="report to write")
    _add_speech_options(parser)


def _add_speech_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on recordings (--speech)")
    group.add_argument(
        "--alignment",
        default="alignment.json",
        metavar="NAME",
        help="the file in it that holds the times (default: alignment.json)",
    )
    group.add_argument("--head", type=Path, metavar="FILE", help="default: the demo head")
    group.add_argument(
        "--listen",
        nargs="+",
        choices=["sound", "words", "text"],
        metavar="WAY",
        help="sound, words, text (default: all; sound and words under conditions)",
    )
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument("--styles", action="store_true", help="also the transfer of styles")
    text = "instead: noise, rooms, other voices, levels, sounds without speech"
    kinds.add_argument("--conditions", action="store_true", help=text)
    text = "under conditions: only the first recordings (default: all)"
    group.add_argument("--clips", type=int, default=0, metavar="N", help=text)
