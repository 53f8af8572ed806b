# SPDX-License-Identifier: GPL-3.0-or-later
"""Find, Set, Accept, Step, Transfer and Clear Face Points."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, IntProperty
from bpy.types import Context, Event, Object

from . import (
    backend_job,
    face_point_fit,
    face_point_job,
    face_point_set,
    face_point_transfer,
    face_points,
    job_runner,
    paths,
    poll_checks,
    preferences,
    protocol,
    scene_inputs,
)
from .typed import Results, classes_factory, scene_of, settings_of


def _head(context: Context) -> Object:
    """The panel's head, where poll has seen that it is a mesh."""
    obj = scene_inputs.find_head(context)
    if obj is None:
        raise protocol.UserError("Select the head.")
    return obj


def _poll_message(context: Context) -> str:
    """Why no point can be put on the panel's head; empty where one can."""
    obj = scene_inputs.find_head(context)
    return "Select the mesh of the head." if obj is None else face_points.problem(obj)


def _chosen(obj: Object) -> tuple[int, str]:
    names = face_points.names(paths.backend_root())
    number = min(settings_of(obj).face_point, len(names) - 1)
    return number, names[number]


def _num_points(obj: Object) -> int:
    """How many points a mesh object has; none where the backend's files are missing."""
    try:
        return len(face_points.points(obj))
    except protocol.UserError:
        return 0


class PTALKER_OT_find_face_points(bpy.types.Operator):
    """Look for the head's face and store where its lips, lids and other points are. Points that were set by hand stay"""  # noqa: E501

    bl_idname = "ptalker.find_face_points"
    bl_label = "Find Face Points"
    bl_options = {'REGISTER'}  # the undo step is pushed when the job has ended

    @classmethod
    def poll(cls, context: Context) -> bool:
        if reason := poll_checks.backend_missing(context) or cls._problem(context):
            cls.poll_message_set(reason)
        return not reason

    @staticmethod
    def _problem(context: Context) -> str:
        obj = scene_inputs.find_head(context)
        if (reason := _poll_message(context)) or obj is None:
            return reason
        if obj.mode == 'EDIT':
            return "Leave Edit Mode first (Tab)."
        if len(obj.data.polygons) == 0:
            return f'The mesh "{obj.name}" has no faces. Select the mesh of the head.'
        return ""

    def invoke(self, context: Context, _event: Event) -> Results:
        return job_runner.carry_out(self, lambda: self._job(context), wait=bpy.app.background)

    def execute(self, context: Context) -> Results:
        return job_runner.carry_out(self, lambda: self._job(context), wait=True)

    def _job(self, context: Context) -> backend_job.Job:
        return face_point_job.find_job(_head(context), preferences.read(context))


class PTALKER_OT_mark_face_point(bpy.types.Operator):
    """Store the selected vertex as this face point and go on to the next. Left and right are the head's own"""  # noqa: E501

    bl_idname = "ptalker.mark_face_point"
    bl_label = "Set to Selected Vertex"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = scene_inputs.find_head(context)
        reason = _poll_message(context)
        if not reason and (obj is None or obj.mode != 'EDIT'):
            reason = "Enter Edit Mode and select one vertex."
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: Context) -> Results:
        try:
            obj = _head(context)
            number, name = _chosen(obj)
            vertex = face_points.chosen_vertex(obj)
            mirror = settings_of(scene_of(context)).mirror_face_points
            notes = [face_points.bring_over(obj)]
            notes.append(face_point_set.set_point(obj, name, vertex, mirror=mirror))
            count = len(face_points.names(paths.backend_root()))
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        for note in filter(None, notes):
            self.report({'WARNING'}, note)
        settings_of(obj).face_point = (number + 1) % count
        return {'FINISHED'}


