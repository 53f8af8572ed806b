# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo head's quads: which vertex joins which, without any position.

Only the half with ``x >= 0`` is laid out: a grid around the head with rectangular holes, filled by
concentric rings for the mouth, the eye and the ear. :meth:`HalfMesh.mirrored` makes the whole.
A file of its own because changing a face here changes every vertex number of the demo topology,
which the files about its shape never do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

NUM_COLUMNS = 28  # from the front's middle line (0) to the back's (28)
MOUTH_COLUMNS, MOUTH_ROWS = (0, 10), (11, 19)
EYE_COLUMNS, EYE_ROWS = (4, 13), (27, 33)
EAR_COLUMNS, EAR_ROWS = (17, 22), (20, 29)
NOSTRIL_COLUMNS, NOSTRIL_ROWS = (1, 3), (20, 22)
BROW_COLUMNS, BROW_ROWS = (3, 12), (34, 36)
NUM_ROWS = 41  # from the neck's lower edge (0) to the edge of the crown's cap (41)
CAP_HALF_WIDTH = 7

NUM_MOUTH_SKIN_RINGS = 4  # between the hole's edge and the vermilion border, the border included
NUM_VERMILION_RINGS = 4  # from the border to the contact line, the contact line included
NUM_MOUTH_BAG_RINGS = 7
NUM_LID_RINGS = 7  # the last two are the outer and the inner edge of the lid's margin
NUM_SOCKET_RINGS = 4
NUM_EAR_RINGS = 8
NUM_NOSTRIL_RINGS = 2
EAR_RIM_RING = 4


@dataclass
class HalfMesh:
    """Vertices and faces of the half head with ``x >= 0``, while they are added."""

    num_vertices: int = 0
    faces: list[tuple[int, ...]] = field(default_factory=list)
    materials: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)  # the part each face belongs to

    def add_vertices(self, *shape: int) -> Ints:
        """New vertex numbers, shape ``shape``."""
        count = int(np.prod(shape))
        numbers = np.arange(self.num_vertices, self.num_vertices + count, dtype=np.int32)
        self.num_vertices += count
        return numbers.reshape(shape)

    def add_face(self, corners: Sequence[int], material: str, role: str) -> None:
        """One face, its corners counter-clockwise as seen from outside."""
        self.faces.append(tuple(int(corner) for corner in corners))
        self.materials.append(material)
        self.roles.append(role)

    def add_grid(self, rows: Ints, material: str, role: str, *, closed: bool = False) -> None:
        """Quads between the rows of ``rows`` (R, C); ``closed`` joins the last column to the first.

        Seen from outside, columns go to the right and rows go up. A negative number is a hole.
        """
        right = np.roll(rows, -1, axis=1)
        last = rows.shape[1] if closed else rows.shape[1] - 1
        for j in range(rows.shape[0] - 1):
            for i in range(last):
                corners = (rows[j, i], right[j, i], right[j + 1, i], rows[j + 1, i])
                if min(corners) >= 0:
                    self.add_face(corners, material, role)

    def paint(self, vertices: Ints, material: str) -> None:
        """Give ``material`` to the faces that have all their corners among ``vertices``."""
        inside = {int(vertex) for vertex in vertices.ravel()}
        for index, face in enumerate(self.faces):
            if inside.issuperset(face):
                self.materials[index] = material

    def mirrored(self, points: NDArray[np.float64]) -> Mirrored:
        """The whole mesh: this half, and its image in the plane ``x = 0``.

        Args:
            points: Positions of this half, shape ``(num_vertices, 3)``. Vertices with ``x == 0``
                lie on the middle line and are their own image.

        Returns:
            Both halves, with the vertices of this half first.
        """
        off_middle = np.flatnonzero(points[:, 0] != 0.0)
        image = np.arange(self.num_vertices, dtype=np.int32)
        image[off_middle] = self.num_vertices + np.arange(len(off_middle), dtype=np.int32)
        mirror = np.concatenate([image, off_middle.astype(np.int32)])
        vertices = np.concatenate([points, points[off_middle] * (-1.0, 1.0, 1.0)])
        faces = self.faces + [tuple(int(image[c]) for c in face[::-1]) for face in self.faces]
        return Mirrored(vertices, mirror, faces, self.materials * 2, self.roles * 2)


