# SPDX-License-Identifier: GPL-3.0-or-later
"""Corpora of synthesised and recorded speech with phone times, in one format.

A corpus is a folder of shards, ``shards/NAME.npy`` with 16-bit sound at 16 kHz end to end, and
``index.json``, which lists the utterances and their places. It is made shard by shard: finished
shards are kept, so an interrupted run goes on where it stopped, and the same seed gives the same
corpus.
"""

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.data.speech.held_out import is_held_out
from backend.data.speech.recordings import Recording, list_recordings, read_recording
from backend.data.speech.sentences import FOREIGN, SentenceMaker
from backend.data.speech.synthesis import (
    ESPEAK_ENGLISH,
    ESPEAK_VARIANTS,
    FLITE_VOICES,
    SynthesisError,
    Voice,
    available_engines,
    festival_voices,
    speak,
)
from backend.errors import UserError
from backend.io import write_text
from backend.speech.phones import Phone

FORMAT_VERSION = 1
_SHARD_SECONDS = 240.0
_RECORDINGS_PER_SHARD = 100
_SPEAKERS_PER_SHARD = 6
_UTTERANCES_AT_ONCE = 6
_SHARES = {"flite": 0.42, "espeak": 0.32, "foreign": 0.12, "festival": 0.14}
"""Parts of the synthesised hours; ``foreign`` is espeak-ng in other languages."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance of a corpus.

    Attributes:
        id: Id of the utterance, unique in the corpus.
        speaker: Name of the speaker; for synthesisers, of a voice with its settings.
        source: ``recorded``, or the synthesis: ``flite``, ``espeak``, ``foreign``, ``festival``.
        text: Transcript of the utterance.
        phones: Phones with times in seconds from the utterance's start.
        shard: Name of the shard that holds the samples.
        offset: First sample in the shard.
        num_samples: Number of samples at 16 kHz.
    """

    id: str
    speaker: str
    source: str
    text: str
    phones: tuple[Phone, ...]
    shard: str
    offset: int
    num_samples: int

    @property
    def split(self) -> str:
        """``train`` or ``validation``, which the speaker's name decides."""
        return "validation" if is_held_out(self.speaker) else "train"


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk; samples are read on demand.

    Attributes:
        folder: Folder of the corpus.
        utterances: All utterances, in the order of the index.
        content_hash: Hash of the index, which identifies the data that a model was trained on.
    """

    folder: Path
    utterances: tuple[Utterance, ...]
    content_hash: str

    def samples(self, utterance: Utterance) -> NDArray[np.float32]:
        """The utterance's sound, -1 to 1, shape ``(num_samples,)``."""
        shard = _open_shard(self.folder / "shards" / f"{utterance.shard}.npy")
        sound = shard[utterance.offset : utterance.offset + utterance.num_samples]
        return sound.astype(np.float32) / 32768.0

    def split(self, name: str) -> list[Utterance]:
        """The utterances of ``train`` or ``validation``."""
        return [utterance for utterance in self.utterances if utterance.split == name]


@lru_cache(maxsize=1024)
def _open_shard(path: Path) -> NDArray[np.int16]:
    shard: NDArray[np.int16] = np.load(path, mmap_mode="r")
    return shard


def load_corpus(folder: Path) -> Corpus:
    """Opens a corpus that ``prepare_speech`` made.

    Args:
        folder: Folder of the corpus.

    Returns:
        The corpus.

    Raises:
        UserError: The folder holds no corpus, or one of another format.
    """
    path = Path(folder) / "index.json"
    if not path.is_file():
        raise UserError(f"No corpus in {folder}: make one with 'python -m backend prepare speech'.")
    raw = path.read_bytes()
    index = json.loads(raw)
    if index.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"The corpus in {folder} has format {index.get('format_version')}, expected"
            f" {FORMAT_VERSION}: make it again in an empty folder."
        )
    utterances = tuple(_utterance(entry) for entry in index["utterances"])
    return Corpus(Path(folder), utterances, hashlib.sha256(raw).hexdigest()[:16])


def _utterance(entry: dict[str, Any]) -> Utterance:
    phones = tuple(Phone(*phone) for phone in entry["phones"])
    known = {name: value for name, value in entry.items() if name != "split"}  # of older corpora
    return Utterance(**{**known, "phones": phones})


