# SPDX-License-Identifier: GPL-3.0-or-later
"""Smooth fields, against meshes worked by hand and what the theory promises."""

import numpy as np
import pytest

from backend.heads.laplacian import (
    BiharmonicSolver,
    cotangent_laplacian,
    harmonic_weights,
    lumped_mass,
)


def grid(n, jitter=0.0):
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], axis=1)
    inner = ((vertices[:, :2] > 0) & (vertices[:, :2] < 1)).all(axis=1)
    vertices[inner, :2] += jitter / n * rng.uniform(-1, 1, (inner.sum(), 2))
    numbers = np.arange(n * n).reshape(n, n)
    a, b, c, d = numbers[:-1, :-1], numbers[1:, :-1], numbers[1:, 1:], numbers[:-1, 1:]
    triangles = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return vertices, triangles.reshape(-1, 3), inner


def test_right_triangle_by_hand():
    """Angles 90, 45, 45 degrees: the cotangents are 0, 1, 1, each edge weighs half of its own."""
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    expected = [[1.0, -0.5, -0.5], [-0.5, 0.5, 0.0], [-0.5, 0.0, 0.5]]
    triangles = np.array([[0, 1, 2]])
    np.testing.assert_allclose(cotangent_laplacian(vertices, triangles).toarray(), expected)
    np.testing.assert_allclose(lumped_mass(vertices, triangles), [1 / 6] * 3)


def test_laplacian_is_symmetric_with_zero_row_sums_and_linear_precision():
    vertices, triangles, inner = grid(9, jitter=0.3)
    laplacian = cotangent_laplacian(vertices, triangles)
    assert abs(laplacian - laplacian.T).max() < 1e-12
    np.testing.assert_allclose(laplacian.sum(axis=1), 0.0, atol=1e-12)
    linear = 3.0 * vertices[:, 0] - 2.0 * vertices[:, 1] + 7.0
    np.testing.assert_allclose((laplacian @ linear)[inner], 0.0, atol=1e-10)


def test_mass_is_the_area():
    vertices, triangles, _ = grid(6, jitter=0.3)
    assert lumped_mass(vertices, triangles).sum() == pytest.approx(1.0)


def test_biharmonic_field_repeats_a_linear_one():
    """Two rings of handles all around: a linear field has no bending, so it is the answer."""
    vertices, triangles, _ = grid(12, jitter=0.3)
    far = np.abs(vertices[:, :2] - 0.5).max(axis=1) > 0.36
    linear = np.stack([vertices[:, 0], 2.0 - vertices[:, 1]], axis=1)
    handles = np.flatnonzero(far)
    field = BiharmonicSolver(vertices, triangles, handles).solve(linear[handles])
    np.testing.assert_allclose(field, linear, atol=1e-8)


def test_biharmonic_field_is_smooth_at_the_handles_and_exact_on_them():
    vertices, triangles, _ = grid(21)
    middle = np.flatnonzero(np.linalg.norm(vertices[:, :2] - 0.5, axis=1) < 0.08)
    border = np.flatnonzero(np.abs(vertices[:, :2] - 0.5).max(axis=1) > 0.44)
    handles = np.concatenate([middle, border])
    values = np.concatenate([np.ones(len(middle)), np.zeros(len(border))])[:, None]
    field = BiharmonicSolver(vertices, triangles, handles).solve(values)[:, 0]
    np.testing.assert_allclose(field[middle], 1.0)
    line = field.reshape(21, 21)[10]
    assert line[2] < 0.1  # leaves the still border gently, unlike a cone
    assert (np.diff(line[1:9]) > 0).all()


def test_vertices_of_no_triangle_stay():
    vertices, triangles, _ = grid(5)
    lonely = np.concatenate([vertices, [[9.0, 9.0, 9.0]]])
    field = BiharmonicSolver(lonely, triangles, np.array([0, 4, 20])).solve(np.ones((3, 1)))
    assert field[-1, 0] == 0.0
    np.testing.assert_allclose(field[:-1], 1.0, atol=1e-8)


def test_harmonic_weights_never_overshoot_and_sum_to_one():
    vertices, triangles, _ = grid(11, jitter=0.4)
    handles = np.array([0, 5, 60, 120])
    weights = harmonic_weights(vertices, triangles, handles)
    assert weights.min() >= 0.0
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-9)
    np.testing.assert_allclose(weights[handles], np.eye(4), atol=1e-12)


def test_weights_with_a_reach_fade_with_distance():
    vertices, triangles, _ = grid(21)
    edge = np.flatnonzero(vertices[:, 0] == 0.0)
    total = harmonic_weights(vertices, triangles, edge, reach=0.1).sum(axis=1)
    by_distance = total.reshape(21, 21)[:, 10]
    assert (np.diff(by_distance) < 0).all()
    assert by_distance[2] == pytest.approx(np.exp(-1.0), abs=0.05)  # 0.1 from the edge
