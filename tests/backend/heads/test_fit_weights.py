# SPDX-License-Identifier: GPL-3.0-or-later
"""Blendshape weights fitted to a motion."""

import numpy as np

from backend.heads.arkit import ARKIT_NAMES
from backend.heads.fit_weights import fit_weights
from tests.backend.heads.poses import both


def speech_weights(num_frames, seed=0):
    """Sparse weights as speech uses them; opposed shapes are never used together."""
    rng = np.random.default_rng(seed)
    names = ["mouthFunnel", "mouthPucker", "mouthRollLower", "mouthShrugUpper", "mouthLeft"]
    pairs = ["mouthSmile", "mouthStretch", "mouthPress", "mouthLowerDown", "mouthUpperUp"]
    pairs += ["eyeBlink", "browDown"]
    weights = np.zeros((num_frames, len(ARKIT_NAMES)))
    for frame in weights:
        jaw = rng.uniform(0.0, 0.7)
        used = {"jawOpen": jaw, "mouthClose": jaw * rng.integers(2)}
        used |= {name: rng.uniform(0.1, 0.9) for name in rng.choice(names, 2, replace=False)}
        for name in rng.choice(pairs, 2, replace=False):
            used |= both(name, rng.uniform(0.1, 0.9))
        for name, weight in used.items():
            frame[ARKIT_NAMES.index(name)] = weight
    return weights


def test_fit_recovers_the_weights_that_made_a_motion(solved):
    weights = speech_weights(120)
    shapes = solved.shapes.offsets
    motion = np.tensordot(weights, shapes, axes=1)
    assert np.abs(fit_weights(motion, shapes) - weights).max() < 0.05


def test_fit_is_bounded_and_finite_for_any_motion(demo):
    rng = np.random.default_rng(1)
    unit = demo.face.frame.unit_mm
    motion = rng.normal(size=(10, len(demo.rest), 3)) * 20 * unit
    weights = fit_weights(motion, demo.shapes.offsets)
    assert weights.shape == (10, 52)
    assert (weights >= 0).all()
    assert (weights <= 1.5).all()
    assert not fit_weights(motion, np.zeros_like(demo.shapes.offsets)).any()
