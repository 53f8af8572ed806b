# SPDX-License-Identifier: GPL-3.0-or-later
"""Text normalisation: English text as it is written, as the words that are spoken.

Numbers, dates, money, units, abbreviations and addresses are spelled out. Of scripts and subtitles
the speakers' names, stage directions, tags, numbers and times are told apart from what is spoken.
The given words are then matched with recognised ones, which tells what of the text is in the sound.
"""

import difflib
import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import inflect

from backend.speech.pronunciation import lexicon

_APOSTROPHES = dict.fromkeys(
    map(ord, "\u2018\u2019\u201b\u02bc\u02b9\u02bb\u2032\uff07`\u00b4"), "'"
)
_LATIN = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th",
     "\u0131": "i",
     "Æ": "AE", "Œ": "OE", "Ø": "O", "Đ": "D", "Ð": "D", "Ł": "L", "Þ": "TH"}
)  # fmt: skip
_SYMBOLS_THAT_ARE_READ = "°℃℉№"

_DIGITS = ("oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_SCALES = {
    "k": "thousand", "K": "thousand", "m": "million", "M": "million", "mm": "million",
    "mn": "million", "mln": "million", "b": "billion", "B": "billion", "bn": "billion",
    "t": "trillion", "tn": "trillion",
}  # fmt: skip
_MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"), "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"), "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"), "¢": ("cent", "cents", "", ""),
}  # fmt: skip
_UNITS = {
    "km/h": "kilometer per hour", "kph": "kilometer per hour", "kmh": "kilometer per hour",
    "mph": "mile per hour", "mi/h": "mile per hour", "m/s": "meter per second",
    "km/s": "kilometer per second", "mm": "millimeter", "cm": "centimeter", "km": "kilometer",
    "km2": "square kilometer", "m2": "square meter", "m": "meter", "mi": "mile", "ft": "foot",
    "yd": "yard", "mg": "milligram", "kg": "kilogram", "kgs": "kilogram", "g": "gram",
    "lb": "pound", "lbs": "pound", "oz": "ounce", "ml": "milliliter", "mL": "milliliter",
    "l": "liter", "L": "liter", "ms": "millisecond", "s": "second", "sec": "second",
    "secs": "second", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "kB": "kilobyte",
    "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "W": "watt",
    "kW": "kilowatt", "MW": "megawatt", "kWh": "kilowatt hour", "V": "volt", "dB": "decibel",
    "°C": "degree celsius", "°F": "degree fahrenheit", "°": "degree", "%": "percent",
    "fps": "frame per second", "MB/s": "megabyte per second", "x": "time",
}  # fmt: skip
_ONLY_WITHOUT_SPACE = frozenset({"m", "s", "h", "x", "W", "V", "min"})
_UNCHANGING = frozenset({"hertz", "kilohertz", "megahertz", "gigahertz", "percent"})
# Read so with or without a full stop, as any word.
_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "st": "saint", "vs": "versus",
    "etc": "et cetera", "prof": "professor", "jr": "junior",
}  # fmt: skip
# Read so only with a full stop, and the first letter as it is here.
_WITH_STOP = {
    "Sr": "senior", "Mt": "mount", "Ft": "fort", "Ave": "avenue", "Blvd": "boulevard",
    "Rd": "road", "Ln": "lane", "Capt": "captain", "Lt": "lieutenant", "Sgt": "sergeant",
    "Col": "colonel", "Gen": "general", "Rev": "reverend", "Gov": "governor", "Sen": "senator",
    "Rep": "representative", "Pres": "president", "Hon": "honorable", "Co": "company",
    "Inc": "incorporated", "Corp": "corporation", "Ltd": "limited", "Bros": "brothers",
    "approx": "approximately", "dept": "department", "est": "established", "v": "versus",
    "vol": "volume", "Vol": "volume", "pp": "pages", "fig": "figure", "Fig": "figure",
}  # fmt: skip
_AFTER_A_NAME = {"dr": "drive", "st": "street"}
_INITIALS = {"e.g.": "for example", "i.e.": "that is"}
_SIGNS = {
    "&": "and", "%": "percent", "+": "plus", "=": "equals", "@": "at", "°": "degrees",
    "\u00d7": "times", "$": "dollars", "£": "pounds", "€": "euros",
}  # fmt: skip
_IN_ADDRESSES = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", ":": "colon",
    "?": "question mark", "=": "equals", "&": "and", "#": "hash", "+": "plus", "~": "tilde",
    "%": "percent",
}  # fmt: skip
_ROMAN = {
    "II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12,
    "XIII": 13, "XIV": 14, "XV": 15, "XVI": 16, "XVII": 17, "XVIII": 18, "XIX": 19, "XX": 20,
}  # fmt: skip
_NUMBERED = frozenset({
    "act", "scene", "part", "chapter", "war", "volume", "book", "section", "type", "phase", "level",
    "episode", "season", "round", "class", "stage",
})  # fmt: skip

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\w)\.\d+)"
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
)
_SHORT_MONTH = r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_SCALE = "|".join(sorted(_SCALES, key=len, reverse=True))
_DOMAIN_END = r"(?:com|org|net|edu|gov|info|io|ai|tv|app|dev|eu|de|fr|uk|ca|au|us)"
_PATTERNS = {
    "address": rf"(?:https?://|www\.)[^\s<>\"]+|[\w.+-]{{1,64}}@[\w-]+(?:\.[\w-]+)+"
    rf"|(?<!\w)[A-Za-z0-9-]{{2,63}}(?:\.[A-Za-z0-9-]{{1,63}}){{0,4}}\.{_DOMAIN_END}\b(?!['\w])(?:/[^\s<>\"]*)?",
    "handle": r"(?<!\w)[@#]\w+",
    "decade": r"(?<![\d.,$£€])'?(?:1\d|20)?\d0'?s\b",
    "short_year": r"(?<!\w)'\d\d\b(?!')",
    "clock": r"(?<![\d:])\d{1,2}:[0-5]\d(?::[0-5]\d)?(?![\d:])"
    r"(?: ?(?:[AaPp]\.[Mm]\.|[AaPp][Mm]\b))?",
    "hour": r"(?<![\d:.,])\d{1,2} ?(?:[ap]\.m\.|[ap]m\b|[AP]\.M\.|[AP]M\b)",
    "iso_date": r"\b\d{4}-[01]\d-[0-3]\d\b",
    "date": r"\b\d{1,2}/\d{1,2}/\d{2}(?:\d\d)?\b",
    "month_day": rf"\b(?:{_MONTH}|{_SHORT_MONTH}\.?) \d{{1,2}}\b(?![:/.,%-]?\d|(?:st|nd|rd|th)\b)",
    "day_month": rf"(?<![\d.,:])\d{{1,2}} (?={_MONTH}\b|{_SHORT_MONTH}\b)",
    "month": rf"\b{_SHORT_MONTH}\.(?= ?\d)",
    "telephone": r"\(\d{3}\) ?\d{3}-\d{4}(?![\w-])|(?<![\w-])\d{3}-(?:\d{3}-)?\d{4}(?![\w-])",
    "money": rf"[$£€¥₹] ?{_NUMBER}(?: ?(?:{_SCALE}|thousand|million|billion|trillion)(?!\w))?"
    rf"|{_NUMBER} ?[€£¢](?!\d)",
    "version": r"\d+(?:\.\d+){2,}",
    "fraction": r"(?<![\d/])\d{1,9}[/\u2044]\d{1,9}(?![\d/])",
    "ordinal": r"\d+(?:,\d{3})*(?:st|nd|rd|th)\b",
    "many": rf"{_NUMBER}(?:{_SCALE})(?![\w/])",
    "measure": rf"{_NUMBER} ?(?:{_UNIT})(?![\w/])",
    "to": r"(?<=[\d%])[-\u2013](?=\d)",
    "minus": r"(?<![\w)])[-\u2212](?=[$£€.]?\d)",
    "number": _NUMBER,
    "initials": r"(?<![\w.])(?:[A-Za-z]\.){2,}(?!\w)",
    "numero": r"\b[Nn]o\.? ?(?=\d)",
    "per": r"(?<=[\w%])/(?=(?:hour|day|week|month|year|second|minute|person|night|kg|lb)\b)",
    "word": r"[^\W\d_]+(?:'[^\W\d_]+)*'?",
    "sign": "[&%+=@°\u00d7$£€]",
}
_TOKEN = re.compile("|".join(f"(?P<{name}>{text})" for name, text in _PATTERNS.items()))


