# SPDX-License-Identifier: GPL-3.0-or-later
"""Teeth, tongue, eyeballs, lashes, shells and hair: told without names, and moved with the face."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend import bundled
from backend.errors import UserError
from backend.heads.find_face_points import identify_or_find
from backend.heads.mesh import polygon_edges, similarity_fit
from backend.heads.mesh_files import read_object_sizes
from backend.heads.topology import Head, UnknownHeadError, face_frame, identify, read_head
from tests.backend.heads.conftest import Solved
from tests.backend.heads.poses import both

SIDES = ("left", "right")
HEADS = Path(
    os.environ.get("PTALKER_HEADS") or Path(__file__).resolve().parents[4] / "shared" / "heads"
)


def face_points_of(name):
    marks = json.loads((HEADS / "marks.json").read_text())
    return marks[name]["all_111_found_without_clicks"]


@pytest.fixture(scope="module")
def ict():
    """A realistic head in one mesh of 56 pieces."""
    if not HEADS.exists():
        pytest.skip(f"{HEADS} is not there")
    with np.load(HEADS / "ict_expressions.npz") as data:
        mesh = [data[key] for key in ("vertices", "face_corners", "face_sizes")]
    return Solved(identify(*mesh, face_points=face_points_of("ict")))


@pytest.fixture(scope="module")
def body():
    """A whole body whose eyes, teeth and tongue are objects; with the objects' first vertices."""
    if not HEADS.exists():
        pytest.skip(f"{HEADS} is not there")
    names = ("body", "eyes", "teeth_upper", "teeth_lower", "tongue")
    with np.load(HEADS / "mhbody.npz") as data:
        meshes = [[data[f"{name}|{key}"] for key in "vcs"] for name in names]
    starts = np.cumsum([0, *(len(mesh[0]) for mesh in meshes)])
    solved = Solved(identify(*joined(meshes), face_points=face_points_of("mhbody")))
    solved.objects = {
        name: np.arange(a, b) for name, a, b in zip(names, starts[:-1], starts[1:], strict=True)
    }
    return solved


def joined(meshes):
    """Several meshes as one, the vertices one after the other."""
    starts = np.cumsum([0, *(len(mesh[0]) for mesh in meshes[:-1])])
    return (
        np.concatenate([mesh[0] for mesh in meshes]),
        np.concatenate([mesh[1] + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh[2] for mesh in meshes]),
    )


def pieces_of(solved, vertices):
    labels = solved.head.components[vertices]
    return [vertices[labels == label] for label in np.unique(labels)]


def misfit(before, after):
    """Largest distance in mm from a rigid motion."""
    fit = similarity_fit(before, after)
    rigid = replace(fit, scale=1.0, translation=after.mean(0) - fit.rotation @ before.mean(0))
    return np.linalg.norm(rigid.apply(before) - after, axis=1).max()


def torn(solved, weights, vertices=None):
    """Number of edges that become longer than three times."""
    edges = polygon_edges(solved.head.corners, solved.head.sizes)
    if vertices is not None:
        edges = edges[np.isin(edges, vertices).all(axis=1)]
    length = [
        np.linalg.norm(np.subtract(*p[edges.T]), axis=1)
        for p in (solved.rest, solved.pose(weights))
    ]
    return int((length[1] > 3.0 * length[0]).sum())


def test_no_tooth_is_bent(ict):
    teeth = ict.face.parts
    assert len(pieces_of(ict, teeth["teeth_upper"])) == 16
    assert len(pieces_of(ict, teeth["teeth_lower"])) == 16
    for weights in ({"jawOpen": 1.0}, {"jawOpen": 1.0, "jawLeft": 1.0}, both("mouthSmile")):
        pose = ict.pose(weights)
        for tooth in pieces_of(ict, np.concatenate([teeth["teeth_upper"], teeth["teeth_lower"]])):
            assert misfit(ict.rest[tooth], pose[tooth]) < 0.1
    assert np.abs(ict.offsets[:, teeth["teeth_upper"]]).max() == 0.0
    assert ict.shape("jawOpen")[teeth["teeth_lower"], 1].max() < -7.5  # the wisdom teeth
    assert ict.shape("jawOpen")[teeth["teeth_lower"], 1].min() < -15.0


