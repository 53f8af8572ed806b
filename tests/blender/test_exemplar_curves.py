# SPDX-License-Identifier: GPL-3.0-or-later
"""Exemplars by their keys and by files, the neutral frame, and gains in the library."""

import json

import bpy
import numpy as np
import pytest

FRAMES = 40


@pytest.fixture
def rig(addon):
    """A mesh that PTalker does not know, with keys of ARKit's names that an Action moves."""
    mesh = bpy.data.meshes.new("Rig")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    obj = bpy.data.objects.new("Rig", mesh)
    bpy.context.collection.objects.link(obj)
    obj.shape_key_add(name="Basis")
    for name in addon.rig_names.ARKIT_NAMES:
        obj.shape_key_add(name=f"Face_{name}").data[0].co.z = 0.1
    jaw = mesh.shape_keys.key_blocks["Face_jawOpen"]
    for frame, value in ((1, 0.0), (FRAMES, 0.39)):
        jaw.value = value
        jaw.keyframe_insert("value", frame=frame)
    for curve in addon.compat.read_fcurves(mesh.shape_keys.animation_data.action):
        for point in curve.keyframe_points:
            point.interpolation = 'LINEAR'
    # A key on a driver says what it shows, not what its slider was left at.
    driver = mesh.shape_keys.key_blocks["Face_mouthPucker"].driver_add("value").driver
    driver.expression = "0.25"
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 1, FRAMES
    bpy.context.view_layer.update()
    yield obj
    bpy.data.objects.remove(obj)


@pytest.fixture
def speaker(fake_backend, head, rig):
    head.ptalker.style_source = 'EXEMPLAR'
    head.ptalker.exemplar = rig
    bpy.context.view_layer.objects.active = head
    return head


def request_of(addon):
    """The request of a job that is built and never sent."""
    context = bpy.context
    obj = context.active_object
    inputs = addon.scene_inputs.collect(context, obj, addon.scene_inputs.choices_of(context, obj))
    job = addon.lip_sync_job.generate_job(inputs, addon.preferences.read(context))
    job.close()
    return job._request


def test_an_action_on_a_rig_is_read_as_weights(speaker, rig, addon, tmp_path):
    wanted = addon.scene_inputs.exemplar_range(rig, scene=bpy.context.scene, frames=None)
    reader = addon.exemplar_reader.ExemplarReader(wanted)
    while not reader.is_done:
        reader.read_slice()
    exemplar = reader.exemplar()
    names = addon.rig_names.ARKIT_NAMES
    jaw = exemplar.weights[:, names.index("jawOpen")]
    np.testing.assert_allclose(jaw, np.linspace(0, 0.39, FRAMES), atol=1e-3)
    np.testing.assert_allclose(exemplar.weights[:, names.index("mouthPucker")], 0.25, atol=1e-5)
    addon.lip_sync_job.write_exemplar(tmp_path / "exemplar.npz", exemplar)
    with np.load(tmp_path / "exemplar.npz") as data:
        assert sorted(data) == ["fps", "names", "weights"]
        assert data["weights"].shape == (FRAMES, 52)


def test_a_head_whose_keys_do_not_move_is_read_by_its_vertices(rig, addon):
    rig.data.shape_keys.animation_data_clear()
    rig.location.x = 1.0
    wanted = addon.scene_inputs.exemplar_range(rig, scene=bpy.context.scene, frames=(1, 20))
    reader = addon.exemplar_reader.ExemplarReader(wanted)
    while not reader.is_done:
        reader.read_slice()
    with pytest.raises(addon.protocol.UserError, match="does not move"):
        reader.exemplar()


def test_a_capture_is_sent_by_its_path(speaker, addon, tmp_path):
    settings = speaker.ptalker
    settings.exemplar = None
    path = tmp_path / "take.csv"
    settings.exemplar_file = str(path)
    assert "does not exist" in addon.scene_inputs.missing(bpy.context)
    path.write_text("Timecode")
    assert addon.scene_inputs.missing(bpy.context) == ""
    settings.use_exemplar_neutral = True
    settings.exemplar_neutral_frame = 12
    settings.upper_face_strength = 0.5
    request = request_of(addon)
    assert (request.style.kind, request.style.value) == ("exemplar", str(path))
    assert request.options.exemplar_neutral == 12
    assert request.options.upper_face_strength == 0.5
    settings.exemplar_file = str(tmp_path)
    assert addon.scene_inputs.missing(bpy.context) == ""
    other = tmp_path / "take.fbx"
    other.write_text("x")
    settings.exemplar_file = str(other)
    assert "is no capture" in addon.scene_inputs.missing(bpy.context)


def test_the_neutral_frame_is_counted_from_the_first_that_is_read(speaker, addon):
    settings = speaker.ptalker
    settings.use_exemplar_neutral = True
    settings.use_exemplar_range = True
    settings.exemplar_start, settings.exemplar_end = 5, 30
    settings.exemplar_neutral_frame = 9
    assert request_of(addon).options.exemplar_neutral == 4
    settings.exemplar_neutral_frame = 2
    with pytest.raises(addon.protocol.UserError, match="lies before"):
        addon.scene_inputs.choices_of(bpy.context, speaker)


def style(addon, code=(1.0,), **details):
    return addon.style_library.StyleCode(code, "m", 2, "me", **details)


def test_blends_are_between_the_gains_too(addon, tmp_path, monkeypatch):
    monkeypatch.setattr(addon.style_library.paths, "styles_dir", lambda: tmp_path)
    one = style(addon, gains={"jawOpen": (2.0, 0.1, 0.1, 0.2)}, jaw_spread=0.1)
    two = style(
        addon, gains={"jawOpen": (1.0, 0.0, 0.3, 0.1), "mouthClose": (3.0, 0.0)}, jaw_spread=0.2
    )
    mixed = addon.style_library.blend(one, two, 0.5)
    assert mixed.gains["jawOpen"] == pytest.approx((1.5, 0.05, 0.2, 0.15))
    assert mixed.gains["mouthClose"] == pytest.approx((2.0, 0.0))
    assert mixed.jaw_spread == pytest.approx(0.15)
    plain = addon.style_library.blend(one, style(addon), 1.0)
    assert plain.gains["jawOpen"] == pytest.approx((1.0, 0.0))
    assert addon.style_library.blend(style(addon), style(addon), 0.5).jaw_spread is None
    path = addon.style_library.save("Mixed", mixed)
    assert addon.style_library.load(path) == mixed


@pytest.mark.parametrize("gains", [[], {"jawOpen": 1}, {"jawOpen": [1]}, {"jawOpen": ["x", 1]}])
def test_damaged_gains_are_no_style(addon, tmp_path, gains):
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"format": "ptalker-style", "code": [1], "gains": gains or [1]}))
    with pytest.raises(addon.protocol.UserError, match="not a style"):
        addon.style_library.load(path)
