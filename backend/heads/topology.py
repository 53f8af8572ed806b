# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads and their topologies: face points, parts, the face's axes, and checks.

A *topology* knows the vertex numbers of a mesh's face points, which others call landmarks; a *head*
is a mesh of a known topology. Positions are in the head's own space, in any unit and orientation;
:func:`face_frame` gives the face's axes and millimetres.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.errors import UserError, excerpt
from backend.heads.mesh import (
    Mesh,
    Similarity,
    connected_components,
    fingerprint,
    similarity_fit,
    triangulate,
)
from backend.heads.mesh_files import read_face_points, read_head
from backend.heads.weld import Weld, weld
from backend.io import read_json

__all__ = [
    "FACE_POINT_NAMES",
    "FaceFrame",
    "Head",
    "Part",
    "Similarity",
    "Topology",
    "UnknownHeadError",
    "face_frame",
    "fingerprint",
    "identify",
    "load_topology",
    "read_face_points",
    "read_head",
    "shipped_topologies",
    "similarity_fit",
    "weld_head",
]


class UnknownHeadError(UserError):
    """A mesh is none of the known heads, and no face points are marked on it."""


_MAX_TOPOLOGY_BYTES = 16 << 20
INTEROCULAR_MM = 62.0  # heads are compared at this distance between the eyes' centres
MOUTH_FORWARD_ANGLE = 0.2  # radians by which an upright face's lip corners lie before the eyes'


def _face_point_names() -> tuple[str, ...]:
    sides = ("left", "right")
    names = [f"lip_corner_{s}" for s in sides]
    for lip in ("upper", "lower"):
        for ring in ("outer", "inner"):
            names.append(f"lip_{lip}_{ring}_center")
            names += [f"lip_{lip}_{ring}_{s}_{i}" for s in sides for i in (1, 2, 3)]
    names += ["nose_root", "nose_bridge", "nose_tip", "nose_base"]
    names += [f"{n}_{s}" for n in ("nostril", "nose_side") for s in sides]
    names += ["chin_crease", "chin", "chin_bottom", "chin_left", "chin_right"]
    names += [f"jaw_line_{s}_{i}" for s in sides for i in (1, 2, 3, 4)]
    names += [f"jaw_hinge_{s}" for s in sides]
    names += [f"eye_{n}_{s}" for n in ("inner", "outer") for s in sides]
    for lid in ("upper", "lower"):
        names += [f"lid_{lid}_{s}_{i}" for s in sides for i in (1, 2, 3, 4, 5)]
    names += ["brow_center"] + [f"brow_{s}_{i}" for s in sides for i in (1, 2, 3, 4, 5)]
    for n in ("cheek", "cheekbone", "cheek_hollow", "smile_fold"):
        names += [f"{n}_{s}" for s in sides]
    names += ["forehead_center"] + [f"{n}_{s}" for n in ("forehead", "temple") for s in sides]
    names += [f"{n}_{s}" for n in ("ear_top", "ear_lobe") for s in sides]
    names += ["crown", "head_back", "neck_front", "neck_back", "neck_left", "neck_right"]
    return tuple(names)


FACE_POINT_NAMES = _face_point_names()
"""The 111 face points. Left is the subject's left; ``_1`` is nearest the centre line."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a mesh with a role.

    Attributes:
        role: ``skin``, ``eye_left``, ``teeth_lower``, ``tongue``, ….
        vertices: All vertices of the part; or one vertex of a connected part.
    """

    role: str
    vertices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """Vertex numbers of a mesh; no positions.

    Attributes:
        name: ``flame``, ``demo``, or ``custom`` for a head whose points an artist marked.
        num_vertices: Number of vertices; a mesh may have more after them, as parts of their own.
        fingerprint: Hash of the edges between them, by :func:`fingerprint`.
        face_points: Vertex number of each face point, all of ``FACE_POINT_NAMES``.
        parts: Parts by role; if empty, they are guessed by position.
        mirror: Vertex number of each vertex's mirror image, if known.
    """

    name: str
    num_vertices: int
    fingerprint: str
    face_points: dict[str, int]
    parts: tuple[Part, ...] = ()
    mirror: tuple[int, ...] | None = None

    @property
    def face_point_vertices(self) -> NDArray[np.int64]:
        """Vertex numbers of the face points in the order of ``FACE_POINT_NAMES``, ``(111,)``."""
        return np.array([self.face_points[name] for name in FACE_POINT_NAMES], dtype=np.int64)