def test_gums_in_one_piece_with_both_rows_are_divided(ict):
    gums, shares = ict.face.parts["gums"], ict.face.jaw_shares
    assert len(pieces_of(ict, gums)) == 1
    front = gums[ict.rest[gums, 2] > 0.0]
    low = ict.rest[front, 1] < ict.rest[ict.at("lip_lower_inner_center"), 1] - 12.0
    high = ict.rest[front, 1] > ict.rest[ict.at("lip_upper_inner_center"), 1] + 8.0
    assert low.sum() > 100 < high.sum()
    assert shares[front[low]].min() > 0.99
    assert shares[front[high]].max() < 0.01
    assert torn(ict, {"jawOpen": 1.0}, gums) < 20


def test_a_blink_tears_nothing_and_takes_the_lashes_along(ict):
    weights = both("eyeBlink")
    assert torn(ict, weights) < 10
    pose = ict.pose(weights)
    edges = polygon_edges(ict.head.corners, ict.head.sizes)
    for side in SIDES:
        eye = ict.face.eyes[side]
        assert len(pieces_of(ict, eye.lashes)) == 6
        assert len(pieces_of(ict, eye.ball)) == 2
        assert len(pieces_of(ict, eye.shells)) == 3
        upper = eye.lashes[ict.rest[eye.lashes, 1] > ict.rest[eye.rows["upper"], 1].mean()]
        assert (pose[upper, 1] - ict.rest[upper, 1]).mean() < -7.0  # they close
        own = edges[np.isin(edges, eye.lashes).all(axis=1)]
        before, after = (np.linalg.norm(np.subtract(*p[own.T]), axis=1) for p in (ict.rest, pose))
        assert (after / before).max() < 2.0
        assert np.percentile(after / before, 95) < 1.25
        away = np.linalg.norm(pose[eye.shells] - eye.centre, axis=1)
        assert away == pytest.approx(np.linalg.norm(ict.rest[eye.shells] - eye.centre, axis=1))


def test_teeth_and_tongue_of_other_objects_go_with_the_jaw(body):
    shape = body.shape("jawOpen")
    assert shape[body.objects["teeth_lower"], 1].mean() < -15.0
    assert shape[body.objects["teeth_lower"], 1].min() < -20.0
    assert misfit(*(p[body.objects["tongue"]] for p in (body.rest, body.rest + shape))) < 0.1
    assert shape[body.objects["tongue"], 1].min() < -15.0
    assert np.abs(body.offsets[:, body.objects["teeth_upper"]]).max() == 0.0
    front = body.objects["teeth_lower"][body.rest[body.objects["teeth_lower"], 2].argmax()]
    chin = shape[body.at("chin"), 1]
    assert shape[front, 1] == pytest.approx(chin, rel=0.3)


def test_eyes_of_another_object_turn_rigidly(body):
    for side in SIDES:
        ball = body.face.eyes[side].ball
        assert set(ball) < set(body.objects["eyes"])
        for name in ("In", "Out", "Up", "Down"):
            moved = body.rest + body.shape(f"eyeLook{name}{side.capitalize()}")
            assert misfit(body.rest[ball], moved[ball]) < 0.01
            assert np.linalg.norm(moved[ball] - body.rest[ball], axis=1).max() > 4.0


def strip(line, direction, rows=4, step=2.0):
    """A band of quads that begins at a line of points, as vertices, corners, sizes."""
    rings = [line + k * step * direction for k in range(rows)]
    n = len(line)
    quads = [
        (k * n + i, k * n + i + 1, (k + 1) * n + i + 1, (k + 1) * n + i)
        for k in range(rows - 1) for i in range(n - 1)
    ]  # fmt: skip
    return np.concatenate(rings), np.array(quads).ravel(), np.full(len(quads), 4)


def disc(centre, radius, bulge):
    """A round cap that faces forwards."""
    angle = np.linspace(0.0, 2 * np.pi, 12, endpoint=False)
    rings = [
        centre + np.stack([r * np.cos(angle), r * np.sin(angle), np.full(12, z)], 1)
        for r, z in ((radius, 0.0), (radius / 2, bulge))
    ]
    quads = [(i, (i + 1) % 12, 12 + (i + 1) % 12, 12 + i) for i in range(12)]
    return np.concatenate(rings), np.array(quads).ravel(), np.full(12, 4)


