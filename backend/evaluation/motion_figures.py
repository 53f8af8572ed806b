# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a speaking face, beside the ranges of captured people.

Agreement with the rules says how well a model imitates them. These figures say whether a face moves
as people's faces do: how far, how fast, how much of it with the level of the sound, what goes with
what, and what is not the same on both sides. They need no true motion, so any motion can be judged.

The ranges were measured with the same estimators on captured speech that cannot be passed on: a man
before a phone that writes ARKit's weights (20 s), and 28 people in video whose weights and lip
landmarks a network read (117 s: read commands, free and acted speech). They are ranges of speakers
who say what they please in their usual way; a style may leave them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_opening
from scipy.signal import find_peaks, welch

from backend.articulation.speaking_style import NAMED_STYLES, SpeakingStyle
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.evaluation.clips import SpokenClip, read_clips
from backend.evaluation.speech import predicted
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.lip_measures import MeasuredHead, measure_head, measured_demo_head
from backend.heads.mesh_files import read_head
from backend.heads.topology import identify
from backend.inference.predictor import open_predictor
from backend.life.layers import LifeAmounts

RULES: Final = "rules from given phones"
_SHUT_MM: Final = 0.5
_LAG_SECONDS: Final = 0.12
_SPEAKING_DB, _FLOOR_DB = 30.0, 40.0  # below the loud parts
_BAND_HZ: Final = (0.3, 15.0)
_EVENT: Final = 0.08
_Floats = NDArray[np.float64]


class Captured(NamedTuple):
    """What captured people do: the range to reach, and what it was read from."""

    low: float
    high: float
    seen: str
    """The man before the phone; the people in video."""


CAPTURED: Final[dict[str, Captured]] = {
    "jawOpen below .03": Captured(0.10, 0.25, "0.18; 0.55"),
    "jawOpen sd": Captured(0.09, 0.115, "0.101; 0.078"),
    "jawOpen 99 %": Captured(0.45, 0.55, "0.51; 0.30"),
    "jawOpen 95 % of the speed, per s": Captured(2.4, 3.1, "2.9; 1.8"),
    "jawOpen share of the power at 2 to 6 Hz": Captured(0.38, 0.55, "0.48; 0.34"),
    "jawOpen 95 % of the power below, Hz": Captured(4.5, 6.0, "5.5; 5.1"),
    "lips shut: jawOpen": Captured(0.01, 0.05, "0.03; 0.01"),
    "lips shut: mouthClose": Captured(0.0, 0.04, "0.03; 0"),
    "lips shut: mouthPress": Captured(0.01, 0.11, "0.01; 0.07"),
    "lips shut: mouthRollLower": Captured(0.0, 0.05, "0.01; 0.02"),
    "lips shut: mouthRollUpper": Captured(0.0, 0.05, "0.01; 0.01"),
    "lips shut: mouthShrugLower": Captured(0.02, 0.10, "0.03; 0.04"),
    "gap 95 %, mm": Captured(12.0, 15.5, "10.8; 15, 10 to 25 between people"),
    "share of the time with lips shut": Captured(0.10, 0.19, "0.15; 0.11 to 0.18"),
    "correlation level, gap": Captured(0.25, 0.53, "0.53; 0.19"),
    "correlation level, jawOpen": Captured(0.20, 0.47, "0.41; 0.19"),
    "mouthUpperUp sd": Captured(0.07, 0.13, "0.115; 0.168"),
    "mouthLowerDown sd": Captured(0.09, 0.15, "0.127; 0.04"),
    "correlation jawOpen, mouthLowerDown": Captured(0.45, 0.75, "0.64; 0.42"),
    "correlation mouthSmile, mouthStretch": Captured(-0.5, 0.5, "-0.38; 0.36"),
    "correlation noseSneer, mouthUpperUp": Captured(0.3, 0.8, "0.67; not measured"),
    "correlation cheekSquint, mouthSmile": Captured(0.4, 0.88, "0.84; not measured"),
    "mouthFrown sd": Captured(0.015, 0.06, "0.045; 0.004"),
    "mouthDimple sd": Captured(0.01, 0.03, "0.011; 0.021"),
    "mouthShrugUpper sd": Captured(0.02, 0.07, "0.037; 0.065"),
    "noseSneer sd": Captured(0.03, 0.10, "0.099; not measured"),
    "asymmetry mouthSmile": Captured(0.06, 0.25, "0.09; 0.13"),
    "asymmetry mouthStretch": Captured(0.05, 0.40, "0.16; 0.59"),
    "asymmetry mouthLowerDown": Captured(0.03, 0.30, "0.04; 0.25"),
    "brow raises per minute": Captured(4.0, 45.0, "9; 41, of read commands 0 to 2"),
    "frowns per minute": Captured(3.0, 25.0, "21; 13"),
    "browInnerUp sd": Captured(0.04, 0.30, "0.31; 0.27"),
    "gaze sd (eyeLookOut)": Captured(0.04, 0.20, "4.6; 1 to 9 degrees of yaw"),
    "eyeBlink between blinks": Captured(0.03, 0.18, "0; 0.18"),
}
"""Range of each figure, in the order in which `motion_figures` gives them."""