def words_of(text: str) -> list[str]:
    """Split English text into lower-case words; numbers and usual signs are spelled out.

    Args:
        text: Spoken text with any punctuation, without speakers' names or stage directions.

    Returns:
        Words of letters and apostrophes.
    """
    return [token.word for token in _tokens(_normalised(text))]


@dataclass(frozen=True, slots=True)
class GivenWord:
    """A word of a text.

    Attributes:
        word: Lower-case letters and apostrophes.
        start: First character of its source in the normalised text.
        end: Character after the last one of its source.
        aside: Number of the name or stage direction that the word stands in; -1 for speech.
    """

    word: str
    start: int
    end: int
    aside: int = -1


@dataclass(frozen=True, slots=True)
class GivenText:
    """A text that somebody speaks, as words.

    Attributes:
        text: Normalised text.
        words: All words that may be spoken, in order of the text.
        asides: Names and stage directions as they are written; spoken only if the sound says so.
        left_out: Tags, and numbers and times of subtitles, as they are called in a warning.
    """

    text: str
    words: tuple[GivenWord, ...]
    asides: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FittedText:
    """What of a text is in a sound, and what the sound has beside it.

    Attributes:
        words: Given words, with recognised ones where the text lacks what is spoken.
        given_share: Share of given words among them, 0 to 1.
        warnings: Sentences for the user.
    """

    words: tuple[str, ...]
    given_share: float
    warnings: tuple[str, ...]


