# SPDX-License-Identifier: GPL-3.0-or-later
"""Many jobs on one warm backend: whether memory, threads, files and children stay as they are.

    .venv/backend/bin/python tests/warm_jobs.py [--jobs 1000] [--engine onnx] [--failing 0.1]

It prints the figures of the backend, and of this process in the add-on's place, ten times, and ends
with status 1 where anything has grown after the first tenth.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ptalker_blender.backend_process import BackendProcess
from ptalker_blender.options import GenerateOptions
from ptalker_blender.protocol import Cancelled, Error, GenerateRequest, Result

COLUMNS = ("MB", "threads", "files", "children")
MAX_GROWTH = 0.05
"""Part of the memory by which it may grow."""


def figures(pid):
    """Megabytes in memory, threads, open files and children of a process."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (
        int(status[status.index("VmRSS:") + 1]) // 1024,
        int(status[status.index("Threads:") + 1]),
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        len(children),
    )


def run_job(process, request):
    """Send a job and wait for its end."""
    process.send(request)
    while True:
        for message in process.poll(wait=1.0):
            if isinstance(message, Result | Error | Cancelled):
                return message


def say(number, row):
    texts = [
        ", ".join(f"{value} {name}" for value, name in zip(part, COLUMNS, strict=True))
        for part in (row[:4], row[4:])
    ]
    sys.stdout.write(f"{number} jobs: backend {texts[0]}; add-on's half {texts[1]}\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--engine", default="onnx")
    parser.add_argument("--listen", default="sound")
    parser.add_argument("--failing", type=float, default=0.1, help="part of the jobs that fail")
    flags = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ptalker-warm-"))
    sound = folder / "sound.wav"
    samples, rate = soundfile.read(ROOT / "backend" / "demo" / "speech.ogg")
    soundfile.write(sound, np.asarray(samples)[:rate], rate)
    process = BackendProcess(
        [sys.executable, "-m", "backend", "serve"], cwd=ROOT, log_path=folder / "backend.log"
    )
    rows = []
    tenth, failing = max(1, flags.jobs // 10), 0.0
    for number in range(1, flags.jobs + 1):
        failing += flags.failing
        is_failing, failing = failing >= 1, failing % 1
        out = folder / "motion.npz"
        final = run_job(process, GenerateRequest(
            job=f"job{number}", head=str(ROOT / "backend" / "demo" / "head.npz"),
            audio=str(folder / "missing.wav" if is_failing else sound), out=str(out),
            fps_numerator=24, fps_denominator=1,
            options=GenerateOptions(engine=flags.engine, listen=flags.listen)))  # fmt: skip
        kind = type(final).__name__
        if kind != ("Error" if is_failing else "Result"):
            raise SystemExit(f"job {number}: {final}")
        out.unlink(missing_ok=True)
        if number % tenth == 0:
            rows.append((*figures(process.hello.pid), *figures(os.getpid())))
            say(number, rows[-1])
    process.stop()
    first, last = rows[0], rows[-1]
    memory = {0, 4}
    grown = [
        index for index, (a, b) in enumerate(zip(first, last, strict=True))
        if b > (a * (1 + MAX_GROWTH) if index in memory else a)
    ]  # fmt: skip
    names = [
        f"{COLUMNS[index % 4]} of the {'add-on' if index > 3 else 'backend'}" for index in grown
    ]
    sys.stdout.write(f"grown: {', '.join(names) or 'nothing'}\n")
    left = sorted(path.name for path in folder.iterdir())
    sys.stdout.write(f"files in the folder: {', '.join(left)}\n")
    shutil.rmtree(folder)
    raise SystemExit(1 if grown else 0)


if __name__ == "__main__":
    main()
