# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of other scripts are meant)
"""Speech synthesisers with phone times: flite, espeak-ng, Festival."""

import ctypes
import ctypes.util
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from backend.audio.load import resample
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.speech import espeak
from backend.speech.phones import SILENCE, Phone, from_arpabet, from_ipa, merge_silences

FLITE_VOICES = ("slt", "rms", "awb", "kal16")
FESTIVAL_VOICES = ("kal_diphone", "cmu_us_slt_arctic_hts")
ESPEAK_ENGLISH = (
    "en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc", "en-gb-x-gbclan", "en-029",
)  # fmt: skip
ESPEAK_VARIANTS = (
    "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "klatt",
    "klatt2", "klatt3", "klatt4", "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis",
    "Diogo", "Gene", "Hugo", "Jacky", "Lee", "Mario", "Michael", "Mike", "Storm", "adam",
    "anika", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed",
    "edward", "gustave", "iven", "iven3", "john", "linda", "marcelo", "max", "michel",
    "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro",
    "shelby", "steph", "steph3", "travis", "victor", "zac", "whisper",
)  # fmt: skip
_ENGINE_COMMANDS = {"flite": "flite", "festival": "festival", "espeak": "espeak-ng"}
_TIMEOUT_SECONDS = 120
# Statistical voices overlap-add around the labels' times: measured on closures against the labels.
_STATISTICAL_DELAY_SECONDS = 0.008
_STOPS = frozenset(("P", "B", "T", "D", "K", "G", "CH", "JH"))
_SHORTEST_PAUSE_SECONDS = 0.04
_LONGEST_STOP_GAP_SECONDS = 0.14


@dataclass(frozen=True, slots=True)
class Voice:
    """A synthesiser's voice with its settings: one synthetic speaker.

    Attributes:
        engine: Synthesiser that the voice belongs to.
        name: The engine's name of the voice (espeak-ng: ``language+variant``).
        slowness: Factor of the phones' durations.
        pitch: Factor of the mean pitch, where the engine can change it.
        pitch_range: Factor of the pitch's range, where the engine can change it.
    """

    engine: Literal["flite", "espeak", "festival"]
    name: str
    slowness: float = 1.0
    pitch: float = 1.0
    pitch_range: float = 1.0

    @property
    def speaker(self) -> str:
        """Name of this speaker in a corpus."""
        return (
            f"{self.engine}/{self.name}/{self.slowness:.2f}/{self.pitch:.2f}/{self.pitch_range:.2f}"
        )


@dataclass(frozen=True, slots=True)
class Spoken:
    """Synthesised speech.

    Attributes:
        samples: Samples at ``SAMPLE_RATE_HZ``, -1 to 1, shape ``(n,)``.
        phones: Phones with their times in these samples.
    """

    samples: NDArray[np.float32]
    phones: tuple[Phone, ...]


class SynthesisError(RuntimeError):
    """An engine could not speak a text."""


def available_engines() -> tuple[str, ...]:
    """Names of the engines that this machine has."""
    found = [name for name, command in _ENGINE_COMMANDS.items() if shutil.which(command)]
    if _espeak_path() is None and "espeak" in found:
        found.remove("espeak")
    if not festival_voices() and "festival" in found:
        found.remove("festival")
    return tuple(found)


@lru_cache(maxsize=1)
def festival_voices() -> tuple[str, ...]:
    """Those of ``FESTIVAL_VOICES`` that are installed; their packages are not Festival's own."""
    try:
        listed = _run(["festival", "-b", "(print (voice.list))"])
    except SynthesisError:
        return ()
    installed = listed.strip().strip("()").split()
    return tuple(name for name in FESTIVAL_VOICES if name in installed)


def speak(voice: Voice, texts: Sequence[str]) -> list[Spoken]:
    """Synthesises texts.

    Args:
        voice: Voice that speaks.
        texts: Texts of one utterance each, without line breaks.

    Returns:
        The speech of each text, in order.

    Raises:
        SynthesisError: The engine is missing or failed.
    """
    if voice.engine == "flite":
        return [_speak_flite(voice, text) for text in texts]
    if voice.engine == "espeak":
        return [_speak_espeak(voice, text) for text in texts]
    return _speak_festival(voice, texts)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_SECONDS)
    except FileNotFoundError as error:
        raise SynthesisError(f"{command[0]} is not installed") from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SynthesisError(f"{' '.join(command)[:200]} failed: {error}") from error
    return done.stdout.decode("utf-8", "replace")


