# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of curves, style codes and clips, one pure function each, and bootstrap intervals.

Curves of the mouth are compared with timed phones, which needs no captured face. Metrics of
captured vertices are in ``vertex_metrics.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ
from backend.heads.arkit import CLOSED_MM
from backend.speech.phones import BILABIALS, SILENCE, Phone

Array = NDArray[np.floating]
Interval = tuple[float, float]

CLOSURE_TOLERANCE_SECONDS = 0.05
MAX_LAG_SECONDS = 0.06


@dataclass(frozen=True, slots=True)
class ClosureCounts:
    """How many lip closures were found; counts add up over clips, rates do not.

    Attributes:
        hits: Closures of the reference that a prediction met.
        missed: Closures of the reference without one.
        extra: Predictions that met none and do not lie mostly in silence.
    """

    hits: int = 0
    missed: int = 0
    extra: int = 0

    def __add__(self, other: "ClosureCounts") -> "ClosureCounts":
        """Pools two clips."""
        return ClosureCounts(
            self.hits + other.hits, self.missed + other.missed, self.extra + other.extra
        )

    @property
    def precision(self) -> float:
        """Share of the predictions that are right; 1 where nothing was predicted."""
        found = self.hits + self.extra
        return self.hits / found if found else 1.0

    @property
    def recall(self) -> float:
        """Share of the reference that was found; 1 where there is nothing to find."""
        wanted = self.hits + self.missed
        return self.hits / wanted if wanted else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = 2 * self.hits + self.missed + self.extra
        return 2 * self.hits / total if total else 1.0


def closed_intervals(opening_mm: Array, fps: float, threshold_mm: float) -> list[Interval]:
    """Stretches of time in which the lips are closed.

    Args:
        opening_mm: Distance of the lips, shape ``(T,)``; frame ``i`` stands for ``[i, i + 1) /
            fps``.
        fps: Frames per second.
        threshold_mm: Distance strictly below which the lips are closed.

    Returns:
        ``(start, end)`` in seconds, in order, one per run of closed frames.
    """
    closed = np.concatenate([[0], (np.asarray(opening_mm) < threshold_mm).astype(np.int8), [0]])
    steps = np.diff(closed)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return [(float(s) / fps, float(e) / fps) for s, e in zip(starts, ends, strict=True)]


def runs_of(phones: Sequence[tuple[str, float, float]], symbols: frozenset[str]) -> list[Interval]:
    """Times of the runs of neighbouring phones that belong to a set.

    Args:
        phones: ``(symbol, start, end)`` in order of time.
        symbols: The set, such as P, B, M.

    Returns:
        ``(start, end)`` in seconds; "m" before "b" in "lumber" is one run.
    """
    runs: list[Interval] = []
    before = False
    for symbol, start, end in phones:
        inside = symbol in symbols
        if inside and before:
            runs[-1] = (runs[-1][0], end)
        elif inside:
            runs.append((start, end))
        before = inside
    return runs


def match_closures(
    reference: Sequence[Interval],
    predicted: Sequence[Interval],
    *,
    silences: Sequence[Interval] = (),
    tolerance_seconds: float = CLOSURE_TOLERANCE_SECONDS,
) -> ClosureCounts:
    """Matches closures one to one where the intervals overlap when widened by the tolerance.

    Both lists are in order and free of overlaps, so taking the earliest possible partner is
    optimal. A prediction of which more than half lies in silence counts neither for nor against,
    unless it met a closure.

    Args:
        reference: Closures that should be there, seconds.
        predicted: Closures that are there, seconds.
        silences: Stretches without speech, seconds.
        tolerance_seconds: Gap that still counts as meeting.

    Returns:
        Counts of one clip.
    """
    hits = extra = position = 0
    unmatched: list[Interval] = []
    for start, end in predicted:
        while position < len(reference) and reference[position][1] + tolerance_seconds <= start:
            position += 1
        if position < len(reference) and reference[position][0] - tolerance_seconds < end:
            hits += 1
            position += 1
        else:
            unmatched.append((start, end))
    for start, end in unmatched:
        silent = sum(max(0.0, min(end, stop) - max(start, begin)) for begin, stop in silences)
        extra += silent <= 0.5 * (end - start)
    return ClosureCounts(hits, len(reference) - hits, extra)


