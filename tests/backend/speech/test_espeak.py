# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of other scripts are meant)
"""Pronunciation of text in other languages."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.errors import UserError
from backend.speech import espeak
from backend.speech.languages import (
    LANGUAGES,
    language_of_script,
    language_of_text,
    spoken_language,
)
from backend.speech.phones import PHONES

needs_espeak = pytest.mark.skipif(
    not espeak.is_installed(), reason="the package espeakng_loader is not installed"
)


def spoken(text, language):
    return [(word.text, " ".join(word.phones)) for word in espeak.pronounce_text(text, language)]


@needs_espeak
@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        (
            "de",
            "Über den Bäumen!",
            [("über", "UW B ER"), ("den", "D EY N"), ("bäumen", "B OY M AH N")],
        ),
        ("fr", "s'il vous plaît", [("s'il", "S IY L"), ("vous", "V UW"), ("plaît", "P L EH")]),
        (
            "ru",
            "Мама мыла раму.",
            [("мама", "M AA M AA"), ("мыла", "M IH L AA"), ("раму", "R AA M UW")],
        ),
        ("he", "שלום", [("שלום", "SH AA L OW M")]),
        ("zh", "妈妈", [("妈妈", "M AA M AA")]),
    ],
)
def test_words_and_phones_of_a_language(language, text, words):
    assert spoken(text, language) == words


@needs_espeak
@pytest.mark.parametrize(
    ("language", "text", "closures"),
    [
        ("es", "Papá compró bombones.", 6),
        ("it", "La mamma beve birra.", 4),
        ("pt", "O pão é bom.", 3),
        ("nl", "Mijn papa bakt brood.", 5),
        ("sv", "Mamma bakar bröd.", 4),
        ("pl", "Baba piła mleko.", 4),
        ("tr", "Babam para buldu.", 5),
        ("ar", "مرحبا بك", 3),
        ("hi", "मेरा भाई बाबा", 4),
        ("ja", "まめをパンでたべた", 4),
        ("ko", "밥을 먹었습니다 바보", 5),
        ("cs", "Máma má psa.", 3),
    ],
)
def test_closures_of_the_lips_are_pronounced(language, text, closures):
    phones = [p for word in espeak.pronounce_text(text, language) for p in word.phones]
    assert sum(phone in ("P", "B", "M") for phone in phones) == pytest.approx(closures, abs=1)
    assert set(phones) <= set(PHONES)


@needs_espeak
@pytest.mark.parametrize(
    ("language", "text", "kinds"),
    [
        ("fr", "une", ["y", ""]),
        ("fr", "bon vin blanc", ["", "ɔ\u0303", "", "ɛ\u0303", "", "", "ɑ\u0303"]),
        ("de", "schöne Bücher", ["", "ø", "", "", "", "y", "ç", ""]),
        ("ja", "ふゆ", ["ɸ", "ɯᵝ", "", "ɯᵝ"]),
        ("pl", "życie", ["", "", "ɕ", ""]),
        ("es", "lobo", ["", "o", "β", "o"]),
        ("tr", "gün ışık", ["ɟ", "ø", "", "ɯ", "", "ɯ", ""]),
        ("hi", "वह", ["ʋ", "", ""]),
    ],
)
def test_finer_kinds_of_phones_are_told(language, text, kinds):
    words = espeak.pronounce_text(text, language)
    assert [kind.variant for word in words for kind in word.kinds] == kinds


@needs_espeak
@pytest.mark.parametrize(
    ("language", "text", "phones"),
    [
        ("zh", "是", "SH IH"),  # not S IY: a dot is retroflex
        ("zh", "吃", "CH IH"),  # aspiration is no HH
        ("zh", "鱼", "Y UW"),  # a tone is no ER
        ("zh", "东", "T OW NG"),
        ("vi", "tư", "T UH"),
        ("ru", "ты", "T IH"),
        ("ko", "파", "P AH"),
        ("da", "med", "M EH DH"),
        ("lb", "Zäit", "T S AE IH T"),
        ("uz", "chi", "CH IY"),
    ],
)
def test_what_espeak_writes_otherwise_than_in_ipa_is_understood(language, text, phones):
    assert " ".join(p for w in espeak.pronounce_text(text, language) for p in w.phones) == phones


@needs_espeak
def test_letters_that_end_espeak_are_not_given_to_it():
    letters = " ".join(map(chr, range(0x1038, 0x1090)))
    code = "import sys; from backend.speech import espeak; espeak.pronounce_text(sys.argv[1], 'my')"
    subprocess.run([sys.executable, "-c", code, letters], check=True, timeout=60)


@needs_espeak
def test_every_language_of_the_table_has_a_voice():
    for language in LANGUAGES:
        assert isinstance(espeak.pronounce_text("a", language), list)


@needs_espeak
def test_what_is_not_spoken_is_no_word():
    assert espeak.pronounce_text(" … ! — \n\n\0 ", "de") == []
    assert espeak.pronounce_text("", "de") == []
    long = espeak.pronounce_text("ja " * 20_000, "de")
    assert 19_000 < len(long) < 21_000


@needs_espeak
def test_threads_do_not_mix_languages():
    texts = {"de": "Guten Morgen", "es": "Buenos días", "ru": "Доброе утро"}
    alone = {language: spoken(text, language) for language, text in texts.items()}
    with ThreadPoolExecutor(6) as pool:
        jobs = [(k, pool.submit(spoken, texts[k], k)) for _ in range(20) for k in texts]
        assert all(job.result() == alone[language] for language, job in jobs)


@needs_espeak
def test_text_that_cannot_be_read_is_told():
    with pytest.raises(UserError, match="hiragana or katakana"):
        espeak.pronounce_text("日本語", "ja")
    with pytest.raises(UserError, match='no language "klingon"'):
        spoken_language("nuqneH", "klingon")


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setattr(espeak, "library_file", lambda: None)
    with pytest.raises(UserError, match="Sound Only"):
        espeak._Espeak()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("hello, çok güzel", None),
        ("", None),
        ("привет", "ru"),
        ("привіт", "uk"),
        ("مرحبا", "ar"),
        ("چطوری", "fa"),
        ("나는", "ko"),
        ("私はみかん", "ja"),
        ("你好", "zh"),
        ("สวัสดี", "th"),
        ("नमस्ते", "hi"),
        ("Γειά", "el"),
        ("שלום", "he"),
    ],
)
def test_a_script_gives_its_language_away(text, code):
    assert language_of_script(text) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("My face is made of formulas. Play me some speech.", "en"),
        ("Hello!", "en"),
        ("Café crème, please", "en"),
        ("", "en"),
        ("Mein Gesicht besteht aus Formeln, und ich bewege die Lippen.", "de"),
        ("Mon visage est fait de formules, et je bouge les lèvres.", "fr"),
        ("Mi cara está hecha de fórmulas y muevo los labios.", "es"),
        ("Il mio viso è fatto di formule e muovo le labbra.", "it"),
        ("O meu rosto é feito de fórmulas e eu mexo os lábios.", "pt"),
        ("Mijn gezicht is van formules gemaakt en ik beweeg mijn lippen.", "nl"),
        ("Mitt ansikte är gjort av formler och jag rör läpparna.", "sv"),
        ("Moja twarz jest zrobiona z formuł i poruszam ustami.", "pl"),
        ("Yüzüm formüllerden yapıldı ve dudaklarımı çok oynatıyorum.", "tr"),
        ("Můj obličej je z rovnic a já hýbu rty.", "cs"),
    ],
)
def test_the_language_of_a_text_is_guessed(text, code):
    assert language_of_text(text) == code


@needs_espeak
def test_the_synthesiser_still_tells_phones_after_text_was_pronounced():
    synthesis = pytest.importorskip("backend.data.speech.synthesis")
    if "espeak" not in synthesis.available_engines():
        pytest.skip("espeak-ng is not installed")
    voice = synthesis.Voice("espeak", "de")
    synthesis.speak(voice, ["Ja"])  # its first words after hundreds of texts may lack phones
    before = synthesis.speak(voice, ["Guten Tag"])[0]
    words = espeak.pronounce_text("Guten Tag", "de")
    after = synthesis.speak(voice, ["Guten Tag"])[0]
    assert [phone.symbol for phone in after.phones] == [phone.symbol for phone in before.phones]
    assert espeak.pronounce_text("Guten Tag", "de") == words
