# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a checkpoint in bad conditions: noise, rooms, lines, other voices, levels, no speech.

Apart from ``evaluate.py`` because it asks something else of the same model: not how well it speaks
but what of it is left when the sound is bad, and whether it rests where nobody speaks.
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
from backend.evaluation.speech import judge, predicted
from backend.heads.lip_measures import MeasuredHead, measure_head, measured_demo_head
from backend.heads.mesh_files import read_head
from backend.heads.topology import identify
from backend.inference.predictor import Predictor

_log = logging.getLogger(__name__)
_CLEAN: Final = "clean"
_FILE_RATES: Final = {"8 kHz file": 8_000, "96 kHz file": 96_000}
CONDITIONS: Final = (_CLEAN, *SPEECH_EFFECTS, *_FILE_RATES)
"""Speech under these must still be animated."""

_WORDLESS_SECONDS: Final = 10.0
_EDGE_FRAMES: Final = 25
WORDLESS: Final[dict[str, Callable[[int, np.random.Generator], Samples]]] = {
    "silence": lambda length, _: np.zeros(length, np.float32),
    "white noise": degradations.noise,
    "pink noise": lambda length, rng: degradations.noise(length, rng, exponent=1.0),
    "music": degradations.music,
    "laughter": degradations.laughter,
}
"""Sounds in which nobody speaks: length in samples and chance -> samples."""


@dataclass(frozen=True, slots=True)
class ConditionsArguments:
    """What the command line says.

    Attributes:
        checkpoint: Folder of the model.
        speech: Folder of recordings with phone times.
        alignment: Name of the file in it that holds them.
        head: A mesh file; None takes the demo head.
        ways: Of listening: ``sound``, ``words``, ``text``.
        num_clips: Recordings to take, from the first on; 0 takes all.
        seed: Of all chance.
        out: JSON file to write; the table is written beside it as ``.md``. None writes none.
        device: Of the model.
    """

    checkpoint: Path
    speech: Path
    alignment: str = "alignment.json"
    head: Path | None = None
    ways: tuple[str, ...] = ("sound", "words")
    num_clips: int = 0
    seed: int = 0
    out: Path | None = None
    device: str = "auto"


