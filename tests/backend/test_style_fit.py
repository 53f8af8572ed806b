# SPDX-License-Identifier: GPL-3.0-or-later
"""A style code brought nearer to its exemplar."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from backend import checkpoint  # noqa: E402
from backend.model import style_fit  # noqa: E402
from backend.model.content_encoders import average_frames, stretch_frames  # noqa: E402
from backend.model.style_fit import fit_style  # noqa: E402

BUNDLED = Path(__file__).resolve().parents[2] / "backend" / "checkpoints" / "base"


@pytest.fixture(scope="module")
def model():
    return checkpoint.load(BUNDLED).eval()


@pytest.fixture(scope="module")
def exemplar(model):
    """Two seconds of a mouth that opens and closes, more on its right side."""
    times = torch.arange(100) / 50.0
    wave = 0.5 - 0.5 * torch.cos(2 * torch.pi * 3.0 * times)
    motion = torch.zeros(1, 100, len(model.config.shape_names))
    for name, size in (("jawOpen", 0.5), ("mouthSmileRight", 0.4), ("mouthFunnel", 0.2)):
        motion[0, :, model.config.shape_names.index(name)] = size * wave
    return motion


def remade(model, motion, code):
    """What the model makes of an exemplar's content in the style of a code."""
    mask = torch.ones(motion.shape[:2], dtype=torch.bool)
    stride = model.config.motion_stride
    with torch.no_grad():
        nodes, reduced = average_frames(model.graph_encoder.displacements(motion), mask, stride)
        content = model.motion_content(model.graph_encoder(nodes), reduced)
        content = stretch_frames(content, reduced, stride, motion.shape[1])
        queries = model.decoder.queries(code, motion.shape[1])
        return model.weights(model.decoder(queries, content, mask, code, causal=False))


def distance(model, motion, code):
    shapes = model.node_shapes().detach().flatten(1)
    return float(((remade(model, motion, code) - motion) @ shapes).square().mean())


def test_fitted_code_says_the_exemplar_better_and_stays_near(model, exemplar):
    code = model.encode_motion_style(exemplar)
    fitted = fit_style(model, exemplar, code)
    assert fitted.shape == code.shape
    assert not fitted.requires_grad
    assert distance(model, exemplar, fitted) < 0.9 * distance(model, exemplar, code)
    far = fit_style(model, exemplar, code + 1.0)
    step = float((fitted - code).norm())
    assert 0.0 < step < float((far - code).norm())
    assert torch.equal(fitted, fit_style(model, exemplar, code))


def test_held_as_near_as_can_be_the_code_stays(model, exemplar, monkeypatch):
    code = model.encode_motion_style(exemplar)
    free = float((fit_style(model, exemplar, code) - code).norm())
    monkeypatch.setattr(style_fit, "_NEARNESS", 1e6)
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
    monkeypatch.setattr(style_fit, "_MOST_FRAMES", 60)
    code = model.encode_motion_style(exemplar)
    assert torch.equal(fit_style(model, exemplar, code), fit_style(model, exemplar[:, :60], code))
