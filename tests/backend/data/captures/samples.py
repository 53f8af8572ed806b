# SPDX-License-Identifier: GPL-3.0-or-later
"""Captured data sets in their published form, made up and small."""

import hashlib
import json
import os

import numpy as np

from backend.data.captures import prepared
from backend.data.captures.prepared import Label, Manifest, Subject

V = 12
SUBJECT = "FaceTalk_170728_03272_TA"
VALIDATION = "FaceTalk_170811_03275_TA"


def random_head(seed=0, size=0.3):
    """A cloud of points whose box has a diagonal of ``size``."""
    points = np.random.default_rng(seed).random((V, 3)).astype(np.float32)
    points[0], points[1] = 0.0, 1.0
    return (points * size / np.sqrt(3)).astype(np.float32)


def python2_pickle(value, path):
    """Protocol 2 as Python 2 wrote it: byte strings, and NumPy under its old name."""

    def op(x):
        if isinstance(x, dict):
            return b"}(" + b"".join(op(k) + op(v) for k, v in x.items()) + b"u"
        if isinstance(x, str):
            raw = x.encode("latin1")
            return b"U" + bytes([len(raw)]) + raw
        if isinstance(x, int):
            return b"J" + x.to_bytes(4, "little", signed=True)
        return array(x)

    def array(x):
        raw = np.ascontiguousarray(x).tobytes()
        shape = b"(" + b"".join(op(n) for n in x.shape) + b"t"
        code, order = x.dtype.str[1:], x.dtype.str[0].replace("|", "|")
        dtype = (
            b"cnumpy\ndtype\n(" + op(code) + op(0) + op(1) + b"tR"
            + b"(" + op(3) + op(order) + b"NNN" + op(-1) * 2 + op(0) + b"tb"
        )  # fmt: skip
        data = b"T" + len(raw).to_bytes(4, "little") + raw
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + op(0) + b"t"
            + op("b") + b"tR(" + op(1) + shape + dtype + b"\x89" + data + b"tb"
        )  # fmt: skip

    path.write_bytes(b"\x80\x02" + op(value) + b".")


def tone(seconds, rate, hz=440.0):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def write_vocaset(raw, sequences, frames=60):
    """``sequences``: (subject, sentence) pairs, of ``frames`` frames each, in shuffled rows."""
    raw.mkdir(parents=True, exist_ok=True)
    templates = {s: random_head(i).astype(np.float64) for i, s in enumerate(dict(sequences))}
    rows = np.random.default_rng(9).permutation(len(sequences) * frames)
    vertices = np.zeros((len(rows), V, 3), np.float32)
    index, sounds = {}, {}
    for number, (subject, sentence) in enumerate(sequences):
        mine = rows[number * frames : (number + 1) * frames]
        time = np.arange(frames) / 60
        vertices[mine] = templates[subject]
        vertices[mine, 3, 1] += 0.01 * np.sin(2 * np.pi * 2 * time).astype(np.float32)
        index.setdefault(subject, {})[sentence] = dict(enumerate(mine.tolist()))
        sound = (tone(frames / 60, 22000) * 16384).astype(np.int16)
        sounds.setdefault(subject, {})[sentence] = {"sample_rate": 22000, "audio": sound}
    np.save(raw / "data_verts.npy", vertices)
    python2_pickle(index, raw / "subj_seq_to_idx.pkl")
    python2_pickle(sounds, raw / "raw_audio_fixed.pkl")
    python2_pickle(templates, raw / "templates.pkl")
    return templates, index, sounds


class Hostile:
    def __reduce__(self):
        return os.system, ("echo hacked > hacked",)


def hashes(folder):
    return {
        (path.relative_to(folder).as_posix(), path.stat().st_mtime_ns): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


POINTS, FPS = 30, 30
SPLITS = ("train", "train", "train", "validation", "test", "test")


def write_set(folder, *, num_vertices=POINTS, change=lambda offsets, name: offsets, metres=1.0):
    """Three subjects, each with a style of motion; lips follow the loudness of the sound."""
    for name in ("templates", "sequences"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    head = rng.normal(size=(num_vertices, 3)).astype(np.float32) * 0.1
    subjects, sequences = [], []
    for person in range(3):
        template = head * (1 + 0.01 * person)
        path = f"templates/s{person}.npy"
        subjects.append(Subject(f"s{person}", prepared.write_array(folder, path, template)))
        for number, split in enumerate(SPLITS):
            label = Label(f"s{person}_{number}", f"s{person}", str(number), split)
            frames = 40 + 10 * number
            loud = np.abs(np.sin(np.arange(frames) / 4 + number))
            sound = np.repeat(loud, 534)[: frames * 533] * rng.normal(size=frames * 533) * 0.1
            offsets = np.zeros((frames, num_vertices, 3), np.float32)
            offsets[:, 2, 1] = -0.01 * (1 + person) * loud
            offsets[:, 10:13, person] = 0.002 * loud[:, None]
            sequences.append(
                prepared.write_sequence(
                    folder, label, offsets=change(offsets, label.name),
                    samples=sound.astype(np.float32), source_audio_rate_hz=16000,
                )
            )  # fmt: skip
    manifest = Manifest(
        dataset="folder", protocol="by hand", fps_numerator=FPS, fps_denominator=1,
        source_fps=30.0, filtering="", units="m" if metres else "u", metres_per_unit=metres,
        num_vertices=num_vertices, topology="points", fingerprint="", precision="float32",
        scale=1.0, subjects=tuple(subjects), sequences=tuple(sequences), complete=True,
    )  # fmt: skip
    prepared.write_manifest(folder, manifest)
    return folder


PHONES = ("SIL", "M", "AA", "P", "IY", "SIL")


def write_corpus(folder):
    """Five voices of six sentences of 1.2 s each, in one shard."""
    (folder / "shards").mkdir(parents=True)
    rng = np.random.default_rng(0)
    count = 19200
    sound = (rng.normal(0, 2000, 30 * count)).astype(np.int16)
    np.save(folder / "shards" / "flite_0000.npy", sound)
    entries = [
        {
            "id": f"flite_0000/{number:04d}", "speaker": f"flite/voice#{number // 6}",
            "source": "flite", "split": "train", "text": f"sentence {number}",
            "phones": [[p, 0.2 * k, 0.2 * (k + 1)] for k, p in enumerate(PHONES)],
            "shard": "flite_0000", "offset": number * count, "num_samples": count,
        }
        for number in range(30)
    ]  # fmt: skip
    index = {"format_version": 1, "sample_rate_hz": 16000, "seed": 0, "utterances": entries}
    (folder / "index.json").write_text(json.dumps(index))
    return folder
