# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests: made from the command line's flags or a list of jobs, and checked.

What enters with a request is checked here before memory is taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from backend.audio.load import MAX_SECONDS
from backend.errors import UserError
from backend.motion import frame_rate
from backend.service.protocol import GenerateRequest, StyleRequest

MAX_STRENGTH: Final = 3.0

_CHOICES: Final = {
    "device": ("auto", "cpu", "cuda", "mps"),
    "decoder": ("parallel", "autoregressive"),
    "listen": ("auto", "words", "sound"),
}
_FLAGS: Final = {
    "audio", "head", "out", "topology", "style", "style_strength", "fps", "start", "end", "gain",
    "decoder", "listen", "text", "text_file", "checkpoint", "device",
}  # fmt: skip


def check(request: GenerateRequest) -> None:
    """Refuse values that make no sense, before anything is read.

    Raises:
        UserError: Names the value and what is expected.
    """
    for name in _CHOICES:
        _check_choice(name, getattr(request, name))
    rate = (request.fps_numerator, request.fps_denominator)
    if min(rate) < 1 or max(rate) > 10**9 or not 1 <= rate[0] / rate[1] <= 1000:
        raise UserError(f"The frame rate is {rate[0]}/{rate[1]}; it must be 1 to 1000 a second.")
    if not 0 <= request.style_strength <= MAX_STRENGTH:
        raise UserError(
            f"The style's strength is {request.style_strength}; it must be 0 to {MAX_STRENGTH:g}."
        )
    if not (math.isfinite(request.start_seconds) and request.start_seconds >= 0):
        raise UserError(f"The start is {request.start_seconds:g} s; it must be 0 or more.")
    duration = request.duration_seconds
    if duration is not None and not 0 < duration <= MAX_SECONDS:
        raise UserError(
            f"The sound's length is {duration:g} s; it must be above 0 and at most "
            f"{MAX_SECONDS:g} s at once."
        )
    if len(request.text) > 500_000:
        raise UserError(f"The text has {len(request.text)} letters; at most 500000 can be used.")
    _check_out(request.out, [request.audio, request.head, request.style])


def check_style_request(request: StyleRequest) -> None:
    """As `check`, for a request to make a style."""
    _check_choice("device", request.device)
    _check_out(request.out, [request.exemplar])


def _check_choice(name: str, value: str) -> None:
    if value not in _CHOICES[name]:
        raise UserError(f"{name} is {value!r:.60}; it must be one of {', '.join(_CHOICES[name])}.")


def _check_out(out: str, inputs: Sequence[str]) -> None:
    path = Path(out)
    if not out or "\0" in out or path.is_dir() or not path.parent.is_dir():
        raise UserError(f'The result cannot be written to "{out[:200]}". Choose a file to write.')
    for name in inputs:
        if path.resolve() == Path(name.replace("\0", "")).resolve():
            raise UserError(f'The result would overwrite "{path.name}". Choose another file.')


def anchored(flags: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Flags with relative paths made relative to ``folder``; what is None is left out.

    A style, a topology or a checkpoint is a path where such a file exists, and a name otherwise.
    """
    result = {name: value for name, value in flags.items() if value is not None}
    for name in ("audio", "head", "out", "text_file", "style", "topology", "checkpoint"):
        value = result.get(name)
        if isinstance(value, str) and value and "\0" not in value:
            path = folder / value
            if name in ("audio", "head", "out", "text_file") or path.exists():
                result[name] = str(path)
    return result


def request_from_flags(job: str, flags: Mapping[str, object]) -> GenerateRequest:
    """A request from the command line's flags or from a job of a list.

    Args:
        job: Id of the job.
        flags: By the names of the flags, with underscores; what is None is not given.

    Raises:
        UserError: A flag is unknown, missing or of the wrong kind.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if unknown := sorted(given.keys() - _FLAGS):
        raise UserError(f"Unknown: {', '.join(unknown)[:200]}. Known: {', '.join(sorted(_FLAGS))}.")
    if missing := [name for name in ("audio", "head", "out") if not given.get(name)]:
        raise UserError(f"Missing: {', '.join(missing)}.")
    texts = {
        name: _as_text(name, given.get(name, ""))
        for name in _FLAGS - {"start", "end", "gain", "style_strength", "fps"}
        if name in given
    }
    numbers: dict[str, float] = {
        name: _as_number(name, given[name])
        for name in ("start", "end", "gain", "style_strength")
        if name in given
    }
    if (text_file := texts.pop("text_file", None)) is not None:
        texts["text"] = _read_text(Path(text_file))
    start, end = numbers.pop("start", 0.0), numbers.pop("end", None)
    if end is not None and not end > start:
        raise UserError(f"The end ({end:g} s) must lie after the start ({start:g} s).")
    given_fields: dict[str, Any] = {**texts, **numbers}
    fps = frame_rate(str(given.get("fps", 30)))
    return GenerateRequest(
        job=job,
        fps_numerator=fps.numerator,
        fps_denominator=fps.denominator,
        start_seconds=start,
        duration_seconds=None if end is None else end - start,
        **given_fields,
    )


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > 1 << 20:
            raise UserError(f'"{path.name}" is too large for a text (more than 1 MB).')
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f'"{path}" cannot be read: {error.strerror or error}.') from error
    except UnicodeDecodeError as error:
        raise UserError(f'"{path.name}" is not UTF-8 text. Save it as UTF-8.') from error


def _as_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name} is {str(value)[:60]!r}; it must be text.")
    return value


def _as_number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{name} is {str(value)[:60]!r}; it must be a number.")
    return float(value)
