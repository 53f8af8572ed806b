# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender as a module, with the extension installed: one Blender version per process."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.blender.faulty import Faulty

_given_home = os.environ.get("BLENDER_USER_RESOURCES")
_home = _given_home or tempfile.mkdtemp(prefix="ptalker-blender-")
os.environ["BLENDER_USER_RESOURCES"] = _home  # before the first import of bpy

bpy = pytest.importorskip("bpy", reason="needs the bpy module")
import addon_utils
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MODULE = "bl_ext.user_default.ptalker"


def _link_extension(repository: Path) -> None:
    """Install the extension as it lies in the repository: the zip's layout out of links."""
    folder = repository / "ptalker"
    folder.mkdir(parents=True)
    for source in (ROOT / "ptalker_blender").glob("*.py"):
        (folder / source.name).symlink_to(source)
    (folder / "backend").symlink_to(ROOT / "backend")
    (folder / "blender_manifest.toml").symlink_to(ROOT / "blender_manifest.toml")


def pytest_configure(config):
    repository = Path(bpy.utils.user_resource('EXTENSIONS'), "user_default")
    package = os.environ.get("PTALKER_ZIP")
    if package:
        bpy.ops.extensions.package_install_files(
            filepath=package, repo="user_default", enable_on_install=True
        )
    else:
        _link_extension(repository)
    if addon_utils.enable(MODULE, default_set=True) is None:
        raise RuntimeError("the extension could not be enabled")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    session.config._exit = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    addon_utils.disable(MODULE)
    shutil.rmtree(_home, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(getattr(config, "_exit", 1))  # bpy's own exit may hang or crash


class Addon:
    """The enabled extension's modules, as attributes."""

    def __getattr__(self, name):
        return sys.modules[f"{MODULE}.{name}"]

    def fcurves_of(self, id_block):
        """The F-curves that animate a data-block directly."""
        action, slot = self.compat.assigned_action(id_block)
        if action is None:
            return []
        return list(self.compat._fcurves_of(action, slot))


@pytest.fixture(scope="session")
def addon():
    return Addon()


@pytest.fixture(autouse=True)
def fresh_file(addon, request):
    # not read_factory_settings: that would unload the extension
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    yield
    if "faulty" not in request.fixturenames:  # its backend goes on to the next case
        addon.backend_job.release_backend(grace_seconds=0)


@pytest.fixture(scope="session")
def control_file(tmp_path_factory):
    """The file that tells a fake backend what to do, also while it runs."""
    return tmp_path_factory.mktemp("control") / "mode"


@pytest.fixture
def faulty(addon, control_file, head, snapshot, monkeypatch):
    """A fake backend that can be told to misbehave, and the checks of the fault matrix."""
    command = [sys.executable, str(ROOT / "tests" / "fake_backend.py"),
               "--control", str(control_file)]  # fmt: skip
    monkeypatch.setattr(addon.paths, "backend_command", lambda _settings: command)
    monkeypatch.setenv("PTALKER_BACKEND_PYTHON", sys.executable)
    yield Faulty(addon, control_file, snapshot, monkeypatch)
    process = addon.backend_job._Warm.process
    if process is not None and not process.is_running:
        addon.backend_job.release_backend(grace_seconds=0)


@pytest.fixture
def fake_backend(addon, monkeypatch):
    """Lets tests/fake_backend.py stand in for the backend; call it with a mode."""

    def use(mode="ok", *arguments):
        command = [sys.executable, str(ROOT / "tests" / "fake_backend.py"), "--mode", mode]
        monkeypatch.setattr(
            addon.paths, "backend_command", lambda _preference: [*command, *arguments]
        )
        monkeypatch.setenv("PTALKER_BACKEND_PYTHON", sys.executable)

    use()
    return use


@pytest.fixture
def sound_file(tmp_path):
    """Two seconds of a tone."""
    import wave

    path = tmp_path / "tone.wav"
    tone = np.sin(np.arange(32000) * 0.1) * 8000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(tone.astype("<i2").tobytes())
    return path


@pytest.fixture
def head(sound_file):
    """A mesh of 60 vertices that is to speak the tone from frame 10."""
    rings, columns = 6, 10
    angle, height = np.meshgrid(np.arange(columns) * 2 * np.pi / columns, np.arange(rings) * 0.05)
    vertices = np.stack([np.cos(angle) * 0.1, np.sin(angle) * 0.1, height], -1).reshape(-1, 3)
    faces = [
        (r * columns + c, r * columns + (c + 1) % columns,
         (r + 1) * columns + (c + 1) % columns, (r + 1) * columns + c)
        for r in range(rings - 1) for c in range(columns)
    ]  # fmt: skip
    mesh = bpy.data.meshes.new("Head")
    mesh.from_pydata(vertices.tolist(), [], faces)
    obj = bpy.data.objects.new("Head", mesh)
    bpy.context.collection.objects.link(obj)
    bpy.context.view_layer.objects.active = obj
    obj.ptalker.sound_source = 'FILE'
    obj.ptalker.sound_file = str(sound_file)
    obj.ptalker.sound_frame = 10
    return obj


def snapshot():
    """What must be the same after a failure: every data-block's name, keys and animation."""
    state = {
        name: sorted(item.name for item in getattr(bpy.data, name))
        for name in ("objects", "meshes", "actions", "shape_keys", "scenes", "materials", "sounds")
    }
    for obj in bpy.data.objects:
        if obj.type != 'MESH':
            continue
        co = np.empty(len(obj.data.vertices) * 3, np.float32)
        obj.data.vertices.foreach_get("co", co)
        keys = obj.data.shape_keys
        blocks = [] if keys is None else [
            (b.name, b.value, b.slider_min, b.slider_max, b.mute, _points(b).tobytes())
            for b in keys.key_blocks
        ]  # fmt: skip
        animation = keys.animation_data if keys is not None else None
        action = animation.action.name if animation is not None and animation.action else None
        props = str(keys["ptalker_keys"].to_dict()) if keys and "ptalker_keys" in keys else ""
        state[obj.name] = (obj.data.name, co.tobytes(), blocks, action, props)
    state["fake users"] = [(a.name, a.use_fake_user) for a in bpy.data.actions]
    state["frame"] = (bpy.context.scene.frame_current, bpy.context.scene.frame_subframe)
    return state


def _points(block):
    co = np.empty(len(block.points) * 3, np.float32)
    block.points.foreach_get("co", co)
    return co


@pytest.fixture(name="snapshot")
def snapshot_fixture():
    return snapshot


def evaluated(obj, frame):
    """Vertices as Blender shows them at a frame."""
    bpy.context.scene.frame_set(int(frame), subframe=float(frame) % 1.0)
    shown = obj.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    co = np.empty((len(shown.vertices), 3), np.float32)
    shown.vertices.foreach_get("co", co.ravel())
    return co


@pytest.fixture(name="evaluated")
def evaluated_fixture():
    return evaluated
