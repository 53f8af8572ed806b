# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of IPA are meant)
"""The phone set, other engines' symbols mapped to it, and phones as ids per frame."""

import pytest

from backend.speech.phones import (
    NUM_PHONE_IDS,
    PHONE_IDS,
    PHONES,
    Phone,
    from_arpabet,
    from_ipa,
    merge_silences,
    phone_frames,
)


def test_there_are_39_phones_silence_and_an_id_for_no_phone():
    assert len(PHONES) == len(set(PHONES)) == 40
    assert NUM_PHONE_IDS == 41
    assert PHONE_IDS["SIL"] == 1
    assert 0 not in PHONE_IDS.values()


@pytest.mark.parametrize(
    ("symbol", "phone"), [("AH0", "AH"), ("pau", "SIL"), ("ax", "AH"), ("hh", "HH"), ("dx", "T")]
)
def test_maps_symbols_of_english_engines(symbol, phone):
    assert from_arpabet(symbol) == phone


def test_rejects_an_unknown_symbol():
    with pytest.raises(ValueError, match="no ARPAbet phone"):
        from_arpabet("qq")


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("tʃ", ("CH",)),
        ("\u02c8oʊ", ("OW",)),
        ("u\u02d0", ("UW",)),
        ("ɛɹ", ("EH", "R")),
        ("ɔ̃", ("AO",)),
        ("y", ("UW",)),
        ("pʰ", ("P",)),
        ("ts", ("T", "S")),
        ("\u0294", ()),
        ("", ("SIL",)),
    ],
)
def test_maps_ipa_to_the_nearest_lips(ipa, phones):
    assert tuple(kind.symbol for kind in from_ipa(ipa)) == phones


@pytest.mark.parametrize(
    ("ipa", "kinds"),
    [
        ("u", [("UW", "")]),
        ("yː", [("UW", "y")]),
        ("ø", [("ER", "ø")]),
        ("ɔ\u0303ː", [("AO", "ɔ\u0303")]),
        ("i\u0303", [("IY", "")]),
        ("\u1ebd", [("EY", "e")]),  # composed, and no nasal vowel of French
        ("ɯᵝ", [("UH", "ɯᵝ")]),
        ("ɸ", [("F", "ɸ")]),
        ("ɱ", [("V", "ɱ")]),
        ("tɕʰ", [("CH", "ɕ")]),
        ("t͡ʃ", [("CH", "")]),
        ("ʈʂ", [("CH", "ʂ")]),
        ("k͡p", [("P", "")]),
        ("ɡ͡b", [("B", "")]),
        ("kʷ", [("K", "ʷ")]),
        ("aʷ", [("AA", "")]),
        ("c", [("K", "ʲ")]),
        ("ç", [("HH", "ç")]),
        ("ɓ", [("B", "")]),
        ("ʘ", [("P", "ʘ")]),
        ("ɾ\u0303", [("N", "")]),
        ("pɸ", [("P", ""), ("F", "ɸ")]),
    ],
)
def test_ipa_keeps_the_kind_where_lips_show_it(ipa, kinds):
    assert list(from_ipa(ipa)) == kinds


@pytest.mark.parametrize(
    "ipa",
    [
        *("iː", "ɪ", "eɪ", "ɛ", "æ", "ɑː", "ɔː", "oʊ", "ʊ", "uː", "ʌ", "ɜː", "ə", "aɪ", "aʊ", "ɔɪ"),
        *("p", "b", "t", "d", "k", "ɡ", "tʃ", "dʒ", "f", "v", "θ", "ð", "s", "z", "ʃ", "ʒ", "h"),
        *("m", "n", "ŋ", "l", "ɹ", "j", "w"),
    ],
)
def test_english_has_no_variants(ipa):
    assert [kind.variant for kind in from_ipa(ipa)] == [""]


def test_phones_on_a_clock():
    phones = [Phone("SIL", 0.0, 0.1), Phone("M", 0.1, 0.2), Phone("AA", 0.3, 0.4)]
    ids = phone_frames(phones, 25, 50.0)
    assert ids.tolist()[:5] == [PHONE_IDS["SIL"]] * 5
    assert ids.tolist()[5:10] == [PHONE_IDS["M"]] * 5
    assert not ids[10:15].any()
    assert ids.tolist()[15:20] == [PHONE_IDS["AA"]] * 5
    assert not ids[20:].any()
    assert not phone_frames([], 7, 50.0).any()


def test_neighbouring_silences_become_one():
    phones = [Phone("SIL", 0.0, 0.1), Phone("SIL", 0.1, 0.3), Phone("AA", 0.3, 0.4)]
    assert merge_silences(phones) == [Phone("SIL", 0.0, 0.3), Phone("AA", 0.3, 0.4)]


def test_ids_of_given_phones_follow_those_of_recognised_ones():
    ids = phone_frames([Phone("M", 0.0, 0.1)], 6, 50.0, source="given")
    assert ids.tolist() == [len(PHONES) + PHONE_IDS["M"]] * 5 + [0]
