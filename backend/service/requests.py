# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests: made from the flags of the command line or from a list of jobs, and checked.

What enters with a request is checked here before memory is taken for it.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from backend import bundled
from backend.audio.load import MAX_SECONDS
from backend.errors import UserError, excerpt
from backend.inference.emotion_layer import parse_emotion
from backend.inference.style_files import is_exemplar
from backend.io import check_output, check_path, read_text
from backend.motion import frame_rate, num_frames
from backend.service import options
from backend.service.protocol import (
    FacePointsRequest,
    GenerateRequest,
    StyleRequest,
    StyleSource,
)

_CHECKPOINT_FILES: Final = ("model.safetensors", "config.json", "styles.json", "README.md")
_MAX_TEXT_BYTES: Final = 1 << 20
_TABLES: tuple[type, ...] = (options.JobFlags, options.GenerateOptions)


def check(request: GenerateRequest, protected: Collection[str] = ()) -> None:
    """Refuse values that make no sense, before anything is read.

    Args:
        request: The request.
        protected: Files that the result must not overwrite, besides what the request names.

    Raises:
        UserError: Names the value and what is expected.
    """
    given = {name: getattr(request.options, name) for name in options.names(type(request.options))}
    if problem := options.problem(type(request.options), given):
        raise UserError(problem)
    parse_emotion(request.options.emotion)
    if request.options.text and not request.options.text.strip():
        raise UserError("The text is empty: give the words that are spoken, or no text.")
    rate = (request.fps_numerator, request.fps_denominator)
    if min(rate) < 1 or max(rate) > 10**9 or not 1 <= rate[0] / rate[1] <= 1000:
        raise UserError(f"The frame rate is {rate[0]}/{rate[1]}; it must be 1 to 1000 a second.")
    if not (math.isfinite(request.start_seconds) and request.start_seconds >= 0):
        raise UserError(f"The start is {request.start_seconds:g} s; it must be 0 or more.")
    frames = request.num_frames
    if frames is not None and not 0 < frames * rate[1] <= MAX_SECONDS * rate[0]:
        raise UserError(
            f"{str(frames)[:20]} frames were asked for; from one frame to {MAX_SECONDS:g} s can be "
            "animated at once."
        )
    inputs = [request.audio, request.head]
    if request.style.kind in ("file", "exemplar"):
        inputs.append(request.style.value)
    if request.options.topology != "auto":
        inputs.append(request.options.topology)
    _check_out(request.out, [*inputs, *protected], request.options.checkpoint)


def check_style_request(request: StyleRequest) -> None:
    """Refuse a style request whose result cannot be written.

    Args:
        request: The request.

    Raises:
        UserError: Names the file.
    """
    _check_out(request.out, [request.exemplar], request.checkpoint)


def check_face_points_request(request: FacePointsRequest) -> None:
    """Refuse a request for face points whose result cannot be written.

    Args:
        request: The request.

    Raises:
        UserError: Names the file.
    """
    check_output(request.out, [request.head], [bundled.BACKEND_DIR])


def _check_out(out: str, inputs: list[str], checkpoint: str) -> None:
    check_path(checkpoint)
    files = [str(Path(checkpoint, name)) for name in _CHECKPOINT_FILES]
    check_output(out, [*inputs, *files], [bundled.BACKEND_DIR])


def resolve_paths(flags: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Take the relative paths among flags as relative to a folder.

    A style, a topology or a checkpoint is a path where such a file exists, and a name otherwise.

    Args:
        flags: Values by the names of the flags.
        folder: Folder that the paths are relative to.

    Returns:
        The flags, without those that are None.
    """
    result = {name: value for name, value in flags.items() if value is not None}
    kinds = options.paths(*_TABLES)
    for name in kinds.keys() & result.keys():
        value = result[name]
        if isinstance(value, str) and value:
            path = folder / value
            if kinds[name] == "file" or os.path.exists(path):  # noqa: PTH110 - exists() can raise
                result[name] = str(path)
    return result


def input_files(flags: Mapping[str, object]) -> set[str]:
    """Files that a job reads, by their real paths.

    Args:
        flags: Values by the names of the flags, as `resolve_paths` returns them.

    Returns:
        Real paths; of values that are no path, something that no result is named like.
    """
    found = set()
    for name in ("audio", "head", "text_file", "style", "topology"):
        value = flags.get(name)
        if isinstance(value, str) and value:
            with contextlib.suppress(ValueError, OSError):  # the job's own check says so
                found.add(os.path.realpath(value))
    return found


def request_from_flags(job: str, flags: Mapping[str, object]) -> GenerateRequest:
    """Make a request out of the command line's flags or of a job of a list.

    Args:
        job: Id of the job.
        flags: Values by the names of the flags, with underscores; None means that the flag is not
            given.

    Returns:
        The request; `check` is still to be called.

    Raises:
        UserError: A flag is unknown, missing or of the wrong kind.
    """
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    known = {name: table for table in _TABLES for name in options.names(table)}
    if unknown := sorted(given.keys() - known.keys()):
        raise UserError(
            f"Unknown: {excerpt(', '.join(unknown))}. Known: {', '.join(sorted(known))}."
        )
    if missing := [name for name in ("audio", "head", "out") if not given.get(name)]:
        raise UserError(f"Missing: {', '.join(missing)}.")
    if problem := next(filter(None, (options.problem(table, given) for table in _TABLES)), ""):
        raise UserError(problem)
    own = options.JobFlags(**{n: v for n, v in given.items() if known[n] is options.JobFlags})
    rest = {n: v for n, v in given.items() if known[n] is options.GenerateOptions}
    if own.text_file:
        if rest.get("text"):
            raise UserError("Give the spoken words as text or as text_file, not as both.")
        check_output(own.out, [own.text_file])
        rest["text"] = read_text(own.text_file, max_bytes=_MAX_TEXT_BYTES)
        if not rest["text"].strip():
            name = excerpt(Path(own.text_file).name)
            raise UserError(f'"{name}" is empty: write into it what is spoken, or give no text.')
    if own.end is not None and not own.end > own.start:
        raise UserError(f"The end ({own.end:g} s) must lie after the start ({own.start:g} s).")
    fps = frame_rate(str(own.fps))
    return GenerateRequest(
        job=job,
        audio=own.audio,
        head=own.head,
        out=own.out,
        fps_numerator=fps.numerator,
        fps_denominator=fps.denominator,
        start_seconds=own.start,
        num_frames=None if own.end is None else num_frames(own.end - own.start, fps),
        gain=own.gain,
        style=style_source(own.style),
        options=options.GenerateOptions(**rest),
    )


def style_source(text: str) -> StyleSource:
    """Parse the value of the flag ``--style``.

    Args:
        text: ``neutral``, the path of a ``.json`` style code or of an exemplar, see
            `is_exemplar`, or the name of a style of the checkpoint.

    Returns:
        The style for a request.
    """
    if text == "neutral":
        return StyleSource()
    if Path(text).suffix.lower() == ".json":
        return StyleSource(kind="file", value=text)
    return StyleSource(kind="exemplar" if is_exemplar(text) else "named", value=text)
