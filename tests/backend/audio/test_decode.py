# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files are read, to which end, and that nothing else is opened."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import time
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")
import soundfile

from backend.audio.load import read_sound
from backend.errors import Cancelled, UserError

RATE = 24000
CLICKS = (0.3, 0.7, 1.3)
SECONDS = 2.0


def clicks(rate=RATE):
    """Two seconds of faint noise with three bursts of 20 ms."""
    random = np.random.default_rng(0)
    samples = 1e-3 * random.standard_normal(round(SECONDS * rate))
    for at in CLICKS:
        first, size = round(at * rate), rate // 50
        samples[first : first + size] = 0.5 * random.uniform(-1, 1, size)
    return samples.astype(np.float32)


def onsets(samples):
    """Times at which a burst begins, in seconds."""
    loud = np.convolve(np.abs(samples), np.ones(64) / 64, "same") > 0.05
    found = np.flatnonzero(loud[1:] & ~loud[:-1]) / 16000
    return found[np.diff(found, prepend=-1.0) > 0.05]


def encoded(file_format, subtype, rate=RATE):
    """The bytes of `clicks` in a format that libsndfile writes."""
    file = io.BytesIO()
    soundfile.write(file, clicks(rate), rate, format=file_format, subtype=subtype)
    return file.getvalue()


def mux(path, codec="aac", *, rate=48000, container=None, late=0.0, jump=0.0, with_video=False):
    """Write `clicks` with FFmpeg.

    Args:
        path: The file.
        codec: FFmpeg's name of the audio codec.
        rate: Samples a second.
        container: FFmpeg's name of the container; by the path's ending where it is None.
        late: Time stamp of the sound's start in seconds.
        jump: Added to the time stamps from the middle of the sound on, in seconds.
        with_video: Whether the file holds black pictures from time 0 on, too.
    """
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=container) as file:
        video = file.add_stream("mpeg4", rate=25) if with_video else None
        stream = file.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(clicks(rate)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate,
                                      stream.codec_context.frame_size or 1024)  # fmt: skip
        if video is not None:
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            for _ in range(round(25 * SECONDS)):
                picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
                file.mux(video.encode(picture))
            file.mux(video.encode(None))
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in stream.encode(part):
                shift = late + (jump if packet.pts * packet.time_base > SECONDS / 2 else 0.0)
                packet.pts += round(shift / packet.time_base)
                packet.dts = packet.pts
                file.mux(packet)


ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x20" + b"TIT2\x00\x00\x00\x16\x00\x00\x03" + b"\xff\xe4\xfc" * 7


@pytest.mark.parametrize("between", [b"", ID3], ids=["bare", "tagged"])
def test_joined_mp3s_are_heard_to_the_end(tmp_path, between):
    pytest.importorskip("av")
    piece = encoded("MP3", "MPEG_LAYER_III")
    assert b"Xing" in piece[:200] or b"Info" in piece[:200]  # each tells its own length alone
    (tmp_path / "a.mp3").write_bytes(between + piece + between + piece + between + piece)
    sound = read_sound(tmp_path / "a.mp3")
    assert 3 * SECONDS <= sound.seconds < 3 * SECONDS + 0.5
    assert len(onsets(sound.samples)) == 9
    assert onsets(sound.samples)[:3] == pytest.approx(CLICKS, abs=0.06)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_is_heard_to_the_end(tmp_path, subtype):
    pytest.importorskip("av")
    (tmp_path / "a.ogg").write_bytes(3 * encoded("OGG", subtype, 48000))
    sound = read_sound(tmp_path / "a.ogg")
    assert sound.seconds == pytest.approx(3 * SECONDS, abs=0.1)
    expected = np.add.outer([0, SECONDS, 2 * SECONDS], CLICKS).ravel()
    assert onsets(sound.samples) == pytest.approx(expected, abs=0.03)


def test_raw_aac_streams_are_heard_to_the_end(tmp_path):
    mux(tmp_path / "one.aac", container="adts")
    (tmp_path / "a.aac").write_bytes(3 * (tmp_path / "one.aac").read_bytes())
    sound = read_sound(tmp_path / "a.aac")
    assert sound.seconds == pytest.approx(3 * SECONDS, abs=0.2)
    assert len(onsets(sound.samples)) == 9


def with_sizes(wav, riff, data):
    """A wav file with other sizes in its header."""
    place = wav.index(b"data")
    return wav[:4] + riff + wav[8 : place + 4] + data + wav[place + 8 :]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "IMA_ADPCM"])
