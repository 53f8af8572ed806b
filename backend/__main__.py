# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the backend: ``python -m backend COMMAND``. Parses arguments, no more."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from backend import bundled, evaluate_options, generate_options, train_options, version
from backend.errors import Cancelled, UserError
from backend.protocol import StyleRequest
from backend.serve import describe, serve
from backend.terminal import TerminalVoice

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0 all done, 1 a job failed, 2 wrong usage, 130 interrupted.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command != "serve":
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    try:
        return int(options.run(options))
    except (KeyboardInterrupt, Cancelled):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (UserError, MemoryError, ImportError) as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
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
    generate = add("generate", _generate, text)
    generate_options.add_options(generate)
    _add_model_flags(generate)
    _add_style(add("style", _style, "Turn an exemplar animation into a style code to keep."))
    _add_serve(add("serve", _serve, "Answer requests on stdin; what Blender starts."))
    _add_prepare(add("prepare", _prepare, "Make data to train on."))
    text = "Train a model on speech or on captured faces; goes on where it stopped."
    train_options.add_options(add("train", _train, text))
    text = "Measure checkpoints on recordings or on captured faces."
    evaluate_options.add_options(add("evaluate", _evaluate, text))
    _add_export(add("export", _export, "Write a model as an ONNX file, for engines without torch."))
    _add_info(add("info", _info, "Say what is installed: version, packages, checkpoints, styles."))
    return parser


def _add_model_flags(command: argparse.ArgumentParser, *, checkpoint: str = "base") -> None:
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


def _add_style(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--exemplar",
        required=True,
        metavar="FILE.npz",
        help="vertices (T, V, 3), template (V, 3), fps, topology",
    )
    command.add_argument("--out", required=True, metavar="FILE.json", help="style code to write")
    _add_model_flags(command)


def _add_serve(command: argparse.ArgumentParser) -> None:
    _add_model_flags(command, checkpoint="")


def _add_prepare(command: argparse.ArgumentParser) -> None:
    kinds = command.add_subparsers(dest="kind", required=True, metavar="KIND")
    text = "Speech with phone times: synthesised, and recordings with their texts. Resumes."
    speech = kinds.add_parser("speech", help=text, description=text)
    speech.add_argument("--out", required=True, metavar="DIR", help="folder of the corpus")
    speech.add_argument("--recordings", metavar="DIR", help="recordings with texts to add")
    speech.add_argument(
        "--hours", type=float, default=4.0, metavar="X", help="hours to synthesise (default: 4)"
    )
    add = speech.add_argument
    add("--seed", type=int, default=0, metavar="N", help="of all chance in it")
    add("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes side by side")
    text = "Captured faces with speech as published; folder: X.wav by X.npz, .npy, .abc or X/*.ply."
    for kind in ("vocaset", "biwi", "3d-hdtf", "folder"):
        add = kinds.add_parser(kind, help=text, description=text).add_argument
        add("--raw", required=True, metavar="DIR", help="the downloaded files as they came")
        add("--out", required=True, metavar="DIR", help="folder to prepare into")
        add("--precision", default="float16", choices=["float16", "float32"], help="of the motion")
        add("--fps", default="", metavar="N[/D]", help="of a folder, where no .npz says it")
        add("--units", default="m", choices=["m", "cm", "mm"], help="of a folder (default: m)")
        add("--blender", default="blender", metavar="PROGRAM", help="reads Alembic of a folder")
    text = "Captures made up from prepared speech: invented speakers on one head."
    add = kinds.add_parser("synthetic", help=text, description=text).add_argument
    add("--speech", required=True, type=Path, metavar="DIR", help="what prepare speech made")
    add("--head", required=True, type=Path, metavar="FILE", help="the head: .npz, .ply or .obj")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to prepare into")
    add("--subjects", type=int, default=12, metavar="N", help="invented speakers (default: 12)")
    add("--sentences", type=int, default=12, metavar="N", help="of each of them (default: 12)")
    add("--seed", type=int, default=0, metavar="N", help="of voices, styles and heads")


