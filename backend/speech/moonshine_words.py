# SPDX-License-Identifier: GPL-3.0-or-later
"""English words of a segment of sound, by Moonshine (Jeffries et al. 2024), where it is installed.

A small network for speech recognition that comes with its parameters in its package and runs
offline. It recognises far more words of real voices than PocketSphinx, but not their times.
``pocketsphinx.py`` finds these, and whether the sound agrees: of music, noise or another language
Moonshine makes fluent English.
"""

import logging
import threading
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.speech.written_text import words_of

_log = logging.getLogger(__name__)
_OPTIONS = {"vad_threshold": "0", "return_audio_data": "false"}
"""Without voice activity detection: sound comes cut at pauses; cut again, it loses words."""
_one_at_a_time = threading.Lock()


def is_installed() -> bool:
    """Whether words can be recognised here; the first call loads the model (half a second)."""
    with _one_at_a_time:
        return _moonshine() is not None


def transcribe(sound: NDArray[np.int16]) -> list[str]:
    """Recognises English words, on all cores.

    Args:
        sound: Sound at 16 kHz, at a usual level, at most 30 s.

    Returns:
        Words as ``pronunciation.words_of`` makes them; none if nothing was recognised.

    Raises:
        UserError: Moonshine failed.
    """
    from moonshine_voice import MoonshineError

    samples = (sound.astype(np.float32) / 32768.0).tolist()
    try:
        with _one_at_a_time:
            lines = _moonshine().transcribe_without_streaming(samples, SAMPLE_RATE_HZ).lines
    except MoonshineError as error:
        raise UserError(
            f"The speech recogniser failed ({error}): try again, or set Listen to Sound Only."
        ) from error
    return words_of(" ".join(line.text for line in lines))


@lru_cache(maxsize=1)
def _moonshine() -> Any:
    """The model, or None if its package is not installed or does not run on this system."""
    try:
        from moonshine_voice import ModelArch, MoonshineError, get_model_path
        from moonshine_voice.transcriber import Transcriber
    except ImportError:
        return None
    try:
        return Transcriber(get_model_path("tiny-en"), ModelArch.TINY, options=_OPTIONS)
    except MoonshineError as error:
        _log.warning("Moonshine does not run here, words are left to PocketSphinx: %s", error)
        return None
