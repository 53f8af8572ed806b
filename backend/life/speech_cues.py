# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the speech a face's life goes by: phrases, pauses, accents and questions."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.audio.prosody import Prosody, measure_prosody
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.speech.phones import SILENCE, VOWELS, Phone

PAUSE_SECONDS: Final = 0.2
"""A silence of this length ends a phrase."""
_CLOCK_HZ: Final = 100
_BLOCK_SECONDS: Final = 60.0
_ACCENT_SPACING_SECONDS: Final = 0.3
_QUESTION_SEMITONES: Final = 2.5
_SPOKEN_DB: Final = 30.0
_TALK_SECONDS: Final = 8.0
"""Speech of this length is talk; people who read commands of two seconds keep their brows still."""
_LEAST_SPREAD: Final = (1.0, 2.0, 0.2)
"""Semitones, dB and log of seconds that differ by less do not make an accent."""

Floats = NDArray[np.float64]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Speech between two pauses.

    Attributes:
        start_seconds: Where it begins.
        end_seconds: Where it ends.
        is_question: Whether its pitch rises at the end.
    """

    start_seconds: float
    end_seconds: float
    is_question: bool = False


@dataclass(frozen=True, slots=True)
class Accent:
    """A syllable that stands out.

    Attributes:
        seconds: Middle of its vowel.
        strength: How much it stands out, 0 to 1.
    """

    seconds: float
    strength: float


@dataclass(frozen=True, slots=True)
class SpeechCues:
    """What of a stretch of speech the face's life goes by.

    Attributes:
        seconds: Length of the stretch.
        phrases: Phrases in order of time.
        accents: Accents in order of time.
        liveliness: From the range of the pitch: 0.4 for a monotonous voice, 1.2 for a lively one;
            down to a third of it for a few words, such as a command, since brows move in talk.
        salt: Number that differs between sounds, so that two lines with one seed do not begin
            alike; it does not depend on the sound's volume or sample rate.
    """

    seconds: float
    phrases: tuple[Phrase, ...]
    accents: tuple[Accent, ...]
    liveliness: float
    salt: int

    @property
    def pauses(self) -> list[Span]:
        """Start and end of the silences between phrases, not of those at the ends."""
        return [
            (before.end_seconds, after.start_seconds)
            for before, after in zip(self.phrases, self.phrases[1:], strict=False)
        ]


def read_cues(
    samples: NDArray[np.float32], phones: Sequence[Phone] | None, *, seconds: float
) -> SpeechCues:
    """Finds phrases, accents and questions.

    Args:
        samples: Mono sound of the stretch at 16 kHz, ``(n,)``.
        phones: Phones with times from the start of the stretch; time without a phone is silence.
            None where phones cannot be known: then the level of the sound tells speech.
        seconds: Length of the stretch.

    Returns:
        The cues.
    """
    prosody = _prosody(samples, num_frames=max(2, round(seconds * _CLOCK_HZ)))
    tones = _semitones(prosody.f0)
    spans = _spoken_by_level(prosody.energy) if phones is None else _spoken(phones)
    spans = [(start, min(end, seconds)) for start, end in spans if start < seconds]
    if phones is None:
        vowels = _runs(prosody.f0 > 0.0, shortest=0.06)
    else:
        vowels = [(p.start_seconds, p.end_seconds) for p in phones if p.symbol in VOWELS]
    spoken = sum(end - start for start, end in spans)
    voiced = tones[np.isfinite(tones)]
    reach = float(np.subtract(*np.percentile(voiced, [90, 10]))) if len(voiced) > 20 else 6.0
    return SpeechCues(
        seconds=seconds,
        phrases=tuple(Phrase(a, b, _rises(tones, a, b)) for a, b in spans),
        accents=_accents(vowels, tones, prosody.energy) if spans else (),
        liveliness=float(np.clip(reach / 7.0, 0.4, 1.2) * np.clip(spoken / _TALK_SECONDS, 0.3, 1)),
        salt=_salt(samples),
    )


def _prosody(samples: NDArray[np.float32], *, num_frames: int) -> Prosody:
    """Prosody at ``_CLOCK_HZ``, block by block: hours would not fit into memory at once."""
    size = round(_BLOCK_SECONDS * _CLOCK_HZ)
    energy, f0 = [], []
    for first in range(0, num_frames, size):
        count = min(size, num_frames - first)
        start = first * SAMPLE_RATE_HZ // _CLOCK_HZ
        part = samples[start : start + (count + 5) * SAMPLE_RATE_HZ // _CLOCK_HZ]
        found = measure_prosody(
            part, sample_rate=SAMPLE_RATE_HZ, num_frames=count, fps=float(_CLOCK_HZ)
        )
        energy.append(found.energy)
        f0.append(found.f0)
    return Prosody(np.concatenate(energy), np.concatenate(f0))


def _semitones(f0: NDArray[np.float32]) -> Floats:
    """Pitch above the speaker's median; NaN where there is no voice or an octave error."""
    tones = np.full(len(f0), np.nan)
    voiced = f0 > 0.0
    if voiced.any():
        tones[voiced] = 12.0 * np.log2(f0[voiced] / np.median(f0[voiced]))
        tones[np.abs(np.nan_to_num(tones)) > 11.0] = np.nan
    return tones