@dataclass(frozen=True, slots=True)
class FiguresArguments:
    """Options of the figures.

    Attributes:
        checkpoint: Folder of the model; None gives the rules alone.
        speech: Folder of recordings with phone times.
        alignment: Name of the file in ``speech`` that holds the phone times.
        head: Mesh file of the head to measure on; None takes the demo head.
        modes: Recognition modes of the model.
        style: Name of the style of the rules, of ``NAMED_STYLES``.
        out: JSON file to write the figures into; None writes none.
        device: Device of the model.
    """

    checkpoint: Path | None
    speech: Path
    alignment: str = "alignment.json"
    head: Path | None = None
    modes: tuple[str, ...] = ("words",)
    style: str = "neutral"
    out: Path | None = None
    device: str = "auto"


def main(arguments: FiguresArguments) -> dict[str, dict[str, float]]:
    """Measures what the rules and a model make of recordings.

    Args:
        arguments: Options of the command line.

    Returns:
        The figures of ``RULES`` and of each recognition mode.

    Raises:
        UserError: The checkpoint, the style or the recordings cannot be used.
    """
    if arguments.style not in NAMED_STYLES:
        raise UserError(
            f"There is no style {arguments.style}: choose of {', '.join(NAMED_STYLES)}."
        )
    clips = read_clips(arguments.speech, arguments.alignment)
    mouth = measured_demo_head()
    if arguments.head is not None:
        mouth = measure_head(identify(*read_head(arguments.head)))
    style: SpeakingStyle = NAMED_STYLES[arguments.style]
    rules = [clip.articulated(clip.phones, style) for clip in clips]
    found = {RULES: motion_figures(rules, clips, mouth)}
    if arguments.checkpoint is not None:
        predictor = open_predictor(arguments.checkpoint, device=arguments.device)
        try:
            for mode in arguments.modes:
                motions = [
                    predicted(predictor, clip, mouth.head, mode, life=LifeAmounts()).weights
                    for clip in clips
                ]
                found[mode] = motion_figures(motions, clips, mouth)
        finally:
            predictor.close()
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


@dataclass(slots=True)
class _Pool:
    """What is gathered over the recordings; frames in which someone speaks, if not said else."""

    weights: list[NDArray[np.floating]] = field(default_factory=list)
    gaps: list[_Floats] = field(default_factory=list)
    speeds: list[_Floats] = field(default_factory=list)
    by_clip: list[tuple[float, ...]] = field(default_factory=list)
    events: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0.0


