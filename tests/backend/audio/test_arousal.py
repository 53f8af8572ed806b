# SPDX-License-Identifier: GPL-3.0-or-later
"""Arousal of a voice: louder, higher, wider and faster is more."""

import numpy as np
import pytest

from backend.audio.arousal import voice_arousal
from backend.speech.phones import Phone

PHRASES = [(0.5, 2.5), (3.5, 5.5)]
TIMES = np.array([1.5, 4.5])


def voice(level=1.0, tones=0.0, swing=2.0):
    """Two phrases; the second has another level, pitch and range of pitch."""
    times = np.arange(16000 * 6) / 16000
    later = times > 3.0
    spread = np.where(later, swing, 2.0)
    f0 = 120.0 * 2 ** ((spread * np.sin(4.0 * times) + tones * later) / 12.0)
    spoken = sum(((times > a) & (times < b)).astype(float) for a, b in PHRASES)
    sound = np.sign(np.sin(2 * np.pi * np.cumsum(f0) / 16000))
    return (0.05 * spoken * np.where(later, level, 1.0) * sound).astype(np.float32)


@pytest.mark.parametrize("change", [{"level": 3.0}, {"tones": 5.0}, {"swing": 5.0}])
def test_louder_higher_and_wider_is_more(change):
    first, second = voice_arousal(voice(**change), PHRASES, None, TIMES)
    assert second > first + 0.1
    assert -1.0 <= first < second <= 1.0


def test_neither_distance_nor_the_own_pitch_count():
    usual = voice_arousal(voice(level=3.0), PHRASES, None, TIMES)
    far = voice_arousal(0.1 * voice(level=3.0), PHRASES, None, TIMES)
    np.testing.assert_allclose(far, usual, atol=0.02)


def test_faster_is_more():
    def spoken(seconds):
        starts = [a + i * seconds for a, _ in PHRASES for i in range(int(2.0 / seconds))]
        return [Phone("AA", start, start + seconds) for start in starts]

    slow, fast = (voice_arousal(voice(), PHRASES, spoken(s), TIMES)[0] for s in (0.125, 0.05))
    assert fast > slow + 0.05


def test_without_a_voice_it_is_usual():
    silence = np.zeros(16000 * 6, np.float32)
    np.testing.assert_array_equal(voice_arousal(silence, PHRASES, None, TIMES), [0.0, 0.0])
    np.testing.assert_array_equal(voice_arousal(voice(), [], None, TIMES), [0.0, 0.0])
