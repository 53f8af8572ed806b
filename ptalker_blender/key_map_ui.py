# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what drives which shape key or pose: on the object, in a panel, in files.

Without a table the keys' names decide. Filled once from them, it can be edited row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import bpy
from bpy.props import (
    CollectionProperty,
    FloatProperty,
    IntProperty,
    StringProperty,
)
from bpy.types import Context, Event

from . import bone_poses, key_map, protocol, rig_mapping, rig_target, scene_inputs
from .typed import Results, classes_factory

ROWS: Final = "ptalker_key_rows"
ACTIVE_ROW: Final = "ptalker_active_key_row"
"""Properties of an object. In a group, 5.0 would lose them on a library override."""
_OVERRIDABLE: Final[Any] = {'LIBRARY_OVERRIDABLE'}
_INSERTABLE: Final[Any] = {'LIBRARY_OVERRIDABLE', 'USE_INSERTION'}
_NUM_ROWS: Final = 6


def _search_sources(_owner: Any, _context: Context,
                    text: str) -> Iterator[str]:  # fmt: skip
    for source in key_map.SOURCES:
        if text.casefold() in source.casefold():
            yield source


class PTALKER_PG_key_row(bpy.types.PropertyGroup):
    """One row: a shape key, what drives it, how much."""

    name: StringProperty(
        name="Target", description="Shape key of the head, or pose of its armature"
    )
    source: StringProperty(
        name="Driven By",
        description="ARKit blendshape or viseme that drives the row; empty for none",
        search=_search_sources,
        override=_OVERRIDABLE,
    )
    gain: FloatProperty(
        name="Gain",
        description="What the weight is multiplied by",
        default=1.0,
        soft_min=0.0,
        soft_max=2.0,
        min=-10.0,
        max=10.0,
        override=_OVERRIDABLE,
    )


class PTALKER_UL_key_map(bpy.types.UIList):
    """Rows of the table; the filter finds shape keys by their names."""

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
        keys = data.data.shape_keys
        if keys is not None and item.name in keys.key_blocks:
            layout.label(text=item.name, icon='SHAPEKEY_DATA')
        elif (pose := key_map.pose_of(item.name)) is not None:
            is_there = bone_poses.is_there(item.name)
            text = f"{pose[0]}, frame {pose[1]}"
            layout.label(text=text, icon='POSE_HLT' if is_there else 'ERROR')
        else:
            layout.label(text=item.name, icon='ERROR')


