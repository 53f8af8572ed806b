# SPDX-License-Identifier: GPL-3.0-or-later
"""Several lines of dialogue on one head: each has its stretch of the Action, the others stay."""

import dataclasses

import bpy
import numpy as np
import pytest

JAW = 'key_blocks["jawOpen"].value'
FRAMES = 48  # the tone: 2 s at 24 frames a second
REST = 5  # 0.2 s


@pytest.fixture
def say(fake_backend, head, tmp_path, sound_file):
    """Lets the head say a line of a name, from a frame."""

    def generate(name, frame, folder="."):
        path = tmp_path / folder / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(sound_file.read_bytes())
        head.ptalker.sound_file = str(path)
        head.ptalker.sound_frame = frame
        assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
        return head.data.shape_keys.animation_data.action

    return generate


def keyed(head, addon, path=JAW):
    """Frame -> value of the keys of a curve of the head's Action."""
    for curve in addon.fcurves_of(head.data.shape_keys):
        if curve.data_path == path:
            return {round(point.co.x, 3): point.co.y for point in curve.keyframe_points}
    return {}


def spoken(first):
    return set(range(first, first + FRAMES))


def values_of(keys, first):
    return [keys[frame] for frame in range(first, first + FRAMES)]


def test_second_line_leaves_the_first_with_the_mouth_at_rest_between(say, head, addon, evaluated):
    first = say("one", 10)
    alone = keyed(head, addon)
    both = say("two", 100)
    keys = keyed(head, addon)
    assert set(keys) == spoken(10) | spoken(100) | {5, 62, 95, 152}
    assert all(keys[frame] == value for frame, value in alone.items())
    assert values_of(keys, 100) == pytest.approx(values_of(alone, 10), abs=1e-6)
    rest = addon.head_mesh.neutral_vertices(head)
    assert np.abs(evaluated(head, 75) - rest).max() < 1e-7
    assert np.abs(evaluated(head, 30) - rest).max() > 1e-3
    assert both != first
    assert first.use_fake_user
    assert addon.speech_action.line_names(both) == ["one", "two"]
    assert "beside 1 other line" in bpy.context.window_manager.ptalker.result_text


def test_lines_may_come_in_any_order(say, head, addon):
    for name, frame in (("three", 200), ("one", 10), ("two", 100)):
        action = say(name, frame)
    assert addon.speech_action.line_names(action) == ["one", "two", "three"]
    assert spoken(10) | spoken(100) | spoken(200) <= set(keyed(head, addon))


def test_line_that_follows_at_once_gets_no_rest_between(say, head, addon):
    say("one", 10)
    say("two", 10 + FRAMES)
    keys = keyed(head, addon)
    assert sorted(keys) == [5, *range(10, 10 + 2 * FRAMES), 9 + 2 * FRAMES + REST]


def test_line_again_replaces_its_own_frames_only(say, head, addon):
    say("one", 10)
    alone = keyed(head, addon)
    action = say("two", 100)
    for curve in addon.fcurves_of(head.data.shape_keys):
        if curve.data_path == JAW:
            curve.keyframe_points[10].co.y = 0.123  # frame 19, in the first line
            curve.keyframe_points[60].co.y = 0.456  # frame 109, in the second
    edited = keyed(head, addon)
    again = say("two", 100)
    keys = keyed(head, addon)
    assert keys[19] == pytest.approx(0.123)
    assert edited[109] == pytest.approx(0.456)
    assert keys[109] == pytest.approx(alone[19])
    assert again != action
    for layer in getattr(action, "layers", []):  # the edited Action is as the artist left it
        bag = layer.strips[0].channelbag(action.slots[0])
        assert bag.fcurves.find(JAW).keyframe_points[60].co.y == pytest.approx(0.456)


def test_line_that_was_moved_leaves_nothing_where_it_was(say, head, addon):
    say("one", 10)
    say("two", 100)
    action = say("two", 300)
    assert set(keyed(head, addon)) == spoken(10) | spoken(300) | {5, 62, 295, 352}
    assert addon.speech_action.line_names(action) == ["one", "two"]


