# SPDX-License-Identifier: GPL-3.0-or-later
"""Agreement of the solved shapes with shapes that were scanned on people.

For each shape: the cosine of the two displacement fields over the face, and the size of ours over
the size of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError, excerpt
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.find_face_points import find_face_points
from backend.heads.solve import solve_shapes
from backend.heads.topology import FACE_POINT_NAMES, Head, identify
from backend.io import read_json

Floats = NDArray[np.float64]

MOUTH_AND_JAW: Final = tuple(n for n in ARKIT_NAMES if n.startswith(("mouth", "jaw")))
_MAX_POINTS_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class ScannedShapes:
    """A head with shapes made from scans of people.

    Attributes:
        vertices: Positions at rest, ``(V, 3)``.
        corners: Vertex numbers of the polygons' corners, ``(C,)``.
        sizes: Number of corners of each polygon, ``(F,)``.
        offsets: Displacements ``(V, 3)`` at weight 1 of each scanned shape, by its ARKit name.
        identities: Displacements from this person to others, ``(I, V, 3)``.
    """

    vertices: Floats
    corners: NDArray[np.int32]
    sizes: NDArray[np.int32]
    offsets: dict[str, Floats]
    identities: Floats


@dataclass(frozen=True, slots=True)
class ShapeAgreement:
    """How well a solved shape agrees with the scanned one.

    Attributes:
        cosine: Of the two displacement fields; 0 where either does not move.
        size: Norm of the solved field over that of the scanned one.
    """

    cosine: float
    size: float


def read_scans(path: Path) -> ScannedShapes:
    """Reads scanned shapes.

    Args:
        path: A .npz file with ``vertices``, ``face_corners``, ``face_sizes``, ``names`` and
            ``offsets`` ``(K, V, 3)``; ``identity_offsets`` ``(I, V, 3)`` if there are other people.
            Where a name of ARKit is missing, those of its left and its right half are summed.

    Returns:
        The shapes.

    Raises:
        UserError: The file is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            vertices = data["vertices"].astype(np.float64)
            corners, sizes = (data[f"face_{k}"].astype(np.int32) for k in ("corners", "sizes"))
            scanned = dict(
                zip(data["names"].tolist(), data["offsets"].astype(np.float64), strict=True)
            )
            others = data["identity_offsets"] if "identity_offsets" in data.files else ()
            identities = np.array(others, dtype=np.float64).reshape(-1, *vertices.shape)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{excerpt(path.name)} does not hold scanned shapes ({excerpt(error)}). Give a .npz "
            "file with vertices, face_corners, face_sizes, names and offsets."
        ) from error
    offsets = {}
    for name in ARKIT_NAMES:
        halves = [scanned[n] for n in (f"{name}Left", f"{name}Right") if n in scanned]
        if name in scanned:
            offsets[name] = scanned[name]
        elif halves:
            offsets[name] = np.sum(halves, axis=0)
    if not offsets:
        raise UserError(f"{excerpt(path.name)} names no shape of ARKit, such as jawOpen.")
    return ScannedShapes(vertices, corners, sizes, offsets, identities)


def scanned_head(scans: ScannedShapes, points: dict[str, int] | None, person: int = -1) -> Head:
    """The scans' head with its face points.

    Args:
        scans: The scanned shapes.
        points: Vertex number of each face point; None has them found.
        person: Number of one of ``scans.identities``, or -1 for the head as it is.

    Returns:
        The head.

    Raises:
        UserError: The head is no face whose points can be found.
    """
    vertices = scans.vertices + (scans.identities[person] if person >= 0 else 0.0)
    if points is None:
        points = find_face_points((vertices, scans.corners, scans.sizes)).face_points
    return identify(vertices, scans.corners, scans.sizes, face_points=points)


def read_points(path: Path) -> dict[str, int]:
    """Face points from a JSON file: of its first object that names all of them.

    Args:
        path: The file; objects may lie within objects.

    Returns:
        Vertex number of each face point.

    Raises:
        UserError: No object names all face points.
    """
    remedy = "Give a JSON file with the vertex number of each face point."
    waiting = [read_json(path, what="a list of points", remedy=remedy, max_bytes=_MAX_POINTS_BYTES)]
    while waiting:
        item = waiting.pop(0)
        if not isinstance(item, dict):
            continue
        if all(isinstance(item.get(name), int) for name in FACE_POINT_NAMES):
            return {name: item[name] for name in FACE_POINT_NAMES}
        waiting = [*item.values(), *waiting]
    raise UserError(f"{excerpt(path.name)} does not name all face points. {remedy}")


def shape_agreement(
    head: Head, scans: ScannedShapes, vertices: NDArray[np.integer] | slice
) -> dict[str, ShapeAgreement]:
    """Compares the shapes solved on a head with the scanned ones.

    Args:
        head: The scans' head.
        scans: The scanned shapes.
        vertices: The face: vertices that are compared.

    Returns:
        The agreement of each scanned shape.
    """
    solved = solve_shapes(head)
    result = {}
    for name, scanned in scans.offsets.items():
        ours = solved.offsets[solved.names.index(name)][vertices].astype(np.float64).ravel()
        theirs = scanned[vertices].ravel()
        sizes = float(np.linalg.norm(ours)), float(np.linalg.norm(theirs))
        cosine = float(ours @ theirs) / max(sizes[0] * sizes[1], 1e-12)
        result[name] = ShapeAgreement(cosine, sizes[0] / max(sizes[1], 1e-12))
    return result


def table(agreements: dict[str, ShapeAgreement]) -> str:
    """Agreement by shape and its means as lines of text."""
    lines = [f"{name:20s} {a.cosine:6.3f} {a.size:6.2f}" for name, a in agreements.items()]
    groups = {"all": tuple(agreements), "mouth and jaw": MOUTH_AND_JAW}
    for title, names in groups.items():
        found = [agreements[name] for name in names if name in agreements]
        if found:
            mean = float(np.mean([a.cosine for a in found]))
            low, high = min(a.size for a in found), max(a.size for a in found)
            lines.append(
                f"{title} ({len(found)}): mean cosine {mean:.3f}, size {low:.2f} to {high:.2f}"
            )
    return "\n".join(lines)