def with_parts(demo, parts, keep=None):
    """The demo head, of no known topology, with parts that are given in the face's axes in mm."""
    head, frame = demo.head, demo.face.frame
    own = (head.vertices, head.corners, head.sizes)
    if keep is not None:
        faces = np.repeat(np.arange(len(head.sizes)), head.sizes)
        is_kept = keep[head.corners[np.cumsum(head.sizes) - head.sizes]]
        own = head.vertices, head.corners[is_kept[faces]], head.sizes[is_kept]
    placed = [((m[0] @ frame.axes) * frame.unit_mm + frame.origin, *m[1:]) for m in parts]
    mesh = joined([own, *placed])
    topology = replace(
        head.topology, name="custom", num_vertices=len(mesh[0]), parts=(), mirror=None
    )
    solved = Solved(Head(mesh[0], mesh[1].astype(np.int32), mesh[2].astype(np.int32), topology))
    ends = len(head.vertices) + np.cumsum([0, *(len(part[0]) for part in parts)])
    return solved, [np.arange(a, b) for a, b in itertools.pairwise(ends)]


def test_lashes_cornea_and_a_shell_are_told_and_follow(demo):
    eye = demo.face.eyes["left"]
    rim = demo.rest[eye.rows["upper"]]
    lashes = strip(rim[2:-2] + np.array([0.0, 0.2, 0.3]), np.array([0.0, 0.5, 0.85]))
    cornea = disc(eye.centre + np.array([0.0, 0.0, 0.92 * eye.radius]), 0.45 * eye.radius, 0.6)
    middle = (rim[1:-1] + demo.rest[eye.rows["lower"]][1:-1][: len(rim) - 2]) / 2
    outwards = middle - eye.centre
    outwards *= 1.03 * eye.radius / np.linalg.norm(outwards, axis=1, keepdims=True)
    shell = strip(outwards + eye.centre, np.array([0.0, 1.0, 0.0]), rows=3, step=0.8)
    solved, (hair, lens, film) = with_parts(demo, [lashes, cornea, shell])
    found = solved.face.eyes["left"]
    assert set(found.lashes) - set(eye.lashes) == set(hair)
    assert set(eye.lashes) <= set(found.lashes)
    assert set(found.turning) == set(lens)
    assert set(found.shells) == set(film)
    assert set(found.ball) == set(eye.ball)
    blink = solved.shape("eyeBlinkLeft")
    roots = hair[: len(rim) - 4]
    assert np.linalg.norm(blink[roots] - blink[eye.rows["upper"][2:-2]], axis=1).max() < 0.5
    edges = polygon_edges(lashes[1], lashes[2]) + hair[0]
    before, after = (np.linalg.norm(np.subtract(*p[edges.T]), axis=1)
                     for p in (solved.rest, solved.rest + blink))  # fmt: skip
    assert (after / before).max() < 1.6
    look = solved.rest + solved.shape("eyeLookOutLeft")
    ball_and_lens = np.concatenate([found.ball, lens])
    assert misfit(solved.rest[ball_and_lens], look[ball_and_lens]) < 0.01
    aside = solved.shape("eyeLookOutLeft")
    margin = np.concatenate(list(eye.rows.values()))
    assert np.abs(aside[film]).max() <= np.abs(aside[margin]).max() + 0.1  # it lies on the lids


def test_a_moustache_goes_with_the_upper_lip_where_it_hangs_over_the_lower(demo):
    upper = demo.at("lip_upper_outer_center")
    start = demo.rest[upper] + [0.0, 4.0, 1.0]
    line = start + np.linspace(-4.0, 4.0, 5)[:, None] * [1.0, 0.0, 0.0]
    solved, (hair,) = with_parts(demo, [strip(line, np.array([0.0, -1.0, 0.25]), rows=12)])
    assert set(solved.face.parts["attached"]) == set(hair)
    assert solved.rest[hair[-1], 1] < solved.rest[demo.at("lip_lower_outer_center"), 1]
    sunk = solved.shape("jawOpen")[:, 1]
    assert sunk[demo.at("lip_lower_outer_center")] < -12.0
    assert sunk[hair].min() > -3.0
    assert solved.shape("noseSneerLeft")[hair, 1].max() > 0.5


def test_teeth_that_are_one_piece_over_both_rows_are_cut(demo):
    upper, lower = (demo.face.parts[f"teeth_{row}"] for row in ("upper", "lower"))
    back = [row[np.argsort(demo.rest[row, 2])[:2]] for row in (upper, lower)]
    bridge = np.array([back[0][0], back[0][1], back[1][0], back[0][1], back[1][1], back[1][0]])
    head = demo.head
    bridged = Head(
        head.vertices,
        np.concatenate([head.corners, bridge]).astype(np.int32),
        np.concatenate([head.sizes, [3, 3]]).astype(np.int32),
        replace(head.topology, name="custom", parts=()),
    )
    solved = Solved(bridged)
    if not len(solved.face.parts["gums"]):  # rows that are shells of many pieces
        pytest.fail("the bridged rows were not found to be one piece")
    shares = solved.face.jaw_shares
    front = solved.rest[:, 2] > np.median(solved.rest[upper, 2])
    assert shares[upper[front[upper]]].max() < 0.05
    assert shares[lower[front[lower]]].min() > 0.95


