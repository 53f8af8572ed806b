# SPDX-License-Identifier: GPL-3.0-or-later
"""Training on captured faces, from prepared folders that are made here to checkpoints."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import HubertConfig, HubertModel

from backend.cli.main import main as command
from backend.cli.train import PARTS
from backend.data.captures.batches import EncodedSpeech
from backend.data.captures.prepare import prepare
from backend.errors import UserError
from backend.model import checkpoint
from backend.model.presets import PRESETS
from backend.training.ablations import without
from backend.training.captures.speech_encoder import frozen_speech_encoder
from backend.training.captures.train import WEIGHTS, CaptureTrainArguments, main
from backend.training.captures.validate import predicted
from backend.training.loop import Stage, run_stage
from tests.backend.training.captures.samples import V, write_captures


@pytest.fixture(autouse=True)
def fresh_accelerate_each_time():
    """Tests here ask for other precisions."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("captures")
    prepare("folder", write_captures(root / "raw"), root / "set")
    return root / "set"


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    """A HuBERT built like the large one, with random weights, as a user has it on disk."""
    torch.manual_seed(0)
    model = HubertModel(
        HubertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=16,
            feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True,
        )
    )  # fmt: skip
    place = tmp_path_factory.mktemp("encoders") / "hubert"
    model.save_pretrained(place)
    return place


def arguments(folder, run, encoder, **changes):
    settings = {
        "preset": "vocaset", "small": True, "steps": 6, "batch_size": 4, "validations": 2,
        "threads": 1, "precision": "no",
    }  # fmt: skip
    return CaptureTrainArguments(
        data=folder, run=run, speech_encoder=str(encoder), **(settings | changes)
    )