def warnings():
    return " ".join(w.text for w in bpy.context.window_manager.ptalker.warnings)


def test_two_files_of_one_name_are_two_lines(say, head, addon):
    say("speech", 10, folder="monday")
    action = say("speech", 100, folder="tuesday")
    assert addon.speech_action.line_names(action) == ["speech", "speech"]
    assert set(keyed(head, addon)) >= spoken(10) | spoken(100)
    assert "beside 1 other line" in bpy.context.window_manager.ptalker.result_text
    assert warnings() == ""
    action = say("speech", 300, folder="tuesday")
    assert set(keyed(head, addon)) >= spoken(10) | spoken(300)
    assert not set(keyed(head, addon)) & spoken(100)


def test_what_a_line_takes_away_is_said(say, head, addon):
    say("one", 10)
    say("two", 40)
    assert 'The line "one" (frames 5 to 62) was cut' in warnings()
    say("one", 300)
    assert '"one" no longer speaks at frames 5 to 39' in warnings()
    say("three", 300)
    assert 'The line "one", which began at the same time, was replaced' in warnings()


def test_lines_of_before_have_no_keys_and_go_by_name(say, head, addon):
    action = say("one", 10)
    action[addon.speech_action.LINES] = [{"name": "one", "first": 5, "last": 62}]
    action = say("one", 100)
    assert addon.speech_action.line_names(action) == ["one"]
    assert not set(keyed(head, addon)) & spoken(10)


def push_down(keys):
    """What the editor's button does."""
    animation = keys.animation_data
    action, slot = animation.action, getattr(animation, "action_slot", None)
    track = animation.nla_tracks.new()
    strip = track.strips.new(action.name, int(action.frame_range[0]), action)
    if slot is not None:
        strip.action_slot = slot
    animation.action = None
    return strip


def test_line_that_was_pushed_down_goes_on_playing(say, head, addon, evaluated):
    say("one", 10)
    expected = [evaluated(head, frame) for frame in range(5, 70)]
    strip = push_down(head.data.shape_keys)
    say("two", 100)
    later = [evaluated(head, frame) for frame in range(95, 160)]
    for number, frame in enumerate(range(5, 70)):
        np.testing.assert_allclose(evaluated(head, frame), expected[number], atol=1e-6)
        np.testing.assert_allclose(later[number], expected[number], atol=1e-6)
    evaluated(head, 30)  # from an open mouth to a gap
    rest = addon.head_mesh.neutral_vertices(head)
    assert np.abs(evaluated(head, 80) - rest).max() < 1e-7
    assert strip.name in head.data.shape_keys.animation_data.nla_tracks[0].strips
    assert warnings() == ""


def test_strip_that_the_lines_cover_is_named(say, head):
    say("one", 100)
    strip = push_down(head.data.shape_keys)
    say("two", 10)
    assert "NLA strip" not in warnings()
    say("three", 300)
    assert f'NLA strip "{strip.name}" (frames 95 to 152) is covered' in warnings()


def test_track_that_plays_solo_is_said(say, head):
    say("one", 10)
    push_down(head.data.shape_keys)
    head.data.shape_keys.animation_data.nla_tracks[0].is_solo = True
    say("two", 100)
    assert "plays solo" in warnings()


def test_action_that_is_blended_is_said(say, head):
    say("one", 10)
    push_down(head.data.shape_keys)
    head.data.shape_keys.animation_data.action_influence = 0.5
    say("two", 100)
    assert "(Replace, influence 0.5)" in warnings()


def test_strips_of_other_curves_do_not_matter(say, head, addon):
    say("one", 10)
    head.shape_key_add(name="frown", from_mix=False)
    keys = head.data.shape_keys
    keys.animation_data.action = None
    keys.key_blocks["frown"].keyframe_insert("value", frame=1)
    push_down(keys)
    say("two", 100)
    assert keys.animation_data.action_extrapolation == 'HOLD'


def test_rate_that_was_changed_is_told_before_the_run(say, head, addon):
    say("one", 10)
    assert addon.poll_checks.notes(bpy.context) == []
    bpy.context.scene.render.fps = 30
    told = " ".join(addon.poll_checks.notes(bpy.context))
    assert "Lines made at 24 frames a second no longer fit the scene's 30: one." in told
    say("one", 10)
    assert addon.poll_checks.notes(bpy.context) == []