@pytest.mark.parametrize("name", ["demo", "flame"])
def test_a_known_head_with_something_after_it_stays_known(name, demo, request):
    path = bundled.DEMO_HEAD if name == "demo" else request.getfixturevalue("flame_head")
    known = read_head(path)
    head = identify(*known)
    frame, face = face_frame(head), Solved(head).face
    tooth = strip(np.array([[-3.0, 0, 0], [0, 0, 0], [3, 0, 0]]), np.array([0, -1.0, 0]), rows=6)
    place = face.points[head.topology.face_points["lip_lower_inner_center"]] - [0, 3.0, 12.0]
    tooth = ((tooth[0] + place) @ frame.axes * frame.unit_mm + frame.origin, *tooth[1:])
    loose = (np.zeros((1, 3)), np.zeros(0, np.int32), np.zeros(0, np.int32))
    solved = Solved(identify(*joined([known, tooth, loose])))
    assert solved.head.topology.name == name
    new = np.arange(len(known[0]), len(known[0]) + len(tooth[0]))
    assert set(new) <= set(solved.face.parts["teeth_lower"])
    assert solved.shape("jawOpen")[new, 1].max() < -10.0
    np.testing.assert_allclose(
        solved.shapes.offsets[:, : len(known[0])], Solved(head).shapes.offsets, atol=1e-9
    )
    assert identify(*joined([known, tooth]), topology=name).topology.name == name


def test_a_head_whose_faces_reach_into_what_comes_after_is_not_the_known_one(demo):
    known = (demo.head.vertices, demo.head.corners, demo.head.sizes)
    vertices = np.concatenate([known[0], known[0][:1] + 0.01])
    corners = np.concatenate([known[1], [0, 1, len(known[0])]])
    with pytest.raises(UnknownHeadError, match="none of the known ones"):
        identify(vertices, corners, np.concatenate([known[2], [3]]))


def test_too_few_vertices_are_refused_for_a_named_topology(demo):
    with pytest.raises(UserError, match="the topology 'demo' has"):
        identify(demo.head.vertices[:100], np.arange(3), np.array([3]), topology="demo")


def test_a_file_says_of_which_objects_its_mesh_is(demo, tmp_path):
    path = tmp_path / "head.npz"
    mesh = {
        "vertices": demo.head.vertices,
        "face_corners": demo.head.corners,
        "face_sizes": demo.head.sizes,
    }
    count = len(demo.head.vertices)
    np.savez(path, **mesh)
    assert read_object_sizes(path, count).tolist() == [count]
    np.savez(path, **mesh, object_sizes=np.array([count - 5, 5]))
    assert read_object_sizes(path, count).tolist() == [count - 5, 5]
    for wrong in ([count - 5], [count, 0], [[count]], [0.5]):
        np.savez(path, **mesh, object_sizes=np.array(wrong))
        with pytest.raises(UserError, match="do not add up"):
            read_object_sizes(path, count)


def split_demo(demo):
    """The demo head as objects, unknown: its skin first, then eyes, teeth and tongue as they lie.

    Returns the joined mesh, where each of the demo head's vertices is now, and the skin's count.
    """
    head = demo.head
    order = np.argsort(head.components != head.components[demo.at("nose_tip")], kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    corners = number[head.corners].astype(np.int32)
    return (head.vertices[order], corners, head.sizes), number, len(demo.face.skin)


def test_points_of_an_unknown_head_are_found_on_its_own_mesh_alone(demo):
    mesh, number, num_own = split_demo(demo)
    head, found = identify_or_find(mesh, topology="auto", face_points=None, num_own=num_own)
    assert found is not None
    assert max(head.topology.face_points.values()) < num_own
    solved = Solved(head)
    for role in ("teeth_upper", "teeth_lower", "tongue"):
        assert set(solved.face.parts[role]) == set(number[demo.face.parts[role]])
    for side in SIDES:
        assert set(solved.face.eyes[side].ball) == set(number[demo.face.eyes[side].ball])
