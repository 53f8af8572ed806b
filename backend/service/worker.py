# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker: does what a request asks for, from files to files, and keeps the model loaded."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Protocol

from backend import io, motion, version
from backend.articulation.emotion import STYLE_EXPRESSIONS
from backend.audio.load import SILENT, Sound, file_seconds, read_sound
from backend.bundled import checkpoint_folder
from backend.errors import Cancelled, UserError
from backend.heads.find_face_points import FoundPoints, find_face_points, identify_or_find
from backend.heads.mesh_files import read_face_points, read_head, read_object_sizes
from backend.heads.shape_checks import check_before
from backend.heads.topology import Head
from backend.inference.emotion_layer import Emotion, parse_emotion
from backend.inference.engine_choice import EngineChoice
from backend.inference.predictor import Predictor, open_predictor
from backend.inference.style_files import StyleCode, read_exemplar, read_style, write_style
from backend.life.layers import LifeAmounts
from backend.service.options import GenerateOptions
from backend.service.progress import ProgressEstimate
from backend.service.protocol import (
    FacePointsRequest,
    GenerateRequest,
    JobRequest,
    StyleRequest,
)
from backend.service.requests import check, check_face_points_request, check_style_request
from backend.stages import Stage

_MARGIN_SECONDS: Final = 1.0
"""How much of the file is heard to either side of what is animated: a cut breaks words."""
_RETIMED_SECONDS: Final = 0.25
_RETIMED_SHARE: Final = 0.005


class ProgressReporter(Protocol):
    """Receives the messages of a running job, and says whether it is to stop."""

    def status(self, text: str) -> None:
        """Report what the job is doing."""

    def warn(self, text: str) -> None:
        """Report what the user should know."""

    def progress(
        self, stage: str, done: float, total: float, unit: str, seconds_left: float | None
    ) -> None:
        """Report how far the stage is.

        Args:
            stage: What the job is doing.
            done: Work done in the stage.
            total: All work of the stage.
            unit: Unit of ``done`` and ``total``.
            seconds_left: Estimate for the whole job; None while unknown.
        """

    def is_cancelled(self) -> bool:
        """Whether the job is to stop."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files of a generate request, read.

    Attributes:
        request: The request, checked.
        sound: Sound to animate to.
        head: Head to animate.
        read_seconds: Time that reading took.
        found_points: The head's face points, where they had to be found.
        notes: What may look wrong on this head.
    """

    request: GenerateRequest
    sound: Sound
    head: Head
    read_seconds: float
    found_points: FoundPoints | None = None
    notes: tuple[str, ...] = ()


