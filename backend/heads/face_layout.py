# SPDX-License-Identifier: GPL-3.0-or-later
"""Layout of a head's face: what the shape solver needs to know of the mesh.

Which vertices are lips, and how far along and across them; which lie inside the mouth and behind
the lids; where the eyeballs are; what never moves. Positions are in the face's axes, in mm of a
head with 62 mm between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from backend.errors import UserError
from backend.heads.edge_paths import PathTracer, pieces, touching
from backend.heads.mesh import polygon_edges, triangulate_both_ways
from backend.heads.parts import Anchors, HeadParts, ball_of, joined, tell_parts
from backend.heads.topology import FACE_POINT_NAMES, FaceFrame, Head, face_frame

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MAX_REST_GAP_MM = 8.0
_LIDS = ("upper", "lower")


@dataclass(frozen=True)
class MouthLayout:
    """The lips as rows of vertices.

    Attributes:
        rows: ``upper`` and ``lower`` contact row, vertices from the right corner to the left one.
        lips: All vertices between the outer borders, pocket excluded.
        along: Position of each vertex of ``lips`` along the lip, -1 right corner … +1 left corner.
        across: Position of each vertex of ``lips`` across the lip: 0 contact, 1 outer border; upper
            lip positive, lower lip negative.
        is_upper: Whether each vertex of ``lips`` belongs to the upper lip; corners count as upper.
        pocket: Vertices of the skin inside the mouth.
        half_width: Half the distance between the mouth's corners, in mm.
    """

    rows: dict[str, Ints]
    lips: Ints
    along: Floats
    across: Floats
    is_upper: NDArray[np.bool_]
    pocket: Ints
    half_width: float


@dataclass(frozen=True)
class EyeLayout:
    """Lids and eyeball of one eye.

    Attributes:
        rows: ``upper`` and ``lower`` lid margin, from the inner corner to the outer one.
        pocket: Vertices of the skin behind the margins.
        ball: Vertices of the eyeball, all its layers; empty if the head has none.
        turning: Vertices of what turns with the eyeball: iris, pupil, cornea.
        lashes: Vertices of the lashes.
        shells: Vertices of what lies on the eyeball between the lids.
        has_layers: Whether the eyeball is of several layers, such as a ball and a cornea.
        centre: Centre of the eyeball, in mm.
        radius: Radius of the eyeball, in mm.
    """

    rows: dict[str, Ints]
    pocket: Ints
    ball: Ints
    turning: Ints
    lashes: Ints
    shells: Ints
    has_layers: bool
    centre: Floats
    radius: float


@dataclass(frozen=True)
class FaceLayout:
    """Regions of a head's mesh; all positions are in the face's axes, in mm.

    Attributes:
        frame: The face's axes and size.
        points: Positions of all vertices, ``(V, 3)``.
        skin: Vertices of the connected part that has the face points.
        skin_triangles: Triangles of the skin without the pockets; quads cut both ways.
        pocket_triangles: Triangles of the skin's pockets.
        normals: Unit normals of the skin, ``(V, 3)``.
        still: Whether each vertex never moves: behind the jaw hinges, and the neck.
        landmark_vertex: Vertex number of each face point (landmark) by its name.
        mouth: The lips and the mouth's inside.
        eyes: The ``left`` and the ``right`` eye.
        parts: Vertices of ``teeth_upper``, ``teeth_lower``, ``tongue``, ``gums`` (what spans both
            rows) and ``attached``.
        jaw_shares: Share with which each vertex inside the mouth follows the jaw, ``(V,)``.
    """

    frame: FaceFrame
    points: Floats
    skin: Ints
    skin_triangles: Ints
    pocket_triangles: Ints
    normals: Floats
    still: NDArray[np.bool_]
    landmark_vertex: dict[str, int]
    mouth: MouthLayout
    eyes: dict[str, EyeLayout]
    parts: dict[str, Ints]
    jaw_shares: Floats

    @property
    def inside_mouth(self) -> Ints:
        """Vertices of the parts that follow the jaw by their ``jaw_shares``."""
        return np.concatenate([self.parts[k] for k in ("teeth_lower", "tongue", "gums")])


def examine(head: Head) -> FaceLayout:
    """Finds lips, lids, pockets and parts of a head.

    Args:
        head: A head with all face points.

    Returns:
        The layout of its face.

    Raises:
        UserError: The mesh does not let the face move: a face point is not connected with the
            rest, the mouth is no slit, or it gapes.
    """
    frame = face_frame(head)
    points = frame.to_face_mm(head.vertices)
    landmark_vertex = head.topology.face_points
    skin = _skin(head)
    edges = polygon_edges(head.corners, head.sizes)
    edges = edges[np.isin(edges[:, 0], skin)]
    is_skin = np.zeros(len(points), dtype=bool)
    is_skin[skin] = True
    tracer = PathTracer(points, edges)

    loops = {"mouth": _mouth_rows(tracer, landmark_vertex)}
    for side in ("left", "right"):
        loops[side] = _lid_rows(tracer, landmark_vertex, side)
    on_loop = np.zeros(len(points), dtype=bool)
    for rows in loops.values():
        on_loop[np.concatenate(list(rows.values()))] = True
    pockets = _pockets(edges, is_skin, on_loop, loops, landmark_vertex["nose_tip"])
    _check_slit(points, edges, loops["mouth"], landmark_vertex, head.numbers)

    is_pocket = np.zeros(len(points), dtype=bool)
    is_pocket[np.concatenate(list(pockets.values()))] = True
    triangles = triangulate_both_ways(head.corners, head.sizes)
    skin_triangles = triangles[is_skin[triangles[:, 0]]]
    inside = is_pocket[skin_triangles].any(axis=1)
    facing = _orient(points, skin_triangles)
    rims = {side: np.concatenate(list(loops[side].values())) for side in ("left", "right")}
    anchors = Anchors(skin, skin_triangles[~inside], rims, landmark_vertex)
    parts = tell_parts(head, points, anchors)
    mouth = _mouth(
        tracer, landmark_vertex, loops["mouth"], pockets["mouth"], edges, is_skin & ~is_pocket
    )
    eyes = {
        side: _eye(points, landmark_vertex, side, loops[side], pockets[side], parts)
        for side in ("left", "right")
    }
    return FaceLayout(
        frame=frame,
        points=points,
        skin=skin,
        skin_triangles=skin_triangles[~inside],
        pocket_triangles=skin_triangles[inside],
        normals=vertex_normals(points, skin_triangles) * facing,
        still=_still(points, landmark_vertex),
        landmark_vertex=landmark_vertex,
        mouth=mouth,
        eyes=eyes,
        parts=parts.mouth | {"attached": parts.attached},
        jaw_shares=parts.jaw_shares,
    )


def vertex_normals(points: Floats, triangles: Ints) -> Floats:
    """Area-weighted unit normals, ``(V, 3)``; zero for vertices of no triangle."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for axis in range(3):
        total = np.bincount(triangles.ravel(), np.repeat(face[:, axis], 3), minlength=len(points))
        normals[:, axis] = total
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))