@pytest.mark.parametrize(
    "size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 4096, 10**8], ids=["0", "-1", "max", "small", "big"]
)
def test_wav_with_wrong_sizes_is_read_to_its_end(tmp_path, subtype, size):
    wav, size = encoded("WAV", subtype), struct.pack("<I", size)
    whole = tmp_path / "whole.wav"
    whole.write_bytes(wav)
    if subtype == "IMA_ADPCM":
        pytest.importorskip("av")
    expected = read_sound(whole).samples
    for riff in (size, wav[4:8]):
        (tmp_path / "a.wav").write_bytes(with_sizes(wav, riff, size))
        sound = read_sound(tmp_path / "a.wav")
        assert len(sound.samples) == pytest.approx(len(expected), abs=200)
        assert onsets(sound.samples) == pytest.approx(CLICKS, abs=0.005)
        part = read_sound(tmp_path / "a.wav", start_seconds=0.5, duration_seconds=0.5)
        if subtype != "IMA_ADPCM":
            np.testing.assert_array_equal(sound.samples, expected)
            assert onsets(part.samples) == pytest.approx([0.2], abs=0.005)


def test_chunks_after_the_sound_of_a_wav_are_not_heard(tmp_path):
    wav = encoded("WAV", "PCM_16")
    expected = len(clicks())
    text = b"LIST" + struct.pack("<I", 60_000) + b"INFO" + bytes(range(256)) * 234 + bytes(92)
    odd = b"id3 " + struct.pack("<I", 30_001) + bytes(range(1, 31)) * 1000 + b"\0" + b"\0"
    for tail in (text, odd, odd + text, bytes(50_000), text + bytes(50_000)):
        (tmp_path / "a.wav").write_bytes(wav + tail)
        sound = read_sound(tmp_path / "a.wav")
        assert len(sound.samples) == pytest.approx(expected * 16000 / RATE, abs=2)


def test_flac_of_unknown_or_wrong_length_is_read_to_its_end(tmp_path):
    pytest.importorskip("av")
    flac = bytearray(encoded("FLAC", "PCM_16"))
    expected = read_sound_of(tmp_path, flac, "a.flac")
    for num_samples in (0, 1000):
        flac[21] &= 0xF0  # the count has 36 bits
        flac[22:26] = struct.pack(">I", num_samples)
        np.testing.assert_array_equal(read_sound_of(tmp_path, flac, "a.flac"), expected)


def read_sound_of(folder, content, name):
    (folder / name).write_bytes(content)
    return read_sound(folder / name).samples


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_flac_is_decoded_to_the_samples_that_it_holds(tmp_path, subtype):
    samples = read_sound_of(tmp_path, encoded("FLAC", subtype, 16000), "a.flac")
    np.testing.assert_array_equal(samples, soundfile.read(tmp_path / "a.flac", dtype="float32")[0])


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.mov", "pcm_s16le")]
)
def test_late_sound_of_a_video_starts_at_once_as_in_blender(tmp_path, name, codec):
    mux(tmp_path / name, codec, late=0.5, with_video=True)
    sound = read_sound(tmp_path / name)
    assert sound.seconds == pytest.approx(SECONDS, abs=0.1)
    assert onsets(sound.samples) == pytest.approx(CLICKS, abs=0.03)


def test_time_stamps_that_jump_by_hours_make_no_silence(tmp_path):
    mux(tmp_path / "a.mkv", jump=3 * 3600.0)
    tracemalloc.start()
    began = time.monotonic()
    sound = read_sound(tmp_path / "a.mkv")
    assert time.monotonic() - began < 5
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert sound.seconds == pytest.approx(SECONDS, abs=0.1)
    assert len(onsets(sound.samples)) == 3
    assert any("jump by 10800" in text for text in sound.warnings)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n{}\n"
