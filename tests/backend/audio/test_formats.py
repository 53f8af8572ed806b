# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound files of every format: read at the right time, refused with one sentence."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")
import soundfile

from backend.audio import load
from backend.audio.load import file_seconds, read_sound
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import Cancelled, UserError

RATE = SAMPLE_RATE_HZ


def tone(seconds, rate=RATE, hz=440.0, level=0.3):
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def beeps(seconds, rate=RATE, every=0.5):
    """A tone that is switched on for 50 ms every half second, at times that can be found again."""
    times = np.arange(round(seconds * rate)) / rate
    return np.where(times % every < 0.05, tone(seconds, rate, 1000.0), 0).astype(np.float32)


def onsets(samples):
    loud = np.convolve(np.abs(samples), np.ones(32) / 32, "same") > 0.05
    return np.flatnonzero(loud[1:] & ~loud[:-1]) / RATE


def write_with_ffmpeg(path, samples, rate, codec, container=None):
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate,
                                      stream.codec_context.frame_size or 1024)  # fmt: skip
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(stream.encode(part))


@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [("a.wav", 8000, "PCM_U8"), ("a.wav", 44100, "PCM_16"), ("a.wav", 96000, "PCM_24"),
     ("a.wav", 16000, "FLOAT"), ("a.flac", 48000, "PCM_16"), ("a.ogg", 44100, "VORBIS"),
     ("a.ogg", 48000, "OPUS"), ("a.mp3", 44100, "MPEG_LAYER_III")],
)  # fmt: skip
def test_reads_every_format_at_the_right_time(tmp_path, name, rate, subtype):
    path = tmp_path / f"ä b {name}"
    stereo = np.repeat(beeps(3.0, rate)[:, None], 2, axis=1)
    soundfile.write(path, stereo, rate, subtype=subtype)
    sound = read_sound(path, start_seconds=0.75, duration_seconds=1.5)
    assert sound.sample_rate_hz == RATE
    assert sound.seconds == pytest.approx(1.5, abs=1e-3)
    assert sound.warnings == ()
    assert onsets(sound.samples) == pytest.approx([0.25, 0.75, 1.25], abs=0.004)


# A trimmed Matroska file is off by up to a packet, as in Blender: see test_sound_times.py there.
@pytest.mark.parametrize(
    ("name", "codec", "start"),
    [("a.m4a", "aac", 0.0), ("a.m4a", "aac", 2.25), ("a.mkv", "aac", 0.0), ("a.mka", "flac", 0.0)],
)
def test_reads_what_only_ffmpeg_can_at_the_right_time(tmp_path, name, codec, start):
    path = tmp_path / name
    write_with_ffmpeg(path, beeps(6.0, 44100), 44100, codec)
    sound = read_sound(path, start_seconds=start, duration_seconds=1.9)
    assert sound.seconds == pytest.approx(1.9, abs=1e-3)
    # AAC smears an onset over its window.
    expected = [t - start for t in np.arange(0.5, 6.0, 0.5) if start < t < start + 1.9]
    found = [t for t in onsets(sound.samples) if t > 0.1]
    assert found == pytest.approx(expected, abs=0.025)


def test_gain_scales_and_reading_to_the_end_is_the_default(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE, subtype="FLOAT")
    whole = read_sound(tmp_path / "a.wav").samples
    assert len(whole) == RATE
    np.testing.assert_allclose(read_sound(tmp_path / "a.wav", gain=0.5).samples, whole / 2)
    assert len(read_sound(tmp_path / "a.wav", duration_seconds=1e12).samples) == RATE


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), (b"", "empty"), (b"not a sound " * 50, "not a sound that can"),
     (b"RIFF\x24\x00\x00\x00WAVEfmt ", "Choose|long"), (np.zeros((0, 1)), "0 s long"),
     (np.zeros(800), "at least 0.1 s"), (np.full(RATE, np.nan), "not numbers"),
     (np.r_[np.zeros(RATE), np.inf], "first at 1.000 s")],
)  # fmt: skip
def test_says_what_is_wrong_with_a_file(tmp_path, content, words):
    path = tmp_path / "x y.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        soundfile.write(path, content, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=words) as caught:
        read_sound(path)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_refuses_folders_devices_urls_and_text(tmp_path):
    script = tmp_path / "a.py"
    script.write_text("print('hello')\n")
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    for path in (tmp_path, script, playlist, "http://127.0.0.1:9/a.mp3", "a\0b", ""):
        with pytest.raises(UserError):
            read_sound(path)
    if os.name == "posix":
        with pytest.raises(UserError, match="not a file"):
            read_sound("/dev/zero")


