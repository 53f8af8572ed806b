# SPDX-License-Identifier: GPL-3.0-or-later
"""The PTalker tab in the 3D View's sidebar: it only draws."""

from __future__ import annotations

import textwrap
from typing import Any, Literal

import bpy
from bpy.types import Context, Object, UILayout

from . import face_points, job_runner, paths, poll_checks, protocol
from .typed import classes_factory, layout_of, settings_of

_MARGIN = 90  # tabs, box and icon, in pixels at scale 1
_PIXELS_A_LETTER = 6.0
Icon = Literal['CHECKMARK', 'INFO', 'ERROR']
_ICONS: dict[str, Icon] = {'DONE': 'CHECKMARK', 'CANCELLED': 'INFO', 'FAILED': 'ERROR'}


def _head(context: Context) -> Object | None:
    """The head that the panel is about; only a mesh has choices to show."""
    obj = settings_of(context.scene).head or context.active_object
    return obj if obj is not None and obj.type == 'MESH' else None


def _label(layout: UILayout, context: Context, text: str,
           icon: Icon) -> None:  # fmt: skip
    """A sentence that is wrapped to the sidebar's width."""
    pixels = context.region.width / context.preferences.system.ui_scale
    lines = textwrap.wrap(text, max(20, int((pixels - _MARGIN) / _PIXELS_A_LETTER)))
    column = layout.column(align=True)
    column.scale_y = 0.85
    for number, line in enumerate(lines):
        column.label(text=line, icon=icon if number == 0 else 'BLANK1')


class _Tab:
    bl_space_type: Any = 'VIEW_3D'
    bl_region_type: Any = 'UI'
    bl_category = "PTalker"


class PTALKER_PT_main(_Tab, bpy.types.Panel):
    """Head, Generate, progress and result."""

    bl_label = "PTalker"
    bl_order = 0

    def draw(self, context: Context) -> None:
        layout = layout_of(self)
        job = settings_of(context.window_manager)
        active = context.active_object
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(settings_of(context.scene), "head")
        if settings_of(context.scene).head is None and active is not None and active.type == 'MESH':
            row = column.split(factor=0.4)
            row.label()
            row.label(text=active.name, icon='OBJECT_DATA')
        if job.is_running:
            self._draw_progress(layout, job)
            return
        reason = poll_checks.missing(context)
        row = layout.row()
        row.scale_y = 1.4
        row.operator("ptalker.generate", icon='PLAY')
        # 4.3 takes the next item without data for the progress bar that was under the pointer, and
        # draws it as such: let that be nothing.
        layout.separator(factor=0.0)
        if reason:
            _label(layout, context, reason, 'INFO')
        elif advice := poll_checks.advice(context):
            _label(layout, context, advice, 'INFO')
        if _head(context) is None:
            layout.operator("ptalker.add_demo_head", text="Add Demo Head", icon='USER')
        if job_runner.has_result():
            self._draw_result(layout, context, job)

    @staticmethod
    def _draw_progress(layout: UILayout, job: Any) -> None:
        row = layout.row(align=True)
        row.scale_y = 1.4
        text = job.stage
        if job.seconds_left >= 0:
            minutes, seconds = divmod(max(1, round(job.seconds_left)), 60)
            text += f", {minutes}:{seconds:02d} left"
        row.progress(factor=job.fraction, text=text)
        row.operator("ptalker.cancel", text="", icon='X')

    @staticmethod
    def _draw_result(layout: UILayout, context: Context,
                     job: Any) -> None:  # fmt: skip
        box = layout.box()
        _label(box, context, job.result_text, _ICONS[job.result_kind])
        for warning in job.warnings:
            _label(box, context, warning.text, 'ERROR')
        if job.result_kind == 'FAILED':
            box.operator("ptalker.open_log")


class _HeadPanel(_Tab):
    bl_parent_id = "PTALKER_PT_main"

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _head(context) is not None


