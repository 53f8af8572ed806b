# SPDX-License-Identifier: GPL-3.0-or-later
"""The real backend: what Blender shows is what the backend computed; the first errors as they are.

Slow: the backend is started once and kept warm over all tests of this file.
"""

import os
import wave
from pathlib import Path

import bpy
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5  # metres: 0.01 mm
SCENE_RATES = [(24, 1.0), (30, 1.001)]


def _python():
    named = os.environ.get("PTALKER_BACKEND_PYTHON")
    for path in (named, ROOT / ".venv" / "backend" / "bin" / "python",
                 ROOT / ".venv" / "backend" / "Scripts" / "python.exe"):  # fmt: skip
        if path and Path(path).is_file():
            return str(path)
    return None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_python() is None, reason="there is no environment for the backend"),
]
BASE = Path(os.environ.get("PTALKER_CHECKPOINT") or ROOT / "backend" / "checkpoints" / "base")
needs_weights = pytest.mark.skipif(
    not (BASE / "model.safetensors").exists(), reason="there is no bundled checkpoint"
)


@pytest.fixture(autouse=True)
def real_backend(monkeypatch, addon):
    monkeypatch.setenv("PTALKER_BACKEND_PYTHON", _python())
    settings = addon.preferences.Settings(checkpoint=str(BASE), device="cpu")
    monkeypatch.setattr(addon.preferences, "read", lambda _context: settings)


