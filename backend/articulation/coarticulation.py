# SPDX-License-Identifier: GPL-3.0-or-later
"""Articulation model: phones, prosody and a speaking style to the weights of the 52 shapes.

The motion of a face is computed in five steps:

1. *Targets.* Every phone has targets for a dozen articulator channels (``phone_targets.py``);
   diphthongs have two, one after the other. ``emphasis.py`` says how far each vowel goes.
2. *Coarticulation.* The channels follow the dominance-weighted mean of the targets (Cohen and
   Massaro 1993), each group of articulators with its own extent in time: rounding begins far ahead
   (Benguerel and Cowan 1974), spreading less. A smoothing kernel per group stands for the inertia
   of jaw and lips, so that fast speech undershoots (Lindblom 1963).
3. *Gestures that must arrive* (``gestures.py``). A mean does not reliably close a mouth. Lip
   closures (p b m) and the lower lip at the upper teeth (f v) have a plateau that is reached at any
   rate of speech and in any style; JALI (Edwards et al. 2016) states it as a rule for animators.
   The jaw rises with the lips and gives its share of a closure (Gracco 1988; Löfqvist and Gracco
   1997).
4. *Postures* (``postures.py``): what mouth and cheeks do slowly beside single sounds.
5. *The face around it* (``brows_and_blinks.py``): brows on pitch accents, blinks at phrase ends;
   and here breath before phrases and rest in silence.

Sizes and speeds are set by figures of captured people (``evaluation/motion_figures.py``), timing
held beside six read commands of people: lips and jaw of theirs come 0 to 20 ms after these, in all
classes of phones, as near as sound and picture were in step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from backend.articulation.brows_and_blinks import blink_weights, upper_face_weights
from backend.articulation.emphasis import openings
from backend.articulation.gestures import PAUSE_SECONDS, activity, breath, gesture
from backend.articulation.phone_targets import (
    CHANNELS,
    GROUPS,
    LIGHT_BITES,
    PHONE_TARGETS,
    SLITS,
)
from backend.articulation.postures import Postures, postures
from backend.articulation.speaking_style import SpeakingStyle
from backend.heads.arkit import ARKIT_NAMES
from backend.speech.phones import BILABIALS, LABIODENTALS, SILENCE, Phone

MAX_ARTICULATED_WEIGHT = 1.3
_LEAD_SECONDS = 0.040
_CLOSURE_LEAD = 0.25  # the sound fixes when lips close; a style's lead moves that least
_CLOSED_JAW = 0.04  # the jaw rises with the lips for p, b, m and gives its share of the closure
_JAW_RAMP_SECONDS = (0.105, 0.105)  # it is heavier than the lips, so it begins earlier
_BITING_JAW = 0.0885  # where the lower lip meets the upper teeth
_LIGHT_BITE = 0.6  # of a bite, for an approximant
_SLIT_JAW, _SLIT_CLOSE = 0.065, 0.35  # 1.3 mm between the lips: no closure, but near one
_SLIT_PUCKER = 0.4  # what it leaves of a pout; a funnel would open it
_SMILING_BITE = 0.2  # and how much lower for a smile, which lifts the lower lip
_CHUNK_FRAMES = 256
_REACH_SECONDS = 0.8  # dominance beyond this is below 0.3 %

# The default speaker's own bias to the subject's left (positive) or right, as part of each weight.
_BIAS = {"mouthSmile": 0.07, "mouthStretch": -0.06, "mouthLowerDown": 0.05, "mouthUpperUp": 0.05,
         "noseSneer": 0.05, "mouthFrown": -0.1, "mouthDimple": 0.12}  # fmt: skip
_JAW_SIDE, _MOUTH_SIDE = -0.08, 0.03
# Of the targets, so that the lips part as far as people's on shapes that are measured on scans.
_JAW_SIZE, _PARTING_SIZE = 0.88, 0.75

# Time constants in seconds of each group's dominance before and after the phone, and its inertia.
_BEFORE = {"jaw": 0.045, "rounding": 0.095, "spread": 0.07, "parting": 0.045, "tongue": 0.04}
_AFTER = {"jaw": 0.045, "rounding": 0.065, "spread": 0.06, "parting": 0.042, "tongue": 0.04}
_INERTIA = {"jaw": 0.02, "rounding": 0.022, "spread": 0.022, "parting": 0.018, "tongue": 0.014}
_PLATEAU_SHARE = 0.28  # of a phone's duration to either side of its middle
_EDGE_SECONDS = 0.05  # held sounds and silences keep their target up to this before their ends
_GLIDE_SECONDS = 0.22  # at most, of a diphthong's second target: a held one glides at its end

_WEIGHT = {name: index for index, name in enumerate(ARKIT_NAMES)}
_CHANNEL = {name: index for index, name in enumerate(CHANNELS)}
_CHEEKS = [_WEIGHT["cheekSquintLeft"], _WEIGHT["cheekSquintRight"]]
_SMILES = [_WEIGHT["mouthSmileLeft"], _WEIGHT["mouthSmileRight"]]
_JAW_AND_CLOSE = [_WEIGHT["jawOpen"], _WEIGHT["mouthClose"]]
_OPENING = [_CHANNEL[name] for name in ("jaw", "lower_down", "upper_up")]


@dataclass(frozen=True, slots=True)
class _Segments:
    """Targets in time, a diphthong's two apart: all arrays have one entry per segment."""

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    rows: NDArray[np.int64]
    openings: NDArray[np.float64]
    silent: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Timing:
    """Activations of the mouth, 0 to 1 per frame: all arrays ``(T,)``."""

    activity: NDArray[np.float64]
    breath: NDArray[np.float64]
    closure: NDArray[np.float64]
    jaw_closure: NDArray[np.float64]
    labiodental: NDArray[np.float64]
    slit: NDArray[np.float64]


