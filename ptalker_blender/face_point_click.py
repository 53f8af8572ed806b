# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets face points by clicks on the head in the viewport: the asked one, then the next."""

from __future__ import annotations

from typing import Any, Final

import bpy
from bpy.types import Context, Event, Object, Region

from . import (
    face_point_overlay,
    face_point_picking,
    face_point_set,
    face_points,
    paths,
    protocol,
    scene_inputs,
)
from .typed import Results, classes_factory, scene_of, settings_of

_NAVIGATION: Final = {'MOUSEMOVE', 'INBETWEEN_MOUSEMOVE', 'TIMER'}


class PTALKER_OT_click_face_points(bpy.types.Operator):
    """Click the chosen face point on the head: the nearest vertex is taken, and the next point that is doubtful or missing is asked for. Esc ends. Left and right are the head's own"""  # noqa: E501

    bl_idname = "ptalker.click_face_points"
    bl_label = "Click in Viewport"
    bl_options = {'INTERNAL'}  # each click is an undo step of its own

    _head: int = 0

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = scene_inputs.find_head(context)
        if obj is None or obj.type != 'MESH' or obj.mode != 'OBJECT':
            cls.poll_message_set("Select the head in Object Mode.")
            return False
        if problem := face_points.problem(obj):
            cls.poll_message_set(problem)
        return not problem

    def invoke(self, context: Context, _event: Event) -> Results:
        obj, area = scene_inputs.find_head(context), context.area
        if obj is None or area is None or area.type != 'VIEW_3D':
            return {'CANCELLED'}
        try:
            asked = face_points.asked_for(obj, paths.backend_root())
            if not face_points.points(obj) and asked:
                self._choose(obj, asked[0])
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        self._head = obj.session_uid
        settings_of(scene_of(context)).show_face_points = True
        context.window.cursor_modal_set('CROSSHAIR')
        self._ask(context, obj)
        context.window_manager.modal_handler_add(self)
        return {'RUNNING_MODAL'}

    def modal(self, context: Context, event: Event) -> Results:
        obj = next((o for o in scene_of(context).objects if o.session_uid == self._head), None)
        area = context.area
        if obj is None or obj.mode != 'OBJECT' or area is None or area.type != 'VIEW_3D':
            return self._end(context)
        if event.type in {'ESC', 'RET', 'RIGHTMOUSE'} and event.value == 'PRESS':
            return self._end(context)
        region = _viewport_at(area, event.mouse_x, event.mouse_y)
        if event.type in _NAVIGATION:
            self._aim(context, obj, region, event)
            return {'PASS_THROUGH'}
        if event.type != 'LEFTMOUSE' or region is None or event.alt:
            return {'PASS_THROUGH'}
        if event.value != 'PRESS':
            return {'RUNNING_MODAL'}
        pixel = (event.mouse_x - region.x, event.mouse_y - region.y)
        vertex = _vertex_under(context, region, obj, pixel)
        if vertex is None:
            self.report({'INFO'}, f'Click on "{obj.name}".')
            return {'RUNNING_MODAL'}
        is_last = self._set(context, obj, vertex)
        return self._end(context) if is_last else {'RUNNING_MODAL'}

    def cancel(self, context: Context) -> None:
        self._end(context)

    def _set(self, context: Context, obj: Object, vertex: int) -> bool:
        """Set the asked point and ask for the next one; whether none is left."""
        root = paths.backend_root()
        names = face_points.names(root)
        number = min(settings_of(obj).face_point, len(names) - 1)
        mirror = settings_of(scene_of(context)).mirror_face_points
        note = face_point_set.set_point(obj, names[number], vertex, mirror=mirror)
        if note:
            self.report({'WARNING'}, note)
        asked = face_points.asked_for(obj, root)
        later = [name for name in asked if names.index(name) > number] or asked
        if asked:
            self._choose(obj, later[0])
            self._ask(context, obj)
        undo: Any = bpy.ops.ed
        undo.undo_push(message=f"Set {face_points.title(names[number])}")
        return not asked

    def _choose(self, obj: Object, name: str) -> None:
        settings_of(obj).face_point = face_points.names(paths.backend_root()).index(name)

    def _ask(self, context: Context, obj: Object) -> None:
        names = face_points.names(paths.backend_root())
        title = face_points.title(names[min(settings_of(obj).face_point, len(names) - 1)])
        face_point_overlay.Aim.text = title
        context.workspace.status_text_set(f"Click {title}   |   Esc: Done")
        context.area.tag_redraw()

    def _aim(self, context: Context, obj: Object, region: Region | None, event: Event) -> None:
        vertex = None
        if region is not None:
            pixel = (event.mouse_x - region.x, event.mouse_y - region.y)
            vertex = _vertex_under(context, region, obj, pixel)
        face_point_overlay.Aim.head = obj.session_uid
        face_point_overlay.Aim.vertex = -1 if vertex is None else vertex
        context.area.tag_redraw()

    def _end(self, context: Context) -> Results:
        face_point_overlay.Aim.head, face_point_overlay.Aim.vertex = 0, -1
        context.window.cursor_modal_restore()
        context.workspace.status_text_set(None)
        if context.area is not None:
            context.area.tag_redraw()
        return {'FINISHED'}


def _vertex_under(context: Context, region: Region, obj: Object,
                  pixel: tuple[float, float]) -> int | None:  # fmt: skip
    """The vertex under a pixel that no other point set by hand has."""
    names, by_hand = face_points.names(paths.backend_root()), face_points.State.HAND
    asked = names[min(settings_of(obj).face_point, len(names) - 1)]
    known = face_points.points(obj)
    taken = [p.vertex for name, p in known.items() if name != asked and p.state == by_hand]
    return face_point_picking.vertex_under(context, region, obj, pixel, taken=taken)


def _viewport_at(area: bpy.types.Area, x: int, y: int) -> Region | None:
    """The region with the scene under the pointer; None over the sidebar and headers."""
    under = [r for r in area.regions if r.x <= x < r.x + r.width and r.y <= y < r.y + r.height]
    if not under or any(region.type != 'WINDOW' for region in under):
        return None
    return under[0]


register, unregister = classes_factory((PTALKER_OT_click_face_points,))