@dataclass(frozen=True)
class Head:
    """One mesh of a known topology.

    Attributes:
        vertices: Positions in the head's own space, ``(V, 3)`` float64.
        corners: Vertex numbers of the polygons' corners, ``(C,)`` int32.
        sizes: Number of corners of each polygon, ``(F,)`` int32.
        topology: Face points and parts of the mesh.
        numbers: Numbers of the vertices in the artist's mesh, ``(V,)``; None where they are these.
    """

    vertices: NDArray[np.float64]
    corners: NDArray[np.int32]
    sizes: NDArray[np.int32]
    topology: Topology
    numbers: NDArray[np.int64] | None = None

    @cached_property
    def triangles(self) -> NDArray[np.int64]:
        """Polygons as fans of triangles, ``(N, 3)``."""
        return triangulate(self.corners, self.sizes)

    @cached_property
    def components(self) -> NDArray[np.int32]:
        """Number of the connected part that each vertex belongs to, ``(V,)``."""
        return connected_components(self.corners, self.sizes, len(self.vertices))

    def point(self, name: str) -> NDArray[np.float64]:
        """Position of a face point, ``(3,)``."""
        return np.asarray(self.vertices[self.topology.face_points[name]])

    def part(self, role: str) -> NDArray[np.int64]:
        """Vertex numbers of a part, ascending; empty where the topology names no such part."""
        found: list[NDArray[np.int64]] = []
        for part in self.topology.parts:
            if part.role != role:
                continue
            if len(part.vertices) == 1:
                same = self.components == self.components[part.vertices[0]]
                found.append(np.flatnonzero(same))
            else:
                found.append(np.array(part.vertices, dtype=np.int64))
        return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class FaceFrame:
    """A face's own axes and size.

    Attributes:
        origin: Midpoint of the eyes, ``(3,)``.
        axes: Rows x = subject's left, y = up, z = out of the face; orthonormal, ``(3, 3)``.
        interocular: Distance of the eyes' centres in the head's unit.
    """

    origin: NDArray[np.float64]
    axes: NDArray[np.float64]
    interocular: float

    @property
    def unit_mm(self) -> float:
        """One millimetre of a head with 62 mm between the eyes, in the head's unit."""
        return self.interocular / INTEROCULAR_MM

    def to_face_mm(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Positions ``(..., 3)`` in the face's axes, in millimetres from the eyes' midpoint."""
        return np.asarray((points - self.origin) @ self.axes.T / self.unit_mm)

    def offsets_to_face_mm(self, offsets: NDArray[np.floating]) -> NDArray[np.float64]:
        """Displacements ``(..., 3)`` in the face's axes, in millimetres."""
        return np.asarray(offsets @ self.axes.T / self.unit_mm, dtype=np.float64)


def face_frame(head: Head) -> FaceFrame:
    """The face's axes and size, from its eye corners and lip corners."""
    left = (head.point("eye_inner_left") + head.point("eye_outer_left")) / 2
    right = (head.point("eye_inner_right") + head.point("eye_outer_right")) / 2
    mouth = (head.point("lip_corner_left") + head.point("lip_corner_right")) / 2
    interocular = float(np.linalg.norm(left - right))
    if interocular == 0.0:
        raise UserError("Both eyes' face points lie at one place. Mark the eye corners again.")
    x = (left - right) / interocular
    up = (left + right) / 2 - mouth
    up = up - (up @ x) * x
    length = float(np.linalg.norm(up))
    if length < 0.05 * interocular:
        raise UserError("The mouth's face points lie between the eyes. Mark the lip corners again.")
    forward = np.cross(x, up / length)
    cos, sin = np.cos(MOUTH_FORWARD_ANGLE), np.sin(MOUTH_FORWARD_ANGLE)
    y = cos * up / length + sin * forward
    return FaceFrame((left + right) / 2, np.stack([x, y, np.cross(x, y)]), interocular)


def shipped_topologies() -> tuple[str, ...]:
    """Names of the topologies that come with the backend."""
    return tuple(sorted(path.stem for path in bundled.TOPOLOGIES_DIR.glob("*.json")))


def load_topology(name_or_path: str | Path) -> Topology:
    """Loads a shipped topology by its name, or one from a JSON file.

    Args:
        name_or_path: One of ``shipped_topologies()``, or the path of a JSON file.

    Returns:
        The topology, with all face points checked.

    Raises:
        UserError: There is no such topology, or the file is not one.
    """
    name = str(name_or_path)
    known = shipped_topologies()
    if name not in known and not os.path.exists(name):  # noqa: PTH110 - Path.exists() can raise
        raise UserError(
            f"There is no head topology '{excerpt(name)}'. Choose one of: auto, "
            f"{', '.join(known)}; or a JSON file."
        )
    path = bundled.TOPOLOGIES_DIR / f"{name}.json" if name in known else Path(name)
    data = read_json(
        path,
        what="a head topology",
        remedy="Choose another file.",
        max_bytes=_MAX_TOPOLOGY_BYTES,
    )
    try:
        mirror = data.get("mirror")
        topology = Topology(
            name=str(data["name"]),
            num_vertices=int(data["num_vertices"]),
            fingerprint=str(data["fingerprint"]),
            face_points={str(k): int(v) for k, v in data["face_points"].items()},
            parts=tuple(_parse_part(part) for part in data.get("parts", ())),
            mirror=None if mirror is None else tuple(int(i) for i in mirror),
        )
        _check_vertices(topology)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{excerpt(path.name)} is not a head topology ({excerpt(error)})."
        raise UserError(f"{reason} Choose another file.") from error
    check_face_points(topology.face_points, topology.num_vertices)
    return topology


def _check_vertices(topology: Topology) -> None:
    numbers = [number for part in topology.parts for number in part.vertices]
    if topology.mirror is not None:
        numbers += topology.mirror
        if len(topology.mirror) != topology.num_vertices:
            raise ValueError(f"mirror has {len(topology.mirror)} of {topology.num_vertices}")
    if numbers and not 0 <= min(numbers) <= max(numbers) < topology.num_vertices:
        raise ValueError(f"it names a vertex that is none of {topology.num_vertices}")


def _parse_part(data: dict[str, object]) -> Part:
    vertices = data["vertices"] if "vertices" in data else [data["seed"]]
    if not isinstance(vertices, list) or not vertices:
        raise ValueError(f"part {data['role']!r:.40} has no vertices")
    return Part(str(data["role"]), tuple(int(v) for v in vertices))


def check_face_points(face_points: dict[str, int], num_vertices: int) -> None:
    """Checks that all 111 face points are there, in range, and on different vertices.

    Args:
        face_points: Vertex number of each face point.
        num_vertices: Number of vertices of the mesh.

    Raises:
        UserError: A face point is missing or wrong; the message names the points.
    """
    missing = [name for name in FACE_POINT_NAMES if name not in face_points]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(FACE_POINT_NAMES)} face points are not marked: "
            f"{_some(missing)}. Mark them on the head."
        )
    outside = [n for n in FACE_POINT_NAMES if not 0 <= face_points[n] < num_vertices]
    if outside:
        raise UserError(
            f"Face points name vertices that the head does not have (it has {num_vertices}): "
            f"{_some(outside)}. Mark them again."
        )
    first: dict[int, str] = {}
    for name in FACE_POINT_NAMES:
        other = first.setdefault(face_points[name], name)
        if other != name:
            raise UserError(
                f"The face points {other} and {name} are the same vertex "
                f"({face_points[name]}). Each needs a vertex of its own: mark one of them again."
            )


