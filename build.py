#!/usr/bin/env python3.11
# SPDX-License-Identifier: GPL-3.0-or-later
"""The developer's and newcomer's door: ``python3.11 build.py demo | gallery | test | zip | bench``.

Needs Python 3.11 and nothing else; makes what it needs under ``.venv/`` and ``dist/``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from tools import checks, environments
from tools.environments import ROOT, SetupError, say

DIST = ROOT / "dist"
MANIFEST = ROOT / "blender_manifest.toml"
DEMO_BLENDER = "blender-4.5"
# What of the two program folders belongs into the extension.
SUFFIXES = {".py", ".txt", ".json", ".npz", ".safetensors", ".md", ".ogg", ".wav", ".toml"}
ZIP_TIME = (2026, 1, 1, 0, 0, 0)  # the same content makes the same zip


def version() -> str:
    """The version, which only the manifest states."""
    return str(tomllib.loads(MANIFEST.read_text("utf-8"))["version"])


def extension_files() -> dict[str, Path]:
    """Every file of the extension: name in the zip -> file in the repository."""
    files = {name: ROOT / name for name in ("blender_manifest.toml", "LICENSE")}
    for folder, prefix in (("ptalker_blender", ""), ("backend", "backend/")):
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT / folder)
            hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
            if path.is_file() and not hidden and path.suffix in SUFFIXES:
                files[prefix + inside.as_posix()] = path
    return files


def make_zip() -> Path:
    """Assemble ``dist/ptalker-VERSION.zip``; the same files always give the same bytes."""
    DIST.mkdir(exist_ok=True)
    path = DIST / f"ptalker-{version()}.zip"
    partial = path.with_suffix(f".{os.getpid()}.part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, source in extension_files().items():
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, source.read_bytes())
    partial.replace(path)
    return path


def validate_zip(path: Path) -> None:
    """Have Blender's own extension tool validate a zip.

    Args:
        path: The zip.

    Raises:
        SetupError: It was refused; the text says why.
    """
    python = environments.ensure(DEMO_BLENDER)
    pattern = "lib*/**/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"
    tool = next(python.parents[1].glob(pattern), None) or next(
        python.parents[1].glob("Lib/**/bl_pkg/cli/blender_ext.py")
    )
    done = subprocess.run(
        [str(python), str(tool), "validate", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=environments.clean_environment(),
    )
    if done.returncode != 0:
        raise SetupError(f"Blender refuses {path.name}:\n{done.stdout}{done.stderr}")


def build_zip() -> Path:
    """Make and validate the extension."""
    path = make_zip()
    validate_zip(path)
    say(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB, valid")
    return path


def command_zip(_arguments: argparse.Namespace) -> int:
    """Make ``dist/ptalker-VERSION.zip`` and have Blender validate it."""
    build_zip()
    return 0


def _run(script: str, *arguments: str, environment: str, **variables: str) -> int:
    """Run a script of ``tools/`` in an environment; its status.

    Blender's own chatter is left out: only lines that begin with ``| `` are shown, or all of them,
    at the end, where the script failed.
    """
    command = [str(environments.python_of(environment)), str(ROOT / "tools" / script), *arguments]
    variables.setdefault("PTALKER_BACKEND_PYTHON", str(environments.python_of("backend")))
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environments.clean_environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = []
    for line in process.stdout or ():
        lines.append(line)
        if line.startswith("| "):
            say("  " + line[2:].rstrip())
    status = process.wait()
    if status != 0:
        say("".join(lines[-60:]))
    return status


def command_demo(arguments: argparse.Namespace) -> int:
    """Everything from nothing to a head that speaks: dist/demo.blend, demo.mp4 and demo.png."""
    environments.ensure("backend")
    environments.ensure(DEMO_BLENDER)
    extension = build_zip()
    with tempfile.TemporaryDirectory(prefix="ptalker-demo-") as home:
        options = ["--zip", str(extension), "--out", str(DIST / "demo.blend")]
        options += ["--sound", str(arguments.sound.resolve())] if arguments.sound else []
        status = _run(
            "demo_scene.py", *options, environment=DEMO_BLENDER, BLENDER_USER_RESOURCES=home
        )
        if status != 0:
            say(f"The demo scene could not be made (status {status}).")
            return 1
        engines = ["workbench", "cycles"] if environments.can_render_with_opengl() else ["cycles"]
        for engine in engines:  # a missing graphics driver aborts the process: in a child
            status = _run(
                "demo_render.py",
                str(DIST),
                engine,
                environment=DEMO_BLENDER,
                BLENDER_USER_RESOURCES=home,
            )
            if status == 0:
                break
            say(f"Rendering with {engine} failed (status {status}).")
    for name in ("demo.blend", "demo.mp4", "demo.png"):
        if not (DIST / name).exists():
            say(f"dist/{name} is missing.")
            return 1
    say("The head speaks: dist/demo.mp4 (film), dist/demo.png (picture), dist/demo.blend (scene)")
    return 0


def command_pictures(arguments: argparse.Namespace) -> int:
    """The pictures of README and the manual from dist/demo.blend: docs/images/, docs/pictures/."""
    environments.ensure("backend", for_tests=True)  # which brings Pillow
    environments.ensure(DEMO_BLENDER)
    if not (DIST / "demo.blend").exists():
        say("dist/demo.blend is missing: make it with `build.py demo`.")
        return 1
    engine = "workbench" if environments.can_render_with_opengl() else "cycles"
    with tempfile.TemporaryDirectory(prefix="ptalker-pictures-") as home:
        turned = Path(home) / "turntable"
        turned.mkdir()
        blender = {"environment": DEMO_BLENDER, "BLENDER_USER_RESOURCES": home}
        status = _run("turntable.py", str(DIST / "demo.blend"), str(turned), engine, **blender)
        status = status or _run("demo_render.py", str(DIST), "portrait", **blender)
        options = ["--turntable", str(turned), "--out", str(ROOT / "docs" / "pictures")]
        if arguments.character:
            options += ["--character", str(arguments.character.resolve())]
        status = status or _run("heads_pictures.py", *options, environment="backend")
    if status == 0:
        (DIST / "demo.png").replace(ROOT / "docs" / "images" / "demo.png")
    return status


def command_gallery(arguments: argparse.Namespace) -> int:
    """Recordings on heads in four styles, as films and strips of frames: dist/gallery/."""
    environments.ensure("backend", for_tests=True)  # which brings Pillow
    out = DIST / "gallery"
    options = ["--speech", str(arguments.speech.resolve()), "--out", str(out)]
    options += ["--clips", str(arguments.clips), "--alignment", arguments.alignment]
    options += ["--checkpoint", arguments.checkpoint]
    for head in arguments.head:
        options += ["--head", str(head.resolve())]
    status = _run("gallery.py", *options, environment="backend")
    if status == 0:
        say(f"Look at {out.relative_to(ROOT)}")
    return status


def command_test(arguments: argparse.Namespace) -> int:
    """Everything that is tested; the last line counts."""
    return checks.run(arguments.parts, make_zip=build_zip)


def command_bench(_arguments: argparse.Namespace) -> int:
    """The measurements, as a table of ratios."""
    environments.ensure("backend")
    environments.ensure(DEMO_BLENDER)
    extension = build_zip()
    status = _run("bench_decoder.py", environment="backend")
    with tempfile.TemporaryDirectory(prefix="ptalker-bench-") as home:
        script, variables = "bench_blender.py", {"BLENDER_USER_RESOURCES": home}
        return status or _run(script, str(extension), environment=DEMO_BLENDER, **variables)


def main() -> int:
    """Parse the command line and run one command."""
    parser = argparse.ArgumentParser(prog="build.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help=command_demo.__doc__)
    demo.add_argument("--sound", type=Path, help="another sound file for the head to speak")
    demo.set_defaults(run=command_demo)
    pictures = commands.add_parser("pictures", help=command_pictures.__doc__)
    pictures.add_argument("--character", type=Path, help="MakeHuman's body as .npz, .ply or .obj")
    pictures.set_defaults(run=command_pictures)
    gallery = commands.add_parser("gallery", help=command_gallery.__doc__)
    gallery.add_argument("--speech", type=Path, required=True, help="recordings with phone times")
    gallery.add_argument("--alignment", default="alignment.json", help="the file with the times")
    gallery.add_argument("--head", type=Path, action="append", default=[], help="beside the demo's")
    gallery.add_argument("--clips", type=int, default=2, help="how many of the recordings")
    gallery.add_argument("--checkpoint", default="base", help="a folder or a bundled one's name")
    gallery.set_defaults(run=command_gallery)
    test = commands.add_parser("test", help=command_test.__doc__)
    test.add_argument("parts", nargs="*", metavar="PART", help=", ".join(checks.PARTS))
    test.set_defaults(run=command_test)
    commands.add_parser("zip", help=command_zip.__doc__).set_defaults(run=command_zip)
    commands.add_parser("bench", help=command_bench.__doc__).set_defaults(run=command_bench)
    arguments = parser.parse_args()
    try:
        return int(arguments.run(arguments))
    except SetupError as problem:
        print(f"build.py: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build.py: stopped; the same command goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
