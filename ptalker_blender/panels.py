# SPDX-License-Identifier: GPL-3.0-or-later
"""The PTalker tab in the 3D View's sidebar: it only draws."""

from __future__ import annotations

import textwrap
from typing import Any, Literal

import bpy
from bpy.types import Context, Object, UILayout

from . import job_runner, poll_checks
from .typed import classes_factory, layout_of, settings_of

_MARGIN = 90  # tabs, box and icon, in pixels at scale 1
_PIXELS_A_LETTER = 6.0
_SHOWN_LETTERS = 240
Icon = Literal['CHECKMARK', 'INFO', 'ERROR', 'OUTLINER_OB_SPEAKER']
_ICONS: dict[str, Icon] = {'DONE': 'CHECKMARK', 'CANCELLED': 'INFO', 'FAILED': 'ERROR'}


def shown_head(context: Context) -> Object | None:
    """The head that the panel is about; only a mesh has choices to show."""
    obj = settings_of(context.scene).head or context.active_object
    return obj if obj is not None and obj.type == 'MESH' else None


def wrapped_label(layout: UILayout, context: Context, text: str,
           icon: Icon) -> None:  # fmt: skip
    """A sentence that is wrapped to the sidebar's width."""
    pixels = context.region.width / context.preferences.system.ui_scale
    lines = textwrap.wrap(text, max(20, int((pixels - _MARGIN) / _PIXELS_A_LETTER)))
    column = layout.column(align=True)
    column.scale_y = 0.85
    for number, line in enumerate(lines):
        column.label(text=line, icon=icon if number == 0 else 'BLANK1')


class Tab:
    """Where the panels are."""

    bl_space_type: Any = 'VIEW_3D'
    bl_region_type: Any = 'UI'
    bl_category = "PTalker"


class PTALKER_PT_main(Tab, bpy.types.Panel):
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
        self._draw_generate(layout, context)
        self._draw_what_is_known(layout, context)
        if job_runner.has_result():
            self._draw_result(layout, context, job)

    @staticmethod
    def _draw_generate(layout: UILayout, context: Context) -> None:
        row = layout.row()
        row.scale_y = 1.4
        row.operator("ptalker.generate", icon='PLAY')
        # 4.3 takes the next item without data for the progress bar that was under the pointer, and
        # draws it as such: let that be nothing.
        layout.separator(factor=0.0)

    @staticmethod
    def _draw_what_is_known(layout: UILayout, context: Context) -> None:
        if reason := poll_checks.missing(context):
            wrapped_label(layout, context, reason, 'INFO')
        elif advice := poll_checks.advice(context):
            wrapped_label(layout, context, advice, 'INFO')
            if poll_checks.is_face_unknown(context):
                layout.operator("ptalker.find_face_points", icon='VIEWZOOM')
        found, head = poll_checks.character(context), shown_head(context)
        if found is not None and head is not None:
            text = found.summary if settings_of(head).with_character else "The head alone"
            layout.prop(settings_of(head), "with_character", text=text)
        for note in poll_checks.notes(context):
            wrapped_label(layout, context, note, 'INFO')
        if head is None or poll_checks.is_face_unknown(context):
            layout.operator("ptalker.add_demo_head", text="Add Demo Head", icon='USER')

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
        wrapped_label(box, context, job.result_text, _ICONS[job.result_kind])
        for warning in job.warnings:
            wrapped_label(box, context, warning.text, 'ERROR')
        if job.words:
            shown = textwrap.shorten(job.words, _SHOWN_LETTERS, placeholder=" …")
            wrapped_label(box, context, f"Heard: {shown}", 'OUTLINER_OB_SPEAKER')
            box.operator("ptalker.use_words")
        if job.result_kind == 'FAILED':
            box.operator("ptalker.open_log")


class HeadPanel(Tab):
    """A part of the panel that is about a head."""

    bl_parent_id = "PTALKER_PT_main"

    @classmethod
    def poll(cls, context: Context) -> bool:
        return shown_head(context) is not None


class PTALKER_PT_sound(HeadPanel, bpy.types.Panel):
    """What the head is to say."""

    bl_label = "Sound"
    bl_order = 1

    def draw(self, context: Context) -> None:
        settings = settings_of(shown_head(context))
        layout = layout_of(self)
        layout.row().prop(settings, "sound_source", expand=True)
        layout.use_property_split = True
        layout.use_property_decorate = False
        if settings.sound_source == 'STRIP':
            layout.prop(settings, "strip_name", icon='SOUND')
        else:
            layout.prop(settings, "sound_file")
            layout.prop(settings, "sound_frame")


