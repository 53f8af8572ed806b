# SPDX-License-Identifier: GPL-3.0-or-later
"""Lips and upper face: found on heads, shipped, and read from files."""

import json

import numpy as np
import pytest

from backend import bundled
from backend.data.captures import prepared
from backend.data.captures.regions import Regions, face_regions, regions_of
from backend.data.captures.synthetic import prepare_synthetic
from backend.errors import UserError
from backend.heads.topology import load_topology
from tests.backend.data.captures.samples import write_corpus, write_set


def test_regions_hash_what_they_hold_and_not_their_order():
    one = Regions(np.array([1, 2]), np.array([5]), (1, 2), "x")
    assert one.hashes() == Regions(np.array([1, 2]), np.array([5]), (1, 2), "y").hashes()
    assert (
        one.hashes()["lips"] != Regions(np.array([1, 3]), np.array([5]), (), "x").hashes()["lips"]
    )


def test_regions_are_found_on_a_head(solved_demo_head):
    """Lips around the mouth, the upper face above the nose's tip, nothing in both."""
    head, _ = solved_demo_head
    found = face_regions(head)
    assert not np.intersect1d(found.lips, found.upper_face).size
    place = head.topology.face_points
    assert set(found.inner_lips) <= set(found.lips.tolist())
    assert place["lip_corner_left"] in found.lips
    assert {place["brow_left_3"], place["forehead_center"]} <= set(found.upper_face.tolist())
    assert place["nose_tip"] not in found.upper_face


def test_the_shipped_flame_regions_are_of_its_face():
    data = json.loads((bundled.TOPOLOGIES_DIR / "flame.json").read_text("utf-8"))
    place = load_topology("flame").face_points
    lips, upper = (set(data["regions"][name]) for name in ("lips", "upper_face"))
    assert {place["lip_corner_left"], place["lip_lower_outer_center"]} <= lips
    assert {place["brow_left_3"], place["forehead_center"]} <= upper
    assert not lips & upper
    assert max(lips | upper) < 3931  # the skin


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON file"),
        ("[]", "no regions"),
        ('{"lips": [1]}', '"upper_face" is no list'),
        ('{"lips": [1.5], "upper_face": [2]}', '"lips" is no list'),
        ('{"lips": [30], "upper_face": [2]}', "names vertex 30"),
        ('{"lips": [1], "upper_face": [2], "inner_lips": [1]}', "must be two vertices"),
    ],
)
def test_bad_regions_are_one_sentence(tmp_path, text, words):
    path = tmp_path / "regions.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        regions_of(prepared.open(write_set(tmp_path / "set")), path)


def test_regions_away_from_the_mouth_are_refused(tmp_path, demo_head_file):
    prepare_synthetic(
        write_corpus(tmp_path / "corpus"), demo_head_file, tmp_path / "set", num_subjects=4,
        sentences=5, seed=0, progress=lambda *_: None,
    )  # fmt: skip
    place = load_topology("demo").face_points
    path = tmp_path / "regions.json"
    path.write_text(json.dumps({"lips": [place["crown"]], "upper_face": [place["crown"]]}))
    with pytest.raises(UserError, match="from the mouth"):
        regions_of(prepared.open(tmp_path / "set"), path)
