# SPDX-License-Identifier: GPL-3.0-or-later
"""The pipe between the add-on and the backend, the backend's half: requests in, messages out.

One JSON object per line, UTF-8. The other half is ``ptalker_blender/protocol.py``;
tests/test_protocol_contract.py holds the two together.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, Final, Literal, TypeVar, get_type_hints

from backend.service.options import Device, Engine, GenerateOptions, fits

PROTOCOL_VERSION: Final = 3
MAX_LINE_BYTES: Final = 1 << 22
"""A longer line is refused. The longest text of a job fits, whatever its script; arrays travel as
.npz files, never in messages."""
MAX_JOB_LETTERS: Final = 200
"""Length of the longest id of a job."""


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
        value: Name of the style, or path of the ``.json`` style code or of the exemplar, a file
            or a folder; empty for ``neutral``.
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

_MAX_LETTERS: Final = {
    "job": MAX_JOB_LETTERS, "text": 1000, "stage": 1000, "unit": 1000, "message": 1000,
    "detail": 20_000, "path": 40_000,
}  # fmt: skip
"""Length of the longest text that is sent in a field."""
_SHOWN: Final = {"text", "stage", "unit", "message", "detail"}
"""Fields that are shown and so may hold no lone surrogates."""


def encode(message: Message) -> str:
    """Write a message as one line of JSON.

    No message is too long to be sent: long texts lose their middle, a report that is too long its
    ends.

    Args:
        message: The message.

    Returns:
        The line with its line feed; it can be encoded in UTF-8.

    Raises:
        ProtocolError: The message holds NaN or what JSON cannot say.
    """
    name = next(name for name, kind in _MESSAGES.items() if kind is type(message))
    try:
        values = {"type": name, **asdict(message)}
        for key, letters in _MAX_LETTERS.items():
            if key in values:
                values[key] = shortened(values[key], letters)
        for key in _SHOWN & values.keys():
            values[key] = values[key].encode("utf-8", "replace").decode("utf-8")
        line = _line(values)
        if len(line) > MAX_LINE_BYTES:
            line = _line(values | {"report": _cut(values["report"], 1000)})
        if len(line) > MAX_LINE_BYTES:
            line = _line(values | {"report": {}})
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"{type(message).__name__} cannot be sent: {error!s:.400}") from error
    return line.decode("utf-8") + "\n"


def _line(values: dict[str, Any]) -> bytes:
    """The values as JSON in UTF-8; a lone surrogate, as in a file's name, becomes its escape."""
    text = json.dumps(values, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def shortened(text: str, letters: int) -> str:
    """A text without its middle, where it has more than so many letters."""
    if len(text) <= letters:
        return text
    half = letters // 2 - 5
    return f"{text[:half]} [...] {text[-half:]}"


def _cut(value: Any, size: int) -> Any:
    """A value of JSON with shortened texts, and without the ends of long lists and objects."""
    if isinstance(value, str):
        return shortened(value, size)
    if isinstance(value, list | tuple):
        return [_cut(item, size) for item in value[:size]]
    if isinstance(value, dict):
        items = list(value.items())[:size]
        return {key: _cut(item, size) for key, item in items if len(str(key)) <= size}
    return value


def parse(line: str | bytes) -> Request:
    """Read a request off one line of JSON.

    Args:
        line: The line.

    Returns:
        The request, with values of the right types.

    Raises:
        ProtocolError: Not a request of this protocol; its ``job`` is the line's, where it has one.
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
    kind = _REQUESTS.get(name) if isinstance(name, str) else None
    if kind is None:
        given = repr(name)[:80] if isinstance(name, str) else f"of the type {type(name).__name__}"
        raise ProtocolError(f"unknown message type {given}, expected {sorted(_REQUESTS)}", job=job)
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
    hints = get_type_hints(kind)
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


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
