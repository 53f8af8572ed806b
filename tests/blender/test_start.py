# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender starts with what the panel needs; what only a job needs runs when it is first used."""

import json
import subprocess
import sys

PROBE = """
import importlib.util, json, os, sys
import bpy, addon_utils
before = set(sys.modules)
assert addon_utils.enable("bl_ext.user_default.ptalker")
prefix = "bl_ext.user_default.ptalker."
own = [name for name in sys.modules if name.startswith(prefix)]
lazy = [name for name in own if type(sys.modules[name]) is importlib.util._LazyModule]
foreign = sorted(set(sys.modules) - before - set(own))
print("FOUND", json.dumps([sorted(set(own) - set(lazy)), lazy, foreign]))
sys.stdout.flush()
os._exit(0)
"""
AT_START = {
    "compat", "emotions", "face_point_click", "face_point_operators", "face_point_panel",
    "job_runner", "key_map_ui", "languages", "life_panel", "operators", "panels",
    "preferences", "properties", "rig_ui", "setup_operators", "style_operators", "typed",
}  # fmt: skip
SLOW = {
    "argparse", "asyncio", "hashlib", "logging", "numpy", "subprocess", "tempfile", "zipfile",
}  # fmt: skip


def test_blender_starts_without_what_only_jobs_need(addon):
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    run, lazy, foreign = json.loads(done.stdout.split("FOUND")[1])
    assert {name.rpartition(".")[2] for name in run} <= AT_START
    assert any(name.endswith(".lip_sync_job") for name in lazy)
    assert not SLOW & set(foreign)
