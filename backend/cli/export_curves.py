# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``export-curves``: a motion as a CSV of Live Link Face, for other programs."""

import argparse
from pathlib import Path

from backend.cli.terminal import DONE


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("--motion", required=True, metavar="FILE.npz", help="a result of generate")
    command.add_argument(
        "--out", required=True, metavar="FILE.csv", help="file to write, as Live Link Face does"
    )


def run(options: argparse.Namespace) -> int:
    """Write the curves, and say how many; the exit status."""
    from backend import motion
    from backend.inference.curve_files import write_live_link
    from backend.io import check_output

    check_output(options.out, [options.motion])
    found = motion.read(Path(options.motion))
    write_live_link(Path(options.out), found)
    print(f"{options.out}: {len(found.weights)} frames at {float(found.fps):g} a second")
    return DONE
