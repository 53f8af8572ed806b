# SPDX-License-Identifier: GPL-3.0-or-later
"""The pipe between the add-on and the backend, the add-on's half: requests out, messages in.

One JSON object per line, UTF-8. The other half is ``backend/service/protocol.py``;
tests/test_protocol_contract.py holds the two together.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final, Literal, TypeVar, get_type_hints

from .options import Device, Engine, GenerateOptions, fits

PROTOCOL_VERSION: Final = 3
MAX_LINE_BYTES: Final = 1 << 22
"""A longer line is refused. The longest text of a job fits, whatever its script; arrays travel as
.npz files, never in messages."""
MAX_JOB_LETTERS: Final = 200
"""Length of the longest id of a job."""


class UserError(Exception):
    """A job failed for a reason that the user can act on; the text is one sentence for them."""


class ProtocolError(ValueError):
    """A line that is not a message of this protocol: a bug or a foreign program."""

    def __init__(self, text: str, *, job: str = "") -> None:
        super().__init__(text)
        self.job = job


class MessageType(StrEnum):
    """Every message name of the protocol, both directions."""

    GENERATE = "generate"
    STYLE = "style"
    FACE_POINTS = "face_points"
    CANCEL = "cancel"
    HELLO = "hello"
    STATUS = "status"
    PROGRESS = "progress"
    WARNING = "warning"
    RESULT = "result"
    CANCELLED = "cancelled"
    ERROR = "error"


FINAL_TYPES: Final = frozenset({MessageType.RESULT, MessageType.CANCELLED, MessageType.ERROR})
"""Exactly one message of these types ends a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleSource:
    """Where the speaking style of a job comes from.

    Attributes:
        kind: ``neutral``; ``named`` for a style of the checkpoint; ``file`` for a style code;
            ``exemplar`` for an animation that shows the style.
        value: Name of the style, or path of the ``.json`` style code or of the exemplar;
            empty for ``neutral``.
    """

    kind: Literal["neutral", "named", "file", "exemplar"] = "neutral"
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """Animate a head to a stretch of a sound file and write ``motion.npz``.

    Attributes:
        job: Id that every message about this job carries.
        head: Head file: .npz as the add-on writes it, .ply or .obj.
        audio: Sound or video file.
        out: ``motion.npz`` to write; it appears complete or not at all.
        fps_numerator: With ``fps_denominator`` the frame rate, e.g. 24000 / 1001.
        fps_denominator: See ``fps_numerator``.
        start_seconds: Where in the file frame 0 lies, 0 or more.
        num_frames: Number of frames to animate; None means up to the file's end.
        gain: Linear volume by which the sound is multiplied first.
        fade: Volume over time besides: pairs of seconds in the file and linear volume, in order of
            time, straight lines between them; empty for none.
        file_seconds: Length of the file as a Blender takes it that cannot tell whether a strip's
            speed was changed; None where it can.
        style: Speaking style of the head.
        options: How the head is animated.
    """

    job: str
    head: str
    audio: str
    out: str
    fps_numerator: int
    fps_denominator: int
    start_seconds: float = 0.0
    num_frames: int | None = None
    gain: float = 1.0
    fade: list[list[float]] = field(default_factory=list)
    file_seconds: float | None = None
    style: StyleSource = field(default=StyleSource())
    options: GenerateOptions = field(default=GenerateOptions())


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleRequest:
    """Turn the animation in ``exemplar`` into a style code in ``out`` (.json).

    ``exemplar_neutral`` is as in `GenerateOptions`.
    """

    job: str
    exemplar: str
    out: str
    exemplar_neutral: int = -1
    checkpoint: str = "base"
    engine: Engine = "auto"
    device: Device = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class FacePointsRequest:
    """Find the face points of ``head`` and write them to ``out`` (.json).

    Points that the head file holds already stay where they are.
    """

    job: str
    head: str
    out: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """Stop the job; its ``cancelled`` message follows unless it has just ended another way."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The backend's first message, sent before anything slow is loaded."""

    protocol_version: int
    backend_version: str
    python: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the job is doing, as a phrase to show."""

    job: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the job's present stage is.

    Attributes:
        job: Id of the job.
        stage: Phrase to show, e.g. ``Recognising words``.
        done: Work done in this stage, 0 to ``total``.
        total: Work in this stage, above 0.
        unit: What ``done`` and ``total`` count, e.g. ``s`` or ``frames``.
        seconds_left: Estimate for the whole job; None while unknown.
    """

    job: str
    stage: str
    done: float
    total: float
    unit: str
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWarning:
    """Something the user should know; the job goes on."""

    job: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The job is done: ``path`` is complete. ``report`` is what motion.npz holds as JSON."""

    job: str
    path: str
    report: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The job ended because it was cancelled; nothing was written."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """The job failed: ``message`` is one sentence for the user, ``detail`` is for the log."""

    job: str
    message: str
    detail: str = ""


JobRequest = GenerateRequest | StyleRequest | FacePointsRequest
Request = JobRequest | CancelRequest
Message = Hello | Status | Progress | JobWarning | Result | Cancelled | Error

_REQUESTS: Final[dict[str, type[Request]]] = {
    MessageType.GENERATE: GenerateRequest,
    MessageType.STYLE: StyleRequest,
    MessageType.FACE_POINTS: FacePointsRequest,
    MessageType.CANCEL: CancelRequest,
}
_MESSAGES: Final[dict[str, type[Message]]] = {
    MessageType.HELLO: Hello,
    MessageType.STATUS: Status,
    MessageType.PROGRESS: Progress,
    MessageType.WARNING: JobWarning,
    MessageType.RESULT: Result,
    MessageType.CANCELLED: Cancelled,
    MessageType.ERROR: Error,
}
_Message = TypeVar("_Message")


def encode(request: Request) -> str:
    """Write a message as one line of JSON.

    Args:
        request: The request.

    Returns:
        The line with its line feed; it can be encoded in UTF-8.

    Raises:
        ProtocolError: The request holds NaN or what JSON cannot say.
        UserError: The request is too long, by the text or the names of files.
    """
    name = next(name for name, kind in _REQUESTS.items() if kind is type(request))
    try:
        values = {"type": name, **asdict(request)}
        text = json.dumps(values, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{type(request).__name__} cannot be sent: {error}") from error
    # A lone surrogate, as in a file's name, becomes its escape.
    line = text.encode("utf-8", "backslashreplace")
    if len(line) > MAX_LINE_BYTES:
        raise UserError(
            "The spoken words, or the names of the files, are too long for one job. Give a text of "
            "at most 500,000 letters."
        )
    return line.decode("utf-8") + "\n"


def parse(line: str | bytes) -> Message:
    """Read a message off one line of JSON.

    Args:
        line: The line.

    Returns:
        The message, with values of the right types.

    Raises:
        ProtocolError: Not a message of this protocol; its ``job`` is the line's, where it has one.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"line has {len(line)} bytes, at most {MAX_LINE_BYTES} are allowed")
    try:
        text = line if isinstance(line, str) else line.decode("utf-8")
        values = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a line of JSON ({error!s:.200}): {line[:80]!r}") from error
    if not isinstance(values, dict):
        raise ProtocolError(f"not a JSON object: {line[:80]!r}")
    found = values.get("job")
    job = found if isinstance(found, str) else ""
    if len(job) > MAX_JOB_LETTERS:
        raise ProtocolError(f"the id of the job has {len(job)} letters: {job[:80]!r}")
    name = values.pop("type", None)
    kind = _MESSAGES.get(name) if isinstance(name, str) else None
    if kind is None:
        given = repr(name)[:80] if isinstance(name, str) else f"of the type {type(name).__name__}"
        raise ProtocolError(f"unknown message type {given}, expected {sorted(_MESSAGES)}", job=job)
    try:
        return _build(kind, values)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{error!s:.400}", job=job) from error


