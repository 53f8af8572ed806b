# SPDX-License-Identifier: GPL-3.0-or-later
"""Mark, Step, Transfer and Clear Face Points."""

from __future__ import annotations

import bpy
from bpy.props import IntProperty
from bpy.types import Context, Event

from . import face_point_fit, face_points, paths, protocol
from .typed import Results, active_object, classes_factory, settings_of


class PTALKER_OT_mark_face_point(bpy.types.Operator):
    """Store the selected vertex as this face point and go on to the next. Left and right are the head's own"""  # noqa: E501

    bl_idname = "ptalker.mark_face_point"
    bl_label = "Mark Face Point"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = context.active_object
        if obj is None or obj.type != 'MESH' or obj.mode != 'EDIT':
            cls.poll_message_set("Enter Edit Mode and select one vertex.")
            return False
        return True

    def execute(self, context: Context) -> Results:
        obj = active_object(context)
        try:
            names = face_points.names(paths.backend_root())
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        vertex = face_points.chosen_vertex(obj)
        if vertex is None:
            self.report({'ERROR'}, "Select one vertex.")
            return {'CANCELLED'}
        number = min(settings_of(obj).face_point, len(names) - 1)
        face_points.mark(obj, names[number], vertex)
        settings_of(obj).face_point = (number + 1) % len(names)
        return {'FINISHED'}


class PTALKER_OT_step_face_point(bpy.types.Operator):
    """Go to another face point; in Edit Mode its vertex is selected"""

    bl_idname = "ptalker.step_face_point"
    bl_label = "Step to Face Point"
    bl_options = {'INTERNAL', 'UNDO'}

    step: IntProperty(default=1, options={'SKIP_SAVE'})

    @classmethod
    def poll(cls, context: Context) -> bool:
        return context.active_object is not None and context.active_object.type == 'MESH'

    def execute(self, context: Context) -> Results:
        obj = active_object(context)
        try:
            names = face_points.names(paths.backend_root())
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        number = (settings_of(obj).face_point + self.step) % len(names)
        settings_of(obj).face_point = number
        if obj.mode == 'EDIT':
            face_points.select(obj, names[number])
        return {'FINISHED'}


class PTALKER_OT_transfer_face_points(bpy.types.Operator):
    """Find the missing face points by those of another head: the other selected one, or the demo head. Look through them and correct what is off"""  # noqa: E501

    bl_idname = "ptalker.transfer_face_points"
    bl_label = "Transfer from Head"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = context.active_object
        if obj is None or obj.type != 'MESH':
            return False
        if len(face_points.marked_names(obj)) < face_point_fit.MIN_POINTS:
            cls.poll_message_set(
                f"Mark at least {face_point_fit.MIN_POINTS} points first, best the lip "
                "corners, the outer eye corners, the nose tip and the chin."
            )
            return False
        return True

    def execute(self, context: Context) -> Results:
        obj = active_object(context)
        others = [o for o in context.selected_objects if o != obj and o.type == 'MESH']
        other = others[0] if others else None
        try:
            count = face_points.transfer(obj, other, paths.backend_root())
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        name = other.name if other is not None else "the demo head"
        settings_of(obj).face_point = 0
        self.report({'INFO'}, f"Found {count} face points after {name}. Look through them.")
        return {'FINISHED'}


class PTALKER_OT_clear_face_points(bpy.types.Operator):
    """Remove every marked face point of the head"""

    bl_idname = "ptalker.clear_face_points"
    bl_label = "Clear Face Points"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = context.active_object
        return obj is not None and obj.type == 'MESH' and bool(face_points.marked_names(obj))

    def invoke(self, context: Context, event: Event) -> Results:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Context) -> Results:
        obj = active_object(context)
        face_points.clear(obj)
        settings_of(obj).face_point = 0
        return {'FINISHED'}


_classes = (
    PTALKER_OT_mark_face_point,
    PTALKER_OT_step_face_point,
    PTALKER_OT_transfer_face_points,
    PTALKER_OT_clear_face_points,
)
register, unregister = classes_factory(_classes)
