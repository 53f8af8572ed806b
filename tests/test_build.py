# SPDX-License-Identifier: GPL-3.0-or-later
"""The zip that artists install, and the places that must agree with it."""

import hashlib
import io
import json
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
from tools import checks, environments, extension, locks, release, wheels

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


def package_of(tmp_path_factory, **values):
    """A zip; it takes the wheels from the cache, or fetches them."""
    target = build.default_build().target
    folder = tmp_path_factory.mktemp("dist")
    return extension.make_zip(extension.Build(target, **values), folder)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return package_of(tmp_path_factory)


@pytest.fixture(scope="module")
def platform_package(tmp_path_factory):
    return package_of(tmp_path_factory, for_platform=True)


def names_in(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return set(archive.namelist())


@pytest.fixture(scope="module")
def names(package):
    return names_in(package)


def test_manifest_and_package_are_at_the_root(names):
    files = {"blender_manifest.toml", "__init__.py", "LICENSE", "NOTICES.md", "operators.py"}
    assert files <= names


def test_notices_name_every_part_of_others(names):
    notices = (ROOT / "NOTICES.md").read_text("utf-8")
    checkpoints = {"/".join(name.split("/")[:3]) for name in names if "/checkpoints/" in name}
    for part in (*checkpoints, "backend/moonshine", "backend/demo/speech.ogg", "wheels/"):
        assert f"`{part}" in notices, part
    assert "speechocean762" in notices
    assert "CC BY 4.0" in notices


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
    own = {name for name in names if not name.startswith(("wheels/", "backend/moonshine/"))}
    for name in own:
        assert not name.startswith(("tests", "tools", "docs", "dist", ".")), name
        assert "__pycache__" not in name, name
        assert ".venv" not in name, name
        assert Path(name).suffix in extension.SUFFIXES or name == "LICENSE", name


def test_moonshines_model_is_inside_with_its_notice(package, names):
    files = {Path(name).name for name in names if name.startswith("backend/moonshine/")}
    assert files == {"encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin", "LICENSE"}
    with zipfile.ZipFile(package) as archive:
        assert b"MIT License" in archive.read("backend/moonshine/LICENSE")


def test_wheels_are_unmodified_and_named_in_the_manifest(package, names):
    pinned = {wheel.file: wheel.sha256 for wheel in wheels.pinned(build.default_build().target)}
    assert {name for name in names if name.startswith("wheels/")} == {
        f"wheels/{name}" for name in pinned
    }
    with zipfile.ZipFile(package) as archive:
        inside = tomllib.loads(archive.read("blender_manifest.toml").decode())
        for name, sha256 in pinned.items():
            assert hashlib.sha256(archive.read(f"wheels/{name}")).hexdigest() == sha256, name
    assert sorted(inside["wheels"]) == sorted(f"./wheels/{name}" for name in pinned)
    assert inside["platforms"] == [build.default_build().target.platform]


def test_every_wheel_has_its_licence(package):
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            if name.startswith("wheels/"):
                with zipfile.ZipFile(io.BytesIO(archive.read(name))) as wheel:
                    files = [Path(file).name.upper() for file in wheel.namelist()]
                    words = ("LICENSE", "LICENCE", "COPYING", "THIRDPARTYNOTICES")
                    metadata = next(f for f in wheel.namelist() if f.endswith("/METADATA"))
                    says = "License" in wheel.read(metadata).decode()
                    # eSpeak NG's licence is that of the zip: LICENSE, named in NOTICES.md.
                    is_ours = name.startswith("wheels/espeakng_loader-")
                    has_own = any(file.startswith(words) for file in files)
                    assert says or has_own or is_ours, name


def test_paths_of_wheels_fit_into_windows():
    folder = (
        "C:/Users/a_user_of_20_letters/AppData/Roaming/Blender Foundation/Blender/5.1/extensions/"
        ".local/lib/python3.13/site-packages/"
    )
    for target in wheels.TARGETS:
        for wheel in wheels.pinned(target):
            if target.platform.startswith("windows"):
                assert len(folder) + wheel.longest_path < 260, wheel.file


def test_pins_are_those_of_the_requirements():
    for target in wheels.TARGETS:
        wanted = {re.sub("[-_.]+", "-", pin) for pin in wheels.requirements_of(target)}
        found = {re.sub("[-_.]+", "-", wheel.pin) for wheel in wheels.pinned(target)}
        assert found == wanted, f"{target.name}: run build.py pins"


def test_wheels_are_for_their_target():
    for target in wheels.TARGETS:
        tag = f"cp{target.python.replace('.', '')}"
        word = {"linux": "manylinux", "windows": "win_", "macos": "macosx"}
        system = word[target.platform.split("-")[0]]
        for wheel in wheels.pinned(target):
            python, abi, system_tag = wheel.file.removesuffix(".whl").split("-")[-3:]
            assert tag == python or abi in ("abi3", "none"), wheel.file
            assert system_tag == "any" or system in system_tag, wheel.file


def test_build_for_blenders_platform_fetches_nothing(platform_package):
    names = names_in(platform_package)
    assert not names & set(extension.TORCH_SETUP)
    assert "backend/requirements-engine.txt" in names
    with zipfile.ZipFile(platform_package) as archive:
        manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
        code = {
            name: archive.read(name).decode()
            for name in names
            if name.endswith(".py") and "/" not in name
        }
    assert set(manifest["permissions"]) == {"files"}
    for name, text in code.items():
        assert '"pip"' not in text, name
        assert "download.pytorch.org" not in text, name


def test_no_data_of_a_flame_head_is_inside(package, names):
    assert not [name for name in names if name.endswith((".ply", ".obj", ".pkl", ".npy"))]
    with zipfile.ZipFile(package) as archive:
        topology = archive.read("backend/topologies/flame.json").decode()
    assert not re.search(r"\d\.\d+", topology), "flame.json holds coordinates"


def test_zip_stays_small(package):
    assert package.stat().st_size <= extension.MAX_ZIP_BYTES


@pytest.mark.parametrize("for_platform", [False, True])
def test_the_same_files_make_the_same_zip(package, platform_package, tmp_path, for_platform):
    first = platform_package if for_platform else package
    again = extension.make_zip(
        extension.Build(build.default_build().target, for_platform=for_platform), tmp_path
    )
    assert again.name == first.name
    assert again.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("for_platform", [False, True])
def test_blender_accepts_the_zip(package, platform_package, for_platform):
    if not environments.python_of(build.DEMO_BLENDER).exists():
        pytest.skip(f"there is no environment {build.DEMO_BLENDER}")
    extension.validate(platform_package if for_platform else package)


def test_index_names_one_zip_for_each_blender(package, tmp_path):
    """Small zips stand in for the wheels: Blender's tool reads their names alone."""
    if not environments.python_of(build.DEMO_BLENDER).exists():
        pytest.skip(f"there is no environment {build.DEMO_BLENDER}")
    builds = [extension.Build(target) for target in wheels.TARGETS]
    for one in builds:
        with zipfile.ZipFile(tmp_path / one.file_name, "w") as archive:
            archive.writestr("blender_manifest.toml", extension.manifest_of(one))
            archive.writestr("__init__.py", "")
            for wheel in wheels.pinned(one.target):
                archive.writestr(f"wheels/{wheel.file}", "")
    release.write_index(tmp_path)
    first = (tmp_path / "index.json").read_bytes()
    release.write_index(tmp_path)
    assert (tmp_path / "index.json").read_bytes() == first
    entries = json.loads(first)["data"]
    assert len(entries) == len(builds)
    for target in wheels.TARGETS:
        fitting = [
            entry for entry in entries
            if entry["platforms"] == [target.platform]
            and entry["python_versions"] == [target.python]
        ]  # fmt: skip
        assert len(fitting) == 1, target
    page = release.page(tmp_path, builds, "https://example.org/ptalker/")
    assert "https://example.org/ptalker/index.json" in page
    for one in builds:
        assert f'href="{one.file_name}?repository=./index.json' in page


def test_release_notes_are_the_changelogs():
    notes = release.notes(extension.version())
    assert notes.startswith(f"# PTalker {extension.version()}\n")
    assert "\n## " not in notes
    assert notes.count("\n- ") > 3
    with pytest.raises(environments.SetupError, match="says nothing"):
        release.notes("99.0.0")


def test_release_never_empties_a_folder_of_something_else(tmp_path):
    (tmp_path / "precious.txt").touch()
    with pytest.raises(environments.SetupError, match="not empty"):
        release._empty(tmp_path)
    assert (tmp_path / "precious.txt").exists()


def test_checksums_are_of_every_file(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"b")
    (tmp_path / "a").write_bytes(b"a")
    release.write_checksums(tmp_path)
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256(b'a').hexdigest()}  a", f"{hashlib.sha256(b'b').hexdigest()}  sub/b",
    ]  # fmt: skip


