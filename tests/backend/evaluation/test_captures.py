# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation on captured faces: reports, protocols and refusals, on a mesh of 30 points."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from backend.cli.main import main
from backend.data.captures import prepared
from backend.data.captures.synthetic import prepare_synthetic
from backend.errors import UserError
from backend.evaluation.captures import CaptureArguments
from backend.evaluation.captures import main as evaluate
from backend.evaluation.results import METRICS
from backend.model import checkpoint
from backend.model.graph_encoder import coarse_mesh_graph
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from tests.backend.data.captures.samples import POINTS, write_corpus, write_set

REGIONS = {"lips": [3, 1, 2, 3], "upper_face": [10, 11, 12], "inner_lips": [1, 2]}


def write_model(folder, data, **changes):
    """An untrained model of the set's points."""
    found = prepared.open(data)
    sizes = {
        "shape_kind": "learned", "topology": "points", "shape_names": (), "num_nodes": 10,
        "num_neighbours": 3, "motion_fps": 30.0, "num_vertices": POINTS, "speakers": ("s0", "s1"),
    }  # fmt: skip
    made = dataclasses.replace(PRESETS["tiny"], **{**sizes, **changes})
    torch.manual_seed(0)
    ptalker = PTalker(made)
    head = torch.from_numpy(np.array(found.template("s0")))
    ptalker.set_graph(coarse_mesh_graph(head, torch.ones(POINTS), num_nodes=10, num_neighbours=3))
    checkpoint.save(folder, ptalker, card="For tests.")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("captures") / "set")


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    path = tmp_path_factory.mktemp("regions") / "regions.json"
    path.write_text(json.dumps(REGIONS))
    return path


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    styled = write_model(folder / "styled" / "checkpoint", data)
    plain = {"modes": ("autoregressive",), "motion_encoder": "linear", "alignment": "linear"}
    named = write_model(folder / "named" / "checkpoint", data, style_sources=("identity",), **plain)
    return styled, named


