# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate, Cancel, Demo Head, Show Log, and ``--command ptalker``; other modules do the work."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

import bpy
from bpy.types import Context, Event

from . import (
    backend_job,
    command,
    demo_head,
    job_runner,
    lip_sync_job,
    paths,
    poll_checks,
    preferences,
    protocol,
    scene_inputs,
)
from .typed import Results, classes_factory, settings_of

_FIELD_LETTERS: Final = 120  # more words are easier to correct in the Text Editor
_LINE_LETTERS: Final = 72
_LOG_NAME: Final = "PTalker Log"


class PTALKER_OT_generate(bpy.types.Operator):
    """Animate the head to the sound. Blender stays usable meanwhile"""

    bl_idname = "ptalker.generate"
    bl_label = "Generate Lip Sync"
    bl_options = {'REGISTER'}  # the undo step is pushed when the job has ended

    @classmethod
    def poll(cls, context: Context) -> bool:
        if reason := poll_checks.missing(context):
            cls.poll_message_set(reason)
        return not reason

    def invoke(self, context: Context, _event: Event) -> Results:
        return job_runner.carry_out(self, lambda: self._job(context), wait=bpy.app.background)

    def execute(self, context: Context) -> Results:
        return job_runner.carry_out(self, lambda: self._job(context), wait=True)

    def _job(self, context: Context) -> backend_job.Job:
        obj = scene_inputs.find_head(context)
        if obj is None:
            raise protocol.UserError(scene_inputs.head_problem(obj))
        inputs = scene_inputs.collect(context, obj, scene_inputs.choices_of(context, obj))
        return lip_sync_job.generate_job(inputs, preferences.read(context))


class PTALKER_OT_cancel(bpy.types.Operator):
    """Stop the running job; the scene stays as it is"""

    bl_idname = "ptalker.cancel"
    bl_label = "Cancel"
    bl_options = {'INTERNAL'}

    @classmethod
    def poll(cls, _context: Context) -> bool:
        return job_runner.is_running()

    def execute(self, _context: Context) -> Results:
        job_runner.cancel()
        return {'FINISHED'}


class PTALKER_OT_add_demo_head(bpy.types.Operator):
    """Add PTalker's own head, with a sentence for it to speak where the sequencer is empty"""

    bl_idname = "ptalker.add_demo_head"
    bl_label = "Demo Head"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return bool(context.mode == 'OBJECT')

    def execute(self, context: Context) -> Results:
        try:
            root = paths.backend_root()
            obj = demo_head.add(context, root / "backend" / "demo" / "head.npz")
            demo_head.add_sentence(context, obj, root / "backend" / "demo" / "speech.ogg")
            demo_head.frame(context)
        except protocol.UserError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        return {'FINISHED'}


class PTALKER_OT_use_words(bpy.types.Operator):
    """Take the words that were heard as the given ones, to correct them and generate again"""

    bl_idname = "ptalker.use_words"
    bl_label = "Use as Given Words"
    bl_options = {'REGISTER', 'UNDO'}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return bool(settings_of(context.window_manager).words)

    def execute(self, context: Context) -> Results:
        heard = settings_of(context.window_manager)
        obj = next((o for o in bpy.data.objects if str(o.session_uid) == heard.words_head), None)
        if obj is None:
            self.report({'ERROR'}, "The head that spoke these words was deleted.")
            return {'CANCELLED'}
        settings = settings_of(obj)
        settings.listen = 'TEXT'
        if len(heard.words) <= _FIELD_LETTERS:
            settings.text, settings.text_block = heard.words, None
        else:
            settings.text_block = bpy.data.texts.new(f"Words of {obj.name}")
            settings.text_block.write("\n".join(textwrap.wrap(heard.words, _LINE_LETTERS)))
        return {'FINISHED'}


class PTALKER_OT_open_log(bpy.types.Operator):
    """Open what the engine or the last set-up wrote, in Blender's Text Editor"""

    bl_idname = "ptalker.open_log"
    bl_label = "Show Log"
    bl_options = {'INTERNAL'}

    def execute(self, context: Context) -> Results:
        logs = [path for path in (paths.backend_log(), paths.setup_log()) if path.is_file()]
        written = [path for path in logs if path.stat().st_size > 0]
        if not written:
            self.report({'INFO'}, "Nothing has been written to a log yet.")
            return {'CANCELLED'}
        newest = max(written, key=lambda path: path.stat().st_mtime)
        text = bpy.data.texts.get(_LOG_NAME) or bpy.data.texts.new(_LOG_NAME)
        text.from_string(newest.read_text("utf-8", "replace"))
        text.cursor_set(0)  # it would stand, and show, behind the last line
        if not bpy.app.background:
            bpy.ops.wm.window_new()
            area = context.window_manager.windows[-1].screen.areas[0]
            area.type = 'TEXT_EDITOR'
            area.spaces.active.text = text
            area.spaces.active.top = 0
        return {'FINISHED'}


def _draw_add_menu(self: bpy.types.Menu, _context: Context) -> None:
    self.layout.operator("ptalker.add_demo_head", text="PTalker Demo Head", icon='USER')


_classes = (
    PTALKER_OT_generate,
    PTALKER_OT_cancel,
    PTALKER_OT_use_words,
    PTALKER_OT_add_demo_head,
    PTALKER_OT_open_log,
)
_register_classes, _unregister_classes = classes_factory(_classes)
_commands: list[Any] = []


def _run_command(arguments: Sequence[str]) -> int:
    return command.main(arguments)


def register() -> None:
    """Register the operators, the entry of the Add > Mesh menu, and ``--command ptalker``."""
    _register_classes()
    bpy.types.VIEW3D_MT_mesh_add.append(_draw_add_menu)
    make: Any = bpy.utils.register_cli_command
    _commands.append(make("ptalker", _run_command))


def unregister() -> None:
    """Take them away again."""
    bpy.utils.unregister_cli_command(_commands.pop())
    bpy.types.VIEW3D_MT_mesh_add.remove(_draw_add_menu)
    _unregister_classes()
