# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation on captured faces: metrics, pairs, protocols and refusals, on a mesh of 30 points."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from backend import bundled
from backend.cli.main import main
from backend.data.captures import prepared
from backend.data.captures.prepared import Label, Manifest, Subject
from backend.data.captures.regions import Regions, face_regions, regions_of
from backend.data.captures.synthetic import prepare_synthetic
from backend.errors import UserError
from backend.evaluation import results, vertex_metrics
from backend.evaluation.captures import CaptureArguments
from backend.evaluation.captures import main as evaluate
from backend.evaluation.results import METRICS, MethodResults, MetricContext, differences, pooled
from backend.heads.topology import load_topology
from backend.model import checkpoint
from backend.model.graph_encoder import coarse_mesh_graph
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from tests.backend.data.captures.test_synthetic import write_corpus

V, FPS = 30, 30
REGIONS = {"lips": [3, 1, 2, 3], "upper_face": [10, 11, 12], "inner_lips": [1, 2]}
SPLITS = ("train", "train", "train", "validation", "test", "test")


def write_set(folder, *, num_vertices=V, change=lambda offsets, name: offsets, metres=1.0):
    """Three subjects with a way to move of their own; lips follow the loudness of the sound."""
    for name in ("templates", "sequences"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    head = rng.normal(size=(num_vertices, 3)).astype(np.float32) * 0.1
    subjects, sequences = [], []
    for who in range(3):
        template = head * (1 + 0.01 * who)
        path = f"templates/s{who}.npy"
        subjects.append(Subject(f"s{who}", prepared.write_array(folder, path, template)))
        for number, split in enumerate(SPLITS):
            label = Label(f"s{who}_{number}", f"s{who}", str(number), split)
            frames = 40 + 10 * number
            loud = np.abs(np.sin(np.arange(frames) / 4 + number))
            sound = np.repeat(loud, 534)[: frames * 533] * rng.normal(size=frames * 533) * 0.1
            offsets = np.zeros((frames, num_vertices, 3), np.float32)
            offsets[:, 2, 1] = -0.01 * (1 + who) * loud
            offsets[:, 10:13, who] = 0.002 * loud[:, None]
            sequences.append(
                prepared.write_sequence(
                    folder, label, offsets=change(offsets, label.name),
                    samples=sound.astype(np.float32), source_audio_rate_hz=16000,
                )
            )  # fmt: skip
    manifest = Manifest(
        dataset="folder", protocol="by hand", fps_numerator=FPS, fps_denominator=1,
        source_fps=30.0, filtering="", units="m" if metres else "u", metres_per_unit=metres,
        num_vertices=num_vertices, topology="points", fingerprint="", precision="float32",
        scale=1.0, subjects=tuple(subjects), sequences=tuple(sequences), complete=True,
    )  # fmt: skip
    prepared.write_manifest(folder, manifest)
    return folder


def write_model(folder, data, **changes):
    """An untrained model of the set's points."""
    found = prepared.open(data)
    sizes = {
        "shape_kind": "learned", "topology": "points", "shape_names": (), "num_nodes": 10,
        "num_neighbours": 3, "motion_fps": 30.0, "num_vertices": V, "speakers": ("s0", "s1"),
    }  # fmt: skip
    made = dataclasses.replace(PRESETS["tiny"], **{**sizes, **changes})
    torch.manual_seed(0)
    ptalker = PTalker(made)
    head = torch.from_numpy(np.array(found.template("s0")))
    ptalker.set_graph(coarse_mesh_graph(head, torch.ones(V), num_nodes=10, num_neighbours=3))
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
        f"s{who}_{number}" for who in range(3) for number in (4, 5)
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


def test_the_truth_finds_its_speaker(report):
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


def test_regions_hash_what_they_hold_and_not_their_order():
    one = Regions(np.array([1, 2]), np.array([5]), (1, 2), "x")
    assert one.hashes() == Regions(np.array([1, 2]), np.array([5]), (1, 2), "y").hashes()
    assert (
        one.hashes()["lips"] != Regions(np.array([1, 3]), np.array([5]), (), "x").hashes()["lips"]
    )


def test_regions_are_found_on_a_head(solved_demo_head):
    """Lips around the mouth, the upper face above the nose's tip, nothing in both."""
    head, _ = solved_demo_head
    found = face_regions(head)
    assert not np.intersect1d(found.lips, found.upper_face).size
    place = head.topology.face_points
    assert set(found.inner_lips) <= set(found.lips.tolist())
    assert place["lip_corner_left"] in found.lips
    assert {place["brow_left_3"], place["forehead_center"]} <= set(found.upper_face.tolist())
    assert place["nose_tip"] not in found.upper_face


def test_the_shipped_flame_regions_are_of_its_face():
    data = json.loads((bundled.TOPOLOGIES_DIR / "flame.json").read_text("utf-8"))
    place = load_topology("flame").face_points
    lips, upper = (set(data["regions"][name]) for name in ("lips", "upper_face"))
    assert {place["lip_corner_left"], place["lip_lower_outer_center"]} <= lips
    assert {place["brow_left_3"], place["forehead_center"]} <= upper
    assert not lips & upper
    assert max(lips | upper) < 3931  # the skin


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


# ---- what is refused


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
    data = write_set(tmp_path / "set", num_vertices=V + 1)
    said = refusal(checkpoints=models, data=data, regions=regions)
    assert f"{V} vertices" in said
    assert f"with {V + 1}" in said


def test_missing_files_are_named(tmp_path, data, regions, models):
    assert "no prepared data" in refusal(checkpoints=models, data=tmp_path, regions=regions)
    said = refusal(checkpoints=(tmp_path,), data=data, regions=regions)
    assert "no checkpoint" in said
    lost = write_set(tmp_path / "lost")
    next((lost / "sequences").glob("*.offsets.npy")).unlink()
    assert "missing, damaged" in refusal(checkpoints=models, data=lost, regions=regions)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON file"),
        ("[]", "no regions"),
        ('{"lips": [1]}', '"upper_face" is no list'),
        ('{"lips": [1.5], "upper_face": [2]}', '"lips" is no list'),
        ('{"lips": [30], "upper_face": [2]}', "names vertex 30"),
        ('{"lips": [1], "upper_face": [2], "inner_lips": [1]}', "must be two vertices"),
    ],
)
def test_bad_regions_are_one_sentence(tmp_path, data, models, text, words):
    path = tmp_path / "regions.json"
    path.write_text(text)
    assert words in refusal(checkpoints=models, data=data, regions=path)


