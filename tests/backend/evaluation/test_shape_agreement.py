# SPDX-License-Identifier: GPL-3.0-or-later
"""Agreement of the solved shapes with scanned ones."""

from pathlib import Path

import numpy as np
import pytest

from backend.errors import UserError
from backend.evaluation.shape_agreement import (
    MOUTH_AND_JAW,
    read_points,
    read_scans,
    scanned_head,
    shape_agreement,
    table,
)

HEADS = Path(__file__).resolve().parents[4] / "shared" / "heads"
FACE = slice(9409)


@pytest.fixture(scope="module")
def scans():
    if not (HEADS / "ict_expressions.npz").exists():
        pytest.skip("needs ../shared/heads/ict_expressions.npz, scans of people")
    return read_scans(HEADS / "ict_expressions.npz")


@pytest.fixture(scope="module")
def marks(scans):
    return read_points(HEADS / "marks.json")


@pytest.mark.parametrize("person", [-1, 3])
def test_shapes_agree_with_scans_of_people(scans, marks, person):
    agreement = shape_agreement(scanned_head(scans, marks, person), scans, FACE)
    assert len(agreement) == 51
    assert np.mean([agreement[name].cosine for name in MOUTH_AND_JAW]) >= 0.93
    assert np.mean([a.cosine for a in agreement.values()]) >= 0.93
    assert min(a.cosine for a in agreement.values()) >= 0.85
    skin = [a for name, a in agreement.items() if not name.startswith("eye")]
    assert all(0.7 <= a.size <= 1.3 for a in skin)


def test_agreement_is_printed_with_its_means(scans, marks):
    text = table(shape_agreement(scanned_head(scans, marks), scans, FACE))
    assert "jawOpen" in text
    assert "all (51): mean cosine 0." in text


def test_a_file_without_scans_is_refused_with_the_reason(tmp_path):
    np.savez(tmp_path / "other.npz", vertices=np.zeros((3, 3)))
    with pytest.raises(UserError, match=r"other\.npz does not hold scanned shapes"):
        read_scans(tmp_path / "other.npz")


def test_halves_of_a_shape_are_summed(tmp_path):
    offsets = np.zeros((2, 3, 3))
    offsets[0, 0, 0], offsets[1, 1, 0] = 1.0, 2.0
    np.savez(
        tmp_path / "scans.npz",
        vertices=np.zeros((3, 3)),
        face_corners=np.arange(3),
        face_sizes=np.array([3]),
        names=np.array(["cheekPuffLeft", "cheekPuffRight"]),
        offsets=offsets,
    )
    assert read_scans(tmp_path / "scans.npz").offsets["cheekPuff"][:, 0].tolist() == [1, 2, 0]


def test_points_that_are_missing_are_refused(tmp_path):
    (tmp_path / "points.json").write_text('{"head": {"chin": 3}}')
    with pytest.raises(UserError, match="does not name all face points"):
        read_points(tmp_path / "points.json")
