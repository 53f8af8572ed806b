# SPDX-License-Identifier: GPL-3.0-or-later
"""Degradations of clean speech: rooms, microphones, other sounds and other voices.

Pure functions of samples at ``SAMPLE_RATE_HZ`` and a source of randomness, which keep the length:
the conditions of the evaluation of robustness. Training augments log-mel power instead
(``augment_features``), which costs a tenth, or samples by formulas of its own
(``augment_audio``), so that the evaluation tests what was not trained on.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import scipy.signal
import soxr
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import solve_toeplitz

from backend.audio.rates import SAMPLE_RATE_HZ

Samples = NDArray[np.float32]
Effect = Callable[[Samples, Sequence[Samples], np.random.Generator], Samples]
"""Speech, other recordings to take voices from, and a source of randomness -> degraded speech."""

_SPEECH_BLOCK: Final = SAMPLE_RATE_HZ // 100
_BABBLE_VOICES: Final = 6
_TELEPHONE_HZ: Final = (300.0, 3400.0)
_LPC_ORDER: Final = 18
_LPC_WINDOW: Final = SAMPLE_RATE_HZ // 40
_LPC_FFT: Final = 1024
_VOWEL_HZ: Final = ((700.0, 110.0), (1250.0, 130.0), (2600.0, 200.0), (3600.0, 300.0))
"""Formants of an open central vowel and their bandwidths."""


def mixed(speech: Samples, other: Samples, snr_db: float) -> Samples:
    """Mixes speech with another sound.

    Args:
        speech: Speech, shape ``(n,)``.
        other: The other sound, shape ``(n,)``.
        snr_db: Ratio of the speech's level while it is spoken (blocks of 10 ms within 13 dB of
            the loudest) to the level of the whole other sound.

    Returns:
        The mix at the level of the speech, shape ``(n,)``.
    """
    power = np.square(speech[: len(speech) // _SPEECH_BLOCK * _SPEECH_BLOCK])
    power = power.reshape(-1, _SPEECH_BLOCK).mean(axis=1)
    level = (
        float(np.sqrt(power[power > 0.05 * power.max(initial=0.0)].mean())) if any(power) else 0.0
    )
    own = float(np.sqrt(np.mean(np.square(other)))) + 1e-9
    return _f32(speech + other * (level / own * 10.0 ** (-snr_db / 20.0)))


def noise(length: int, rng: np.random.Generator, *, exponent: float = 0.0) -> Samples:
    """Steady noise at -20 dBFS whose power falls with frequency to the power of ``exponent``.

    Args:
        length: Number of samples.
        rng: Source of randomness.
        exponent: 0 for white noise, 1 for pink, 2 for brown.

    Returns:
        The noise, without frequencies below 40 Hz.
    """
    size = next_fast_len(length, real=True)
    spectrum = rfft(rng.standard_normal(size))
    spectrum *= np.arange(1, len(spectrum) + 1) ** (-exponent / 2.0)
    spectrum[: int(40 * size / SAMPLE_RATE_HZ)] = 0.0
    return _at_level(irfft(spectrum, size)[:length], -20.0)


def music(length: int, rng: np.random.Generator) -> Samples:
    """A song without words at -20 dBFS: chords in four, a bass, a melody and a beat."""
    beat = int(rng.uniform(0.4, 0.6) * SAMPLE_RATE_HZ)
    root = 110.0 * 2.0 ** rng.uniform(0.0, 1.0)
    song = np.zeros(length + 4 * beat)
    for number, start in enumerate(range(0, length, beat)):
        chord = (0, 5, 7, 0)[number // 4 % 4]
        steps = [(chord - 12, 1.0, 1), (chord + int(rng.choice([0, 4, 7, 12, 16])) + 12, 0.8, 1)]
        if number % 4 == 0:
            steps += [(chord + step, 0.5, 4) for step in (0, 4, 7)]
        for step, loudness, beats in steps:
            tone = _tone(root * 2.0 ** (step / 12.0), beats * beat, rng)
            song[start : start + len(tone)] += loudness * tone
        drum = rng.standard_normal(1600) * np.exp(-np.arange(1600) / 300.0)
        song[start : start + 1600] += 0.4 * drum
    return _at_level(song[:length], -20.0)


def _tone(hertz: float, length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A plucked string: overtones whose strength falls with their number, dying away."""
    seconds = np.arange(length) / SAMPLE_RATE_HZ
    tone = np.zeros(length)
    for overtone in range(1, 9):
        if overtone * hertz < SAMPLE_RATE_HZ / 2:
            phase = 2.0 * np.pi * (overtone * hertz * seconds + rng.random())
            tone += np.sin(phase) / overtone * np.exp(-seconds * (1.5 + 0.7 * overtone))
    return tone * np.minimum(seconds / 0.005, 1.0)


