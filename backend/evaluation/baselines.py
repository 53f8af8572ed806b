# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers that need no model: what they score is where a model begins to be worth something."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from backend.audio.features import stacked_log_mel
from backend.audio.rates import FEATURE_RATE_HZ
from backend.data.captures.prepared import PreparedSet, Sequence

Offsets = NDArray[np.float32]
Baseline = Callable[[Sequence], Offsets]
"""Offsets ``(T, V, 3)`` of a sequence, in the set's units."""

_CONTEXT_FRAMES: Final = 4
"""Feature frames of 20 ms on each side that belong to the sound of a moment."""
_DIMENSIONS: Final = 64
_SMOOTHING_FRAMES: Final = 1.0


def neutral_face(prepared: PreparedSet) -> Baseline:
    """The face at rest, for ever."""

    def answer(sequence: Sequence) -> Offsets:
        return np.zeros((sequence.num_frames, prepared.manifest.num_vertices, 3), np.float32)

    return answer


def mean_motion(prepared: PreparedSet, training: Items[Sequence]) -> Baseline:
    """The mean over all frames of the training split: the best answer of one who hears nothing."""
    total = np.zeros((prepared.manifest.num_vertices, 3))
    for sequence in training:
        total += prepared.offsets(sequence).sum(axis=0, dtype=np.float64)
    mean = (total / sum(sequence.num_frames for sequence in training)).astype(np.float32)

    def answer(sequence: Sequence) -> Offsets:
        return np.repeat(mean[None], sequence.num_frames, axis=0)

    return answer


def nearest_audio(prepared: PreparedSet, training: Items[Sequence]) -> Baseline:
    """Each frame does what the training frame did whose sound was most like it.

    Sound is compared as 0.18 s of normalised log-mel features on their 64 main axes; the frames
    found are smoothed by a Gaussian of one frame. The sequence itself is never its own answer.
    """
    heard = [_moments(prepared, sequence) for sequence in training]
    known = np.concatenate(heard)
    centre = known.mean(axis=0)
    centred = known - centre
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, -_DIMENSIONS:]
    known = centred @ axes
    owner = np.repeat(np.arange(len(training)), [len(part) for part in heard])
    frame = np.concatenate([np.arange(len(part)) for part in heard])
    squares = (known**2).sum(axis=1)
    names = np.array([sequence.name for sequence in training])

    def answer(sequence: Sequence) -> Offsets:
        asked = (_moments(prepared, sequence) - centre) @ axes
        distances = squares - 2.0 * asked @ known.T  # (T, N), but for a constant of each row
        distances[:, names[owner] == sequence.name] = np.inf
        nearest = distances.argmin(axis=1)
        found = np.empty((len(asked), prepared.manifest.num_vertices, 3), np.float32)
        for number in np.unique(owner[nearest]):
            at = np.flatnonzero(owner[nearest] == number)
            found[at] = prepared.offsets(training[number])[frame[nearest[at]]]
        return np.asarray(gaussian_filter1d(found, _SMOOTHING_FRAMES, axis=0), np.float32)

    return answer


def _moments(prepared: PreparedSet, sequence: Sequence) -> NDArray[np.float32]:
    """The sound around each frame of the motion, ``(T, features)``."""
    features = stacked_log_mel(prepared.samples(sequence))
    times = np.arange(sequence.num_frames) / float(prepared.manifest.fps)
    middle = np.minimum(np.round(times * FEATURE_RATE_HZ).astype(np.int64), len(features) - 1)
    padded = np.pad(features, ((_CONTEXT_FRAMES,) * 2, (0, 0)), mode="edge")
    near = np.arange(2 * _CONTEXT_FRAMES + 1)
    return padded[middle[:, None] + near].reshape(len(middle), -1)
