# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of other scripts are meant)
"""Pronunciation of text in many languages, by espeak-ng's rules (GPL-3).

The library and its data come with the package ``espeakng_loader``; its own code is not imported.
Numbers, abbreviations and foreign words are read as that language reads them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import threading
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from backend.errors import UserError
from backend.speech.languages import ENGLISH
from backend.speech.phones import SILENCE, PhoneKind, from_ipa

_PACKAGE: Final = "espeakng_loader"
_VOICES: Final = {ENGLISH: "en-us", "zh": "cmn"}
"""Names of espeak-ng's voices, where they are not the language's code."""
# Numbers of espeak-ng's speak_lib.h (1.52).
_SYNCHRONOUS, _UTF8, _IPA = 2, 1, 2
_PHONEME_EVENTS, _PHONEME_IPA, _NO_EXIT = 1, 2, 0x8000
_SEPARATOR: Final = "_"
_MODE: Final = _IPA | ord(_SEPARATOR) << 8
_SWITCH: Final = re.compile(r"\([a-z][a-z-]*\)")
"""espeak-ng's mark of a word that it reads in another language."""
_CLAUSE_END: Final = re.compile(r"(?<=[.!?;:…])\s+|(?<=[。！？；：؟])|\n")
_HAN: Final = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
# What espeak-ng writes otherwise than in IPA, by the language; "" is for all that follow.
_SPELLINGS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "ru": (("y", "ɨ"),),
    "ro": (("y", "ɨ"),),
    "vi": (("y", "ɯ"), ("ɜ", "")),
    "th": (("ɜ", ""),),
    "zh": (("ɜ", ""), ("(?<=[ptkɕsʂ.])h", "ʰ"), ("nɡ", "ŋ"), (r"i\.", "ɨ")),
    "yue": (("ɜ", ""), ("oe", "œ"), ("eo", "ɵ"), ("yu", "y"), ("aa", "a"), ("nɡ", "ŋ")),
    "ko": (("(?<=[ptk])h", "ʰ"),),
    "ga": (("A", "ɑ"),),
    "uz": (("S", "ʃ"), ("y", "i")),
    "sv": (("sx", "ɧ"),),
    "": ((r"ts\.", "ʈʂ"), (r"s\.", "ʂ"), (r"r\.", "ɽ")),
}
_UNREADABLE: Final = {"my": re.compile("[\u1050-\u109f]")}
"""Letters of other languages, which espeak-ng spells out at such length that it can end by it."""
_MAX_LETTERS: Final = 2000
"""Longest text that is given to the library at once."""


@dataclass(frozen=True, slots=True)
class PronouncedWord:
    """A word and its pronunciation.

    Attributes:
        text: The word as it is written; empty where the script does not part words.
        kinds: Its phones without silence.
    """

    text: str
    kinds: tuple[PhoneKind, ...]

    @property
    def phones(self) -> tuple[str, ...]:
        """Symbols of ``PHONES``."""
        return tuple(kind.symbol for kind in self.kinds)


def is_installed() -> bool:
    """Whether text of other languages can be pronounced."""
    return library_file() is not None


def pronounce_text(text: str, language: str) -> list[PronouncedWord]:
    """Pronounces a text.

    Args:
        text: Text in the language's usual script, of any length.
        language: A code of ``LANGUAGES``.

    Returns:
        Its words in order, without those that are not spoken.

    Raises:
        UserError: espeak-ng is missing, or the text is written in characters that it cannot read.
    """
    if language == "ja" and _HAN.search(text):
        raise UserError(
            "Japanese text is read in kana alone. Write its kanji in hiragana or katakana."
        )
    text = unicodedata.normalize("NFC", text)
    if unreadable := _UNREADABLE.get(language):
        text = unreadable.sub(" ", text)
    words: list[PronouncedWord] = []
    for clause in _CLAUSE_END.split(text):
        for start in range(0, len(clause), _MAX_LETTERS):
            words += _pronounce_clause(clause[start : start + _MAX_LETTERS], language)
    return words