LISTS = {
    "m3u8": PLAYLIST.format("#EXTINF:2,\nneighbour.wav\n#EXT-X-ENDLIST"),
    "absolute": PLAYLIST.format("#EXTINF:2,\n{folder}/neighbour.wav\n#EXT-X-ENDLIST"),
    "itself": PLAYLIST.format("#EXTINF:2,\n{name}\n" * 1000 + "#EXT-X-ENDLIST"),
    "live": PLAYLIST.format("#EXTINF:2,\nneighbour.ts"),
    "pipe": PLAYLIST.format("#EXTINF:2,\npipe\n#EXT-X-ENDLIST"),
    "ffconcat": "ffconcat version 1.0\nfile neighbour.wav\nduration 1000000000\n",
    "ffconcat of a pipe": "ffconcat version 1.0\nfile pipe\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    "mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="x">'
    "<Period><AdaptationSet><Representation><BaseURL>neighbour.wav</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>",
    "rtsp": "[Reference]\r\nRef1=http://127.0.0.1:9/a.asf\r\n",
    "text": "Hello, this is not a sound at all.\n" * 100,
    "metadata": ";FFMETADATA1\ntitle=neighbour.wav\n",
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("ending", ["m3u8", "wav", "mp4", "ffconcat", "sdp", "mp3"])
def test_lists_of_other_files_are_refused_at_once(tmp_path, kind, ending):
    (tmp_path / "neighbour.wav").write_bytes(encoded("WAV", "PCM_16"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    path = tmp_path / f"a.{ending}"
    path.write_text(LISTS[kind].replace("{folder}", str(tmp_path)).replace("{name}", path.name))
    began = time.monotonic()
    with pytest.raises(UserError, match="not a sound that can be read") as caught:
        read_sound(path)
    assert time.monotonic() - began < 3
    assert len(str(caught.value)) < 200


def test_no_demuxer_that_is_allowed_opens_other_files():
    av = pytest.importorskip("av")
    from backend.audio.decode import _CONTAINERS

    names = set(_CONTAINERS.split(","))
    known = {part for name in av.formats_available for part in name.split(",")}
    assert names <= known
    opening = (
        "hls concat dash sdp rtsp rtp sap image2 lavfi ffmetadata tty imf vobsub alsa mpegtsraw"
    )
    assert not names & set(opening.split())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    with socket.socket(socket.AF_UNIX) as server:
        with contextlib.chdir(tmp_path):
            server.bind("socket.wav")
        for name in ("pipe", "link", "zero", "folder", "dangling", "loop", "socket"):
            began = time.monotonic()
            with pytest.raises(UserError, match=r"is not a file|does not exist|cannot be opened"):
                read_sound(tmp_path / f"{name}.wav")
            assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".wav", "\ud800.wav", "a\nb.wav", "a\0b.wav", "", "CON.wav", "x/y/z.wav"]
)
def test_names_that_no_file_can_have_are_refused_in_one_short_line(tmp_path, name):
    with pytest.raises(UserError) as caught:
        read_sound(tmp_path / name if name else "")
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_a_link_to_a_sound_is_read(tmp_path):
    (tmp_path / "real.bin").write_bytes(encoded("WAV", "PCM_16"))
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.bin")
    assert read_sound(tmp_path / "link.wav").seconds == pytest.approx(SECONDS)


@pytest.mark.parametrize("name", ["a.raw", "a.mp3", "a", "a.ä", "a.txt", "a.m3u8"])
def test_a_wrong_ending_does_not_matter(tmp_path, name):
    sound = read_sound_of(tmp_path, encoded("WAV", "PCM_16"), name)
    assert onsets(sound) == pytest.approx(CLICKS, abs=0.005)


@pytest.mark.parametrize("name", ["a.m4a", "a.mkv", "a.mp3", "a.wav", "a.ogg"])
def test_a_start_beyond_any_sound_is_told(tmp_path, name):
    if name.endswith(("mp3", "wav", "ogg")):
        (tmp_path / name).write_bytes(encoded(name[-3:].upper(), None))
    else:
        mux(tmp_path / name)
    for start in (100.0, 1e9, 1e18, 1e300):
        with pytest.raises(UserError, match="has no sound from"):
            read_sound(tmp_path / name, start_seconds=start)


@pytest.mark.parametrize("name", ["a.m4a", "a.mp3"])
def test_reading_with_ffmpeg_can_be_cancelled_at_any_read(tmp_path, name):
    if name.endswith("mp3"):
        pytest.importorskip("av")
        (tmp_path / name).write_bytes(20 * encoded("MP3", None))
    else:
        mux(tmp_path / name)
    asked = []

    def stop_at(call):
        asked.clear()

        def is_cancelled():
            asked.append(1)
            return len(asked) >= call

        return is_cancelled

    read_sound(tmp_path / name, is_cancelled=stop_at(10**9))
    num_asked = len(asked)
    assert num_asked >= 4
    for call in range(1, num_asked + 1):
        with pytest.raises(Cancelled):
            read_sound(tmp_path / name, is_cancelled=stop_at(call))


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.97])
@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.flac", "a.mkv", "a.aac"])
def test_a_file_that_is_cut_short_is_read_as_far_as_it_goes(tmp_path, name, keep):
    pytest.importorskip("av")
    if name.endswith(("mkv", "aac")):
        mux(tmp_path / "whole", container={"mkv": "matroska", "aac": "adts"}[name[-3:]])
        content = (tmp_path / "whole").read_bytes()
    else:
        content = encoded(name[2:].upper(), None)
    (tmp_path / name).write_bytes(content[: round(keep * len(content))])
    try:
        sound = read_sound(tmp_path / name)
    except UserError as error:
        assert keep < 0.1 or name == "a.ogg", error
        assert len(str(error)) < 200
    else:
        assert sound.seconds <= SECONDS + 0.1
        assert keep < 0.9 or sound.seconds > 0.6 * SECONDS


def test_bytes_changed_at_random_end_in_sound_or_one_sentence(tmp_path):
    pytest.importorskip("av")
    random = np.random.default_rng(1)
    mux(tmp_path / "whole.m4a")
    mux(tmp_path / "whole.mkv")
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    contents |= {f"a.{name}": encoded(name.upper(), None) for name in ("mp3", "ogg", "flac", "wav")}
    for name, content in contents.items():
        for _ in range(8):
            changed = np.frombuffer(content, np.uint8).copy()
            changed[random.integers(0, len(changed), 30)] = random.integers(0, 256, 30)
            (tmp_path / name).write_bytes(changed.tobytes())
            try:
                read_sound(tmp_path / name, start_seconds=float(random.choice([0.0, 0.4])))
            except UserError as error:
                assert len(str(error)) < 300