def _normalised(text: str) -> str:
    """Unicode's compatibility form, with one apostrophe, without emoji and invisible characters."""
    text = html.unescape(text).translate(_APOSTROPHES)
    text = re.sub(r"[\d#*]\ufe0f?\u20e3", " ", text)
    text = re.sub("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])", " and ", text)
    text = re.sub(r"(?<![\w])(?:[:;]-?[DPpOo](?!\w)|<3(?!\w))", " ", text)
    kept = "".join(
        char
        for char in text.replace("\r\n", "\n").replace("\r", "\n")
        if char in _SYMBOLS_THAT_ARE_READ or unicodedata.category(char) not in ("So", "Cf", "Cs")
    )
    text = unicodedata.normalize("NFKC", kept).translate(_APOSTROPHES)
    return re.sub(r"[^\D0-9]", lambda digit: str(unicodedata.digit(digit[0], 0)), text)


def _plain(word: str) -> str:
    """A word without diacritics."""
    apart = unicodedata.normalize("NFD", word.translate(_LATIN))
    return "".join(char for char in apart if not unicodedata.combining(char))


def _tokens(text: str, aside: int = -1, offset: int = 0) -> list[GivenWord]:
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "word"
        for word in _READERS[kind](match):
            bare = word.rstrip("'") if word.endswith("s'") else word.strip("'")
            if bare:
                found.append(GivenWord(bare, match.start() + offset, match.end() + offset, aside))
    return found


@cache
def _inflect() -> inflect.engine:
    return inflect.engine()


def _spelled(number: int, to: Literal["cardinal", "ordinal", "year"] = "cardinal") -> list[str]:
    if to == "year":
        return _spelled_year(number)
    digits = str(number) if to == "cardinal" else _inflect().ordinal(str(number))
    words = str(_inflect().number_to_words(digits, andword="", comma=""))
    return words.replace("-", " ").split()


def _spelled_year(number: int) -> list[str]:
    """A year from 1100 to 2099 that is no full thousand: in pairs, or by thousands."""
    if 2000 < number < 2010:
        return _spelled(number)
    pair, rest = divmod(number, 100)
    tail = ["hundred"] if not rest else _spelled(rest) if rest > 9 else ["oh", *_spelled(rest)]
    return _spelled(pair) + tail


def _digits(text: str) -> list[str]:
    return [_DIGITS[int(digit)] for digit in text if digit.isascii() and digit.isdigit()]


def _number(text: str, *, is_year: bool = False) -> list[str]:
    whole, _, fraction = text.replace(",", "").partition(".")
    if fraction:
        tail = ["point", *("zero" if digit == "0" else _DIGITS[int(digit)] for digit in fraction)]
    else:
        tail = []
    if whole == "007":
        return ["double", "oh", "seven", *tail]
    if len(whole) > 1 and whole[0] == "0" and "," not in text:
        return _digits(whole) + tail
    if len(whole) > 12:
        return ["zero" if digit == "0" else _DIGITS[int(digit)] for digit in whole] + tail
    if is_year and len(text) == 4 and whole[1:3] != "00" and 1100 <= int(whole) <= 2099:
        return _spelled(int(whole), "year")
    return (_spelled(int(whole)) if whole else []) + tail


def _year(text: str) -> list[str]:
    return _number(text, is_year=True) if len(text) == 4 else _two_digits(text)


def _two_digits(text: str) -> list[str]:
    return _digits(text) if text[0] == "0" else _spelled(int(text))


def _plural(word: str) -> str:
    if word.endswith("y"):
        return word[:-1] + "ies"
    return {"foot": "feet"}.get(word, word if word in _UNCHANGING else word + "s")