def _add_export(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--checkpoint", default="base", metavar="DIR|NAME", help="which (default: base)")
    add("--out", required=True, type=Path, metavar="FILE.onnx", help="file to write")


def _add_info(command: argparse.ArgumentParser) -> None:
    command.add_argument("--devices", action="store_true", help="also where a model can run")
    command.add_argument("--json", action="store_true", help="as JSON")


def _generate(options: argparse.Namespace) -> int:
    flags = {
        key: getattr(options, key)
        for key in ("audio", "head", "out", "topology", "style", "style_strength", "fps", "start",
                    "end", "gain", "decoder", "listen", "text", "text_file", "checkpoint", "device")
    }  # fmt: skip
    if options.jobs is not None:
        return _generate_list(options, flags)
    from backend import job_requests, jobs  # brings torch, which --help can do without

    try:
        request = job_requests.request_from_flags("generate", job_requests.anchored(flags, Path()))
        job_requests.check(request)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    worker, voice = jobs.Worker(), TerminalVoice()
    try:
        report = worker.run(request, voice)
    finally:
        worker.close()
        voice.close()
    print(json.dumps(report, indent=1))
    return DONE


def _generate_list(options: argparse.Namespace, flags: Mapping[str, object]) -> int:
    from backend import crews, job_lists

    path, voice = Path(options.jobs), TerminalVoice()
    entries = job_lists.read_list(path)
    todo = job_lists.JobList(entries, path.parent, defaults=flags, overwrite=options.overwrite)
    crew = crews.crew_for(
        len(entries), device=options.device, workers=options.workers, ray=options.ray
    )
    try:
        summary = job_lists.run_list(todo, crew, voice)
    finally:
        voice.close()
    for name, reason in summary.failed:
        print(f"error: {name}: {reason}", file=sys.stderr)
    print(summary)
    return FAILED if summary.failed else DONE


def _style(options: argparse.Namespace) -> int:
    from backend import jobs  # brings torch

    request = StyleRequest(
        job="style",
        exemplar=options.exemplar,
        out=options.out,
        checkpoint=options.checkpoint,
        device=options.device,
    )
    voice = TerminalVoice()
    report = jobs.Worker().run(request, voice)
    voice.close()
    print(json.dumps(report, indent=1))
    return DONE


def _serve(options: argparse.Namespace) -> int:
    serve(checkpoint=options.checkpoint, device=options.device)


def _prepare(options: argparse.Namespace) -> int:
    if options.kind != "speech":
        return _prepare_captures(options)
    from backend.data.speech.corpus import prepare_speech

    if not 0 <= options.hours <= 1000 or options.workers < 1:
        print("error: --hours must be 0 to 1000, --workers 1 or more", file=sys.stderr)
        return WRONG_USAGE
    voice = TerminalVoice()
    corpus = prepare_speech(
        Path(options.out),
        recordings=None if options.recordings is None else Path(options.recordings),
        hours_synthesised=options.hours,
        seed=options.seed,
        workers=options.workers,
        progress=lambda done, total: voice.progress("Preparing speech", done, total, "parts", None),
    )
    voice.close()
    print(f"{len(corpus.utterances)} utterances in {options.out}")
    return DONE


def _prepare_captures(options: argparse.Namespace) -> int:
    from backend.data.captures import prepare, synthetic

    voice = TerminalVoice()
    progress = partial(voice.progress, "Preparing")
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
    voice.close()
    print(prepare.summary(manifest))
    return DONE


def _train(options: argparse.Namespace) -> int:
    logging.getLogger().setLevel(logging.INFO)
    print(train_options.run(options))
    return DONE


def _evaluate(options: argparse.Namespace) -> int:
    from backend.evaluation import robustness, speech  # brings torch

    if options.data is not None:
        return _evaluate_captures(options)
    if len(options.checkpoint) > 1:
        print("error: several checkpoints are compared on --data only", file=sys.stderr)
        return WRONG_USAGE
    checkpoint = bundled.checkpoint_folder(options.checkpoint[0])
    if options.conditions:
        conditions = robustness.ConditionsArguments(
            checkpoint=checkpoint, speech=options.speech, alignment=options.alignment,
            head=options.head, ways=tuple(options.listen or ("sound", "words")),
            num_clips=options.clips, out=options.out, device=options.device,
        )  # fmt: skip
        print(robustness.table(robustness.main(conditions)))
        return DONE
    report = speech.main(
        speech.EvaluateArguments(
            checkpoint=checkpoint,
            speech=options.speech,
            alignment=options.alignment,
            head=options.head,
            ways=tuple(options.listen or speech.WAYS),
            styles=options.styles,
            out=options.out,
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
    voice = TerminalVoice()
    results = captures.main(arguments, voice.progress)
    voice.close()
    print(report.markdown(results))
    return DONE


def _export(options: argparse.Namespace) -> int:
    from backend import bundled
    from backend.inference import onnx_export  # brings torch

    difference = onnx_export.export(bundled.checkpoint_folder(options.checkpoint), options.out)
    checked = "not compared: onnxruntime is missing"
    if difference is not None:
        checked = f"differs from PyTorch by {difference:.1g} at most"
    print(f"{options.out} ({checked})")
    return DONE


def _info(options: argparse.Namespace) -> int:
    from backend import info

    found = info.collect(with_devices=options.devices)
    print(json.dumps(found, indent=1) if options.json else info.as_text(found))
    return DONE


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait for each other busily
    sys.exit(main())
