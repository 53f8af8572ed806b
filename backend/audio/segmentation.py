# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound for speech recognition: normalised in level, with active frames, cut at pauses."""

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ

HOP = SAMPLE_RATE_HZ // 100
_PIECE_MIN_SECONDS, _PIECE_MAX_SECONDS = 5.0, 15.0
_PAUSE_SECONDS = 0.18
_HOPS_PER_CUT = 100 // FEATURE_RATE_HZ
_SILENT_DB = -65.0


def prepare_sound(samples: NDArray[np.float32]) -> NDArray[np.int16] | None:
    """Sound at a usual level as 16-bit integers; None if it is silent or too short."""
    peak = float(np.abs(samples).max(initial=0.0))
    if len(samples) < SAMPLE_RATE_HZ // 10 or peak < 10.0 ** (_SILENT_DB / 20.0):
        return None
    return np.round(samples * (0.7 / peak) * 32767.0).astype(np.int16)


def active_frames(sound: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Whether each 10 ms hold sound well above the quietest, shape ``(n // 160,)``."""
    usable = len(sound) // HOP * HOP
    frames = sound[:usable].astype(np.float32).reshape(-1, HOP)
    level = 10.0 * np.log10(np.mean(frames**2, axis=1) + 1.0)
    floor, top = np.percentile(level, [5, 95])
    return level > max(floor + 0.3 * (top - floor), top - 40.0)


def cut_at_pauses(sound: NDArray[np.int16]) -> list[tuple[int, int]]:
    """Pieces of 5 to 15 s, cut in the middle of the longest pauses; sample numbers."""
    active = active_frames(sound)
    quiet_for = np.zeros(len(active))  # at the middle of each pause, its length in seconds
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (~active).astype(np.int8), [0]])))
    for start, end in edges.reshape(-1, 2):
        quiet_for[(start + end) // 2] = (end - start) / 100
    cuts, start = [], 0
    shortest, longest = round(_PIECE_MIN_SECONDS * 100), round(_PIECE_MAX_SECONDS * 100)
    while len(active) - start > longest:
        window = quiet_for[start + shortest : start + longest]
        cut = start + shortest + int(np.argmax(window))
        cut -= cut % _HOPS_PER_CUT
        if window.max(initial=0.0) < _PAUSE_SECONDS:
            cut = start + longest
        cuts.append((start * HOP, cut * HOP))
        start = cut
    return [*cuts, (start * HOP, len(sound))]
