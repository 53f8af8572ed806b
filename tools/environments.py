# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python environments under ``.venv/`` and the system libraries that Blender's module needs.

An environment is made, or completed, only when its stamp file does not match its pins; an
interrupted run is taken up where pip's cache allows.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENVS = ROOT / ".venv"
BLENDERS = ("4.2", "4.5", "5.0")
STAMP = "ptalker-pins.txt"

PYTEST = "pytest==9.2.0"
TEST_PINS = (
    PYTEST, "hypothesis==6.170.15", "ruff==0.17.6", "mypy==2.4.1", "pydoclint==0.12.0",
    "torchmetrics==1.9.0", "onnx==1.23.2", "onnxscript==0.7.2",
)  # fmt: skip
TRAIN_PINS = (
    "accelerate==1.15.0", "tensorboard==2.21.0", "matplotlib==3.11.2", "psutil==7.2.2",
    "pillow==13.0.0",
)  # fmt: skip
PINS: dict[str, tuple[str, ...]] = {
    "backend": (),
    "lint": ("mypy==2.4.1", "numpy==2.4.6", "fake-bpy-module-4.5==20260730"),
    "blender-4.2": ("bpy==4.2.23", "numpy==1.26.4", PYTEST),
    "blender-4.5": ("bpy==4.5.15", "numpy==1.26.4", PYTEST),
    "blender-5.0": ("bpy==5.0.1", "numpy==1.26.4", PYTEST),
}
SIZES = {"backend": "1.6 GB; more where pip brings a CUDA build of torch", "lint": "0.1 GB"}

# Shared library -> Debian's package. Drivers of graphics cards are loaded only where they are.
DEBIAN_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libOpenGL.so.0": "libopengl0",
    "libGLX.so.0": "libglx0",
    "libICE.so.6": "libice6",
    "libSM.so.6": "libsm6",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libXrender.so.1": "libxrender1",
    "libXt.so.6": "libxt6",
    "libXxf86vm.so.1": "libxxf86vm1",
    "libgomp.so.1": "libgomp1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libEGL.so.1": "libegl1",
    "libEGL_mesa.so.0": "libegl-mesa0",
    "libgallium (software rendering)": "libgl1-mesa-dri",
}
GRAPHICS_DRIVERS = ("libcuda", "libamdhip64", "libze_loader", "libnvidia", "libhip", "libsycl")


class SetupError(Exception):
    """What is missing on this machine, and the command that brings it."""


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def python_of(name: str) -> Path:
    """The interpreter of an environment; it may not exist yet."""
    folder = VENVS / name
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def clean_environment(**extra: str) -> dict[str, str]:
    """The process environment without what would leak another Python into a child."""
    drop = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV")
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    return kept | {"PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"} | extra


def ensure(name: str, *, for_tests: bool = False) -> Path:
    """Make or complete an environment and return its interpreter.

    Args:
        name: A key of ``PINS``.
        for_tests: Also install what tests and training need (backend only).

    Returns:
        The environment's Python.

    Raises:
        SetupError: Something is missing that only the user can bring.
    """
    pins = [*PINS[name]]
    if name == "backend":
        pins += _required("requirements.txt") + _wanted()
        if for_tests:
            pins += [*_required("requirements-cluster.txt"), *TEST_PINS, *TRAIN_PINS]
    stamp = VENVS / name / STAMP
    done = stamp.read_text("utf-8").splitlines() if stamp.exists() else []
    if not set(pins) <= set(done) or not python_of(name).exists():
        started = time.monotonic()
        say(f"environment {name}: installing (about {SIZES.get(name, '1.5 GB')})")
        stamp.unlink(missing_ok=True)
        _make_venv(name)
        _pip_install(name, pins)
        stamp.write_text("\n".join(sorted(set(pins))) + "\n", "utf-8")
        say(f"environment {name}: ready after {time.monotonic() - started:.0f} s")
    if name.startswith("blender-"):
        bring_system_libraries(name)
    return python_of(name)


def _wanted() -> list[str]:
    """The recogniser's pin, on systems that its wheels are for."""
    machine = platform.machine().lower()
    release = platform.mac_ver()[0] if sys.platform == "darwin" else platform.libc_ver()[1]
    newest = tuple(map(int, re.findall(r"\d+", release)))
    is_there = {
        "linux": machine in ("x86_64", "aarch64") and newest >= (2, 34),
        "darwin": machine == "arm64" and newest >= (15,),
        "win32": machine == "amd64",
    }
    return _required("requirements-words.txt") if is_there.get(sys.platform) else []


def _required(name: str) -> list[str]:
    """The pins in one of the backend's files."""
    lines = (ROOT / "backend" / name).read_text("utf-8").splitlines()
    return [pin for line in lines if (pin := line.split("#")[0].strip())]