@pytest.fixture(scope="module")
def trained(folder, tiny_checkpoint, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    return run, main(arguments(folder, run, tiny_checkpoint, steps=20))


def test_a_run_ends_in_a_checkpoint_with_a_card(trained):
    run, made = trained
    model = checkpoint.load(run / "checkpoint")
    assert model.config.speakers == ("anna", "ben")
    assert (model.config.num_vertices, model.config.motion_fps) == (V, 30.0)
    for name, value in made.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    card = (run / "checkpoint" / "README.md").read_text()
    for words in (made.data.content_hash, "--preset vocaset", "seed 0", "8 train", "vertex error"):
        assert words in card
    training = json.loads((run / "checkpoint" / "config.json").read_text())["training"]
    assert training["data_fingerprint"] == made.data.content_hash
    assert training["sequences"] == {"train": 8, "validation": 2, "test": 2}


def test_every_term_and_gradient_norm_is_logged_and_drawn(trained):
    run, _ = trained
    lines = [json.loads(line) for line in (run / "captures-log.jsonl").read_text().splitlines()]
    seen = set().union(*lines)
    assert {"reconstruction", "motion_branch", "contrastive", "divergence", "adversary",
            "orthogonality", "style_contrast", "style_consistency", "cycle"} <= seen  # fmt: skip
    assert {"gradient_norm", "gradient_norm_decoder", "gradient_norm_motion_style"} <= seen
    assert any("vertex_error_mm" in line for line in lines)
    assert list((run / "tensorboard").glob("events*"))
    for picture in ("curves.png", "sample.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")


def test_a_stopped_run_goes_on_to_the_same_weights(folder, tiny_checkpoint, tmp_path):
    whole = main(arguments(folder, tmp_path / "whole", tiny_checkpoint))
    main(arguments(folder, tmp_path / "parts", tiny_checkpoint, stop_at=4))
    parts = main(arguments(folder, tmp_path / "parts", tiny_checkpoint))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name


def test_two_processes_train_the_same_model_as_one(folder, tiny_checkpoint, tmp_path):
    options = [
        "--preset", "vocaset", "--data", str(folder), "--speech-encoder", str(tiny_checkpoint),
        "--small", "--steps", "6", "--validations", "2", "--accumulate", "2", "--threads", "1",
    ]  # fmt: skip
    weights = []
    for processes in ("1", "2"):
        run = tmp_path / processes
        assert command(["train", *options, "--run", str(run), "--processes", processes]) == 0
        weights.append(checkpoint.load(run / "checkpoint").state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)


def test_a_model_overfits_eight_sequences(folder, tmp_path):
    made = main(
        arguments(folder, tmp_path, "base", steps=350, batch_size=8, validations=1,
                  learning_rate=8e-3)
    )  # fmt: skip
    encoded = EncodedSpeech(
        made.data, tmp_path / "encoded-again", *frozen_speech_encoder(made.model)
    )
    clips = made.data.split("train")
    encoded.fill(clips, lambda done, total: None)
    distances_mm = [
        1000.0 * np.linalg.norm(
            predicted(made.model, encoded, made.data, clip, 1.0) - made.data.offsets(clip), axis=-1
        ).mean()
        for clip in clips
    ]  # fmt: skip
    assert len(clips) == 8
    at_rest = [1000.0 * np.linalg.norm(made.data.offsets(c), axis=-1).mean() for c in clips]
    assert np.mean(at_rest) > 5.0
    assert np.mean(distances_mm) < 0.5


@pytest.mark.parametrize("part", PARTS)
def test_each_part_can_be_left_out(folder, tiny_checkpoint, tmp_path, part):
    made = main(arguments(folder, tmp_path, tiny_checkpoint, steps=2, without=(part,)))
    config = made.model.config
    assert (config.motion_encoder == "linear") == (part == "graph-attention")
    assert (config.alignment == "linear") == (part == "cross-attention")
    assert f"--without {part}" in (tmp_path / "checkpoint" / "README.md").read_text()


def test_losses_are_left_out_by_their_factors():
    config, weights = without(PRESETS["vocaset"], WEIGHTS, ["alignment-losses"])
    assert (weights.contrastive, weights.divergence) == (0.0, 0.0)
    assert weights.orthogonality > 0.0
    _, weights = without(config, weights, ["disentanglement"])
    assert (weights.orthogonality, weights.adversary) == (0.0, 0.0)
    with pytest.raises(UserError, match="no part 'glue'"):
        without(config, weights, ["glue"])


def test_a_run_folder_is_not_continued_with_other_options(folder, tiny_checkpoint, tmp_path):
    main(arguments(folder, tmp_path, tiny_checkpoint, stop_at=1))
    with pytest.raises(UserError, match="run of other options"):
        main(arguments(folder, tmp_path, tiny_checkpoint, seed=1))


def test_training_ends_when_validation_gets_no_better(tmp_path):
    scores = [1.0, 3.0, 2.0, 2.5, 9.0, 9.0]
    scored = []

    def validate(_):
        scored.append(scores[len(scored)])
        return {"score": scored[-1]}

    module = torch.nn.Linear(2, 1)
    stage = Stage(
        "toy", module, lambda model, _: {"fit": model(torch.ones(1, 2)).square().sum()}, validate,
        num_steps=60, learning_rate=1e-3, num_validations=6, patience=2,
    )  # fmt: skip
    for _ in range(2):  # the second time there is nothing left to do
        metrics = run_stage(stage, Accelerator(cpu=True), folder=tmp_path, seed=0)
        assert metrics["step"] == 20
        assert scored == scores[:4]


@pytest.mark.parametrize("freeze", ["everything", "convolutions"])
def test_output_of_a_frozen_hubert_from_a_folder_is_cached(folder, hubert, tmp_path, freeze):
    made = main(arguments(folder, tmp_path / "run", hubert, steps=2, freeze=freeze))
    assert made.model.config.speech.hidden_size == 16
    assert made.model.config.num_phone_ids == 1
    kept = list(tmp_path.rglob("*.speech.npy"))
    encoder = made.model.speech_content.encoder.state_dict()
    before = HubertModel.from_pretrained(hubert).state_dict()
    stays = all(torch.equal(value, encoder[name]) for name, value in before.items())
    assert stays == (freeze == "everything")
    assert len(kept) == (10 if freeze == "everything" else 0)
    if kept:
        assert np.load(kept[0]).shape[1] == 16
    checkpoint.load(tmp_path / "run" / "checkpoint")


@pytest.mark.parametrize("preset", ["faceformer", "regression"])
def test_peers_are_trained_on_motion_alone(folder, tiny_checkpoint, tmp_path, preset):
    made = main(arguments(folder, tmp_path, tiny_checkpoint, preset=preset, steps=20))
    lines = [
        json.loads(line) for line in (tmp_path / "captures-log.jsonl").read_text().split("\n")[:-1]
    ]
    terms = set().union(*lines)
    assert "velocity" in terms
    assert not {"contrastive", "adversary", "cycle", "motion_branch"} & terms
    assert made.model.config.modes == (
        ("autoregressive",) if preset == "faceformer" else ("parallel",)
    )
    assert np.isfinite(made.metrics["vertex_error_mm"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "base"}, "not made for captured faces"),
        ({"speech_encoder": "nowhere"}, "no speech encoder"),
        ({"batches_per_step": 0}, "1 or more"),
    ],
)
def test_impossible_options_are_one_clear_sentence(
    folder, tiny_checkpoint, tmp_path, changes, words
):
    wanted = replace(arguments(folder, tmp_path, tiny_checkpoint), **changes)
    with pytest.raises(UserError, match=words):
        main(wanted)


def test_options_of_the_other_kind_are_refused(folder, tmp_path, capsys):
    flags = ["train", "--data", str(folder), "--run", str(tmp_path)]
    assert command([*flags, "--preset", "vocaset", "--phone-steps", "3"]) == 1
    assert "no option --phone-steps" in capsys.readouterr().err