def identify(
    vertices: NDArray[np.floating],
    corners: NDArray[np.integer],
    sizes: NDArray[np.integer],
    *,
    topology: str = "auto",
    face_points: dict[str, int] | None = None,
) -> Head:
    """Finds out which topology a mesh has and checks that it is plausible.

    Args:
        vertices: Positions in any unit and orientation, ``(V, 3)``.
        corners: Vertex numbers of the polygons' corners, ``(C,)``.
        sizes: Number of corners of each polygon, ``(F,)``.
        topology: ``auto``, a shipped topology's name, or a JSON file.
        face_points: Face points marked on this very mesh; they win over ``auto``.

    Returns:
        The mesh with its topology. Vertices and faces after those of the topology are allowed:
        teeth that were joined to a known head, its eyes that are other objects, a loose vertex.

    Raises:
        UserError: The mesh is not such a head; the message says why and what to do.
    """
    positions: NDArray[np.float64] = np.asarray(vertices, dtype=np.float64)
    if not np.isfinite(positions).all():
        bad = int((~np.isfinite(positions)).any(axis=1).sum())
        raise UserError(
            f"{bad} vertices of the head have no valid position (NaN or infinity). Repair the mesh."
        )
    if face_points and topology == "auto":
        check_face_points(face_points, len(vertices))
    else:
        _check_count(topology, len(vertices))  # before the fingerprint, which takes time
    mesh = (positions, np.asarray(corners, np.int32), np.asarray(sizes, np.int32))
    if face_points and topology == "auto":
        found = _marked(corners, sizes, len(vertices), face_points)
    elif topology == "auto":
        found = _search(mesh)
    else:
        found = load_topology(topology)
        if not _begins_with(found, corners, sizes, len(vertices)):
            raise UserError(_mismatch(found, len(vertices)))
    head = Head(*mesh, found)
    check_plausible(head)
    return head


