# SPDX-License-Identifier: GPL-3.0-or-later
"""Mesh objects as artists have them: mirrored by a scale, halves under a modifier."""

import bpy
import numpy as np
import pytest


def volume(vertices, corners, sizes):
    """Six times the volume on the inner side of faces of four corners."""
    assert set(sizes.tolist()) == {4}
    quads = vertices[corners.reshape(-1, 4)] - vertices.mean(axis=0)
    pairs = ((0, 1, 2), (0, 2, 3))
    return sum((quads[:, a] * np.cross(quads[:, b], quads[:, c])).sum() for a, b, c in pairs)


@pytest.mark.parametrize("owner", ["object", "parent"])
def test_a_mirrored_object_is_read_as_it_is_seen(addon, head, owner):
    plain = addon.head_mesh.seen(head)
    target = head
    if owner == "parent":
        target = bpy.data.objects.new("Rig", None)
        bpy.context.collection.objects.link(target)
        head.parent = target
    target.scale = (1.0, -2.0, 2.0)
    bpy.context.view_layer.update()
    assert addon.head_mesh.is_mirrored(head)
    vertices, corners, sizes = addon.head_mesh.seen(head)
    assert np.array_equal(vertices, plain[0] * (-1, 1, 1))
    assert np.sign(volume(vertices, corners, sizes)) == np.sign(volume(*plain))
    assert addon.scene_inputs.read_head(head).is_mirrored
    assert np.array_equal(addon.head_mesh.mirrored(vertices), plain[0])


def test_half_a_head_with_a_mirror_modifier_is_told_at_the_button(addon, head):
    head.modifiers.new("Mirror", 'MIRROR')
    assert addon.scene_inputs.head_problem(head) == ""  # the mesh is whole
    half = head.data.copy()
    for vertex in half.vertices:
        vertex.co.x = abs(vertex.co.x)
    head.data = half
    problem = addon.scene_inputs.head_problem(head)
    assert 'half a head with a Mirror modifier' in problem
    assert 'Apply the modifier "Mirror"' in problem
    head.modifiers["Mirror"].show_viewport = False
    assert addon.scene_inputs.head_problem(head) == ""
