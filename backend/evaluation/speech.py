# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a checkpoint: on real speech in each way of listening, and by styles it has never seen."""

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

from backend.articulation.speaking_style import SpeakingStyle
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.evaluation import curve_metrics
from backend.evaluation.clips import SpokenClip, read_clips
from backend.evaluation.curve_metrics import closures
from backend.evaluation.style_transfer import style_figures, voice_figures
from backend.heads.arkit import CLOSED_MM
from backend.heads.lip_measures import MeasuredHead, measure_head, measured_demo_head
from backend.heads.mesh_files import read_head
from backend.heads.topology import FACE_POINT_NAMES, INTEROCULAR_MM, Head, identify
from backend.inference.predictor import Predictor
from backend.inference.style_files import StyleCode
from backend.model import checkpoint
from backend.motion import Motion
from backend.speech.phones import SILENCE, Phone
from backend.speech.recognition import SpeechRecogniser

_log = logging.getLogger(__name__)
RECOGNITION_MODES: Final = ("sound", "words", "text")
_CURVES: Final = ("opening_mm", "width_mm", "protrusion_mm")
_SILENCE_EDGE_SECONDS: Final = 0.15
_PHONE_OPENING: Final[dict[str, float]] = dict(  # noqa: C408  # 40 pairs of quotes less
    AA=1.0, AE=0.9, AH=0.6, AO=0.8, AW=0.9, AY=0.9, EH=0.65, ER=0.4, EY=0.55, IH=0.4, IY=0.3,
    OW=0.6, OY=0.7, UH=0.4, UW=0.25, B=0.0, P=0.0, M=0.0, F=0.1, V=0.1, W=0.15, L=0.35, R=0.3,
    T=0.2, D=0.2, N=0.2, S=0.2, Z=0.2, TH=0.25, DH=0.25, SH=0.2, CH=0.2, JH=0.2, ZH=0.2, K=0.3,
    G=0.3, NG=0.3, HH=0.45, Y=0.25, SIL=0.0,
)  # fmt: skip
"""An opening per phone that owes nothing to the articulation model, for comparison with peers."""


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """What the command line says.

    Attributes:
        checkpoint: Folder of the model.
        speech: Folder of recordings with phone times; None leaves speech out.
        alignment: Name of the file in it that holds them.
        head: A mesh file; None takes the demo head.
        ways: Of listening.
        styles: Whether to measure the transfer of styles, on the sentences of ``speech``.
        out: JSON file to write; None writes none.
        device: Of the model.
    """

    checkpoint: Path
    speech: Path
    alignment: str = "alignment.json"
    head: Path | None = None
    ways: tuple[str, ...] = RECOGNITION_MODES
    styles: bool = False
    out: Path | None = None
    device: str = "auto"


