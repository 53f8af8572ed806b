# SPDX-License-Identifier: GPL-3.0-or-later
"""Moonshine's encoder as a frozen speech encoder, where its package is installed.

Moonshine (Jeffries et al. 2024), whose words ``moonshine_words.py`` takes, was trained on some
200,000 hours of speech, far more voices than the bundled model's own speech encoder. Only its
encoder is used here: 41.7 feature vectors a second, and no words. The package brings it as a file
for ONNX Runtime.
"""

import logging
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.processes import num_cores

MISSING: Final = (
    "Moonshine's encoder is not installed: install the packages that stand in"
    " backend/requirements-words.txt."
)
WIDTH: Final = 288
"""Numbers in a feature vector."""
_MIN_SAMPLES: Final = 895
"""Receptive field of a vector, in samples: three convolutions with kernels of 127, 7 and 3, and
strides of 64, 3 and 2."""
_SAMPLES_PER_VECTOR: Final = 64 * 3 * 2

_log = logging.getLogger(__name__)
_loading = threading.Lock()


def is_installed() -> bool:
    """Whether the encoder can be used here; the first call loads it (0.3 s)."""
    with _loading:
        return _session() is not None


def encode(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of sound at ``FEATURE_RATE_HZ``, the rate of the model's phones.

    Args:
        samples: Sound at 16 kHz, -1 to 1, at a usual level, at most half a minute: memory grows
            with the square of the length.

    Returns:
        Features of shape ``(T, WIDTH)``; the last of the ``T`` frames may be incomplete.

    Raises:
        UserError: The encoder is not installed.
    """
    session = _session()
    if session is None:
        raise UserError(MISSING)
    padded = np.pad(samples, (0, max(0, _MIN_SAMPLES - len(samples))))[None]
    mask = np.ones(padded.shape, np.int64)
    vectors: NDArray[np.float32]
    (vectors,) = session.run(None, {"input_values": padded, "attention_mask": mask})
    return _on_clock(vectors[0], len(samples))


def _on_clock(vectors: NDArray[np.float32], num_samples: int) -> NDArray[np.float32]:
    """Vectors at the middle of each frame, interpolated between their receptive fields' middles."""
    per_frame = SAMPLE_RATE_HZ // FEATURE_RATE_HZ
    middles = (np.arange(-(-num_samples // per_frame)) + 0.5) * per_frame
    positions = np.clip((middles - _MIN_SAMPLES / 2) / _SAMPLES_PER_VECTOR, 0.0, len(vectors) - 1.0)
    before = positions.astype(np.int64)
    after = np.minimum(before + 1, len(vectors) - 1)
    share = (positions - before).astype(np.float32)[:, None]
    return np.asarray(vectors[before] * (1.0 - share) + vectors[after] * share)


@lru_cache(maxsize=1)
def _session() -> Any:
    """The encoder, or None where a package is missing or does not run on this system."""
    try:
        import onnxruntime
        from moonshine_voice import get_model_path
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_cores()
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # other threads have work
    path = Path(str(get_model_path("tiny-en"))) / "encoder_model.ort"
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no other base
        _log.warning(
            "Moonshine's encoder does not run here, so the model's own is used alone: %s", error
        )
        return None