def motion_figures(
    motions: Sequence[NDArray[np.floating]], clips: Sequence[SpokenClip], mouth: MeasuredHead
) -> dict[str, float]:
    """All figures of some recordings, pooled.

    Args:
        motions: Weights of ``ARKIT_NAMES`` of each recording, ``(T, 52)`` at ``FEATURE_RATE_HZ``.
        clips: The recordings.
        mouth: Head on which the gap of the lips is measured.

    Returns:
        Figures by the names of ``CAPTURED``; NaN where something does not move at all.
    """
    pool = _Pool()
    for motion, clip in zip(motions, clips, strict=True):
        _add(pool, motion, clip, mouth)
    weights, gaps = np.concatenate(pool.weights), np.concatenate(pool.gaps)
    shut = weights[gaps < _SHUT_MM]
    share, edge, level_gap, level_jaw = np.mean(pool.by_clip, axis=0)
    raises, frowns = np.sum(pool.events, axis=0) / (pool.seconds / 60.0)

    def of(name: str, frames: NDArray[np.floating] = weights) -> _Floats:
        """A weight's curve, the left one of a pair."""
        names = (name, f"{name}Left")
        column = next(index for index, known in enumerate(ARKIT_NAMES) if known in names)
        return np.asarray(frames[:, column], np.float64)

    def mean_shut(name: str) -> float:
        return float(of(name, shut).mean()) if len(shut) else float("nan")

    jaw = of("jawOpen")
    values = (
        (jaw < 0.03).mean(), jaw.std(), np.percentile(jaw, 99),
        np.percentile(np.concatenate(pool.speeds), 95), share, edge,
        mean_shut("jawOpen"), mean_shut("mouthClose"), mean_shut("mouthPress"),
        mean_shut("mouthRollLower"), mean_shut("mouthRollUpper"), mean_shut("mouthShrugLower"),
        np.percentile(gaps, 95), (gaps < _SHUT_MM).mean(), level_gap, level_jaw,
        of("mouthUpperUp").std(), of("mouthLowerDown").std(),
        _correlation(jaw, of("mouthLowerDown")),
        _correlation(of("mouthSmile"), of("mouthStretch")),
        _correlation(of("noseSneer"), of("mouthUpperUp")),
        _correlation(of("cheekSquint"), of("mouthSmile")),
        *(of(name).std() for name in ("mouthFrown", "mouthDimple", "mouthShrugUpper", "noseSneer")),
        *(_asymmetry(weights, name) for name in ("mouthSmile", "mouthStretch", "mouthLowerDown")),
        raises, frowns, of("browInnerUp").std(), of("eyeLookOut").std(), np.median(of("eyeBlink")),
    )  # fmt: skip
    return {name: float(value) for name, value in zip(CAPTURED, values, strict=True)}


def _add(pool: _Pool, motion: NDArray[np.floating], clip: SpokenClip, mouth: MeasuredHead) -> None:
    level = sound_level_db(clip.samples, len(motion))
    loud = float(np.percentile(level, 95))
    speaking = speaking_frames(level)
    level = np.maximum(level, loud - _FLOOR_DB)
    gap = np.maximum(mouth.curves(motion)["gap_mm"], 0.0)
    jaw = np.asarray(motion[:, ARKIT_NAMES.index("jawOpen")], np.float64)
    pool.weights.append(motion[speaking])
    pool.gaps.append(gap[speaking])
    pool.speeds.append(np.abs(np.gradient(jaw) * FEATURE_RATE_HZ)[speaking])
    pool.by_clip.append(
        (*_spectrum(jaw), _lagged_correlation(level, gap), _lagged_correlation(level, jaw))
    )
    pool.events.append(_brow_events(motion))
    pool.seconds += len(motion) / FEATURE_RATE_HZ


def sound_level_db(samples: NDArray[np.float32], num_frames: int) -> _Floats:
    """Level of 40 ms around each frame at ``FEATURE_RATE_HZ``, in decibels, ``(num_frames,)``."""
    half = round(0.02 * SAMPLE_RATE_HZ)
    centers = np.arange(num_frames) * SAMPLE_RATE_HZ // FEATURE_RATE_HZ
    total = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    first = np.clip(centers - half, 0, len(samples))
    last = np.clip(centers + half, 0, len(samples))
    power = (total[last] - total[first]) / np.maximum(last - first, 1)
    return np.asarray(10.0 * np.log10(power + 1e-12))


