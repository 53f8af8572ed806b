# SPDX-License-Identifier: GPL-3.0-or-later
"""Random crops of speech: the clip, its pace, and where the crop begins."""

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ
from backend.data.speech.dataset import Clip, SpeechData
from backend.speech.phones import PHONE_IDS, SILENCE, VOWELS, phone_frames

PACED_SHARE = 0.6
PACES = (0.85, 1.4)
SLOW_PACES = (0.4, 0.85)
HELD_SECONDS = (0.4, 2.5)


def draw_crop(
    data: SpeechData,
    rng: np.random.Generator,
    *,
    num_frames: int,
    slow_share: float = 0.0,
    held_share: float = 0.0,
) -> tuple[Clip, int, NDArray[np.int64]]:
    """Draws a clip, the first frame of a crop in it, and the crop's phone ids.

    Crops of silence are rare. Most clips are at another pace: learners of English, who are much of
    the recorded speech, read slower than others talk. A share is drawled and in a share one vowel
    is held, as in a shout or a song, since both are rare in what is read; those crops hold it.
    """
    while True:
        clip = data.train[int(rng.integers(len(data.train)))]
        if slow_share and rng.random() < slow_share:
            clip = clip.at_pace(rng.uniform(*SLOW_PACES))
        elif rng.random() < PACED_SHARE:
            clip = clip.at_pace(rng.uniform(*PACES))
        first, last = 0, max(0, clip.num_frames - num_frames)
        vowels = [k for k, phone in enumerate(clip.phones) if phone.symbol in VOWELS]
        if held_share and vowels and rng.random() < held_share:
            index = int(rng.choice(vowels))
            clip = clip.with_held(index, rng.uniform(*HELD_SECONDS))
            held = round(clip.phones[index].start_seconds * FEATURE_RATE_HZ)
            last = max(0, min(held, clip.num_frames - num_frames))
            first = max(0, min(last, held - num_frames // 2))
        start = int(rng.integers(first, last + 1))
        length = min(num_frames, clip.num_frames - start)
        labels = phone_frames(clip.phones, clip.num_frames, FEATURE_RATE_HZ)[start : start + length]
        if rng.random() < 1.1 - np.mean(labels == PHONE_IDS[SILENCE]):
            return clip, start, labels