def prepare_speech(
    out_dir: Path,
    *,
    recordings: Path | None,
    hours_synthesised: float,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Makes a corpus, or the shards that are missing of it.

    Args:
        out_dir: Folder of the corpus; made if it is missing.
        recordings: Folder of recorded speech (see ``recordings.list_recordings``), or None for
            none: a model that is trained without real voices, rooms and hesitations recognises real
            speech markedly worse.
        hours_synthesised: Hours of synthesised speech.
        seed: Seed of the sentences and synthetic voices.
        workers: Number of processes.
        progress: Called with the number of finished shards, and of all.

    Returns:
        The corpus.

    Raises:
        UserError: The folder holds a corpus of other settings, the recordings cannot be read, or
            no synthesiser is installed.
    """
    out_dir = Path(out_dir)
    (out_dir / "shards").mkdir(parents=True, exist_ok=True)
    plans = _plan(recordings, hours_synthesised, seed)
    _claim(
        out_dir, {"seed": seed, "hours": hours_synthesised, "shards": [plan.name for plan in plans]}
    )
    unfinished = [
        plan for plan in plans if not (out_dir / "shards" / f"{plan.name}.json").is_file()
    ]
    done = len(plans) - len(unfinished)
    for _ in _make_shards(unfinished, out_dir, workers):
        done += 1
        if progress is not None:
            progress(done, len(plans))
    entries: list[dict[str, Any]] = []
    for plan in plans:
        entries += json.loads(
            (out_dir / "shards" / f"{plan.name}.json").read_text(encoding="utf-8")
        )
    index = {
        "format_version": FORMAT_VERSION,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "seed": seed,
        "utterances": entries,
    }
    write_text(out_dir / "index.json", json.dumps(index))
    return load_corpus(out_dir)


@dataclass(frozen=True, slots=True)
class _ShardPlan:
    """A shard to be made, either of recordings or by a synthesiser."""

    name: str
    source: str
    seed: int
    number: int
    seconds: float = 0.0
    recordings: tuple[Recording, ...] = ()


def _plan(recordings: Path | None, hours: float, seed: int) -> list[_ShardPlan]:
    plans: list[_ShardPlan] = []
    if recordings is None:
        _log.warning(
            "No recordings: a model trained on synthesised speech alone recognises people worse."
        )
    else:
        found = list_recordings(recordings)
        for number, start in enumerate(range(0, len(found), _RECORDINGS_PER_SHARD)):
            some = tuple(found[start : start + _RECORDINGS_PER_SHARD])
            plans.append(_ShardPlan(f"recorded_{number:04d}", "recorded", seed, number, 0.0, some))
    if hours > 0.0:
        plans += _plan_synthesis(hours, seed)
    return plans


def _plan_synthesis(hours: float, seed: int) -> list[_ShardPlan]:
    engines = available_engines()
    sources = [
        source for source in _SHARES if ("espeak" if source == "foreign" else source) in engines
    ]
    if not sources:
        raise UserError(
            "No speech synthesiser found: install flite, espeak-ng or festival, or set the hours"
            " to 0."
        )
    missing = sorted({"flite", "espeak", "festival"} - set(engines))
    if missing:
        _log.warning("Not installed, so their voices are missing: %s", ", ".join(missing))
    plans = []
    total = sum(_SHARES[source] for source in sources)
    for source in sources:
        left = hours * 3600.0 * _SHARES[source] / total
        number = 0
        while left > 1.0:
            plans.append(
                _ShardPlan(
                    f"{source}_{number:04d}", source, seed, number, min(left, _SHARD_SECONDS)
                )
            )
            left -= _SHARD_SECONDS
            number += 1
    return plans


def _claim(out_dir: Path, settings: dict[str, Any]) -> None:
    """Writes the settings into the folder, so that one folder never mixes two corpora."""
    path = out_dir / "settings.json"
    text = json.dumps(settings)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{out_dir} holds a corpus of other settings: choose an empty folder.")
    write_text(path, text)


def _make_shards(plans: Sequence[_ShardPlan], out_dir: Path, workers: int) -> Iterator[str]:
    """Makes shards and yields their names.

    Each shard is made in a process of its own: espeak-ng carries hidden state from sentence to
    sentence, so its speech would depend on the shards that a process made before.
    """
    if not plans:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        for future in [pool.submit(_make_shard, plan, out_dir) for plan in plans]:
            yield future.result()


def _make_shard(plan: _ShardPlan, out_dir: Path) -> str:
    """Writes samples and index of one shard; the index last, once it is complete."""
    pieces: list[NDArray[np.int16]] = []
    entries: list[dict[str, Any]] = []
    offset = 0
    made = _recorded(plan) if plan.source == "recorded" else _synthesised(plan)
    for speaker, text, samples, phones in made:
        sound = np.clip(np.round(samples * 32767.0), -32768, 32767).astype(np.int16)
        utterance = Utterance(
            id=f"{plan.name}/{len(entries):04d}",
            speaker=speaker,
            source=plan.source,
            text=text,
            phones=tuple(phones),
            shard=plan.name,
            offset=offset,
            num_samples=len(sound),
        )
        entry = asdict(utterance)
        entry["phones"] = [
            [phone.symbol, round(phone.start_seconds, 4), round(phone.end_seconds, 4)]
            for phone in phones
        ]
        entries.append(entry)
        pieces.append(sound)
        offset += len(sound)
    sound_path = out_dir / "shards" / f"{plan.name}.npy"
    partial = sound_path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, np.concatenate(pieces) if pieces else np.zeros(0, np.int16))
    partial.replace(sound_path)
    write_text(out_dir / "shards" / f"{plan.name}.json", json.dumps(entries))
    return plan.name


_Made = tuple[str, str, NDArray[np.float32], Sequence[Phone]]


def _recorded(plan: _ShardPlan) -> Iterator[_Made]:
    for recording in plan.recordings:
        aligned = read_recording(recording)
        if aligned is not None:
            yield recording.speaker, recording.text, aligned.samples, aligned.phones


def _synthesised(plan: _ShardPlan) -> Iterator[_Made]:
    rng = np.random.default_rng([plan.seed, 1 + list(_SHARES).index(plan.source), plan.number])
    maker = SentenceMaker(bundled.pronouncing_dictionary())
    # The speaker's number decides the voice, and is part of the speaker's name.
    first = plan.number * _SPEAKERS_PER_SHARD
    voices = [_voice(plan, first + index) for index in range(_SPEAKERS_PER_SHARD)]
    seconds = 0.0
    turn = 0
    while seconds < plan.seconds:
        index = turn % _SPEAKERS_PER_SHARD
        voice = voices[index]
        texts = [_text(plan.source, voice, maker, rng) for _ in range(_UTTERANCES_AT_ONCE)]
        turn += 1
        try:
            spoken = speak(voice, texts)
        except SynthesisError as error:
            _log.warning("%s: %s", voice.speaker, error)
            if turn > 200 and seconds == 0.0:
                raise
            continue
        for text, result in zip(texts, spoken, strict=True):
            seconds += len(result.samples) / SAMPLE_RATE_HZ
            yield f"{voice.speaker}#{first + index}", text, result.samples, result.phones


def _text(source: str, voice: Voice, maker: SentenceMaker, rng: np.random.Generator) -> str:
    if source == "foreign":
        return maker.foreign(voice.name.partition("+")[0], rng)
    sentences = [maker.english(rng) for _ in range(1 + int(rng.random() < 0.3))]
    return " ".join(sentences)


def _voice(plan: _ShardPlan, number: int) -> Voice:
    """The synthetic speaker of a number."""
    rng = np.random.default_rng([plan.seed, 100 + list(_SHARES).index(plan.source), number])
    slowness = float(np.exp(rng.normal(0.0, 0.18)))
    pitch, pitch_range = float(np.exp(rng.normal(0.0, 0.16))), float(np.exp(rng.normal(0.0, 0.35)))
    if plan.source == "flite":
        return Voice(
            "flite", FLITE_VOICES[number % len(FLITE_VOICES)], slowness, pitch, pitch_range
        )
    if plan.source == "festival":
        voices = festival_voices()
        return Voice("festival", voices[number % len(voices)], slowness)
    languages = ESPEAK_ENGLISH if plan.source == "espeak" else tuple(FOREIGN)
    variant = ESPEAK_VARIANTS[int(rng.integers(len(ESPEAK_VARIANTS)))]
    name = f"{languages[number % len(languages)]}+{variant}"
    return Voice("espeak", name, slowness, pitch, pitch_range)
