# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``face-points``: the face points of a head, found without marking."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from backend.cli.terminal import DONE, TerminalReporter
from backend.stages import Stage


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument(
        "--head", required=True, metavar="FILE", help="the head: .npz, .ply or .obj"
    )
    command.add_argument(
        "--out", metavar="FILE.json", help="file to write (default: print to standard output)"
    )


def run(options: argparse.Namespace) -> int:
    """Find them, and write or print what was found; the exit status."""
    from backend import io
    from backend.heads.find_face_points import find_face_points
    from backend.heads.mesh_files import read_head

    reporter = TerminalReporter()

    def progress(done: float, total: float) -> None:
        reporter.progress(Stage.FINDING_FACE_POINTS, done, total, "steps", None)

    try:
        found = find_face_points(read_head(options.head), progress=progress)
    finally:
        reporter.close()
    text = json.dumps(found.as_json(), indent=1)
    if options.out:
        io.write_text(Path(options.out), text + "\n")
    else:
        print(text)
    if found.doubtful:
        reporter.warn(found.warning())
    return DONE
