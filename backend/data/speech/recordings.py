# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of recorded speech with texts, with phone times or to be aligned."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from backend.audio.load import read_sound
from backend.audio.segmentation import prepare_sound
from backend.errors import UserError
from backend.speech import moonshine_encoder, moonshine_phones
from backend.speech.forced_alignment import align_words
from backend.speech.phones import Phone, from_arpabet, merge_silences
from backend.speech.written_text import words_of

WORST_ALIGN_SCORE = -33.0
_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_SECONDS_MIN, _SECONDS_MAX = 0.5, 60.0


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that is not read yet.

    Attributes:
        path: Sound file of the recording.
        speaker: Name of the speaker.
        text: Transcript of the recording.
        phones: Phones with times, or none where the recording is to be aligned.
    """

    path: Path
    speaker: str
    text: str
    phones: tuple[Phone, ...]


@dataclass(frozen=True, slots=True)
class AlignedRecording:
    """A recording that was read: samples at 16 kHz and phones with times."""

    samples: NDArray[np.float32]
    phones: tuple[Phone, ...]


def list_recordings(folder: Path) -> list[Recording]:
    """Finds the recordings of a folder, in a fixed order.

    The folder has either an ``alignment.json``, which maps each utterance to ``file``, ``text``,
    ``speaker`` and, where it is aligned, ``phones`` as ``[phone, start_s, end_s]`` and
    ``align_score``; or sound files each with a text file of the same name beside it, where the
    folder that a file lies in names its speaker.

    Args:
        folder: Folder of the recordings.

    Returns:
        The recordings, without those whose alignment is poor.

    Raises:
        UserError: The folder holds no recordings, or its ``alignment.json`` is damaged.
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
        recording: A recording of ``list_recordings``.

    Returns:
        Samples and phones, or None if it is too short, too long or cannot be aligned well.

    Raises:
        UserError: The sound file cannot be read.
    """
    try:
        if not _SECONDS_MIN <= soundfile.info(recording.path).duration <= _SECONDS_MAX:
            return None
        samples = read_sound(recording.path).samples
    except (soundfile.LibsndfileError, UserError) as error:
        raise UserError(f"{recording.path} cannot be read as sound: {error}") from error
    phones = list(recording.phones) or _align(samples, recording.text)
    merged = merge_silences(phones)
    return AlignedRecording(samples, tuple(merged)) if merged else None


def _align(samples: NDArray[np.float32], text: str) -> list[Phone]:
    """Phones by forced alignment; none where the transcript does not fit the audio."""
    sound = prepare_sound(samples)
    if sound is None:
        return []
    heard = moonshine_encoder.encode(sound)
    posteriors = moonshine_phones.head_log_posteriors(heard, len(sound))
    piece = align_words(words_of(text), None, posteriors)
    return list(piece.phones) if piece.is_confirmed else []
