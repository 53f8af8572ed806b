# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes as plain arrays: triangles, edges, connected parts, fingerprints, similarity fits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

Mesh = tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]


def triangulate(corners: NDArray[np.integer], sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Polygons as fans of triangles around their first corner, ``(sum(sizes - 2), 3)``."""
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
    fans = np.asarray(sizes, dtype=np.int64) - 2
    face = np.repeat(np.arange(len(sizes)), fans)
    step = np.arange(len(face)) - np.repeat(np.cumsum(fans) - fans, fans)
    first = starts[face]
    return np.asarray(corners, dtype=np.int64)[
        np.stack([first, first + step + 1, first + step + 2], axis=1)
    ]


def triangulate_both_ways(
    corners: NDArray[np.integer], sizes: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Fans around the first corners and fans around the second ones: quads get both diagonals.

    Every polygon counts twice, so operators on these triangles are twice those of the mesh, but
    they do not depend on where a quad's diagonal runs: a symmetric mesh stays symmetric.
    """
    ends = np.cumsum(sizes)
    following = np.arange(1, len(corners) + 1)
    following[ends - 1] = ends - sizes
    turned = np.asarray(corners)[following]
    return np.concatenate([triangulate(corners, sizes), triangulate(turned, sizes)])


def polygon_edges(corners: NDArray[np.integer], sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    """The polygons' undirected edges, each once, sorted, smaller vertex first, ``(E, 2)``."""
    ends = np.cumsum(sizes)
    following = np.arange(1, len(corners) + 1)
    following[ends - 1] = ends - sizes
    pairs = np.stack([corners, np.asarray(corners)[following]], axis=1).astype(np.int64)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def connected_components(
    corners: NDArray[np.integer], sizes: NDArray[np.integer], num_vertices: int
) -> NDArray[np.int32]:
    """Number of the connected part of each vertex, ``(num_vertices,)``."""
    edges = polygon_edges(corners, sizes)
    graph = sparse.coo_matrix(
        (np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(num_vertices, num_vertices)
    )
    return np.asarray(csgraph.connected_components(graph, directed=False)[1], dtype=np.int32)


def fingerprint(corners: NDArray[np.integer], sizes: NDArray[np.integer], num_vertices: int) -> str:
    """Sixteen hex digits that say which vertices the polygons join.

    SHA-256 over the number of vertices and the sorted unique undirected polygon edges, all as
    little-endian int32: independent of positions, of the faces' order and of their winding.
    """
    digest = hashlib.sha256(np.array([num_vertices], dtype="<i4").tobytes())
    digest.update(np.ascontiguousarray(polygon_edges(corners, sizes), dtype="<i4").tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Similarity:
    """``scale * rotation @ point + translation``; the rotation has determinant 1."""

    scale: float
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    def apply(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Positions ``(..., 3)`` moved by this similarity."""
        return np.asarray(self.scale * points @ self.rotation.T + self.translation)


def similarity_fit(source: NDArray[np.floating], target: NDArray[np.floating]) -> Similarity:
    """Least-squares scale, rotation and translation that bring source to target.

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters between two
    point patterns".

    Args:
        source: Positions of ``N`` points, ``(N, 3)``.
        target: Positions to bring them to, in the same order, ``(N, 3)``.

    Returns:
        The similarity of the least squared distance.

    Raises:
        ValueError: The shapes differ, or source has no extent.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ValueError(f"source {source.shape} and target {target.shape} must be equal (N, 3)")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    variance = float((centred**2).sum())
    if variance == 0.0:
        raise ValueError("all source points lie at one place")
    u, singular, vt = np.linalg.svd((target - target_mean).T @ centred)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / variance)
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)
