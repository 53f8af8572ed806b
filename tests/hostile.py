# SPDX-License-Identifier: GPL-3.0-or-later
"""What a broken or foreign program may say and write in the backend's place, for fake_backend.py.

Each table goes by the name of a case; tests/blender/test_faults_protocol.py says what is expected.
"""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile

LONG = 1 << 22
"""Length of the longest line of the protocol."""


def _line(**message):
    return json.dumps(message).encode() + b"\n"


def _progress(**values):
    return {
        "type": "progress",
        "job": "JOB",
        "stage": "s",
        "done": 1,
        "total": 2,
        "unit": "s",
    } | values


# Lines that are no messages; JOB stands for the job's id. The job goes on.
LINES = {
    "text": b"Some library prints this\n",
    "empty": b"\n\n   \n\r\n",
    "not UTF-8": b"\xff\xfe\x00\n",
    "UTF-16": '{"type": "status"}\n'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + _line(type="cancelled", job="JOB"),
    "NUL bytes": b"\0" * 5000 + b"\n",
    "half of an object": b'{"type": "result", "job": "JOB"\n',
    "two objects": b'{"type": "cancelled", "job": "JOB"} {"type": "cancelled", "job": "JOB"}\n',
    "list": b'[{"type": "cancelled", "job": "JOB"}]\n',
    "number": b"17\n",
    "string": b'"cancelled"\n',
    "null": b"null\n",
    "NaN": _line(**_progress(done=12)).replace(b"12", b"NaN"),
    "infinity": _line(**_progress(done=12)).replace(b"12", b"1e999"),
    "5,000 digits": b'{"type": "progress", "job": "JOB", "done": ' + b"9" * 5000 + b"}\n",
    "100,000 brackets": b"[" * 100_000 + b"\n",
    "deep report": b'{"type": "result", "job": "JOB", "path": "x", "report": '
    + b'{"a":' * 50_000
    + b"\n",
    "unknown type": _line(type="explode", job="JOB"),
    "type of no sense": _line(type=["result"], job="JOB"),
    "no type": _line(job="JOB", path="x"),
    "request": _line(type="generate", job="JOB"),
    "cancel request": _line(type="cancel", job="JOB"),
    "field is missing": _line(type="result", job="JOB"),
    "field too many": _line(type="cancelled", job="JOB", why="x"),
    "1,000 fields too many": _line(
        type="cancelled", job="JOB", **{f"x{n}": n for n in range(1000)}
    ),
    "text for a number": _line(**_progress(total="many")),
    "truth for a number": _line(**_progress(done=True)),
    "number for a text": _line(type="error", job="JOB", message=17),
    "list for a report": _line(type="result", job="JOB", path="x", report=[]),
    "job is a number": _line(type="cancelled", job=17),
    "long job": _line(type="cancelled", job="J" * 300),
    "hello of no sense": _line(type="hello", protocol_version="two"),
    "line over the limit": b"x" * (LONG + 5) + b"\n",
    "line far over the limit": b"x" * (3 * LONG) + b"\n",
    "message over the limit": _line(type="warning", job="JOB", text="x" * LONG),
    "99 lines": b"tick\n" * 99,
}

