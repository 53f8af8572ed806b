# SPDX-License-Identifier: GPL-3.0-or-later
"""Retargets a motion to the shape keys (blendshapes) that a head already has.

Keys that stand for ARKit blendshapes take the motion's weights by name. Visemes and FLAME's
expressions are fitted: bounded least squares on the vertices, the lips before all, with temporal
smoothing, for all frames at once; what is left is reported. Where the motion was made on another
head than the one with the keys, visemes are fitted on that one, with the shapes that their names
stand for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from . import rig_names
from .motion import Floats, KeyedMotion, Motion
from .rig_names import ARKIT_NAMES, MOUTH_SHAPES

_EXPRESSION: Final = re.compile(r"Exp_?(\d+)", re.IGNORECASE)

MIN_ARKIT_NAMES: Final = 12
MIN_EXPRESSIONS: Final = 8
SIGNED_LIMIT: Final = 5.0
UNSIGNED_LIMIT: Final = 1.0
MAX_RESIDUAL_FRAMES: Final = 200
_MIN_MOUTH_NAMES: Final = 5
"""ARKit names of the mouth below which visemes, where there are any, say more about it."""
_LISTED_NAMES: Final = 5
_USED_WEIGHT: Final = 0.02
_LIP_SHAPES: Final = ("mouthRollUpper", "mouthRollLower")
_LIP_WEIGHT: Final = 30.0
_OPENING_WEIGHT: Final = 0.6
_SMOOTHING: Final = 0.02
_MAX_STEPS: Final = 400
_TOLERANCE: Final = 1e-4

Kind = Literal['ARKIT', 'VISEMES', 'EXPRESSIONS']


@dataclass(frozen=True, slots=True)
class Rig:
    """Shape keys of a head that can be driven, and how.

    Attributes:
        kind: What moves the mouth.
        gains: Name of each key that takes weights by name -> ARKit name -> gain.
        fitted: Name of each key that is fitted -> mouth shape; empty text for an expression.
        left_alone: Names of keys that could mean two things.
        scales: Name of a fitted key -> what its values are multiplied by, where that is not 1.
    """

    kind: Kind
    gains: Mapping[str, Mapping[str, float]]
    fitted: Mapping[str, str]
    left_alone: tuple[str, ...] = ()
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all driven keys."""
        return (*self.gains, *self.fitted)

    @property
    def needs_head(self) -> bool:
        """Whether the keys' shapes must be compared with shapes solved on the same head."""
        return self.kind == 'EXPRESSIONS'

    @property
    def missing(self) -> tuple[str, ...]:
        """ARKit names that drive no key, in ARKit's order; none where visemes are driven."""
        if self.kind != 'ARKIT':
            return ()
        driven = {name for gains in self.gains.values() for name in gains}
        return tuple(name for name in ARKIT_NAMES if name not in driven)

    @property
    def summary(self) -> str:
        """What is driven and what is not, as sentences for the panel."""
        if self.kind == 'ARKIT':
            count = len(ARKIT_NAMES) - len(self.missing)
            text = f"{count} of {len(ARKIT_NAMES)} ARKit shape keys are driven"
            if self.missing:
                text += f"; not found: {listed(self.missing)}"
        elif self.kind == 'VISEMES':
            text = f"{len(self.fitted)} visemes are driven"
            if self.gains:
                text += f", and {len(self.gains)} shape keys by ARKit's names"
        else:
            text = f"{len(self.fitted)} expressions of FLAME are driven"
        if self.left_alone:
            text += ". Left alone, since they could mean two things: "
            text += listed(self.left_alone)
        return f"{text}."


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    text = ", ".join(names[:_LISTED_NAMES])
    more = len(names) - _LISTED_NAMES
    return f"{text} and {more} more" if more > 0 else text


def find_rig(key_names: Sequence[str], motion_names: Collection[str] = ARKIT_NAMES) -> Rig | None:
    """The set of speech keys among a head's keys.

    Args:
        key_names: Names of the head's shape keys, without the basis.
        motion_names: Names of the motion's shapes.

    Returns:
        None where no set suffices.
    """
    arkit = rig_names.find_arkit_keys(key_names)
    gains = {
        key: known
        for key, gains in arkit.gains.items()
        if (known := {name: gain for name, gain in gains.items() if name in motion_names})
    }
    names = {name for key_gains in gains.values() for name in key_gains}
    visemes = rig_names.find_visemes(key_names)
    num_mouth = sum(name.startswith("mouth") for name in names)
    has_jaw = "jawOpen" in names or "jawOpen" not in motion_names
    if (
        len(names) >= min(MIN_ARKIT_NAMES, len(motion_names))
        and has_jaw
        and (not visemes or num_mouth >= _MIN_MOUTH_NAMES)
    ):
        return Rig('ARKIT', gains, {}, arkit.left_alone)
    if visemes and any(name in ARKIT_NAMES for name in motion_names):
        upper = {
            key: key_gains
            for key, key_gains in gains.items()
            if all(name.startswith(("eye", "brow")) for name in key_gains)
        }
        return Rig('VISEMES', upper, visemes)
    expressions = [name for name in key_names if _EXPRESSION.fullmatch(name)]
    if len(expressions) >= MIN_EXPRESSIONS:
        return Rig('EXPRESSIONS', {}, dict.fromkeys(expressions, ""))
    return None


