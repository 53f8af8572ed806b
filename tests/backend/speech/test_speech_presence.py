# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether anybody speaks: by two classifiers' agreement, and from sound to the report."""

from fractions import Fraction

import numpy as np
import pytest

from backend import bundled
from backend.audio import degradations
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.heads.lip_measures import measured_demo_head
from backend.inference.predictor import open_predictor
from backend.speech import moonshine_phones
from backend.speech.phones import PHONE_IDS, SILENCE, Phone
from backend.speech.speech_presence import NOBODY, rest_elsewhere, spoken_frames
from backend.speech.transcript import Piece, Word, without_unspoken
from tests.backend.speech.samples import confident_in

needs_classifiers = pytest.mark.skipif(
    not moonshine_phones.can_recognise(), reason="Moonshine is not there"
)
FRAMES = 400  # 8 s
SOUND = np.random.default_rng(0).integers(-9000, 9000, FRAMES * 320).astype(np.int16)


def posteriors(symbol, start, end):
    """Silence, and one confident phone between two frames."""
    ids = np.full(FRAMES, PHONE_IDS[SILENCE])
    ids[start:end] = PHONE_IDS[symbol]
    return confident_in(ids)


def test_one_phone_heard_by_both_is_speech_for_a_second_around():
    spoken = spoken_frames(posteriors("AA", 200, 215), posteriors("AA", 200, 215), SOUND)
    assert spoken.shape == (FRAMES,)
    assert spoken[155:260].all()
    assert not spoken[:140].any()
    assert not spoken[275:].any()


@pytest.mark.parametrize("other", ["UW", SILENCE])
def test_phones_that_one_classifier_hears_alone_are_none(other):
    own, head = posteriors("AA", 200, 215), posteriors(other, 200, 215)
    assert not spoken_frames(own, head, SOUND).any()
    assert not spoken_frames(head, own, SOUND).any()


def test_half_an_agreement_is_enough_of_a_syllable_and_beside_speech_but_not_of_long_sound():
    half = np.log(0.8 * np.exp(posteriors(SILENCE, 0, 0)) + 0.2 * np.exp(posteriors("AA", 0, 400)))
    brief = np.zeros(FRAMES * 320, np.int16)
    brief[64000:70000] = 9000
    assert not spoken_frames(half, half, SOUND).any()
    assert spoken_frames(half, half, brief).all()
    certain = half.copy()
    certain[:20] = posteriors("AA", 0, 20)[:20]
    assert spoken_frames(certain, certain, SOUND).all()


@pytest.mark.parametrize("length", [0, 1, 5, 399])
def test_posteriors_of_other_lengths_do_no_harm(length):
    whole = posteriors("AA", 0, FRAMES)
    assert spoken_frames(whole[:length], whole, SOUND).shape == (FRAMES,)
    assert spoken_frames(whole, whole[:length], SOUND).shape == (length,)


def test_phones_and_words_where_nobody_speaks_are_silence():
    phones = (Phone(SILENCE, 0.0, 1.0), Phone("B", 1.0, 1.1), Phone("IY", 5.0, 5.2))
    spoken = np.arange(FRAMES) < 100
    assert rest_elsewhere(list(phones), spoken)[-1] == Phone(SILENCE, 5.0, 5.2)
    words = (Word("b", 1.0, 1.1), Word("e", 5.0, 5.2))
    piece = without_unspoken(Piece(phones, words, True, 0.3), spoken)
    assert [word.text for word in piece.words] == ["b"]
    assert piece.spoken_seconds == pytest.approx(0.1)


# ---- from sound to the report


@pytest.fixture(scope="module")
def animate():
    predictor = open_predictor(bundled.BASE_CHECKPOINT, "onnx")
    mouth = measured_demo_head()

    def run(sound, listen="auto", text=""):
        warnings = []
        found = predictor.predict(
            np.asarray(sound, np.float32), SAMPLE_RATE_HZ, mouth.head, fps=Fraction(50),
            num_frames=len(sound) // 320, listen=listen, text=text, progress=lambda *_: None,
            warn=warnings.append, is_cancelled=lambda: False,
        )  # fmt: skip
        return found.report, np.abs(mouth.opening_mm(found.weights)), warnings

    yield run
    predictor.close()


def chords(rng):
    times = np.arange(16000) / SAMPLE_RATE_HZ
    notes = [rng.choice([220.0, 262.0, 294.0, 330.0, 392.0], 3, replace=False) for _ in range(4)]
    tones = [sum(np.sin(2 * np.pi * h * f * times) / h for f in n for h in (1, 2)) for n in notes]
    return np.concatenate([np.exp(-times) * tone for tone in tones])


def applause(rng):
    sound = 0.002 * rng.standard_normal(64000)
    for start in rng.integers(0, 63000, 600):
        sound[start : start + 320] += rng.standard_normal(320) * np.exp(-np.arange(320) / 50)
    return sound


def chirps(rng):
    sound = 0.001 * rng.standard_normal(64000)
    times = np.arange(2400) / SAMPLE_RATE_HZ
    for start in range(3000, 60000, 5600):
        hertz = 3000 + 1500 * np.sin(2 * np.pi * 8 * times + rng.uniform(0, 6))
        sound[start : start + 2400] += np.hanning(2400) * np.sin(
            2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE_HZ
        )
    return sound


KINDS = {
    "tone": lambda rng: np.sin(2 * np.pi * 440 * np.arange(64000) / SAMPLE_RATE_HZ),
    "chords": chords,
    "applause": applause,
    "birds": chirps,
    "music": lambda rng: degradations.music(64000, rng),
}


@needs_classifiers
@pytest.mark.parametrize("listen", ["auto", "sound"])
@pytest.mark.parametrize("kind", KINDS)
def test_where_nobody_speaks_the_mouth_rests_and_the_report_says_so(kind, listen, animate):
    sound = KINDS[kind](np.random.default_rng(4))
    report, opening, warnings = animate(0.5 * sound / np.abs(sound).max(), listen)
    assert report["nobody_speaks"] is True
    assert report["words"] == ""
    assert warnings == [NOBODY]
    assert opening.max() < 0.3  # millimetres


@needs_classifiers
@pytest.mark.parametrize("effect", ["whisper", "shouting", "music 10 dB", "white noise 10 dB"])
def test_speech_is_never_taken_for_none(effect, spoken, animate):
    clean = spoken.samples.astype(np.float32)
    changed = degradations.SPEECH_EFFECTS[effect](clean, [clean], np.random.default_rng(1))
    for listen in ("auto", "sound"):
        report, opening, _ = animate(changed, listen)
        assert report["nobody_speaks"] is False
        assert np.quantile(opening, 0.9) > 3.0


@needs_classifiers
def test_the_mouth_rests_in_music_before_the_speech(spoken, animate):
    song = degradations.music(16000 * 8, np.random.default_rng(5))
    sound = np.concatenate([song, spoken.samples, np.zeros(8000)])
    report, opening, _ = animate(sound, "sound")
    assert report["nobody_speaks"] is False
    assert opening[:300].max() < 0.5
    assert opening[400:].max() > 4.0