def test_wheel_that_is_not_as_pinned_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PTALKER_WHEELS", str(tmp_path))
    wheel = wheels.Wheel("tiny-1-py3-none-any.whl", hashlib.sha256(b"good").hexdigest(), 4, 9)

    def serve(_wheels, _tags, _python, folder):
        (folder / wheel.file).write_bytes(b"evil")

    monkeypatch.setattr(wheels, "_download", serve)
    with pytest.raises(environments.SetupError, match="not served as it is pinned"):
        wheels._fetch([wheel], ["any"], "3.11")
    assert not list(tmp_path.rglob("*.whl"))


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


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-words.txt", "requirements-engine.txt"]
)
def test_requirements_are_exact_pins(name):
    lines = (ROOT / "backend" / name).read_text("utf-8").splitlines()
    pins = [line.split(";")[0].strip() for line in lines if line and not line.startswith("#")]
    assert pins
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", pin), pin


def test_locked_packages_are_those_of_the_requirements_and_have_hashes():
    locked = {}
    for path in locks.FOLDER.glob("*.txt"):
        found = locks.entries(path.read_text("utf-8").partition("\n")[2])
        assert all(locks.file_of(package) == path.stem for package in found)
        locked |= found
    for package, listed in locked.items():
        for entry in listed:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), package
    for name in locks.SOURCES:
        for line in (ROOT / "backend" / name).read_text("utf-8").splitlines():
            if pin := line.split("#")[0].split(";")[0].strip():
                package = pin.partition("==")[0]
                assert any(e.startswith(pin) for e in locked[package]), f"{pin}: build.py pins"


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
