# SPDX-License-Identifier: GPL-3.0-or-later
"""How aroused a voice sounds, by level, pitch, rate and brightness.

Of all that a voice tells of its owner's state, arousal is told best: aroused voices are louder,
higher, of wider range, faster, and have more energy above (Banse and Scherer 1996; Juslin and
Laukka 2003, tables 7 and 11; Goudbeek and Scherer 2010). Valence is hardly audible in these, so
nobody should expect the emotion itself of them.

A phrase's arousal is ``tanh(0.5 * voice + 0.8 * phrase)``. With what is absolute, the recording::

    voice = 0.30 (range of pitch - 6.5 semitones) / 3.5 + 0.25 (range of level - 13 dB) / 5
          + 0.25 (rate - 12 phones/s) / 4 + 0.20 brightness

and against the recording's other phrases, since neither the distance of a microphone nor the pitch
of a person tells anything::

    phrase = 0.40 (level - median level) / 5 dB + 0.40 (pitch - median pitch) / 2.5 semitones
           + 0.20 (range of pitch - median range) / 3 semitones

Each term is limited to -1.5 and 1.5. The ranges are those of ``voice_character``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.audio.prosody import Prosody, measure_prosody, voice_character
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.speech.phones import SILENCE, Phone

Floats = NDArray[np.float64]

_CLOCK_HZ: Final = 100.0
_LONGEST_SECONDS: Final = 6.0
"""Longer phrases are measured in parts."""
_USUAL_RATE: Final = 12.0
_LEAST_FRAMES: Final = 10


def voice_arousal(
    samples: NDArray[np.float32],
    phrases: Sequence[tuple[float, float]],
    phones: Sequence[Phone] | None,
    times: Floats,
) -> Floats:
    """Arousal of a voice over time.

    Args:
        samples: Mono sound at 16 kHz.
        phrases: Start and end of stretches of speech in seconds, in order.
        phones: Phones of the sound, for the rate; None takes a usual one.
        times: Times wanted, in seconds, ``(T,)``.

    Returns:
        From -1, calm, over 0, a usual voice, to 1, ``(T,)``; 0 without speech. It goes in a
        straight line from the middle of each phrase to that of the next.
    """
    parts = _parts(phrases)
    measured = [(part, _prosody(samples, *part)) for part in parts]
    measured = [(p, m) for p, m in measured if (m.f0 > 0.0).sum() >= _LEAST_FRAMES]
    if not measured:
        return np.zeros(len(times))
    rows = np.array([_figures(prosody) for _, prosody in measured])  # level, pitch, range
    apart = (rows - np.median(rows, axis=0)) / (5.0, 2.5, 3.0)
    of_phrase = np.clip(apart, -1.5, 1.5) @ (0.4, 0.4, 0.2)
    whole = Prosody(
        np.concatenate([m.energy for _, m in measured]),
        np.concatenate([m.f0 for _, m in measured]),
    )
    arousal = np.tanh(0.5 * _of_voice(samples, whole, phones) + 0.8 * of_phrase)
    middles = [0.5 * (start + end) for (start, end), _ in measured]
    return np.interp(times, middles, arousal)


def _parts(phrases: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    parts = []
    for start, end in phrases:
        edges = np.linspace(start, end, max(1, round((end - start) / _LONGEST_SECONDS)) + 1)
        parts += [(float(a), float(b)) for a, b in pairwise(edges)]
    return parts


def _prosody(samples: NDArray[np.float32], start: float, end: float) -> Prosody:
    part = samples[round(start * SAMPLE_RATE_HZ) : round(end * SAMPLE_RATE_HZ)]
    count = max(1, round((end - start) * _CLOCK_HZ))
    return measure_prosody(part, sample_rate=SAMPLE_RATE_HZ, num_frames=count, fps=_CLOCK_HZ)


def _figures(prosody: Prosody) -> tuple[float, float, float]:
    """Level in dB, median pitch and range of pitch in semitones of a phrase."""
    loud = prosody.energy[prosody.energy > 0.1 * prosody.energy.max()]
    tones = 12.0 * np.log2(prosody.f0[prosody.f0 > 0.0] / 100.0)
    low, middle, high = np.percentile(tones, [10, 50, 90])
    return float(20.0 * np.log10(np.median(loud) + 1e-6)), float(middle), float(high - low)


def _of_voice(
    samples: NDArray[np.float32], prosody: Prosody, phones: Sequence[Phone] | None
) -> float:
    spoken = [phone for phone in phones or () if phone.symbol != SILENCE]
    voice = voice_character(samples, prosody, spoken)
    rate = voice.phones_per_second if spoken else _USUAL_RATE
    terms = (
        (voice.f0_range_semitones - 6.5) / 3.5, (voice.level_range_db - 13.0) / 5.0,
        (rate - _USUAL_RATE) / 4.0, voice.brightness,
    )  # fmt: skip
    return float(np.clip(terms, -1.5, 1.5) @ (0.3, 0.25, 0.25, 0.2))
