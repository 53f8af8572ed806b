# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs from files to files, one request at a time; lists of them are in job_lists.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from backend import motion, version
from backend.audio.load import SILENT, Sound, read_sound
from backend.bundled import checkpoint_folder
from backend.errors import Cancelled, UserError
from backend.heads.find_face_points import identify_or_find
from backend.heads.mesh_files import read_face_points, read_head
from backend.heads.topology import Head
from backend.inference.devices import limit_threads
from backend.inference.predictor import Predictor, Style
from backend.inference.style_files import StyleCode, read_exemplar, read_style, write_style
from backend.service.progress import ProgressEstimate
from backend.service.protocol import GenerateRequest, StyleRequest
from backend.service.requests import check, check_style_request
from backend.stages import Stage


class ProgressReporter(Protocol):
    """What a job says while it runs."""

    def status(self, text: str) -> None:
        """Say what the job is doing."""

    def warn(self, text: str) -> None:
        """Say what the user should know."""

    def progress(
        self, stage: str, done: float, total: float, unit: str, seconds_left: float | None
    ) -> None:
        """Say how far the stage is, and when the job will be done."""

    def is_cancelled(self) -> bool:
        """Whether the job is to stop."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a generate request names, read."""

    request: GenerateRequest
    sound: Sound
    head: Head
    read_seconds: float
    warnings: tuple[str, ...] = ()


class Worker:
    """Does jobs; keeps models loaded between them."""

    def __init__(self, *, listeners: int | None = None) -> None:
        self._predictors: dict[tuple[Path, str], Predictor] = {}
        self._estimate = ProgressEstimate()
        self._listeners = listeners

    def predictor(self, checkpoint: str, device: str) -> Predictor:
        """The model of a checkpoint, loaded unless it is loaded already; only one is kept.

        Raises:
            UserError: There is no such checkpoint or device, or it is damaged.
        """
        folder = checkpoint_folder(checkpoint)
        key = (folder.resolve(), device)
        if key not in self._predictors:
            self.close()
            self._predictors.clear()
            predictor = Predictor(folder, device, listeners=self._listeners)
            limit_threads(predictor.num_parameters)
            self._predictors[key] = predictor
        return self._predictors[key]

    def close(self) -> None:
        """End the processes that listen."""
        for predictor in self._predictors.values():
            predictor.close()

    def run(
        self, request: GenerateRequest | StyleRequest, reporter: ProgressReporter
    ) -> dict[str, object]:
        """Do one job.

        Returns:
            Its report, which JSON can hold.

        Raises:
            UserError: It failed for a reason that the user can act on.
            Cancelled: ``reporter.is_cancelled`` said so.
        """
        if isinstance(request, StyleRequest):
            return self._make_style(request, reporter)
        check(request)
        reporter.status(Stage.READING_SOUND)
        return self.animate(read_inputs(request, reporter.is_cancelled), reporter)

    def animate(
        self,
        inputs: Inputs,
        reporter: ProgressReporter,
        *,
        estimate: ProgressEstimate | None = None,
        key: str = "",
    ) -> dict[str, object]:
        """The rest of a generate job, once its inputs are read; raises as `run`.

        Args:
            inputs: What was read.
            reporter: Hears of it.
            estimate: Of this job alone, where several run at once.
            key: Goes into the report, to know the result by.
        """
        request, sound, estimate = inputs.request, inputs.sound, estimate or self._estimate
        started = time.monotonic()
        warnings = [*sound.warnings, *inputs.warnings]
        if SILENT in warnings:
            raise UserError(SILENT)
        asked = request.duration_seconds
        if asked is not None and asked > sound.seconds + 0.1:
            warnings.append(
                f"The sound ends {asked - sound.seconds:.1f} s before the end that was asked for."
            )
        for text in warnings:
            reporter.warn(text)
        reporter.status(Stage.LOADING_MODEL)
        predictor = self.predictor(request.checkpoint, request.device)
        estimate.start(sound.seconds, with_words=request.listen != "sound")
        fps = Fraction(request.fps_numerator, request.fps_denominator)

        def progress(stage: str, done: float, total: float, unit: str) -> None:
            left = estimate.seconds_left(stage, done, total)
            reporter.progress(stage, done, total, unit, left)

        def warn(text: str) -> None:
            if not ("silent" in text and any("silent" in other for other in warnings)):
                warnings.append(text)
                reporter.warn(text)

        result = predictor.predict(
            sound.samples,
            sound.sample_rate_hz,
            inputs.head,
            fps=fps,
            num_frames=motion.num_frames(_seconds(request, sound), fps),
            style=_style(predictor, request.style, warn),
            style_strength=request.style_strength,
            listen=request.listen,
            text=request.text,
            decoder=request.decoder,
            start_seconds=request.start_seconds,
            progress=progress,
            warn=warn,
            is_cancelled=reporter.is_cancelled,
        )
        seconds = time.monotonic() - started + inputs.read_seconds
        result.report.update(
            {
                "version": version(),
                "checkpoint": request.checkpoint,
                "audio": request.audio,
                "style": request.style,
                "seconds_taken": round(seconds, 3),
                "real_time_factor": round(seconds / sound.seconds, 4),
                "warnings": warnings,
                **({"key": key} if key else {}),
            }
        )
        if reporter.is_cancelled():
            raise Cancelled
        reporter.status(Stage.WRITING_MOTION)
        motion.write(Path(request.out), result)
        estimate.finish()
        return result.report

    def _make_style(self, request: StyleRequest, reporter: ProgressReporter) -> dict[str, object]:
        check_style_request(request)
        reporter.status(Stage.READING_EXEMPLAR)
        exemplar = read_exemplar(Path(request.exemplar))
        predictor = self.predictor(request.checkpoint, request.device)
        warnings: list[str] = []
        style = predictor.exemplar_style(exemplar, warnings.append)
        for text in warnings:
            reporter.warn(text)
        if reporter.is_cancelled():
            raise Cancelled
        source = Path(request.exemplar).name
        write_style(Path(request.out), StyleCode(style.code, predictor.fingerprint, source))
        seconds = len(exemplar.offsets) / exemplar.fps
        return {"exemplar": source, "exemplar_seconds": round(seconds, 3), "warnings": warnings}


def read_inputs(request: GenerateRequest, is_cancelled: Callable[[], bool]) -> Inputs:
    """Read the head and the sound of a request that was checked."""
    started = time.monotonic()
    mesh = read_head(request.head)
    points = read_face_points(request.head)
    head, warning = identify_or_find(mesh, topology=request.topology, face_points=points)
    sound = read_sound(
        request.audio,
        start_seconds=request.start_seconds,
        duration_seconds=request.duration_seconds,
        gain=request.gain,
        is_cancelled=is_cancelled,
    )
    warnings = (warning,) if warning else ()
    return Inputs(request, sound, head, time.monotonic() - started, warnings)


def _seconds(request: GenerateRequest, sound: Sound) -> float:
    """Length to animate: what was asked for, unless the file ends before."""
    if request.duration_seconds is None or request.duration_seconds > sound.seconds + 0.001:
        return sound.seconds
    return request.duration_seconds


def _style(predictor: Predictor, name: str, warn: Callable[[str], None]) -> Style | None:
    """The style a request names; None is neutral."""
    suffix = Path(name).suffix.lower()
    if suffix == ".npz":
        return predictor.exemplar_style(read_exemplar(Path(name)), warn)
    if suffix == ".json":
        read = read_style(Path(name))
        return predictor.style_from_code(read.code, read.model)
    return predictor.named_style(name)