@pytest.mark.parametrize(
    "stretch",
    [{"start_seconds": -1.0}, {"start_seconds": float("nan")}, {"duration_seconds": 0.0},
     {"duration_seconds": -2.0}, {"duration_seconds": float("nan")}, {"gain": float("nan")},
     {"gain": -1.0}, {"start_seconds": 5.0}, {"start_seconds": 0.95}],
)  # fmt: skip
def test_refuses_a_stretch_that_makes_no_sense(tmp_path, stretch):
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE)
    with pytest.raises(UserError):
        read_sound(tmp_path / "a.wav", **stretch)


def test_refuses_more_than_it_may_hold(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", tone(4.0, 8000), 8000)
    monkeypatch.setattr(load, "MAX_SECONDS", 2.0)
    with pytest.raises(UserError, match="longer than"):
        read_sound(tmp_path / "a.wav")
    assert read_sound(tmp_path / "a.wav", duration_seconds=1.9).seconds == pytest.approx(1.9)


def test_warns_of_silence_quiet_clipping_and_cancelling_channels(tmp_path):
    def warnings(samples):
        soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
        return read_sound(tmp_path / "a.wav").warnings

    assert "silent" in warnings(np.zeros(RATE))[0]
    assert "quiet" in warnings(tone(1.0, level=0.001))[0]
    assert "clipped" in warnings(np.clip(tone(1.0, level=3.0), -1, 1))[0]
    assert "cancel" in warnings(np.stack([tone(1.0), -tone(1.0)], axis=1))[0]
    assert warnings(tone(1.0)) == ()
    assert "silent" in read_sound(tmp_path / "a.wav", gain=0.0).warnings[0]


def test_reading_can_be_cancelled(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE)
    with pytest.raises(Cancelled):
        read_sound(tmp_path / "a.wav", is_cancelled=lambda: True)


def test_memory_is_that_of_the_result(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((48000 * 300, 2), np.int16), 48000)
    tracemalloc.start()
    sound = read_sound(tmp_path / "a.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sound.seconds == pytest.approx(300)
    assert peak < 2 * sound.samples.nbytes + 30e6  # all of it at once would be 115 MB


def test_a_margin_is_read_beside_the_stretch_where_the_file_has_it(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.arange(4 * RATE) / (4 * RATE), RATE, subtype="FLOAT")
    plain = read_sound(path, start_seconds=1.5, duration_seconds=1.0)
    wide = read_sound(path, start_seconds=1.5, duration_seconds=1.0, margin_seconds=1.0)
    assert (wide.lead_seconds, wide.seconds) == (1.0, 1.0)
    assert len(wide.samples) == 3 * RATE
    np.testing.assert_array_equal(wide.stretch, plain.samples)
    early = read_sound(path, start_seconds=0.25, duration_seconds=1.0, margin_seconds=1.0)
    assert (early.lead_seconds, early.seconds, len(early.samples)) == (0.25, 1.0, 2.25 * RATE)
    late = read_sound(path, start_seconds=3.5, margin_seconds=1.0)
    assert (late.lead_seconds, late.seconds, len(late.samples)) == (1.0, 0.5, 1.5 * RATE)
    with pytest.raises(UserError, match=r"no sound from 4.5 s on"):
        read_sound(path, start_seconds=4.5, margin_seconds=1.0)


def test_what_is_loud_beside_a_silent_stretch_does_not_count(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.r_[tone(1.0), np.zeros(RATE), tone(1.0)], RATE)
    sound = read_sound(path, start_seconds=1.1, duration_seconds=0.8, margin_seconds=1.0)
    assert sound.is_silent
    assert np.abs(sound.samples).max() > 0.01


def test_a_fade_is_the_volume_over_the_files_time(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(3 * RATE, 0.5), RATE, subtype="FLOAT")
    sound = read_sound(path, start_seconds=1.0, gain=2.0, fade=[[0.0, 0.0], [2.0, 1.0]])
    np.testing.assert_allclose(sound.samples[[0, RATE // 2, RATE, -1]], [0.5, 0.75, 1.0, 1.0])
    for fade in ([[1.0]], [[0.0, 1.0], [1.0]], [[1.0, 1.0], [0.0, 1.0]], [[0.0, -1.0]]):
        with pytest.raises(UserError, match="pairs of seconds and volume"):
            read_sound(path, fade=fade)


def test_a_files_length_is_that_of_its_samples(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(2.5), RATE)
    path.write_bytes(path.read_bytes() * 2)
    assert file_seconds(path) == pytest.approx(5.0, abs=0.25)