@dataclass(frozen=True)
class Mirrored:
    """The whole mesh. ``mirror[v]`` is the vertex at the mirror image of vertex ``v``."""

    vertices: NDArray[np.float64]
    mirror: Ints
    faces: list[tuple[int, ...]]
    materials: list[str]
    roles: list[str]

    def joined(self, other: Mirrored) -> Mirrored:
        """Both meshes as one, the other's vertices last."""
        first = len(self.vertices)
        return Mirrored(
            np.concatenate([self.vertices, other.vertices]),
            np.concatenate([self.mirror, other.mirror + np.int32(first)]),
            self.faces + [tuple(first + corner for corner in face) for face in other.faces],
            self.materials + other.materials,
            self.roles + other.roles,
        )


@dataclass(frozen=True)
class SkinLayout:
    """Vertex numbers of the skin's loops.

    Mouth rings run from the middle of the lower lip (0) over the corner (14) to the middle of the
    upper lip (28). Eye and ear rings are closed and start at the hole's lower inner (front) corner,
    counter-clockwise as seen from outside.
    """

    grid: Ints  # (NUM_ROWS + 1, NUM_COLUMNS + 1), -1 inside the holes
    crown: Ints  # (2 * CAP_HALF_WIDTH + 1, CAP_HALF_WIDTH + 1): front to back, middle to side
    mouth: Ints  # (1 + skin + vermilion + bag rings, 29); row 0 is the hole's edge
    mouth_back: Ints  # (9, 11) cap of the mouth bag
    eye: Ints  # (1 + lid + socket rings, 30)
    socket_back: Ints  # (7, 10) cap of the socket
    ear: Ints  # (1 + ear rings, 28)
    ear_floor: Ints  # (10, 6) cap in the ear's hollow
    nostril: Ints  # (1 + nostril rings, 8)
    nostril_top: Ints  # (3, 3) cap inside the nostril


CONTACT_RING = NUM_MOUTH_SKIN_RINGS + NUM_VERMILION_RINGS
BORDER_RING = NUM_MOUTH_SKIN_RINGS
MARGIN_RING = NUM_LID_RINGS - 1  # the outer edge of the lid's margin
MOUTH_CORNER = 14
NUM_MOUTH_COLUMNS = 29


def lay_out_skin(mesh: HalfMesh) -> SkinLayout:
    """Add the skin's vertices and faces to ``mesh``."""
    grid = _grid_with_holes(mesh)
    mesh.add_grid(grid, "skin", "skin")
    rows, columns = (
        slice(BROW_ROWS[0], BROW_ROWS[1] + 1),
        slice(BROW_COLUMNS[0], BROW_COLUMNS[1] + 1),
    )
    mesh.paint(grid[rows, columns], "brows")
    crown = _crown(mesh, grid)
    mouth_edge = hole_edge(grid, MOUTH_COLUMNS, MOUTH_ROWS)[:NUM_MOUTH_COLUMNS]
    num_rings = CONTACT_RING + NUM_MOUTH_BAG_RINGS
    mouth = np.vstack([mouth_edge[None], mesh.add_vertices(num_rings, NUM_MOUTH_COLUMNS)])
    mesh.add_grid(mouth[: BORDER_RING + 1], "skin", "skin")
    mesh.add_grid(mouth[BORDER_RING : CONTACT_RING + 2], "lips", "skin")
    mesh.add_grid(mouth[CONTACT_RING + 1 :], "mouth inside", "skin")
    mouth_back = _cap(mesh, mouth[-1], 10, 8, "mouth inside", is_half=True)

    eye_edge = hole_edge(grid, EYE_COLUMNS, EYE_ROWS)
    eye = np.vstack([eye_edge[None], mesh.add_vertices(NUM_LID_RINGS + NUM_SOCKET_RINGS, 30)])
    mesh.add_grid(eye[: NUM_LID_RINGS + 2], "skin", "skin", closed=True)
    mesh.add_grid(eye[NUM_LID_RINGS + 1 :], "mouth inside", "skin", closed=True)
    mesh.paint(eye[MARGIN_RING : NUM_LID_RINGS + 1, 13:25], "lashes")  # the line they grow from
    mesh.paint(eye[MARGIN_RING : NUM_LID_RINGS + 3, 25:30], "eye corner")
    socket_back = _cap(mesh, eye[-1], 9, 6, "mouth inside")

    ear_edge = hole_edge(grid, EAR_COLUMNS, EAR_ROWS)
    ear = np.vstack([ear_edge[None], mesh.add_vertices(NUM_EAR_RINGS, 28)])
    mesh.add_grid(ear, "skin", "skin", closed=True)
    ear_floor = _cap(mesh, ear[-1], 5, 9, "skin")

    nostril_edge = hole_edge(grid, NOSTRIL_COLUMNS, NOSTRIL_ROWS)
    nostril = np.vstack([nostril_edge[None], mesh.add_vertices(NUM_NOSTRIL_RINGS, 8)])
    mesh.add_grid(nostril[:2], "skin", "skin", closed=True)
    mesh.add_grid(nostril[1:], "mouth inside", "skin", closed=True)
    nostril_top = _cap(mesh, nostril[-1], 2, 2, "mouth inside")
    return SkinLayout(
        grid, crown, mouth, mouth_back, eye, socket_back, ear, ear_floor, nostril, nostril_top
    )


