# SPDX-License-Identifier: GPL-3.0-or-later
"""Data sets in exactly their published form, at a small size, through prepare and back."""

import dataclasses
import hashlib
import json
import os
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.cli.main import main
from backend.data.captures import prepared, raw_files
from backend.data.captures.prepare import decimate, prepare
from backend.errors import UserError
from backend.heads.topology import fingerprint

V = 12
SUBJECT = "FaceTalk_170728_03272_TA"
VALIDATION = "FaceTalk_170811_03275_TA"


def _head(seed=0, size=0.3):
    """A cloud of points whose box has a diagonal of ``size``."""
    points = np.random.default_rng(seed).random((V, 3)).astype(np.float32)
    points[0], points[1] = 0.0, 1.0
    return (points * size / np.sqrt(3)).astype(np.float32)


def _python2_pickle(value, path):
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


def _tone(seconds, rate, hz=440.0):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def _write_vocaset(raw, sequences, frames=60):
    """``sequences``: (subject, sentence) pairs, of ``frames`` frames each, in shuffled rows."""
    raw.mkdir(parents=True, exist_ok=True)
    templates = {s: _head(i).astype(np.float64) for i, s in enumerate(dict(sequences))}
    rows = np.random.default_rng(9).permutation(len(sequences) * frames)
    vertices = np.zeros((len(rows), V, 3), np.float32)
    index, sounds = {}, {}
    for number, (subject, sentence) in enumerate(sequences):
        mine = rows[number * frames : (number + 1) * frames]
        time = np.arange(frames) / 60
        vertices[mine] = templates[subject]
        vertices[mine, 3, 1] += 0.01 * np.sin(2 * np.pi * 2 * time).astype(np.float32)
        index.setdefault(subject, {})[sentence] = dict(enumerate(mine.tolist()))
        sound = (_tone(frames / 60, 22000) * 16384).astype(np.int16)
        sounds.setdefault(subject, {})[sentence] = {"sample_rate": 22000, "audio": sound}
    np.save(raw / "data_verts.npy", vertices)
    _python2_pickle(index, raw / "subj_seq_to_idx.pkl")
    _python2_pickle(sounds, raw / "raw_audio_fixed.pkl")
    _python2_pickle(templates, raw / "templates.pkl")
    return templates, index, sounds


@pytest.fixture
def vocaset(tmp_path):
    raw = tmp_path / "raw"
    pairs = [(SUBJECT, "sentence01"), (SUBJECT, "sentence02"), (VALIDATION, "sentence01"),
             (VALIDATION, "sentence21")]  # fmt: skip
    _write_vocaset(raw, pairs)
    return raw


