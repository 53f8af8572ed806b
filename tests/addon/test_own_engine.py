# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension's own engine: its parts, when it is chosen, and what its process can import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptalker_blender import backend_process, own_engine
from ptalker_blender.backend_env import Status
from ptalker_blender.own_engine import Parts

ROOT = Path(__file__).resolve().parents[2]
HERE = f"cp{sys.version_info.major}{sys.version_info.minor}"
WHEELS = (
    f"onnxruntime-1.23.2-{HERE}-{HERE}-manylinux_2_28_x86_64.whl",
    "more_itertools-11.2.1-py3-none-any.whl",
)
READY, MISSING = Status('READY', ""), Status('MISSING', "")


@pytest.fixture
def parts(tmp_path):
    for name in ("onnxruntime-1.23.2", "more_itertools-11.2.1", "another_one-1"):
        (tmp_path / "wheels" / f"{name}.dist-info").mkdir(parents=True)
    return Parts(
        python=Path(sys.executable),
        wheels=tmp_path / "wheels",
        numpy=Path(np.__file__).parents[1],
        expected=WHEELS,
        bytecode=tmp_path / "pycache",
    )


def change(parts, **values):
    names = ("python", "wheels", "numpy", "expected", "bytecode")
    return Parts(**{name: getattr(parts, name) for name in names} | values)


def replace(parts, old, new):
    (parts.wheels / f"{old}.dist-info").rename(parts.wheels / f"{new}.dist-info")


def test_all_parts_make_it_ready(parts):
    status = own_engine.read_status(parts)
    assert status.state == 'READY'
    assert "ONNX Runtime 1.23.2" in status.details
    assert not any("another" in line for line in status.details)


def test_missing_wheel_is_named_with_the_remedy(parts):
    (parts.wheels / "onnxruntime-1.23.2.dist-info").rmdir()
    status = own_engine.read_status(parts)
    assert status.state == 'BROKEN'
    assert "(onnxruntime)" in status.text
    assert "Install the zip" in status.text


def test_another_extensions_version_is_told_and_used(parts):
    replace(parts, "onnxruntime-1.23.2", "onnxruntime-1.30.1")
    status = own_engine.read_status(parts)
    assert status.state == 'READY'
    assert "onnxruntime 1.30.1 of another extension, in place of 1.23.2" in status.details


def test_runtime_that_is_too_old_is_refused(parts):
    replace(parts, "onnxruntime-1.23.2", "onnxruntime-1.18.1")
    status = own_engine.read_status(parts)
    assert status.state == 'BROKEN'
    assert "1.18.1" in status.text
    assert "1.19 or later" in status.text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"expected": ()}, "no engine of its own"),
        ({"numpy": None}, "python3-numpy"),
        ({"python": None}, "Python was not found"),
        ({"expected": ("onnxruntime-1.23.2-cp39-cp39-any.whl",)}, "with Python 3.9"),
    ],
)
def test_what_it_stands_on_is_looked_at_first(parts, values, text):
    status = own_engine.read_status(change(parts, **values))
    assert status.state == 'BROKEN'
    assert text in status.text


def test_wheels_are_read_from_the_manifest(tmp_path):
    manifest = tmp_path / "blender_manifest.toml"
    manifest.write_text('wheels = ["./wheels/a-1-py3-none-any.whl"]\n')
    assert own_engine.expected_wheels(manifest) == ("a-1-py3-none-any.whl",)
    assert own_engine.expected_wheels(ROOT / "blender_manifest.toml") == ()
    assert own_engine.expected_wheels(tmp_path / "none.toml") == ()


def test_blender_itself_is_never_taken_for_its_python(tmp_path):
    blender = tmp_path / "blender"
    blender.touch()
    assert own_engine.find_python(str(blender), str(tmp_path)) is None
    assert own_engine.find_python("", str(tmp_path)) is None
    program = tmp_path / "bin" / f"python3.{sys.version_info.minor}"
    program.parent.mkdir()
    program.touch()
    assert own_engine.find_python(str(blender), str(tmp_path)) == program
    assert own_engine.find_python(sys.executable, "") == Path(sys.executable)


