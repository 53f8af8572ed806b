# SPDX-License-Identifier: GPL-3.0-or-later
"""The Face Points panel, shown for heads that need it, and the points' drawing in viewports."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

import bpy
from bpy.types import Context, Object, UILayout

from . import (
    face_point_icons,
    face_point_overlay,
    face_points,
    paths,
    poll_checks,
    protocol,
    rig_target,
)
from .panels import HeadPanel, shown_head, wrapped_label
from .typed import classes_factory, layout_of, scene_of, settings_of

NAMES: Final = "face_point_names"
"""Property of the job's state with an item for each point: lists show collections alone."""
_NUM_ROWS: Final = 5
_PICTURE_SCALE: Final = 6.0
_ICONS: Final[dict[str, Literal['KEYFRAME', 'KEYFRAME_HLT', 'ERROR']]] = {
    "by hand": 'KEYFRAME_HLT', "found": 'KEYFRAME', "doubtful": 'ERROR',
}  # fmt: skip


def is_needed(obj: Object) -> bool:
    """Whether a head has points or will need some: its topology and its keys do not suffice."""
    root = paths.backend_root()
    if face_points.points(obj):
        return True
    if rig_target.advice(obj, settings_of(obj).key_target):
        return False
    return face_points.is_unknown(obj, root)


def _fill_names() -> None:
    """Fill the list of names, which drawing must not."""
    try:
        names = face_points.names(paths.backend_root())
    except protocol.UserError:
        return
    listed = getattr(settings_of(bpy.context.window_manager), NAMES)
    if len(listed) != len(names):
        listed.clear()
        for name in names:
            listed.add().name = face_points.title(name)


class PTALKER_UL_face_points(bpy.types.UIList):
    """Names of the points, each with how it was set."""

    states: ClassVar[dict[str, str]] = {}
    """Title -> state, as the panel has just read them."""

    def draw_item(
        self,
        context: Context,
        layout: Any,
        data: Any,
        item: Any,
        icon: int | None,
        active_data: Any,
        active_property: str | None,
        index: int | None,
        flt_flag: int | None,
    ) -> None:
        state = PTALKER_UL_face_points.states.get(item.name, "")
        layout.label(text=item.name, icon=_ICONS.get(state, 'RADIOBUT_OFF'))


class PTALKER_PT_face_points(HeadPanel, bpy.types.Panel):
    """Named points of a head that PTalker does not know."""

    bl_label = "Face Points"
    bl_order = 5
    bl_options = {'DEFAULT_CLOSED'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = shown_head(context)
        if obj is None:
            return False
        try:
            return is_needed(obj)
        except protocol.UserError:
            return False

    def draw(self, context: Context) -> None:
        layout, obj = layout_of(self), shown_head(context)
        if obj is None:
            return
        if not poll_checks.is_face_unknown(context):  # the main panel has the button then
            layout.operator("ptalker.find_face_points", icon='VIEWZOOM')
        if problem := face_points.problem(obj):
            wrapped_label(layout, context, problem, 'INFO')
            return
        known = face_points.points(obj)
        states = {face_points.title(name): str(point.state) for name, point in known.items()}
        PTALKER_UL_face_points.states = states
        self._draw_summary(layout, context, obj, known)
        self._draw_list(layout, context, obj)
        self._draw_chosen(layout, context, obj, known)
        self._draw_all(layout, known)

    @staticmethod
    def _draw_summary(layout: UILayout, context: Context, obj: Object, known: Any) -> None:
        names = face_points.names(paths.backend_root())
        doubtful = face_points.doubtful(known)
        if not known:
            text = "Where no face is found, click eight points and transfer the others."
            wrapped_label(layout, context, text, 'INFO')
        elif doubtful:
            text = f"{len(known)} of {len(names)} points, {len(doubtful)} doubtful"
            layout.label(text=text, icon='ERROR')
        else:
            is_done = len(known) == len(names)
            text = f"{len(known)} of {len(names)} points"
            layout.label(text=text, icon='CHECKMARK' if is_done else 'INFO')
        layout.prop(settings_of(scene_of(context)), "show_face_points")

    @staticmethod
    def _draw_list(layout: UILayout, context: Context, obj: Object) -> None:
        job = settings_of(context.window_manager)
        if not getattr(job, NAMES):
            if not bpy.app.background:
                bpy.app.timers.register(_fill_names, first_interval=0.0)
            return
        layout.template_list(
            "PTALKER_UL_face_points", "", job, NAMES, settings_of(obj), "face_point", rows=_NUM_ROWS
        )

    @staticmethod
    def _draw_chosen(layout: UILayout, context: Context, obj: Object, known: Any) -> None:
        names = face_points.names(paths.backend_root())
        name = names[min(settings_of(obj).face_point, len(names) - 1)]
        box = layout.box()
        row = box.row(align=True)
        row.operator("ptalker.step_face_point", text="", icon='TRIA_LEFT').step = -1
        title = row.row()
        title.alignment = 'CENTER'
        title.label(text=face_points.title(name))
        row.operator("ptalker.step_face_point", text="", icon='TRIA_RIGHT').step = 1
        picture = face_point_icons.icon(name)
        if picture:
            box.template_icon(icon_value=picture, scale=_PICTURE_SCALE)
        if obj.mode == 'EDIT':
            box.operator("ptalker.mark_face_point", icon='VERTEXSEL')
        else:
            box.operator("ptalker.click_face_points", icon='RESTRICT_SELECT_OFF')
        if name in known and known[name].state == face_points.State.DOUBTFUL:
            row = box.row(align=True)
            row.operator("ptalker.accept_face_point", icon='CHECKMARK').all = False
            row.operator("ptalker.accept_face_point", text="Accept All").all = True
        box.prop(settings_of(scene_of(context)), "mirror_face_points")

    @staticmethod
    def _draw_all(layout: UILayout, known: Any) -> None:
        if face_points.doubtful(known):
            row = layout.operator("ptalker.step_face_point", text="Next Doubtful", icon='FORWARD')
            row.only_asked = True
        if len(known) < len(face_points.names(paths.backend_root())):
            layout.operator("ptalker.transfer_face_points", icon='MOD_DATA_TRANSFER')
        if known:
            layout.operator("ptalker.clear_face_points", icon='TRASH')


class _Drawing:
    """The handler that Blender calls for each redraw of a viewport."""

    handler: Any = None
    is_broken: bool = False


def _draw_points() -> None:
    context = bpy.context
    if _Drawing.is_broken or context.scene is None:
        return
    if not settings_of(context.scene).show_face_points:
        return
    try:
        face_point_overlay.draw(context)
    except protocol.UserError:
        return
    except Exception:  # a bug must not come again with each redraw
        import logging  # here, since it costs a tenth of Blender's start with the add-on

        _Drawing.is_broken = True
        logging.getLogger(__name__).exception("The face points cannot be drawn")


_classes = (PTALKER_UL_face_points, PTALKER_PT_face_points)
_register_classes, _unregister_classes = classes_factory(_classes)


def register() -> None:
    """Register the panel, and the drawing where there is a window."""
    _register_classes()
    _Drawing.is_broken = False
    if not bpy.app.background:
        add: Any = bpy.types.SpaceView3D.draw_handler_add
        _Drawing.handler = add(_draw_points, (), 'WINDOW', 'POST_PIXEL')


def unregister() -> None:
    """Take both out again."""
    if _Drawing.handler is not None:
        bpy.types.SpaceView3D.draw_handler_remove(_Drawing.handler, 'WINDOW')
        _Drawing.handler = None
        face_point_icons.release()
    _unregister_classes()
