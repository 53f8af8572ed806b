# SPDX-License-Identifier: GPL-3.0-or-later
"""Decoding of sound and video files, block by block, each sample at the time Blender plays it.

libsndfile decodes PCM, and Ogg files from their start; FFmpeg decodes everything else. What FFmpeg
decodes is placed as Blender's own reader (audaspace) places it: it seeks the audio stream by its
time stamps, also to time 0, drops what lies before, and from there plays sample after sample,
whatever later time stamps say. So an encoder's delay, a late start of the sound in a video and gaps
between time stamps end up where Blender has them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from backend.errors import Cancelled, UserError

if TYPE_CHECKING:
    import av

Block = NDArray[np.float32]
"""Samples of shape (n, channels), full scale 1.0."""

_BLOCK_SAMPLES: Final = 1 << 20
_LARGEST_START_SECONDS: Final = 1e7
_GAP_SECONDS: Final = 0.25
_MOST_NOTES: Final = 4
_FRAMES_SAMPLES: Final = 1 << 15
_SKIP_MANUALLY: Final = 1 << 29  # FFmpeg's AV_CODEC_FLAG2_SKIP_MANUAL
_STRAY_BYTES: Final = 4096  # bytes that a header may leave unexplained without being wrong
_PCM_BYTES: Final = {
    "PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4,
    "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip

# FFmpeg's demuxers of sound and video containers. None of them opens a second file: no playlists,
# lists of files, stream descriptions, devices, pictures or text.
_CONTAINERS: Final = (
    "aa aac ac3 adx aiff amr amrnb amrwb ape asf ast au avi caf dsf dts dtshd dv eac3 flac flv gsm "
    "iff ircam loas matroska,webm mlp mmf mov mp3 mpc mpc8 mpeg mpegts mxf nistsphere nut ogg oma "
    "pvf qcp rm shn sox tak truehd tta voc w64 wav wsaud wtv wv xwma"
).replace(" ", ",")


class Decoder(Protocol):
    """An open sound file.

    Attributes:
        num_tracks: Number of audio tracks, at least 1.
        notes: Sentences for the user about what was met while decoding.
    """

    num_tracks: int
    notes: list[str]

    def blocks(self, start: float, seconds: float, *, track: int) -> Iterator[tuple[Block, int]]:
        """Blocks of one track and their rate in Hz, from ``start`` on, ``seconds`` at most."""


@contextmanager
def open_sound(path: Path, is_cancelled: Callable[[], bool] | None = None) -> Iterator[Decoder]:
    """Open a sound or video file: that file alone, and only if it is a regular one.

    Args:
        path: The file.
        is_cancelled: Asked at every read of FFmpeg.

    Yields:
        The decoder to read it with.

    Raises:
        UserError: The path is missing, empty or no regular file, or the file holds no sound, is
            damaged or of no format that can be read; the last two may come with the blocks.
        Cancelled: ``is_cancelled`` said so.
    """
    with open_regular_file(path) as handle:
        file = _File(handle, path.suffix, is_cancelled)
        _correct_wav_sizes(file)
        sndfile = _SndfileDecoder.of(path, file)
        if sndfile is not None and sndfile.is_whole_pcm:
            yield sndfile
            return
        decoder: Decoder
        try:
            decoder = _FFmpegDecoder(path, file)
            if sndfile is not None and sndfile.is_ogg and not _is_chained_ogg(file):
                decoder = _OggDecoder(sndfile, decoder)
        except (ImportError, UserError):  # FFmpeg is not installed, or cannot read it
            if sndfile is None:
                raise
            decoder = sndfile
        yield decoder


def open_regular_file(path: Path) -> IO[bytes]:
    """Open a file for reading, but nothing that could block: no pipe, device, socket or folder.

    Args:
        path: The file, or a link to one.

    Returns:
        The open file, which holds at least one byte.

    Raises:
        UserError: The path is missing, empty, no regular file, or cannot be opened.
    """
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            handle = os.fdopen(os.open(path, flags), "rb")
            status = os.fstat(handle.fileno())  # the path may name something else by now
            if stat.S_ISREG(status.st_mode) and status.st_size:
                return handle
            handle.close()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise UserError(
            f"The sound file {quoted(path)} does not exist. Choose another one."
        ) from error
    except OSError as error:
        raise UserError(
            f"The sound file {quoted(path)} cannot be opened: {error.strerror}. Choose another one."
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{quoted(path)} is not a file. Choose a sound file.")
    raise UserError(f"The sound file {quoted(path)} is empty (0 bytes). Export it again.")


def quoted(path: Path) -> str:
    """The file's name for a message: its end, without what cannot be shown."""
    name = "".join(letter if letter.isprintable() else "?" for letter in path.name[-80:])
    return f'"{name}"'


