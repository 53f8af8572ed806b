# SPDX-License-Identifier: GPL-3.0-or-later
"""Retargets a motion to the shape keys (blendshapes) that a head already has.

Keys with the motion's own names (the 52 ARKit names) take the weights as they are. Others (the 15
visemes of the Oculus set, FLAME's expressions) are fitted, and the residual is reported: bounded
least squares on the vertices, weighted towards the lips, with temporal smoothing, for all frames
at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from .motion import Floats, KeyedMotion, Motion

VISEMES: Final = (
    "sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "I", "O", "U",
)  # fmt: skip
"""The Oculus set; ``ih``, ``oh`` and ``ou`` are other spellings of its last three."""
_VISEME_SPELLINGS: Final = {"ih": "I", "oh": "O", "ou": "U"}
_EXPRESSION: Final = re.compile(r"Exp_?(\d+)", re.IGNORECASE)

MIN_EXACT_NAMES: Final = 12
MIN_VISEMES: Final = 8
SIGNED_LIMIT: Final = 5.0
UNSIGNED_LIMIT: Final = 1.0
MAX_RESIDUAL_FRAMES: Final = 200
_LIP_SHAPES: Final = ("mouthRollUpper", "mouthRollLower")
_LIP_WEIGHT: Final = 30.0
_OPENING_WEIGHT: Final = 0.6
_SMOOTHING: Final = 0.02
_MAX_STEPS: Final = 400
_TOLERANCE: Final = 1e-4

Kind = Literal['EXACT', 'VISEMES', 'EXPRESSIONS']


@dataclass(frozen=True, slots=True)
class Rig:
    """Shape keys that can be driven.

    Attributes:
        kind: How they are driven: by equal names, or fitted as visemes or as expressions.
        names: Names of the keys on the head.
    """

    kind: Kind
    names: tuple[str, ...]


def find_rig(key_names: Sequence[str], motion_names: Collection[str]) -> Rig | None:
    """The speech keys among a head's keys; None where there are too few."""
    exact = tuple(name for name in key_names if name in motion_names)
    if len(exact) >= min(MIN_EXACT_NAMES, len(motion_names)):
        return Rig('EXACT', exact)
    visemes = tuple(name for name in key_names if _viseme(name) is not None)
    if len({_viseme(name) for name in visemes}) >= MIN_VISEMES:
        return Rig('VISEMES', visemes)
    expressions = tuple(name for name in key_names if _EXPRESSION.fullmatch(name))
    if len(expressions) >= MIN_VISEMES:
        return Rig('EXPRESSIONS', expressions)
    return None


def _viseme(name: str) -> str | None:
    bare = name.removeprefix("viseme_")
    bare = _VISEME_SPELLINGS.get(bare.lower(), bare)
    known = {viseme.lower(): viseme for viseme in VISEMES}
    return known.get(bare.lower())


def drive(motion: Motion, rig: Rig, offsets: Floats) -> KeyedMotion:
    """The motion as values of a rig's keys.

    Args:
        motion: The motion.
        rig: Keys to drive, as :func:`find_rig` found them.
        offsets: ``(len(rig.names), V, 3)`` displacements of those keys at value 1.

    Returns:
        Values of the keys over time.
    """
    warnings = []
    if rig.kind == 'EXACT':
        columns = [motion.names.index(name) for name in rig.names]
        weights = np.ascontiguousarray(motion.weights[:, columns])
        used = np.abs(motion.weights).max(axis=0) > 0.02
        lacking = [n for n, u in zip(motion.names, used, strict=True) if u and n not in rig.names]
        if lacking:
            warnings.append(
                f"The head has no shape keys {', '.join(lacking[:5])}"
                + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
                + "; their part of the motion is left out."
            )
    else:
        signed = rig.kind == 'EXPRESSIONS'
        bounds = (-SIGNED_LIMIT, SIGNED_LIMIT) if signed else (0.0, UNSIGNED_LIMIT)
        stress = _lip_stress(motion)
        weights = fit(motion.weights, stress(motion.shapes), stress(offsets), bounds=bounds)
    mean, largest = residual(motion, weights, offsets)
    return KeyedMotion(
        names=rig.names,
        weights=weights,
        shapes=None,
        residual_mean=mean,
        residual_max=largest,
        warnings=tuple(warnings),
    )


