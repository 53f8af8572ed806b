# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend's sound lies where Blender's own mix has it, in every format."""

import os
import shutil
import subprocess
import wave
from fractions import Fraction
from pathlib import Path

import bpy
import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(not bpy.app.build_options.audaspace, reason="this Blender has no sound"),
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg on the PATH"),
    pytest.mark.skipif("PTALKER_BACKEND_PYTHON" not in os.environ, reason="needs the backend"),
]

FPS = 24
RATE = 16000  # Hz, of both mixes
SECONDS = 4
TRIMS = (0, 31)  # frames cut off at the strip's start
TOLERANCE_SECONDS = 0.010
AUDIO = {
    "pcm16.wav": "",
    "float.wav": "-c:a pcm_f32le",
    "ima.wav": "-c:a adpcm_ima_wav",
    "mp3.wav": "-c:a libmp3lame",
    "a.flac": "",
    "a.aiff": "",
    "a.ogg": "-c:a libvorbis",
    "a.opus": "-c:a libopus",
    "cbr.mp3": "-b:a 128k",
    "vbr.mp3": "-q:a 4",
    "slow.mp3": "-ar 24000 -b:a 48k",
    "untagged.mp3": "-write_xing 0",
    "a.m4a": "-c:a aac",
    "lossless.m4a": "-c:a alac",
    "a.aac": "-c:a aac",
    "a.wma": "-c:a wmav2",
    "a.ac3": "-c:a ac3",
    "a.mka": "-c:a aac",
    "opus.webm": "-c:a libopus",
    "vorbis.webm": "-c:a libvorbis",
}
VIDEO = {
    "a.mp4": "-c:v mpeg4 -c:a aac",
    "mp3.mp4": "-c:v mpeg4 -c:a libmp3lame",
    "a.mov": "-c:v mpeg4 -c:a pcm_s16le",
    "a.mkv": "-c:v mpeg4 -c:a aac",
    "flac.mkv": "-c:v mpeg4 -c:a flac",
    "a.avi": "-c:v mpeg4 -c:a libmp3lame",
    "a.webm": "-c:v libvpx -b:v 100k -c:a libopus",
    "a.ts": "-c:v mpeg2video -c:a aac",
    "a.flv": "-c:v flv -c:a aac",
    "a.wmv": "-c:v wmv2 -c:a wmav2",
}
LATE = {"late.mp4": 0.5, "late.mkv": 0.5, "late.mov": 0.5, "late.ts": 0.5, "early.mp4": -0.4}
JOINED = {"joined.mp3": "slow.mp3", "joined vbr.mp3": "vbr.mp3", "joined.aac": "a.aac"}
NAMES = [*AUDIO, *VIDEO, *LATE, *JOINED]

READ = """
import sys
import numpy as np
from backend.audio.load import read_sound
for name in sys.argv[3:]:
    for trim in sys.argv[2].split(","):
        sound = read_sound(f"{sys.argv[1]}/{name}", start_seconds=int(trim) / %d)
        np.save(f"{sys.argv[1]}/{name}.{trim}.npy", sound.samples)
"""


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bursts of noise in every format, and as the backend reads them, from every trim on."""
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    samples = 1e-3 * random.standard_normal(SECONDS * 44100)
    for at in (0.31, 0.9, 1.45, 1.77, 2.5, 3.13, 3.6):
        first, size = round(at * 44100), 1700
        samples[first : first + size] = 0.8 * random.uniform(-1, 1, size)
    (samples * 32767).astype("<i2").tofile(folder / "source.raw")
    source = ["-f", "s16le", "-ar", 44100, "-ac", 1, "-i", folder / "source.raw"]
    black = ["-f", "lavfi", "-i", f"color=black:s=64x64:r=30:d={SECONDS}"]
    both = ["-map", "0:v", "-map", "1:a"]
    for name, options in AUDIO.items():
        ffmpeg(*source, *options.split(), folder / name)
    for name, options in VIDEO.items():
        ffmpeg(*black, *source, *both, *options.split(), folder / name)
    for name, late in LATE.items():
        codecs = ["-c:v", "mpeg4", "-c:a", "aac"]
        ffmpeg(*black, "-itsoffset", late, *source, *both, *codecs, folder / name)
    for name, piece in JOINED.items():
        (folder / name).write_bytes(3 * (folder / piece).read_bytes())
    trims = ",".join(map(str, TRIMS))
    command = [os.environ["PTALKER_BACKEND_PYTHON"], "-c", READ % FPS, folder, trims, *NAMES]
    subprocess.run(command, check=True, cwd=Path(__file__).resolve().parents[2])
    return folder


def add_strip(path):
    """A sound strip at frame 1 of an empty sequencer."""
    scene = bpy.context.scene
    scene.render.fps = FPS
    scene.sequence_editor_clear()
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    return strips.new_sound("sound", str(path), 1, 1)


def mix(path, strip):
    """What Blender plays of a strip, from its first frame on."""
    scene = bpy.context.scene
    scene.frame_start = int(strip.frame_final_start)
    scene.frame_end = int(strip.frame_final_end) - 1
    bpy.ops.sound.mixdown(filepath=str(path), container='WAV', codec='PCM', format='S16',
                          mixrate=RATE, channels='MONO', accuracy=128)  # fmt: skip
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768.0


def lag(later, earlier):
    """By how many seconds the first sound is behind the second."""
    size = 2 * max(len(later), len(earlier))
    product = np.fft.rfft(later, size) * np.conj(np.fft.rfft(earlier, size))
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return (peak if peak < size // 2 else peak - size) / RATE


@pytest.mark.parametrize("name", NAMES)
def test_sound_lies_where_blender_plays_it(folder, name):
    for trim in TRIMS:
        strip = add_strip(folder / name)
        strip.frame_offset_start = trim
        blender = mix(folder / "mix.wav", strip)
        backend = np.load(folder / f"{name}.{trim}.npy")
        assert len(backend) > 0.9 * (SECONDS - trim / FPS - 0.5) * RATE
        offset = lag(backend[: len(blender)], blender)
        print(f"{name:16} from frame {trim:2}: {1000 * offset:6.2f} ms")  # noqa: T201
        assert abs(offset) < TOLERANCE_SECONDS
    if name in JOINED:
        assert len(np.load(folder / f"{name}.0.npy")) > 3 * (SECONDS - 0.1) * RATE


def test_sound_of_a_movie_strip_is_placed_by_its_offset(folder, addon):
    """Blender delays the sound of a movie strip by as much as it starts late in the file."""
    strip = add_strip(folder / "late.mp4")
    strip.sound_offset = 0.5
    span = addon.sound_strips.read_strip(bpy.context.scene, strip, shown_in=bpy.context.scene)
    backend = np.load(folder / "late.mp4.0.npy")
    begin = float(span.begin - Fraction(1, FPS))  # after the strip's first frame
    assert begin == pytest.approx(0.5)
    expected = lag(mix(folder / "mix.wav", strip), backend)
    assert expected == pytest.approx(begin, abs=TOLERANCE_SECONDS)
