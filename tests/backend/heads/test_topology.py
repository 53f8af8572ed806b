# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads: reading meshes, knowing their topology, refusing what is none; fits."""

import json

import numpy as np
import pytest

from backend import bundled
from backend.errors import UserError
from backend.heads.mesh import polygon_edges, triangulate
from backend.heads.topology import (
    FACE_POINT_NAMES,
    Head,
    face_frame,
    fingerprint,
    identify,
    load_topology,
    read_face_points,
    read_head,
    shipped_topologies,
    similarity_fit,
)

DEMO = bundled.DEMO_HEAD

# A square and a triangle that share the edge 1-2.
VERTICES = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0.5, 0]], dtype=np.float64)
CORNERS = np.array([0, 1, 2, 3, 1, 4, 2], dtype=np.int32)
SIZES = np.array([4, 3], dtype=np.int32)


@pytest.fixture(scope="module")
def demo() -> Head:
    return identify(*read_head(DEMO))


def turned(vertices):
    angle = 0.7
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    return 37.0 * vertices @ turn.T[[2, 0, 1]].T + np.array([5.0, -300.0, 12.0])


def test_there_are_111_face_points_each_named_once():
    assert len(FACE_POINT_NAMES) == 111
    assert len(set(FACE_POINT_NAMES)) == 111


def test_polygons_become_fans_of_triangles():
    assert triangulate(CORNERS, SIZES).tolist() == [[0, 1, 2], [0, 2, 3], [1, 4, 2]]


def test_edges_are_those_of_the_polygons_without_diagonals():
    edges = [[0, 1], [0, 3], [1, 2], [1, 4], [2, 3], [2, 4]]
    assert polygon_edges(CORNERS, SIZES).tolist() == edges


def test_fingerprint_ignores_order_and_winding_of_faces():
    other_corners = np.array([2, 4, 1, 3, 2, 1, 0], dtype=np.int32)
    other = fingerprint(other_corners, np.array([3, 4], dtype=np.int32), 5)
    assert fingerprint(CORNERS, SIZES, 5) == other
    assert len(other) == 16


def test_fingerprint_changes_with_the_vertex_order_and_count():
    swapped = np.array([0, 4, 2, 3, 4, 1, 2], dtype=np.int32)
    marks = {fingerprint(c, SIZES, n) for c, n in ((CORNERS, 5), (swapped, 5), (CORNERS, 6))}
    assert len(marks) == 3


def write_npz(path):
    np.savez(path, vertices=VERTICES, face_corners=CORNERS, face_sizes=SIZES)


def write_obj(path):
    lines = [f"v {x} {y} {z}" for x, y, z in VERTICES]
    lines += ["vt 0 0", "vn 0 0 1", "f 1/1/1 2/1/1 3/1/1 4/1/1", "f -4 -1 -3"]
    path.write_text("\n".join(lines))


def write_ascii_ply(path):
    header = ["ply", "format ascii 1.0", "comment a head", "element vertex 5", "property float x"]
    header += ["property float y", "property float z", "property uchar red", "element face 2"]
    header += ["property list uchar int vertex_indices", "end_header"]
    rows = [f"{x} {y} {z} 7" for x, y, z in VERTICES] + ["4 0 1 2 3", "3 1 4 2"]
    path.write_text("\n".join(header + rows) + "\n")


def write_binary_ply(path, order):
    name = {"<": "little", ">": "big"}[order]
    header = f"ply\nformat binary_{name}_endian 1.0\nelement vertex 5\nproperty float x\n"
    header += "property float y\nproperty float z\nelement face 2\n"
    header += "property uchar flags\nproperty list uchar int vertex_indices\nend_header\n"
    body = VERTICES.astype(order + "f4").tobytes()
    body += b"\x05\x04" + CORNERS[:4].astype(order + "i4").tobytes()
    body += b"\x05\x03" + CORNERS[4:].astype(order + "i4").tobytes()
    path.write_bytes(header.encode() + body)


