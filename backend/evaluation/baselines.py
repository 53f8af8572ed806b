# SPDX-License-Identifier: GPL-3.0-or-later
"""Baselines that need no model: the neutral face, the mean motion, and the nearest audio."""

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
"""Feature frames of 20 ms on each side of a moment that its audio features take in."""
_DIMENSIONS: Final = 64
_SMOOTHING_FRAMES: Final = 1.0


def neutral_face(prepared: PreparedSet) -> Baseline:
    """The face at rest throughout."""

    def predict(sequence: Sequence) -> Offsets:
        return np.zeros((sequence.num_frames, prepared.manifest.num_vertices, 3), np.float32)

    return predict


def mean_motion(prepared: PreparedSet, training: Items[Sequence]) -> Baseline:
    """The mean over all frames of the training split: the best constant prediction."""
    total = np.zeros((prepared.manifest.num_vertices, 3))
    for sequence in training:
        total += prepared.offsets(sequence).sum(axis=0, dtype=np.float64)
    mean = (total / sum(sequence.num_frames for sequence in training)).astype(np.float32)

    def predict(sequence: Sequence) -> Offsets:
        return np.repeat(mean[None], sequence.num_frames, axis=0)

    return predict


def nearest_audio(prepared: PreparedSet, training: Items[Sequence]) -> Baseline:
    """Nearest-neighbour retrieval: each frame copies the training frame with the nearest audio.

    Audio is compared as 0.18 s of normalised log-mel features on their 64 principal axes; the
    retrieved frames are smoothed by a Gaussian of one frame. A sequence never retrieves itself.
    """
    encoded = [_moments(prepared, sequence) for sequence in training]
    known = np.concatenate(encoded)
    centre = known.mean(axis=0)
    centred = known - centre
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, -_DIMENSIONS:]
    known = centred @ axes
    owner = np.repeat(np.arange(len(training)), [len(part) for part in encoded])
    frame = np.concatenate([np.arange(len(part)) for part in encoded])
    squares = (known**2).sum(axis=1)
    names = np.array([sequence.name for sequence in training])

    def predict(sequence: Sequence) -> Offsets:
        query = (_moments(prepared, sequence) - centre) @ axes
        distances = squares - 2.0 * query @ known.T  # (T, N), but for a constant of each row
        distances[:, names[owner] == sequence.name] = np.inf
        nearest = distances.argmin(axis=1)
        found = np.empty((len(query), prepared.manifest.num_vertices, 3), np.float32)
        for number in np.unique(owner[nearest]):
            at = np.flatnonzero(owner[nearest] == number)
            found[at] = prepared.offsets(training[number])[frame[nearest[at]]]
        return np.asarray(gaussian_filter1d(found, _SMOOTHING_FRAMES, axis=0), np.float32)

    return predict


def _moments(prepared: PreparedSet, sequence: Sequence) -> NDArray[np.float32]:
    """Audio features around each frame of the motion, ``(T, features)``."""
    features = stacked_log_mel(prepared.samples(sequence))
    times = np.arange(sequence.num_frames) / float(prepared.manifest.fps)
    middle = np.minimum(np.round(times * FEATURE_RATE_HZ).astype(np.int64), len(features) - 1)
    padded = np.pad(features, ((_CONTEXT_FRAMES,) * 2, (0, 0)), mode="edge")
    near = np.arange(2 * _CONTEXT_FRAMES + 1)
    return padded[middle[:, None] + near].reshape(len(middle), -1)