@pytest.fixture(autouse=True)
def fresh_file(addon):
    """In place of the one in conftest.py: the backend stays warm."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)


@pytest.fixture(scope="module", autouse=True)
def stop_at_the_end(addon):
    yield
    addon.backend_job.release_backend()


@pytest.fixture
def demo(addon):
    """The demo head with its sentence, as the Add menu brings it."""
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    obj = bpy.context.active_object
    obj.ptalker.listen = 'SOUND'
    return obj


@pytest.fixture
def motions(addon, monkeypatch):
    """Every motion that the add-on loads."""
    seen = []
    load = addon.motion.load

    def spy(*args, **kwargs):
        seen.append(load(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(addon.motion, "load", spy)
    return seen


def generate():
    return bpy.ops.ptalker.generate('EXEC_DEFAULT')


def failure():
    with pytest.raises(RuntimeError) as raised:
        generate()
    text = str(raised.value)
    assert "Traceback" not in text
    return text


def check_evaluated(obj, motion, first_frame, evaluated, scale=1.0):
    rows = np.linspace(0, len(motion.weights) - 1, 12).astype(int)
    moved = 0.0
    for row in rows:
        expected = motion.template + np.tensordot(motion.weights[row], motion.shapes, 1)
        shown = evaluated(obj, first_frame + int(row))
        assert np.abs(shown - expected).max() < TOLERANCE * scale
        moved = max(moved, float(np.abs(shown - motion.template).max()))
    assert moved > 1e-3 * scale  # more than a millimetre
    return moved


@needs_weights
@pytest.mark.parametrize(("fps", "base"), SCENE_RATES)
def test_demo_head_speaks_as_the_backend_computed(demo, addon, motions, evaluated, fps, base):
    render = bpy.context.scene.render
    render.fps, render.fps_base = fps, base
    assert addon.poll_checks.missing(bpy.context) == ""
    assert generate() == {'FINISHED'}
    motion = motions[-1]
    assert "jawOpen" in motion.names
    assert len(demo.data.shape_keys.key_blocks) == 1 + len(motion.names)
    check_evaluated(demo, motion, bpy.context.scene.frame_start, evaluated)
    if bpy.app.build_options.audaspace:
        assert demo.ptalker.sound_source == 'STRIP'
        action = demo.data.shape_keys.animation_data.action
        strip = addon.compat.all_strips(bpy.context.scene)[0]
        first, end, _ = addon.compat.strip_frames(strip)
        rest = round(0.2 * fps / base)
        assert tuple(action.frame_range) == (first - rest, end - 1 + rest)
    else:
        assert demo.ptalker.sound_source == 'FILE'


@needs_weights
def test_flame_head_speaks_as_the_backend_computed(flame_head, addon, motions, evaluated):
    bpy.ops.wm.ply_import(filepath=str(flame_head))
    head = bpy.context.active_object
    head.scale = (2.0, 2.0, 2.0)
    head.ptalker.sound_source = 'FILE'
    head.ptalker.sound_file = str(ROOT / "backend" / "demo" / "speech.ogg")
    head.ptalker.sound_frame = 25
    head.ptalker.listen = 'SOUND'
    assert generate() == {'FINISHED'}
    size = float(np.ptp(motions[-1].template, axis=0).max())
    check_evaluated(head, motions[-1], 25, evaluated, scale=size / 0.3)


@needs_weights
def test_exemplar_changes_the_motion_and_can_be_saved(demo, addon, motions):
    bpy.context.scene.frame_end = 120
    assert generate() == {'FINISHED'}
    other = demo.copy()
    other.data = demo.data.copy()
    bpy.context.collection.objects.link(other)
    curves = addon.fcurves_of(other.data.shape_keys)
    assert curves
    demo.ptalker.style_source = 'EXEMPLAR'
    demo.ptalker.exemplar = other
    assert generate() == {'FINISHED'}
    assert np.abs(motions[-1].weights - motions[0].weights).max() > 1e-4
    assert bpy.ops.ptalker.save_style(name="Test Style") == {'FINISHED'}
    assert "Test Style" in addon.paths.saved_style_names()
    demo.ptalker.style_source = 'SAVED'
    demo.ptalker.saved_style = "Test Style"
    assert generate() == {'FINISHED'}
    np.testing.assert_allclose(motions[-1].weights, motions[-2].weights, atol=1e-3)
    demo.ptalker.style_strength = 0.0
    assert generate() == {'FINISHED'}
    np.testing.assert_allclose(motions[-1].weights, motions[0].weights, atol=1e-3)
    assert bpy.ops.ptalker.delete_style('EXEC_DEFAULT') == {'FINISHED'}


@needs_weights
def test_given_words_are_listened_to(demo, motions):
    demo.ptalker.listen = 'TEXT'
    demo.ptalker.text = (ROOT / "backend" / "demo" / "speech.txt").read_text()
    assert generate() == {'FINISHED'}
    assert motions[-1].report["listen"] == "text"


@needs_weights
def test_job_list_from_the_command_line(demo, addon, tmp_path, evaluated, motions):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "head.blend"))
    status = addon.command.main([
        "--object", demo.name, "--audio", str(ROOT / "backend" / "demo" / "speech.ogg"),
        "--start", "1", "--end", "3", "--listen", "sound", "--save", str(tmp_path / "out.blend"),
    ])  # fmt: skip
    assert status == 0
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "out.blend"))
    assert motions[-1].start_seconds == 1
    assert len(motions[-1].weights) == 48
    check_evaluated(bpy.data.objects["Demo Head"], motions[-1], 1, evaluated)


@needs_weights
def test_head_that_is_not_known(addon, snapshot):
    mesh = bpy.data.meshes.new("Cube")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)],
                     [], [(0, 1, 2), (0, 1, 3), (1, 2, 3)])  # fmt: skip
    cube = bpy.data.objects.new("Cube", mesh)
    bpy.context.collection.objects.link(cube)
    bpy.context.view_layer.objects.active = cube
    cube.ptalker.sound_source = 'FILE'
    cube.ptalker.sound_file = str(ROOT / "backend" / "demo" / "speech.ogg")
    before = snapshot()
    text = failure()
    assert "No face is seen" in text
    assert "face points" in text.lower()
    assert snapshot() == before


@needs_weights
def test_broken_sound_file(demo, snapshot, tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"RIFF this is no sound" * 100)
    demo.ptalker.sound_source = 'FILE'
    demo.ptalker.sound_file = str(path)
    before = snapshot()
    assert "broken.wav" in failure()
    assert snapshot() == before


@needs_weights
def test_silence(demo, snapshot, tmp_path):
    path = tmp_path / "silence.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(64000))
    demo.ptalker.sound_source = 'FILE'
    demo.ptalker.sound_file = str(path)
    before = snapshot()
    assert "silent" in failure().lower()
    assert snapshot() == before


@pytest.mark.parametrize("damage", ["missing", "empty", "config", "weights"])
@needs_weights
def test_checkpoint_missing_or_damaged(demo, addon, snapshot, monkeypatch, tmp_path, damage):
    folder = tmp_path / "checkpoint"
    if damage != "missing":
        folder.mkdir()
    if damage in ("config", "weights"):
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_bytes((BASE / name).read_bytes())
        broken = folder / {"config": "config.json", "weights": "model.safetensors"}[damage]
        broken.write_bytes(broken.read_bytes()[:-100])
    settings = addon.preferences.Settings(checkpoint=str(folder))
    monkeypatch.setattr(addon.preferences, "read", lambda _context: settings)
    before = snapshot()
    text = failure().lower()
    assert "checkpoint" in text
    assert snapshot() == before
