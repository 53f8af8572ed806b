# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether anybody speaks, and when: by the agreement of two phone classifiers.

Of music, machines, animals and applause each classifier makes some phones, but not the same ones
with the same confidence. On 1,400 sounds (``docs/speech.md``) the measure below tells them apart
better than loudness, either classifier's silence, or its confidence.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from backend.audio.rates import FEATURE_RATE_HZ
from backend.audio.segmentation import active_frames
from backend.speech.phones import PHONE_IDS, SILENCE, Phone, merge_silences

NOBODY: Final = "Nobody speaks in this sound: the mouth stays at rest."
_WINDOW_FRAMES: Final = FEATURE_RATE_HZ // 5
_SPOKEN: Final = 0.25
"""Agreement that speech reaches: 0.37 and more in 316 sentences, also whispered, sung and in noise
of 5 dB; less in 97 of a hundred sounds without speech."""
_SPOKEN_BRIEFLY: Final = 0.15
"""The same where there is no more than a syllable or a word, on which the classifiers agree less;
and where somebody does speak elsewhere in the segment, which makes laughter likelier than music."""
_BRIEF_SECONDS: Final = 1.5
_NEAR_FRAMES: Final = FEATURE_RATE_HZ
"""Speech without agreement, such as a mumbled syllable, has some so near."""


def spoken_frames(
    log_posteriors: NDArray[np.floating],
    head_log_posteriors: NDArray[np.floating],
    sound: NDArray[np.int16],
) -> NDArray[np.bool_]:
    """When somebody may be speaking, pauses between words included.

    In each frame the two agree by the largest geometric mean of their posteriors of one phone.

    Args:
        log_posteriors: Logarithms of phone posteriors by the model's speech encoder, shape
            ``(T, 1 + len(PHONES))`` at ``FEATURE_RATE_HZ``.
        head_log_posteriors: The same by the head on Moonshine's encoder; a few frames more or
            less do no harm.
        sound: The sound itself, by ``segmentation.prepare_sound``.

    Returns:
        True where the agreement over 0.2 s is high somewhere within a second; shape ``(T,)``.
    """
    num_frames = min(len(log_posteriors), len(head_log_posteriors))
    if num_frames == 0:
        return np.zeros(len(head_log_posteriors), bool)
    first_phone = PHONE_IDS[SILENCE] + 1
    own, head = log_posteriors[:num_frames, first_phone:], head_log_posteriors[:num_frames]
    agreement = np.exp(((own + head[:, first_phone:]) / 2.0).max(axis=1).astype(np.float64))
    agreement = uniform_filter1d(agreement, min(_WINDOW_FRAMES, num_frames), mode="constant")
    is_brief = active_frames(sound).sum() / 100 < _BRIEF_SECONDS
    is_speech = is_brief or agreement.max() >= _SPOKEN
    agrees = agreement >= (_SPOKEN_BRIEFLY if is_speech else _SPOKEN)
    near = maximum_filter1d(agrees, 2 * _NEAR_FRAMES + 1, mode="constant", cval=0)
    return np.pad(near, (0, len(head_log_posteriors) - num_frames), mode="edge")


def rest_elsewhere(phones: list[Phone], spoken: NDArray[np.bool_]) -> list[Phone]:
    """Phones with silence where nobody speaks.

    Args:
        phones: Phones in order of time, without gaps.
        spoken: Output of ``spoken_frames`` for the same sound.

    Returns:
        The phones of which more than half is spoken; silence in place of the others.
    """
    kept = []
    for phone in phones:
        first = int(phone.start_seconds * FEATURE_RATE_HZ)
        part = spoken[first : max(first + 1, round(phone.end_seconds * FEATURE_RATE_HZ))]
        is_spoken = not len(part) or part.mean() > 0.5
        symbol = phone.symbol if is_spoken else SILENCE
        kept.append(Phone(symbol, phone.start_seconds, phone.end_seconds))
    return merge_silences(kept)
