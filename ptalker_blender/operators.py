# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate, Cancel and their kin: thin; the work is in the modules that they call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
from bpy.props import FloatProperty, StringProperty

from . import (
    backend_job,
    command,
    demo_head,
    job_runner,
    lip_sync_job,
    paths,
    poll_checks,
    preferences,
    protocol,
    scene_inputs,
    style_library,
)
from .untyped import Context, Event, Results, classes_factory


def report_outcome(operator: bpy.types.Operator, outcome: backend_job.Outcome) -> Results:
    """Tell how a job ended, in the operator's own words to Blender."""
    for warning in outcome.warnings:
        operator.report({'WARNING'}, warning)
    if outcome.kind == 'DONE':
        operator.report({'INFO'}, outcome.text)
        return {'FINISHED'}
    operator.report({'ERROR' if outcome.kind == 'FAILED' else 'INFO'}, outcome.text)
    return {'CANCELLED'}


class PTALKER_OT_generate(bpy.types.Operator):
    """Animate the head to the sound. Blender stays usable meanwhile"""

    bl_idname = "ptalker.generate"
    bl_label = "Generate Lip Sync"
    bl_options = {'REGISTER'}  # the undo step is pushed when the job has ended

    @classmethod
    def poll(cls, context: Context) -> bool:
        if reason := poll_checks.missing(context):
            cls.poll_message_set(reason)
        return not reason

    def invoke(self, context: Context, _event: Event) -> Results:
        if bpy.app.background:
            return self.execute(context)
        try:
            job_runner.start(self._job(context))
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        return {'FINISHED'}

    def execute(self, context: Context) -> Results:
        try:
            outcome = job_runner.run(self._job(context))
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        return report_outcome(self, outcome)

    def _job(self, context: Context) -> backend_job.Job:
        if job_runner.is_running():
            raise protocol.UserError("Another job of PTalker is running. Wait for it or cancel it.")
        obj = scene_inputs.find_head(context)
        if obj is None:
            raise protocol.UserError(scene_inputs.head_problem(obj))
        inputs = scene_inputs.collect(context, obj, scene_inputs.choices_of(context, obj))
        return lip_sync_job.generate_job(inputs, preferences.read(context))


class PTALKER_OT_cancel(bpy.types.Operator):
    """Stop the running job; the scene stays as it is"""

    bl_idname = "ptalker.cancel"
    bl_label = "Cancel"
    bl_options = {'INTERNAL'}

    @classmethod
    def poll(cls, _context: Context) -> bool:
        return job_runner.is_running()

    def execute(self, _context: Context) -> Results:
        job_runner.cancel()
        return {'FINISHED'}


class PTALKER_OT_save_style(bpy.types.Operator):
    """Save the exemplar's way of speaking, to use it without the exemplar"""

    bl_idname = "ptalker.save_style"
    bl_label = "Save Style"
    bl_options = {'REGISTER'}

    name: StringProperty(name="Name", description="Name of the style")

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = scene_inputs.find_head(context)
        reason = poll_checks.backend_missing(context)
        if obj is not None and not reason:
            reason = scene_inputs.exemplar_problem(obj.ptalker.exemplar, head=obj)
        if reason:
            cls.poll_message_set(reason)
        return obj is not None and not reason

    def invoke(self, context: Context, _event: Event) -> Results:
        obj = scene_inputs.find_head(context)
        if not self.name and obj is not None and obj.ptalker.exemplar is not None:
            self.name = obj.ptalker.exemplar.name
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: Context) -> Results:
        try:
            job = self._job(context)
            if bpy.app.background:
                return report_outcome(self, job_runner.run(job))
            job_runner.start(job)
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        return {'FINISHED'}

    def _job(self, context: Context) -> backend_job.Job:
        if job_runner.is_running():
            raise protocol.UserError("Another job of PTalker is running. Wait for it or cancel it.")
        name = self.name.strip()
        style_library.path_of(name)
        obj = scene_inputs.find_head(context)
        if obj is None:
            raise protocol.UserError(scene_inputs.head_problem(obj))
        choices = scene_inputs.choices_of(context, obj)
        exemplar = scene_inputs.read_exemplar(
            obj.ptalker.exemplar, scene=context.scene, frames=choices.exemplar_frames
        )

        def finish(path: Path) -> str:
            style_library.adopt(name, path)
            return f'Saved the style "{name}".'

        return lip_sync_job.style_job(exemplar, settings=preferences.read(context), finish=finish)


