# SPDX-License-Identifier: GPL-3.0-or-later
"""The two clocks of sound: samples and feature frames. Imports nothing of the backend."""

from __future__ import annotations

from typing import Final

SAMPLE_RATE_HZ: Final = 16_000
FEATURE_RATE_HZ: Final = 50
