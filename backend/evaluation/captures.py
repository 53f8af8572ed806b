# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation of checkpoints on captured faces: the field's metrics, intervals, baselines, peers.

All methods animate the same sequences under one evaluation protocol, so their differences are
paired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backend.data.captures import prepared
from backend.data.captures.prepared import PreparedSet, Split
from backend.data.captures.regions import Regions, frame_of, regions_of
from backend.errors import UserError
from backend.evaluation.baselines import Baseline, mean_motion, nearest_audio, neutral_face
from backend.evaluation.capture_model import CaptureModel, StyleFrom
from backend.evaluation.comparability import check_regions, protocol_of
from backend.evaluation.report import write_report
from backend.evaluation.results import (
    METRICS,
    READABLE_MM,
    Gallery,
    MethodResults,
    MetricContext,
    PooledMetric,
    differences,
    diversity,
    pooled,
    pooled_speech_lip_correlation,
    signature,
)

FORMAT: Final = "ptalker-capture-evaluation"
FORMAT_VERSION: Final = 2
_GALLERY_CLIPS: Final = 12
_DIVERSE_SEQUENCES: Final = 4
_DIVERSE_STYLES: Final = 4

Progress = Callable[[str, float, float, str, float | None], None]
"""Called with what is done, how much of how much, the unit, and seconds left (None unknown)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureArguments:
    """Options of an evaluation on captured faces.

    Attributes:
        checkpoints: Folders of the models; the others are compared with the first.
        data: Folder of the prepared set.
        split: Split of the set to evaluate on.
        protocol: Name of the evaluation protocol.
        regions: JSON file with regions; None takes the topology's.
        style_from: Where models take a subject's style from.
        device: Device of the models.
        out: Folder to write the report into; None writes none.
    """

    checkpoints: tuple[Path, ...]
    data: Path
    split: Split = "test"
    protocol: str = "ptalker"
    regions: Path | None = None
    style_from: StyleFrom = "auto"
    device: str = "auto"
    out: Path | None = None


@dataclass
class _Method:
    """A method's measurements, and facts about it for the report."""

    results: MethodResults
    facts: dict[str, Any] = field(default_factory=dict)


class _Evaluation:
    """The sequences to evaluate on, their captured motion, and the context of the metrics."""

    def __init__(self, arguments: CaptureArguments) -> None:
        self.arguments = arguments
        self.data = prepared.open(arguments.data)
        self.sequences = self.data.split(arguments.split)
        if not self.sequences:
            counts = Counter(one.split for one in self.data.manifest.sequences)
            there = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
            raise UserError(
                f"The split {arguments.split} of {arguments.data} is empty; it has {there}. Choose "
                "one of these with --split."
            )
        check_regions(arguments.protocol, arguments.regions)
        regions = regions_of(self.data, arguments.regions)
        self.protocol = protocol_of(
            arguments.protocol, self.data, arguments.split, self.sequences, regions
        )
        self.context = _metric_context(self.data, regions)
        self.loudness = [
            float(np.sqrt(np.mean(self.data.samples(one) ** 2))) for one in self.sequences
        ]
        self.reference = self.score("truth", self.data.offsets, lambda done: None)
        self.gallery = self._gallery()

    @property
    def by_frame(self) -> bool:
        """Whether frames are pooled."""
        return self.protocol.pooling == "frames"

    @property
    def frames(self) -> list[int]:
        """Length of each sequence."""
        return [one.num_frames for one in self.sequences]

    def truth(self, sequence: prepared.Sequence) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The captured motion of a sequence.

        Args:
            sequence: A sequence of the set.

        Returns:
            Face at rest ``(V, 3)`` and captured vertices ``(T, V, 3)``.

        Raises:
            UserError: The vertices hold something that is no number.
        """
        template = self.data.template(sequence.subject)
        vertices = template + self.data.offsets(sequence)
        if not np.isfinite(vertices).all():
            raise UserError(
                f"The captured motion {sequence.name} in {self.data.folder} holds positions that "
                "are not numbers. Prepare the data set again."
            )
        return template, vertices

    def score(self, name: str, predict: Baseline, tell: Callable[[int], None]) -> MethodResults:
        """Measures a method's motions of all sequences."""
        results = MethodResults(name)
        for number, one in enumerate(self.sequences):
            template, vertices = self.truth(one)
            results.add(template + predict(one), vertices, template, self.context)
            tell(number + 1)
        return results

    def _gallery(self) -> Gallery:
        """Captured clips of the subjects, those of the training split first."""
        wanted = {one.subject for one in self.sequences}
        clips: dict[str, list[prepared.Sequence]] = {}
        order = [*self.data.split("train"), *self.sequences]
        for one in {clip.name: clip for clip in order}.values():
            if one.subject in wanted and len(clips.setdefault(one.subject, [])) < _GALLERY_CLIPS:
                clips[one.subject].append(one)
        chosen = [clip for subject in sorted(clips) for clip in clips[subject]]
        return Gallery(
            np.stack([signature(self.data.offsets(clip), self.context) for clip in chosen]),
            tuple(clip.subject for clip in chosen),
            tuple(clip.name for clip in chosen),
        )

    def retrieval(self, results: MethodResults) -> dict[str, float] | None:
        """Style retrieval; None where there are too few clips."""
        if not self.gallery.is_usable:
            return None
        return self.gallery.retrieval(
            results.signatures,
            [one.subject for one in self.sequences],
            [one.name for one in self.sequences],
        )