def hole_edge(grid: Ints, columns: tuple[int, int], rows: tuple[int, int]) -> Ints:
    """Vertices of a hole's edge, from its lower first column counter-clockwise, open loop."""
    (left, right), (low, high) = columns, rows
    return np.concatenate(
        [
            grid[low, left:right],
            grid[low:high, right],
            grid[high, right:left:-1],
            grid[high:low:-1, left],
        ]
    )


def _grid_with_holes(mesh: HalfMesh) -> Ints:
    """The grid's vertices, -1 inside the holes."""
    keep = np.ones((NUM_ROWS + 1, NUM_COLUMNS + 1), dtype=bool)
    keep[MOUTH_ROWS[0] + 1 : MOUTH_ROWS[1], : MOUTH_COLUMNS[1]] = False
    holes = ((EYE_ROWS, EYE_COLUMNS), (EAR_ROWS, EAR_COLUMNS), (NOSTRIL_ROWS, NOSTRIL_COLUMNS))
    for (low, high), (left, right) in holes:
        keep[low + 1 : high, left + 1 : right] = False
    grid = np.full(keep.shape, -1, dtype=np.int32)
    grid[keep] = mesh.add_vertices(int(keep.sum()))
    return grid


def _crown(mesh: HalfMesh, grid: Ints) -> Ints:
    """Close the grid's upper edge with a square patch; its rows go from the front to the back."""
    length = 2 * CAP_HALF_WIDTH
    crown = np.empty((length + 1, CAP_HALF_WIDTH + 1), dtype=np.int32)
    crown[0] = grid[-1, : CAP_HALF_WIDTH + 1]
    crown[:, -1] = grid[-1, CAP_HALF_WIDTH : CAP_HALF_WIDTH + length + 1]
    crown[-1] = grid[-1, : -CAP_HALF_WIDTH - 2 : -1]
    crown[1:-1, :-1] = mesh.add_vertices(length - 1, CAP_HALF_WIDTH)
    mesh.add_grid(crown, "skin", "skin")
    return crown


def _cap(
    mesh: HalfMesh, ring: Ints, columns: int, rows: int, material: str, *, is_half: bool = False
) -> Ints:
    """Close ``ring`` with a grid of ``columns`` x ``rows`` quads, laid out as :func:`hole_edge`."""
    cap = np.empty((rows + 1, columns + 1), dtype=np.int32)
    first = 0 if is_half else 1  # a half cap's first column lies on the middle line
    cap[1:-1, first:-1] = mesh.add_vertices(rows - 1, columns - first)
    cap[0] = ring[: columns + 1]
    cap[:, -1] = ring[columns : columns + rows + 1]
    cap[-1] = ring[columns + rows : 2 * columns + rows + 1][::-1]
    if not is_half:
        cap[1:-1, 0] = ring[2 * columns + rows + 1 :][::-1]
    mesh.add_grid(cap, material, "skin")
    return cap