# Messages of the protocol that make no sense; the job's own result follows.
MESSAGES = {
    "total 0": [_progress(total=0)],
    "negative total": [_progress(total=-5)],
    "negative done": [_progress(done=-5)],
    "more done than there is": [_progress(done=50)],
    "huge numbers": [_progress(done=1e300, total=1e-300)],
    "huge whole numbers": [_progress(done=10**300, total=1)],
    "negative seconds left": [_progress(seconds_left=-3)],
    "centuries left": [_progress(seconds_left=1e300)],
    "backwards": [_progress(done=n, total=9) for n in range(9, -1, -1)],
    "stage is empty": [_progress(stage="")],
    "stage is long": [_progress(stage="s" * 100_000)],
    "stage of many lines": [_progress(stage="a\nb\r\n\tc\0d")],
    "stage that no encoding has": [_progress(stage="a\ud800")],
    "unit is long": [_progress(unit="s" * 100_000)],
    "status is empty": [{"type": "status", "job": "JOB", "text": ""}],
    "status is long": [{"type": "status", "job": "JOB", "text": "x" * 100_000}],
    "status that no encoding has": [{"type": "status", "job": "JOB", "text": "\udfff"}],
    "status of the job before": [{"type": "status", "job": "older", "text": "x"}],
    "progress of another job": [_progress(job="other")],
    "warning of another job": [{"type": "warning", "job": "other", "text": "x"}],
    "result of another job": [{"type": "result", "job": "other", "path": "x", "report": {}}],
    "cancelled, another job": [{"type": "cancelled", "job": "other"}],
    "error of another job": [{"type": "error", "job": "other", "message": "x"}],
    "cancelled, no job": [{"type": "cancelled", "job": ""}],
    "second hello": [{"type": "hello", "protocol_version": 0, "backend_version": "", "python": "",
                      "pid": 1}],
    "warning is empty": [{"type": "warning", "job": "JOB", "text": ""}],
    "warning of many lines": [{"type": "warning", "job": "JOB", "text": "a\n\n  b\0"}],
    "warning that no encoding has": [{"type": "warning", "job": "JOB", "text": "a\ud800b"}],
    "warning is long": [{"type": "warning", "job": "JOB", "text": "w" * 1_000_000}],
    "one warning 1,000 times": [{"type": "warning", "job": "JOB", "text": "The same."}] * 1000,
    "20,000 warnings": [
        {"type": "warning", "job": "JOB", "text": f"No. {n}"} for n in range(20_000)],
    "5,000 progress messages": [_progress(done=n, total=5000) for n in range(5000)],
}  # fmt: skip

# The messages that end a job; nothing follows.
FINALS = {
    "error": [{"type": "error", "job": "JOB", "message": "The sound is broken."}],
    "error without a job": [{"type": "error", "job": "", "message": "Do not understand."}],
    "error without a word": [{"type": "error", "job": "JOB", "message": ""}],
    "error is long": [{"type": "error", "job": "JOB", "message": "e" * 3_000_000}],
    "error of many lines": [{"type": "error", "job": "JOB", "message": "One\nsentence\n."}],
    "error with a long detail": [
        {"type": "error", "job": "JOB", "message": "Broken.", "detail": "d\n" * 500_000}],
    "error that no encoding has": [{"type": "error", "job": "JOB", "message": "x\ud800y"}],
    "error, then result": [
        {"type": "error", "job": "JOB", "message": "The sound is broken."},
        {"type": "result", "job": "JOB", "path": "OUT", "report": {}}],
    "warnings, then error": [
        {"type": "warning", "job": "JOB", "text": "It is quiet."},
        {"type": "error", "job": "JOB", "message": "The sound is broken."}],
    "cancelled though nobody asked": [{"type": "cancelled", "job": "JOB"}],
    "result elsewhere": [{"type": "result", "job": "JOB", "path": "/etc/hostname", "report": {}}],
    "result with an empty path": [{"type": "result", "job": "JOB", "path": "", "report": {}}],
    "result is a folder": [{"type": "result", "job": "JOB", "path": ".", "report": {}}],
    "result in a path of no sense": [
        {"type": "result", "job": "JOB", "path": "\ud800\0" * 50, "report": {}}],
    "result in a long path": [
        {"type": "result", "job": "JOB", "path": "p" * 1_000_000, "report": {}}],
    "result that was not written": [{"type": "result", "job": "JOB", "path": "OUT", "report": {}}],
}  # fmt: skip


def filled(value, request):
    """A line or messages with the job's id and path in place."""
    if isinstance(value, bytes):
        return value.replace(b"JOB", request["job"].encode())
    names = {"JOB": request["job"], "OUT": request["out"]}
    return [
        {key: names.get(text, text) if isinstance(text, str) else text for key, text in m.items()}
        for m in value
    ]


# Ends and other misbehaviour in the middle of a job. Nothing follows unless it returns.


