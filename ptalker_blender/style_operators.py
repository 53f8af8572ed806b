# SPDX-License-Identifier: GPL-3.0-or-later
"""Save, Blend and Delete Style: the library of speaking styles."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import FloatProperty, StringProperty
from bpy.types import Context, Event

from . import (
    backend_job,
    job_runner,
    lip_sync_job,
    paths,
    poll_checks,
    preferences,
    protocol,
    scene_inputs,
    style_library,
)
from .typed import Results, classes_factory, scene_of, settings_of


class PTALKER_OT_save_style(bpy.types.Operator):
    """Save the exemplar's speaking style, to use it without the exemplar"""

    bl_idname = "ptalker.save_style"
    bl_label = "Save Style"
    bl_options = {'REGISTER'}

    name: StringProperty(name="Name", description="Name of the style")

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = scene_inputs.find_head(context)
        reason = poll_checks.backend_missing(context)
        if obj is not None and not reason:
            reason = scene_inputs.chosen_exemplar_problem(settings_of(obj))
        if reason:
            cls.poll_message_set(reason)
        return obj is not None and not reason

    def invoke(self, context: Context, _event: Event) -> Results:
        obj = scene_inputs.find_head(context)
        if not self.name and obj is not None:
            settings = settings_of(obj)
            path = scene_inputs.exemplar_file(settings)
            exemplar = settings.exemplar
            shown = exemplar.name if exemplar is not None else ""
            self.name = path.stem if path is not None else shown
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: Context) -> Results:
        return job_runner.carry_out(self, lambda: self._job(context), wait=bpy.app.background)

    def _job(self, context: Context) -> backend_job.Job:
        name = self.name.strip()
        style_library.path_of(name)
        obj = scene_inputs.find_head(context)
        if obj is None:
            raise protocol.UserError(scene_inputs.head_problem(obj))
        settings, scene = settings_of(obj), scene_of(context)
        exemplar = scene_inputs.exemplar_file(settings) or scene_inputs.exemplar_range(
            settings.exemplar, scene=scene, frames=scene_inputs.exemplar_frames(settings)
        )
        neutral = scene_inputs.neutral_frame(settings, scene)

        def finish(path: Path) -> str:
            style_library.adopt(name, path)
            return f'Saved the style "{name}".'

        return lip_sync_job.style_job(
            exemplar, neutral=neutral, settings=preferences.read(context), finish=finish
        )


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
        if obj is None or not settings_of(obj).saved_style:
            cls.poll_message_set("Choose a saved style first.")
            return False
        return True

    def invoke(self, context: Context, _event: Event) -> Results:
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: Context) -> Results:
        obj = scene_inputs.find_head(context)
        if obj is None:
            return {'CANCELLED'}
        first = settings_of(obj).saved_style
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
        settings_of(obj).saved_style = name
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
        return obj is not None and bool(settings_of(obj).saved_style)

    def invoke(self, context: Context, event: Event) -> Results:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Context) -> Results:
        obj = scene_inputs.find_head(context)
        if obj is None:
            return {'CANCELLED'}
        try:
            style_library.delete(settings_of(obj).saved_style)
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        settings_of(obj).saved_style = ""
        return {'FINISHED'}


_classes = (PTALKER_OT_save_style, PTALKER_OT_blend_styles, PTALKER_OT_delete_style)
register, unregister = classes_factory(_classes)
