# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a sound strip: trim, offset, volume, metas, packing, rate."""

import dataclasses
import wave
from fractions import Fraction

import bpy
import numpy as np
import pytest

needs_sound = pytest.mark.skipif(
    not bpy.app.build_options.audaspace, reason="this Blender was built without sound"
)
pytestmark = needs_sound


def strips(scene):
    editor = scene.sequence_editor_create()
    return editor.strips if hasattr(editor, "strips") else editor.sequences


@pytest.fixture
def strip(sound_file):
    """The tone of two seconds from frame 10, at 24 frames a second."""
    scene = bpy.context.scene
    return strips(scene).new_sound("Speech", str(sound_file), 1, 10)


def set_value(strip, new, old, value):
    setattr(strip, new if hasattr(strip, new) else old, value)


def inputs_of(addon, obj, **choices):
    return addon.scene_inputs.collect(bpy.context, obj, addon.scene_inputs.Choices(**choices))


def test_whole_strip(addon, head, strip, sound_file):
    inputs = inputs_of(addon, head)
    assert inputs.sound.path == sound_file
    assert inputs.sound.name == "Speech"
    assert inputs.first_frame == 10
    assert inputs.start_seconds == 0
    assert inputs.num_frames == 48


def test_trimmed_strip_starts_later_in_the_file(addon, head, strip):
    set_value(strip, "left_handle_offset", "frame_offset_start", 12)
    set_value(strip, "right_handle_offset", "frame_offset_end", 6)
    inputs = inputs_of(addon, head)
    assert inputs.first_frame == 22
    assert inputs.start_seconds == pytest.approx(0.5)
    assert inputs.num_frames == 30


def test_sound_offset_delays_the_sound(addon, head, strip):
    try:
        strip.sound_offset = 0.25
    except AttributeError:
        pytest.skip("this Blender's sound_offset is read-only")
    inputs = inputs_of(addon, head)
    assert inputs.first_frame == 16
    assert inputs.start_seconds == pytest.approx(0.0)


def test_strip_before_frame_zero(addon, head, sound_file):
    strips(bpy.context.scene).new_sound("Early", str(sound_file), 1, -30)
    assert inputs_of(addon, head).first_frame == -30


def test_volume_is_the_gain_and_none_is_refused(addon, head, strip):
    strip.volume = 0.5
    assert inputs_of(addon, head).sound.gain == pytest.approx(0.5)
    strip.volume = 0.0
    with pytest.raises(addon.protocol.UserError, match="volume"):
        inputs_of(addon, head)


def test_packed_sound_brings_its_bytes(addon, head, strip, sound_file):
    data = sound_file.read_bytes()
    strip.sound.pack()
    sound_file.unlink()
    inputs = inputs_of(addon, head)
    assert inputs.sound.packed == data


def test_missing_file_is_named(addon, head, strip, sound_file):
    sound_file.unlink()
    with pytest.raises(addon.protocol.UserError, match=r"tone\.wav.*Find Missing Files"):
        inputs_of(addon, head)


def test_no_strip(addon, head):
    with pytest.raises(addon.protocol.UserError, match="Add the speech in the Video Sequencer"):
        inputs_of(addon, head)


def test_several_strips_need_a_choice(addon, head, strip, sound_file):
    strips(bpy.context.scene).new_sound("Music", str(sound_file), 2, 100)
    bpy.context.scene.sequence_editor.active_strip = None
    with pytest.raises(addon.protocol.UserError, match="Choose one of the 2"):
        inputs_of(addon, head)
    assert inputs_of(addon, head, strip="Music").first_frame == 100
    bpy.context.scene.sequence_editor.active_strip = strip
    assert inputs_of(addon, head).first_frame == 10
    with pytest.raises(addon.protocol.UserError, match='no sound strip "Gone"'):
        inputs_of(addon, head, strip="Gone")


def test_strip_of_another_scene_with_another_rate(addon, head, sound_file):
    other = bpy.data.scenes.new("Edit")
    other.render.fps = 50
    strips(other).new_sound("Speech", str(sound_file), 1, 101)
    inputs = inputs_of(addon, head, strip="Speech [Edit]")
    # 101 / 50 s is between the frames 48 and 49 of 24 frames a second
    assert inputs.first_frame == 49
    assert inputs.start_seconds == pytest.approx(49 / 24 - 101 / 50)
    labels = [label for label, _, _ in addon.sound_strips.labelled_strips(bpy.context)]
    assert labels == ["Speech [Edit]"]


@pytest.mark.parametrize(("fps", "base"), [(24, 1.001), (30, 1.001), (25, 1.0), (60, 1.001)])
def test_rate_is_exact_over_an_hour(addon, head, strip, fps, base):
    render = bpy.context.scene.render
    render.fps, render.fps_base = fps, base
    inputs = inputs_of(addon, head)
    assert inputs.fps == Fraction(fps * 1000, round(base * 1000))
    blenders = render.fps / render.fps_base
    assert abs(3600 * float(inputs.fps) - 3600 * blenders) < 0.05


def test_strip_in_a_meta_strip_is_cut_by_it(addon, head, strip, sound_file):
    scene = bpy.context.scene
    meta = strips(scene).new_meta("Meta", 3, 10)
    strip.move_to_meta(meta)
    set_value(meta, "right_handle", "frame_final_end", 40)
    set_value(meta, "left_handle", "frame_final_start", 16)
    assert strip in addon.compat.all_strips(scene)
    inputs = inputs_of(addon, head)
    assert inputs.first_frame == 16
    assert inputs.start_seconds == pytest.approx(0.25)
    assert inputs.num_frames == 24


