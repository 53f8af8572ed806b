# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``evaluate``: checkpoints on recordings or on captured faces."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from backend import bundled
from backend.cli.terminal import DONE, WRONG_USAGE, TerminalReporter
from backend.service.options import GenerateOptions, add_flags


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command; ``--speech``, ``--data`` or ``--captured`` is given."""
    add = parser.add_argument
    add(
        "--checkpoint",
        nargs="+",
        default=["base"],
        metavar="DIR|NAME",
        help="checkpoint folders or bundled ones' names; several with --data only (default: base)",
    )
    add_flags(parser, GenerateOptions, only=("engine", "device"))
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--speech", type=Path, metavar="DIR", help="recordings with phone times")
    what.add_argument("--data", type=Path, metavar="DIR", help="captured faces, as prepare made it")
    text = "sounds and what mouths did while they were said: NAME.flac beside NAME.npz"
    what.add_argument("--captured", type=Path, metavar="DIR", help=text)
    add("--out", type=Path, metavar="PATH", help="report: a .json file; with --data a folder")
    _add_speech_options(parser)
    _add_capture_options(parser)


def _add_speech_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on recordings (--speech)")
    group.add_argument(
        "--alignment",
        default="alignment.json",
        metavar="NAME",
        help="file of the phone times in the folder (default: alignment.json)",
    )
    group.add_argument("--head", type=Path, metavar="FILE", help="default: the demo head")
    group.add_argument(
        "--listen",
        nargs="+",
        choices=["sound", "words", "text"],
        metavar="MODE",
        help="recognition modes (default: sound, words and text; under conditions sound and words)",
    )
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument("--styles", action="store_true", help="also measure style transfer")
    text = "measure robustness instead: noise, rooms, voices, levels, sounds without speech"
    kinds.add_argument("--conditions", action="store_true", help=text)
    text = "print instead how far, fast and independently the face moves, beside captured people"
    kinds.add_argument("--figures", action="store_true", help=text)
    text = "under conditions: only the first recordings (default: all)"
    group.add_argument("--clips", type=int, default=0, metavar="N", help=text)


def _add_capture_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("on captured faces (--data)").add_argument
    add(
        "--split",
        default="test",
        choices=["train", "validation", "test", "test_unseen"],
        help="split of the data set (default: test)",
    )
    add(
        "--protocol",
        default="ptalker",
        choices=["ptalker", "codetalker"],
        help="evaluation protocol: pooling and regions (default: ptalker; see docs/metrics.md)",
    )
    add(
        "--regions",
        type=Path,
        metavar="FILE.json",
        help='{"lips": [...], "upper_face": [...]} in place of the topology\'s own',
    )
    add(
        "--style-from",
        default="auto",
        choices=["auto", "identity", "motion", "speech", "neutral"],
        help="source of a subject's style (default: auto: the identity embedding if the model was "
        "trained on the subject, else another clip, else neutral)",
    )


def run(options: argparse.Namespace) -> int:
    """Evaluate, and print the report; the exit status."""
    from backend.evaluation import (
        captured_clips,
        motion_figures,
        robustness,
        speech,
    )  # brings torch

    if options.data is not None:
        return _evaluate_captures(options)
    if len(options.checkpoint) > 1:
        print("error: several checkpoints are compared on --data only", file=sys.stderr)
        return WRONG_USAGE
    checkpoint = bundled.checkpoint_folder(options.checkpoint[0])
    if options.captured is not None:
        captured = captured_clips.CapturedArguments(
            checkpoint=checkpoint, folder=options.captured,
            modes=tuple(options.listen or speech.RECOGNITION_MODES), out=options.out,
            engine=options.engine, device=options.device,
        )  # fmt: skip
        print(captured_clips.table(captured_clips.main(captured)))
        return DONE
    if options.conditions:
        conditions = robustness.ConditionsArguments(
            checkpoint=checkpoint, speech=options.speech, alignment=options.alignment,
            head=options.head, modes=tuple(options.listen or ("sound", "words")),
            num_clips=options.clips, out=options.out, engine=options.engine,
            device=options.device,
        )  # fmt: skip
        print(robustness.table(robustness.main(conditions)))
        return DONE
    if options.figures:
        figures = motion_figures.FiguresArguments(
            checkpoint=checkpoint, speech=options.speech, alignment=options.alignment,
            head=options.head, modes=tuple(options.listen or ("words",)), out=options.out,
            device=options.device,
        )  # fmt: skip
        print(motion_figures.table(motion_figures.main(figures)))
        return DONE
    report = speech.main(
        speech.EvaluateArguments(
            checkpoint=checkpoint,
            speech=options.speech,
            alignment=options.alignment,
            head=options.head,
            modes=tuple(options.listen or speech.RECOGNITION_MODES),
            styles=options.styles,
            out=options.out,
            engine=options.engine,
            device=options.device,
        )
    )
    print(speech.table(report))
    return DONE


def _evaluate_captures(options: argparse.Namespace) -> int:
    from backend.evaluation import captures, report

    arguments = captures.CaptureArguments(
        checkpoints=tuple(bundled.checkpoint_folder(name) for name in options.checkpoint),
        data=options.data, split=options.split, protocol=options.protocol, out=options.out,
        regions=options.regions, style_from=options.style_from, device=options.device,
    )  # fmt: skip
    reporter = TerminalReporter()
    results = captures.main(arguments, reporter.progress)
    reporter.close()
    print(report.markdown(results))
    return DONE