@pytest.mark.parametrize(
    ("values", "engine"),
    [
        ({}, 'OWN'),
        ({"torch": READY}, 'OWN'),
        ({"torch": READY, "devices": ("cpu",)}, 'OWN'),
        ({"torch": READY, "devices": ("cpu", "cuda")}, 'TORCH'),
        ({"torch": READY, "needs_torch": True}, 'TORCH'),
        ({"needs_torch": True}, 'OWN'),
        ({"own": MISSING, "torch": READY}, 'TORCH'),
        ({"wanted": "torch"}, 'TORCH'),
        ({"wanted": "onnx", "torch": READY, "devices": ("cuda",)}, 'OWN'),
    ],
)
def test_pytorch_is_taken_where_it_helps_or_is_asked_for(values, engine):
    given = {"wanted": "auto", "own": READY, "torch": MISSING, "devices": (), "needs_torch": False}
    assert own_engine.choose(**given | values) == engine


PROBE = """
import json, sys
def can_import(name):
    try:
        __import__(name)
        return True
    except ImportError:
        return False
names = {names}
print(json.dumps([{{name: can_import(name) for name in names}}, sys.path, sys.flags.isolated,
                  sys.flags.no_site, sys.flags.utf8_mode]))
"""


def run_isolated(parts, tmp_path, names):
    """Import some names where the backend would run; what a probe in the place of it says."""
    root = tmp_path / "an extension ä"
    (root / "backend" / "cli").mkdir(parents=True)
    script = (ROOT / "backend" / "isolated.py").read_text()
    (root / "backend" / "isolated.py").write_text(script)
    (root / "backend" / "__init__.py").touch()
    (root / "backend" / "cli" / "__init__.py").touch()
    probe = PROBE.format(names=names)
    probe = "\n".join("    " + line for line in probe.splitlines())
    (root / "backend" / "cli" / "main.py").write_text(f"def main(arguments):\n{probe}\n")
    (root / "panels.py").touch()
    command = own_engine.command(parts, root, "serve")
    done = subprocess.run(
        command, cwd=tmp_path, env=backend_process.child_env(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not list(root.rglob("__pycache__")), "it writes into the extension's folder"
    return json.loads(done.stdout)


def test_process_sees_the_backend_its_wheels_and_numpy_alone(parts, tmp_path, monkeypatch):
    (parts.wheels / "of_a_wheel.py").touch()
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("sitecustomize", "usercustomize", "from_the_path", "numpy"):
        (evil / f"{name}.py").write_text("raise SystemExit('foreign code ran')")
    (tmp_path / "in_the_folder.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(evil))
    monkeypatch.setenv("PYTHONSTARTUP", str(evil / "sitecustomize.py"))
    monkeypatch.setenv("PYTHONHOME", str(evil))
    monkeypatch.setenv("PYTHONINSPECT", "1")
    can, path, isolated, no_site, utf8 = run_isolated(
        parts, tmp_path,
        ["numpy", "of_a_wheel", "backend.cli", "pytest", "from_the_path", "in_the_folder",
         "panels"],
    )  # fmt: skip
    assert can == {
        "numpy": True, "of_a_wheel": True, "backend.cli": True, "pytest": False,
        "from_the_path": False, "in_the_folder": False, "panels": False,
    }  # fmt: skip
    assert path[-1] == str(parts.wheels)
    assert not any("site-packages" in entry for entry in path[:-1])
    assert (isolated, no_site, utf8) == (1, 1, 1)


def test_environment_brings_no_code_into_a_child(monkeypatch):
    for name in ("PYTHONBREAKPOINT", "PYTHONPLATLIBDIR", "DYLD_INSERT_LIBRARIES", "LD_PRELOAD"):
        monkeypatch.setenv(name, "x")
    ours = {"PYTHONNOUSERSITE", "PYTHONUTF8", "PYTHONUNBUFFERED"}
    left = {
        name for name in backend_process.child_env() if name.startswith(("PYTHON", "DYLD", "LD_"))
    }
    assert left == ours
    assert "PATH" in backend_process.child_env() or os.name == "nt"
