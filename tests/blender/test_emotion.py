# SPDX-License-Identifier: GPL-3.0-or-later
"""Emotions from the panel: what is chosen and keyed reaches the backend."""

import json

import bpy
import pytest


@pytest.fixture
def requested(addon, fake_backend, monkeypatch):
    """The options of the jobs that are sent."""
    seen = []
    encode = addon.backend_process.encode

    def look(request):
        if hasattr(request, "options"):
            seen.append(request.options)
        return encode(request)

    monkeypatch.setattr(addon.backend_process, "encode", look)
    return seen


def generate():
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}


def test_without_an_emotion_none_is_asked_for(head, requested):
    generate()
    assert (requested[0].emotion, requested[0].emotion_from_voice) == ("", 0.0)


def test_a_blend_and_the_voice_reach_the_backend(head, requested):
    head.ptalker.first_emotion = 'JOY'
    head.ptalker.second_emotion = 'SURPRISE'
    head.ptalker.emotion_mix = 0.25
    head.ptalker.emotion_amount = 0.8
    head.ptalker.emotion_from_voice = 0.5
    generate()
    assert requested[0].emotion == "joy:0.6+surprise:0.2"
    assert requested[0].emotion_from_voice == 0.5


def test_keys_of_the_amount_are_read_at_each_frame_of_the_speech(head, requested):
    head.ptalker.first_emotion = 'ANGER'
    for frame, amount in ((10, 0.0), (34, 1.0), (58, 0.2)):
        head.ptalker.emotion_amount = amount
        head.ptalker.keyframe_insert("emotion_amount", frame=frame)
    action = head.animation_data.action
    generate()
    rows = json.loads(requested[0].emotion)
    assert {name for _, name, _ in rows} == {"anger"}
    assert rows[0] == [0.0, "anger", 0.0]

    def amount_at(frame):
        return [amount for seconds, _, amount in rows if seconds * 24 < frame + 0.01][-1]

    assert amount_at(12) == pytest.approx(0.5, abs=0.02)
    assert amount_at(24) == pytest.approx(1.0, abs=0.01)
    assert amount_at(47) == pytest.approx(0.2, abs=0.02)
    assert head.animation_data.action == action  # the artist's own, as it was
    assert len(action.fcurves if hasattr(action, "fcurves") else [1]) == 1


def test_the_command_line_knows_emotions(addon):
    options = addon.command._parser().parse_args(
        ["--emotion", "joy:0.7", "--emotion-from-voice", "1"]
    )
    assert (options.emotion, options.emotion_from_voice) == ("joy:0.7", 1.0)
