# SPDX-License-Identifier: GPL-3.0-or-later
"""Both engines give the same, and the right one is chosen."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
import torch

from backend import bundled, onnx_sessions
from backend.cli import main as command_line
from backend.errors import Cancelled, UserError
from backend.heads.mesh_files import read_face_points, read_head
from backend.heads.topology import identify
from backend.inference import devices, engine_cache, engine_export, engine_files
from backend.inference import engine_choice as engines
from backend.inference.engine_choice import open_engine
from backend.inference.onnx_engine import OnnxEngine
from backend.inference.predictor import open_predictor
from backend.inference.style_files import read_exemplar
from backend.inference.torch_engine import TorchEngine
from backend.model import checkpoint
from backend.model.presets import PRESETS
from backend.speech import moonshine_words
from tests.backend.model.samples import build
from tests.backend.speech.samples import SENTENCE

TINY = PRESETS["tiny"]
STACKED = replace(
    TINY,
    decoder_layers=1,
    lip_layers=1,
    style_dim=8,
    speech=replace(TINY.speech, stacking=2, num_layers=1),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint whose encoder takes two frames as one, with its graphs."""
    pytest.importorskip("onnxscript")
    model = build(STACKED, lively=True).eval()
    with torch.no_grad():
        model.speech_content.phones.weight.mul_(30)  # so that it decides for some phones
    folder = tmp_path_factory.mktemp("engines") / "own ö"
    checkpoint.save(folder, model, card="For tests.", half=True)
    assert command_line.main(["export", "--engine", "--checkpoint", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def both(folder):
    return OnnxEngine(folder, folder, chunk_frames=100), TorchEngine(folder, "cpu")


def inputs(num_frames: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_frames, 160)).astype(np.float32)
    phones = rng.integers(0, 2 * STACKED.num_phone_ids - 1, num_frames)
    phones[num_frames // 4 : num_frames // 2] = 5
    return features, phones.astype(np.int64)


def talk(engine, features, phones, code, **options):
    options = {
        "decoder": "parallel", "report": lambda *_: None, "should_stop": lambda: False, **options
    }  # fmt: skip
    return engine.talk(features, phones, code, num_frames=len(features), **options)


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [1, 7, 100, 333])
@pytest.mark.parametrize("with_phones", [False, True])
def test_weights_are_the_same_over_chunks_and_styles(both, num_frames, with_phones):
    features, phones = inputs(num_frames)
    for code in (both[0].neutral_code, np.full(8, 0.7, np.float32)):
        made = [talk(engine, features, phones if with_phones else None, code) for engine in both]
        np.testing.assert_allclose(made[0], made[1], atol=1e-4)
        assert made[0].shape == (num_frames, 52)


@pytest.mark.slow
def test_what_is_heard_is_the_same(both):
    for num_frames in (3, 333):
        heard = [engine.hear(inputs(num_frames)[0], lambda: False) for engine in both]
        np.testing.assert_allclose(heard[0], heard[1], atol=1e-4)


@pytest.mark.slow
def test_styles_are_read_alike(both):
    times = np.arange(120)[:, None] / 50
    motion = (0.4 + 0.3 * np.sin(times * np.arange(1, 53))).astype(np.float32)
    codes = [engine.read_style(motion) for engine in both]
    encoded = both[1].model.encode_motion_style(torch.from_numpy(motion)[None])[0].numpy()
    assert np.abs(codes[1] - encoded).max() > 1e-2  # the search went somewhere
    features, phones = inputs(200)
    made = [talk(both[0], features, phones, code) for code in codes]
    np.testing.assert_allclose(made[0], made[1], atol=1e-3)


@pytest.mark.slow
def test_a_batch_gives_what_single_jobs_give(both, folder):
    jobs = [inputs(length, seed) for seed, length in enumerate((60, 90, 75))]
    for engine in (both[0], TorchEngine(folder, "cpu")):

        def one(job, engine=engine):
            with engine.participant():
                return talk(engine, *job, engine.neutral_code)

        with ThreadPoolExecutor(max_workers=3) as pool:
            made = list(pool.map(one, jobs))
        engine.close()
        for job, found in zip(jobs, made, strict=True):
            alone = talk(both[1], *job, both[1].neutral_code)
            np.testing.assert_allclose(found, alone, atol=1e-4)


@pytest.mark.slow
def test_progress_and_cancel(both):
    features, _ = inputs(333)
    seen = []
    talk(both[0], features, None, both[0].neutral_code, report=lambda *done: seen.append(done))
    assert seen == [(100, 333), (200, 333), (300, 333), (333, 333)]
    stop = threading.Event()
    with pytest.raises(Cancelled):
        talk(both[0], features, None, both[0].neutral_code, report=lambda *_: stop.set(),
             should_stop=stop.is_set)  # fmt: skip
    with pytest.raises(Cancelled):
        both[0].hear(features, lambda: True)


@pytest.mark.slow
def test_graphs_of_other_parameters_are_not_used(folder, tmp_path, monkeypatch):
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    checkpoint.save(changed, build(STACKED, seed=1, lively=True), card="For tests.", half=True)
    monkeypatch.setattr(engine_cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"made for other parameters.*export --engine"):
        open_engine(changed, "onnx")
    warnings = []
    assert open_engine(changed, "auto", "cpu", warn=warnings.append).name == "torch"
    assert "PyTorch does the work" in warnings[0]


@pytest.mark.slow
def test_an_engine_that_computes_wrongly_is_not_used(folder, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(folder, wrong)
    facts = json.loads((wrong / engine_files.FACTS_NAME).read_text())
    facts["expected_weights"][17] += 0.01
    (wrong / engine_files.FACTS_NAME).write_text(json.dumps(facts))
    with pytest.raises(UserError, match="computes this model wrongly"):
        open_engine(wrong, "onnx")
    warnings = []
    assert open_engine(wrong, "auto", "cpu", warn=warnings.append).name == "torch"
    assert "wrongly" in warnings[0]


def test_graphs_are_made_when_a_checkpoint_is_first_chosen(tiny_checkpoint, tmp_path, monkeypatch):
    made = []

    def export(folder, out=None):
        made.append((folder, out))
        return out or folder

    monkeypatch.setattr(engine_export, "export_engine", export)
    monkeypatch.setattr(engine_cache, "cache_folder", lambda: tmp_path / "cache")
    pytest.importorskip("onnxscript")
    assert engine_cache.find_graphs(tiny_checkpoint) == (None, "")
    assert engine_cache.make_graphs(tiny_checkpoint, "") == tiny_checkpoint
    monkeypatch.setattr(engine_cache.os, "access", lambda *_: False)
    cached = engine_cache.make_graphs(tiny_checkpoint, "")
    assert cached.parent == tmp_path / "cache"
    stored = (cached / "model.safetensors").read_bytes()
    assert stored == (tiny_checkpoint / "model.safetensors").read_bytes()
    assert made == [(tiny_checkpoint, None), (tiny_checkpoint, cached)]


def test_what_needs_torch_gets_it(tiny_checkpoint, monkeypatch):
    assert open_engine(tiny_checkpoint, device="cpu", decoder="autoregressive").name == "torch"
    with pytest.raises(UserError, match="frame after frame needs PyTorch"):
        open_engine(tiny_checkpoint, "onnx", decoder="autoregressive")
    with pytest.raises(UserError, match="on the processor, not on cuda"):
        open_engine(tiny_checkpoint, "onnx", "cuda")
    monkeypatch.setattr(engines, "is_torch_installed", lambda: False)
    for options in ({"engine": "torch"}, {"decoder": "autoregressive"}, {"device": "cuda"}):
        with pytest.raises(UserError, match=r"Add GPU and Research \(PyTorch\)"):
            open_engine(tiny_checkpoint, **options)


def test_a_card_without_kernels_is_not_used_and_named(monkeypatch):
    def no_kernel(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution")

    monkeypatch.setattr(engines, "may_have_gpu", lambda: True)
    monkeypatch.setattr(devices, "available_devices", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(devices.torch, "ones", no_kernel)
    warnings = []
    assert open_engine(bundled.BASE_CHECKPOINT, warn=warnings.append).name == "onnx"
    assert "no kernel image" in warnings[0]
    assert "the processor does the work" in warnings[0]


def test_the_bundled_graphs_hold_no_parameters_and_belong_to_its_file():
    facts = engine_files.read_facts(bundled.BASE_CHECKPOINT)
    assert facts.fingerprint == engine_cache.checked_fingerprint(bundled.BASE_CHECKPOINT)
    names = [bundled.BASE_CHECKPOINT / name for name in engine_files.GRAPHS]
    assert sum(path.stat().st_size for path in (*names, bundled.PHONE_HEAD_GRAPH)) < 2 << 20


@pytest.fixture(scope="module")
def predictors():
    pair = [open_predictor(bundled.BASE_CHECKPOINT, name, "cpu") for name in ("onnx", "torch")]
    yield pair
    for predictor in pair:
        predictor.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listen", "text", "repeats"),
    [("sound", "", 1), ("words", "", 1), ("auto", SENTENCE, 1), ("sound", "", 17)],
)
def test_the_bundled_model_moves_the_same(predictors, listen, text, repeats, spoken, exemplar):
    if listen != "sound" and not moonshine_words.is_installed():
        pytest.skip("Moonshine is not there")
    head = identify(*read_head(bundled.DEMO_HEAD), face_points=read_face_points(bundled.DEMO_HEAD))
    samples = np.tile(spoken.samples, repeats)
    made = []
    for predictor in predictors:
        style = predictor.exemplar_style(read_exemplar(exemplar), lambda _: None)
        made.append(
            predictor.predict(
                samples, 16000, head, fps=Fraction(50), num_frames=len(samples) // 320,
                style=replace(style, code=made[0][1]) if made else style, style_strength=1.3,
                listen=listen, text=text, progress=lambda *_: None, warn=lambda _: None,
                is_cancelled=lambda: False,
            )
        )  # fmt: skip
        made[-1] = (made[-1].weights, style.code)
    assert repeats == 1 or len(samples) > 60 * 16000  # more than a chunk
    np.testing.assert_allclose(made[0][0], made[1][0], atol=1e-4)
    np.testing.assert_allclose(made[0][1], made[1][1], atol=1e-2)


def test_onnx_runtime_that_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="ONNX Runtime is not installed"):
        onnx_sessions.Session(tmp_path / "none.onnx")
