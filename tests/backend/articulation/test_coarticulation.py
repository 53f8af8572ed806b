# SPDX-License-Identifier: GPL-3.0-or-later
"""The articulation model: the face follows the phones, in every style."""

import numpy as np
import pytest

from backend.articulation.coarticulation import MAX_ARTICULATED_WEIGHT, articulate
from backend.articulation.speaking_style import NAMED_STYLES, STYLE_NAMES, SpeakingStyle
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.lip_measures import measured_demo_head
from backend.heads.topology import face_frame
from backend.speech.phones import PHONES, Phone

_INDEX = {name: index for index, name in enumerate(ARKIT_NAMES)}
_PARTING = (
    "mouthFunnel",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "tongueOut",
)


def _speech(symbols: str, seconds: float = 0.1, lead_in: float = 0.5) -> list[Phone]:
    phones, start = [], lead_in
    for symbol in symbols.split():
        phones.append(Phone(symbol, start, start + seconds))
        start += seconds
    return phones


def _articulate(
    phones: list[Phone], style: SpeakingStyle | None = None, fps: float = 100.0, **options
):
    num_frames = round((phones[-1].end_seconds + 0.6) * fps)
    options.setdefault("blinks", False)
    return articulate(
        phones, style=style or SpeakingStyle(), num_frames=num_frames, fps=fps, **options
    )


def _frames_within(weights, phone: Phone, fps: float):
    times = np.arange(len(weights)) / fps
    slack = max(0.025, 0.5 / fps)
    return weights[(times >= phone.start_seconds - slack) & (times <= phone.end_seconds + slack)]


def _styles() -> list[SpeakingStyle]:
    rng = np.random.default_rng(5)
    exaggerated = [SpeakingStyle().blend(style, 1.5) for style in NAMED_STYLES.values()]
    return [*NAMED_STYLES.values(), *exaggerated, *(SpeakingStyle.sample(rng) for _ in range(40))]


def _closes_lips(frame) -> bool:
    meets = frame[_INDEX["mouthClose"]] == pytest.approx(frame[_INDEX["jawOpen"]], abs=1e-4)
    return meets and max(frame[_INDEX[name]] for name in _PARTING) < 1e-4


@pytest.mark.parametrize("fps", [24.0, 30.0, 50.0, 60.0, 100.0])
@pytest.mark.parametrize("seconds", [0.03, 0.04, 0.08, 0.2])
def test_every_bilabial_closes_the_lips_at_any_rate(fps, seconds):
    phones = _speech("AA M IY P AE B UW M OW P AO B EH", seconds)
    weights = _articulate(phones, fps=fps)
    for phone in phones:
        if phone.symbol in ("P", "B", "M"):
            frames = _frames_within(weights, phone, fps)
            assert any(_closes_lips(frame) for frame in frames), (phone, fps)


def test_every_bilabial_closes_the_lips_in_every_style():
    phones = _speech("AA M IY P AE B UW M W P AO B SH M AA", 0.06)
    for style in _styles():
        weights = _articulate(phones, style, fps=50.0)
        for phone in phones:
            if phone.symbol in ("P", "B", "M"):
                frames = _frames_within(weights, phone, 50.0)
                assert any(_closes_lips(frame) for frame in frames), (phone, style)


def test_jaw_is_not_far_open_behind_closed_lips():
    for style in _styles():
        weights = _articulate(_speech("AE B AE M AA P AW", 0.15), style)
        jaw, close = weights[:, _INDEX["jawOpen"]], weights[:, _INDEX["mouthClose"]]
        shut = (jaw - close < 1e-3) & (close > 1e-3)
        assert jaw[shut].max() < 0.12


@pytest.mark.parametrize("symbol", ["P", "B", "M"])
def test_the_jaw_gives_its_share_of_a_closure(symbol):
    phones = _speech(f"AA {symbol} AA", 0.12)
    weights = _articulate(phones)
    closing = _frames_within(weights, phones[1], 100.0)[:, _INDEX["jawOpen"]]
    vowels = weights[:, _INDEX["jawOpen"]].max()
    assert closing.min() < 0.05 < 0.3 < vowels


def test_lips_part_for_a_vowel_between_two_closures():
    weights = _articulate(_speech("M AA M AA M", 0.06))
    middle = weights[round((0.5 + 0.09) * 100)]
    gap = middle[_INDEX["jawOpen"]] - middle[_INDEX["mouthClose"]]
    assert gap > 0.05


