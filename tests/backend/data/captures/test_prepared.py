# SPDX-License-Identifier: GPL-3.0-or-later
"""The prepared format: what is stored, and which sets are refused."""

import dataclasses
import json

import numpy as np
import pytest

from backend.data.captures import prepared
from backend.data.captures.prepare import prepare
from backend.errors import UserError


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


def test_records_are_frozen(vocaset, tmp_path):
    manifest = prepare("vocaset", vocaset, tmp_path / "out")
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.sequences[0].name = "x"
