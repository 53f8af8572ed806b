# SPDX-License-Identifier: GPL-3.0-or-later
"""Training of the phone head, a classifier of phones in the features of Moonshine's encoder.

The encoder is frozen. The head belongs to no checkpoint, and serves any model that takes phones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.audio.segmentation import prepare_sound
from backend.data.speech.augment_audio import at_pace, augment, no_speech
from backend.data.speech.batches import IGNORED
from backend.data.speech.corpus import Corpus, Utterance, load_corpus
from backend.data.speech.dataset import fixed_choice
from backend.errors import UserError
from backend.evaluation import curve_metrics
from backend.evaluation.curve_metrics import closures
from backend.heads.arkit import CLOSED_MM
from backend.model.attention import frame_mask
from backend.model.phone_head import PhoneHead
from backend.speech import moonshine_encoder
from backend.speech.phones import BILABIALS, PHONE_IDS, PHONES, SILENCE, Phone, phone_frames
from backend.training.loop import Stage, run_stage
from backend.training.phone_classification import PhoneAccuracy, phone_cross_entropy

FILE_NAME: Final = "phone_head.safetensors"
_SECONDS: Final = (2.0, 6.0)
_SYNTHETIC_SHARE: Final = 0.35
_SILENT_SHARE: Final = 0.05
_GAP_SECONDS: Final = 0.4
_VALIDATION_UTTERANCES: Final = 200


@dataclass(frozen=True, slots=True)
class PhoneHeadArguments:
    """Options of the training of a phone head.

    Attributes:
        data: Folder of a corpus, as ``prepare speech`` makes it.
        run: Folder of the run: state to go on from, logs, and ``phone_head.safetensors``.
        seed: Seed of the run.
        phone_steps: Length of the training.
        batch_size: Number of stretches of speech in a step; each lasts 2 to 6 s, and up to the end
            of a sentence.
        threads: Number of threads of torch on a CPU; 0 leaves it to torch.
    """

    data: Path
    run: Path
    seed: int = 0
    phone_steps: int = 3000
    batch_size: int = 16
    threads: int = 0


def main(arguments: PhoneHeadArguments) -> Path:
    """Trains a phone head, or goes on with its training, and writes it.

    Args:
        arguments: Options of the command line.

    Returns:
        Path of the head's file.

    Raises:
        UserError: There is no corpus, or the encoder is not installed.
    """
    if not moonshine_encoder.is_installed():
        raise UserError(moonshine_encoder.MISSING)
    if arguments.phone_steps < 1:
        raise UserError("Give 1 step or more as --phone-steps.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    corpus = load_corpus(arguments.data)
    torch.manual_seed(arguments.seed)
    head = PhoneHead(moonshine_encoder.WIDTH, 1 + len(PHONES))
    stage = head_stage(
        head, corpus, seed=arguments.seed, batch_size=arguments.batch_size,
        num_steps=arguments.phone_steps,
    )  # fmt: skip
    accelerator = Accelerator(mixed_precision="no")  # hardly anything is computed here
    metrics = run_stage(stage, accelerator, folder=arguments.run, seed=arguments.seed)
    path = arguments.run / FILE_NAME
    stated = {
        "command": f"python -m backend train --preset phone-head --data CORPUS --run RUN"
        f" --seed {arguments.seed} --phone-steps {arguments.phone_steps}"
        f" --batch-size {arguments.batch_size}",
        "corpus": corpus.content_hash,
        **{name: f"{value:.4f}" for name, value in metrics.items()},
    }
    halves = {name: value.half().contiguous() for name, value in head.state_dict().items()}
    save_file(halves, path, metadata=stated)
    return path


def head_stage(
    head: PhoneHead, corpus: Corpus, *, seed: int, batch_size: int, num_steps: int
) -> Stage:
    """The only stage of the training of a phone head.

    Args:
        head: Head to train.
        corpus: Speech to draw from.
        seed: Seed of the run.
        batch_size: Number of stretches of speech in a step.
        num_steps: Length of the stage.

    Returns:
        The stage.

    Raises:
        UserError: The corpus has no speaker to train on, or none held out.
    """
    training, held_out = corpus.split("train"), corpus.split("validation")
    if not training or not held_out:
        raise UserError(
            "This corpus has nobody to train on, or nobody held out: make one with recordings, or"
            " of more hours."
        )
    validation = [
        (utterance.phones, torch.from_numpy(encoded(corpus.samples(utterance))))
        for utterance in fixed_choice(held_out, _VALIDATION_UTTERANCES)
    ]

    def terms(module: nn.Module, number: int) -> dict[str, Tensor]:
        features, lengths, phones = head_batch(
            corpus, training, seed=seed, number=number, batch_size=batch_size
        )
        logits = module(features, frame_mask(lengths, features.shape[1]))
        return {"phones": phone_cross_entropy(logits, phones, label_smoothing=0.05)}

    def validate(module: nn.Module) -> dict[str, float]:
        accuracy = PhoneAccuracy()
        counts = curve_metrics.ClosureCounts()
        closed_ids = [PHONE_IDS[symbol] for symbol in BILABIALS]
        for phones, features in validation:
            mask = torch.ones(1, len(features), dtype=torch.bool)
            found = module(features[None], mask)[0].argmax(-1).cpu().numpy()
            accuracy.add(found, phone_frames(phones, len(found), FEATURE_RATE_HZ))
            counts += closures(phones, np.where(np.isin(found, closed_ids), 0.0, 2.0 * CLOSED_MM))
        return {
            "score": accuracy.share + counts.f1,
            "phone_accuracy": accuracy.share,
            "closures_f1": counts.f1,
        }

    return Stage(
        name="phone-head",
        module=head,
        terms=terms,
        validate=validate,
        num_steps=num_steps,
        learning_rate=3e-3,
        num_validations=6,
    )


def head_batch(
    corpus: Corpus, utterances: Sequence[Utterance], *, seed: int, number: int, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of augmented stretches of speech, and of a few without speech.

    Args:
        corpus: Speech to draw from.
        utterances: Utterances of the corpus to choose from.
        seed: Seed of the run.
        number: Number of the batch; the same number gives the same batch.
        batch_size: Number of stretches ``B``.

    Returns:
        Features ``(B, T, WIDTH)``, their lengths ``(B,)`` and the frames' phones
        ``(B, T)``, ``IGNORED`` at padding and where the phone is unknown.
    """
    rng = np.random.default_rng((seed, 6, number))
    by_kind = [
        [utterance for utterance in utterances if (utterance.source == "recorded") == is_recorded]
        for is_recorded in (True, False)
    ]
    kinds = [kind for kind in by_kind if kind]
    features, labels = [], []
    for _ in range(batch_size):
        kind = kinds[-1] if rng.random() < _SYNTHETIC_SHARE else kinds[0]
        length = round(rng.uniform(*_SECONDS) * SAMPLE_RATE_HZ)
        if rng.random() < _SILENT_SHARE:
            sound = no_speech(length, rng)
            phones = [Phone(SILENCE, 0.0, length / SAMPLE_RATE_HZ)]
        else:
            sound, phones = _stretch(corpus, kind, length, rng)
            other = corpus.samples(kind[int(rng.integers(len(kind)))])
            sound = augment(sound, other, rng)
        vectors = encoded(sound)
        ids = phone_frames(phones, len(vectors), FEATURE_RATE_HZ)
        features.append(torch.from_numpy(vectors))
        labels.append(torch.from_numpy(np.where(ids > 0, ids, IGNORED)))
    return (
        pad_sequence(features, batch_first=True),
        torch.tensor([len(vectors) for vectors in features]),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )


