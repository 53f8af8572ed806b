# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of an exemplar's motion: its rest, the frames in which it speaks, mouth and upper face.

A tracker's neutral is not the face's: it reports lids that are never open, brows that are never
down. What a face holds while nothing moves is taken off, so that no style is read from it. And
people's brows and eyes mislead what is read of their mouths, so each is looked at alone.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_opening, maximum_filter1d, uniform_filter1d

from backend.heads.arkit import ARKIT_NAMES
from backend.life.layers import UPPER_FACE

IS_UPPER: Final = np.array([name.startswith(UPPER_FACE) for name in ARKIT_NAMES])
"""Which of ``ARKIT_NAMES`` are brows, lids and gaze; the rest is the mouth with cheeks and nose."""
_SMOOTHED_SECONDS: Final = 0.2
_STILL_SHARE: Final = 0.12
"""A mouth is still below this share of its usual speed, which is the 75th percentile of it."""
_STILL_SECONDS: Final = 0.3
_AROUND_SECONDS: Final = 0.3
_FLOOR: Final = 0.1
"""Quantile of a weight that a rest cannot exceed: a constant offset is there in every frame."""


def mouth_speed(weights: NDArray[np.floating], fps: float) -> NDArray[np.float64]:
    """How fast the mouth moves, smoothed.

    Args:
        weights: Weights of ``ARKIT_NAMES``, ``(T, 52)``.
        fps: Frames a second.

    Returns:
        Sum over the weights of the mouth of their speeds, per second, ``(T,)``.
    """
    moves = np.abs(np.gradient(weights[:, ~IS_UPPER].astype(np.float64), axis=0)).sum(axis=1) * fps
    return np.asarray(uniform_filter1d(moves, max(1, round(_SMOOTHED_SECONDS * fps))))


def is_speaking(weights: NDArray[np.floating], fps: float) -> NDArray[np.bool_]:
    """In which frames a mouth speaks, by its motion alone; all where that does not tell.

    Args:
        weights: Weights of ``ARKIT_NAMES``, ``(T, 52)``.
        fps: Frames a second.

    Returns:
        Truth values, ``(T,)``.
    """
    speed = mouth_speed(weights, fps)
    moving = speed > _STILL_SHARE * np.percentile(speed, 75)
    near = maximum_filter1d(moving, 2 * round(_AROUND_SECONDS * fps) + 1)
    return near if near.any() else np.ones(len(weights), bool)


def rest_of(
    weights: NDArray[np.floating], fps: float, neutral_frame: int | None = None
) -> NDArray[np.float32]:
    """The weights of a face at rest.

    Without a frame that an artist names, a rest is the median over the quietest frames, those in
    which the mouth stays still for 0.3 s, and at most the weight's tenth percentile over all
    frames. Where a face is never still, that percentile is the rest of brows and eyes, and the
    mouth keeps what it has.

    Args:
        weights: Weights of ``ARKIT_NAMES``, ``(T, 52)``.
        fps: Frames a second.
        neutral_frame: Frame in which the face is at rest; None to estimate.

    Returns:
        Weights at rest, ``(52,)``.
    """
    if neutral_frame is not None:
        return weights[neutral_frame].astype(np.float32)
    floor = np.quantile(weights, _FLOOR, axis=0)
    speed = mouth_speed(weights, fps)
    still = speed < _STILL_SHARE * np.percentile(speed, 75)
    still = binary_opening(still, np.ones(max(1, round(_STILL_SECONDS * fps))))
    if not still.any():
        return np.where(IS_UPPER, floor, 0.0).astype(np.float32)
    return np.minimum(np.median(weights[still], axis=0), floor).astype(np.float32)


def without_rest(weights: NDArray[np.floating], rest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Weights without those at rest, none below 0.

    Args:
        weights: Weights of ``ARKIT_NAMES``, ``(T, 52)``.
        rest: Weights at rest, ``(52,)``.

    Returns:
        What the face does, ``(T, 52)``.
    """
    return np.maximum(weights - rest, 0.0).astype(np.float32)
