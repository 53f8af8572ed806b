# SPDX-License-Identifier: GPL-3.0-or-later
"""A spoken sentence, phone posteriors by the bundled model, and a recogniser."""

import pytest

from backend import bundled
from backend.audio.features import stacked_log_mel
from backend.data.speech.synthesis import Voice, available_engines, speak
from backend.speech.recognition import SpeechRecogniser
from tests.backend.speech.samples import SENTENCE


@pytest.fixture(scope="session")
def spoken():
    if "flite" not in available_engines():
        pytest.skip("flite is not installed")
    return speak(Voice("flite", "slt"), [SENTENCE])[0]


@pytest.fixture(scope="session")
def recogniser():
    """Works in this process; its results do not depend on earlier tests."""
    pytest.importorskip("pocketsphinx", reason="PocketSphinx is not installed")
    recogniser = SpeechRecogniser(1)
    yield recogniser
    recogniser.close()


@pytest.fixture(scope="session")
def posteriors_of():
    """Logarithms of the phone posteriors of a sound, by the bundled model's speech encoder."""
    torch = pytest.importorskip("torch")
    from backend.model import checkpoint

    encoder = checkpoint.load(bundled.BASE_CHECKPOINT).speech_content

    def log_posteriors(samples):
        features = torch.from_numpy(stacked_log_mel(samples))[None]
        return encoder.phone_log_posteriors(features)[0].numpy()

    return log_posteriors
