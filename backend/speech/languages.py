# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of other scripts are meant)
"""Languages of given text, by their codes."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from backend.errors import UserError, excerpt

AUTO: Final = "auto"
ENGLISH: Final = "en"
LANGUAGES: Final[dict[str, str]] = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian",
    "bg": "Bulgarian", "bn": "Bengali", "bs": "Bosnian", "ca": "Catalan", "cs": "Czech",
    "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "ga": "Irish", "gd": "Scottish Gaelic", "gu": "Gujarati",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian",
    "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian",
    "kk": "Kazakh", "kn": "Kannada", "ko": "Korean", "la": "Latin", "lb": "Luxembourgish",
    "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian", "ml": "Malayalam", "mr": "Marathi",
    "ms": "Malay", "mt": "Maltese", "my": "Burmese", "nb": "Norwegian", "ne": "Nepali",
    "nl": "Dutch", "pa": "Punjabi", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "sq": "Albanian",
    "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu",
    "th": "Thai", "tr": "Turkish", "tt": "Tatar", "uk": "Ukrainian", "ur": "Urdu",
    "uz": "Uzbek", "vi": "Vietnamese", "yue": "Cantonese", "zh": "Mandarin",
}  # fmt: skip
"""Name of each language whose text is pronounced, by its ISO 639 code."""

# Letters that decide alone, as ranges of code points; of several languages of a script the first
# is the one with the most speakers who would write it.
_SCRIPTS: Final = (
    ("ja", 0x3040, 0x30FF), ("ko", 0x1100, 0x11FF), ("ko", 0xAC00, 0xD7AF), ("th", 0x0E00, 0x0E7F),
    ("my", 0x1000, 0x109F), ("ka", 0x10A0, 0x10FF), ("am", 0x1200, 0x137F), ("hy", 0x0530, 0x058F),
    ("he", 0x0590, 0x05FF), ("hi", 0x0900, 0x097F), ("bn", 0x0980, 0x09FF), ("pa", 0x0A00, 0x0A7F),
    ("gu", 0x0A80, 0x0AFF), ("ta", 0x0B80, 0x0BFF), ("te", 0x0C00, 0x0C7F), ("kn", 0x0C80, 0x0CFF),
    ("ml", 0x0D00, 0x0D7F), ("si", 0x0D80, 0x0DFF), ("el", 0x0370, 0x03FF), ("ar", 0x0600, 0x06FF),
    ("ru", 0x0400, 0x04FF), ("zh", 0x4E00, 0x9FFF), ("zh", 0x3400, 0x4DBF),
)  # fmt: skip
_TELLING: Final = (
    ("ar", "ur", "ٹڈڑںے"),
    ("ar", "fa", "پچژگ"),
    ("ru", "uk", "іїєґ"),
    ("ru", "be", "ў"),
    ("ru", "kk", "әғқңөұүһ"),
    ("ru", "sr", "ђћџљњ"),
)
"""First language of a script, another one, and the letters by which that is told."""

# The most frequent short words of languages in Latin letters, and letters that others lack.
_FREQUENT: Final = {
    "en": "the of and to in is you that it he was for on are with his they at be this have"
    " from i not but what all were we when your can said there use my do how if will"
    " up an she her",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als"
    " auch es an werden aus er hat dass sie nach wird bei einer um am sind noch wie"
    " einem über ich wir",
    "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne"
    " se ce il sont avec ou son aux je vous nous cette mais on elle très c'est",
    "es": "de la que el en y a los se del las un por con no una su para es al lo como más o"
    " pero sus le ha me si sin sobre este ya está muy hay yo",
    "it": "di e il la che in a per un del è una non sono le si con i da al ha come più dei"
    " nel alla mi ma gli anche questo della io ho lo sei molto",
    "pt": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas"
    " foi ao ele das tem à seu sua ou ser quando muito há nos já está eu você",
    "nl": "de van een het en in is dat op te zijn met voor niet aan er om ook als dan maar"
    " bij nog uit wordt door naar heeft hij ik we je wat",
    "sv": "och i att det som en på är av för med till den har de inte om ett han men var"
    " jag sig från vi så kan när ska du",
    "da": "og i at det er en til af på den for med der som de et ikke har fra jeg han vi"
    " sig kan var men om hun du",
    "nb": "og i det er på en som til å av for med at den har de ikke om et fra han jeg var"
    " men seg vi kan så du",
    "pl": "i w na z do się nie to że jest o a jak od po co tak za ale ich był jego przez"
    " czy tym już dla jestem mam",
    "cs": "a se v na je že to s z do o i jako si tak ale by po za pro ve jsem byl jeho jsou"
    " když",
    "tr": "bir ve bu da de için ile çok ne daha gibi o ben var olan olarak en kadar sonra"
    " her ama mi değil",
    "fi": "ja on ei se että oli hän mutta ovat kun niin myös jos kuin tai minä sen joka"
    " olen mitä",
    "hu": "a az és hogy nem is egy ez volt de meg csak már van ha mint vagy el én mert",
    "ro": "și în a la cu nu o că un pe să este din se pentru care mai ce am sunt dar",
    "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena"
    " adalah",
    "vi": "là và của có không được một cho người trong đã các tôi này với những để",
    "ca": "de la i a el que en és un les per amb una del els no al va més com però aquest",
    "hr": "i je u se na da su za od s a ne to koji što ali kao bi sam nije",
}  # fmt: skip
_OWN_LETTERS: Final = {
    "de": "ß", "es": "ñ¿¡", "pt": "ãõ", "fr": "œù", "pl": "łąęśżźćń", "cs": "řěů", "tr": "ğış",
    "ro": "țșă", "hu": "őű", "vi": "ơưđạảấầẩẫậ", "sv": "", "ca": "·", "nb": "", "da": "", "fi": "",
}  # fmt: skip
_LETTER_WORTH: Final = 3
_WORDS: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def spoken_language(text: str, language: str) -> str:
    """The language in which a sound is listened to.

    Args:
        text: Words that are spoken; empty where they are not known.
        language: A code of ``LANGUAGES``, or ``auto``.

    Returns:
        A code: the one that is given, else that of the text, else English.

    Raises:
        UserError: There is no such language.
    """
    if language == AUTO:
        return language_of_text(text)
    if language not in LANGUAGES:
        raise UserError(
            f'There is no language "{excerpt(language, 20)}". Give one of: '
            f"{', '.join(sorted(LANGUAGES))}."
        )
    return language


def language_of_text(text: str) -> str:
    """The language that a text is most likely written in.

    Letters of a script that few languages share decide; among those in Latin letters the most
    frequent short words and letters of each do.

    Args:
        text: Any text.

    Returns:
        A code of ``LANGUAGES``; English where nothing tells.
    """
    if code := language_of_script(text):
        return code
    lower = text.lower()
    words = _WORDS.findall(lower.replace("’", "'"))
    points = {
        code: sum(word in frequent for word in words)
        + sum(_LETTER_WORTH * lower.count(letter) for letter in _OWN_LETTERS.get(code, ""))
        for code, frequent in _frequent().items()
    }
    best = max(points, key=lambda code: points[code])
    return best if points[best] > points[ENGLISH] else ENGLISH


@cache
def _frequent() -> dict[str, frozenset[str]]:
    return {code: frozenset(words.split()) for code, words in _FREQUENT.items()}


def language_of_script(text: str) -> str | None:
    """The language that a text's script gives away.

    Args:
        text: Any text.

    Returns:
        A code; None for text in Latin letters, which many languages share, or without letters.
    """
    counts: dict[str, int] = {}
    for letter in text:
        for code, first, last in _SCRIPTS:
            if first <= ord(letter) <= last:
                counts[code] = counts.get(code, 0) + 1
                break
    if not counts:
        return None
    if "ja" in counts:  # kana stand among the characters that Chinese has too
        return "ja"
    code = max(counts, key=lambda name: counts[name])
    lower = text.lower()
    told = (new for old, new, letters in _TELLING if old == code and set(letters) & set(lower))
    return next(told, code)
