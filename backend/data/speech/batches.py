# SPDX-License-Identifier: GPL-3.0-or-later
"""Training batches drawn from speech: phones for the content encoder, motions for the whole model.

Features are augmented, phones are given or recognised with errors as input, and styles are shown by
an exemplar, by a number or by a voice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
"""Shortest and longest exemplar of a style in frames, where long ones cost little."""
AUDIO_DROPOUT = 0.2
"""Probability that a sequence with given phones has no audio, and must trust the phones."""


@dataclass(frozen=True, slots=True)
class PhoneBatch:
    """Crops of speech and their phones.

    Attributes:
        speech: Audio features, float32, shape ``(B, T, 160)``.
        lengths: Valid frames, int64, shape ``(B,)``.
        phones: Target phone ids of ``phones.phone_frames``, ``IGNORED`` in the padding, int64,
            shape ``(B, T)``.
        phone_input: Phone ids as a recogniser gives them, 0 for none, int64, shape ``(B, T)``.
    """

    speech: Tensor
    lengths: Tensor
    phones: Tensor
    phone_input: Tensor


def phone_batch(
    data: SpeechData,
    *,
    seed: int,
    number: int,
    batch_size: int,
    num_frames: int,
    phone_input_probability: float = 0.0,
) -> PhoneBatch:
    """A batch of the phone stages: augmented crops, rarely of pauses.

    Args:
        data: Speech to draw from.
        seed: Seed of the run.
        number: Number of the batch; the same number gives the same batch.
        batch_size: Number of crops ``B``.
        num_frames: Length ``T`` of the crops; shorter clips are padded.
        phone_input_probability: Probability that a crop has recognised phones, with errors, as
            input.

    Returns:
        The batch.
    """
    recipe = MotionRecipe(
        given_phones_probability=0.0, recognised_phones_probability=phone_input_probability
    )
    phone_input = np.zeros((batch_size, num_frames), np.int64)
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
        if phone_input_probability:
            drawn = _phone_input(clip, recipe, rng)
            phone_input[row, :length] = drawn[start : start + length]
    return PhoneBatch(*map(torch.from_numpy, (speech, lengths, phones, phone_input)))


def augmented_features(
    data: SpeechData, clip: Clip, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Features of a whole clip with another voice and acoustics, shape ``(num_frames, 160)``.

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
    """How batches of motions are drawn.

    Attributes:
        batch_size: Number of sequences ``B``.
        num_frames: Length ``T`` at ``FEATURE_RATE_HZ``; shorter clips are padded.
        style_frames: Shortest and longest exemplar of a style, in frames.
        num_styles: Number of training styles with an identity, which ``speaker`` numbers.
        neutral_share: Share of the sequences in the neutral style, most without any source of
            style: what the model does where no style is given.
        identity_share: Share of the other sequences in one of the numbered styles.
        given_phones_probability: Probability that a sequence has its true phones as input.
        recognised_phones_probability: Probability that a sequence has phones with a recogniser's
            errors as input; the rest has audio only.
        voice_share: Share of the remaining sequences whose style shows in part in the voice.
        masked_share: Share of the sequences whose features are masked as in the phone stages.
        scaled_share: Share of the sequences with more or less of the style than is shown.
        slow_share: Share of the sequences that are spoken slower, down to less than half the pace.
        held_share: Share of the sequences in which one vowel is held.
        styles_per_clip: Number of neighbouring sequences with the same speech, each in its own
            style.
    """

    batch_size: int = 12
    num_frames: int = 150
    style_frames: tuple[int, int] = (75, 150)
    num_styles: int = 64
    neutral_share: float = 0.2
    identity_share: float = 0.35
    given_phones_probability: float = 0.3
    recognised_phones_probability: float = 0.35
    voice_share: float = 0.5
    masked_share: float = 0.5
    scaled_share: float = 0.0
    slow_share: float = 0.0
    held_share: float = 0.0
    styles_per_clip: int = 1


def motion_of(data: SpeechData, clip: Clip, style: SpeakingStyle) -> NDArray[np.float32]:
    """The target motion of a clip in a style, shape ``(num_frames, 52)``, eyes without blinks.

    Blinks cannot be predicted from speech; the mean of all possible ones would leave the eyes half
    closed.
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
    """A batch of the motion stage: sentences, each in a style shown by another clip.

    Args:
        data: Speech to draw from.
        recipe: How the batch is drawn.
        seed: Seed of the run.
        number: Number of the batch; the same number gives the same batch.

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
    """A batch of the style stage: motions of sentences in random styles, without audio.

    Args:
        data: Speech to draw from.
        recipe: How the batch is drawn.
        seed: Seed of the run.
        number: Number of the batch; the same number gives the same batch.

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
    """Sequences of one crop: unpadded arrays, named as the fields of ``TrainingBatch``."""
    clip, start, labels = draw_crop(
        data,
        rng,
        num_frames=recipe.num_frames,
        slow_share=recipe.slow_share,
        held_share=recipe.held_share,
    )
    span = slice(start, start + len(labels))
    phone_input = _phone_input(clip, recipe, rng)[span]
    is_spoken = rng.random() >= NO_SPEECH_SHARE
    if is_spoken:
        features = augmented_features(data, clip, rng)[span]
    else:
        features = _features_without_speech(len(labels), rng)
        labels = np.full(len(labels), PHONE_IDS[SILENCE])
        phone_input = np.zeros(len(labels), np.int64)
    if rng.random() < recipe.masked_share:
        features = mask(features, rng)
    if phone_input.max(initial=0) > len(PHONE_IDS) and rng.random() < AUDIO_DROPOUT:
        features = np.zeros_like(features)
    shared = {
        "speech": features,
        "speech_lengths": np.array(len(labels)),
        "motion_lengths": np.array(len(labels)),
        "phones": phone_input,
        "phone_targets": labels,
    }
    return [
        shared | _styled(data, recipe, clip, span if is_spoken else None, len(labels), rng)
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
    """Motion of a crop, or of silence (``span`` is None), in a style, and the style's sources."""
    cue = _draw_style(data, recipe, clip, rng)
    strength = rng.uniform(*STRENGTHS) if rng.random() < recipe.scaled_share else 1.0
    style = SpeakingStyle.neutral().blend(cue.style, strength)
    if span is None:
        motion = articulate(
            [], style=style, num_frames=num_frames, fps=FEATURE_RATE_HZ, blinks=False
        )
    else:
        motion = motion_of(data, clip, style)[span]
    exemplar = _exemplar(data, recipe, cue.style, rng) if cue.has_exemplar else _NO_MOTION
    voice = _voice(data, recipe, clip, rng) if cue.has_voice else _NO_SOUND
    return {
        "motion": motion,
        "style": cue.style.to_vector(),
        "style_strength": np.array(strength, np.float32),
        "speaker": np.array(cue.number),
        "style_motion": exemplar,
        "style_motion_lengths": np.array(len(exemplar) if cue.has_exemplar else 0),
        "style_speech": voice,
        "style_speech_lengths": np.array(len(voice) if cue.has_voice else 0),
    }


_NO_MOTION = np.zeros((2, len(ARKIT_NAMES)), np.float32)
_NO_SOUND = np.zeros((2, NUM_FEATURES), np.float32)


@dataclass(frozen=True, slots=True)
class _StyleCue:
    """A style and its sources: an identity's number, an exemplar, the voice."""

    style: SpeakingStyle
    number: int = -1
    has_exemplar: bool = True
    has_voice: bool = False


def _draw_style(
    data: SpeechData, recipe: MotionRecipe, clip: Clip, rng: np.random.Generator
) -> _StyleCue:
    """Draws the neutral style, a numbered one, one that suits the voice, or a random one."""
    if rng.random() < recipe.neutral_share:
        return _StyleCue(SpeakingStyle.neutral(), has_exemplar=rng.random() < 0.2)
    if rng.random() < recipe.identity_share:
        number = int(rng.integers(recipe.num_styles))
        return _StyleCue(training_styles(recipe.num_styles)[number], number)
    if rng.random() < recipe.voice_share:
        return _StyleCue(style_for_voice(data.voices[clip.first_frame], rng), has_voice=True)
    return _StyleCue(SpeakingStyle.sample(rng))


def _exemplar(
    data: SpeechData, recipe: MotionRecipe, style: SpeakingStyle, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Motion of another sentence in the style."""
    wanted = int(rng.integers(*recipe.style_frames, endpoint=True))
    clip, start, labels = draw_crop(data, rng, num_frames=wanted)
    return motion_of(data, clip, style)[start : start + len(labels)]


def _voice(
    data: SpeechData, recipe: MotionRecipe, clip: Clip, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Features of another sentence of the same speaker, as a source of style."""
    others = data.by_speaker[clip.speaker]
    other = others[int(rng.integers(len(others)))]
    return data.features(other)[: recipe.style_frames[1]]


def _phone_input(clip: Clip, recipe: MotionRecipe, rng: np.random.Generator) -> NDArray[np.int64]:
    """Phone input of a clip: its true phones, phones with a recogniser's errors, or none."""
    kind = rng.random()
    if kind < recipe.given_phones_probability:
        return phone_frames(clip.phones, clip.num_frames, FEATURE_RATE_HZ, source="given")
    if kind < recipe.given_phones_probability + recipe.recognised_phones_probability:
        return phone_frames(corrupt(clip.phones, rng), clip.num_frames, FEATURE_RATE_HZ)
    return np.zeros(clip.num_frames, np.int64)


def _padded(arrays: Sequence[NDArray[Any]]) -> Tensor:
    """Arrays of different lengths as one tensor, zeros at the end; scalars as a vector."""
    if arrays[0].ndim == 0:
        return torch.from_numpy(np.stack(arrays))
    return pad_sequence([torch.from_numpy(array) for array in arrays], batch_first=True)


PhoneInput = Literal["none", "given", "recognised"]
"""Phones that a model has as input beside the audio: none, the true ones, or ones with errors."""


def plain_batch(
    data: SpeechData,
    clips: Sequence[Clip],
    style: SpeakingStyle,
    *,
    phone_input: PhoneInput,
    seed: int = 0,
) -> TrainingBatch:
    """Whole clips without augmentation, for validation.

    Args:
        data: Speech that the clips are of.
        clips: Clips of the batch.
        style: Style of the target motion.
        phone_input: Phones that the model has as input.
        seed: Seed of the recogniser's errors.

    Returns:
        The batch, on the CPU.
    """
    rng = np.random.default_rng((seed, 3))
    recipe = MotionRecipe(
        given_phones_probability=float(phone_input == "given"),
        recognised_phones_probability=float(phone_input == "recognised"),
    )
    lengths = torch.tensor([clip.num_frames for clip in clips])
    return TrainingBatch(
        speech=_padded([data.features(clip) for clip in clips]),
        speech_lengths=lengths,
        motion=_padded([motion_of(data, clip, style) for clip in clips]),
        motion_lengths=lengths,
        speaker=torch.full((len(clips),), -1),
        phones=_padded([_phone_input(clip, recipe, rng) for clip in clips]),
    )