def _make_venv(name: str) -> None:
    if sys.version_info[:2] != (3, 11):
        raise SetupError(
            f"build.py runs on Python {platform.python_version()}, but the bpy modules need "
            "Python 3.11. Run it as: python3.11 build.py"
        )
    if importlib.util.find_spec("ensurepip") is None:
        _bring_packages({"Python's module ensurepip": "python3.11-venv"}, required=True)
    VENVS.mkdir(exist_ok=True)
    command = [sys.executable, "-I", "-m", "venv", str(VENVS / name)]
    subprocess.run(command, check=True, env=clean_environment())


def _pip_install(name: str, pins: Iterable[str]) -> None:
    """Run pip; print one line per large download, keep the rest in a log file."""
    log = VENVS / f"{name}.log"
    command = [str(python_of(name)), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar=off", *pins]
    large = re.compile(r"(?:Downloading|Using cached|Processing) .*?([^/\s]+\.whl).*\((.* [MG]B)\)")
    with log.open("w", encoding="utf-8") as lines:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(),
        )
        for line in process.stdout or ():
            lines.write(line)
            lines.flush()
            if found := large.search(line):
                say(f"  {found[1].split('-cp')[0].split('-py')[0]}  {found[2]}")
    if process.wait() != 0:
        tail = "\n".join(log.read_text("utf-8").splitlines()[-12:])
        raise SetupError(
            f"pip could not make the environment {name} (status {process.returncode}):\n{tail}\n"
            f"Whole log: {log.relative_to(ROOT)}. Check the network and the free space, then run "
            "the same command again; what was downloaded is kept."
        )


def bring_system_libraries(name: str) -> None:
    """Find the shared libraries that an environment's bpy lacks, and install or name them."""
    if sys.platform != "linux":
        return
    missing = missing_libraries(VENVS / name)
    graphics = missing_graphics()
    wanted = {lib: DEBIAN_PACKAGES.get(lib, "") for lib in [*missing, *graphics]}
    if wanted:
        _bring_packages(wanted, required=bool(missing))


def missing_libraries(environment: Path) -> list[str]:
    """Shared libraries that bpy links against and the system does not have."""
    if shutil.which("ldd") is None:
        return []
    files = [str(path) for path in environment.glob("lib/python*/site-packages/bpy/__init__*.so")]
    if not files:
        return []
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    names = set(re.findall(r"^\s*(\S+) => not found", listed, re.MULTILINE))
    return sorted(name for name in names if not name.startswith(GRAPHICS_DRIVERS))


def missing_graphics() -> list[str]:
    """What rendering without a screen lacks: Blender aborts where libEGL cannot be loaded."""
    probe = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    missing = []
    for library in ("libEGL.so.1", "libEGL_mesa.so.0"):
        command = [sys.executable, "-I", "-c", probe, library]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            missing.append(library)
    drivers = ("lib/*/dri/swrast_dri.so", "lib64/dri/swrast_dri.so", "lib/*/libgallium*.so")
    if not any(any(Path("/usr").glob(pattern)) for pattern in drivers):
        missing.append("libgallium (software rendering)")
    return missing


def can_render_with_opengl() -> bool:
    """Whether Workbench may be used; it aborts the process otherwise."""
    return sys.platform != "linux" or not missing_graphics()


def _bring_packages(wanted: dict[str, str], *, required: bool) -> None:
    """Install Debian packages as root, or say which command brings what is missing.

    Args:
        wanted: What is missing -> the Debian package that has it ("" where unknown).
        required: Without them nothing works; otherwise the run goes on without them.

    Raises:
        SetupError: They are required and could not be installed.
    """
    packages = sorted({package for package in wanted.values() if package})
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    names = ", ".join(sorted(wanted))
    if shutil.which("apt-get") and packages and os.geteuid() == 0:
        say(f"installing system libraries ({names})")
        quiet = {"env": clean_environment(DEBIAN_FRONTEND="noninteractive")}
        subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True, **quiet)  # type: ignore[call-overload]
        done = subprocess.run(install, check=False, capture_output=True, text=True, **quiet)  # type: ignore[call-overload]
        if done.returncode == 0:
            return
        say(done.stdout[-2000:] + done.stderr[-2000:])
    if shutil.which("apt-get"):
        command = "sudo " + " ".join(install)
    elif shutil.which("dnf"):
        command = "sudo dnf install " + " ".join(f"'{lib}()(64bit)'" for lib in sorted(wanted))
    else:
        command = "your system's package manager, looking for: " + names
    text = f"This system lacks {names}. Install with:\n    {command}"
    if required:
        raise SetupError(text)
    say(f"{text}\nGoing on without: pictures are rendered by Cycles, which takes longer.")
