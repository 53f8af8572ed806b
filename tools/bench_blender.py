# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the add-on inside Blender's Python: start-up, writing keys, playback, the whole job.

Usage: ``bench_blender.py EXTENSION_ZIP``. Prints one line per measurement: name, value, unit.
"""

import importlib
import os
import statistics
import subprocess
import sys
import time
import wave
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import demo_scene

PACKAGE = "bl_ext.user_default.ptalker"
WRITTEN_FRAMES, CURVES = 18_000, 52
PLAYED_FRAMES = 240
SPOKEN_SECONDS = 60
STARTUPS = 5


def report(name: str, value: float, unit: str, goal: str = "") -> None:
    """One line of the table."""
    print(f"| {name:58} {value:10,.3f} {unit:4} {goal}", flush=True)


def start_up(extension: Path) -> None:
    """Time that enabling the installed extension adds to a start of Blender."""
    probe = (
        "import time, bpy, addon_utils; t = time.perf_counter(); "
        f"assert addon_utils.enable('{PACKAGE}'); print('seconds', time.perf_counter() - t); "
        "import sys, os; assert 'torch' not in sys.modules; sys.stdout.flush(); os._exit(0)"
    )
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    bpy.ops.wm.save_userpref()
    # Blender keeps compiled modules; the first start, which makes them, does not count.
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(1 + STARTUPS):
        done = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=variables
        )
        times.append(float(done.stdout.split("seconds")[1].split()[0]))
    bpy.ops.preferences.addon_enable(module=PACKAGE)
    milliseconds = 1e3 * statistics.median(times[1:])
    report(f"start-up with the add-on ({extension.name})", milliseconds, "ms", "< 50")


def random_motion(motion: ModuleType, *, num_frames: int, num_vertices: int) -> object:
    """Smooth random weights and shapes, all keys active."""
    rng = np.random.default_rng(1)
    weights = 0.5 + 0.4 * np.sin(np.arange(num_frames)[:, None] / 9 + rng.random(CURVES) * 6)
    shapes = rng.normal(scale=1e-4, size=(CURVES, num_vertices, 3))
    return motion.KeyedMotion(
        names=tuple(f"shape{k:02}" for k in range(CURVES)),
        weights=weights.astype(np.float32),
        shapes=shapes.astype(np.float32),
    )


def fresh_head() -> bpy.types.Object:
    """A new file with the demo head in it."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    return demo_scene.add_head()


def writing(motion: ModuleType, shape_keys: ModuleType) -> None:
    """Bulk writing against one ``keyframe_insert`` per value."""
    head = fresh_head()
    keyed = random_motion(motion, num_frames=WRITTEN_FRAMES, num_vertices=len(head.data.vertices))
    started = time.perf_counter()
    line = shape_keys.Line("bulk", 1, 25.0)
    shape_keys.write(head, keyed, line=line, action_name="bulk", undo=ExitStack())
    bulk = time.perf_counter() - started
    head = fresh_head()
    keyed = random_motion(motion, num_frames=1, num_vertices=len(head.data.vertices))
    line = shape_keys.Line("single", 1, 25.0)
    shape_keys.write(head, keyed, line=line, action_name="single", undo=ExitStack())
    head.data.shape_keys.animation_data_clear()
    block = head.data.shape_keys.key_blocks[1]  # one curve whole: an insert costs its length
    started = time.perf_counter()
    for frame in range(1, WRITTEN_FRAMES + 1):
        block.value = 0.5
        block.keyframe_insert("value", frame=frame)
    single = (time.perf_counter() - started) * CURVES
    report(f"writing {WRITTEN_FRAMES} frames x {CURVES} curves", bulk, "s", "< 1")
    report("  against keyframe_insert", single / bulk, "x", "> 100")


def playback(motion: ModuleType, shape_keys: ModuleType) -> None:
    """Evaluation per frame with all keys animated, beyond that of the bare mesh."""

    def median_ms() -> float:
        times = []
        for frame in range(1, PLAYED_FRAMES + 1):
            started = time.perf_counter()
            bpy.data.scenes[0].frame_set(frame)
            times.append(time.perf_counter() - started)
        return 1e3 * statistics.median(times[20:])

    head = fresh_head()
    bare = median_ms()
    keyed = random_motion(motion, num_frames=PLAYED_FRAMES, num_vertices=len(head.data.vertices))
    line = shape_keys.Line("played", 1, 25.0)
    shape_keys.write(head, keyed, line=line, action_name="played", undo=ExitStack())
    report("playback, more than the bare mesh, per frame", median_ms() - bare, "ms", "< 1.5")


def write_long_sound(path: Path, seconds: int) -> None:
    """The demo sentence again and again, as 16-bit WAV."""
    import aud  # absent in some builds, not in this one

    source = aud.Sound(str(demo_scene.SPEECH))  # type: ignore[call-arg]  # stub's lack
    rate = int(source.specs[0])
    samples = source.data()[:, 0]
    samples = np.resize(samples, seconds * rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * samples.clip(-1, 1)).astype("<i2").tobytes())


def whole_job(folder: Path) -> None:
    """Button to keyed keys for a minute of speech, the backend warm."""
    sound = folder / "minute.wav"
    write_long_sound(sound, SPOKEN_SECONDS)
    for listen, goal in (("sound", "< 3"), ("words", "< 10")):
        times = []
        for _ in range(2):  # the first run starts the backend
            head = fresh_head()
            demo_scene.add_sound(bpy.data.scenes[0], head, sound)
            started = time.perf_counter()
            demo_scene.generate(head, listen=listen)
            times.append(time.perf_counter() - started)
        report(f"generate, {SPOKEN_SECONDS} s of speech, warm, {listen}", times[-1], "s", goal)
        report("  real-time factor", times[-1] / SPOKEN_SECONDS, "")


def main() -> None:
    """Install, then measure."""
    extension = Path(sys.argv[1])
    demo_scene.install(extension)
    motion = importlib.import_module(f"{PACKAGE}.motion")
    shape_keys = importlib.import_module(f"{PACKAGE}.shape_keys")
    start_up(extension)
    writing(motion, shape_keys)
    playback(motion, shape_keys)
    whole_job(Path(os.environ["BLENDER_USER_RESOURCES"]))


if __name__ == "__main__":
    status = 1
    try:
        main()
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