def speaking_frames(level_db: _Floats) -> NDArray[np.bool_]:
    """Frames within 30 dB of the loud parts; gaps of a quarter of a second count as speech."""
    width = max(3, round(0.25 * FEATURE_RATE_HZ))
    near = level_db > np.percentile(level_db, 95) - _SPEAKING_DB
    closed = binary_closing(near, np.ones(width))
    return np.asarray(binary_opening(closed, np.ones(max(2, width // 3))))


def _spectrum(curve: _Floats) -> tuple[float, float]:
    """Share of a curve's power at 2 to 6 Hz, and the frequency below which 95 % of it lies."""
    rates, power = welch(
        curve - curve.mean(), FEATURE_RATE_HZ, nperseg=min(len(curve), 4 * FEATURE_RATE_HZ)
    )
    inside = (rates >= _BAND_HZ[0]) & (rates <= _BAND_HZ[1])
    rates, power = rates[inside], power[inside]
    total = power.sum()
    if not total > 0.0:
        return 0.0, 0.0
    middle = (rates >= 2.0) & (rates < 6.0)
    edge = np.searchsorted(np.cumsum(power) / total, 0.95)
    return float(power[middle].sum() / total), float(rates[min(int(edge), len(rates) - 1)])


def _correlation(first: _Floats, second: _Floats) -> float:
    if min(first.std(), second.std()) < 1e-9:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _lagged_correlation(first: _Floats, second: _Floats) -> float:
    """The highest correlation with either curve late by up to 120 ms; 0 for one that is still."""
    reach = round(_LAG_SECONDS * FEATURE_RATE_HZ)
    size, found = len(first), []
    for lag in range(-reach, reach + 1):
        late, early = max(0, lag), max(0, -lag)
        found.append(_correlation(first[early : size - late], second[late : size - early]))
    return float(np.nanmax(found)) if np.isfinite(found).any() else 0.0


def _asymmetry(weights: NDArray[np.floating], name: str) -> float:
    """Mean distance of left and right over their mean."""
    left, right = (weights[:, ARKIT_NAMES.index(name + side)] for side in ("Left", "Right"))
    return float(np.abs(left - right).mean() / max(0.5 * (left + right).mean(), 1e-9))


def _brow_events(motion: NDArray[np.floating]) -> tuple[int, int]:
    """Number of raised and of lowered brows in a recording."""
    curves = {name: motion[:, index] for index, name in enumerate(ARKIT_NAMES)}
    outer = 0.5 * (curves["browOuterUpLeft"] + curves["browOuterUpRight"])
    raised = 0.5 * (outer + curves["browInnerUp"])
    lowered = 0.5 * (curves["browDownLeft"] + curves["browDownRight"])
    apart = round(0.2 * FEATURE_RATE_HZ)
    up, down = (
        len(find_peaks(curve, prominence=_EVENT, distance=apart)[0]) for curve in (raised, lowered)
    )
    return up, down


def num_inside(figures: Mapping[str, float]) -> int:
    """How many figures lie within their ranges."""
    return sum(
        CAPTURED[name].low <= value <= CAPTURED[name].high for name, value in figures.items()
    )


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Figures of several motions as a Markdown table; ``*`` marks those outside the range."""
    lines = [
        "| figure | captured: phone; video | range | " + " | ".join(found) + " |",
        "|---|---|---|" + "---|" * len(found),
    ]
    for name, wanted in CAPTURED.items():
        cells = (
            f"{figures[name]:.3g}" + ("" if wanted.low <= figures[name] <= wanted.high else " *")
            for figures in found.values()
        )
        lines.append(
            f"| {name} | {wanted.seen} | {wanted.low:g} to {wanted.high:g} | "
            + " | ".join(cells)
            + " |"
        )
    counts = (f"{num_inside(figures)} of {len(figures)}" for figures in found.values())
    lines.append("| within the ranges | | | " + " | ".join(counts) + " |")
    return "\n".join(lines)
