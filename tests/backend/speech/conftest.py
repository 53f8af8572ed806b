# SPDX-License-Identifier: GPL-3.0-or-later
"""Phone posteriors by the bundled model, and a recogniser."""

import pytest

from backend import bundled
from backend.audio.features import stacked_log_mel
from backend.speech import moonshine_words, recognition


@pytest.fixture(scope="session")
def recogniser():
    """The module that recognises and aligns."""
    if not moonshine_words.is_installed():
        pytest.skip("Moonshine is not there")
    return recognition


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
