# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation of a checkpoint on real speech in each recognition mode, and on unseen styles."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from backend.articulation.gestures import BREATH_PAUSE_SECONDS, BREATH_SECONDS
from backend.articulation.speaking_style import SpeakingStyle
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.evaluation import curve_metrics
from backend.evaluation.clips import SpokenClip, read_clips
from backend.evaluation.curve_metrics import closures
from backend.evaluation.invented_people import invented_people_metrics
from backend.evaluation.style_transfer import style_transfer_metrics, voice_style_metrics
from backend.heads.arkit import CLOSED_MM
from backend.heads.lip_measures import MeasuredHead, measure_head, measured_demo_head
from backend.heads.mesh_files import read_head
from backend.heads.topology import FACE_POINT_NAMES, INTEROCULAR_MM, Head, identify
from backend.inference.emotion_layer import Emotion
from backend.inference.engine_choice import EngineChoice
from backend.inference.predictor import Predictor, open_predictor
from backend.inference.style_files import StyleCode
from backend.life.layers import LifeAmounts
from backend.model import checkpoint
from backend.motion import Motion
from backend.speech import recognition
from backend.speech.phones import SILENCE, Phone

_log = logging.getLogger(__name__)
RECOGNITION_MODES: Final = ("sound", "words", "text")
STILL: Final = LifeAmounts(life=0.0)
_CURVES: Final = ("opening_mm", "width_mm", "protrusion_mm")
_SILENCE_EDGE_SECONDS: Final = 0.15
_PHONE_OPENING: Final[dict[str, float]] = dict(  # noqa: C408  # 40 pairs of quotes less
    AA=1.0, AE=0.9, AH=0.6, AO=0.8, AW=0.9, AY=0.9, EH=0.65, ER=0.4, EY=0.55, IH=0.4, IY=0.3,
    OW=0.6, OY=0.7, UH=0.4, UW=0.25, B=0.0, P=0.0, M=0.0, F=0.1, V=0.1, W=0.15, L=0.35, R=0.3,
    T=0.2, D=0.2, N=0.2, S=0.2, Z=0.2, TH=0.25, DH=0.25, SH=0.2, CH=0.2, JH=0.2, ZH=0.2, K=0.3,
    G=0.3, NG=0.3, HH=0.45, Y=0.25, SIL=0.0,
)  # fmt: skip
"""Opening of the mouth by phone, independent of the articulation model, to compare with peers."""


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """Options of an evaluation on recorded speech.

    Attributes:
        checkpoint: Folder of the model.
        speech: Folder of recordings with phone times.
        alignment: Name of the file in ``speech`` that holds the phone times.
        head: Mesh file of the head to measure on; None takes the demo head.
        modes: Recognition modes to evaluate, of ``RECOGNITION_MODES``.
        styles: Whether to measure the transfer of styles, on the sentences of ``speech``.
        out: JSON file to write the report into; None writes none.
        engine: Engine of the model.
        device: Device of the model.
    """

    checkpoint: Path
    speech: Path
    alignment: str = "alignment.json"
    head: Path | None = None
    modes: tuple[str, ...] = RECOGNITION_MODES
    styles: bool = False
    out: Path | None = None
    engine: EngineChoice = "auto"
    device: str = "auto"


