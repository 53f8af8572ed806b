# SPDX-License-Identifier: GPL-3.0-or-later
"""PTalker: speech to facial animation in a speaking style of your choice."""

import importlib.util
import sys
from types import ModuleType
from typing import Final

_RUN_WHEN_USED: Final = (
    "options", "protocol", "motion", "backend_env", "backend_process", "env_installer",
    "sound_strips", "face_points", "face_point_fit", "face_point_transfer", "scene_inputs",
    "rig_mapping", "rig_names", "rig_target", "key_map", "speech_action", "shape_keys",
    "style_library", "backend_job", "lip_sync_job", "demo_head", "command",
)  # fmt: skip
"""Modules that a job needs and Blender's start does not, with all that they import.

The modules that Blender starts with name them as ``backend_job.Outcome``, never
``from .backend_job import``.
"""


def _defer(name: str) -> None:
    """Have a module of the package run when something of it is first used."""
    full_name = f"{__package__}.{name}"
    if full_name in sys.modules:
        return
    spec = importlib.util.find_spec(full_name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"PTalker is not complete: {name} is missing. Install it again.")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    spec.loader.exec_module(module)
    setattr(sys.modules[__name__], name, module)


def _modules() -> tuple[ModuleType, ...]:
    from . import (
        face_point_operators,
        job_runner,
        key_map_ui,
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
        key_map_ui,
    )


def register() -> None:
    """Register everything with Blender."""
    for name in _RUN_WHEN_USED:
        _defer(name)
    for module in _modules():
        module.register()


def unregister() -> None:
    """Take everything out of Blender again, in reverse."""
    for module in reversed(_modules()):
        module.unregister()
