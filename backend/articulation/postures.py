# SPDX-License-Identifier: GPL-3.0-or-later
"""Postures: what mouth and cheeks do slowly, beside the movements for single sounds.

A smile comes and goes with the pitch (a raised pitch sounds and looks friendly: Ohala 1980,
Tartter 1980), mouth corners fall and tuck in where the voice is low and phrases end (the corner
depressors and the buccinator, Blair and Smith 1986), lips firm up where there are many closures,
hesitations push the lower lip up (chin raiser, AU 17 of Ekman and Friesen 1978). No face is
symmetric: a bias is a speaker's own and constant (Borod et al. 1998; Campbell 1982 for the mouth in
speech), with a little that comes with each movement. All are functions of phones and pitch, so the
same sound gives the same face.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from backend.articulation.gestures import ramp, spoken_stretches
from backend.speech.phones import BILABIALS, SILENCE, VOWELS, Phone

_FIRM_SECONDS = 0.16
_PITCH_SECONDS = 0.28
_LINGER_SECONDS = 0.3
_HELD_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Postures:
    """Slow courses over time: all arrays ``(T,)``.

    Attributes:
        presence: 1 while speaking, with slow rise and fall.
        pitch: Height of the voice above its usual one, -1 to 1.
        firmness: Share of closures around each frame, 0 to 1.
        ending: 1 at the end of phrases, 0 to 1.
        hesitation: Long drawn sounds, 0 to 1.
    """

    presence: NDArray[np.float64]
    pitch: NDArray[np.float64]
    firmness: NDArray[np.float64]
    ending: NDArray[np.float64]
    hesitation: NDArray[np.float64]


def postures(
    phones: Sequence[Phone],
    times: NDArray[np.float64],
    closure: NDArray[np.float64],
    *,
    fps: float,
    f0: NDArray[np.float32] | None,
) -> Postures:
    """Computes the slow courses of a recording.

    Args:
        phones: Phones in order of time, gaps filled with silence.
        times: Time of each frame in seconds, ``(T,)``.
        closure: Activation of lip closures, ``(T,)``.
        fps: Frames per second.
        f0: Hertz per frame, 0 where unvoiced, ``(T,)``; None for a voice of one pitch.

    Returns:
        The courses.
    """
    presence, ending = np.zeros(len(times)), np.zeros(len(times))
    for start, end in spoken_stretches(list(phones)):
        fall = 1.0 - ramp((times - end) / _LINGER_SECONDS)
        np.maximum(presence, np.minimum(ramp((times - start + 0.4) / 0.5), fall), out=presence)
        np.maximum(ending, np.minimum(ramp((times - end + 0.3) / 0.35), fall), out=ending)
    width = _FIRM_SECONDS * fps
    return Postures(
        presence=presence,
        pitch=_pitch_height(f0, fps) * presence if f0 is not None else np.zeros(len(times)),
        firmness=gaussian_filter1d(closure, width, mode="nearest"),
        ending=ending,
        hesitation=gaussian_filter1d(_drawn(phones, times), width, mode="nearest") * presence,
    )


def _pitch_height(f0: NDArray[np.float32], fps: float) -> NDArray[np.float64]:
    """Smoothed height of the pitch above its median, 4 semitones being 1; ``(T,)``."""
    voiced = f0 > 0.0
    if voiced.sum() <= 5:
        return np.zeros(len(f0))
    tones = np.zeros(len(f0))
    tones[voiced] = 12.0 * np.log2(f0[voiced] / np.median(f0[voiced]))
    voiced &= np.abs(tones) < 14.0  # octave errors
    width = _PITCH_SECONDS * fps
    total = gaussian_filter1d(np.where(voiced, tones, 0.0), width, mode="constant")
    share = gaussian_filter1d(voiced.astype(np.float64), width, mode="constant")
    return np.asarray(np.tanh(total / (share + 0.15) / 3.0))


def _drawn(phones: Sequence[Phone], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 within vowels and nasals that are held much longer than in fluent speech; ``(T,)``."""
    drawn = np.zeros(len(times))
    for phone in phones:
        length = phone.end_seconds - phone.start_seconds
        if phone.symbol != SILENCE and phone.symbol in VOWELS | BILABIALS:
            inside = (times >= phone.start_seconds) & (times < phone.end_seconds)
            drawn[inside] = ramp(np.array((length - _HELD_SECONDS) / 0.2))
    return drawn