def laughter(length: int, rng: np.random.Generator) -> Samples:
    """Bouts of breathy open vowels, "ha ha ha", at -20 dBFS, with breaths in between.

    About five bursts a second of falling pitch and level, half voice and half breath (values of
    Bachorowski, Smoski and Owren 2001, "The acoustic features of human laughter").
    """
    laugh = np.zeros(length + SAMPLE_RATE_HZ)
    start = 0
    while start < length:
        pitch = rng.uniform(220.0, 330.0)
        for number in range(int(rng.integers(4, 9))):
            burst = _vowel_burst(pitch * 0.96**number, rng.uniform(0.09, 0.14), rng)
            if start < length:
                laugh[start : start + len(burst)] += burst * 0.85**number
            start += int(rng.uniform(0.18, 0.23) * SAMPLE_RATE_HZ)
        start += int(rng.uniform(0.5, 1.0) * SAMPLE_RATE_HZ)
    return _at_level(laugh[:length], -20.0)


def _vowel_burst(pitch: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """One "ha": breath, then voice, through the formants of an open vowel."""
    length = int(seconds * 1.4 * SAMPLE_RATE_HZ)
    times = np.arange(length) / SAMPLE_RATE_HZ
    cycles = np.cumsum(pitch * (1.05 - 0.3 * times / times[-1])) / SAMPLE_RATE_HZ
    pulses = np.diff(np.floor(cycles), prepend=0.0) * np.sqrt(SAMPLE_RATE_HZ / pitch)
    is_voiced = times > 0.25 * times[-1]
    source = pulses * is_voiced + rng.standard_normal(length) * np.where(is_voiced, 0.5, 0.3)
    for hertz, bandwidth in _VOWEL_HZ:
        radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE_HZ)
        poles = [1.0, -2.0 * radius * np.cos(2.0 * np.pi * hertz / SAMPLE_RATE_HZ), radius**2]
        source = scipy.signal.lfilter([sum(poles)], poles, source)
    return np.asarray(source * np.abs(np.sin(np.pi * times / times[-1])) ** 0.7)


