# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend without torch: it speaks the protocol, writes a plausible motion, fails on demand.

    python tests/fake_backend.py [--mode MODE] [anything else is ignored]

MODE (or the environment variable PTALKER_FAKE_BACKEND) is one of

    ok          hello, then every job ends in a result
    slow        as ok, but a job takes --seconds (30) with progress every 0.05 s; cancel ends it
    stubborn    as slow, but cancel is ignored
    words       as ok, with recognised words in the report
    nolayers    as ok, with a motion as backends of before wrote it
    warning     as ok, with two warnings in messages and report
    error       every job ends in an error
    cancelled   every job ends as cancelled though nobody asked
    crash       exit status 1 in the middle of a job, with a traceback on stderr
    nohello     exit status 1 before hello, with a traceback on stderr
    silent      no hello, no answer, does not end
    hang        hello, then progress once, then nothing; does not even end when stdin closes
    garbage     a line that is not JSON in the middle of a job
    linger      closes its output in the middle of a job and does not end
    lateexit    closes its output in the middle of a job and exits with status 3 after 0.3 s
    midline     dies in the middle of a line
    binary      bytes that are not UTF-8 in the middle of a job
    flood       20000 progress messages, then the result
    version     hello with another protocol version
    badmotion   the result names a file that is no npz
    nofile      the result names a file that does not exist
    nan         the motion's weights hold NaN
    wrongsize   the motion is for another number of vertices
    twice       two final messages

or one out of tests/hostile.py, by the name of a case in one of its tables

    start:CASE    before hello, and nothing follows
    late:CASE     before hello, then as ok
    line:CASE     a line that is no message in the middle of a job, then as ok
    message:CASE  messages that make no sense in the middle of a job, then as ok
    final:CASE    messages in place of the result
    end:CASE      an end, or what the add-on has to end, in the middle of a job
    stuck:CASE    no end in the middle of a job: the user cancels
    motion:CASE   a damaged result, or none
    good:CASE     an odd but good result

With --control FILE the mode is read from that file, at the start and again for every job.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from queue import Queue

PROTOCOL_VERSION = 3


def send(**message):
    write_all(json.dumps(message).encode() + b"\n")


def write_motion(request, *, mode):
    """Three shapes at the lower half of the head, and weights that open and close them."""
    import numpy as np

    with np.load(request["head"]) as head:
        template = np.asarray(head["vertices"], np.float32)
    if mode == "wrongsize":
        template = np.concatenate([template, template[:1]])
    fps = request["fps_numerator"] / request["fps_denominator"]
    num_frames = request.get("num_frames") or int(np.ceil(2.0 * fps - 1e-6))
    times = np.arange(num_frames) / fps
    size = np.ptp(template, axis=0)
    up = int(np.argmax(size))
    low = np.clip((template[:, up].mean() - template[:, up]) / size[up] * 2, 0, 1)
    names = np.array(["jawOpen", "mouthClose", "mouthFunnel"])
    shapes = np.zeros((3, len(template), 3), np.float32)
    shapes[0, :, up] = -0.1 * size[up] * low
    shapes[1, :, up] = 0.05 * size[up] * low
    shapes[2, :, (up + 1) % 3] = -0.03 * size[up] * low
    weights = np.stack([0.5 - 0.5 * np.cos(2 * np.pi * rate * times) for rate in (4, 3, 2)], 1)
    nod = np.stack([5.0 * np.sin(3.0 * times), 0.0 * times, 0.0 * times], 1)
    layers = {
        "weights_speech": weights, "weights_upper_face": 0.0 * weights,
        "weights_life": 0.0 * weights, "weights_emotion": 0.0 * weights,
        "head_rotation": nod * request["options"]["head_motion"],
        "face_axes": [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]],
    }  # fmt: skip
    if mode == "nolayers":
        layers = {}
    if mode == "nan":
        weights[0] = np.nan
    report = {"model": "fake", "warnings": ["The sound is quiet."] if mode == "warning" else []}
    if mode == "words":
        report |= {"listen": "words", "words": "my face is maid of formulas"}
    partial = Path(request["out"] + ".part")
    with partial.open("wb") as file:
        np.savez(
            file,
            weights=weights.astype(np.float32),
            shapes=shapes,
            names=names,
            template=template,
            fps_numerator=request["fps_numerator"],
            fps_denominator=request["fps_denominator"],
            start_seconds=request.get("start_seconds", 0.0),
            report=json.dumps(report),
            **layers,
        )
    partial.replace(request["out"])
    return report


def misbehave(request, *, mode):
    """What a case of tests/hostile.py does in the middle of a job; returns whether it ends it."""
    import hostile

    kind, _, case = mode.partition(":")
    if kind == "line":
        write_all(hostile.filled(hostile.LINES[case], request))
    elif kind in ("message", "final"):
        table = hostile.MESSAGES if kind == "message" else hostile.FINALS
        for message in hostile.filled(table[case], request):
            if message["type"] == "hello":
                message["protocol_version"] = PROTOCOL_VERSION
            send(**message)
    elif kind in ("end", "stuck"):
        (hostile.ENDS if kind == "end" else hostile.STUCK)[case]()
        time.sleep(600)
    return kind == "final"


