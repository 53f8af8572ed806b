# SPDX-License-Identifier: GPL-3.0-or-later
"""A spoken sentence, and what the bundled model hears in sounds."""

import pytest

from backend import bundled
from backend.audio.features import stacked_log_mel
from backend.data.speech.synthesis import Voice, available_engines, speak
from tests.backend.speech.samples import SENTENCE


@pytest.fixture(scope="session")
def spoken():
    if "flite" not in available_engines():
        pytest.skip("flite is not installed")
    return speak(Voice("flite", "slt"), [SENTENCE])[0]


@pytest.fixture(scope="session")
def hear():
    """What the bundled model's ear says of a sound."""
    torch = pytest.importorskip("torch")
    from backend.model import checkpoint

    ear = checkpoint.load(bundled.BASE_CHECKPOINT).speech_content

    def log_posteriors(samples):
        features = torch.from_numpy(stacked_log_mel(samples))[None]
        return ear.phone_log_posteriors(features)[0].numpy()

    return log_posteriors