def _signal(number):
    return lambda: (signal.signal(number, signal.SIG_DFL) if number not in (9, 19) else 0,
                    os.kill(os.getpid(), number), time.sleep(5))  # fmt: skip


def _last_words(text, status):
    os.write(2, text.encode() + b"\n")
    os._exit(status)


def _grandchild(*, dies):
    subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if dies:
        os._exit(dies)


def _endlessly(write, data):
    while True:
        write(data)


def _close(descriptor, status=None):
    os.close(descriptor)
    if status is not None:
        time.sleep(0.05)
        os._exit(status)
    time.sleep(600)


def _raise(error):
    import traceback

    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


ENDS = {
    "status 0": lambda: os._exit(0),
    "status 1": lambda: os._exit(1),
    "status 255": lambda: os._exit(255),
    "killed": _signal(9),
    "terminated": _signal(15),
    "segmentation fault": _signal(11),
    "aborted": _signal(6),
    "illegal instruction": _signal(4),
    "bus error": _signal(7),
    "shell's status of a killed program": lambda: os._exit(137),
    "half a line": lambda: (os.write(1, b'{"type": "resu'), os._exit(1)),
    "half a line, then killed": lambda: (os.write(1, b'{"type": "resu'), os.kill(os.getpid(), 9)),
    "traceback": lambda: _raise(KeyError("weights")),
    "no memory in Python": lambda: _raise(MemoryError()),
    "no memory in C++": lambda: _last_words("terminate called: std::bad_alloc", 134),
    "no memory for a process": lambda: _last_words("OSError: [Errno 12] Cannot allocate memory", 1),
    "no memory on the card": lambda: _last_words("torch: CUDA out of memory.", 1),
    "full disk": lambda: _raise(OSError(28, "No space left on device")),
    "missing module": lambda: _raise(ModuleNotFoundError("No module named 'scipy'")),
    "long last words": lambda: _last_words("w" * 500_000, 1),
    "last words in no encoding": lambda: (os.write(2, b"\xff\xfe\n"), os._exit(1)),
    "3 MB of last words": lambda: (os.write(2, b"line of a log\n" * 200_000), os._exit(1)),
    "output closed, lives on": lambda: _close(1),
    "output closed, then status 3": lambda: _close(1, 3),
    "log closed, then status 3": lambda: _close(2, 3),
    "child holds the output, status 3": lambda: _grandchild(dies=3),
    "line without an end": lambda: _endlessly(lambda d: os.write(1, d), b"x" * 65536),
    "lines of no sense for ever": lambda: _endlessly(lambda d: os.write(1, d), b"tick\n" * 100),
    "101 lines of no sense": lambda: (os.write(1, b"tick\n" * 101), time.sleep(600)),
}
# These do not end by themselves and give no reason to end them: the user cancels.
STUCK = {
    "silence": lambda: time.sleep(600),
    "stopped by a signal": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "requests are not read": lambda: (os.close(0), time.sleep(600)),
    "flood in the log": lambda: _endlessly(lambda d: os.write(2, d), b"line of a log\n" * 5000),
    "child holds the output": lambda: (_grandchild(dies=0), time.sleep(600)),
    "empty messages for ever": lambda: _endlessly(
        lambda d: os.write(1, d), _line(type="status", job="other", text="") * 100),
}  # fmt: skip
# Before the hello.
STARTS = {
    "status 0": lambda: os._exit(0),
    "status 3": lambda: os._exit(3),
    "killed": _signal(9),
    "traceback": lambda: _raise(RuntimeError("a fake failure at start")),
    "missing module": lambda: _raise(ModuleNotFoundError("No module named 'backend'")),
    "no memory": lambda: _raise(MemoryError()),
    "output closed": lambda: _close(1, 4),
    "line without an end": lambda: _endlessly(lambda d: os.write(1, d), b"x" * 65536),
    "lines of no sense": lambda: _endlessly(lambda d: os.write(1, d), b"usage: python\n" * 100),
    "bytes": lambda: _endlessly(lambda d: os.write(1, d), bytes(range(256)) * 100),
    "silence": lambda: time.sleep(600),
    "flood in the log": lambda: _endlessly(lambda d: os.write(2, d), b"line of a log\n" * 5000),
    "a result first": lambda: (os.write(1, _line(type="result", job="x", path="", report={})),
                               time.sleep(600)),
    "a status first": lambda: (os.write(1, _line(type="status", job="", text="x")),
                               time.sleep(600)),
    "older protocol": lambda: (
        os.write(1, _line(type="hello", protocol_version=1, backend_version="0", python="3",
                          pid=1)),
        time.sleep(600)),
    "child holds the output": lambda: _grandchild(dies=5),
}  # fmt: skip
# Before the hello, which comes then: the job is done.
LATE = {
    "slow hello": lambda: time.sleep(0.4),
    "words before the hello": lambda: os.write(1, b"loading...\n" * 20),
    "3 MB in the log": lambda: os.write(2, b"line of a log\n" * 200_000),
    "long line": lambda: os.write(1, b"x" * (LONG + 9) + b"\n"),
}


