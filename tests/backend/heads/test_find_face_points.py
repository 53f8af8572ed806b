# SPDX-License-Identifier: GPL-3.0-or-later
"""Face points that are found without a click, against those that are known."""

import json

import numpy as np
import pytest

from backend import bundled
from backend.cli import main as command_line
from backend.errors import UserError
from backend.heads.edge_paths import PathTracer
from backend.heads.face_layout import examine
from backend.heads.find_face_points import find_face_points, identify_or_find
from backend.heads.landmark_network import detect, find_landmarks
from backend.heads.mesh import polygon_edges
from backend.heads.mesh_files import read_head
from backend.heads.topology import (
    FACE_POINT_NAMES,
    Head,
    face_frame,
    identify,
    load_topology,
    similarity_fit,
)

LIPS = ("upper", "lower")


def inner_lip(lip):
    sides = (
        [f"lip_{lip}_inner_right_{i}" for i in (3, 2, 1)],
        [f"lip_{lip}_inner_left_{i}" for i in (1, 2, 3)],
    )
    return ["lip_corner_right", *sides[0], f"lip_{lip}_inner_center", *sides[1], "lip_corner_left"]


def lid(lid_name, side):
    middle = [f"lid_{lid_name}_{side}_{i}" for i in range(1, 6)]
    return [f"eye_inner_{side}", *middle, f"eye_outer_{side}"]


def misses(mesh, topology, found):
    """Mean distances in mm of found points from the rows through the known ones, and corners."""
    known = Head(*mesh, load_topology(topology))
    frame = face_frame(known)
    points = frame.to_face_mm(mesh[0])
    tracer = PathTracer(points, polygon_edges(mesh[1], mesh[2]))
    place = known.topology.face_points

    def miss(names):
        row = points[tracer.path([place[name] for name in names])]
        steps = np.linspace(0, 1, 9)[:, None, None]
        dense = (row[:-1] + steps * (row[1:] - row[:-1])).reshape(-1, 3)
        ours = points[[found[name] for name in names[1:-1]]]
        return np.linalg.norm(dense[:, None] - ours, axis=2).min(axis=0).mean()

    corners = [
        np.linalg.norm(points[place[name]] - points[found[name]])
        for name in ("lip_corner_left", "lip_corner_right")
    ]
    lips = np.mean([miss(inner_lip(lip)) for lip in LIPS])
    lids = np.mean([miss(lid(lip, side)) for lip in LIPS for side in ("left", "right")])
    return {"corners": max(corners), "lips": lips, "lids": lids}


@pytest.fixture(scope="module")
def demo():
    return read_head(bundled.DEMO_HEAD)


@pytest.fixture(scope="module")
def found_on_demo(demo):
    return find_face_points(demo)


def turned_and_stretched(demo):
    """Another head than the demo head: broader, taller, smaller, and lying on its side."""
    vertices = demo[0] * (0.55, 0.5, 0.52)
    side = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return vertices @ side.T + (3.0, -2.0, 0.5), *demo[1:]


def test_the_demo_heads_points_are_found_on_itself(demo, found_on_demo):
    measured = misses(demo, "demo", found_on_demo.face_points)
    assert measured["corners"] < 1.0
    assert measured["lips"] < 0.5
    assert measured["lids"] < 1.5
    assert min(found_on_demo.scores) > 9.0


def test_every_point_is_a_vertex_of_its_own_and_has_a_confidence(found_on_demo):
    assert set(found_on_demo.face_points) == set(FACE_POINT_NAMES) == set(found_on_demo.confidence)
    assert len(set(found_on_demo.face_points.values())) == len(FACE_POINT_NAMES)
    assert all(0.0 <= value <= 1.0 for value in found_on_demo.confidence.values())
    assert "neck_back" in found_on_demo.doubtful
    assert "lip_corner_left" not in found_on_demo.doubtful
    assert "found but are doubtful" in found_on_demo.warning()
    assert "neck_back" not in found_on_demo.warning(of_the_face=True)


def test_front_and_size_are_found(demo):
    mesh = turned_and_stretched(demo)
    found = find_face_points(mesh)
    measured = misses(mesh, "demo", found.face_points)
    assert measured["corners"] < 3.0
    assert measured["lips"] < 1.5
    assert measured["lids"] < 1.5
    truth = face_frame(Head(*mesh, load_topology("demo")))
    assert np.allclose(found.axes, truth.axes, atol=0.1)
    assert found.interocular == pytest.approx(truth.interocular, rel=0.05)


def test_a_head_whose_faces_are_wound_inside_out_is_found(demo, found_on_demo):
    vertices, corners, sizes = demo
    turned = np.concatenate([c[::-1] for c in np.split(corners, np.cumsum(sizes)[:-1])])
    found = find_face_points((vertices, turned, sizes))
    same = [found.face_points[n] == found_on_demo.face_points[n] for n in FACE_POINT_NAMES]
    assert sum(same) > 85  # quads are cut the other way, so some pixels differ


