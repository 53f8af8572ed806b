# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of IPA are meant)
"""Phones of other languages in the rules and on a network's motion, measured on the demo head."""

import numpy as np
import pytest

from backend.articulation.coarticulation import articulate
from backend.articulation.phone_targets import PHONE_TARGETS
from backend.articulation.speaking_style import NAMED_STYLES, SpeakingStyle
from backend.articulation.variant_offsets import add_variants
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.lip_measures import lip_curves, measured_demo_head
from backend.heads.topology import face_frame
from backend.speech.phones import _IPA, PHONES, Phone, PhoneKind, from_ipa

FPS = 100.0
INDEX = {name: index for index, name in enumerate(ARKIT_NAMES)}
BROAD = NAMED_STYLES["broad"]


@pytest.fixture(scope="module")
def mouth():
    return measured_demo_head()


def spoken(ipa, seconds=0.12):
    """Phones of IPA that is parted by spaces, from 0.5 s on."""
    kinds = [kind for part in ipa.split() for kind in from_ipa(part)]
    starts = 0.5 + seconds * np.arange(len(kinds))
    return [Phone(k.symbol, s, s + seconds, k.variant) for k, s in zip(kinds, starts, strict=True)]


def weights_of(phones, style=None):
    num_frames = round((phones[-1].end_seconds + 0.6) * FPS)
    style = style or SpeakingStyle()
    return articulate(phones, style=style, num_frames=num_frames, fps=FPS, blinks=False)


def frames_of(phone):
    return slice(round(phone.start_seconds * FPS), round(phone.end_seconds * FPS) + 1)


def held(mouth, ipa, seconds=0.3):
    """Weights by name, and lip measures, in the middle of a phone between two /t/."""
    phones = spoken(f"t {ipa} t", seconds)
    frame = round(0.5 * (phones[1].start_seconds + phones[1].end_seconds) * FPS)
    weights = weights_of(phones)[frame : frame + 1]
    curves = lip_curves(weights, mouth.shapes, mouth.head)
    found = {name: float(curve[0]) for name, curve in curves.items()}
    return found | {name: float(weights[0, index]) for name, index in INDEX.items()}


def rounding(found):
    return found["mouthFunnel"] + found["mouthPucker"]


def test_every_kind_of_phone_in_ipa_has_targets():
    for symbol in _IPA:
        for kind in from_ipa(symbol):
            assert PHONE_TARGETS.kind_of(Phone(kind.symbol, 0.0, 0.1, kind.variant)) > 0
    for symbol in PHONES:
        assert PHONE_TARGETS.kind_of(Phone(symbol, 0.0, 0.1)) == PHONES.index(symbol)
    with pytest.raises(ValueError, match="phone table"):
        weights_of([Phone("AA", 0.0, 0.1, "ʘʘ")])


@pytest.mark.parametrize(
    ("front", "back", "spread"), [("y", "u", "i"), ("ʏ", "ʊ", "ɪ"), ("ø", "o", "e")]
)
def test_front_rounded_vowels_have_the_lips_of_back_and_the_jaw_of_front_ones(
    mouth, front, back, spread
):
    made, round_one, spread_one = (held(mouth, ipa) for ipa in (front, back, spread))
    assert rounding(made) == pytest.approx(rounding(round_one), rel=0.2)
    assert made["jawOpen"] == pytest.approx(spread_one["jawOpen"], abs=0.03)
    assert made["width_mm"] < spread_one["width_mm"] - 2.0
    assert made["protrusion_mm"] > spread_one["protrusion_mm"] + 1.0


def test_unrounded_back_vowels_are_not_rounded_and_compressed_ones_not_pushed_forward(mouth):
    u = held(mouth, "u")
    for ipa in ("ɯ", "ɤ"):
        assert rounding(held(mouth, ipa)) < 0.1 * rounding(u)
    compressed = held(mouth, "ɯᵝ")
    assert rounding(compressed) < 0.3 * rounding(u)
    assert compressed["gap_mm"] < held(mouth, "ɯ")["gap_mm"]
    assert held(mouth, "ʉ")["protrusion_mm"] < u["protrusion_mm"]


def test_vowels_without_glide_stay_where_they_are(mouth):
    for pure, glide in (("e", "eɪ"), ("o", "oʊ")):
        moved = {}
        for ipa in (pure, glide):
            phones = spoken(f"t {ipa} t", 0.3)
            weights = weights_of(phones)[frames_of(phones[1])][10:-6]
            moved[ipa] = np.ptp(lip_curves(weights, mouth.shapes, mouth.head)["gap_mm"])
        assert moved[pure] < 0.4 * moved[glide]