def _metric_context(data: PreparedSet, regions: Regions) -> MetricContext:
    manifest = data.manifest
    frame = frame_of(data)
    return MetricContext(
        regions=regions,
        up=np.array([0.0, 1.0, 0.0]) if frame is None else frame.axes[1],
        fps=float(manifest.fps),
        length=manifest.metres_per_unit * 1000.0 if manifest.metres_per_unit > 0 else 1.0,
        is_metric=manifest.metres_per_unit > 0,
    )


def main(
    arguments: CaptureArguments,
    progress: Progress = lambda stage, done, total, unit, seconds_left: None,
) -> dict[str, Any]:
    """Evaluates checkpoints and baselines on a prepared set.

    Args:
        arguments: Options of the command line.
        progress: Called as the evaluation goes on.

    Returns:
        The report, as ``report.json`` holds it. The folder ``out`` also gets ``report.md`` and,
        where Matplotlib is installed, plots.

    Raises:
        UserError: The set, a checkpoint or the regions are missing or do not fit.
    """
    evaluation = _Evaluation(arguments)
    names = _names(arguments.checkpoints)
    methods = [
        _model(evaluation, folder, name, progress)
        for folder, name in zip(arguments.checkpoints, names, strict=True)
    ]
    methods += _baselines(evaluation, progress)
    report = _report(evaluation, methods)
    if arguments.out is not None:
        write_report(arguments.out, report, _curves(evaluation, methods))
    return report


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names of checkpoints: of the run, or of the folder; numbered where they are equal."""
    short = [
        folder.resolve().parent.name if folder.name == "checkpoint" else folder.name
        for folder in folders
    ]
    counts = Counter(short)
    return [
        f"{name} ({number + 1})" if counts[name] > 1 else name for number, name in enumerate(short)
    ]


def _model(evaluation: _Evaluation, folder: Path, name: str, progress: Progress) -> _Method:
    model = CaptureModel(folder, evaluation.data, evaluation.arguments.device)
    sources: Counter[str] = Counter()

    def predict(sequence: prepared.Sequence) -> NDArray[np.float32]:
        style = model.style(sequence, evaluation.arguments.style_from)
        sources[style.source] += 1
        return model.offsets(sequence, style)

    total = len(evaluation.sequences)
    results = evaluation.score(
        name, predict, lambda done: progress(name, done, total, "sequences", None)
    )
    facts: dict[str, Any] = {
        "kind": "checkpoint",
        "preset": model.preset,
        "model_fingerprint": model.fingerprint,
        "parameters": model.num_parameters,
        "device": str(model.device),
        "style_from": dict(sources),
        "real_time_factor": model.seconds_taken / model.seconds_of_sound,
        "peak_memory_mb": model.peak_memory_mb,
    }
    facts["diversity"] = _diversity(evaluation, model)
    return _Method(results, facts)


def _diversity(evaluation: _Evaluation, model: CaptureModel) -> float | None:
    """Diversity of a few sentences in the styles of clips of several subjects."""
    clips: dict[str, prepared.Sequence] = {}
    for one in [*evaluation.data.split("train"), *evaluation.sequences]:
        clips.setdefault(one.subject, one)
    styles = [model.style_of(one) for one in list(clips.values())[:_DIVERSE_STYLES]]
    some = evaluation.sequences[:_DIVERSE_SEQUENCES]
    return diversity(
        lambda number, style: model.offsets(some[number], styles[style]),
        len(some),
        len(styles),
        evaluation.context,
    )


def _baselines(evaluation: _Evaluation, progress: Progress) -> list[_Method]:
    made: dict[str, Baseline] = {"neutral face": neutral_face(evaluation.data)}
    training = evaluation.data.split("train")
    if training:
        made["mean motion"] = mean_motion(evaluation.data, training)
        made["nearest audio"] = nearest_audio(evaluation.data, training)
    total = len(evaluation.sequences)
    methods = []
    for name, predict in made.items():

        def tell(done: int, name: str = name) -> None:
            progress(name, done, total, "sequences", None)

        methods.append(_Method(evaluation.score(name, predict, tell), {"kind": "baseline"}))
    return methods


def _report(evaluation: _Evaluation, methods: Sequence[_Method]) -> dict[str, Any]:
    first = methods[0].results
    squared = f"{evaluation.data.manifest.units}²"
    units = {"length": evaluation.context.length_unit, "square": squared}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "protocol": {"identity": evaluation.protocol.identity, **asdict(evaluation.protocol)},
        "regions_from": evaluation.context.regions.source,
        "readable_mm": READABLE_MM,
        "metrics": {
            name: {**asdict(metric), "unit": units.get(metric.unit, metric.unit)}
            for name, metric in METRICS.items()
        },
        "methods": [
            {
                "name": method.results.name,
                **method.facts,
                "metrics": _as_json(
                    pooled(method.results, evaluation.frames, by_frame=evaluation.by_frame)
                ),
                "slcc": asdict(
                    pooled_speech_lip_correlation(evaluation.loudness, method.results.intensity)
                ),
                "style_retrieval": evaluation.retrieval(method.results),
            }
            for method in methods
        ],
        "truth": {
            "slcc": asdict(
                pooled_speech_lip_correlation(evaluation.loudness, evaluation.reference.intensity)
            ),
            "style_retrieval": evaluation.retrieval(evaluation.reference),
        },
        "paired": [
            {
                "first": first.name,
                "second": other.results.name,
                "second_minus_first": _as_json(
                    differences(
                        first, other.results, evaluation.frames, by_frame=evaluation.by_frame
                    )
                ),
            }
            for other in methods[1:]
        ],
        "sequences": [
            {
                "name": one.name,
                "subject": one.subject,
                "frames": one.num_frames,
                "metrics": {
                    method.results.name: {
                        metric: _number(values[number])
                        for metric, values in method.results.metrics.items()
                    }
                    for method in methods
                },
            }
            for number, one in enumerate(evaluation.sequences)
        ],
    }


def _as_json(metrics: dict[str, PooledMetric]) -> dict[str, dict[str, Any]]:
    return {name: asdict(value) for name, value in metrics.items()}


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _curves(evaluation: _Evaluation, methods: Sequence[_Method]) -> dict[str, NDArray[np.float64]]:
    """Lip distance over time by method, of the sequence with the median error; for the plot."""
    order = np.argsort(methods[0].results.metrics["lve"])
    middle = int(order[len(order) // 2])
    curves = {"truth": evaluation.reference.lip_distance[middle]}
    curves |= {method.results.name: method.results.lip_distance[middle] for method in methods}
    return {name: curve for name, curve in curves.items() if len(curve)}
