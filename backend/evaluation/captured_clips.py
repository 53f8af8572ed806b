# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated mouths beside those of captured people who said the same, frame by frame.

The rules alone, from the words that were said, stand beside the network, so that the table tells
what the network adds; the plain level of the sound stands beside both, since a mouth that opens
with it looks good by this measure already. How well two takes of one person agree is not known, so
a correlation of 1 is not to be had.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from backend.articulation.speaking_style import SpeakingStyle
from backend.audio.load import read_sound
from backend.audio.rates import FEATURE_RATE_HZ
from backend.errors import UserError
from backend.evaluation import curve_metrics
from backend.evaluation.clips import SpokenClip
from backend.evaluation.motion_figures import sound_level_db
from backend.evaluation.speech import predicted
from backend.heads.lip_measures import MeasuredHead, measured_demo_head
from backend.inference.engine_choice import EngineChoice
from backend.inference.predictor import open_predictor
from backend.speech import recognition

LEVEL: Final = "level of the sound"
RULES: Final = "rules from given text"
_LAG_SECONDS: Final = 0.15
_FLOOR_DB: Final = 40.0
_CLOSURE_GAP_MM, _CLOSURE_DEPTH_MM = 2.5, 1.5
_CLOSURE_SECONDS, _CLOSURES_APART_SECONDS = 0.06, 0.08
_SOUNDS: Final = (".flac", ".wav", ".ogg", ".mp3")
# Words by the letters of a clip's name in the GRID corpus (Cooke et al. 2006).
_GRID_NAME: Final = re.compile("[bpls][bgrw][abiw][a-z][z1-9][npsa]")
_GRID_WORDS: Final[tuple[dict[str, str], ...]] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {},
    {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six",
     "7": "seven", "8": "eight", "9": "nine"},
    {"n": "now", "p": "please", "s": "soon", "a": "again"},
)  # fmt: skip
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CapturedArguments:
    """Options of the comparison.

    Attributes:
        checkpoint: Folder of the model.
        folder: Folder of sounds and captured mouths; see ``read_captured``.
        modes: Recognition modes of the model, of ``sound``, ``words`` and ``text``.
        out: JSON file to write the report into; None writes none.
        engine: Engine of the model.
        device: Device of the model.
    """

    checkpoint: Path
    folder: Path
    modes: tuple[str, ...] = ("sound", "words", "text")
    out: Path | None = None
    engine: EngineChoice = "auto"
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class CapturedClip:
    """A recording and what the mouth did.

    Attributes:
        spoken: The recording with its text; its phones are empty.
        gap_mm: Parting of the inner lips at ``FEATURE_RATE_HZ``, shape ``(T,)``; NaN where it was
            not seen.
        width_mm: Width of the mouth, likewise.
    """

    spoken: SpokenClip
    gap_mm: _Floats
    width_mm: _Floats


def main(arguments: CapturedArguments) -> dict[str, dict[str, float]]:
    """Holds the rules and a model beside captured mouths.

    Args:
        arguments: Options of the command line.

    Returns:
        Metrics of ``LEVEL``, ``RULES`` and each recognition mode; see ``captured_metrics``.

    Raises:
        UserError: The folder or the checkpoint cannot be used.
    """
    clips = read_captured(arguments.folder)
    mouth = measured_demo_head()
    report = {LEVEL: captured_metrics([_level(clip) for clip in clips], clips)}
    aligned = [recognition.align(clip.spoken.samples, clip.spoken.text) for clip in clips]
    neutral = SpeakingStyle.neutral()
    report[RULES] = captured_metrics(
        [
            _curves(clip.spoken.articulated(found.phones, neutral), mouth)
            for clip, found in zip(clips, aligned, strict=True)
        ],
        clips,
    )
    predictor = open_predictor(arguments.checkpoint, arguments.engine, arguments.device)
    try:
        for mode in arguments.modes:
            motions = [predicted(predictor, clip.spoken, mouth.head, mode) for clip in clips]
            report[f"network, {mode}"] = captured_metrics(
                [_curves(motion.weights, mouth) for motion in motions], clips
            )
    finally:
        predictor.close()
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def read_captured(folder: Path) -> list[CapturedClip]:
    """Reads sounds and captured mouths.

    Args:
        folder: ``NAME.npz`` with ``gap_mm`` and ``width_mm`` ``(T,)`` in mm of a face of usual size
            and ``fps``, beside ``NAME.flac`` or another sound. The words are in ``texts.json``, a
            map from names, or follow from the name as in the GRID corpus.

    Returns:
        The clips in the order of their names.

    Raises:
        UserError: There is none, or a file of one is missing or holds something else.
    """
    texts = {}
    if (folder / "texts.json").is_file():
        texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    clips = []
    for path in sorted(folder.glob("*.npz")):
        text = texts.get(path.stem) or _grid_text(path.stem)
        sounds = [path.with_suffix(end) for end in _SOUNDS if path.with_suffix(end).is_file()]
        if not text or not sounds:
            missing = "sound beside it" if text else "text in texts.json"
            raise UserError(f"{path} has no {missing}.")
        spoken = SpokenClip(path.stem, read_sound(sounds[0]).samples, text, ())
        try:
            with np.load(path) as stored:
                fps = float(stored["fps"])
                curves = [
                    _resampled(stored[name], fps, spoken.num_frames)
                    for name in ("gap_mm", "width_mm")
                ]
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(f"{path} does not hold gap_mm, width_mm and fps.") from error
        clips.append(CapturedClip(spoken, *curves))
    if not clips:
        raise UserError(f"{folder} holds no captured mouth (NAME.npz beside NAME.flac).")
    return clips