class PTALKER_PT_sound(_HeadPanel, bpy.types.Panel):
    """What the head is to say."""

    bl_label = "Sound"
    bl_order = 1

    def draw(self, context: Context) -> None:
        settings = settings_of(_head(context))
        layout = layout_of(self)
        layout.row().prop(settings, "sound_source", expand=True)
        layout.use_property_split = True
        layout.use_property_decorate = False
        if settings.sound_source == 'STRIP':
            layout.prop(settings, "strip_name", icon='SOUND')
        else:
            layout.prop(settings, "sound_file")
            layout.prop(settings, "sound_frame")


class PTALKER_PT_words(_HeadPanel, bpy.types.Panel):
    """How the speech is understood."""

    bl_label = "Words"
    bl_order = 2
    bl_options = {'DEFAULT_CLOSED'}

    def draw(self, context: Context) -> None:
        settings = settings_of(_head(context))
        layout = layout_of(self)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings, "listen")
        if settings.listen == 'TEXT':
            row = layout.row()
            row.enabled = settings.text_block is None
            row.prop(settings, "text")
            layout.prop(settings, "text_block")


class PTALKER_PT_style(_HeadPanel, bpy.types.Panel):
    """How the head speaks."""

    bl_label = "Style"
    bl_order = 3

    def draw(self, context: Context) -> None:
        settings = settings_of(_head(context))
        layout = layout_of(self)
        layout.row().prop(settings, "style_source", expand=True)
        layout.use_property_split = True
        layout.use_property_decorate = False
        if settings.style_source == 'EXEMPLAR':
            layout.prop(settings, "exemplar")
            column = layout.column(align=True, heading="Frame Range")
            column.prop(settings, "use_exemplar_range", text="")
            if settings.use_exemplar_range:
                column.prop(settings, "exemplar_start")
                column.prop(settings, "exemplar_end")
        elif settings.style_source == 'SAVED':
            layout.prop(settings, "saved_style")
        if settings.style_source != 'NEUTRAL':
            layout.prop(settings, "style_strength", slider=True)
        if settings.style_source == 'EXEMPLAR':
            layout.operator("ptalker.save_style", icon='FILE_TICK')
        elif settings.style_source == 'SAVED':
            row = layout.row(align=True)
            row.operator("ptalker.blend_styles")
            row.operator("ptalker.delete_style", text="", icon='TRASH')


class PTALKER_PT_keys(_HeadPanel, bpy.types.Panel):
    """Which shape keys are animated."""

    bl_label = "Shape Keys"
    bl_order = 4
    bl_options = {'DEFAULT_CLOSED'}

    def draw(self, context: Context) -> None:
        layout = layout_of(self)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings_of(_head(context)), "key_target", text="Use")


class PTALKER_PT_face_points(_HeadPanel, bpy.types.Panel):
    """Named points for a head that PTalker does not know."""

    bl_label = "Face Points"
    bl_order = 5
    bl_options = {'DEFAULT_CLOSED'}

    def draw(self, context: Context) -> None:
        layout = layout_of(self)
        obj = _head(context)
        if obj is None:
            return
        try:
            names = face_points.names(paths.backend_root())
        except protocol.UserError as error:
            _label(layout, context, str(error), 'ERROR')
            return
        marked = face_points.marked_names(obj)
        if obj.mode != 'EDIT':
            text = "For a head that PTalker does not know: mark its face points in Edit Mode."
            _label(layout, context, text, 'INFO')
        number = min(settings_of(obj).face_point, len(names) - 1)
        name = names[number]
        layout.label(text=f"{len(marked)} of {len(names)} marked")
        row = layout.row(align=True)
        row.operator("ptalker.step_face_point", text="", icon='TRIA_LEFT').step = -1
        row.operator(
            "ptalker.mark_face_point",
            text=face_points.title(name),
            icon='CHECKMARK' if name in marked else 'LAYER_ACTIVE',
        )
        row.operator("ptalker.step_face_point", text="", icon='TRIA_RIGHT').step = 1
        if len(marked) < len(names):
            layout.operator("ptalker.transfer_face_points", icon='MOD_DATA_TRANSFER')
        layout.operator("ptalker.clear_face_points", icon='TRASH')


_classes = (
    PTALKER_PT_main,
    PTALKER_PT_sound,
    PTALKER_PT_words,
    PTALKER_PT_style,
    PTALKER_PT_keys,
    PTALKER_PT_face_points,
)
register, unregister = classes_factory(_classes)
