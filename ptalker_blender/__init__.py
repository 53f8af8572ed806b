# SPDX-License-Identifier: GPL-3.0-or-later
"""PTalker: speech to facial animation in a speaking style of your choice."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def _defer_modules() -> None:
    """Have each module of the package run when something of it is first used.

    What only a job needs costs Blender's start nothing then, as long as the modules that Blender
    starts with name it as ``backend_job.Outcome`` and never ``from .backend_job import``.
    """
    for path in Path(__file__).parent.glob("*.py"):
        full_name = f"{__package__}.{path.stem}"
        if path.stem == "__init__" or full_name in sys.modules:
            continue
        spec = importlib.util.find_spec(full_name)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"PTalker's {path.name} cannot be loaded. Install it again.")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[full_name] = module
        spec.loader.exec_module(module)
        setattr(sys.modules[__name__], path.stem, module)


def _modules() -> tuple[ModuleType, ...]:
    from . import (
        face_point_click,
        face_point_operators,
        face_point_panel,
        job_runner,
        key_map_ui,
        life_panel,
        operators,
        panels,
        preferences,
        properties,
        rig_ui,
        style_operators,
    )

    return (
        preferences,
        properties,
        job_runner,
        operators,
        style_operators,
        *_torch_setup(),
        face_point_operators,
        face_point_click,
        panels,
        life_panel,
        face_point_panel,
        key_map_ui,
        rig_ui,
    )


def _torch_setup() -> tuple[ModuleType, ...]:
    """The operators that add PyTorch; the build for Blender's own platform is without them."""
    try:
        from . import setup_operators
    except ImportError:
        return ()
    return (setup_operators,)


def register() -> None:
    """Register everything with Blender."""
    _defer_modules()
    for module in _modules():
        module.register()


def unregister() -> None:
    """Take everything out of Blender again, in reverse."""
    for module in reversed(_modules()):
        module.unregister()
