# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads meshes from npz, PLY and OBJ files, with the vertices in the order of the file."""

from __future__ import annotations

import array
import io
import os
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError, excerpt
from backend.heads.mesh import Mesh
from backend.io import open_file, read_arrays

MAX_VERTICES: Final = 2_000_000
MAX_CORNERS: Final = 16_000_000
MAX_ARRAY_BYTES: Final = 8 * (MAX_CORNERS + 1)
"""Largest size of one array of a mesh in memory."""

_MAX_FILE_BYTES: Final = 1 << 29
_MAX_LINE: Final = 1 << 18

_Arrays = tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]

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
    readers = {".ply": _read_ply, ".obj": _read_obj}
    suffix, name = path.suffix.lower(), excerpt(path.name)
    if suffix not in (".npz", *readers):
        raise UserError(
            f"{name}: a head is read from .npz, .ply or .obj, not '{excerpt(path.suffix, 20)}'. "
            "Export it as one of these."
        )
    try:
        if suffix == ".npz":
            return checked_mesh(name, *_read_npz(path))
        with open_file(path, max_bytes=_MAX_FILE_BYTES) as file:
            mesh = readers[suffix](file)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise UserError(
            f"{name} is damaged or not a mesh ({excerpt(error)}). Export the head again."
        ) from error
    return checked_mesh(name, *mesh)


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
    keys = ["face_point_names", "face_point_indices"]
    found = read_arrays(path, [], optional=keys, max_rows=1000, max_bytes=1 << 20)
    if keys[0] not in found:
        return None
    names, indices = found[keys[0]], found.get(keys[1], np.zeros(0))
    is_pair = names.ndim == 1 and names.shape == indices.shape
    if not (is_pair and names.dtype.kind == "U" and indices.dtype.kind in "iu"):
        raise UserError(
            f"{excerpt(path.name)} has face point names {excerpt(names.shape, 40)} and vertices "
            f"{excerpt(indices.shape, 40)}; expected as many of both. Export the head again."
        )
    return {str(n): int(i) for n, i in zip(names, indices, strict=True)} or None


def read_object_sizes(path: str | Path, num_vertices: int) -> NDArray[np.int64]:
    """Reads of how many objects the mesh of a file was joined, the head's own first.

    Args:
        path: ``.npz`` with the key ``object_sizes``, ``(n,)`` int: how many vertices each object
            has; or any other head, which is one object.
        num_vertices: Number of vertices of the mesh.

    Returns:
        Number of vertices of each object, ``(n,)``.

    Raises:
        UserError: They do not add up to the mesh.
    """
    path = Path(path)
    whole = np.array([num_vertices], dtype=np.int64)
    if path.suffix.lower() != ".npz":
        return whole
    key = "object_sizes"
    sizes = read_arrays(path, [], optional=[key], max_rows=MAX_CORNERS, max_bytes=1 << 27)
    found = sizes.get(key, whole)
    is_list = found.ndim == 1 and found.dtype.kind in "iu" and len(found) > 0
    if not is_list or found.min() < 1 or _total(found) != num_vertices:
        raise UserError(
            f"{excerpt(path.name)}: its objects do not add up to {num_vertices} vertices. Export "
            "the head again."
        )
    return found.astype(np.int64)


def checked_mesh(
    name: str,
    vertices: NDArray[np.generic],
    corners: NDArray[np.generic],
    sizes: NDArray[np.generic],
) -> Mesh:
    """Checks the arrays of a mesh as a file holds them.

    Args:
        name: Name of the file, for the sentence.
        vertices: Positions, ``(V, 3)``.
        corners: Vertex numbers of the polygons' corners, ``(C,)``.
        sizes: Number of corners of each polygon, ``(F,)``.

    Returns:
        The mesh, with vertex numbers that all fit.

    Raises:
        UserError: The arrays are no mesh, or too large.
    """
    if vertices.ndim != 2 or vertices.shape[1] != 3 or corners.ndim != 1 or sizes.ndim != 1:
        shapes = [excerpt(values.shape, 30) for values in (vertices, corners, sizes)]
        raise UserError(
            f"{name}: vertices {shapes[0]}, corners {shapes[1]}, sizes {shapes[2]}; "
            "expected (V, 3), (C,), (F,). Export the head again."
        )
    if vertices.dtype.kind not in "fiu" or {corners.dtype.kind, sizes.dtype.kind} - {*"iu"}:
        raise UserError(
            f"{name}: face_corners and face_sizes must be whole numbers, and vertices numbers. "
            "Export the head again."
        )
    if not len(vertices) or not len(sizes):
        raise UserError(f"{name} has no faces. Choose a file with a head's mesh.")
    if len(vertices) > MAX_VERTICES or max(len(corners), len(sizes)) > MAX_CORNERS:
        raise UserError(
            f"{name} is too large: at most {MAX_VERTICES} vertices and {MAX_CORNERS} corners of "
            "faces can be used. Choose a coarser head."
        )
    smallest, largest = int(sizes.min()), int(sizes.max())
    if smallest < 3 or largest > len(corners) or _total(sizes) != len(corners):
        raise UserError(f"{name}: its faces do not add up. Export the head again.")
    first, last = int(corners.min()), int(corners.max())
    if first < 0 or last >= len(vertices):
        raise UserError(
            f"{name}: faces name vertex {last if first >= 0 else first} of {len(vertices)}. "
            "Export the head again."
        )
    if largest > len(vertices):
        raise UserError(
            f"{name} has a face of {largest} corners, more than vertices. Export the head again."
        )
    return vertices.astype(np.float64), corners.astype(np.int32), sizes.astype(np.int32)