class _File:
    """An open file as libsndfile and FFmpeg read it, with some of its bytes corrected.

    Args:
        handle: The file.
        suffix: The ending of its name, which FFmpeg takes as a hint.
        is_cancelled: Asked at every read where ``can_cancel`` is set.
    """

    def __init__(
        self, handle: IO[bytes], suffix: str, is_cancelled: Callable[[], bool] | None
    ) -> None:
        self._handle = handle
        self._is_cancelled = is_cancelled
        is_hint = suffix.isascii() and suffix[1:].isalnum() and suffix.lower() != ".raw"
        self.name = "sound" + (suffix if is_hint else "")
        self.size = os.fstat(handle.fileno()).st_size
        self.corrections: dict[int, bytes] = {}  # what to read instead, by its position
        self.can_cancel = False  # libsndfile could not stand an exception

    def read(self, size: int = -1) -> bytes:
        """As a file's own."""
        if self.can_cancel and self._is_cancelled is not None and self._is_cancelled():
            raise Cancelled
        start = self._handle.tell()
        data = self._handle.read(size)
        for position, correct in self.corrections.items():
            low = max(position, start)
            high = min(position + len(correct), start + len(data))
            if low < high:
                part = correct[low - position : high - position]
                data = data[: low - start] + part + data[high - start :]
        return data

    def read_at(self, position: int, size: int) -> bytes:
        """Bytes from a position on, fewer at the file's end."""
        self._handle.seek(position)
        return self._handle.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's own."""
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        """As a file's own."""
        return self._handle.tell()


def _correct_wav_sizes(file: _File) -> None:
    """Have a wav file's data reach to the file's end where its header says less.

    Recorders that stop without warning and programs that write to a pipe leave sizes of 0, or those
    of their first buffer. Sizes that are too large need no correction.
    """
    head = file.read_at(0, 12)
    if head[:4] not in (b"RIFF", b"RIFX") or head[8:] != b"WAVE":
        return
    order: Literal["little", "big"] = "big" if head[:4] == b"RIFX" else "little"
    position = 12
    while (chunk := file.read_at(position, 8))[:4] != b"data":
        if len(chunk) < 8:
            return
        size = int.from_bytes(chunk[4:], order)
        position += 8 + size + size % 2
    size = int.from_bytes(chunk[4:], order)
    left = file.size - position - 8
    if size >= left or _are_chunks(file, position + 8 + size, order):
        return
    file.corrections[4] = min(file.size - 8, 0xFFFFFFFF).to_bytes(4, order)
    file.corrections[position + 4] = min(left, 0xFFFFFFFF).to_bytes(4, order)


def _are_chunks(file: _File, position: int, order: Literal["little", "big"]) -> bool:
    """Whether a wav file's chunks, or nothing that could be sound, go from here to its end."""
    while file.size - position > _STRAY_BYTES:
        head = file.read_at(position, 9)
        if head[0] == 0 and position % 2 and head[1:5].isalpha():  # padding
            head, position = head[1:], position + 1
        size = int.from_bytes(head[4:8], order)
        is_name = all(32 <= letter < 127 for letter in head[:4])
        if not is_name or size > file.size - position - 8:
            return not any(file.read_at(position, _STRAY_BYTES))
        position += 8 + size
    return True


def _is_chained_ogg(file: _File) -> bool:
    """Whether an Ogg file holds several streams one after the other."""
    position, has_begun = 0, False
    while len(page := file.read_at(position, 27)) == 27 and page[:4] == b"OggS":
        is_first_page = bool(page[5] & 2)
        if is_first_page and has_begun:
            return True
        has_begun = has_begun or not is_first_page
        position += 27 + page[26] + sum(file.read_at(position + 27, page[26]))
    return position + _STRAY_BYTES < file.size


