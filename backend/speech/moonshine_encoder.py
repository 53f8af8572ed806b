# SPDX-License-Identifier: GPL-3.0-or-later
"""Moonshine's encoder as a frozen speech encoder, where its file is.

Moonshine (Jeffries et al. 2024), whose words ``moonshine_words.py`` takes, was trained on some
200,000 hours of speech, far more voices than the bundled model's own speech encoder. Only its
encoder is used here: 41.7 feature vectors a second, and no words.
"""

import logging
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.onnx_sessions import Session

MISSING: Final = (
    "Moonshine, which hears words, is not here: install PTalker's zip again, or the packages that "
    "stand in backend/requirements-words.txt."
)
WIDTH: Final = 288
"""Numbers in a feature vector."""
_MIN_SAMPLES: Final = 895
"""Receptive field of a vector, in samples: three convolutions with kernels of 127, 7 and 3, and
strides of 64, 3 and 2."""
SAMPLES_PER_VECTOR: Final = 64 * 3 * 2

_EDGE_DB: Final = -40.0
"""Level, below the loudest sample, at which a segment's sound begins."""
_EDGE_SAMPLES: Final = SAMPLE_RATE_HZ // 4
"""Quiet before the first sound and after the last one: speech that breaks off at the last sample
makes Moonshine go on with words of its own, and of half a second of nothing it makes some too."""

_log = logging.getLogger(__name__)
_loading = threading.Lock()


def is_installed() -> bool:
    """Whether the encoder can be used here; the first call loads it (0.3 s)."""
    with _loading:
        return _session() is not None


@dataclass(frozen=True, slots=True)
class Encoded:
    """A segment of sound as the encoder has it.

    Attributes:
        vectors: Feature vectors, shape ``(N, WIDTH)``.
        first_sample: Sample of the segment at which the encoded sound begins; may be negative.
    """

    vectors: NDArray[np.float32]
    first_sample: int


def encode(sound: NDArray[np.int16]) -> Encoded:
    """The encoder's output for a segment, whatever silence stands at its ends.

    The encoder hears the segment from its first sound to its last, with 0.25 s before and after:
    what is recognised must not depend on where a recording was cut.

    Args:
        sound: Sound as for ``vectors``.

    Returns:
        Vectors and their place in the segment.

    Raises:
        UserError: The encoder is not there.
    """
    level = np.abs(sound.astype(np.int32))
    loud = np.flatnonzero(level >= max(1, level.max(initial=0) * 10.0 ** (_EDGE_DB / 20.0)))
    first, last = (int(loud[0]), int(loud[-1])) if len(loud) else (0, len(sound) - 1)
    first, end = first - _EDGE_SAMPLES, last + 1 + _EDGE_SAMPLES
    part = np.pad(sound[max(0, first) : end], (max(0, -first), max(0, end - len(sound))))
    return Encoded(vectors(part), first)


def vectors(sound: NDArray[np.int16]) -> NDArray[np.float32]:
    """The encoder's output on its own clock.

    Args:
        sound: Sound at 16 kHz, at a usual level, at most half a minute: memory grows with the
            square of the length.

    Returns:
        Feature vectors, one per 384 samples, shape ``(N, WIDTH)``.

    Raises:
        UserError: The encoder is not there.
    """
    session = _session()
    if session is None:
        raise UserError(MISSING)
    samples = sound.astype(np.float32) / 32768.0
    padded = np.pad(samples, (0, max(0, _MIN_SAMPLES - len(samples))))[None]
    mask = np.ones(padded.shape, np.int64)
    (found,) = session.run(None, {"input_values": padded, "attention_mask": mask})
    return found[0]


def on_clock(
    vectors: NDArray[np.float32], num_samples: int, first_sample: int = 0
) -> NDArray[np.float32]:
    """Features at ``FEATURE_RATE_HZ``, the rate of the model's phones.

    Interpolated at the middle of each frame, between the middles of the vectors' receptive fields.

    Args:
        vectors: Output of ``vectors``.
        num_samples: Length of the sound.
        first_sample: Sample of the sound at which the vectors begin.

    Returns:
        Features of shape ``(T, WIDTH)``; the last of the ``T`` frames may be incomplete.
    """
    per_frame = SAMPLE_RATE_HZ // FEATURE_RATE_HZ
    middles = (np.arange(-(-num_samples // per_frame)) + 0.5) * per_frame
    positions = (middles - first_sample - _MIN_SAMPLES / 2) / SAMPLES_PER_VECTOR
    positions = np.clip(positions, 0.0, len(vectors) - 1.0)
    before = positions.astype(np.int64)
    after = np.minimum(before + 1, len(vectors) - 1)
    share = (positions - before).astype(np.float32)[:, None]
    return np.asarray(vectors[before] * (1.0 - share) + vectors[after] * share)


@lru_cache(maxsize=1)
def _session() -> Session | None:
    """The encoder, or None where it is not there or does not run on this system."""
    folder = bundled.moonshine_folder()
    if folder is None:
        return None
    try:
        return Session(folder / "encoder_model.ort")
    except UserError as error:
        _log.warning("Moonshine's encoder does not run here: %s", error)
        return None