def test_regions_must_be_known_from_somewhere(data, models):
    assert "--regions" in refusal(checkpoints=models, data=data)
    said = refusal(checkpoints=models, data=data, protocol="codetalker")
    assert "authors published" in said


def test_regions_away_from_the_mouth_are_refused(tmp_path, demo_head_file):
    prepare_synthetic(
        write_corpus(tmp_path / "corpus"), demo_head_file, tmp_path / "set", num_subjects=4,
        sentences=5, seed=0, progress=lambda *_: None,
    )  # fmt: skip
    place = load_topology("demo").face_points
    path = tmp_path / "regions.json"
    path.write_text(json.dumps({"lips": [place["crown"]], "upper_face": [place["crown"]]}))
    with pytest.raises(UserError, match="from the mouth"):
        regions_of(prepared.open(tmp_path / "set"), path)


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


# ---- metrics


def scene(inner=(0, 1)):
    regions = Regions(np.array([0, 1]), np.array([2]), inner, "by hand")
    return MetricContext(regions, np.array([0.0, 1.0, 0.0]), 30.0, 1000.0, True)


def test_a_perfect_prediction_has_the_best_metrics():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(50, 4, 3)) * 0.01
    found = results.sequence_metrics(truth, truth, np.zeros((4, 3)), scene())
    best = {"low": 0.0, "zero": 0.0, "one": 1.0}
    for name, metric in METRICS.items():
        wanted = 100.0 if name == "lrp" else best.get(metric.best, 1.0)
        assert found[name] == pytest.approx(wanted, abs=1e-9), name


def test_metrics_that_need_inner_lips_are_left_out_without_them():
    truth = np.zeros((10, 4, 3))
    found = results.sequence_metrics(truth, truth, np.zeros((4, 3)), scene(inner=()))
    assert [name for name, value in found.items() if np.isnan(value)] == ["mtm", "l_pcc", "l_ccc"]


def test_pooling_and_differences_by_hand():
    first, second = MethodResults("first"), MethodResults("second")
    first.metrics = {name: [1.0, 4.0, float("nan")] for name in METRICS}
    second.metrics = {name: [2.0, 6.0, 7.0] for name in METRICS}
    frames = [30, 10, 10]
    assert pooled(first, frames, by_frame=False)["lve"].value == pytest.approx(2.5)
    assert pooled(first, frames, by_frame=True)["lve"].value == pytest.approx(70 / 40)
    assert pooled(first, frames, by_frame=True)["fdd"].value == pytest.approx(2.5)
    apart = differences(first, second, frames, by_frame=False)["lve"]
    assert (apart.value, apart.sequences) == (pytest.approx(1.5), 2)
    assert 1.0 <= apart.low <= apart.high <= 2.0


def test_loudness_that_drives_the_lips_correlates():
    loud = [0.1, 0.2, 0.4, 0.5]
    assert results.pooled_speech_lip_correlation(loud, [1.0, 2.0, 4.0, 5.0]).value == pytest.approx(
        1
    )
    assert results.pooled_speech_lip_correlation(loud, [1.0] * 4).value is None
    assert results.pooled_speech_lip_correlation(loud[:2], [1.0, 2.0]).value is None


def test_diversity_compares_styles_of_one_sentence():
    def make(number, style):
        return np.full((2, 1, 3), float(style))

    wanted = 1000 * vertex_metrics.diversity([make(0, style) for style in range(4)])
    assert results.diversity(make, 2, 4, scene()) == pytest.approx(wanted)
    assert results.diversity(make, 2, 1, scene()) is None