def _known(
    corners: NDArray[np.integer], sizes: NDArray[np.integer], num_vertices: int
) -> Topology | None:
    """The largest shipped topology that a mesh begins with."""
    shipped = [load_topology(name) for name in shipped_topologies()]
    for topology in sorted(shipped, key=lambda t: -t.num_vertices):
        if _begins_with(topology, corners, sizes, num_vertices):
            return topology
    return None


def _marked(
    corners: NDArray[np.integer],
    sizes: NDArray[np.integer],
    num_vertices: int,
    face_points: dict[str, int],
) -> Topology:
    """The topology of a mesh on which all points are marked; with the parts of a known one."""
    known = _known(corners, sizes, num_vertices)
    if known is not None:
        return replace(known, name="custom", face_points=dict(face_points), mirror=None)
    mark = fingerprint(corners, sizes, num_vertices)
    return Topology("custom", num_vertices, mark, dict(face_points))


def _begins_with(
    topology: Topology, corners: NDArray[np.integer], sizes: NDArray[np.integer], num_vertices: int
) -> bool:
    """Whether the first vertices and the faces among them are those of a topology.

    No face may join them with the vertices after them, which are then parts of their own.
    """
    own = topology.num_vertices
    if num_vertices < own:
        return False
    if num_vertices > own:
        corners, sizes = np.asarray(corners, np.int64), np.asarray(sizes, np.int64)
        starts = np.cumsum(sizes) - sizes
        is_own = np.maximum.reduceat(corners, starts) < own
        if (np.minimum.reduceat(corners, starts)[~is_own] < own).any():
            return False
        corners, sizes = corners[np.repeat(is_own, sizes)], sizes[is_own]
    return bool(len(sizes)) and fingerprint(corners, sizes, own) == topology.fingerprint


def _check_count(name: str, num_vertices: int) -> None:
    """Refuses a number of vertices with which no head of the named topology, or none, begins."""
    if name != "auto":
        topology = load_topology(name)
        if topology.num_vertices > num_vertices:
            raise UserError(_mismatch(topology, num_vertices))
        return
    known = [load_topology(shipped) for shipped in shipped_topologies()]
    if all(topology.num_vertices > num_vertices for topology in known):
        raise _unknown(known, num_vertices)


def _unknown(known: list[Topology], num_vertices: int) -> UnknownHeadError:
    same = [topology for topology in known if topology.num_vertices == num_vertices]
    if same:
        return UnknownHeadError(_mismatch(same[0], num_vertices))
    names = ", ".join(f"{t.name} ({t.num_vertices} vertices)" for t in known)
    return UnknownHeadError(
        f"This head ({num_vertices} vertices) is none of the known ones: {names}. "
        "Mark its face points, or choose the head that speaks."
    )


def _search(mesh: Mesh) -> Topology:
    """The shipped topology of a mesh: as it is, of its first vertices, or without its seams."""
    num_vertices = len(mesh[0])
    found = _known(mesh[1], mesh[2], num_vertices)
    if found is None:
        found = _split_known(mesh)
    if found is None:
        raise _unknown([load_topology(name) for name in shipped_topologies()], num_vertices)
    return found


def _split_known(mesh: Mesh) -> Topology | None:
    """A known head that an importer has split at seams."""
    welded = weld(mesh)
    if not welded.num_copies:
        return None
    found = _known(*welded.mesh[1:], len(welded.first))
    if found is None:
        return None
    return replace(
        found,
        num_vertices=len(mesh[0]),
        fingerprint=fingerprint(*mesh[1:], len(mesh[0])),
        face_points={name: int(welded.first[v]) for name, v in found.face_points.items()},
        parts=tuple(_split_part(part, welded) for part in found.parts),
        mirror=None,
    )


