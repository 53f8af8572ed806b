# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of a head without Blender: shaded views, and a sheet of all shapes.

``python -m backend.heads.render --head FILE --out sheet.png`` draws the 52 shapes and the
combinations that speech uses, from the front and from the side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from backend.heads.arkit import ARKIT_NAMES
from backend.heads.face_layout import examine, vertex_normals
from backend.heads.rasterise import rasterise
from backend.heads.solve import solve_shapes
from backend.heads.topology import (
    Head,
    face_frame,
    identify,
    read_face_points,
    read_head,
    weld_head,
)

VIEWS = {"front": (0.0, 0.0), "side": (90.0, 0.0), "three_quarter": (35.0, 5.0)}
BACKGROUND = 235.0


def render(
    vertices: NDArray[np.floating],
    triangles: NDArray[np.integer],
    colours: NDArray[np.floating] | None,
    *,
    view: str | tuple[float, float] = "front",
    size: int = 200,
    centre: tuple[float, float, float] = (0.0, -30.0, 0.0),
    extent: float = 230.0,
    oversampling: int = 2,
) -> NDArray[np.uint8]:
    """Draw a shaded mesh by orthographic projection with a depth buffer.

    Args:
        vertices: ``(V, 3)`` in the face's axes (x = subject's left, y = up, z = out), in mm.
        triangles: ``(N, 3)``.
        colours: RGB per vertex, 0..1, ``(V, 3)``; None for a plain clay.
        view: A name of ``VIEWS``, or the camera's (yaw, pitch) in degrees; yaw 90 looks at the
            subject's left side.
        size: Width and height of the image in pixels.
        centre: What the image's middle shows, in mm.
        extent: What the image's height shows, in mm.
        oversampling: Pixels drawn for each pixel of the image, along each side.

    Returns:
        ``(size, size, 3)``.
    """
    yaw, pitch = np.radians(VIEWS[view] if isinstance(view, str) else view)
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    seen = (np.asarray(vertices, np.float64) - np.array(centre)) @ (tilt @ turn).T
    pixels = size * oversampling
    scale = pixels / extent
    screen = np.stack([seen[:, 0] * scale + pixels / 2, pixels / 2 - seen[:, 1] * scale], axis=1)
    if colours is None:
        colours = np.full((len(seen), 3), 0.78)
    triangles = np.asarray(triangles)
    shaded = _shade(seen, triangles, np.asarray(colours, np.float64))
    raster = rasterise(screen, seen[:, 2], triangles, width=pixels, height=pixels)
    image = np.full((pixels, pixels, 3), BACKGROUND)
    image[raster.triangle >= 0] = raster.interpolated(shaded, triangles)
    image = image.reshape(size, oversampling, size, oversampling, 3).mean(axis=(1, 3))
    return np.asarray(np.clip(image + 0.5, 0, 255), dtype=np.uint8)


