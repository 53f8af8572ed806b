# SPDX-License-Identifier: GPL-3.0-or-later
"""A sentence, sounds without speech, and confident phone posteriors."""

import numpy as np

from backend.speech.phones import NUM_PHONE_IDS

SENTENCE = "The big brown bear moved my paper boat, but nobody believed him."
BIG_BROWN_BEAR = ["SIL", "DH", "AH", "B", "IH", "G", "B", "R", "AW", "N", "B", "EH", "R", "SIL"]


def no_speech(kind):
    rng = np.random.default_rng(2)
    times = np.arange(48000) / 16000.0
    chord = sum(np.sin(2 * np.pi * pitch * times) for pitch in (220.0, 277.0, 330.0, 440.0))
    sound = {
        "silence": np.zeros(32000),
        "empty": np.zeros(0),
        "noise": 0.1 * rng.standard_normal(48000),
        "tones": 0.1 * chord * (np.sin(2 * np.pi * 0.7 * times) > -0.5),
    }[kind]
    return sound.astype(np.float32)


def confident_in(frames):
    """Logarithms of phone posteriors that give each frame's phone 92 %."""
    posteriors = np.full((len(frames), NUM_PHONE_IDS), 0.002)
    posteriors[np.arange(len(frames)), frames] = 0.92
    return np.log(posteriors)
