# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain folders of captures through prepare."""

from fractions import Fraction

import numpy as np
import pytest
import soundfile

from backend.data.captures import prepared
from backend.data.captures.prepare import prepare
from backend.errors import UserError
from backend.heads.topology import fingerprint
from tests.backend.data.captures.samples import V, random_head, tone

FACES = (np.arange(V, dtype=np.int32), np.full(V // 3, 3, np.int32))


def write_obj(path, vertices):
    lines = [f"v {x} {y} {z}" for x, y, z in vertices.tolist()]
    lines += [f"f {3 * i + 1} {3 * i + 2} {3 * i + 3}" for i in range(V // 3)]
    path.write_text("\n".join(lines))


def test_plain_folder_takes_npy_npz_and_mesh_sequences(tmp_path):
    raw = tmp_path / "raw"
    (raw / "ann" / "three").mkdir(parents=True)
    head = random_head(2, size=300.0)
    motion = np.tile(head, (12, 1, 1))
    motion[:, 4, 0] += np.arange(12)
    np.save(raw / "ann" / "one.npy", motion.reshape(12, -1))
    np.savez(raw / "ann" / "two.npz", vertices=motion, template=head, fps=24.0,
             face_corners=FACES[0], face_sizes=FACES[1])  # fmt: skip
    for frame in range(12):
        write_obj(raw / "ann" / "three" / f"f{frame}.obj", motion[frame])
    for name in ("one", "two", "three", "four"):
        soundfile.write(raw / "ann" / f"{name}.wav", 0.3 * tone(0.5, 8000), 8000)
    (raw / "ann" / "four.abc").write_bytes(b"Ogawa")
    np.savez(raw / "bob_hi.npz", vertices=motion, fps=30.0)
    soundfile.write(raw / "bob_hi.wav", 0.3 * tone(0.5, 8000), 8000)
    with pytest.raises(UserError, match="--units"):
        prepare("folder", raw, tmp_path / "out", fps="24")
    manifest = prepare("folder", raw, tmp_path / "out", fps="24", units="mm", blender="no-blender")
    data = prepared.open(tmp_path / "out")
    assert {s.name for s in manifest.sequences} == {"ann_one", "ann_two", "ann_three"}
    assert sorted(s.split for s in manifest.sequences) == ["test", "train", "validation"]
    for sequence in manifest.sequences:
        assert (sequence.subject, sequence.num_samples) == ("ann", 8000)
        np.testing.assert_allclose(data.offsets(sequence)[:, 4, 0], np.arange(12), atol=0.01)
    reasons = {p.name: p.reason for p in manifest.problems}
    assert "Alembic is read by Blender" in reasons["ann_four"]
    assert "30 frames a second" in reasons["bob_hi"]
    assert (manifest.units, manifest.metres_per_unit) == ("mm", 0.001)
    assert (manifest.topology, manifest.fingerprint) == ("custom", fingerprint(*FACES, V))
    np.testing.assert_array_equal(data.faces()[0], FACES[0])
    assert not any(sequence.notes for sequence in manifest.sequences)


def test_without_a_template_the_first_frame_stands_for_it_and_is_named(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    np.save(raw / "ann_one.npy", np.tile(random_head(2), (12, 1, 1)))
    soundfile.write(raw / "ann_one.wav", 0.3 * tone(0.5, 8000), 8000)
    with pytest.raises(UserError, match="--fps"):
        prepare("folder", raw, tmp_path / "out")
    manifest = prepare("folder", raw, tmp_path / "out", fps="30000/1001")
    assert manifest.fps == Fraction(30000, 1001)
    assert "first frame of ann_one" in manifest.sequences[0].notes[0]
    np.save(raw / "template.npy", random_head(3))
    manifest = prepare("folder", raw, tmp_path / "other", fps="24")
    assert manifest.sequences[0].notes == ()


def test_clips_added_to_a_folder_move_the_splits_and_redo_nothing(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    np.save(raw / "template.npy", random_head(2))

    def add(name):
        np.save(raw / f"{name}.npy", np.tile(random_head(2), (12, 1, 1)))
        soundfile.write(raw / f"{name}.wav", 0.3 * tone(0.5, 8000), 8000)

    add("ann_1")
    assert prepare("folder", raw, out, fps="24").sequences[0].split == "train"
    written = (out / "sequences" / "ann_1.offsets.npy").stat().st_mtime_ns
    add("ann_0")
    add("ann_00")
    splits = {s.name: s.split for s in prepare("folder", raw, out, fps="24").sequences}
    assert splits == {"ann_0": "train", "ann_00": "validation", "ann_1": "test"}
    assert (out / "sequences" / "ann_1.offsets.npy").stat().st_mtime_ns == written
