# SPDX-License-Identifier: GPL-3.0-or-later
"""Predictor: turns sound, head and style into motion by an engine. It writes no file."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend import motion
from backend.articulation.variant_offsets import add_variants
from backend.audio.features import stacked_log_mel
from backend.audio.load import resample
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.audio.segmentation import soften_bursts
from backend.errors import UserError, excerpt
from backend.heads.lip_measures import lip_curves
from backend.heads.topology import Head, face_frame
from backend.inference.curve_files import Curves
from backend.inference.emotion_layer import Emotion, add_emotion
from backend.inference.engine import Engine
from backend.inference.engine_choice import EngineChoice, open_engine
from backend.inference.exemplar_style import style_of_exemplar
from backend.inference.shapes_for_head import HeadShapes
from backend.inference.style_files import Exemplar, StyleCode, read_presets
from backend.inference.style_gains import LipCurves
from backend.life.layers import UPPER_FACE, LifeAmounts, add_life
from backend.speech import foreign_text, recognition
from backend.speech.held_sounds import extend_held_sounds
from backend.speech.languages import ENGLISH, LANGUAGES, spoken_language
from backend.speech.moonshine_phones import can_recognise, empty_transcript, fill_gaps
from backend.speech.phones import SILENCE, phone_frames
from backend.speech.speech_presence import NOBODY
from backend.speech.transcript import Transcript, doubtful_words
from backend.stages import Stage

NEUTRAL: Final = "neutral"
TOLERANCE_MM: Final = 0.01
"""Largest vertex error of learned shapes that are left out."""
_PAUSE_EDGE_SECONDS: Final = 1.0
"""So near to speech a pause is heard as it is: breaths and laughter belong to the speech."""

ProgressCall = Callable[[str, float, float, str], None]
_ENGLISH_ALONE: Final = (
    "Words are recognised in English alone. Give the spoken words, or set Listen to Sound Only."
)
_WORDLESS: Final = "This model goes by the sound alone; the words are not used."


class Predictor:
    """Animates heads with one checkpoint.

    Attributes:
        engine: The checkpoint, loaded.
    """

    engine: Engine

    def __init__(self, engine: Engine, folder: Path) -> None:
        """Prepare.

        Args:
            engine: The checkpoint, loaded.
            folder: The checkpoint, for its table of styles.

        Raises:
            UserError: The table of styles is damaged.
        """
        self.engine = engine
        self._config = engine.config
        self._presets = read_presets(folder / "styles.json", self._config.style_dim)
        self._shapes = HeadShapes(self._config, engine.learned_shapes)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the checkpoint's parameters; style codes are tied to it."""
        return self.engine.fingerprint

    def close(self) -> None:
        """End what the engine runs in the background."""
        self.engine.close()

    @property
    def style_names(self) -> tuple[str, ...]:
        """Styles to choose from: those that come with the model, else its training subjects."""
        return (NEUTRAL, *sorted({*(self._presets or self._config.speakers)} - {NEUTRAL}))

    def named_style(self, name: str) -> StyleCode | None:
        """A style of the checkpoint by its name.

        Args:
            name: One of ``style_names``.

        Returns:
            The style; None for neutral.

        Raises:
            UserError: The checkpoint has no such style.
        """
        if name == NEUTRAL:
            return None
        if name in self._presets:
            code = np.asarray(self._presets[name], np.float32)
            return StyleCode(code, self.fingerprint, name)
        if name not in self._config.speakers:
            known = excerpt(", ".join(self.style_names[:40]), 150)
            raise UserError(f'This model has no style "{excerpt(name, 60)}". It has: {known}.')
        return StyleCode(self.engine.identity_code(name), self.fingerprint, name)

    def checked_style(self, style: StyleCode) -> StyleCode:
        """A saved style, if this model can use it.

        Args:
            style: The style as it was read.

        Returns:
            The same style.

        Raises:
            UserError: The style was made with another model.
        """
        if style.model != self.fingerprint or len(style.code) != self._config.style_dim:
            raise UserError(
                "This style was made with another model. Make it again from its exemplar, or "
                "choose the checkpoint it was made with."
            )
        return style

    def exemplar_style(
        self,
        exemplar: Exemplar | Curves,
        warn: Callable[[str], None],
        neutral_frame: int | None = None,
    ) -> StyleCode:
        """The style of an animation; see `style_of_exemplar`.

        Args:
            exemplar: The animation.
            warn: Called with warnings for the user.
            neutral_frame: Frame of it in which the face is at rest; None to estimate.

        Returns:
            The style.

        Raises:
            UserError: The animation does not fit the model, or nothing moves in it.
        """
        return style_of_exemplar(
            self.engine, self._shapes, exemplar, neutral_frame=neutral_frame, warn=warn
        )

    def predict(
        self,
        samples: NDArray[np.float32],
        sample_rate_hz: int,
        head: Head,
        *,
        fps: Fraction,
        num_frames: int,
        style: StyleCode | None = None,
        style_strength: float = 1.0,
        upper_face_strength: float = 1.0,
        listen: str = "auto",
        text: str = "",
        language: str = "auto",
        decoder: str = "parallel",
        start_seconds: float = 0.0,
        lead_seconds: float = 0.0,
        life: LifeAmounts | None = None,
        emotion: Emotion | None = None,
        progress: ProgressCall,
        warn: Callable[[str], None],
        is_cancelled: Callable[[], bool],
    ) -> motion.Motion:
        """Animate a head.

        Args:
            samples: Mono sound, shape ``(n,)``.
            sample_rate_hz: Samples a second.
            head: The head to animate.
            fps: Frames a second, exact.
            num_frames: Frames to make; frame ``i`` shows the sound at ``lead_seconds + i / fps``.
            style: Style of the motion; None is neutral.
            style_strength: 0 is neutral, 1 the style, more exaggerates it.
            upper_face_strength: Part of that strength which brows and lids get.
            listen: Recognition mode: ``auto``, ``words`` or ``sound``.
            text: Words that are spoken, where they are known.
            language: Code of the spoken language, or ``auto``: that of the text, else English where
                its words are recognised.
            decoder: ``parallel`` or ``autoregressive``.
            start_seconds: Time of frame 0 in its file, for the result.
            lead_seconds: Length of what is heard, and not shown, before frame 0.
            life: Blinks, gaze, brows, head and breath; None is a usual amount of each.
            emotion: What the face shows besides; None is nothing.
            progress: Called with stage, done, total and unit.
            warn: Called with warnings for the user.
            is_cancelled: Asked several times a second whether to give up.

        Returns:
            The motion on the head.

        Raises:
            UserError: The model cannot animate this head, or there is not enough memory.
            Cancelled: ``is_cancelled`` said so.
        """
        config = self._config
        if decoder not in ("parallel", "autoregressive"):
            raise UserError(f"This model decodes {' or '.join(config.modes)}, not {decoder}.")
        if decoder not in config.modes:
            warn(f"This model cannot decode {decoder}; it does {config.modes[0]}.")
            decoder = config.modes[0]
        taken: dict[str, float] = {}
        samples = soften_bursts(resample(samples, sample_rate_hz))
        num_rows = max(1, math.ceil(len(samples) / SAMPLE_RATE_HZ * config.motion_fps))
        with _timed(taken, "features"):
            speech = self._speech_input(samples)
        has_failed = threading.Event()
        with ThreadPoolExecutor(max_workers=1) as pool:
            recognition = pool.submit(
                self._recognise, samples, speech, listen, text, language, progress,
                lambda: has_failed.is_set() or is_cancelled(),
            )  # fmt: skip
            try:
                with _timed(taken, "shapes"):
                    names, shapes = self._shapes.on(head)
                with _timed(taken, "listening"):
                    transcript = recognition.result()
            except BaseException:  # also Ctrl-C: the pool would wait for the recogniser to finish
                has_failed.set()
                raise
        for warning in (*self._shapes.warnings(head), *transcript.warnings):
            warn(warning)
        speaks = NOBODY not in transcript.warnings
        quiet = _without_pauses(samples, transcript) if speaks else np.zeros_like(samples)
        if quiet is not samples:  # the phones say so too, but of the sound a trace would be left
            speech = self._speech_input(quiet)

        def report(done: int, total: int) -> None:
            progress(Stage.ANIMATING, done / config.motion_fps, total / config.motion_fps, "s")

        brow_strength = style_strength * upper_face_strength
        with _timed(taken, "animating"):
            weights, gap_mm = self._in_style(
                partial(
                    self._generate, speech, transcript, num_rows,
                    decoder=decoder, report=report, is_cancelled=is_cancelled,
                ),
                style, style_strength, brow_strength, partial(lip_curves, shapes=shapes, head=head),
            )  # fmt: skip
            times = lead_seconds + motion.frame_seconds(num_frames, fps)
            shown = transcript.between(lead_seconds, lead_seconds + float(num_frames / fps))
            weights = motion.at_times(weights, times, rate=config.motion_fps, opening=gap_mm)
            are_phones_known = config.num_phone_ids > 1 and (transcript.phones or can_recognise())
            seen = samples[round(lead_seconds * SAMPLE_RATE_HZ) :]
            phones = shown.phones if are_phones_known else None
            layers = add_life(
                weights, config.shape_names, seen, phones=phones, fps=fps,
                amounts=life or LifeAmounts(), face_axes=face_frame(head).axes,
            )  # fmt: skip
            layers = _with_upper_face(layers, names, style, brow_strength)
            layers = add_emotion(
                layers, config.shape_names, shapes, head, emotion or Emotion(),
                samples=seen, phones=phones, fps=fps, warn=warn,
            )  # fmt: skip
            weights = layers.total()
        error_mm = 0.0
        if config.shape_kind == "learned":
            weights, shapes, error_mm = _compacted(weights, shapes, head)
            names = tuple(map(motion.LEARNED_SHAPE_NAME.format, range(1, len(shapes) + 1)))
            layers = layers.of_speech_alone(weights)
        if speaks and float(np.ptp(gap_mm)) < 1.0 and np.abs(samples).max() > 0.01:
            warn("The lips hardly move: is there speech in this sound?")
        return motion.Motion(
            weights=weights,
            shapes=shapes,
            names=names,
            template=head.vertices.astype(np.float32),
            fps=fps,
            start_seconds=start_seconds,
            report={
                "model": config.preset,
                "model_fingerprint": self.fingerprint,
                "engine": self.engine.name,
                "device": self.engine.device,
                "decoder": decoder,
                "listen": transcript.mode,
                "language": _told_language(spoken_language(text, language), transcript),
                "nobody_speaks": not speaks,
                "doubtful_words": doubtful_words(shown)[:200],
                "words": " ".join(word.text for word in shown.words)[:10_000],
                "style_strength": style_strength,
                "upper_face_strength": upper_face_strength,
                "topology": head.topology.name,
                "audio_seconds": round(len(samples) / SAMPLE_RATE_HZ, 3),
                "num_frames": num_frames,
                "num_shapes": len(names),
                "largest_vertex_error_mm": round(error_mm, 5),
                "seconds_by_stage": {name: round(value, 3) for name, value in taken.items()},
            },
            layers=layers,
        )

    def _recognise(
        self,
        samples: NDArray[np.float32],
        speech: NDArray[np.float32],
        listen: str,
        text: str,
        language: str,
        progress: ProgressCall,
        is_cancelled: Callable[[], bool],
    ) -> Transcript:
        """Words and phones in a recognition mode; none for a model without phone ids."""
        if self._config.num_phone_ids == 1:
            is_odd = listen == "words" or (listen != "sound" and bool(text.strip()))
            return Transcript((), (), (_WORDLESS,) if is_odd else (), "sound")

        def report(done: float, total: float) -> None:
            progress(Stage.RECOGNISING_WORDS, done, total, "s")

        log_posteriors = None
        if self._config.speech.kind != "hubert" and (listen != "sound" or can_recognise()):
            log_posteriors = self.engine.hear(speech, is_cancelled)
        listening = _Listening(samples, log_posteriors, report, is_cancelled)
        try:
            transcript = listening.transcript(listen, text, spoken_language(text, language))
        except UserError as error:
            if listen == "words" or text.strip():
                raise
            transcript = empty_transcript(samples, str(error))
        filled = fill_gaps(
            samples,
            transcript,
            log_posteriors,
            partial(progress, Stage.RECOGNISING_SOUNDS),
            is_cancelled,
        )
        return extend_held_sounds(samples, filled)

    def _speech_input(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return samples if self._config.speech.kind == "hubert" else stacked_log_mel(samples)

    def _code(self, style: StyleCode | None, strength: float) -> NDArray[np.float32]:
        neutral = self.engine.neutral_code
        return neutral if style is None else neutral + np.float32(strength) * (style.code - neutral)

    def _in_style(
        self,
        generate: Callable[..., NDArray[np.float32]],
        style: StyleCode | None,
        strength: float,
        brow_strength: float,
        lips: LipCurves,
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Weights in a style, brows and lids with a strength of their own, and the lips' gap."""
        names = self._config.shape_names
        weights = generate(code=self._code(style, strength))
        if style is not None and brow_strength != strength and names:
            is_upper = [name.startswith(UPPER_FACE) for name in names]
            browed = generate(code=self._code(style, brow_strength))
            weights = np.where(is_upper, browed, weights)
        if style is not None and style.gains is not None:
            rate = self._config.motion_fps
            weights = style.gains.on_speech(weights, names, lips, rate, strength)
        return weights, lips(weights)["gap_mm"]

    def _generate(
        self,
        speech: NDArray[np.float32],
        transcript: Transcript,
        num_rows: int,
        *,
        code: NDArray[np.float32],
        decoder: str,
        report: Callable[[int, int], None],
        is_cancelled: Callable[[], bool],
    ) -> NDArray[np.float32]:
        encoder = self._config.speech
        num_ids = len(speech)
        if encoder.kind == "hubert":
            num_ids = math.ceil(num_rows / self._config.motion_fps * encoder.rate_hz)
        ids = phone_frames(transcript.phones, num_ids, encoder.rate_hz, source=transcript.source)
        made = self.engine.talk(
            speech,
            ids if transcript.phones else None,
            code,
            num_frames=num_rows,
            decoder=decoder,
            report=report,
            should_stop=is_cancelled,
        )
        names, rate = self._config.shape_names, self._config.motion_fps
        return add_variants(made, names, transcript.phones, fps=rate) if names else made


def _with_upper_face(
    layers: motion.Layers, names: Sequence[str], style: StyleCode | None, strength: float
) -> motion.Layers:
    """The layers with what a style says of how far brows and lids go."""
    if style is None or style.gains is None:
        return layers
    return layers.with_upper_face_times(style.gains.known.of_upper_face(names, strength))


@dataclass(frozen=True, slots=True)
class _Listening:
    """A sound whose words are wanted, and who is told of the work on it."""

    samples: NDArray[np.float32]
    log_posteriors: NDArray[np.float32] | None
    report: Callable[[float, float], None]
    is_cancelled: Callable[[], bool]

    def transcript(self, listen: str, text: str, language: str) -> Transcript:
        """Words and phones of the sound; none where the sound alone is to be followed."""
        sound, known = self.samples, self.log_posteriors
        report, is_cancelled = self.report, self.is_cancelled
        if text.strip() and listen != "sound":
            if language == ENGLISH:
                return recognition.align(
                    sound, text, known, progress=report, is_cancelled=is_cancelled
                )
            return foreign_text.align_text(
                sound, text, language, known, progress=report, is_cancelled=is_cancelled
            )
        if listen == "words" and language != ENGLISH:
            raise UserError(_ENGLISH_ALONE)
        if listen == "sound" or language != ENGLISH:
            return empty_transcript(sound)
        return recognition.recognise(sound, known, progress=report, is_cancelled=is_cancelled)


def _compacted(
    weights: NDArray[np.float32], shapes: NDArray[np.float32], head: Head
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Learned shapes by how much they move, without those that nothing needs; error in mm."""
    unit_mm = face_frame(head).unit_mm
    small = motion.compact(weights, shapes, tolerance=TOLERANCE_MM * unit_mm)
    return small.weights, small.shapes, small.largest_error / unit_mm


def _without_pauses(samples: NDArray[np.float32], transcript: Transcript) -> NDArray[np.float32]:
    """A sound whose phones were heard in it, without what sounds in long pauses, such as music."""
    spans = [
        (phone.start_seconds + _PAUSE_EDGE_SECONDS, phone.end_seconds - _PAUSE_EDGE_SECONDS)
        for phone in (transcript.phones if transcript.mode == "sound" else ())
        if phone.symbol == SILENCE
    ]
    spans = [(start, end) for start, end in spans if end > start]
    if not spans:
        return samples
    is_heard = np.ones(len(samples), np.float32)
    for start, end in spans:
        is_heard[round(start * SAMPLE_RATE_HZ) : round(end * SAMPLE_RATE_HZ)] = 0.0
    return np.asarray(samples * is_heard, np.float32)


def _told_language(spoken: str, transcript: Transcript) -> str:
    """Name of the language whose words were followed; empty where the sound alone was."""
    return "" if transcript.mode == "sound" else LANGUAGES[spoken]


@contextmanager
def _timed(taken: dict[str, float], name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    taken[name] = time.monotonic() - started


def open_predictor(
    folder: Path,
    engine: EngineChoice = "auto",
    device: str = "auto",
    *,
    decoder: str = "parallel",
    warn: Callable[[str], None] = lambda _text: None,
) -> Predictor:
    """Load a checkpoint into an engine, and prepare to animate with it; see `open_engine`.

    Args:
        folder: The checkpoint.
        engine: Which engine.
        device: Name of the device, or ``auto``.
        decoder: How is to be decoded.
        warn: Called with what the user should know of the choice.

    Returns:
        The predictor.

    Raises:
        UserError: As of `open_engine`.
    """
    return Predictor(open_engine(folder, engine, device, decoder=decoder, warn=warn), folder)
