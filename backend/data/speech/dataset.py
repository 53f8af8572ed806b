# SPDX-License-Identifier: GPL-3.0-or-later
"""Clips of speech with phone times from corpora and recordings, with their cached features."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from backend.audio.features import (
    NUM_FEATURES,
    NUM_MELS,
    log_mel_power,
    normalise,
    num_feature_frames,
)
from backend.audio.load import read_sound
from backend.audio.prosody import VoiceCharacter, measure_prosody, voice_character
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.data.speech.corpus import load_corpus
from backend.data.speech.held_out import is_held_out
from backend.data.speech.recordings import list_recordings
from backend.errors import UserError
from backend.speech.phones import Phone

MAX_CLIP_SECONDS = 20.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hold:
    """A vowel that is held.

    Attributes:
        first_frame: Where its steady part begins, in the clip's frames without the hold.
        num_frames: Length of the steady part there.
        extra_frames: Frames by which it lasts longer.
    """

    first_frame: int
    num_frames: int
    extra_frames: int

    def places(self, count: int) -> NDArray[np.float64]:
        """Where each of ``count`` frames lies without the hold, to and fro in the steady part."""
        frames = np.arange(count, dtype=np.float64)
        inside = frames - self.first_frame
        turn = max(self.num_frames - 1, 1)
        swung = self.first_frame + turn - np.abs(inside % (2 * turn) - turn)
        held = np.where(inside < self.extra_frames, swung, frames - self.extra_frames)
        return np.asarray(np.where(inside < 0, frames, held))


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance.

    Attributes:
        key: Id of the utterance, unique within a folder.
        speaker: Name of the speaker; no speaker is in training and validation.
        is_validation: Whether the utterance is held out for validation.
        phones: Phones of the utterance, with times in seconds.
        num_frames: Length of the utterance in frames of 50 Hz.
        first_frame: First frame of the utterance in the arrays of ``SpeechData``, at
            ``FEATURE_RATE_HZ``.
        stored_frames: Number of frames in these arrays; it differs from ``num_frames`` where the
            utterance is at another pace, or a vowel of it is held.
        hold: The vowel that is held, if one is.
    """

    key: str
    speaker: str
    is_validation: bool
    phones: tuple[Phone, ...]
    num_frames: int
    first_frame: int
    stored_frames: int
    hold: Hold | None = field(default=None, repr=False)

    def at_pace(self, pace: float) -> "Clip":
        """The same utterance spoken faster (above 1) or slower, its pitch unchanged."""
        num_frames = max(1, round(self.stored_frames / pace))
        share = num_frames / self.num_frames
        phones = tuple(
            Phone(phone.symbol, phone.start_seconds * share, phone.end_seconds * share)
            for phone in self.phones
        )
        return replace(self, phones=phones, num_frames=num_frames)

    def with_held(self, index: int, seconds: float) -> "Clip":
        """The same utterance with one phone held; at its own pace or another, held once only.

        Args:
            index: Number of the phone in ``phones``.
            seconds: Time by which it lasts longer.

        Returns:
            The clip; its sound goes to and fro in the middle half of the phone.
        """
        phone = self.phones[index]
        quarter = 0.25 * (phone.end_seconds - phone.start_seconds)
        first = round((phone.start_seconds + quarter) * FEATURE_RATE_HZ)
        steady = max(1, round((phone.end_seconds - quarter) * FEATURE_RATE_HZ) - first)
        extra = round(seconds * FEATURE_RATE_HZ)
        longer = extra / FEATURE_RATE_HZ
        phones = tuple(
            replace(
                phone,
                start_seconds=phone.start_seconds + longer * (number > index),
                end_seconds=phone.end_seconds + longer * (number >= index),
            )
            for number, phone in enumerate(self.phones)
        )
        hold = Hold(first, steady, extra)
        return replace(self, phones=phones, num_frames=self.num_frames + extra, hold=hold)

    def stored_places(self, per_frame: int = 1) -> NDArray[np.float64]:
        """Where each frame lies in the stored arrays, of ``per_frame`` rows a frame."""
        frames = (np.arange(per_frame * self.num_frames) + 0.5) / per_frame - 0.5
        unheld = self.num_frames
        if self.hold is not None:
            unheld -= self.hold.extra_frames
            own = np.arange(self.num_frames)
            frames = frames + np.interp(frames, own, self.hold.places(self.num_frames) - own)
        share = self.stored_frames / unheld
        return np.asarray(per_frame * (frames + 0.5) * share - 0.5)