def test_nasal_vowels_open_and_have_lips_of_their_own(mouth):
    nasal = {ipa: held(mouth, ipa) for ipa in ("ɑ\u0303", "ɔ\u0303", "ɛ\u0303", "œ\u0303")}
    assert all(found["gap_mm"] > 3.0 for found in nasal.values())
    by_rounding = sorted(nasal, key=lambda ipa: rounding(nasal[ipa]))
    assert by_rounding[0] == "ɛ\u0303"
    assert by_rounding[-1] == "ɔ\u0303"
    assert nasal["ɔ\u0303"]["jawOpen"] < nasal["ɑ\u0303"]["jawOpen"]
    assert nasal["ɛ\u0303"]["jawOpen"] > held(mouth, "ɛ")["jawOpen"]


def test_sibilants_from_rounded_to_spread(mouth):
    post, retroflex, palatal = (held(mouth, ipa) for ipa in ("ʃ", "ʂ", "ɕ"))
    assert rounding(post) > rounding(retroflex) > rounding(palatal) + 0.2
    assert palatal["mouthStretchLeft"] > 0.15 > post["mouthStretchLeft"]
    assert rounding(held(mouth, "tɕ")) < 0.3 * rounding(held(mouth, "tʃ"))
    assert held(mouth, "ç")["width_mm"] > held(mouth, "h")["width_mm"]


@pytest.mark.parametrize("ipa", ["ɸ", "β"])
@pytest.mark.parametrize(
    ("around", "seconds"), [("a", 0.05), ("i", 0.1), ("ɯᵝ", 0.05), ("u", 0.1), ("ɛ", 0.2)]
)
def test_bilabial_fricatives_leave_a_slit_away_from_the_teeth(mouth, ipa, around, seconds):
    phones = spoken(f"{around} {ipa} {around}", seconds)
    for style in (None, BROAD):
        weights = weights_of(phones, style)[frames_of(phones[1])]
        gap = lip_curves(weights, mouth.shapes, mouth.head)["gap_mm"]
        assert 0.3 < gap.min() < 2.0, (style, gap)
        assert weights[gap.argmin(), INDEX["mouthRollLower"]] < 0.08


def _below_teeth(mouth, weights):
    """Distance of the lower lip's highest point below the upper teeth's edge, mm, per frame."""
    frame = face_frame(mouth.head)
    rest = frame.to_face_mm(mouth.head.vertices)
    lip = mouth.head.topology.face_points["lip_lower_inner_center"]
    near = (np.linalg.norm(rest - rest[lip], axis=1) < 9.0) & (np.abs(rest[:, 0]) < 4.0)
    jaw = frame.to_face_mm(mouth.head.vertices + mouth.shapes[INDEX["jawOpen"]]) - rest
    near &= -jaw[:, 1] > 0.6 * -jaw[lip, 1]
    near[np.concatenate([part.vertices for part in mouth.head.topology.parts])] = False
    teeth = mouth.head.part("teeth_upper")
    front = teeth[(np.abs(rest[teeth, 0]) < 5.0) & (rest[teeth, 2] > rest[teeth, 2].max() - 5.0)]
    offsets = np.einsum("tk,kvi->tvi", weights, mouth.shapes)
    placed = [frame.to_face_mm(mouth.head.vertices + offset) for offset in offsets]
    return np.array([face[front, 1].min() - face[near, 1].max() for face in placed])


def test_labiodentals_of_all_kinds_bite_and_bilabials_do_not(mouth):
    nearest = {}
    for ipa in ("f", "ɱ", "ʋ", "ɸ"):
        phones = spoken(f"a {ipa} a", 0.1)
        frames = frames_of(phones[1])
        weights = weights_of(phones)[frames]
        gap = lip_curves(weights, mouth.shapes, mouth.head)["gap_mm"]
        nearest[ipa] = (weights[:, INDEX["mouthRollLower"]].max(), gap.min())
        if ipa in "fɱ":
            assert -1.2 < _below_teeth(mouth, weights).min() < 0.4
        else:  # lips of a slit hide the teeth; what shows is that the lower one is not tucked in
            assert nearest[ipa][0] < 0.45
    assert nearest["ɸ"][0] < 0.2 < nearest["ʋ"][0] < nearest["f"][0]


@pytest.mark.parametrize("ipa", ["k͡p", "ɡ͡b", "ŋ͡m", "ʙ", "ʘ", "ɓ", "pʷ", "m"])
@pytest.mark.parametrize("seconds", [0.05, 0.12])
def test_what_closes_the_lips_closes_them(mouth, ipa, seconds):
    phones = spoken(f"a {ipa} a", seconds)
    assert len(phones) == 3
    for style in (None, BROAD):
        gap = lip_curves(weights_of(phones, style), mouth.shapes, mouth.head)["gap_mm"]
        assert gap[frames_of(phones[1])].min() < 0.3


@pytest.mark.parametrize("ipa", ["ǀ", "ǃ", "ǁ", "ǂ", "ɗ", "ʄ", "ɠ"])
def test_clicks_and_implosives_of_the_tongue_leave_the_lips_open(mouth, ipa):
    assert held(mouth, ipa, 0.12)["gap_mm"] > 0.5


