# SPDX-License-Identifier: GPL-3.0-or-later
"""A character in several objects with the real backend: teeth, tongue and eyes move as they should.

Slow: the backend is started once and kept warm over all tests of this file.
"""

import json
from pathlib import Path

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix

from tests.blender import test_end_to_end as end_to_end
from tests.blender.test_end_to_end import (  # noqa: F401  # fixtures
    demo,
    fresh_file,
    real_backend,
    stop_at_the_end,
)

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [*end_to_end.pytestmark, end_to_end.needs_weights]
TOPOLOGY = json.loads((ROOT / "backend" / "topologies" / "demo.json").read_text())
SPACES = {
    "Teeth": Matrix.Translation((0.3, 0, 0)) @ Matrix.Diagonal((-1.0, 2.0, 1.0, 1.0)),
    "Tongue": Euler((0.5, 1.0, -0.7)).to_matrix().to_4x4(),
    "Eyes": Matrix.Diagonal((0.01, 0.01, 0.01, 1.0)) @ Euler((1.57, 0, 0)).to_matrix().to_4x4(),
}


def components_of(obj):
    """Number of the connected piece of each vertex."""
    label = np.arange(len(obj.data.vertices))
    edges = np.array([edge.vertices[:] for edge in obj.data.edges])
    while True:
        low = np.minimum(label[edges[:, 0]], label[edges[:, 1]])
        before = label.copy()
        np.minimum.at(label, edges[:, 0], low)
        np.minimum.at(label, edges[:, 1], low)
        if (label == before).all():
            return label


def extracted(obj, name, vertices):
    """An object of some of another's vertices, all of connected pieces."""
    chosen = np.zeros(len(obj.data.vertices), bool)
    chosen[vertices] = True
    number = np.cumsum(chosen) - 1
    faces = [
        [int(number[v]) for v in polygon.vertices]
        for polygon in obj.data.polygons if chosen[polygon.vertices[0]]
    ]  # fmt: skip
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([v.co for v in obj.data.vertices if chosen[v.index]], [], faces)
    made = bpy.data.objects.new(name, mesh)
    bpy.context.collection.objects.link(made)
    return made


@pytest.fixture
def character(demo, addon):  # noqa: F811
    """The demo head as objects in spaces of their own; the skin has its points marked."""
    label = components_of(demo)
    seeds = {}
    for part in TOPOLOGY["parts"]:
        if "seed" in part:
            seeds.setdefault(part["role"], []).append(label[part["seed"]])
    roles = {
        "Skin": ["skin"],
        "Teeth": ["teeth_upper", "teeth_lower"],
        "Tongue": ["tongue"],
        "Eyes": ["eye_left", "eye_right"],
    }
    objects, of_vertex = {}, {}
    for name, parts in roles.items():
        chosen = np.flatnonzero(np.isin(label, [s for role in parts for s in seeds[role]]))
        objects[name], of_vertex[name] = extracted(demo, name, chosen), chosen
    skin = objects["Skin"]
    for name in ("sound_source", "strip_name", "sound_file", "sound_frame", "listen"):
        setattr(skin.ptalker, name, getattr(demo.ptalker, name))
    bpy.data.objects.remove(demo)
    number = {int(old): new for new, old in enumerate(of_vertex["Skin"])}
    state = addon.face_points.State.HAND
    point = addon.face_points.Point
    marked = {name: point(number[v], state) for name, v in TOPOLOGY["face_points"].items()}
    addon.face_points.store(skin, marked)
    for name, space in SPACES.items():
        obj = objects[name]
        obj.parent = skin
        obj.data.transform(space.inverted())
        obj.matrix_world = space
    skin.location = (0.5, 0.2, 1.0)
    bpy.context.view_layer.objects.active = skin
    bpy.context.view_layer.update()
    return objects


def in_world(obj, points):
    matrix = np.array(obj.matrix_world)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def posed(obj, **values):
    """Vertices in the world with some keys at some values."""
    keys = obj.data.shape_keys
    shape = np.array([point.co for point in keys.reference_key.points])
    rest = shape.copy()
    for name, value in values.items():
        if name in keys.key_blocks:
            points = np.array([point.co for point in keys.key_blocks[name].points])
            shape += value * (points - rest)
    return in_world(obj, rest), in_world(obj, shape)


def misfit(before, after):
    """Largest distance from a rigid motion."""
    a, b = before - before.mean(0), after - after.mean(0)
    u, _, vt = np.linalg.svd(b.T @ a)
    turn = (u * [1, 1, np.linalg.det(u @ vt)]) @ vt
    return np.linalg.norm(a @ turn.T - b, axis=1).max()


def test_all_of_a_character_is_keyed_in_one_run(character, evaluated, addon):
    assert end_to_end.generate() == {'FINISHED'}
    skin = character["Skin"]
    text = bpy.context.window_manager.ptalker.result_text
    assert "with Eyes, Teeth, Tongue," in text
    before, after = posed(character["Teeth"], jawOpen=1.0)
    drop = (after - before)[:, 2]
    assert (drop == 0.0).sum() > 50  # the upper row
    lower = drop < -0.008
    assert lower.sum() > 50
    assert (lower | (drop == 0.0)).all()
    assert drop.min() < -0.015
    assert misfit(before[lower], after[lower]) < 2e-5
    rest, opened = posed(skin, jawOpen=1.0)
    number = addon.face_points.marked(skin)["chin"]
    assert drop.min() == pytest.approx((opened - rest)[number, 2], rel=0.35)
    before, after = posed(character["Tongue"], jawOpen=1.0)
    assert misfit(before, after) < 2e-5
    assert (after - before)[:, 2].max() < -0.005
    before, after = posed(character["Eyes"], eyeLookOutLeft=1.0)
    left = before[:, 0] > skin.location.x
    if np.abs((after - before)[left]).max() == 0.0:
        left = ~left
    assert np.abs((after - before)[~left]).max() == 0.0
    assert misfit(before[left], after[left]) < 2e-5
    assert np.linalg.norm((after - before)[left], axis=1).max() > 0.004
    for obj in character.values():
        action = obj.data.shape_keys.animation_data.action
        assert addon.speech_action.line_names(action) == [character_line(skin)]
    names = [block.name for block in character["Teeth"].data.shape_keys.key_blocks]
    assert {"jawOpen", "jawLeft", "jawRight", "jawForward"} <= set(names)
    assert not {"eyeBlinkLeft", "mouthSmileLeft", "browInnerUp"} & set(names)


def character_line(skin):
    return skin.ptalker.strip_name or Path(skin.ptalker.sound_file).stem