def _read_address(match: re.Match[str]) -> list[str]:
    text = match[0].rstrip(".,;:!?)'\"")
    text = re.sub(r"^https?://", "", text).rstrip("/")
    words: list[str] = []
    for part in re.findall(r"\d+|[^\W\d_]+|[^\w\s]|_", text):
        if part.isdigit():
            words += _number(part, is_year=True)
        elif part.isalpha():
            plain = _plain(part).lower()
            words += list(plain) if plain == "www" else [plain]
        else:
            words += _IN_ADDRESSES.get(part, "").split()
    return words


def _read_handle(match: re.Match[str]) -> list[str]:
    name = match[0][1:]
    if match[0][0] == "#" and name.isdigit():
        return ["number", *_number(name)]
    parts = re.findall(r"\d+|[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]", _plain(name))
    words = ["at" if match[0][0] == "@" else "hashtag"]
    for part in parts:
        words += _number(part, is_year=True) if part.isdigit() else [part.lower()]
    return words


def _read_decade(match: re.Match[str]) -> list[str]:
    digits = re.sub(r"\D", "", match[0])
    words = _year(digits) if digits != "00" else ["two", "thousand"]
    return [*words[:-1], _plural(words[-1])]


def _read_clock(match: re.Match[str]) -> list[str]:
    hours, minutes, *seconds = re.findall(r"\d+", match[0])
    half = re.findall("[apm]", match[0].lower())
    if minutes == "00" and not seconds:
        rest = [] if half else ["hundred"] if int(hours) > 12 else ["o'clock"]
    else:
        rest = _two_digits(minutes) + (_two_digits(seconds[0]) if seconds else [])
    return [*_spelled(int(hours)), *rest, *half]


def _read_hour(match: re.Match[str]) -> list[str]:
    hours = re.findall(r"\d+", match[0])[0]
    return [*_spelled(int(hours)), *re.findall("[apm]", match[0].lower())]


def _read_iso_date(match: re.Match[str]) -> list[str]:
    year, month, day = match[0].split("-")
    if not 1 <= int(month) <= 12:
        return [*_number(year), *_number(month), *_number(day)]
    return [_MONTHS[int(month) - 1], *_spelled(int(day), "ordinal"), *_year(year)]


def _read_date(match: re.Match[str]) -> list[str]:
    first, second, year = match[0].split("/")
    return [*_spelled(int(first)), *_spelled(int(second)), *_year(year)]


def _month(name: str) -> str:
    return next(month for month in _MONTHS if month.startswith(name[:3].lower()))


def _read_month_day(match: re.Match[str]) -> list[str]:
    month, day = match[0].split(" ")
    return [_month(month), *_spelled(int(day), "ordinal")]


def _read_money(match: re.Match[str]) -> list[str]:
    sign = next(char for char in match[0] if char in _MONEY)
    number, scale = re.sub(rf"[ {sign}]", "", match[0]), ""
    if found := re.search(r"[a-zA-Z]+$", number):
        number, scale = number[: found.start()], _SCALES.get(found[0], found[0])
    one, more, cent, cents = _MONEY[sign]
    if scale:
        return [*_number(number), scale, more]
    whole, _, small = number.partition(".")
    if len(small) != 2 or not cent:
        return [*_number(number), one if number == "1" else more]
    words = [*_number(whole), one if whole == "1" else more] if whole.strip("0,") else []
    if int(small):
        words += ["and"] if words else []
        words += [*_spelled(int(small)), cent if int(small) == 1 else cents]
    return words or ["zero", more]


def _read_version(match: re.Match[str]) -> list[str]:
    words = []
    for number in match[0].split("."):
        words += [*_number(number), "point"]
    return words[:-1]


def _read_fraction(match: re.Match[str]) -> list[str]:
    above, below = re.findall(r"\d+", match[0])
    part, whole = int(above), int(below)
    if 0 < part < whole and whole in (*range(2, 11), 12, 16, 20, 32, 64, 100):
        names = {2: "half", 4: "quarter"}
        name = [names[whole]] if whole in names else _spelled(whole, "ordinal")
        if part > 1:
            name[-1] = "halves" if whole == 2 else _plural(name[-1])
        return [*_spelled(part), *name]
    return [*_number(above), *_number(below)]


def _read_ordinal(match: re.Match[str]) -> list[str]:
    digits = match[0][:-2].replace(",", "")
    return _spelled(int(digits), "ordinal") if len(digits) <= 12 else _digits(digits)


def _read_many(match: re.Match[str]) -> list[str]:
    found = re.search(r"[a-zA-Z]+$", match[0])
    assert found is not None
    number, scale = match[0][: found.start()], found[0]
    if scale == "K" and number in ("2", "4", "5", "6", "8"):  # sizes of pictures
        return [*_number(number), "k"]
    if scale in ("m", "mm", "b", "t", "B") and scale in (*_UNITS, "b", "t", "B"):
        unit = _UNITS.get(scale)
        return [*_number(number), *(_with_unit(number, unit) if unit else [scale.lower()])]
    return [*_number(number), _SCALES[scale]]