def test_closure_falls_into_the_sounds_closure_whatever_the_lead():
    phones = _speech("AA B AA", 0.12)
    for lead in (-1.0, 0.0, 1.0):
        weights = _articulate(phones, SpeakingStyle(lead=lead), fps=200.0)
        gap = weights[:, _INDEX["jawOpen"]] - weights[:, _INDEX["mouthClose"]]
        spoken = slice(round(0.55 * 200), round(0.81 * 200))
        closed = np.flatnonzero(gap[spoken] < 1e-4) / 200 + 0.55
        middle = closed.mean()
        assert 0.62 < middle < 0.74, (lead, middle)


def test_f_and_v_bring_the_lower_lip_to_the_upper_teeth():
    phones = _speech("AA F IY V UW", 0.06)
    for style in (SpeakingStyle(), NAMED_STYLES["broad"], NAMED_STYLES["mumble"]):
        weights = _articulate(phones, style)
        for phone in (phones[1], phones[3]):
            frames = _frames_within(weights, phone, 100.0)
            held = frames[frames[:, _INDEX["mouthRollLower"]].argmax()]
            assert held[_INDEX["mouthRollLower"]] > 0.5
            assert held[_INDEX["mouthUpperUpLeft"]] > 0.08
            assert held[_INDEX["mouthLowerDownLeft"]] < 0.02
            gap = held[_INDEX["jawOpen"]] - held[_INDEX["mouthClose"]]
            assert 0.005 < gap < 0.13  # teeth seen, mouth not open


def test_the_lower_lip_reaches_the_edge_of_the_upper_teeth_of_the_demo_head():
    mouth = measured_demo_head()
    frame = face_frame(mouth.head)
    rest = frame.to_face_mm(mouth.head.vertices)
    lip = mouth.head.topology.face_points["lip_lower_inner_center"]
    jaw_drop = -frame.to_face_mm(mouth.head.vertices + mouth.shapes[_INDEX["jawOpen"]]) + rest
    loose = np.concatenate([part.vertices for part in mouth.head.topology.parts])
    is_lip = (np.linalg.norm(rest - rest[lip], axis=1) < 9.0) & (np.abs(rest[:, 0]) < 4.0)
    is_lip &= jaw_drop[:, 1] > 0.6 * jaw_drop[lip, 1]
    is_lip[loose] = False
    teeth = mouth.head.part("teeth_upper")
    front = teeth[(np.abs(rest[teeth, 0]) < 5.0) & (rest[teeth, 2] > rest[teeth, 2].max() - 5.0)]
    for style in NAMED_STYLES.values():
        for symbols in ("AA F AA", "IY V IY", "EH F OW"):
            phones = _speech(symbols, 0.09)
            weights = _frames_within(_articulate(phones, style), phones[1], 100.0)
            offsets = np.einsum("tk,kvi->tvi", weights, mouth.shapes)
            placed = [frame.to_face_mm(mouth.head.vertices + offset) for offset in offsets]
            below = [face[front, 1].min() - face[is_lip, 1].max() for face in placed]
            assert -1.2 < min(below) < 0.4, (style, symbols)


@pytest.mark.parametrize("symbol", ["UW", "OW", "W", "SH", "CH", "R"])
def test_rounding_begins_before_its_sound(symbol):
    phones = _speech(f"S T K {symbol} T", 0.09)
    weights = _articulate(phones, fps=200.0)
    rounding = weights[:, _INDEX["mouthPucker"]] + weights[:, _INDEX["mouthFunnel"]]
    onset = phones[3].start_seconds
    begun = np.flatnonzero(rounding > 0.2 * rounding.max())[0] / 200.0
    assert 0.04 < onset - begun < 0.26


def test_vowels_differ_as_they_do_in_faces():
    def held(symbol):
        return _articulate(_speech(f"T {symbol} T", 0.15))[round((0.5 + 0.22) * 100)]

    ah, ee, oo, ae = held("AA"), held("IY"), held("UW"), held("AE")
    assert ah[_INDEX["jawOpen"]] > 2.0 * ee[_INDEX["jawOpen"]]
    assert oo[_INDEX["mouthPucker"]] > 0.3 > ee[_INDEX["mouthPucker"]]
    assert ee[_INDEX["mouthStretchLeft"]] > 0.2 > oo[_INDEX["mouthStretchLeft"]]
    assert ae[_INDEX["jawOpen"]] > ee[_INDEX["jawOpen"]]


