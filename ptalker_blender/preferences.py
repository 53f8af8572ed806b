# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: engine, device, checkpoint, and what PyTorch is added from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty
from bpy.types import Context, UILayout

from . import backend_env, backend_status, own_engine, paths
from .typed import classes_factory

sections: list[Callable[[UILayout, Context, Any], None]] = []
"""What other modules draw below the engine: functions of a layout, a context and the preferences.

The build for Blender's own platform has no setup of PyTorch, and then nothing is drawn here.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """The preferences as plain values; the defaults hold where Blender keeps none.

    Attributes:
        engine: ``auto``, ``onnx`` for the one that comes with PTalker, or ``torch``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        checkpoint: Name or folder.
        decoder: ``parallel`` or ``autoregressive``.
        torch_build: ``AUTO``, ``CPU`` or ``CUDA``.
        wheels: Folder of wheels; empty: download.
        base_python: Python to make the environment from; empty: Blender's own.
        ready_python: Python of another, ready environment; empty: the add-on's own.
        keep_job_files: Whether a job's files are kept.
    """

    engine: own_engine.WantedEngine = "auto"
    device: str = "auto"
    checkpoint: str = "base"
    decoder: str = "parallel"
    torch_build: Literal['AUTO', 'CPU', 'CUDA'] = 'AUTO'
    wheels: str = ""
    base_python: str = ""
    ready_python: str = ""
    keep_job_files: bool = False


class PTALKER_AP_preferences(bpy.types.AddonPreferences):
    """Preferences of PTalker."""

    bl_idname = __package__

    engine: EnumProperty(
        name="Engine",
        description="What computes the motion",
        items=(
            ('AUTO', "Automatic", "PyTorch where it was added and helps, otherwise Built-in"),
            ('ONNX', "Built-in", "What comes with PTalker: the processor, no set-up"),
            ('TORCH', "PyTorch", "What was added below: graphics cards, models of your own"),
        ),
        default='AUTO',
    )
    device: EnumProperty(
        name="Device",
        description="Where the model runs",
        items=(
            ('AUTO', "Automatic", "The fastest that there is"),
            ('CPU', "CPU", "The processor; works everywhere"),
            ('CUDA', "CUDA", "An NVIDIA graphics card"),
            ('MPS', "MPS", "The graphics processor of a Mac"),
        ),
        default='AUTO',
    )
    checkpoint_source: EnumProperty(
        name="Model",
        description="Which model speaks",
        items=(
            ('BUNDLED', "Bundled", "The model that comes with PTalker, for any head"),
            ('FOLDER', "Folder", "A model of your own: the folder of its checkpoint"),
        ),
        default='BUNDLED',
    )
    checkpoint_folder: StringProperty(
        name="Checkpoint",
        description="Folder with config.json and model.safetensors",
        subtype='DIR_PATH',
    )
    decoder: EnumProperty(
        name="Decoder",
        description="How the motion is computed",
        items=(
            ('PARALLEL', "Parallel", "All frames at once: fast"),
            ('AUTOREGRESSIVE', "Autoregressive", "Frame after frame: slower"),
        ),
        default='PARALLEL',
    )
    torch_build: EnumProperty(
        name="PyTorch",
        description="Which build of PyTorch is installed",
        items=(
            ('AUTO', "Automatic", "CUDA where there is an NVIDIA card, otherwise CPU"),
            ('CPU', "CPU", "The small build for the processor"),
            ('CUDA', "CUDA", "The large build for NVIDIA graphics cards"),
        ),
        default='AUTO',
    )
    wheels: StringProperty(
        name="Wheels",
        description="Folder of wheels to install from without a network; empty: download",
        subtype='DIR_PATH',
    )
    base_python: StringProperty(
        name="Base Python",
        description="Python 3.11 to 3.14 to add PyTorch to; empty: Blender's own",
        subtype='FILE_PATH',
    )
    ready_python: StringProperty(
        name="Own Environment",
        description="Python of an environment that has all requirements already; empty: PTalker's",
        subtype='FILE_PATH',
    )
    keep_job_files: BoolProperty(
        name="Keep Job Files",
        description="Keep the files of every run, to look for errors",
        default=False,
    )

    def draw(self, context: Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        _draw_engine(layout, self)
        for section in sections:
            section(layout, context, self)
        layout.separator()
        column = layout.column()
        if paths.has_torch_setup():
            column.prop(self, "engine")
            column.prop(self, "device")
        column.prop(self, "checkpoint_source", expand=False)
        if self.checkpoint_source == 'FOLDER':
            column.prop(self, "checkpoint_folder")
        header, body = layout.panel("ptalker_advanced", default_closed=True)
        header.label(text="Advanced")
        if body is not None:
            names = ["decoder", "keep_job_files"]
            if paths.has_torch_setup():
                names = ["torch_build", "wheels", "base_python", "ready_python", *names]
            for name in names:
                body.prop(self, name)


def _draw_engine(layout: UILayout, preferences: PTALKER_AP_preferences) -> None:
    """Draw whether PTalker can speak."""
    box = layout.box()
    other = paths.other_python(preferences.ready_python)
    if other is not None:
        box.label(text=f"Uses the environment of {other}", icon='INFO')
        return
    draw_status(box, backend_status.own())
    row = box.row()
    row.operator("ptalker.open_log")


def draw_status(layout: UILayout, status: backend_env.Status) -> None:
    """Draw whether an engine is ready, and what was found."""
    column = layout.column(align=True)
    column.scale_y = 0.85
    icons: dict[str, Literal['CHECKMARK', 'INFO', 'ERROR']]
    icons = {'READY': 'CHECKMARK', 'MISSING': 'INFO'}
    column.label(text=status.text, icon=icons.get(status.state, 'ERROR'))
    if status.details:
        column.label(text="   ".join(status.details), icon='BLANK1')


def read(context: Context) -> Settings:
    """The preferences; the defaults where the add-on was enabled without an entry there."""
    entry = context.preferences.addons.get(__package__)
    values = entry.preferences if entry is not None else None
    if values is None:
        return Settings()
    bundled = values.checkpoint_source == 'BUNDLED'
    return Settings(
        engine=values.engine.lower(),
        device=values.device.lower(),
        checkpoint="base" if bundled else bpy.path.abspath(values.checkpoint_folder),
        decoder=values.decoder.lower(),
        torch_build=values.torch_build,
        wheels=values.wheels,
        base_python=values.base_python,
        ready_python=values.ready_python,
        keep_job_files=values.keep_job_files,
    )


_classes = (PTALKER_AP_preferences,)
register, unregister = classes_factory(_classes)