@pytest.fixture(scope="module")
def report(data, regions, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "new"
    arguments = CaptureArguments(
        checkpoints=models, data=data, regions=regions, device="cpu", out=out
    )
    return evaluate(arguments), out


def method(report, name):
    return next(one for one in report["methods"] if one["name"] == name)


def test_every_method_is_scored_on_the_same_sequences(report):
    found = report[0]
    names = [one["name"] for one in found["methods"]]
    assert names == ["styled", "named", "neutral face", "mean motion", "nearest audio"]
    assert [one["name"] for one in found["sequences"]] == [
        f"s{person}_{number}" for person in range(3) for number in (4, 5)
    ]
    for one in found["sequences"]:
        assert set(one["metrics"]) == set(names)
        assert set(one["metrics"]["styled"]) == set(METRICS)


def test_metrics_of_the_neutral_face_are_those_worked_by_hand(report, data):
    """Its largest lip error is how far the moving lip vertex is away, in millimetres."""
    found = prepared.open(data)
    wanted = [1000 * np.abs(found.offsets(one)[:, 2, 1]).mean() for one in found.split("test")]
    pooled_lve = method(report[0], "neutral face")["metrics"]["lve"]
    assert pooled_lve["value"] == pytest.approx(np.mean(wanted), rel=1e-4)
    assert pooled_lve["low"] < pooled_lve["value"] < pooled_lve["high"]
    assert pooled_lve["sequences"] == 6


def test_baselines_that_know_the_training_motion_beat_the_neutral_face(report):
    error = {name: method(report[0], name)["metrics"]["lve"]["value"]
             for name in ("neutral face", "mean motion", "nearest audio")}  # fmt: skip
    assert error["nearest audio"] < error["neutral face"]
    assert error["mean motion"] < error["neutral face"]


def test_paired_differences_are_of_the_same_sequences(report):
    found = report[0]
    pair = found["paired"][0]
    assert (pair["first"], pair["second"]) == ("styled", "named")
    apart = [one["metrics"]["named"]["lve"] - one["metrics"]["styled"]["lve"]
             for one in found["sequences"]]  # fmt: skip
    assert pair["second_minus_first"]["lve"]["value"] == pytest.approx(np.mean(apart))
    assert {one["second"] for one in found["paired"]} >= {"neutral face", "nearest audio"}


def test_style_comes_from_the_subject_or_from_another_clip(report):
    """s2 has no number in either model, and only one of them can look at another clip."""
    assert method(report[0], "styled")["style_from"] == {"identity": 4, "motion": 2}
    assert method(report[0], "named")["style_from"] == {"identity": 4, "neutral": 2}


def test_style_retrieval_finds_the_speaker_of_captured_motion(report):
    truth = report[0]["truth"]["style_retrieval"]
    assert truth["top_1"] == 100.0
    assert truth["chance"] == pytest.approx(100 / 3)


def test_time_memory_and_diversity_are_stated(report):
    one = method(report[0], "styled")
    assert one["real_time_factor"] > 0.0
    assert one["peak_memory_mb"] > 50.0
    assert one["diversity"] > 0.0
    assert method(report[0], "named")["diversity"] > 0.0


def test_the_report_is_written_and_its_first_lines_stand_alone(report):
    found, out = report
    assert json.loads((out / "report.json").read_text("utf-8")) == json.loads(json.dumps(found))
    lines = (out / "report.md").read_text("utf-8").splitlines()
    assert lines[0] == "# styled, named on folder, split test"
    head = "\n".join(lines[:9])
    assert re.search(r"\*\*styled\*\*: lip error \d+\.\d+ mm \[", head)
    assert found["protocol"]["identity"] in head
    assert "nearest audio" in head
    assert "on the same sequences" in head
    for name in ("lip_error.png", "lips_over_time.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_codetalker_protocol_pools_frames(data, regions, models, report):
    arguments = CaptureArguments(
        checkpoints=models[:1], data=data, regions=regions, device="cpu", protocol="codetalker"
    )
    found = evaluate(arguments)
    assert found["protocol"]["identity"] != report[0]["protocol"]["identity"]
    frames = [one["frames"] for one in found["sequences"]]
    errors = {name: [one["metrics"]["styled"][name] for one in found["sequences"]]
              for name in ("lve_squared", "fdd")}  # fmt: skip
    metrics = method(found, "styled")["metrics"]
    pooled_value = np.average(errors["lve_squared"], weights=frames)
    assert metrics["lve_squared"]["value"] == pytest.approx(pooled_value)
    assert metrics["fdd"]["value"] == pytest.approx(np.mean(errors["fdd"]))


def test_an_unknown_unit_gives_no_millimetres(tmp_path, regions, models):
    data = write_set(tmp_path / "set", metres=0.0)
    found = evaluate(
        CaptureArguments(checkpoints=models[:1], data=data, regions=regions, device="cpu")
    )
    assert found["metrics"]["lve"]["unit"] == "units"
    assert method(found, "styled")["metrics"]["lrp"]["value"] is None


def test_a_model_of_solved_shapes_is_scored_too(tiny_checkpoint, demo_head_file, tmp_path):
    prepare_synthetic(
        write_corpus(tmp_path / "corpus"), demo_head_file, tmp_path / "set", num_subjects=4,
        sentences=5, seed=0, progress=lambda *_: None,
    )  # fmt: skip
    found = evaluate(
        CaptureArguments(
            checkpoints=(tiny_checkpoint,), data=tmp_path / "set", split="test_unseen", device="cpu"
        )
    )
    assert found["protocol"]["regions"]["lips"]
    assert method(found, tiny_checkpoint.name)["style_from"] == {"motion": 5}
    assert method(found, tiny_checkpoint.name)["metrics"]["lve"]["value"] > 0.5


def refusal(**changes):
    with pytest.raises(UserError) as caught:
        evaluate(CaptureArguments(device="cpu", **changes))
    return str(caught.value)


def test_an_empty_split_names_those_that_are_not(data, regions, models):
    said = refusal(checkpoints=models, data=data, regions=regions, split="test_unseen")
    assert "test_unseen" in said
    assert "test (6), train (9), validation (3)" in said


def test_positions_that_are_no_numbers_are_named(tmp_path, regions, models):
    def broken(offsets, name):
        if name == "s1_4":
            offsets[3, 2] = np.nan
        return offsets

    data = write_set(tmp_path / "set", change=broken)
    assert "s1_4" in refusal(checkpoints=models, data=data, regions=regions)


def test_a_checkpoint_of_another_topology_is_refused(tmp_path, regions, models):
    data = write_set(tmp_path / "set", num_vertices=POINTS + 1)
    said = refusal(checkpoints=models, data=data, regions=regions)
    assert f"{POINTS} vertices" in said
    assert f"with {POINTS + 1}" in said


def test_missing_files_are_named(tmp_path, data, regions, models):
    assert "no prepared data" in refusal(checkpoints=models, data=tmp_path, regions=regions)
    said = refusal(checkpoints=(tmp_path,), data=data, regions=regions)
    assert "no checkpoint" in said
    lost = write_set(tmp_path / "lost")
    next((lost / "sequences").glob("*.offsets.npy")).unlink()
    assert "missing, damaged" in refusal(checkpoints=models, data=lost, regions=regions)


def test_regions_must_be_known_from_somewhere(data, models):
    assert "--regions" in refusal(checkpoints=models, data=data)
    said = refusal(checkpoints=models, data=data, protocol="codetalker")
    assert "authors published" in said


def test_a_source_of_style_that_a_model_lacks_is_refused(data, regions, models):
    said = refusal(checkpoints=models[1:], data=data, regions=regions, style_from="motion")
    assert "takes no style from motion" in said
    said = refusal(checkpoints=models[1:], data=data, regions=regions, style_from="identity")
    assert "s2" in said


def test_the_command_takes_several_checkpoints_on_captures_only(
    data, regions, models, tmp_path, capsys
):
    flags = ["evaluate", "--checkpoint", *map(str, models), "--device", "cpu"]
    assert main([*flags, "--data", str(data), "--regions", str(regions)]) == 0
    assert "# styled, named on folder" in capsys.readouterr().out
    assert main([*flags, "--speech", str(tmp_path)]) == 2
    assert "on --data only" in capsys.readouterr().err