class Worker:
    """Does jobs one after the other and keeps the last model loaded."""

    def __init__(self) -> None:
        """Prepare a worker; it loads a model with its first job."""
        self._predictors: dict[tuple[object, ...], tuple[Predictor, tuple[str, ...]]] = {}
        self._loading = threading.Lock()  # jobs of a list run in threads
        self._estimate = ProgressEstimate()

    def predictor(
        self,
        checkpoint: str,
        engine: EngineChoice,
        device: str,
        *,
        decoder: str = "parallel",
        warn: Callable[[str], None] = lambda _text: None,
    ) -> Predictor:
        """Load a checkpoint, unless it is loaded already; only one is kept.

        Args:
            checkpoint: Name of a bundled checkpoint, or a checkpoint folder.
            engine: One of the choices of the option ``engine``.
            device: One of the choices of the option ``device``.
            decoder: How is to be decoded, which not every engine can.
            warn: Called with what the user should know of the choice of an engine.

        Returns:
            The model, ready to use.

        Raises:
            UserError: There is no such checkpoint or device, or it is damaged.
        """
        folder = checkpoint_folder(checkpoint)
        key = (folder.resolve(), engine, device, decoder)
        with self._loading:
            if key not in self._predictors:
                self.close()
                said: list[str] = []
                predictor = open_predictor(
                    folder, engine, device, decoder=decoder, warn=said.append
                )
                self._predictors[key] = predictor, tuple(said)
            predictor, warnings = self._predictors[key]
        for text in warnings:
            warn(text)
        return predictor

    def close(self) -> None:
        """End what the loaded model runs in the background."""
        for predictor, _ in self._predictors.values():
            predictor.close()
        self._predictors.clear()

    def run(self, request: JobRequest, reporter: ProgressReporter) -> dict[str, object]:
        """Do one job.

        Args:
            request: What to do.
            reporter: Receives the job's messages.

        Returns:
            Report of the job, which JSON can hold.

        Raises:
            UserError: It failed for a reason that the user can act on.
            Cancelled: ``reporter.is_cancelled`` said so.
        """
        if isinstance(request, StyleRequest):
            return self._make_style(request, reporter)
        if isinstance(request, FacePointsRequest):
            return _find_face_points(request, reporter)
        check(request)
        reporter.status(Stage.READING_SOUND)
        inputs = read_inputs(request, reporter.is_cancelled, progress=_FindingProgress(reporter))
        return self.animate(inputs, reporter)

    def animate(
        self,
        inputs: Inputs,
        reporter: ProgressReporter,
        *,
        estimate: ProgressEstimate | None = None,
        key: str = "",
    ) -> dict[str, object]:
        """Do a generate job whose inputs are read; raises as `run`.

        Args:
            inputs: Files of the request, read.
            reporter: Receives the job's messages.
            estimate: Progress estimate of this job alone, where several run at once.
            key: Key by which a list of jobs recognises the result; goes into the report.

        Returns:
            Report of the job, which JSON can hold.
        """
        request, sound, estimate = inputs.request, inputs.sound, estimate or self._estimate
        started = time.monotonic()
        if sound.is_silent:
            raise UserError(SILENT)
        warnings: list[str] = [*sound.warnings, *inputs.notes]
        found = inputs.found_points
        if found is not None and (text := found.warning(of_the_face=True)):
            warnings.append(text)
        asked = _asked_seconds(request)
        if asked is not None and asked > sound.seconds + 0.1:
            warnings.append(
                f"The sound ends {asked - sound.seconds:.1f} s before the end that was asked for."
            )
        for text in warnings:
            reporter.warn(text)
        reporter.status(Stage.LOADING_MODEL)
        options = request.options
        estimate.start(sound.seconds, with_words=options.listen != "sound")

        def progress(stage: str, done: float, total: float, unit: str) -> None:
            left = estimate.seconds_left(stage, done, total)
            reporter.progress(stage, done, total, unit, left)

        def warn(text: str) -> None:
            if text not in warnings:
                warnings.append(text)
                reporter.warn(text)

        predictor = self.predictor(
            options.checkpoint, options.engine, options.device, decoder=options.decoder, warn=warn
        )
        result = predictor.predict(
            sound.samples,
            sound.sample_rate_hz,
            inputs.head,
            fps=_frame_rate(request),
            num_frames=_num_frames(request, sound),
            style=_style(predictor, request, warn),
            style_strength=options.style_strength,
            upper_face_strength=options.upper_face_strength,
            listen=options.listen,
            text=options.text,
            language=options.language,
            decoder=options.decoder,
            start_seconds=request.start_seconds,
            lead_seconds=sound.lead_seconds,
            life=_life(options),
            emotion=_emotion(request),
            progress=progress,
            warn=warn,
            is_cancelled=reporter.is_cancelled,
        )
        seconds = time.monotonic() - started + inputs.read_seconds
        result.report.update(
            {
                "version": version(),
                "checkpoint": options.checkpoint,
                "audio": request.audio,
                "audio_seconds": round(sound.seconds, 3),
                "style": request.style.value or request.style.kind,
                "seconds_taken": round(seconds, 3),
                "real_time_factor": round(seconds / sound.seconds, 4),
                "warnings": warnings,
                **({"key": key} if key else {}),
                **(found.as_report() if found is not None else {}),
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
        warnings: list[str] = []
        predictor = self.predictor(
            request.checkpoint, request.engine, request.device, warn=warnings.append
        )
        neutral_frame = _neutral_frame(request.exemplar_neutral)
        style = predictor.exemplar_style(exemplar, warnings.append, neutral_frame)
        for text in warnings:
            reporter.warn(text)
        if reporter.is_cancelled():
            raise Cancelled
        source = Path(request.exemplar).name
        write_style(Path(request.out), replace(style, source=source))
        seconds = len(exemplar) / exemplar.fps
        return {"exemplar": source, "exemplar_seconds": round(seconds, 3), "warnings": warnings}


class _FindingProgress:
    """Reports how far the search for face points is, and stops it when the job is cancelled."""

    def __init__(self, reporter: ProgressReporter) -> None:
        self._reporter = reporter

    def __call__(self, done: float, total: float) -> None:
        if self._reporter.is_cancelled():
            raise Cancelled
        self._reporter.progress(Stage.FINDING_FACE_POINTS, done, total, "steps", None)


def _find_face_points(request: FacePointsRequest, reporter: ProgressReporter) -> dict[str, object]:
    """Find the face points of a head and write them; the report holds them too."""
    check_face_points_request(request)
    reporter.status(Stage.FINDING_FACE_POINTS)
    mesh, marked = read_head(request.head), read_face_points(request.head)
    found = find_face_points(mesh, progress=_FindingProgress(reporter))
    found = found.keeping(marked or {}, mesh)
    io.write_text(Path(request.out), json.dumps(found.as_json(), indent=1) + "\n")
    return {**found.as_report(), "seconds": round(found.seconds, 3), "warnings": []}


def read_inputs(
    request: GenerateRequest,
    is_cancelled: Callable[[], bool],
    *,
    progress: Callable[[float, float], None] | None = None,
) -> Inputs:
    """Read the head and the sound of a request.

    Args:
        request: The request, checked.
        is_cancelled: Whether the job is to stop; called between blocks of sound.
        progress: Called with the steps done and their number, where face points are looked for.

    Returns:
        Head and sound.

    Raises:
        UserError: A file is missing or cannot be used.
        Cancelled: ``is_cancelled`` returned true.
    """
    started = time.monotonic()
    mesh = read_head(request.head)
    points = read_face_points(request.head)
    num_own = int(read_object_sizes(request.head, len(mesh[0]))[0])
    head, found = identify_or_find(
        mesh,
        topology=request.options.topology,
        face_points=points,
        num_own=num_own,
        progress=progress,
    )
    # A head that cannot speak is refused before listening.
    notes = tuple(check_before(head)) if head.topology.name == "custom" else ()
    sound = read_sound(
        request.audio,
        start_seconds=request.start_seconds,
        duration_seconds=_asked_seconds(request),
        gain=request.gain,
        fade=request.fade,
        margin_seconds=_MARGIN_SECONDS,
        is_cancelled=is_cancelled,
    )
    _check_speed(request, is_cancelled)
    return Inputs(request, sound, head, time.monotonic() - started, found, notes)


def _check_speed(request: GenerateRequest, is_cancelled: Callable[[], bool]) -> None:
    """Refuse a strip that is longer or shorter than its file, where Blender cannot tell why."""
    if request.file_seconds is None:
        return
    missing = abs(file_seconds(request.audio, is_cancelled) - request.file_seconds)
    if missing > max(_RETIMED_SECONDS, _RETIMED_SHARE * request.file_seconds):
        raise UserError(
            "The speed of the strip was changed, and this Blender does not tell how. Mix it down "
            "to a file (Render > Render Audio) and use that."
        )


def _life(options: GenerateOptions) -> LifeAmounts:
    """What the options say of blinks, gaze, brows, head and breath."""
    names = (entry.name for entry in fields(LifeAmounts))
    return LifeAmounts(**{name: getattr(options, name) for name in names})


def _emotion(request: GenerateRequest) -> Emotion:
    """What the options ask for, and what the named style shows beside its way of speaking."""
    options, always = request.options, {}
    if request.style.kind == "named":
        posture = STYLE_EXPRESSIONS.get(request.style.value, {})
        always = {name: options.style_strength * amount for name, amount in posture.items()}
    return Emotion(parse_emotion(options.emotion), always, options.emotion_from_voice)


def _frame_rate(request: GenerateRequest) -> Fraction:
    return Fraction(request.fps_numerator, request.fps_denominator)


def _asked_seconds(request: GenerateRequest) -> float | None:
    """Length of the sound to animate; None means up to the file's end."""
    if request.num_frames is None:
        return None
    return float(request.num_frames / _frame_rate(request))


def _num_frames(request: GenerateRequest, sound: Sound) -> int:
    """Number of frames to animate: what was asked for, unless the file ends before."""
    available = motion.num_frames(sound.seconds, _frame_rate(request))
    return available if request.num_frames is None else min(available, request.num_frames)


def _neutral_frame(option: int) -> int | None:
    return None if option < 0 else option


def _style(
    predictor: Predictor, request: GenerateRequest, warn: Callable[[str], None]
) -> StyleCode | None:
    """The style that a request names; None is neutral."""
    source = request.style
    if source.kind == "neutral":
        return None
    if source.kind == "named":
        return predictor.named_style(source.value)
    if source.kind == "exemplar":
        neutral_frame = _neutral_frame(request.options.exemplar_neutral)
        return predictor.exemplar_style(read_exemplar(Path(source.value)), warn, neutral_frame)
    return predictor.checked_style(read_style(Path(source.value)))