def white_noise(speech: Samples, _: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """White noise at 10 dB."""
    return mixed(speech, noise(len(speech), rng), 10.0)


def pink_noise(speech: Samples, _: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """Pink noise at 10 dB."""
    return mixed(speech, noise(len(speech), rng, exponent=1.0), 10.0)


def babble(speech: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """Six other voices, equally loud, together at 10 dB."""
    chosen = rng.choice(len(others), _BABBLE_VOICES, replace=len(others) < _BABBLE_VOICES)
    voices = [_at_level(_stretch(others[index], len(speech), rng), -20.0) for index in chosen]
    return mixed(speech, _f32(np.sum(voices, axis=0)), 10.0)


def music_under(speech: Samples, _: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """Music at 10 dB."""
    return mixed(speech, music(len(speech), rng), 10.0)


def laughter_under(speech: Samples, _: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """Somebody else laughs, at 10 dB."""
    return mixed(speech, laughter(len(speech), rng), 10.0)


def second_voice_6_db(
    speech: Samples, others: Sequence[Samples], rng: np.random.Generator
) -> Samples:
    """Another recording, half as strong."""
    return mixed(speech, _stretch(others[int(rng.integers(len(others)))], len(speech), rng), 6.0)


def second_voice_0_db(
    speech: Samples, others: Sequence[Samples], rng: np.random.Generator
) -> Samples:
    """Another recording, equally strong: whose lips are meant is undecidable."""
    return mixed(speech, _stretch(others[int(rng.integers(len(others)))], len(speech), rng), 0.0)


def reverberation(speech: Samples, _: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """A room whose tail dies by 60 dB in 0.5 s, as strong as the direct sound.

    Tail: noise that decays exponentially (Polack 1988), from 5 ms after the direct sound on.
    """
    length = int(0.6 * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(length)
    tail *= 10.0 ** (-3.0 * np.arange(length) / (0.5 * SAMPLE_RATE_HZ))
    tail[: int(0.005 * SAMPLE_RATE_HZ)] = 0.0
    room = tail / np.sqrt(np.sum(tail**2))
    room[0] = 1.0
    size = next_fast_len(len(speech) + length, real=True)
    return _unclipped(irfft(rfft(speech, size) * rfft(room, size), size)[: len(speech)])


def telephone(speech: Samples, _: Sequence[Samples], __: np.random.Generator) -> Samples:
    """300 to 3400 Hz at 8 kHz in 8 bits of mu-law (ITU-T G.711)."""
    band = scipy.signal.butter(4, _TELEPHONE_HZ, "bandpass", fs=8000.0, output="sos")
    line = scipy.signal.sosfiltfilt(band, soxr.resample(speech, SAMPLE_RATE_HZ, 8000))
    line = 0.9 * line / (float(np.abs(line).max()) + 1e-9)
    companded = np.sign(line) * np.log1p(255.0 * np.abs(line)) / np.log(256.0)
    rounded = np.round(companded * 127.0) / 127.0
    decoded = np.sign(rounded) * np.expm1(np.abs(rounded) * np.log(256.0)) / 255.0
    received = soxr.resample(decoded, 8000, SAMPLE_RATE_HZ)
    return _f32(np.pad(received, (0, max(0, len(speech) - len(received))))[: len(speech)])


def whisper(speech: Samples, _: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """The same vocal tract, driven by noise instead of the vocal folds.

    Linear prediction of order 18 in windows of 25 ms, driven by noise of the residual's power;
    pre-emphasis takes away the tilt that the vocal folds had given.
    """
    hop = _LPC_WINDOW // 2
    emphasised = scipy.signal.lfilter([1.0, -0.95], [1.0], speech)
    padded = np.pad(emphasised, (hop, 2 * _LPC_WINDOW))
    breath = rng.standard_normal(len(padded))
    taper = np.hanning(_LPC_WINDOW + 1)[:-1]
    out = np.zeros(len(padded) + _LPC_FFT)
    for start in range(0, len(speech) + hop, hop):
        windowed = padded[start : start + _LPC_WINDOW] * taper
        autocorrelation = irfft(np.abs(rfft(windowed, _LPC_FFT)) ** 2)[: _LPC_ORDER + 1]
        autocorrelation[0] = autocorrelation[0] * 1.0001 + 1e-9
        predictor = solve_toeplitz(autocorrelation[:-1], autocorrelation[1:])
        residual_power = autocorrelation[0] - predictor @ autocorrelation[1:]
        tract = rfft(np.concatenate([[1.0], -predictor]), _LPC_FFT)
        driven = rfft(breath[start : start + _LPC_WINDOW] * taper, _LPC_FFT) / tract
        gain = np.sqrt(max(residual_power, 0.0) / _LPC_WINDOW)
        out[start : start + _LPC_FFT] += gain * irfft(driven)
    return _at_level(out[hop : hop + len(speech)], -26.0)


def shouting(speech: Samples, _: Sequence[Samples], __: np.random.Generator) -> Samples:
    """The spectrum of a raised voice, in a microphone that is overdriven by 6 dB.

    From 500 Hz to 4 kHz the spectrum falls by 6 dB per octave less. Pitch and pace stay, since the
    phones' times must.
    """
    size = next_fast_len(len(speech), real=True)
    hertz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, size // 2 + 1)
    gain_db = 6.0 * np.log2(np.clip(hertz, 500.0, 4000.0) / 500.0)
    shout = irfft(rfft(speech, size) * 10.0 ** (gain_db / 20.0), size)[: len(speech)]
    return clipped(_f32(shout), 6.0)


def quiet(speech: Samples, _: Sequence[Samples], __: np.random.Generator) -> Samples:
    """Peaks at -40 dBFS, in 16 bits."""
    peak = float(np.abs(speech).max(initial=1e-9))
    return _f32(np.round(speech / peak * 10.0**-2.0 * 32767.0) / 32768.0)


def overdriven(speech: Samples, _: Sequence[Samples], __: np.random.Generator) -> Samples:
    """Peaks that would lie 12 dB above full scale are cut."""
    return clipped(speech, 12.0)


def clipped(speech: Samples, over_db: float) -> Samples:
    """Speech in which all that is within ``over_db`` of the loudest peak is cut at full scale."""
    loud = speech / float(np.abs(speech).max(initial=1e-9)) * 10.0 ** (over_db / 20.0)
    return _f32(np.clip(loud, -1.0, 1.0))


SPEECH_EFFECTS: Final[dict[str, Effect]] = {
    "white noise 10 dB": white_noise,
    "pink noise 10 dB": pink_noise,
    "babble 10 dB": babble,
    "reverberation 0.5 s": reverberation,
    "telephone": telephone,
    "music 10 dB": music_under,
    "laughter 10 dB": laughter_under,
    "whisper": whisper,
    "shouting": shouting,
    "two voices 6 dB": second_voice_6_db,
    "two voices 0 dB": second_voice_0_db,
    "level -40 dBFS": quiet,
    "clipped at +12 dB": overdriven,
}
"""Conditions in which speech must still be recognised."""


def _stretch(samples: Samples, length: int, rng: np.random.Generator) -> Samples:
    """``length`` samples of a sound that is repeated as often as needed, from anywhere on."""
    return np.resize(np.roll(samples, int(rng.integers(len(samples)))), length)


def _at_level(samples: NDArray[np.floating], dbfs: float) -> Samples:
    """Sound whose root mean square lies at ``dbfs``."""
    level = float(np.sqrt(np.mean(np.square(samples)))) + 1e-9
    return _f32(samples * (10.0 ** (dbfs / 20.0) / level))


def _unclipped(samples: NDArray[np.floating]) -> Samples:
    return _f32(samples / max(1.0, float(np.abs(samples).max(initial=0.0))))


def _f32(samples: NDArray[np.floating]) -> Samples:
    return np.asarray(samples, np.float32)
