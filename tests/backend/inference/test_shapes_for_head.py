# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint trained on captured faces at work: on copies of the head, its styles, its keys."""

import dataclasses
import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend import motion as motions
from backend.cli import info
from backend.cli.main import main as command
from backend.data.captures.prepare import prepare
from backend.errors import UserError
from backend.heads.mesh_files import read_face_points, read_head
from backend.heads.topology import face_frame, identify
from backend.inference import shapes_for_head
from backend.inference.predictor import open_predictor
from backend.inference.torch_engine import TorchShapes
from backend.model import checkpoint
from backend.training.captures.train import CaptureTrainArguments, main

TURN = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # Y up to Z up
FRAMES = 20


def flame_head():
    path = os.environ.get("PTALKER_FLAME_HEAD", "")
    if not Path(path).is_file():
        pytest.skip("no FLAME head; set PTALKER_FLAME_HEAD")
    return Path(path)


@pytest.fixture(scope="module", params=["demo", "flame"])
def trained(request, demo_head_file, tiny_checkpoint, tmp_path_factory):
    """The head, and a run of a few steps on two subjects who open its mouth."""
    path = demo_head_file if request.param == "demo" else flame_head()
    head = identify(*read_head(path), face_points=read_face_points(path))
    head = identify(head.vertices, head.corners, head.sizes)  # by its faces alone
    frame = face_frame(head)
    chin = head.point("chin")
    near = np.exp(-np.square(np.linalg.norm(head.vertices - chin, axis=1) / (30 * frame.unit_mm)))
    raw = tmp_path_factory.mktemp("learned") / "raw"
    rng = np.random.default_rng(0)
    for subject, reach in (("anna", 8.0), ("ben", 14.0)):
        (raw / subject).mkdir(parents=True)
        for number in range(4):
            opening = np.sin(np.linspace(0, 3 + number, FRAMES)) ** 2
            down = -reach * frame.unit_mm * frame.axes[1] * near[:, None]
            base = raw / subject / f"{number:02d}"
            np.savez(
                f"{base}.npz",
                vertices=(head.vertices + opening[:, None, None] * down).astype("f4"),
                template=head.vertices.astype("f4"), fps=25, face_corners=head.corners,
                face_sizes=head.sizes,
            )  # fmt: skip
            loud = np.repeat(opening, 640)
            soundfile.write(f"{base}.wav", 0.2 * loud * rng.normal(size=len(loud)), 16000)
    prepare("folder", raw, raw.parent / "set")
    made = main(
        CaptureTrainArguments(
            preset="vocaset", small=True, data=raw.parent / "set", run=raw.parent / "run",
            speech_encoder=str(tiny_checkpoint), steps=20, batch_size=4, validations=1, threads=1,
            precision="no",
        )
    )  # fmt: skip
    return head, made, raw.parent / "run" / "checkpoint", raw / "anna" / "00.wav"


def moved(head):
    """The head as an artist has it: Z up, a hundred times as large, elsewhere."""
    return dataclasses.replace(head, vertices=100 * head.vertices @ TURN.T + [5.0, 6, 7])


def write(path, head):
    np.savez(
        path, vertices=head.vertices, face_corners=head.corners, face_sizes=head.sizes
    )  # fmt: skip
    return path


def shapes_of(model):
    return shapes_for_head.HeadShapes(model.config, TorchShapes(model))


def test_shapes_of_an_exact_copy_are_the_templates_own(trained):
    head, made, folder, _ = trained
    shapes = shapes_of(checkpoint.load(folder))
    copy = moved(head)
    found = shapes.on(copy)[1]
    expected = 100 * made.model.shapes().numpy() @ TURN.T
    assert np.abs(expected).max() / face_frame(copy).unit_mm > 1.0
    assert np.abs(found - expected).max() / face_frame(copy).unit_mm < 0.05