def main(arguments: ConditionsArguments) -> dict[str, Any]:
    """Evaluates as the command line says.

    Args:
        arguments: From the command line.

    Returns:
        The report, as it is written to ``out``: figures by way of listening and condition.

    Raises:
        UserError: The checkpoint or the recordings are no good.
    """
    clips = read_clips(arguments.speech, arguments.alignment)
    if len(clips) < 2:
        raise UserError(f"{arguments.speech} holds one recording; two voices need a second one.")
    mouth = measured_demo_head()
    if arguments.head is not None:
        mouth = measure_head(identify(*read_head(arguments.head)))
    num_clips = arguments.num_clips or len(clips)
    predictor = Predictor(arguments.checkpoint, arguments.device)
    try:
        report: dict[str, Any] = {
            "checkpoint": arguments.checkpoint.name,
            "model_fingerprint": predictor.fingerprint,
            "speech": arguments.speech.name,
            "alignment": arguments.alignment,
            "num_clips": min(num_clips, len(clips)),
            "seed": arguments.seed,
            "conditions": {
                name: _figures(
                    predictor, _under(name, clips, num_clips, arguments.seed), clips[:num_clips],
                    mouth, arguments.ways,
                )
                for name in CONDITIONS
            },
            "wordless": {
                name: _wordless_figures(predictor, name, mouth, arguments)
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
        samples = disturbed(name, clip.samples, others, _chance(name, number, seed))
        changed.append(replace(clip, samples=samples))
    return changed


def disturbed(
    name: str, samples: Samples, others: Sequence[Samples], rng: np.random.Generator
) -> Samples:
    """Speech under one of ``CONDITIONS``.

    Args:
        name: The condition.
        samples: Clean speech, shape ``(n,)``.
        others: Recordings of other speech, for babble and second voices.
        rng: Source of randomness.

    Returns:
        Shape ``(n,)``.
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


def _figures(
    predictor: Predictor,
    changed: Sequence[SpokenClip],
    clean: Sequence[SpokenClip],
    mouth: MeasuredHead,
    ways: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Figures of speech under a condition by way of listening, against the clean speech's face."""
    references = [clip.articulated(clip.phones, SpeakingStyle.neutral()) for clip in clean]
    figures = {}
    for way in ways:
        motions = [predicted(predictor, clip, mouth.head, way) for clip in changed]
        weights = [motion.weights for motion in motions]
        judged = judge(weights, references, clean, mouth)
        names = ("closures_f1", "closures_precision", "closures_recall", "opening", "jerk_ratio")
        figures[way] = {name: judged[name] for name in names} | {
            "drift_mm": drift_mm(
                [mouth.opening_mm(motion) for motion in weights],
                [mouth.opening_mm(reference) for reference in references],
            ),
            "by_sound": float(np.mean([motion.report["listen"] == "sound" for motion in motions])),
        }
        _log.info("%s", figures[way])
    return figures


def drift_mm(
    openings: Sequence[NDArray[np.floating]], references: Sequence[NDArray[np.floating]]
) -> float:
    """How much further the mouth has come open from a clip's first third to its last.

    Args:
        openings: In mm, one curve per clip.
        references: What they should be.

    Returns:
        Mean error of the last thirds less that of the first, in mm, averaged over the clips.
    """
    changes = []
    for ours, wanted in zip(openings, references, strict=True):
        error = np.asarray(ours) - wanted
        third = max(1, len(error) // 3)
        changes.append(float(error[-third:].mean() - error[:third].mean()))
    return float(np.mean(changes))


def _wordless_figures(
    predictor: Predictor, name: str, mouth: MeasuredHead, arguments: ConditionsArguments
) -> dict[str, dict[str, float]]:
    """How far the mouth opens, in mm, where nobody speaks, by way of listening."""
    length = int(_WORDLESS_SECONDS * SAMPLE_RATE_HZ)
    samples = WORDLESS[name](length, _chance(name, 0, arguments.seed))
    clip = SpokenClip(name, samples, "", ())
    figures = {}
    for way in arguments.ways:
        if way != "text":
            opening = mouth.opening_mm(predicted(predictor, clip, mouth.head, way).weights)
            inside = np.abs(opening[_EDGE_FRAMES:-_EDGE_FRAMES])
            figures[way] = {
                "mean_mm": float(inside.mean()),
                "most_mm": float(np.quantile(inside, 0.95)),
            }
    return figures


def table(report: Mapping[str, Any]) -> str:
    """The report as Markdown tables, for the screen and for documents."""
    ways = list(report["conditions"][_CLEAN])
    columns = {
        "closures_f1": "closures F1", "opening": "opening r", "jerk_ratio": "jerk ratio",
        "drift_mm": "drift mm", "by_sound": "by sound alone",
    }  # fmt: skip
    parts = []
    for way in ways:
        parts += [f"| {way}: speech | " + " | ".join(columns.values()) + " |"]
        parts += ["|---|" + "---|" * len(columns)]
        for name, figures in report["conditions"].items():
            cells = (f"{figures[way][column]:.2f}" for column in columns)
            parts.append(f"| {name} | " + " | ".join(cells) + " |")
        parts.append("")
    heard = [way for way in ways if way != "text"]
    head = " | ".join(f"{way}: mean mm | {way}: 95 % mm" for way in heard)
    parts += [f"| nobody speaks | {head} |", "|---|" + "---|---|" * len(heard)]
    for name, figures in report["wordless"].items():
        cells = (f"{figures[way][key]:.2f}" for way in heard for key in ("mean_mm", "most_mm"))
        parts.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(parts)