def _orient(points: Floats, triangles: Ints) -> float:
    """-1 where the faces are wound so that their normals point into the head, else 1."""
    a, b, c = (points[triangles[:, k]] - points.mean(axis=0) for k in range(3))
    return 1.0 if np.einsum("ni,ni->", a, np.cross(b, c)) >= 0 else -1.0


def _skin(head: Head) -> Ints:
    components = head.components
    home = components[head.topology.face_points["nose_tip"]]
    numbers = head.topology.face_point_vertices
    lost = [
        name
        for name, number in zip(FACE_POINT_NAMES, numbers, strict=True)
        if components[number] != home
    ]
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UserError(
            f"These face points are not connected with the nose by the head's faces: "
            f"{', '.join(lost[:3])}{more}. Mark them on the face itself, or merge the mesh's "
            "doubled vertices (Merge by Distance)."
        )
    return np.flatnonzero(components == home)


def _lip_stops(landmark_vertex: dict[str, int], lip: str, ring: str) -> list[int]:
    names = [f"lip_{lip}_{ring}_right_{i}" for i in (3, 2, 1)] + [f"lip_{lip}_{ring}_center"]
    names += [f"lip_{lip}_{ring}_left_{i}" for i in (1, 2, 3)]
    return [landmark_vertex[n] for n in ("lip_corner_right", *names, "lip_corner_left")]