@dataclass(frozen=True)
class SpeechData:
    """Clips, and the features and prosody of their audio, on disk.

    Attributes:
        train: Clips to train on.
        validation: Clips of held-out speakers.
        log_power: Log-mel power at 100 Hz, not normalised, float16, shape ``(2 * frames, 80)``.
        prosody: Linear energy and pitch in hertz at 50 Hz, float32, shape ``(frames, 2)``.
        voices: Measured character of the voice in each clip, by the clip's ``first_frame``.
        fingerprint: Hash of the clips and their phones.
    """

    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    log_power: NDArray[np.float16]
    prosody: NDArray[np.float32]
    voices: dict[int, VoiceCharacter]
    fingerprint: str

    @cached_property
    def by_speaker(self) -> dict[str, list[Clip]]:
        """The training clips of each speaker."""
        clips: dict[str, list[Clip]] = {}
        for clip in self.train:
            clips.setdefault(clip.speaker, []).append(clip)
        return clips

    @property
    def hours(self) -> float:
        """Length of all training clips in hours."""
        return sum(clip.num_frames for clip in self.train) / FEATURE_RATE_HZ / 3600

    def mel(self, clip: Clip) -> NDArray[np.float32]:
        """Log-mel power of a clip before normalisation, shape ``(2 * num_frames, 80)``."""
        start = 2 * clip.first_frame
        stored = self.log_power[start : start + 2 * clip.stored_frames]
        return _stretched(np.asarray(stored, np.float32), clip.stored_places(2))

    def features(self, clip: Clip) -> NDArray[np.float32]:
        """Stacked features as the backend computes them, shape ``(num_frames, 160)``."""
        return normalise(self.mel(clip)).reshape(clip.num_frames, NUM_FEATURES)

    def energy(self, clip: Clip) -> NDArray[np.float32]:
        """Root mean square of the sound around each frame, shape ``(num_frames,)``."""
        stored = self.prosody[clip.first_frame : clip.first_frame + clip.stored_frames, 0]
        return _stretched(stored, clip.stored_places())

    def pitch(self, clip: Clip) -> NDArray[np.float32]:
        """Fundamental frequency in hertz, 0 where there is none, shape ``(num_frames,)``."""
        stored = self.prosody[clip.first_frame : clip.first_frame + clip.stored_frames, 1]
        nearest = np.clip(np.round(clip.stored_places()), 0, len(stored) - 1)
        return stored[nearest.astype(np.int64)]  # a mean of voiced and unvoiced has no meaning


