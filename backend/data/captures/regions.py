# SPDX-License-Identifier: GPL-3.0-or-later
"""Regions of a prepared set, on which errors are measured and weighted: lips and upper face."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.data.captures.prepared import PreparedSet
from backend.errors import UserError
from backend.heads.face_layout import examine
from backend.heads.topology import (
    FaceFrame,
    Head,
    Topology,
    face_frame,
    load_topology,
)

Indices = NDArray[np.int64]
_MAX_REGION_BYTES: Final = 16 << 20
_MOUTH_RADIUS_MM: Final = 30.0
_UPPER_FACE_MARGIN_MM: Final = 10.0
_REMEDY: Final = 'It must hold {"lips": [...], "upper_face": [...]}, vertex numbers from 0.'


@dataclass(frozen=True, slots=True)
class Regions:
    """Vertices on which metrics are measured, each ascending and without repetition.

    Attributes:
        lips: The red of both lips.
        upper_face: Brows, forehead, lids and cheekbones.
        inner_lips: The middle of the upper and of the lower inner lip, or nothing where unknown.
        source: Origin of the regions, for reports.
    """

    lips: Indices
    upper_face: Indices
    inner_lips: tuple[int, ...]
    source: str

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each region's ascending vertex numbers as little-endian 32 bits."""
        named = {
            "lips": self.lips,
            "upper_face": self.upper_face,
            "inner_lips": np.array(self.inner_lips, np.int64),
        }
        return {
            name: hashlib.sha256(values.astype("<i4").tobytes()).hexdigest()
            for name, values in named.items()
        }


def regions_of(prepared: PreparedSet, file: Path | None) -> Regions:
    """The regions of a set: from a file, from its topology, or found on its heads.

    Args:
        prepared: The prepared set.
        file: JSON file with ``lips``, ``upper_face`` and maybe ``inner_lips`` (upper, lower).

    Returns:
        The regions.

    Raises:
        UserError: The regions are not known, or those of the file do not fit the set.
    """
    head = mean_head(prepared)
    num_vertices = prepared.manifest.num_vertices
    shipped = None if head is None else bundled.TOPOLOGIES_DIR / f"{head.topology.name}.json"
    if file is not None:
        found = _parse(_read_json(file), file, num_vertices, file.name)
    elif shipped is not None and "regions" in (data := _read_json(shipped)):
        found = _parse(data["regions"], shipped, num_vertices, "topology")
    elif head is not None and len(head.corners):
        found = face_regions(head)
    else:
        raise UserError(
            f"Which vertices of {prepared.folder} are lips and upper face is not known. Give them "
            "with --regions FILE.json."
        )
    if head is not None:
        _check_place(found, head)
        found = replace(found, inner_lips=found.inner_lips or _inner_lips(head.topology))
    return found


def face_regions(head: Head) -> Regions:
    """Lips and upper face of a head, from its face points and faces.

    Lips: all vertices between the outer lip borders, the mouth's inside excluded. Upper face: skin
    before the temples, from the cheekbones to a centimetre above the forehead's points.

    Args:
        head: A head with face points and faces.

    Returns:
        The regions.

    Raises:
        UserError: The mesh has no such lips or face.
    """
    face = examine(head)
    points, place = face.points, face.landmark_vertex
    height = {name: points[vertex, 1] for name, vertex in place.items()}
    pockets = np.unique(face.pocket_triangles)
    skin = np.setdiff1d(face.skin, pockets)
    low = min(height["cheekbone_left"], height["cheekbone_right"])
    high = max(height["forehead_center"], height["forehead_left"]) + _UPPER_FACE_MARGIN_MM
    front = min(points[place["temple_left"], 2], points[place["temple_right"], 2])
    chosen = (points[skin, 1] >= low) & (points[skin, 1] <= high) & (points[skin, 2] >= front)
    chosen &= ~np.isin(skin, face.mouth.lips)
    return Regions(
        lips=np.unique(face.mouth.lips),
        upper_face=skin[chosen],
        inner_lips=_inner_lips(head.topology),
        source="found on the head",
    )


def mean_head(prepared: PreparedSet) -> Head | None:
    """The mean of a set's faces at rest; None where its face points are not known.

    Its polygons are empty where the set does not say them.
    """
    topology = _topology(prepared)
    if topology is None:
        return None
    faces = prepared.faces()
    corners, sizes = (np.zeros(0, np.int32),) * 2 if faces is None else faces
    templates = [prepared.template(one.name) for one in prepared.manifest.subjects]
    return Head(np.mean(templates, axis=0, dtype=np.float64), corners, sizes, topology)


def _topology(prepared: PreparedSet) -> Topology | None:
    manifest = prepared.manifest
    if not (bundled.TOPOLOGIES_DIR / f"{manifest.topology}.json").is_file():
        return None
    known = load_topology(manifest.topology)
    same_faces = manifest.fingerprint in ("", known.fingerprint)
    return known if known.num_vertices == manifest.num_vertices and same_faces else None


def frame_of(prepared: PreparedSet) -> FaceFrame | None:
    """Axes and size of the set's mean face; None where its face points are not known."""
    head = mean_head(prepared)
    return None if head is None else face_frame(head)


def _inner_lips(topology: Topology) -> tuple[int, ...]:
    names = (f"lip_{lip}_inner_center" for lip in ("upper", "lower"))
    return tuple(topology.face_points[name] for name in names)


def _read_json(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _MAX_REGION_BYTES:
            raise UserError(f"{path} is too large for a file of regions. {_REMEDY}")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON file. {_REMEDY}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no regions. {_REMEDY}")
    return data


def _parse(data: object, path: Path, num_vertices: int, source: str) -> Regions:
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no regions. {_REMEDY}")
    found = {
        name: np.unique(_vertices(data.get(name), name, path, num_vertices))
        for name in ("lips", "upper_face")
    }
    inner = data.get("inner_lips", [])
    if inner and len(_vertices(inner, "inner_lips", path, num_vertices)) != 2:
        raise UserError(f"{path}: inner_lips must be two vertices, the upper and the lower one.")
    return Regions(found["lips"], found["upper_face"], tuple(inner), source)


def _vertices(value: object, name: str, path: Path, num_vertices: int) -> Indices:
    if not isinstance(value, list) or not value or not all(type(item) is int for item in value):
        raise UserError(f'{path}: "{name}" is no list of vertex numbers.')
    outside = [number for number in value if not 0 <= number < num_vertices]
    if outside:
        raise UserError(
            f'{path}: "{name}" names vertex {outside[0]}; the heads of this set have '
            f"{num_vertices}. Give the regions of this topology."
        )
    return np.array(value, dtype=np.int64)


def _check_place(regions: Regions, head: Head) -> None:
    """Checks that the lips lie at the mouth; vertex lists of another mesh do not."""
    frame = face_frame(head)
    mouth = (head.point("lip_upper_inner_center") + head.point("lip_lower_inner_center")) / 2
    centre = head.vertices[regions.lips].mean(axis=0)
    away = float(np.linalg.norm(frame.to_face_mm(centre) - frame.to_face_mm(mouth)))
    if away > _MOUTH_RADIUS_MM:
        raise UserError(
            f"The middle of the lips as given is {away:.0f} mm from the mouth. Give vertex numbers "
            "of this topology, counted from 0."
        )