def test_diphthong_goes_from_one_target_to_the_other():
    weights = _articulate(_speech("T AW T", 0.2))
    early, late = weights[round(0.76 * 100)], weights[round(0.88 * 100)]
    assert early[_INDEX["jawOpen"]] > late[_INDEX["jawOpen"]] + 0.05
    assert late[_INDEX["mouthPucker"]] > early[_INDEX["mouthPucker"]] + 0.1


def test_consonants_of_the_tongue_take_the_lips_of_their_neighbours():
    rounded = _articulate(_speech("UW K UW"))[round(0.65 * 100)]
    spread = _articulate(_speech("IY K IY"))[round(0.65 * 100)]
    assert rounded[_INDEX["mouthPucker"]] > 0.3
    assert spread[_INDEX["mouthPucker"]] < 0.05


def test_tongue_shows_in_th():
    weights = _articulate(_speech("AH TH AH"))
    assert weights[:, _INDEX["tongueOut"]].max() > 0.12
    assert weights[0, _INDEX["tongueOut"]] == 0.0


def test_fast_speech_undershoots():
    slow = _articulate(_speech("T AA T", 0.2))[:, _INDEX["jawOpen"]].max()
    fast = _articulate(_speech("T AA T", 0.05))[:, _INDEX["jawOpen"]].max()
    assert fast < 0.8 * slow


def test_face_is_at_rest_in_silence():
    phones = [Phone("SIL", 0.0, 1.0), *_speech("HH AH L OW", lead_in=1.0), Phone("SIL", 1.4, 3.0)]
    weights = _articulate(phones)
    times = np.arange(len(weights)) / 100.0
    mouth = [i for i, name in enumerate(ARKIT_NAMES) if name.startswith(("jaw", "mouth", "tongue"))]
    rest = weights[(times < 0.4) | (times > 1.75)]
    assert np.abs(rest[:, mouth]).max() < 1e-3
    assert weights[:, _INDEX["jawOpen"]].max() > 0.1


def test_lips_stay_shut_in_silence_in_every_style():
    phones = _speech("AA T AA", lead_in=1.0)
    for style in _styles():
        first = _articulate(phones, style)[:30]
        np.testing.assert_allclose(first[:, _INDEX["mouthClose"]], first[:, _INDEX["jawOpen"]])
        assert max(first[:, _INDEX[name]].max() for name in _PARTING) < 1e-3


def test_breath_parts_the_lips_before_a_phrase():
    phones = _speech("T AA T", lead_in=1.5)
    weights = _articulate(phones)
    before = weights[round(1.1 * 100) : round(1.3 * 100), _INDEX["jawOpen"]]
    assert 0.03 < before.max() < 0.15


def test_loud_vowels_open_further():
    phones = _speech("T AA T T AA T", 0.12)
    num_frames = round((phones[-1].end_seconds + 0.6) * 100)
    energy = np.full(num_frames, 0.02, np.float32)
    energy[round(0.86 * 100) : round(1.22 * 100)] = 0.2
    jaw = _articulate(phones, energy=energy)[:, _INDEX["jawOpen"]]
    assert jaw[round(1.04 * 100)] > 1.2 * jaw[round(0.68 * 100)]


def _two_phrases(first: float, second: float):
    """Two phrases with a pause between, at two levels, and the opening in each."""
    phones = _speech("T AE " * 12, 0.12)
    phones += _speech("T AE " * 12, 0.12, lead_in=phones[-1].end_seconds + 0.8)
    num_frames = round((phones[-1].end_seconds + 0.6) * 100)
    energy = np.full(num_frames, first, np.float32)
    middle = round((phones[24].start_seconds - 0.3) * 100)
    energy[middle:] = second
    jaw = _articulate(phones, energy=energy)[:, _INDEX["jawOpen"]]
    return jaw[:middle].max(), jaw[middle:].max()


def test_a_murmur_opens_less_than_a_shout_whatever_the_level_of_the_recording():
    shout, murmur = _two_phrases(0.3, 0.006)
    assert murmur < 0.6 * shout
    np.testing.assert_allclose(_two_phrases(0.03, 0.0006), (shout, murmur), atol=0.01)
    even, also_even = _two_phrases(0.05, 0.05)
    assert even == pytest.approx(also_even, abs=0.02)


