# SPDX-License-Identifier: GPL-3.0-or-later
"""Text as it is written: what of it is spoken, as which words, and where it is in a sound."""

import pytest

from backend import bundled
from backend.errors import UserError
from backend.speech import recognition
from backend.speech.written_text import RecognisedWord, fit, read, words_of

SPEECH = "we all met by the old red barn before supper and then we walked home in the rain"


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("café crème, a naïve fiancé", "cafe creme a naive fiance"),
        ("Straße Łódź", "strasse lodz"),
        ("don`t don‘t don’t donʼt don＇t don´t", "don't don't don't don't don't don't"),  # noqa: RUF001
        ("ｆｕｌｌ width", "full width"),  # noqa: RUF001
        ("1990s, '80s and the 20s", "nineteen nineties eighties and the twenties"),
        ("£20m", "twenty million pounds"),
        ("$5.50 $5 $1 £1.01", "five dollars and fifty cents five dollars one dollar"
         " one pound and one penny"),
        ("$1.5 billion, 5€", "one point five billion dollars five euros"),
        ("3.5k and 4K", "three point five thousand and four k"),
        ("100 km/h 100km/h", "one hundred kilometers per hour one hundred kilometers per hour"),
        ("1 kg, 6 ft, -5°C", "one kilogram six feet minus five degrees celsius"),
        ("007", "double oh seven"),
        ("1st 22nd 100th", "first twenty second one hundredth"),
        ("3:30 3:05 a.m. 3 pm 3:00", "three thirty three oh five a m three p m three o'clock"),
        ("10% 50.5%", "ten percent fifty point five percent"),
        ("1,000,000", "one million"),
        ("1/2 3/4 24/7", "one half three quarters twenty four seven"),
        ("May 21, 1984", "may twenty first nineteen eighty four"),
        ("2024-05-21", "may twenty first twenty twenty four"),
        ("1905 2005 1900", "nineteen oh five two thousand five nineteen hundred"),
        ("call 555-1234", "call five five five one two three four"),
        ("pages 10-20", "pages ten to twenty"),
        ("Oak Dr. vs Dr. Oak", "oak drive versus doctor oak"),
        ("St. John on Main St.", "saint john on main street"),
        ("No. 5? No.", "number five no"),
        ("E-mail me an e-mail", "email me an email"),
        ("bob@example.com", "bob at example dot com"),
        ("https://www.example.org/a.", "w w w dot example dot org slash a"),
        ("@handle #BlueSky", "at handle hashtag blue sky"),
        ("Hi \U0001f44d\U0001f3fd there \u2764\ufe0f 1\ufe0f\u20e3 ok", "hi there ok"),
        ("the U.S. and the US", "the u s and the u s"),
        ("Henry VIII in World War II", "henry the eighth in world war two"),
        ("I am NOT going", "i am not going"),
    ],
)  # fmt: skip
def test_text_is_read_as_it_is_spoken(text, spoken):
    assert words_of(text) == spoken.split()


def test_capitals_are_words_of_the_lexicon_or_letters():
    if bundled.pronouncing_dictionary() is None:
        pytest.skip("CMUdict is not there")
    assert words_of("FBI and NASA") == ["fbi", "and", "nasa"]  # the lexicon spells the first
    assert words_of("Here is AJ") == ["here", "is", "a", "j"]


@pytest.mark.parametrize(
    "text", ["9" * 6000, "1/" + "9" * 6000, "٣" * 20, "$" * 50, "9" * 30 + "th"]
)
def test_no_number_is_too_long(text):
    words_of(text)


def _speech(text):
    return " ".join(word.word for word in read(text).words if word.aside < 0)


@pytest.mark.parametrize(
    ("text", "spoken", "left_out"),
    [
        ("NARRATOR: (smiling) Hello! [music] I'm <i>here</i>. {beat} *sighs* Bye. BOB: Yes.",
         "hello i'm here bye yes", "NARRATOR: (smiling) [music] <i> {beat} *sighs* BOB:"),
        ("Alice: Hi Bob.\nBob (sad): Hello.", "hi bob hello", "Alice: Bob (sad):"),
        ("Narrator: Hello", "hello", "Narrator:"),
        ("INT. HALL - DAY\n\nBOB\n(low)\nHello there.\n", "hello there",
         "INT. HALL - DAY BOB (low)"),
        ("Remember: be kind. It is: so.", "remember be kind it is so", ""),
        ("**Really**, call (555) 123-4567.",
         "really call five five five one two three four five six seven", ""),
        ("1\n00:00:01,000 --> 00:00:02,500\n<i>Hello.</i>\n\n"
         "2\n00:00:03,000 --> 00:00:04,000\n- It's 3:30.\n",
         "hello it's three thirty", "numbers and times of subtitles <i>"),
        ("WEBVTT - title\n\nNOTE no\nno\n\nintro\n00:01.000 --> 00:04.000 line:0 position:20%\n"
         "<v Bob>Hi &amp; bye.\n", "hi and bye", "numbers and times of subtitles <v Bob>"),
    ],
)  # fmt: skip
def test_scripts_and_subtitles_keep_what_is_spoken(text, spoken, left_out):
    given = read(text)
    assert _speech(text) == spoken
    assert sorted(" ".join([*given.asides, *given.left_out]).split()) == sorted(left_out.split())