def _hashes(folder):
    return {
        (path.relative_to(folder).as_posix(), path.stat().st_mtime_ns): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_vocaset_comes_back_at_30_fps_and_16_khz_with_its_splits(vocaset, tmp_path):
    before = _hashes(vocaset)
    manifest = prepare("vocaset", vocaset, tmp_path / "out")
    assert _hashes(vocaset) == before
    data = prepared.open(tmp_path / "out", check_hashes=True)
    assert data.manifest == manifest
    assert (manifest.fps, manifest.source_fps, manifest.units) == (Fraction(30), 60.0, "m")
    assert manifest.audio_rate_hz == 16000
    assert manifest.precision == "float16"
    assert [s.name for s in manifest.subjects] == [SUBJECT, VALIDATION]
    splits = {s.name: s.split for s in manifest.sequences}
    assert splits[f"{SUBJECT}_sentence01"] == "train"
    assert splits[f"{VALIDATION}_sentence01"] == "unused"
    assert splits[f"{VALIDATION}_sentence21"] == "validation"
    first = data.split("train")[0]
    assert (first.subject, first.sentence) == (SUBJECT, "sentence01")
    assert (first.num_frames, first.num_samples) == (30, 16000)
    assert first.source_audio_rate_hz == 22000
    np.testing.assert_array_equal(data.template(SUBJECT), _head(0))
    offsets = data.offsets(first)
    assert offsets.dtype == np.float32
    expected = 0.01 * np.sin(2 * np.pi * 2 * np.arange(30) / 30)
    np.testing.assert_allclose(offsets[5:-5, 3, 1], expected[5:-5], atol=3e-5)
    assert np.abs(np.delete(offsets, 3, axis=1)).max() < 1e-7
    np.testing.assert_allclose(
        data.samples(first)[100:-100], 0.5 * _tone(1.0, 16000)[100:-100], atol=2e-3
    )


def test_stored_motion_is_mapped_and_read_only(vocaset, tmp_path):
    prepare("vocaset", vocaset, tmp_path / "out", precision="float32")
    data = prepared.open(tmp_path / "out")
    stored = data.stored_offsets(data.manifest.sequences[0])
    assert isinstance(stored, np.memmap)
    assert not stored.flags.writeable
    assert (stored.dtype, data.manifest.scale) == (np.float32, 1.0)


def test_float16_keeps_a_hundredth_of_a_millimetre(vocaset, tmp_path):
    prepare("vocaset", vocaset, tmp_path / "half")
    prepare("vocaset", vocaset, tmp_path / "full", precision="float32")
    half, full = prepared.open(tmp_path / "half"), prepared.open(tmp_path / "full")
    for one, other in zip(half.manifest.sequences, full.manifest.sequences, strict=True):
        assert np.abs(half.offsets(one) - full.offsets(other)).max() < 1e-5


def test_twenty_hertz_do_not_come_back_as_ten():
    time = np.arange(240)[:, None] / 60
    fast = decimate(np.sin(2 * np.pi * 20 * time).astype(np.float32), 2)
    slow = decimate(np.sin(2 * np.pi * 5 * time).astype(np.float32), 2)
    assert fast.shape == (120, 1)
    assert np.abs(fast[12:-12]).max() < 0.01  # [::2] leaves 1.0
    np.testing.assert_allclose(slow[12:-12], np.sin(10 * np.pi * time[::2])[12:-12], atol=0.01)


def test_filter_leaves_rest_and_steady_motion_alone():
    np.testing.assert_allclose(decimate(np.full((9, 2), 0.25, np.float32), 2), 0.25, atol=1e-6)
    ramp = decimate(np.arange(41, dtype=np.float32)[:, None], 2)
    np.testing.assert_allclose(ramp[:, 0], np.arange(0, 41, 2), atol=0.02)


def test_sequences_that_are_missing_or_broken_are_listed(tmp_path):
    raw = tmp_path / "raw"
    pairs = [(SUBJECT, f"sentence{i:02}") for i in range(1, 6)]
    _, index, sounds = _write_vocaset(raw, pairs)
    del sounds[SUBJECT]["sentence02"]
    sounds[SUBJECT]["sentence03"]["audio"] = np.zeros(0, np.int16)
    index[SUBJECT]["sentence04"][7] = 99999
    for frame in range(20, 40):
        del index[SUBJECT]["sentence05"][frame]
    _python2_pickle(index, raw / "subj_seq_to_idx.pkl")
    _python2_pickle(sounds, raw / "raw_audio_fixed.pkl")
    manifest = prepare("vocaset", raw, tmp_path / "out")
    assert [s.sentence for s in manifest.sequences] == ["sentence01"]
    reasons = {p.name[-2:]: p.reason for p in manifest.problems}
    assert "no sound" in reasons["02"]
    assert "shape (0,)" in reasons["03"]
    assert "row 99999" in reasons["04"]
    assert "20 frames" in reasons["05"]
    assert len(manifest.missing) == 12 * 40 - 5
    assert f"{SUBJECT}_sentence06" in manifest.missing


def test_short_gaps_are_filled_and_a_late_start_cuts_the_sound(tmp_path):
    raw = tmp_path / "raw"
    _, index, _ = _write_vocaset(raw, [(SUBJECT, "sentence01")])
    frames = index[SUBJECT]["sentence01"]
    for frame in (*range(12), 31, 32):
        del frames[frame]
    _python2_pickle(index, raw / "subj_seq_to_idx.pkl")
    manifest = prepare("vocaset", raw, tmp_path / "out")
    (only,) = manifest.sequences
    assert (only.num_frames, only.num_samples) == (24, 12800)
    assert only.notes == ("2 missing frames were filled in on a straight line.",)
    moved = prepared.open(tmp_path / "out").offsets(only)[3:-3, 3, 1]
    truth = 0.01 * np.sin(2 * np.pi * 2 * np.arange(12, 60, 2) / 60)
    np.testing.assert_allclose(moved, truth[3:-3], atol=2e-4)


def test_interrupted_run_goes_on_and_does_nothing_twice(vocaset, tmp_path):
    out = tmp_path / "out"

    def stop_after_two(done, total, unit, seconds_left):
        assert (total, unit) == (4, "sequences")
        assert seconds_left is not None and seconds_left >= 0
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("vocaset", vocaset, out, progress=stop_after_two)
    with pytest.raises(UserError, match="interrupted"):
        prepared.open(out)
    finished = {p: p.stat().st_mtime_ns for p in out.glob("sequences/*.npy")}
    assert len(finished) == 4
    manifest = prepare("vocaset", vocaset, out)
    assert len(manifest.sequences) == 4
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    whole = prepare("vocaset", vocaset, tmp_path / "at_once")
    assert whole == manifest


def test_a_half_written_sequence_is_done_again(vocaset, tmp_path):
    out = tmp_path / "out"
    manifest = prepare("vocaset", vocaset, out)
    victim = out / manifest.sequences[1].offsets.path
    victim.write_bytes(victim.read_bytes()[:-10])
    with pytest.raises(UserError, match="changed"):
        prepared.open(out)
    assert prepare("vocaset", vocaset, out) == manifest
    prepared.open(out, check_hashes=True)


def test_changed_byte_is_found_by_its_hash(vocaset, tmp_path):
    manifest = prepare("vocaset", vocaset, tmp_path / "out")
    path = tmp_path / "out" / manifest.sequences[0].audio.path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    prepared.open(tmp_path / "out")
    with pytest.raises(UserError, match="changed"):
        prepared.open(tmp_path / "out", check_hashes=True)


def test_other_settings_or_another_template_need_another_folder(vocaset, tmp_path):
    prepare("vocaset", vocaset, tmp_path / "out")
    with pytest.raises(UserError, match=r"another precision.*empty folder"):
        prepare("vocaset", vocaset, tmp_path / "out", precision="float32")
    templates = {SUBJECT: _head(5), VALIDATION: _head(6)}
    _python2_pickle(templates, vocaset / "templates.pkl")
    with pytest.raises(UserError, match="template of"):
        prepare("vocaset", vocaset, tmp_path / "out")


def test_out_may_not_lie_in_or_around_the_raw_folder(vocaset, tmp_path):
    before = _hashes(vocaset)
    for out in (vocaset, vocaset / "out", tmp_path):
        with pytest.raises(UserError, match="neither in nor around"):
            prepare("vocaset", vocaset, out)
    assert _hashes(vocaset) == before


def test_millimetres_in_place_of_metres_are_refused(vocaset, tmp_path):
    _python2_pickle({SUBJECT: _head(0, size=300.0)}, vocaset / "templates.pkl")
    with pytest.raises(UserError, match=r"measures 300 m.*--units"):
        prepare("vocaset", vocaset, tmp_path / "out")


class _Hostile:
    def __reduce__(self):
        return os.system, ("echo hacked > hacked",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_hostile_pickle_is_refused_in_one_sentence(vocaset, tmp_path, protocol, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (vocaset / "templates.pkl").write_bytes(pickle.dumps({SUBJECT: _Hostile()}, protocol))
    with pytest.raises(UserError, match=r"templates.pkl was not loaded: it asks for \w+.system"):
        prepare("vocaset", vocaset, tmp_path / "out")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2, dtype=[("x", "f4"), ("y", "f4")]),
        np.array(["text"]),
        {1, 2},
        Path("x"),
        b"\x80\x02}(U\x01",
        b"",
        b"not a pickle",
    ],
)
def test_nothing_but_plain_data_comes_out_of_a_pickle(tmp_path, value):
    path = tmp_path / "x.pkl"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, 2))
    with pytest.raises(UserError, match=r"x\.pkl"):
        raw_files.load_pickle(path)


