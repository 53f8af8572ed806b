# SPDX-License-Identifier: GPL-3.0-or-later
"""The zip that artists install, and the places that must agree with it."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import build
from tools import checks, environments

# Blender's list; the bpy module does not check it, the application does.
BLENDER_TAGS = {
    "3D View", "Add Curve", "Add Mesh", "Animation", "Bake", "Camera", "Compositing",
    "Development", "Game Engine", "Geometry Nodes", "Grease Pencil", "Import-Export", "Lighting",
    "Material", "Mesh", "Modeling", "Node", "Object", "Paint", "Physics", "Pipeline", "Render",
    "Rigging", "Scene", "Sculpt", "Sequencer", "System", "Text Editor", "Tracking",
    "User Interface", "UV",
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest():
    return tomllib.loads((ROOT / "blender_manifest.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def extension(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    kept = build.DIST
    build.DIST = folder
    try:
        yield build.make_zip()
    finally:
        build.DIST = kept


@pytest.fixture(scope="module")
def names(extension):
    with zipfile.ZipFile(extension) as archive:
        assert archive.testzip() is None
        return set(archive.namelist())


def test_manifest_and_package_are_at_the_root(names):
    assert {"blender_manifest.toml", "__init__.py", "LICENSE", "operators.py"} <= names


def test_backend_is_inside_with_its_checkpoint_and_demo_head(names):
    assert {
        "backend/__main__.py",
        "backend/requirements.txt",
        "backend/requirements-words.txt",
        "backend/checkpoints/base/config.json",
        "backend/checkpoints/base/model.safetensors",
        "backend/checkpoints/phone_head/model.safetensors",
        "backend/topologies/flame.json",
        "backend/topologies/demo.json",
        "backend/demo/head.npz",
        "backend/demo/speech.ogg",
    } <= names


def test_nothing_else_is_inside(names):
    for name in names:
        assert not name.startswith(("tests", "tools", "docs", "dist", ".")), name
        assert "__pycache__" not in name, name
        assert ".venv" not in name, name
        assert Path(name).suffix in build.SUFFIXES or name == "LICENSE", name


def test_no_data_of_a_flame_head_is_inside(extension, names):
    assert not [name for name in names if name.endswith((".ply", ".obj", ".pkl", ".npy"))]
    with zipfile.ZipFile(extension) as archive:
        topology = archive.read("backend/topologies/flame.json").decode()
    assert not re.search(r"\d\.\d+", topology), "flame.json holds coordinates"


def test_zip_stays_small(extension):
    assert extension.stat().st_size < 30e6


def test_the_same_files_make_the_same_zip(extension):
    first = extension.read_bytes()
    assert build.make_zip().read_bytes() == first


def test_blender_accepts_the_zip(extension):
    if not environments.python_of(build.DEMO_BLENDER).exists():
        pytest.skip(f"there is no environment {build.DEMO_BLENDER}")
    build.validate_zip(extension)


def test_manifest_keeps_blenders_rules(manifest):
    assert manifest["id"] == "ptalker"
    assert manifest["name"] == "PTalker"
    assert "Blender" not in manifest["name"]
    assert manifest["blender_version_min"] == "4.2.0"
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert set(manifest["tags"]) <= BLENDER_TAGS
    assert set(manifest["permissions"]) == {"files", "network"}
    for text in (manifest["tagline"], *manifest["permissions"].values()):
        assert len(text) <= 64
        assert not text.endswith(".")


def test_version_is_written_in_the_manifest_only(manifest):
    version = manifest["version"]
    for folder in ("ptalker_blender", "backend", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            assert f'"{version}"' not in path.read_text("utf-8"), path
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-words.txt"])
def test_requirements_are_exact_pins(name):
    lines = (ROOT / "backend" / name).read_text("utf-8").splitlines()
    pins = [line.split(";")[0].strip() for line in lines if line and not line.startswith("#")]
    assert pins
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", pin), pin


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text("utf-8")
    for command in re.findall(r"build\.py (\w+)", readme):
        assert hasattr(build, f"command_{command}"), command


def test_readme_pictures_exist_and_are_small():
    readme = (ROOT / "README.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 400_000, picture


def test_ci_calls_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "python3.11 build.py test" in script
    assert "python3.11 build.py test" in (ROOT / "README.md").read_text("utf-8")


def test_unknown_test_part_is_refused():
    assert checks.run(["no-such-part"], make_zip=build.make_zip) == 2


def test_build_without_arguments_shows_its_usage():
    done = subprocess.run(
        [sys.executable, str(ROOT / "build.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "demo" in done.stderr


def test_missing_libraries_are_named_with_their_command(monkeypatch):
    monkeypatch.setattr(
        environments.shutil, "which", lambda name: "/bin/x" if name == "apt-get" else None
    )
    monkeypatch.setattr(environments.os, "geteuid", lambda: 1000)
    with pytest.raises(environments.SetupError, match=r"sudo apt-get install .* libxi6"):
        environments._bring_packages({"libXi.so.6": "libxi6"}, required=True)


def test_drivers_of_graphics_cards_are_not_asked_for(monkeypatch, tmp_path):
    library = tmp_path / "lib/python3.11/site-packages/bpy/__init__.so"
    library.parent.mkdir(parents=True)
    library.touch()
    listing = (
        "\tlibcuda.so.1 => not found\n\tlibXi.so.6 => not found\n\tlibm.so.6 => /lib/libm.so.6\n"
    )
    done = subprocess.CompletedProcess([], 0, stdout=listing)
    monkeypatch.setattr(environments.subprocess, "run", lambda *_a, **_k: done)
    monkeypatch.setattr(environments.shutil, "which", lambda _name: "/usr/bin/ldd")
    assert environments.missing_libraries(tmp_path) == ["libXi.so.6"]
