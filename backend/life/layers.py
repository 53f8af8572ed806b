# SPDX-License-Identifier: GPL-3.0-or-later
"""Life as a layer of its own: the parts put together as weights of ARKit's names, and added.

Where the speech or the upper face already have a weight, life fills what is left of it up to 1, so
that a sum never overdoes a shape: a blink over lids that are half shut by a squint ends where it
would anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import SAMPLE_RATE_HZ
from backend.life.blinks import blink_times, lids
from backend.life.breath import breath_depth
from backend.life.brows import brow_motion
from backend.life.gaze import fixations, gaze_degrees, looks_away
from backend.life.head import head_motion
from backend.life.speech_cues import SpeechCues, read_cues
from backend.motion import Layers, frame_seconds
from backend.speech.phones import Phone

Floats = NDArray[np.float64]

GAZE_DEGREES: Final = {"In": 28.0, "Out": 28.0, "Up": 20.0, "Down": 26.0}
"""How far ``eyeLook*`` at weight 1 turns the eyes of heads that are solved here."""
UPPER_FACE: Final = ("brow", "eye")
"""What the names of brows, lids and gaze begin with."""
_BREATH: Final = {
    "jawOpen": 0.06, "mouthLowerDownLeft": 0.035, "mouthLowerDownRight": 0.035,
    "mouthUpperUpLeft": 0.02, "mouthUpperUpRight": 0.02,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeAmounts:
    """How much of each part of life a face gets: 0 none, 1 as people have it, 2 twice that.

    Attributes:
        life: Factor of all parts.
        blinks: How many blinks.
        gaze: How far the gaze goes.
        brows: How high the brows go, and how deep.
        head_motion: How far the head turns.
        breath: How far the mouth opens to breathe.
        seed: Chooses one of many lives.
    """

    life: float = 1.0
    blinks: float = 1.0
    gaze: float = 1.0
    brows: float = 1.0
    head_motion: float = 1.0
    breath: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Life:
    """A face's life over time.

    Attributes:
        weights: ARKit name -> weight at each frame, ``(T,)``.
        head_rotation: Degrees about the face's x, y and z, ``(T, 3)``.
    """

    weights: dict[str, Floats]
    head_rotation: Floats


def make_life(times: Floats, cues: SpeechCues, amounts: LifeAmounts) -> Life:
    """Makes blinks, gaze, brows, head and breath.

    Each part has a chance of its own, so that changing one amount leaves the others as they are.

    Args:
        times: Times of the frames from the start of the cues, ascending, ``(T,)``.
        cues: The speech.
        amounts: How much of each part.

    Returns:
        Weights and rotation at the times.
    """
    whens, wheres, blinking, lidded, browed, headed, breathing, drifting = (
        np.random.default_rng([amounts.seed, cues.salt, part]) for part in range(8)
    )
    away = looks_away(cues, whens)
    steps = fixations(cues, away, wheres)
    rotation = amounts.life * amounts.head_motion * head_motion(times, cues, away, steps, headed)
    weights: dict[str, Floats] = {}
    gaze = amounts.life * amounts.gaze
    looking = gaze * gaze_degrees(times, steps, drifting, seconds=cues.seconds)
    # The eyes stay on their target while the head turns.
    looking += min(gaze, 1.0) * np.stack([-rotation[:, 1], rotation[:, 0]], axis=1)
    if gaze > 0.0:
        weights |= _looking(looking)
    if (rate := amounts.life * amounts.blinks) > 0.0:
        moments = blink_times(cues, steps, blinking, rate=rate)
        lid = lids(times, moments, looking[:, 1], lidded, seconds=cues.seconds)
        weights |= {"eyeBlinkLeft": lid, "eyeBlinkRight": lid}
    if (height := amounts.life * amounts.brows) > 0.0:
        weights |= _browing(times, cues, browed, height=height)
    if (depth := amounts.life * amounts.breath) > 0.0:
        breath = depth * breath_depth(times, cues, breathing)
        weights |= {name: share * breath for name, share in _BREATH.items()}
    return Life(weights, rotation)


def _looking(degrees: Floats) -> dict[str, Floats]:
    """Weights of ``eyeLook*`` for yaw to the subject's left and pitch up, ``(T, 2)`` degrees."""
    left, right = np.maximum(degrees[:, 0], 0.0), np.maximum(-degrees[:, 0], 0.0)
    up, down = np.maximum(degrees[:, 1], 0.0), np.maximum(-degrees[:, 1], 0.0)
    weights = {
        "eyeLookOutLeft": left / GAZE_DEGREES["Out"],
        "eyeLookInRight": left / GAZE_DEGREES["In"],
        "eyeLookInLeft": right / GAZE_DEGREES["In"],
        "eyeLookOutRight": right / GAZE_DEGREES["Out"],
    }
    for side in ("Left", "Right"):
        weights[f"eyeLookUp{side}"] = up / GAZE_DEGREES["Up"]
        weights[f"eyeLookDown{side}"] = down / GAZE_DEGREES["Down"]
    return weights


def _browing(
    times: Floats, cues: SpeechCues, rng: np.random.Generator, *, height: float
) -> dict[str, Floats]:
    """Weights of the brows, each side with a habit of its own, and what the lids do with them."""
    brows = brow_motion(times, cues, rng)
    more = float(rng.uniform(-0.15, 0.15))
    weights = {"browInnerUp": height * brows.inner}
    for side, share in (("Left", 1.0 + more), ("Right", 1.0 - more)):
        weights[f"browOuterUp{side}"] = height * share * brows.outer
        weights[f"browDown{side}"] = height * share * brows.down
        weights[f"eyeWide{side}"] = 0.2 * height * brows.outer
        weights[f"eyeSquint{side}"] = 0.3 * height * brows.down
    return weights


def add_life(
    weights: NDArray[np.float32],
    names: Sequence[str],
    samples: NDArray[np.float32],
    *,
    phones: Sequence[Phone] | None,
    fps: Fraction,
    amounts: LifeAmounts,
    face_axes: Floats,
) -> Layers:
    """Splits predicted motion into speech and upper face and adds life to them.

    Args:
        weights: Predicted weights of the shapes, ``(T, K)``.
        names: Names of the ``K`` shapes; those that are not ARKit's get no life.
        samples: Mono sound at 16 kHz from the first frame on; what lies beyond the last is ignored.
        phones: Phones with times from the first frame, see ``read_cues``; None if unknown.
        fps: Frames per second, exact.
        amounts: How much of each part.
        face_axes: Rows are the face's x, y and z in the head's own space, ``(3, 3)``.

    Returns:
        The layers; their sum is the motion.
    """
    seconds = float(len(weights) / fps)
    cues = read_cues(samples[: math.ceil(seconds * SAMPLE_RATE_HZ)], phones, seconds=seconds)
    made = make_life(frame_seconds(len(weights), fps), cues, amounts)
    is_upper = np.zeros(weights.shape[1], bool)  # learned shapes have no names
    life = np.zeros_like(weights)
    for column, name in enumerate(names):
        is_upper[column] = name.startswith(UPPER_FACE)
        if name in made.weights:
            room = 1.0 - np.clip(weights[:, column], 0.0, 1.0)
            life[:, column] = room * np.clip(made.weights[name], 0.0, 1.0)
    return Layers(
        speech=np.where(is_upper, np.float32(0.0), weights),
        upper_face=np.where(is_upper, weights, np.float32(0.0)),
        life=life,
        emotion=np.zeros_like(life),
        head_rotation=made.head_rotation.astype(np.float32),
        face_axes=np.asarray(face_axes, np.float32),
    )
