# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo head: a closed, symmetric face whose lips and lids meet as a speaking face needs it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from backend import bundled
from backend.heads.demo import build
from backend.heads.demo.build import MATERIALS, DemoHead
from backend.heads.mesh import connected_components
from backend.heads.topology import FACE_POINT_NAMES, Head, identify, load_topology, read_head

MM = 1000.0
EYE_RADIUS_MM = 13.0


@pytest.fixture(scope="module")
def built() -> DemoHead:
    return build.build()


@pytest.fixture(scope="module")
def head(built: DemoHead) -> Head:
    return identify(built.vertices, built.corners, built.sizes, topology="demo")


def faces_of(built: DemoHead) -> list[list[int]]:
    ends = np.cumsum(built.sizes)
    return [face.tolist() for face in np.split(built.corners, ends[:-1])]


def directed_edges(faces: list[list[int]]) -> Counter[tuple[int, int]]:
    return Counter((a, b) for face in faces for a, b in zip(face, face[1:] + face[:1], strict=True))


def component_faces(built: DemoHead, seed: int) -> list[list[int]]:
    component = connected_components(built.corners, built.sizes, len(built.vertices))
    return [face for face in faces_of(built) if component[face[0]] == component[seed]]


def test_mirror_image_is_exact(built: DemoHead) -> None:
    assert np.array_equal(built.vertices[built.mirror], built.vertices * (-1.0, 1.0, 1.0))
    assert np.array_equal(built.mirror[built.mirror], np.arange(len(built.vertices)))
    faces = {frozenset(face) for face in faces_of(built)}
    assert {frozenset(built.mirror[list(face)].tolist()) for face in faces} == faces


def test_every_part_is_an_oriented_manifold(built: DemoHead) -> None:
    edges = directed_edges(faces_of(built))
    assert set(edges.values()) == {1}
    used = {vertex for edge in edges for vertex in edge}
    assert used == set(range(len(built.vertices)))


def test_skin_is_open_only_at_the_neck_and_has_no_handle(built: DemoHead) -> None:
    faces = component_faces(built, built.parts["skin"][0])
    edges = directed_edges(faces)
    rim = [edge for edge in edges if edge[::-1] not in edges]
    rim_z = built.vertices[[vertex for edge in rim for vertex in edge], 2]
    assert np.abs(rim_z).max() < 1e-9
    assert len({a for a, _ in rim}) == len(rim)
    vertices = {vertex for face in faces for vertex in face}
    num_edges = (len(edges) + len(rim)) // 2
    assert len(vertices) - num_edges + len(faces) == 1  # a disc


@pytest.mark.parametrize("role", ["eye_left", "eye_right", "teeth_upper", "teeth_lower", "tongue"])
def test_loose_part_is_closed_and_faces_outwards(built: DemoHead, role: str) -> None:
    faces = component_faces(built, built.parts[role][0])
    edges = directed_edges(faces)
    assert all(edge[::-1] in edges for edge in edges)
    volume = 0.0
    for face in faces:
        points = built.vertices[face] * MM
        for a, b in pairwise(points[1:]):
            volume += float(np.dot(points[0], np.cross(a, b))) / 6.0
    assert volume > 500.0


@pytest.mark.parametrize("lid", ["upper", "lower"])
def test_lashes_grow_from_the_edge_of_their_lid(built: DemoHead, head: Head, lid: str) -> None:
    row = head.part(f"lashes_{lid}_left")
    lashes = head.vertices[row] * MM
    names = ["eye_inner_left", *(f"lid_{lid}_left_{i}" for i in range(1, 6)), "eye_outer_left"]
    margin = np.array([head.point(name) for name in names]) * MM
    steps = np.linspace(0.0, 1.0, 50)[:, None]
    line = np.concatenate([a + steps * (b - a) for a, b in pairwise(margin)])
    away = np.linalg.norm(lashes[:, None] - line, axis=2).min(axis=1)
    longest = 7.5 if lid == "upper" else 3.2
    assert (away < 1.0).sum() >= 12  # they are rooted along the lid
    assert away.max() < longest
    tips = lashes[away > 0.7 * away.max()]
    upwards = tips[:, 2].mean() - margin[:, 2].mean()
    assert upwards > 1.0 if lid == "upper" else upwards < -0.3
    image = head.part(f"lashes_{lid}_right")
    assert np.array_equal(np.sort(built.mirror[row]), image)


