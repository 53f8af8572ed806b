# SPDX-License-Identifier: GPL-3.0-or-later
"""Smooth fields on a triangle mesh: cotangent Laplacian, biharmonic and harmonic solves.

Sources: Pinkall and Polthier 1993 (cotangent weights); Botsch and Kobbelt 2004 (modelling by
minimising the bending energy of displacements); Jacobson et al. 2010 (the same, mixed elements).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

_MAX_COTANGENT = 20.0  # slivers would rule the whole solution


def cotangent_laplacian(
    vertices: NDArray[np.float64], triangles: NDArray[np.integer]
) -> sparse.csr_matrix:
    """The stiffness matrix of linear elements: symmetric, rows sum to zero, ``(V, V)``.

    ``(L x)_i = sum_j (cot a_ij + cot b_ij) / 2 * (x_i - x_j)`` over the edges of ``i``, with the
    angles ``a`` and ``b`` opposite of the edge. Vertices of no triangle have empty rows.
    """
    num_vertices = len(vertices)
    rows: list[NDArray[np.integer]] = []
    columns: list[NDArray[np.integer]] = []
    weights: list[NDArray[np.float64]] = []
    for k in range(3):
        i, j, at = triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3], triangles[:, k]
        a, b = vertices[i] - vertices[at], vertices[j] - vertices[at]
        doubled_area = np.linalg.norm(np.cross(a, b), axis=1)
        cotangent = (a * b).sum(axis=1) / np.maximum(doubled_area, 1e-30)
        rows.append(i)
        columns.append(j)
        weights.append(np.clip(cotangent, -_MAX_COTANGENT, _MAX_COTANGENT) / 2)
    row, column, weight = np.concatenate(rows), np.concatenate(columns), np.concatenate(weights)
    half = sparse.coo_matrix((weight, (row, column)), shape=(num_vertices, num_vertices))
    adjacency = (half + half.T).tocsr()
    diagonal = np.asarray(adjacency.sum(axis=1)).ravel()
    return (sparse.diags(diagonal) - adjacency).tocsr()


def lumped_mass(
    vertices: NDArray[np.float64], triangles: NDArray[np.integer]
) -> NDArray[np.float64]:
    """A third of the area of each vertex's triangles, ``(V,)``; zero for vertices of none."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    mass = np.bincount(triangles.ravel(), np.repeat(area / 3, 3), minlength=len(vertices))
    return np.asarray(mass, dtype=np.float64)


class BiharmonicSolver:
    """Fields that bend least, ``|M^-1/2 L x|^2``, through given values at handles.

    One sparse factorisation serves any number of fields with the same handles. Fields may also be
    drawn towards values at anchors, which are places between the vertices.
    """

    def __init__(
        self,
        vertices: NDArray[np.float64],
        triangles: NDArray[np.integer],
        handles: NDArray[np.integer],
        *,
        anchors: sparse.csr_matrix | None = None,
        stiffness: float = 1.0,
    ) -> None:
        """Factorise.

        Args:
            vertices: Positions, ``(V, 3)``.
            triangles: Triangles, ``(N, 3)``; fields are zero at vertices of no triangle.
            handles: Distinct vertices whose values will be given, ``(H,)``.
            anchors: Weights of the vertices in each anchor, ``(A, V)``.
            stiffness: How strongly a field is drawn to the anchors' values, per squared unit of the
                vertices; a bump that reaches ``R`` has the stiffness ``50 / R^2``.
        """
        is_free = np.zeros(len(vertices), dtype=bool)
        is_free[triangles.ravel()] = True
        is_free[handles] = False
        triangles = _within_two_rings(triangles, is_free)  # of a whole body, most stays
        laplacian = cotangent_laplacian(vertices, triangles).tocsc()
        mass = lumped_mass(vertices, triangles)
        used = mass > 0
        is_free &= used
        self._num_vertices = len(vertices)
        self._handles = np.asarray(handles)
        self._free = np.flatnonzero(is_free)
        inverse_mass = sparse.diags(np.where(used, 1.0 / np.where(used, mass, 1.0), 0.0))
        free_columns = laplacian[:, self._free]
        self._coupling = (free_columns.T @ inverse_mass @ laplacian[:, self._handles]).tocsr()
        matrix = (free_columns.T @ inverse_mass @ free_columns).tocsc()
        self._pull: sparse.csr_matrix | None = None
        if anchors is not None:
            free_anchors = anchors[:, self._free]
            self._pull = (stiffness * free_anchors.T).tocsr()
            matrix = (matrix + self._pull @ free_anchors).tocsc()
            self._coupling = self._coupling + self._pull @ anchors[:, self._handles]
        self._factor = _factorise(matrix) if len(self._free) else None

    def solve(
        self, values: NDArray[np.float64], anchored: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Fields ``(V, C)`` that take ``values`` ``(H, C)`` at the handles.

        With anchors, ``anchored`` ``(A, C)`` are the values towards which they draw.
        """
        field = np.zeros((self._num_vertices, values.shape[1]))
        field[self._handles] = values
        if self._factor is not None:
            right = -(self._coupling @ values)
            if self._pull is not None and anchored is not None:
                right += self._pull @ anchored
            field[self._free] = self._factor.solve(right)
        return field


def harmonic_weights(
    vertices: NDArray[np.float64],
    triangles: NDArray[np.integer],
    handles: NDArray[np.integer],
    *,
    reach: float | None = None,
) -> NDArray[np.float64]:
    """Weights ``(V, H)`` with which each vertex follows the handles: never negative.

    They extend values from the handles without overshoot (the maximum principle). With a
    ``reach``, in the unit of the vertices, they fade with the distance from the handles
    (screened Poisson equation); without, each row sums to one.
    """
    laplacian = cotangent_laplacian(vertices, triangles).tocoo()
    apart = laplacian.row != laplacian.col
    weight = np.maximum(-laplacian.data[apart], 1e-3)
    adjacency = sparse.coo_matrix(
        (weight, (laplacian.row[apart], laplacian.col[apart])), shape=laplacian.shape
    ).tocsr()
    diagonal = np.asarray(adjacency.sum(axis=1)).ravel()
    if reach is not None:
        diagonal = diagonal + lumped_mass(vertices, triangles) / reach**2
    is_free = diagonal > 0
    is_free[handles] = False
    free = np.flatnonzero(is_free)
    result = np.zeros((len(vertices), len(handles)))
    result[handles, np.arange(len(handles))] = 1.0
    if len(free):
        matrix = (sparse.diags(diagonal[free]) - adjacency[free][:, free]).tocsc()
        result[free] = _factorise(matrix).solve(adjacency[free][:, handles].toarray())
    return result


def _within_two_rings(
    triangles: NDArray[np.integer], is_free: NDArray[np.bool_]
) -> NDArray[np.integer]:
    """The triangles that touch a free vertex or a neighbour of one."""
    near = np.zeros_like(is_free)
    near[triangles[_any(is_free, triangles)].ravel()] = True
    return triangles[_any(near, triangles)]


def _any(marked: NDArray[np.bool_], triangles: NDArray[np.integer]) -> NDArray[np.bool_]:
    a, b, c = triangles.T
    return np.asarray(marked[a] | marked[b] | marked[c])


def _factorise(matrix: sparse.csc_matrix) -> linalg.SuperLU:
    options = {"SymmetricMode": True}
    return linalg.splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
