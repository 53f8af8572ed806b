# SPDX-License-Identifier: GPL-3.0-or-later
"""A corpus of speech with phone times: synthesised and recorded, in one format.

A corpus is a folder of shards, ``shards/NAME.npy`` with 16-bit sound at 16 kHz end to end, and
``index.json`` that says what lies where. It is made shard by shard: what is there stays, so an
interrupted run goes on where it stopped, and the same seed gives the same corpus.
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

from backend.audio.rates import SAMPLE_RATE_HZ
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
VALIDATION_SPEAKERS = 20
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
        id: Unique in the corpus.
        speaker: Who speaks; unique to a voice with its settings for synthesisers.
        source: ``recorded``, ``flite``, ``espeak``, ``foreign`` or ``festival``.
        split: ``train`` or ``validation``; no speaker is in both.
        text: The words.
        phones: With times in seconds from the utterance's start.
        shard: Name of the shard.
        offset: First sample in the shard.
        num_samples: At 16 kHz.
    """

    id: str
    speaker: str
    source: str
    split: str
    text: str
    phones: tuple[Phone, ...]
    shard: str
    offset: int
    num_samples: int


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk; sound is read when it is asked for.

    Attributes:
        folder: Where it lies.
        utterances: All of them, in the order of the index.
        content_hash: Of the index; says which data a model was trained on.
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
        folder: Its folder.

    Raises:
        UserError: There is none, or it is of another format.
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
    utterances = tuple(
        Utterance(**{**entry, "phones": tuple(Phone(*phone) for phone in entry["phones"])})
        for entry in index["utterances"]
    )
    return Corpus(Path(folder), utterances, hashlib.sha256(raw).hexdigest()[:16])


