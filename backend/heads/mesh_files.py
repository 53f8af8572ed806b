# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads meshes from npz, PLY and OBJ files, with the vertices in the order of the file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.heads.mesh import Mesh

MAX_VERTICES = 2_000_000
MAX_CORNERS = 16_000_000

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


def read_head(path: str | Path) -> Mesh:
    """Reads a mesh.

    Args:
        path: ``.npz`` (keys ``vertices``, ``face_corners``, ``face_sizes``), ``.ply`` or ``.obj``.

    Returns:
        ``vertices`` ``(V, 3)`` float64, ``corners`` ``(C,)`` int32, ``sizes`` ``(F,)`` int32.

    Raises:
        UserError: The file is missing, damaged, too large or no mesh.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".ply": _read_ply, ".obj": _read_obj}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path.name}: a head is read from .npz, .ply or .obj, not '{path.suffix}'. "
            "Export it as one of these."
        )
    try:
        vertices, corners, sizes = reader(path)
    except OSError as error:
        raise UserError(f"The head {path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path.name} is damaged or not a mesh ({error}). Export the head again."
        ) from error
    return _checked(path.name, vertices, corners, sizes)


def read_face_points(path: str | Path) -> dict[str, int] | None:
    """Reads the face points that were marked on the head of an npz file.

    Args:
        path: ``.npz`` with keys ``face_point_names``, ``(n,)`` str, and ``face_point_indices``,
            ``(n,)`` int; or any other head.

    Returns:
        Vertex number of each face point; None if the file has none.

    Raises:
        UserError: Names and indices do not go together.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            if "face_point_names" not in data:
                return None
            names, indices = data["face_point_names"], data["face_point_indices"]
    except OSError as error:
        raise UserError(f"The head {path} cannot be read ({error}).") from error
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path.name} has damaged face points ({error}).") from error
    if names.ndim != 1 or names.shape != indices.shape or indices.dtype.kind not in "iu":
        raise UserError(
            f"{path.name} has {names.shape} face point names, {indices.shape} vertices."
        )
    return {str(n): int(i) for n, i in zip(names, indices, strict=True)} or None


def _checked(
    name: str,
    vertices: NDArray[np.float64],
    corners: NDArray[np.int32],
    sizes: NDArray[np.int32],
) -> Mesh:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or corners.ndim != 1 or sizes.ndim != 1:
        raise UserError(
            f"{name}: vertices {vertices.shape}, corners {corners.shape}, sizes {sizes.shape}; "
            "expected (V, 3), (C,), (F,). Export the head again."
        )
    if not len(vertices) or not len(sizes):
        raise UserError(f"{name} has no faces. Choose a file with a head's mesh.")
    if len(vertices) > MAX_VERTICES or len(corners) > MAX_CORNERS:
        raise UserError(
            f"{name} has {len(vertices)} vertices; at most {MAX_VERTICES} can be used. "
            "Choose a coarser head."
        )
    if sizes.min() < 3 or int(sizes.sum(dtype=np.int64)) != len(corners):
        raise UserError(f"{name}: its faces do not add up. Export the head again.")
    if corners.min() < 0 or corners.max() >= len(vertices):
        raise UserError(
            f"{name}: faces name vertex {int(corners.max())} of {len(vertices)}. "
            "Export the head again."
        )
    return vertices, corners, sizes


def _read_npz(path: Path) -> Mesh:
    with np.load(path, allow_pickle=False) as data:
        vertices = np.asarray(data["vertices"], dtype=np.float64)
        corners, sizes = data["face_corners"], data["face_sizes"]
    if corners.dtype.kind not in "iu" or sizes.dtype.kind not in "iu":
        raise ValueError("face_corners and face_sizes must be whole numbers")
    return vertices, corners.astype(np.int32), sizes.astype(np.int32)


def _read_obj(path: Path) -> Mesh:
    vertices: list[list[float]] = []
    corners: list[int] = []
    sizes: list[int] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("v "):
                vertices.append([float(word) for word in line.split()[1:4]])
            elif line.startswith("f "):
                words = line.split()[1:]
                numbers = [int(word.split("/", 1)[0]) for word in words]
                corners += [n - 1 if n > 0 else len(vertices) + n for n in numbers]
                sizes.append(len(numbers))
                if len(vertices) > MAX_VERTICES or len(corners) > MAX_CORNERS:
                    raise ValueError(f"more than {MAX_VERTICES} vertices")
    return (
        np.array(vertices, dtype=np.float64).reshape(-1, 3),
        np.array(corners, dtype=np.int32),
        np.array(sizes, dtype=np.int32),
    )


