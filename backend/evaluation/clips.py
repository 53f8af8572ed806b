# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings with phone times in memory, for evaluation, and their reference motion."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.articulation.coarticulation import articulate
from backend.articulation.speaking_style import SpeakingStyle
from backend.audio.features import num_feature_frames
from backend.audio.load import read_sound
from backend.audio.prosody import measure_prosody
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.speech.phones import Phone, from_arpabet


@dataclass(frozen=True, slots=True)
class SpokenClip:
    """A recording with its transcript and phones."""

    name: str
    samples: NDArray[np.float32]
    text: str
    phones: tuple[Phone, ...]

    @property
    def num_frames(self) -> int:
        """Length at ``FEATURE_RATE_HZ``."""
        return num_feature_frames(len(self.samples))

    def articulated(self, phones: Sequence[Phone], style: SpeakingStyle) -> NDArray[np.float32]:
        """Motion by the articulation model, of phones with this recording's loudness and pitch."""
        prosody = measure_prosody(
            self.samples,
            sample_rate=SAMPLE_RATE_HZ,
            num_frames=self.num_frames,
            fps=FEATURE_RATE_HZ,
        )
        return articulate(
            phones, style=style, num_frames=self.num_frames, fps=FEATURE_RATE_HZ,
            energy=prosody.energy, f0=prosody.f0, blinks=False,
        )  # fmt: skip


def read_clips(folder: Path, alignment: str) -> list[SpokenClip]:
    """Reads recordings with phone times.

    Args:
        folder: Folder of the recordings and of the file ``alignment``, which maps each name to
            ``file``, ``text`` and ``phones`` as ``[phone, start_s, end_s]``.
        alignment: Name of the alignment file.

    Returns:
        The recordings that have phones, in the order of their names.

    Raises:
        UserError: The alignment file is missing or holds no recording with phones.
    """
    path = folder / alignment
    if not path.is_file():
        raise UserError(f"{folder} has no {alignment}: recordings with phone times are needed.")
    clips = []
    for name, entry in sorted(json.loads(path.read_text(encoding="utf-8")).items()):
        if entry.get("phones"):
            phones = tuple(Phone(from_arpabet(row[0]), row[1], row[2]) for row in entry["phones"])
            sound = folder / entry.get("file", f"{name}.wav")
            clips.append(SpokenClip(name, read_sound(sound).samples, entry["text"], phones))
    if not clips:
        raise UserError(f"{path} holds no recording with phones.")
    return clips