def articulate(
    phones: Sequence[Phone],
    *,
    style: SpeakingStyle,
    num_frames: int,
    fps: float,
    energy: NDArray[np.float32] | None = None,
    f0: NDArray[np.float32] | None = None,
    seed: int = 0,
    blinks: bool = True,
) -> NDArray[np.float32]:
    """Moves a face as a speaker of that style would who says these phones.

    Args:
        phones: Phones in order of time, without overlaps; gaps count as silence.
        style: The speaker's style; dimensions beyond ``STYLE_LIMIT`` are brought back to it.
        num_frames: Length ``T``; frame ``i`` is at ``i / fps`` seconds.
        fps: Frames per second.
        energy: Root mean square of the sound per frame on any linear scale, shape ``(T,)``; without
            it stress comes from durations alone.
        f0: Fundamental frequency in hertz per frame, 0 where unvoiced, shape ``(T,)``; without it
            brows follow prominent vowels.
        seed: Chooses among equally good times of blinks; nothing else depends on chance.
        blinks: Whether the eyes blink.

    Returns:
        Weights of ``ARKIT_NAMES``, shape ``(T, 52)``, from 0 to ``MAX_ARTICULATED_WEIGHT``.

    Raises:
        ValueError: A phone is not in the table, times are not in order, or a curve is of
            another length.
    """
    _check(phones, num_frames=num_frames, fps=fps, curves=(energy, f0))
    style = style.limited()
    weights = np.zeros((num_frames, len(ARKIT_NAMES)), dtype=np.float32)
    times = np.arange(num_frames) / fps
    phones = _with_silences(phones, num_frames / fps)
    segments = _segments(phones, style=style, fps=fps, energy=energy, f0=f0)
    lead = _LEAD_SECONDS * style.lead
    channels = _coarticulate(segments, times + lead, fps=fps, style=style)  # (T, C)
    spoken = activity(phones, times + lead)
    channels *= spoken[:, None]
    held = partial(gesture, phones, times=closure_moments(times, style), fps=fps, style=style)
    timing = _Timing(
        activity=spoken,
        breath=breath(phones, times),
        closure=held(closes_lips),
        jaw_closure=held(closes_lips, ramps=_JAW_RAMP_SECONDS),
        labiodental=np.maximum(held(_bites), _LIGHT_BITE * held(_bites_lightly)),
        slit=held(leaves_slit),
    )
    slow = postures(phones, times, timing.closure, fps=fps, f0=f0)
    _mouth(weights, channels, timing, slow, style=style)
    cheeks = weights[:, _CHEEKS]
    weights[:, _CHEEKS] = 0.0
    upper_face_weights(weights, phones, times, fps=fps, style=style, energy=energy, f0=f0)
    weights[:, _CHEEKS] += cheeks
    if blinks:
        weights[:, [_WEIGHT["eyeBlinkLeft"], _WEIGHT["eyeBlinkRight"]]] = blink_weights(
            phones, num_frames=num_frames, fps=fps, blink_rate=style.blink_rate, seed=seed
        )[:, None]
    return np.clip(weights, 0.0, MAX_ARTICULATED_WEIGHT, out=weights)


