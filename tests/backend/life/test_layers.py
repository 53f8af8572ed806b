# SPDX-License-Identifier: GPL-3.0-or-later
"""A face's life: reproducible, the same at every frame rate, quiet in silence, off when wanted."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("scipy")

from backend.evaluation.life_metrics import RANGES, Recording, gaze_of, measure_life
from backend.heads.arkit import ARKIT_NAMES
from backend.life.layers import LifeAmounts, add_life, make_life
from backend.life.speech_cues import Accent, Phrase, SpeechCues, read_cues
from backend.speech.phones import SILENCE, Phone

GAZE = tuple(name for name in ARKIT_NAMES if name.startswith("eyeLook"))
LIDS = ("eyeBlinkLeft", "eyeBlinkRight")
BROWS = tuple(name for name in ARKIT_NAMES if name.startswith("brow"))


def talk(seconds=60.0, *, seed=0, salt=1, liveliness=1.0):
    """Cues of someone who talks freely: phrases of 1 to 5 s, three accents in four seconds."""
    rng = np.random.default_rng(seed)
    phrases, accents, now = [], [], 0.3
    while now < seconds - 1.5:
        end = min(now + float(rng.uniform(1.0, 5.0)), seconds - 0.5)
        phrases.append(Phrase(now, end, is_question=rng.random() < 0.15))
        moment = now + 0.2
        while moment < end - 0.1:
            accents.append(Accent(moment, float(rng.uniform(0.35, 1.0))))
            moment += float(rng.uniform(0.6, 2.0))
        now = end + float(rng.uniform(0.25, 1.3))
    return SpeechCues(seconds, tuple(phrases), tuple(accents), liveliness, salt)


def silence(seconds=30.0):
    return SpeechCues(seconds, (), (), 1.0, 1)


def made(cues, fps=50, **amounts):
    times = np.arange(round(cues.seconds * fps)) / fps
    return make_life(times, cues, LifeAmounts(**amounts))


def measured(life, fps=50.0):
    none = np.zeros(len(life.head_rotation))
    weights = {name: life.weights.get(name, none) for name in ARKIT_NAMES}
    return Recording(weights, life.head_rotation, fps)


@pytest.mark.parametrize("seed", [0, 7])
def test_figures_of_ten_free_talks_lie_where_people_do(seed):
    talks = [measured(made(talk(seed=n, salt=n), seed=seed)) for n in range(10)]
    figures = measure_life(talks)
    outside = {k: v for k, v in figures.items() if not RANGES[k][0] <= v <= RANGES[k][1]}
    assert not outside
    for one in talks:  # also each of them, where a minute suffices to tell
        alone = measure_life([one])
        assert 12 <= alone["blinks per minute"] <= 28
        assert 40 <= alone["saccades above 1 degree per minute"] <= 110


def test_a_seed_gives_the_same_and_another_seed_or_sound_another():
    first, again = made(talk(20.0), seed=3), made(talk(20.0), seed=3)
    for name, values in first.weights.items():
        np.testing.assert_array_equal(values, again.weights[name])
    np.testing.assert_array_equal(first.head_rotation, again.head_rotation)
    for other in (made(talk(20.0), seed=4), made(talk(20.0, salt=2), seed=3)):
        for name in ("eyeBlinkLeft", "eyeLookInLeft", "browInnerUp"):
            assert np.abs(first.weights[name] - other.weights[name]).max() > 0.05


@pytest.mark.parametrize("fps", [24, 25])
def test_every_frame_rate_samples_the_same_movement(fps):
    slow, fast = made(talk(20.0), fps=fps), made(talk(20.0), fps=4 * fps)
    for name, values in slow.weights.items():
        np.testing.assert_allclose(fast.weights[name][::4], values, atol=1e-9)
    np.testing.assert_allclose(fast.head_rotation[::4], slow.head_rotation, atol=1e-9)


def test_a_line_that_is_cut_lives_up_to_there_as_before():
    whole = talk(40.0)
    half = dataclasses.replace(
        whole,
        seconds=25.0,
        phrases=tuple(p for p in whole.phrases if p.end_seconds < 25.0),
        accents=tuple(a for a in whole.accents if a.seconds < 23.0),
    )
    long, short = made(whole), made(half)
    until = 50 * 15
    for name in (*LIDS, *GAZE, "browInnerUp"):
        np.testing.assert_allclose(
            short.weights[name][:until], long.weights[name][:until], atol=1e-6
        )
    np.testing.assert_allclose(short.head_rotation[:until], long.head_rotation[:until], atol=1e-6)


def test_in_silence_only_eyes_and_lids_live():
    quiet = made(silence())
    for name in BROWS:
        assert not quiet.weights[name].any()
    assert not quiet.head_rotation.any()
    assert not quiet.weights["jawOpen"].any()
    figures = measure_life([measured(quiet)])
    assert 10 <= figures["blinks per minute"] <= 30
    assert figures["saccades above 1 degree per minute"] > 30


def test_brows_and_head_come_to_rest_in_a_long_pause():
    phrases = (Phrase(1.0, 6.0), Phrase(16.0, 21.0))
    accents = tuple(Accent(t, 0.9) for t in (2.0, 3.5, 5.0, 17.0, 18.5, 20.0))
    life = made(SpeechCues(22.0, phrases, accents, 1.0, 5))
    pause = slice(50 * 9, 50 * 15)
    assert not life.head_rotation[pause].any()
    assert not life.weights["browInnerUp"][pause].any()
    assert np.abs(life.head_rotation[50 * 2 : 50 * 5]).max() > 0.5


PARTS = {
    "blinks": LIDS, "gaze": GAZE, "brows": BROWS, "breath": ("jawOpen", "mouthLowerDownLeft"),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_off_at_zero_and_leaves_the_others(part):
    # Without head: the eyes make up for its movement, and the lids follow the eyes.
    usual, without = (made(talk(30.0), head_motion=0.0, **rest) for rest in ({}, {part: 0.0}))
    assert not set(PARTS[part]) & set(without.weights)
    same = set(without.weights) - (set(LIDS) if part == "gaze" else set())
    assert same
    for name in same:
        np.testing.assert_array_equal(without.weights[name], usual.weights[name])
        assert usual.weights[name].any()


def test_amounts_scale_what_they_name():
    usual = measure_life([measured(made(talk()))])
    more = measure_life([measured(made(talk(), blinks=2.0, brows=0.5, head_motion=2.0, gaze=0.5))])
    assert 1.5 < more["blinks per minute"] / usual["blinks per minute"] < 2.6
    assert 0.45 < more["browInnerUp sd"] / usual["browInnerUp sd"] < 0.55
    assert more["head sd yaw, degrees"] == pytest.approx(2 * usual["head sd yaw, degrees"])
    assert more["gaze sd pitch, degrees"] < 0.9 * usual["gaze sd pitch, degrees"]
    assert not made(talk(), life=0.0).weights


def test_the_gaze_is_with_the_listener_when_the_speaker_ends():
    ends, within = [], []
    for seed in range(12):
        cues = talk(20.0, seed=seed)
        life = made(cues, seed=seed, head_motion=0.0)
        gaze = np.abs(gaze_of(life.weights)[:, 0])
        end = round(cues.phrases[-1].end_seconds * 50)
        ends.append(gaze[end - 5 : end + 20].max())
        within.append(gaze[: end - 50].max())
    assert max(ends) < 4.5
    assert min(within) > 4.5


def test_eyes_stay_on_their_target_while_the_head_turns():
    cues = talk(20.0)
    still, turning = made(cues, head_motion=0.0), made(cues)
    head = turning.head_rotation
    moved = gaze_of(turning.weights) - gaze_of(still.weights)
    np.testing.assert_allclose(moved[:, 0], -head[:, 1], atol=1e-9)
    np.testing.assert_allclose(moved[:, 1], head[:, 0], atol=1e-9)


def test_lids_go_down_with_the_gaze_and_blinks_differ():
    life = made(talk())
    pitch, lid = gaze_of(life.weights)[:, 1], life.weights["eyeBlinkLeft"]
    is_open = lid < 0.13
    assert lid[is_open & (pitch < -3)].mean() > lid[is_open & (pitch > 3)].mean() + 0.01
    inner = lid[1:-1]
    peaks = inner[(inner > 0.45) & (inner >= lid[:-2]) & (inner > lid[2:])]
    assert 0.05 < (peaks < 0.7).mean() < 0.5
    assert (peaks > 0.8).mean() > 0.5
    assert peaks.max() <= 1.0


def test_blinks_favour_the_ends_of_phrases():
    near = []
    for seed in range(6):
        cues = talk(seed=seed)
        lid = made(cues, seed=seed, gaze=0.0).weights["eyeBlinkLeft"]
        for phrase in cues.phrases[:-1]:
            end = round(phrase.end_seconds * 50)
            near.append(lid[end : end + 20].max() > 0.45)
    usual = 0.4 * 20 / 60  # were they anywhere
    assert np.mean(near) > 2 * usual


def test_the_mouth_breathes_before_a_phrase_and_is_back_in_time():
    cues = SpeechCues(12.0, (Phrase(1.0, 4.0), Phrase(5.5, 9.0)), (), 1.0, 1)
    jaw = made(cues).weights["jawOpen"]
    for phrase in cues.phrases:
        onset = round(phrase.start_seconds * 50)
        assert jaw[onset - 45 : onset].max() > 0.02
        assert not jaw[onset - 3 : onset + 50].any()


def voice(seconds, pitch_hz):
    """A buzz of 16 kHz whose pitch follows a function of time."""
    times = np.arange(round(seconds * 16000)) / 16000
    phase = 2 * np.pi * np.cumsum(pitch_hz(times)) / 16000
    return (0.2 * sum(np.sin(k * phase) / k for k in (1, 2, 3, 4))).astype(np.float32)


def test_cues_tell_phrases_accents_and_questions():
    def pitch(times):
        bump = 60.0 * np.exp(-0.5 * ((times - 1.1) / 0.08) ** 2)
        return 110.0 + bump + 90.0 * np.clip((times - 3.5) / 0.4, 0.0, 1.0)

    samples = voice(4.0, pitch)
    vowels = [Phone("AA", t, t + 0.2) for t in np.arange(0.2, 1.9, 0.2)]
    vowels += [Phone(SILENCE, 2.0, 2.6)]
    vowels += [Phone("IY", t, t + 0.2) for t in np.arange(2.6, 3.9, 0.2)]
    cues = read_cues(samples, vowels, seconds=4.0)
    assert [p.is_question for p in cues.phrases] == [False, True]
    assert cues.pauses == [pytest.approx((2.0, 2.6))]
    assert any(abs(accent.seconds - 1.1) < 0.11 for accent in cues.accents)
    louder = read_cues(3.0 * samples, vowels, seconds=4.0)
    assert louder.salt == cues.salt
    assert louder.salt != read_cues(samples[8000:], vowels, seconds=3.5).salt


def test_a_few_words_are_less_lively_than_a_talk():
    def lively(seconds):
        samples = voice(seconds, lambda times: 120.0 * 2 ** (0.3 * np.sin(9.0 * times)))
        return read_cues(samples, [Phone("AA", 0.2, seconds)], seconds=seconds).liveliness

    assert lively(2.0) < 0.4 * lively(10.0)
    assert lively(20.0) == pytest.approx(lively(10.0), rel=0.05)


def test_without_phones_the_level_tells_speech():
    samples = voice(3.0, lambda times: np.full(len(times), 120.0))
    samples[16000:32000] = 0.0
    cues = read_cues(samples, None, seconds=3.0)
    assert len(cues.phrases) == 2
    assert cues.phrases[0].end_seconds == pytest.approx(1.0, abs=0.06)
    assert read_cues(samples, (), seconds=3.0).phrases == ()


def test_life_fills_what_prediction_leaves_and_no_more():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.0, 1.1, (500, len(ARKIT_NAMES))).astype(np.float32)
    samples = voice(10.0, lambda times: np.full(len(times), 120.0))
    layers = add_life(
        weights, ARKIT_NAMES, samples, phones=[Phone("AA", 0.5, 9.0)], fps=Fraction(50),
        amounts=LifeAmounts(life=2.0, blinks=2.0, brows=2.0), face_axes=np.eye(3),
    )  # fmt: skip
    np.testing.assert_allclose(layers.speech + layers.upper_face, weights)
    assert (layers.total() <= np.maximum(weights, 1.0) + 1e-6).all()
    assert layers.life.min() >= 0.0
    upper = [k for k, name in enumerate(ARKIT_NAMES) if name.startswith(("brow", "eye"))]
    assert layers.upper_face[:, upper].all()
    assert not layers.speech[:, upper].any()