def test_generate_from_the_strip(fake_backend, addon, head, strip):
    head.ptalker.sound_source = 'STRIP'
    assert addon.poll_checks.missing(bpy.context) == ""
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    action = head.data.shape_keys.animation_data.action
    assert action.name == "Speech"
    assert tuple(action.frame_range) == (10 - 5, 57 + 5)


def test_retimed_strip_is_mixed_down(addon, head, strip, sound_file, snapshot, monkeypatch):
    # Making retiming keys in the background crashes Blender, so this one only looks retimed.
    monkeypatch.setattr(addon.compat, "is_retimed", lambda other: other == strip)
    strips(bpy.context.scene).new_sound("Music", str(sound_file), 2, 10).volume = 0.1
    before = snapshot()
    inputs = inputs_of(addon, head, strip="Speech")
    try:
        assert inputs.sound.is_temporary
        with wave.open(str(inputs.sound.path)) as file:
            assert file.getnframes() / file.getframerate() == pytest.approx(2.0, abs=0.05)
        assert inputs.start_seconds == 0
        assert inputs.first_frame == 10
        assert snapshot() == before
    finally:
        inputs.sound.path.unlink()


def test_retimed_strip_is_refused_where_blender_cannot_mix(addon, head, strip, monkeypatch):
    monkeypatch.setattr(addon.compat, "is_retimed", lambda _strip: True)
    monkeypatch.setattr(addon.compat, "mix_down", lambda _scene, _path: None)
    with pytest.raises(addon.protocol.UserError, match="Remove the strip's retiming"):
        inputs_of(addon, head)


def test_picker_lists_sound_strips_only(addon, strip):
    strips(bpy.context.scene).new_effect(name="Color", type='COLOR', channel=5, frame_start=1,
                                         **({"length": 20} if bpy.app.version >= (5, 0) else
                                            {"frame_end": 20}))  # fmt: skip
    labels = [label for label, _, _ in addon.sound_strips.labelled_strips(bpy.context)]
    assert labels == ["Speech"]


def fade(strip, *keys):
    for frame, volume in keys:
        strip.volume = volume
        strip.keyframe_insert("volume", frame=frame)


def test_a_fade_is_read_over_time_wherever_the_playhead_stands(addon, head, strip):
    fade(strip, (10, 0.0), (22, 1.0))
    bpy.context.scene.frame_set(10)
    strip.volume = 0.0
    head.ptalker.sound_source = 'STRIP'
    assert addon.poll_checks.missing(bpy.context) == ""
    sound = inputs_of(addon, head).sound
    assert sound.gain == 1.0
    seconds, volumes = zip(*sound.fade, strict=True)
    assert seconds[0] == 0.0
    assert volumes[0] == 0.0
    assert volumes[-1] == pytest.approx(1.0)
    curve = addon.compat.animation_curve(bpy.context.scene, strip.path_from_id("volume"))
    for frame in (13, 16, 20, 40):
        read = np.interp((frame - 10) / 24, seconds, volumes)
        assert read == pytest.approx(curve.evaluate(frame), abs=0.005)
    assert len(sound.fade) < 20


def test_a_volume_keyed_to_nothing_is_refused(addon, head, strip):
    fade(strip, (10, 0.0), (22, 0.0))
    with pytest.raises(addon.protocol.UserError, match="volume"):
        inputs_of(addon, head)


def test_a_constant_keyed_volume_is_the_gain(addon, head, strip):
    fade(strip, (10, 0.5), (22, 0.5))
    strip.volume = 0.0
    sound = inputs_of(addon, head).sound
    assert (sound.gain, sound.fade) == (0.5, ())


def test_muted_strips_are_heard_and_it_is_said(addon, head, strip):
    assert inputs_of(addon, head).sound.notes == ()
    strip.mute = True
    assert "muted" in inputs_of(addon, head).sound.notes[0]
    strip.mute = False
    bpy.context.scene.sequence_editor.channels[strip.channel].mute = True
    assert "muted" in inputs_of(addon, head).sound.notes[0]


def test_a_scene_strip_says_when_its_sound_is_heard(addon, head, sound_file):
    edit = bpy.data.scenes.new("Edit")
    edit.render.fps, edit.frame_start = 24, 1
    strips(edit).new_sound("Speech", str(sound_file), 1, 13)
    shown = strips(bpy.context.scene).new_scene("Cut", edit, 1, 101)
    inputs = inputs_of(addon, head, strip="Speech [Edit]")
    assert inputs.first_frame == 113
    assert inputs.start_seconds == 0
    shown.volume = 0.5
    set_value(shown, "left_handle_offset", "frame_offset_start", 24)
    inputs = inputs_of(addon, head, strip="Speech [Edit]")
    assert inputs.first_frame == 125
    assert inputs.start_seconds == pytest.approx(0.5)
    assert inputs.sound.gain == pytest.approx(0.5)
    set_value(shown, "left_handle_offset", "frame_offset_start", 200)
    with pytest.raises(addon.protocol.UserError, match="hides it"):
        inputs_of(addon, head, strip="Speech [Edit]")


def test_a_temporary_file_goes_when_the_job_does_not_come_about(
    addon, head, strip, tmp_path, monkeypatch
):
    path = tmp_path / "mix.wav"
    path.write_bytes(b"RIFF")
    inputs = inputs_of(addon, head)
    sound = dataclasses.replace(inputs.sound, path=path, is_temporary=True)
    settings = addon.preferences.read(bpy.context)

    def refuse(_python):
        raise addon.protocol.UserError("There is no backend.")

    monkeypatch.setattr(addon.paths, "backend_command", refuse)
    with pytest.raises(addon.protocol.UserError):
        addon.lip_sync_job.generate_job(dataclasses.replace(inputs, sound=sound), settings)
    assert not path.exists()
