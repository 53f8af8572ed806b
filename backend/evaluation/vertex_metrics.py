# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of captured vertices, one pure function each, with definition, unit and source.

All work on one sequence unless they say otherwise. Vertices are ``(T, V, 3)`` in any unit, and a
result is in that unit or its square: LVE and FDD as the field prints them are *squared*. A number
may be compared only within one evaluation protocol (regions, split, pooling: see
``comparability.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from backend.evaluation.curve_metrics import pearson

Array = NDArray[np.floating]
Indices = NDArray[np.integer]

_TIMING_SIGMA_FRAMES = 2.0
_UP = np.array([0.0, 1.0, 0.0])


def lip_vertex_error_squared(predicted: Array, truth: Array, lips: Indices) -> float:
    """LVE as the field prints it: the mean over frames of the largest *squared* lip error.

    Source: CodeTalker's script (Xing et al. 2023); torchmetrics ``LipVertexError``.

    Args:
        predicted: Vertices, shape ``(T, V, 3)``.
        truth: Vertices, the same shape.
        lips: Vertex indices.

    Returns:
        Squared unit of the vertices.
    """
    return float((largest_errors(predicted, truth, lips) ** 2).mean())


def lip_vertex_error(predicted: Array, truth: Array, lips: Indices) -> float:
    """LVE as a distance: the mean over frames of the largest lip error, unit of the vertices.

    Source: "Lip-max" of Imitator (Thambiraja et al. 2023), DiffPoseTalk's LVE. With another region
    it is EVE, the error of the upper face.
    """
    return float(largest_errors(predicted, truth, lips).mean())


def lip_readability(predicted: Array, truth: Array, lips: Indices, *, threshold: float) -> float:
    """LRP: share of the frames whose largest lip error is below a threshold, 0 to 1.

    Source: SelfTalk (Peng et al. 2023), which does not state its threshold.
    """
    return float((largest_errors(predicted, truth, lips) < threshold).mean())


def largest_errors(predicted: Array, truth: Array, region: Indices) -> NDArray[np.float64]:
    """The largest distance of a region's vertex from the truth, per frame, shape ``(T,)``."""
    difference = np.asarray(predicted[:, region], np.float64) - truth[:, region]
    return np.asarray(np.linalg.norm(difference, axis=-1).max(-1))


def dynamics_deviation(predicted: Array, truth: Array, template: Array, region: Indices) -> float:
    """FDD (upper face) or LDD (lips), signed: positive where the prediction is too still.

    ``mean_i [std_t |v(t,i) - v0|^2 - std_t |v^(t,i) - v0|^2]`` with the population standard
    deviation. Errors of opposite sign cancel in it, hence |FDD| beside it. Source: CodeTalker's
    script.

    Args:
        predicted: Vertices, shape ``(T, V, 3)``.
        truth: Vertices, shape ``(S, V, 3)``.
        template: Neutral face, shape ``(V, 3)``.
        region: Vertex indices.

    Returns:
        Squared unit of the vertices.
    """

    def dynamics(vertices: Array) -> NDArray[np.float64]:
        moved = np.asarray(vertices[:, region], np.float64) - template[region]
        return np.asarray((moved**2).sum(-1).std(0))

    return float((dynamics(truth) - dynamics(predicted)).mean())


def mean_vertex_error(predicted: Array, truth: Array) -> float:
    """MVE: mean distance over frames and vertices, unit of the vertices."""
    return float(np.linalg.norm(predicted - truth, axis=-1).mean(dtype=np.float64))


def mouth_opening_difference(
    predicted: Array, truth: Array, lips: Indices, *, up: Array = _UP
) -> float:
    """MOD: mean difference of the mouth's height, the largest minus the smallest lip coordinate.

    No paper states a formula; this one follows from the name.

    Args:
        predicted: Vertices, shape ``(T, V, 3)``.
        truth: Vertices, the same shape.
        lips: Vertex indices.
        up: The head's upward direction, a unit vector, shape ``(3,)``.

    Returns:
        Unit of the vertices.
    """

    def height(vertices: Array) -> NDArray[np.float64]:
        return np.ptp(np.asarray(vertices[:, lips], np.float64) @ up, axis=1)

    return float(np.abs(height(predicted) - height(truth)).mean())


def lip_dtw(predicted: Array, truth: Array, lips: Indices) -> float:
    """LDTW: dynamic time warping distance of the lip trajectories, per frame of the reference.

    Papers normalise differently; this is per frame of the truth.

    Args:
        predicted: Vertices, shape ``(T, V, 3)``.
        truth: Vertices, shape ``(S, V, 3)``; lengths may differ.
        lips: Vertex indices.

    Returns:
        Mean lip distance along the cheapest path, divided by ``S``, in the unit of the vertices.
    """
    cost = _lip_distances(predicted, truth, lips)
    return float(_cheapest(cost, np.add)[-1, -1] / cost.shape[1])


def lip_frechet(predicted: Array, truth: Array, lips: Indices) -> float:
    """DFD: discrete Fréchet distance of the lip trajectories, unit of the vertices.

    The shortest leash with which two walkers can walk the two trajectories, lips being compared by
    their mean vertex distance. Source: Eiter and Mannila 1994; used by ScanTalk.
    """
    return float(_cheapest(_lip_distances(predicted, truth, lips), np.maximum)[-1, -1])


def _lip_distances(predicted: Array, truth: Array, lips: Indices) -> NDArray[np.float64]:
    ours, theirs = predicted[:, lips], truth[:, lips]
    return np.stack([np.linalg.norm(frame - theirs, axis=-1).mean(-1) for frame in ours])


def mouth_timing_error_ms(predicted: Array, truth: Array, fps: float) -> float:
    """MTM: mean time between matching extrema of the distance of the lips.

    Curves are smoothed with a Gaussian of two frames and matched by derivative DTW. An extremum of
    the truth meets the one of its kind that lies nearest to where the path leads and between where
    it leads from the neighbouring extrema. Source: arXiv 2503.20308.

    Args:
        predicted: Distance of the lips, any unit, shape ``(T,)``.
        truth: The same, shape ``(S,)``.
        fps: Frames per second.

    Returns:
        Milliseconds; ``nan`` where nothing matches.
    """
    ours, theirs = (
        gaussian_filter1d(np.asarray(curve, np.float64), _TIMING_SIGMA_FRAMES)
        for curve in (predicted, truth)
    )
    cost = (np.gradient(ours)[:, None] - np.gradient(theirs)[None]) ** 2
    leads = _leads(cost)
    ends = leads[0] - 1.0, leads[-1] + 1.0
    found = {sign: _peaks(sign * ours) for sign in (1, -1)}
    marks = sorted([(int(j), sign) for sign in (1, -1) for j in _peaks(sign * theirs)])
    gaps: list[float] = []
    for number, (place, sign) in enumerate(marks):
        low = leads[marks[number - 1][0]] if number > 0 else ends[0]
        high = leads[marks[number + 1][0]] if number + 1 < len(marks) else ends[1]
        near = found[sign][(found[sign] > low) & (found[sign] < high)]
        if len(near):
            partner = int(near[np.abs(near - leads[place]).argmin()])
            gaps.append(abs(float(partner - place)))
    return float(np.mean(gaps)) * 1000 / fps if gaps else float("nan")


def _peaks(curve: Array) -> NDArray[np.int64]:
    rise = np.sign(np.diff(curve))
    return np.flatnonzero((rise[:-1] > 0) & (rise[1:] <= 0)).astype(np.int64) + 1


def _leads(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row of the cheapest path in each column; the mean row where the path has several."""
    total = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    total[1:, 1:] = _cheapest(cost, np.add)
    total[0, 0] = 0.0
    sums, counts = np.zeros(cost.shape[1]), np.zeros(cost.shape[1])
    i, j = cost.shape
    while i > 0 and j > 0:
        sums[j - 1] += i - 1
        counts[j - 1] += 1
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        i, j = min(steps, key=lambda step: float(total[step]))
    return sums / counts


def _cheapest(
    cost: NDArray[np.float64], join: Callable[[Array, Array], Array]
) -> NDArray[np.float64]:
    """Cost of the cheapest path from the first cell to each cell, one antidiagonal at a time.

    Args:
        cost: Cost of each cell, shape ``(T, S)``.
        join: Joins the cost of a path and of its next cell: ``np.add`` or ``np.maximum``.

    Returns:
        Costs of the paths, shape ``(T, S)``.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = -np.inf if join is np.maximum else 0.0
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        before = np.minimum(np.minimum(total[i, j], total[i, j + 1]), total[i + 1, j])
        total[i + 1, j + 1] = join(before, cost[i, j])
    return total[1:, 1:]


def concordance(predicted: Array, truth: Array) -> float:
    """Lin's concordance of two curves ``(T,)``: 1 only where they are equal, not merely alike.

    L-CCC of THUNDER for the distance of the lips; 1 for two curves constant at one value.
    """
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    shared = 0.0
    if np.ptp(ours) > 0 and np.ptp(theirs) > 0:
        shared = float(((ours - ours.mean()) * (theirs - theirs.mean())).mean())
    spread = float(ours.var() + theirs.var() + (ours.mean() - theirs.mean()) ** 2)
    return 2.0 * shared / spread if spread > 0.0 else 1.0


def lip_motion_intensity(vertices: Array, template: Array, lips: Indices) -> float:
    """Root mean square over time of the mean distance of the lips from rest.

    The strength of lip motion in SLCC (arXiv 2503.20308); unit of the vertices.
    """
    moved = np.linalg.norm(vertices[:, lips] - template[lips], axis=-1).mean(-1)
    return float(np.sqrt((moved.astype(np.float64) ** 2).mean()))


def speech_lip_correlation(speech_rms: Array, lip_intensity: Array) -> float:
    """SLCC: Pearson over clips of loudness and strength of lip motion (arXiv 2503.20308).

    Args:
        speech_rms: Root mean square of each clip's samples, shape ``(N,)``.
        lip_intensity: Strength of lip motion of each clip, shape ``(N,)``.

    Returns:
        The correlation; 0 where one of the two is constant.
    """
    return pearson(np.asarray(speech_rms, np.float64), np.asarray(lip_intensity, np.float64))


def diversity(samples: Sequence[Array]) -> float:
    """Mean vertex distance between paired samples of two halves, in their unit (ProbTalk3D).

    Args:
        samples: At least two motions of one sentence, each ``(T, V, 3)``.

    Returns:
        The distance, in the unit of the vertices.
    """
    half = len(samples) // 2
    pairs = zip(samples[:half], samples[half : 2 * half], strict=True)
    return float(np.mean([mean_vertex_error(a, b) for a, b in pairs]))


def style_signature(offsets: Array, region: Indices) -> NDArray[np.float64]:
    """Signature of a speaker's style of motion: means, spreads and speeds by vertex.

    No network takes part, so it favours no model (Mimic's SCS needs a trained classifier).

    Args:
        offsets: Offsets from the face at rest, shape ``(T, V, 3)``.
        region: Vertex indices.

    Returns:
        Shape ``(9 * len(region),)``.
    """
    moved = np.asarray(offsets[:, region], np.float64)
    speed = np.diff(moved, axis=0) if len(moved) > 1 else np.zeros_like(moved)
    return np.concatenate([moved.mean(0), moved.std(0), speed.std(0)]).ravel()


def style_retrieval(
    queries: Array, wanted: Sequence[str], gallery: Array, labels: Sequence[str]
) -> tuple[float, float]:
    """Whether a clip's style finds the clips of the speaker it should have.

    Args:
        queries: Signatures, shape ``(Q, D)``.
        wanted: Speaker whose style each query should show.
        gallery: Signatures of real clips, shape ``(G, D)``; each speaker of ``wanted`` has some.
        labels: Speaker of each gallery clip.

    Returns:
        Top-1 share, by the nearest mean of a speaker (chance: one over the speakers), and mean
        average precision of ranking all clips; by cosine of signatures standardised on the gallery.
    """
    centre, spread = gallery.mean(0), gallery.std(0)
    spread = np.maximum(spread, 1e-3 * max(float(spread.max()), 1e-12))
    ours, theirs = (queries - centre) / spread, (gallery - centre) / spread
    speakers, owners = sorted(set(labels)), np.array(labels)
    means = np.stack([theirs[owners == speaker].mean(0) for speaker in speakers])
    nearest = _cosines(ours, means).argmax(1)
    top = float(np.mean([speakers[n] == want for n, want in zip(nearest, wanted, strict=True)]))
    precisions = []
    for row, want in zip(_cosines(ours, theirs), wanted, strict=True):
        is_right = owners[np.argsort(-row, kind="stable")] == want
        hits = np.cumsum(is_right)
        precisions.append(float((hits / np.arange(1, len(hits) + 1))[is_right].mean()))
    return top, float(np.mean(precisions))


def _cosines(first: Array, second: Array) -> NDArray[np.float64]:
    norms = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)[None]
    return np.asarray((first @ second.T) / np.maximum(norms, 1e-12))