class PTALKER_OT_accept_face_point(bpy.types.Operator):
    """The doubtful point is right where it is: keep it there, also when points are found again"""

    bl_idname = "ptalker.accept_face_point"
    bl_label = "Accept"
    bl_options = {'REGISTER', 'UNDO'}

    all: BoolProperty(name="All", description="Accept all doubtful points", default=False)

    @classmethod
    def poll(cls, context: Context) -> bool:
        if reason := _poll_message(context):
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: Context) -> Results:
        try:
            obj = _head(context)
            known = face_points.points(obj)
            names = face_points.doubtful(known) if self.all else [_chosen(obj)[1]]
            by_hand = face_points.State.HAND
            new = {n: face_points.Point(known[n].vertex, by_hand) for n in names if n in known}
            face_points.store(obj, new)
            asked = face_points.asked_for(obj, paths.backend_root())
            if asked:
                wanted = face_points.names(paths.backend_root())
                settings_of(obj).face_point = wanted.index(asked[0])
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        job_runner.redraw()
        return {'FINISHED'} if new else {'CANCELLED'}


class PTALKER_OT_step_face_point(bpy.types.Operator):
    """Go to another face point; in Edit Mode its vertex is selected"""

    bl_idname = "ptalker.step_face_point"
    bl_label = "Step to Face Point"
    bl_options = {'INTERNAL', 'UNDO'}

    step: IntProperty(default=1, options={'SKIP_SAVE'})
    only_asked: BoolProperty(default=False, options={'SKIP_SAVE'})

    @classmethod
    def description(cls, _context: Context, properties: bpy.types.OperatorProperties) -> str:
        return "Go to the next point that is doubtful or missing" if properties.only_asked else ""

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = scene_inputs.find_head(context)
        return obj is not None and obj.type == 'MESH'

    def execute(self, context: Context) -> Results:
        try:
            obj = _head(context)
            number, _ = _chosen(obj)
            names = face_points.names(paths.backend_root())
            wanted = set(names)
            if self.only_asked:
                wanted = set(face_points.asked_for(obj, paths.backend_root())) or wanted
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        number = (number + self.step) % len(names)
        while names[number] not in wanted:
            number = (number + self.step) % len(names)
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
        obj = scene_inputs.find_head(context)
        if _poll_message(context) or obj is None:
            return False
        if _num_points(obj) < face_point_fit.MIN_POINTS:
            cls.poll_message_set(
                f"Mark at least {face_point_fit.MIN_POINTS} points first, best the lip "
                "corners, the outer eye corners, the nose tip and the chin."
            )
            return False
        return True

    def execute(self, context: Context) -> Results:
        try:
            obj = _head(context)
            selected = context.view_layer.objects.selected
            others = [o for o in selected if o != obj and o.type == 'MESH']
            other = others[0] if others else None
            count = face_point_transfer.transfer(obj, other, paths.backend_root())
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        name = other.name if other is not None else "the demo head"
        settings_of(obj).face_point = 0
        settings_of(scene_of(context)).show_face_points = True
        self.report({'INFO'}, f"Found {count} face points after {name}. Look through them.")
        return {'FINISHED'}


class PTALKER_OT_clear_face_points(bpy.types.Operator):
    """Remove every face point of the head"""

    bl_idname = "ptalker.clear_face_points"
    bl_label = "Clear Face Points"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = scene_inputs.find_head(context)
        return not _poll_message(context) and obj is not None and _num_points(obj) > 0

    def invoke(self, context: Context, event: Event) -> Results:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Context) -> Results:
        obj = _head(context)
        face_points.clear(obj)
        settings_of(obj).face_point = 0
        return {'FINISHED'}


_classes = (
    PTALKER_OT_find_face_points,
    PTALKER_OT_mark_face_point,
    PTALKER_OT_accept_face_point,
    PTALKER_OT_step_face_point,
    PTALKER_OT_transfer_face_points,
    PTALKER_OT_clear_face_points,
)
register, unregister = classes_factory(_classes)
