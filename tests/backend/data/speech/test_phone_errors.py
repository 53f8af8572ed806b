# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognition errors put into exact phones."""

from itertools import pairwise

import numpy as np
import pytest

from backend.data.speech.phone_errors import corrupt
from backend.data.speech.synthesis import Voice, available_engines, speak
from backend.speech.phones import phone_frames


def test_errors_keep_the_phones_in_order_and_mostly_right():
    if "flite" not in available_engines():
        pytest.skip("flite is not installed")
    text = "The big brown bear moved my paper boat, but nobody believed him."
    spoken = speak(Voice("flite", "slt"), [text])[0].phones
    rng = np.random.default_rng(0)
    truth = phone_frames(spoken, 200, 50.0)
    right, gaps = [], 0
    for _ in range(60):
        phones = corrupt(spoken, rng)
        assert all(phone.end_seconds > phone.start_seconds for phone in phones)
        assert all(one.end_seconds <= other.start_seconds + 1e-9 for one, other in pairwise(phones))
        found = phone_frames(phones, 200, 50.0)
        gaps += bool((found[truth > 0] == 0).any())
        right.append(float((found == truth)[found > 0].mean()))
    assert 0.55 < np.mean(right) < 0.95
    assert 0 < gaps < 30  # now and then a recogniser gives nothing for a while
    assert corrupt([], rng) == []
    again = [corrupt(spoken, np.random.default_rng(7)) for _ in range(2)]
    assert again[0] == again[1]