class PTALKER_PT_key_map(bpy.types.Panel):
    """Which shape keys are driven, by what, how much."""

    bl_label = "Mapping"
    bl_parent_id = "PTALKER_PT_keys"
    bl_space_type = 'VIEW_3D'
    bl_region_type = 'UI'
    bl_options = {'DEFAULT_CLOSED'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj: Any = scene_inputs.find_head(context)
        return _has_targets(obj) and obj.ptalker.key_target != 'NEW'

    def draw(self, context: Context) -> None:
        obj: Any = scene_inputs.find_head(context)
        layout = self.layout
        if not obj.ptalker_key_rows:
            layout.operator("ptalker.fill_key_map", icon='PRESET_NEW')
            if bone_poses.armature_of(obj) is not None:
                layout.operator("ptalker.add_poses", icon='POSE_HLT')
            layout.operator("ptalker.load_key_map", icon='FILE_FOLDER')
            return
        line = layout.row()
        line.template_list("PTALKER_UL_key_map", "", obj, ROWS, obj, ACTIVE_ROW, rows=_NUM_ROWS)
        buttons = line.column(align=True)
        buttons.operator("ptalker.add_key_row", text="", icon='ADD')
        buttons.operator("ptalker.remove_key_row", text="", icon='REMOVE')
        buttons.separator()
        buttons.operator("ptalker.load_key_map", text="", icon='FILE_FOLDER')
        buttons.operator("ptalker.save_key_map", text="", icon='FILE_TICK')
        buttons.separator()
        buttons.operator("ptalker.clear_key_map", text="", icon='TRASH')
        if bone_poses.armature_of(obj) is not None:
            poses = layout.row(align=True)
            poses.operator("ptalker.add_poses", icon='POSE_HLT')
            poses.operator("ptalker.add_pose_row", text="", icon='ADD')
        if 0 <= obj.ptalker_active_key_row < len(obj.ptalker_key_rows):
            item = obj.ptalker_key_rows[obj.ptalker_active_key_row]
            layout.prop(item, "source", text="")
            part = layout.row()
            part.enabled = bool(item.source)
            part.prop(item, "gain")


def fill(obj: Any, rows: Iterable[key_map.Row]) -> None:
    """Put a table in place of an object's present one."""
    obj.ptalker_key_rows.clear()
    for row in rows:
        add(obj, row)
    obj.ptalker_active_key_row = 0


def add(obj: Any, row: key_map.Row) -> None:
    """Add a row at the end of an object's table."""
    item = obj.ptalker_key_rows.add()
    item.name, item.source, item.gain = row.key, row.source, row.gain


def _has_targets(obj: Any) -> bool:
    """Whether there is anything that a table could drive."""
    if obj is None or obj.type != 'MESH':
        return False
    return obj.data.shape_keys is not None or bone_poses.armature_of(obj) is not None


class _HeadOperator:
    """Works on the table of the panel's head."""

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _has_targets(scene_inputs.find_head(context))

    @staticmethod
    def head(context: Context) -> Any:
        return scene_inputs.find_head(context)


class _RowOperator(_HeadOperator):
    """Works on a table that has rows."""

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj: Any = scene_inputs.find_head(context)
        return super().poll(context) and len(obj.ptalker_key_rows) > 0


class PTALKER_OT_fill_key_map(_HeadOperator, bpy.types.Operator):
    """Make a table of the shape keys with what drives them by their names, to edit it"""

    bl_idname = "ptalker.fill_key_map"
    bl_label = "Edit Mapping"
    bl_options = {'REGISTER', 'UNDO'}

    def execute(self, context: Context) -> Results:
        obj = self.head(context)
        names = rig_target.key_names(obj)
        if not names:
            text = f'"{obj.name}" has no shape keys of its own. Add poses of its armature instead.'
            self.report({'ERROR'}, text)
            return {'CANCELLED'}
        fill(obj, key_map.rows_of(rig_target.find_by_names(obj), names))
        return {'FINISHED'}


class PTALKER_OT_clear_key_map(_RowOperator, bpy.types.Operator):
    """Remove the table: the names of the shape keys decide again what drives them"""

    bl_idname = "ptalker.clear_key_map"
    bl_label = "Clear Mapping"
    bl_options = {'REGISTER', 'UNDO'}

    def execute(self, context: Context) -> Results:
        self.head(context).ptalker_key_rows.clear()
        return {'FINISHED'}


class PTALKER_OT_add_key_row(_RowOperator, bpy.types.Operator):
    """Add a row for the shape key of the active one: it adds up what all its rows say"""

    bl_idname = "ptalker.add_key_row"
    bl_label = "Add Row"
    bl_options = {'REGISTER', 'UNDO'}

    def execute(self, context: Context) -> Results:
        obj = self.head(context)
        rows = obj.ptalker_key_rows
        at = min(obj.ptalker_active_key_row, len(rows) - 1)
        add(obj, key_map.Row(rows[at].name, ""))
        rows.move(len(rows) - 1, at + 1)
        obj.ptalker_active_key_row = at + 1
        return {'FINISHED'}


class PTALKER_OT_remove_key_row(_RowOperator, bpy.types.Operator):
    """Remove the active row"""

    bl_idname = "ptalker.remove_key_row"
    bl_label = "Remove Row"
    bl_options = {'REGISTER', 'UNDO'}

    def execute(self, context: Context) -> Results:
        obj = self.head(context)
        rows = obj.ptalker_key_rows
        at = min(obj.ptalker_active_key_row, len(rows) - 1)
        rows.remove(at)
        obj.ptalker_active_key_row = max(0, min(at, len(rows) - 1))
        return {'FINISHED'}


class _FileOperator:
    """Asks for a JSON file."""

    filepath: StringProperty(subtype='FILE_PATH')
    filter_glob: StringProperty(default="*.json", options={'HIDDEN'})

    def invoke(self, context: Context, _event: Event) -> Results:
        operator: Any = self
        context.window_manager.fileselect_add(operator)
        return {'RUNNING_MODAL'}


class PTALKER_OT_save_key_map(_FileOperator, _RowOperator, bpy.types.Operator):
    """Save the table in a file, for other characters of the same kind"""

    bl_idname = "ptalker.save_key_map"
    bl_label = "Save Mapping"
    bl_options = {'REGISTER'}

    check_existing: bpy.props.BoolProperty(default=True, options={'HIDDEN'})

    def execute(self, context: Context) -> Results:
        path = Path(bpy.path.ensure_ext(self.filepath, ".json"))
        try:
            key_map.write(path, rig_target.table_rows(self.head(context)))
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        self.report({'INFO'}, f"Saved {path.name}")
        return {'FINISHED'}


class PTALKER_OT_load_key_map(_FileOperator, _HeadOperator, bpy.types.Operator):
    """Load a table from a file in place of the present one"""

    bl_idname = "ptalker.load_key_map"
    bl_label = "Load Mapping"
    bl_options = {'REGISTER', 'UNDO'}

    def execute(self, context: Context) -> Results:
        obj = self.head(context)
        try:
            rows = key_map.read(Path(self.filepath))
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        known = rig_target.key_names(obj)
        lacking = [
            row.key for row in rows if row.key not in known and not bone_poses.is_there(row.key)
        ]
        if lacking:
            text = f'"{obj.name}" has no shape keys or poses {rig_mapping.listed(lacking)}.'
            self.report({'WARNING'}, text)
        fill(obj, rows)
        return {'FINISHED'}


_classes = (
    PTALKER_PG_key_row,
    PTALKER_UL_key_map,
    PTALKER_PT_key_map,
    PTALKER_OT_fill_key_map,
    PTALKER_OT_clear_key_map,
    PTALKER_OT_add_key_row,
    PTALKER_OT_remove_key_row,
    PTALKER_OT_save_key_map,
    PTALKER_OT_load_key_map,
)
_register_classes, _unregister_classes = classes_factory(_classes)


def register() -> None:
    """Register the classes and hang the table on objects; after ``panels``."""
    _register_classes()
    collection: Any = CollectionProperty
    number: Any = IntProperty
    rows = collection(type=PTALKER_PG_key_row, override=_INSERTABLE)
    setattr(bpy.types.Object, ROWS, rows)
    setattr(bpy.types.Object, ACTIVE_ROW, number(name="Active Row", override=_OVERRIDABLE))


def unregister() -> None:
    """Take them away again."""
    delattr(bpy.types.Object, ACTIVE_ROW)
    delattr(bpy.types.Object, ROWS)
    _unregister_classes()