def _read(path: Path) -> NDArray[np.float32]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(samples[:, 0], rate)


def _spoken(samples: NDArray[np.float32], phones: list[Phone]) -> Spoken:
    """Cuts the phones to the sound's length and checks that they belong together."""
    seconds = len(samples) / SAMPLE_RATE_HZ
    inside = [
        Phone(phone.symbol, max(phone.start_seconds, 0.0), min(phone.end_seconds, seconds))
        for phone in phones
        if phone.start_seconds < seconds
    ]
    merged = merge_silences(inside)
    if not merged or not any(phone.symbol != SILENCE for phone in merged):
        raise SynthesisError("the voice said nothing")
    return Spoken(samples, tuple(merged))


def _from_ends(ends: list[tuple[str, float]], delay: float) -> list[Phone]:
    phones, start = [], 0.0
    for symbol, end in ends:
        phones.append(Phone(from_arpabet(symbol), start, end + delay))
        start = end + delay
    return phones


def _speak_flite(voice: Voice, text: str) -> Spoken:
    default_pitch = {"slt": 180.0, "rms": 100.0, "awb": 120.0, "kal16": 110.0}[voice.name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        settings = {
            "duration_stretch": voice.slowness,
            "int_f0_target_mean": default_pitch * voice.pitch,
            "int_f0_target_stddev": 15.0 * voice.pitch_range,
        }
        flags = [
            part for name, value in settings.items() for part in ("--setf", f"{name}={value:.3f}")
        ]
        printed = _run(
            ["flite", "-voice", voice.name, *flags, "-psdur", "-t", text, "-o", str(path)]
        )
        ends = [(pair.split(":")[0], float(pair.split(":")[1])) for pair in printed.split()]
        delay = 0.0 if voice.name == "kal16" else _STATISTICAL_DELAY_SECONDS
        return _spoken(_read(path), _from_ends(ends, delay))


def _speak_festival(voice: Voice, texts: Sequence[str]) -> list[Spoken]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [
            "(define (say text stem) (let ((u (eval (list 'Utterance 'Text text)))) (utt.synth u)"
            ' (utt.save.segs u (string-append stem ".lab"))'
            ' (utt.save.wave u (string-append stem ".wav"))))',
            f"(voice_{voice.name})",
            f"(Parameter.set 'Duration_Stretch {voice.slowness:.3f})",
        ]
        for index, text in enumerate(texts):
            quoted = text.replace("\\", "").replace('"', "")
            lines.append(f'(say "{quoted}" "{folder / str(index)}")')
        script = folder / "say.scm"
        script.write_text("\n".join(lines), encoding="utf-8")
        _run(["festival", "-b", str(script)])
        delay = _STATISTICAL_DELAY_SECONDS if voice.name.endswith("hts") else 0.0
        spoken = []
        for index in range(len(texts)):
            label = (folder / f"{index}.lab").read_text(encoding="utf-8")
            rows = [line.split() for line in label.splitlines() if not line.startswith("#")]
            ends = [(row[2], float(row[0])) for row in rows if len(row) == 3]
            spoken.append(_spoken(_read(folder / f"{index}.wav"), _from_ends(ends, delay)))
        return spoken


# espeak-ng through its library: the command line does not tell when phonemes are spoken.
# Structures and numbers from espeak-ng's speak_lib.h (1.51).
_UTF8, _EVENT_PHONEME = 1, 7
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@lru_cache(maxsize=1)
def _espeak_path() -> str | None:
    """The package's library, so that one process never holds two of them; else the system's."""
    file = espeak.library_file()
    return str(file) if file is not None else ctypes.util.find_library("espeak-ng")


class _Espeak:
    """The library of espeak-ng, which holds one voice per process."""

    def __init__(self) -> None:
        path = _espeak_path()
        if path is None:
            raise SynthesisError("the library of espeak-ng is not installed")
        self._library: Any = ctypes.CDLL(path)
        file = espeak.library_file()
        self._rate = espeak.start(self._library, None if file is None else file.parent)
        if self._rate <= 0:
            raise SynthesisError("espeak-ng did not start; are its data installed?")
        self._sound: list[NDArray[np.int16]] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, sound: Any, num_samples: int, events: Any) -> int:
        if sound and num_samples > 0:
            self._sound.append(np.ctypeslib.as_array(sound, (num_samples,)).copy())
        index = 0
        while events[index].type:
            if events[index].type == _EVENT_PHONEME:
                name = bytes(events[index].id.string).decode("utf-8", "ignore")
                self._events.append((events[index].sample, name))
            index += 1
        return 0

    def speak(self, voice: Voice, text: str) -> tuple[NDArray[np.float32], list[tuple[float, str]]]:
        """The sound at 16 kHz, and when each phoneme starts in seconds."""
        self._sound.clear()
        self._events.clear()
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise SynthesisError(f"espeak-ng has no voice {voice.name}")
        base_rate, base_pitch, base_range = 165, 50, 50
        self._library.espeak_SetParameter(_PARAMETER_RATE, round(base_rate / voice.slowness), 0)
        pitch = round(min(max(base_pitch * voice.pitch, 0), 99))
        self._library.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0)
        spread = round(min(max(base_range * voice.pitch_range, 0), 99))
        self._library.espeak_SetParameter(_PARAMETER_RANGE, spread, 0)
        # It seeds the C library's random numbers with the process's id; a corpus must not.
        ctypes.CDLL(None).srand(1)
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._sound:
            raise SynthesisError(f"espeak-ng said nothing for {text[:60]!r}")
        sound = np.concatenate(self._sound).astype(np.float32) / 32768.0
        starts = [(sample / self._rate, name) for sample, name in self._events]
        return resample(sound, self._rate), starts


