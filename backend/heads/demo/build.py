# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo head: a pleasant mannequin made from formulas, with a mouth that can speak.

``python -m backend.heads.demo.build`` writes it anew to ``backend/demo/head.npz`` and its topology
to ``backend/topologies/demo.json``. Nothing is imported or measured from another head.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.heads.demo import layout as layout
from backend.heads.demo.parts import add_eyeball, add_lashes, add_teeth, add_tongue
from backend.heads.demo.skin import ROW_GUIDES, place_skin
from backend.heads.topology import FACE_POINT_NAMES, fingerprint

TOPOLOGY_PATH = bundled.TOPOLOGIES_DIR / "demo.json"

# Linear RGB.
MATERIALS: dict[str, tuple[float, float, float]] = {
    "skin": (0.80, 0.56, 0.45),
    "lips": (0.64, 0.31, 0.28),
    "eye corner": (0.55, 0.26, 0.23),
    "eye white": (0.90, 0.90, 0.88),
    "iris": (0.16, 0.30, 0.40),
    "iris edge": (0.05, 0.10, 0.14),
    "pupil": (0.01, 0.01, 0.01),
    "brows": (0.16, 0.09, 0.06),
    "lashes": (0.03, 0.018, 0.014),
    "teeth": (0.74, 0.70, 0.62),
    "tongue": (0.36, 0.11, 0.11),
    "mouth inside": (0.07, 0.016, 0.016),
}

# Face points on the grid, by row and column; those off the middle line are the left ones.
GRID_POINTS = {
    "nose_root": (29, 0),
    "nose_bridge": (25, 0),
    "nose_tip": (23, 0),
    "nose_base": (20, 0),
    "nostril": (21, 3),
    "nose_side": (22, 4),
    "chin": (10, 0),
    "chin_bottom": (8, 0),
    "chin_side": (9, 3),
    "jaw_line_1": (8, 7),
    "jaw_line_2": (8, 12),
    "jaw_line_3": (11, 15),
    "jaw_line_4": (14, 18),
    "jaw_hinge": (24, 17),
    "brow_center": (34, 0),
    "cheek": (23, 9),
    "cheekbone": (25, 14),
    "cheek_hollow": (16, 12),
    "smile_fold": (20, 8),
    "forehead_center": (38, 0),
    "forehead": (37, 7),
    "temple": (32, 14),
    "head_back": (33, 28),
    "neck_front": (2, 0),
    "neck_back": (2, 28),
    "neck": (2, 19),
}
LIP_COLUMNS = {"lower": (0, 4, 8, 11), "upper": (28, 24, 20, 17)}  # middle, _1, _2, _3
LID_COLUMNS = {"upper": (25, 22, 19, 17, 14), "lower": (29, 2, 5, 7, 10)}  # _1 to _5
EYE_CORNER_COLUMNS = {"inner": 27, "outer": 12}
BROW_POINT_COLUMNS = (3, 5, 7, 9, 12)
EAR_POINT_COLUMNS = (16, 2)  # top, lobe
CROWN_ROW = 10


@dataclass(frozen=True)
class DemoHead:
    """The whole head.

    Attributes:
        vertices: Positions in metres, ``(V, 3)`` float64; z is up, the head faces -y, and the
            neck's lower edge is at ``z = 0``.
        corners: Vertex numbers of the polygons' corners, ``(C,)`` int32.
        sizes: Number of corners of each polygon, ``(F,)`` int32.
        face_points: Vertex number of each face point, all of ``FACE_POINT_NAMES``.
        parts: Role to one vertex of a connected part, or to all vertices of a region.
        mirror: Vertex number of each vertex's mirror image, ``(V,)`` int32.
        face_materials: Index into ``MATERIALS`` of each polygon, ``(F,)`` int32.
    """

    vertices: NDArray[np.float64]
    corners: NDArray[np.int32]
    sizes: NDArray[np.int32]
    face_points: dict[str, int]
    parts: dict[str, list[int]]
    mirror: NDArray[np.int32]
    face_materials: NDArray[np.int32]


def build() -> DemoHead:
    """The demo head from its formulas; takes about a second."""
    mesh = layout.HalfMesh()
    skin = layout.lay_out_skin(mesh)
    placed = place_skin(skin, mesh)
    margin = placed[skin.eye[layout.MARGIN_RING]]
    points = [placed]
    eye, placed = add_eyeball(mesh)
    points.append(placed)
    loose = {}
    for role in ("teeth_upper", "teeth_lower"):
        loose[role], placed = add_teeth(mesh, is_upper=role == "teeth_upper")
        points.append(placed)
    loose["tongue"], placed = add_tongue(mesh)
    points.append(placed)
    whole = mesh.mirrored(np.concatenate(points))
    whole, lashes = _with_lashes(whole, margin)

    vertices = whole.vertices - (0.0, 0.0, ROW_GUIDES[0, 2])
    names = list(MATERIALS)
    return DemoHead(
        vertices=vertices / 1000.0,
        corners=np.concatenate([np.array(face, dtype=np.int32) for face in whole.faces]),
        sizes=np.array([len(face) for face in whole.faces], dtype=np.int32),
        face_points=_face_points(skin, whole.mirror),
        parts=_parts(skin, eye, loose, whole.mirror) | lashes,
        mirror=whole.mirror,
        face_materials=np.array([names.index(name) for name in whole.materials], dtype=np.int32),
    )


