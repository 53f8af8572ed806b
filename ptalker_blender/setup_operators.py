# SPDX-License-Identifier: GPL-3.0-or-later
"""Add, check, repair and remove the environment with PyTorch, and its part of the preferences."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import bpy
from bpy.types import Context, Event, UILayout

from . import (
    backend_env,
    backend_job,
    backend_status,
    env_installer,
    job_runner,
    paths,
    preferences,
    protocol,
    torch_setup_plan,
)
from .typed import Results, classes_factory, settings_of


def plan_of(settings: preferences.Settings, *, clear: bool = False) -> torch_setup_plan.Plan:
    """How PyTorch is added with these settings."""
    return torch_setup_plan.Plan(
        user_dir=paths.user_dir(),
        requirements=paths.requirements(),
        base_python=paths.base_python(settings.base_python),
        build=torch_setup_plan.choose_build(settings.torch_build),
        wheels=Path(bpy.path.abspath(settings.wheels)) if settings.wheels else None,
        clear=clear,
    )


def setup_steps(settings: preferences.Settings, *, clear: bool = False,
                ) -> list[torch_setup_plan.Step]:  # fmt: skip
    """The steps that add PyTorch.

    Args:
        settings: The preferences.
        clear: Whether to begin anew.

    Returns:
        The steps in order.

    Raises:
        UserError: The setup cannot work, and why.
    """
    plan = plan_of(settings, clear=clear)
    if plan.wheels is None and not bpy.app.online_access:
        raise protocol.UserError(
            "Blender may not use the network. Switch on Allow Online Access in the "
            "preferences (System > Network), or choose a folder of wheels."
        )
    torch_setup_plan.check_plan(plan)
    return torch_setup_plan.setup_steps(plan)


def setup_lines(settings: preferences.Settings) -> tuple[str, ...]:
    """What a setup with these settings will do, in lines for the user; fast enough for drawing."""
    return _setup_lines(settings, backend_status.read_at())


@lru_cache(maxsize=1)
def _setup_lines(settings: preferences.Settings, _read_at: float) -> tuple[str, ...]:
    return torch_setup_plan.describe(plan_of(settings))


def _draw_section(layout: UILayout, context: Context, values: Any) -> None:
    """Draw the state of PyTorch and the buttons that change it."""
    if paths.other_python(values.ready_python) is not None:
        return
    box = layout.box()
    job = settings_of(context.window_manager)
    status = backend_status.torch()
    preferences.draw_status(box, status)
    settings = preferences.read(context)
    if status.state != 'READY':
        column = box.column(align=True)
        column.scale_y = 0.85
        column.label(text="For graphics cards, training and models of your own", icon='BLANK1')
        for line in setup_lines(settings):
            column.label(text=line, icon='BLANK1')
        if not bpy.app.online_access and not settings.wheels:
            text = "Allow Online Access (System > Network), or choose a folder of wheels below"
            column.label(text=text, icon='INTERNET_OFFLINE')
            show = box.operator("screen.userpref_show", text="Network Preferences")
            show.section = 'SYSTEM'
    if job.is_running:
        row = box.row(align=True)
        row.progress(factor=job.fraction, text=job.stage)
        row.operator("ptalker.cancel", text="", icon='X')
        return
    box.separator(factor=0.0)  # see PTALKER_PT_main
    if job.result_kind == 'FAILED' and job.is_setup:
        box.label(text=job.result_text, icon='ERROR')
    row = box.row()
    if status.state == 'READY':
        row.operator("ptalker.check_backend")
    else:
        add = row.row()
        add.enabled = bool(bpy.app.online_access or settings.wheels)
        add.operator("ptalker.setup_backend", icon='IMPORT')
    if status.state != 'MISSING':
        row.operator("ptalker.repair_backend")
        row.operator("ptalker.remove_backend")


class SetupJob:
    """A setup or check as a job; see :class:`backend_job.Job` for the attributes."""

    is_busy = False
    is_setup = True

    def __init__(self, title: str, steps: list[torch_setup_plan.Step]) -> None:
        self.title = title
        self.stage = "Starting"
        self.fraction: float | None = 0.0
        self.seconds_left: float | None = None
        self.outcome: backend_job.Outcome | None = None
        self._steps = steps
        self._setup: env_installer.Setup | None = None

    def start(self) -> None:
        backend_job.release_backend()  # it would hold files in use
        self._setup = env_installer.Setup(
            self._steps,
            user_dir=paths.user_dir(),
            requirements=paths.requirements(),
            log_path=paths.setup_log(),
        )

    def poll(self, *, wait: float = 0.0) -> None:
        if self._setup is None:
            return
        self._setup.poll(wait=wait)
        self.stage, self.fraction = self._setup.stage, self._setup.fraction
        if not self._setup.is_done:
            return
        if self._setup.was_cancelled:
            text = f"{self.title} was cancelled. Press {backend_env.BUTTON} to go on."
            self.outcome = backend_job.Outcome('CANCELLED', text)
        elif self._setup.error:
            self.outcome = backend_job.Outcome('FAILED', self._setup.error)
        else:
            packages = self._setup.found.get("packages")
            torch = f" ({packages['torch']})" if isinstance(packages, dict) else ""
            self.outcome = backend_job.Outcome('DONE', f"PyTorch is ready{torch}.")

    def cancel(self) -> None:
        if self._setup is not None:
            self._setup.cancel()

    def close(self) -> None:
        if self._setup is not None:
            self._setup.close()


class _SetupOperator:
    """Base of the operators that run a setup or check as a job."""

    bl_options: Any = {'INTERNAL'}
    bl_label: str
    layout: Any
    report: Any
    poll_message_set: Any
    clear = False

    @classmethod
    def poll(cls, _context: Context) -> bool:
        if job_runner.is_running():
            cls.poll_message_set("A job is running.")
            return False
        return True

    def execute(self, context: Context) -> Results:
        operator: Any = self
        return job_runner.carry_out(
            operator,
            lambda: SetupJob(self.bl_label, self.steps(context)),
            wait=bpy.app.background,
        )

    def steps(self, context: Context) -> list[torch_setup_plan.Step]:
        """The child processes to run.

        Args:
            context: For the preferences.

        Returns:
            The steps in order.

        Raises:
            UserError: The setup cannot work, and why.
        """
        return setup_steps(preferences.read(context), clear=self.clear)


class _AskingOperator(_SetupOperator):
    """Tells what will be downloaded, where to, and the free space, before it starts."""

    def invoke(self, context: Context, _event: Event) -> Results:
        if bpy.app.background:
            return self.execute(context)
        title = self.bl_label.split(" ")[0]
        operator: Any = self
        return context.window_manager.invoke_props_dialog(operator, width=420, confirm_text=title)

    def draw(self, context: Context) -> None:
        layout: UILayout = self.layout
        settings = preferences.read(context)
        for line in setup_lines(settings):
            layout.label(text=line)
        if not settings.wheels and not bpy.app.online_access:
            layout.label(text="Allow Online Access first (System > Network)", icon='ERROR')


class PTALKER_OT_setup_backend(_AskingOperator, bpy.types.Operator):
    """Download PyTorch, for graphics cards, training and your own models; not needed to speak"""

    bl_idname = "ptalker.setup_backend"
    bl_label = "Add GPU and Research (PyTorch)"  # backend_env.BUTTON, which loads too much here


class PTALKER_OT_repair_backend(_AskingOperator, bpy.types.Operator):
    """Install PyTorch and what belongs to it anew"""

    bl_idname = "ptalker.repair_backend"
    bl_label = "Repair PyTorch"
    clear = True


class PTALKER_OT_check_backend(_SetupOperator, bpy.types.Operator):
    """Check whether PyTorch and all that belongs to it can be used"""

    bl_idname = "ptalker.check_backend"
    bl_label = "Check PyTorch"

    def steps(self, _context: Context) -> list[torch_setup_plan.Step]:
        return [torch_setup_plan.check_step(paths.user_dir(), paths.backend_root())]


class PTALKER_OT_remove_backend(bpy.types.Operator):
    """Delete PyTorch and what belongs to it, to free the space; it can be added again"""

    bl_idname = "ptalker.remove_backend"
    bl_label = "Remove PyTorch"
    bl_options = {'INTERNAL'}

    @classmethod
    def poll(cls, _context: Context) -> bool:
        return not job_runner.is_running()

    def invoke(self, context: Context, event: Event) -> Results:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, _context: Context) -> Results:
        backend_job.release_backend()
        try:
            torch_setup_plan.remove(paths.user_dir())
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        finally:
            backend_status.refresh()
            job_runner.redraw()
        self.report({'INFO'}, "PyTorch was removed.")
        return {'FINISHED'}


_classes = (
    PTALKER_OT_setup_backend,
    PTALKER_OT_repair_backend,
    PTALKER_OT_check_backend,
    PTALKER_OT_remove_backend,
)
_register_classes, _unregister_classes = classes_factory(_classes)


def register() -> None:
    """Register the operators and the part of the preferences."""
    _register_classes()
    preferences.sections.append(_draw_section)


def unregister() -> None:
    """Take them away again."""
    preferences.sections.remove(_draw_section)
    _unregister_classes()
