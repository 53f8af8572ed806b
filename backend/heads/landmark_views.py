# SPDX-License-Identifier: GPL-3.0-or-later
"""Plainly shaded pictures of a mesh for the face landmark network, and the way back to the mesh.

Orthographic, skin-coloured, without a texture, lit from the front and slightly above: other
colours and lights move the landmarks by millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.heads.face_layout import vertex_normals
from backend.heads.mesh import Mesh, connected_components, triangulate
from backend.heads.rasterise import Raster, boxes, rasterise

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SKIN: Final = np.array([0.80, 0.62, 0.53], dtype=np.float32)
BACKGROUND: Final = 0.92
_LIGHT: Final = np.array([0.0, 0.33, 0.944], dtype=np.float32)
_AMBIENT: Final = 0.25
_DIFFUSE: Final = 0.85


@dataclass(frozen=True, slots=True)
class Surface:
    """A mesh as it is drawn.

    Attributes:
        vertices: ``(V, 3)``.
        triangles: ``(N, 3)``.
        normals: Unit normals of the vertices, out of the mesh, ``(V, 3)``.
        components: Number of the connected part of each vertex, ``(V,)``.
    """

    vertices: Floats
    triangles: Ints
    normals: Floats
    components: NDArray[np.int32]

    @classmethod
    def from_mesh(cls, mesh: Mesh) -> Surface:
        """The surface of a mesh that was read."""
        vertices, corners, sizes = mesh
        triangles = triangulate(corners, sizes)
        normals = vertex_normals(vertices, triangles)
        a, b, c = (vertices[triangles[:, k]] - vertices.mean(axis=0) for k in range(3))
        if np.einsum("ni,ni->", a, np.cross(b, c)) < 0.0:  # its faces are wound inside out
            normals = -normals
        components = connected_components(corners, sizes, len(vertices))
        return cls(vertices, triangles, normals, components)

    def part(self, component: int) -> Surface:
        """The same vertices with the triangles of one connected part alone."""
        kept = self.components[self.triangles[:, 0]] == component
        return replace(self, triangles=self.triangles[kept])

    def without(self, components: Ints) -> Surface:
        """The same vertices without the triangles of some connected parts."""
        kept = ~np.isin(self.components[self.triangles[:, 0]], components)
        return replace(self, triangles=self.triangles[kept])


@dataclass(frozen=True, slots=True)
class View:
    """An orthographic camera with a square picture.

    Attributes:
        axes: Rows are the picture's right, its up, and the direction to the viewer, ``(3, 3)``.
        target: What the picture's middle shows, ``(3,)``.
        extent: What the picture's height shows, in the mesh's unit.
    """

    axes: Floats
    target: Floats
    extent: float

    def screen(self, points: Floats, pixels: int) -> tuple[Floats, Floats]:
        """Places in the picture (right, down, ``(..., 2)``) and nearness to the viewer."""
        seen = (points - self.target) @ self.axes.T
        scale = pixels / self.extent
        right, down = pixels / 2 + seen[..., 0] * scale, pixels / 2 - seen[..., 1] * scale
        return np.stack([right, down], axis=-1), seen[..., 2]

    def turned(self, yaw: float, pitch: float) -> View:
        """The camera moved around its target.

        Args:
            yaw: Degrees to the right.
            pitch: Degrees upwards.

        Returns:
            The view from there.
        """
        a, b = np.radians([yaw, pitch])
        turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
        tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        return replace(self, axes=tilt @ turn @ self.axes)


def upright_axes() -> list[Floats]:
    """The 24 orientations along the axes; first those that meshes have: y up, then z up.

    Of the former the face looks along +z, of the latter along -y.
    """
    found = []
    for up in range(3):
        for towards in range(3):
            if towards == up:
                continue
            for up_sign in (1.0, -1.0):
                for towards_sign in (1.0, -1.0):
                    y, z = np.zeros(3), np.zeros(3)
                    y[up], z[towards] = up_sign, towards_sign
                    found.append(np.stack([np.cross(y, z), y, z]))
    usual = [np.eye(3), np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])]
    return usual + [a for a in found if not any(np.array_equal(a, u) for u in usual)]


def raster_of(surface: Surface, view: View, pixels: int) -> Raster:
    """Which triangle each pixel of a view shows."""
    screen, depth = view.screen(surface.vertices, pixels)
    low, high = boxes(screen, surface.triangles)
    shown = np.flatnonzero(((high > 0.0) & (low < pixels)).all(axis=1))
    raster = rasterise(screen, depth, surface.triangles[shown], width=pixels, height=pixels)
    if not len(shown):
        return raster
    triangle = np.where(raster.triangle >= 0, shown[raster.triangle], -1)
    return Raster(triangle, raster.shares)


def normal_map(surface: Surface, view: View, raster: Raster) -> NDArray[np.float32]:
    """Unit normals in the view's axes at its pixels, towards the viewer; 0 in the background."""
    normals = raster.interpolated(surface.normals, surface.triangles) @ view.axes.T
    normals *= np.where(normals[:, 2:] < 0.0, -1.0, 1.0)  # both sides of a triangle are lit
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    found = np.zeros((*raster.triangle.shape, 3), dtype=np.float32)
    found[raster.triangle >= 0] = normals
    return found


