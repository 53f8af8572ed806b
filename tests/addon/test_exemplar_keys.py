# SPDX-License-Identifier: GPL-3.0-or-later
"""The mapping's inverse: values of keys to weights."""

import numpy as np
import pytest

from ptalker_blender import key_map, rig_mapping
from ptalker_blender.rig_names import ARKIT_NAMES, MOUTH_SHAPES


def column(name):
    return ARKIT_NAMES.index(name)


def test_weights_go_through_keys_and_back():
    names = [f"Head_{name}" for name in ARKIT_NAMES if name != "tongueOut"]
    rig = rig_mapping.find_rig(names)
    wanted = np.random.default_rng(0).uniform(0, 1, (9, 52)).astype(np.float32)
    wanted[:, column("tongueOut")] = 0.0
    keys = np.zeros((9, len(rig.gains)), np.float32)
    for row, of in enumerate(rig.gains.values()):
        for name, gain in of.items():
            keys[:, row] += gain * wanted[:, column(name)]
    weights, known = rig_mapping.weights_of_keys(rig, keys)
    np.testing.assert_allclose(weights, wanted, atol=1e-5)
    assert "tongueOut" not in known
    assert len(known) == 51


def test_a_table_with_gains_pairs_and_visemes_is_turned_around():
    rows = [
        key_map.Row("Smile", "mouthSmileLeft", 0.5), key_map.Row("Smile", "mouthSmileRight", 0.5),
        key_map.Row("JawDown", "jawOpen", 2.0), key_map.Row("Ah", "viseme_aa", 0.8),
    ]  # fmt: skip
    rig = key_map.rig_of(rows, ("Smile", "JawDown", "Ah"))
    values = np.array([[0.4, 0.6, 0.0], [0.0, 0.0, 0.4]], np.float32)
    weights, known = rig_mapping.weights_of_keys(rig, values)
    assert weights[0, column("mouthSmileLeft")] == pytest.approx(0.4)
    assert weights[0, column("jawOpen")] == pytest.approx(0.3)
    assert weights[1, column("jawOpen")] == pytest.approx(0.5 * MOUTH_SHAPES["aa"]["jawOpen"])
    assert "mouthLowerDownLeft" in known
