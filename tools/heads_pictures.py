# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the pictures of ``docs/heads.md`` and joins those of the turntable. Runs in the backend.

``heads_pictures.py --out DIR [--character FILE] [--turntable DIR]``: FILE is a character of another
program as ``read_head`` reads it (the manual shows MakeHuman's body, which is CC0); the turntable's
folder holds the pictures that ``tools/turntable.py`` rendered.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from backend import bundled  # noqa: E402 - found by the line above
from backend.heads.find_face_points import find_face_points  # noqa: E402
from backend.heads.render import COMBINATIONS, part_colours, render  # noqa: E402
from backend.heads.solve import solve_shapes  # noqa: E402
from backend.heads.topology import Head, face_frame, identify, read_head  # noqa: E402

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]

SIZE = 300
FACE_CENTRE, FACE_EXTENT = (0.0, -28.0, -25.0), 190.0  # mm
GREEN, YELLOW, RED = (60, 190, 90), (245, 200, 50), (220, 60, 50)
# What the parts of a head are shown in, RGB 0..1.
PART_COLOURS = {
    "teeth_upper": (0.95, 0.85, 0.35), "teeth_lower": (0.95, 0.60, 0.25),
    "tongue": (0.85, 0.30, 0.45), "eyes": (0.30, 0.65, 0.90), "attached": (0.45, 0.80, 0.40),
}  # fmt: skip
PICTURE_MS = 80  # of the turntable, two frames at 25 a second
TURNTABLE_QUALITY = 80


def posed(head: Head, weights: dict[str, float]) -> Floats:
    """Vertices in the face's millimetres with some weights of the solved shapes, ``(V, 3)``."""
    frame, solved = face_frame(head), solve_shapes(head)
    offsets = frame.offsets_to_face_mm(solved.offsets)
    pose = frame.to_face_mm(head.vertices)
    for name, weight in weights.items():
        pose = pose + weight * offsets[solved.names.index(name)]
    return pose


def speaking(head: Head) -> Picture:
    """The face at rest and in three sounds, side by side."""
    colours = part_colours(head)
    poses: list[dict[str, float]] = [{}, *(COMBINATIONS[name] for name in ("aa", "oo", "ee"))]
    pictures = [
        render(
            posed(head, weights),
            head.triangles,
            colours,
            size=SIZE,
            view=(18.0, 2.0),
            centre=FACE_CENTRE,
            extent=FACE_EXTENT,
        )
        for weights in poses
    ]
    return np.concatenate(pictures, axis=1)


def with_points(head: Head, view: tuple[float, float], dots: dict[int, tuple[int, int, int]],
                centre: tuple[float, float, float], extent: float) -> Picture:  # fmt: skip
    """A head with coloured dots at vertices, those that the face does not hide."""
    points = face_frame(head).to_face_mm(head.vertices)
    picture = render(points, head.triangles, part_colours(head), size=SIZE, view=view,
                     centre=centre, extent=extent)  # fmt: skip
    yaw, pitch = np.radians(view)
    right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
    ahead = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    up = np.cross(ahead, right)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for vertex, colour in dots.items():
        away = points[vertex] - np.array(centre)
        x, y = SIZE / 2 + SIZE / extent * np.array([away @ right, -(away @ up)])
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour, outline=(30, 30, 30))
    return np.asarray(image)


def points_found(path: Path) -> Picture:
    """The points that were found on a character, then one that is wrong, then where it belongs."""
    mesh = read_head(path)
    found = find_face_points(mesh)
    head = identify(*mesh, face_points=found.face_points)
    shown = {n: v for n, v in found.face_points.items() if not n.startswith(("neck", "head_back"))}
    dots = {v: YELLOW if n in found.doubtful else GREEN for n, v in shown.items()}
    whole = with_points(head, (0.0, 0.0), dots, (0.0, -28.0, 0.0), 180.0)
    frame = face_frame(head)
    points = frame.to_face_mm(head.vertices)
    corner = found.face_points["lip_corner_left"]
    skin = np.flatnonzero(head.components == head.components[corner])
    wrong = int(
        skin[np.linalg.norm(points[skin] - points[corner] - (4.0, 4.0, 0.0), axis=1).argmin()]
    )
    near = {found.face_points[n]: GREEN for n in shown if n.startswith("lip_")}
    x, y, z = (float(value) for value in points[corner])
    aim = (0.6 * x, y, z)
    before = {v: c for v, c in near.items() if v != corner} | {wrong: RED}
    close = [with_points(head, (15.0, 0.0), some, aim, 60.0) for some in (before, near)]
    return np.concatenate([whole, *close], axis=1)


def parts_shown(head: Head) -> Picture:
    """What the parts of the demo head are taken for, with the mouth open."""
    colours = np.full((len(head.vertices), 3), (0.80, 0.72, 0.68))
    for role, colour in PART_COLOURS.items():
        names = ["eye_left", "eye_right"] if role == "eyes" else [role]
        if role == "attached":
            names = [part.role for part in head.topology.parts if "lashes" in part.role]
        for name in names:
            colours[head.part(name)] = colour
    poses = ({"jawOpen": 0.7}, COMBINATIONS["blink"])
    pictures = [
        render(
            posed(head, weights),
            head.triangles,
            colours,
            size=SIZE,
            view=(25.0, 0.0),
            centre=FACE_CENTRE,
            extent=FACE_EXTENT,
        )
        for weights in poses
    ]
    return np.concatenate(pictures, axis=1)


def join_turntable(folder: Path, out: Path) -> None:
    """One animated WebP of the turntable's pictures."""
    pictures = [Image.open(path).convert("RGB") for path in sorted(folder.glob("[0-9]*.png"))]
    pictures[0].save(
        out, save_all=True, append_images=pictures[1:], duration=PICTURE_MS, loop=0,
        quality=TURNTABLE_QUALITY, method=6,
    )  # fmt: skip


def save(picture: Picture, path: Path) -> None:
    """Save a picture as a PNG."""
    Image.fromarray(picture).save(path, optimize=True)


def main() -> int:
    """Make the pictures that can be made of what is given."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/heads.md.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--character", type=Path)
    parser.add_argument("--turntable", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    demo = identify(*read_head(bundled.DEMO_HEAD))
    save(parts_shown(demo), arguments.out / "heads-parts.png")
    if arguments.character:
        mesh = read_head(arguments.character)
        found = find_face_points(mesh)
        head = identify(*mesh, face_points=found.face_points)
        save(speaking(head), arguments.out / "heads-speaking.png")
        save(points_found(arguments.character), arguments.out / "heads-points.png")
    if arguments.turntable:
        join_turntable(arguments.turntable, arguments.out / "turntable.webp")
    return 0


if __name__ == "__main__":
    sys.exit(main())