def test_vertices_after_the_topologys_do_not_move_with_learned_shapes(trained):
    head, _, folder, _ = trained
    shapes = shapes_of(checkpoint.load(folder))
    more = identify(np.concatenate([head.vertices, head.vertices[:3]]), head.corners, head.sizes)
    found = shapes.on(more)[1]
    assert found.shape[1] == len(head.vertices) + 3
    assert np.abs(found[:, -3:]).max() == 0.0
    np.testing.assert_array_equal(found[:, :-3], shapes.on(head)[1])


def test_generate_takes_it_and_trims_its_keys(trained, tmp_path, capsys):
    head, _, folder, sound = trained
    out = tmp_path / "motion.npz"
    flags = ["--audio", str(sound), "--head", str(write(tmp_path / "head.npz", moved(head)))]
    flags += ["--out", str(out), "--style", "ben", "--listen", "sound", "--device", "cpu"]
    assert command(["generate", "--checkpoint", str(folder), *flags]) == 0
    assert json.loads(capsys.readouterr().out)["largest_vertex_error_mm"] <= 0.01
    found = motions.read(out)
    assert len(found.names) <= 33
    assert found.names[0] == "PTalker 01"
    unit_mm = face_frame(moved(head)).unit_mm
    energy = [
        float(np.square(w).sum() * np.square(s).sum())
        for w, s in zip(found.weights.T, found.shapes, strict=True)
    ]
    assert energy == sorted(energy, reverse=True)
    reach = np.linalg.norm(motions.compose(found) - found.template, axis=-1).max() / unit_mm
    assert 0.5 < reach < 40.0


def test_its_subjects_are_styles_by_name(trained):
    _, made, folder, _ = trained
    predictor = open_predictor(folder, device="cpu")
    assert predictor.style_names == ("neutral", "anna", "ben")
    np.testing.assert_allclose(
        predictor.named_style("ben").code, made.model.encode_identity_style("ben")[0], atol=1e-6
    )
    assert sorted(json.loads((folder / "styles.json").read_text())) == ["anna", "ben"]
    assert info.describe_checkpoint(folder)["styles"] == ["neutral", "anna", "ben"]
    predictor.close()


def test_a_mesh_in_another_order_is_refused(trained):
    head, made, folder, _ = trained
    order = np.random.default_rng(1).permutation(len(head.vertices))
    place = np.argsort(order)  # where each vertex went
    points = {name: int(place[vertex]) for name, vertex in head.topology.face_points.items()}
    other = identify(
        head.vertices[order], place[head.corners], head.sizes, face_points=points
    )  # fmt: skip
    with pytest.raises(UserError, match="reordered"):
        identify(head.vertices[order], place[head.corners], head.sizes)
    shapes = shapes_of(checkpoint.load(folder))
    with pytest.raises(UserError, match="another order"):
        shapes.on(other)
    made.model.config = dataclasses.replace(made.model.config, topology="own capture")
    with pytest.raises(UserError, match="another order"):
        shapes_of(made.model).on(other)


def test_a_sound_only_model_says_that_words_are_not_used(trained, tmp_path):
    head, made, _, _ = trained
    config = dataclasses.replace(made.model.config, num_phone_ids=1)
    from backend.model.ptalker import PTalker

    plain = PTalker(config)
    state = {
        name: value
        for name, value in made.model.state_dict().items()
        if not name.startswith(("speech_content.phone", "speech_content.spoken"))
    }
    plain.load_state_dict({**plain.state_dict(), **state})
    checkpoint.save(tmp_path, plain, card="For tests.")
    predictor = open_predictor(tmp_path, device="cpu")
    warnings = []
    found = predictor.predict(
        np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32), 16000, head,
        fps=Fraction(30), num_frames=15, text="hello", progress=lambda *_: None,
        warn=warnings.append, is_cancelled=lambda: False,
    )  # fmt: skip
    predictor.close()
    assert found.report["listen"] == "sound"
    assert any("sound alone" in warning for warning in warnings)
