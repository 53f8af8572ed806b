# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of options: flags of the command line, keys of job lists and fields of requests.

A table is a dataclass. Its flags, what its values may be and its JSON follow from its fields.
``GenerateOptions`` is the same table as in ``ptalker_blender/options.py``;
tests/test_protocol_contract.py holds the two together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import argparse

Device = Literal["auto", "cpu", "cuda", "mps"]
Engine = Literal["auto", "onnx", "torch"]
Decoder = Literal["parallel", "autoregressive"]
Listen = Literal["auto", "words", "sound"]

_LARGEST: Final = 1e300
"""JSON's 1e999 is read as infinity."""


@dataclass(frozen=True, slots=True)
class Option:
    """What a table says of an option besides its name, its type and its default.

    Attributes:
        help: Description for ``--help``.
        metavar: What stands for the value in ``--help``; empty where there are choices.
        minimum: Smallest number allowed; None where there is no limit.
        maximum: Largest number allowed; None where there is no limit.
        max_letters: Length of the longest text allowed; None where there is no limit.
        path: ``file`` for the path of a file; ``name`` for a path where such a file exists and a
            name otherwise; empty for anything else.
    """

    help: str
    metavar: str = ""
    minimum: float | None = None
    maximum: float | None = None
    max_letters: int | None = None
    path: Literal["", "file", "name"] = ""