class _SndfileDecoder:
    """A file that libsndfile reads; made by `of`."""

    def __init__(self, path: Path, file: _File, opened: soundfile.SoundFile) -> None:
        self._path = path
        self._file = file
        self.num_tracks = 1
        self.notes: list[str] = []
        self.is_ogg = opened.format == "OGG"
        sample_bytes = _PCM_BYTES.get(opened.subtype, 0) * (opened.format != "FLAC")
        # A wav file's sizes were corrected before; other headers are believed within a tenth.
        size = opened.frames * opened.channels * sample_bytes
        is_whole = opened.format in ("WAV", "WAVEX") or size * 1.1 + _STRAY_BYTES >= file.size
        self.is_whole_pcm = bool(sample_bytes) and opened.frames > 0 and is_whole

    @classmethod
    def of(cls, path: Path, file: _File) -> _SndfileDecoder | None:
        """The decoder of a file, or None where libsndfile cannot read it."""
        file.seek(0)
        try:
            with soundfile.SoundFile(file) as opened:
                return cls(path, file, opened)
        except (soundfile.LibsndfileError, TypeError):  # TypeError: headerless, by its name
            return None

    def blocks(self, start: float, seconds: float, *, track: int) -> Iterator[tuple[Block, int]]:
        """As `Decoder.blocks`."""
        del track
        self._file.seek(0)
        try:
            with soundfile.SoundFile(self._file) as opened:
                rate = opened.samplerate
                _check_rate(self._path, rate)
                first, left = round(start * rate), round(seconds * rate)
                if first >= opened.frames or (first and opened.seek(first) != first):
                    return
                size = max(1, _BLOCK_SAMPLES // opened.channels)
                while left > 0:
                    block = opened.read(min(size, left), dtype="float32", always_2d=True)
                    if not len(block):
                        return
                    left -= len(block)
                    yield block, rate
        except soundfile.LibsndfileError as error:
            raise _damaged(self._path, error) from error


class _OggDecoder:
    """An Ogg file of one stream: libsndfile from its start, FFmpeg from elsewhere.

    FFmpeg seeks in Ogg files by some 20 ms beside the time it was asked for, and so does Blender.

    Args:
        sndfile: Reads the file from its start.
        ffmpeg: Reads it from elsewhere.
    """

    def __init__(self, sndfile: _SndfileDecoder, ffmpeg: _FFmpegDecoder) -> None:
        self._sndfile = sndfile
        self._ffmpeg = ffmpeg
        self.num_tracks = ffmpeg.num_tracks
        self.notes = ffmpeg.notes

    def blocks(self, start: float, seconds: float, *, track: int) -> Iterator[tuple[Block, int]]:
        """As `Decoder.blocks`."""
        decoder = self._sndfile if start == 0 and track == 0 else self._ffmpeg
        return decoder.blocks(start, seconds, track=track)


class _FFmpegDecoder:
    """A file that FFmpeg reads, its samples at the times at which Blender plays them.

    Args:
        path: The file, for messages.
        file: Its content.
    """

    def __init__(self, path: Path, file: _File) -> None:
        self._path = path
        self._file = file
        self.notes: list[str] = []
        with self._open() as container:
            self.num_tracks = len(_tracks(container))
        if not self.num_tracks:
            raise UserError(f"{quoted(path)} has no sound. Choose a file with sound.")

    @contextmanager
    def _open(self) -> Iterator[av.container.InputContainer]:
        import av  # slow to load and seldom needed

        self._file.seek(0)
        self._file.can_cancel = True
        try:
            with self._container() as container:
                yield container
        except (av.FFmpegError, OSError) as error:
            raise _damaged(self._path, error) from error
        finally:
            self._file.can_cancel = False

    def _container(self) -> av.container.InputContainer:
        import av

        try:
            # FFmpeg gets the open file, and no protocol by which to open anything else.
            return av.open(
                self._file,
                "r",
                options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"},
                metadata_errors="replace",
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(
                f"{quoted(self._path)} is not a sound that can be read. Choose a wav, flac, ogg, "
                "mp3, m4a or video file."
            ) from error

    def blocks(self, start: float, seconds: float, *, track: int) -> Iterator[tuple[Block, int]]:
        """As `Decoder.blocks`."""
        if start > _LARGEST_START_SECONDS:
            return
        with self._open() as container:
            stream = _tracks(container)[track]
            rate = stream.codec_context.sample_rate
            _check_rate(self._path, rate)
            left = round(seconds * rate)
            parts: list[Block] = []
            for samples in self._samples(container, stream, round(start * rate)):
                parts.append(samples[:left])
                left -= len(parts[-1])
                if left <= 0:
                    break
                if sum(map(len, parts)) * samples.shape[1] >= _FRAMES_SAMPLES:
                    yield np.concatenate(parts), rate
                    parts = []
            if parts:
                yield np.concatenate(parts), rate

    def _samples(
        self, container: av.container.InputContainer, stream: av.AudioStream, first: int
    ) -> Iterator[Block]:
        """A stream's samples from number ``first`` on, as Blender counts them."""
        rate = stream.codec_context.sample_rate
        ticks_per_sample = 1.0 / (float(stream.time_base or Fraction(1, rate)) * rate)
        origin = _origin(container, stream)
        if stream.codec_context.delay:  # FFmpeg 8 would leave it out after every seek, 7 does not
            stream.codec_context.flags2 |= _SKIP_MANUALLY
        has_sought = _seek(container, stream, origin + int(first * ticks_per_sample))
        drop = None if has_sought else first
        convert = _Converter(rate)
        expected: float | None = None
        for packet, frames in self._packets(container, stream):
            if drop is None:
                here = first
                if packet.pts is not None:
                    here = int((packet.pts - origin) / ticks_per_sample)
                drop = max(0, first - here)
            skipped, padding = _skipped_samples(stream, packet)
            drop += skipped
            for frame in frames:
                expected = self._end_of(frame, expected)
                for samples in convert(frame):
                    end = len(samples) - padding
                    if drop < end:
                        yield samples[drop:end]
                    drop = max(0, drop - len(samples))

    def _packets(
        self, container: av.container.InputContainer, stream: av.AudioStream
    ) -> Iterator[tuple[av.Packet[av.AudioStream], list[av.AudioFrame]]]:
        """Each packet from here on and its frames.

        What cannot be decoded is left out, as in Blender: tags between joined files, for one.
        """
        import av

        num_packets = num_frames = num_bad = 0
        try:
            for packet in _demux(container, stream):
                num_packets += 1
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    num_bad += 1
                    frames = []
                num_frames += len(frames)
                yield packet, frames
        except av.FFmpegError:
            if not num_frames:
                raise
            self._note("The file's end is damaged and left out. Export it again.")
        if num_bad and not num_frames:
            raise _damaged(self._path, None)
        if num_bad > max(10, 0.02 * num_packets):
            self._note("Parts of the file are damaged and left out. Export it again.")

    def _end_of(self, frame: av.AudioFrame, expected: float | None) -> float | None:
        """When a frame ends by its time stamp; notes where it begins late.

        Args:
            frame: The next one.
            expected: When the one before ended, in seconds.

        Returns:
            The time in seconds, or None where there are no time stamps.
        """
        if frame.time is None:
            return None
        if expected is not None and frame.time - expected > _GAP_SECONDS:
            self._note(
                f"The file's time stamps jump by {frame.time - expected:.1f} s; the sound goes on "
                "without that pause, as in Blender."
            )
        return frame.time + frame.samples / frame.sample_rate

    def _note(self, text: str) -> None:
        if len(self.notes) < _MOST_NOTES and text not in self.notes:
            self.notes.append(text)


def _tracks(container: av.container.InputContainer) -> list[av.AudioStream]:
    """The audio streams that FFmpeg has a decoder for."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def _demux(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[av.Packet[av.AudioStream]]:
    """A stream's packets from here on."""
    while True:
        try:
            yield from container.demux(stream)
        except IndexError:  # PyAV's, at each packet of a stream that begins later in the file
            continue
        return


def _origin(container: av.container.InputContainer, stream: av.AudioStream) -> int:
    """The time stamp that Blender counts from, in the stream's ticks.

    That is the stream's start. In Matroska FFmpeg 8 takes the encoder's delay for part of it, and
    Blender's FFmpeg 7 does not.
    """
    if container.format.name == "matroska,webm":
        for packet in _demux(container, stream):
            return packet.pts or 0
    return stream.start_time or 0


def _skipped_samples(stream: av.AudioStream, packet: av.Packet[av.AudioStream]) -> tuple[int, int]:
    """How many samples of a packet to leave out: an encoder's delay, and its padding at the end."""
    is_left_to_us = stream.codec_context.flags2 & _SKIP_MANUALLY
    if not is_left_to_us or not packet.has_sidedata("skip_samples"):
        return 0, 0
    data = bytes(packet.get_sidedata("skip_samples"))
    return int.from_bytes(data[:4], "little"), int.from_bytes(data[4:8], "little")


def _seek(container: av.container.InputContainer, stream: av.AudioStream, ticks: int) -> bool:
    """Go to the last packet before a time, as Blender does; whether the file allows it."""
    import av

    try:
        container.seek(ticks, stream=stream, backward=True, any_frame=True)
    except av.FFmpegError:
        return False
    return True


class _Converter:
    """Turns FFmpeg's frames into samples of one rate and one number of channels.

    Args:
        rate: That rate in Hz.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._layout: av.AudioLayout | None = None
        self._kind: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def __call__(self, frame: av.AudioFrame) -> list[Block]:
        """Samples of shape (n, channels)."""
        import av

        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or kind != self._kind:
            self._layout = self._layout or frame.layout
            self._resampler = av.AudioResampler("fltp", self._layout, self._rate)
            self._kind = kind
        parts = self._resampler.resample(frame)
        return [np.ascontiguousarray(part.to_ndarray().T, np.float32) for part in parts]


def _check_rate(path: Path, rate: int) -> None:
    if not 4000 <= rate <= 768_000:
        raise UserError(
            f"{quoted(path)} claims {rate} samples a second; 4000 to 768000 are read. Export it "
            "again."
        )


def _damaged(path: Path, error: Exception | None) -> UserError:
    reason = f" ({error})" if isinstance(error, soundfile.LibsndfileError) else ""
    return UserError(f"{quoted(path)} is damaged{reason}. Export it again.")