def _stretch(
    corpus: Corpus, utterances: Sequence[Utterance], length: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], list[Phone]]:
    """Utterances one after another up to a length, and their phones with times."""
    sounds: list[NDArray[np.float32]] = []
    phones: list[Phone] = []
    num_samples = 0
    while num_samples < length:
        utterance = utterances[int(rng.integers(len(utterances)))]
        sound, pace = at_pace(corpus.samples(utterance), rng)
        start = num_samples / SAMPLE_RATE_HZ
        phones += [
            Phone(one.symbol, start + one.start_seconds * pace, start + one.end_seconds * pace)
            for one in utterance.phones
        ]
        gap = np.zeros(int(rng.uniform(0.0, _GAP_SECONDS) * SAMPLE_RATE_HZ), np.float32)
        sounds += [sound, gap]
        num_samples += len(sound) + len(gap)
        said, end = phones[-1].end_seconds, num_samples / SAMPLE_RATE_HZ
        if said < end:
            phones.append(Phone(SILENCE, said, end))
    return np.concatenate(sounds), phones


def encoded(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Moonshine's features of samples that are prepared as for ``speech.moonshine_phones``."""
    sound = prepare_sound(samples)
    if sound is None:
        sound = np.zeros(len(samples), np.int16)
    return moonshine_encoder.on_clock(moonshine_encoder.vectors(sound), len(sound))
