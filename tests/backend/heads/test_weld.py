# SPDX-License-Identifier: GPL-3.0-or-later
"""Seams are closed for finding and solving alone; what touches stays apart."""

import numpy as np

from backend.heads.mesh import fingerprint
from backend.heads.solve import solve_shapes
from backend.heads.topology import identify, weld_head
from backend.heads.weld import is_half, weld
from tests.backend.heads.variants import polygons, split, split_everywhere, without


def mesh_of(head):
    return head.vertices, head.corners, head.sizes


def test_a_mesh_without_seams_is_left_alone(solved):
    mesh = mesh_of(solved.head)
    assert weld(mesh).mesh is mesh
    assert weld_head(solved.head)[0] is solved.head


def test_seams_are_closed_and_touching_lips_and_lids_stay_apart(solved):
    mesh = mesh_of(solved.head)
    inside = np.zeros(len(mesh[0]), dtype=bool)
    inside[solved.face.mouth.pocket] = True
    for eye in solved.face.eyes.values():
        inside[eye.pocket] = True
    height = np.array([mesh[0][p].mean(axis=0) @ (0.3, 1.0, 0.7) for p in polygons(mesh)])
    materials = np.array([inside[p].any() for p in polygons(mesh)]).astype(int)
    stripes = np.floor(8 * height / np.ptp(height)).astype(int)
    for labels in (materials, stripes, np.arange(len(mesh[2]))):
        parts, was = split(mesh, labels)
        assert len(parts[0]) > len(mesh[0])
        welded = weld(parts)
        skin = solved.face.skin
        numbers = was[welded.first]
        assert np.array_equal(numbers[np.isin(numbers, skin)], skin)
        assert np.array_equal(numbers[welded.number], was)
        if len(numbers) == len(mesh[0]):  # hairs of the demo head meet at vertices, not along edges
            assert fingerprint(*welded.mesh[1:], len(mesh[0])) == solved.head.topology.fingerprint


def test_a_known_head_that_was_split_is_known_and_every_copy_moves_as_one(solved):
    parts, was = split_everywhere(mesh_of(solved.head))
    head = identify(*parts)
    assert head.topology.name in (solved.head.topology.name, "demo-1")
    skin = np.isin(was, solved.face.skin)
    assert np.array_equal(solve_shapes(head).offsets[:, skin], solved.shapes.offsets[:, was[skin]])


def test_a_known_head_with_a_loose_vertex_is_known(solved):
    vertices, corners, sizes = mesh_of(solved.head)
    head = identify(np.concatenate([vertices, vertices[:1] + 0.1]), corners, sizes)
    assert head.topology.name == solved.head.topology.name
    assert np.array_equal(solve_shapes(head).offsets[:, :-1], solved.shapes.offsets)


def test_a_known_head_with_more_parts_behind_its_own_is_known(solved):
    vertices, corners, sizes = mesh_of(solved.head)
    tooth = solved.head.point("lip_upper_inner_center") + np.eye(3) * 1e-3
    more = np.concatenate([corners, [len(vertices) + k for k in range(3)]])
    head = identify(np.concatenate([vertices, tooth]), more, np.append(sizes, 3))
    assert head.topology.face_points == solved.head.topology.face_points


def test_separate_faces_that_only_touch_in_a_corner_are_not_joined():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [-1, 0, 0], [0, -1, 0]], float)
    mesh = (vertices, np.arange(6, dtype=np.int32), np.array([3, 3], np.int32))
    assert weld(mesh).num_copies == 0


def test_half_a_head_is_told_from_one_with_a_cut_neck(demo):
    mesh = mesh_of(demo.head)
    gone = np.array([mesh[0][p, 0].mean() < 0 for p in polygons(mesh)])
    assert is_half(without(mesh, gone))
    assert not is_half(mesh)
    height = demo.rest[:, 1]
    low = np.array([height[p].mean() for p in polygons(mesh)])
    assert not is_half(without(mesh, low < np.quantile(low, 0.1)))
