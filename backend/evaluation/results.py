# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of methods on captured faces: per sequence, pooled with intervals, and paired.

A *method* is a model or a baseline. The formulas are in ``vertex_metrics.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from backend.data.captures.regions import Regions
from backend.evaluation import curve_metrics, vertex_metrics

Array = NDArray[np.floating]

READABLE_MM: Final = 5.0
"""Largest lip error of a frame that counts as readable; SelfTalk does not state its own."""
_SIGNATURE_VERTICES: Final = 120
_DRAWS: Final = 1000
_ALIKE: Final = 1e-4
"""Strengths of motion that differ by less than this share differ by rounding alone."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is printed and pooled.

    Attributes:
        label: Name of the metric in reports.
        unit: Unit of the values: ``length``, ``square`` (squared lengths), ``ms``, ``%`` or none.
        best: Where the best value lies.
        by_frame: Whether the metric is a mean over frames, so that frames can be pooled.
    """

    label: str
    unit: Literal["length", "square", "ms", "%", ""]
    best: Literal["low", "high", "zero", "one"]
    by_frame: bool = False


METRICS: Final[dict[str, Metric]] = {
    "lve": Metric("LVE, largest lip error", "length", "low", True),
    "lve_squared": Metric("LVE, squared as the field prints it", "square", "low", True),
    "mve": Metric("MVE, all vertices", "length", "low", True),
    "eve": Metric("EVE, largest upper-face error", "length", "low", True),
    "fdd": Metric("FDD, signed, above 0 too still", "square", "zero"),
    "fdd_absolute": Metric("FDD, absolute", "square", "low"),
    "ldd": Metric("LDD, as FDD on the lips", "square", "zero"),
    "mod": Metric("MOD, mouth opening difference", "length", "low", True),
    "ldtw": Metric("LDTW, lips by time warping", "length", "low"),
    "dfd": Metric("DFD, discrete Fréchet on the lips", "length", "low"),
    "lrp": Metric(f"LRP, frames with LVE under {READABLE_MM:g} mm", "%", "high", True),
    "mtm": Metric("MTM, timing of lip extrema", "ms", "low"),
    "l_pcc": Metric("L-PCC, correlation of lip distance", "", "high"),
    "l_ccc": Metric("L-CCC, concordance of lip distance", "", "high"),
    "jerk_ratio": Metric("jerk of the lips over the truth's", "", "one"),
}


@dataclass(frozen=True, slots=True)
class MetricContext:
    """What the metrics need to know of a data set besides its motions.

    Attributes:
        regions: Vertices on which the metrics are measured.
        up: Upward direction of the heads, unit vector ``(3,)``.
        fps: Frames a second.
        length: Factor of lengths: millimetres per unit of the set, 1 where that is unknown.
        is_metric: Whether the unit of the set is known, so that lengths are in millimetres.
    """

    regions: Regions
    up: NDArray[np.float64]
    fps: float
    length: float
    is_metric: bool

    @property
    def length_unit(self) -> str:
        """Name of the unit in which lengths are reported."""
        return "mm" if self.is_metric else "units"


@dataclass
class MethodResults:
    """Measurements of one method; all lists have one entry per sequence.

    Attributes:
        name: Name of the method.
        metrics: Values of each metric by its name, ``nan`` where it could not be measured.
        lip_distance: Distance of the inner lips over time, each ``(T,)``; empty without inner lips.
        intensity: Strength of the lips' motion.
        signatures: Style signatures of the motions.
    """

    name: str
    metrics: dict[str, list[float]] = field(default_factory=dict)
    lip_distance: list[NDArray[np.float64]] = field(default_factory=list)
    intensity: list[float] = field(default_factory=list)
    signatures: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, predicted: Array, truth: Array, template: Array, context: MetricContext) -> None:
        """Measures one sequence.

        Args:
            predicted: Predicted vertices, shape ``(T, V, 3)``, in the set's units.
            truth: Captured vertices, shape ``(T, V, 3)``.
            template: Face at rest, ``(V, 3)``.
            context: Regions and units of the set.
        """
        found = sequence_metrics(predicted, truth, template, context)
        for name, value in found.items():
            self.metrics.setdefault(name, []).append(value)
        lips = context.regions.lips
        self.lip_distance.append(lip_distance(predicted, context))
        self.intensity.append(vertex_metrics.lip_motion_intensity(predicted, template, lips))
        self.signatures.append(signature(predicted - template, context))