@pytest.mark.parametrize("kind", ["a.npz", "a.obj", "ascii.ply", "little.ply", "big.ply"])
def test_reads_the_same_mesh_from_every_kind_of_file(tmp_path, kind):
    path = tmp_path / kind
    if kind == "a.npz":
        write_npz(path)
    elif kind == "a.obj":
        write_obj(path)
    elif kind == "ascii.ply":
        write_ascii_ply(path)
    else:
        write_binary_ply(path, "<" if kind == "little.ply" else ">")
    vertices, corners, sizes = read_head(path)
    np.testing.assert_allclose(vertices, VERTICES)
    assert corners.tolist() == CORNERS.tolist()
    assert sizes.tolist() == SIZES.tolist()


def test_a_truncated_file_is_refused_by_name(tmp_path):
    path = tmp_path / "cut.ply"
    write_binary_ply(path, "<")
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(UserError, match=r"cut\.ply is damaged"):
        read_head(path)


def test_a_huge_vertex_count_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "huge.ply"
    write_binary_ply(path, "<")
    path.write_bytes(path.read_bytes().replace(b"vertex 5", b"vertex 99999999999"))
    with pytest.raises(UserError, match="too many"):
        read_head(path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"face_corners": CORNERS + 1}, "name vertex 5 of 5"),
        ({"face_sizes": SIZES + 1}, "do not add up"),
        ({"vertices": VERTICES[:, :2]}, r"\(5, 2\)"),
        ({"face_sizes": np.zeros(0, np.int32), "face_corners": np.zeros(0, np.int32)}, "no faces"),
    ],
)
def test_arrays_that_are_no_mesh_are_refused(tmp_path, broken, message):
    arrays = {"vertices": VERTICES, "face_corners": CORNERS, "face_sizes": SIZES} | broken
    np.savez(tmp_path / "head.npz", **arrays)
    with pytest.raises(UserError, match=message):
        read_head(tmp_path / "head.npz")


def test_pickled_arrays_are_never_loaded(tmp_path):
    np.savez(tmp_path / "head.npz", vertices=np.array([{}], dtype=object))
    with pytest.raises(UserError):
        read_head(tmp_path / "head.npz")


