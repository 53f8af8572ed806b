# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation of a checkpoint on degraded audio and on sounds without speech.

Measures how much of the lip sync is left when the audio is bad, and whether the mouth rests where
nobody speaks.
"""

import json
import logging
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from backend.articulation.speaking_style import SpeakingStyle
from backend.audio import degradations
from backend.audio.degradations import SPEECH_EFFECTS, Samples
from backend.audio.load import read_sound, resample
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.evaluation.clips import SpokenClip, read_clips
from backend.evaluation.speech import predicted, score_motions
from backend.heads.lip_measures import MeasuredHead, measure_head, measured_demo_head
from backend.heads.mesh_files import read_head
from backend.heads.topology import identify
from backend.inference.engine_choice import EngineChoice
from backend.inference.predictor import Predictor, open_predictor

_log = logging.getLogger(__name__)
_CLEAN: Final = "clean"
_FILE_RATES: Final = {"8 kHz file": 8_000, "96 kHz file": 96_000}
CONDITIONS: Final = (_CLEAN, *SPEECH_EFFECTS, *_FILE_RATES)
"""Conditions under which speech must still be animated."""

_WORDLESS_SECONDS: Final = 10.0
_EDGE_FRAMES: Final = 25
WORDLESS: Final[dict[str, Callable[[int, np.random.Generator], Samples]]] = {
    "silence": lambda length, _: np.zeros(length, np.float32),
    "white noise": degradations.noise,
    "pink noise": lambda length, rng: degradations.noise(length, rng, exponent=1.0),
    "music": degradations.music,
    "laughter": degradations.laughter,
}
"""Sounds in which nobody speaks: from a length in samples and a random generator to samples."""


@dataclass(frozen=True, slots=True)
class ConditionsArguments:
    """Options of an evaluation on degraded audio.

    Attributes:
        checkpoint: Folder of the model.
        speech: Folder of recordings with phone times.
        alignment: Name of the file in ``speech`` that holds the phone times.
        head: Mesh file of the head to measure on; None takes the demo head.
        modes: Recognition modes to evaluate: ``sound``, ``words``, ``text``.
        num_clips: Number of recordings to take, from the first on; 0 takes all.
        seed: Seed of the degradations.
        out: JSON file to write; the table is written beside it as ``.md``. None writes none.
        engine: Engine of the model.
        device: Device of the model.
    """

    checkpoint: Path
    speech: Path
    alignment: str = "alignment.json"
    head: Path | None = None
    modes: tuple[str, ...] = ("sound", "words")
    num_clips: int = 0
    seed: int = 0
    out: Path | None = None
    engine: EngineChoice = "auto"
    device: str = "auto"


def main(arguments: ConditionsArguments) -> dict[str, Any]:
    """Evaluates a checkpoint under each condition.

    Args:
        arguments: Options of the command line.

    Returns:
        The report, as it is written to ``out``: metrics by condition and recognition mode.

    Raises:
        UserError: The checkpoint or the recordings cannot be used.
    """
    clips = read_clips(arguments.speech, arguments.alignment)
    if len(clips) < 2:
        raise UserError(f"{arguments.speech} holds one recording; two voices need a second one.")
    mouth = measured_demo_head()
    if arguments.head is not None:
        mouth = measure_head(identify(*read_head(arguments.head)))
    num_clips = arguments.num_clips or len(clips)
    predictor = open_predictor(arguments.checkpoint, arguments.engine, arguments.device)
    try:
        report: dict[str, Any] = {
            "checkpoint": arguments.checkpoint.name,
            "model_fingerprint": predictor.fingerprint,
            "speech": arguments.speech.name,
            "alignment": arguments.alignment,
            "num_clips": min(num_clips, len(clips)),
            "seed": arguments.seed,
            "conditions": {
                name: _condition_metrics(
                    predictor, _under(name, clips, num_clips, arguments.seed), clips[:num_clips],
                    mouth, arguments.modes,
                )
                for name in CONDITIONS
            },
            "wordless": {
                name: _wordless_metrics(predictor, name, mouth, arguments)
                for name in WORDLESS
            },
        }  # fmt: skip
    finally:
        predictor.close()
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        arguments.out.with_suffix(".md").write_text(table(report) + "\n", encoding="utf-8")
    return report


def _under(name: str, clips: Sequence[SpokenClip], num_clips: int, seed: int) -> list[SpokenClip]:
    """The first clips under a condition."""
    changed = []
    for number, clip in enumerate(clips[:num_clips]):
        others = [other.samples for other in clips if other is not clip]
        samples = degraded(name, clip.samples, others, _chance(name, number, seed))
        changed.append(replace(clip, samples=samples))
    return changed


def degraded(
    name: str, samples: Samples, others: Sequence[Samples], rng: np.random.Generator
) -> Samples:
    """Speech under one of ``CONDITIONS``.

    Args:
        name: Name of the condition.
        samples: Clean speech, shape ``(n,)``.
        others: Recordings of other speech, for babble and second voices.
        rng: Source of randomness.

    Returns:
        The degraded speech, shape ``(n,)``.
    """
    if name == _CLEAN:
        return samples
    if name in _FILE_RATES:
        return _through_file(samples, _FILE_RATES[name])
    return SPEECH_EFFECTS[name](samples, others, rng)


def _chance(name: str, number: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), number])


def _through_file(samples: Samples, rate_hz: int) -> Samples:
    """Written at another rate in 16 bits, and read as users' files are read."""
    with tempfile.TemporaryDirectory(prefix="ptalker-") as folder:
        path = Path(folder) / "speech.wav"
        resampled = resample(samples, SAMPLE_RATE_HZ, rate_hz)
        soundfile.write(path, np.clip(resampled, -1.0, 1.0), rate_hz, subtype="PCM_16")
        read = read_sound(path).samples
    return np.pad(read, (0, max(0, len(samples) - len(read))))[: len(samples)]