def _lip_stress(motion: Motion) -> Callable[[Floats], Floats]:
    """A weighting of offsets by which a fit keeps a closed mouth closed.

    Vertices of the lips count more, and the distance of the upper lip from the lower one counts as
    a vertex of its own. The lips are where the shapes that roll them move most; a motion without
    those shapes is fitted unweighted.
    """
    if not set(_LIP_SHAPES) <= set(motion.names):
        return lambda offsets: offsets
    upper, lower = (
        np.linalg.norm(motion.shapes[motion.names.index(name)], axis=1) for name in _LIP_SHAPES
    )
    largest = float((upper + lower).max())
    if min(float(upper.max()), float(lower.max())) <= 0.0:
        return lambda offsets: offsets
    counts = 1.0 + _LIP_WEIGHT * (upper + lower) / largest  # (V,)
    opening = (_OPENING_WEIGHT * float(counts.sum())) ** 0.5 * (_middle(upper) - _middle(lower))
    factors = np.sqrt(counts)[None, :, None]

    def stress(offsets: Floats) -> Floats:
        apart = np.tensordot(offsets, opening, axes=(1, 0))[:, None]  # (J, 1, 3)
        return np.concatenate([offsets * factors, apart], axis=1, dtype=np.float32)

    return stress


def _middle(sizes: Floats) -> Floats:
    """Weights of a mean over the vertices that move at least half as far as the largest move."""
    moved = np.where(sizes > 0.5 * sizes.max(), sizes, 0.0)
    return np.asarray(moved / moved.sum(), np.float32)


def fit(weights: Floats, shapes: Floats, offsets: Floats, *,
        bounds: tuple[float, float], smoothing: float = _SMOOTHING) -> Floats:  # fmt: skip
    """Values ``x`` that minimise ``|x @ offsets - weights @ shapes|² + s |dx/dt|²`` in bounds.

    Accelerated projected gradient (Beck and Teboulle 2009) on the small Gram matrices, so the
    cost does not depend on the number of vertices after one product.

    Args:
        weights: ``(T, K)`` of the motion.
        shapes: ``(K, V, 3)`` of the motion.
        offsets: ``(J, V, 3)`` of the keys to drive.
        bounds: Smallest and largest value.
        smoothing: ``s`` as part of the keys' mean squared size.

    Returns:
        ``(T, J)`` values of the keys.
    """
    keys = offsets.reshape(len(offsets), -1).astype(np.float64)
    targets = shapes.reshape(len(shapes), -1).astype(np.float64)
    gram = keys @ keys.T  # (J, J)
    goal = weights.astype(np.float64) @ (targets @ keys.T)  # (T, J)
    smooth = smoothing * float(np.trace(gram)) / max(1, len(gram))
    step = 1.0 / max(float(np.linalg.eigvalsh(gram)[-1]) + 4.0 * smooth, 1e-12)
    values = np.zeros_like(goal)
    ahead, momentum = values, 1.0
    for _ in range(_MAX_STEPS):
        slope = ahead @ gram - goal + smooth * _bend(ahead)
        new = np.clip(ahead - step * slope, *bounds)
        next_momentum = (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5) / 2.0
        change = new - values
        ahead = new + (momentum - 1.0) / next_momentum * change
        values, momentum = new, next_momentum
        if float(np.abs(change).max(initial=0.0)) < _TOLERANCE * (bounds[1] - bounds[0]):
            break
    return values.astype(np.float32)


def _bend(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient of half the sum of squared steps from frame to frame."""
    steps = np.diff(values, axis=0)
    slope = np.zeros_like(values)
    slope[:-1] -= steps
    slope[1:] += steps
    return slope


def residual(motion: Motion, weights: Floats, offsets: Floats) -> tuple[float, float]:
    """Mean and largest distance of the driven head from the motion, in the head's unit.

    The mean is over the vertices that move, and both are over at most 200 frames.
    """
    stride = max(1, len(weights) // MAX_RESIDUAL_FRAMES)
    moving = np.abs(motion.shapes).max(axis=(0, 2)) > 1e-6 * np.ptp(motion.template)
    if not moving.any():
        return 0.0, 0.0
    wanted = np.tensordot(motion.weights[::stride], motion.shapes[:, moving], axes=1)
    got = np.tensordot(weights[::stride], offsets[:, moving], axes=1)
    distances = np.linalg.norm(wanted - got, axis=2)
    return float(distances.mean()), float(distances.max())
