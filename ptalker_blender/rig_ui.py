# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows for poses in the mapping, and the drivers that were muted for the speech."""

from __future__ import annotations

from typing import Any, Final

import bpy
from bpy.props import IntProperty, StringProperty
from bpy.types import Context, Event, Object

from . import bone_poses, key_map, key_map_ui, rig_drivers, rig_names, rig_target, scene_inputs
from .typed import Results, classes_factory, mesh_of

MUTED: Final = "ptalker_muted_drivers"
"""`rig_drivers.MUTED`, said again so that Blender starts without that module."""


def _armature(context: Context) -> Object | None:
    obj = scene_inputs.find_head(context)
    return bone_poses.armature_of(obj) if obj is not None and obj.type == 'MESH' else None


def pose_rows(armature: Object) -> list[key_map.Row]:
    """A row for each pose of the file for an armature, driven by what its name says."""
    poses = dict(bone_poses.listed(armature))
    names = list(poses.values())
    gains = rig_names.find_arkit_keys(names).gains
    visemes = rig_names.find_visemes(names)
    rows = []
    for pose, name in poses.items():
        if name in gains:
            rows += [key_map.Row(pose, source, gain) for source, gain in gains[name].items()]
        else:
            rows.append(key_map.Row(pose, key_map.viseme_source(visemes.get(name, "rest"))))
    return rows


class _PoseOperator:
    """Works on a head with an armature."""

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _armature(context) is not None

    def add(self, context: Context, rows: list[key_map.Row]) -> None:
        """Add rows to the table, which holds the shape keys too once there is one."""
        obj: Any = scene_inputs.find_head(context)
        if not obj.ptalker_key_rows:
            names = rig_target.key_names(obj)
            key_map_ui.fill(obj, key_map.rows_of(rig_target.find_by_names(obj), names))
        known = {row.name for row in obj.ptalker_key_rows}
        first = len(obj.ptalker_key_rows)
        for row in rows:
            if row.key not in known:
                key_map_ui.add(obj, row)
        obj.ptalker_active_key_row = min(first, len(obj.ptalker_key_rows) - 1)


class PTALKER_OT_add_poses(_PoseOperator, bpy.types.Operator):
    """Add a row for every pose of the armature: pose assets, Actions of one frame, pose markers"""

    bl_idname = "ptalker.add_poses"
    bl_label = "Add Poses"
    bl_options = {'REGISTER', 'UNDO'}

    def execute(self, context: Context) -> Results:
        armature = _armature(context)
        rows = pose_rows(armature) if armature is not None else []
        if armature is None or not rows:
            name = armature.name if armature is not None else ""
            self.report(
                {'ERROR'},
                f'This file has no poses for "{name}": append those of a library, create pose '
                "assets, or add a frame of an Action.",
            )
            return {'CANCELLED'}
        self.add(context, rows)
        return {'FINISHED'}


class PTALKER_OT_add_pose_row(_PoseOperator, bpy.types.Operator):
    """Add a row for the pose that the armature has in an Action at a frame"""

    bl_idname = "ptalker.add_pose_row"
    bl_label = "Add Pose"
    bl_options = {'REGISTER', 'UNDO'}

    action: StringProperty(name="Action", description="Action with the pose")
    frame: IntProperty(name="Frame", description="Frame of the Action that is the pose", default=1)

    def invoke(self, context: Context, _event: Event) -> Results:
        self.frame = context.scene.frame_current
        return context.window_manager.invoke_props_dialog(self)

    def draw(self, _context: Context) -> None:
        self.layout.use_property_split = True
        self.layout.prop_search(self, "action", bpy.data, "actions")
        self.layout.prop(self, "frame")

    def execute(self, context: Context) -> Results:
        armature = _armature(context)
        pose = key_map.pose_name(self.action, self.frame)
        if armature is None or not bone_poses.is_there(pose):
            self.report({'ERROR'}, f'There is no Action "{self.action}". Choose one.')
            return {'CANCELLED'}
        found = bone_poses.read(armature, pose)
        if not found.moves and not found.values:
            self.report(
                {'ERROR'},
                f'"{self.action}" moves no bone of "{armature.name}" at frame {self.frame}.',
            )
            return {'CANCELLED'}
        self.add(context, [key_map.Row(pose, "")])
        return {'FINISHED'}


class PTALKER_PT_drivers(bpy.types.Panel):
    """Drivers of the head's shape keys that are muted for the speech."""

    bl_label = "Drivers"
    bl_parent_id = "PTALKER_PT_main"
    bl_space_type = 'VIEW_3D'
    bl_region_type = 'UI'
    bl_category = "PTalker"
    bl_order = 6

    @classmethod
    def poll(cls, context: Context) -> bool:
        obj = scene_inputs.find_head(context)
        if obj is None or obj.type != 'MESH' or mesh_of(obj).shape_keys is None:
            return False
        return bool(rig_drivers.muted_paths(obj))

    def draw(self, context: Context) -> None:
        obj: Any = scene_inputs.find_head(context)
        count = len(rig_drivers.muted_paths(obj))
        layout = self.layout
        layout.label(text=f"{count} muted for the speech", icon='DRIVER')
        layout.operator("ptalker.restore_drivers", icon='LOOP_BACK')


class PTALKER_OT_restore_drivers(bpy.types.Operator):
    """Switch the drivers on again that were muted for the speech; its Action stays"""

    bl_idname = "ptalker.restore_drivers"
    bl_label = "Restore Drivers"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return PTALKER_PT_drivers.poll(context)

    def execute(self, context: Context) -> Results:
        obj: Any = scene_inputs.find_head(context)
        if gone := rig_drivers.restore(obj):
            self.report(
                {'WARNING'},
                f"{len(gone)} drivers are not where they were (for example {gone[0]}): look for "
                "muted ones in the Drivers Editor.",
            )
        return {'FINISHED'}


_classes = (
    PTALKER_OT_add_poses,
    PTALKER_OT_add_pose_row,
    PTALKER_PT_drivers,
    PTALKER_OT_restore_drivers,
)
_register_classes, _unregister_classes = classes_factory(_classes)


def register() -> None:
    """Register the classes, and the note of muted drivers on objects; after ``key_map_ui``."""
    _register_classes()
    text: Any = StringProperty
    setattr(bpy.types.Object, MUTED, text(override={'LIBRARY_OVERRIDABLE'}))


def unregister() -> None:
    """Take them away again."""
    delattr(bpy.types.Object, MUTED)
    _unregister_classes()
