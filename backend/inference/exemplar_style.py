# SPDX-License-Identifier: GPL-3.0-or-later
"""The style of an exemplar: a code read from its mouth, and gains by its own figures.

The rest is taken off first (``exemplar_parts.py``). The style encoder then sees the mouth alone:
with brows and eyes of captured people it misreads the mouth, and its one code cannot tell events of
brows from brows that are held. How far mouth, brows and lids go comes from the exemplar's own means
and spreads (``style_gains.py``), held beside a known sentence that the model speaks in that style.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend import bundled, motion
from backend.audio.features import stacked_log_mel
from backend.audio.load import read_sound
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.fit_weights import fit_weights
from backend.heads.lip_measures import lip_curves
from backend.heads.mesh_files import read_head
from backend.heads.topology import Head, face_frame, identify
from backend.inference.curve_files import Curves
from backend.inference.engine import Engine
from backend.inference.exemplar_parts import IS_UPPER, is_speaking, rest_of, without_rest
from backend.inference.shapes_for_head import HeadShapes
from backend.inference.style_files import EXEMPLAR_SECONDS, Exemplar, StyleCode
from backend.inference.style_gains import (
    Figures,
    Gains,
    StyleGains,
    fit_speech,
    fit_upper_face,
)
from backend.life.layers import LifeAmounts, add_life
from backend.speech.phones import Phone, phone_frames

_SHORT_SECONDS: Final = 3.0
_STILL_MM: Final = 1.0
_STILL_WEIGHT: Final = 0.02
_REPEATS: Final = 2
"""How often the known sentence is spoken: faces are lively in speech of some length only."""
_LIVES: Final = 4


def style_of_exemplar(
    engine: Engine,
    shapes: HeadShapes,
    exemplar: Exemplar | Curves,
    *,
    neutral_frame: int | None,
    warn: Callable[[str], None],
) -> StyleCode:
    """Read a style.

    Args:
        engine: The model.
        shapes: Its shapes on heads.
        exemplar: Animation of any known head for a model of solved shapes, else of a head of the
            model's own topology; or weights of ARKit's names, for a model of solved shapes.
        neutral_frame: Frame of the exemplar in which its face is at rest; None to estimate.
        warn: Called with warnings for the user.

    Returns:
        The style.

    Raises:
        UserError: The animation does not fit the model, or nothing moves in it.
    """
    seconds = len(exemplar) / exemplar.fps
    if seconds < EXEMPLAR_SECONDS[0]:
        raise UserError(
            f"The exemplar is {seconds:.2g} s long; at least {EXEMPLAR_SECONDS[0]} s is needed. "
            "Choose a longer animation."
        )
    if seconds < _SHORT_SECONDS:
        warn(f"The exemplar is only {seconds:.1f} s long; 5 s and more show a style better.")
    if neutral_frame is not None and neutral_frame >= len(exemplar):
        raise UserError(
            f"The exemplar's neutral frame is {neutral_frame}, counted from 0, but it has "
            f"{len(exemplar)} frames. Name one of these."
        )
    if isinstance(exemplar, Exemplar):
        _check_reach(exemplar)
    if engine.config.shape_kind == "learned":
        return _style_of_learned_shapes(engine, shapes, exemplar)
    weights, known = _arkit_weights(shapes, exemplar)
    weights = without_rest(weights, rest_of(weights, exemplar.fps, neutral_frame))
    reach = float(np.ptp(weights[:, ~IS_UPPER], axis=0).max())
    if isinstance(exemplar, Curves) and reach < _STILL_WEIGHT:
        raise UserError(
            "No mouth moves in the exemplar: its weights stay within "
            f"{_STILL_WEIGHT}. Choose a capture of a speaking face."
        )
    rate = engine.config.motion_fps
    times = np.arange(max(1, round(seconds * rate))) / rate
    weights = motion.at_times(weights, times, rate=exemplar.fps)
    mouth = np.where(IS_UPPER, np.float32(0.0), weights)[: round(EXEMPLAR_SECONDS[1] * rate)]
    names = engine.config.shape_names
    code = engine.read_style(np.ascontiguousarray(mouth[:, [*map(ARKIT_NAMES.index, names)]]))
    return StyleCode(
        code, engine.fingerprint, "exemplar", _gains(engine, shapes, code, weights, known)
    )


def _check_reach(exemplar: Exemplar) -> None:
    unit_mm = face_frame(exemplar.head).unit_mm
    reach_mm = float(np.ptp(exemplar.offsets, axis=0).max()) / unit_mm
    if reach_mm < _STILL_MM:
        raise UserError(
            f"Nothing in the exemplar moves by more than {reach_mm:.2g} mm. Choose an "
            "animation of a speaking head."
        )


def _style_of_learned_shapes(
    engine: Engine, shapes: HeadShapes, exemplar: Exemplar | Curves
) -> StyleCode:
    """The code alone: shapes without names have no gains."""
    if isinstance(exemplar, Curves):
        raise UserError(
            "This model has shapes of its own and cannot read weights of ARKit's names. Choose an "
            "animated head of its topology as the exemplar, or the bundled model."
        )
    offsets = np.asarray(exemplar.offsets @ shapes.to_model(exemplar.head), np.float32)
    rate = engine.config.motion_fps
    times = np.arange(max(1, round(len(offsets) / exemplar.fps * rate))) / rate
    flat = offsets.reshape(len(offsets), -1)
    on_clock = motion.at_times(flat, times, rate=exemplar.fps).reshape(-1, *offsets.shape[1:])
    return StyleCode(engine.read_style(on_clock), engine.fingerprint, "exemplar")


def _arkit_weights(
    shapes: HeadShapes, exemplar: Exemplar | Curves
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """An exemplar as weights of ``ARKIT_NAMES``, ``(T, 52)``, and which of them are known."""
    if isinstance(exemplar, Curves):
        return exemplar.weights, np.array([name in exemplar.names for name in ARKIT_NAMES])
    names, on_head = shapes.on(exemplar.head)
    return _spread_out(fit_weights(exemplar.offsets, on_head), names), _is_in(names)


def _spread_out(weights: NDArray[np.float32], names: tuple[str, ...]) -> NDArray[np.float32]:
    result = np.zeros((len(weights), len(ARKIT_NAMES)), np.float32)
    result[:, [*map(ARKIT_NAMES.index, names)]] = weights
    return result


def _is_in(names: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.array([name in names for name in ARKIT_NAMES])


def _gains(
    engine: Engine, shapes: HeadShapes, code: NDArray[np.float32],
    weights: NDArray[np.float32], known: NDArray[np.bool_],
) -> StyleGains:  # fmt: skip
    """Gains with which the model, speaking the known sentence, goes as far as the exemplar."""
    rate, names = engine.config.motion_fps, engine.config.shape_names
    samples, phones = _sentence()
    head = _demo_head()
    made = _spoken(engine, code)
    gap_mm = lip_curves(made, shapes.on(head)[1], head)["gap_mm"]
    lives = [
        add_life(
            made, names, samples, phones=phones, fps=Fraction(rate).limit_denominator(1000),
            amounts=LifeAmounts(seed=seed), face_axes=face_frame(head).axes,
        )
        for seed in range(_LIVES)
    ]  # fmt: skip
    alive = np.concatenate([life.upper_face + life.life for life in lives])
    made = _spread_out(made, names)
    speaks = is_speaking(made, rate)
    figures = Figures.of(weights[is_speaking(weights, rate)], known & _is_in(names))
    speech = fit_speech(figures, made[speaks], gap_mm[speaks])
    upper = fit_upper_face(figures, _spread_out(alive, names))
    jaw_spread = float(made[speaks, ARKIT_NAMES.index("jawOpen")].std())
    gains = Gains(np.where(IS_UPPER, upper, speech.gain), speech.offset)
    return StyleGains(gains, figures, jaw_spread)


def _spoken(engine: Engine, code: NDArray[np.float32]) -> NDArray[np.float32]:
    """The known sentence in a style, ``(T, K)``."""
    config = engine.config
    samples, phones = _sentence()
    is_waveform = config.speech.kind == "hubert"
    speech = samples if is_waveform else stacked_log_mel(samples)
    seconds = len(samples) / SAMPLE_RATE_HZ
    num_ids = round(seconds * config.speech.rate_hz) if is_waveform else len(speech)
    ids = phone_frames(phones, num_ids, config.speech.rate_hz, source="given")
    return engine.talk(
        speech, ids if config.num_phone_ids > 1 else None, code,
        num_frames=round(seconds * config.motion_fps),
        decoder=config.modes[0] if "parallel" not in config.modes else "parallel",
        report=lambda _done, _total: None, should_stop=lambda: False,
    )  # fmt: skip


@cache
def _sentence() -> tuple[NDArray[np.float32], tuple[Phone, ...]]:
    """The demo's sentence, spoken twice, and its phones."""
    samples = read_sound(bundled.DEMO_SPEECH).samples
    rows = json.loads(bundled.DEMO_PHONES.read_text("utf-8"))
    seconds = len(samples) / SAMPLE_RATE_HZ
    phones = [
        Phone(symbol, start + seconds * number, min(end, seconds) + seconds * number)
        for number in range(_REPEATS)
        for symbol, start, end in rows
    ]
    return np.tile(samples, _REPEATS), tuple(phones)


@cache
def _demo_head() -> Head:
    return identify(*read_head(bundled.DEMO_HEAD))
