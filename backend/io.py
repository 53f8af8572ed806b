# SPDX-License-Identifier: GPL-3.0-or-later
"""Files: guarded reading of bytes, text, JSON and arrays (npz), and atomic writing.

Whatever a path names, a reader here returns what it holds within the limits given or raises
`UserError` at once: nothing waits for a pipe, reads a device or takes memory for more than it may.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import lzma
import math
import os
import secrets
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, fields, is_dataclass
from io import BufferedReader
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
from backend.errors import UserError, excerpt

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


_Config = TypeVar("_Config")
MAX_FRAMES: Final = 2_000_000
"""Largest number of rows that are read of an array, by default."""

_MAX_JSON_DEPTH: Final = 32
_MAX_DIGITS: Final = 19
_MAX_MEMBERS: Final = 4096
_MAX_NAME_BYTES: Final = 255
_PARTIAL_ENDING: Final = ".12345678.part"
_ARRAY_KINDS: Final = "biufUS"
_TENSOR_KINDS: Final = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4",
                        "U8": "<u1", "I8": "<i1", "BOOL": "?"}  # fmt: skip
_MAX_TENSOR_BYTES: Final = 1 << 34
_MAX_HEADER_BYTES: Final = 16 << 20
_ARCHIVE_ERRORS: Final = (
    ValueError, TypeError, KeyError, IndexError, EOFError, ArithmeticError, RuntimeError,
    MemoryError, SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
    lzma.LZMAError,
)  # fmt: skip
"""What ``zipfile`` and NumPy's parser of headers raise on damaged files."""


@contextlib.contextmanager
def open_file(path: str | Path, *, max_bytes: int) -> Iterator[BufferedReader]:
    """Opens a regular file for reading; pipes, devices and folders are refused at once.

    Args:
        path: The file, or a link to it.
        max_bytes: Largest size of the file.

    Yields:
        The file, opened for reading bytes.

    Raises:
        UserError: There is no such file, it is no regular one, it is too large, or reading fails.
    """
    shown = excerpt(path, 120)
    try:
        with _open_regular(Path(path), shown) as file:
            if os.fstat(file.fileno()).st_size > max_bytes:
                raise UserError(_too_large(path, max_bytes))
            yield file
    except OSError as error:
        raise UserError(f'"{shown}" cannot be read: {error.strerror or excerpt(error)}.') from error


def _open_regular(path: Path, shown: str) -> BufferedReader:
    try:
        if stat.S_ISREG(path.stat().st_mode):  # before opening, which can act on a device
            # Not blocking, since a pipe may have taken the file's place.
            flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
            file = os.fdopen(os.open(path, flags), "rb")
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file
            file.close()
    except ValueError as error:
        raise UserError(f'"{shown}" is no name that a file can have.') from error
    raise UserError(f'"{shown}" is not a file. Choose another one.')


def _too_large(path: str | Path, max_bytes: int) -> str:
    return f'"{excerpt(Path(path).name)}" is too large: at most {max_bytes / 1e6:.3g} MB are read.'


def read_bytes(path: str | Path, *, max_bytes: int) -> bytes:
    """Reads a regular file whole; raises as `open_file`."""
    with open_file(path, max_bytes=max_bytes) as file:
        # The system gives 0 as the size of some of its own files, and may have nothing to say.
        data = file.read(max_bytes + 1) or b""
    if len(data) > max_bytes:
        raise UserError(_too_large(path, max_bytes))
    return data


def read_text(path: str | Path, *, max_bytes: int) -> str:
    """Reads a text file.

    Args:
        path: The file, in UTF-8 or, with a byte order mark, in UTF-16.
        max_bytes: Largest size of the file.

    Returns:
        The text without a byte order mark.

    Raises:
        UserError: The file cannot be read, is too large, or is no such text.
    """
    data = read_bytes(path, max_bytes=max_bytes)
    is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        name = excerpt(Path(path).name)
        raise UserError(f'"{name}" is not UTF-8 text. Save it as UTF-8.') from error


def read_json(path: str | Path, *, what: str, remedy: str, max_bytes: int) -> Any:
    """Reads a JSON file of moderate numbers and depth.

    Args:
        path: The file.
        what: What the file should be, with its article, for the sentence.
        remedy: Sentence that says what to do with a damaged file.
        max_bytes: Largest size of the file.

    Returns:
        What the file holds; numbers are finite and whole numbers fit into 64 bits.

    Raises:
        UserError: The file cannot be read, is too large, is no JSON, or nests too deeply.
    """
    text = read_text(path, max_bytes=max_bytes)
    try:
        return parse_json(text)
    except ValueError as error:
        name = excerpt(Path(path).name)
        raise UserError(f'"{name}" is not {what} ({excerpt(error)}). {remedy}') from error


