# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of all stages: it learns, resumes exactly, and keeps the best on validation."""

import json

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from backend.training.loop import Stage, learning_rate_share, run_stage
from backend.training.muon import Muon, orthogonalised


def make_stage(num_steps=30):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.Tanh(), nn.Linear(16, 1))
    weights = torch.randn(4, 1)

    def terms(model, number):
        inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(number))
        return {"fit": ((model(inputs) - inputs @ weights) ** 2).mean()}

    def validate(model):
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(9999))
        return {"score": -((model(inputs) - inputs @ weights) ** 2).mean().item()}

    return Stage("toy", module, terms, validate, num_steps, 2e-2, num_validations=5)


def run(folder, **options):
    stage = make_stage()
    metrics = run_stage(stage, Accelerator(cpu=True), folder=folder, seed=0, **options)
    return stage.module.state_dict(), metrics


def test_loss_falls_and_every_term_is_logged(tmp_path):
    stage = make_stage(400)
    before = stage.validate(stage.module)["score"]
    metrics = run_stage(stage, Accelerator(cpu=True), folder=tmp_path, seed=0)
    assert metrics["score"] > 0.5 * before
    lines = [json.loads(line) for line in (tmp_path / "toy-log.jsonl").read_text().splitlines()]
    assert {"loss", "gradient_norm", "learning_rate", "fit"} <= lines[0].keys()
    assert any("score" in line for line in lines)


def test_a_resumed_run_equals_one_not_stopped(tmp_path):
    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_at=13)
    parts, _ = run(tmp_path / "parts")
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_the_same_seed_gives_the_same_weights(tmp_path):
    first, _ = run(tmp_path / "first")
    second, _ = run(tmp_path / "second")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_best_parameters_on_validation_are_kept(tmp_path):
    stage = make_stage()
    scores = iter([1.0, 5.0, 2.0, 3.0, 4.0, 0.0, 0.0])
    seen = []

    def validate(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"score": next(scores)}

    picky = Stage("toy", stage.module, stage.terms, validate, 30, 1e-2, num_validations=5)
    metrics = run_stage(picky, Accelerator(cpu=True), folder=tmp_path, seed=0)
    assert metrics["step"] == 12
    assert all(
        torch.equal(value, seen[1][name]) for name, value in picky.module.state_dict().items()
    )


def test_learning_rate_warms_up_and_ends_low():
    shares = [learning_rate_share(step, 1000) for step in range(1000)]
    assert shares[0] < 0.02
    assert max(shares) == pytest.approx(1.0)
    assert shares[-1] == pytest.approx(0.02, abs=0.001)


def test_muon_is_torchs_but_for_its_rounding():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.zeros(12, 30)) for _ in range(2))
    mine = Muon([ours], lr=0.1, weight_decay=0.02)
    torchs = torch.optim.Muon(
        [theirs], lr=0.1, weight_decay=0.02, adjust_lr_fn="match_rms_adamw", ns_steps=4
    )
    for _ in range(3):
        ours.grad = torch.randn(12, 30)
        theirs.grad = ours.grad.clone()
        mine.step()
        torchs.step()
    apart = (ours - theirs).norm() / theirs.norm()
    assert 0.0 < float(apart.detach()) < 0.03  # bfloat16 knows three digits
    with pytest.raises(ValueError, match="matrices"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1, weight_decay=0.0)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix, 5))
    assert values.min() > 0.5
    assert values.max() < 1.5
