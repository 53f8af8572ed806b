# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample rate and feature rate of the backend. Imports nothing of the backend."""

from __future__ import annotations

from typing import Final

SAMPLE_RATE_HZ: Final = 16_000
FEATURE_RATE_HZ: Final = 50
