# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``generate``: one animation, or a list of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from backend.cli.terminal import DONE, FAILED, WRONG_USAGE, TerminalReporter, one_line
from backend.errors import UserError
from backend.service.options import GenerateOptions, JobFlags, add_flags, names


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_flags(command, JobFlags)
    add_flags(command, GenerateOptions)
    add = command.add_argument
    add(
        "--jobs",
        metavar="FILE.json",
        help="many jobs: a list of objects with these flags as keys, e.g. "
        '[{"audio": "a.wav", "head": "h.ply", "out": "a.npz", "fps": "24"}]; what a job '
        "does not say, the flags given here say; results that are there are kept",
    )
    add("--overwrite", action="store_true", help="with --jobs: make them again")
    add(
        "--workers",
        type=_positive,
        metavar="N",
        help="with --jobs: processes side by side (default: one a core, or one for a GPU)",
    )
    add(
        "--ray",
        metavar="auto|local|HOST:PORT",
        help="with --jobs: share them out to a Ray cluster; see docs/scale.md",
    )


def run(options: argparse.Namespace) -> int:
    """Animate, and print the report; the exit status."""
    flags = {key: getattr(options, key) for key in (*names(JobFlags), *names(GenerateOptions))}
    if options.jobs is not None:
        return _generate_list(options, flags)
    from backend.service import requests, worker  # what --help can do without

    try:
        request = requests.request_from_flags("generate", requests.resolve_paths(flags, Path()))
        requests.check(request)
    except UserError as error:
        print(one_line(f"error: {error}"), file=sys.stderr)
        return WRONG_USAGE
    reporter, jobs = TerminalReporter(), worker.Worker()
    try:
        report = jobs.run(request, reporter)
    finally:
        jobs.close()
        reporter.close()
    print(json.dumps(report, indent=1))
    return DONE


def _generate_list(options: argparse.Namespace, flags: Mapping[str, object]) -> int:
    from backend.service.batch import executors, job_list

    path, reporter = Path(options.jobs), TerminalReporter()
    entries = job_list.read_list(path)
    todo = job_list.JobList(
        entries, path.parent, defaults=flags, overwrite=options.overwrite, list_file=path
    )
    executor = executors.executor_for(
        len(entries), device=options.device, workers=options.workers, ray=options.ray
    )
    try:
        summary = job_list.run_list(todo, executor, reporter)
    finally:
        reporter.close()
    for name, reason in summary.failed:
        print(one_line(f"error: {name}: {reason}"), file=sys.stderr)
    print(summary)
    return FAILED if summary.failed else DONE


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{number} is not a number from 1 to 10000")
    return number