def _shade(
    seen: NDArray[np.float64], triangles: NDArray[np.integer], colours: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Lit RGB of each vertex, 0..255: a key light from above left, a fill light, some sky."""
    normals = vertex_normals(seen, np.asarray(triangles, np.int64))
    light = np.full(len(seen), 0.24)
    for direction, strength in (((-0.35, 0.55, 0.75), 0.78), ((0.8, -0.1, 0.5), 0.26)):
        unit = np.array(direction) / np.linalg.norm(direction)
        light += strength * np.maximum(normals @ unit, 0.0)
    light += 0.06 * normals[:, 1]
    light *= np.where(normals[:, 2] < 0.0, 0.55, 1.0)  # a surface seen from behind
    return np.asarray(255.0 * colours * np.clip(light, 0.03, 1.1)[:, None])


COMBINATIONS: dict[str, dict[str, float]] = {
    "aa": {"jawOpen": 0.6},
    "m": {"jawOpen": 0.25, "mouthClose": 0.25},
    "p": {
        "jawOpen": 0.2, "mouthClose": 0.2, "mouthPressLeft": 0.4, "mouthPressRight": 0.4,
        "mouthRollLower": 0.3, "mouthRollUpper": 0.3,
    },
    "f": {"jawOpen": 0.1, "mouthRollLower": 0.5, "mouthUpperUpLeft": 0.3, "mouthUpperUpRight": 0.3},
    "ee": {
        "jawOpen": 0.12, "mouthStretchLeft": 0.4, "mouthStretchRight": 0.4, "mouthSmileLeft": 0.35,
        "mouthSmileRight": 0.35, "mouthLowerDownLeft": 0.3, "mouthLowerDownRight": 0.3,
        "mouthUpperUpLeft": 0.2, "mouthUpperUpRight": 0.2,
    },
    "oo": {"jawOpen": 0.12, "mouthPucker": 0.8, "mouthFunnel": 0.25},
    "oh": {"jawOpen": 0.4, "mouthFunnel": 0.5, "mouthPucker": 0.2},
    "sh": {"jawOpen": 0.1, "mouthFunnel": 0.7, "mouthPucker": 0.15},
    "smile": {
        "mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.6,
        "cheekSquintRight": 0.6, "eyeSquintLeft": 0.4, "eyeSquintRight": 0.4,
    },
    "blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "half blink": {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5},
    "surprise": {
        "browInnerUp": 1.0, "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0, "eyeWideLeft": 1.0,
        "eyeWideRight": 1.0, "jawOpen": 0.5,
    },
}  # fmt: skip
"""Weights that speech and mimics use together."""


def part_colours(head: Head) -> NDArray[np.float64]:
    """RGB per vertex ``(V, 3)``: skin, lips, white eyeballs with irises, teeth, tongue."""
    welded, number = weld_head(head)
    face = examine(welded)
    colours = np.full((len(welded.vertices), 3), (0.86, 0.74, 0.67))
    colours[face.mouth.lips] = (0.80, 0.52, 0.49)
    colours[face.mouth.pocket] = (0.45, 0.20, 0.19)
    for eye in face.eyes.values():
        colours[eye.pocket] = (0.75, 0.55, 0.50)
        colours[eye.shells] = (0.90, 0.87, 0.86)
        colours[eye.lashes] = (0.16, 0.12, 0.10)
        ball = face.points[eye.ball] - eye.centre
        colours[eye.ball] = (0.97, 0.97, 0.97)
        ahead = ball[:, 2] / np.maximum(np.linalg.norm(ball, axis=1), 1e-9)
        colours[eye.ball[ahead > np.cos(np.radians(27))]] = (0.25, 0.38, 0.50)
        colours[eye.ball[ahead > np.cos(np.radians(11))]] = (0.05, 0.05, 0.05)
    tooth, flesh = (0.95, 0.93, 0.88), (0.75, 0.40, 0.40)
    roles = {"teeth_upper": tooth, "teeth_lower": tooth, "tongue": flesh, "gums": flesh}
    for role, colour in roles.items():
        colours[face.parts[role]] = colour
    return colours[number]


def tiles(
    head: Head, poses: dict[str, dict[str, float]], *, size: int, close_up: bool
) -> list[NDArray[np.uint8]]:
    """One picture per pose: front and side (of the mouth alone in a close-up), with its name."""
    frame = face_frame(head)
    rest = frame.to_face_mm(head.vertices)
    solved = solve_shapes(head)
    offsets = frame.offsets_to_face_mm(solved.offsets)
    colours = part_colours(head)
    mouth = frame.to_face_mm(head.point("lip_lower_inner_center"))
    hinge = frame.to_face_mm(head.point("jaw_hinge_left"))
    middle = (0.0, float(mouth[1]) * 0.65, float(mouth[2] + hinge[2]) / 2 + 10.0)
    aim, extent = (tuple(mouth - (0.0, 6.0, 0.0)), 85.0) if close_up else (middle, 190.0)
    pictures = []
    for name, weights in poses.items():
        pose = rest.copy()
        for shape, weight in weights.items():
            pose += weight * offsets[solved.names.index(shape)]
        views = [
            render(pose, head.triangles, colours, view=view, size=size, centre=aim, extent=extent)
            for view in ("front", "three_quarter" if close_up else "side")
        ]
        pictures.append(_labelled(np.concatenate(views, axis=1), name))
    return pictures


def _labelled(picture: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text((4, 2), name, fill=(0, 0, 0))
    return np.asarray(image)


def sheet(pictures: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Pictures of one size side by side, row by row."""
    blank = np.full_like(pictures[0], 255)
    rows = -(-len(pictures) // columns)
    padded = pictures + [blank] * (rows * columns - len(pictures))
    lines = [np.concatenate(padded[i * columns : (i + 1) * columns], 1) for i in range(rows)]
    return np.concatenate(lines, axis=0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the 52 shapes of a head, and combinations.")
    parser.add_argument("--head", required=True, type=Path, help=".npz, .ply or .obj")
    parser.add_argument("--topology", default="auto", help="auto, flame, demo or a JSON file")
    parser.add_argument("--out", required=True, type=Path, help="picture to write")
    parser.add_argument("--size", default=200, type=int, help="pixels of one view")
    parser.add_argument("--columns", default=6, type=int)
    parser.add_argument("--close-up", action="store_true", help="the mouth alone")
    parser.add_argument("--only", default="", help="names of shapes or combinations, by commas")
    options = parser.parse_args()
    vertices, corners, sizes = read_head(options.head)
    head = identify(
        vertices,
        corners,
        sizes,
        topology=options.topology,
        face_points=read_face_points(options.head),
    )
    poses: dict[str, dict[str, float]] = {"rest": {}}
    poses |= {name: {name: 1.0} for name in ARKIT_NAMES} | COMBINATIONS
    if options.only:
        poses = {name: poses[name] for name in options.only.split(",")}
    pictures = tiles(head, poses, size=options.size, close_up=options.close_up)
    Image.fromarray(sheet(pictures, options.columns)).save(options.out)


if __name__ == "__main__":
    main()