def _read_measure(match: re.Match[str]) -> list[str]:
    found = re.search(rf"( ?)({_UNIT})$", match[0])
    assert found is not None
    number, unit = match[0][: found.start()], found[2]
    if found[1] and unit in _ONLY_WITHOUT_SPACE - {"m"}:
        return [*_number(number, is_year=True), unit.lower()]
    return [*_number(number), *_with_unit(number, _UNITS[unit])]


def _with_unit(number: str, unit: str) -> list[str]:
    words = unit.split()
    if number != "1":
        at = 1 if words[0] in ("square", "kilowatt") and len(words) > 1 else 0
        words[at] = _plural(words[at])
    return words


def _read_initials(match: re.Match[str]) -> list[str]:
    if match[0].lower() in _INITIALS:
        return _INITIALS[match[0].lower()].split()
    letters = match[0].replace(".", "").lower()
    return [letters] if len(letters) > 2 and letters in lexicon() else list(letters)


def _read_word(match: re.Match[str]) -> list[str]:
    written = _plain(match[0])
    # Letters of other scripts have no English sound.
    letters = re.sub("[^A-Za-z']", "", written)
    word, text, end = letters.lower(), match.string, match.end()
    if not word.strip("'"):
        return []
    has_stop = text[end : end + 1] == "."
    if word in _ABBREVIATIONS:
        is_before_name = re.match(r"\.? ?[A-Z]", text[end : end + 3]) is not None
        if word in _AFTER_A_NAME and letters[0].isupper() and not is_before_name:
            before = re.search(
                r"([A-Z]\w*|\d(?:st|nd|rd|th)) $", text[max(0, match.start() - 40) : match.start()]
            )
            if before and before[1].lower() not in ("the", "a", "my", "our"):
                return [_AFTER_A_NAME[word]]
        return _ABBREVIATIONS[word].split(" ")
    if has_stop and letters in _WITH_STOP:
        return [_WITH_STOP[letters]]
    if word == "e" and text[end : end + 5].lower() == "-mail":
        return []
    if word in ("mail", "mails", "mailed") and text[max(0, match.start() - 2) : match.start()] in (
        "e-",
        "E-",
    ):
        return ["e" + word]
    if re.fullmatch(r"[A-Z]{2,5}(?:'?s)?", letters):
        return _read_capitals(letters, match)
    return [word]


def _read_capitals(letters: str, match: re.Match[str]) -> list[str]:
    """Read a word in capitals: as a word if the lexicon has it, else letter by letter."""
    if letters in _ROMAN:
        before = re.search(
            r"([A-Z][a-z]+) $", match.string[max(0, match.start() - 40) : match.start()]
        )
        if before:
            if before[1].lower() in _NUMBERED:
                return _spelled(_ROMAN[letters])
            return ["the", *_spelled(_ROMAN[letters], "ordinal")]
    word = letters.lower()
    around = match.string[max(0, match.start() - 200) : match.end() + 200]
    if " " in around.strip() and not re.search("[a-z]", around):
        return [word]  # all is in capitals
    if letters != "US" and (not lexicon() or word in lexicon()):
        return [word]
    ending = re.search("'?s$", letters)
    if ending is None:
        return list(word)
    spelled = list(word[: ending.start()])
    return [*spelled[:-1], spelled[-1] + "'s"]


def _read_sign(match: re.Match[str]) -> list[str]:
    return [_SIGNS[match[0]]]


_READERS: dict[str, Callable[[re.Match[str]], list[str]]] = {
    "address": _read_address,
    "handle": _read_handle,
    "decade": _read_decade,
    "short_year": lambda match: _two_digits(match[0][1:]),
    "clock": _read_clock,
    "hour": _read_hour,
    "iso_date": _read_iso_date,
    "date": _read_date,
    "month_day": _read_month_day,
    "day_month": lambda match: _spelled(int(match[0]), "ordinal"),
    "month": lambda match: [_month(match[0])],
    "telephone": lambda match: _digits(match[0]),
    "money": _read_money,
    "version": _read_version,
    "fraction": _read_fraction,
    "ordinal": _read_ordinal,
    "many": _read_many,
    "measure": _read_measure,
    "to": lambda _: ["to"],
    "minus": lambda _: ["minus"],
    "number": lambda match: _number(match[0], is_year=True),
    "initials": _read_initials,
    "numero": lambda _: ["number"],
    "per": lambda _: ["per"],
    "word": _read_word,
    "sign": _read_sign,
}


