# SPDX-License-Identifier: GPL-3.0-or-later
"""PocketSphinx keeps its decoders, but nothing of the sound and the words of earlier jobs."""

import threading

import numpy as np
import pytest

from backend.audio.segmentation import prepare_sound
from backend.speech.phones import NUM_PHONE_IDS
from backend.speech.pocketsphinx import PocketSphinx
from backend.speech.written_text import words_of
from tests.backend.speech.samples import SENTENCE

pytest.importorskip("pocketsphinx", reason="PocketSphinx is not installed")
UNKNOWN = [word.replace("nobody", "noeboddy") for word in words_of(SENTENCE)]


def in_noise(sound):
    noise = np.random.default_rng(0).normal(0.0, 2000.0, len(sound))
    return np.clip(sound + noise, -32768, 32767).astype(np.int16)


def test_results_do_not_depend_on_earlier_jobs(spoken, posteriors_of):
    sound, posteriors = prepare_sound(spoken.samples), posteriors_of(spoken.samples)

    def results(engine):
        return (
            engine.recognise(sound),
            engine.align(sound, words_of(SENTENCE)),
            engine.align(sound, UNKNOWN),
            engine.recognise_hybrid(posteriors),
            engine.align(sound, UNKNOWN, posteriors),
        )

    used = PocketSphinx()
    used.recognise(in_noise(sound))
    used.align(in_noise(sound), UNKNOWN)
    used.align(sound, words_of("entirely different words"))
    used.align(sound, UNKNOWN, np.roll(posteriors, 40, axis=0))
    expected = results(PocketSphinx())
    assert results(used) == expected
    assert results(used) == expected
    assert expected[0].words
    assert expected[2].guessed == expected[4].guessed == ("noeboddy",)


def test_threads_take_turns_with_a_decoder(spoken):
    sound, noisy = prepare_sound(spoken.samples), in_noise(prepare_sound(spoken.samples))
    engine, words = PocketSphinx(), words_of(SENTENCE)
    expected = [PocketSphinx().align(one, words) for one in (sound, noisy)]
    found = [None, None]

    def work(index, one):
        found[index] = engine.align(one, words)

    threads = [threading.Thread(target=work, args=item) for item in enumerate((sound, noisy))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_nothing_is_recognised_in_flat_posteriors():
    flat = np.full((100, NUM_PHONE_IDS), -np.log(NUM_PHONE_IDS))
    assert not PocketSphinx().recognise_hybrid(flat).is_confirmed
