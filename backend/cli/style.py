# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``style``: an exemplar animation as a style code to keep."""

import argparse
import json

from backend.cli.terminal import DONE, TerminalReporter
from backend.service.options import GenerateOptions, add_flags
from backend.service.protocol import StyleRequest


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "--exemplar",
        required=True,
        metavar="FILE|FOLDER",
        help="an .npz with vertices (T, V, 3), template (V, 3), fps, topology, or with weights "
        "(T, K), names, fps; a .csv of Live Link Face; a .txt of Face Cap; or a folder",
    )
    command.add_argument("--out", required=True, metavar="FILE.json", help="style code to write")
    add_flags(command, GenerateOptions, only=("exemplar_neutral", "checkpoint", "engine", "device"))


def run(options: argparse.Namespace) -> int:
    """Write the style code, and print the report; the exit status."""
    from backend.service import worker

    request = StyleRequest(
        job="style",
        exemplar=options.exemplar,
        out=options.out,
        exemplar_neutral=options.exemplar_neutral,
        checkpoint=options.checkpoint,
        engine=options.engine,
        device=options.device,
    )
    reporter, jobs = TerminalReporter(), worker.Worker()
    try:
        report = jobs.run(request, reporter)
    finally:
        jobs.close()
        reporter.close()
    print(json.dumps(report, indent=1))
    return DONE
