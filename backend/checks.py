# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the fields of frozen dataclasses. Imports nothing of the backend."""

from __future__ import annotations

import math


def require(condition: bool, text: str) -> None:
    """Raises `ValueError` with a text unless a condition holds."""
    if not condition:
        raise ValueError(text)


def require_positive(config: object, *names: str) -> None:
    """Raises `ValueError` unless the named fields are finite numbers above 0."""
    for name in names:
        value = getattr(config, name)
        require(math.isfinite(value) and value > 0, f"{name} is {value}, expected a number above 0")


def require_share(config: object, *names: str) -> None:
    """Raises `ValueError` unless the named fields are at least 0 and below 1."""
    for name in names:
        value = getattr(config, name)
        require(0.0 <= value < 1.0, f"{name} is {value}, expected 0 to below 1")
