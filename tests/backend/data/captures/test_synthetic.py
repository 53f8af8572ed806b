# SPDX-License-Identifier: GPL-3.0-or-later
"""Synthetic captures from a corpus of a few seconds, on the demo head."""

import numpy as np
import pytest

from backend.cli.main import main
from backend.data.captures import prepared
from backend.data.captures.synthetic import FPS, prepare_synthetic
from tests.backend.data.captures.samples import PHONES, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("speech") / "corpus")


@pytest.fixture(scope="module")
def captures(corpus, demo_head_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("captures") / "set"
    prepare_synthetic(
        corpus, demo_head_file, out, num_subjects=4, sentences=6, seed=1, progress=lambda *_: None
    )
    return prepared.open(out, check_hashes=True)


def test_people_and_sentences_are_held_out(captures):
    splits = {}
    for sequence in captures.manifest.sequences:
        splits.setdefault(sequence.split, set()).add(sequence.subject)
    known = {"subject_01", "subject_02", "subject_03"}
    assert splits["train"] == splits["validation"] == splits["test"] == known
    assert splits["test_unseen"] == {"subject_04"}
    assert len(captures.split("train")) == 12


def test_the_set_names_its_topology_and_is_in_metres(captures):
    manifest = captures.manifest
    assert (manifest.topology, manifest.units, manifest.fps) == ("demo", "m", FPS)
    assert manifest.faces
    extents = [np.ptp(captures.template(one.name), axis=0) for one in manifest.subjects]
    assert all(0.2 < extent.max() < 0.5 for extent in extents)
    assert not np.allclose(extents[0], extents[1])


def test_motion_follows_the_phones(captures):
    """Lips part in the vowels and meet in the closures, on every subject's own head."""
    from backend.heads.topology import load_topology

    place = load_topology("demo").face_points
    pair = [place[f"lip_{lip}_inner_center"] for lip in ("upper", "lower")]
    for sequence in captures.split("train")[::4]:
        offsets = captures.offsets(sequence)
        assert offsets.shape == (36, captures.manifest.num_vertices, 3)
        gap = np.linalg.norm(np.diff(offsets[:, pair], axis=1)[:, 0], axis=-1) * 1000
        frames = {p: slice(round(0.2 * k * FPS), round(0.2 * (k + 1) * FPS))
                  for k, p in enumerate(PHONES)}  # fmt: skip
        assert gap[frames["AA"]].max() > 3.0
        assert gap[frames["M"]].min() < 1.0
        assert gap[frames["P"]].min() < 1.0


def test_subjects_say_the_same_phones_in_other_ways(captures):
    first, second = (captures.split("train")[number] for number in (0, 4))
    assert first.subject != second.subject
    apart = captures.offsets(first) - captures.offsets(second)
    assert np.linalg.norm(apart, axis=-1).max() > 0.0005


def test_the_command_resumes_and_names_what_is_missing(corpus, demo_head_file, tmp_path, capsys):
    flags = ["prepare", "synthetic", "--speech", str(corpus), "--head", str(demo_head_file)]
    flags += ["--out", str(tmp_path / "set"), "--subjects", "4", "--sentences", "5"]
    assert main(flags) == 0
    assert "20 sequences of 4 subjects" in capsys.readouterr().out
    first = prepared.open(tmp_path / "set").content_hash
    assert main(flags) == 0
    assert prepared.open(tmp_path / "set").content_hash == first
    assert main([*flags[:-3], "9", *flags[-2:]]) == 1
    assert "has 5 voices with 5 sentences" in capsys.readouterr().err
    assert main([*flags[:-3], "2", *flags[-2:]]) == 1
    assert "too few to split" in capsys.readouterr().err