def _total(sizes: NDArray[np.generic]) -> int:
    return int(sizes.astype(np.int64).sum())


def _read_npz(path: Path) -> _Arrays:
    keys = ["vertices", "face_corners", "face_sizes"]
    found = read_arrays(path, keys, max_rows=MAX_CORNERS + 1, max_bytes=MAX_ARRAY_BYTES)
    return found["vertices"], found["face_corners"], found["face_sizes"]


def _read_obj(file: IO[bytes]) -> _Arrays:
    vertices, corners, sizes = array.array("d"), array.array("i"), array.array("i")
    text = io.TextIOWrapper(file, encoding="utf-8", errors="replace")
    while line := text.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise ValueError("a line is too long")
        if line.startswith("v "):
            position = [float(word) for word in line.split()[1:4]]
            if len(position) != 3:
                raise ValueError(f"a vertex of {len(position)} numbers")
            vertices.extend(position)
        elif line.startswith("f "):
            here = len(vertices) // 3
            numbers = [int(word.split("/", 1)[0]) for word in line.split()[1:]]
            corners.extend(n - 1 if n > 0 else here + n for n in numbers)
            sizes.append(len(numbers))
        if len(vertices) > 3 * MAX_VERTICES or len(corners) > MAX_CORNERS:
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

    def smallest_bytes(self, kind: str) -> int:
        """Least size of all its rows in a file: in text a digit and a space or line end each."""
        types = [count_type or item_type for _, item_type, count_type in self.properties]
        return self.count * sum(np.dtype(each).itemsize if kind else 2 for each in types)


def _read_ply(file: IO[bytes]) -> _Arrays:
    kind, elements = _read_ply_header(file)
    total = 0
    for element in elements:
        total += element.count
        if element.count < 0 or total > MAX_CORNERS:
            raise ValueError(f"{element.count} x {element.name} is too many")
        if not element.properties:
            raise ValueError(f"{element.name} has no properties")
    size = os.fstat(file.fileno()).st_size + 1  # the last line may lack its end
    if sum(element.smallest_bytes(kind) for element in elements) > size:
        raise ValueError(f"the file is too short for its {elements[0].count} x {elements[0].name}")
    vertices = np.zeros((0, 3))
    corners = sizes = np.zeros(0, dtype=np.int64)
    for element in elements:
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


def _read_line(file: IO[bytes]) -> list[bytes]:
    line = file.readline(_MAX_LINE)
    if len(line) == _MAX_LINE:
        raise ValueError("a line is too long")
    return line.split()


def _read_ply_header(file: IO[bytes]) -> tuple[str, list[_PlyElement]]:
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


def _read_ply_table(file: IO[bytes], kind: str, element: _PlyElement) -> list[NDArray[np.float64]]:
    num_columns = len(element.properties)
    if not kind:
        values = array.array("d")
        for _ in range(element.count):
            words = _read_line(file)
            if len(words) != num_columns:
                raise ValueError(f"{len(words)} numbers where {element.name} has {num_columns}")
            values.extend(map(float, words))
        return list(np.array(values).reshape(-1, num_columns).T)
    dtype = np.dtype([(f"p{i}", kind + p[1]) for i, p in enumerate(element.properties)])
    data = file.read(dtype.itemsize * element.count)
    rows_read = np.frombuffer(data, dtype=dtype)
    if len(rows_read) != element.count:
        raise ValueError(f"the file ends inside its {element.name} elements")
    return [rows_read[f"p{i}"].astype(np.float64) for i in range(len(element.properties))]


def _read_ply_lists(
    file: IO[bytes], kind: str, element: _PlyElement
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The polygons' corners and sizes; other properties of the element are passed over."""
    wanted = next(
        (i for i, p in enumerate(element.properties) if p[2] and p[0].startswith("vertex_ind")), 0
    )
    corners, sizes = array.array("q"), array.array("q")
    for _ in range(element.count):
        words = _read_line(file) if not kind else []
        for i, (_, item_type, count_type) in enumerate(element.properties):
            values: list[float]
            if kind:
                count = 1 if count_type is None else int(_take(file, kind + count_type, 1)[0])
                values = _take(file, kind + item_type, count)
            else:
                count = 1 if count_type is None else int(words.pop(0))
                values = [float(word) for word in words[: max(count, 0)]]
                words = words[len(values) :]
                if len(values) != count:
                    raise ValueError(f"a list of {len(values)} numbers, not of {count}")
            if i == wanted:
                if element.name == "face" and count < 3:
                    raise ValueError(f"a face of {count} corners")
                corners.extend(map(int, values))
                sizes.append(count)
        if len(corners) > MAX_CORNERS:
            raise ValueError(f"more than {MAX_CORNERS} corners of faces")
    return np.array(corners, np.int64), np.array(sizes, np.int64)


def _take(file: IO[bytes], dtype: str, count: int) -> list[float]:
    size = np.dtype(dtype).itemsize
    data = file.read(size * count) if 0 <= count <= 100_000 else b""
    if len(data) != size * count:
        raise ValueError("the file ends inside its faces")
    values: list[float] = np.frombuffer(data, dtype=dtype).tolist()
    return values
