# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches drawn from speech: phones for the content encoder, motions for the whole model.

Apart from ``dataset.py``, which only reads and measures, since here lies what training *teaches*:
what is augmented, which phones the model is told, which style it must take from where.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.articulation.coarticulation import articulate
from backend.articulation.speaking_style import SpeakingStyle, style_for_voice, training_styles
from backend.audio.features import NUM_FEATURES, normalise
from backend.audio.rates import FEATURE_RATE_HZ
from backend.data.speech.augment_features import augment, mask, no_speech
from backend.data.speech.crops import draw_crop
from backend.data.speech.dataset import Clip, SpeechData
from backend.data.speech.phone_errors import corrupt
from backend.heads.arkit import ARKIT_NAMES
from backend.model.batch import TrainingBatch
from backend.speech.phones import PHONE_IDS, SILENCE, phone_frames

IGNORED = -100
CLEAN_SHARE = 0.15
NO_SPEECH_SHARE = 0.06
STRENGTHS = (0.2, 1.6)
EXEMPLAR_FRAMES = (125, 250)
"""Shortest and longest clip from which a style is read where that costs little."""
DEAF_SHARE = 0.2
"""Of the sequences that are told the right phones: those that hear nothing, and must trust them."""


@dataclass(frozen=True, slots=True)
class PhoneBatch:
    """Speech and what is said in it.

    Attributes:
        speech: Features, float32, shape ``(B, T, 160)``.
        lengths: Valid frames, int64, shape ``(B,)``.
        phones: Ids of ``phones.phone_frames``, ``IGNORED`` in the padding, int64, shape ``(B, T)``.
        told: What a recogniser says is said, 0 for nothing, int64, shape ``(B, T)``.
    """

    speech: Tensor
    lengths: Tensor
    phones: Tensor
    told: Tensor


def phone_batch(
    data: SpeechData,
    *,
    seed: int,
    number: int,
    batch_size: int,
    num_frames: int,
    told_share: float = 0.0,
) -> PhoneBatch:
    """Batch ``number`` of the first stage: augmented crops, rarely of pauses.

    Args:
        data: The speech.
        seed: Of the run.
        number: Of the batch; the same number gives the same batch.
        batch_size: Crops ``B``.
        num_frames: Their length ``T``; shorter clips are padded.
        told_share: Crops for which a recogniser's phones are given, errors and all.

    Returns:
        The batch.
    """
    recipe = MotionRecipe(exact_share=0.0, corrupted_share=told_share)
    told = np.zeros((batch_size, num_frames), np.int64)
    rng = np.random.default_rng((seed, 1, number))
    speech = np.zeros((batch_size, num_frames, NUM_FEATURES), np.float32)
    phones = np.full((batch_size, num_frames), IGNORED, np.int64)
    lengths = np.zeros(batch_size, np.int64)
    for row in range(batch_size):
        if rng.random() < NO_SPEECH_SHARE:
            speech[row] = mask(_features_without_speech(num_frames, rng), rng)
            phones[row], lengths[row] = PHONE_IDS[SILENCE], num_frames
            continue
        clip, start, labels = draw_crop(data, rng, num_frames=num_frames)
        length = len(labels)
        speech[row, :length] = mask(
            augmented_features(data, clip, rng)[start : start + length], rng
        )
        phones[row, :length] = labels
        lengths[row] = length
        if told_share:
            told[row, :length] = _told_phones(clip, recipe, rng)[start : start + length]
    return PhoneBatch(*map(torch.from_numpy, (speech, lengths, phones, told)))