def _spoken(phones: Sequence[Phone]) -> list[Span]:
    """Stretches of phones without a pause between them."""
    spans: list[Span] = []
    for phone in phones:
        if phone.symbol == SILENCE:
            continue
        start, end = max(0.0, phone.start_seconds), phone.end_seconds
        if spans and start - spans[-1][1] < PAUSE_SECONDS:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def _spoken_by_level(energy: NDArray[np.float32]) -> list[Span]:
    level = 20.0 * np.log10(energy + 1e-6)
    is_loud = level > max(float(np.percentile(level, 95)) - _SPOKEN_DB, -60.0)
    spans: list[Span] = []
    for start, end in _runs(is_loud, shortest=0.05):
        if spans and start - spans[-1][1] < PAUSE_SECONDS:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _runs(mask: NDArray[np.bool_], *, shortest: float) -> list[Span]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    times = edges.reshape(-1, 2) / _CLOCK_HZ
    return [(float(a), float(b)) for a, b in times if b - a >= shortest]


def _rises(tones: Floats, start: float, end: float) -> bool:
    """Whether the pitch climbs in the last half second of a phrase, as in a question."""
    last = tones[round(max(start, end - 0.5) * _CLOCK_HZ) : round(end * _CLOCK_HZ) + 1]
    last = last[np.isfinite(last)]
    if len(last) < 12:
        return False
    third = len(last) // 3
    climb = float(np.median(last[-third:]) - np.median(last[:third]))
    return climb > _QUESTION_SEMITONES and float(np.median(last[-third:])) > 0.5


def _accents(
    vowels: Sequence[Span], tones: Floats, energy: NDArray[np.float32]
) -> tuple[Accent, ...]:
    """Vowels that are higher, louder and longer than the voice's others."""
    if len(vowels) < 3:
        return ()
    rows = []
    for start, end in vowels:
        part = slice(round(start * _CLOCK_HZ), max(round(end * _CLOCK_HZ), 1 + round(start * 100)))
        pitch = tones[part][np.isfinite(tones[part])]
        level = 20.0 * np.log10(float(energy[part].max(initial=0.0)) + 1e-5)
        rows.append((float(np.median(pitch)) if len(pitch) else 0.0, level, np.log(end - start)))
    marks = np.array(rows)
    centred = (marks - np.median(marks, axis=0)) / np.maximum(marks.std(axis=0), _LEAST_SPREAD)
    prominence = centred @ np.array([0.45, 0.3, 0.25])
    kept: list[Accent] = []
    for (start, end), height in zip(vowels, prominence, strict=True):
        middle = float(0.5 * (start + end))
        strength = float(np.clip(0.25 + 0.6 * height, 0.0, 1.0))
        if strength < 0.35:
            continue
        if kept and middle - kept[-1].seconds < _ACCENT_SPACING_SECONDS:
            if strength <= kept[-1].strength:
                continue
            kept.pop()
        kept.append(Accent(middle, strength))
    return tuple(kept)


def _salt(samples: NDArray[np.float32]) -> int:
    """A number from where the first three seconds grow louder and where quieter."""
    block = SAMPLE_RATE_HZ // 10
    head = samples[: 3 * SAMPLE_RATE_HZ]
    power = np.square(head[: len(head) // block * block], dtype=np.float64).reshape(-1, block)
    rising = np.diff(power.sum(axis=1)) > 0.0
    return zlib.crc32(np.packbits(rising).tobytes())
