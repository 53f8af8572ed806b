# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of other scripts are meant)
"""Phone set of the project, and the symbols of other engines mapped to it.

ARPAbet without stress: 39 phones and silence. Phones of other languages are the nearest of these,
and where their lips differ a *variant* of it; networks know the 39, the rules the variants too.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

SILENCE = "SIL"
PHONES: tuple[str, ...] = (
    SILENCE,
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH",
    "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH",
    "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
UNKNOWN_PHONE_ID = 0
NUM_PHONE_IDS = len(PHONES) + 1
PHONE_IDS: dict[str, int] = {symbol: index + 1 for index, symbol in enumerate(PHONES)}

PhoneSource = Literal["given", "recognised"]
"""Origin of phones: of given words, which are right, or recognised, which may be wrong."""

VOWELS = frozenset(
    ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
)
BILABIALS = frozenset(("P", "B", "M"))
LABIODENTALS = frozenset(("F", "V"))

_PAUSES = frozenset(
    {"", "_", "_:", "pau", "sil", "ssil", "h#", "#", "brth", "<sil>", "[noise]", "+spn+", "+nsn+"}
)
_FESTVOX_EXTRAS = {
    "ax": "AH",
    "axr": "ER",
    "ix": "IH",
    "dx": "T",
    "el": "L",
    "em": "M",
    "en": "N",
    "hv": "HH",
}

# Nearest phone by the position of lips and jaw, then by sound; + joins two phones, and / parts a
# phone from its variant. Letters are decomposed, except c with a cedilla.
_IPA_TEXT = """
tʃ=CH ʈʂ=CH/ʂ tɕ=CH/ɕ dʒ=JH dʑ=JH/ʑ ɖʐ=JH/ʐ ts=T+S ʦ=T+S dz=D+Z ʣ=D+Z pf=P+F kx=K+HH eɪ=EY aɪ=AY
ɔɪ=OY aʊ=AW oʊ=OW əʊ=OW ɪə=IH+AH eə=EH+AH ʊə=UH+AH aɪə=AY+AH aʊə=AW+AH iə=IY+AH ɔə=AO+AH oːɹ=AO+R
ɔːɹ=AO+R ɑːɹ=AA+R ai=AY au=AW ei=EY ou=OW oi=OY ɔø=OY ɔʏ=OY i=IY ɨ=IH ɪ=IH ᵻ=IH y=UW/y ʏ=UH/ʏ
ʉ=UW/ʉ ɯ=UH/ɯ ɯᵝ=UH/ɯᵝ u=UW ʊ=UH e=EY/e ɛ=EH ε=EH ø=ER/ø œ=ER/œ ɶ=AA/œ ɘ=IH ɵ=UH/ɵ ɤ=AH/ɤ o=OW/o
ə=AH ɐ=AH ʌ=AH ɜ=ER ɚ=ER ɝ=ER ɞ=ER/œ ɔ=AO ɒ=AA/ɒ æ=AE a=AA ɑ=AA ɑ̃=AA/ɑ̃
ɔ̃=AO/ɔ̃ œ̃=ER/œ̃ ɛ̃=EH/ɛ̃ p=P b=B m=M kp=P ɡb=B gb=B ŋm=M ɱ=V/ɱ ɓ=B ʙ=B/ʙ ɸ=F/ɸ β=V/β
f=F v=V ʋ=V/ʋ ⱱ=V w=W ʍ=W ɥ=W/ɥ t=T ʈ=T d=D ɖ=D ɗ=D n=N ɳ=N ɲ=N/ʲ θ=TH ð=DH s=S z=Z ʂ=SH/ʂ
ʐ=ZH/ʐ ʃ=SH ʒ=ZH ɕ=SH/ɕ ʑ=ZH/ʑ ɬ=L ɮ=L l=L ɫ=L ɭ=L ʎ=L/ʲ ʟ=L ɺ=L ɾ=D ɽ=D r=R ɹ=R ɻ=R ɝː=ER ʀ=G
ʁ=HH j=Y ʝ=Y ç=HH/ç x=HH ɣ=G χ=HH k=K g=G ɡ=G ɟ=JH/ɟ ʄ=JH/ɟ c=K/ʲ q=K ɢ=G ʛ=G ɴ=NG ŋ=NG ɠ=G
h=HH ɦ=HH ħ=HH ʕ=AA ʢ=HH ʜ=HH ɧ=SH ɰ=HH ɾ̃=N ᵐ=M ⁿ=N ᵑ=NG ʘ=P/ʘ ǀ=T ǃ=T ǁ=L ǂ=K/ʲ ʔ=
"""
_IPA: dict[str, str] = {
    symbol: phones.replace("+", " ")
    for symbol, _, phones in (pair.partition("=") for pair in _IPA_TEXT.split())
}
_IPA_LONGEST = max(len(symbol) for symbol in _IPA)
_ROUNDED = "ʷ"
_IPA_MARKS = re.compile(
    "[ˈˌːˑʰʲˠˤ˞~̯͡‿.|'\"\u0300-\u0302\u0304-\u036f˥˦˧˨˩0-9^_\\-]"  # the tilde of nasal vowels tells
)


class PhoneKind(NamedTuple):
    """What is spoken, without its time.

    Attributes:
        symbol: The nearest of ``PHONES``.
        variant: Name of the targets of its own that it has, in IPA (``phone_targets.py``); empty
            for a phone of English.
    """

    symbol: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone of an utterance.

    Attributes:
        symbol: One of ``PHONES``.
        start_seconds: Time at which the phone begins.
        end_seconds: Time at which the phone ends; later than the start.
        variant: As of ``PhoneKind``; networks do not see it.
    """

    symbol: str
    start_seconds: float
    end_seconds: float
    variant: str = ""