def _fitted(text, sound=SPEECH, **settings):
    """Fit a text to a sound in which each word takes 60 ms per letter, without pauses."""
    at, words = 0.0, []
    for word in sound.split():
        words.append(RecognisedWord(word, at, at + 0.06 * len(word), is_sure=True))
        at = words[-1].end_seconds
    fitted = fit(read(text), words, lambda start, end: max(min(end, at) - start, 0.0), **settings)
    return " ".join(fitted.words), fitted


def test_text_that_fits_is_used_as_it_is():
    words, fitted = _fitted(SPEECH)
    assert words == SPEECH
    assert (fitted.given_share, fitted.warnings) == (1.0, ())


def test_misrecognised_words_do_not_change_the_text():
    words, fitted = _fitted(
        SPEECH, SPEECH.replace("red barn", "bread bar").replace("rain", "train")
    )
    assert words == SPEECH
    assert not fitted.warnings


def test_made_up_words_that_are_too_fast_do_not_change_the_text():
    words = [RecognisedWord(w, i * 0.3, i * 0.3 + 0.3, True) for i, w in enumerate(SPEECH.split())]
    end = words[-1].end_seconds
    made_up = ["is", "a", "ten", "year", "old", "book"]
    words += [
        RecognisedWord(w, end + i / 20, end + i / 20 + 0.05, True) for i, w in enumerate(made_up)
    ]
    fitted = fit(read(SPEECH), words, lambda start, stop: min(stop, end + 0.3) - start)
    assert " ".join(fitted.words) == SPEECH
    assert not fitted.warnings


@pytest.mark.parametrize("at", [0, 9, 18])
def test_line_that_nobody_speaks_is_left_out_and_named(at):
    parts = SPEECH.split()
    text = "\n".join([" ".join(parts[:at]), "This one was cut in March.", " ".join(parts[at:])])
    words, fitted = _fitted(text)
    assert words == SPEECH
    (warning,) = fitted.warnings
    assert "This one was cut in March" in warning


@pytest.mark.parametrize(("first", "last"), [(0, 6), (5, 11), (12, 18)])
def test_what_the_text_lacks_is_recognised(first, last):
    parts = SPEECH.split()
    words, fitted = _fitted(" ".join(parts[:first] + parts[last:]))
    assert words == SPEECH
    assert fitted.given_share == pytest.approx(1 - (last - first) / len(parts))
    assert " ".join(parts[first:last]) in fitted.warnings[0]


def test_lines_in_another_order_are_used():
    parts = SPEECH.split()
    words, fitted = _fitted(" ".join(parts[10:] + parts[:10]))
    assert words == SPEECH
    assert (fitted.given_share, fitted.warnings) == (1.0, ())


def test_repeats_are_used_as_often_as_they_are_spoken():
    words, fitted = _fitted(SPEECH, f"{SPEECH} {SPEECH}")
    assert words == f"{SPEECH} {SPEECH}"
    assert fitted.given_share == 1.0
    words, fitted = _fitted(f"{SPEECH}. {SPEECH}.")
    assert words == SPEECH
    assert "Not found" in fitted.warnings[0]


def test_stage_direction_that_is_spoken_is_kept():
    text = SPEECH.replace("old red barn", "(old red) barn").replace("and", "(laughs loudly) and")
    words, fitted = _fitted(text)
    assert words == SPEECH
    assert fitted.warnings == ("Left out of the text: (laughs loudly).",)


def test_doubted_text_that_is_another_is_given_up():
    _, fitted = _fitted(
        "Nothing like this was ever said to anybody",
        "one two three four five " * 4,
        is_doubted=True,
    )
    assert fitted.given_share < 0.5


def test_script_with_an_unspoken_line_is_aligned(spoken, recogniser):
    text = (
        "NARRATOR: (coughs) The big brown bear moved my paper boat,\n"
        "Tomorrow we will film the second act.\nbut nobody believed him."
    )
    transcript = recogniser.align(spoken.samples, text)
    assert transcript.mode == "text"
    assert " ".join(word.text for word in transcript.words) == (
        "the big brown bear moved my paper boat but nobody believed him"
    )
    assert "NARRATOR:, (coughs)" in transcript.warnings[0]
    assert "second act" in transcript.warnings[1]


@pytest.mark.parametrize("text", [" ", "\n\t\n"])
def test_blank_text_is_said_to_be_empty(text, spoken):
    with pytest.raises(UserError, match="empty"):
        recognition.align(spoken.samples, text)
