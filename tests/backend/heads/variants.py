# SPDX-License-Identifier: GPL-3.0-or-later
"""One head as other programs and artists would hand it over."""

import numpy as np


def polygons(mesh):
    return np.split(mesh[1], np.cumsum(mesh[2])[:-1])


def split(mesh, labels):
    """A vertex of its own for each label of the polygons around it, and which vertex each was."""
    vertices, corners, sizes = mesh
    copies = np.stack([corners, np.repeat(labels, sizes)], axis=1)
    distinct, number = np.unique(copies, axis=0, return_inverse=True)
    was = distinct[:, 0]
    return (vertices[was], number.reshape(-1).astype(np.int32), sizes), was


def split_everywhere(mesh):
    return split(mesh, np.arange(len(mesh[2])))


def subdivided(mesh):
    """Each polygon as quads around its centre; the old vertices stay first."""
    vertices, corners, sizes = mesh
    ends = np.cumsum(sizes)
    following, before = np.arange(1, len(corners) + 1), np.arange(-1, len(corners) - 1)
    following[ends - 1], before[ends - sizes] = ends - sizes, ends - 1
    pairs = np.sort(np.stack([corners, corners[following]], axis=1), axis=1)
    edges, number = np.unique(pairs, axis=0, return_inverse=True)
    centres = np.add.reduceat(vertices[corners], ends - sizes, axis=0) / sizes[:, None]
    side = len(vertices) + number.reshape(-1)
    centre = len(vertices) + len(edges) + np.repeat(np.arange(len(sizes)), sizes)
    quads = np.stack([corners, side, centre, side[before]], axis=1)
    every = np.concatenate([vertices, vertices[edges].mean(axis=1), centres])
    return every, quads.ravel().astype(np.int32), np.full(len(quads), 4, np.int32)


def without(mesh, gone):
    """The mesh without some polygons, and without the vertices that only they had."""
    kept = [polygon for polygon, is_gone in zip(polygons(mesh), gone, strict=True) if not is_gone]
    used, corners = np.unique(np.concatenate(kept), return_inverse=True)
    sizes = np.array([len(polygon) for polygon in kept], np.int32)
    return mesh[0][used], corners.reshape(-1).astype(np.int32), sizes


def dissolved(mesh, region):
    """The mesh with pairs of quads that share an edge joined to polygons of six corners.

    Args:
        mesh: The mesh.
        region: Whether each polygon may be joined.
    """
    found = [polygon.tolist() for polygon in polygons(mesh)]
    owner, joined = {}, set()
    for number, polygon in enumerate(found):
        if not region[number] or number in joined:
            continue
        for start, end in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            other = owner.pop((end, start), None)
            if other is not None and other not in joined and len(found[other]) == 4:
                i, j = polygon.index(end), found[other].index(start)
                ring = found[other][j:] + found[other][:j]
                found[number] = polygon[i:] + polygon[:i] + ring[1:-1]
                found[other] = []
                joined |= {number, other}
                break
            owner[start, end] = number
    kept = [polygon for polygon in found if polygon]
    sizes = np.array([len(polygon) for polygon in kept], np.int32)
    return mesh[0], np.concatenate(kept).astype(np.int32), sizes
