# SPDX-License-Identifier: GPL-3.0-or-later
"""A style code brought nearer to its exemplar."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend import bundled
from backend.articulation.coarticulation import articulate
from backend.articulation.speaking_style import SpeakingStyle
from backend.model import (
    checkpoint,
    style_inversion,
    style_search,
)
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from backend.model.style_inversion import fit_style, style_of_motion
from backend.speech.phones import PHONE_IDS, Phone, phone_frames
from tests.backend.model.samples import build, small

BUNDLED = bundled.BASE_CHECKPOINT
SHOWN = "HH AW M EH N IY P IY P AH L W UH D L AY K T UW B IH L IY V DH IH S F AO R M AH CH"
OTHER = "B EH M AO T IY P ER V AA L UW B IH N OW M AY"
STYLES = (
    SpeakingStyle(articulation=0.9, spread=-0.8, lead=0.6),
    SpeakingStyle(jaw=-0.8, rounding=0.9, lower_lip=0.7),
    SpeakingStyle(articulation=-0.7, lip_part=0.7, mouth_side=0.6),
)
NUM_FRAMES = 220


def spoken(symbols=SHOWN):
    """Vowels of 140 ms and consonants of 80."""
    phones, now = [], 0.2
    for symbol in symbols.split():
        end = now + (0.14 if symbol[0] in "AEIOU" else 0.08)
        phones.append(Phone(symbol, now, end))
        now = end
    return phones


def said_in(style, phones):
    """With vowels three times as loud as consonants and a voice of 120 Hz."""
    energy = np.zeros(NUM_FRAMES, np.float32)
    for phone in phones:
        frames = slice(round(50 * phone.start_seconds), round(50 * phone.end_seconds))
        energy[frames] = 0.1 if phone.symbol[0] in "AEIOU" else 0.03
    motion = articulate(
        phones,
        style=style,
        num_frames=NUM_FRAMES,
        fps=50.0,
        energy=np.convolve(energy, np.hanning(9) / 4.0, "same").astype(np.float32),
        f0=np.where(energy > 0.0, 120.0, 0.0).astype(np.float32),
        blinks=False,
    )
    return torch.from_numpy(motion)[None]


def ids_of(phones):
    return torch.from_numpy(phone_frames(phones, NUM_FRAMES, 50.0))[None]


@pytest.fixture(scope="module")
def model():
    return checkpoint.load(BUNDLED).eval()


@pytest.fixture(scope="module")
def exemplar():
    return said_in(STYLES[0], spoken())


def error_of_another_sentence(model, code, style=STYLES[0]):
    """Root mean square in interocular distances of other phones in the style of a code."""
    phones = spoken(OTHER)
    wanted = said_in(style, phones)
    content = style_inversion.content_of_phones(model, ids_of(phones))
    mask = torch.ones(wanted.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        queries = model.decoder.queries(code, wanted.shape[1])
        made = model.weights(model.decoder(queries, content, mask, code, causal=False))
        return float(model.graph_encoder.displacements(made - wanted).square().mean().sqrt())


def test_another_sentence_comes_nearer_to_the_true_style(model):
    """Of loudness, by which the truth goes too, phones tell nothing: some error is in any style."""
    ignored, before, after = [], [], []
    for style in STYLES:
        exemplar = said_in(style, spoken())
        code = model.encode_motion_style(exemplar)
        fitted = fit_style(model, exemplar, code)
        assert fitted.shape == code.shape
        assert not fitted.requires_grad
        assert torch.equal(fitted, fit_style(model, exemplar, code))
        ignored.append(error_of_another_sentence(model, model.neutral_style(), style))
        before.append(error_of_another_sentence(model, code, style))
        after.append(error_of_another_sentence(model, fitted, style))
    assert sum(after) < 0.9 * sum(before)
    assert sum(after) < 0.75 * sum(ignored)


def test_lips_are_read_in_a_style_that_was_never_seen(model, exemplar):
    nodes = model.graph_encoder.displacements(exemplar) * model.config.motion_scale
    mask = torch.ones(exemplar.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        logits = model.lip_reader(model.motion_style.components_of(nodes), mask)
    truth = ids_of(spoken())
    is_spoken = truth > PHONE_IDS["SIL"]
    assert (logits.argmax(-1) == truth)[is_spoken].float().mean() > 0.6


def test_known_phones_take_the_place_of_read_ones(model, exemplar):
    code = model.encode_motion_style(exemplar)
    known = fit_style(model, exemplar, code, ids_of(spoken()))
    wrong = fit_style(model, exemplar, code, torch.full((1, NUM_FRAMES), PHONE_IDS["AA"]))
    right_error, wrong_error = (error_of_another_sentence(model, c) for c in (known, wrong))
    assert right_error < 0.8 * wrong_error


def test_frames_without_a_phone_are_silence(model, exemplar):
    code, phones = model.encode_motion_style(exemplar), ids_of(spoken())
    assert (phones == 0).any()
    silent = phones.clamp(min=PHONE_IDS["SIL"])
    codes = (fit_style(model, exemplar, code, ids) for ids in (phones, silent))
    assert torch.equal(*codes)


def test_held_as_near_as_can_be_the_code_stays(model, exemplar, monkeypatch):
    code = model.encode_motion_style(exemplar)
    free = float((fit_style(model, exemplar, code) - code).norm())
    monkeypatch.setattr(style_search, "_NEARNESS", 1e6)
    held = float((fit_style(model, exemplar, code) - code).norm())
    assert held < 0.5 * free


def test_weights_are_left_alone_and_nothing_is_learned(model, exemplar):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_style(model, exemplar, model.neutral_style())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_still_face_and_long_exemplars_give_finite_codes(model, exemplar, monkeypatch):
    still = torch.zeros_like(exemplar)
    assert torch.isfinite(fit_style(model, still, model.neutral_style())).all()
    monkeypatch.setattr(style_inversion, "MOST_FRAMES", 60)
    code = model.encode_motion_style(exemplar)
    assert torch.equal(fit_style(model, exemplar, code), fit_style(model, exemplar[:, :60], code))


def test_a_model_without_a_lip_reader_leaves_the_code(model, exemplar):
    plain = PTalker(dataclasses.replace(PRESETS["tiny"], lip_layers=0)).eval()
    code = torch.ones(1, plain.config.style_dim)
    assert fit_style(plain, exemplar, code) is code


def test_the_style_of_motion_is_encoded_and_then_refined(model, exemplar):
    code = model.encode_motion_style(exemplar)
    assert torch.equal(style_of_motion(model, exemplar), fit_style(model, exemplar, code))
    phones = ids_of(spoken())
    expected = fit_style(model, exemplar, code, phones)
    assert torch.equal(style_of_motion(model, exemplar, phones), expected)


def test_the_style_of_learned_shapes_is_as_it_was_encoded():
    learned = build(small(PRESETS["vocaset"])).eval()
    motion = 0.01 * torch.randn(1, 20, learned.config.num_vertices, 3)
    assert torch.equal(style_of_motion(learned, motion), learned.encode_motion_style(motion))
