# SPDX-License-Identifier: GPL-3.0-or-later
"""A matrix of hostile files: every reader refuses each of them at once, with one clear sentence.

A case names a reader, a recipe that makes the file, and the sentence that is expected. Nothing may
be written, memory stays bounded, and no sentence quotes more than a little of what was wrong.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from backend import bundled, motion
from backend.errors import UserError, excerpt
from backend.heads.mesh_files import read_face_points, read_head
from backend.heads.topology import identify, load_topology
from backend.inference.style_files import (
    StyleCode,
    read_exemplar,
    read_presets,
    read_style,
    write_style,
)
from backend.io import read_arrays, read_text, write_atomically
from backend.model import checkpoint
from backend.model.checkpoint_files import read_config
from backend.service.batch.job_list import JobList, is_finished, read_list
from backend.service.options import GenerateOptions
from backend.service.protocol import GenerateRequest, StyleRequest, StyleSource
from backend.service.requests import check, check_style_request, request_from_flags

MAX_SECONDS = 5.0
MAX_MEMORY = 400 << 20
STYLE_DIM = 4
pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, devices and links of POSIX")


@dataclass(frozen=True)
class Case:
    """A hostile file.

    Attributes:
        name: Name of the case.
        read: Reader that is given the file.
        file: Name of the file.
        make: Called with the path; makes the file.
        expected: Regular expression that the sentence matches.
    """

    name: str
    read: Callable[[Path], object]
    file: str
    make: Callable[[Path], object]
    expected: str


def head(path: Path) -> object:
    return read_head(path), read_face_points(path)


def identified(path: Path) -> object:
    return identify(*read_head(path), face_points=read_face_points(path))


def presets(path: Path) -> object:
    return read_presets(path, STYLE_DIM)


def text(path: Path) -> object:
    return read_text(path, max_bytes=1 << 20)


def finished_arrays(path: Path) -> object:
    return read_arrays(path, ["report"], check_all=True)


READERS = {
    "head_npz": (head, "head.npz"),
    "head_ply": (head, "head.ply"),
    "head_obj": (head, "head.obj"),
    "face_points": (read_face_points, "head.npz"),
    "topology": (load_topology, "topology.json"),
    "style": (read_style, "style.json"),
    "exemplar": (read_exemplar, "exemplar.npz"),
    "presets": (presets, "styles.json"),
    "list": (read_list, "jobs.json"),
    "text": (text, "words.txt"),
    "motion": (motion.read, "motion.npz"),
}


# What is not a file


def no_file(path: Path) -> None:
    """Makes nothing."""


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to(path.with_name("pipe"))


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 41)


NO_FILES = {
    "missing": (no_file, "cannot be read: No such file|no head topology"),
    "pipe": (os.mkfifo, "is not a file"),
    "link to a pipe": (link_to_pipe, "is not a file"),
    "folder": (Path.mkdir, "is not a file|no files of curves"),
    "link to /dev/zero": (link("/dev/zero"), "is not a file"),
    "link to a terminal": (link("/dev/tty"), "is not a file|No such device|cannot be read"),
    "dangling link": (link("nowhere"), "cannot be read: No such file|no head topology"),
    "link to itself": (lambda path: path.symlink_to(path.name), "Too many levels|no head topology"),
    "endless file of the system": (
        link("/proc/kmsg"),
        "cannot be read|too large|is not|damaged|no faces",
    ),
    "two terabytes": (huge, "is too large"),
    "empty": (Path.touch, "damaged|is not|no PLY header|no faces"),
}
READS_AS_OTHERS = {
    ("text", "empty"), ("presets", "missing"),
    ("text", "endless file of the system"), ("face_points", "missing"),
}  # fmt: skip
NAMES = {
    "300 letters": "x" * 300,
    "5,000 letters": "/".join(["y" * 99] * 50) + "/z",
    "lone surrogate": "\ud800",
    "null byte": "a\0b",
    "newline": "a\nb",
}


def not_file_cases() -> list[Case]:
    cases = [
        Case(f"{reader}: {kind}", *READERS[reader], make, expected)
        for reader, (kind, (make, expected)) in itertools.product(READERS, NO_FILES.items())
        if (reader, kind) not in READS_AS_OTHERS
    ]
    for reader, (kind, name) in itertools.product(READERS, NAMES.items()):
        read, file = READERS[reader]
        if reader != "presets":  # the name of that file is the product's own
            expected = "cannot be read|cannot be used|no name that a file can have|no head topology"
            case = Case(
                f"{reader}: name of {kind}", read, name + Path(file).suffix, no_file, expected
            )
            cases.append(case)
    return cases


# Archives of arrays


def npy_header(descr: str, shape: tuple[int, ...] | str) -> bytes:
    body = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body) + 1) + body + b"\n"


def with_member(name: str, data: bytes) -> Callable[[Path], None]:
    """An archive like a whole head, exemplar and motion, one array of which is replaced."""

    def make(path: Path) -> None:
        np.savez(path, **whole())
        with zipfile.ZipFile(path) as old:
            members = {each: old.read(each) for each in old.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for each, content in (members | {f"{name}.npy": data}).items():
                new.writestr(each, content)

    return make


def with_array(**changes: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        np.savez(path, **{k: v for k, v in (whole() | changes).items() if v is not None})

    return make


def whole() -> dict[str, object]:
    with np.load(bundled.DEMO_HEAD) as data:
        arrays = {name: data[name] for name in data.files}
    template = arrays["vertices"]
    return {
        **arrays,
        "template": template,
        "fps": 25.0,
        "weights": np.zeros((5, 1), np.float32),
        "shapes": np.zeros((1, len(template), 3), np.float32),
        "names": np.array(["one"]),
        "fps_numerator": np.int64(25),
        "fps_denominator": np.int64(1),
        "start_seconds": np.float64(0),
        "report": np.array("{}"),
    }


def exemplar_with(**changes: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        arrays = whole()
        arrays["vertices"] = np.repeat(np.asarray(arrays["template"])[None], 15, 0)
        arrays |= {k: v for k, v in changes.items() if v is not None}
        np.savez(path, **arrays)

    return make


def flag_as_encrypted(path: Path) -> None:
    np.savez(path, **whole())
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + at] |= 1
    path.write_bytes(data)


def compressed_by(method: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        np.savez(path, **whole())
        data = bytearray(path.read_bytes())
        for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            start = -1
            while (start := data.find(mark, start + 1)) >= 0:
                data[start + at : start + at + 2] = struct.pack("<H", method)
        path.write_bytes(data)

    return make


def bomb(name: str, descr: str, shape: tuple[int, ...]) -> Callable[[Path], None]:
    """An array of 1 GB of zeros that takes 1 MB on the disk."""

    def make(path: Path) -> None:
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open(f"{name}.npy", "w", force_zip64=True) as member,
        ):
            member.write(npy_header(descr, shape))
            for _ in range(1024):
                member.write(bytes(1 << 20))
        with np.load(bundled.DEMO_HEAD) as data, zipfile.ZipFile(path, "a") as archive:
            for key in ("vertices", "face_corners", "face_sizes"):
                if key != name:
                    with archive.open(f"{key}.npy", "w") as member:
                        np.lib.format.write_array(member, data[key])

    return make


def cut_in_half(path: Path) -> None:
    np.savez(path, **whole())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_hole(path: Path) -> None:
    np.savez(path, **whole())
    data = bytearray(path.read_bytes())
    data[3000:9000] = bytes(6000)
    path.write_bytes(data)


def many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(5000):
            archive.writestr(f"{number}.npy", b"")


def as_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((5, 3)))


ARCHIVES = {
    "array file of that name": (as_npy, "is damaged"),
    "text": (lambda path: path.write_text("hello"), "is damaged"),
    "cut in half": (cut_in_half, "is damaged"),
    "encrypted": (flag_as_encrypted, "is encrypted"),
    "unknown compression": (compressed_by(99), "unknown compression"),
    "bzip2": (compressed_by(12), "unknown compression"),
    "lzma": (compressed_by(14), "unknown compression"),
    "5,000 arrays": (many_members, "5000 arrays"),
    "nothing in it": (lambda path: zipfile.ZipFile(path, "w").close(), "lacks"),
}
ARCHIVE_READERS = {
    "head_npz": "vertices", "exemplar": "template", "motion": "shapes",
}  # fmt: skip
MEMBERS = {
    "objects": (npy_header("'|O'", (5,)), "Python objects"),
    "records": (npy_header("[('a', '<f8'), ('b', '<i4')]", (5, 3)) + bytes(180), "an array of"),
    "dates": (npy_header("'<M8[s]'", (5, 3)) + bytes(120), "an array of"),
    "complex numbers": (npy_header("'<c16'", (5, 3)) + bytes(240), "an array of"),
    "9,000 brackets": (npy_header("'<f8'", "[" * 9000), "is damaged"),
    "a million letters": (
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**6) + b"x" * 10**6,
        "damaged",
    ),
    "10^12 rows": (npy_header("'<f8'", (10**12, 3, 10**6)), "at most|of \\d+"),
    "shape below 0": (npy_header("'<f8'", (-1, 3)), "shape|damaged"),
    "no header": (b"", "is damaged"),
    "another magic": (b"PICKLE..", "is damaged"),
    "rows that are missing": (npy_header("'<f8'", (5, 3)) + bytes(100), "100 bytes of 120"),
    "letters": (
        npy_header("'<U3'", (5, 3)) + bytes(180),
        "numbers|expected|shape|no number|names no",
    ),
}


def archive_cases() -> list[Case]:
    cases = [
        Case(f"{reader}: {kind}", *READERS[reader], make, expected)
        for reader, (kind, (make, expected)) in itertools.product(
            (*ARCHIVE_READERS, "face_points"), ARCHIVES.items()
        )
        if (reader, kind) != ("face_points", "nothing in it")
    ]
    cases += [
        Case(f"{reader}: {kind}", *READERS[reader], with_member(key, data), expected)
        for (reader, key), (kind, (data, expected)) in itertools.product(
            ARCHIVE_READERS.items(), MEMBERS.items()
        )
    ]
    read, file = READERS["head_npz"]
    grid = np.zeros((3, 3), np.int32)
    for name, changes, expected in (
        ("corners of 2^32 and more", {"face_corners": big_corners()}, "name vertex 42949"),
        ("corners below 0", {"face_corners": -big_corners()}, "name vertex -"),
        ("corners of fractions", {"face_corners": np.zeros(9)}, "whole numbers"),
        ("sizes of two dimensions", {"face_sizes": grid}, r"expected \(V, 3\)"),
        ("sizes that overflow", {"face_sizes": np.full(8, 1 << 61)}, "do not add up"),
        ("corner numbers alone", {"face_corners": np.int32(3)}, r"expected \(V, 3\)"),
        ("vertices alone", {"vertices": np.float64(3)}, r"expected \(V, 3\)"),
        ("one polygon of all", {"face_corners": np.zeros(99_999, np.int32),
                                "face_sizes": np.array([99_999])}, "more than vertices"),
        ("face points of text", {"face_point_indices": np.array(["a"] * 111)}, "as many of both"),
        ("face points without vertices", {"face_point_indices": None}, "as many of both"),
        ("face points of numbers", {"face_point_names": np.zeros(111)}, "as many of both"),
    ):  # fmt: skip
        cases.append(Case(f"head_npz: {name}", read, file, with_array(**changes), expected))
    bombs = (("vertices", "'<f8'", (44_000_000, 3)), ("face_corners", "'<i8'", (134_000_000,)))
    for key, descr, shape in bombs:
        expected = "at most|too large"
        cases.append(
            Case(f"head_npz: 1 GB of {key}", read, file, bomb(key, descr, shape), expected)
        )
    read, file = READERS["exemplar"]
    for name, changes, expected in (
        ("fps of text", {"fps": np.array("25")}, "no frame rate"),
        ("no fps", {"fps": np.zeros(0)}, "no frame rate"),
        ("two rates", {"fps": np.ones(2)}, "no frame rate"),
        ("fps NaN", {"fps": np.array(np.nan)}, "no frame rate"),
        ("fps 1e300", {"fps": np.array(1e300)}, "no frame rate"),
        ("corners of text", {"face_corners": np.array(["a"] * 9)}, "whole numbers"),
        ("one corner", {"face_corners": np.int32(1)}, "expected"),
        ("sizes of two dimensions", {"face_sizes": grid}, "expected"),
        ("frames of text", {"vertices": np.full((15, 5, 3), "a")}, "not numbers"),
        ("frames of 1e300", {"vertices": huge_frames()}, "not numbers"),
        ("template of one number", {"template": np.float64(1)}, "expected"),
        ("template of another head", {"template": np.zeros((5, 3))}, "expected"),
        ("template of NaN", {"template": huge_frames()[0] * np.nan}, "NaN or infinity"),
        ("1 frame", {"vertices": np.asarray(whole()["template"])[None]}, "at least 0.5 s"),
    ):
        cases.append(Case(f"exemplar: {name}", read, file, exemplar_with(**changes), expected))
    read, file = READERS["motion"]
    for name, changes, expected in (
        ("rate of 0", {"fps_denominator": np.int64(0)}, "is not a motion"),
        ("rate of NaN", {"fps_numerator": np.float64(np.nan)}, "is not a motion"),
        ("rate of infinity", {"fps_numerator": np.float64(np.inf)}, "is not a motion"),
        ("deep report", {"report": np.array("[" * 5000)}, "is not a motion"),
        ("report NaN", {"report": np.array('{"a": NaN}')}, "is not a motion"),
        ("report of a list", {"report": np.array("[1]")}, "is not a motion"),
        ("weights of one shape more", {"weights": np.zeros((5, 2))}, "is not a motion"),
        ("names of two dimensions", {"names": np.array([["a", "b"]])}, "is not a motion|damaged"),
    ):
        cases.append(Case(f"motion: {name}", read, file, with_array(**changes), expected))
    expected = "damaged"
    cases.append(Case("report: a hole", finished_arrays, "motion.npz", with_hole, expected))
    return cases


def big_corners() -> np.ndarray:
    return np.asarray(whole()["face_corners"]).astype(np.int64) + (1 << 32)


def huge_frames() -> np.ndarray:
    return np.full((15, *np.shape(whole()["template"])), 1e300)


# Meshes as text and PLY


def written(content: bytes | str) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(data)


def ply(*lines: str, data: bytes = b"", kind: str = "ascii") -> Callable[[Path], object]:
    text = "\n".join(("ply", f"format {kind} 1.0", *lines, "end_header", ""))
    return written(text.encode() + data)


XYZ = ("property float x", "property float y", "property float z")
FACES = "property list uchar int vertex_indices"
POINTS = b"0 0 0\n1 0 0\n0 1 0\n"


def mesh_cases() -> list[Case]:
    little = "binary_little_endian"
    three = ("element vertex 3", *XYZ)
    plys = {
        "15 million vertices and none": (ply("element vertex 15000000", *XYZ), "too short"),
        "15 million faces and none": (ply(*three, "element face 9000000", FACES), "too short"),
        "binary, 15 million and none": (
            ply("element vertex 15000000", *XYZ, kind=little), "too short"),
        "10^11 vertices": (ply("element vertex 99999999999", *XYZ), "too many"),
        "-5 vertices": (ply("element vertex -5", *XYZ), "too many"),
        "no properties": (ply("element vertex 3"), "has no properties"),
        "no vertices": (ply("element face 0", FACES), "no faces"),
        "a face of -1 corners": (
            ply(*three, "element face 1", FACES, data=POINTS + b"-1 0 1 2\n"), "a face of|a list"),
        "a face of 2 corners": (
            ply(*three, "element face 1", FACES, data=POINTS + b"2 0 1\n"), "a face of 2"),
        "a corner of 1e30": (
            ply(*three, "element face 1", FACES, data=POINTS + b"3 0 1 1e30\n"), "not a mesh"),
        "a corner of 2^32": (
            ply(*three, "element face 1", FACES, data=POINTS + b"3 0 1 4294967296\n"),
            "name vertex 4294967296"),
        "a corner NaN": (
            ply(*three, "element face 1", FACES, data=POINTS + b"3 0 1 nan\n"), "not a mesh"),
        "a line of 2 MB": (
            ply(*three, "element face 1", FACES, data=b"9" * (2 << 20)), "too long|not a mesh"),
        "a word of 200 kB": (ply(*three, data=b"9" * 200_000 + b"x 0 0\n0 0 0\n0 0 0\n"),
                             "not a mesh"),
        "unknown type": (ply("element vertex 3", "property quad x"), "not a mesh"),
        "unknown format": (ply(*three, kind="zip"), "not a mesh"),
        "property before elements": (ply(*XYZ), "not a mesh"),
        "two numbers a vertex": (ply(*three, data=b"0 0\n0 0\n0 0 0 0 0\n"), "not a mesh"),
        "a count below 0 in binary": (
            ply(*three, "element face 1", "property list char int vertex_indices", kind=little,
                data=bytes(36) + b"\xff" + bytes(99)), "a face of|ends inside"),
        "a count of 2 million in binary": (
            ply(*three, "element face 1", "property list int int vertex_indices", kind=little,
                data=bytes(36) + struct.pack("<i", 2_000_000) + bytes(99)), "ends inside"),
        "no header": (written("hello"), "no PLY header"),
    }  # fmt: skip
    objs = {
        "a number of 2 MB": (written("v 0 0 " + "1" * (2 << 20) + "\n"), "a line is too long"),
        "a word of 200 kB": (written("v 0 0 " + "x" * 200_000 + "\n"), "not a mesh"),
        "corners beyond 32 bits": (written("v 0 0 0\nf 1 2 99999999999\n"), "not a mesh"),
        "corners beyond 64 bits": (written("v 0 0 0\nf 1 2 " + "9" * 40 + "\n"), "not a mesh"),
        "5,000 digits": (written("v 0 0 0\nf 1 2 " + "9" * 5000 + "\n"), "not a mesh"),
        "corners of text": (written("v 0 0 0\nf a b c\n"), "not a mesh"),
        "a vertex of two numbers": (written("v 0 0\n"), "a vertex of 2 numbers"),
        "a face of nothing": (written("v 0 0 0\nf \n"), "do not add up"),
        "a corner before the first": (written("v 0 0 0\nf -1 -2 -3\n"), "name vertex -2"),
        "only comments": (written("# nothing\n" * 9), "no faces"),
        "random bytes": (written(np.random.default_rng(0).bytes(100_000)), "no faces|not a mesh"),
    }
    cases = [Case(f"ply: {name}", head, "head.ply", *rest) for name, rest in plys.items()]
    cases += [Case(f"obj: {name}", head, "head.obj", *rest) for name, rest in objs.items()]
    triangles = "v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n"
    cases.append(Case("obj: NaN", identified, "head.obj", written(triangles), "no valid position"))
    overflow = triangles.replace("nan", "1e400")
    cases.append(Case("obj: 1e400", identified, "head.obj", written(overflow), "no valid position"))
    for suffix in (".blend", "", "." + "x" * 200):
        case = Case(
            f"head: ends in {suffix[:9]}", head, "head" + suffix, written(""), "is read from"
        )
        cases.append(case)
    cases.append(
        Case("head: a name of 2 lines", head, "a\nb.obj", written("f a\n"), r"a\?b.obj is damaged")
    )
    return cases


# JSON


def style_of(**changes: object) -> str:
    style = {"format": "ptalker-style", "format_version": 1, "model": "m", "source": "s",
             "code": [0.5] * STYLE_DIM}  # fmt: skip
    return json.dumps(style | changes)


def topology_of(**changes: object) -> str:
    return json.dumps(
        json.loads((bundled.TOPOLOGIES_DIR / "demo.json").read_text(encoding="utf-8")) | changes
    )


JSONS = {
    "deep nesting": "[" * 100_000,
    "nesting of 40": "[" * 40 + "]" * 40,
    "deep objects": '{"code":' * 50_000,
    "1e400": '{"code": [1e400], "num_vertices": 1e400, "one": 1e400}',
    "5,000 digits": '{"code": [%s], "num_vertices": 1}' % ("9" * 5000),
    "10^400": '{"code": [1%s], "name": 1}' % ("0" * 400),
    "NaN": '{"code": [NaN], "one": [NaN]}',
    "infinity": '{"code": [-Infinity]}',
    "cut": '{"code": [1, 2',
    "a word": "hello",
    "a number": "3",
    "text of 2 MB": '{"name": "%s"' % ("x" * (1 << 19)),
}


def json_cases() -> list[Case]:
    cases = [
        Case(f"{reader}: {kind}", *READERS[reader], written(text), "is not a|is not the|must hold")
        for reader, (kind, text) in itertools.product(
            ("topology", "style", "presets", "list"), JSONS.items()
        )
    ]
    cases += [
        Case(f"{reader}: not UTF-8", *READERS[reader], written(b'{"a": "\xff\xfa"}'), "not UTF-8")
        for reader in ("topology", "style", "presets", "list", "text")
    ]
    styles = {
        "1e30": style_of(code=[1e30]), "1e38": style_of(code=[1e38] * 4),
        "text": style_of(code=["a"]), "none": style_of(code=[]), "null": style_of(code=None),
        "lists": style_of(code=[[1], [2]]), "true text": style_of(code="1234"),
        "version 1e9": style_of(format_version=10**9),
        "long format": style_of(format="x" * 500_000),
        "no model": json.dumps({"format": "ptalker-style", "format_version": 1, "code": [1]}),
    }  # fmt: skip
    expected = "is not a style file|has format"
    cases += [
        Case(f"style: {name}", read_style, "s.json", written(text), expected)
        for name, text in styles.items()
    ]
    tables = {
        "no numbers": {"one": []}, "too few numbers": {"one": [1.0]}, "1e30": {"one": [1e30] * 4},
        "too many numbers": {"one": [1.0] * 5}, "text": {"one": "abcd"}, "null": {"one": None},
        "a name of 300 kB": {"x" * 300_000: [1]}, "lists": {"one": [[1]] * 4}, "a list": [[1] * 4],
    }  # fmt: skip
    cases += [
        Case(f"presets: {name}", presets, "styles.json", written(json.dumps(table)), "is not the")
        for name, table in tables.items()
    ]
    one = [{"role": "eye_left", "vertices": [10**9]}]
    topologies = {
        "a vertex that is none": topology_of(parts=one),
        "a mirror of 3": topology_of(mirror=[0, 1, 2]),
        "a part that is a number": topology_of(parts=[3]),
        "a part with nothing": topology_of(parts=[{"role": "x" * 500_000, "vertices": []}]),
        "face points in a list": topology_of(face_points=[1, 2]),
        "number of vertices null": topology_of(num_vertices=None),
        "number of vertices in words": topology_of(num_vertices="n" * 500_000),
    }
    cases += [
        Case(f"topology: {name}", load_topology, "t.json", written(text), "is not a head topology")
        for name, text in topologies.items()
    ]
    outside = topology_of(num_vertices=1, parts=[])
    outside = outside.replace('"mirror"', '"unused"')
    cases.append(
        Case("topology: 1 vertex", load_topology, "t.json", written(outside), "does not have")
    )
    return cases


# Configs of checkpoints


def config(path: Path) -> object:
    return read_config(path.parent)


def config_of(*, speech: dict[str, object] | None = None, **changes: object) -> str:
    data = json.loads((bundled.BASE_CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    data["model"].update(changes)
    data["model"]["speech"].update(speech or {})
    return json.dumps(data)


def config_cases() -> list[Case]:
    configs = {
        "a million decoder layers": config_of(decoder_layers=10**6),
        "100,000 layers of the encoder": config_of(speech={"num_layers": 10**5}),
        "1,000 layers of the lip reader": config_of(lip_layers=1000),
        "a million convolutions": config_of(motion_convs=10**6),
        "decoder_ff of 2^62": config_of(decoder_ff=1 << 62),
        "decoder_ff of 10^400": config_of(decoder_ff=10**400),
        "a kernel of 10^9": config_of(speech={"kernel_size": 10**9 + 1}),
        "convolutions of 10^9": config_of(speech={"conv_widths": [10**9] * 7}),
        "a width below 0": config_of(feature_dim=-4),
        "1e6 frames a second": config_of(motion_fps=1e6),
        "1e300 frames a second": config_of(motion_fps=1e300),
        "1e-300 frames a second": config_of(motion_fps=1e-300),
        "NaN frames a second": config_of(motion_fps=float("nan")),
        "features at 1e9 a second": config_of(speech={"rate_hz": 1e9}),
        "layers in words": config_of(decoder_layers="x" * 500_000),
        "a field of 500 kB": config_of(**{"y" * 500_000: 1}),
        "no model": json.dumps({"format": "ptalker-checkpoint", "format_version": 2}),
        "model of a list": json.dumps(
            {"format": "ptalker-checkpoint", "format_version": 2, "model": []}),
        "format of 500 kB": json.dumps({"format": "f" * 500_000, "format_version": 2}),
        "version 10^18": json.dumps({"format": "ptalker-checkpoint", "format_version": 10**18}),
        "a list": "[1]",
        **JSONS,
    }  # fmt: skip
    expected = "is damaged|is not a checkpoint's config|of the format|format version"
    cases = [
        Case(f"config: {name}", config, "config.json", written(text), expected)
        for name, text in configs.items()
    ]
    cases += [
        Case(f"config: {kind}", config, "config.json", make, expected + "|is no checkpoint")
        for kind, (make, expected) in NO_FILES.items()
    ]
    return cases


CASES = [*not_file_cases(), *archive_cases(), *mesh_cases(), *json_cases(), *config_cases()]


def check_sentence(sentence: str, expected: str) -> None:
    assert re.search(expected, sentence), sentence
    assert sentence.endswith("."), sentence
    assert len(sentence) <= 300, sentence
    assert sentence.isprintable(), repr(sentence)
    assert not re.search("Traceback|[a-z]Error\\b|Errno|object at 0x", sentence), sentence
    sentence.encode()


def files_below(folder: Path) -> set[str]:
    return {f"{at}/{name}" for at, _, names in os.walk(folder) for name in names}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_file_is_refused_in_one_sentence(case, tmp_path):
    path = Path(str(tmp_path) + "/" + case.file)
    case.make(path)
    before = files_below(tmp_path)
    is_bomb = " 1 GB " in case.name or "million" in case.name
    if is_bomb:
        tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(UserError) as caught:
            case.read(path)
        taken = time.monotonic() - started
        peak = tracemalloc.get_traced_memory()[1] if is_bomb else 0
    finally:
        tracemalloc.stop()
    check_sentence(str(caught.value), case.expected)
    assert taken < MAX_SECONDS
    assert peak < MAX_MEMORY
    assert files_below(tmp_path) == before


def test_the_matrix_has_at_least_a_hundred_cases_of_different_names():
    assert len({case.name for case in CASES}) == len(CASES) >= 100


# What is written


def request(folder: Path, out: str, **changes: object) -> GenerateRequest:
    for name in ("a.wav", "h.npz", "s.json", "t.json", "words.txt"):
        (folder / name).write_text("x")
    made = GenerateRequest(
        job="1",
        audio=str(folder / "a.wav"),
        head=str(folder / "h.npz"),
        out=out,
        fps_numerator=25,
        fps_denominator=1,
        style=StyleSource(kind="file", value=str(folder / "s.json")),
        options=GenerateOptions(topology=str(folder / "t.json"), checkpoint=str(folder)),
    )
    return replace(made, **changes)


OWN = bundled.BACKEND_DIR
OUTPUTS = {
    "the sound": ("a.wav", "overwrite"),
    "the head": ("h.npz", "overwrite"),
    "the style": ("s.json", "overwrite"),
    "the topology": ("t.json", "overwrite"),
    "the sound by another name": ("sub/../a.wav", "overwrite"),
    "the sound by a hard link": ("hard.npz", "overwrite"),
    "the checkpoint's weights": ("model.safetensors", "overwrite"),
    "the checkpoint's config": ("config.json", "overwrite"),
    "the checkpoint's styles": ("styles.json", "overwrite"),
    "bundled weights": (str(bundled.BASE_CHECKPOINT / "model.safetensors"), "files of PTalker"),
    "a new file of the product": (str(OWN / "new.npz"), "files of PTalker"),
    "a shipped topology": (str(bundled.TOPOLOGIES_DIR / "demo.json"), "files of PTalker"),
    "the product through a link": ("own/motion.npz", "files of PTalker"),
    "a device": ("/dev/null", "link or a device|files of"),
    "a pipe": ("pipe", "link or a device"),
    "a link to a file": ("link", "link or a device"),
    "a dangling link": ("dangling", "link or a device"),
    "a folder": ("sub", "cannot be written"),
    "nothing": ("", "cannot be written"),
    "a file in a file": ("a.wav/out.npz", "cannot be written"),
    "a folder that is not there": ("none/out.npz", "cannot be written"),
    "a name of 300 letters": ("x" * 300, "cannot be used: File name too long"),
    "a path of 5,000 letters": ("/".join(["y" * 99] * 50), "cannot be used: File name too long"),
    "a loop of links": ("loop/out.npz", "cannot be used: Too many levels"),
    "a lone surrogate": ("\ud800.npz", "no name that a file can have"),
    "a null byte": ("a\0b", "no name that a file can have"),
}


READ_BY_JOBS = [name for name in OUTPUTS if name.startswith(("the sound", "the head", "the style"))]
READ_BY_JOBS.append("the topology")


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_result_never_replaces_what_it_must_not(name, tmp_path):
    out, expected = OUTPUTS[name]
    asked = request(tmp_path, str(tmp_path / out) if out else out)
    (tmp_path / "sub").mkdir()
    (tmp_path / "hard.npz").hardlink_to(tmp_path / "a.wav")
    os.mkfifo(tmp_path / "pipe")
    for link_name, target in (("link", "a.wav"), ("dangling", "b"), ("loop", "loop"), ("own", OWN)):
        (tmp_path / link_name).symlink_to(target)
    before = files_below(tmp_path)
    with pytest.raises(UserError) as caught:
        check(asked)
    check_sentence(str(caught.value), expected)
    if name not in READ_BY_JOBS:
        style = StyleRequest(
            job="1", exemplar=asked.head, out=asked.out, checkpoint=asked.options.checkpoint
        )
        with pytest.raises(UserError) as caught:
            check_style_request(style)
        check_sentence(str(caught.value), expected)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("field", ["audio", "head", "style", "topology", "checkpoint"])
@pytest.mark.parametrize("value", ["x" * 300, "y/" * 3000, "\ud800.npz", "a\0b"])
def test_a_name_that_no_file_can_have_is_refused_before_anything_is_read(field, value, tmp_path):
    asked = request(tmp_path, str(tmp_path / "out.npz"))
    if field == "style":
        asked = replace(asked, style=StyleSource(kind="exemplar", value=value))
    elif field in ("audio", "head"):
        asked = replace(asked, **{field: value})
    else:
        asked = replace(asked, options=replace(asked.options, **{field: value}))
    with pytest.raises(UserError) as caught:
        check(asked)
    check_sentence(str(caught.value), "cannot be used|no name that a file can have")


def test_a_text_file_is_not_overwritten_by_its_result(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("Hello.")
    flags = {"audio": "a.wav", "head": "h.npz", "out": str(words), "text_file": str(words)}
    with pytest.raises(UserError, match="overwrite"):
        request_from_flags("1", flags)


def test_a_list_keeps_its_file_and_its_inputs(tmp_path):
    for name in ("a.wav", "b.wav", "h.npz"):
        (tmp_path / name).write_text(name)
    outs = {"jobs.json": "overwrite", "b.wav": "another job|Another job", "x" * 300: "too long",
            "\ud800": "no name", "good.npz": ""}  # fmt: skip
    entries = [{"audio": "a.wav", "head": "h.npz", "out": out, "fps": "25"} for out in outs]
    entries.append({"audio": "b.wav", "head": "h.npz", "out": "last.npz", "fps": "25"})
    entries.append({"audio": "a.wav", "head": "h.npz", "out": "c.npz", "style": "\ud800.npz"})
    entries.append({"audio": "a.wav", "head": "h.npz", "out": "d.npz", "style": "z" * 300})
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(entries))
    jobs = JobList(read_list(path), tmp_path, defaults={}, list_file=path)
    todo = jobs.group(1)
    while group := jobs.group(1):
        todo += group
    assert [Path(job.request.out).name for job in todo] == ["good.npz", "last.npz", "d.npz"]
    failed = [reason for _, reason in jobs.finish(1.0).failed]
    for reason, expected in zip(failed, [*list(outs.values())[:4], "no name"], strict=True):
        check_sentence(reason, expected)
    assert json.loads(path.read_text()) == entries


def test_frame_rates_that_would_take_for_ever_are_refused_at_once():
    for text in ("1e99999999", "1E9", "9" * 30, "1/" + "0" * 25, "nan", "inf", "", "x" * 10**6):
        started = time.monotonic()
        with pytest.raises(UserError) as caught:
            motion.frame_rate(text)
        check_sentence(str(caught.value), "frame rate")
        assert time.monotonic() - started < 1.0


def test_a_read_only_disk_says_so_though_the_part_cannot_be_removed(tmp_path, monkeypatch):
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(UserError) as caught:
        write_atomically(tmp_path / "m.npz", lambda _: None)
    check_sentence(str(caught.value), "Read-only file system")


@pytest.mark.parametrize("length", [240, 245, 251])
def test_long_names_that_the_system_allows_are_written(length, tmp_path):
    path = tmp_path / ("ä" * (length // 2) + ".npz"[: 255 - length])
    write_style(path, StyleCode(np.ones(3, np.float32), "m", "s"))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    np.testing.assert_array_equal(read_style(path).code, 1.0)


def test_names_that_no_file_can_have_are_not_written(tmp_path):
    for name in ("x" * 256, "\ud800", "a\0"):
        with pytest.raises(UserError) as caught:
            write_style(Path(f"{tmp_path}/{name}"), StyleCode(np.ones(3, np.float32), "m", "s"))
        check_sentence(str(caught.value), "cannot be used|no name")
    assert not list(tmp_path.iterdir())


def test_a_result_reaches_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "m").exists()))
    write_atomically(tmp_path / "m", lambda file: file.write(b"x"))
    assert synced == [False]


def test_a_result_with_a_hole_does_not_count_as_finished(tmp_path):
    path = tmp_path / "m.npz"
    with_array(report=np.array('{"key": "k"}'))(path)
    assert is_finished(path, "k")
    data = bytearray(path.read_bytes())
    data[3000:9000] = bytes(6000)
    path.write_bytes(data)
    assert not is_finished(path, "k")


def test_excerpts_are_short_lines_that_can_be_shown():
    assert excerpt("short") == "short"
    assert len(excerpt("x" * 10**6)) == 80
    assert excerpt("start" + "x" * 99 + "end.npz", 20).endswith("end.npz")
    assert excerpt("a\nb\ud800\0") == "a?b??"


def test_a_flipped_bit_in_the_weights_is_noticed(tiny_checkpoint, tmp_path):
    folder = tmp_path / "flipped"
    shutil.copytree(tiny_checkpoint, folder)
    checkpoint.load(folder)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        checkpoint.load(folder)
    check_sentence(str(caught.value), "checksum differs")
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del stated["weights_sha256"]  # as in older checkpoints
    (folder / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    checkpoint.load(folder)


@pytest.mark.parametrize("damage", ["cut", "empty", "no parameters", "pickle"])
def test_a_damaged_phone_head_leaves_the_job_to_the_speech_encoder(damage, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    from backend.speech import moonshine_phones

    path = tmp_path / "phones.onnx"
    whole_file = bundled.PHONE_HEAD_GRAPH.read_bytes()
    contents = {"cut": whole_file[:5000], "empty": b"", "pickle": b"\x80\x04N."}
    path.write_bytes(contents.get(damage, whole_file))
    monkeypatch.setattr(bundled, "PHONE_HEAD_GRAPH", path)
    monkeypatch.setattr(moonshine_phones, "can_recognise", lambda: True)
    moonshine_phones._phone_head.cache_clear()
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    before = moonshine_phones.empty_transcript(sound)
    assert before.gaps
    after = moonshine_phones.fill_gaps(sound, before, None, lambda *_: None, lambda: False)
    moonshine_phones._phone_head.cache_clear()
    assert after == replace(before, warnings=after.warnings)
    check_sentence(after.warnings[0], "phone classifier .* is damaged.* Install PTalker again")