def _pronounce_clause(clause: str, language: str) -> list[PronouncedWord]:
    """Words of a part of a sentence, which sound as they do beside each other."""
    tokens = [token for token in clause.split() if any(map(str.isalnum, token))]
    if not tokens:
        return []
    spoken = [kinds for kinds in _kinds(clause, language) if kinds]
    if len(spoken) == len(tokens):
        return [PronouncedWord(_bare(t), p) for t, p in zip(tokens, spoken, strict=True)]
    if len(spoken) < len(tokens):  # "of the" is spoken as one
        return [PronouncedWord("", kinds) for kinds in spoken]
    alone = [tuple(kind for part in _kinds(t, language) for kind in part) for t in tokens]
    if sum(map(len, alone)) != sum(map(len, spoken)):
        return [PronouncedWord("", kinds) for kinds in spoken]
    return [PronouncedWord(_bare(t), p) for t, p in zip(tokens, alone, strict=True) if p]


def _bare(token: str) -> str:
    """A word without the signs around it."""
    inside = [k for k, letter in enumerate(token) if letter.isalnum()]
    return token[inside[0] : inside[-1] + 1].lower()


def _kinds(text: str, language: str) -> list[tuple[PhoneKind, ...]]:
    """Phones of each word as espeak-ng parts them."""
    ipa = _SWITCH.sub(" ", _espeak().ipa(text, _VOICES.get(language, language)))
    for written, meant in (*_SPELLINGS.get(language, ()), *_SPELLINGS[""]):
        ipa = re.sub(written, meant, ipa)
    words = []
    for word in ipa.split():
        kinds = (kind for part in word.split(_SEPARATOR) for kind in from_ipa(part))
        words.append(tuple(kind for kind in kinds if kind.symbol != SILENCE))
    return words


class _Espeak:
    """The library, which has one voice per process."""

    def __init__(self) -> None:
        file = library_file()
        if file is None:
            raise UserError(
                "Text of other languages than English needs espeak-ng, which is missing. Install "
                "the extension again, or set Listen to Sound Only."
            )
        self._lock = threading.Lock()
        self._library: Any = ctypes.CDLL(str(file))
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._library.espeak_TextToPhonemes.argtypes = (
            ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int,
        )  # fmt: skip
        if start(self._library, file.parent) <= 0:
            raise UserError("espeak-ng did not start. Install the extension again.")

    def ipa(self, text: str, voice: str) -> str:
        """Sounds of a text, those of a word parted by ``_``, words by spaces."""
        with self._lock:
            if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise UserError(f"espeak-ng has no voice for {voice}. Install the extension again.")
            buffer = ctypes.create_string_buffer(text.replace("\0", " ").encode("utf-8", "ignore"))
            place = ctypes.c_void_p(ctypes.addressof(buffer))
            parts = []
            while place.value:  # one clause at each call
                found = self._library.espeak_TextToPhonemes(ctypes.byref(place), _UTF8, _MODE)
                parts.append((found or b"").decode("utf-8", "ignore"))
            return " ".join(parts)


def start(library: Any, data: Path | None) -> int:
    """Starts the library for all that this process asks of it: phones of text, sound with events.

    Its settings hold for the whole process, and the last call's replace those of the one before.

    Args:
        library: espeak-ng, loaded by ``ctypes``.
        data: Folder that holds its data; None takes its own.

    Returns:
        The rate of its sound in hertz; 0 or less where it did not start.
    """
    folder = None if data is None else os.fsencode(data)
    options = _PHONEME_EVENTS | _PHONEME_IPA | _NO_EXIT
    return int(library.espeak_Initialize(_SYNCHRONOUS, 0, folder, options))


@cache
def _espeak() -> _Espeak:
    return _Espeak()


@cache
def library_file() -> Path | None:
    """The library in its package; None where that is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    name = {"win32": "espeak-ng.dll", "darwin": "libespeak-ng.dylib"}.get(
        sys.platform, "libespeak-ng.so"
    )
    path = Path(spec.submodule_search_locations[0]) / name
    return path if path.is_file() else None