@pytest.mark.parametrize("symbol", ["AA", "OW", "UW", "AO", "IY", "AY"])
def test_a_held_vowel_stays_open_to_its_end(symbol):
    phones = [*_speech("T", 0.1), Phone(symbol, 0.6, 3.6)]
    weights = _articulate(phones)
    gap = weights[:, _INDEX["jawOpen"]] - weights[:, _INDEX["mouthClose"]]
    round_lips = weights[:, _INDEX["mouthFunnel"]] + weights[:, _INDEX["mouthPucker"]]
    held, late = slice(100, 320), slice(350, 356)
    for curve in (gap, round_lips):
        assert np.ptp(curve[held]) < 0.02
    assert gap[late].min() > 0.02
    assert gap[held].min() > 0.02
    assert round_lips[350] >= 0.85 * round_lips[200]
    assert weights[410:, _INDEX["jawOpen"]].max() < 1e-3


def test_stress_by_length_and_pitch_opens_further():
    phones = [Phone("T", 0.5, 0.6), Phone("AE", 0.6, 0.8), Phone("T", 0.8, 0.9)]
    phones += [Phone("AE", 0.9, 0.97), Phone("T", 0.97, 1.07)]
    jaw = _articulate(phones)[:, _INDEX["jawOpen"]]
    assert jaw[70] > 1.4 * jaw[94]
    phones = _speech("T AE " * 9, 0.12)
    num_frames = round((phones[-1].end_seconds + 0.6) * 100)
    accent = phones[9]
    f0 = np.full(num_frames, 110.0, np.float32)
    f0[round(accent.start_seconds * 100) : round(accent.end_seconds * 100)] = 165.0
    middle = round(0.5 * (accent.start_seconds + accent.end_seconds) * 100)
    flat = _articulate(phones, f0=np.full(num_frames, 110.0, np.float32))
    raised = _articulate(phones, f0=f0)
    assert raised[middle, _INDEX["jawOpen"]] > 1.08 * flat[middle, _INDEX["jawOpen"]]


def test_presses_are_postures_and_not_events():
    phones = _speech("AA P AA M AA B AA P AA M AA B AA", 0.1)
    weights = _articulate(phones)[60:180]
    press, closing = weights[:, _INDEX["mouthPressLeft"]], weights[:, _INDEX["jawOpen"]]
    assert press.mean() > 0.02
    assert np.ptp(press) < press.mean()
    assert np.ptp(closing) > closing.mean()


def test_smile_follows_the_pitch_and_stretch_the_phones():
    phones = _speech("T AA T IY " * 8, 0.1)
    num_frames = round((phones[-1].end_seconds + 0.6) * 100)
    rising = np.linspace(90.0, 180.0, num_frames).astype(np.float32)
    weights = _articulate(phones, f0=rising)[80:-80]
    smile, stretch = weights[:, _INDEX["mouthSmileLeft"]], weights[:, _INDEX["mouthStretchLeft"]]
    assert smile[-100:].mean() > 2.0 * smile[:100].mean()
    assert abs(np.corrcoef(smile, stretch)[0, 1]) < 0.5


def test_a_person_is_not_symmetric_and_stays_who_they_are():
    phones = _speech("S IY T AE S IY T AE", 0.12)
    weights = _articulate(phones)
    for name in ("mouthSmile", "mouthStretch", "mouthLowerDown"):
        left, right = weights[:, _INDEX[f"{name}Left"]], weights[:, _INDEX[f"{name}Right"]]
        moving = np.maximum(left, right) > 0.02
        ratio = (left[moving] - right[moving]) / (left[moving] + right[moving])
        assert 0.02 < abs(ratio.mean()) < 0.2
        assert ratio.std() < 0.03
    np.testing.assert_array_equal(weights, _articulate(phones))


def test_brows_rise_on_a_pitch_accent():
    phones = _speech("T AA T AA T AA T AA T", 0.15)
    num_frames = round((phones[-1].end_seconds + 0.6) * 100)
    f0 = np.full(num_frames, 110.0, np.float32)
    f0[100:125] = 170.0
    brows = _articulate(phones, f0=f0)[:, _INDEX["browInnerUp"]]
    assert brows[100:115].max() > 0.1 > brows[165:].max()