def parse_json(text: str) -> Any:
    """Parses JSON of moderate numbers and depth.

    Args:
        text: The JSON text.

    Returns:
        Its value; numbers are finite and whole numbers fit into 64 bits.

    Raises:
        ValueError: No JSON, a number that is too large, or lists within lists too deeply.
    """
    try:
        value = json.loads(
            text, parse_float=_finite, parse_int=_moderate, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    level = [value]
    for _ in range(_MAX_JSON_DEPTH):
        lists = [item.values() if isinstance(item, dict) else item for item in level
                 if isinstance(item, dict | list)]  # fmt: skip
        level = [child for children in lists for child in children]
        if not level:
            return value
    raise ValueError("it nests too deeply")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {excerpt(text, 20)} is too large")
    return value


def _moderate(text: str) -> int:
    value = int(text) if len(text) <= _MAX_DIGITS + 1 else 1 << 63
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"the number {excerpt(text, 20)} is too large")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


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


def partial_stem(name: str) -> str:
    """How the names of a file's unfinished copies begin: its name, cut where it is too long."""
    encoded = os.fsencode(name)
    if len(encoded) + len(_PARTIAL_ENDING) <= _MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]  # other long names may begin alike
    return encoded[:128].decode(errors="ignore") + digest


def write_atomically(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    """Writes a file that appears complete, and on the disk, or not at all.

    Args:
        path: The file.
        save: Called with a file open for writing, whose contents become those of ``path``.

    Raises:
        UserError: The folder is missing or not writable, or the disk is full.
    """
    check_path(str(path))
    # A name of its own: on a cluster a job that was given up may still be at it.
    partial = path.with_name(f"{partial_stem(path.name)}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("wb") as file:
            save(file)
            file.flush()
            _sync(file)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f'"{excerpt(path, 120)}" cannot be written: {error.strerror or excerpt(error)}. Choose '
            "another folder or free some space."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # as on a read-only disk, of which is told already
            partial.unlink(missing_ok=True)


def _sync(file: IO[bytes]) -> None:
    """Writes a file through to the disk, so that no power cut leaves a hole under its name."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise


def check_path(path: str) -> None:
    """Refuses a path that no file can have; there need be none.

    Args:
        path: The path.

    Raises:
        UserError: The system refuses the path itself: it is too long, a loop of links or unusable.
    """
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        reason = error.strerror or excerpt(error)
        raise UserError(f'"{excerpt(path, 120)}" cannot be used: {reason}.') from error
    except ValueError as error:
        raise UserError(f'"{excerpt(path, 120)}" is no name that a file can have.') from error


def check_output(out: str, inputs: Collection[str], folders: Collection[str | Path] = ()) -> None:
    """Refuses a file to write whose writing would do harm or must fail.

    Args:
        out: The file to write.
        inputs: Paths that must not be overwritten.
        folders: Folders in which nothing may be written.

    Raises:
        UserError: There is no such folder, something else than a plain file is there, or the file
            is an input or lies in one of the folders.
    """
    check_path(out)
    shown, path = excerpt(out, 120), Path(out)
    if not out or path.is_dir() or not path.parent.is_dir():
        raise UserError(f'The result cannot be written to "{shown}". Choose a file to write.')
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f'"{shown}" is a link or a device. Choose a file to write.')
    real, name = Path(os.path.realpath(out)), excerpt(path.name)
    for other in inputs:
        check_path(other)
        is_same = Path(os.path.realpath(other)) == real
        if is_same or (path.exists() and Path(other).exists() and path.samefile(other)):
            raise UserError(f'The result would overwrite "{name}". Choose another file.')
    for folder in folders:
        if Path(os.path.realpath(folder)) in real.parents:
            raise UserError(f'"{shown}" is among the files of PTalker. Choose another folder.')


def read_arrays(
    path: str | Path,
    keys: Collection[str],
    *,
    optional: Collection[str] = (),
    max_rows: int = MAX_FRAMES,
    max_bytes: int = 1 << 31,
    check_all: bool = False,
) -> dict[str, NDArray[np.generic]]:
    """Reads arrays of an .npz file; sizes are checked before memory is taken, nothing is unpickled.

    Args:
        path: The .npz file.
        keys: Names of the arrays; all must be there.
        optional: Names of arrays that may be missing.
        max_rows: Number of first rows that are read of a longer array.
        max_bytes: Largest size of one array in memory.
        check_all: Whether the checksums of all other arrays are compared too.

    Returns:
        The arrays by name; they hold numbers, truth values or text.

    Raises:
        UserError: The file is missing or damaged, lacks an array, or an array is too large.
    """
    name = excerpt(Path(path).name)
    with open_file(path, max_bytes=1 << 40) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                names = set(archive.namelist())
                if len(names) > _MAX_MEMBERS:
                    raise ValueError(f"{len(names)} arrays")
                missing = [key for key in keys if f"{key}.npy" not in names]
                if missing:
                    raise UserError(f'"{name}" lacks {", ".join(missing)}. Export it again.')
                found = [*keys, *(key for key in optional if f"{key}.npy" in names)]
                result = {}
                for key in found:
                    with _open_member(archive, f"{key}.npy") as member:
                        result[key] = _read_array(member, max_rows=max_rows, max_bytes=max_bytes)
                if check_all and archive.testzip() is not None:
                    raise ValueError("a checksum differs")
                return result
        except _ARCHIVE_ERRORS as error:
            raise UserError(f'"{name}" is damaged ({excerpt(error)}). Export it again.') from error


def tensor_places(path: Path) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Where a safetensors file holds what.

    Args:
        path: The file.

    Returns:
        By the tensors' names: kind ("F16", "F32", "I64" and so on), shape, first byte in the file,
        and number of bytes.

    Raises:
        UserError: The file cannot be read, or its header is damaged.
    """
    with open_file(path, max_bytes=_MAX_TENSOR_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            require(length <= min(size, _MAX_HEADER_BYTES), "its header is too long")
            header = parse_json(file.read(length).decode("utf-8"))
            found = {}
            for name, entry in header.items():
                if name != "__metadata__":
                    start, end = (8 + length + int(at) for at in entry["data_offsets"])
                    require(8 + length <= start <= end <= size, f"{name} lies outside the file")
                    found[name] = str(entry["dtype"]), tuple(entry["shape"]), start, end - start
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise UserError(f'"{excerpt(path.name)}" is damaged ({excerpt(error)}).') from error
    return found


def read_tensors(path: Path, prefix: str = "") -> dict[str, NDArray[np.generic]]:
    """Reads the tensors of a safetensors file.

    Args:
        path: The file.
        prefix: First part of the names of those to read.

    Returns:
        Arrays by name, in the kind they are stored in.

    Raises:
        UserError: The file cannot be read, or is damaged.
    """
    found: dict[str, NDArray[np.generic]] = {}
    with open_file(path, max_bytes=_MAX_TENSOR_BYTES) as file:
        for name, (kind, shape, start, size) in tensor_places(path).items():
            if name.startswith(prefix):
                file.seek(start)
                try:
                    stored = np.frombuffer(file.read(size), _TENSOR_KINDS[kind])
                    found[name] = stored.reshape(shape)
                except (KeyError, ValueError) as error:
                    raise UserError(
                        f'"{excerpt(path.name)}" is damaged ({excerpt(error)}).'
                    ) from error
    return found


def _open_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    info = archive.getinfo(name)
    if info.flag_bits & 0x1:
        raise ValueError(f"{excerpt(name, 40)} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{excerpt(name, 40)} has an unknown compression")
    return archive.open(info)


def _read_array(file: IO[bytes], *, max_rows: int, max_bytes: int) -> NDArray[np.generic]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    if dtype.kind not in _ARRAY_KINDS:
        raise ValueError(f"an array of {excerpt(dtype, 40)}")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {excerpt(shape, 40)}")
    if is_fortran and shape[0] > max_rows:
        raise ValueError(f"an array in Fortran's order with {shape[0]} rows")
    shape = (min(shape[0], max_rows), *shape[1:]) if shape else ()
    size = math.prod(shape) * dtype.itemsize
    if size > max_bytes:
        raise ValueError(f"an array of {size:.3g} bytes, at most {max_bytes} are read")
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes of {size}")
    if size == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def write_text(path: Path, text: str) -> None:
    """Writes a text file that appears complete or not at all."""
    data = text.encode()

    def save(file: IO[bytes]) -> None:
        file.write(data)

    write_atomically(path, save)
