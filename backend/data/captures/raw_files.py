# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading of the files of captured data sets: pickles, arrays, sequences of meshes, sound.

A pickle is a program. Here it may ask for nothing but the handful of NumPy names that arrays need,
and even those are stand-ins written below: NumPy's own unpickling, which trusts the types and sizes
in the file, never runs. So nothing but numbers, texts, lists, dicts and plain arrays can come out.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from backend.audio import load
from backend.audio.load import MIN_SECONDS, resample
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.heads.topology import read_head

Faces = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Corners and sizes of polygons."""

MAX_BYTES: Final = 8 << 30
_TYPE_CODE: Final = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|O[48]?)")
_DAMAGE: Final = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    ArithmeticError, MemoryError, RecursionError, ImportError, struct.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RawSound:
    """Mono samples at 16 kHz, -1 to 1, and the published sample rate."""

    samples: NDArray[np.float32]
    source_rate_hz: int


@dataclass(frozen=True, slots=True)
class RawMotion:
    """Positions ``(T, V, 3)``, and what else the file holds: None or 0 where it does not."""

    vertices: NDArray[Any]
    template: NDArray[Any] | None = None
    faces: Faces | None = None
    fps: float = 0.0


def read_array(path: Path) -> NDArray[Any]:
    """Maps an ``.npy`` file of plain numbers into memory, read-only.

    Args:
        path: The file.

    Returns:
        The array.

    Raises:
        UserError: The file is missing, damaged, or holds no numbers.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path.name} is not there.") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path.name} is damaged or no array of numbers ({error}).") from error
    if array.dtype.kind not in "fiu":
        raise UserError(f"{path.name} holds {array.dtype}, expected numbers.")
    return array