_TIMES = re.compile(r"^\s*(?:\d+:)?\d+:\d+[.,]\d+\s*-->.*$")
_LEADING_TIME = re.compile(r"^[ \t]*\[?\d{1,2}:\d\d:\d\d(?:[.,:]\d+)?\]?(?!\S)", re.MULTILINE)
_TAG = re.compile(r"<[/!?A-Za-z\d][^<>\n]{0,200}>|\{\\[^{}\n]{1,200}\}")
_DIRECTION = re.compile(
    r"(?<!\w)\([^()]{1,400}\)|\[[^\[\]]{1,400}\]|\{[^{}]{1,400}\}|\u3010[^\u3011]{1,400}\u3011"
    r"|(?<![\w*])\*(?![\s*])[^*\n]{1,200}(?<![\s*])\*(?![\w*])"
    r"|^[ \t]*(?:INT|EXT|I/E)[./ ][^\n]*$|^[ \t]*#{1,6} [^\n]*$",
    re.MULTILINE,
)
_DASHES = r"[ \t>\u2013\u2014-]*"
_NAME = re.compile(
    rf"(?:^|(?<=[.!?\u2026\"')\]] )){_DASHES}(?P<name>[A-Z][A-Z0-9 .'&#/-]{{0,30}}?)[ ]*:(?!\S)"
    rf"|^{_DASHES}(?P<title>[A-Z][\w'.-]{{0,20}}(?: [A-Z0-9][\w'.-]{{0,20}}){{0,2}})[ ]*:(?!\S)",
    re.MULTILINE,
)
_NAME_ON_ITS_OWN = re.compile(
    r"^[ \t]*(?P<name>[A-Z][A-Z0-9 '&#/.-]{1,30}[A-Z0-9])[ \t]*\n(?=\s*\S)", re.MULTILINE
)
_ROLES = frozenset({
    "narrator", "speaker", "host", "guest", "voice", "man", "woman", "boy", "girl", "interviewer",
    "interviewee", "announcer", "moderator", "voiceover", "presenter", "character", "actor",
})  # fmt: skip


def read(text: str) -> GivenText:
    """Tell what is spoken in a text from what stands there for readers.

    Args:
        text: Plain text, a script, or subtitles as SRT or WebVTT.

    Returns:
        Words, with those of names and stage directions marked.
    """
    text = _normalised(text)
    left_out: list[str] = []
    text, has_times = _without_times(text)
    if has_times:
        left_out.append("numbers and times of subtitles")
    left_out += [tag[0] for tag in _TAG.finditer(text) if tag[0][1] != "/"]
    text = _TAG.sub(lambda tag: " " * len(tag[0]), text)
    spans: list[tuple[int, int]] = [
        match.span()
        for match in _DIRECTION.finditer(text)
        if re.search(r"[^\W\d_]", match[0]) and not re.fullmatch(r"\W*\d+\W*", match[0])
    ]
    speech = _masked(text, spans)
    names = _speaker_names(speech)
    speech = _masked(speech, names)
    inside = {span for span in spans for a, b in names if a <= span[0] and span[1] <= b}
    spans = sorted({*spans, *names} - inside)
    words = _tokens(speech)
    for number, (start, end) in enumerate(spans):
        words += _tokens(text[start:end], number, start)
    words.sort(key=lambda word: word.start)
    asides = tuple(" ".join(text[start:end].split()) for start, end in spans)
    return GivenText(text, tuple(words), asides, tuple(left_out))


