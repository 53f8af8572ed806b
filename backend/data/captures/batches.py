# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches of captured faces: sequences of like length, speakers in turn, style from another clip.

Apart from ``prepared.py``, which reads what is there; here is decided what a batch shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.audio.rates import SAMPLE_RATE_HZ
from backend.data.captures import prepared
from backend.data.captures.prepared import PreparedSet
from backend.data.captures.prepared import Sequence as Clip
from backend.model.batch import TrainingBatch

EncodeSpeech = Callable[[NDArray[np.float32]], dict[str, NDArray[np.generic]]]
"""From samples at 16 kHz to what is kept of them: ``speech`` and maybe ``phones``, by frame."""

NOBODY_SHARE: Final = 0.1
"""Of the sequences that show no style, whose mean the neutral style becomes."""
_LIKE_LENGTH_SHARE: Final = 0.25
_MOST_FRAMES_TO_ALIGN: Final = 16


class EncodedSpeech:
    """What the model is given of each clip's sound, heard once and kept in files."""

    def __init__(
        self, data: PreparedSet, folder: Path, ear: EncodeSpeech | None, rate_hz: float
    ) -> None:
        """Nothing is heard yet.

        Args:
            data: The set.
            folder: Where it is kept; made where it is missing.
            ear: What hears; None gives the samples themselves and keeps nothing.
            rate_hz: Rows a second of what comes out.
        """
        self._data = data
        self._folder = folder
        self._ear = ear
        self.rate_hz = rate_hz

    def fill(self, clips: Sequence[Clip], progress: Callable[[int, int], None]) -> None:
        """Hear what is not kept yet."""
        if self._ear is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for number, clip in enumerate(clips):
            if not self._path(clip, "speech").exists():
                heard = self._ear(self.samples(clip))
                for name in sorted(heard):  # speech last: it says that all is there
                    prepared.write_array(self._folder, self._path(clip, name).name, heard[name])
            progress(number + 1, len(clips))

    def samples(self, clip: Clip) -> NDArray[np.float32]:
        """The sound, with silence up to the motion's end."""
        samples = self._data.samples(clip)
        seconds = clip.num_frames / float(self._data.manifest.fps)
        missing = math.ceil(seconds * SAMPLE_RATE_HZ) - len(samples)
        return np.pad(samples, (0, max(0, missing)))

    def speech(self, clip: Clip) -> NDArray[np.float32]:
        """Samples ``(N,)`` or features ``(S, C)``."""
        if self._ear is None:
            return self.samples(clip)
        return np.asarray(np.load(self._path(clip, "speech"), allow_pickle=False), np.float32)

    def phones(self, clip: Clip) -> NDArray[np.int64] | None:
        """Ids that the ear made out, ``(S,)``; None for an ear that tells none."""
        path = self._path(clip, "phones")
        if self._ear is None or not path.exists():
            return None
        return np.asarray(np.load(path, allow_pickle=False), np.int64)

    def _path(self, clip: Clip, what: str) -> Path:
        return self._folder / f"{clip.name}.{what}.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecipe:
    """How batches are put together.

    Attributes:
        batch_size: Sequences ``B``.
        max_frames: Of a sequence; longer ones are cut at a random place.
        style_frames: Of the clip that shows the style.
        factor: What offsets in the set's unit are multiplied by.
        seed: Of all chance.
    """

    batch_size: int
    max_frames: int
    style_frames: int
    factor: float
    seed: int


