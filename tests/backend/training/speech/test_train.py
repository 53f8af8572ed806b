# SPDX-License-Identifier: GPL-3.0-or-later
"""Training from speech to a checkpoint, with the tiny preset on made-up recordings."""

import dataclasses
import json
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from backend.articulation.speaking_style import (
    STYLE_DIM,
    SpeakingStyle,
    training_styles,
    unseen_styles,
    validation_styles,
)
from backend.cli.main import main as command
from backend.data.speech import batches
from backend.data.speech.dataset import open_speech
from backend.errors import UserError
from backend.heads.lip_measures import measured_demo_head
from backend.model import checkpoint
from backend.model.checkpoint_files import commands_of
from backend.model.config import LossWeights
from backend.model.presets import PRESETS
from backend.model.surgery import with_deeper_speech_encoder
from backend.training import loop
from backend.training.speech import train
from backend.training.speech.init import new_model
from backend.training.speech.stage_motion import WEIGHTS, MotionTrainingModule, geometry_of
from backend.training.speech.stage_styles import fit_style_maps
from backend.training.speech.train import TrainArguments, main
from tests.backend.data.speech.samples import write_recordings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_recordings(tmp_path_factory.mktemp("speech") / "recordings")


def arguments(folder, run, **changes):
    settings = {
        "preset": "tiny",
        "phone_steps": 6,
        "word_steps": 2,
        "style_steps": 2,
        "lip_steps": 2,
        "motion_steps": 9,
        "batch_size": 4,
        "threads": 1,
    }
    return TrainArguments(data=(folder,), run=run, **(settings | changes))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_LOG_EVERY", 1)
        return run, main(arguments(folder, run))


def test_a_run_ends_in_a_checkpoint_that_loads(trained):
    run, made = trained
    model = checkpoint.load(run / "checkpoint")
    assert {"phones", "words", "styles", "lips", "motions"} == set(made.metrics)
    for name, value in model.state_dict().items():
        assert torch.isfinite(value).all(), name
    card = (run / "checkpoint" / "README.md").read_text()
    assert made.data.fingerprint in card
    assert "--preset tiny" in card
    assert len(json.loads((run / "checkpoint" / "styles.json").read_text())) >= 5


def test_every_loss_term_is_logged(trained):
    run, _ = trained
    lines = [json.loads(line) for line in (run / "motions-log.jsonl").read_text().splitlines()]
    logged = set().union(*lines)
    assert {item.name for item in dataclasses.fields(LossWeights)} <= logged
    assert {"style_dimensions", "style_numbers"} <= logged
    scored = next(line for line in lines if "score" in line)
    assert {"closures_f1_phones_none", "opening_phones_given", "style_error_ratio"} <= scored.keys()


def test_the_same_seed_gives_the_same_model_and_another_does_not(folder, trained, tmp_path):
    _, made = trained
    again = main(arguments(folder, tmp_path / "again"))
    other = main(arguments(folder, tmp_path / "other", seed=1))
    first = made.model.state_dict()
    assert all(torch.equal(value, first[name]) for name, value in again.model.state_dict().items())
    assert any(
        not torch.equal(value, first[name]) for name, value in other.model.state_dict().items()
    )


def test_two_processes_train_the_same_model_as_one(folder, trained, tmp_path):
    _, made = trained
    steps = {"phone": 6, "word": 2, "style": 2, "lip": 2, "motion": 9}
    status = command([
        "train", "--preset", "tiny", "--data", str(folder), "--run", str(tmp_path / "run"),
        "--batch-size", "4", "--threads", "1", "--processes", "2",
        *(word for name, number in steps.items() for word in (f"--{name}-steps", str(number))),
    ])  # fmt: skip
    assert status == 0
    found = checkpoint.load(tmp_path / "run" / "checkpoint").state_dict()
    for name, value in made.model.state_dict().items():
        torch.testing.assert_close(found[name].float(), value.float(), rtol=2e-3, atol=1e-4)


def test_without_a_part_another_model_is_trained(folder, trained, tmp_path):
    _, made = trained
    parts = ("graph-attention", "cross-attention", "alignment-losses", "disentanglement")
    bare = main(arguments(folder, tmp_path, word_steps=1, motion_steps=7, without=parts))
    assert bare.model.config.motion_encoder == bare.model.config.alignment == "linear"
    assert made.model.config.motion_encoder == "graph"
    assert "--without graph-attention cross-attention" in bare.command


