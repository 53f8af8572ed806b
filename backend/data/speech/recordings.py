# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of recorded speech with texts, with phone times or to be aligned."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from backend.audio.rates import SAMPLE_RATE_HZ
from backend.audio.segmentation import prepare_sound
from backend.errors import UserError
from backend.speech.phones import Phone, from_arpabet, merge_silences
from backend.speech.pocketsphinx import align_words
from backend.speech.written_text import words_of

WORST_ALIGN_SCORE = -33.0
_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_SECONDS_MIN, _SECONDS_MAX = 0.5, 60.0


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording, not yet read.

    Attributes:
        path: RawSound file.
        speaker: Who speaks.
        text: What is said.
        phones: With times, or empty where it is yet to be aligned.
    """

    path: Path
    speaker: str
    text: str
    phones: tuple[Phone, ...]


@dataclass(frozen=True, slots=True)
class AlignedRecording:
    """A recording that was read: sound at 16 kHz and phones with times."""

    samples: NDArray[np.float32]
    phones: tuple[Phone, ...]


def list_recordings(folder: Path) -> list[Recording]:
    """Finds the recordings of a folder, in a fixed order.

    The folder has either an ``alignment.json``, which maps each utterance to ``file``, ``text``,
    ``speaker`` and, where it is aligned, ``phones`` as ``[phone, start_s, end_s]`` and
    ``align_score``; or sound files each with a text file of the same name beside it, where the
    folder that a file lies in names its speaker.

    Args:
        folder: The folder.

    Raises:
        UserError: There is nothing of the kind.
    """
    folder = Path(folder)
    index_path = folder / "alignment.json"
    if index_path.is_file():
        found = _listed(folder, json.loads(index_path.read_text(encoding="utf-8")))
    else:
        found = [
            Recording(
                path, path.parent.name, path.with_suffix(".txt").read_text("utf-8").strip(), ()
            )
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in _SUFFIXES and path.with_suffix(".txt").is_file()
        ]
    if not found:
        raise UserError(
            f"No recordings in {folder}: expected an alignment.json, or sound files each with a"
            " .txt of the same name that holds its words."
        )
    return found


def _listed(folder: Path, index: dict[str, dict[str, object]]) -> list[Recording]:
    found = []
    for name in sorted(index):
        entry = index[name]
        score = entry.get("align_score")
        if isinstance(score, int | float) and score < WORST_ALIGN_SCORE:
            continue
        path = _audio_path(folder, name, entry.get("file"))
        rows = entry.get("phones") or []
        if not isinstance(rows, list):
            raise UserError(f"alignment.json: the phones of {name} are not a list.")
        phones = tuple(
            Phone(from_arpabet(symbol), float(start), float(end)) for symbol, start, end in rows
        )
        found.append(
            Recording(path, str(entry.get("speaker", folder.name)), str(entry["text"]), phones)
        )
    return found


def _audio_path(folder: Path, name: str, file: object) -> Path:
    if isinstance(file, str):
        for path in (folder / file, folder / "audio" / file):
            if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                return path
        raise UserError(f"alignment.json names {file}, which is not in {folder}.")
    for suffix in _SUFFIXES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    raise UserError(f"alignment.json names {name}, but {folder} has no sound of that name.")


def read_recording(recording: Recording) -> AlignedRecording | None:
    """Reads a recording and aligns it if need be.

    Args:
        recording: From ``list_recordings``.

    Returns:
        RawSound and phones, or None if it is too short, too long or cannot be aligned well.

    Raises:
        UserError: The sound file cannot be read.
    """
    try:
        samples, rate = soundfile.read(recording.path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{recording.path} cannot be read as sound: {error}") from error
    mono = samples.mean(axis=1)
    if rate != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate, SAMPLE_RATE_HZ).astype(np.float32)
    if not _SECONDS_MIN <= len(mono) / SAMPLE_RATE_HZ <= _SECONDS_MAX:
        return None
    phones = list(recording.phones)
    if not phones:
        phones = _align(mono, recording.text)
    merged = merge_silences(phones)
    return AlignedRecording(mono, tuple(merged)) if merged else None


def _align(samples: NDArray[np.float32], text: str) -> list[Phone]:
    """Phones by forced alignment; none where the words do not fit the sound."""
    sound = prepare_sound(samples)
    if sound is None:
        return []
    piece = align_words(sound, words_of(text))
    return list(piece.phones) if piece.score >= WORST_ALIGN_SCORE else []
