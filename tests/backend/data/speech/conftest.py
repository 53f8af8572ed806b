# SPDX-License-Identifier: GPL-3.0-or-later
"""Made-up recordings, opened as training data."""

import pytest

from backend.data.speech import dataset
from tests.backend.data.speech.samples import write_recordings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return dataset.open_speech([write_recordings(folder / "speech")], folder / "cache")
