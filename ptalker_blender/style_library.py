# SPDX-License-Identifier: GPL-3.0-or-later
"""Saved styles: list, save, load, blend, delete. One JSON file each, as the backend writes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import paths
from .protocol import StyleSource, UserError

FORMAT: Final = "ptalker-style"
MAX_BYTES: Final = 16 << 20
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f<>:"/\\|?*]')


@dataclass(frozen=True, slots=True)
class StyleCode:
    """A style code: the input of a model that says in which style it is to speak.

    Attributes:
        code: Numbers of the style code.
        model: Fingerprint of the model that the code is for.
        version: Version of the file format.
        source: Name of what the style was made from.
        gains: ARKit name -> gain and offset, and mean and spread where they are known.
        jaw_spread: Spread of the jaw in the known sentence; see ``docs/styles.md``.
    """

    code: tuple[float, ...]
    model: str
    version: int
    source: str
    gains: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    jaw_spread: float | None = None


def path_of(name: str) -> Path:
    """The file of a style, whether it exists or not.

    Args:
        name: Name of the style.

    Returns:
        Path of the file.

    Raises:
        UserError: No file can have that name.
    """
    clean = name.strip()
    if not clean or clean.startswith(".") or _FORBIDDEN.search(clean) or len(clean) > 60:
        raise UserError(
            f'"{name}" cannot be the name of a style. Use up to 60 letters, digits and spaces.'
        )
    return paths.styles_dir() / f"{clean}.json"


def existing_path(name: str) -> Path:
    """The file of a saved style.

    Args:
        name: Name of the style.

    Returns:
        Path of the file.

    Raises:
        UserError: There is none.
    """
    path = path_of(name)
    if not path.is_file():
        raise UserError(f'There is no saved style "{name}". Choose another one.')
    return path


def find(name: str, *, checkpoint: str) -> StyleSource:
    """Find a style by its name: one of the model, else a saved one.

    Args:
        name: Name of the style.
        checkpoint: Name of a bundled checkpoint, or a checkpoint folder.

    Returns:
        The style for a request.

    Raises:
        UserError: There is none.
    """
    if name in paths.model_style_names(checkpoint):
        return StyleSource(kind="named", value=name)
    return StyleSource(kind="file", value=str(existing_path(name)))


def load(path: Path) -> StyleCode:
    """Read a style code.

    Args:
        path: The file.

    Returns:
        The style code.

    Raises:
        UserError: The file is no style code.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path.name} is too large for a style. Choose another one.")
        values = json.loads(path.read_text("utf-8"))
        style = StyleCode(
            code=tuple(float(value) for value in values["code"]),
            model=str(values.get("model", "")),
            version=int(values.get("format_version", 1)),
            source=str(values.get("source", "")),
            gains={
                str(name): tuple(float(value) for value in row)
                for name, row in (values.get("gains") or {}).items()
            },
            jaw_spread=float(values["jaw_spread"]) if "jaw_spread" in values else None,
        )
        kind = values["format"]
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path.name} is not a style of PTalker ({error!s:.200}). Save the style again."
        ) from error
    numbers = [*style.code, *(value for row in style.gains.values() for value in row)]
    has_rows = all(len(row) in (2, 4) for row in style.gains.values())
    if kind != FORMAT or not style.code or not has_rows or not all(map(math.isfinite, numbers)):
        raise UserError(f"{path.name} is not a style of PTalker. Save the style again.")
    return style


def save(name: str, style: StyleCode) -> Path:
    """Write a style code, whole or not at all.

    Args:
        name: Name of the style.
        style: The style code.

    Returns:
        Path of the file.

    Raises:
        UserError: The name cannot be used, or the file cannot be written.
    """
    path = path_of(name)
    values: dict[str, object] = {
        "format": FORMAT,
        "format_version": style.version,
        "model": style.model,
        "source": style.source,
        "code": list(style.code),
    }
    if style.jaw_spread is not None:
        values["gains"] = {name: list(row) for name, row in style.gains.items()}
        values["jaw_spread"] = style.jaw_spread
    return _write(path, json.dumps(values))


def adopt(name: str, path: Path) -> Path:
    """Keep a style code that the backend has written.

    Args:
        name: Name of the style.
        path: File that the backend has written.

    Returns:
        Path of the saved style.

    Raises:
        UserError: It is no style code, or it cannot be kept.
    """
    load(path)
    return _write(path_of(name), path.read_text("utf-8"))


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"The style could not be saved: {error.strerror or error}.") from error
    return path


def delete(name: str) -> None:
    """Delete a saved style.

    Args:
        name: Name of the style.

    Raises:
        UserError: There is none.
    """
    existing_path(name).unlink()


def blend(first: StyleCode, second: StyleCode, factor: float) -> StyleCode:
    """Interpolate between two styles.

    Args:
        first: One style.
        second: Other style, of the same model.
        factor: 0 is the first style, 1 the second.

    Returns:
        The style between them.

    Raises:
        UserError: They are for different models.
    """
    if first.model != second.model or len(first.code) != len(second.code):
        raise UserError(
            "The two styles are for different models. Save both with the same checkpoint."
        )
    code = tuple(a + factor * (b - a) for a, b in zip(first.code, second.code, strict=True))
    source = f"{1 - factor:.0%} {first.source}, {factor:.0%} {second.source}"
    version = max(first.version, second.version)
    gains, spread = _blended_gains(first, second, factor)
    return StyleCode(code, first.model, version, source, gains, spread)


def _blended_gains(
    first: StyleCode, second: StyleCode, factor: float
) -> tuple[dict[str, tuple[float, ...]], float | None]:
    """Gains between those of two styles; a style without them changes nothing and has no figures.

    Args:
        first: One style.
        second: Other style.
        factor: 0 is the first style, 1 the second.

    Returns:
        The gains, and the spread of the jaw.
    """
    spreads = [style.jaw_spread for style in (first, second) if style.jaw_spread is not None]
    if not spreads:
        return {}, None
    gains = {}
    for name in dict.fromkeys((*first.gains, *second.gains)):
        a, b = (style.gains.get(name, (1.0, 0.0)) for style in (first, second))
        gains[name] = tuple(x + factor * (y - x) for x, y in zip(a, b, strict=False))
    return gains, spreads[0] + factor * (spreads[-1] - spreads[0])