def _condition_metrics(
    predictor: Predictor,
    changed: Sequence[SpokenClip],
    clean: Sequence[SpokenClip],
    mouth: MeasuredHead,
    modes: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Metrics of degraded speech by recognition mode, with the clean speech's face as reference."""
    references = [clip.articulated(clip.phones, SpeakingStyle.neutral()) for clip in clean]
    metrics = {}
    for mode in modes:
        motions = [predicted(predictor, clip, mouth.head, mode) for clip in changed]
        weights = [motion.weights for motion in motions]
        scored = score_motions(weights, references, clean, mouth)
        names = ("closures_f1", "closures_precision", "closures_recall", "opening", "jerk_ratio")
        metrics[mode] = {name: scored[name] for name in names} | {
            "drift_mm": drift_mm(
                [mouth.opening_mm(motion) for motion in weights],
                [mouth.opening_mm(reference) for reference in references],
            ),
            "by_sound": float(np.mean([motion.report["listen"] == "sound" for motion in motions])),
        }
        _log.info("%s", metrics[mode])
    return metrics


def drift_mm(
    openings: Sequence[NDArray[np.floating]], references: Sequence[NDArray[np.floating]]
) -> float:
    """Drift of the mouth's opening from the first third of a clip to its last.

    Args:
        openings: Openings in mm, one curve per clip.
        references: Reference openings of the clips.

    Returns:
        Mean error of the last thirds less that of the first, in mm, averaged over the clips.
    """
    changes = []
    for ours, wanted in zip(openings, references, strict=True):
        error = np.asarray(ours) - wanted
        third = max(1, len(error) // 3)
        changes.append(float(error[-third:].mean() - error[:third].mean()))
    return float(np.mean(changes))


def _wordless_metrics(
    predictor: Predictor, name: str, mouth: MeasuredHead, arguments: ConditionsArguments
) -> dict[str, dict[str, float]]:
    """How far the mouth opens, in mm, where nobody speaks, by recognition mode."""
    length = int(_WORDLESS_SECONDS * SAMPLE_RATE_HZ)
    samples = WORDLESS[name](length, _chance(name, 0, arguments.seed))
    clip = SpokenClip(name, samples, "", ())
    metrics = {}
    for mode in arguments.modes:
        if mode != "text":
            opening = mouth.opening_mm(predicted(predictor, clip, mouth.head, mode).weights)
            inside = np.abs(opening[_EDGE_FRAMES:-_EDGE_FRAMES])
            metrics[mode] = {
                "mean_mm": float(inside.mean()),
                "most_mm": float(np.quantile(inside, 0.95)),
            }
    return metrics


def table(report: Mapping[str, Any]) -> str:
    """The report as Markdown tables."""
    modes = list(report["conditions"][_CLEAN])
    columns = {
        "closures_f1": "closures F1", "opening": "opening r", "jerk_ratio": "jerk ratio",
        "drift_mm": "drift mm", "by_sound": "by sound alone",
    }  # fmt: skip
    parts = []
    for mode in modes:
        parts += [f"| {mode}: speech | " + " | ".join(columns.values()) + " |"]
        parts += ["|---|" + "---|" * len(columns)]
        for name, metrics in report["conditions"].items():
            cells = (f"{metrics[mode][column]:.2f}" for column in columns)
            parts.append(f"| {name} | " + " | ".join(cells) + " |")
        parts.append("")
    recognised = [mode for mode in modes if mode != "text"]
    head = " | ".join(f"{mode}: mean mm | {mode}: 95 % mm" for mode in recognised)
    parts += [f"| nobody speaks | {head} |", "|---|" + "---|---|" * len(recognised)]
    for name, metrics in report["wordless"].items():
        cells = (
            f"{metrics[mode][key]:.2f}" for mode in recognised for key in ("mean_mm", "most_mm")
        )
        parts.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(parts)
