# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones of recorded speech."""

from backend.phones import (
    NUM_PHONE_IDS,
    PHONE_IDS,
    PHONES,
    SILENCE,
    UNKNOWN_PHONE_ID,
    Phone,
    phone_frames,
)

__all__ = [
    "NUM_PHONE_IDS",
    "PHONES",
    "PHONE_IDS",
    "SILENCE",
    "UNKNOWN_PHONE_ID",
    "Phone",
    "phone_frames",
]
