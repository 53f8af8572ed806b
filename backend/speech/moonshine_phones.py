# SPDX-License-Identifier: GPL-3.0-or-later
"""Which phones are spoken, of sound alone: no words, no lexicon, no language model.

A head that was trained on the features of ``moonshine_encoder.py`` hears beside the model's
own speech encoder. It
was trained on the same speech as that, but its encoder knows voices that the ear has never heard;
the ear knows noises and synthesised voices better. The sum of what both think decides.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from backend import bundled
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.audio.segmentation import cut_at_pauses, prepare_sound
from backend.errors import Cancelled
from backend.model.phone_head import PhoneHead
from backend.speech import moonshine_encoder
from backend.speech.phones import PHONES, Phone
from backend.speech.transcript import Transcript
from backend.speech.viterbi import most_likely_phones

_OWN_SHARE: Final = 0.5
"""Weight of the own ear's logarithms; of the head's it is 1."""


def can_recognise() -> bool:
    """Whether phones can be recognised here."""
    return bundled.PHONE_HEAD.exists() and moonshine_encoder.is_installed()


def sound_alone(samples: NDArray[np.float32], *warnings: str) -> Transcript:
    """Nothing heard yet: no words, and all of the sound a gap.

    Args:
        samples: At 16 kHz, -1 to 1, any length.
        warnings: Why there are no words, for the user.
    """
    sound = prepare_sound(samples)
    gaps = () if sound is None else tuple(cut_at_pauses(sound))
    return Transcript((), (), warnings, "sound", gaps=gaps)


def fill_gaps(
    samples: NDArray[np.float32],
    heard: Transcript,
    own_log_posteriors: NDArray[np.floating] | None,
    progress: Callable[[float, float, str], None],
    is_cancelled: Callable[[], bool],
) -> Transcript:
    """Recognises phones where there are no words.

    Args:
        samples: At 16 kHz, -1 to 1, any length.
        heard: What is known already.
        own_log_posteriors: Of phones in the whole sound, by a model's ear, shape ``(T, 1 +
            len(PHONES))``; None if only the head hears.
        progress: Told what is done, what there is in all, and that these are seconds.
        is_cancelled: Asked before each stretch.

    Returns:
        The same with phones in its gaps, too; unchanged where they cannot be recognised here.

    Raises:
        Cancelled: ``is_cancelled`` said so.
    """
    sound = prepare_sound(samples) if heard.gaps and can_recognise() else None
    if sound is None:
        return heard
    phones = list(heard.phones)
    for first, end in heard.gaps:
        if is_cancelled():
            raise Cancelled
        begins = first * FEATURE_RATE_HZ // SAMPLE_RATE_HZ
        own = None if own_log_posteriors is None else own_log_posteriors[begins:]
        start = first / SAMPLE_RATE_HZ
        phones += [
            Phone(one.symbol, start + one.start_seconds, start + one.end_seconds)
            for one in recognise_phones(sound[first:end], own)
        ]
        progress(end / SAMPLE_RATE_HZ, len(sound) / SAMPLE_RATE_HZ, "s")
    in_order = sorted(phones, key=lambda phone: phone.start_seconds)
    is_certain = heard.is_certain or not heard.phones  # words that may be wrong stay so
    return replace(heard, phones=tuple(in_order), is_certain=is_certain)


@torch.no_grad()
def recognise_phones(
    sound: NDArray[np.int16], own_log_posteriors: NDArray[np.floating] | None = None
) -> list[Phone]:
    """Recognises the phones of a piece.

    Args:
        sound: At 16 kHz, at a usual level, at most half a minute.
        own_log_posteriors: What a model's ear says of it, from its first frame on.

    Returns:
        Phones in order of time, silences too, without gaps.
    """
    features = torch.from_numpy(moonshine_encoder.encode(sound.astype(np.float32) / 32768.0))[None]
    logits = _head()(features, torch.ones(features.shape[:2], dtype=torch.bool))
    scores = logits.log_softmax(-1)[0].numpy()
    if own_log_posteriors is not None:
        own = own_log_posteriors[: len(scores)]
        scores[: len(own)] += _OWN_SHARE * own
    return most_likely_phones(scores[:, 1:])


@lru_cache(maxsize=1)
def _head() -> PhoneHead:
    weights = load_file(bundled.PHONE_HEAD)
    width, feature_dim = weights["projection.weight"].shape
    head = PhoneHead(feature_dim, 1 + len(PHONES), width=width)
    head.load_state_dict({name: value.float() for name, value in weights.items()})
    return head.eval()
