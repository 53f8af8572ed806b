# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges checkpoints on captured faces: the field's metrics, intervals, baselines, peers.

All methods speak the same sequences under one protocol, so their differences are paired.
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
    Figure,
    Gallery,
    Judged,
    Scene,
    differences,
    diversity,
    pooled,
    signature,
    speech_lip_figure,
)

FORMAT: Final = "ptalker-capture-evaluation"
FORMAT_VERSION: Final = 1
_GALLERY_CLIPS: Final = 12
_DIVERSE_SEQUENCES: Final = 4
_DIVERSE_STYLES: Final = 4

Progress = Callable[[str, float, float, str, float | None], None]
"""Called with what is done, how much of how much, the unit, and seconds left (None unknown)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureArguments:
    """What the command line says.

    Attributes:
        checkpoints: Folders of the models; the first is the one the others are compared with.
        data: The prepared set.
        split: Which of its sequences.
        protocol: Name of the rules.
        regions: JSON file with regions; None takes the topology's.
        style_from: Where models take a subject's style from.
        device: Of the models.
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
class _Entry:
    """A method with all that is known of it."""

    judged: Judged
    facts: dict[str, Any] = field(default_factory=dict)


class _Evaluation:
    """Sequences of a split, where they are measured, and their truth."""

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
        self.scene = _scene(self.data, regions)
        self.loudness = [
            float(np.sqrt(np.mean(self.data.samples(one) ** 2))) for one in self.sequences
        ]
        self.reference = self.judge("truth", self.data.offsets, lambda done: None)
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
        """Face at rest ``(V, 3)`` and true vertices ``(T, V, 3)``.

        Raises:
            UserError: They hold something that is no number.
        """
        template = self.data.template(sequence.subject)
        vertices = template + self.data.offsets(sequence)
        if not np.isfinite(vertices).all():
            raise UserError(
                f"The captured motion {sequence.name} in {self.data.folder} holds positions that "
                "are not numbers. Prepare the data set again."
            )
        return template, vertices

    def judge(self, name: str, answer: Baseline, tell: Callable[[int], None]) -> Judged:
        """What an answer to each sequence is worth."""
        judged = Judged(name)
        for number, one in enumerate(self.sequences):
            template, vertices = self.truth(one)
            judged.add(template + answer(one), vertices, template, self.scene)
            tell(number + 1)
        return judged

    def _gallery(self) -> Gallery:
        """Real clips of the subjects, of training first."""
        wanted = {one.subject for one in self.sequences}
        clips: dict[str, list[prepared.Sequence]] = {}
        order = [*self.data.split("train"), *self.sequences]
        for one in {clip.name: clip for clip in order}.values():
            if one.subject in wanted and len(clips.setdefault(one.subject, [])) < _GALLERY_CLIPS:
                clips[one.subject].append(one)
        chosen = [clip for subject in sorted(clips) for clip in clips[subject]]
        return Gallery(
            np.stack([signature(self.data.offsets(clip), self.scene) for clip in chosen]),
            tuple(clip.subject for clip in chosen),
            tuple(clip.name for clip in chosen),
        )

    def retrieval(self, judged: Judged) -> dict[str, float] | None:
        """Style retrieval; None where there are too few clips."""
        if not self.gallery.is_usable:
            return None
        return self.gallery.retrieval(
            judged.signatures,
            [one.subject for one in self.sequences],
            [one.name for one in self.sequences],
        )