def write(head: DemoHead) -> None:
    """Write the two files that are in the repository."""
    bundled.DEMO_HEAD.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        bundled.DEMO_HEAD,
        vertices=head.vertices,
        face_corners=head.corners,
        face_sizes=head.sizes,
        face_point_names=np.array(list(head.face_points)),
        face_point_indices=np.array(list(head.face_points.values()), dtype=np.int32),
        material_names=np.array(list(MATERIALS)),
        material_colors=np.array(list(MATERIALS.values()), dtype=np.float32),
        face_materials=head.face_materials,
    )
    TOPOLOGY_PATH.parent.mkdir(parents=True, exist_ok=True)
    lines = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in topology_data(head).items()]
    TOPOLOGY_PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def topology_data(head: DemoHead) -> dict[str, object]:
    """Contents of ``backend/topologies/demo.json``: vertex numbers, no positions."""
    parts: list[dict[str, object]] = []
    for role, vertices in head.parts.items():
        only_seed = len(vertices) == 1
        value = {"seed": vertices[0]} if only_seed else {"vertices": vertices}
        parts.append({"role": role, **value})
    return {
        "name": "demo",
        "num_vertices": len(head.vertices),
        "fingerprint": fingerprint(head.corners, head.sizes, len(head.vertices)),
        "face_points": head.face_points,
        "parts": parts,
        "mirror": head.mirror.tolist(),
    }


def _with_lashes(
    whole: layout.Mirrored, margin: NDArray[np.float64]
) -> tuple[layout.Mirrored, dict[str, list[int]]]:
    """Add the lashes behind all other vertices, whose numbers stay those of ``demo-1``."""
    half = layout.HalfMesh()
    outer, inner = EYE_CORNER_COLUMNS["outer"], EYE_CORNER_COLUMNS["inner"]
    lower = np.roll(margin, 3, axis=0)[outer + 3 :: -1]
    rows = {"upper": margin[outer : inner + 1], "lower": lower}
    seeds, points = {}, []
    for lid, row in rows.items():
        numbers, placed = add_lashes(half, row, is_upper=lid == "upper")
        seeds[lid] = int(numbers[0])
        points.append(placed)
    lashes = half.mirrored(np.concatenate(points))
    first = len(whole.vertices)
    parts = {}
    for lid, seed in seeds.items():
        parts[f"lashes_{lid}_left"] = [first + seed]
        parts[f"lashes_{lid}_right"] = [first + int(lashes.mirror[seed])]
    return whole.joined(lashes), parts


def _face_points(skin: layout.SkinLayout, mirror: layout.Ints) -> dict[str, int]:
    """All face points in the order of ``FACE_POINT_NAMES``."""
    left = {name: int(skin.grid[place]) for name, place in GRID_POINTS.items()}
    left |= _lip_points(skin) | _lid_points(skin)
    left["chin_crease"] = int(skin.mouth[1, 0])
    left["crown"] = int(skin.crown[CROWN_ROW, 0])
    brow = skin.grid[layout.BROW_ROWS[0] + 1]
    for number, column in enumerate(BROW_POINT_COLUMNS, start=1):
        left[f"brow_{number}"] = int(brow[column])
    rim = skin.ear[layout.EAR_RIM_RING]
    left["ear_top"], left["ear_lobe"] = (int(rim[column]) for column in EAR_POINT_COLUMNS)
    points = {}
    for name in FACE_POINT_NAMES:
        plain = name.replace("_left", "").replace("_right", "")
        vertex = left["chin_side" if plain == "chin" != name else plain]
        points[name] = int(mirror[vertex]) if "_right" in name else vertex
    return points


def _lip_points(skin: layout.SkinLayout) -> dict[str, int]:
    """The lips' points on the middle line and on the left."""
    points = {"lip_corner": int(skin.mouth[layout.CONTACT_RING, layout.MOUTH_CORNER])}
    for lip, columns in LIP_COLUMNS.items():
        for edge, ring in (("outer", layout.BORDER_RING), ("inner", layout.CONTACT_RING)):
            numbers = ("center", 1, 2, 3)
            for number, column in zip(numbers, columns, strict=True):
                points[f"lip_{lip}_{edge}_{number}"] = int(skin.mouth[ring, column])
    return points


def _lid_points(skin: layout.SkinLayout) -> dict[str, int]:
    """The left eye's points."""
    margin = skin.eye[layout.MARGIN_RING]
    points = {f"eye_{end}": int(margin[column]) for end, column in EYE_CORNER_COLUMNS.items()}
    for lid, columns in LID_COLUMNS.items():
        for number, column in enumerate(columns, start=1):
            points[f"lid_{lid}_{number}"] = int(margin[column])
    return points


def _parts(
    skin: layout.SkinLayout, eye: layout.Ints, loose: dict[str, layout.Ints], mirror: layout.Ints
) -> dict[str, list[int]]:
    """Connected parts by one vertex of each; regions of the skin by all their vertices."""
    parts = {"skin": [int(skin.grid[0, 0])]}
    parts["eye_left"], parts["eye_right"] = [int(eye[0])], [int(mirror[eye[0]])]
    parts.update({role: [int(numbers[0])] for role, numbers in loose.items()})
    bag = np.concatenate([skin.mouth[layout.CONTACT_RING + 1 :].ravel(), skin.mouth_back.ravel()])
    parts["mouth_inside"] = np.unique(np.concatenate([bag, mirror[bag]])).tolist()
    socket = skin.eye[layout.NUM_LID_RINGS + 1 :].ravel()
    socket = np.unique(np.concatenate([socket, skin.socket_back.ravel()]))
    parts["socket_left"], parts["socket_right"] = socket.tolist(), np.sort(mirror[socket]).tolist()
    return parts


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    demo_head = build()
    write(demo_head)
    logging.info(
        "%d vertices, %d faces -> %s, %s",
        len(demo_head.vertices), len(demo_head.sizes), bundled.DEMO_HEAD, TOPOLOGY_PATH,
    )  # fmt: skip