def as_frames(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Brings positions to the shape ``(T, V, 3)``.

    Args:
        array: Positions ``(T, V, 3)`` or ``(T, V * 3)``.
        name: Name of the array for messages.

    Returns:
        Positions ``(T, V, 3)``.

    Raises:
        UserError: The array has another shape.
    """
    if array.ndim == 2 and array.shape[1] % 3 == 0:
        array = array.reshape(len(array), -1, 3)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise UserError(f"{name} has shape {array.shape}, expected (frames, vertices, 3).")
    return array


def without_gaps(numbers: NDArray[np.int64], frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """All frames from the first number to the last; missing ones are interpolated linearly."""
    wanted = np.arange(numbers[0], numbers[-1] + 1)
    after = np.searchsorted(numbers, wanted)
    before = np.where(numbers[after] == wanted, after, after - 1)
    span = np.maximum(numbers[after] - numbers[before], 1)
    share = ((wanted - numbers[before]) / span).astype(np.float32)[:, None, None]
    return frames[before] * (1 - share) + frames[after] * share


def read_motion(path: Path, *, max_frames: int | None = None) -> RawMotion:
    """Reads a motion: ``.npy``, ``.npz``, or a folder with one ``.ply`` or ``.obj`` a frame.

    An ``.npz`` holds ``vertices`` and, optionally, ``template``, ``fps``, ``face_corners`` and
    ``face_sizes``. Frames of a folder are in the order of the last number in their names.

    Args:
        path: The file or folder.
        max_frames: Number of frames to read of a folder; None reads all.

    Returns:
        The motion.

    Raises:
        UserError: The motion is missing, damaged, or of another form.
    """
    if path.is_dir():
        return _read_meshes(path, max_frames)
    if path.suffix.lower() != ".npz":
        return RawMotion(as_frames(read_array(path), path.name))
    try:
        with np.load(path, allow_pickle=False) as data:
            found = {name: data[name] for name in data.files}
        faces = None
        if "face_corners" in found:
            corners, sizes = found["face_corners"], found["face_sizes"]
            faces = (corners.astype(np.int32), sizes.astype(np.int32))
        vertices = as_frames(found["vertices"], path.name)
        motion = RawMotion(vertices, found.get("template"), faces, float(found.get("fps", 0.0)))
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path.name} is damaged or no motion ({error}).") from error
    if faces is not None and not _fit(faces, motion.vertices.shape[1]):
        raise UserError(f"{path.name} is damaged: its faces do not fit its vertices.")
    return motion


def _fit(faces: Faces, num_vertices: int) -> bool:
    corners, sizes = faces
    if corners.ndim != 1 or sizes.ndim != 1 or not len(sizes) or sizes.min() < 3:
        return False
    is_counted = int(sizes.sum(dtype=np.int64)) == len(corners)
    return is_counted and corners.min() >= 0 and int(corners.max()) < num_vertices


def _read_meshes(folder: Path, max_frames: int | None) -> RawMotion:
    def number(path: Path) -> tuple[int, str]:
        digits = re.findall(r"\d+", path.stem)
        return (int(digits[-1]) if digits else -1, path.name)

    paths = sorted(
        (p for p in folder.iterdir() if p.suffix.lower() in (".ply", ".obj")), key=number
    )
    if not paths:
        raise UserError(f"The folder {folder.name} holds no .ply or .obj files.")
    first, corners, sizes = read_head(paths[0])
    paths = paths[:max_frames]
    vertices = np.empty((len(paths), len(first), 3), np.float32)
    for frame, path in enumerate(paths):
        mesh = first if frame == 0 else read_head(path)[0]
        if len(mesh) != len(first):
            raise UserError(
                f"{path.name} has {len(mesh)} vertices, the first frame {len(first)}. Export all "
                "frames with the same topology."
            )
        vertices[frame] = mesh
    return RawMotion(vertices, faces=(corners, sizes))


def read_sound(path: Path) -> RawSound:
    """Reads a sound file.

    Args:
        path: The file.

    Returns:
        The sound at 16 kHz, and its published rate.

    Raises:
        UserError: As `backend.audio.load.read_sound`.
    """
    samples = load.read_sound(path).samples
    try:
        rate = soundfile.info(path).samplerate
    except soundfile.LibsndfileError:  # FFmpeg could read it
        rate = SAMPLE_RATE_HZ
    return RawSound(samples, rate)


def as_sample_rate(value: object) -> int:
    """Checks a sample rate out of a pickle.

    Args:
        value: What the pickle holds as the rate.

    Returns:
        The rate in hertz.

    Raises:
        UserError: The value is no sample rate.
    """
    if not isinstance(value, int | float) or not 1000 <= value <= 400_000:
        raise UserError(f"Its sound has the sample rate {value!r:.20}.")
    return round(value)


def sound_from(array: NDArray[Any], rate_hz: int) -> RawSound:
    """Converts samples out of a pickle to mono at 16 kHz.

    Args:
        array: Samples as 16-bit integers or as fractions, of one channel or several.
        rate_hz: Sample rate of the array.

    Returns:
        The sound.

    Raises:
        UserError: The array holds no sound.
    """
    samples = array.astype(np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    if samples.ndim != 1 or len(samples) < MIN_SECONDS * rate_hz:
        raise UserError(f"Its sound has shape {array.shape} at {rate_hz} Hz.")
    if not np.isfinite(samples).all():
        raise UserError("Its sound holds values that are not numbers.")
    if array.dtype.kind in "iu" or np.abs(samples).max() > 2.0:  # 16-bit values kept as floats
        samples = samples / np.float32(32768.0)
    return RawSound(resample(samples, rate_hz), rate_hz)


def read_templates(raw: Path) -> dict[str, NDArray[np.float32]]:
    """Reads the faces at rest in ``templates.pkl``.

    Args:
        raw: Folder of the file.

    Returns:
        Vertices ``(V, 3)`` by subject.

    Raises:
        UserError: As `load_pickle`.
    """
    held = as_dict(load_pickle(raw / "templates.pkl"), "templates.pkl")
    return {
        str(name): np.asarray(as_array(value, f"The template of {name}"), np.float32)
        for name, value in held.items()
    }


def find_faces(raw: Path, templates: dict[str, NDArray[np.float32]]) -> Faces | None:
    """The faces of a mesh in the folder that has as many vertices as the first template."""
    num_vertices = next((len(template) for template in templates.values()), 0)
    for folder in (raw, raw / "templates", raw / "rigid_scans", raw / "FLAME_templates"):
        for path in sorted([*folder.glob("*.ply"), *folder.glob("*.obj")]):
            with suppress(UserError):  # another mesh may do
                vertices, corners, sizes = read_head(path)
                if len(vertices) == num_vertices:
                    return corners, sizes
    return None


class PickledArray:
    """An array out of a pickle, for `as_array`; an array of objects is only a list here."""

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None
        self.objects: list[object] = []

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _version, shape, dtype, is_fortran, data = state
        if isinstance(data, list):
            self.objects = data
            return
        self.array = _array(data, dtype, shape, order="F" if is_fortran else "C")


class _Type:
    """Stands for ``numpy.dtype``: plain numbers and objects, no records."""

    def __init__(self, code: object, *_flags: object) -> None:
        code = _text(code)
        if not _TYPE_CODE.fullmatch(code):
            raise ValueError(f"arrays of type {code[:20]!r} are not read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        order, subarray, names = state[1:4]
        if subarray is not None or names is not None:
            raise ValueError("arrays of records are not read")
        self.dtype = self.dtype.newbyteorder(">" if _text(order) == ">" else "<")


def load_pickle(path: Path) -> object:
    """Reads a pickle of any protocol, Python 2's included (its strings as latin1).

    Args:
        path: The file.

    Returns:
        Numbers, texts, lists, tuples, dicts, and `PickledArray` in place of arrays.

    Raises:
        UserError: The pickle is missing, damaged, too large, or asks for anything but plain data;
            then nothing of it was run.
    """
    try:
        with path.open("rb") as file:
            return _load(file, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def load_boxed(path: Path) -> object:
    """Reads an ``.npy`` file that boxes one pickled object, as ``numpy.save`` of a dict.

    Args:
        path: The file.

    Returns:
        The object, as `load_pickle` gives it.

    Raises:
        UserError: As `load_pickle`, or the file boxes no object.
    """
    try:
        with path.open("rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                reads = {(1, 0): np.lib.format.read_array_header_1_0}
                read = reads.get(version, np.lib.format.read_array_header_2_0)
                shape, _is_fortran, dtype = read(file)
            except ValueError as error:
                raise UserError(f"{path.name} is damaged ({error}). Copy it again.") from error
            if shape != () or dtype != np.dtype(object):
                raise UserError(f"{path.name} holds an array {shape}, expected a boxed dict.")
            box = _load(file, path)
            return box.objects[0] if isinstance(box, PickledArray) and box.objects else box
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def as_array(value: object, name: str) -> NDArray[Any]:
    """The array that a value out of a pickle holds.

    Args:
        value: A value of `load_pickle`.
        name: Name of the value for messages.

    Returns:
        The array, read-only.

    Raises:
        UserError: The value is no array of numbers.
    """
    if not isinstance(value, PickledArray) or value.array is None:
        raise UserError(f"{name} is a {type(value).__name__}, expected an array of numbers.")
    return value.array


def as_dict(value: object, name: str) -> dict[Any, object]:
    """Checks that a value out of a pickle is a dict.

    Args:
        value: A value of `load_pickle`.
        name: Name of the value for messages.

    Returns:
        The dict.

    Raises:
        UserError: The value is no dict.
    """
    if not isinstance(value, dict):
        raise UserError(f"{name} is a {type(value).__name__}, expected a dict.")
    return value


def _load(file: IO[bytes], path: Path) -> object:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path.name} has {size} bytes; at most {MAX_BYTES} are read.")
    try:
        return _Reader(file, path.name).load()
    except _DAMAGE as error:
        raise UserError(
            f"{path.name} is damaged or not the pickle expected ({error}). Copy it again."
        ) from error


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes], name: str) -> None:
        super().__init__(file, encoding="latin1")
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise UserError(
                f"{self._name} was not loaded: it asks for {module}.{name}"[:200]
                + ", which is no data. Get it again from the data set's own site."
            )
        return found


def _reconstruct(_subtype: object, _shape: object, _code: object) -> PickledArray:
    return PickledArray()


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> PickledArray:
    result = PickledArray()
    result.array = _array(data, dtype, shape, order=_text(order))
    return result


def _scalar(dtype: object, data: object) -> float | int | bool:
    value: float | int | bool = _array(data, dtype, (), order="C").item()
    return value


def _encode(text: object, _latin1: object) -> bytes:
    return _text(text).encode("latin1")


def _array(data: object, dtype: object, shape: object, *, order: str) -> NDArray[Any]:
    if not isinstance(dtype, _Type) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise ValueError("an array's description is damaged")
    if dtype.dtype.hasobject:
        raise ValueError("objects are not read from memory")
    if isinstance(data, str):  # Python 2's bytes
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise TypeError("arrays of objects are not read")
    if len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise ValueError(f"an array {shape} has {len(data)} bytes")
    flat = np.frombuffer(bytes(data), dtype=dtype.dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise TypeError(f"found {value!r:.40} in place of a text")
    return value


_ALLOWED: Final[dict[tuple[str, str], object]] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}
