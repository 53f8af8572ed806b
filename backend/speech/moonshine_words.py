# SPDX-License-Identifier: GPL-3.0-or-later
"""Which English words are spoken, by Moonshine (Jeffries et al. 2024), where it is installed.

A small network for speech recognition that comes with its weights in its package and runs offline;
of real voices it hears far more than PocketSphinx, but not when. ``recogniser.py`` finds that, and
whether the sound agrees: of music, noise or another language Moonshine makes fluent English.
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
"""Sound is heard as it is: it comes cut at pauses, and cut again, words are lost or made up."""
_one_at_a_time = threading.Lock()


def is_installed() -> bool:
    """Whether words can be transcribed here; the first call loads the model (half a second)."""
    with _one_at_a_time:
        return _moonshine() is not None


def transcribe(sound: NDArray[np.int16]) -> list[str]:
    """Hears English words; works on all cores.

    Args:
        sound: At 16 kHz, at a usual level, at most 30 s.

    Returns:
        Words as ``letter_to_sound.words_of`` makes them; none where nothing was heard.

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
            f"The speech recogniser failed ({error}): try again, or listen to sound."
        ) from error
    return words_of(" ".join(line.text for line in lines))


@lru_cache(maxsize=1)
def _moonshine() -> Any:
    """The model, or None where its package is not installed or does not run on this system."""
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
