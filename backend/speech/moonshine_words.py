# SPDX-License-Identifier: GPL-3.0-or-later
"""English words of a segment of sound, by Moonshine (Jeffries et al. 2024), where its files are.

A small network for speech recognition that runs offline, here in ONNX Runtime. It recognises the
words of real voices, but not their times: ``forced_alignment.py`` finds these, and whether the
sound agrees, since of music, noise or another language Moonshine makes fluent English.
"""

import logging
import math
import threading
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Reading:
    """What Moonshine reads in a segment.

    Attributes:
        words: Words as ``written_text.words_of`` makes them.
        certainties: Probability of the least likely token of each word, 0 to 1.
    """

    words: list[str]
    certainties: list[float]


def transcribe(sound: NDArray[np.int16]) -> list[str]:
    """Recognises English words.

    Args:
        sound: Sound at 16 kHz, at a usual level, at most 30 s.

    Returns:
        Words as ``written_text.words_of`` makes them; none if nothing was recognised.

    Raises:
        UserError: There is not enough memory.
    """
    return read_vectors(moonshine_encoder.encode(sound).vectors, len(sound)).words


def read_vectors(vectors: NDArray[np.float32], num_samples: int) -> Reading:
    """Recognises English words in sound that was encoded already.

    Args:
        vectors: Vectors by ``moonshine_encoder.encode``.
        num_samples: Length of the sound.

    Returns:
        Words as of ``transcribe``, and how certain each is.

    Raises:
        UserError: Moonshine is not there, or there is not enough memory.
    """
    loaded = _decoder()
    if loaded is None:
        raise UserError(moonshine_encoder.MISSING)
    decoder, tokens = loaded
    found, certainties = _decode(decoder, vectors, num_samples / SAMPLE_RATE_HZ)
    return _reading(tokens, found, certainties)


def _decode(
    decoder: Session, vectors: NDArray[np.float32], seconds: float
) -> tuple[list[int], list[float]]:
    """The likeliest token after each other, and its probability.

    The encoder's keys and values stay from the first step.
    """
    heads, size = 8, 36
    known: dict[str, NDArray[Any]] = {
        f"past_key_values.{layer}.{side}.{kind}": np.zeros((1, heads, 0, size), np.float32)
        for layer in range(_LAYERS)
        for side in ("decoder", "encoder")
        for kind in ("key", "value")
    }
    mask = np.ones((1, len(vectors) * moonshine_encoder.SAMPLES_PER_VECTOR), np.int64)
    found, certainties = [_START], []
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
        scores = logits[0, -1].astype(np.float64)
        found.append(int(scores.argmax()))
        certainties.append(1.0 / float(np.exp(scores - scores.max()).sum()))
        if found[-1] == _END:
            break
        for name, value in zip(decoder.outputs[1:], present, strict=True):
            if step == 0 or ".decoder." in name:
                known[name.replace("present", "past_key_values")] = value
    return found[1:], certainties


def _reading(tokens: list[bytes], found: list[int], certainties: list[float]) -> Reading:
    """Words of a row of tokens; a token that begins with a space begins a written word."""
    space = "\u2581".encode()
    written: list[tuple[bytes, float]] = []
    for token, certainty in zip(found, certainties, strict=True):
        if token <= _END:
            continue
        if written and not tokens[token].startswith(space):
            text, least = written[-1]
            written[-1] = (text + tokens[token], min(least, certainty))
        else:
            written.append((tokens[token], certainty))
    texts = [text.decode("utf-8", errors="ignore").replace("\u2581", " ") for text, _ in written]
    words = words_of("".join(texts))
    parts = [words_of(text) for text in texts]
    if [word for part in parts for word in part] == words:
        each = zip(parts, written, strict=True)
        return Reading(words, [least for part, (_, least) in each for _ in part])
    # A number or an abbreviation of several written words: all are as certain as the least is.
    return Reading(words, [min((least for _, least in written), default=1.0)] * len(words))


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