def test_a_run_goes_on_from_a_checkpoint(folder, trained, tmp_path):
    run, made = trained
    changes = {"phone_steps": 2, "word_steps": 0, "motion_steps": 3, "seed": 1}
    further = main(arguments(folder, tmp_path / "run", start_from=(run / "checkpoint",), **changes))
    assert set(further.metrics) == {"phones", "lips", "motions"}
    card = (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    assert card.index(made.command) < card.index("--start-from CHECKPOINT")
    begun = checkpoint.load(run / "checkpoint").state_dict()
    fresh = main(
        arguments(folder, tmp_path / "fresh", **changes | {"word_steps": 1})
    ).model.state_dict()
    found = further.model.state_dict()
    name = "decoder.layers.0.feed_forward.0.weight"
    moved = (found[name] - begun[name]).norm()
    assert 0.0 < moved < 0.2 * (fresh[name] - begun[name]).norm()


def test_motion_stage_of_a_pretrained_model_freezes_its_speech_encoder(folder, trained, tmp_path):
    run, _ = trained
    steps = {"phone_steps": 0, "word_steps": 0, "motion_steps": 3, "seed": 1}
    further = main(arguments(folder, tmp_path, start_from=(run / "checkpoint",), **steps))
    begun, found = checkpoint.load(run / "checkpoint").state_dict(), further.model.state_dict()

    def moved(part):
        names = [name for name in found if name.startswith(part)]
        return max(float((found[name] - begun[name]).abs().max()) for name in names)

    for part in ("encoder.", "phone_embedding.", "phones."):
        assert moved("speech_content." + part) == 0.0, part
    assert moved("speech_content.content.") > 0.0
    assert moved("decoder.") > 0.0


def test_the_mean_of_checkpoints_is_written_without_a_stage(folder, trained, tmp_path):
    run, _ = trained
    begun = run / "checkpoint"
    changes = {"phone_steps": 2, "word_steps": 0, "lip_steps": 0, "motion_steps": 0, "seed": 1}
    main(arguments(folder, tmp_path / "further", start_from=(begun,), **changes))
    both = (begun, tmp_path / "further" / "checkpoint")
    mean = main(
        arguments(folder, tmp_path / "mean", start_from=both, **changes | {"phone_steps": 0})
    )
    name = "speech_content.phones.weight"
    first, second = (checkpoint.load(path).state_dict()[name] for path in both)
    assert (first - second).norm() > 0.0
    assert mean.model.state_dict()[name] == pytest.approx((first + second) / 2, abs=1e-6)
    assert len(commands_of(tmp_path / "mean" / "checkpoint")) == 3


def test_the_mean_of_checkpoints_of_two_trainings_is_refused(folder, trained, tmp_path):
    run, _ = trained
    apart = tmp_path / "apart"
    shutil.copytree(run / "checkpoint", apart)
    config = json.loads((apart / "config.json").read_text())
    config["training"]["command"] += " --seed 7"
    (apart / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not come from one training"):
        main(arguments(folder, tmp_path / "run", start_from=(run / "checkpoint", apart)))


def test_a_checkpoint_of_another_config_is_refused_as_a_start(folder, trained, tmp_path):
    run, _ = trained
    with pytest.raises(UserError, match="built otherwise than the preset tiny"):
        main(
            arguments(
                folder, tmp_path, start_from=(run / "checkpoint",), without=("cross-attention",)
            )
        )


def test_a_run_goes_on_with_a_deeper_speech_encoder(folder, trained, tmp_path, monkeypatch):
    run, _ = trained
    tiny = PRESETS["tiny"]
    deeper = dataclasses.replace(tiny, speech=dataclasses.replace(tiny.speech, num_layers=3))
    monkeypatch.setitem(PRESETS, "tiny", deeper)
    steps = {"phone_steps": 1, "word_steps": 0, "motion_steps": 0}
    main(arguments(folder, tmp_path / "run", start_from=(run / "checkpoint",), **steps))
    assert checkpoint.load(tmp_path / "run" / "checkpoint").config == deeper
    both = (run / "checkpoint", tmp_path / "run" / "checkpoint")
    mean = checkpoint.load_mean(both)
    assert mean.config == deeper
    name = "decoder.layers.0.feed_forward.0.weight"
    begun, made = (checkpoint.load(path).state_dict()[name] for path in both)
    assert made == pytest.approx(begun, abs=1e-3)
    assert mean.state_dict()[name] == pytest.approx((begun + made) / 2, abs=1e-6)


def test_a_deeper_speech_encoder_has_the_same_output_until_it_is_trained(trained):
    _, made = trained
    model, tiny = made.model.eval(), PRESETS["tiny"]
    torch.manual_seed(0)
    for layer in model.speech_content.encoder.encoder.layers:  # as after long training
        torch.nn.init.normal_(layer.final_layer_norm.weight, 1.0, 0.3)
        torch.nn.init.normal_(layer.final_layer_norm.bias, 0.0, 0.3)
    for num_layers in (3, 4):
        speech = dataclasses.replace(tiny.speech, num_layers=num_layers)
        extended = with_deeper_speech_encoder(model, dataclasses.replace(tiny, speech=speech))
        assert len(extended.speech_content.encoder.encoder.layers) == num_layers
        sound, lengths = torch.randn(2, 60, speech.input_dim), torch.tensor([60, 41])
        with torch.no_grad():
            before = model.speech_content(sound, lengths)
            after = extended.speech_content(sound, lengths)
        torch.testing.assert_close(after.features, before.features, rtol=1e-3, atol=1e-4)
        extended.speech_content(sound, lengths).features.square().sum().backward()
        new = extended.speech_content.encoder.encoder.layers[1].ffn1.output_dense.weight
        assert new.grad.norm() > 0.0


def test_speech_encoders_are_extended_in_depth_only(trained):
    _, made = trained
    tiny = PRESETS["tiny"]
    for changes in ({"num_layers": 1}, {"num_layers": 5}, {"num_layers": 3, "ff_size": 64}):
        wanted = dataclasses.replace(tiny, speech=dataclasses.replace(tiny.speech, **changes))
        with pytest.raises(ValueError, match="up to twice as many"):
            with_deeper_speech_encoder(made.model, wanted)


def test_a_new_model_needs_every_stage(folder, tmp_path):
    for steps in ({"word_steps": 0}, {"motion_steps": 0}, {"phone_steps": -1}):
        with pytest.raises(UserError, match="every stage 1 step or more"):
            main(arguments(folder, tmp_path, **steps))


@pytest.mark.parametrize("is_pretrained", [False, True])
def test_every_stage_takes_its_batches_to_where_the_model_is(
    folder, tmp_path, monkeypatch, is_pretrained
):
    """As on a graphics card; torch's ``meta`` is a device whose tensors mix with no others."""
    device = torch.device("meta")
    accelerator = SimpleNamespace(
        device=device,
        num_processes=1,
        prepare=lambda module, *optimizers: (module.to(device), *optimizers),
    )
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no "meta"
    data, mouth = open_speech((folder,), tmp_path / "cache"), measured_demo_head()
    model = new_model(PRESETS["tiny"], mouth)
    training_module = MotionTrainingModule(
        model, geometry_of(mouth).to(device), WEIGHTS, is_pretrained=is_pretrained
    ).to(device)
    stages = train._stages(arguments(folder, tmp_path), training_module, data, mouth)
    names = []
    for stage in stages:
        run = loop._Run(stage, accelerator, tmp_path)
        for number in (0, 2, 12):  # a whole pass, speech alone, with swapped styles
            terms = stage.terms(run.module, number)
            assert {value.device for value in terms.values()} == {device}
        run.end()
        names.append(stage.name)
    assert names == ["phones", "words", "styles", "lips", "motions"]


def test_style_maps_predict_styles_from_codes_and_codes_from_styles(folder, trained):
    _, made = trained
    style_dim = made.model.config.style_dim
    head, codes = nn.Linear(style_dim, STYLE_DIM), nn.Linear(STYLE_DIM, style_dim)
    data = open_speech((folder,), trained[0] / "cache")
    fit_style_maps(made.model, head, codes, data, seed=0)
    recipe = batches.MotionRecipe(batch_size=60, style_frames=batches.EXEMPLAR_FRAMES)
    motion, lengths, vectors = batches.style_batch(data, recipe, seed=7, number=0)  # others
    with torch.no_grad():
        read = made.model.encode_style(motion, lengths).code
        predicted, mean = head(read), codes(vectors)
    assert (predicted - vectors).square().mean() < 0.8 * vectors.var(0).mean()
    assert (mean - read).square().mean() < 0.8 * read.var(0).mean()


def test_several_processes_report_an_error_once(tmp_path, capsys):
    words = ["train", "--preset", "tiny", "--data", str(tmp_path), "--run", str(tmp_path / "run")]
    assert command([*words, "--processes", "2"]) == 1
    assert capsys.readouterr().err.count("holds no speech to train on") == 1
    assert command([*words, "--processes", "0"]) == 1
    assert "give 1 or more" in capsys.readouterr().err


def test_loss_falls(folder, tmp_path):
    main(
        arguments(
            folder,
            tmp_path,
            phone_steps=60,
            word_steps=1,
            style_steps=1,
            lip_steps=1,
            motion_steps=1,
        )
    )
    lines = [json.loads(line) for line in (tmp_path / "phones-log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]


def test_a_bad_data_folder_is_one_clear_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no speech to train on"):
        main(arguments(tmp_path, tmp_path / "run"))


def test_a_preset_for_captured_data_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="take base or tiny"):
        main(arguments(folder, tmp_path, preset="vocaset"))


def test_training_validation_and_test_styles_differ():
    trained_on = {tuple(style.to_vector()) for style in training_styles(64)}
    chosen_by = {tuple(style.to_vector()) for style in validation_styles(24)}
    unseen = {tuple(style.to_vector()) for style in unseen_styles(32)}
    assert len(trained_on) == 64
    assert len(chosen_by) == 24
    assert len(unseen) == 32
    assert len(trained_on | chosen_by | unseen) == 120
    assert tuple(SpeakingStyle.neutral().to_vector()) not in trained_on