class CaptureBatches:
    """Training batches of a prepared set; the same number gives the same batch."""

    def __init__(
        self,
        data: PreparedSet,
        clips: Sequence[Clip],
        heard: EncodedSpeech,
        speakers: Sequence[str],
        recipe: BatchRecipe,
    ) -> None:
        self._data = data
        self._heard = heard
        self._recipe = recipe
        self._speakers = tuple(speakers)
        self._clips = {name: [one for one in clips if one.subject == name] for name in speakers}
        self._step = _aligned_step(data.manifest.fps, heard.rate_hz)

    def batch(self, number: int) -> TrainingBatch:
        """Batch ``number``: all speakers as often as possible, lengths alike, style from another.

        A clip's style is shown by another sentence of its speaker and by the speaker's number; a
        tenth of the clips show none.
        """
        rng = np.random.default_rng((self._recipe.seed, 11, number))
        rows = [self._row(clip, rng) for clip in self._choose(rng)]
        return _collate(rows)

    def _choose(self, rng: np.random.Generator) -> list[Clip]:
        count = self._recipe.batch_size
        order: list[str] = []
        while len(order) < count:
            order += [self._speakers[i] for i in rng.permutation(len(self._speakers))]
        every = [clip for clips in self._clips.values() for clip in clips]
        length = every[int(rng.integers(len(every)))].num_frames
        chosen = []
        for name in order[:count]:
            near = sorted(self._clips[name], key=lambda clip: abs(clip.num_frames - length))
            near = near[: max(2, math.ceil(_LIKE_LENGTH_SHARE * len(near)))]
            chosen.append(near[int(rng.integers(len(near)))])
        return chosen

    def _row(self, clip: Clip, rng: np.random.Generator) -> _Row:
        speech, motion, phones = self._cut(clip, self._recipe.max_frames, rng)
        others = [one for one in self._clips[clip.subject] if one.sentence != clip.sentence] or [
            one for one in self._clips[clip.subject] if one.name != clip.name
        ]
        is_shown = rng.random() >= NOBODY_SHARE
        style_speech, style_motion = speech[:0], motion[:0]
        if others and is_shown:
            other = others[int(rng.integers(len(others)))]
            style_speech, style_motion, _ = self._cut(other, self._recipe.style_frames, rng)
        speaker = self._speakers.index(clip.subject) if is_shown else -1
        return _Row(speech, motion, phones, style_speech, style_motion, speaker)

    def _cut(
        self, clip: Clip, most: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64] | None]:
        """Speech, motion and phones of at most ``most`` frames, which begin at the same time."""
        start = 0
        if clip.num_frames > most:
            places = (clip.num_frames - most) // self._step + 1
            start = self._step * int(rng.integers(places))
        end = min(clip.num_frames, start + most)
        motion = self._data.offsets(clip, start, end)
        motion *= np.float32(self._recipe.factor)
        rows_per_frame = self._heard.rate_hz / float(self._data.manifest.fps)
        rows = slice(round(start * rows_per_frame), math.ceil(end * rows_per_frame))
        phones = self._heard.phones(clip)
        return self._heard.speech(clip)[rows], motion, None if phones is None else phones[rows]


@dataclass(frozen=True, slots=True)
class _Row:
    speech: NDArray[np.float32]
    motion: NDArray[np.float32]
    phones: NDArray[np.int64] | None
    style_speech: NDArray[np.float32]
    style_motion: NDArray[np.float32]
    speaker: int


def sample_frames(data: PreparedSet, clips: Sequence[Clip], count: int) -> NDArray[np.float32]:
    """About ``count`` frames spread evenly over all clips, ``(n, V, 3)`` in the set's unit."""
    total = sum(clip.num_frames for clip in clips)
    every = max(1, total // count)
    found, passed = [], 0
    for clip in clips:
        first = -passed % every
        frames = data.stored_offsets(clip)[first::every].astype(np.float32)
        found.append(frames * np.float32(data.manifest.scale))
        passed += clip.num_frames
    return np.concatenate(found)


def _aligned_step(fps: Fraction, rate_hz: float) -> int:
    """Frames after which a row of speech begins with a frame again; 1 where that is too rare."""
    step = (Fraction(rate_hz).limit_denominator(1000) / fps).denominator
    return step if step <= _MOST_FRAMES_TO_ALIGN else 1


def _collate(rows: Sequence[_Row]) -> TrainingBatch:
    phones = [row.phones for row in rows if row.phones is not None]
    return TrainingBatch(
        speech=_padded([row.speech for row in rows]),
        speech_lengths=torch.tensor([len(row.speech) for row in rows]),
        motion=_padded([row.motion for row in rows]),
        motion_lengths=torch.tensor([len(row.motion) for row in rows]),
        speaker=torch.tensor([row.speaker for row in rows]),
        phones=_padded(phones) if len(phones) == len(rows) else None,
        style_motion=_padded([row.style_motion for row in rows]),
        style_motion_lengths=torch.tensor([len(row.style_motion) for row in rows]),
        style_speech=_padded([row.style_speech for row in rows]),
        style_speech_lengths=torch.tensor([len(row.style_speech) for row in rows]),
    )


def _padded(arrays: Sequence[NDArray[np.float32] | NDArray[np.int64]]) -> Tensor:
    """Arrays side by side, filled with zeros at the end; none is too short for an encoder."""
    first = arrays[0]
    least = SAMPLE_RATE_HZ if first.ndim == 1 and first.dtype == np.float32 else 1
    longest = max(least, *(len(array) for array in arrays))
    out = np.zeros((len(arrays), longest, *first.shape[1:]), first.dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)