def test_blinks_come_at_phrase_ends_and_shut_the_eyes():
    phones = [*_speech("T AA " * 12, 0.1), Phone("SIL", 2.9, 3.6), *_speech("T AA T", lead_in=3.6)]
    for fps in (24.0, 50.0):
        eyes = _articulate(phones, fps=fps, blinks=True)[:, _INDEX["eyeBlinkLeft"]]
        pause = eyes[round(2.8 * fps) : round(3.4 * fps)]
        assert pause.max() == pytest.approx(1.0)
        assert (eyes > 0.5).mean() < 0.2


def test_same_seed_gives_the_same_face():
    phones = _speech("M AA SH IY N", 0.1)
    first = _articulate(phones, NAMED_STYLES["excited"], seed=3, blinks=True)
    again = _articulate(phones, NAMED_STYLES["excited"], seed=3, blinks=True)
    np.testing.assert_array_equal(first, again)


def test_weights_stay_in_range_and_finite():
    rng = np.random.default_rng(0)
    symbols = " ".join(rng.choice(PHONES, 60))
    for style in _styles():
        weights = _articulate(_speech(symbols, 0.07), style.blend(style, 4.0), blinks=True)
        assert np.isfinite(weights).all()
        assert weights.min() >= 0.0
        assert weights.max() <= MAX_ARTICULATED_WEIGHT + 1e-6


def test_motion_is_smooth():
    weights = _articulate(_speech("HH AH L OW DH EH R W ER L D", 0.09))
    speed = np.abs(np.diff(weights[:, _INDEX["jawOpen"]])) * 100.0
    assert speed.max() < 8.0  # of the jaw's whole range a second: a real jaw does about that


def test_no_phones_gives_rest():
    weights = articulate([], style=SpeakingStyle(), num_frames=50, fps=50.0, blinks=False)
    assert weights.shape == (50, 52)
    assert not weights.any()


def test_long_speech_equals_its_parts():
    phones = _speech("M AA P IY SH UW T AE K " * 20, 0.08)
    whole = _articulate(phones, fps=50.0)
    later = [Phone(p.symbol, p.start_seconds - 4.0, p.end_seconds - 4.0) for p in phones]
    part = articulate(
        [phone for phone in later if phone.start_seconds > -2.0],
        style=SpeakingStyle(),
        num_frames=200,
        fps=50.0,
        blinks=False,
    )
    lips = [_INDEX[name] for name in ("mouthClose", "mouthPucker", "mouthStretchLeft")]
    np.testing.assert_allclose(whole[210:390, lips], part[10:-10, lips], atol=2e-3)


@pytest.mark.parametrize(
    "phones",
    [
        [Phone("XX", 0.0, 0.1)],
        [Phone("AA", 0.0, 0.2), Phone("T", 0.1, 0.3)],
        [Phone("AA", 0.3, 0.2)],
    ],
)
def test_rejects_phones_that_make_no_sense(phones):
    with pytest.raises(ValueError, match=r"phone table|overlaps"):
        articulate(phones, style=SpeakingStyle(), num_frames=50, fps=50.0)


def test_rejects_a_curve_of_another_length():
    with pytest.raises(ValueError, match=r"expected \(50,\)"):
        articulate(
            [], style=SpeakingStyle(), num_frames=50, fps=50.0, energy=np.zeros(49, np.float32)
        )


def test_every_style_dimension_changes_the_face():
    phones = _speech("M AA SH IY N F AO R DH AH P UW L", 0.1)
    num_frames = round((phones[-1].end_seconds + 0.6) * 100)
    energy = np.linspace(0.02, 0.2, num_frames).astype(np.float32)
    f0 = (120.0 + 60.0 * (np.arange(num_frames) % 70 < 20)).astype(np.float32)
    sound = {"energy": energy, "f0": f0, "blinks": True}
    neutral = _articulate(phones, **sound)
    for name in STYLE_NAMES:
        if name == "blink_rate":
            continue
        for sign in (-1.0, 1.0):
            styled = _articulate(phones, SpeakingStyle(**{name: sign}), **sound)
            assert np.abs(styled - neutral).max() > 0.01, (name, sign)


def test_asymmetry_favours_its_side():
    weights = _articulate(_speech("T IY T", 0.15), SpeakingStyle(asymmetry=1.0))
    left = weights[:, _INDEX["mouthStretchLeft"]].max()
    right = weights[:, _INDEX["mouthStretchRight"]].max()
    assert left > 1.5 * right