def _build(kind: type[_Message], values: dict[str, Any]) -> _Message:
    """Make a message, or a part of one, out of the values of its fields.

    Args:
        kind: Class of the message or of the part.
        values: Values by the names of the fields, as JSON has them.

    Returns:
        The message or the part.

    Raises:
        ValueError: A field is missing, unknown or of the wrong type.
    """
    entries: Any = fields(kind)  # type: ignore[arg-type] # a dataclass, which a TypeVar cannot say
    hints = _hints(kind)  # type: ignore[arg-type] # as above
    if unknown := sorted(values.keys() - hints.keys()):
        names = ", ".join(repr(name[:40]) for name in unknown[:5])
        raise ValueError(f"{kind.__name__} has {len(unknown)} unknown fields: {names}")
    built: dict[str, Any] = {}
    for entry in entries:
        if entry.name in values:
            value, hint = values[entry.name], hints[entry.name]
            is_part = is_dataclass(hint) and isinstance(value, dict)
            if not (is_part or fits(hint, value)):
                raise ValueError(
                    f"{kind.__name__}.{entry.name} is {str(value)[:80]!r}, expected {entry.type}"
                )
            built[entry.name] = _build(hint, value) if is_part else value
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"{kind.__name__} lacks the field {entry.name!r}")
    return kind(**built)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    """The types of a message's fields; to find them takes longer than to read the message."""
    return get_type_hints(kind)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
