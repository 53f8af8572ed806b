# SPDX-License-Identifier: GPL-3.0-or-later
"""Speaking styles as vectors, blended, and fitted to a voice."""

import numpy as np
import pytest

from backend.articulation.coarticulation import articulate
from backend.articulation.speaking_style import (
    NAMED_STYLES,
    STYLE_DIM,
    STYLE_NAMES,
    SpeakingStyle,
    style_for_voice,
)
from backend.audio.prosody import VoiceCharacter
from backend.heads.arkit import ARKIT_NAMES
from backend.speech.phones import Phone


def test_style_vector_round_trip():
    style = SpeakingStyle.sample(np.random.default_rng(1))
    again = SpeakingStyle.from_vector(style.to_vector())
    assert style.to_vector().shape == (STYLE_DIM,)
    assert style.to_vector().dtype == np.float32
    np.testing.assert_array_equal(again.to_vector(), style.to_vector())
    assert not SpeakingStyle.neutral().to_vector().any()
    assert len(STYLE_NAMES) == STYLE_DIM


def test_style_vector_of_wrong_length_is_rejected():
    with pytest.raises(ValueError, match=str(STYLE_DIM)):
        SpeakingStyle.from_vector(np.zeros(STYLE_DIM + 1, np.float32))


def test_blending_goes_from_one_style_to_the_other():
    smile = NAMED_STYLES["smile"]
    assert SpeakingStyle().blend(smile, 0.0) == SpeakingStyle()
    np.testing.assert_allclose(SpeakingStyle().blend(smile, 1.0).to_vector(), smile.to_vector())
    assert SpeakingStyle().blend(smile, 0.5).smile == pytest.approx(0.5 * smile.smile)


def test_lively_voice_gets_livelier_style():
    flat = VoiceCharacter(7.0, 2.0, 16.0, 0.0)
    lively = VoiceCharacter(18.0, 11.0, 9.0, 0.0)
    rng = np.random.default_rng(0)
    differences = [
        style_for_voice(lively, rng).jaw - style_for_voice(flat, rng).jaw for _ in range(30)
    ]
    assert np.mean(differences) > 0.5


def test_speakers_differ_in_opening_by_a_factor_of_two():
    symbols = "T AE D AY S EH K AA T AO L"
    phones = [
        Phone(symbol, 0.5 + 0.1 * i, 0.6 + 0.1 * i) for i, symbol in enumerate(symbols.split())
    ]
    rng = np.random.default_rng(4)
    jaw = ARKIT_NAMES.index("jawOpen")
    widest = [
        articulate(phones, style=SpeakingStyle.sample(rng), num_frames=120, fps=50.0)[:, jaw].max()
        for _ in range(60)
    ]
    narrow, wide = np.percentile(widest, [10, 90])
    assert 1.6 < wide / narrow < 3.0