def closure_moments(times: NDArray[np.float64], style: SpeakingStyle) -> NDArray[np.float64]:
    """Times whose constrictions show in frames at given times, which lie a little earlier."""
    return times + _CLOSURE_LEAD * (_LEAD_SECONDS * style.lead)


def closes_lips(phone: Phone) -> bool:
    """Whether the lips close for a phone."""
    return phone.symbol in BILABIALS


def leaves_slit(phone: Phone) -> bool:
    """Whether the lips come near each other for a phone and do not close."""
    return phone.variant in SLITS


def _bites(phone: Phone) -> bool:
    return phone.symbol in LABIODENTALS and phone.variant not in SLITS | LIGHT_BITES


def _bites_lightly(phone: Phone) -> bool:
    return phone.variant in LIGHT_BITES


def _check(
    phones: Sequence[Phone],
    *,
    num_frames: int,
    fps: float,
    curves: tuple[NDArray[np.float32] | None, ...],
) -> None:
    if num_frames < 0 or not fps > 0.0:
        raise ValueError(f"{num_frames} frames at {fps} a second; expected 0 or more, above 0")
    for curve in curves:
        if curve is not None and curve.shape != (num_frames,):
            raise ValueError(f"energy or f0 has shape {curve.shape}, expected ({num_frames},)")
    before = -math.inf
    for phone in phones:
        PHONE_TARGETS.kind_of(phone)
        if not before - 1e-6 <= phone.start_seconds <= phone.end_seconds:
            raise ValueError(f"{phone} overlaps its predecessor, which ends at {before} s")
        before = phone.end_seconds


def _with_silences(phones: Sequence[Phone], seconds: float) -> list[Phone]:
    """Fills gaps with silence, joins neighbouring silences, and pads both ends."""
    filled: list[Phone] = []

    def silence_until(moment: float) -> None:
        start = filled[-1].end_seconds if filled else min(0.0, moment) - 1.0
        if filled and filled[-1].symbol == SILENCE:
            filled[-1] = replace(filled[-1], end_seconds=moment)
        elif moment > start + 1e-6:
            filled.append(Phone(SILENCE, start, moment))

    for phone in phones:
        if phone.symbol == SILENCE:
            silence_until(phone.end_seconds)
        elif phone.end_seconds > phone.start_seconds:
            silence_until(phone.start_seconds)
            filled.append(phone)
    silence_until(max(seconds, filled[-1].end_seconds if filled else 0.0) + 1.0)
    return filled


def _segments(
    phones: list[Phone],
    *,
    style: SpeakingStyle,
    fps: float,
    energy: NDArray[np.float32] | None,
    f0: NDArray[np.float32] | None,
) -> _Segments:
    index = np.array([PHONE_TARGETS.kind_of(phone) for phone in phones])
    starts = np.array([phone.start_seconds for phone in phones])
    ends = np.array([phone.end_seconds for phone in phones])
    scales = openings(phones, style=style, fps=fps, energy=energy, f0=f0)
    middles = np.maximum(
        starts + PHONE_TARGETS.first_share[index] * (ends - starts), ends - _GLIDE_SECONDS
    )
    second = PHONE_TARGETS.second_row[index]
    double = second >= 0
    order = np.argsort(np.concatenate([starts, middles[double]]), kind="stable")
    return _Segments(
        starts=np.concatenate([starts, middles[double]])[order],
        ends=np.concatenate([middles, ends[double]])[order],
        rows=np.concatenate([PHONE_TARGETS.first_row[index], second[double]])[order],
        openings=np.concatenate([scales, scales[double]])[order],
        silent=np.concatenate([index == 0, index[double] == 0])[order],
    )


def _coarticulate(
    segments: _Segments, times: NDArray[np.float64], *, fps: float, style: SpeakingStyle
) -> NDArray[np.float64]:
    """Dominance-weighted mean of the targets, then inertia; shape ``(T, channels)``."""
    blended = np.empty((len(times), len(CHANNELS)))
    for begin in range(0, len(times), _CHUNK_FRAMES):
        chunk = times[begin : begin + _CHUNK_FRAMES]
        near = (segments.ends > chunk[0] - _REACH_SECONDS) & (
            segments.starts < chunk[-1] + _REACH_SECONDS
        )
        blended[begin : begin + _CHUNK_FRAMES] = _blend(segments, near, chunk, style=style)
    slowness = math.exp(0.35 * style.smoothness - 0.25 * style.articulation)
    for group, names in GROUPS.items():
        columns = slice(_CHANNEL[names[0]], _CHANNEL[names[-1]] + 1)
        blended[:, columns] = gaussian_filter1d(
            blended[:, columns], _INERTIA[group] * slowness * fps, axis=0, mode="nearest"
        )
    return blended


