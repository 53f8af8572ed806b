# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of other scripts are meant)
"""Phone set of the project, and the symbols of other engines mapped to it.

ARPAbet without stress: 39 phones and silence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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

# Nearest phone by the position of lips and jaw, then by sound; + joins two phones.
_IPA_TEXT = """
tʃ=CH ʈʂ=CH tɕ=CH dʒ=JH dʑ=JH ɖʐ=JH ts=T+S dz=D+Z pf=P+F kx=K+HH eɪ=EY aɪ=AY ɔɪ=OY aʊ=AW oʊ=OW
əʊ=OW ɪə=IH+AH eə=EH+AH ʊə=UH+AH aɪə=AY+AH aʊə=AW+AH iə=IY+AH ɔə=AO+AH oːɹ=AO+R ɔːɹ=AO+R
ɑːɹ=AA+R ai=AY au=AW ei=EY ou=OW oi=OY ɔø=OY ɔʏ=OY i=IY ɨ=IH ɪ=IH ᵻ=IH y=UW ʏ=UH ʉ=UW ɯ=UH u=UW
ʊ=UH e=EY ɛ=EH ø=ER œ=ER ɘ=IH ɵ=UH ɤ=AH o=OW ə=AH ɐ=AH ʌ=AH ɜ=ER ɚ=ER ɝ=ER ɞ=ER ɔ=AO ɒ=AA æ=AE
a=AA ɑ=AA ɶ=AA ä=AA p=P b=B m=M ɱ=M ɓ=B ʙ=B ɸ=F β=V f=F v=V ʋ=V ⱱ=V w=W ʍ=W ɥ=W t=T ʈ=T d=D ɖ=D
ɗ=D n=N ɳ=N ɲ=N θ=TH ð=DH s=S z=Z ʂ=SH ʐ=ZH ʃ=SH ʒ=ZH ɕ=SH ʑ=ZH ɬ=L ɮ=L l=L ɫ=L ɭ=L ʎ=L ʟ=L ɺ=L
ɾ=D ɽ=D r=R ɹ=R ɻ=R ɝː=ER ʀ=G ʁ=HH j=Y ʝ=Y ç=HH x=HH ɣ=G χ=HH k=K g=G ɡ=G ɟ=JH c=K q=K ɢ=G ɴ=NG
ŋ=NG ɠ=G h=HH ɦ=HH ħ=HH ʕ=AA ʢ=HH ʜ=HH ɧ=SH ɰ=W ɾ̃=N l̩=L n̩=N m̩=M ʔ=
"""
_IPA: dict[str, str] = {
    symbol: phones.replace("+", " ")
    for symbol, _, phones in (pair.partition("=") for pair in _IPA_TEXT.split())
}
_IPA_LONGEST = max(len(symbol) for symbol in _IPA)
_IPA_MARKS = re.compile("[ˈˌːˑʰʲʷˠˤ˞~̯͡‿.|'\"\u0300-\u036f˥˦˧˨˩0-9^_\\-]")


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone of an utterance.

    Attributes:
        symbol: One of ``PHONES``.
        start_seconds: Time at which the phone begins.
        end_seconds: Time at which the phone ends; later than the start.
    """

    symbol: str
    start_seconds: float
    end_seconds: float


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


def from_ipa(symbol: str) -> tuple[str, ...]:
    """Maps IPA, as espeak-ng writes it, to the phones with the most similar lip positions.

    Args:
        symbol: One phoneme, possibly with stress, length, tone and other marks.

    Returns:
        No phone (glottal stop, marks alone), one phone, or several where no single one is similar.
    """
    if symbol.strip() in _PAUSES:
        return (SILENCE,)
    text = symbol.strip()
    found: list[str] = []
    bare = _IPA_MARKS.sub("", text)
    position = 0
    while position < len(bare):
        for length in range(min(_IPA_LONGEST, len(bare) - position), 0, -1):
            phones = _IPA.get(bare[position : position + length])
            if phones is not None:
                found.extend(phones.split())
                position += length
                break
        else:
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
            merged[-1] = Phone(SILENCE, merged[-1].start_seconds, phone.end_seconds)
        else:
            merged.append(phone)
    return merged
