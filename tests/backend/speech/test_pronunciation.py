# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of a text, and their phones by letter-to-sound rules."""

import pytest

from backend.speech.pronunciation import pronounce
from backend.speech.written_text import words_of


def test_text_becomes_words():
    expected = (
        "doctor bob's three cats on the twenty first of may nineteen eighty four five dollars and"
        " it's ten percent"
    )
    assert (
        " ".join(words_of("Dr. Bob's 3 cats, on the 21st of May 1984 - $5 & it\u2019s 10%!"))
        == expected
    )
    assert words_of("... !?") == []


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("blip", "B L IH P"),
        ("vobe", "V OW B"),
        ("pham", "F AE M"),
        ("knimbly", "N IH M B L IY"),
        ("quight", "K W AY T"),
        ("bbm", "B IY B IY EH M"),
        ("--", ""),
    ],
)
def test_unknown_words_are_pronounced_by_rule(word, phones):
    assert " ".join(pronounce(word)) == phones
