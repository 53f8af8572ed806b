# SPDX-License-Identifier: GPL-3.0-or-later
"""Loudness and pitch per frame, and statistics of a voice."""

import numpy as np

from backend.audio.prosody import measure_prosody, voice_character


def test_prosody_finds_pitch_and_level():
    times = np.arange(16000) / 16000.0
    tone = sum(np.sin(2 * np.pi * 150.0 * k * times) / k for k in range(1, 6)).astype(np.float32)
    sound = np.concatenate([0.2 * tone, np.zeros(8000, np.float32)])
    prosody = measure_prosody(sound, sample_rate=16000, num_frames=75, fps=50.0)
    voiced = prosody.f0[5:45]
    assert np.abs(voiced / 150.0 - 1.0).max() < 0.03
    assert not prosody.f0[55:].any()
    assert prosody.energy[20] > 0.1
    assert prosody.energy[60] < 1e-4
    voice = voice_character(sound, prosody, [])
    assert voice.f0_range_semitones < 1.0  # a steady tone
    assert 0.0 <= voice.level_range_db < 3.0
    assert voice.phones_per_second == 12.0  # unknown without phones