def sequence_metrics(
    predicted: Array, truth: Array, template: Array, context: MetricContext
) -> dict[str, float]:
    """All metrics of one sequence by name; lengths in the context's unit."""
    lips, upper, size = context.regions.lips, context.regions.upper_face, context.length
    fdd = vertex_metrics.dynamics_deviation(predicted, truth, template, upper)
    ours, theirs = lip_distance(predicted, context), lip_distance(truth, context)
    known = len(ours) > 0
    readable = float("nan")
    if context.is_metric:
        threshold = READABLE_MM / size
        readable = 100 * vertex_metrics.lip_readability(predicted, truth, lips, threshold=threshold)
    jerk = float("nan")
    if len(truth) > 3:
        jerk = curve_metrics.jerk_ratio(predicted[:, lips], truth[:, lips])
    return {
        "lve": size * vertex_metrics.lip_vertex_error(predicted, truth, lips),
        "lve_squared": vertex_metrics.lip_vertex_error_squared(predicted, truth, lips),
        "mve": size * vertex_metrics.mean_vertex_error(predicted, truth),
        "eve": size * vertex_metrics.lip_vertex_error(predicted, truth, upper),
        "fdd": fdd,
        "fdd_absolute": abs(fdd),
        "ldd": vertex_metrics.dynamics_deviation(predicted, truth, template, lips),
        "mod": size
        * vertex_metrics.mouth_opening_difference(predicted, truth, lips, up=context.up),
        "ldtw": size * vertex_metrics.lip_dtw(predicted, truth, lips),
        "dfd": size * vertex_metrics.lip_frechet(predicted, truth, lips),
        "lrp": readable,
        "mtm": vertex_metrics.mouth_timing_error_ms(ours, theirs, context.fps)
        if known
        else float("nan"),
        "l_pcc": curve_metrics.pearson(ours, theirs) if known else float("nan"),
        "l_ccc": vertex_metrics.concordance(ours, theirs) if known else float("nan"),
        "jerk_ratio": jerk,
    }


def lip_distance(vertices: Array, context: MetricContext) -> NDArray[np.float64]:
    """Distance of the inner lips' middles, in the context's unit, ``(T,)``; empty where unknown."""
    if not context.regions.inner_lips:
        return np.zeros(0)
    upper, lower = context.regions.inner_lips
    gap = np.asarray(vertices[:, upper], np.float64) - vertices[:, lower]
    return np.asarray(context.length * np.linalg.norm(gap, axis=-1))


