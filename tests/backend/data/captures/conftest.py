# SPDX-License-Identifier: GPL-3.0-or-later
"""A published data set that several files of tests prepare."""

import pytest

from tests.backend.data.captures.samples import SUBJECT, VALIDATION, write_vocaset


@pytest.fixture
def vocaset(tmp_path):
    raw = tmp_path / "raw"
    pairs = [(SUBJECT, "sentence01"), (SUBJECT, "sentence02"), (VALIDATION, "sentence01"),
             (VALIDATION, "sentence21")]  # fmt: skip
    write_vocaset(raw, pairs)
    return raw