def _mouth_rows(tracer: PathTracer, landmark_vertex: dict[str, int]) -> dict[str, Ints]:
    upper_stops, lower_stops = (_lip_stops(landmark_vertex, lip, "inner") for lip in _LIDS)
    upper = tracer.path(upper_stops, avoid=np.array(lower_stops[1:-1]))
    lower = tracer.path(lower_stops, avoid=upper[1:-1])
    return {"upper": upper, "lower": lower}


def _lid_rows(tracer: PathTracer, landmark_vertex: dict[str, int], side: str) -> dict[str, Ints]:
    stops = {
        lid: [
            landmark_vertex[f"eye_inner_{side}"],
            *(landmark_vertex[f"lid_{lid}_{side}_{i}"] for i in range(1, 6)),
            landmark_vertex[f"eye_outer_{side}"],
        ]
        for lid in _LIDS
    }
    upper = tracer.path(stops["upper"], avoid=np.array(stops["lower"][1:-1]))
    return {"upper": upper, "lower": tracer.path(stops["lower"], avoid=upper[1:-1])}


def _pockets(
    edges: Ints,
    is_skin: NDArray[np.bool_],
    on_loop: NDArray[np.bool_],
    loops: dict[str, dict[str, Ints]],
    nose: int,
) -> dict[str, Ints]:
    """Vertices behind each loop: pieces of the mesh that the loop cuts off from the nose."""
    labels = pieces(edges, is_skin & ~on_loop)
    found = {}
    for name, rows in loops.items():
        cut_off = touching(edges, labels, np.concatenate(list(rows.values()))) - {labels[nose]}
        found[name] = np.flatnonzero(np.isin(labels, list(cut_off)))
    return found


def _check_slit(
    points: Floats,
    edges: Ints,
    rows: dict[str, Ints],
    landmark_vertex: dict[str, int],
    numbers: Ints | None,
) -> None:
    corners = points[[landmark_vertex["lip_corner_left"], landmark_vertex["lip_corner_right"]]]
    near = 0.15 * np.linalg.norm(corners[0] - corners[1])
    from_corner = np.linalg.norm(points[:, None] - corners[None], axis=2).min(axis=1)
    upper, lower = (np.isin(edges, rows[lip][1:-1]) for lip in _LIDS)
    joins = (upper[:, 0] & lower[:, 1]) | (upper[:, 1] & lower[:, 0])
    joined = edges[joins & (from_corner[edges] > near).all(axis=1)]
    if len(joined):
        centre = corners.mean(axis=0)
        away = points[joined, 0].mean(axis=1) - centre[0]
        nearest = int(np.abs(away).argmin())
        a, b = joined[nearest] if numbers is None else numbers[joined[nearest]]
        side = "left" if away[nearest] > 0 else "right"
        off = abs(away[nearest]) / (np.linalg.norm(corners[0] - corners[1]) / 2)
        where = (
            "in the middle" if off < 0.25 else f"on the {side}, {off:.0%} of the way to the corner"
        )
        raise UserError(
            f"The lips are joined: {len(joined)} edges lead from the upper lip to the lower one, "
            f"the first of them {where}, between the vertices {a} and {b}. Cut the mesh open "
            "between the lips, or mark the inner lip points where the lips part."
        )
    middle = (
        points[landmark_vertex["lip_upper_inner_center"]]
        - points[landmark_vertex["lip_lower_inner_center"]]
    )
    if abs(middle[1]) > _MAX_REST_GAP_MM:
        raise UserError(
            f"The mouth stands open by {abs(middle[1]):.0f} mm (at 62 mm between the eyes) in "
            "the rest shape. Close it, or choose a shape where the lips touch."
        )