def main(arguments: EvaluateArguments) -> dict[str, Any]:
    """Evaluates a checkpoint on recorded speech.

    Args:
        arguments: Options of the command line.

    Returns:
        The report, as it is written to ``out``: metrics by recognition mode, and of styles.

    Raises:
        UserError: The checkpoint or the recordings cannot be used.
    """
    clips = read_clips(arguments.speech, arguments.alignment)
    mouth = measured_demo_head()
    if arguments.head is not None:
        mouth = measure_head(identify(*read_head(arguments.head)))
    predictor = open_predictor(arguments.checkpoint, arguments.engine, arguments.device)
    try:
        report: dict[str, Any] = {
            "checkpoint": str(arguments.checkpoint.name),
            "model_fingerprint": predictor.fingerprint,
            "speech": arguments.speech.name,
            "alignment": arguments.alignment,
            "seconds": round(sum(len(clip.samples) for clip in clips) / SAMPLE_RATE_HZ, 2),
            "closed_mm": CLOSED_MM,
            "modes": speech_metrics(predictor, clips, mouth, arguments.modes),
        }
        if arguments.styles:
            model = checkpoint.load(arguments.checkpoint)
            report["styles"] = style_transfer_metrics(model, clips, mouth) | voice_style_metrics(
                model, clips, mouth
            )
            if predictor.engine.config.shape_kind == "solved":
                report["styles"] |= invented_people_metrics(predictor, clips, mouth)
    finally:
        predictor.close()
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def speech_metrics(
    predictor: Predictor, clips: Sequence[SpokenClip], mouth: MeasuredHead, modes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Metrics by recognition mode, of the model and of the articulation model on its phones."""
    metrics = {}
    references = [clip.articulated(clip.phones, SpeakingStyle.neutral()) for clip in clips]
    for mode in modes:
        motions = [predicted(predictor, clip, mouth.head, mode).weights for clip in clips]
        metrics[mode] = score_motions(motions, references, clips, mouth)
        if mode != "sound":
            transcripts = [
                recognition.recognise(clip.samples)
                if mode == "words"
                else recognition.align(clip.samples, clip.text)
                for clip in clips
            ]
            articulated = [
                clip.articulated(found.phones, SpeakingStyle.neutral())
                for clip, found in zip(clips, transcripts, strict=True)
            ]
            metrics[f"{mode}, phones only"] = score_motions(articulated, references, clips, mouth)
    return metrics


def predicted(
    predictor: Predictor,
    clip: SpokenClip,
    head: Head,
    mode: str,
    *,
    style: StyleCode | None = None,
    emotion: Emotion | None = None,
    life: LifeAmounts = STILL,
) -> Motion:
    """Animates a clip at 50 Hz in a recognition mode, by default in the neutral style.

    Speech is measured without life: a breath parts the lips, and that is no error.
    """
    return predictor.predict(
        clip.samples,
        SAMPLE_RATE_HZ,
        head,
        fps=Fraction(FEATURE_RATE_HZ),
        num_frames=clip.num_frames,
        style=style,
        emotion=emotion,
        life=life,
        listen="sound" if mode == "sound" else "words",
        text=clip.text if mode == "text" else "",
        progress=lambda *_: None,
        warn=lambda text: _log.warning("%s: %s", clip.name, text),
        is_cancelled=lambda: False,
    )


def score_motions(
    motions: Sequence[NDArray[np.float32]],
    references: Sequence[NDArray[np.float32]],
    clips: Sequence[SpokenClip],
    mouth: MeasuredHead,
) -> dict[str, float]:
    """All metrics of some clips, pooled.

    Args:
        motions: Weights to score, one array per clip, ``(T, 52)`` at ``FEATURE_RATE_HZ``.
        references: Reference weights of the clips in the neutral style.
        clips: The recordings.
        mouth: Head on which motion is measured.

    Returns:
        The metrics by name.
    """
    counts = curve_metrics.ClosureCounts()
    ours: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _CURVES}
    theirs: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _CURVES}
    by_phone, lip_errors, in_silence = [], [], []
    for motion, reference, clip in zip(motions, references, clips, strict=True):
        curves, wanted = mouth.curves(motion), mouth.curves(reference)
        counts += closures(clip.phones, curves["opening_mm"])
        for name in _CURVES:
            ours[name].append(curves[name])
            theirs[name].append(wanted[name])
        by_phone.append(phone_opening(clip.phones, clip.num_frames))
        lip_errors.append(lip_errors_mm(motion, reference, mouth))
        in_silence.append(curves["opening_mm"][silent_frames(clip.phones, clip.num_frames)])
    joined = {name: (np.concatenate(ours[name]), np.concatenate(theirs[name])) for name in _CURVES}
    opening, lag = curve_metrics.lagged_correlation(*joined["opening_mm"], FEATURE_RATE_HZ)
    return {
        "closures_f1": counts.f1,
        "closures_precision": counts.precision,
        "closures_recall": counts.recall,
        "opening": opening,
        "opening_by_phone": curve_metrics.lagged_correlation(
            joined["opening_mm"][0], np.concatenate(by_phone), FEATURE_RATE_HZ
        )[0],
        "width": curve_metrics.lagged_correlation(*joined["width_mm"], FEATURE_RATE_HZ)[0],
        "protrusion": curve_metrics.lagged_correlation(*joined["protrusion_mm"], FEATURE_RATE_HZ)[
            0
        ],
        "lip_error_mm": float(np.concatenate(lip_errors).mean()),
        "lag_ms": lag * 1000.0,
        "open_in_silence_mm": float(np.abs(np.concatenate(in_silence)).mean())
        if sum(map(len, in_silence))
        else 0.0,
        "jerk_ratio": curve_metrics.jerk_ratio(*joined["opening_mm"]),
    }


def phone_opening(phones: Sequence[Phone], num_frames: int) -> NDArray[np.float64]:
    """Opening of the mouth by phone alone, smoothed by 35 ms, shape ``(num_frames,)``."""
    times = np.arange(num_frames) / FEATURE_RATE_HZ
    opening = np.zeros(num_frames)
    for phone in phones:
        inside = (times >= phone.start_seconds) & (times < phone.end_seconds)
        opening[inside] = _PHONE_OPENING[phone.symbol]
    return np.asarray(gaussian_filter1d(opening, 0.035 * FEATURE_RATE_HZ))


def lip_errors_mm(
    motion: NDArray[np.floating], reference: NDArray[np.floating], mouth: MeasuredHead
) -> NDArray[np.float64]:
    """Largest distance of a lip point from the reference, per frame, ``(T,)``."""
    lips = [index for index, name in enumerate(FACE_POINT_NAMES) if name.startswith("lip_")]
    moved = np.tensordot(motion - reference, mouth.basis[:, lips] * INTEROCULAR_MM, axes=1)
    return np.asarray(np.linalg.norm(moved, axis=-1).max(axis=-1))


def silent_frames(phones: Sequence[Phone], num_frames: int) -> NDArray[np.bool_]:
    """Frames well inside a pause and before a breath, where the mouth should be at rest."""
    times = np.arange(num_frames) / FEATURE_RATE_HZ
    silent = np.zeros(num_frames, dtype=bool)
    for index, phone in enumerate(phones):
        if phone.symbol == SILENCE:
            seconds = phone.end_seconds - phone.start_seconds
            breathes = index + 1 < len(phones) and seconds >= BREATH_PAUSE_SECONDS
            edge = BREATH_SECONDS if breathes else _SILENCE_EDGE_SECONDS
            silent |= (times >= phone.start_seconds + _SILENCE_EDGE_SECONDS) & (
                times < phone.end_seconds - edge
            )
    return silent


def table(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table."""
    modes: Mapping[str, Mapping[str, float]] = report["modes"]
    names = list(next(iter(modes.values())))
    lines = [
        "| recognition | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for mode, metrics in modes.items():
        cells = (f"{metrics[name]:.3f}" for name in names)
        lines.append(f"| {mode} | " + " | ".join(cells) + " |")
    for name, value in report.get("styles", {}).items():
        lines.append(f"{name.replace('_', ' ')}: {value:.3f}")
    return "\n".join(lines)