def test_a_missing_file_and_an_unknown_kind_say_so(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_head(tmp_path / "nothing.obj")
    with pytest.raises(UserError, match=r"\.npz, \.ply or \.obj"):
        read_head(tmp_path / "head.blend")


def test_marked_face_points_come_from_the_npz(tmp_path):
    names, indices = np.array(["chin", "crown"]), np.array([3, 1])
    np.savez(tmp_path / "h.npz", face_point_names=names, face_point_indices=indices)
    assert read_face_points(tmp_path / "h.npz") == {"chin": 3, "crown": 1}
    assert read_face_points(tmp_path / "h.obj") is None


def test_shipped_topologies_hold_numbers_and_no_positions():
    for name in shipped_topologies():
        topology = load_topology(name)
        assert topology.name == name
        assert list(topology.face_points) == list(FACE_POINT_NAMES)
        text = (DEMO.parents[1] / "topologies" / f"{name}.json").read_text()
        assert not any(isinstance(v, float) for v in _leaves(json.loads(text)))


def _leaves(data):
    if isinstance(data, dict):
        data = list(data.values())
    if not isinstance(data, list):
        return [data]
    return [leaf for item in data for leaf in _leaves(item)]


def test_demo_head_is_known_by_its_faces(demo):
    assert demo.topology.name == "demo"
    assert len(demo.part("eye_left")) == len(demo.part("eye_right")) > 50


def test_flame_head_is_known_by_its_faces(flame_head):
    head = identify(*read_head(flame_head))
    assert head.topology.name == "flame"
    assert head.part("skin").tolist() == list(range(3931))


def test_frame_of_a_turned_and_scaled_head_turns_and_scales_with_it(demo):
    moved = Head(turned(demo.vertices), demo.corners, demo.sizes, demo.topology)
    here, there = face_frame(demo), face_frame(moved)
    assert there.interocular == pytest.approx(37.0 * here.interocular)
    np.testing.assert_allclose(
        there.to_face_mm(moved.vertices), here.to_face_mm(demo.vertices), atol=1e-8
    )


def test_reordered_vertices_are_distinguished_from_another_head(demo):
    order = np.random.default_rng(0).permutation(len(demo.vertices))
    corners = np.argsort(order)[demo.corners]
    with pytest.raises(UserError, match="reordered"):
        identify(demo.vertices[order], corners, demo.sizes)
    with pytest.raises(UserError, match=r"has 5 vertices; the topology 'demo' has"):
        identify(VERTICES, CORNERS, SIZES, topology="demo")
    with pytest.raises(UserError, match="none of the known ones"):
        identify(VERTICES, CORNERS, SIZES)


def test_an_unknown_topology_names_the_known_ones():
    with pytest.raises(UserError, match="demo"):
        load_topology("nobody")


def test_a_json_file_that_is_no_topology_is_refused(tmp_path):
    (tmp_path / "bad.json").write_text('{"name": "x", "face_points": 3}')
    with pytest.raises(UserError, match="not a head topology"):
        load_topology(tmp_path / "bad.json")


def test_positions_that_are_not_numbers_are_refused(demo):
    vertices = demo.vertices.copy()
    vertices[[3, 7]] = np.nan
    with pytest.raises(UserError, match="2 vertices"):
        identify(vertices, demo.corners, demo.sizes)


def test_marked_points_make_any_mesh_a_head(demo):
    points = dict(demo.topology.face_points)
    head = identify(demo.vertices, demo.corners, demo.sizes, face_points=points)
    assert head.topology.name == "custom"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("chin"), "not marked: chin"),
        (lambda p: p.update(chin=p["crown"]), "chin and crown are the same vertex"),
        (lambda p: p.update(chin=10**6), "does not have"),
        (lambda p: p.update(chin=p["nose_tip"], nose_tip=p["chin"]), "nose_tip is not above"),
    ],
)
def test_wrong_marks_are_named(demo, change, message):
    points = dict(demo.topology.face_points)
    change(points)
    with pytest.raises(UserError, match=message):
        identify(demo.vertices, demo.corners, demo.sizes, face_points=points)


def test_swapped_sides_are_noticed(demo):
    points = demo.topology.face_points
    swap = {"left": "right", "right": "left"}
    sides = {n: next((s for s in swap if f"_{s}" in n), None) for n in points}
    swapped = {n: points[n.replace(f"_{s}", f"_{swap[s]}") if s else n] for n, s in sides.items()}
    with pytest.raises(UserError, match="left and right are swapped"):
        identify(demo.vertices, demo.corners, demo.sizes, face_points=swapped)


def test_a_squashed_head_is_implausible(demo):
    with pytest.raises(UserError, match="does not look like a face"):
        identify(demo.vertices * np.array([1.0, 0.01, 1.0]), demo.corners, demo.sizes)


def test_similarity_fit_finds_scale_rotation_and_translation():
    points = np.random.default_rng(1).normal(size=(40, 3))
    fit = similarity_fit(points, turned(points))
    assert fit.scale == pytest.approx(37.0)
    assert np.linalg.det(fit.rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(fit.apply(points), turned(points), atol=1e-9)


def test_similarity_fit_never_mirrors():
    points = np.random.default_rng(2).normal(size=(40, 3))
    fit = similarity_fit(points, points * np.array([-1.0, 1.0, 1.0]))
    assert np.linalg.det(fit.rotation) == pytest.approx(1.0)


def test_similarity_fit_refuses_points_without_extent():
    with pytest.raises(ValueError, match="one place"):
        similarity_fit(np.ones((4, 3)), np.ones((4, 3)))