def test_another_head_is_found_within_the_asked_accuracy(flame_head):
    mesh = read_head(flame_head)
    found = find_face_points(mesh)
    measured = misses(mesh, "flame", found.face_points)
    assert measured["corners"] < 3.0
    assert measured["lips"] < 1.5
    assert measured["lids"] < 1.5
    examine(identify(*mesh, face_points=found.face_points))  # the shapes can be solved on it


def test_a_mesh_without_a_face_is_refused():
    count = 24
    around, up = np.meshgrid(np.arange(count) * 2 * np.pi / count, np.linspace(-1.4, 1.4, count))
    ball = np.stack([np.cos(up) * np.cos(around), np.sin(up), np.cos(up) * np.sin(around)], axis=-1)
    number = np.arange(count * count).reshape(count, count)
    next_number = np.roll(number, -1, axis=1)
    quads = np.stack([number[:-1], next_number[:-1], next_number[1:], number[1:]], axis=-1)
    corners = quads.reshape(-1).astype(np.int32)
    with pytest.raises(UserError, match="No face is seen on this mesh"):
        find_face_points((ball.reshape(-1, 3), corners, np.full(len(corners) // 4, 4, np.int32)))


def test_an_unknown_head_speaks_with_found_points_and_a_known_one_with_its_own(demo):
    head, found = identify_or_find(demo, topology="auto", face_points=None)
    assert (head.topology.name, found) == ("demo", None)
    vertices, corners, sizes = demo
    count = 182  # the lashes and a piece of the tongue
    cut = (vertices, corners[: -int(sizes[-count:].sum())], sizes[:-count])  # another topology
    head, found = identify_or_find(cut, topology="auto", face_points=None)
    assert head.topology.name == "custom"
    warning = found.warning(of_the_face=True)
    assert not any(word in warning for word in ("lip", "lid", "eye", "chin", "jaw", "brow", "nose"))
    assert found.as_report()["face_points"] == head.topology.face_points
    known = load_topology("demo").face_points
    assert head.topology.face_points["lip_corner_left"] == known["lip_corner_left"]


def test_points_that_the_user_marked_stay_and_the_others_are_found(demo, found_on_demo):
    vertices, corners, sizes = demo
    cut = (vertices, corners[: -int(sizes[-182:].sum())], sizes[:-182])
    taken = found_on_demo.face_points["chin"]
    marked = {"lip_corner_left": taken}
    head, found = identify_or_find(cut, topology="auto", face_points=marked)
    assert head.topology.face_points["lip_corner_left"] == taken
    assert "lip_corner_left" not in found.doubtful
    chin = head.topology.face_points["chin"]  # its vertex was taken: it goes beside it
    assert chin != taken
    assert 0.0 < np.linalg.norm(vertices[chin] - vertices[taken]) < 0.01
    assert len(set(head.topology.face_points.values())) == len(FACE_POINT_NAMES)
    with pytest.raises(UserError, match="Mark it again"):
        found.keeping({"chin": len(vertices)}, cut)


def test_a_marked_point_of_a_known_head_moves_alone(demo):
    known = load_topology("demo").face_points
    moved = next(n for n in range(len(demo[0])) if n not in known.values())
    head, found = identify_or_find(demo, topology="auto", face_points={"crown": moved})
    assert found is None
    assert head.topology.face_points == dict(known) | {"crown": moved}


def test_the_command_writes_what_it_found(tmp_path, capsys):
    out = tmp_path / "points.json"
    assert command_line.main(
        ["face-points", "--head", str(bundled.DEMO_HEAD), "--out", str(out)]
    ) == 0  # fmt: skip
    assert "doubtful" in capsys.readouterr().err
    written = json.loads(out.read_text("utf-8"))
    assert set(written["face_points"]) == set(FACE_POINT_NAMES)
    assert len(written["scores"]) == 5
    assert command_line.main(["face-points", "--head", str(tmp_path / "none.npz")]) == 1


def test_the_networks_give_what_they_gave_in_their_own_format():
    # A smooth pattern; the numbers are TensorFlow Lite's.
    row = np.linspace(0.0, 1.0, 256, dtype=np.float32)
    picture = np.stack(
        [np.outer(row, 1 - row), np.outer(1 - row, row), np.outer(row, row)], axis=-1
    )
    wanted = [[132.86, 142.50, -42.10], [104.53, 168.88, 7.43], [168.09, 168.29, 3.20]]
    landmarks, score = find_landmarks(picture[None])
    assert score[0] == pytest.approx(-15.824, abs=0.01)
    assert np.allclose(landmarks[0, [1, 61, 291]], wanted, atol=0.05)
    assert detect(picture[None, ::2, ::2])[0].score == pytest.approx(0.1100, abs=0.001)


def test_a_similarity_of_a_head_changes_nothing(demo, found_on_demo):
    shifted = demo[0] * 40.0 + (100.0, 0.0, -7.0)
    found = find_face_points((shifted, *demo[1:])).face_points
    moved = demo[0][list(found.values())]
    before = demo[0][[found_on_demo.face_points[name] for name in found]]
    away = np.linalg.norm(moved - before, axis=1)
    assert (away > 0.004).sum() <= 1  # lashes flicker in the pictures; a tie may fall otherwise
    assert away.max() < 0.007
    assert similarity_fit(before, moved).scale == pytest.approx(1.0, abs=0.01)