def augmented_features(
    data: SpeechData, clip: Clip, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Features of a whole clip as another voice in another place, shape ``(num_frames, 160)``.

    The normalisation looks 3 s around, so it is done on the clip and not on a crop of it.
    """
    mel = data.mel(clip)
    if rng.random() >= CLEAN_SHARE:
        other = data.train[int(rng.integers(len(data.train)))]
        mel = augment(mel, rng, babble=data.mel(other))
    return normalise(mel).reshape(clip.num_frames, NUM_FEATURES)


def _features_without_speech(num_frames: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Features while nobody speaks, shape ``(num_frames, 160)``."""
    mel = augment(no_speech(2 * num_frames, rng), rng)
    return normalise(mel).reshape(num_frames, NUM_FEATURES)


@dataclass(frozen=True, slots=True)
class MotionRecipe:
    """How the second stage's batches are made.

    Attributes:
        batch_size: Sequences ``B``.
        num_frames: Length ``T`` at ``FEATURE_RATE_HZ``; shorter clips are padded.
        style_frames: Shortest and longest style clip.
        num_styles: Training styles with an identity, which ``speaker`` numbers.
        neutral_share: Sequences in the neutral style, most with no source of style: what the
            model does when it is not told a style.
        identity_share: Of the others, those in one of the numbered styles.
        exact_share: Sequences that are told the right phones.
        corrupted_share: Sequences that are told phones with a recogniser's errors; the rest hears
            only.
        voice_share: Of the rest, those whose style can be heard in part in the voice.
        masked_share: Sequences whose features are masked as in the first stage.
        scaled_share: Of those in a style, the ones that have more or less of it than is shown.
        slow_share: Sequences that are spoken slower, down to less than half of the usual pace.
        styles_per_clip: Neighbouring sequences that say and hear the same, each in its own style.
    """

    batch_size: int = 12
    num_frames: int = 150
    style_frames: tuple[int, int] = (75, 150)
    num_styles: int = 64
    neutral_share: float = 0.2
    identity_share: float = 0.35
    exact_share: float = 0.3
    corrupted_share: float = 0.35
    voice_share: float = 0.5
    masked_share: float = 0.5
    scaled_share: float = 0.0
    slow_share: float = 0.0
    styles_per_clip: int = 1


def motion_of(data: SpeechData, clip: Clip, style: SpeakingStyle) -> NDArray[np.float32]:
    """The true motion of a clip in a style, shape ``(num_frames, 52)``, eyes without blinks.

    When a speaker blinks cannot be heard, so the model must not be asked; a mean of all possible
    blinks would leave the eyes half closed.
    """
    return articulate(
        clip.phones,
        style=style,
        num_frames=clip.num_frames,
        fps=FEATURE_RATE_HZ,
        energy=data.energy(clip),
        f0=data.pitch(clip),
        blinks=False,
    )


def motion_batch(
    data: SpeechData, recipe: MotionRecipe, *, seed: int, number: int
) -> tuple[TrainingBatch, Tensor]:
    """Batch ``number`` of the last stage: sentences, each in a style shown by another clip.

    Args:
        data: The speech.
        recipe: How it is made.
        seed: Of the run.
        number: Of the batch; the same number gives the same batch.

    Returns:
        The batch, on the CPU, and the styles' vectors, shape ``(B, STYLE_DIM)``.
    """
    rng = np.random.default_rng((seed, 2, number))
    rows: list[dict[str, NDArray[np.generic]]] = []
    while len(rows) < recipe.batch_size:
        rows += _motion_rows(data, recipe, rng)
    stacked = {name: _padded([row[name] for row in rows]) for name in rows[0]}
    frames = torch.arange(stacked["phone_targets"].shape[1])
    stacked["phone_targets"][frames[None] >= stacked["speech_lengths"][:, None]] = IGNORED
    styles = stacked.pop("style")
    return TrainingBatch(**stacked), styles


def style_batch(
    data: SpeechData, recipe: MotionRecipe, *, seed: int, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch ``number`` of the styles' stage: sentences in random styles, without their sound.

    Args:
        data: The speech.
        recipe: How it is made.
        seed: Of the run.
        number: Of the batch; the same number gives the same batch.

    Returns:
        Motions ``(B, T, 52)``, their lengths ``(B,)`` and the styles' vectors ``(B, STYLE_DIM)``.
    """
    rng = np.random.default_rng((seed, 4, number))
    styles = [SpeakingStyle.sample(rng) for _ in range(recipe.batch_size)]
    motions = [_exemplar(data, recipe, style, rng) for style in styles]
    vectors = np.stack([style.to_vector() for style in styles])
    lengths = torch.tensor([len(motion) for motion in motions])
    return _padded(motions), lengths, torch.from_numpy(vectors)


def _motion_rows(
    data: SpeechData, recipe: MotionRecipe, rng: np.random.Generator
) -> list[dict[str, NDArray[np.generic]]]:
    """Sequences of one crop: arrays without padding, named as the fields of ``TrainingBatch``."""
    clip, start, labels = draw_crop(
        data, rng, num_frames=recipe.num_frames, slow_share=recipe.slow_share
    )
    span = slice(start, start + len(labels))
    told = _told_phones(clip, recipe, rng)[span]
    is_spoken = rng.random() >= NO_SPEECH_SHARE
    if is_spoken:
        features = augmented_features(data, clip, rng)[span]
    else:
        features = _features_without_speech(len(labels), rng)
        labels = np.full(len(labels), PHONE_IDS[SILENCE])
        told = np.zeros(len(labels), np.int64)
    if rng.random() < recipe.masked_share:
        features = mask(features, rng)
    if told.max(initial=0) > len(PHONE_IDS) and rng.random() < DEAF_SHARE:
        features = np.zeros_like(features)
    heard = {
        "speech": features,
        "speech_lengths": np.array(len(labels)),
        "motion_lengths": np.array(len(labels)),
        "phones": told,
        "phone_targets": labels,
    }
    return [
        heard | _styled(data, recipe, clip, span if is_spoken else None, len(labels), rng)
        for _ in range(recipe.styles_per_clip)
    ]


def _styled(
    data: SpeechData,
    recipe: MotionRecipe,
    clip: Clip,
    span: slice | None,
    num_frames: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.generic]]:
    """The motion of a crop, or of silence, in a style, and what shows the style."""
    shown = _draw_style(data, recipe, clip, rng)
    strength = rng.uniform(*STRENGTHS) if rng.random() < recipe.scaled_share else 1.0
    style = SpeakingStyle.neutral().blend(shown.style, strength)
    if span is None:
        motion = articulate(
            [], style=style, num_frames=num_frames, fps=FEATURE_RATE_HZ, blinks=False
        )
    else:
        motion = motion_of(data, clip, style)[span]
    exemplar = _exemplar(data, recipe, shown.style, rng) if shown.is_seen else _NO_MOTION
    voice = _voice(data, recipe, clip, rng) if shown.is_heard else _NO_SOUND
    return {
        "motion": motion,
        "style": shown.style.to_vector(),
        "style_strength": np.array(strength, np.float32),
        "speaker": np.array(shown.number),
        "style_motion": exemplar,
        "style_motion_lengths": np.array(len(exemplar) if shown.is_seen else 0),
        "style_speech": voice,
        "style_speech_lengths": np.array(len(voice) if shown.is_heard else 0),
    }


_NO_MOTION = np.zeros((2, len(ARKIT_NAMES)), np.float32)
_NO_SOUND = np.zeros((2, NUM_FEATURES), np.float32)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A style and where it can be taken from."""

    style: SpeakingStyle
    number: int = -1
    is_seen: bool = True
    is_heard: bool = False


def _draw_style(
    data: SpeechData, recipe: MotionRecipe, clip: Clip, rng: np.random.Generator
) -> _Shown:
    """The neutral style, which is not shown; a numbered one; one that suits the voice; any."""
    if rng.random() < recipe.neutral_share:
        return _Shown(SpeakingStyle.neutral(), is_seen=rng.random() < 0.2)
    if rng.random() < recipe.identity_share:
        number = int(rng.integers(recipe.num_styles))
        return _Shown(training_styles(recipe.num_styles)[number], number)
    if rng.random() < recipe.voice_share:
        return _Shown(style_for_voice(data.voices[clip.key], rng), is_heard=True)
    return _Shown(SpeakingStyle.sample(rng))


def _exemplar(
    data: SpeechData, recipe: MotionRecipe, style: SpeakingStyle, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Another sentence in the style."""
    wanted = int(rng.integers(*recipe.style_frames, endpoint=True))
    clip, start, labels = draw_crop(data, rng, num_frames=wanted)
    return motion_of(data, clip, style)[start : start + len(labels)]


def _voice(
    data: SpeechData, recipe: MotionRecipe, clip: Clip, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Features of another sentence of the same speaker, to hear a style in."""
    others = data.by_speaker[clip.speaker]
    other = others[int(rng.integers(len(others)))]
    return data.features(other)[: recipe.style_frames[1]]


def _told_phones(clip: Clip, recipe: MotionRecipe, rng: np.random.Generator) -> NDArray[np.int64]:
    """What the model is told is said in a clip: the truth, a recogniser's errors, or nothing."""
    kind = rng.random()
    if kind < recipe.exact_share:
        return phone_frames(clip.phones, clip.num_frames, FEATURE_RATE_HZ, source="given")
    if kind < recipe.exact_share + recipe.corrupted_share:
        return phone_frames(corrupt(clip.phones, rng), clip.num_frames, FEATURE_RATE_HZ)
    return np.zeros(clip.num_frames, np.int64)


def _padded(arrays: Sequence[NDArray[Any]]) -> Tensor:
    if arrays[0].ndim == 0:
        return torch.from_numpy(np.stack(arrays))
    longest = max(len(array) for array in arrays)
    result = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(result, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(result)


Told = Literal["nothing", "truth", "misheard"]


def plain_batch(
    data: SpeechData,
    clips: Sequence[Clip],
    style: SpeakingStyle,
    *,
    told: Told,
    seed: int = 0,
) -> TrainingBatch:
    """Whole clips as they are, for judging a model.

    Args:
        data: The speech.
        clips: What is said.
        style: The true answer's style.
        told: Which phones the model is told.
        seed: Of what is misheard.

    Returns:
        The batch, on the CPU.
    """
    rng = np.random.default_rng((seed, 3))
    share = {"nothing": (0.0, 0.0), "truth": (1.0, 0.0), "misheard": (0.0, 1.0)}[told]
    recipe = MotionRecipe(exact_share=share[0], corrupted_share=share[1])
    lengths = torch.tensor([clip.num_frames for clip in clips])
    return TrainingBatch(
        speech=_padded([data.features(clip) for clip in clips]),
        speech_lengths=lengths,
        motion=_padded([motion_of(data, clip, style) for clip in clips]),
        motion_lengths=lengths,
        speaker=torch.full((len(clips),), -1),
        phones=_padded([_told_phones(clip, recipe, rng) for clip in clips]),
    )