def test_a_bilabial_click_pouts(mouth):
    assert held(mouth, "ʘ")["mouthPucker"] > held(mouth, "p")["mouthPucker"] + 0.2


def test_rounded_consonants_are_round_and_palatal_ones_spread(mouth):
    for plain in ("k", "s", "n", "x"):
        assert rounding(held(mouth, plain + "ʷ")) > rounding(held(mouth, plain)) + 0.4
    assert held(mouth, "ɲ")["mouthStretchLeft"] > held(mouth, "n")["mouthStretchLeft"] + 0.05
    assert rounding(held(mouth, "ɥ")) == pytest.approx(rounding(held(mouth, "y")), rel=0.2)


# What the rules know, on weights that a network made for the nearest phones.


def test_without_variants_the_weights_are_the_same_to_the_bit():
    phones = [Phone(symbol, 0.1 * k, 0.1 * k + 0.1) for k, symbol in enumerate(PHONES[1:])]
    weights = np.random.default_rng(0).random((420, 52), np.float32)
    before = weights.copy()
    assert add_variants(weights, ARKIT_NAMES, phones, fps=FPS) is weights
    np.testing.assert_array_equal(weights, before)


def animated(phones, style):
    """Weights as a network would make them that learned the rules, of the nearest phones alone."""
    plain = [Phone(phone.symbol, phone.start_seconds, phone.end_seconds) for phone in phones]
    weights = weights_of(plain, style)
    return weights, add_variants(weights, ARKIT_NAMES, phones, fps=FPS)


def test_the_added_difference_is_that_of_the_rules(mouth):
    phones = spoken("b ɔ̃ ʒ u ʁ m ə s j ø l a v i y n ʁ y b l ɑ̃ ʃ")
    for style, share in ((None, 0.3), (NAMED_STYLES["mumble"], 1.0), (BROAD, 0.8)):
        before, after = animated(phones, style)
        meant = lip_curves(weights_of(phones, style), mouth.shapes, mouth.head)
        was, now = (lip_curves(w, mouth.shapes, mouth.head) for w in (before, after))
        for name in ("gap_mm", "width_mm", "protrusion_mm"):
            left = np.abs(now[name] - meant[name]).mean()
            assert left < share * np.abs(was[name] - meant[name]).mean(), (style, name)
        assert after.min() >= 0.0
        assert after.max() <= max(1.0, before.max())


def test_closures_beside_variants_stay_closed(mouth):
    phones = spoken("ɸ p ø b y m ɯ p ɕ m ʂ b ɔ̃ p β a m ɸ", 0.06)
    for style in (None, *NAMED_STYLES.values()):
        before, after = animated(phones, style)
        was, now = (lip_curves(w, mouth.shapes, mouth.head)["gap_mm"] for w in (before, after))
        for phone in phones:
            if phone.symbol in ("P", "B", "M"):
                frames = frames_of(phone)
                assert now[frames].min() < was[frames].min() + 0.1, (style, phone)
        jaw, close = after[:, INDEX["jawOpen"]], after[:, INDEX["mouthClose"]]
        pressed = (before[:, INDEX["mouthClose"]] - before[:, INDEX["jawOpen"]]).max()
        assert (close - jaw).max() <= max(pressed, 0.0) + 1e-6


def test_a_slit_is_made_of_whatever_the_network_did(mouth):
    phones = spoken("a ɸ ɯᵝ β a", 0.09)
    rng = np.random.default_rng(1)
    for _ in range(5):
        weights = rng.random((150, 52), np.float32) * 0.4
        after = add_variants(weights, ARKIT_NAMES, phones, fps=FPS)
        gap = lip_curves(after, mouth.shapes, mouth.head)["gap_mm"]
        for phone in (phones[1], phones[3]):
            assert gap[frames_of(phone)].min() < 4.0  # with a random smile, sneer and shrug
    before, after = animated(phones, BROAD)
    for phone in (phones[1], phones[3]):
        gap = lip_curves(after, mouth.shapes, mouth.head)["gap_mm"][frames_of(phone)]
        assert 0.3 < gap.min() < 2.0
    far = np.arange(len(after)) / FPS
    still = (far < 0.2) | (far > phones[-1].end_seconds + 0.4)
    np.testing.assert_array_equal(after[still], before[still])


def test_shapes_of_other_names_and_orders_are_left_alone():
    phones = spoken("t y t")
    names = ("mine", "mouthPucker")
    weights = np.zeros((120, 2), np.float32)
    after = add_variants(weights, names, [*phones], fps=FPS)
    assert not after[:, 0].any()
    nearest = from_ipa("u")[0]
    assert nearest == PhoneKind("UW")
    wide = add_variants(weights, names, spoken("t ɥ t"), fps=FPS)
    assert not wide[:, 0].any()