def about(text: str, **details: Any) -> dict[str, Option]:
    """Metadata of a field of a table of options.

    Args:
        text: Description for ``--help``.
        **details: Other fields of `Option`.

    Returns:
        The metadata, with the key ``option``.
    """
    return {"option": Option(text, **details)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """How a head is animated; fields of a request, flags and keys of job lists."""

    topology: str = field(
        default="auto",
        metadata=about(
            "flame, demo or a topology file; auto goes by the head's faces",
            metavar="NAME|FILE",
            path="name",
        ),
    )
    style_strength: float = field(
        default=1.0,
        metadata=about(
            "0 neutral, 1 the style, above 1 exaggerated", metavar="X", minimum=0.0, maximum=3.0
        ),
    )
    upper_face_strength: float = field(
        default=1.0,
        metadata=about(
            "part of the style's strength that brows and lids get",
            metavar="X",
            minimum=0.0,
            maximum=3.0,
        ),
    )
    exemplar_neutral: int = field(
        default=-1,
        metadata=about(
            "frame of the exemplar in which its face is at rest, counted from 0; -1 estimates it",
            metavar="N",
            minimum=-1,
            maximum=2_147_483_647,
        ),
    )
    decoder: Decoder = field(
        default="parallel", metadata=about("all frames in one pass, or frame after frame")
    )
    listen: Listen = field(
        default="auto",
        metadata=about("recognise English words, go by the sound alone, or choose between the two"),
    )
    text: str = field(
        default="",
        metadata=about("the words that are spoken", metavar="WORDS", max_letters=500_000),
    )
    language: str = field(
        default="auto",
        metadata=about(
            "code of the spoken language, e.g. de; auto goes by the text",
            metavar="auto|CODE",
            max_letters=20,
        ),
    )
    checkpoint: str = field(
        default="base",
        metadata=about(
            "a checkpoint folder or a bundled one's name", metavar="DIR|NAME", path="name"
        ),
    )
    engine: Engine = field(
        default="auto",
        metadata=about(
            "what runs the model: ONNX Runtime on the processor, or PyTorch; auto is PyTorch where "
            "it has a graphics card or the model needs it"
        ),
    )
    device: Device = field(
        default="auto", metadata=about("where the model runs; auto is the fastest there is")
    )
    emotion: str = field(
        default="",
        metadata=about(
            "joy:0.7, a blend joy:0.5+surprise:0.3, or a JSON list of [seconds, emotion, amount]; "
            "joy, anger, sadness, fear, disgust, surprise, calm and aroused, 0 to 1.5",
            metavar="NAME:X|LIST",
            max_letters=500_000,
        ),
    )
    emotion_from_voice: float = field(
        default=0.0,
        metadata=about(
            "how far the voice sets the emotion's strength: 0 not at all",
            metavar="X",
            minimum=0.0,
            maximum=1.0,
        ),
    )
    life: float = field(
        default=1.0,
        metadata=about(
            "blinks, gaze, brows, head and breath together: 0 none, 1 as people have them",
            metavar="X",
            minimum=0.0,
            maximum=2.0,
        ),
    )
    blinks: float = field(
        default=1.0, metadata=about("how many blinks", metavar="X", minimum=0.0, maximum=2.0)
    )
    gaze: float = field(
        default=1.0, metadata=about("how far the eyes go", metavar="X", minimum=0.0, maximum=2.0)
    )
    brows: float = field(
        default=1.0,
        metadata=about("how far the brows go by themselves", metavar="X", minimum=0.0, maximum=2.0),
    )
    head_motion: float = field(
        default=1.0, metadata=about("how far the head turns", metavar="X", minimum=0.0, maximum=2.0)
    )
    breath: float = field(
        default=1.0,
        metadata=about("how far the mouth opens to breathe", metavar="X", minimum=0.0, maximum=2.0),
    )
    seed: int = field(
        default=0,
        metadata=about(
            "chooses when and where: another number, another life",
            metavar="N",
            minimum=0,
            maximum=2_147_483_647,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFlags:
    """What the command ``generate`` and a list of jobs take besides `GenerateOptions`."""

    audio: str = field(
        default="", metadata=about("sound or video file", metavar="FILE", path="file")
    )
    head: str = field(
        default="", metadata=about("the head: .npz, .ply or .obj", metavar="FILE", path="file")
    )
    out: str = field(default="", metadata=about("motion.npz to write", metavar="FILE", path="file"))
    style: str = field(
        default="neutral",
        metadata=about(
            "a style's name, a .json style code, or an exemplar: an .npz, a .csv of Live Link "
            "Face, a .txt of Face Cap, or a folder of them",
            metavar="NAME|FILE|FOLDER",
            path="name",
        ),
    )
    fps: str | float = field(
        default="30", metadata=about("frames a second, e.g. 24000/1001", metavar="N[/D]")
    )
    start: float = field(
        default=0.0, metadata=about("start in the file, in seconds", metavar="S", minimum=0.0)
    )
    end: float | None = field(
        default=None,
        metadata=about("end in the file, in seconds (default: the file's end)", metavar="S"),
    )
    gain: float = field(
        default=1.0,
        metadata=about("linear volume of the sound", metavar="X", minimum=0.0, maximum=1000.0),
    )
    text_file: str = field(
        default="", metadata=about("a UTF-8 file with the words", metavar="FILE", path="file")
    )


def names(table: type) -> tuple[str, ...]:
    """Names of a table's options, as the keys of a list of jobs have them."""
    return tuple(entry.name for entry in fields(table))


def paths(*tables: type) -> dict[str, Literal["file", "name"]]:
    """The options of tables that are paths; `Option` says what the values mean."""
    found = {}
    for table in tables:
        for entry in fields(table):
            if entry.metadata["option"].path:
                found[entry.name] = entry.metadata["option"].path
    return found


def choices(kind: Any) -> tuple[str, ...]:
    """The values of a ``Literal``; empty for another type."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def add_flags(
    parser: argparse.ArgumentParser, table: type, *, only: Collection[str] | None = None
) -> None:
    """Add a table's flags to a parser.

    Args:
        parser: Parser of a command.
        table: Table of options; ``style_strength`` becomes ``--style-strength``.
        only: Names of the options to add; None adds all.
    """
    hints = get_type_hints(table)
    for entry in fields(table):
        if only is not None and entry.name not in only:
            continue
        details: Option = entry.metadata["option"]
        is_shown = entry.default not in (None, "")
        default = f"{entry.default:g}" if isinstance(entry.default, float) else entry.default
        parser.add_argument(
            "--" + entry.name.replace("_", "-"),
            default=entry.default,
            type=_parser_of(hints[entry.name]),
            choices=choices(hints[entry.name]) or None,
            metavar=details.metavar or None,
            help=f"{details.help} (default: {default})" if is_shown else details.help,
        )


def _parser_of(kind: Any) -> type:
    """The type that argparse makes of a flag's text."""
    kinds = _parts(kind)
    return next((number for number in (int, float) if number in kinds and str not in kinds), str)


def problem(table: type, given: Mapping[str, object]) -> str:
    """Check values of a table's options.

    Args:
        table: Table of options.
        given: Values by the names of the options; other names are ignored.

    Returns:
        A sentence that says what is wrong; empty where nothing is.
    """
    hints = get_type_hints(table)
    for entry in fields(table):
        if entry.name in given:
            value = given[entry.name]
            allowed = _expected(hints[entry.name], entry.metadata["option"], value)
            if allowed:
                return f"{entry.name} is {value!r:.60}; it must be {allowed}."
    return ""


def _expected(kind: Any, details: Option, value: object) -> str:
    """What a value must be; empty where it is that."""
    if not fits(kind, value):
        number = "a whole number" if int in _parts(kind) else "a number"
        text = "text" if str in _parts(kind) else number
        return f"one of {', '.join(choices(kind))}" if choices(kind) else text
    if isinstance(value, str) and details.max_letters is not None:
        return "" if len(value) <= details.max_letters else f"at most {details.max_letters} letters"
    if isinstance(value, int | float):
        low, high = details.minimum, details.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
    return ""


def fits(kind: Any, value: object) -> bool:
    """Check the type of a value that JSON can hold.

    Args:
        kind: ``str``, ``int``, ``float`` (finite; whole numbers too), ``dict``, ``None``, a
            ``Literal``, a union of these or a list of one of them.
        value: The value.

    Returns:
        Whether the value is of the type.
    """
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(fits(part, value) for part in get_args(kind))
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        return isinstance(value, list) and all(fits(item, part) for part in value)
    if isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and abs(value) < _LARGEST
    return isinstance(value, get_origin(kind) or kind)


def _parts(kind: Any) -> tuple[Any, ...]:
    """The members of a union, without None."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(part for part in parts if part is not NoneType)
