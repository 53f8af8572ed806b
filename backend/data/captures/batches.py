# SPDX-License-Identifier: GPL-3.0-or-later
"""Training batches of captured faces, of balanced speakers and similar lengths."""

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
from torch.nn.utils.rnn import pad_sequence

from backend.audio.rates import SAMPLE_RATE_HZ
from backend.data.captures import prepared
from backend.data.captures.prepared import PreparedSet
from backend.data.captures.prepared import Sequence as Clip
from backend.model.batch import TrainingBatch

EncodeSpeech = Callable[[NDArray[np.float32]], dict[str, NDArray[np.generic]]]
"""From samples at 16 kHz to the model's input by frame: ``speech`` and maybe ``phones``."""

STYLE_DROPOUT: Final = 0.1
"""Probability that a sequence has no source of style; the mean of these becomes neutral."""
_LIKE_LENGTH_SHARE: Final = 0.25
_MOST_FRAMES_TO_ALIGN: Final = 16


class EncodedSpeech:
    """Cache of the speech input of each clip, encoded once by what is frozen of the encoder."""

    def __init__(
        self, data: PreparedSet, folder: Path, encode: EncodeSpeech | None, rate_hz: float
    ) -> None:
        """Opens a cache, which `fill` fills.

        Args:
            data: The prepared set.
            folder: Folder of the cached arrays; made where it is missing.
            encode: The frozen encoder; None takes samples as the input and caches nothing.
            rate_hz: Rows a second of the speech input.
        """
        self._data = data
        self._folder = folder
        self._encode = encode
        self.rate_hz = rate_hz

    def fill(self, clips: Sequence[Clip], progress: Callable[[int, int], None]) -> None:
        """Encodes the clips that are not in the cache yet."""
        if self._encode is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for number, clip in enumerate(clips):
            if not self._path(clip, "speech").exists():
                encoded = self._encode(self._data.samples_to_motion_end(clip))
                for name in sorted(encoded):  # speech last: it marks the clip as complete
                    prepared.write_array(self._folder, self._path(clip, name).name, encoded[name])
            progress(number + 1, len(clips))

    def speech(self, clip: Clip) -> NDArray[np.float32]:
        """Speech input of a clip: samples ``(N,)`` or features ``(S, C)``."""
        if self._encode is None:
            return self._data.samples_to_motion_end(clip)
        return np.asarray(np.load(self._path(clip, "speech"), allow_pickle=False), np.float32)

    def phones(self, clip: Clip) -> NDArray[np.int64] | None:
        """Phone ids that the frozen encoder recognised, ``(S,)``; None where it recognises none."""
        path = self._path(clip, "phones")
        if self._encode is None or not path.exists():
            return None
        return np.asarray(np.load(path, allow_pickle=False), np.int64)

    def _path(self, clip: Clip, what: str) -> Path:
        return self._folder / f"{clip.name}.{what}.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecipe:
    """How batches are drawn.

    Attributes:
        batch_size: Number of sequences ``B``.
        max_frames: Length of a sequence; longer ones are cut at a random place.
        style_frames: Length of the clip that shows the style.
        factor: Factor that brings offsets in the set's unit to the unit of training.
        seed: Seed of the run.
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
        encoded: EncodedSpeech,
        speakers: Sequence[str],
        recipe: BatchRecipe,
    ) -> None:
        self._data = data
        self._encoded = encoded
        self._recipe = recipe
        self._speakers = tuple(speakers)
        self._clips = {name: [one for one in clips if one.subject == name] for name in speakers}
        self._step = _aligned_step(data.manifest.fps, encoded.rate_hz)

    def batch(self, number: int) -> TrainingBatch:
        """A batch of balanced speakers and similar lengths.

        A clip's style is shown by another sentence of its speaker and by the speaker's number; a
        tenth of the clips have no source of style.
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
        has_style = rng.random() >= STYLE_DROPOUT
        style_speech, style_motion = speech[:0], motion[:0]
        if others and has_style:
            other = others[int(rng.integers(len(others)))]
            style_speech, style_motion, _ = self._cut(other, self._recipe.style_frames, rng)
        speaker = self._speakers.index(clip.subject) if has_style else -1
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
        rows_per_frame = self._encoded.rate_hz / float(self._data.manifest.fps)
        rows = slice(round(start * rows_per_frame), math.ceil(end * rows_per_frame))
        phones = self._encoded.phones(clip)
        return self._encoded.speech(clip)[rows], motion, None if phones is None else phones[rows]


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
    """Frames between those that begin with a row of speech; 1 where such frames are too rare."""
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
    """Arrays as one tensor, zeros at the end; samples of at least a second, for the encoder."""
    padded = pad_sequence([torch.from_numpy(array) for array in arrays], batch_first=True)
    is_samples = padded.ndim == 2 and padded.is_floating_point()
    missing = (SAMPLE_RATE_HZ if is_samples else 1) - padded.shape[1]
    if missing > 0:
        silence = padded.new_zeros(len(padded), missing, *padded.shape[2:])
        padded = torch.cat((padded, silence), dim=1)
    return padded
