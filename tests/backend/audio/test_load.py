# SPDX-License-Identifier: GPL-3.0-or-later
"""Which track and channels are heard, and what the user is told of a sound."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")
import soundfile

from backend.audio.load import read_sound
from backend.errors import UserError

RATE = 16000
SECONDS = 6.0


def voice(seed, begin=0.0, end=SECONDS):
    """Noise in syllables between two times, silence elsewhere."""
    random = np.random.default_rng(seed)
    times = np.arange(round(SECONDS * RATE)) / RATE
    loudness = (
        np.maximum(0, np.sin(2 * np.pi * 3 * times + seed)) * (times >= begin) * (times < end)
    )
    return (0.3 * loudness * random.uniform(-1, 1, len(times))).astype(np.float32)


def write_tracks(path, *tracks):
    """Write mono tracks into one file with FFmpeg."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("flac", rate=RATE, layout="mono") for _ in tracks]
        for stream, samples in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(
                (samples[None] * 32767).astype(np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, 0
            resampler = av.AudioResampler("s16", "mono", RATE, 4096)
            for part in [*resampler.resample(frame), *resampler.resample(None), None]:
                file.mux(stream.encode(part))


def warnings_of(folder, samples):
    soundfile.write(folder / "a.wav", samples, RATE, subtype="FLOAT")
    return read_sound(folder / "a.wav").warnings


@pytest.mark.parametrize("first", [np.zeros(round(SECONDS * RATE)), 1e-3 * voice(5)])
def test_a_track_that_speaks_is_taken_before_a_silent_one(tmp_path, first):
    write_tracks(tmp_path / "a.mka", first, voice(1))
    sound = read_sound(tmp_path / "a.mka")
    assert not sound.is_silent
    np.testing.assert_allclose(sound.samples, voice(1), atol=1e-4)
    assert len(sound.warnings) == 1
    assert "2 audio tracks; number 2 is used" in sound.warnings[0]


def test_the_first_of_several_tracks_that_speak_is_taken_as_in_blender(tmp_path):
    write_tracks(tmp_path / "a.mka", 0.3 * voice(1), voice(2), voice(3))
    sound = read_sound(tmp_path / "a.mka")
    np.testing.assert_allclose(sound.samples, 0.3 * voice(1), atol=1e-4)
    assert "3 audio tracks; number 1 is used, as in Blender" in sound.warnings[0]


def test_one_track_needs_no_word(tmp_path):
    write_tracks(tmp_path / "a.mka", voice(1))
    assert read_sound(tmp_path / "a.mka").warnings == ()


def test_two_people_on_left_and_right_are_told(tmp_path):
    left, right = voice(1, 0.0, 2.8), voice(2, 3.2, 6.0)
    assert "different voices" in warnings_of(tmp_path, np.stack([left, right], 1))[0]
    bleeding = np.stack([left + 0.1 * right, right + 0.1 * left], 1)
    assert "different voices" in warnings_of(tmp_path, bleeding)[0]
    at_once = np.stack([voice(1), np.roll(voice(2), RATE // 6)], 1)
    assert "different voices" in warnings_of(tmp_path, at_once)[0]


def test_one_voice_in_stereo_needs_no_word(tmp_path):
    one, room = voice(1), 0.02 * voice(9)
    for stereo in (
        [one, one],
        [one, 0 * one],
        [0.3 * one + room, one],
        [one, np.roll(one, 40) + room],
        [one + 3 * room, 0.7 * one - 3 * room],
    ):
        assert warnings_of(tmp_path, np.stack(stereo, axis=1)) == ()


def test_surround_sound_is_mixed_without_a_word(tmp_path):
    channels = np.stack([0.05 * voice(seed) for seed in range(6)], axis=1)
    channels[:, 2] += voice(1)  # the centre
    assert warnings_of(tmp_path, channels) == ()


def test_is_silent_says_whether_anything_can_be_heard(tmp_path):
    soundfile.write(tmp_path / "a.wav", voice(1), RATE)
    assert not read_sound(tmp_path / "a.wav").is_silent
    assert read_sound(tmp_path / "a.wav", gain=0.0).is_silent
    assert not read_sound(tmp_path / "a.wav", gain=0.01).is_silent


@pytest.mark.parametrize("largest", [32768.0, 1e20, 3e38])
def test_values_far_above_full_scale_are_refused(tmp_path, largest):
    with pytest.raises(UserError, match="where 1 is full scale"):
        warnings_of(tmp_path, voice(1) / voice(1).max() * largest)


def test_values_that_are_no_numbers_are_refused_with_their_time(tmp_path):
    for bad in (np.nan, np.inf, -np.inf):
        samples = np.stack([voice(1), voice(1)], axis=1)
        samples[2 * RATE, 1] = bad
        with pytest.raises(UserError, match=r"first at 2\.000 s"):
            warnings_of(tmp_path, samples)