def test_a_head_of_the_topology_before_the_lashes_is_still_known(built: DemoHead) -> None:
    former = load_topology("demo-1")
    is_former = np.array([max(face) < former.num_vertices for face in faces_of(built)])
    faces = [face for face, keep in zip(faces_of(built), is_former, strict=True) if keep]
    corners = np.concatenate([np.array(face, dtype=np.int32) for face in faces])
    known = identify(built.vertices[: former.num_vertices], corners, built.sizes[is_former])
    assert known.topology.name == "demo-1"
    assert known.topology.face_points == built.face_points


def test_faces_are_mostly_quads_and_none_is_degenerate(built: DemoHead) -> None:
    assert (built.sizes == 4).mean() > 0.95
    areas, ratios = [], []
    for face in faces_of(built):
        points = built.vertices[face] * MM
        normal = sum(np.cross(a - points[0], b - points[0]) for a, b in pairwise(points[1:]))
        lengths = np.linalg.norm(points - np.roll(points, -1, axis=0), axis=1)
        areas.append(float(np.linalg.norm(normal)) / 2.0)
        ratios.append(float(lengths.max() / lengths.min()))
    assert min(areas) > 0.02
    assert np.quantile(ratios, 0.99) < 12.0
    assert max(ratios) < 40.0


def test_size_is_about_five_thousand_vertices_and_life_size(head: Head) -> None:
    assert 4500 <= len(head.vertices) <= 6000
    extent = np.ptp(head.vertices, axis=0) * MM
    assert 140 < extent[0] < 185
    assert 190 < extent[1] < 240
    assert 270 < extent[2] < 330
    assert head.vertices[:, 2].min() == pytest.approx(0.0, abs=1e-9)


def test_face_points_are_all_there_and_mirror_each_other(built: DemoHead) -> None:
    assert tuple(built.face_points) == FACE_POINT_NAMES
    assert len(set(built.face_points.values())) == len(FACE_POINT_NAMES)
    for name, vertex in built.face_points.items():
        image = built.face_points[name.replace("_left", "_right")]
        if "_left" in name:
            assert built.vertices[vertex, 0] > 0.0
            assert built.mirror[vertex] == image
        elif "_right" not in name:
            assert built.vertices[vertex, 0] == 0.0


def test_face_points_are_ordered_as_in_a_face(head: Head) -> None:
    downwards = [
        "crown", "forehead_center", "brow_center", "nose_root", "nose_bridge", "nose_tip",
        "nose_base", "lip_upper_outer_center", "lip_upper_inner_center", "lip_lower_inner_center",
        "lip_lower_outer_center", "chin_crease", "chin", "chin_bottom", "neck_front",
    ]  # fmt: skip
    heights = [head.point(name)[2] for name in downwards]
    assert np.all(np.diff(heights) < 0.0)
    jaw = [
        head.point(name) for name in ("chin_bottom", *(f"jaw_line_left_{i}" for i in range(1, 5)))
    ]
    assert np.all(np.diff([point[1] for point in jaw]) > 0.0)
    assert np.all(np.diff([point[2] for point in jaw]) > 0.0)
    for line in ("lip_upper_outer", "lip_upper_inner", "lip_lower_outer", "lip_lower_inner"):
        names = [f"{line}_center", *(f"{line}_left_{i}" for i in (1, 2, 3)), "lip_corner_left"]
        assert np.all(np.diff([head.point(name)[0] for name in names]) > 0.0)
    for line in ("lid_upper", "lid_lower"):
        names = ["eye_inner_left", *(f"{line}_left_{i}" for i in range(1, 6)), "eye_outer_left"]
        assert np.all(np.diff([head.point(name)[0] for name in names]) > 0.0)
    brow = [head.point(f"brow_left_{i}")[0] for i in range(1, 6)]
    assert np.all(np.diff(brow) > 0.0)
    assert head.point("nose_tip")[1] < head.point("chin")[1] < head.point("head_back")[1]
    assert head.point("ear_top_left")[2] > head.point("ear_lobe_left")[2]


def test_proportions_are_those_of_a_face(head: Head) -> None:
    eyes = head.point("eye_inner_left")[2]
    top, bottom = head.point("crown")[2], head.point("chin_bottom")[2]
    assert (eyes - bottom) / (top - bottom) == pytest.approx(0.5, abs=0.04)
    width = head.point("eye_outer_left")[0] - head.point("eye_inner_left")[0]
    assert 2.0 * head.point("eye_inner_left")[0] == pytest.approx(width, rel=0.25)