def _masked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with spans blanked; lines stay lines and every place stays where it is."""
    parts, at = [], 0
    for start, end in spans:
        parts += [text[at:start], re.sub(r"[^\n]", " ", text[start:end])]
        at = end
    return "".join([*parts, text[at:]])


def _without_times(text: str) -> tuple[str, bool]:
    """Blank the times, numbers, settings and notes of subtitles."""
    lines = text.split("\n")
    is_out = [False] * len(lines)
    if any(map(_TIMES.match, lines)):
        for index, line in enumerate(lines):
            starts_block = index == 0 or not lines[index - 1].strip()
            if _TIMES.match(line):
                is_out[index] = True
                is_id = index > 0 and (index == 1 or not lines[index - 2].strip())
                if is_id or (index > 0 and lines[index - 1].strip().isdigit()):
                    is_out[index - 1] = True
            elif starts_block and re.match(r"\s*(?:WEBVTT|NOTE|STYLE|REGION)\b", line):
                end = index
                while end < len(lines) and lines[end].strip() and not _TIMES.match(lines[end]):
                    is_out[end] = True
                    end += 1
    text = "\n".join(
        " " * len(line) if out else line for line, out in zip(lines, is_out, strict=True)
    )
    leading = [match.span() for match in _LEADING_TIME.finditer(text)]
    return _masked(text, leading), any(is_out) or bool(leading)


def _speaker_names(text: str) -> list[tuple[int, int]]:
    """Where speakers are named: in capitals before a colon or on a line, or line after line."""
    found = list(_NAME.finditer(text))
    titles = Counter(match["title"] for match in found if match["title"])
    lines = sum(bool(line.strip()) for line in text.split("\n"))
    is_dialogue = sum(titles.values()) > 1 and 2 * len(found) >= lines
    spans = []
    for match in found:
        title = match["title"]
        role = (title or "").lower().rstrip("0123456789 ")
        if not title or is_dialogue or titles[title] > 1 or role in _ROLES:
            start = match.start("title" if title else "name")
            spans.append((start, match.end()))
    if re.search("[a-z]", text):
        for match in _NAME_ON_ITS_OWN.finditer(text):
            is_new = not any(
                start < match.end("name") and match.start("name") < end for start, end in spans
            )
            if len(match["name"].split()) <= 4 and is_new:
                spans.append(match.span("name"))
    return sorted(spans)


# A stretch of the text is taken to be spoken where its length by letters fits the time there.
_LEAST_FILLED, _MOST_FILLED = 0.4, 2.2
_LEAST_FILLED_IF_DOUBTED = 0.8
_LEAST_FILLED_BY_RECOGNISED = 0.5
_FEW_WORDS = 2  # that a recogniser leaves out, adds or mistakes: the text is believed
_ALIKE = 0.35  # in letters, of misrecognised words and the right ones; of others 0.2 to 0.35
_FOUND_ELSEWHERE = 0.6  # share of equal words
_LEAST_GIVEN = 0.2


@dataclass(frozen=True, slots=True)
class RecognisedWord:
    """A recognised word in the whole sound.

    Attributes:
        text: Lower case.
        start_seconds: When it begins.
        end_seconds: When it ends.
        is_sure: The acoustic model agrees with the words around.
    """

    text: str
    start_seconds: float
    end_seconds: float
    is_sure: bool


def fit(
    given: GivenText,
    recognised: Sequence[RecognisedWord],
    speech_seconds: Callable[[float, float], float],
    *,
    is_doubted: bool = False,
) -> FittedText:
    """Find what of a text is spoken in a sound, whatever is missing, added or moved.

    Args:
        given: Text to fit.
        recognised: Recognised words in order of time.
        speech_seconds: Time in which somebody speaks between two times of the sound.
        is_doubted: The text did not fit when it was believed: recognised words win where they
            differ by more than a recogniser's mistakes.

    Returns:
        The words to align; all of the text's speech where nothing speaks against it.
    """
    recognised_texts = [word.text for word in recognised]
    words, left_out = _spoken(given, recognised_texts)
    texts = [word.word for word in words]
    merged: list[tuple[str, int]] = []  # with the word's place in the text, -1 if recognised
    letters = sum(map(len, recognised_texts))
    rate = sum(w.end_seconds - w.start_seconds for w in recognised) / max(letters, 1)
    matcher = difflib.SequenceMatcher(None, recognised_texts, texts, autojunk=False)
    for kind, first, end, start, stop in matcher.get_opcodes() if recognised_texts else ():
        own = [(texts[index], index) for index in range(start, stop)]
        if kind == "equal" or _is_spoken(
            texts[start:stop], recognised, first, end, rate, speech_seconds, is_doubted
        ):
            merged += own
        else:
            merged += _elsewhere(recognised_texts[first:end], texts)
    num_given = sum(index >= 0 for _, index in merged)
    warnings = []
    if left_out:
        warnings.append(f"Left out of the text: {_listed(left_out)}.")
    if num_given < max(_LEAST_GIVEN * len(merged), 1):
        return FittedText(tuple(texts), 1.0 if not recognised_texts else 0.0, tuple(warnings))
    unused = sorted(set(range(len(words))) - {index for _, index in merged})
    if lines := [given.text[a:b] for a, b in _runs(words, unused)]:
        quoted = _listed([f'"{" ".join(line.split())}"' for line in lines])
        warnings.append(f"Not found in the sound, so left out of the text: {quoted}.")
    if added := [word for word, index in merged if index < 0]:
        warnings.append(
            f"Spoken words that the text lacks were recognised instead ({len(added)}): "
            f"{_listed([' '.join(added)])}."
        )
    share = num_given / len(merged)
    return FittedText(tuple(word for word, _ in merged), share, tuple(warnings))


def _spoken(given: GivenText, recognised_texts: Sequence[str]) -> tuple[list[GivenWord], list[str]]:
    """The words of speech and of the asides that are recognised, and what is left out."""
    said: Counter[int] = Counter()
    if any(word.aside >= 0 for word in given.words):
        texts = [word.word for word in given.words]
        matcher = difflib.SequenceMatcher(None, recognised_texts, texts, autojunk=False)
        for block in matcher.get_matching_blocks():
            said.update(word.aside for word in given.words[block.b : block.b + block.size])
    total = Counter(word.aside for word in given.words)
    is_kept = {aside: aside < 0 or said[aside] >= 0.6 * total[aside] for aside in total}
    words = [word for word in given.words if is_kept[word.aside]]
    if not words:
        return list(given.words), []
    asides = [text for index, text in enumerate(given.asides) if not is_kept.get(index, False)]
    return words, [*asides, *given.left_out]


def _is_spoken(
    texts: Sequence[str],
    recognised: Sequence[RecognisedWord],
    first: int,
    end: int,
    rate: float,
    speech_seconds: Callable[[float, float], float],
    is_doubted: bool,
) -> bool:
    """Whether given words can be what is spoken where ``recognised[first:end]`` differs."""
    block = recognised[first:end]
    if len(texts) <= _FEW_WORDS and len(block) <= _FEW_WORDS:
        return True
    # Recognised words beside a gap are often stretched over it: two on either side count too.
    before, after = recognised[max(first - 2, 0) : first], recognised[end : end + 2]
    start = before[0].start_seconds if before else 0.0
    stop = after[-1].end_seconds if after else float("inf")
    beside = sum(len(word.text) for word in (*before, *after)) * rate
    there = max(speech_seconds(start, stop) - beside, 0.0)
    needed = sum(map(len, texts)) * rate
    least = _LEAST_FILLED_IF_DOUBTED if is_doubted else _LEAST_FILLED
    if needed < least * there:
        # Made-up words at the end of a sound come too fast to be spoken.
        return there < _LEAST_FILLED_BY_RECOGNISED * sum(len(word.text) for word in block) * rate
    if needed > _MOST_FILLED * there and len(texts) > _FEW_WORDS:
        return False
    if is_doubted and len(block) > _FEW_WORDS and all(word.is_sure for word in block):
        ours, theirs = "".join(texts), "".join(word.text for word in block)
        alike = difflib.SequenceMatcher(None, ours[:2000], theirs[:2000], autojunk=False).ratio()
        return alike >= _ALIKE
    return True


def _elsewhere(recognised_texts: Sequence[str], texts: Sequence[str]) -> list[tuple[str, int]]:
    """Recognised words, or the stretch of the text that they are, wherever it stands there."""
    plain = [(word, -1) for word in recognised_texts]
    if len(recognised_texts) <= _FEW_WORDS:
        return plain
    votes: Counter[int] = Counter()
    places = defaultdict(list)
    for index, word in enumerate(texts):
        places[word].append(index)
    for index, word in enumerate(recognised_texts):
        votes.update(place - index for place in places[word][:200])
    if not votes:
        return plain
    shift = votes.most_common(1)[0][0]
    start, stop = max(shift - 3, 0), max(shift + len(recognised_texts) + 3, 0)
    window = texts[start:stop]
    matcher = difflib.SequenceMatcher(None, recognised_texts, window, autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    if (
        not blocks
        or sum(block.size for block in blocks)
        < _FOUND_ELSEWHERE * (blocks[-1].a + blocks[-1].size - blocks[0].a)
        or sum(block.size for block in blocks) < 3
    ):
        return plain
    first, last = blocks[0], blocks[-1]
    found = [(texts[i], i) for i in range(start + first.b, start + last.b + last.size)]
    return plain[: first.a] + found + plain[last.a + last.size :]


def _runs(words: Sequence[GivenWord], unused: Sequence[int]) -> list[tuple[int, int]]:
    """First and last character of every stretch of more than a few unused words."""
    runs: list[tuple[int, int]] = []
    begin = 0
    for index in range(1, len(unused) + 1):
        if index == len(unused) or unused[index] != unused[index - 1] + 1:
            runs.append((words[unused[begin]].start, words[unused[index - 1]].end))
            begin = index
    return runs


def _listed(texts: Sequence[str]) -> str:
    """The first few, cut to a readable length."""
    texts = list(dict.fromkeys(texts))
    short = [text if len(text) <= 80 else f"{text[:60]}\u2026{text[-15:]}" for text in texts[:6]]
    return ", ".join(short) + (f" and {len(texts) - 6} more" if len(texts) > 6 else "")
