# SPDX-License-Identifier: GPL-3.0-or-later
"""Held vowels and hums: a shout, a sung note, a drawl last as long as they sound.

Recognisers learned from fluent speech, where no vowel lasts a second: what goes on after some 0.3 s
they take for silence. Here such a silence is given back to the vowel beside it, as far as the sound
stays what it was: voiced, about as loud, and of the vowel's spectrum. Broad bands make that
hold for vibrato and slides, which move the harmonics and leave the formants.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.audio.prosody import measure_prosody
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.speech.phones import SILENCE, VOWELS, Phone
from backend.speech.transcript import Transcript

_HOLDABLE: Final = VOWELS | {"M", "N", "NG", "L", "R", "ER"}
_WINDOW: Final = 1024
_BAND_EDGES_HZ: Final = (100, 300, 500, 750, 1050, 1450, 2000, 2700, 3600, 5000, 7000)
_SHORTEST_SECONDS: Final = 0.12  # of a silence worth a look, and of what is given back
_LARGEST_DROP_DB: Final = 12.0
_LOUD_DB: Final = 5.0  # below its peak a phone is on its way to what comes after
_LARGEST_DISTANCE_DB: Final = 6  # mean over the bands, levels made equal
_SPEECH_SHARE: Final = 0.4  # of a recording in which the quietest tenth is no held sound
_QUIET_PERCENT, _ABOVE_QUIET_DB = 10.0, 6.0
_DRIFT: Final = 0.08  # share of each frame in the memory of the sound
_FORGIVEN_FRAMES: Final = 4
_REFERENCE_FRAMES: Final = 6


@dataclass(frozen=True, slots=True)
class _Sound:
    """Frames at ``FEATURE_RATE_HZ``.

    Attributes:
        bands: Decibels in bands, ``(T, bands)``.
        level: Decibels, ``(T,)``.
        is_voiced: Whether there is voice, above what goes on behind the speech, ``(T,)``.
    """

    bands: NDArray[np.float64]
    level: NDArray[np.float64]
    is_voiced: NDArray[np.bool_]


def extend_held_sounds(samples: NDArray[np.float32], transcript: Transcript) -> Transcript:
    """Gives silences that still sound back to the vowels beside them.

    Args:
        samples: Sound at 16 kHz, -1 to 1, of any length.
        transcript: Phones in order of time.

    Returns:
        The transcript; its phones last longer where a vowel or a hum is held.
    """
    phones = _with_gaps(transcript.phones)
    if not any(_is_worth_a_look(phones, index) for index in range(len(phones))):
        return transcript
    spoken = [phone for phone in phones if phone.symbol != SILENCE]
    spoken_seconds = sum(phone.end_seconds - phone.start_seconds for phone in spoken)
    is_mostly_speech = spoken_seconds > _SPEECH_SHARE * len(samples) / SAMPLE_RATE_HZ
    sound = _analyse(samples, has_pauses=is_mostly_speech)
    for index in range(len(phones)):
        if _is_worth_a_look(phones, index):
            _extend(phones, index, sound)
    kept = tuple(phone for phone in phones if phone.end_seconds - phone.start_seconds > 1e-6)
    return replace(transcript, phones=kept)


def _with_gaps(phones: Sequence[Phone]) -> list[Phone]:
    """The phones, with silence where nothing is."""
    filled: list[Phone] = []
    for phone in phones:
        if filled and phone.start_seconds > filled[-1].end_seconds + 1e-6:
            filled.append(Phone(SILENCE, filled[-1].end_seconds, phone.start_seconds))
        filled.append(phone)
    return filled


def _is_worth_a_look(phones: Sequence[Phone], index: int) -> bool:
    silence = phones[index]
    if silence.symbol != SILENCE:
        return False
    beside = {
        phone.symbol for phone in (*phones[max(index - 1, 0) : index], *phones[index + 1 :][:1])
    }
    return silence.end_seconds - silence.start_seconds >= _SHORTEST_SECONDS and bool(
        beside & _HOLDABLE
    )


def _extend(phones: list[Phone], index: int, sound: _Sound) -> None:
    """Moves the borders of one silence, in place."""
    silence = phones[index]
    first, end = (
        min(round(seconds * FEATURE_RATE_HZ), len(sound.level))
        for seconds in (silence.start_seconds, silence.end_seconds)
    )
    start_seconds, end_seconds = silence.start_seconds, silence.end_seconds
    if index > 0 and phones[index - 1].symbol in _HOLDABLE:
        begin = round(phones[index - 1].start_seconds * FEATURE_RATE_HZ)
        held = _held_frames(sound, range(begin, first), range(first, end))
        if held:
            start_seconds = min((first + held) / FEATURE_RATE_HZ, end_seconds)
            phones[index - 1] = replace(phones[index - 1], end_seconds=start_seconds)
            first += held
    if index + 1 < len(phones) and phones[index + 1].symbol in _HOLDABLE:
        last = min(round(phones[index + 1].end_seconds * FEATURE_RATE_HZ), len(sound.level))
        held = _held_frames(sound, range(last - 1, end - 1, -1), range(end - 1, first - 1, -1))
        if held:
            end_seconds = max((end - held) / FEATURE_RATE_HZ, start_seconds)
            phones[index + 1] = replace(phones[index + 1], start_seconds=end_seconds)
    phones[index] = Phone(SILENCE, start_seconds, end_seconds)


def _held_frames(sound: _Sound, phone: range, silence: range) -> int:
    """Number of frames of a silence, from its side at the phone on, in which the phone goes on."""
    voiced = [frame for frame in phone if sound.is_voiced[frame]]
    if len(voiced) < 2:
        return 0
    level = float(sound.level[voiced].max())
    loud = [frame for frame in voiced if sound.level[frame] > level - _LOUD_DB][-_REFERENCE_FRAMES:]
    memory = sound.bands[loud].mean(axis=0)
    held = 0
    for count, frame in enumerate(silence, start=1):
        distance = np.abs((sound.bands[frame] - memory) - np.mean(sound.bands[frame] - memory))
        if (
            sound.is_voiced[frame]
            and sound.level[frame] > level - _LARGEST_DROP_DB
            and distance.mean() < _LARGEST_DISTANCE_DB
        ):
            held = count
            memory += _DRIFT * (sound.bands[frame] - memory)
        elif count - held > _FORGIVEN_FRAMES:
            break
    return held if held >= _SHORTEST_SECONDS * FEATURE_RATE_HZ else 0


def _analyse(samples: NDArray[np.float32], *, has_pauses: bool) -> _Sound:
    """Bands, level and voice; where there are pauses, they tell what is music or a hum behind."""
    num_frames = max(1, len(samples) * FEATURE_RATE_HZ // SAMPLE_RATE_HZ)
    prosody = measure_prosody(
        samples, sample_rate=SAMPLE_RATE_HZ, num_frames=num_frames, fps=FEATURE_RATE_HZ
    )
    padded = np.zeros(len(samples) + _WINDOW, np.float32)
    padded[_WINDOW // 2 : _WINDOW // 2 + len(samples)] = samples
    bins = np.fft.rfftfreq(_WINDOW, 1.0 / SAMPLE_RATE_HZ)
    edges = np.searchsorted(bins, _BAND_EDGES_HZ)
    window = np.hanning(_WINDOW).astype(np.float32)
    bands = np.empty((num_frames, len(edges) - 1))
    step = SAMPLE_RATE_HZ // FEATURE_RATE_HZ
    for frame in range(num_frames):
        power = np.abs(np.fft.rfft(padded[frame * step : frame * step + _WINDOW] * window)) ** 2
        bands[frame] = np.add.reduceat(power, edges)[:-1]
    level = 20.0 * np.log10(prosody.energy.astype(np.float64) + 1e-5)
    floor = 1e-6 * bands.max() + 1e-12
    is_voiced = prosody.f0 > 0.0
    if has_pauses:
        is_voiced &= level > np.percentile(level, _QUIET_PERCENT) + _ABOVE_QUIET_DB
    return _Sound(10.0 * np.log10(bands + floor), level, is_voiced)
