# SPDX-License-Identifier: GPL-3.0-or-later
"""Decoding of sound and video files, block by block: libsndfile where it can, else FFmpeg.

Apart from audio.py, which knows no file format.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from backend.errors import UserError

if TYPE_CHECKING:
    import av

Block = NDArray[np.float32]
"""Samples of shape (n, channels), full scale 1.0."""

_BLOCK_SAMPLES: Final = 1 << 20


def decode(path: Path, start: float, seconds: float) -> Iterator[tuple[Block, int]]:
    """Blocks of a file and their rate in Hz, from ``start`` on, ``seconds`` at most.

    Raises:
        UserError: The file is damaged, holds no sound, or is of no format that can be read.
    """
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        yield from _decode_with_ffmpeg(path, start, seconds)
        return
    with file:
        rate = file.samplerate
        _check_rate(path, rate)
        first, left = round(start * rate), round(seconds * rate)
        try:
            if first >= file.frames or (first and file.seek(first) != first):
                return
            size = max(1, _BLOCK_SAMPLES // file.channels)
            while left > 0:
                block = file.read(min(size, left), dtype="float32", always_2d=True)
                if not len(block):
                    return
                left -= len(block)
                yield block, rate
        except soundfile.LibsndfileError as error:
            raise UserError(f"{quoted(path)} is damaged ({error}). Export it again.") from error


def _decode_with_ffmpeg(path: Path, start: float, seconds: float) -> Iterator[tuple[Block, int]]:
    """As `decode`, for what only FFmpeg reads. Gaps in the file's time are filled with silence."""
    import av  # slow to load and seldom needed

    try:
        # A playlist or a name like "http:..." must not make FFmpeg open anything but local files.
        container = av.open(f"file:{path.resolve()}", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(
            f"{quoted(path)} is not a sound that can be read ({error}). Choose a wav, flac, ogg, "
            "mp3, m4a or video file."
        ) from error
    with container:
        if not container.streams.audio:
            raise UserError(f"{quoted(path)} has no sound. Choose a file with sound.")
        stream = container.streams.audio[0]
        origin = (container.start_time or 0) / av.time_base
        try:
            if start > 1.0:
                container.seek(int((start - 1.0 + origin) * av.time_base))
            yield from _cut(path, container.decode(stream), start + origin, seconds)
        except av.FFmpegError as error:
            raise UserError(f"{quoted(path)} is damaged ({error}). Export it again.") from error


def _cut(
    path: Path, frames: Iterator[av.AudioFrame], start: float, seconds: float
) -> Iterator[tuple[Block, int]]:
    """The samples of FFmpeg's frames that lie in the stretch, each at its place in time."""
    import av

    resampler: av.AudioResampler | None = None
    position = 0  # samples of the stretch that are done
    for frame in frames:
        rate = frame.sample_rate
        if resampler is None:
            _check_rate(path, rate)
            resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate)
        time = frame.time if frame.time is not None else start + position / rate
        for part in resampler.resample(frame):
            block = part.to_ndarray().T  # (n, channels)
            offset = round((time - start) * rate) - position
            if offset < 0 and (position == 0 or -offset > rate // 20):
                block = block[-offset:]
            elif offset > rate // 20 or (offset > 0 and position == 0):
                silence = min(offset, round(seconds * rate) - position)
                block = np.concatenate([np.zeros((silence, block.shape[1]), np.float32), block])
            block = block[: round(seconds * rate) - position]
            if len(block):
                position += len(block)
                yield np.ascontiguousarray(block, np.float32), rate
        if position >= round(seconds * rate):
            return


def _check_rate(path: Path, rate: int) -> None:
    if not 4000 <= rate <= 768_000:
        raise UserError(f"{quoted(path)} claims {rate} samples a second; 4000 to 768000 are read.")


def quoted(path: Path) -> str:
    """The file's name for a message."""
    return f'"{path.name[-80:]}"'
