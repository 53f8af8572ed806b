# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the two engines against each other: the one of the zip, and PyTorch's environment.

Usage: ``bench_engines.py EXTENSION_ZIP BLENDERS_PYTHON TORCH_PYTHON``. Cold: from the start of a
process to ``motion.npz``; warm: a second job of the same process. Starts of the two alternate, and
the medians are shown, so that what else the machine does falls on both.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import wave
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ptalker_blender import own_engine
from ptalker_blender.backend_process import child_env

RUNS = 5
SECONDS = (5, 60)
WAYS = ("sound", "words")


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What a run took: seconds by the clock, of the processor, and the most memory, in MB."""

    wall: float
    cpu: float
    memory: float


def unpack(package: Path, folder: Path) -> tuple[Path, own_engine.Parts, int]:
    """Unpack a zip as Blender does: the extension, its parts, and the bytes of all on the disk."""
    root, site = folder / "extension", folder / "wheels"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(root)
    expected = own_engine.expected_wheels(root / "blender_manifest.toml")
    for name in expected:
        with zipfile.ZipFile(root / "wheels" / name) as archive:
            archive.extractall(site)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    python = Path(sys.argv[2])
    where = "import numpy; print(numpy.__path__[0])"
    numpy = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    parts = own_engine.Parts(
        python=python,
        wheels=site,
        numpy=Path(numpy.stdout.strip()).parent,
        expected=expected,
        bytecode=folder / "pycache",
    )
    return root, parts, size


def cold(command: list[str]) -> Cost:
    """Run a command to its end."""
    started = time.monotonic()
    process = subprocess.Popen(command, env=child_env(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    wall = time.monotonic() - started
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)


def warm(command: list[str], request: dict[str, object]) -> float:
    """Seconds that the second of two equal jobs of a process takes."""
    process = subprocess.Popen(
        command, env=child_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    seconds = 0.0
    for job in ("first", "second"):
        started = time.monotonic()
        process.stdin.write(json.dumps({**request, "type": "generate", "job": job}) + "\n")
        process.stdin.flush()
        kind = ""
        while kind not in ("result", "error", "cancelled"):
            line = process.stdout.readline()
            kind = json.loads(line)["type"]
        if kind != "result":
            raise RuntimeError(line)
        seconds = time.monotonic() - started
    process.stdin.close()
    process.wait(30)
    return seconds


def long_sound(source: Path, path: Path, seconds: int) -> None:
    """The demo sentence again and again."""
    import numpy as np
    import soundfile

    samples, rate = soundfile.read(str(source), dtype="int16")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.resize(samples, seconds * rate).tobytes())


def main() -> None:
    """Measure, and print the table."""
    package, torch_python = Path(sys.argv[1]), Path(sys.argv[3])
    with tempfile.TemporaryDirectory(prefix="ptalker-engines-") as name:
        folder = Path(name)
        root, parts, size = unpack(package, folder)
        say = f"| {package.name}: {package.stat().st_size / 1e6:.0f} MB, on the disk"
        print(f"{say} {size / 1e6:.0f} MB", flush=True)
        print("| engine  sound  way    cold s   CPU s    MB   warm s", flush=True)
        for seconds in SECONDS:
            sound = folder / f"{seconds}.wav"
            long_sound(root / "backend" / "demo" / "speech.ogg", sound, seconds)
            for way in WAYS:
                measure(root, parts, torch_python, sound, seconds, way)


def measure(root: Path, parts: own_engine.Parts, torch_python: Path, sound: Path,
            seconds: int, way: str) -> None:  # fmt: skip
    """Print the two lines of one sound and way of listening, and their ratio."""
    head, out = root / "backend" / "demo" / "head.npz", sound.with_suffix(".npz")

    def command(engine: str, *arguments: str) -> list[str]:
        if engine == "onnx":
            return own_engine.command(parts, root, *arguments)
        return own_engine.torch_command(torch_python, root, *arguments)

    flags = ["--audio", str(sound), "--head", str(head), "--out", str(out), "--listen", way]
    costs: dict[str, list[Cost]] = {"onnx": [], "torch": []}
    for run in range(1 + RUNS):
        for engine, found in costs.items():
            choice = ["--engine", engine, "--device", "cpu"]
            cost = cold(command(engine, "generate", *flags, *choice))
            if run:  # the first compiles modules
                found.append(cost)
    walls = {}
    for engine, found in costs.items():
        request = {
            "head": str(head), "audio": str(sound), "out": str(out), "fps_numerator": 30,
            "fps_denominator": 1, "options": {"listen": way, "engine": engine, "device": "cpu"},
        }  # fmt: skip
        best = min(warm(command(engine, "serve", "--offline"), request) for _ in range(2))
        walls[engine] = statistics.median(cost.wall for cost in found)
        cpu = statistics.median(cost.cpu for cost in found)
        memory = statistics.median(cost.memory for cost in found)
        line = f"| {engine:7} {seconds:3} s  {way:6} {walls[engine]:6.2f}  {cpu:6.2f}"
        print(f"{line} {memory:5.0f} {best:8.2f}", flush=True)
    print(f"|   cold, torch against onnx: {walls['torch'] / walls['onnx']:.1f} x", flush=True)


if __name__ == "__main__":
    main()
