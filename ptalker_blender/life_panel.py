# SPDX-License-Identifier: GPL-3.0-or-later
"""The Life panel: what the face does besides speaking, and what the head turns with."""

from __future__ import annotations

import bpy
from bpy.types import Context

from .panels import HeadPanel, shown_head
from .typed import classes_factory, layout_of, settings_of


class PTALKER_PT_life(HeadPanel, bpy.types.Panel):
    """Blinks, gaze, brows, head and breath."""

    bl_label = "Life"
    bl_order = 4
    bl_options = {'DEFAULT_CLOSED'}

    def draw(self, context: Context) -> None:
        settings = settings_of(shown_head(context))
        layout = layout_of(self)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings, "life", text="Amount", slider=True)
        column = layout.column(align=True)
        column.active = settings.life > 0.0
        for name in ("blinks", "gaze", "brows", "breath"):
            column.prop(settings, name, slider=True)
        layout.prop(settings, "seed")
        layout.prop(settings, "head_target", text="Head")
        if settings.head_target == 'NONE':
            return
        layout.prop(settings, "head_motion", text="Motion", slider=True)
        is_bone = settings.head_target == 'BONE'
        layout.prop(settings, "head_object", text="Armature" if is_bone else "Object")
        target = settings.head_object
        if is_bone and target is not None and target.type == 'ARMATURE':
            layout.prop_search(settings, "head_bone", target.data, "bones")


_classes = (PTALKER_PT_life,)
register, unregister = classes_factory(_classes)