def spoil_motion(path, *, mode):
    import hostile
    import numpy as np

    kind, _, case = mode.partition(":")
    with np.load(path) as file:
        arrays = dict(file)
    (hostile.MOTIONS if kind == "motion" else hostile.GOOD_MOTIONS)[case](path, arrays)


def write_all(data):
    while data:
        data = data[os.write(1, data) :]


def break_stream(job, *, mode):
    if mode == "hang":
        send(type="progress", job=job, stage="Animating", done=1, total=10, unit="s")
        time.sleep(3600)
    if mode == "crash":
        raise RuntimeError("a fake crash")
    if mode == "garbage":
        os.write(1, b"Some library prints this\n")
    if mode == "binary":
        os.write(1, b"\xff\xfe\x00\n")
    if mode in ("linger", "lateexit"):
        os.close(1)
        time.sleep(3600 if mode == "linger" else 0.3)
        os._exit(3)
    if mode == "midline":
        os.write(1, b'{"type": "progress", "jo')
        os._exit(1)


def run_job(request, *, mode, seconds, cancelled):
    job = request["job"]
    send(type="status", job=job, text="Starting")
    break_stream(job, mode=mode)
    if misbehave(request, mode=mode):
        return None
    if mode == "error":
        text = "The sound file is broken. Choose another one."
        return send(type="error", job=job, message=text, detail="Traceback: a fake one\n")
    if mode == "cancelled":
        return send(type="cancelled", job=job)
    steps = {"slow": int(seconds / 0.05), "stubborn": int(seconds / 0.05), "flood": 20000}.get(
        mode, 4
    )
    for step in range(steps):
        if cancelled.is_set() and mode != "stubborn":
            return send(type="cancelled", job=job)
        send(type="progress", job=job, stage="Animating", done=step, total=steps, unit="s",
             seconds_left=(steps - step) * 0.05)  # fmt: skip
        if mode in ("slow", "stubborn"):
            time.sleep(0.05)
    if mode == "warning":
        send(type="warning", job=job, text="The sound is quiet.")
        send(type="warning", job=job, text="The first 0.5 s are silent.")
    return send(type="result", job=job, path=request["out"], report=finish(request, mode=mode))


def face_point_names():
    path = Path(__file__).resolve().parents[1] / "backend" / "topologies" / "demo.json"
    return json.loads(path.read_text("utf-8"))["face_points"]


def finish(request, *, mode):
    if mode == "nofile":
        return {}
    if mode == "badmotion":
        Path(request["out"]).write_text("no npz")
        return {}
    if request["type"] == "style":
        Path(request["out"]).write_text(json.dumps({"format": "ptalker-style", "code": [0.0] * 8}))
        return {"warnings": []}
    if request["type"] == "face_points":
        points = {name: number for number, name in enumerate(face_point_names())}
        Path(request["out"]).write_text(json.dumps({"face_points": points}))
        return {"face_points": points, "doubtful_face_points": ["chin"], "warnings": []}
    report = write_motion(request, mode=mode)
    if mode.startswith(("motion:", "good:")):
        spoil_motion(Path(request["out"]), mode=mode)
    if mode == "twice":
        send(type="result", job=request["job"], path=request["out"], report=report)
    return report


def mode_of(arguments):
    """What is to be done now: a test may have written another mode since."""
    return arguments.control.read_text() if arguments.control else arguments.mode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", default=os.environ.get("PTALKER_FAKE_BACKEND", "ok"))
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--control", type=Path)
    arguments, _ = parser.parse_known_args()
    mode = mode_of(arguments)
    if mode.startswith(("start:", "late:")):
        import hostile

        kind, _, case = mode.partition(":")
        (hostile.STARTS if kind == "start" else hostile.LATE)[case]()
    if mode == "nohello":
        raise RuntimeError("a fake failure at start")
    if mode == "silent":
        time.sleep(3600)
    version = PROTOCOL_VERSION + (mode == "version")
    send(type="hello", protocol_version=version, backend_version="0.1.0",
         python=sys.version.split()[0], pid=os.getpid())  # fmt: skip
    jobs, cancelled = Queue(), threading.Event()

    def read_requests():
        buffer = b""
        while data := os.read(0, 65536):
            *lines, buffer = (buffer + data).split(b"\n")
            for request in map(json.loads, lines):
                if request["type"] == "cancel":
                    cancelled.set()
                else:
                    jobs.put(request)
        if mode == "hang":
            return
        time.sleep(0.2)  # a job that was just sent may finish
        os._exit(0)

    threading.Thread(target=read_requests, daemon=True).start()
    while True:
        request = jobs.get()
        cancelled.clear()
        mode = mode_of(arguments)
        run_job(request, mode=mode, seconds=arguments.seconds, cancelled=cancelled)


if __name__ == "__main__":
    main()
