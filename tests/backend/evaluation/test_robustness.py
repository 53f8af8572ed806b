# SPDX-License-Identifier: GPL-3.0-or-later
"""Degraded audio: the effects on a sound, and the report of the evaluation under them."""

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from backend.audio import degradations
from backend.audio.load import read_sound
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.evaluation import robustness
from backend.evaluation.robustness import CONDITIONS, WORDLESS, degraded, drift_mm

ROOT = Path(__file__).parents[3]
RATE = SAMPLE_RATE_HZ


@pytest.fixture(scope="module")
def speech():
    return read_sound(ROOT / "backend" / "demo" / "speech.ogg").samples[: 2 * RATE]


def under(name, speech, seed=0):
    return degraded(name, speech, [speech[::-1]], np.random.default_rng(seed))


def share_above(samples, hertz):
    frequencies, power = scipy.signal.welch(samples, RATE, nperseg=1024)
    return power[frequencies > hertz].sum() / power.sum()


def envelope(samples):
    return np.sqrt(np.square(samples[: len(samples) // 320 * 320]).reshape(-1, 320).mean(1))


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_keeps_length_and_time_and_depends_on_its_seed_alone(name, speech):
    before = speech.copy()
    first, second = (under(name, speech) for _ in range(2))
    assert (speech == before).all()
    assert (first == second).all()
    assert first.shape == speech.shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert (name == "clean") == (first is speech)
    ours, theirs = (envelope(samples) - envelope(samples).mean() for samples in (speech, first))
    lags = range(-10, 11)
    found = [float(np.roll(theirs, -lag) @ ours) for lag in lags]
    if name == "two voices 0 dB":  # of which neither rules the envelope
        return
    assert abs(lags[int(np.argmax(found))]) <= 1
    assert max(found) / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.6


@pytest.mark.parametrize("name", ["white noise 10 dB", "pink noise 10 dB", "music 10 dB"])
def test_noise_is_ten_decibels_below_the_spoken_parts(name, speech):
    added = under(name, speech) - speech
    spoken = envelope(speech)
    spoken = spoken[spoken > 0.25 * spoken.max()]
    ratio = np.sqrt(np.mean(spoken**2)) / np.sqrt(np.mean(added**2))
    assert 20.0 * np.log10(ratio) == pytest.approx(10.0, abs=1.5)


def test_pink_noise_falls_by_three_decibels_an_octave():
    noise = degradations.noise(20 * RATE, np.random.default_rng(0), exponent=1.0)
    frequencies, power = scipy.signal.welch(noise, RATE, nperseg=2048)
    octaves = [power[np.argmin(np.abs(frequencies - hertz))] for hertz in (500.0, 4000.0)]
    assert 10.0 * np.log10(octaves[0] / octaves[1]) == pytest.approx(9.0, abs=1.5)


def test_a_telephone_lets_nothing_above_its_band_through(speech):
    assert share_above(speech, 4000.0) > 10 * share_above(under("telephone", speech), 4000.0)


def test_a_room_dies_by_sixty_decibels_in_half_a_second():
    click = np.zeros(RATE, np.float32)
    click[100] = 0.5
    reverberated = under("reverberation 0.5 s", click)
    levels = [np.square(reverberated[int(s * RATE) :][: RATE // 50]).sum() for s in (0.05, 0.35)]
    assert 10.0 * np.log10(levels[0] / levels[1]) == pytest.approx(36.0, abs=3.0)
    assert int(np.argmax(np.abs(reverberated))) == 100


def test_whisper_has_no_pitch_and_shouting_is_brighter():
    times = np.arange(RATE) / RATE
    pulses = scipy.signal.square(2 * np.pi * 125.0 * times, 0.1).astype(np.float32)
    whispered = under("whisper", pulses)[RATE // 4 : -RATE // 4]
    own = np.correlate(whispered, whispered, "full")[len(whispered) - 1 :]
    assert np.abs(own[RATE // 125 - 5 : RATE // 125 + 6]).max() < 0.3 * own[0]
    assert share_above(under("shouting", pulses), 1000.0) > share_above(pulses, 1000.0)


def test_level_conditions_have_the_levels_of_their_names(speech):
    assert np.abs(under("level -40 dBFS", speech)).max() == pytest.approx(0.01, abs=1e-4)
    cut = under("clipped at +12 dB", speech)
    assert np.abs(cut).max() == 1.0
    assert (np.abs(cut) == 1.0).mean() > 0.01


def test_laughter_comes_in_bursts():
    laugh = envelope(degradations.laughter(4 * RATE, np.random.default_rng(0)))
    peaks, _ = scipy.signal.find_peaks(laugh, height=0.3 * laugh.max(), distance=5)
    assert 6 <= len(peaks) <= 24
    assert laugh.min() < 0.05 * laugh.max()


def test_drift_is_the_change_of_the_error():
    wanted = [np.linspace(0.0, 3.0, 90), np.zeros(90)]
    assert drift_mm(wanted, wanted) == 0.0
    assert drift_mm([wanted[0], np.repeat([0.0, 1.0, 2.0], 30)], wanted) == pytest.approx(1.0)
    assert drift_mm([curve + 5.0 for curve in wanted], wanted) == pytest.approx(0.0)


def test_the_table_has_a_row_for_each_condition():
    spoken = dict.fromkeys(("closures_f1", "opening", "jerk_ratio", "drift_mm", "by_sound"), 0.5)
    rest = {"mean_mm": 0.0, "most_mm": 0.25}
    text = robustness.table(
        {
            "conditions": {name: {"sound": spoken, "text": spoken} for name in CONDITIONS},
            "wordless": {name: {"sound": rest} for name in WORDLESS},
        }
    )
    assert text.count("\n| whisper | 0.50 |") == 2
    assert "| silence | 0.00 | 0.25 |" in text


def test_one_recording_alone_is_refused_in_one_clear_sentence(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE, np.float32), RATE)
    (tmp_path / "alignment.json").write_text(
        '{"a": {"file": "a.wav", "text": "m", "phones": [["M", 0, 1]]}}'
    )
    arguments = robustness.ConditionsArguments(checkpoint=tmp_path, speech=tmp_path)
    with pytest.raises(UserError, match="holds one recording"):
        robustness.main(arguments)