def lagged_correlation(
    predicted: Array, reference: Array, fps: float, *, max_lag_seconds: float = MAX_LAG_SECONDS
) -> tuple[float, float]:
    """Pearson correlation at the best lag, and that lag.

    Args:
        predicted: Predicted curve, shape ``(T,)``.
        reference: Reference curve, shape ``(T,)``.
        fps: Frames per second of both curves.
        max_lag_seconds: Largest shift tried, either way.

    Returns:
        Correlation, 0 where a curve is constant, and lag in seconds, positive where the prediction
        is late.
    """
    best, best_lag = -np.inf, 0
    most = round(max_lag_seconds * fps)
    for lag in sorted(range(-most, most + 1), key=abs):
        count = len(reference) - abs(lag)
        if count < 2:
            continue
        ahead = np.asarray(predicted, np.float64)[max(lag, 0) : max(lag, 0) + count]
        behind = np.asarray(reference, np.float64)[max(-lag, 0) : max(-lag, 0) + count]
        value = pearson(ahead, behind)
        if value > best + 1e-9:
            best, best_lag = value, lag
    return (float(best) if np.isfinite(best) else 0.0), best_lag / fps


def pearson(first: Array, second: Array) -> float:
    """Pearson correlation of two curves ``(T,)``; 0 where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:  # their means, rounded, would leave noise
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / scale if scale > 1e-12 else 0.0


def jerk_ratio(predicted: Array, reference: Array) -> float:
    """Mean absolute third difference of a curve over that of the reference; 1 is as smooth as it.

    Args:
        predicted: Predicted curve or curves, time first.
        reference: Reference of the same shape.

    Returns:
        The ratio; ``inf`` where the reference has no jerk but the prediction has.
    """
    ours = float(np.abs(np.diff(predicted, 3, axis=0)).mean())
    theirs = float(np.abs(np.diff(reference, 3, axis=0)).mean())
    return ours / theirs if theirs > 0 else (np.inf if ours > 0 else 1.0)


def style_error_ratio(predicted: Array, truth: Array, neutral: Array) -> float:
    """Error to the reference in a style, over the error of ignoring the style.

    Args:
        predicted: Motion made with the style, any shape.
        truth: The true motion in that style.
        neutral: The motion in the neutral style.

    Returns:
        ``|predicted - truth| / |neutral - truth|`` by root mean squares: 0 is perfect, 1 is no
        style at all.
    """
    ours = float(np.sqrt(np.mean((np.asarray(predicted) - truth) ** 2)))
    ignored = float(np.sqrt(np.mean((np.asarray(neutral) - truth) ** 2)))
    return ours / ignored if ignored > 0 else (0.0 if ours == 0 else np.inf)


def retrieval_accuracy(queries: Array, gallery: Array) -> float:
    """Share of the queries whose nearest neighbour in the gallery, by cosine, has the same index.

    Args:
        queries: Embeddings, shape ``(N, D)``.
        gallery: Embeddings of the same N styles, shape ``(N, D)``.

    Returns:
        Top-1 accuracy; chance is ``1 / N``.
    """
    first = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    second = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    return float(((first @ second.T).argmax(1) == np.arange(len(first))).mean())


def bootstrap_interval(
    values: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of a mean over sequences, by drawing sequences with replacement.

    Args:
        values: One number per sequence.
        weights: Weight of each sequence, such as its frames; all the same by default.
        level: Coverage of the interval.
        draws: Number of bootstrap samples.
        seed: Seed of the draws.

    Returns:
        Lower and upper end of the interval.
    """
    data = np.asarray(values, dtype=np.float64)
    shares = np.ones_like(data) if weights is None else np.asarray(weights, dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(data), (draws, len(data)))
    means = (data * shares)[drawn].sum(1) / shares[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def closures(
    phones: Sequence[Phone], opening_mm: Array, *, threshold_mm: float = CLOSED_MM
) -> ClosureCounts:
    """Matches the lip closures of an opening curve with the runs of p, b and m.

    Args:
        phones: The phones that are said, in order of time.
        opening_mm: Distance of the lips at ``FEATURE_RATE_HZ``, shape ``(T,)``.
        threshold_mm: Distance strictly below which the lips are closed.

    Returns:
        Counts of the clip.
    """
    rows = [(phone.symbol, phone.start_seconds, phone.end_seconds) for phone in phones]
    return match_closures(
        runs_of(rows, BILABIALS),
        closed_intervals(opening_mm, FEATURE_RATE_HZ, threshold_mm),
        silences=[(start, end) for symbol, start, end in rows if symbol == SILENCE],
    )