class PTALKER_PT_words(HeadPanel, bpy.types.Panel):
    """How the speech is understood."""

    bl_label = "Words"
    bl_order = 2
    bl_options = {'DEFAULT_CLOSED'}

    def draw(self, context: Context) -> None:
        settings = settings_of(shown_head(context))
        layout = layout_of(self)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings, "listen")
        layout.prop(settings, "language")
        if settings.language not in {'auto', 'en'} and settings.listen in {'AUTO', 'WORDS'}:
            wrapped_label(layout, context, "Only English words are recognized: give them.", 'INFO')
        if settings.listen == 'TEXT':
            row = layout.row()
            row.enabled = settings.text_block is None
            row.prop(settings, "text")
            layout.prop(settings, "text_block")


class PTALKER_PT_style(HeadPanel, bpy.types.Panel):
    """How the head speaks."""

    bl_label = "Style"
    bl_order = 3

    def draw(self, context: Context) -> None:
        settings = settings_of(shown_head(context))
        layout = layout_of(self)
        layout.row().prop(settings, "style_source", expand=True)
        layout.use_property_split = True
        layout.use_property_decorate = False
        if settings.style_source == 'EXEMPLAR':
            row = layout.row()
            row.enabled = not settings.exemplar_file
            row.prop(settings, "exemplar")
            layout.prop(settings, "exemplar_file")
            column = layout.column(align=True, heading="Neutral Frame")
            column.prop(settings, "use_exemplar_neutral", text="")
            if settings.use_exemplar_neutral:
                column.prop(settings, "exemplar_neutral_frame")
        if settings.style_source == 'EXEMPLAR' and not settings.exemplar_file:
            column = layout.column(align=True, heading="Frame Range")
            column.prop(settings, "use_exemplar_range", text="")
            if settings.use_exemplar_range:
                column.prop(settings, "exemplar_start")
                column.prop(settings, "exemplar_end")
        elif settings.style_source == 'SAVED':
            layout.prop(settings, "saved_style")
        if settings.style_source != 'NEUTRAL':
            layout.prop(settings, "style_strength", slider=True)
            layout.prop(settings, "upper_face_strength", slider=True)
        self._draw_style_buttons(layout, settings)
        self._draw_emotion(layout, settings)

    @staticmethod
    def _draw_style_buttons(layout: UILayout, settings: Any) -> None:
        if settings.style_source == 'EXEMPLAR':
            layout.operator("ptalker.save_style", icon='FILE_TICK')
        elif settings.style_source == 'SAVED':
            row = layout.row(align=True)
            row.operator("ptalker.blend_styles")
            row.operator("ptalker.delete_style", text="", icon='TRASH')

    @staticmethod
    def _draw_emotion(layout: UILayout, settings: Any) -> None:
        column = layout.column()
        column.prop(settings, "first_emotion")
        if settings.first_emotion != 'NONE':
            row = column.row()
            row.use_property_decorate = True  # the dot that sets keys
            row.prop(settings, "emotion_amount", slider=True)
            column.prop(settings, "second_emotion", text="Second")
            if settings.second_emotion != 'NONE':
                column.prop(settings, "emotion_mix", slider=True)
        column.prop(settings, "emotion_from_voice", slider=True)


class PTALKER_PT_character(HeadPanel, bpy.types.Panel):
    """Which other meshes are keyed with the head."""

    bl_label = "Character"
    bl_order = 4
    bl_options = {'DEFAULT_CLOSED'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return shown_head(context) is not None and poll_checks.character(context) is not None

    def draw(self, context: Context) -> None:
        layout = layout_of(self)
        found = poll_checks.character(context)
        if found is None:
            return
        column = layout.column(align=True)
        column.active = settings_of(shown_head(context)).with_character
        for obj in found.meshes:
            column.prop(settings_of(obj), "goes_along", text=obj.name)


class PTALKER_PT_keys(HeadPanel, bpy.types.Panel):
    """Which shape keys are animated."""

    bl_label = "Shape Keys"
    bl_order = 4
    bl_options = {'DEFAULT_CLOSED'}

    def draw(self, context: Context) -> None:
        layout = layout_of(self)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings_of(shown_head(context)), "key_target", text="Use")


_classes = (
    PTALKER_PT_main,
    PTALKER_PT_sound,
    PTALKER_PT_words,
    PTALKER_PT_style,
    PTALKER_PT_character,
    PTALKER_PT_keys,
)
register, unregister = classes_factory(_classes)