def cut_out(normals: NDArray[np.float32], of: View, view: View, pixels: int) -> NDArray[np.float32]:
    """The normal map of a smaller or rolled view, sampled from a larger one's.

    Args:
        normals: Normal map of ``of``, square.
        of: A view from the same direction.
        view: The view wanted.
        pixels: Side of its picture.

    Returns:
        Normals in the axes of ``view``, 0 outside of the larger view, ``(pixels, pixels, 3)``.
    """
    steps = ((np.arange(pixels) + 0.5) / pixels - 0.5) * view.extent
    up, right = np.meshgrid(-steps, steps, indexing="ij")
    points = view.target + np.stack([right, up], axis=-1) @ view.axes[:2]
    place = np.floor(of.screen(points, len(normals))[0]).astype(np.int64)
    column, row = place[..., 0], place[..., 1]
    inside = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < len(normals))
    found = normals[np.where(inside, row, 0), np.where(inside, column, 0)] * inside[..., None]
    roll = (view.axes @ of.axes.T).astype(np.float32)
    return np.asarray(found @ roll.T)


def shade(normals: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture of a normal map: RGB, 0..1, ``(H, W, 3)``."""
    light = _AMBIENT + _DIFFUSE * np.maximum(normals @ _LIGHT, 0.0)
    picture = np.clip(light[..., None] * SKIN, 0.0, 1.0).astype(np.float32)
    picture[~normals.any(axis=-1)] = BACKGROUND
    return picture


def points_on_surface(
    surface: Surface, view: View, raster: Raster, places: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """What a view shows at some places of its picture.

    Args:
        surface: What was drawn.
        view: The camera.
        raster: The pixels of the picture.
        places: Right and down in pixels, ``(N, 2)``; NaN is shown nowhere.

    Returns:
        Points ``(N, 3)`` in the mesh's space, NaN where the view shows the background; and the
        cosines of their normals with the direction to the viewer, 0 there, ``(N,)``.
    """
    pixels = raster.triangle.shape[0]
    pixel = np.clip(np.floor(np.nan_to_num(places, nan=-1.0)).astype(np.int64), 0, pixels - 1)
    number = raster.triangle[pixel[:, 1], pixel[:, 0]]
    shown = (number >= 0) & ((places >= 0) & (places < pixels)).all(axis=1)
    points, facing = np.full((len(places), 3), np.nan), np.zeros(len(places))
    corners = surface.triangles[number[shown]]
    screen, _ = view.screen(surface.vertices[corners], pixels)
    shares = _shares(screen, places[shown])
    points[shown] = np.einsum("nk,nkc->nc", shares, surface.vertices[corners])
    normals = np.einsum("nk,nkc->nc", shares, surface.normals[corners])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    facing[shown] = np.abs(normals @ view.axes[2])
    return points, facing


def _shares(corners: Floats, places: NDArray[np.floating]) -> Floats:
    """Shares of the corners ``(N, 3, 2)`` at places ``(N, 2)``, of the nearest point inside."""
    a, b = corners[:, 0] - corners[:, 2], corners[:, 1] - corners[:, 2]
    p = places - corners[:, 2]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    area = np.where(np.abs(area) < 1e-12, 1e-12, area)
    u = (p[:, 0] * b[:, 1] - p[:, 1] * b[:, 0]) / area
    v = (a[:, 0] * p[:, 1] - a[:, 1] * p[:, 0]) / area
    shares = np.clip(np.stack([u, v, 1.0 - u - v], axis=1), 0.0, 1.0)
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12))
