# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic writing of files, and checked reading of arrays (npz) and dataclasses (JSON)."""

from __future__ import annotations

import json
import math
import secrets
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import (
    IO,
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from numpy.typing import NDArray

from backend.checks import require
from backend.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


_Config = TypeVar("_Config")
MAX_FRAMES: Final = 2_000_000
"""Largest number of rows that are read of an array, by default."""


def to_json(config: DataclassInstance) -> str:
    """A dataclass as JSON text, which `from_json` reads back to an equal value."""
    return json.dumps(asdict(config), indent=2)


def from_json(kind: type[_Config], text: str) -> _Config:
    """Reads a dataclass strictly.

    Args:
        kind: The class; its fields are numbers, texts, booleans, `Literal`s of texts, tuples of
            one of these, or such dataclasses.
        text: JSON of an object with exactly the fields of the class.

    Returns:
        An instance of the class.

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


def write_atomically(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    """Writes a file that appears complete or not at all.

    Args:
        path: The file.
        save: Called with a file open for writing, whose contents become those of ``path``.

    Raises:
        UserError: The folder is missing or not writable, or the disk is full.
    """
    # A name of its own: on a cluster a job that was given up may still be at it.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("wb") as file:
            save(file)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f'"{path}" cannot be written: {error.strerror or error}. Choose another folder or free '
            "some space."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def read_arrays(
    path: Path, keys: list[str], *, max_rows: int = MAX_FRAMES, max_bytes: int = 1 << 31
) -> dict[str, NDArray[np.generic]]:
    """Reads arrays of an .npz file; sizes are checked before memory is taken, nothing is unpickled.

    Args:
        path: The .npz file.
        keys: Names of the arrays; all must be there.
        max_rows: Number of first rows that are read of a longer array.
        max_bytes: Largest size of one array in memory.

    Returns:
        The arrays by name.

    Raises:
        UserError: The file is missing or damaged, lacks an array, or an array is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [key for key in keys if f"{key}.npy" not in archive.namelist()]
            if missing:
                raise UserError(f'"{path.name}" lacks {", ".join(missing)}. Export it again.')
            result = {}
            for key in keys:
                with archive.open(f"{key}.npy") as file:
                    result[key] = _read_array(file, max_rows=max_rows, max_bytes=max_bytes)
            return result
    except OSError as error:
        raise UserError(f'"{path}" cannot be read: {error.strerror or error}.') from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f'"{path.name}" is damaged ({error}). Export it again.') from error


def _read_array(file: IO[bytes], *, max_rows: int, max_bytes: int) -> NDArray[np.generic]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    if is_fortran and shape[0] > max_rows:
        raise ValueError(f"an array in Fortran's order with {shape[0]} rows")
    shape = (min(shape[0], max_rows), *shape[1:]) if shape else ()
    size = math.prod(shape) * dtype.itemsize
    if size > max_bytes:
        raise ValueError(f"an array of {size} bytes, at most {max_bytes} are read")
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes of {size}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def write_text(path: Path, text: str) -> None:
    """Writes a text file that appears complete or not at all."""
    data = text.encode()

    def save(file: IO[bytes]) -> None:
        file.write(data)

    write_atomically(path, save)