def _blend(
    segments: _Segments,
    near: NDArray[np.bool_],
    times: NDArray[np.float64],
    *,
    style: SpeakingStyle,
) -> NDArray[np.float64]:
    starts, ends, rows = segments.starts[near], segments.ends[near], segments.rows[near]
    lengths = ends - starts
    half = np.maximum(0.5 * lengths - _EDGE_SECONDS, 0.0)
    half = np.where(segments.silent[near], half, np.maximum(half, _PLATEAU_SHARE * lengths))
    distance = times[None, :] - 0.5 * (starts + ends)[:, None]  # (N, T)
    before = distance < 0.0
    distance = np.maximum(np.abs(distance) - half[:, None], 0.0)
    targets = PHONE_TARGETS.targets[rows].astype(np.float64)
    targets[:, _OPENING] *= segments.openings[near, None]
    strengths = PHONE_TARGETS.strengths[rows] * np.where(
        segments.silent[near], np.minimum(lengths / PAUSE_SECONDS, 1.0), 1.0
    )[:, None]  # fmt: skip
    reach = math.exp(0.25 * style.smoothness - 0.3 * style.articulation)
    blended = np.empty((len(times), len(CHANNELS)))
    for column, (group, names) in enumerate(GROUPS.items()):
        rate = np.where(before, 1.0 / _BEFORE[group], 1.0 / _AFTER[group]) / reach
        dominance = np.exp(-distance * rate) * strengths[:, column : column + 1]  # (N, T)
        columns = slice(_CHANNEL[names[0]], _CHANNEL[names[-1]] + 1)
        blended[:, columns] = (dominance.T @ targets[:, columns]) / (
            dominance.sum(axis=0)[:, None] + 1e-12
        )
    return blended


def _gain(unit: float, per_unit: float, style: SpeakingStyle) -> float:
    return math.exp(per_unit * unit + 0.3 * style.articulation)


def _mouth(
    weights: NDArray[np.float32],
    channels: NDArray[np.float64],
    timing: _Timing,
    slow: Postures,
    *,
    style: SpeakingStyle,
) -> None:
    """Turns channels, gestures and postures into the weights of mouth and jaw, in place."""
    value = {name: channels[:, index] for name, index in _CHANNEL.items()}
    closed, bitten, active = timing.closure, timing.labiodental, timing.activity
    slit = timing.slit
    free = 1.0 - closed
    lips = free * (1.0 - bitten) * (1.0 - slit)
    rounding = _gain(style.rounding, 0.45, style)
    pushed = 0.14 * style.protrusion * active
    jaw = _JAW_SIZE * value["jaw"] * _gain(style.jaw, 0.45, style)
    jaw = np.maximum(jaw + 0.05 * style.lip_part * active, 0.0) + 0.08 * timing.breath
    jaw += bitten * (_BITING_JAW - jaw)
    jaw += slit * (_SLIT_JAW - jaw)
    jaw -= timing.jaw_closure * np.maximum(jaw - _CLOSED_JAW, 0.0)
    close = np.clip(value["close"] * rounding - 0.12 * style.lip_part * active, 0.0, 0.8)
    close += bitten * (0.45 - close)
    close += slit * (_SLIT_CLOSE - close)
    funnel = np.maximum(value["funnel"] * rounding + 0.5 * pushed, 0.0) * (1.0 - slit)
    pucker = np.maximum(value["pucker"] * rounding + pushed, 0.0)
    pucker *= 1.0 - (1.0 - _SLIT_PUCKER) * slit
    firm = math.exp(0.5 * style.press) * slow.firmness
    tucked = 0.15 * max(-style.jaw_forward, 0.0) * active * lips
    jaw_side = 0.45 * style.jaw_side * jaw + _JAW_SIDE * jaw + 0.015 * slow.pitch
    mouth_side = 0.16 * style.mouth_side * active + _MOUTH_SIDE * slow.ending - 0.02 * slow.pitch
    raised_chin = 0.07 * closed + 0.05 * slow.ending + 0.04 * slow.hesitation
    columns = {
        "jawOpen": jaw,
        "jawForward": value["forward"] * rounding + 0.2 * max(style.jaw_forward, 0.0) * active,
        "jawLeft": np.maximum(jaw_side, 0.0),
        "jawRight": np.maximum(-jaw_side, 0.0),
        "mouthLeft": np.maximum(mouth_side, 0.0),
        "mouthRight": np.maximum(-mouth_side, 0.0),
        "mouthClose": jaw * (close + closed * (1.0 - close)),
        "mouthFunnel": funnel * free * (1.0 - 0.6 * bitten),
        "mouthPucker": pucker * (1.0 - 0.5 * closed) * (1.0 - 0.6 * bitten),
        "mouthRollLower": value["roll_lower"] * lips + 0.55 * bitten * free + 0.03 * firm + tucked,
        "mouthRollUpper": 0.05 * firm,
        "mouthShrugLower": raised_chin + 0.12 * bitten * free,
        "mouthShrugUpper": 0.13 * slow.ending + 0.14 * firm + 0.1 * slow.hesitation,
        "mouthPressLeft": 0.15 * firm + 0.03 * slow.ending,
        "mouthPressRight": 0.15 * firm + 0.03 * slow.ending,
        "tongueOut": value["tongue"] * lips,
        "cheekPuff": 0.04 * firm,
    }
    for name, curve in columns.items():
        weights[:, _WEIGHT[name]] = curve
    _lip_sides(weights, value, timing, slow, style=style)
    smile = weights[:, _SMILES].mean(axis=1)
    lowered = 1.0 + bitten * _SMILING_BITE * smile / np.maximum(jaw, 0.01)
    weights[:, _JAW_AND_CLOSE] *= lowered[:, None]


