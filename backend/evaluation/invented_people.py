# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of style taken from captures of people, on invented ones whose truth is known.

A captured face is not what a model was trained on: its brows and eyes do things of their own, slow
and large, and its tracker's rest is none. So a style that no model has seen speaks one sentence
under such an upper face, and the model speaks others in what was read of it. Held against the same
sentences in that style by the rules: the mean and the spread of each weight of the mouth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from backend.articulation.speaking_style import unseen_styles
from backend.audio.features import stacked_log_mel
from backend.audio.rates import FEATURE_RATE_HZ
from backend.evaluation.clips import SpokenClip
from backend.evaluation.curve_metrics import ClosureCounts, closures
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.lip_measures import MeasuredHead
from backend.inference.curve_files import Curves
from backend.inference.exemplar_parts import IS_UPPER, is_speaking
from backend.inference.predictor import Predictor
from backend.speech.phones import phone_frames

EXEMPLAR_SECONDS: Final = 8.0
_NUM_SENTENCES: Final = 3
_SLOW_SECONDS: Final = 0.8
_LARGE: Final = 0.25
_OFFSETS: Final = {"eyeSquint": 0.34, "browOuterUp": 0.25, "eyeLook": 0.1}
"""Rest that trackers of video report, as weights."""
_JAW: Final = ARKIT_NAMES.index("jawOpen")

Motion = NDArray[np.float32]


def invented_people_metrics(
    predictor: Predictor, clips: Sequence[SpokenClip], mouth: MeasuredHead, *, count: int = 16
) -> dict[str, float]:
    """Metrics of the transfer from invented people.

    Args:
        predictor: A model of solved shapes that decodes in parallel.
        clips: Recorded sentences; the first three are animated, exemplars come from the others.
        mouth: Head on which closures are measured.
        count: How many people.

    Returns:
        ``mouth_mean_error_ratio`` and ``mouth_spread_error_ratio``: mean error of the means, and of
        the standard deviations, of the weights of the mouth over that of the neutral motion;
        ``jaw_spread_worst_ratio``: of the spread of ``jawOpen`` while speaking and that of its
        exemplar, the larger over the smaller, the worst person; ``closures_f1_loss``: mean F1 of
        the style code alone less that with gains.
    """
    said = clips[:_NUM_SENTENCES]
    shown = [c for c in clips[_NUM_SENTENCES:] if c.num_frames > 200] or list(clips)
    rng = np.random.default_rng(7)
    neutral = _joined([_spoken(predictor, clip, predictor.engine.neutral_code) for clip in said])
    errors, jaws, losses = [], [], []
    for number, style in enumerate(unseen_styles(count)):
        clip = shown[number % len(shown)]
        weights = clip.articulated(clip.phones, style)[: round(EXEMPLAR_SECONDS * FEATURE_RATE_HZ)]
        captured = _under_another_face(weights, rng)
        exemplar = Curves(captured, frozenset(ARKIT_NAMES), FEATURE_RATE_HZ)
        found = predictor.exemplar_style(exemplar, lambda _text: None)
        if found.gains is None:
            raise ValueError("a model of learned shapes cannot be measured by weights")
        plain = [_spoken(predictor, other, found.code) for other in said]
        styled = [
            found.gains.on_speech(part, ARKIT_NAMES, mouth.curves, FEATURE_RATE_HZ, 1.0)
            for part in plain
        ]
        truth = _joined([other.articulated(other.phones, style) for other in said])
        made = _joined(styled)
        errors.append([_errors(made, truth), _errors(neutral, truth)])
        pair = sorted((_jaw_spread(weights), _jaw_spread(made)))
        jaws.append(pair[1] / pair[0])
        losses.append(_f1(plain, said, mouth) - _f1(styled, said, mouth))
    ours, theirs = np.mean(errors, axis=0)
    return {
        "mouth_mean_error_ratio": float(ours[0] / theirs[0]),
        "mouth_spread_error_ratio": float(ours[1] / theirs[1]),
        "jaw_spread_worst_ratio": float(max(jaws)),
        "closures_f1_loss": float(np.mean(losses)),
    }


def _under_another_face(weights: Motion, rng: np.random.Generator) -> Motion:
    """The same mouth under brows and eyes that go their own slow way, from a tracker's rest."""
    noise = rng.normal(size=weights.shape)
    slow = gaussian_filter1d(noise, _SLOW_SECONDS * FEATURE_RATE_HZ, axis=0)
    result = np.where(IS_UPPER, _LARGE * slow / slow.std(axis=0), weights)
    result = np.maximum(result, 0.0)
    for name, offset in _OFFSETS.items():
        result[:, [arkit.startswith(name) for arkit in ARKIT_NAMES]] += offset
    return result.astype(np.float32)


def _spoken(predictor: Predictor, clip: SpokenClip, code: NDArray[np.float32]) -> Motion:
    """Weights of a clip in a code's style, from its sound and true phones."""
    ids = phone_frames(clip.phones, clip.num_frames, FEATURE_RATE_HZ, source="given")
    return predictor.engine.talk(
        stacked_log_mel(clip.samples), ids, code, num_frames=clip.num_frames, decoder="parallel",
        report=lambda _done, _total: None, should_stop=lambda: False,
    )  # fmt: skip


def _joined(motions: Sequence[Motion]) -> Motion:
    return np.concatenate(motions)


def _errors(made: Motion, truth: Motion) -> tuple[float, float]:
    mean, spread = made.mean(axis=0) - truth.mean(axis=0), made.std(axis=0) - truth.std(axis=0)
    return float(np.abs(mean[~IS_UPPER]).mean()), float(np.abs(spread[~IS_UPPER]).mean())


def _jaw_spread(weights: Motion) -> float:
    return float(weights[is_speaking(weights, FEATURE_RATE_HZ), _JAW].std())


def _f1(motions: Sequence[Motion], clips: Sequence[SpokenClip], mouth: MeasuredHead) -> float:
    counts = ClosureCounts()
    for motion, clip in zip(motions, clips, strict=True):
        counts += closures(clip.phones, mouth.opening_mm(motion))
    return counts.f1
