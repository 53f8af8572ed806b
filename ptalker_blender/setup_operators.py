# SPDX-License-Identifier: GPL-3.0-or-later
"""Set Up, Check, Repair and Remove the backend."""

from __future__ import annotations

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
)
from .typed import Results, classes_factory


class SetupJob:
    """A setup or check as a job; see :class:`backend_job.Job` for the attributes."""

    is_busy = False
    is_setup = True

    def __init__(self, title: str, steps: list[backend_env.Step]) -> None:
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
            text = f"{self.title} was cancelled. Press Set Up Backend to go on with it."
            self.outcome = backend_job.Outcome('CANCELLED', text)
        elif self._setup.error:
            self.outcome = backend_job.Outcome('FAILED', self._setup.error)
        else:
            packages = self._setup.found.get("packages")
            torch = f" (PyTorch {packages['torch']})" if isinstance(packages, dict) else ""
            self.outcome = backend_job.Outcome('DONE', f"The backend is ready{torch}.")

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

    def steps(self, context: Context) -> list[backend_env.Step]:
        """The child processes to run.

        Args:
            context: For the preferences.

        Returns:
            The steps in order.

        Raises:
            UserError: The setup cannot work, and why.
        """
        plan = preferences.plan_of(preferences.read(context), clear=self.clear)
        if plan.wheels is None and not bpy.app.online_access:
            raise protocol.UserError(
                "Blender may not use the network. Switch on Allow Online Access in the "
                "preferences (System > Network), or choose a folder of wheels."
            )
        backend_env.check_plan(plan)
        return backend_env.setup_steps(plan)


class _AskingOperator(_SetupOperator):
    """Tells what will be downloaded, where to, and the free space, before it starts."""

    def invoke(self, context: Context, _event: Event) -> Results:
        if bpy.app.background:
            return self.execute(context)
        title, _, _ = self.bl_label.rpartition(" ")
        operator: Any = self
        return context.window_manager.invoke_props_dialog(operator, width=420, confirm_text=title)

    def draw(self, context: Context) -> None:
        layout: UILayout = self.layout
        settings = preferences.read(context)
        for line in preferences.setup_lines(settings):
            layout.label(text=line)
        if not settings.wheels and not bpy.app.online_access:
            layout.label(text="Allow Online Access first (System > Network)", icon='ERROR')


class PTALKER_OT_setup_backend(_AskingOperator, bpy.types.Operator):
    """Install the environment in which PTalker's model runs; it can be cancelled and resumed"""

    bl_idname = "ptalker.setup_backend"
    bl_label = "Set Up Backend"


class PTALKER_OT_repair_backend(_AskingOperator, bpy.types.Operator):
    """Install the backend's environment anew"""

    bl_idname = "ptalker.repair_backend"
    bl_label = "Repair Backend"
    clear = True


class PTALKER_OT_check_backend(_SetupOperator, bpy.types.Operator):
    """Start the backend and check whether all its packages can be used"""

    bl_idname = "ptalker.check_backend"
    bl_label = "Check Backend"

    def steps(self, _context: Context) -> list[backend_env.Step]:
        return [backend_env.check_step(paths.user_dir(), paths.backend_root())]


class PTALKER_OT_remove_backend(bpy.types.Operator):
    """Delete the backend's environment to free its space; it can be set up again"""

    bl_idname = "ptalker.remove_backend"
    bl_label = "Remove Backend"
    bl_options = {'INTERNAL'}

    @classmethod
    def poll(cls, _context: Context) -> bool:
        return not job_runner.is_running()

    def invoke(self, context: Context, event: Event) -> Results:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, _context: Context) -> Results:
        backend_job.release_backend()
        try:
            backend_env.remove(paths.user_dir())
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        finally:
            backend_status.refresh()
            job_runner.redraw()
        self.report({'INFO'}, "The backend was removed.")
        return {'FINISHED'}


_classes = (
    PTALKER_OT_setup_backend,
    PTALKER_OT_repair_backend,
    PTALKER_OT_check_backend,
    PTALKER_OT_remove_backend,
)
register, unregister = classes_factory(_classes)
