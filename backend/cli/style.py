# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``style``: an exemplar animation as a style code to keep."""

import argparse
import json

from backend.cli.model_options import add_model_options
from backend.cli.terminal import DONE, TerminalReporter
from backend.service.protocol import StyleRequest


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "--exemplar",
        required=True,
        metavar="FILE.npz",
        help="vertices (T, V, 3), template (V, 3), fps, topology",
    )
    command.add_argument("--out", required=True, metavar="FILE.json", help="style code to write")
    add_model_options(command)


def run(options: argparse.Namespace) -> int:
    """Write the style code, and print the report; the exit status."""
    from backend.service import worker  # brings torch

    request = StyleRequest(
        job="style",
        exemplar=options.exemplar,
        out=options.out,
        checkpoint=options.checkpoint,
        device=options.device,
    )
    reporter = TerminalReporter()
    report = worker.Worker().run(request, reporter)
    reporter.close()
    print(json.dumps(report, indent=1))
    return DONE
