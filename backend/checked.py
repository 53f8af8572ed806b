# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of frozen dataclasses, and their JSON, read back strictly.

Apart from ``config.py``, which says what the fields are and not how fields are read.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Config = TypeVar("_Config")


def require(condition: bool, text: str) -> None:
    """Raise `ValueError` with a text unless a condition holds."""
    if not condition:
        raise ValueError(text)


def require_positive(config: object, *names: str) -> None:
    """The named fields are finite numbers above 0."""
    for name in names:
        value = getattr(config, name)
        require(math.isfinite(value) and value > 0, f"{name} is {value}, expected a number above 0")


def require_share(config: object, *names: str) -> None:
    """The named fields are at least 0 and below 1."""
    for name in names:
        value = getattr(config, name)
        require(0.0 <= value < 1.0, f"{name} is {value}, expected 0 to below 1")


def to_json(config: DataclassInstance) -> str:
    """A dataclass as JSON text, which `from_json` reads back to an equal value."""
    return json.dumps(asdict(config), indent=2)


def from_json(kind: type[_Config], text: str) -> _Config:
    """Read a dataclass, strictly.

    Args:
        kind: The class; its fields are numbers, texts, booleans, `Literal`s of texts, tuples of
            one of these, or such dataclasses.
        text: JSON of an object with exactly the fields of the class.

    Returns:
        The value.

    Raises:
        ValueError: Not JSON, a field missing, unknown or of the wrong type, or a value that the
            class refuses.
    """
    value: _Config = _parse(kind, json.loads(text), kind.__name__)
    return value


def _parse(kind: Any, value: Any, name: str) -> Any:
    if is_dataclass(kind):
        require(isinstance(value, dict), f"{name} is {value!r:.60}, expected an object")
        expected = {item.name for item in fields(kind)}
        odd = sorted(expected ^ set(value))
        require(not odd, f"{name} lacks, or should not have: {', '.join(odd)}")
        hints = get_type_hints(kind)
        return kind(**{key: _parse(hints[key], value[key], key) for key in expected})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        require(isinstance(value, list), f"{name} is {value!r:.60}, expected a list")
        return tuple(_parse(get_args(kind)[0], item, name) for item in value)
    if get_origin(kind) is Literal:
        require(
            isinstance(value, str) and value in get_args(kind),
            f"{name} is {value!r:.60}, expected one of {', '.join(get_args(kind))}",
        )
        return value
    if kind is float and type(value) is int:
        return float(value)
    require(type(value) is kind, f"{name} is {value!r:.60}, expected {kind.__name__}")
    return value