def _split_part(part: Part, welded: Weld) -> Part:
    """A part with all copies of its vertices; one vertex stands for a connected part."""
    if len(part.vertices) == 1:
        vertices = np.flatnonzero(_same_component(welded, part.vertices[0])[welded.number])
    else:
        vertices = np.flatnonzero(np.isin(welded.number, part.vertices))
    return replace(part, vertices=tuple(vertices.tolist()))


def _same_component(welded: Weld, vertex: int) -> NDArray[np.bool_]:
    components = connected_components(*welded.mesh[1:], len(welded.first))
    return np.asarray(components == components[vertex])


def _mismatch(topology: Topology, num_vertices: int) -> str:
    if topology.num_vertices != num_vertices:
        return (
            f"The head has {num_vertices} vertices; the topology '{excerpt(topology.name)}' has "
            f"{topology.num_vertices}. Vertices were added, removed or merged, or it is another "
            "head: import it again unchanged, or mark its face points."
        )
    return (
        f"The head has {num_vertices} vertices like '{excerpt(topology.name)}', but its faces join "
        "other vertices: they were reordered, for example by an OBJ import. Import it again with "
        "the vertex order kept, or mark its face points."
    )


def weld_head(head: Head) -> tuple[Head, NDArray[np.int64]]:
    """A head without its seams.

    Args:
        head: A head with all face points.

    Returns:
        The welded head, and the number of each vertex of ``head`` in it, ``(V,)``; a displacement
        of the welded head is given back as ``offsets[number]``. A head without seams is returned
        as it is.
    """
    welded = weld((head.vertices, head.corners, head.sizes))
    if not welded.num_copies:
        return head, welded.number
    number, topology = welded.number, head.topology
    return Head(
        *welded.mesh,
        replace(
            topology,
            num_vertices=len(welded.first),
            face_points={name: int(number[v]) for name, v in topology.face_points.items()},
            parts=tuple(
                replace(part, vertices=tuple(dict.fromkeys(number[list(part.vertices)].tolist())))
                for part in topology.parts
            ),
            mirror=None,
        ),
        numbers=welded.first,
    ), number


def check_plausible(head: Head) -> None:
    """Checks that eyes, nose, lips and chin are one below the other, in a head-sized box.

    Args:
        head: A head with all face points.

    Raises:
        UserError: The positions are not those of a face.
    """
    frame = face_frame(head)
    position = {n: frame.to_face_mm(head.point(n)) for n in FACE_POINT_NAMES}
    problems: list[str] = []
    if position["nose_tip"][2] <= position["nose_root"][2]:
        problems.append("the nose points into the head (left and right are swapped?)")
    order = ["nose_tip", "lip_upper_outer_center", "lip_lower_outer_center", "chin"]
    for above, below in itertools.pairwise(order):
        if position[above][1] <= position[below][1]:
            problems.append(f"{above} is not above {below}")
    if position["nose_tip"][1] >= 0.0:
        problems.append("the nose's tip is not below the eyes")
    for n in ("lip_corner", "eye_inner", "eye_outer", "jaw_hinge", "brow_{}_3", "cheek"):
        left, right = (n.format(s) if "{}" in n else f"{n}_{s}" for s in ("left", "right"))
        if position[left][0] <= position[right][0]:
            problems.append(f"{left} is not to the subject's left of {right}")
    if max(position[f"jaw_hinge_{side}"][2] for side in ("left", "right")) > -10.0:
        problems.append("the jaw hinges are not behind the eyes")
    points = np.stack(list(position.values()))
    extent = np.ptp(points, axis=0)  # an adult's face and neck: 150 x 260 x 190 mm
    if extent.max() > 700.0 or extent.min() < 40.0:
        size = " x ".join(f"{e:.0f}" for e in extent)
        problems.append(f"the face points span {size} mm at 62 mm between the eyes")
    if problems:
        raise UserError(
            f"This does not look like a face: {_some(problems)}. Check that the right object is "
            "chosen and its face points are where they should be."
        )


def _some(items: list[str]) -> str:
    return ", ".join(items[:4]) + (" and more" if len(items) > 4 else "")