def _lip_sides(
    weights: NDArray[np.float32],
    value: dict[str, NDArray[np.float64]],
    timing: _Timing,
    slow: Postures,
    *,
    style: SpeakingStyle,
) -> None:
    """The weights that have a left and a right, in place."""
    active, bitten, slit = timing.activity, timing.labiodental, timing.slit
    free = 1.0 - timing.closure
    held = 0.6 + 0.4 * active  # a smile or frown stays while silent
    parted = 0.08 * style.lip_part * active
    spread = _gain(style.spread, 0.5, style)
    lower = (
        _PARTING_SIZE * value["lower_down"] * _gain(style.lower_lip, 0.5, style)
        + parted
        + 0.09 * timing.breath
    )
    upper = (
        _PARTING_SIZE * value["upper_up"] * _gain(style.upper_lip, 0.5, style)
        + parted
        + 0.06 * timing.breath
    )
    upper = free * (np.maximum(upper, 0.0) * (1.0 - slit) + 0.1 * bitten)
    stretch = value["stretch"] * spread + 0.14 * max(-style.protrusion, 0.0) * active
    friendly = np.maximum(0.07 * slow.presence + 0.1 * slow.pitch - 0.03 * slow.ending, 0.0)
    low = np.maximum(-slow.pitch, 0.0)
    columns = {
        "mouthSmile": value["smile"] * spread + friendly + 0.3 * max(style.smile, 0.0) * held,
        "mouthFrown": 0.35 * max(-style.smile, 0.0) * held * (1.0 - 0.5 * timing.closure)
        + 0.14 * low + 0.05 * slow.ending,
        "mouthStretch": stretch * (1.0 - 0.3 * timing.closure),
        "mouthDimple": 0.055 * slow.ending + 0.04 * slow.firmness + 0.05 * low,
        "mouthLowerDown": np.maximum(lower, 0.0) * free * (1.0 - bitten) * (1.0 - slit),
        "mouthUpperUp": upper,
        "noseSneer": 0.28 * upper + np.maximum(0.03 * slow.presence + 0.1 * slow.pitch, 0.0),
        "cheekSquint": 0.16 * upper + 0.04 * slow.hesitation,
    }  # fmt: skip
    for name, curve in columns.items():
        bias = _BIAS.get(name, 0.06) + 0.06 * slow.pitch
        tilt = np.clip(bias + 0.4 * style.asymmetry, -0.9, 0.9)
        weights[:, _WEIGHT[name + "Left"]] = curve * (1.0 + tilt)
        weights[:, _WEIGHT[name + "Right"]] = curve * (1.0 - tilt)