@lru_cache(maxsize=1)
def _espeak() -> _Espeak:
    return _Espeak()


def _speak_espeak(voice: Voice, text: str) -> Spoken:
    samples, starts = _espeak().speak(voice, text)
    ends = [start for start, _ in starts[1:]] + [len(samples) / SAMPLE_RATE_HZ]
    phones: list[Phone] = []
    is_english = voice.name.startswith("en")
    for (start, name), end in zip(starts, ends, strict=True):
        # In its English voices the plain letter stands for the vowel of "cat".
        name = name.replace("a", "æ") if is_english and name in ("a", "aː") else name
        symbols = tuple(kind.symbol for kind in from_ipa(name))  # networks know no variants
        if phones and symbols == (SILENCE,) and end - start < _SHORTEST_PAUSE_SECONDS:
            symbols = (phones.pop().symbol,)
            start = phones[-1].end_seconds if phones else 0.0  # the phone before goes on
        for index, symbol in enumerate(symbols):
            share = (end - start) / len(symbols)
            phones.append(Phone(symbol, start + index * share, start + (index + 1) * share))
    return _spoken(samples, _with_stop_gaps(samples, phones))


def _with_stop_gaps(samples: NDArray[np.float32], phones: list[Phone]) -> list[Phone]:
    """Starts stops where their closure starts.

    espeak-ng gives the time of a stop's burst, and counts the silent closure before it to the phone
    before. The lips, however, are shut in that silence.
    """
    hop = SAMPLE_RATE_HZ // 200
    usable = len(samples) // hop * hop
    level = np.abs(samples[:usable]).reshape(-1, hop).max(axis=1)  # 5 ms each
    moved = list(phones)
    for index in range(1, len(moved)):
        stop, before = moved[index], moved[index - 1]
        if stop.symbol not in _STOPS or before.symbol == SILENCE:
            continue
        last = min(round(stop.start_seconds * 200), len(level))
        first = max(round((stop.start_seconds - _LONGEST_STOP_GAP_SECONDS) * 200), 0)
        quiet = level[first:last] < 0.03 * float(level.max(initial=0.0))
        gap = int(np.argmin(quiet[::-1])) if not quiet.all() else len(quiet)
        start = max(stop.start_seconds - gap / 200, before.start_seconds + 0.02)
        if start < stop.start_seconds:
            moved[index - 1] = Phone(before.symbol, before.start_seconds, start)
            moved[index] = Phone(stop.symbol, start, stop.end_seconds)
    return moved