# Result files. Each is called with the path, on which a good file lies, and its arrays.


def _with(**changes):
    def make(path, arrays):
        import numpy as np

        values = {name: change(np, arrays[name]) if callable(change) else change
                  for name, change in changes.items()}  # fmt: skip
        np.savez(path.with_suffix(".new.npz"), **(arrays | values))
        path.with_suffix(".new.npz").replace(path)

    return make


def _without(name):
    def make(path, arrays):
        import numpy as np

        np.savez(path, **{key: value for key, value in arrays.items() if key != name})

    return make


def _bytes(change):
    return lambda path, _: path.write_bytes(change(path.read_bytes()))


def _header(path, text):
    """An .npz whose weights have this text as their header."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    head = text.encode().ljust(len(text) + 1) + b"\n"
    entries["weights.npy"] = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    with zipfile.ZipFile(path, "w") as new:
        for name, data in entries.items():
            new.writestr(name, data)


def _rows(text):
    return lambda path, _: _header(
        path, "{'descr': '<f4', 'fortran_order': False, 'shape': (" + text + ", 3), }"
    )


def _flag(offset_local, offset_central, value):
    """Set a byte in every header of a zip: as of encryption, or of an unknown compression."""

    def change(data):
        changed = bytearray(data)
        for sign, offset in ((b"PK\3\4", offset_local), (b"PK\1\2", offset_central)):
            at = changed.find(sign)
            while at >= 0:
                changed[at + offset] = value
                at = changed.find(sign, at + 4)
        return bytes(changed)

    return _bytes(change)


def _replaced(make):
    def remade(path, _):
        path.unlink()
        make(path)

    return remade


def _compressed_and_flipped(path, arrays):
    import numpy as np

    np.savez_compressed(path, **arrays)
    data = bytearray(path.read_bytes())
    data[150:190] = bytes(40)
    path.write_bytes(bytes(data))


def _many_shapes(path, arrays):
    import numpy as np

    shapes = np.zeros((1500, *arrays["shapes"].shape[1:]), np.float32)
    weights = np.zeros((len(arrays["weights"]), 1500), np.float32)
    names = np.array([f"shape{n}" for n in range(1500)])
    _with(shapes=shapes, weights=weights, names=names)(path, arrays)


def _bomb(path, _):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.npy", b"x")
    changed = bytearray(path.read_bytes())
    at = changed.find(b"PK\1\2") + 24
    changed[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(bytes(changed))


def _first(value):
    def change(_np, array):
        array = array.copy()
        array.reshape(-1)[0] = value
        return array

    return change


GOOD_MOTIONS = {
    "float64": _with(weights=lambda np, a: a.astype(np.float64)),
    "float16": _with(weights=lambda np, a: a.astype(np.float16)),
    "another order in memory": _with(shapes=lambda np, a: np.asfortranarray(a)),
    "further arrays": _with(extra=[1, 2, 3], other="x"),
    "odd report": _with(report='{"warnings": 5, "listen": ["x"]}'),
    "warnings of no sense": _with(report='{"warnings": [1, null, {"a": 2}, "\\ud800"]}'),
    "weights far beyond a key's range": _with(weights=lambda np, a: a * 100),
}
MOTIONS = {
    "empty file": _bytes(lambda data: b""),
    "text": _bytes(lambda data: b"no npz"),
    "cut in half": _bytes(lambda data: data[: len(data) // 2]),
    "end is missing": _bytes(lambda data: data[:-10]),
    "beginning is missing": _bytes(lambda data: bytes(1000) + data[1000:]),
    "encrypted": _flag(6, 8, 1),
    "unknown compression": _flag(8, 10, 77),
    "flipped bits, compressed": _compressed_and_flipped,
    "a .npy": lambda path, a: __import__("numpy").save(path.open("wb"), a["weights"]),
    "zip of nothing": lambda path, _: zipfile.ZipFile(path, "w").close(),
    "zip bomb": _bomb,
    "pickle": _with(names=lambda np, a: np.array([{"a": 1}] * 3, object)),
    "pickle of weights": _with(weights=lambda np, a: a.astype(object)),
    "header of 100,000,000,000 rows": _rows("100000000000"),
    "header of 10^30 rows": _rows("1" + "0" * 30),
    "header with negative rows": _rows("-5"),
    "header of brackets": lambda path, _: _header(path, "(" * 3000),
    "header that is code": lambda path, _: _header(path, "__import__('os').abort()"),
    "header is empty": lambda path, _: _header(path, ""),
    "weights are missing": _without("weights"),
    "shapes are missing": _without("shapes"),
    "names are missing": _without("names"),
    "report is missing": _without("report"),
    "frame rate is missing": _without("fps_denominator"),
    "weights are a number": _with(weights=1.0),
    "weights in one dimension": _with(weights=lambda np, a: a[:, 0]),
    "weights in three dimensions": _with(weights=lambda np, a: a[None]),
    "weights are text": _with(weights=lambda np, a: np.array([["x"] * 3] * 48)),
    "weights for other shapes": _with(weights=lambda np, a: a[:, :2]),
    "no frames": _with(weights=lambda np, a: a[:0]),
    "NaN in the weights": _with(weights=_first(float("nan"))),
    "infinity in the weights": _with(weights=_first(float("inf"))),
    "NaN in the shapes": _with(shapes=_first(float("nan"))),
    "NaN in the neutral head": _with(template=_first(float("nan"))),
    "weights of 1e35": _with(weights=_first(1e35)),
    "shapes of 1e35": _with(shapes=_first(1e35)),
    "weights beyond single precision": _with(weights=lambda np, a: a.astype(np.float64) * 1e300),
    "shapes of another head": _with(shapes=lambda np, a: a[:, :-1]),
    "shapes in two dimensions": _with(shapes=lambda np, a: a[0]),
    "neutral head of another": _with(template=lambda np, a: a[:-1]),
    "no shapes": _with(names=lambda np, a: a[:0], shapes=lambda np, a: a[:0],
                       weights=lambda np, a: a[:, :0]),
    "1,500 shapes": _many_shapes,
    "a name twice": _with(names=["a", "b", "a"]),
    "an empty name": _with(names=["a", "", "c"]),
    "a long name": _with(names=["a" * 64, "b", "c"]),
    "names in two dimensions": _with(names=[["a", "b", "c"]]),
    "a name too few": _with(names=["a", "b"]),
    "another frame rate": _with(fps_numerator=25),
    "frame rate of nothing": _with(fps_denominator=0),
    "frame rate is text": _with(fps_numerator="many"),
    "start is text": _with(start_seconds="now"),
    "report is a list": _with(report="[]"),
    "report is no JSON": _with(report="{"),
    "report of brackets": _with(report="[" * 50_000),
    "a folder": _replaced(lambda path: path.mkdir()),
    "a pipe": _replaced(lambda path: os.mkfifo(path)),
    "a link to nothing": _replaced(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a link to /dev/zero": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "gone": _replaced(lambda path: None),
}  # fmt: skip