def prepare_speech(
    out_dir: Path,
    *,
    recordings: Path | None,
    hours_synthesised: float,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Makes a corpus, or what is missing of it.

    Args:
        out_dir: Folder of the corpus; made if it is missing.
        recordings: Folder of recorded speech (see ``recordings.list_recordings``), or None to do
            without: then real voices, rooms and hesitations are missing from it, and a model hears
            real speech markedly worse.
        hours_synthesised: How much the synthesisers shall say, in hours.
        seed: Of all chance in it.
        workers: Processes that work side by side.
        progress: Told how many shards are done, of how many.

    Returns:
        The corpus.

    Raises:
        UserError: The folder holds a corpus of other settings, the recordings cannot be read, or
            no engine is there to synthesise.
    """
    out_dir = Path(out_dir)
    (out_dir / "shards").mkdir(parents=True, exist_ok=True)
    jobs = _plan(recordings, hours_synthesised, seed)
    _claim(
        out_dir, {"seed": seed, "hours": hours_synthesised, "shards": [job.name for job in jobs]}
    )
    open_jobs = [job for job in jobs if not (out_dir / "shards" / f"{job.name}.json").is_file()]
    done = len(jobs) - len(open_jobs)
    for _ in _run_jobs(open_jobs, out_dir, workers):
        done += 1
        if progress is not None:
            progress(done, len(jobs))
    entries: list[dict[str, Any]] = []
    for job in jobs:
        entries += json.loads((out_dir / "shards" / f"{job.name}.json").read_text(encoding="utf-8"))
    index = {
        "format_version": FORMAT_VERSION,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "seed": seed,
        "utterances": entries,
    }
    write_text(out_dir / "index.json", json.dumps(index))
    return load_corpus(out_dir)


@dataclass(frozen=True, slots=True)
class _Job:
    """One shard to be made; either of recordings or of a synthesiser."""

    name: str
    source: str
    seed: int
    number: int
    seconds: float = 0.0
    recordings: tuple[Recording, ...] = ()
    validation_speakers: frozenset[str] = frozenset()


def _plan(recordings: Path | None, hours: float, seed: int) -> list[_Job]:
    jobs: list[_Job] = []
    if recordings is None:
        _log.warning(
            "No recordings: a model trained on synthesised speech alone hears people worse."
        )
    else:
        found = list_recordings(recordings)
        held_out = _held_out([recording.speaker for recording in found], seed)
        for number, start in enumerate(range(0, len(found), _RECORDINGS_PER_SHARD)):
            some = tuple(found[start : start + _RECORDINGS_PER_SHARD])
            jobs.append(
                _Job(f"recorded_{number:04d}", "recorded", seed, number, 0.0, some, held_out)
            )
    if hours > 0.0:
        jobs += _plan_synthesis(hours, seed)
    return jobs


def _plan_synthesis(hours: float, seed: int) -> list[_Job]:
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
    jobs = []
    total = sum(_SHARES[source] for source in sources)
    for source in sources:
        left = hours * 3600.0 * _SHARES[source] / total
        number = 0
        while left > 1.0:
            jobs.append(
                _Job(f"{source}_{number:04d}", source, seed, number, min(left, _SHARD_SECONDS))
            )
            left -= _SHARD_SECONDS
            number += 1
    return jobs


def _held_out(speakers: Sequence[str], seed: int) -> frozenset[str]:
    """Speakers for validation: 20, or a tenth where there are fewer than 200."""
    names = sorted(set(speakers))
    count = min(VALIDATION_SPEAKERS, max(len(names) // 10, 1)) if len(names) > 1 else 0
    chosen = np.random.default_rng([seed, 20]).permutation(len(names))[:count]
    return frozenset(names[index] for index in chosen)


def _claim(out_dir: Path, settings: dict[str, Any]) -> None:
    """Notes the settings, so that one folder never mixes two corpora."""
    path = out_dir / "settings.json"
    text = json.dumps(settings)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{out_dir} holds a corpus of other settings: choose an empty folder.")
    write_text(path, text)


def _run_jobs(jobs: Sequence[_Job], out_dir: Path, workers: int) -> Iterator[str]:
    """Makes shards and yields their names.

    Each in a process of its own: espeak-ng carries hidden state from sentence to sentence, so what
    it says would depend on which shards a process made before.
    """
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        for future in [pool.submit(_make_shard, job, out_dir) for job in jobs]:
            yield future.result()


def _make_shard(job: _Job, out_dir: Path) -> str:
    """Makes sound and index of one shard; the index last, under its name only when complete."""
    pieces: list[NDArray[np.int16]] = []
    entries: list[dict[str, Any]] = []
    offset = 0
    made = _recorded(job) if job.source == "recorded" else _synthesised(job)
    for speaker, split, text, samples, phones in made:
        sound = np.clip(np.round(samples * 32767.0), -32768, 32767).astype(np.int16)
        utterance = Utterance(
            id=f"{job.name}/{len(entries):04d}",
            speaker=speaker,
            source=job.source,
            split=split,
            text=text,
            phones=tuple(phones),
            shard=job.name,
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
    sound_path = out_dir / "shards" / f"{job.name}.npy"
    partial = sound_path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, np.concatenate(pieces) if pieces else np.zeros(0, np.int16))
    partial.replace(sound_path)
    write_text(out_dir / "shards" / f"{job.name}.json", json.dumps(entries))
    return job.name


_Made = tuple[str, str, str, NDArray[np.float32], Sequence[Phone]]


def _recorded(job: _Job) -> Iterator[_Made]:
    for recording in job.recordings:
        heard = read_recording(recording)
        if heard is not None:
            split = "validation" if recording.speaker in job.validation_speakers else "train"
            yield recording.speaker, split, recording.text, heard.samples, heard.phones


def _synthesised(job: _Job) -> Iterator[_Made]:
    rng = np.random.default_rng([job.seed, 1 + list(_SHARES).index(job.source), job.number])
    maker = SentenceMaker(_lexicon())
    # The speaker's number decides voice and split, so a speaker is never in two splits.
    first = job.number * _SPEAKERS_PER_SHARD
    voices = [_voice(job, first + index) for index in range(_SPEAKERS_PER_SHARD)]
    seconds = 0.0
    turn = 0
    while seconds < job.seconds:
        index = turn % _SPEAKERS_PER_SHARD
        voice = voices[index]
        split = "validation" if (first + index) % 19 == 7 else "train"
        texts = [_text(job.source, voice, maker, rng) for _ in range(_UTTERANCES_AT_ONCE)]
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
            yield f"{voice.speaker}#{first + index}", split, text, result.samples, result.phones


def _text(source: str, voice: Voice, maker: SentenceMaker, rng: np.random.Generator) -> str:
    if source == "foreign":
        return maker.foreign(voice.name.partition("+")[0], rng)
    sentences = [maker.english(rng) for _ in range(1 + int(rng.random() < 0.3))]
    return " ".join(sentences)


def _voice(job: _Job, number: int) -> Voice:
    """The synthetic speaker of that number."""
    rng = np.random.default_rng([job.seed, 100 + list(_SHARES).index(job.source), number])
    slowness = float(np.exp(rng.normal(0.0, 0.18)))
    pitch, liveliness = float(np.exp(rng.normal(0.0, 0.16))), float(np.exp(rng.normal(0.0, 0.35)))
    if job.source == "flite":
        return Voice("flite", FLITE_VOICES[number % len(FLITE_VOICES)], slowness, pitch, liveliness)
    if job.source == "festival":
        voices = festival_voices()
        return Voice("festival", voices[number % len(voices)], slowness)
    languages = ESPEAK_ENGLISH if job.source == "espeak" else tuple(FOREIGN)
    variant = ESPEAK_VARIANTS[int(rng.integers(len(ESPEAK_VARIANTS)))]
    name = f"{languages[number % len(languages)]}+{variant}"
    return Voice("espeak", name, slowness, pitch, liveliness)


def _lexicon() -> Path | None:
    """The pronunciations that come with PocketSphinx, where it is installed."""
    try:
        import pocketsphinx
    except ImportError:
        return None
    return Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
