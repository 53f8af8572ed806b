# SPDX-License-Identifier: GPL-3.0-or-later
"""VOCASET, BIWI and 3D-HDTF in their published form, at a small size, through prepare."""

import pickle
from fractions import Fraction

import numpy as np
import soundfile

from backend.data.captures import prepared
from backend.data.captures.prepare import prepare
from tests.backend.data.captures.samples import (
    SUBJECT,
    VALIDATION,
    Hostile,
    hashes,
    python2_pickle,
    random_head,
    tone,
    write_vocaset,
)


def test_vocaset_comes_back_at_30_fps_and_16_khz_with_its_splits(vocaset, tmp_path):
    before = hashes(vocaset)
    manifest = prepare("vocaset", vocaset, tmp_path / "out")
    assert hashes(vocaset) == before
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
    np.testing.assert_array_equal(data.template(SUBJECT), random_head(0))
    offsets = data.offsets(first)
    assert offsets.dtype == np.float32
    expected = 0.01 * np.sin(2 * np.pi * 2 * np.arange(30) / 30)
    np.testing.assert_allclose(offsets[5:-5, 3, 1], expected[5:-5], atol=3e-5)
    assert np.abs(np.delete(offsets, 3, axis=1)).max() < 1e-7
    np.testing.assert_allclose(
        data.samples(first)[100:-100], 0.5 * tone(1.0, 16000)[100:-100], atol=2e-3
    )


def test_sequences_that_are_missing_or_broken_are_listed(tmp_path):
    raw = tmp_path / "raw"
    pairs = [(SUBJECT, f"sentence{i:02}") for i in range(1, 6)]
    _, index, sounds = write_vocaset(raw, pairs)
    del sounds[SUBJECT]["sentence02"]
    sounds[SUBJECT]["sentence03"]["audio"] = np.zeros(0, np.int16)
    index[SUBJECT]["sentence04"][7] = 99999
    for frame in range(20, 40):
        del index[SUBJECT]["sentence05"][frame]
    python2_pickle(index, raw / "subj_seq_to_idx.pkl")
    python2_pickle(sounds, raw / "raw_audio_fixed.pkl")
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
    _, index, _ = write_vocaset(raw, [(SUBJECT, "sentence01")])
    frames = index[SUBJECT]["sentence01"]
    for frame in (*range(12), 31, 32):
        del frames[frame]
    python2_pickle(index, raw / "subj_seq_to_idx.pkl")
    manifest = prepare("vocaset", raw, tmp_path / "out")
    (only,) = manifest.sequences
    assert (only.num_frames, only.num_samples) == (24, 12800)
    assert only.notes == ("2 missing frames were filled in on a straight line.",)
    moved = prepared.open(tmp_path / "out").offsets(only)[3:-3, 3, 1]
    truth = 0.01 * np.sin(2 * np.pi * 2 * np.arange(12, 60, 2) / 60)
    np.testing.assert_allclose(moved, truth[3:-3], atol=2e-4)


def write_biwi(raw, names, frames=20):
    (raw / "wav").mkdir(parents=True)
    (raw / "vertices_npy").mkdir()
    template = random_head(1, size=1.4).astype(np.float64)
    subjects = {name.split("_")[0] for name in names}
    (raw / "templates.pkl").write_bytes(pickle.dumps(dict.fromkeys(subjects, template), 4))
    for name in names:
        motion = np.tile(template.reshape(1, -1), (frames, 1))
        motion[:, 5] += np.linspace(0, 0.02, frames)
        np.save(raw / "vertices_npy" / f"{name}.npy", motion)
        soundfile.write(raw / "wav" / f"{name}.wav", 0.3 * tone(frames / 25, 44100), 44100)


def test_biwi_keeps_its_rate_states_its_units_and_splits_by_protocol(tmp_path):
    raw = tmp_path / "raw"
    write_biwi(raw, ["F2_e01", "F2_e33", "F2_e40", "F1_e37", "F1_e01", "F2_n01", "F3_e02"])
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


def box(object_array, path):
    np.save(path, np.array(object_array, dtype=object), allow_pickle=True)


def test_3d_hdtf_is_read_by_its_lists(tmp_path):
    raw = tmp_path / "raw"
    tracked = raw / "spectre_processed_25fps_16kHz"
    lines = ["RD_Radio1_000 1 20 train", "WRA_A_000 2 20 test", "WRA_B_000 2 20 train",
             "WRA_C_000 160 20 train", "WRA_D_000 3 20 train"]  # fmt: skip
    for line in lines[:4]:
        video, subject = line.split()[:2]
        (tracked / video).mkdir(parents=True)
        verts = np.tile(random_head(int(subject)), (20, 1, 1))
        box({"verts": verts}, tracked / video / "verts_new_shape1.npy")
        sound = {"speech_array": tone(0.8, 16000).astype(np.float32), "sampling_rate": 16000}
        box(sound, tracked / video / "audio_librosa.npy")
    (raw / "video_list_id_framenum-train_test.txt").write_text("\n".join(lines))
    (raw / "video_list_id_framenum-val.txt").write_text(lines[2])
    (raw / "templates.pkl").write_bytes(pickle.dumps({i: random_head(i) for i in (1, 2, 160)}, 4))
    manifest = prepare("3d-hdtf", raw, tmp_path / "out")
    assert [s.split for s in manifest.sequences] == ["train", "test", "validation", "unused"]
    assert [s.name for s in manifest.subjects] == ["1", "2", "160"]
    assert manifest.missing == ("WRA_D_000",)
    assert manifest.fps == 25
    box({"verts": Hostile()}, tracked / "WRA_A_000" / "verts_new_shape1.npy")
    again = prepare("3d-hdtf", raw, tmp_path / "again")
    assert "was not loaded" in again.problems[0].reason
