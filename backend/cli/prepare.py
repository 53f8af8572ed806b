# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``prepare``: data to train on."""

import argparse
import sys
from functools import partial
from pathlib import Path

from backend.cli.terminal import DONE, WRONG_USAGE, TerminalReporter
from backend.processes import num_cores


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command: one kind of data each."""
    kinds = command.add_subparsers(dest="kind", required=True, metavar="KIND")
    text = "Speech with phone times: synthesised, and recordings with their texts. Resumes."
    speech = kinds.add_parser("speech", help=text, description=text)
    speech.add_argument("--out", required=True, metavar="DIR", help="folder of the corpus")
    speech.add_argument("--recordings", metavar="DIR", help="recordings with texts to add")
    speech.add_argument(
        "--hours", type=float, default=4.0, metavar="X", help="hours to synthesise (default: 4)"
    )
    add = speech.add_argument
    add("--seed", type=int, default=0, metavar="N", help="seed of the corpus (default: 0)")
    add("--workers", type=int, default=num_cores(), metavar="N", help="processes side by side")
    text = "Captured faces with speech as published; folder: X.wav by X.npz, .npy, .abc or X/*.ply."
    for kind in ("vocaset", "biwi", "3d-hdtf", "folder"):
        add = kinds.add_parser(kind, help=text, description=text).add_argument
        add("--raw", required=True, metavar="DIR", help="the downloaded files as they came")
        add("--out", required=True, metavar="DIR", help="folder to prepare into")
        add(
            "--precision",
            default="float16",
            choices=["float16", "float32"],
            help="of the stored motion (default: float16)",
        )
        add(
            "--fps",
            default="",
            metavar="N[/D]",
            help="frame rate of a folder, where no .npz says it",
        )
        add(
            "--units",
            default="m",
            choices=["m", "cm", "mm"],
            help="unit of positions in a folder (default: m)",
        )
        add("--blender", default="blender", metavar="PROGRAM", help="reads Alembic of a folder")
    text = "Captures made up from prepared speech: invented speakers on one head."
    add = kinds.add_parser("synthetic", help=text, description=text).add_argument
    add("--speech", required=True, type=Path, metavar="DIR", help="what prepare speech made")
    add("--head", required=True, type=Path, metavar="FILE", help="the head: .npz, .ply or .obj")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to prepare into")
    add("--subjects", type=int, default=12, metavar="N", help="invented speakers (default: 12)")
    add(
        "--sentences",
        type=int,
        default=12,
        metavar="N",
        help="sentences of each speaker (default: 12)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of voices, styles and heads (default: 0)",
    )


def run(options: argparse.Namespace) -> int:
    """Prepare, and print what was made; the exit status."""
    if options.kind != "speech":
        return _prepare_captures(options)
    from backend.data.speech.corpus import prepare_speech

    if not 0 <= options.hours <= 1000 or options.workers < 1:
        print("error: --hours must be 0 to 1000, --workers 1 or more", file=sys.stderr)
        return WRONG_USAGE
    reporter = TerminalReporter()
    corpus = prepare_speech(
        Path(options.out),
        recordings=None if options.recordings is None else Path(options.recordings),
        hours_synthesised=options.hours,
        seed=options.seed,
        workers=options.workers,
        progress=lambda done, total: reporter.progress(
            "Preparing speech", done, total, "parts", None
        ),
    )
    reporter.close()
    print(f"{len(corpus.utterances)} utterances in {options.out}")
    return DONE


def _prepare_captures(options: argparse.Namespace) -> int:
    from backend.data.captures import prepare, synthetic

    reporter = TerminalReporter()
    progress = partial(reporter.progress, "Preparing")
    if options.kind == "synthetic":
        manifest = synthetic.prepare_synthetic(
            options.speech, options.head, options.out, num_subjects=options.subjects,
            sentences=options.sentences, seed=options.seed, progress=progress,
        )  # fmt: skip
    else:
        manifest = prepare.prepare(
            options.kind, Path(options.raw), Path(options.out), fps=options.fps,
            units=options.units, blender=options.blender, precision=options.precision,
            progress=progress,
        )  # fmt: skip
    reporter.close()
    print(prepare.summary(manifest))
    return DONE
