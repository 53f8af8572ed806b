# SPDX-License-Identifier: GPL-3.0-or-later
"""Brows, eyes and blinks of a speaker, for training; what a result gets beside is in life/.

Brow raises go with pitch accents (Cave et al. 1996; Flecha-Garcia 2010: a raise leads its accent by
some 60 ms). Speakers blink at the ends of phrases (Condon and Ogston 1967; Cummins 2012), about 17
times a minute (Bentivoglio et al. 1997); a blink closes faster than it opens (Trutoiu et al. 2011).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from backend.articulation.speaking_style import SpeakingStyle
from backend.heads.arkit import ARKIT_NAMES
from backend.speech.phones import SILENCE, VOWELS, Phone

_WEIGHT = {name: index for index, name in enumerate(ARKIT_NAMES)}
_BROW_LEAD_SECONDS = 0.06
_CLOSING_SECONDS, _SHUT_SECONDS, _OPENING_SECONDS = 0.06, 0.03, 0.11
_SHORTEST_SECONDS, _LONGEST_SECONDS = 1.4, 4.6  # between blinks at the usual rate


def upper_face_weights(
    weights: NDArray[np.float32],
    phones: Sequence[Phone],
    times: NDArray[np.float64],
    *,
    fps: float,
    style: SpeakingStyle,
    energy: NDArray[np.float32] | None,
    f0: NDArray[np.float32] | None,
) -> None:
    """Writes brows, lids (not blinks) and cheeks into ``weights`` in place.

    Args:
        weights: Weights of ``ARKIT_NAMES``, ``(T, 52)``; smiles are read, as they lift the cheeks.
        phones: Phones in order of time.
        times: Time of each frame in seconds, ``(T,)``.
        fps: Frames per second.
        style: The speaker's style.
        energy: Linear level per frame, or None.
        f0: Hertz per frame, 0 where unvoiced, or None.
    """
    if f0 is not None and (f0 > 0.0).sum() > 5:
        accent = _pitch_accents(f0, energy, fps=fps)
    else:
        accent = _vowel_accents(phones, times)
    raised = 0.3 * max(style.brow_raise, 0.0) + 0.34 * (1.0 + style.brow_activity) * accent
    lowered = 0.4 * max(-style.brow_raise, 0.0)
    weights[:, _WEIGHT["browInnerUp"]] = np.maximum(raised, 0.0)
    for side in ("Left", "Right"):
        smile = weights[:, _WEIGHT[f"mouthSmile{side}"]]
        weights[:, _WEIGHT[f"browOuterUp{side}"]] = np.maximum(0.8 * raised, 0.0)
        weights[:, _WEIGHT[f"browDown{side}"]] = lowered
        weights[:, _WEIGHT[f"eyeSquint{side}"]] = 0.35 * max(style.squint, 0.0) + 0.15 * smile
        weights[:, _WEIGHT[f"cheekSquint{side}"]] = 0.3 * max(style.squint, 0.0) + 0.3 * smile
        weights[:, _WEIGHT[f"eyeWide{side}"]] = 0.35 * max(-style.squint, 0.0) + 0.1 * accent


def _pitch_accents(
    f0: NDArray[np.float32], energy: NDArray[np.float32] | None, *, fps: float
) -> NDArray[np.float64]:
    """Smoothed rise of the pitch above the speaker's median, 0 to 1; shape ``(T,)``."""
    voiced = f0 > 0.0
    tones = np.zeros(len(f0))
    tones[voiced] = 12.0 * np.log2(f0[voiced] / np.median(f0[voiced]))
    height = np.clip((tones - 1.5) / 6.0, 0.0, 1.0)
    height[np.abs(tones) > 14.0] = 0.0  # an octave error, not an accent
    if energy is not None:
        loud = energy / (np.percentile(energy[voiced], 80) + 1e-9)
        height *= np.clip(loud, 0.0, 1.0)
    width = 0.09 * fps
    smooth = gaussian_filter1d(height, width, mode="nearest") * 1.4
    shift = round(_BROW_LEAD_SECONDS * fps)
    moved: NDArray[np.float64] = np.concatenate([smooth[shift:], np.zeros(min(shift, len(smooth)))])
    return np.minimum(moved, 1.0)


def _vowel_accents(phones: Sequence[Phone], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without pitch: bumps on vowels that are much longer than the others; shape ``(T,)``."""
    accent = np.zeros(len(times))
    vowels = [phone for phone in phones if phone.symbol in VOWELS]
    if not vowels:
        return accent
    lengths = np.array([phone.end_seconds - phone.start_seconds for phone in vowels])
    height = np.clip(np.log(np.maximum(lengths, 0.01) / np.median(lengths)) - 0.25, 0.0, 0.8)
    for phone, size in zip(vowels, height, strict=True):
        if size > 0.0:
            middle = 0.5 * (phone.start_seconds + phone.end_seconds) - _BROW_LEAD_SECONDS
            accent += size * np.exp(-0.5 * np.square((times - middle) / 0.12))
    return np.minimum(accent, 1.0)


def blink_weights(
    phones: Sequence[Phone], *, num_frames: int, fps: float, blink_rate: float, seed: int
) -> NDArray[np.float32]:
    """Blinks: at phrase ends, and in between where they would be too long in coming.

    Args:
        phones: Phones in order of time; silences count as phrase ends.
        num_frames: Length ``T``.
        fps: Frames per second.
        blink_rate: SpeakingStyle dimension; one unit is a factor of 1.6.
        seed: Chooses the exact times.

    Returns:
        Weight of both lids, 0 to 1, shape ``(T,)``; every blink has a frame that is shut.
    """
    rng = np.random.default_rng([seed, 0xB11])
    pace = 1.6 ** -max(blink_rate, -2.0)
    ends = [
        phone.start_seconds
        for phone in phones
        if phone.symbol == SILENCE and phone.end_seconds - phone.start_seconds >= 0.15
    ]
    moments: list[float] = []
    last = -float(rng.uniform(0.0, _LONGEST_SECONDS * pace))
    for end in [*sorted(ends), num_frames / fps]:
        while end - last > _LONGEST_SECONDS * pace * 1.3:
            last += float(rng.uniform(0.6, 1.0)) * _LONGEST_SECONDS * pace
            moments.append(last)
        moment = end + float(rng.uniform(0.0, 0.12))
        if moment - last > _SHORTEST_SECONDS * pace and end in ends:
            moments.append(moment)
            last = moment
    times = np.arange(num_frames) / fps
    shut = max(_SHUT_SECONDS, 1.02 / fps)
    lids = np.zeros(num_frames, dtype=np.float32)
    for moment in moments:
        closing = np.clip((times - moment) / _CLOSING_SECONDS + 1.0, 0.0, 1.0)
        opening = np.clip((times - moment - shut) / _OPENING_SECONDS, 0.0, 1.0)
        wave = 0.5 - 0.5 * np.cos(math.pi * closing)
        np.maximum(lids, np.minimum(wave, 0.5 + 0.5 * np.cos(math.pi * opening)), out=lids)
    return lids
