# SPDX-License-Identifier: GPL-3.0-or-later

"""Given text of other languages in the sound, by phone posteriors that are made for it."""

from __future__ import annotations

import numpy as np
import pytest

from backend.articulation.coarticulation import articulate
from backend.articulation.speaking_style import SpeakingStyle
from backend.articulation.variant_offsets import add_variants
from backend.errors import UserError
from backend.heads.arkit import ARKIT_NAMES
from backend.speech import espeak, foreign_text, moonshine_encoder, moonshine_phones
from backend.speech.phones import PHONE_IDS, PHONES, SILENCE, Phone

pytestmark = pytest.mark.skipif(
    not espeak.is_installed(), reason="the package espeakng_loader is not installed"
)


def posteriors_of(text, language, frames=6):
    """Sharp log posteriors of a text's phones, a few frames each, in silence."""
    spoken = [s for word in espeak.pronounce_text(text, language) for s in word.phones]
    ids = [PHONE_IDS[s] for s in [SILENCE, *spoken, SILENCE] for _ in range(frames)]
    found = np.full((len(ids), 1 + len(PHONES)), -9.0, np.float32)
    found[np.arange(len(ids)), ids] = -0.01
    return found, spoken


@pytest.fixture
def hear(monkeypatch):
    """Have the phone head hear a text; returns the sound of that length."""

    def prepare(text, language):
        posteriors, spoken = posteriors_of(text, language)
        monkeypatch.setattr(moonshine_encoder, "encode", lambda sound: sound)
        monkeypatch.setattr(
            moonshine_phones, "head_log_posteriors", lambda _encoded, _count: posteriors
        )
        rng = np.random.default_rng(0)
        sound = rng.normal(0, 0.1, len(posteriors) * 320).astype(np.float32)
        return sound, spoken

    return prepare


def align(sound, text, language):
    return foreign_text.align_text(
        sound, text, language, None, progress=lambda *_: None, is_cancelled=lambda: False
    )


@pytest.mark.parametrize(
    ("language", "text"),
    [("de", "Meine Mama backt Brot."), ("ru", "Мама мыла раму."), ("ar", "مرحبا بك في بيتي")],
)
def test_each_phone_is_found_where_it_is_spoken(hear, language, text):
    sound, spoken = hear(text, language)
    found = align(sound, text, language)
    assert found.mode == "text"
    phones = [phone for phone in found.phones if phone.symbol != SILENCE]
    assert [phone.symbol for phone in phones] == spoken
    for number, phone in enumerate(phones):
        assert phone.start_seconds == pytest.approx(0.12 * (number + 1), abs=0.021)
    assert len(found.words) == len(text.split())


def test_a_text_that_is_not_spoken_is_not_used(hear):
    sound, _ = hear("Meine Mama backt Brot.", "de")
    found = align(sound, "Zwölf Hühner laufen schnell über die Straße.", "de")
    assert found.mode == "sound"
    assert "read as German" in found.warnings[0]


def test_a_text_without_words_is_refused(hear):
    sound, _ = hear("Mama", "de")
    with pytest.raises(UserError, match="no words"):
        align(sound, " … ", "de")


@pytest.mark.parametrize(
    ("language", "text"), [("fr", "Un bon vin blanc, une feuille."), ("ja", "ふゆ は しずか")]
)
def test_a_sentence_shows_what_its_phones_have_of_their_own(hear, language, text):
    sound, _ = hear(text, language)
    found = align(sound, text, language)
    kinds = [kind for word in espeak.pronounce_text(text, language) for kind in word.kinds]
    spoken = [phone for phone in found.phones if phone.symbol != SILENCE]
    assert [(phone.symbol, phone.variant) for phone in spoken] == kinds
    assert found.between(0.1, 9.0).phones[-2].variant == kinds[-1].variant
    plain = [Phone(p.symbol, p.start_seconds, p.end_seconds) for p in found.phones]
    num_frames = round(found.phones[-1].end_seconds * 50)
    style = SpeakingStyle()
    network = articulate(plain, style=style, num_frames=num_frames, fps=50.0, blinks=False)
    shown = add_variants(network, ARKIT_NAMES, found.phones, fps=50.0)
    meant = articulate(found.phones, style=style, num_frames=num_frames, fps=50.0, blinks=False)
    assert np.abs(network - meant).max() > 0.15
    assert np.abs(shown - meant).max() < 0.05