def signature(offsets: Array, context: MetricContext) -> NDArray[np.float64]:
    """Style signature of a motion, at some vertices of the lips and the upper face."""
    both = np.concatenate([context.regions.lips, context.regions.upper_face])
    some = both[:: max(1, len(both) // _SIGNATURE_VERTICES)]
    return vertex_metrics.style_signature(offsets, some)


@dataclass(frozen=True, slots=True)
class PooledMetric:
    """A metric pooled over sequences; None where it could be measured on no sequence.

    Attributes:
        value: The pooled value.
        low: Lower end of the value's 95 % interval over sequences.
        high: Upper end of the value's 95 % interval over sequences.
        sequences: Number of sequences on which the metric could be measured.
    """

    value: float | None
    low: float | None
    high: float | None
    sequences: int


def pooled(
    results: MethodResults, frames: Sequence[int], *, by_frame: bool
) -> dict[str, PooledMetric]:
    """Pools every metric over all sequences.

    Args:
        results: Measurements of a method on each sequence.
        frames: Number of frames of each sequence.
        by_frame: Whether frames are pooled, in those metrics where they can be.

    Returns:
        The pooled metrics by name.
    """
    return {
        name: _mean(values, frames if by_frame and METRICS[name].by_frame else None)
        for name, values in results.metrics.items()
    }


def differences(
    first: MethodResults, second: MethodResults, frames: Sequence[int], *, by_frame: bool
) -> dict[str, PooledMetric]:
    """Second minus first, on the same sequences, with the interval of the difference."""
    found = {}
    for name, metric in METRICS.items():
        apart = np.subtract(second.metrics[name], first.metrics[name])
        weights = frames if by_frame and metric.by_frame else None
        found[name] = _mean(apart.tolist(), weights)
    return found


def _mean(values: Sequence[float], weights: Sequence[int] | None) -> PooledMetric:
    usable = [number for number, value in enumerate(values) if np.isfinite(value)]
    if not usable:
        return PooledMetric(None, None, None, 0)
    chosen = [values[number] for number in usable]
    shares = [1.0 if weights is None else float(weights[number]) for number in usable]
    low, high = curve_metrics.bootstrap_interval(chosen, weights=shares, draws=_DRAWS)
    return PooledMetric(float(np.average(chosen, weights=shares)), low, high, len(chosen))


def pooled_speech_lip_correlation(
    loudness: Sequence[float], intensity: Sequence[float]
) -> PooledMetric:
    """SLCC over clips with its interval; none for fewer than three clips or lips without motion."""
    loud, moving = np.array(loudness), np.array(intensity)
    if len(loud) < 3 or np.ptp(moving) <= _ALIKE * moving.max():
        return PooledMetric(None, None, None, len(loud))
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(loud), (_DRAWS, len(loud)))
    values = [vertex_metrics.speech_lip_correlation(loud[row], moving[row]) for row in drawn]
    low, high = np.quantile(values, [0.025, 0.975])
    value = vertex_metrics.speech_lip_correlation(loud, moving)
    return PooledMetric(value, float(low), float(high), len(loud))


@dataclass(frozen=True, slots=True)
class Gallery:
    """Captured clips among which a style is retrieved.

    Attributes:
        signatures: Style signatures of the clips, shape ``(G, D)``.
        subjects: Speaker of each clip.
        names: Sequence names of the clips.
    """

    signatures: NDArray[np.float64]
    subjects: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def is_usable(self) -> bool:
        """At least two speakers, and of each two clips, as one is left out."""
        counts = [self.subjects.count(subject) for subject in set(self.subjects)]
        return len(counts) > 1 and min(counts) > 1

    def retrieval(
        self, signatures: Sequence[NDArray[np.float64]], subjects: Sequence[str],
        names: Sequence[str],
    ) -> dict[str, float]:  # fmt: skip
        """Top-1 and mean average precision in percent; a clip is never found by itself."""
        owners, clips = np.array(self.subjects), np.array(self.names)
        scores = []
        for query, subject, name in zip(signatures, subjects, names, strict=True):
            kept = clips != name
            scores.append(
                vertex_metrics.style_retrieval(
                    query[None], [subject], self.signatures[kept], owners[kept].tolist()
                )
            )
        top, precision = np.mean(scores, axis=0)
        chance = 100.0 / len(set(self.subjects))
        return {"top_1": 100 * float(top), "mean_average_precision": 100 * float(precision),
                "chance": chance}  # fmt: skip


def diversity(
    make: Callable[[int, int], Array], num_sequences: int, num_styles: int, context: MetricContext
) -> float | None:
    """Mean vertex distance between motions of one sentence in different styles.

    Args:
        make: Motion ``(T, V, 3)`` of a sequence in a style, by their numbers.
        num_sequences: Number of sentences.
        num_styles: Number of styles; with fewer than two there is nothing to compare.
        context: Unit of the set.

    Returns:
        The distance in the context's unit; None with fewer than two styles.
    """
    if num_styles < 2:
        return None
    values = [
        vertex_metrics.diversity([make(number, style) for style in range(num_styles)])
        for number in range(num_sequences)
    ]
    return context.length * float(np.mean(values))
