# SPDX-License-Identifier: GPL-3.0-or-later
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertModel

from backend.errors import UserError
from backend.model import checkpoint
from backend.model.content_encoders import build_speech_encoder
from backend.model.generate import generate
from backend.model.presets import PRESETS
from backend.model.pretrained_encoder import load_published_weights
from tests.backend.model.samples import SMALL_HUBERT, build, small


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(tmp_path / "saved", build(PRESETS["tiny"]), card="# A card\n")
    return tmp_path / "saved"


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.load(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["tiny", "vocaset"])
def test_round_trip_is_exact(name, tmp_path):
    model = build(small(PRESETS[name]), lively=True)
    checkpoint.save(tmp_path, model, card="# A card\n", training={"split": ["a", "b"]})
    loaded = checkpoint.load(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    assert (tmp_path / "README.md").read_text() == "# A card\n"
    assert json.loads((tmp_path / "config.json").read_text())["training"] == {"split": ["a", "b"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_loaded_model_generates_the_same(tmp_path):
    model = build(PRESETS["tiny"], lively=True).eval()
    checkpoint.save(tmp_path, model, card="")
    speech = torch.randn(1, 30, 160)
    made = [
        generate(each, speech, each.neutral_style(), num_frames=30)
        for each in (model, checkpoint.load(tmp_path))
    ]
    torch.testing.assert_close(*made, rtol=0, atol=1e-5)


def test_loaded_model_can_be_trained_on(folder):
    loaded = checkpoint.load(folder).train()
    trained = {name for name, value in loaded.named_parameters() if value.requires_grad}
    every = {name for name, _ in loaded.named_parameters()}
    assert every - trained == {"motion_style.components.weight"}  # the lip reader relies on it


def test_half_size_keeps_the_motion_within_a_thousandth(tmp_path):
    model = build(PRESETS["tiny"], lively=True).eval()
    checkpoint.save(tmp_path / "whole", model, card="")
    checkpoint.save(tmp_path / "half", model, card="", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.65 * sizes[0]
    loaded = checkpoint.load(tmp_path / "half")
    speech, style = torch.randn(1, 30, 160), model.neutral_style()
    expected = generate(model, speech, style, num_frames=30)
    found = generate(loaded, speech, loaded.neutral_style(), num_frames=30)
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    torch.testing.assert_close(loaded.graph_encoder.basis, model.graph_encoder.basis)


def test_bundled_size_is_below_twenty_megabytes(tmp_path):
    checkpoint.save(tmp_path, build(PRESETS["base"]), card="", half=True)
    assert (tmp_path / "model.safetensors").stat().st_size < 20_000_000


def test_missing_folder_is_named(tmp_path):
    assert "nowhere" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert name in refusal(folder)


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "{}", '{"format": "ptalker-checkpoint"}', "[" * 100_000, "\0"]
)
def test_damaged_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder)


def test_config_of_nonsense_is_refused_with_the_reason(folder):
    model = json.loads((folder / "config.json").read_text())["model"]
    edit_config(folder, model=model | {"feature_dim": -4})
    assert "feature_dim is -4" in refusal(folder)


@pytest.mark.parametrize(("step", "remedy"), [(1, "Update PTalker"), (-1, "Train it anew")])
def test_another_version_says_what_to_do(folder, step, remedy):
    edit_config(folder, format_version=checkpoint.FORMAT_VERSION + step)
    assert remedy in refusal(folder)


def test_other_format_is_refused(folder):
    edit_config(folder, format="something")
    assert "something" in refusal(folder)


def test_checkpoint_with_older_names_loads_strictly(folder):
    expected = checkpoint.load(folder)
    older = {"output_layer.": "head.", "speech_content.phone_context.": "speech_content.spans."}

    def rename(weights):
        for name in list(weights):
            for new, old in older.items():
                if name.startswith(new):
                    weights[old + name.removeprefix(new)] = weights.pop(name)

    change_weights(folder, rename)
    model = json.loads((folder / "config.json").read_text())["model"]
    model["span_width"] = model.pop("phone_context_width")
    edit_config(folder, model=model)
    loaded = checkpoint.load(folder)
    assert loaded.config == expected.config
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    part = checkpoint.load_part(folder, "speech_content.phone_context.")
    assert set(part) == {
        f"speech_content.phone_context.{name}"
        for name in ("enter.weight", "enter.bias", "leave.weight", "leave.bias")
    }


@pytest.mark.parametrize("kept", [0, 7, 1000, -1000])
def test_truncated_weights_are_refused(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "damaged" in refusal(folder)


def test_garbage_for_weights_is_refused(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 5000)
    assert "damaged" in refusal(folder)


def change_weights(folder, change) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def test_missing_weight_is_refused(folder):
    change_weights(folder, lambda weights: weights.pop("output_layer.bias"))
    assert "output_layer.bias" in refusal(folder)


def test_weight_too_many_is_refused(folder):
    change_weights(folder, lambda weights: weights.update(extra=torch.zeros(1)))
    assert "extra" in refusal(folder)


def test_weight_of_another_shape_is_refused(folder):
    change_weights(folder, lambda weights: weights.update({"output_layer.bias": torch.zeros(7)}))
    assert "output_layer.bias has shape (7,), expected (52,)" in refusal(folder)


@pytest.mark.parametrize(
    "value", [torch.full((52,), torch.nan), torch.zeros(52, dtype=torch.int64)]
)
def test_weights_that_are_no_numbers_are_refused(folder, value):
    change_weights(folder, lambda weights: weights.update({"output_layer.bias": value}))
    assert "output_layer.bias" in refusal(folder)


def test_config_that_asks_for_terabytes_takes_no_memory(folder):
    model = json.loads((folder / "config.json").read_text())["model"]
    edit_config(folder, model=model | {"decoder_ff": 10**10})
    assert "too large" in refusal(folder)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = build(PRESETS["tiny"])
    with torch.no_grad():
        model.output_layer.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"output_layer\.bias"):
        checkpoint.save(tmp_path, model, card="", half=True)
    assert not (tmp_path / "config.json").exists()


def published_encoder(folder):
    """A folder as the hub has it, of a HuBERT that a test can afford."""
    torch.manual_seed(5)
    encoder = build_speech_encoder(SMALL_HUBERT)
    encoder.save_pretrained(folder)
    return encoder


def test_published_weights_are_loaded_from_a_folder(tmp_path):
    published = published_encoder(tmp_path)
    model = build(small(PRESETS["vocaset"]))
    load_published_weights(model.speech_content.encoder, str(tmp_path), "")
    for name, value in published.state_dict().items():
        torch.testing.assert_close(model.speech_content.encoder.state_dict()[name], value)
    assert isinstance(model.speech_content.encoder, HubertModel)


def test_published_weights_of_other_sizes_are_refused(tmp_path):
    build_speech_encoder(replace(SMALL_HUBERT, hidden_size=64)).save_pretrained(tmp_path)
    model = build(small(PRESETS["vocaset"]))
    with pytest.raises(ValueError, match="does not fit"):
        load_published_weights(model.speech_content.encoder, str(tmp_path), "")


def test_frozen_published_encoder_is_named_and_not_saved(tmp_path):
    published = published_encoder(tmp_path / "hub")
    speech = replace(
        SMALL_HUBERT, frozen="everything", hub_id=str(tmp_path / "hub"), revision="main"
    )
    model = build(replace(small(PRESETS["vocaset"]), speech=speech))
    checkpoint.save(tmp_path / "saved", model, card="")
    assert not any(
        name.startswith("speech_content.encoder.")
        for name in load_file(tmp_path / "saved" / "model.safetensors")
    )
    loaded = checkpoint.load(tmp_path / "saved")
    for name, value in published.state_dict().items():
        torch.testing.assert_close(loaded.speech_content.encoder.state_dict()[name], value)
    assert not any(p.requires_grad for p in loaded.speech_content.encoder.parameters())


def test_published_encoder_out_of_reach_is_named(tmp_path, monkeypatch):
    speech = replace(SMALL_HUBERT, frozen="everything", hub_id="nobody/has-this", revision="main")
    checkpoint.save(tmp_path, build(replace(small(PRESETS["vocaset"]), speech=speech)), card="")

    def offline(*_args: object, **_settings: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(HubertModel, "from_pretrained", offline)
    assert "nobody/has-this" in refusal(tmp_path)