class PTALKER_OT_blend_styles(bpy.types.Operator):
    """Save a style between two saved ones"""

    bl_idname = "ptalker.blend_styles"
    bl_label = "Blend Styles"
    bl_options = {'REGISTER'}

    second: StringProperty(
        name="With",
        description="The other style",
        search=lambda _self, _context, text: [
            name for name in paths.saved_style_names() if text.casefold() in name.casefold()
        ],
    )
    factor: FloatProperty(
        name="Factor",
        description="0 is this style, 1 the other one",
        default=0.5,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
    )
    name: StringProperty(name="Name", description="Name of the new style")

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = scene_inputs.find_head(context)
        if obj is None or not obj.ptalker.saved_style:
            cls.poll_message_set("Choose a saved style first.")
            return False
        return True

    def invoke(self, context: Context, _event: Event) -> Results:
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: Context) -> Results:
        obj = scene_inputs.find_head(context)
        if obj is None:
            return {'CANCELLED'}
        first = obj.ptalker.saved_style
        name = self.name.strip() or f"{first} and {self.second}"
        try:
            mixed = style_library.blend(
                style_library.load(style_library.existing_path(first)),
                style_library.load(style_library.existing_path(self.second)),
                self.factor,
            )
            style_library.save(name, mixed)
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        obj.ptalker.saved_style = name
        self.report({'INFO'}, f'Saved the style "{name}".')
        return {'FINISHED'}


class PTALKER_OT_delete_style(bpy.types.Operator):
    """Delete the chosen saved style"""

    bl_idname = "ptalker.delete_style"
    bl_label = "Delete Style"
    bl_options = {'REGISTER'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = scene_inputs.find_head(context)
        return obj is not None and bool(obj.ptalker.saved_style)

    def invoke(self, context: Context, event: Event) -> Results:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Context) -> Results:
        obj = scene_inputs.find_head(context)
        if obj is None:
            return {'CANCELLED'}
        try:
            style_library.delete(obj.ptalker.saved_style)
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        obj.ptalker.saved_style = ""
        return {'FINISHED'}


class PTALKER_OT_add_demo_head(bpy.types.Operator):
    """Add PTalker's own head, with a sentence for it to speak where the sequencer is empty"""

    bl_idname = "ptalker.add_demo_head"
    bl_label = "Demo Head"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return bool(context.mode == 'OBJECT')

    def execute(self, context: Context) -> Results:
        try:
            root = paths.backend_root()
            obj = demo_head.add(context, root / "backend" / "demo" / "head.npz")
            demo_head.add_sentence(context, obj, root / "backend" / "demo" / "speech.ogg")
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        return {'FINISHED'}


class PTALKER_OT_open_log(bpy.types.Operator):
    """Open what the backend and its set-up wrote in Blender's Text Editor"""

    bl_idname = "ptalker.open_log"
    bl_label = "Show Log"
    bl_options = {'INTERNAL'}

    def execute(self, context: Context) -> Results:
        found = [path for path in (paths.backend_log(), paths.setup_log()) if path.is_file()]
        if not found:
            self.report({'INFO'}, "There is no log yet.")
            return {'CANCELLED'}
        for path in found:
            text = bpy.data.texts.get(path.name) or bpy.data.texts.new(path.name)
            text.from_string(path.read_text("utf-8", "replace"))
        if not bpy.app.background:
            bpy.ops.wm.window_new()
            area = context.window_manager.windows[-1].screen.areas[0]
            area.type = 'TEXT_EDITOR'
            area.spaces.active.text = bpy.data.texts[found[0].name]
        return {'FINISHED'}


def _draw_add_menu(self: bpy.types.Menu, _context: Context) -> None:
    self.layout.operator("ptalker.add_demo_head", text="PTalker Demo Head", icon='USER')


_classes = (
    PTALKER_OT_generate,
    PTALKER_OT_cancel,
    PTALKER_OT_save_style,
    PTALKER_OT_blend_styles,
    PTALKER_OT_delete_style,
    PTALKER_OT_add_demo_head,
    PTALKER_OT_open_log,
)
_register_classes, _unregister_classes = classes_factory(_classes)
_commands: list[Any] = []


def _run_command(arguments: Sequence[str]) -> int:
    return command.main(arguments)


def register() -> None:
    """Register the operators, the entry of the Add > Mesh menu, and ``--command ptalker``."""
    _register_classes()
    bpy.types.VIEW3D_MT_mesh_add.append(_draw_add_menu)
    make: Any = bpy.utils.register_cli_command
    _commands.append(make("ptalker", _run_command))


def unregister() -> None:
    """Take them away again."""
    bpy.utils.unregister_cli_command(_commands.pop())
    bpy.types.VIEW3D_MT_mesh_add.remove(_draw_add_menu)
    _unregister_classes()