def from_arpabet(symbol: str) -> str:
    """Maps a symbol of CMUdict, flite, or Festival's US voices to a phone.

    Args:
        symbol: ARPAbet symbol in any case, with or without a stress digit, or a pause.

    Returns:
        A symbol of ``PHONES``.

    Raises:
        ValueError: The symbol is not known.
    """
    bare = symbol.strip().lower().rstrip("012")
    if bare in _PAUSES:
        return SILENCE
    if bare in _FESTVOX_EXTRAS:
        return _FESTVOX_EXTRAS[bare]
    if bare.upper() in PHONE_IDS:
        return bare.upper()
    raise ValueError(f"{symbol!r} is no ARPAbet phone; expected one of {', '.join(PHONES)}")


def from_ipa(symbol: str) -> tuple[PhoneKind, ...]:
    """Maps IPA to the phones with the most similar lip positions, and to their variants.

    Args:
        symbol: One phoneme, possibly with stress, length, tone and other marks.

    Returns:
        No phone (glottal stop, marks alone), one phone, or several where no single one is similar.
    """
    text = symbol.strip()
    if text in _PAUSES:
        return (PhoneKind(SILENCE),)
    found: list[PhoneKind] = []
    bare = unicodedata.normalize("NFD", text).replace("c\u0327", "ç")
    bare = _IPA_MARKS.sub("", bare)
    position = 0
    while position < len(bare):
        for length in range(min(_IPA_LONGEST, len(bare) - position), 0, -1):
            phones = _IPA.get(bare[position : position + length])
            if phones is not None:
                found.extend(PhoneKind(*kind.split("/")) for kind in phones.split())
                position += length
                break
        else:
            if bare[position] == _ROUNDED and found and found[-1].symbol not in VOWELS:
                found[-1] = PhoneKind(found[-1].symbol, _ROUNDED)
            position += 1
    return tuple(found)


def phone_frames(
    phones: Sequence[Phone],
    num_frames: int,
    fps: float,
    *,
    source: PhoneSource = "recognised",
) -> NDArray[np.int64]:
    """Phone ids of regularly spaced frames.

    Args:
        phones: Phones in order of time; gaps between them are unknown.
        num_frames: Number of frames ``T``.
        fps: Frames per second; frame ``i`` is sampled at its middle, ``(i + 0.5) / fps``.
        source: Origin of the phones. The ids of ``given`` phones follow those of ``recognised``
            ones, so that a model knows which to trust.

    Returns:
        Ids of shape ``(T,)``: ``1 + PHONES.index(symbol)`` for recognised phones, ``len(PHONES)``
        more for given ones, ``UNKNOWN_PHONE_ID`` without a phone.
    """
    ids = np.zeros(num_frames, dtype=np.int64)
    if not phones:
        return ids
    starts = np.array([phone.start_seconds for phone in phones])
    ends = np.array([phone.end_seconds for phone in phones])
    symbols = np.array([PHONE_IDS[phone.symbol] for phone in phones])
    times = (np.arange(num_frames) + 0.5) / fps
    index = np.searchsorted(starts, times, side="right") - 1
    inside = (index >= 0) & (times < ends[np.maximum(index, 0)])
    ids[inside] = symbols[index[inside]] + (len(PHONES) if source == "given" else 0)
    return ids


def merge_silences(phones: Sequence[Phone]) -> list[Phone]:
    """Joins neighbouring silences and drops phones that have no length.

    Args:
        phones: Phones in order of time.

    Returns:
        The same phones with one ``SIL`` per pause.
    """
    merged: list[Phone] = []
    for phone in phones:
        if phone.end_seconds <= phone.start_seconds:
            continue
        if merged and phone.symbol == SILENCE == merged[-1].symbol:
            merged[-1] = replace(merged[-1], end_seconds=phone.end_seconds)
        else:
            merged.append(phone)
    return merged
