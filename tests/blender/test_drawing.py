# SPDX-License-Identifier: GPL-3.0-or-later
"""Panels and polls are called at every redraw: they must read no files and make no folders."""

import json
import shutil
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import bpy
import pytest

FILE_EVENTS = {"open", "os.listdir", "os.scandir", "os.mkdir", "subprocess.Popen"}
_seen = []
_is_watching = []


def _watch(event, arguments):
    if _is_watching and event in FILE_EVENTS:
        _seen.append((event, str(arguments[0])))


sys.addaudithook(_watch)  # it cannot be removed


@pytest.fixture
def file_accesses():
    """Calls a function and returns what it did with files."""

    def run(function):
        _seen.clear()
        _is_watching.append(True)
        try:
            function()
        finally:
            _is_watching.clear()
        return list(_seen)

    yield run
    _is_watching.clear()


def layout():
    made = MagicMock()
    made.panel.return_value = (MagicMock(), MagicMock())
    return made


def draw_everything(addon):
    """What Blender calls when the sidebar and the preferences are redrawn."""
    real = bpy.context
    context = types.SimpleNamespace(
        scene=real.scene,
        active_object=real.view_layer.objects.active,
        window_manager=real.window_manager,
        preferences=types.SimpleNamespace(
            addons=real.preferences.addons, system=types.SimpleNamespace(ui_scale=1.0)
        ),
        region=types.SimpleNamespace(width=300),
        view_layer=real.view_layer,
    )
    panels = addon.panels
    others = (addon.face_point_panel.PTALKER_PT_face_points, addon.life_panel.PTALKER_PT_life)
    for panel in (*panels._classes, *others):
        if getattr(panel, "poll", lambda _: True)(context):
            methods = {name: getattr(panel, name) for name in dir(panel)
                       if name.startswith("_draw_")}  # fmt: skip
            panel.draw(types.SimpleNamespace(layout=layout(), **methods), context)
    entry = real.preferences.addons[panels.__package__].preferences
    values = {name: getattr(entry, name) for name in entry.__annotations__}
    preferences = addon.preferences.PTALKER_AP_preferences
    preferences.draw(types.SimpleNamespace(layout=layout(), **values), context)
    for name in dir(bpy.ops.ptalker):
        getattr(bpy.ops.ptalker, name).poll()
    draw_dialog = addon.setup_operators._AskingOperator.draw
    draw_dialog(types.SimpleNamespace(layout=layout(), clear=False), context)


@pytest.fixture
def own_environment(addon, tmp_path, monkeypatch):
    monkeypatch.delenv("PTALKER_BACKEND_PYTHON", raising=False)
    monkeypatch.setattr(addon.paths, "user_dir", lambda: tmp_path / "user")
    addon.backend_status.refresh()
    return tmp_path / "user"


def make_ready(addon, folder):
    python = addon.backend_env.python_of(folder)
    python.parent.mkdir(parents=True)
    python.touch()
    pins = addon.backend_env.requirements_hash(addon.paths.requirements())
    record = {"requirements": pins, "packages": {"torch": "9"}}
    addon.backend_env.record_path(folder).write_text(json.dumps(record))


@pytest.mark.parametrize("state", ['MISSING', 'READY'])
@pytest.mark.parametrize("source", ['FILE', 'STRIP'])
@pytest.mark.parametrize("with_points", [False, True])
def test_redraws_read_no_files(addon, own_environment, head, sound_file, file_accesses, state,
                               source, with_points):  # fmt: skip
    if state == 'READY':
        make_ready(addon, own_environment)
        addon.backend_status.refresh()
    if source == 'STRIP' and bpy.app.build_options.audaspace:
        addon.compat.new_sound_strip(bpy.context.scene, sound_file, frame=1)
    head.ptalker.sound_source = source
    head.ptalker.head_target = 'OBJECT' if with_points else 'NONE'
    assert addon.backend_status.torch().state == state
    if with_points:
        point = addon.face_points.Point(3, addon.face_points.State.DOUBTFUL)
        addon.face_points.store(head, {"chin": point})
    assert addon.face_point_panel.is_needed(head)
    draw_everything(addon)  # the first time may read what then stays the same
    assert file_accesses(lambda: draw_everything(addon)) == []


def test_files_are_watched_outside_of_drawing(addon, own_environment, file_accesses):
    assert addon.backend_status.torch().state == 'MISSING'
    make_ready(addon, own_environment)
    assert addon.backend_status.torch().state == 'MISSING'
    assert file_accesses(addon.job_runner._watch_backend)
    assert addon.backend_status.torch().state == 'READY'
    shutil.rmtree(own_environment)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert addon.backend_status.torch().state == 'MISSING'


def test_status_is_never_old_in_the_background(addon, own_environment, monkeypatch):
    assert addon.backend_status.torch().state == 'MISSING'
    make_ready(addon, own_environment)
    monkeypatch.setattr(addon.backend_status, "REFRESH_SECONDS", 0.0)
    assert addon.backend_status.torch().state == 'READY'


def test_the_users_folder_is_made_by_who_writes_there(addon, head, fake_backend):
    folder = Path(bpy.utils.extension_path_user(addon.paths.__package__))
    shutil.rmtree(folder, ignore_errors=True)
    addon.backend_status.refresh()
    draw_everything(addon)
    assert addon.paths.saved_style_names() == []
    assert not folder.exists()
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    assert (folder / "jobs").is_dir()


def test_length_of_a_sound_is_read_once(addon, sound_file, monkeypatch):
    """Blender 4.2 and 4.3 tell a changed speed by the strip's length alone."""
    opened = []

    class Sound:
        specs = (16000, 1)
        length = 32000

        def __init__(self, path):
            opened.append(path)

    monkeypatch.setitem(sys.modules, "aud", types.SimpleNamespace(Sound=Sound, error=OSError))
    sound = types.SimpleNamespace(packed_file=None, filepath=str(sound_file), library=None)
    strip = types.SimpleNamespace(
        sound=sound, frame_duration=48, animation_offset_start=0, animation_offset_end=0
    )
    for _ in range(3):
        assert not addon.compat.seems_retimed(bpy.context.scene, strip)
    strip.frame_duration = 24
    assert addon.compat.seems_retimed(bpy.context.scene, strip)
    assert opened == [str(sound_file)]
    sound_file.unlink()
    assert not addon.compat.seems_retimed(bpy.context.scene, strip)
