# SPDX-License-Identifier: GPL-3.0-or-later
"""Add Demo Head: a whole head that stands where it can be seen."""

import bpy
import numpy as np
from mathutils import Vector


def test_demo_head_is_whole_and_at_the_cursor(addon):
    bpy.context.scene.cursor.location = (1, 2, 3)
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    obj = bpy.context.active_object
    assert tuple(obj.location) == (1, 2, 3)
    assert len(obj.data.vertices) > 3000
    assert all(polygon.use_smooth for polygon in obj.data.polygons)
    assert len(obj.data.materials) == len({p.material_index for p in obj.data.polygons})
    assert obj.ptalker.strip_name or obj.ptalker.sound_file


def box_of(obj):
    corners = np.array([obj.matrix_world @ Vector(corner) for corner in obj.bound_box])
    return corners.min(axis=0), corners.max(axis=0)


def overlap(first, second):
    (low, high), (other_low, other_high) = box_of(first), box_of(second)
    return bool((high > other_low).all() and (low < other_high).all())


def add_beside(*others):
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    bpy.context.view_layer.update()
    head = bpy.context.active_object
    assert bpy.context.selected_objects == [head]
    assert not any(overlap(head, other) for other in others)
    return head


def test_demo_head_stands_beside_the_default_cube_and_other_heads(addon):
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.active_object
    first = add_beside(cube)
    assert 1.0 < box_of(first)[0][0] < 1.2  # just beside it
    assert first.location.z == 0.0
    second = add_beside(cube, first)
    assert second.location.x > first.location.x
    cube.hide_set(True)
    assert add_beside().location.x == 0.0


def test_demo_head_may_stand_on_a_floor_and_in_a_room(addon):
    bpy.ops.mesh.primitive_plane_add(size=8.0)
    bpy.ops.mesh.primitive_cube_add(size=40.0)
    bpy.ops.object.camera_add()
    assert tuple(add_beside().location) == (0.0, 0.0, 0.0)


def test_demo_head_stands_beside_a_linked_character(addon):
    bpy.ops.mesh.primitive_cube_add(size=0.5)
    cube = bpy.context.active_object
    character = bpy.data.collections.new("Character")
    character.objects.link(cube)
    bpy.context.scene.collection.objects.unlink(cube)
    empty = bpy.data.objects.new("Character", None)
    empty.instance_type, empty.instance_collection = 'COLLECTION', character
    empty.location.x = 0.1
    bpy.context.scene.collection.objects.link(empty)
    assert box_of(add_beside())[0][0] > 0.35


def test_demo_head_is_offered_for_a_cube_and_not_for_itself(addon):
    bpy.ops.mesh.primitive_cube_add()
    assert addon.poll_checks.is_face_unknown(bpy.context)
    add_beside()
    assert not addon.poll_checks.is_face_unknown(bpy.context)
    assert not addon.demo_head.frame(bpy.context)  # there is no window
