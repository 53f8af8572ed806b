# SPDX-License-Identifier: GPL-3.0-or-later
"""The exported sound path against torch, and the program of docs/export.md."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
import onnxruntime
import torch

from backend import bundled
from backend.audio.features import stacked_log_mel
from backend.audio.segmentation import prepare_sound
from backend.cli import main as command_line
from backend.errors import UserError
from backend.inference import onnx_export
from backend.inference.engine_choice import open_engine
from backend.model import checkpoint
from backend.model.generate import generate
from backend.model.presets import PRESETS
from backend.speech.moonshine_phones import recognise_phones
from backend.speech.phones import phone_frames
from tests.backend.model.samples import build

pytestmark = pytest.mark.slow  # torch takes half a minute to translate even a tiny model
ROOT = Path(__file__).resolve().parents[3]
TINY = PRESETS["tiny"]
STACKED = replace(
    TINY,
    decoder_layers=1,
    speech=replace(TINY.speech, stacking=2, num_layers=1),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A checkpoint whose encoder takes two frames as one, as the bundled one's does."""
    model = build(STACKED, lively=True).eval()
    with torch.no_grad():
        model.speech_content.phones.weight.mul_(30)  # so that it decides for some phones
    folder = tmp_path_factory.mktemp("exported")
    checkpoint.save(folder / "checkpoint", model, card="For tests.")
    (folder / "checkpoint" / "styles.json").write_text(json.dumps({"loud": [0.5] * 16}))
    status = command_line.main(
        ["export", "--checkpoint", str(folder / "checkpoint"), "--out", str(folder / "m.onnx")]
    )
    assert status == 0
    return model, folder / "m.onnx"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The program of the manual."""
    text = (ROOT / "docs" / "export.md").read_text("utf-8")
    path = tmp_path_factory.mktemp("example") / "talk.py"
    path.write_text(text.split("```python\n")[1].split("```")[0], "utf-8")
    return path


def inputs(num_frames: int):
    generator = torch.Generator().manual_seed(num_frames)
    features = torch.randn(1, num_frames, 160, generator=generator)
    phones = torch.randint(0, 2 * STACKED.num_phone_ids - 1, (1, num_frames), generator=generator)
    phones[:, num_frames // 4 : num_frames // 2] = 5  # held, in long ones beyond what is followed
    phones[:, num_frames // 2 :] = 0
    return features, phones


@pytest.mark.parametrize("num_frames", [1, 2, 15, 76, 333])
def test_curves_are_those_of_torch_at_any_length(exported, example, num_frames):
    model, path = exported
    features, phones = inputs(num_frames)
    talker = runpy.run_path(str(example))["Talker"](path)
    for given in (phones, torch.zeros_like(phones)):
        for style in (model.neutral_style(), torch.full((1, 16), 0.5)):
            made = talker.weights(features[0].numpy(), given[0].numpy(), style[0].numpy())
            expected = generate(model, features, style, num_frames=num_frames, phones=given)
            np.testing.assert_allclose(made, expected[0].numpy(), atol=1e-4)


def test_windows_as_wide_as_the_bundled_models_leave_the_length_open(tmp_path):
    wide, base = replace(STACKED.speech, window=24), PRESETS["base"]
    config = replace(
        STACKED, speech=wide, self_window=base.self_window, cross_window=base.cross_window
    )
    model = build(config, lively=True).eval()
    checkpoint.save(tmp_path / "checkpoint", model, card="For tests.")
    (tmp_path / "checkpoint" / "styles.json").write_text("{}")
    difference = onnx_export.export(tmp_path / "checkpoint", tmp_path / "m.onnx")
    assert difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for num_frames in (40, 100, 250, 700):  # from one block of 96 frames in the encoder to eight
        features, phones = inputs(num_frames)
        style = model.neutral_style()
        feeds = (features.numpy(), phones.numpy(), style.numpy())
        (made,) = session.run(None, dict(zip(onnx_export.INPUTS, feeds, strict=True)))
        expected = generate(model, features, style, num_frames=num_frames, phones=phones)
        np.testing.assert_allclose(made, expected.numpy(), atol=1e-4)


def test_self_conditioning_is_inside_the_graph(exported, example):
    model, path = exported
    features, _ = inputs(200)
    lengths = torch.tensor([200])
    own = model.speech_content.self_conditioned_phones(features, lengths, None)
    assert (own > 0).any()
    one_pass = model.speech_content(features, lengths, phones=None, num_frames=200)
    style = model.neutral_style()
    queries = model.decoder.queries(style, 200)
    with torch.no_grad():
        once = model.weights(
            model.decoder(queries, one_pass.features, one_pass.mask, style, causal=False)
        )
    made = runpy.run_path(str(example))["Talker"](path).weights(features[0].numpy())
    assert np.abs(made - once[0].numpy()).max() > 1e-2


def test_chunks_are_as_good_as_one_piece(exported, example):
    num_frames = 501
    features, phones = inputs(num_frames)
    talker = runpy.run_path(str(example))["Talker"](exported[1])
    assert 2 * talker.about["frames_around"] + 57 < num_frames  # so that no chunk sees everything
    whole, parts = (
        talker.weights(features[0].numpy(), phones[0].numpy(), chunk=chunk) for chunk in (1000, 57)
    )
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_the_file_says_what_an_engine_must_know(exported):
    import onnxruntime

    model, path = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    stored = session.get_modelmeta().custom_metadata_map
    about = {name: json.loads(value) for name, value in stored.items()}
    assert about["shape_names"] == list(model.config.shape_names)
    assert about["frames_per_second"] == 50
    assert about["phones"][0] == "SIL"
    np.testing.assert_allclose(about["styles"]["neutral"], model.neutral_style()[0])
    assert about["styles"]["loud"] == [0.5] * 16
    assert [value.shape[2:] for value in session.get_outputs()] == [[52]]


@pytest.mark.parametrize("level", [0.3, 1e-6, 0.0])
def test_the_manuals_features_are_the_backends(example, level):
    generator = np.random.default_rng(0)
    times = np.arange(8 * 16000 + 77) / 16000
    samples = level * np.sin(2000 * times) * np.sin(5 * times) * (times > 3)
    samples = (samples + 1e-3 * level * generator.standard_normal(len(times))).astype(np.float32)
    made = runpy.run_path(str(example))["features_of"](samples)
    np.testing.assert_allclose(made, stacked_log_mel(samples), atol=2e-3)


def test_the_manuals_program_runs(exported, example, tmp_path):
    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        noise = np.random.default_rng(0).normal(0, 3000, 16000)
        file.writeframes(noise.astype("<i2").tobytes())
    done = subprocess.run(
        [sys.executable, example, exported[1], tmp_path / "speech.wav"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("50 frames at 50 a second\nthe jaw opens to ")


def test_models_without_a_sound_path_are_refused(tmp_path):
    checkpoint.save(tmp_path / "one", build(replace(TINY, modes=("autoregressive",))), card="")
    with pytest.raises(UserError, match="decode in parallel"):
        onnx_export.export(tmp_path / "one", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_the_manual_states_the_bundled_models_numbers():
    text = (ROOT / "docs" / "export.md").read_text("utf-8")
    model = checkpoint.load(bundled.BASE_CHECKPOINT)
    about = onnx_export._metadata(model, bundled.BASE_CHECKPOINT)
    around, seconds = re.search(r"`frames_around`\s\((\d+),\s(\d+)\ss\)", text).groups()
    assert int(around) == json.loads(about["frames_around"])
    assert int(seconds) == round(int(around) / model.config.motion_fps)
    assert f"`(1, T, {model.config.speech.input_dim})`" in text
    assert f"`(1, T, {len(model.config.shape_names)})`" in text
    assert f"`(1, {model.neutral_style().shape[-1]})`" in text
    # The parameters of the sound path as float32, and the graph with its tables beside them.
    parts = (model.speech_content, model.decoder, model.output_layer)
    parameters_mb = sum(p.numel() for part in parts for p in part.parameters()) * 4 / 1e6
    stated_mb = int(re.search(r"about\s(\d+)\sMB", text)[1])
    assert parameters_mb <= stated_mb <= 1.5 * parameters_mb


def test_the_manuals_hearing_is_that_of_the_product(spoken):
    folder = bundled.moonshine_folder()
    if folder is None:
        pytest.skip("Moonshine is not there")
    text = (ROOT / "docs" / "export.md").read_text("utf-8")
    program: dict = {}
    exec(text.split("```python\n")[2].split("```")[0], program)
    sound = prepare_sound(spoken.samples.astype(np.float32))
    features = stacked_log_mel(spoken.samples.astype(np.float32))
    paths = (
        folder / "encoder_model.ort",
        bundled.PHONE_HEAD_GRAPH,
        bundled.BASE_CHECKPOINT / "hear.onnx",
    )
    samples = sound.astype(np.float32) / 32768
    found = program["phone_ids"](samples, features, *map(program["session"], paths))
    engine = open_engine(bundled.BASE_CHECKPOINT, "onnx")
    phones = recognise_phones(sound, engine.hear(features, lambda: False))
    expected = phone_frames(phones, len(found), 50.0, source="given")
    # The product hears a segment from its first sound to its last, the manual's program all of it.
    assert np.mean(found == expected) > 0.95
    assert len(set(found)) > 10