def test_array_of_objects_is_no_array_of_numbers(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(np.array([{"a": 1}, None], dtype=object), 2))
    with pytest.raises(UserError, match="expected an array of numbers"):
        raw_files.as_array(raw_files.load_pickle(path), "x")
    forged = path.read_bytes().replace(
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb", b"NNNK\x08K\x08K\x00tb"
    )
    path.write_bytes(forged[: forged.index(b"\x89]")] + b"\x89U\x10" + b"A" * 16 + b"tb.")
    with pytest.raises(UserError, match=r"x\.pkl is damaged.*objects"):
        raw_files.load_pickle(path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_and_numbers_come_out_of_any_protocol(tmp_path, protocol):
    value = {
        "a": np.arange(6, dtype=">i2").reshape(2, 3),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "n": np.float32(1.5),
        "i": [1, (2.5, "ü")],
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    read = raw_files.as_dict(raw_files.load_pickle(path), "x")
    for key in ("a", "f"):
        np.testing.assert_array_equal(raw_files.as_array(read[key], key), value[key])
    assert read["n"] == 1.5
    assert read["i"] == [1, (2.5, "ü")]


def _write_biwi(raw, names, frames=20):
    (raw / "wav").mkdir(parents=True)
    (raw / "vertices_npy").mkdir()
    template = _head(1, size=1.4).astype(np.float64)
    subjects = {name.split("_")[0] for name in names}
    (raw / "templates.pkl").write_bytes(pickle.dumps(dict.fromkeys(subjects, template), 4))
    for name in names:
        motion = np.tile(template.reshape(1, -1), (frames, 1))
        motion[:, 5] += np.linspace(0, 0.02, frames)
        np.save(raw / "vertices_npy" / f"{name}.npy", motion)
        soundfile.write(raw / "wav" / f"{name}.wav", 0.3 * _tone(frames / 25, 44100), 44100)


def test_biwi_keeps_its_rate_says_its_units_and_splits_by_protocol(tmp_path):
    raw = tmp_path / "raw"
    _write_biwi(raw, ["F2_e01", "F2_e33", "F2_e40", "F1_e37", "F1_e01", "F2_n01", "F3_e02"])
    (raw / "wav" / "F3_e02.wav").unlink()
    (raw / "vertices_npy" / "F2_e33.npy").write_bytes(b"\x93NUMPY broken")
    manifest = prepare("biwi", raw, tmp_path / "out")
    assert {s.name: s.split for s in manifest.sequences} == {
        "F1_e01": "unused", "F1_e37": "test_unseen", "F2_e01": "train", "F2_e40": "test",
        "F2_n01": "unused",
    }  # fmt: skip
    assert {p.name for p in manifest.problems} == {"F3_e02", "F2_e33"}
    assert manifest.fps == 25
    assert (manifest.metres_per_unit, manifest.filtering) == (0.0, "")
    assert "area" in manifest.units
    data = prepared.open(tmp_path / "out")
    (only,) = data.split("train")
    assert (only.num_frames, only.source_audio_rate_hz, only.num_samples) == (20, 44100, 12800)
    np.testing.assert_allclose(data.offsets(only)[:, 1, 2], np.linspace(0, 0.02, 20), atol=2e-5)
    assert data.faces() is None
    assert (manifest.topology, manifest.fingerprint) == ("", "")


def _box(object_array, path):
    np.save(path, np.array(object_array, dtype=object), allow_pickle=True)


def test_3d_hdtf_is_read_by_its_lists(tmp_path):
    raw = tmp_path / "raw"
    tracked = raw / "spectre_processed_25fps_16kHz"
    lines = ["RD_Radio1_000 1 20 train", "WRA_A_000 2 20 test", "WRA_B_000 2 20 train",
             "WRA_C_000 160 20 train", "WRA_D_000 3 20 train"]  # fmt: skip
    for line in lines[:4]:
        video, subject = line.split()[:2]
        (tracked / video).mkdir(parents=True)
        verts = np.tile(_head(int(subject)), (20, 1, 1))
        _box({"verts": verts}, tracked / video / "verts_new_shape1.npy")
        sound = {"speech_array": _tone(0.8, 16000).astype(np.float32), "sampling_rate": 16000}
        _box(sound, tracked / video / "audio_librosa.npy")
    (raw / "video_list_id_framenum-train_test.txt").write_text("\n".join(lines))
    (raw / "video_list_id_framenum-val.txt").write_text(lines[2])
    (raw / "templates.pkl").write_bytes(pickle.dumps({i: _head(i) for i in (1, 2, 160)}, 4))
    manifest = prepare("3d-hdtf", raw, tmp_path / "out")
    assert [s.split for s in manifest.sequences] == ["train", "test", "validation", "unused"]
    assert [s.name for s in manifest.subjects] == ["1", "2", "160"]
    assert manifest.missing == ("WRA_D_000",)
    assert manifest.fps == 25
    _box({"verts": _Hostile()}, tracked / "WRA_A_000" / "verts_new_shape1.npy")
    again = prepare("3d-hdtf", raw, tmp_path / "again")
    assert "was not loaded" in again.problems[0].reason


FACES = (np.arange(V, dtype=np.int32), np.full(V // 3, 3, np.int32))


def _write_obj(path, vertices):
    lines = [f"v {x} {y} {z}" for x, y, z in vertices.tolist()]
    lines += [f"f {3 * i + 1} {3 * i + 2} {3 * i + 3}" for i in range(V // 3)]
    path.write_text("\n".join(lines))


def test_plain_folder_takes_npy_npz_and_mesh_sequences(tmp_path):
    raw = tmp_path / "raw"
    (raw / "ann" / "three").mkdir(parents=True)
    head = _head(2, size=300.0)
    motion = np.tile(head, (12, 1, 1))
    motion[:, 4, 0] += np.arange(12)
    np.save(raw / "ann" / "one.npy", motion.reshape(12, -1))
    np.savez(raw / "ann" / "two.npz", vertices=motion, template=head, fps=24.0,
             face_corners=FACES[0], face_sizes=FACES[1])  # fmt: skip
    for frame in range(12):
        _write_obj(raw / "ann" / "three" / f"f{frame}.obj", motion[frame])
    for name in ("one", "two", "three", "four"):
        soundfile.write(raw / "ann" / f"{name}.wav", 0.3 * _tone(0.5, 8000), 8000)
    (raw / "ann" / "four.abc").write_bytes(b"Ogawa")
    np.savez(raw / "bob_hi.npz", vertices=motion, fps=30.0)
    soundfile.write(raw / "bob_hi.wav", 0.3 * _tone(0.5, 8000), 8000)
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
    np.save(raw / "ann_one.npy", np.tile(_head(2), (12, 1, 1)))
    soundfile.write(raw / "ann_one.wav", 0.3 * _tone(0.5, 8000), 8000)
    with pytest.raises(UserError, match="--fps"):
        prepare("folder", raw, tmp_path / "out")
    manifest = prepare("folder", raw, tmp_path / "out", fps="30000/1001")
    assert manifest.fps == Fraction(30000, 1001)
    assert "first frame of ann_one" in manifest.sequences[0].notes[0]
    np.save(raw / "template.npy", _head(3))
    manifest = prepare("folder", raw, tmp_path / "other", fps="24")
    assert manifest.sequences[0].notes == ()


def test_manifest_that_leads_out_of_the_folder_is_refused(vocaset, tmp_path):
    prepare("vocaset", vocaset, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    values = json.loads(path.read_text())
    values["sequences"][0]["offsets"]["path"] = "../raw/data_verts.npy"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="leaves the folder"):
        prepared.open(tmp_path / "out")


def test_a_set_with_sound_of_another_rate_is_refused(vocaset, tmp_path):
    prepare("vocaset", vocaset, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"audio_rate_hz": 8000}))
    with pytest.raises(UserError, match="audio_rate_hz is 8000, expected 16000"):
        prepared.open(tmp_path / "out")


def test_one_subject_without_a_fit_template_does_not_stop_the_others(vocaset, tmp_path):
    _python2_pickle({SUBJECT: _head(0), VALIDATION: _head(1)[:-1]}, vocaset / "templates.pkl")
    manifest = prepare("vocaset", vocaset, tmp_path / "out")
    assert [s.subject for s in manifest.sequences] == [SUBJECT, SUBJECT]
    assert "11 vertices" in manifest.problems[0].reason


def test_clips_added_to_a_folder_move_the_splits_and_redo_nothing(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    np.save(raw / "template.npy", _head(2))

    def add(name):
        np.save(raw / f"{name}.npy", np.tile(_head(2), (12, 1, 1)))
        soundfile.write(raw / f"{name}.wav", 0.3 * _tone(0.5, 8000), 8000)

    add("ann_1")
    assert prepare("folder", raw, out, fps="24").sequences[0].split == "train"
    written = (out / "sequences" / "ann_1.offsets.npy").stat().st_mtime_ns
    add("ann_0")
    add("ann_00")
    splits = {s.name: s.split for s in prepare("folder", raw, out, fps="24").sequences}
    assert splits == {"ann_0": "train", "ann_00": "validation", "ann_1": "test"}
    assert (out / "sequences" / "ann_1.offsets.npy").stat().st_mtime_ns == written


def test_records_are_frozen(vocaset, tmp_path):
    manifest = prepare("vocaset", vocaset, tmp_path / "out")
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.sequences[0].name = "x"


def test_command_line_prepares_and_says_what_is_missing(vocaset, tmp_path, capsys):
    command = ["prepare", "vocaset", "--raw", str(vocaset), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "4 sequences of 2 subjects" in said
    assert "476 of the published sequences are not there" in said
    assert main([*command[:3], str(tmp_path / "nowhere"), *command[4:]]) == 1
    assert "no folder" in capsys.readouterr().err
