# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``train``: a model from speech or from captured faces, in one process or several."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from backend.cli.terminal import DONE
from backend.errors import UserError
from backend.model.presets import CAPTURE_PRESETS
from backend.processes import num_cores

PHONE_HEAD: Final = "phone-head"
PARTS: Final = ("graph-attention", "cross-attention", "alignment-losses", "disentanglement")
_FLAGS: Final = {"batches_per_step": "accumulate"}
_SPEECH: Final = (
    "seed", "phone_steps", "word_steps", "style_steps", "lip_steps", "motion_steps", "batch_size",
    "threads", "without", "start_from",
)  # fmt: skip
_PHONE_HEAD: Final = ("seed", "phone_steps", "batch_size", "threads")
_CAPTURES: Final = (
    "seed", "speech_encoder", "freeze", "steps", "batch_size", "batches_per_step", "precision",
    "learning_rate", "validations", "patience", "max_seconds", "small", "regions", "cache",
    "threads", "stop_at", "without",
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command; the arguments' classes hold the defaults."""
    add = parser.add_argument
    add(
        "--preset",
        default="base",
        help="on speech base or tiny (default: base), or phone-head, the phone classifier on "
        "Moonshine features; on captured faces " + ", ".join(CAPTURE_PRESETS),
    )
    add(
        "--data",
        required=True,
        nargs="+",
        type=Path,
        metavar="DIR",
        help="what prepare made; for speech also recordings with an alignment.json",
    )
    add(
        "--run",
        required=True,
        type=Path,
        metavar="DIR",
        dest="run_folder",
        help="folder of the run: state to go on from, logs and the checkpoint",
    )
    _add(parser, "--seed", int, "N", "seed of the training (default: 0)")
    _add(parser, "--batch-size", int, "N", "sequences in a batch (default: 16; captured faces: 8)")
    _add(parser, "--threads", int, "N", "threads of torch on a CPU (default: torch's choice)")
    add(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="train on N graphics cards, or in N processes on a CPU, of this machine (default: 1)",
    )
    add(
        "--without",
        nargs="+",
        choices=PARTS,
        default=argparse.SUPPRESS,
        help="ablation: leave parts of the model out",
    )
    speech = parser.add_argument_group("on speech")
    _add(speech, "--phone-steps", int, "N", "steps of the speech encoder and its phone classifier")
    _add(speech, "--word-steps", int, "N", "steps with noisy recognised phones as input")
    _add(speech, "--style-steps", int, "N", "steps of the style encoder")
    _add(speech, "--lip-steps", int, "N", "steps of the lip reader")
    _add(speech, "--motion-steps", int, "N", "steps of the whole model on motion")
    speech.add_argument(
        "--start-from",
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="CHECKPOINT",
        help="fine-tune a checkpoint at half the learning rate, or the mean of several of one "
        "training; base is the bundled one",
    )
    _add_capture_options(parser.add_argument_group("on captured faces"))


def _add_capture_options(group: argparse._ArgumentGroup) -> None:
    text = "base, a folder, or HUB_ID@COMMIT (default: the preset's HuBERT-large from the hub)"
    _add(group, "--speech-encoder", str, "WHICH", text)
    for flag, choices, text in (
        (
            "--freeze",
            ("nothing", "convolutions", "everything"),
            "which part of the speech encoder is not trained",
        ),
        ("--precision", ("auto", "no", "bf16", "fp16"), "mixed precision (default: auto)"),
    ):
        group.add_argument(flag, choices=choices, default=argparse.SUPPRESS, help=text)
    _add(group, "--steps", int, "N", "steps of training (default: 4000)")
    text = "batches to a step, over all processes (default: 1)"
    _add(group, "--accumulate", int, "N", text, dest="batches_per_step")
    _add(group, "--learning-rate", float, "X", "peak learning rate (default: 0.001)")
    _add(group, "--validations", int, "N", "number of validations (default: 20)")
    text = "validations without a better score before it ends; 0: never (default: 8)"
    _add(group, "--patience", int, "N", text)
    _add(group, "--max-seconds", float, "X", "longest sequence; longer ones are cut (default: 8)")
    group.add_argument(
        "--small",
        action="store_true",
        default=argparse.SUPPRESS,
        help="a small model of the same architecture",
    )
    _add(group, "--regions", Path, "FILE.json", "which vertices are lips, as for evaluate")
    _add(
        group,
        "--cache",
        Path,
        "DIR",
        "cached features of a frozen speech encoder (default: in the run's)",
    )
    _add(group, "--stop-at", int, "N", "stop after so many steps, to go on later")


def _add(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    flag: str,
    kind: type,
    metavar: str,
    text: str,
    *,
    dest: str | None = None,
) -> None:
    parser.add_argument(
        flag,
        type=kind,
        default=argparse.SUPPRESS,
        metavar=metavar,
        dest=dest or flag.removeprefix("--").replace("-", "_"),
        help=text,
    )


def run(options: argparse.Namespace) -> int:
    """Train, and print the path of the result.

    Args:
        options: The options of the command.

    Returns:
        Exit status.

    Raises:
        UserError: Data, preset or run folder are no good.
    """
    logging.getLogger().setLevel(logging.INFO)
    if options.processes < 1:
        raise UserError(f"--processes is {options.processes}; give 1 or more.")
    if options.processes > 1 and options.preset == PHONE_HEAD:
        raise UserError("The preset phone-head is trained in one process. Leave --processes out.")
    if options.processes == 1:
        _train(options)
    else:
        _train_in_processes(options)
    made = "phone_head.safetensors" if options.preset == PHONE_HEAD else "checkpoint"
    print(options.run_folder / made)
    return DONE


def _train(options: argparse.Namespace) -> None:
    from backend import bundled
    from backend.training import phone_head  # these bring torch
    from backend.training.captures import train as captures
    from backend.training.speech import train as speech

    if options.preset == PHONE_HEAD:
        phone_head.main(
            phone_head.PhoneHeadArguments(
                data=_only(options.data),
                run=options.run_folder,
                **_given(options, _PHONE_HEAD),
            )
        )
    elif options.preset in CAPTURE_PRESETS:
        captures.main(
            captures.CaptureTrainArguments(
                preset=options.preset,
                data=_only(options.data),
                run=options.run_folder,
                **_given(options, _CAPTURES),
            )
        )
    else:
        given = _given(options, _SPEECH)
        if "start_from" in given:
            given["start_from"] = tuple(map(bundled.checkpoint_folder, given["start_from"]))
        speech.main(
            speech.TrainArguments(
                preset=options.preset,
                data=tuple(options.data),
                run=options.run_folder,
                **given,
            )
        )


def _train_in_processes(options: argparse.Namespace) -> None:
    """Train with torch's own launcher, of which ``torchrun`` is the command line.

    ``torchrun`` itself would take ``--run`` for an abbreviation of one of its own options.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=options.processes,
        run_id="train",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    sent = {name: value for name, value in vars(options).items() if not callable(value)}
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        refusal = Path(folder) / "refusal.txt"
        try:
            elastic_launch(config, _train_one_of_several)(argparse.Namespace(**sent), refusal)
        except ChildFailedError as error:
            if refusal.exists():
                raise UserError(refusal.read_text(encoding="utf-8")) from error
            raise UserError("A process of the training failed; what it wrote says why.") from error


def _train_one_of_several(options: argparse.Namespace, refusal: Path) -> None:
    """Train in a process of its own; a refusal is written to a file for the parent."""
    import torch

    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
        threads = max(1, num_cores() // options.processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        torch.set_num_threads(threads)
    is_first = os.environ["RANK"] == "0"
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING)
    try:
        _train(options)
    except UserError as error:
        refusal.write_text(str(error), encoding="utf-8")
        sys.exit(1)  # which ends the others, that may be waiting for this one


def _given(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Options that were given; one of another kind of training is refused."""
    given = {name: value for name, value in vars(options).items() if name in {*_SPEECH, *_CAPTURES}}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    odd = sorted(set(given) - set(names))
    if odd:
        flag = _FLAGS.get(odd[0], odd[0]).replace("_", "-")
        raise UserError(f"The preset {options.preset} has no option --{flag}. Leave it out.")
    return given


def _only(folders: list[Path]) -> Path:
    if len(folders) != 1:
        raise UserError("This preset is trained on one prepared set: give one --data.")
    return folders[0]
