# SPDX-License-Identifier: GPL-3.0-or-later
"""The zip that artists install, and the places that must agree with it."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import build
from backend.cli import evaluate, export, generate, info, prepare, style, train
from backend.cli import main as command_line
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


DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def without_code(text):
    """A document's lines outside of code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_prose_is_wrapped(path):
    for line in without_code(path.read_text("utf-8")).splitlines():
        if not line.startswith("|"):
            # A link or a piece of code may not be broken, so it may stand out.
            prose = re.sub(r"\]\([^)]*\)|`[^`]*`", "", line)
            assert len(prose) <= 120, f"{name_of(path)}: {line}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_between_documents_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", without_code(path.read_text("utf-8")))
    for link in links:
        if not link.startswith(("https://", "http://")):
            assert (path.parent / link).exists(), f"{name_of(path)} links to {link}"


def names_defined_in(path):
    """Names of the functions, classes and variables that a Python file defines, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def paths_named_in(text):
    """``path`` and ``path:name`` in backticks, where the path begins with a folder of ours."""
    folders = "backend|docs|ptalker_blender|tests|tools"
    return re.findall(rf"`((?:{folders})/[\w./-]*)(?::(\w+))?`", without_code(text))


def test_where_to_change_names_what_exists():
    text = (ROOT / "docs" / "where-to-change.md").read_text("utf-8")
    wishes = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(wishes) >= 20
    named = paths_named_in(text)
    assert len(named) >= len(wishes)
    for path, name in named:
        assert (ROOT / path).exists(), f"there is no {path}"
        if name:
            assert name in names_defined_in(ROOT / path), f"{path} defines no {name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_documents_name_exist(path):
    for named, _ in paths_named_in(path.read_text("utf-8")):
        assert (ROOT / named).exists(), f"{name_of(path)} names {named}"


def commands_of_the_backend(text):
    """Arguments of every ``python -m backend`` in a document's code blocks."""
    for block in re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        for name, first in re.findall(r"^for (\w+) in (\S+)", block, flags=re.MULTILINE):
            block = block.replace(f"${name}", first)
        for line in block.replace("\\\n", " ").splitlines():
            match = re.search(r"python -m backend (.*)", line)
            if match:
                # [--option VALUE] may be left out; of one|two either may be given.
                command = re.sub(r"[][]", " ", match[1])
                words = shlex.split(command, comments=True)
                yield ["2" if word == "N" else word.split("|")[0] for word in words]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_of_the_backend_parse(path, monkeypatch):
    for command in (evaluate, export, generate, info, prepare, style, train):
        monkeypatch.setattr(command, "run", lambda _options: 0)
    for arguments in commands_of_the_backend(path.read_text("utf-8")):
        try:
            status = command_line.main(arguments)
        except SystemExit as stopped:
            status = stopped.code
        assert status == 0, f"{name_of(path)}: python -m backend {shlex.join(arguments)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_imports_in_documents_exist(path):
    for block in re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.M):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("backend"):
                place = ROOT / Path(*node.module.split("."))
                for alias in node.names:
                    if not (place / f"{alias.name}.py").exists():
                        defined = names_defined_in(place.with_suffix(".py"))
                        assert alias.name in defined, f"{name_of(path)}: {node.module}"