def _scene(data: PreparedSet, regions: Regions) -> Scene:
    manifest = data.manifest
    frame = frame_of(data)
    return Scene(
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
    """Evaluates as the command line says.

    Args:
        arguments: From the command line.
        progress: Told as the work goes on.

    Returns:
        The report, as ``report.json`` holds it. The folder ``out`` also gets ``report.md`` and,
        where Matplotlib is installed, plots.

    Raises:
        UserError: Something does not fit or is not there; one sentence says what.
    """
    work = _Evaluation(arguments)
    names = _names(arguments.checkpoints)
    entries = [
        _model(work, folder, name, progress)
        for folder, name in zip(arguments.checkpoints, names, strict=True)
    ]
    entries += _baselines(work, progress)
    report = _report(work, entries)
    if arguments.out is not None:
        write_report(arguments.out, report, _curves(work, entries))
    return report


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names: of the run, where a folder is its ``checkpoint``; numbered if need be."""
    short = [
        folder.resolve().parent.name if folder.name == "checkpoint" else folder.name
        for folder in folders
    ]
    counts = Counter(short)
    return [
        f"{name} ({number + 1})" if counts[name] > 1 else name for number, name in enumerate(short)
    ]


def _model(work: _Evaluation, folder: Path, name: str, progress: Progress) -> _Entry:
    model = CaptureModel(folder, work.data, work.arguments.device)
    sources: Counter[str] = Counter()

    def answer(sequence: prepared.Sequence) -> NDArray[np.float32]:
        style = model.style(sequence, work.arguments.style_from)
        sources[style.source] += 1
        return model.offsets(sequence, style)

    total = len(work.sequences)
    judged = work.judge(name, answer, lambda done: progress(name, done, total, "sequences", None))
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
    facts["diversity"] = _diversity(work, model)
    return _Entry(judged, facts)


def _diversity(work: _Evaluation, model: CaptureModel) -> float | None:
    """One clip of each of some subjects lends its style to some sentences."""
    clips: dict[str, prepared.Sequence] = {}
    for one in [*work.data.split("train"), *work.sequences]:
        clips.setdefault(one.subject, one)
    styles = [model.style_of(one) for one in list(clips.values())[:_DIVERSE_STYLES]]
    some = work.sequences[:_DIVERSE_SEQUENCES]
    return diversity(
        lambda number, style: model.offsets(some[number], styles[style]),
        len(some),
        len(styles),
        work.scene,
    )


def _baselines(work: _Evaluation, progress: Progress) -> list[_Entry]:
    made: dict[str, Baseline] = {"neutral face": neutral_face(work.data)}
    training = work.data.split("train")
    if training:
        made["mean motion"] = mean_motion(work.data, training)
        made["nearest audio"] = nearest_audio(work.data, training)
    total = len(work.sequences)
    entries = []
    for name, answer in made.items():

        def tell(done: int, name: str = name) -> None:
            progress(name, done, total, "sequences", None)

        entries.append(_Entry(work.judge(name, answer, tell), {"kind": "baseline"}))
    return entries


def _report(work: _Evaluation, entries: Sequence[_Entry]) -> dict[str, Any]:
    first = entries[0].judged
    squared = f"{work.data.manifest.units}²"
    units = {"length": work.scene.length_unit, "square": squared}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "protocol": {"identity": work.protocol.identity, **asdict(work.protocol)},
        "regions_from": work.scene.regions.source,
        "readable_mm": READABLE_MM,
        "metrics": {
            name: {**asdict(metric), "unit": units.get(metric.unit, metric.unit)}
            for name, metric in METRICS.items()
        },
        "methods": [
            {
                "name": entry.judged.name,
                **entry.facts,
                "figures": _as_json(pooled(entry.judged, work.frames, by_frame=work.by_frame)),
                "slcc": asdict(speech_lip_figure(work.loudness, entry.judged.intensity)),
                "style_retrieval": work.retrieval(entry.judged),
            }
            for entry in entries
        ],
        "truth": {
            "slcc": asdict(speech_lip_figure(work.loudness, work.reference.intensity)),
            "style_retrieval": work.retrieval(work.reference),
        },
        "paired": [
            {
                "first": first.name,
                "second": other.judged.name,
                "second_minus_first": _as_json(
                    differences(first, other.judged, work.frames, by_frame=work.by_frame)
                ),
            }
            for other in entries[1:]
        ],
        "sequences": [
            {
                "name": one.name,
                "subject": one.subject,
                "frames": one.num_frames,
                "figures": {
                    entry.judged.name: {
                        metric: _number(values[number])
                        for metric, values in entry.judged.figures.items()
                    }
                    for entry in entries
                },
            }
            for number, one in enumerate(work.sequences)
        ],
    }


def _as_json(figures: dict[str, Figure]) -> dict[str, dict[str, Any]]:
    return {name: asdict(figure) for name, figure in figures.items()}


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _curves(work: _Evaluation, entries: Sequence[_Entry]) -> dict[str, NDArray[np.float64]]:
    """Lip distance over time of a sequence of middling error, by method; for the plot."""
    order = np.argsort(entries[0].judged.figures["lve"])
    middle = int(order[len(order) // 2])
    curves = {"truth": work.reference.lip_distance[middle]}
    curves |= {entry.judged.name: entry.judged.lip_distance[middle] for entry in entries}
    return {name: curve for name, curve in curves.items() if len(curve)}
