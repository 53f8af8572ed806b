# SPDX-License-Identifier: GPL-3.0-or-later
"""The command of the README, ``blender -b … --command ptalker``, with its exit codes.

Run by tests/gui/run.sh in the background of a real Blender, which starts others.
"""

import json
import os
import subprocess
from pathlib import Path

import bpy
import gui  # given by the program that runs this script

if gui.args:  # another Python than that of the zip's own engine
    os.environ["PTALKER_BACKEND_PYTHON"] = gui.args[0]
HERE = Path(gui.OUT)
SOUND = next(Path(bpy.utils.user_resource('EXTENSIONS')).rglob("demo/speech.ogg"))


def ptalker(*arguments):
    command = ["blender", "--offline-mode", "-b", "head.blend", "--command", "ptalker", *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith("ptalker")]
    print("GUI status", done.returncode, *said)
    return done


def main():
    for obj in list(bpy.data.objects):
        bpy.data.objects.remove(obj)
    bpy.ops.ptalker.add_demo_head()
    bpy.data.objects["Demo Head"].name = "Head"
    bpy.ops.wm.save_as_mainfile(filepath=str(HERE / "head.blend"))
    sound = str(SOUND)
    done = ptalker("--object", "Head", "--audio", sound, "--save", "line_001.blend")
    assert done.returncode == 0, done.stderr
    assert ptalker("--help").returncode == 0
    assert ptalker("--object", "Head").returncode == 2
    done = ptalker("--object", "Nobody", "--audio", sound, "--save", "x.blend")
    assert done.returncode == 1
    jobs = [{"object": "Head", "audio": sound}, {"object": "Head", "audio": "missing.wav"}]
    (HERE / "jobs.json").write_text(json.dumps(jobs))
    done = ptalker("--jobs", "jobs.json", "--listen", "sound", "--save", "line_002.blend")
    assert done.returncode == 1
    for name in ("line_001.blend", "line_002.blend"):
        bpy.ops.wm.open_mainfile(filepath=str(HERE / name))
        keys = bpy.data.objects["Head"].data.shape_keys
        assert keys is not None, name
        assert keys.animation_data.action is not None, name
        print("GUI", name, len(keys.key_blocks), "keys")
    print("OK")


main()