def main(arguments: EvaluateArguments) -> dict[str, Any]:
    """Evaluates as the command line says.

    Args:
        arguments: From the command line.

    Returns:
        The report, as it is written to ``out``: figures by way of listening, and of styles.

    Raises:
        UserError: The checkpoint or the recordings are no good.
    """
    clips = read_clips(arguments.speech, arguments.alignment)
    mouth = measured_demo_head()
    if arguments.head is not None:
        mouth = measure_head(identify(*read_head(arguments.head)))
    predictor = Predictor(arguments.checkpoint, arguments.device)
    try:
        report: dict[str, Any] = {
            "checkpoint": str(arguments.checkpoint.name),
            "model_fingerprint": predictor.fingerprint,
            "speech": arguments.speech.name,
            "alignment": arguments.alignment,
            "seconds": round(sum(len(clip.samples) for clip in clips) / SAMPLE_RATE_HZ, 2),
            "closed_mm": CLOSED_MM,
            "ways": speech_figures(predictor, clips, mouth, arguments.ways),
        }
        if arguments.styles:
            model = checkpoint.load(arguments.checkpoint)
            report["styles"] = style_figures(model, clips, mouth) | voice_figures(
                model, clips, mouth
            )
    finally:
        predictor.close()
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def speech_figures(
    predictor: Predictor, clips: Sequence[SpokenClip], mouth: MeasuredHead, ways: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Figures by way of listening, with the phones alone put into the articulation model beside."""
    figures = {}
    references = [clip.articulated(clip.phones, SpeakingStyle.neutral()) for clip in clips]
    listener = SpeechRecogniser(1)
    try:
        for way in ways:
            motions = [predicted(predictor, clip, mouth.head, way).weights for clip in clips]
            figures[way] = judge(motions, references, clips, mouth)
            if way != "sound":
                heard = [
                    listener.recognise(clip.samples)
                    if way == "words"
                    else listener.align(clip.samples, clip.text)
                    for clip in clips
                ]
                straight = [
                    clip.articulated(found.phones, SpeakingStyle.neutral())
                    for clip, found in zip(clips, heard, strict=True)
                ]
                figures[f"{way}, phones only"] = judge(straight, references, clips, mouth)
    finally:
        listener.close()
    return figures


def predicted(
    predictor: Predictor,
    clip: SpokenClip,
    head: Head,
    way: str,
    *,
    style: StyleCode | None = None,
) -> Motion:
    """What the model makes of a clip at 50 Hz in a way of listening; no style is neutral."""
    return predictor.predict(
        clip.samples,
        SAMPLE_RATE_HZ,
        head,
        fps=Fraction(FEATURE_RATE_HZ),
        num_frames=clip.num_frames,
        style=style,
        listen="sound" if way == "sound" else "words",
        text=clip.text if way == "text" else "",
        progress=lambda *_: None,
        warn=lambda text: _log.warning("%s: %s", clip.name, text),
        is_cancelled=lambda: False,
    )


def judge(
    motions: Sequence[NDArray[np.float32]],
    references: Sequence[NDArray[np.float32]],
    clips: Sequence[SpokenClip],
    mouth: MeasuredHead,
) -> dict[str, float]:
    """All figures of some clips, pooled.

    Args:
        motions: Weights to judge, one per clip, ``(T, 52)`` at ``FEATURE_RATE_HZ``.
        references: What a neutral speaker's face should do.
        clips: The sounds.
        mouth: Where it is measured.
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
    """An opening per phone, smoothed by 35 ms, shape ``(num_frames,)``."""
    times = np.arange(num_frames) / FEATURE_RATE_HZ
    opening = np.zeros(num_frames)
    for phone in phones:
        inside = (times >= phone.start_seconds) & (times < phone.end_seconds)
        opening[inside] = _PHONE_OPENING[phone.symbol]
    return np.asarray(gaussian_filter1d(opening, 0.035 * FEATURE_RATE_HZ))


def lip_errors_mm(
    motion: NDArray[np.floating], reference: NDArray[np.floating], mouth: MeasuredHead
) -> NDArray[np.float64]:
    """Largest distance of a lip point from where it should be, per frame, ``(T,)``."""
    lips = [index for index, name in enumerate(FACE_POINT_NAMES) if name.startswith("lip_")]
    moved = np.tensordot(motion - reference, mouth.basis[:, lips] * INTEROCULAR_MM, axes=1)
    return np.asarray(np.linalg.norm(moved, axis=-1).max(axis=-1))


def silent_frames(phones: Sequence[Phone], num_frames: int) -> NDArray[np.bool_]:
    """Frames well inside a pause, where the mouth should be at rest."""
    times = np.arange(num_frames) / FEATURE_RATE_HZ
    silent = np.zeros(num_frames, dtype=bool)
    for phone in phones:
        if phone.symbol == SILENCE:
            silent |= (times >= phone.start_seconds + _SILENCE_EDGE_SECONDS) & (
                times < phone.end_seconds - _SILENCE_EDGE_SECONDS
            )
    return silent


def table(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table, for the screen and for documents."""
    ways: Mapping[str, Mapping[str, float]] = report["ways"]
    names = list(next(iter(ways.values())))
    lines = [
        "| listening | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for way, figures in ways.items():
        cells = (f"{figures[name]:.3f}" for name in names)
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    for name, value in report.get("styles", {}).items():
        lines.append(f"{name.replace('_', ' ')}: {value:.3f}")
    return "\n".join(lines)
