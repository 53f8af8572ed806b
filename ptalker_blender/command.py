# SPDX-License-Identifier: GPL-3.0-or-later
"""``blender -b head.blend --command ptalker``: flags, job list, exit codes."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

import bpy

from . import backend_job, job_runner, lip_sync_job, paths, preferences, scene_inputs, style_library
from .protocol import UserError
from .scene_inputs import Choices

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130

_JOB_FLAGS: Final = (
    "object", "audio", "style", "style_strength", "start", "end", "listen", "text", "text_file",
    "checkpoint", "device", "decoder", "topology", "frame", "keys",
)  # fmt: skip
_NUMBERS: Final = ("style_strength", "start", "end")


class _UsageError(Exception):
    """The flags or the job list are wrong."""


class _Parser(argparse.ArgumentParser):
    """Raises where the stock parser would end the process."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise _UsageError(f"{message}\n{self.format_usage().strip()}")


def _parser() -> _Parser:
    parser = _Parser(
        prog="blender -b FILE.blend --command ptalker",
        description="Animate heads to speech and save the file.",
    )
    add = parser.add_argument
    add("--object", metavar="HEAD", help="the head (default: the file's active object)")
    add("--audio", metavar="FILE", help="sound or video file, or the name of a sound strip")
    add("--save", metavar="OUT.blend", required=True, help="where to save the result")
    add("--jobs", metavar="FILE.json", help="many jobs: a list of objects with these flags as keys")
    add("--style", default="neutral", metavar="NAME|FILE|OBJECT",
        help="a style's name, a .json style code, an .npz exemplar or an object")  # fmt: skip
    add("--style-strength", type=float, default=1.0, metavar="X",
        help="0 neutral, 1 the style, above 1 exaggerated")  # fmt: skip
    add("--start", type=float, default=0.0, metavar="S", help="start in the file, in seconds")
    add("--end", type=float, metavar="S", help="end in the file, in seconds")
    add("--frame", type=int, metavar="N", help="frame of the start (default: the scene's first)")
    add("--listen", default="auto", choices=["auto", "words", "sound"])
    add("--text", default="", metavar="WORDS", help="the words that are spoken")
    add("--text-file", metavar="FILE", help="a UTF-8 file with them")
    add("--checkpoint", metavar="DIR|NAME", help="(default: as in the preferences)")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], help="(default: as in the preferences)")
    add(
        "--decoder", choices=["parallel", "autoregressive"], help="(default: as in the preferences)"
    )
    add("--topology", default="auto", metavar="NAME|FILE")
    add("--keys", default="auto", choices=["auto", "new", "existing"], help="which shape keys")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns Blender's exit status."""
    try:
        options = _parser().parse_args(list(arguments))
        job_list = _job_list(options)
    except _UsageError as error:
        return _say(str(error), WRONG_USAGE)
    except SystemExit:  # --help
        return DONE
    previous = {s: signal.signal(s, _interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _run(job_list, Path(options.save))
    except KeyboardInterrupt:
        return _say("interrupted; nothing was saved", INTERRUPTED)
    finally:
        backend_job.release_backend()
        for number, handler in previous.items():
            # None: the handler came from Blender itself, not from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str, status: int) -> int:
    sys.stderr.write(f"ptalker: {text}\n")
    sys.stderr.flush()
    return status


def _job_list(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The jobs: one of the flags, or those of the list with the flags as defaults.

    Raises:
        _UsageError: The flags or the list cannot be used.
    """
    defaults = {name: getattr(options, name) for name in _JOB_FLAGS}
    if options.jobs is None:
        if options.audio is None:
            raise _UsageError("--audio FILE or --jobs FILE.json is needed")
        return [_absolute(defaults, Path.cwd())]
    path = Path(options.jobs)
    try:
        listed = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(listed, list) or not listed or not all(isinstance(j, dict) for j in listed):
        raise _UsageError(f"{path} must hold a list of objects, at least one")
    found = []
    for number, entry in enumerate(listed, 1):
        entry = {key.replace("-", "_"): value for key, value in entry.items()}
        if unknown := sorted(entry.keys() - set(_JOB_FLAGS)):
            raise _UsageError(f"job {number} of {path} has unknown keys: {', '.join(unknown)}")
        for key, value in entry.items():
            kinds = (int, float) if key in _NUMBERS else (int,) if key == "frame" else (str,)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise _UsageError(f"job {number} of {path}: {key} is {value!r}")
        job = {**_absolute(defaults, Path.cwd()), **_absolute(entry, path.resolve().parent)}
        if not job.get("audio"):
            raise _UsageError(f"job {number} of {path} names no audio")
        found.append(job)
    return found


def _absolute(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """File names relative to a folder become absolute; what is no file there stays a name."""
    files = ("audio", "text_file", "style", "checkpoint", "topology")
    inside = {k: folder / job[k] for k in files if isinstance(job.get(k), str) and job[k]}
    return {**job, **{key: str(path) for key, path in inside.items() if path.exists()}}


def _run(job_list: list[dict[str, Any]], save: Path) -> int:
    if not bpy.data.filepath:
        return _say("give the .blend file with the head before --command", WRONG_USAGE)
    failures = 0
    for number, job in enumerate(job_list, 1):
        name = f"job {number} ({job.get('object') or 'active object'}, {job['audio']})"
        try:
            outcome = job_runner.run(_start(job))
        except UserError as error:
            failures += 1
            _say(f"{name}: {_one_line(str(error))}", FAILED)
            continue
        for warning in outcome.warnings:
            _say(f"{name}: warning: {_one_line(warning)}", DONE)
        if outcome.kind == 'DONE':
            sys.stdout.write(f"ptalker: {name}: {outcome.text}\n")
            sys.stdout.flush()
        else:
            failures += 1
            _say(f"{name}: {_one_line(outcome.text)}", FAILED)
    if failures == len(job_list):
        return FAILED  # nothing changed, so there is nothing to save
    try:
        save.resolve().parent.mkdir(parents=True, exist_ok=True)
        bpy.ops.wm.save_as_mainfile(filepath=str(save.resolve()), copy=True, check_existing=False)
    except (OSError, RuntimeError) as error:
        return _say(f"{save} cannot be saved: {_one_line(str(error))}", FAILED)
    return FAILED if failures else DONE


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _start(job: dict[str, Any]) -> backend_job.Job:
    """Build one job.

    Raises:
        UserError: It cannot be done.
    """
    context = bpy.context
    name = job.get("object")
    obj = bpy.data.objects.get(name) if name else context.view_layer.objects.active
    if obj is None:
        known = ", ".join(o.name for o in bpy.data.objects if o.type == 'MESH') or "none"
        raise UserError(
            f'There is no object "{name}". Meshes of the file: {known}.'
            if name
            else f"No object is active: name one with --object. Meshes of the file: {known}."
        )
    settings = preferences.read(context)
    inputs = scene_inputs.collect(context, obj, _choices(job, settings))
    return lip_sync_job.generate_job(inputs, settings)


def _choices(job: dict[str, Any], settings: preferences.Settings) -> Choices:
    text = str(job.get("text") or "")
    if job.get("text_file"):
        try:
            text = Path(job["text_file"]).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"The text {job['text_file']} cannot be read: {error}.") from error
    audio = Path(job["audio"])
    scene = bpy.context.scene
    frame = job.get("frame")
    style, exemplar = str(job["style"]), None
    if not Path(style).suffix and bpy.data.objects.get(style) is not None:
        style, exemplar = "neutral", style
    elif style in paths.saved_style_names():
        style = str(style_library.existing_path(style))
    end = job.get("end")
    return Choices(
        sound_source='FILE' if audio.exists() or audio.suffix else 'STRIP',
        strip=job["audio"],
        sound_file=audio,
        sound_frame=scene.frame_start if frame is None else frame,
        start_seconds=float(job["start"]),
        end_seconds=None if end is None else float(end),
        listen=job["listen"],
        text=text,
        style=style,
        exemplar=exemplar,
        style_strength=float(job["style_strength"]),
        key_target=str(job["keys"]).upper(),
        topology=job["topology"],
        checkpoint=job.get("checkpoint") or settings.checkpoint,
        device=job.get("device") or settings.device,
        decoder=job.get("decoder") or settings.decoder,
    )
