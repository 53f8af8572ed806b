# SPDX-License-Identifier: GPL-3.0-or-later
"""English words of a segment of sound, by Moonshine (Jeffries et al. 2024), where its files are.

A small network for speech recognition that runs offline, here in ONNX Runtime. It recognises the
words of real voices, but not their times: ``forced_alignment.py`` finds these, and whether the
sound agrees, since of music, noise or another language Moonshine makes fluent English.
"""

import logging
import math
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.errors import UserError
from backend.onnx_sessions import Session
from backend.speech import moonshine_encoder
from backend.speech.written_text import words_of

_log = logging.getLogger(__name__)
_START, _END = 1, 2
_LAYERS: Final = 6
_TOKENS_PER_SECOND: Final = 6.5
"""Speech has fewer; what has more repeats itself."""
_loading = threading.Lock()


def is_installed() -> bool:
    """Whether words can be recognised here; the first call loads the model (half a second)."""
    with _loading:
        return moonshine_encoder.is_installed() and _decoder() is not None


def transcribe(sound: NDArray[np.int16]) -> list[str]:
    """Recognises English words.

    Args:
        sound: Sound at 16 kHz, at a usual level, at most 30 s.

    Returns:
        Words as ``written_text.words_of`` makes them; none if nothing was recognised.

    Raises:
        UserError: There is not enough memory.
    """
    return words_of_vectors(moonshine_encoder.vectors(sound), len(sound))


def words_of_vectors(vectors: NDArray[np.float32], num_samples: int) -> list[str]:
    """Recognises English words in sound that was encoded already.

    Args:
        vectors: Output of ``moonshine_encoder.vectors``.
        num_samples: Length of the sound.

    Returns:
        Words as of ``transcribe``.

    Raises:
        UserError: Moonshine is not there, or there is not enough memory.
    """
    loaded = _decoder()
    if loaded is None:
        raise UserError(moonshine_encoder.MISSING)
    decoder, tokens = loaded
    return words_of(_text(tokens, _decode(decoder, vectors, num_samples / SAMPLE_RATE_HZ)))


def _decode(decoder: Session, vectors: NDArray[np.float32], seconds: float) -> list[int]:
    """The likeliest token after each other; the encoder's keys and values stay from the first."""
    heads, size = 8, 36
    known: dict[str, NDArray[Any]] = {
        f"past_key_values.{layer}.{side}.{kind}": np.zeros((1, heads, 0, size), np.float32)
        for layer in range(_LAYERS)
        for side in ("decoder", "encoder")
        for kind in ("key", "value")
    }
    mask = np.ones((1, len(vectors) * moonshine_encoder.SAMPLES_PER_VECTOR), np.int64)
    found = [_START]
    for step in range(math.ceil(seconds * _TOKENS_PER_SECOND)):
        logits, *present = decoder.run(
            None,
            {
                "input_ids": np.array([found[-1:]], np.int64),
                "encoder_hidden_states": vectors[None],
                "encoder_attention_mask": mask,
                "use_cache_branch": np.array([step > 0]),
                **known,
            },
        )
        found.append(int(logits[0, -1].argmax()))
        if found[-1] == _END:
            break
        for name, value in zip(decoder.outputs[1:], present, strict=True):
            if step == 0 or ".decoder." in name:
                known[name.replace("present", "past_key_values")] = value
    return found[1:]


def _text(tokens: list[bytes], found: list[int]) -> str:
    said = b"".join(tokens[token] for token in found if token > _END)
    return said.decode("utf-8", errors="ignore").replace("\u2581", " ")


@lru_cache(maxsize=1)
def _decoder() -> tuple[Session, list[bytes]] | None:
    """The decoder and its tokens, or None where they are not there or do not run here."""
    folder = bundled.moonshine_folder()
    if folder is None:
        return None
    try:
        decoder = Session(folder / "decoder_model_merged.ort")
        return decoder, _read_tokens(folder / "tokenizer.bin")
    except (UserError, OSError) as error:
        _log.warning("Moonshine does not run here, so no words are recognised: %s", error)
        return None


def _read_tokens(path: Path) -> list[bytes]:
    """Tokens by number; each has its length before it, in seven bits or in fifteen."""
    data, tokens, at = path.read_bytes(), [], 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length += 128 * (data[at] - 1)
            at += 1
        tokens.append(data[at : at + length])
        at += length
    return tokens