def test_eyeballs_are_spheres_62_mm_apart(built: DemoHead) -> None:
    centers = []
    for role in ("eye_left", "eye_right"):
        faces = component_faces(built, built.parts[role][0])
        points = built.vertices[sorted({vertex for face in faces for vertex in face})] * MM
        center = (points.min(axis=0) + points.max(axis=0)) / 2.0
        distances = np.linalg.norm(points - center, axis=1)
        assert np.abs(distances - EYE_RADIUS_MM).max() < 1e-6
        centers.append(center)
    assert centers[0][0] - centers[1][0] == pytest.approx(62.0)


def test_skin_stays_outside_the_eyeballs(built: DemoHead) -> None:
    skin = sorted({v for face in component_faces(built, built.parts["skin"][0]) for v in face})
    eye = sorted({v for face in component_faces(built, built.parts["eye_left"][0]) for v in face})
    ball = built.vertices[eye] * MM
    center = (ball.min(axis=0) + ball.max(axis=0)) / 2.0
    gaps = np.linalg.norm(built.vertices[skin] * MM - center, axis=1) - EYE_RADIUS_MM
    assert gaps.min() > 0.3
    lids = [
        built.face_points[f"lid_{lid}_left_{i}"] for lid in ("upper", "lower") for i in (2, 3, 4)
    ]
    lid_gaps = np.linalg.norm(built.vertices[lids] * MM - center, axis=1) - EYE_RADIUS_MM
    assert np.all((lid_gaps > 0.5) & (lid_gaps < 2.5))


def test_lips_meet_at_rest_and_are_two_separate_edges(built: DemoHead, head: Head) -> None:
    for side in ("center", "left_1", "left_2", "left_3", "right_1", "right_2", "right_3"):
        upper = head.point(f"lip_upper_inner_{side}") * MM
        lower = head.point(f"lip_lower_inner_{side}") * MM
        assert 0.0 < upper[2] - lower[2] < 0.3
        assert np.linalg.norm(upper - lower) < 0.3
    edges = directed_edges(faces_of(built))
    upper_center = built.face_points["lip_upper_inner_center"]
    assert (upper_center, built.face_points["lip_lower_inner_center"]) not in edges


def test_mouth_inside_reaches_back_and_holds_teeth_and_tongue(head: Head) -> None:
    bag = head.vertices[head.part("mouth_inside")] * MM
    contact = head.point("lip_upper_inner_center") * MM
    assert bag[:, 1].max() - contact[1] > 20.0
    for role in ("teeth_upper", "teeth_lower", "tongue"):
        points = head.vertices[head.part(role)] * MM
        assert np.all(points.min(axis=0)[:2] > bag.min(axis=0)[:2])
        assert np.all(points.max(axis=0) < bag.max(axis=0))


def test_every_material_is_used_and_lips_lie_at_the_mouth(built: DemoHead, head: Head) -> None:
    assert set(built.face_materials.tolist()) == set(range(len(MATERIALS)))
    lips = list(MATERIALS).index("lips")
    faces = [f for f, m in zip(faces_of(built), built.face_materials, strict=True) if m == lips]
    points = built.vertices[sorted({v for face in faces for v in face})]
    corner = head.point("lip_corner_left")
    assert np.abs(points[:, 0]).max() < corner[0] + 0.003
    assert np.abs(points[:, 2] - corner[2]).max() < 0.014


def test_stored_files_are_what_build_makes(built: DemoHead) -> None:
    vertices, corners, sizes = read_head(bundled.DEMO_HEAD)
    assert np.abs(vertices - built.vertices).max() < 1e-6
    assert np.array_equal(corners, built.corners)
    assert np.array_equal(sizes, built.sizes)
    with np.load(bundled.DEMO_HEAD, allow_pickle=False) as stored:
        names = stored["face_point_names"].tolist()
        points = dict(zip(names, stored["face_point_indices"].tolist(), strict=True))
        assert points == built.face_points
        assert stored["material_names"].tolist() == list(MATERIALS)
        assert np.array_equal(stored["face_materials"], built.face_materials)
    topology = json.loads(build.TOPOLOGY_PATH.read_text(encoding="utf-8"))
    assert topology == build.topology_data(built)
