# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: device, checkpoint, the backend's state and set-up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty
from bpy.types import Context, UILayout

from . import backend_env, backend_status, paths
from .typed import classes_factory, settings_of


@dataclass(frozen=True, slots=True)
class Settings:
    """The preferences as plain values; the defaults hold where Blender keeps none.

    Attributes:
        engine: ``auto``, ``onnx`` or ``torch``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        checkpoint: Name or folder.
        decoder: ``parallel`` or ``autoregressive``.
        torch_build: ``AUTO``, ``CPU`` or ``CUDA``.
        wheels: Folder of wheels; empty: download.
        base_python: Python to make the environment from; empty: Blender's own.
        ready_python: Python of another, ready environment; empty: the add-on's own.
        keep_job_files: Whether a job's files are kept.
    """

    engine: str = "auto"
    device: str = "auto"
    checkpoint: str = "base"
    decoder: str = "parallel"
    torch_build: backend_env.TorchBuild = 'AUTO'
    wheels: str = ""
    base_python: str = ""
    ready_python: str = ""
    keep_job_files: bool = False


class PTALKER_AP_preferences(bpy.types.AddonPreferences):
    """Preferences of PTalker."""

    bl_idname = __package__

    engine: EnumProperty(
        name="Engine",
        description="What runs the model",
        items=(
            ('AUTO', "Automatic", "PyTorch with a graphics card or where the model needs it"),
            ('ONNX', "Built In", "ONNX Runtime, on the processor"),
            ('TORCH', "PyTorch", "PyTorch, which is added here"),
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
        description="Python 3.11 to 3.14 to make the backend from; empty: Blender's own",
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
        _draw_backend(layout, context, self)
        layout.separator()
        column = layout.column()
        column.prop(self, "engine")
        column.prop(self, "device")
        column.prop(self, "checkpoint_source", expand=False)
        if self.checkpoint_source == 'FOLDER':
            column.prop(self, "checkpoint_folder")
        header, body = layout.panel("ptalker_advanced", default_closed=True)
        header.label(text="Advanced")
        if body is not None:
            for name in ("torch_build", "wheels", "base_python", "ready_python", "decoder",
                         "keep_job_files"):  # fmt: skip
                body.prop(self, name)


def _draw_backend(layout: UILayout, context: Context,
                  preferences: PTALKER_AP_preferences) -> None:  # fmt: skip
    """Draw the backend's state and the buttons that change it."""
    box = layout.box()
    job = settings_of(context.window_manager)
    other = paths.other_python(preferences.ready_python)
    if other is not None:
        box.label(text=f"Uses the environment of {other}", icon='INFO')
    else:
        status = backend_status.status()
        _draw_status(box, context, status)
    if job.is_running:
        row = box.row(align=True)
        row.progress(factor=job.fraction, text=job.stage)
        row.operator("ptalker.cancel", text="", icon='X')
        return
    box.separator(factor=0.0)  # see PTALKER_PT_main
    if job.result_kind == 'FAILED' and job.is_setup:
        box.label(text=job.result_text, icon='ERROR')
    row = box.row()
    if other is None:
        if status.state != 'READY':
            row.operator("ptalker.setup_backend", icon='IMPORT')
        else:
            row.operator("ptalker.check_backend")
        if status.state != 'MISSING':
            row.operator("ptalker.repair_backend")
            row.operator("ptalker.remove_backend")
    row.operator("ptalker.open_log")


def _draw_status(box: UILayout, context: Context,
                 status: backend_env.Status) -> None:  # fmt: skip
    """Draw whether the backend is ready, and what a setup would do where it is not."""
    column = box.column(align=True)
    column.scale_y = 0.85
    column.label(text=status.text, icon='CHECKMARK' if status.state == 'READY' else 'ERROR')
    if status.details:
        column.label(text="   ".join(status.details), icon='BLANK1')
    if status.state == 'READY':
        return
    settings = read(context)
    for line in setup_lines(settings):
        column.label(text=line, icon='BLANK1')
    if not bpy.app.online_access and not settings.wheels:
        text = "Allow Online Access (System > Network), or choose a folder of wheels below"
        column.label(text=text, icon='INTERNET_OFFLINE')


def setup_lines(settings: Settings) -> tuple[str, ...]:
    """What a setup with these settings will do, in lines for the user; fast enough for drawing."""
    return _setup_lines(settings, backend_status.read_at())


@lru_cache(maxsize=1)
def _setup_lines(settings: Settings, _read_at: float) -> tuple[str, ...]:
    return backend_env.describe(plan_of(settings))


def plan_of(settings: Settings, *, clear: bool = False) -> backend_env.Plan:
    """How the backend is set up with these settings."""
    return backend_env.Plan(
        user_dir=paths.user_dir(),
        requirements=paths.requirements(),
        base_python=paths.base_python(settings.base_python),
        build=backend_env.choose_build(settings.torch_build),
        wheels=Path(bpy.path.abspath(settings.wheels)) if settings.wheels else None,
        clear=clear,
    )


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