def _stretched(frames: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Linear interpolation along time, ``(n, ...)`` at places ``(m,)`` to ``(m, ...)``."""
    places = np.clip(places, 0.0, len(frames) - 1.0)
    low = places.astype(np.int64)
    high = np.minimum(low + 1, len(frames) - 1)
    share = (places - low).astype(np.float32).reshape(-1, *(1,) * (frames.ndim - 1))
    stretched: NDArray[np.float32] = frames[low] * (1.0 - share) + frames[high] * share
    return stretched


@dataclass(frozen=True, slots=True)
class _Source:
    """An utterance whose audio is not measured yet."""

    key: str
    speaker: str
    phones: tuple[Phone, ...]
    num_samples: int
    samples: Callable[[], NDArray[np.float32]]


def open_speech(folders: Sequence[Path], cache_dir: Path) -> SpeechData:
    """Opens folders of speech, and measures their audio the first time.

    Args:
        folders: Folders of speech: corpora made by ``prepare`` (``index.json``), or recordings with
            phone times (``alignment.json``).
        cache_dir: Folder of the measurements, some 60 MB per hour of speech.

    Returns:
        The clips of all folders.

    Raises:
        UserError: A folder is of neither kind, or all speakers or none are held out.
    """
    sources = [source for folder in folders for source in _read_folder(Path(folder))]
    longest = MAX_CLIP_SECONDS * SAMPLE_RATE_HZ
    sources = [source for source in sources if source.num_samples <= longest]
    speakers = {source.speaker for source in sources}
    if len(speakers) < 2 or len({is_held_out(speaker) for speaker in speakers}) < 2:
        raise UserError(
            f"The speech in {', '.join(map(str, folders))} is of {len(speakers)} speakers, of whom "
            f"{sum(map(is_held_out, speakers))} are held out for validation; training needs both "
            "kinds. Add recordings of more people, or a corpus by 'prepare speech'."
        )
    clips, position = [], 0
    for source in sources:
        frames = num_feature_frames(source.num_samples)
        clips.append(
            Clip(
                key=source.key,
                speaker=source.speaker,
                is_validation=is_held_out(source.speaker),
                phones=source.phones,
                num_frames=frames,
                first_frame=position,
                stored_frames=frames,
            )
        )
        position += frames
    fingerprint = hashlib.sha256(repr(clips).encode()).hexdigest()[:16]
    log_power, prosody, voices = _measure(sources, clips, cache_dir / f"speech-{fingerprint}")
    return SpeechData(
        train=tuple(clip for clip in clips if not clip.is_validation),
        validation=tuple(clip for clip in clips if clip.is_validation),
        log_power=log_power,
        prosody=prosody,
        voices={
            clip.first_frame: VoiceCharacter(**row) for clip, row in zip(clips, voices, strict=True)
        },
        fingerprint=fingerprint,
    )


def _read_folder(folder: Path) -> Iterator[_Source]:
    if (folder / "index.json").is_file():
        yield from _read_corpus(folder)
    elif (folder / "alignment.json").is_file():
        yield from _read_recordings(folder)
    else:
        raise UserError(
            f"{folder} holds no speech to train on: it has neither index.json, as"
            " 'python -m backend prepare speech' makes it, nor alignment.json."
        )


def _read_recordings(folder: Path) -> Iterator[_Source]:
    """The recordings of a folder that have phone times."""
    for recording in list_recordings(folder):
        if not recording.phones:
            continue
        info = soundfile.info(recording.path)
        yield _Source(
            key=recording.path.stem,
            speaker=recording.speaker,
            phones=recording.phones,
            num_samples=round(info.frames * SAMPLE_RATE_HZ / info.samplerate),
            samples=partial(_read_samples, recording.path),
        )


def _read_samples(path: Path) -> NDArray[np.float32]:
    return read_sound(path).samples


def _read_corpus(folder: Path) -> Iterator[_Source]:
    corpus = load_corpus(folder)
    for item in corpus.utterances:
        yield _Source(
            key=item.id,
            speaker=item.speaker,
            phones=item.phones,
            num_samples=item.num_samples,
            samples=partial(corpus.samples, item),
        )


def _measure(
    sources: Sequence[_Source], clips: Sequence[Clip], base: Path
) -> tuple[NDArray[np.float16], NDArray[np.float32], list[dict[str, float]]]:
    """Mel power, prosody and voice of every clip, from the cache where it is complete."""
    mel_path, prosody_path = base.with_suffix(".mel.npy"), base.with_suffix(".prosody.npy")
    voices_path = base.with_suffix(".voice_characters.json")
    if not voices_path.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        total = clips[-1].first_frame + clips[-1].num_frames
        unfinished = base.with_suffix(".partial.npy")
        shape = (2 * total, NUM_MELS)
        log_power = open_memmap(unfinished, mode="w+", dtype=np.float16, shape=shape)
        prosody = np.zeros((total, 2), np.float32)
        voices = []
        for source, clip in zip(sources, clips, strict=True):
            samples = source.samples()[: source.num_samples]
            samples = np.pad(samples, (0, source.num_samples - len(samples)))
            start, stop = clip.first_frame, clip.first_frame + clip.num_frames
            log_power[2 * start : 2 * stop] = log_mel_power(samples)
            measured = measure_prosody(
                samples, sample_rate=SAMPLE_RATE_HZ, num_frames=clip.num_frames, fps=FEATURE_RATE_HZ
            )
            prosody[start:stop] = np.stack([measured.energy, measured.f0], 1)
            voices.append(asdict(voice_character(samples, measured, clip.phones)))
        log_power.flush()
        unfinished.replace(mel_path)
        np.save(prosody_path, prosody)
        voices_path.write_text(json.dumps(voices), encoding="utf-8")
    found = json.loads(voices_path.read_text(encoding="utf-8"))
    return np.load(mel_path, mmap_mode="r"), np.load(prosody_path), found


def fixed_choice(items: Sequence[T], count: int) -> list[T]:
    """Up to ``count`` of the items, the same at every call: a subset to validate on."""
    chosen = np.random.default_rng(0).permutation(len(items))[:count]
    return [items[index] for index in chosen]
