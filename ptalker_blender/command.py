# SPDX-License-Identifier: GPL-3.0-or-later
"""``blender -b head.blend --command ptalker``: flags, job list, exit codes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal

import bpy

from . import (
    backend_job,
    head_motion,
    job_runner,
    lip_sync_job,
    options,
    paths,
    preferences,
    scene_inputs,
    speech_action,
    style_library,
)
from .head_motion import HeadTarget
from .options import about
from .protocol import StyleSource, UserError
from .scene_inputs import Choices, SceneInputs
from .typed import settings_of

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130
_MAX_LIST_BYTES: Final = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFlags:
    """What the command and a list of jobs take besides `GenerateOptions`."""

    object: str = field(
        default="", metadata=about("the head (default: the file's active object)", metavar="HEAD")
    )
    audio: str = field(
        default="",
        metadata=about(
            "sound or video file, or the name of a sound strip", metavar="FILE", path="name"
        ),
    )
    style: str = field(
        default="neutral",
        metadata=about(
            "a style's name, a .json style code, an object, or an exemplar: an .npz, a .csv of "
            "Live Link Face, a .txt of Face Cap, or a folder of them",
            metavar="NAME|FILE|OBJECT",
            path="name",
        ),
    )
    start: float = field(
        default=0.0, metadata=about("start in the file, in seconds", metavar="S", minimum=0.0)
    )
    end: float | None = field(
        default=None,
        metadata=about("end in the file, in seconds (default: the file's end)", metavar="S"),
    )
    frame: int | None = field(
        default=None,
        metadata=about("frame of the start (default: the scene's first)", metavar="N"),
    )
    text_file: str = field(
        default="", metadata=about("a UTF-8 file with the words", metavar="FILE", path="name")
    )
    head_target: str = field(
        default="",
        metadata=about(
            "what the head turns with: an object, or ARMATURE:BONE (default: it does not turn)",
            metavar="OBJECT",
        ),
    )
    keys: Literal["auto", "new", "existing"] = field(
        default="auto", metadata=about("which shape keys are animated")
    )


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
    add("--save", metavar="OUT.blend", help="where to save the result; needed but for --setup")
    add("--setup", action="store_true", help="add PyTorch, as the button in the preferences does")
    add(
        "--backend-python",
        metavar="PATH",
        help="the Python of a ready environment that does the jobs, in place of PTalker's engine",
    )
    add("--jobs", metavar="FILE.json", help="many jobs: a list of objects with these flags as keys")
    for table in _tables():
        options.add_flags(parser, table)
    for name in options.values_of(preferences.Settings()):
        parser.set_defaults(**{name: None})
    parser.epilog = "Checkpoint, device and decoder are by default those of the preferences."
    return parser


def _tables() -> tuple[type, ...]:
    """Tables of the flags, which are the keys of a job too."""
    return JobFlags, options.GenerateOptions


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns Blender's exit status."""
    try:
        flags = _parser().parse_args(list(arguments))
        if flags.setup:
            return _set_up()
        _use_python(flags.backend_python)
        job_list = _job_list(flags)
    except _UsageError as error:
        return _say(str(error), WRONG_USAGE)
    except SystemExit:  # --help
        return DONE
    previous = {s: signal.signal(s, _interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _run(job_list, Path(flags.save))
    except KeyboardInterrupt:
        return _say("interrupted; nothing was saved", INTERRUPTED)
    finally:
        backend_job.release_backend()
        for number, handler in previous.items():
            # None: the handler came from Blender itself, not from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _set_up() -> int:
    """Add PyTorch; the operator waits for the end where there is no window."""
    if not paths.has_torch_setup():
        return _say("this build of PTalker cannot add PyTorch", WRONG_USAGE)
    try:
        operators: Any = bpy.ops
        operators.ptalker.setup_backend('EXEC_DEFAULT')
    except RuntimeError as error:  # what the operator reported
        return _say(_one_line(str(error).removeprefix("Error:")), FAILED)
    sys.stdout.write(f"ptalker: {settings_of(bpy.context.window_manager).result_text}\n")
    sys.stdout.flush()
    return DONE


def _use_python(python: str | None) -> None:
    """Let an environment of the user do the jobs of this run.

    Args:
        python: Its Python; None for PTalker's own engine, or what the preferences name.

    Raises:
        _UsageError: There is no such program.
    """
    if python is None:
        return
    path = Path(python).absolute()  # not resolved: an environment's Python is a link
    if problem := paths.python_problem(path):
        raise _UsageError(problem)
    os.environ[paths.PYTHON_VARIABLE] = str(path)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str, status: int) -> int:
    sys.stderr.write(f"ptalker: {text}\n")
    sys.stderr.flush()
    return status


def _job_list(flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Collect the jobs: one of the flags, or those of the list with the flags as defaults.

    Args:
        flags: The command's flags.

    Returns:
        Values by the names of the flags, for each job.

    Raises:
        _UsageError: The flags or the list cannot be used.
    """
    if flags.save is None:
        raise _UsageError("--save OUT.blend is needed")
    known = [name for table in _tables() for name in options.names(table)]
    given = {name: value for name in known if (value := getattr(flags, name)) is not None}
    if flags.jobs is None:
        if not flags.audio:
            raise _UsageError("--audio FILE or --jobs FILE.json is needed")
        return [_checked(_absolute(given, Path.cwd()), "the flags")]
    path = Path(flags.jobs)
    try:
        listed = json.loads(_read(path))  # UTF-8 or UTF-16, with or without a mark
    except UnicodeDecodeError as error:
        raise _UsageError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _UsageError(f"{path} cannot be read: {error!s:.200}") from error
    if not isinstance(listed, list) or not listed or not all(isinstance(j, dict) for j in listed):
        raise _UsageError(f"{path} must hold a list of objects, at least one")
    found = []
    for number, entry in enumerate(listed, 1):
        entry = {
            key if key.replace("-", "_") in entry else key.replace("-", "_"): value
            for key, value in entry.items()
        }
        if unknown := sorted(entry.keys() - set(known)):
            names = ", ".join(unknown)
            raise _UsageError(f"job {number} of {path} has unknown keys: {names:.200}")
        if entry.keys() & {"text", "text_file"}:
            entry = {"text": "", "text_file": "", **entry}  # not one of the flags beside its own
        job = {**_absolute(given, Path.cwd()), **_absolute(entry, path.resolve().parent)}
        found.append(_checked(job, f"job {number} of {path}"))
    return found


def _checked(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Check the values of a job.

    Args:
        job: Values by the names of the flags.
        name: What messages call the job.

    Returns:
        The job as it was given.

    Raises:
        _UsageError: A value makes no sense.
    """
    if problem := next(filter(None, (options.problem(table, job) for table in _tables())), ""):
        raise _UsageError(f"{name}: {problem}")
    if not job.get("audio"):
        raise _UsageError(f"{name} names no audio")
    if job.get("text") and job.get("text_file"):
        raise _UsageError(f"{name}: give the words as text or as text_file, not as both")
    return job


def _absolute(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """File names relative to a folder become absolute; what is no file there stays a name.

    The backslashes of a list from Windows count as slashes, where there is such a file.
    """
    absolute = dict(job)
    for key in options.paths(*_tables()):
        value = job.get(key)
        if isinstance(value, str) and value:
            spellings = dict.fromkeys((value, value.replace("\\", "/")))
            found = (folder / name for name in spellings if os.path.exists(folder / name))  # noqa: PTH110 - Path.exists() can raise
            absolute[key] = str(next(found, value))
    return absolute


def _read(path: Path) -> bytes:
    """The content of a list; a pipe or a device could be endless."""
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.stat().st_size > _MAX_LIST_BYTES:
        raise ValueError("it is too large")
    return path.read_bytes()


def _run(job_list: list[dict[str, Any]], save: Path) -> int:
    if not bpy.data.filepath:
        return _say("give the .blend file with the head before --command", WRONG_USAGE)
    failures = 0
    lines: list[_LineOfJob] = []
    for number, job in enumerate(job_list, 1):
        name = _one_line(
            f"job {number} ({job.get('object') or 'active object'}, {job['audio']:.200})"
        )
        try:
            inputs, settings = _collect(job)
            line = _line_of_job(inputs, lines)
            outcome = job_runner.run(lip_sync_job.generate_job(inputs, settings))
        except UserError as error:
            failures += 1
            _say(f"{name}: {_one_line(str(error))}", FAILED)
            continue
        for warning in outcome.warnings:
            _say(f"{name}: warning: {_one_line(warning)}", DONE)
        if outcome.kind == 'DONE':
            lines.append(line)
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


@dataclass(frozen=True, slots=True)
class _LineOfJob:
    """The line of dialogue that a job wrote.

    Attributes:
        head: ``session_uid`` of the head.
        line: The line and its place.
    """

    head: int
    line: speech_action.Line


def _line_of_job(inputs: SceneInputs, lines: Sequence[_LineOfJob]) -> _LineOfJob:
    """The line that a job is to write.

    Args:
        inputs: What the job is made from.
        lines: Lines that the jobs before it wrote.

    Returns:
        The line.

    Raises:
        UserError: It would replace one of these lines.
    """
    line = lip_sync_job.line_of(inputs)
    rest = max(1, round(speech_action.REST_SECONDS * float(inputs.fps)))
    for other in (entry.line for entry in lines if entry.head == inputs.head.uid):
        is_same_time = abs(other.first_frame - line.first_frame) <= rest
        if other.key == line.key or is_same_time:
            raise UserError(
                f'Another job of the list wrote the line "{other.name}" at frame '
                f'{other.first_frame} of "{inputs.head.name}", which this one would replace.'
            )
    return _LineOfJob(inputs.head.uid, line)


def _collect(job: dict[str, Any]) -> tuple[SceneInputs, preferences.Settings]:
    """Collect what a job is made from.

    Args:
        job: Values by the names of the flags.

    Returns:
        The inputs, and the preferences.

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
    choices = _choices(job, settings)
    # The flags of the job, too, decide which engine does it.
    wanted = {name: getattr(choices.options, name) for name in options.values_of(settings)}
    return scene_inputs.collect(context, obj, choices), replace(settings, **wanted)


def _choices(job: dict[str, Any], settings: preferences.Settings) -> Choices:
    rest = {name: job[name] for name in options.names(options.GenerateOptions) if name in job}
    values = {**options.values_of(settings), **rest}
    flags = JobFlags(**{name: job[name] for name in options.names(JobFlags) if name in job})
    if flags.text_file:
        try:
            values["text"] = Path(flags.text_file).read_text("utf-8-sig")
        except (OSError, ValueError) as error:
            raise UserError(f"The text {flags.text_file} cannot be read: {error}.") from error
        if not values["text"].strip():
            raise UserError(f"The text {flags.text_file} is empty: write what is spoken into it.")
    audio = Path(flags.audio)
    is_object = _is_exemplar(flags.style)
    return Choices(
        sound_source='FILE' if audio.exists() or audio.suffix else 'STRIP',
        strip=flags.audio,
        sound_file=audio,
        sound_frame=bpy.context.scene.frame_start if flags.frame is None else flags.frame,
        start_seconds=flags.start,
        end_seconds=flags.end,
        style=StyleSource() if is_object else _style(flags.style, values["checkpoint"]),
        exemplar=flags.style if is_object else None,
        key_target=flags.keys.upper(),
        head_target=_head_target(flags.head_target),
        options=options.GenerateOptions(**values),
    )


def _head_target(text: str) -> HeadTarget | None:
    """What the flag ``--head-target`` means.

    Args:
        text: Name of an object, or of an armature and a bone of it; empty for nothing.

    Returns:
        The target; None where the head does not turn.

    Raises:
        UserError: The file has nothing of this name.
    """
    if not text:
        return None
    armature, _, bone = text.partition(":")
    is_object = bpy.data.objects.get(text) is not None
    target = HeadTarget(text) if is_object else HeadTarget(armature, bone)
    if problem := head_motion.problem(target):
        raise UserError(problem)
    return target


def _is_exemplar(style: str) -> bool:
    """Whether the flag ``--style`` names an object of the file."""
    is_name = style != "neutral" and not Path(style).suffix
    return is_name and bpy.data.objects.get(style) is not None


def _style(text: str, checkpoint: str) -> StyleSource:
    """What the flag ``--style`` means, where it names no object.

    A style that is neither the model's nor saved is sent by its name: the backend names those
    that there are.
    """
    if text == "neutral":
        return StyleSource()
    if text in (*paths.model_style_names(checkpoint), *paths.saved_style_names()):
        return style_library.find(text, checkpoint=checkpoint)
    path = Path(text)
    if path.suffix.lower() == ".json":
        return StyleSource(kind="file", value=text)
    is_exemplar = path.suffix.lower() in scene_inputs.EXEMPLAR_SUFFIXES or path.is_dir()
    return StyleSource(kind="exemplar" if is_exemplar else "named", value=text)
