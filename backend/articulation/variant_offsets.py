# SPDX-License-Identifier: GPL-3.0-or-later
"""What phones of other languages add to a network's motion.

Networks know the 39 phones of English, and animate the nearest of them for the others. In what a
variant differs from it comes from the rules: they are run with the variants and without, in the
neutral style, and the difference is added to the weights. Closures of the lips stay closed.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from backend.articulation.coarticulation import (
    articulate,
    closes_lips,
    closure_moments,
    leaves_slit,
)
from backend.articulation.gestures import gesture
from backend.articulation.speaking_style import SpeakingStyle
from backend.heads.arkit import ARKIT_NAMES
from backend.speech.phones import Phone

_SMALLEST = 1e-3
_OF_A_SLIT = (
    "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRoll", "mouthLower", "mouthUpper",
    "tongueOut",
)  # fmt: skip


def add_variants(
    weights: NDArray[np.float32],
    names: Sequence[str],
    phones: Sequence[Phone],
    *,
    fps: float,
) -> NDArray[np.float32]:
    """Moves the lips as the variants of phones need it.

    Args:
        weights: Weights by a network for the nearest phones, shape ``(T, K)``; frame ``i`` is at
            ``i / fps`` seconds.
        names: Names of the ``K`` shapes; those that are not of ``ARKIT_NAMES`` are left alone.
        phones: Phones in order of time, without overlaps.
        fps: Frames per second.

    Returns:
        The weights, from 0 to 1 where they are changed; the same array without variants.
    """
    if not any(phone.variant for phone in phones):
        return weights
    style = SpeakingStyle.neutral()
    plain = [replace(phone, variant="") for phone in phones]
    meant, nearest = (
        articulate(spoken, style=style, num_frames=len(weights), fps=fps, blinks=False)
        for spoken in (phones, plain)
    )
    offsets = meant - nearest
    moments = closure_moments(np.arange(len(weights)) / fps, style)
    closed = gesture(plain, closes_lips, moments, fps=fps, style=style)
    slit = gesture(list(phones), leaves_slit, moments, fps=fps, style=style) * (1.0 - closed)
    changed = weights.copy()
    for column, name in enumerate(names):
        if name not in ARKIT_NAMES:
            continue
        rule = ARKIT_NAMES.index(name)
        offset = offsets[:, rule]
        if name != "mouthPucker":  # closed lips pout as well
            offset = offset * (1.0 - closed)
        before = weights[:, column]
        after = before + offset
        if name.startswith(_OF_A_SLIT):  # of a millimetre: too small to be a difference
            after += slit * (meant[:, rule] - after)
        is_moved = np.abs(after - before) > _SMALLEST
        limited = np.clip(after, 0.0, np.maximum(before, 1.0))
        changed[:, column] = np.where(is_moved, limited, before)
    _keep_apart(changed, weights, names)
    return changed


def _keep_apart(
    changed: NDArray[np.float32], weights: NDArray[np.float32], names: Sequence[str]
) -> None:
    """Lets the lips be pressed together no further than the network has them, in place."""
    if "jawOpen" in names and "mouthClose" in names:
        jaw, close = names.index("jawOpen"), names.index("mouthClose")
        pressed = np.maximum(weights[:, close] - weights[:, jaw], 0.0)
        is_moved = np.any(changed[:, [jaw, close]] != weights[:, [jaw, close]], axis=1)
        most = np.where(is_moved, changed[:, jaw] + pressed, changed[:, close])
        changed[:, close] = np.minimum(changed[:, close], most)
