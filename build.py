#!/usr/bin/env python3.11
# SPDX-License-Identifier: GPL-3.0-or-later
"""The developer's and newcomer's door: ``python3.11 build.py demo | test | zip | release | …``.

Needs Python 3.11 and nothing else; makes what it needs under ``.venv/`` and ``dist/``.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import checks, environments, extension, locks, release, wheels
from tools.environments import ROOT, SetupError, say

DIST = extension.DIST
DEMO_BLENDER = extension.VALIDATOR
BLENDER_PYTHON = "3.11"
"""Python of the Blenders under ``.venv``."""


def default_build() -> extension.Build:
    """The zip for this machine and the Blenders under ``.venv``."""
    return extension.Build(wheels.Target(wheels.platform_here(), BLENDER_PYTHON))


def make_zip() -> Path:
    """Assemble the zip of this machine in ``dist/``."""
    return extension.make_zip(default_build(), DIST)


def build_zip() -> Path:
    """Make and validate the zip of this machine."""
    path = make_zip()
    extension.validate(path)
    say(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB, valid")
    return path


def command_zip(arguments: argparse.Namespace) -> int:
    """Make the zip of this machine, or others, and have Blender validate them."""
    here = default_build().target
    target = wheels.Target(arguments.platform or here.platform, arguments.python or here.python)
    build = extension.Build(target, for_platform=arguments.for_platform)
    path = extension.make_zip(build, DIST)
    extension.validate(path)
    say("\n".join(extension.size_table([path])))
    return 0


def command_release(arguments: argparse.Namespace) -> int:
    """Make all that is published: zips, repository index, page, notes, checksums."""
    environments.ensure(DEMO_BLENDER)
    release.make(arguments.out.resolve(), address=arguments.address)
    return 0


def command_pins(_arguments: argparse.Namespace) -> int:
    """Resolve what is pinned by hash anew: tools/wheels.json and backend/locked/."""
    wheels.write_pins()
    locks.write()
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
    package = build_zip()
    with tempfile.TemporaryDirectory(prefix="ptalker-demo-") as home:
        options = ["--zip", str(package), "--out", str(DIST / "demo.blend")]
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
    """Recordings on heads in styles, emotions and an exemplar's: films and strips of frames."""
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


def command_bench(arguments: argparse.Namespace) -> int:
    """The measurements, as a table of ratios."""
    torch, blender = environments.ensure("backend"), environments.ensure(DEMO_BLENDER)
    package = str(build_zip())
    status = 0
    if "engines" in arguments.parts:
        options = [package, str(blender), str(torch)]
        status = status or _run("bench_engines.py", *options, environment="backend")
    if "decoder" in arguments.parts:
        status = status or _run("bench_decoder.py", environment="backend")
    if "blender" in arguments.parts:
        with tempfile.TemporaryDirectory(prefix="ptalker-bench-") as home:
            script, variables = "bench_blender.py", {"BLENDER_USER_RESOURCES": home}
            status = status or _run(script, package, environment=DEMO_BLENDER, **variables)
    return status


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
    pack = commands.add_parser("zip", help=command_zip.__doc__)
    pack.add_argument("--platform", choices=sorted(wheels.TAGS), help="default: this machine's")
    pack.add_argument("--python", choices=("3.11", "3.13", "3.14"), help="Blender's (3.11)")
    pack.add_argument(
        "--for-platform", action="store_true", help="for extensions.blender.org: without PyTorch"
    )
    pack.set_defaults(run=command_zip)
    publish = commands.add_parser("release", help=command_release.__doc__)
    publish.add_argument("--out", type=Path, default=DIST / "release", help="folder to write")
    publish.add_argument(
        "--address",
        default=release.NO_ADDRESS,
        help="where the folder will be served, for its page",
    )
    publish.set_defaults(run=command_release)
    commands.add_parser("pins", help=command_pins.__doc__).set_defaults(run=command_pins)
    bench = commands.add_parser("bench", help=command_bench.__doc__)
    parts = ("decoder", "blender", "engines")
    bench.add_argument("parts", nargs="*", default=parts, metavar="PART", help=", ".join(parts))
    bench.set_defaults(run=command_bench)
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
