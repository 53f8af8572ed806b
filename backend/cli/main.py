# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: the parser of all commands, and what their errors become.

Modules that do the work are imported when a command runs: ``--help`` and the service that Blender
starts must not wait for NumPy and torch.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from backend import version
from backend.cli import (
    evaluate,
    export,
    export_curves,
    face_points,
    generate,
    info,
    prepare,
    style,
    train,
)
from backend.cli.terminal import FAILED, INTERRUPTED, one_line
from backend.errors import Cancelled, UserError
from backend.service.options import GenerateOptions, add_flags
from backend.service.server import describe, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0 all done, 1 a job failed, 2 wrong usage, 130 interrupted.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command != "serve":
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    try:
        return int(options.run(options))
    except (KeyboardInterrupt, Cancelled):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (UserError, MemoryError, ImportError) as error:
        print(one_line(f"error: {describe(error)}"), file=sys.stderr)
        return FAILED


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m backend",
        description="PTalker's backend: turns speech into the animation of a head.",
    )
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    text = "Animate a head to speech and write motion.npz."
    generate.add_options(add("generate", generate.run, text))
    text = "Find the face points of a head that is not known."
    face_points.add_options(add("face-points", face_points.run, text))
    text = "Turn an exemplar animation into a style code to keep."
    style.add_options(add("style", style.run, text))
    text = "Answer requests on stdin; what Blender starts."
    serve_command = add("serve", _serve, text)
    serve_command.add_argument(
        "--checkpoint",
        default="",
        metavar="DIR|NAME",
        help="loaded before the first request, so that this one is quick (default: none)",
    )
    serve_command.add_argument(
        "--offline",
        action="store_true",
        help="never download published weights that a checkpoint names",
    )
    add_flags(serve_command, GenerateOptions, only=("engine", "device"))
    prepare.add_options(add("prepare", prepare.run, "Make data to train on."))
    text = "Train a model on speech or on captured faces; goes on where it stopped."
    train.add_options(add("train", train.run, text))
    text = "Measure checkpoints on recordings or on captured faces."
    evaluate.add_options(add("evaluate", evaluate.run, text))
    text = "Write a model as an ONNX file, for engines without torch."
    export.add_options(add("export", export.run, text))
    text = "Write a motion as curves for other programs: the CSV of Live Link Face."
    export_curves.add_options(add("export-curves", export_curves.run, text))
    text = "Say what is installed: version, packages, checkpoints, styles."
    info.add_options(add("info", info.run, text))
    return parser


def _serve(options: argparse.Namespace) -> int:
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is loaded, with the first job
    serve(checkpoint=options.checkpoint, engine=options.engine, device=options.device)