def _grid_text(name: str) -> str:
    if not _GRID_NAME.fullmatch(name):
        return ""
    letters = zip(_GRID_WORDS, name, strict=True)
    return " ".join(words.get(letter, letter) for words, letter in letters)


def _resampled(curve: NDArray[np.floating], fps: float, num_frames: int) -> _Floats:
    """A curve at ``FEATURE_RATE_HZ``; NaN beyond its end."""
    times = np.arange(num_frames) / FEATURE_RATE_HZ
    own = np.arange(len(curve)) / fps
    return np.asarray(np.interp(times, own, curve, right=np.nan), np.float64)


def _level(clip: CapturedClip) -> tuple[_Floats, _Floats]:
    """The sound's level for both curves, in decibels above a floor."""
    level = sound_level_db(clip.spoken.samples, clip.spoken.num_frames)
    level = np.maximum(level - np.percentile(level, 95), -_FLOOR_DB)
    return level, level


def _curves(weights: NDArray[np.floating], mouth: MeasuredHead) -> tuple[_Floats, _Floats]:
    curves = mouth.curves(weights)
    return np.maximum(curves["gap_mm"], 0.0), curves["width_mm"]


def captured_metrics(
    curves: Sequence[tuple[_Floats, _Floats]], clips: Sequence[CapturedClip]
) -> dict[str, float]:
    """Means over clips of how generated mouths follow the captured ones.

    Args:
        curves: Gap and width of each clip, in mm, ``(T,)`` at ``FEATURE_RATE_HZ``.
        clips: The captured clips.

    Returns:
        ``opening`` and ``width``: correlation at the best lag within 150 ms; ``lag_ms`` of the
        opening, positive where the generated mouth is late; ``gap_95_mm`` over the captured one's;
        ``closures_found`` and ``closures_right``: shares of the captured closures that are made
        within 60 ms, and of those made that were captured.
    """
    openings, lags, widths, sizes = [], [], [], []
    found = right = captured = made = 0
    for (gap, width), clip in zip(curves, clips, strict=True):
        seen = np.flatnonzero(np.isfinite(clip.gap_mm) & np.isfinite(clip.width_mm))
        span = slice(seen[0], seen[-1] + 1)
        truth = np.interp(np.arange(len(clip.gap_mm)), seen, clip.gap_mm[seen])
        truth_width = np.interp(np.arange(len(clip.gap_mm)), seen, clip.width_mm[seen])
        opening, lag = _correlation(gap[span], truth[span])
        openings.append(opening)
        lags.append(lag)
        widths.append(_correlation(width[span], truth_width[span])[0])
        sizes.append(np.percentile(gap[span], 95) / np.percentile(truth[span], 95))
        ours, theirs = _closures(gap[span]), _closures(truth[span])
        found += sum(_is_near(time, ours) for time in theirs)
        right += sum(_is_near(time, theirs) for time in ours)
        captured += len(theirs)
        made += len(ours)
    return {
        "opening": float(np.mean(openings)),
        "width": float(np.mean(widths)),
        "lag_ms": 1000.0 * float(np.mean(lags)),
        "gap_95_ratio": float(np.mean(sizes)),
        "closures_found": found / max(captured, 1),
        "closures_right": right / max(made, 1),
    }


def _correlation(first: _Floats, second: _Floats) -> tuple[float, float]:
    return curve_metrics.lagged_correlation(
        first, second, FEATURE_RATE_HZ, max_lag_seconds=_LAG_SECONDS
    )


def _closures(gap_mm: _Floats) -> _Floats:
    """Times in seconds at which the lips come together and part again."""
    apart = max(1, round(_CLOSURES_APART_SECONDS * FEATURE_RATE_HZ))
    valleys, _ = find_peaks(-gap_mm, prominence=_CLOSURE_DEPTH_MM, distance=apart)
    return np.asarray(valleys[gap_mm[valleys] < _CLOSURE_GAP_MM] / FEATURE_RATE_HZ)


def _is_near(time: float, others: _Floats) -> bool:
    return bool(np.any(np.abs(others - time) <= _CLOSURE_SECONDS + 1e-9))


def table(report: dict[str, dict[str, float]]) -> str:
    """The report as a Markdown table."""
    heads = "opening r | width r | lag ms | gap 95 %, of captured | closures found | right"
    lines = [f"| mouth from | {heads} |", "|---|" + "---|" * 6]
    show: Callable[[float], str] = "{:.2f}".format
    for name, row in report.items():
        cells = [show(row["opening"]), show(row["width"]), f"{row['lag_ms']:.0f}"]
        if name == LEVEL:
            cells += ["", "", ""]
        else:
            cells += [
                show(row[key]) for key in ("gap_95_ratio", "closures_found", "closures_right")
            ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
