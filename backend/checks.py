# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the fields of frozen dataclasses. Imports nothing of the backend."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Final

_MAX_LAYERS: Final = 256
_MAX_SIZE: Final = 1 << 14
_MAX_POINTS: Final = 2_000_000


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


def require_moderate_sizes(config: Any) -> None:
    """Raises `ValueError` if a network's config asks for more than a network can be built of.

    Args:
        config: Dataclass whose names say what they count: layers, vertices, nodes, frames a second.
    """
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name.endswith(("_fps", "rate_hz")):
            require(1 <= value <= 1000, f"{item.name} is {value:g}, expected 1 to 1000")
        limit = _MAX_SIZE
        if item.name.endswith(("_layers", "_convs")):
            limit = _MAX_LAYERS
        elif item.name in ("num_vertices", "num_nodes"):
            limit = _MAX_POINTS
        for size in value if isinstance(value, tuple) else (value,):
            if isinstance(size, int):
                require(size <= limit, f"{item.name} is {size:.6g}, too large (at most {limit})")
