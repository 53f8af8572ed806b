# SPDX-License-Identifier: GPL-3.0-or-later
"""Names for what the type information of bpy cannot say; each is Any, the name tells the reader.

It knows neither what kind of data an object has, nor that a context's members are there in the
editor that a class is for, nor the properties that add-ons hang on Blender's own types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import bpy

Context: TypeAlias = Any
Event: TypeAlias = Any
Key: TypeAlias = Any
Layout: TypeAlias = Any
Mesh: TypeAlias = Any
Object: TypeAlias = Any
Scene: TypeAlias = Any
Settings: TypeAlias = Any
Strip: TypeAlias = Any
Vertex: TypeAlias = Any

Results: TypeAlias = Any
"""What an operator's methods return."""

_F = TypeVar("_F", bound=Callable[..., None])


def classes_factory(
    classes: tuple[type, ...],
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Functions that register and unregister classes, for which Blender has a factory."""
    factory: Any = bpy.utils.register_classes_factory
    register, unregister = factory(classes)
    return register, unregister


def persistent(handler: _F) -> _F:
    """Keep a handler on its list when another file is loaded."""
    bpy.app.handlers.persistent(handler)  # marks the function itself
    return handler
