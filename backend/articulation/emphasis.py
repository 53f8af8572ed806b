# SPDX-License-Identifier: GPL-3.0-or-later
"""How far each vowel opens the mouth: stress, rate, place in the phrase, and effort.

Stressed vowels are longer, higher in pitch and more open (de Jong 1995; Erickson 2002), the first
syllables of a phrase are strengthened (Fougeron and Keating 1997), the last one is long and open
(Edwards, Beckman and Fletcher 1991), and in between openings decline (Vayra and Fowler 1992). Fast
speech reduces (Lindblom 1963). A louder voice opens the mouth (Schulman 1989), but between
neighbouring syllables the level says little: what is loud is often merely a different vowel.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backend.articulation.gestures import spoken_stretches
from backend.articulation.speaking_style import SpeakingStyle
from backend.speech.phones import SILENCE, VOWELS, Phone

_USUAL_SECONDS = {
    "AA": 0.12, "AE": 0.125, "AH": 0.065, "AO": 0.12, "AW": 0.155, "AY": 0.145, "EH": 0.09,
    "ER": 0.1, "EY": 0.12, "IH": 0.07, "IY": 0.095, "OW": 0.13, "OY": 0.17, "UH": 0.075,
    "UW": 0.095,
}  # fmt: skip
"""Of vowels in connected speech (after Crystal and House 1988)."""
_USUAL_RATE_HZ = 12.5  # phones a second
_RATE_REACH_SECONDS = 0.35
_NEAR_SECONDS = 0.2  # within which effort counts as one
_SMALLEST, _LARGEST = 0.3, 1.5

_DURATION, _PITCH, _LEVEL, _EFFORT = 0.6, 0.16, 0.03, 0.5
_RATE, _ONSET, _DECLINE, _FINAL = 0.3, 0.14, 0.16, 0.25


def openings(
    phones: Sequence[Phone],
    *,
    style: SpeakingStyle,
    fps: float,
    energy: NDArray[np.float32] | None,
    f0: NDArray[np.float32] | None,
) -> NDArray[np.float64]:
    """Scale of each phone's opening against its target.

    Args:
        phones: Phones in order of time, gaps filled with silence.
        style: The speaker's style; ``loudness`` says how much stress and effort count.
        fps: Frames per second of the curves.
        energy: Linear level per frame, ``(T,)``, or None.
        f0: Hertz per frame, 0 where unvoiced, ``(T,)``, or None.

    Returns:
        Factors of which 1 is the target, ``(len(phones),)``; consonants have 1.
    """
    scales = np.ones(len(phones))
    chosen = [index for index, phone in enumerate(phones) if phone.symbol in VOWELS]
    if not chosen:
        return scales
    starts = np.array([phones[index].start_seconds for index in chosen])
    ends = np.array([phones[index].end_seconds for index in chosen])
    usual = np.array([_USUAL_SECONDS[phones[index].symbol] for index in chosen])
    stress = _DURATION * np.clip(np.log(np.maximum(ends - starts, 0.02) / usual), -1.0, 0.6)
    stress += _pitch_and_level(starts, ends, fps=fps, energy=energy, f0=f0)
    effort = _EFFORT * _relative_effort(starts, ends, fps=fps, energy=energy)
    place = _rate(phones, 0.5 * (starts + ends)) + _place_in_phrase(phones, starts, ends)
    followed = np.clip((1.0 + style.loudness) * (stress + effort), -1.4, 1.0)
    scales[chosen] = np.clip(np.exp(followed + place), _SMALLEST, _LARGEST)
    return scales


def _means(
    curve: NDArray[np.floating], starts: NDArray[np.float64], ends: NDArray[np.float64], fps: float
) -> NDArray[np.float64]:
    """Mean of a curve within each interval of time."""
    total = np.concatenate([[0.0], np.cumsum(curve, dtype=np.float64)])
    first = np.clip(np.round(starts * fps).astype(np.int64), 0, len(curve) - 1)
    last = np.clip(np.round(ends * fps).astype(np.int64), first + 1, len(curve))
    means: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return means


def _decibels(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(20.0 * np.log10(linear + 1e-5))


def _neighbourhood(
    values: NDArray[np.float64], middles: NDArray[np.float64], seconds: float
) -> NDArray[np.float64]:
    """Mean of the values within some time of each, weighted by nearness."""
    near = np.exp(-0.5 * np.square((middles[:, None] - middles[None, :]) / seconds))
    return np.asarray(near @ values / near.sum(axis=1))


def _pitch_and_level(
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    *,
    fps: float,
    energy: NDArray[np.float32] | None,
    f0: NDArray[np.float32] | None,
) -> NDArray[np.float64]:
    """Stress that is heard: pitch and level of each vowel above those around it."""
    stress = np.zeros(len(starts))
    middles = 0.5 * (starts + ends)
    if f0 is not None and len(f0):
        voiced = _means((f0 > 0.0).astype(np.float64), starts, ends, fps)
        hertz = _means(f0, starts, ends, fps) / np.maximum(voiced, 1e-6)
        heard = voiced > 0.3
        if heard.any():
            tones = np.where(heard, 12.0 * np.log2(np.maximum(hertz, 1.0) / 100.0), 0.0)
            tones[~heard] = np.median(tones[heard])
            height = tones - _neighbourhood(tones, middles, 0.8)
            stress += _PITCH * np.clip(height / 4.0, -1.0, 1.0) * heard
    if energy is not None and len(energy):
        level = _decibels(_means(energy, starts, ends, fps))
        above = level - _neighbourhood(level, middles, 0.8)
        stress += _LEVEL * np.clip(above / 6.0, -1.0, 1.0)
    return stress


def _relative_effort(
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    *,
    fps: float,
    energy: NDArray[np.float32] | None,
) -> NDArray[np.float64]:
    """Level of each stretch against the recording's usual one; one unit is 10 dB."""
    if energy is None or not len(energy):
        return np.zeros(len(starts))
    level = _decibels(_means(energy, starts, ends, fps))
    around = _neighbourhood(level, 0.5 * (starts + ends), _NEAR_SECONDS)
    away = around - np.median(level)
    beyond = np.sign(away) * np.maximum(np.abs(away) - 3.0, 0.0)
    return np.clip(beyond / 10.0, -1.6, 1.0)


def _rate(phones: Sequence[Phone], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduction by the rate of speech around each moment."""
    spoken = [phone for phone in phones if phone.symbol != SILENCE]
    middles = np.array([0.5 * (phone.start_seconds + phone.end_seconds) for phone in spoken])
    lengths = np.array([phone.end_seconds - phone.start_seconds for phone in spoken])
    near = np.exp(-0.5 * np.square((moments[:, None] - middles[None, :]) / _RATE_REACH_SECONDS))
    rates = near.sum(axis=1) / (near @ lengths)
    return np.asarray(-_RATE * np.clip(np.log(rates / _USUAL_RATE_HZ), -0.5, 0.8))


def _place_in_phrase(
    phones: Sequence[Phone], starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Strengthening at a phrase's edges, and the decline in between."""
    place = np.zeros(len(starts))
    for first, last in spoken_stretches(list(phones)):
        inside = (starts >= first - 1e-6) & (ends <= last + 1e-6)
        since, left = starts[inside] - first, last - ends[inside]
        place[inside] = (
            (_ONSET + _DECLINE) * np.exp(-since / 0.5)
            - 0.5 * _DECLINE
            + _FINAL * np.exp(-left / 0.12)
        )
    return place
