# SPDX-License-Identifier: GPL-3.0-or-later

"""Languages of given text, by their codes."""

from __future__ import annotations

from typing import Final

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