def drive(motion: Motion, rig: Rig, offsets: Floats | None) -> KeyedMotion:
    """The motion as values of a rig's keys.

    Args:
        motion: The motion.
        rig: What :func:`find_rig` found.
        offsets: ``(len(rig.names), V, 3)`` displacements of its keys at value 1, on the head of
            the motion; None where the motion was made on another head.

    Returns:
        Their values over time, and how far fitted ones miss the motion.

    Raises:
        ValueError: The rig's keys cannot be driven without their displacements.
    """
    warnings: list[str] = []
    mean = largest = 0.0
    if rig.kind == 'ARKIT':
        driven = {name for gains in rig.gains.values() for name in gains}
        used = np.abs(motion.weights).max(axis=0) > _USED_WEIGHT
        lacking = [n for n, u in zip(motion.names, used, strict=True) if u and n not in driven]
        if lacking:
            warnings.append(
                f"The head has no shape keys or poses for {listed(lacking)}; "
                "their part of the motion is left out."
            )
    by_name = weights_by_name(motion, rig.gains)
    shapes = tuple(dict.fromkeys(rig.fitted.values()))
    if not rig.fitted:
        fitted = by_name[:, :0]
    elif offsets is not None:
        fitted = _fit_rig(motion, rig, offsets[len(rig.gains) :])
    elif rig.needs_head:
        raise ValueError("expressions cannot be fitted without their displacements")
    else:
        # Several keys may be one viseme: those of a joined mesh, face and teeth.
        drawn = mouth_offsets(motion, shapes)
        values = _fit_rig(motion, rig, drawn)
        fitted = values[:, [shapes.index(shape) for shape in rig.fitted.values()]]
        mean, largest = residual(motion, values, drawn)
    scales = np.array([rig.scales.get(key, 1.0) for key in rig.fitted], np.float32)
    weights = np.concatenate([by_name, fitted * scales], axis=1)
    if offsets is not None:
        mean, largest = residual(motion, weights, offsets)
    return KeyedMotion(
        names=rig.names,
        weights=np.ascontiguousarray(weights),
        shapes=None,
        residual_mean=mean,
        residual_max=largest,
        warnings=tuple(warnings),
    )


def weights_by_name(motion: Motion, gains: Mapping[str, Mapping[str, float]]) -> Floats:
    """``(T, len(gains))`` values of keys that take weights of the motion times a gain."""
    values = np.zeros((len(motion.weights), len(gains)), np.float32)
    for column, key_gains in enumerate(gains.values()):
        for name, gain in key_gains.items():
            values[:, column] += np.float32(gain) * motion.weights[:, motion.names.index(name)]
    return values


def weights_of_keys(rig: Rig, values: Floats) -> tuple[Floats, tuple[str, ...]]:
    """The mapping's inverse: weights of ARKit's names that values of a rig's keys stand for.

    A key that takes a weight times a gain gives it back by least squares, so that several keys of
    one weight are averaged and one key of two weights says the same of both. A viseme gives the
    weights that it is made of.

    Args:
        rig: The rig; not one of FLAME's expressions.
        values: ``(T, len(rig.names))`` values of its keys.

    Returns:
        ``(T, 52)`` weights of 0 and more, and the names that the rig knows.
    """
    gains = np.zeros((len(rig.gains), len(ARKIT_NAMES)))
    for row, of in enumerate(rig.gains.values()):
        for name, gain in of.items():
            gains[row, ARKIT_NAMES.index(name)] = gain
    weights = values[:, : len(rig.gains)] @ np.linalg.pinv(gains).T
    known = {name for of in rig.gains.values() for name in of}
    for column, (key, shape) in enumerate(rig.fitted.items(), len(rig.gains)):
        scale = rig.scales.get(key, 1.0)
        for name, weight in MOUTH_SHAPES[shape].items():
            known.add(name)
            weights[:, ARKIT_NAMES.index(name)] += weight * values[:, column] / (scale or 1.0)
    names = tuple(name for name in ARKIT_NAMES if name in known)
    return np.maximum(weights, 0.0).astype(np.float32), names


def mouth_offsets(motion: Motion, shapes: Iterable[str]) -> Floats:
    """``(len(shapes), V, 3)`` displacements of mouth shapes, drawn with the motion's own shapes."""
    known = {name: number for number, name in enumerate(motion.names)}
    drawn = [
        sum(
            (w * motion.shapes[known[n]] for n, w in MOUTH_SHAPES[shape].items() if n in known),
            np.zeros(motion.template.shape, np.float32),
        )
        for shape in shapes
    ]
    return np.asarray(drawn, np.float32).reshape(-1, *motion.template.shape)


def _fit_rig(motion: Motion, rig: Rig, offsets: Floats) -> Floats:
    """Values of the rig's fitted keys, given their displacements.

    What other keys of the rig take by name is not for these to imitate.
    """
    taken = {name for gains in rig.gains.values() for name in gains}
    left = motion.weights * np.array([name not in taken for name in motion.names], np.float32)
    signed = rig.kind == 'EXPRESSIONS'
    bounds = (-SIGNED_LIMIT, SIGNED_LIMIT) if signed else (0.0, UNSIGNED_LIMIT)
    stress = _lip_stress(motion)
    return fit(left, stress(motion.shapes), stress(offsets), bounds=bounds)


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