class _PlyElement:
    """One element of a PLY header: its name, count and properties."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.count = count
        self.properties: list[tuple[str, str, str | None]] = []  # name, type, type of the count

    @property
    def has_list(self) -> bool:
        return any(count_type for _, _, count_type in self.properties)


def _read_ply(path: Path) -> Mesh:
    with path.open("rb") as file:
        kind, elements = _read_ply_header(file)
        vertices = np.zeros((0, 3))
        corners = sizes = np.zeros(0, dtype=np.int32)
        for element in elements:
            if element.count > MAX_CORNERS:
                raise ValueError(f"{element.count} x {element.name} is too many")
            if element.has_list:
                read = _read_ply_lists(file, kind, element)
                if element.name == "face":
                    corners, sizes = read
            else:
                table = _read_ply_table(file, kind, element)
                if element.name == "vertex":
                    names = [name for name, _, _ in element.properties]
                    columns = [table[names.index(axis)] for axis in "xyz"]
                    vertices = np.stack(columns, axis=1)
    return vertices, corners, sizes


def _read_ply_header(file: BinaryIO) -> tuple[str, list[_PlyElement]]:
    if file.readline(8).strip() != b"ply":
        raise ValueError("no PLY header")
    kind = ""
    elements: list[_PlyElement] = []
    for _ in range(1000):
        words = file.readline(1000).decode("ascii", errors="replace").split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "end_header":
            break
        if words[0] == "format":
            kind = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[words[1]]
        elif words[0] == "element":
            elements.append(_PlyElement(words[1], int(words[2])))
        elif words[0] == "property" and words[1] == "list":
            item = (words[4], _PLY_TYPES[words[3]], _PLY_TYPES[words[2]])
            elements[-1].properties.append(item)
        elif words[0] == "property":
            elements[-1].properties.append((words[2], _PLY_TYPES[words[1]], None))
    return kind, elements


def _read_ply_table(file: BinaryIO, kind: str, element: _PlyElement) -> list[NDArray[np.float64]]:
    if not kind:
        rows = [file.readline().split() for _ in range(element.count)]
        table = np.array(rows, dtype=np.float64).reshape(element.count, len(element.properties))
        return list(table.T)
    dtype = np.dtype([(f"p{i}", kind + p[1]) for i, p in enumerate(element.properties)])
    data = file.read(dtype.itemsize * element.count)
    rows_read = np.frombuffer(data, dtype=dtype)
    if len(rows_read) != element.count:
        raise ValueError(f"the file ends inside its {element.name} elements")
    return [rows_read[f"p{i}"].astype(np.float64) for i in range(len(element.properties))]


def _read_ply_lists(
    file: BinaryIO, kind: str, element: _PlyElement
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The polygons' corners and sizes; other properties of the element are passed over."""
    wanted = next(
        (i for i, p in enumerate(element.properties) if p[2] and p[0].startswith("vertex_ind")), 0
    )
    corners: list[NDArray[np.int32]] = []
    for _ in range(element.count):
        words = file.readline().split() if not kind else []
        for i, (_, item_type, count_type) in enumerate(element.properties):
            if kind:
                count = 1 if count_type is None else int(_take(file, kind + count_type, 1)[0])
                values = _take(file, kind + item_type, count)
            else:
                count = 1 if count_type is None else int(words.pop(0))
                values = np.array([float(w) for w in words[:count]])
                words = words[count:]
            if i == wanted:
                corners.append(values.astype(np.int32))
    sizes = np.array([len(c) for c in corners], dtype=np.int32)
    return np.concatenate(corners) if corners else np.zeros(0, dtype=np.int32), sizes


def _take(file: BinaryIO, dtype: str, count: int) -> NDArray[np.generic]:
    size = np.dtype(dtype).itemsize
    data = file.read(size * count) if count <= 100_000 else b""
    if len(data) != size * count:
        raise ValueError("the file ends inside its faces")
    return np.frombuffer(data, dtype=dtype)
