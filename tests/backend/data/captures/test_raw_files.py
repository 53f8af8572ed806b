# SPDX-License-Identifier: GPL-3.0-or-later
"""Pickles of data sets give plain data and run nothing."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from backend.data.captures import raw_files
from backend.data.captures.prepare import prepare
from backend.errors import UserError
from tests.backend.data.captures.samples import SUBJECT, Hostile


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_hostile_pickle_is_refused_in_one_sentence(vocaset, tmp_path, protocol, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (vocaset / "templates.pkl").write_bytes(pickle.dumps({SUBJECT: Hostile()}, protocol))
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
