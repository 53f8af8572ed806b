# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones of sound without words: no lexicon, no language model.

Two phone classifiers vote, a head on the features of ``moonshine_encoder.py`` and the model's own
speech encoder. Both heads learned from the same speech, but Moonshine's encoder knows voices that
the model's does not, and the model's knows noises and synthesised voices better.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.audio.segmentation import cut_at_pauses, prepare_sound
from backend.errors import Cancelled, UserError
from backend.onnx_sessions import Session
from backend.speech import moonshine_encoder
from backend.speech.phones import SILENCE, Phone
from backend.speech.speech_presence import NOBODY, rest_elsewhere, spoken_frames
from backend.speech.transcript import NO_WORDS, Transcript
from backend.speech.viterbi import most_likely_phones

_MODEL_WEIGHT: Final = 0.5
"""Weight of the model's log posteriors; the weight of the head's is 1."""


def can_recognise() -> bool:
    """Whether phones can be recognised here."""
    return bundled.PHONE_HEAD_GRAPH.exists() and moonshine_encoder.is_installed()


def empty_transcript(samples: NDArray[np.float32], *warnings: str) -> Transcript:
    """A transcript without words, in which the whole sound is a gap.

    Args:
        samples: Sound at 16 kHz, -1 to 1, of any length.
        *warnings: Reasons why there are no words, for the user.

    Returns:
        Mode ``sound``; silent sound has no gap.
    """
    sound = prepare_sound(samples)
    gaps = () if sound is None else tuple(cut_at_pauses(sound))
    return Transcript((), (), warnings, "sound", gaps=gaps)


def fill_gaps(
    samples: NDArray[np.float32],
    transcript: Transcript,
    log_posteriors: NDArray[np.floating] | None,
    progress: Callable[[float, float, str], None],
    is_cancelled: Callable[[], bool],
) -> Transcript:
    """Recognises phones where there are no words.

    Args:
        samples: Sound at 16 kHz, -1 to 1, of any length.
        transcript: Phones and words that are known already.
        log_posteriors: Logarithms of phone posteriors of the whole sound by the model's speech
            encoder, shape ``(T, 1 + len(PHONES))``; None to use Moonshine's encoder alone.
        progress: Called with the amount done, the whole amount, and their unit ("s").
        is_cancelled: Called before each gap.

    Returns:
        The transcript with phones in its gaps, silence where nobody speaks; a warning says so if
        that is all of the sound. Unchanged if phones cannot be recognised here.

    Raises:
        Cancelled: ``is_cancelled`` returned true.
    """
    sound = prepare_sound(samples) if transcript.gaps and can_recognise() else None
    if sound is None:
        return transcript
    try:
        _phone_head()
    except UserError as error:  # the model's own speech encoder goes on alone
        return replace(transcript, warnings=(*transcript.warnings, str(error)))
    phones = list(transcript.phones)
    for first, end in transcript.gaps:
        if is_cancelled():
            raise Cancelled
        frame = first * FEATURE_RATE_HZ // SAMPLE_RATE_HZ
        part = None if log_posteriors is None else log_posteriors[frame:]
        start = first / SAMPLE_RATE_HZ
        phones += [
            Phone(phone.symbol, start + phone.start_seconds, start + phone.end_seconds)
            for phone in recognise_phones(sound[first:end], part)
        ]
        progress(end / SAMPLE_RATE_HZ, len(sound) / SAMPLE_RATE_HZ, "s")
    in_order = sorted(phones, key=lambda phone: phone.start_seconds)
    if not transcript.words and all(phone.symbol == SILENCE for phone in in_order):
        others = (text for text in transcript.warnings if not text.startswith(NO_WORDS))
        transcript = replace(transcript, warnings=(*others, NOBODY))
    # Phones without words are trusted before the model's own; beside words that may be wrong, not.
    source = transcript.source if transcript.phones else "given"
    return replace(transcript, phones=tuple(in_order), source=source)


def recognise_phones(
    sound: NDArray[np.int16], log_posteriors: NDArray[np.floating] | None = None
) -> list[Phone]:
    """Recognises the phones of a segment of sound.

    Args:
        sound: Sound at 16 kHz, at a usual level, at most half a minute.
        log_posteriors: Logarithms of phone posteriors by the model's speech encoder, from the
            segment's first frame on; longer or shorter ones do no harm.

    Returns:
        Phones in order of time, silences included, without gaps.
    """
    scores = head_log_posteriors(moonshine_encoder.encode(sound), len(sound))
    spoken = None
    if log_posteriors is not None:
        spoken = spoken_frames(log_posteriors, scores, sound)
        shared = log_posteriors[: len(scores)]
        scores[: len(shared)] += _MODEL_WEIGHT * shared
    phones = most_likely_phones(scores[:, 1:])
    return phones if spoken is None else rest_elsewhere(phones, spoken)


def head_log_posteriors(
    encoded: moonshine_encoder.Encoded, num_samples: int
) -> NDArray[np.float32]:
    """What the phone head makes of a segment of sound.

    Args:
        encoded: Output of ``moonshine_encoder.encode``.
        num_samples: Length of the segment.

    Returns:
        Logarithms of phone posteriors at ``FEATURE_RATE_HZ``, shape ``(T, 1 + len(PHONES))``.

    Raises:
        UserError: The head's file is damaged.
    """
    features = moonshine_encoder.on_clock(encoded.vectors, num_samples, encoded.first_sample)[None]
    (found,) = _phone_head().run(None, {"features": features})
    return found[0]


@lru_cache(maxsize=1)
def _phone_head() -> Session:
    """The bundled phone head; raises `UserError` where its file is damaged."""
    try:
        return Session(bundled.PHONE_HEAD_GRAPH, threads=1)
    except UserError as error:
        raise UserError(
            "The phone classifier that came with PTalker is damaged, so parts without words are "
            "animated without it. Install PTalker again."
        ) from error
