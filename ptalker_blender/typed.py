# SPDX-License-Identifier: GPL-3.0-or-later
"""Types of bpy, narrowed where its type information says too much or too little.

That information has None wherever a context may lack something, a dozen types of ``Object.data``,
and nothing of the properties that add-ons hang on Blender's own types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar, cast

import bpy
from bpy.types import Context, Key, Mesh, Object, Scene, UILayout

Results: TypeAlias = set[
    Literal['RUNNING_MODAL', 'CANCELLED', 'FINISHED', 'PASS_THROUGH', 'INTERFACE']
]
"""What an operator's methods return."""

_F = TypeVar("_F", bound=Callable[..., None])


def settings_of(owner: Any) -> Any:
    """The add-on's own properties of an object or scene, or the job's state of a window manager."""
    return owner.ptalker


def mesh_of(obj: Object) -> Mesh:
    """The data of an object that is known to be a mesh."""
    return cast("Mesh", obj.data)


def keys_of(obj: Object) -> Key:
    """The shape keys of a mesh object that is known to have some."""
    return cast("Key", mesh_of(obj).shape_keys)


def scene_of(context: Context) -> Scene:
    """The scene of a context; there always is one outside of a restricted context."""
    return cast("Scene", context.scene)


def active_object(context: Context) -> Object:
    """The active object, where poll has seen that there is one."""
    return cast("Object", context.active_object)


def layout_of(drawn: Any) -> UILayout:
    """The layout of a panel, dialog or preferences while they are drawn."""
    return cast("UILayout", drawn.layout)


def classes_factory(
    classes: tuple[type, ...],
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Functions that register and unregister classes."""
    factory: Any = bpy.utils.register_classes_factory
    register, unregister = factory(classes)
    return register, unregister


def persistent(handler: _F) -> _F:
    """Keep a handler on its list when another file is loaded."""
    bpy.app.handlers.persistent(handler)  # marks the function itself
    return handler
