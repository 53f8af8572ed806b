# SPDX-License-Identifier: GPL-3.0-or-later
"""PTalker: speech to facial animation in a speaking style of your choice."""

from types import ModuleType


def _modules() -> tuple[ModuleType, ...]:
    from . import (
        command,
        face_point_operators,
        job_runner,
        operators,
        panels,
        preferences,
        properties,
        setup_operators,
    )

    return (
        preferences,
        properties,
        job_runner,
        operators,
        setup_operators,
        face_point_operators,
        panels,
        command,
    )


def register() -> None:
    """Register everything with Blender."""
    for module in _modules():
        module.register()


def unregister() -> None:
    """Take everything out of Blender again, in reverse."""
    for module in reversed(_modules()):
        module.unregister()
