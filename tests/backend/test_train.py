# SPDX-License-Identifier: GPL-3.0-or-later
"""Training from speech to a checkpoint, with the tiny preset on made-up recordings."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from backend import checkpoint
from backend.data import batches
from backend.data.dataset import open_speech
from backend.data.styles import Style
from backend.protocol import JobError
from backend.train import TrainArguments, main

_SPEC = importlib.util.spec_from_file_location(
    "speech_samples", Path(__file__).with_name("test_dataset.py")
)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return samples.write_recordings(tmp_path_factory.mktemp("speech") / "recordings")


def arguments(folder, run, **changes):
    settings = {
        "preset": "tiny",
        "phone_steps": 6,
        "word_steps": 2,
        "style_steps": 2,
        "motion_steps": 9,
        "batch_size": 4,
        "threads": 1,
    }
    return TrainArguments(data=(folder,), run=run, **(settings | changes))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    return run, main(arguments(folder, run))


def test_a_run_ends_in_a_checkpoint_that_loads(trained):
    run, made = trained
    model = checkpoint.load(run / "checkpoint")
    assert {"phones", "words", "styles", "motions"} == set(made.figures)
    for name, value in model.state_dict().items():
        assert torch.isfinite(value).all(), name
    card = (run / "checkpoint" / "README.md").read_text()
    assert made.data.fingerprint in card
    assert "--preset tiny" in card
    assert len(json.loads((run / "checkpoint" / "styles.json").read_text())) >= 5


def test_every_loss_term_is_logged(trained):
    run, _ = trained
    lines = [json.loads(line) for line in (run / "motions-log.jsonl").read_text().splitlines()]
    judged = [line for line in lines if "score" in line]
    assert judged
    assert {"closures_f1_nothing", "opening_truth", "style_error_ratio"} <= judged[0].keys()


def test_the_same_seed_gives_the_same_model_and_another_does_not(folder, trained, tmp_path):
    _, made = trained
    again = main(arguments(folder, tmp_path / "again"))
    other = main(arguments(folder, tmp_path / "other", seed=1))
    first = made.model.state_dict()
    assert all(torch.equal(value, first[name]) for name, value in again.model.state_dict().items())
    assert any(
        not torch.equal(value, first[name]) for name, value in other.model.state_dict().items()
    )


def test_loss_falls(folder, tmp_path):
    main(arguments(folder, tmp_path, phone_steps=60, word_steps=1, style_steps=1, motion_steps=1))
    lines = [json.loads(line) for line in (tmp_path / "phones-log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]


def test_a_bad_data_folder_is_one_clear_sentence(tmp_path):
    with pytest.raises(JobError, match="holds no speech to train on"):
        main(arguments(tmp_path, tmp_path / "run"))


def test_a_preset_for_captured_data_is_refused(folder, tmp_path):
    with pytest.raises(JobError, match="take base or tiny"):
        main(arguments(folder, tmp_path, preset="vocaset"))


def test_a_motion_batch_shows_styles_by_other_clips_and_hides_the_neutral(folder, tmp_path):
    data = open_speech([folder], tmp_path)
    recipe = batches.MotionRecipe(batch_size=32, num_frames=60, num_styles=3)
    batch, vectors = batches.motion_batch(data, recipe, seed=0, number=0)
    again, _ = batches.motion_batch(data, recipe, seed=0, number=0)
    assert torch.equal(batch.motion, again.motion)
    shown = batch.style_motion_lengths > 0
    assert 0 < int((~shown).sum()) < 32
    assert (batch.speaker[~shown] == -1).all()
    assert (vectors[~shown] == 0).all()
    assert int(batch.speaker.max()) < 3
    assert (batch.phones == 0).all(dim=1).any()
    frames = torch.arange(batch.phone_targets.shape[1])
    padding = frames[None] >= batch.speech_lengths[:, None]
    assert (batch.phone_targets[padding] == batches.IGNORED).all()


def test_misheard_phones_stay_in_order_of_time(folder, tmp_path):
    import numpy as np

    clip = open_speech([folder], tmp_path).train[0]
    for seed in range(20):
        heard = batches.misheard(clip.phones, np.random.default_rng(seed))
        ends = [phone.end_seconds for phone in heard]
        starts = [phone.start_seconds for phone in heard]
        assert all(start < end for start, end in zip(starts, ends, strict=True))
        assert all(end <= start + 1e-9 for end, start in zip(ends[:-1], starts[1:], strict=True))


def test_training_and_test_styles_differ():
    trained_on = {tuple(style.to_vector()) for style in batches.training_styles(64)}
    unseen = {tuple(style.to_vector()) for style in batches.unseen_styles(32)}
    assert len(trained_on) == 64
    assert len(unseen) == 32
    assert not trained_on & unseen
    assert tuple(Style.neutral().to_vector()) not in trained_on
