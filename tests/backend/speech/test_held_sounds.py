# SPDX-License-Identifier: GPL-3.0-or-later
"""A vowel that is held lasts as long as it sounds; a pause stays a pause."""

import numpy as np
import pytest

from backend.speech.held_sounds import extend_held_sounds
from backend.speech.phones import SILENCE, Phone
from backend.speech.transcript import Transcript

RATE = 16000
OPEN, ROUND = (700.0, 1150.0, 2600.0), (320.0, 800.0, 2300.0)


def voice(seconds, formants=OPEN, hertz=140.0, vibrato_semitones=0.0):
    """A vowel: harmonics whose height is set by formants."""
    times = np.arange(round(seconds * RATE)) / RATE
    pitch = hertz * 2.0 ** (vibrato_semitones / 12.0 * np.sin(2 * np.pi * 5.5 * times))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = np.zeros(len(times))
    for number in range(1, int(4000 / hertz)):
        frequency = number * hertz
        height = sum(1.0 / (1.0 + ((frequency - formant) / 90.0) ** 2) for formant in formants)
        sound += height * np.sin(number * phase)
    return 0.2 * sound / np.abs(sound).max()


def quiet(seconds):
    return np.random.default_rng(1).normal(0.0, 1e-4, round(seconds * RATE))


def extended(sound, *phones):
    transcript = Transcript(tuple(Phone(*phone) for phone in phones), (), (), "words")
    return extend_held_sounds(np.concatenate(sound).astype(np.float32), transcript).phones


@pytest.mark.parametrize("formants", [OPEN, ROUND])
@pytest.mark.parametrize("vibrato", [0.0, 0.8])
def test_a_held_vowel_lasts_to_its_end(formants, vibrato):
    held = voice(3.0, formants, vibrato_semitones=vibrato)
    phones = extended(
        (quiet(0.5), held, quiet(1.0)),
        (SILENCE, 0.0, 0.5), ("AA", 0.5, 0.8), (SILENCE, 0.8, 4.5),
    )  # fmt: skip
    assert [phone.symbol for phone in phones] == [SILENCE, "AA", SILENCE]
    assert phones[1].end_seconds == pytest.approx(3.5, abs=0.08)
    assert phones[2].end_seconds == 4.5


def test_a_vowel_that_is_recognised_at_its_end_begins_where_it_sounds():
    phones = extended((quiet(0.5), voice(3.0), quiet(1.0)), (SILENCE, 0.0, 3.2), ("AA", 3.2, 3.5))
    assert phones[1].start_seconds == pytest.approx(0.5, abs=0.08)


def test_a_time_without_phones_counts_as_silence():
    phones = extended((quiet(0.5), voice(3.0), quiet(0.5)), ("AA", 0.5, 0.8), ("AA", 3.3, 3.5))
    assert sum(phone.end_seconds - phone.start_seconds for phone in phones) == pytest.approx(
        3.0, abs=0.1
    )


def test_a_pause_stays_a_pause():
    phones = [(SILENCE, 0.0, 0.5), ("AA", 0.5, 0.8), (SILENCE, 0.8, 1.8)]
    found = extended((quiet(0.5), voice(0.3), quiet(1.0)), *phones)
    assert found == tuple(Phone(*phone) for phone in phones)


def test_another_sound_does_not_hold_the_vowel():
    times = np.arange(2 * RATE) / RATE
    tone = 0.1 * np.sin(2 * np.pi * 2200.0 * times) + 0.1 * np.sin(2 * np.pi * 3300.0 * times)
    found = extended(
        (quiet(0.5), voice(0.4), tone), (SILENCE, 0.0, 0.5), ("AA", 0.5, 0.9), (SILENCE, 0.9, 2.9)
    )
    assert found[1].end_seconds < 1.0


def test_a_hum_behind_speech_does_not_hold_its_vowels():
    speech, phones, start = [quiet(0.3)], [(SILENCE, 0.0, 0.3)], 0.3
    for _ in range(5):
        speech += [voice(0.8), quiet(0.4)]
        phones += [("AA", start, start + 0.8), (SILENCE, start + 0.8, start + 1.2)]
        start += 1.2
    sound = np.concatenate(speech)
    hum = voice(len(sound) / RATE) * 0.5
    found = extended((sound + hum,), *phones)
    assert found == tuple(Phone(*phone) for phone in phones)