def _mouth(
    tracer: PathTracer,
    landmark_vertex: dict[str, int],
    rows: dict[str, Ints],
    pocket: Ints,
    edges: Ints,
    is_face: NDArray[np.bool_],
) -> MouthLayout:
    points = tracer.points
    inner = np.concatenate([rows["upper"], rows["lower"]])
    borders = {
        lip: tracer.path(_lip_stops(landmark_vertex, lip, "outer"), avoid=inner) for lip in _LIDS
    }
    outer = np.concatenate(list(borders.values()))
    keep = is_face.copy()
    keep[inner] = keep[outer] = False
    labels = pieces(edges, keep)
    vertices: list[Ints] = []
    across: list[Floats] = []
    for lip, sign in (("upper", 1.0), ("lower", -1.0)):
        between = touching(edges, labels, rows[lip][1:-1]) - {labels[landmark_vertex["nose_tip"]]}
        band = np.flatnonzero(np.isin(labels, list(between)))
        row, border = rows[lip], borders[lip][1:-1]
        if lip == "lower":
            row = row[1:-1]
        to_row = _distance(points, band, rows[lip])
        to_border = _distance(points, band, borders[lip])
        vertices += [row, band, np.setdiff1d(border, row)]
        share = to_row / np.maximum(to_row + to_border, 1e-9)
        across += [np.zeros(len(row)), sign * share, np.full(len(vertices[-1]), sign)]
    lips, first = np.unique(np.concatenate(vertices), return_index=True)
    corners = points[[landmark_vertex["lip_corner_right"], landmark_vertex["lip_corner_left"]], 0]
    middle = [landmark_vertex["lip_upper_inner_center"], landmark_vertex["lip_lower_inner_center"]]
    centre = points[middle, 0].mean()
    across_lips = np.concatenate(across)[first]
    x = points[lips, 0] + (1.0 - np.abs(across_lips)) * _shift(points, rows, lips)
    along = np.interp(x, [corners[0], centre, corners[1]], [-1.0, 0.0, 1.0])
    of_upper = np.concatenate([rows["upper"], *vertices[1:3]])
    return MouthLayout(
        rows=rows,
        lips=lips,
        along=along,
        across=across_lips,
        is_upper=np.isin(lips, of_upper),
        pocket=pocket,
        half_width=float(corners[1] - corners[0]) / 2,
    )


def _shift(points: Floats, rows: dict[str, Ints], lips: Ints) -> Floats:
    """Distance in x of the lips' vertices to the middle between touching points of the lips.

    Points that touch must move as one, though near the corners they may differ in x.
    """
    contact = np.concatenate([rows["upper"], rows["lower"][1:-1]])
    middle = np.zeros(len(contact))
    for lip, other in (("upper", "lower"), ("lower", "upper")):
        on_row = np.isin(contact, rows[lip])
        samples = _samples(points, rows[other])
        touched = samples[cKDTree(samples).query(points[contact[on_row]])[1], 0]
        middle[on_row] = (touched - points[contact[on_row], 0]) / 2
    return np.asarray(middle[cKDTree(points[contact]).query(points[lips])[1]])


def _samples(points: Floats, path: Ints) -> Floats:
    steps = np.linspace(0.0, 1.0, 17)[:, None, None]
    a, b = points[path[:-1]], points[path[1:]]
    return np.asarray(a + steps * (b - a)).reshape(-1, 3)


def _distance(points: Floats, of: Ints, to_path: Ints) -> Floats:
    tree = cKDTree(_samples(points, to_path))
    return np.asarray(tree.query(points[of])[0]) if len(of) else np.zeros(0)


def _still(points: Floats, landmark_vertex: dict[str, int]) -> NDArray[np.bool_]:
    hinge = (
        points[landmark_vertex["jaw_hinge_left"]] + points[landmark_vertex["jaw_hinge_right"]]
    ) / 2
    low = points[landmark_vertex["neck_front"]][1]
    high = points[landmark_vertex["forehead_center"]][1] + 25.0
    return np.asarray((points[:, 2] <= hinge[2]) | (points[:, 1] <= low) | (points[:, 1] >= high))


def _eye(
    points: Floats,
    landmark_vertex: dict[str, int],
    side: str,
    rows: dict[str, Ints],
    pocket: Ints,
    parts: HeadParts,
) -> EyeLayout:
    corners = points[[landmark_vertex[f"eye_inner_{side}"], landmark_vertex[f"eye_outer_{side}"]]]
    width = np.linalg.norm(corners[0] - corners[1])
    layers = parts.balls[side]
    if layers:
        centre, radius = ball_of(points, layers)
    else:
        margin = points[np.concatenate([rows["upper"], rows["lower"]])].mean(axis=0)
        radius = 0.45 * float(width)
        centre = margin - np.array([0.0, 0.0, 0.9 * radius])
    return EyeLayout(
        rows,
        pocket,
        joined(layers),
        parts.turning[side],
        parts.lashes[side],
        parts.shells[side],
        len(layers) > 1 or len(parts.turning[side]) > 0,
        centre,
        radius,
    )