def test_shared_mesh_is_told_before_the_run(fake_backend, head, addon):
    other = bpy.data.objects.new("Twin", head.data)
    bpy.context.collection.objects.link(other)
    assert 'shared with "Twin"' in " ".join(addon.poll_checks.notes(bpy.context))


def test_line_over_a_part_of_another_cuts_it(say, head, addon):
    say("one", 10)
    alone = keyed(head, addon)
    say("two", 40)
    keys = keyed(head, addon)
    assert values_of(keys, 40) == pytest.approx(values_of(alone, 10), abs=1e-6)
    assert keys[39] == alone[39]
    say("two", 300)
    assert set(keyed(head, addon)) >= set(range(10, 40)) | spoken(300)
    assert not set(keyed(head, addon)) & set(range(40, 290))


def test_other_take_at_the_same_place_leaves_nothing_of_the_first(say, head, addon, monkeypatch):
    say("take one", 10)
    load = addon.motion.load

    def shorter(*args, **options):
        motion = load(*args, **options)
        return dataclasses.replace(motion, weights=motion.weights[:20])

    monkeypatch.setattr(addon.motion, "load", shorter)
    action = say("take two", 10)
    assert sorted(keyed(head, addon)) == [5, *range(10, 30), 34]
    assert addon.speech_action.line_names(action) == ["take two"]


def test_curves_of_the_artist_in_the_action_stay(say, head, addon):
    say("one", 10)
    head.shape_key_add(name="frown", from_mix=False)
    block = head.data.shape_keys.key_blocks["frown"]
    for frame, value in ((1, 0.0), (30, 1.0), (120, 0.25)):
        block.value = value
        block.keyframe_insert("value", frame=frame)
    say("two", 100)
    keys = keyed(head, addon, 'key_blocks["frown"].value')
    assert keys == pytest.approx({1: 0.0, 30: 1.0, 120: 0.25})
    points = next(
        curve for curve in addon.fcurves_of(head.data.shape_keys)
        if "frown" in curve.data_path
    ).keyframe_points  # fmt: skip
    assert {point.interpolation for point in points} == {'BEZIER'}


def test_handles_and_kinds_of_keys_of_another_line_stay(say, head, addon):
    say("one", 10)

    def point():
        curves = addon.fcurves_of(head.data.shape_keys)
        return next(c for c in curves if c.data_path == JAW).keyframe_points[20]

    point().interpolation = 'BEZIER'
    point().handle_left_type = point().handle_right_type = 'FREE'
    point().handle_right = (point().co.x + 0.5, 0.75)
    say("two", 100)
    assert point().interpolation == 'BEZIER'
    assert point().handle_right_type == 'FREE'
    assert tuple(point().handle_right) == pytest.approx((29 + 0.5, 0.75))


def test_failure_of_the_second_line_leaves_the_first(say, head, addon, snapshot, monkeypatch):
    say("one", 10)
    before = snapshot(), keyed(head, addon)

    def fail(*_args, **_options):
        raise addon.protocol.UserError("The disk is full.")

    monkeypatch.setattr(addon.speech_action, "_store_lines", fail)
    with pytest.raises(RuntimeError, match="The disk is full"):
        say("two", 100)
    assert (snapshot(), keyed(head, addon)) == before


def test_shapes_made_for_one_line_alone_are_not_mixed(say, head, addon, monkeypatch):
    say("one", 10)
    monkeypatch.setattr(addon.motion, "has_unnamed_shapes", lambda _names: True)
    say("two", 100)
    assert set(keyed(head, addon)) == spoken(100) | {95, 152}
    assert any("put aside" in w.text for w in bpy.context.window_manager.ptalker.warnings)


def test_names_of_shapes_without_names(addon):
    assert addon.motion.has_unnamed_shapes(("PTalker 01", "PTalker 02"))
    assert not addon.motion.has_unnamed_shapes(("PTalker 01", "jawOpen"))
    assert not addon.motion.has_unnamed_shapes(())
