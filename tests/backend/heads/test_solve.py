# SPDX-License-Identifier: GPL-3.0-or-later
"""The articulation shapes on whole heads: lips that meet, lids that close, what must not move."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from backend import bundled
from backend.errors import UserError
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.face_layout import examine
from backend.heads.fit_weights import fit_weights
from backend.heads.lip_measures import face_point_basis, lip_curves
from backend.heads.render import COMBINATIONS
from backend.heads.solve import solve_shapes
from backend.heads.topology import FACE_POINT_NAMES, Head, face_frame, identify, read_head

DEMO = bundled.DEMO_HEAD
SIDES = ("left", "right")


def both(name, weight=1.0):
    return {f"{name}Left": weight, f"{name}Right": weight}


CLOSED_POSES = {
    "rest": {},
    "m": COMBINATIONS["m"],
    "p": COMBINATIONS["p"],
    "wide open jaw": {"jawOpen": 0.6, "mouthClose": 0.6},
    "m in a smile": {"jawOpen": 0.2, "mouthClose": 0.2} | both("mouthSmile", 0.6),
    "m before oo": {"jawOpen": 0.2, "mouthClose": 0.2, "mouthPucker": 0.7},
    "jaw aside": {"jawLeft": 1.0, "jawForward": 0.5},
    "pucker": {"mouthPucker": 1.0},
    "smile": both("mouthSmile"),
    "half a smile": {"mouthSmileLeft": 1.0},
    "frown": both("mouthFrown"),
    "stretch": both("mouthStretch"),
    "dimples": both("mouthDimple"),
    "press": both("mouthPress"),
    "rolls": {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    "shrugs": {"mouthShrugLower": 1.0, "mouthShrugUpper": 1.0},
    "puff": {"cheekPuff": 1.0},
    "aside": {"mouthLeft": 1.0},
    "sneer": both("noseSneer"),
}


class Solved:
    """A head with its shapes, in the face's axes and millimetres."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.face = examine(head)
        self.shapes = solve_shapes(head)
        self.offsets = self.face.frame.offsets_to_face_mm(self.shapes.offsets)
        self.rest = self.face.points

    def shape(self, name):
        return self.offsets[ARKIT_NAMES.index(name)]

    def pose(self, weights):
        moved = [weight * self.shape(name) for name, weight in weights.items()]
        return self.rest + sum(moved, np.zeros_like(self.rest))

    def at(self, name):
        return self.face.landmark_vertex[name]


def demo_head():
    return identify(*read_head(DEMO))


@pytest.fixture(scope="module")
def demo():
    return Solved(demo_head())


@pytest.fixture(scope="module", params=["demo", "flame"])
def solved(request, demo):
    if request.param == "demo":
        return demo
    return Solved(identify(*read_head(request.getfixturevalue("flame_head"))))


def samples(positions, row):
    """Points on a row of vertices: numbers of its segments' ends, and how far between them."""
    steps = np.linspace(0.0, 1.0, 33)
    start = np.repeat(np.arange(len(row) - 1), len(steps))
    along = np.tile(steps, len(row) - 1)
    places = (
        positions[row[start]] * (1 - along)[:, None] + positions[row[start + 1]] * along[:, None]
    )
    return start, along, places


def partings(solved, pose):
    """How far each vertex of a contact row moved off the place of the other lip it touches, mm.

    Against the rest shape, since the lips of scanned heads overlap at rest; along the lips'
    normal, since lips may slide on each other. Positive parts the lips.
    """
    rows = solved.face.mouth.rows
    result = []
    for lip, other, up in (("upper", "lower", 1.0), ("lower", "upper", -1.0)):
        start, along, places = samples(solved.rest, rows[other])
        own = rows[lip][1:-1]
        nearest = cKDTree(places).query(solved.rest[own])[1]
        ends = rows[other][start[nearest]], rows[other][start[nearest] + 1]
        distances = []
        for positions in (pose, solved.rest):
            a, b = positions[ends[0]], positions[ends[1]]
            tangent = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
            normal = np.array([0.0, up, 0.0]) - (up * tangent[:, 1])[:, None] * tangent
            normal /= np.linalg.norm(normal, axis=1, keepdims=True)
            away = positions[own] - (a + along[nearest][:, None] * (b - a))
            distances.append((away * normal).sum(axis=1))
        result.append(distances[0] - distances[1])
    return np.concatenate(result)


@pytest.mark.parametrize("name", CLOSED_POSES)
def test_closed_lips_stay_closed_along_the_whole_line(solved, name):
    parting = partings(solved, solved.pose(CLOSED_POSES[name]))
    assert np.abs(parting).max() <= 0.3


@pytest.mark.parametrize("name", ["mouthFunnel", "mouthRollLower", "mouthRollUpper"])
@pytest.mark.parametrize("other", ["mouthUpperUpLeft", "mouthLowerDownRight", "jawOpen"])
def test_opening_shapes_never_push_the_lips_through_each_other(solved, name, other):
    parting = partings(solved, solved.pose({name: 1.0, other: 0.7}))
    assert parting.min() >= -0.3


def clearances(solved, pose, lip):
    """How far each vertex of a lip's contact row is off the other lip's surface, straight up or
    down, mm; NaN where the other lip is not above or below it, less than 0 within it."""
    mouth = solved.face.mouth
    other = np.zeros(len(pose), dtype=bool)
    other[mouth.lips[mouth.is_upper == (lip == "lower")]] = True
    other[mouth.rows["lower" if lip == "upper" else "upper"]] = True
    triangles = solved.head.triangles[other[solved.head.triangles].all(axis=1)]
    found = []
    for vertex in mouth.rows[lip][1:-1]:
        a, b, c = (pose[triangles[:, k]][:, [0, 2]] for k in range(3))
        p = pose[vertex, [0, 2]]
        area = cross(b - a, c - a)
        weights = np.stack([cross(b - p, c - p), cross(c - p, a - p), cross(a - p, b - p)], axis=1)
        weights = weights / np.where(np.abs(area) > 1e-9, area, np.inf)[:, None]
        hit = (weights > 0).all(axis=1)
        gaps = pose[vertex, 1] - (weights[hit] * pose[triangles[hit], 1]).sum(axis=1)
        found.append(min(gaps, key=abs, default=np.nan))
    return np.array(found) * (1.0 if lip == "upper" else -1.0)


def cross(a, b):
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


@pytest.mark.parametrize("name", ["m", "p", "pucker", "press", "rolls", "half a smile", "shrugs"])
def test_no_lip_dips_into_the_other(solved, name):
    """Beyond rest, where the lips of scanned heads overlap already."""
    pose, rest = (
        np.concatenate([clearances(solved, points, lip) for lip in ("upper", "lower")])
        for points in (solved.pose(CLOSED_POSES[name]), solved.rest)
    )
    assert np.nanmin(pose - np.nan_to_num(np.minimum(rest, 0.0))) >= -0.3


def test_jaw_opens_the_mouth_by_25_to_30_mm_and_carries_chin_and_lip(solved):
    pose = solved.pose({"jawOpen": 1.0})
    moved = pose - solved.rest
    inner = [solved.at(f"lip_{lip}_inner_center") for lip in ("upper", "lower")]
    assert 25.0 <= moved[inner[0], 1] - moved[inner[1], 1] <= 30.0
    assert np.linalg.norm(moved[inner[0]]) < 0.5
    assert moved[solved.at("chin"), 1] < -20.0
    assert np.abs(moved[[solved.at("nose_tip"), solved.at("nose_base")]]).max() < 0.1


def test_open_mouth_narrows_towards_its_corners(solved):
    curve = solved.pose({"jawOpen": 1.0}) - solved.rest
    gaps = [
        curve[solved.at(f"lip_upper_inner_{place}"), 1]
        - curve[solved.at(f"lip_lower_inner_{place}"), 1]
        for place in ("center", "left_1", "left_2", "left_3")
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[3] < 0.8 * gaps[0]


def test_open_mouth_keeps_its_inside_behind_the_lips(solved):
    """The inside may not overshoot: it moves no farther than the jaw carries the lower lip."""
    moved = np.linalg.norm(solved.shape("jawOpen"), axis=1)
    lips = solved.face.mouth.rows["lower"]
    chin = moved[solved.at("chin")]
    assert moved[solved.face.mouth.pocket].max() <= max(moved[lips].max(), chin) + 0.5


def test_shapes_move_what_their_names_say(solved):
    corner, pose = solved.at("lip_corner_left"), solved.shape
    assert pose("mouthSmileLeft")[corner, 1] > 4
    assert pose("mouthFrownLeft")[corner, 1] < -4
    assert pose("mouthStretchLeft")[corner, 0] > 5
    assert pose("mouthPucker")[corner, 0] < -5
    assert pose("mouthPucker")[solved.at("lip_upper_outer_center"), 2] > 3
    assert pose("mouthLeft")[solved.at("lip_upper_inner_center"), 0] > 5
    assert pose("jawLeft")[solved.at("chin"), 0] > 5
    assert pose("jawForward")[solved.at("chin"), 2] > 4
    assert pose("mouthUpperUpLeft")[solved.at("lip_upper_inner_left_1"), 1] > 2
    assert pose("mouthLowerDownLeft")[solved.at("lip_lower_inner_left_1"), 1] < -2
    assert pose("browInnerUp")[solved.at("brow_left_1"), 1] > 4
    assert pose("browDownLeft")[solved.at("brow_left_2"), 1] < -3
    assert pose("browOuterUpLeft")[solved.at("brow_left_4"), 1] > 4
    assert pose("cheekPuff")[solved.at("cheek_hollow_left"), 0] > 3
    assert pose("noseSneerLeft")[solved.at("nostril_left"), 1] > 2
    for name in ("mouthSmileLeft", "mouthPucker", "jawOpen", "browInnerUp"):
        assert np.abs(pose(name)[solved.at("crown")]).max() == 0.0


def test_one_sided_shapes_leave_the_other_corner(solved):
    for name in ("mouthSmile", "mouthFrown", "mouthStretch", "mouthDimple"):
        moved = np.linalg.norm(solved.shape(f"{name}Left"), axis=1)
        assert moved[solved.at("lip_corner_right")] == pytest.approx(0.0, abs=1e-6)


def test_nothing_moves_behind_the_ears(solved):
    hinge = min(solved.rest[solved.at(f"jaw_hinge_{side}"), 2] for side in SIDES)
    behind = np.setdiff1d(
        np.flatnonzero(solved.rest[:, 2] < hinge), np.concatenate(list(solved.face.parts.values()))
    )
    assert len(behind) > 500
    assert np.abs(solved.shapes.offsets[:, behind]).max() == 0.0


@pytest.mark.parametrize("side", SIDES)
def test_lids_meet_and_stay_off_the_ball(solved, side):
    eye = solved.face.eyes[side]
    pose = solved.pose({f"eyeBlink{side.capitalize()}": 1.0})
    for lid, other in (("upper", "lower"), ("lower", "upper")):
        _, _, places = samples(pose, eye.rows[other])
        assert cKDTree(places).query(pose[eye.rows[lid]])[0].max() <= 0.3
    ball = solved.rest[eye.ball] - eye.centre
    radius = np.linalg.norm(ball, axis=1)
    directions = cKDTree(ball / radius[:, None])
    moving = np.abs(solved.shape(f"eyeBlink{side.capitalize()}")).max(axis=1) > 0
    moving[eye.pocket] = False
    lid = np.flatnonzero(moving)
    for weight in (0.5, 1.0):
        away = solved.pose({f"eyeBlink{side.capitalize()}": weight})[lid] - eye.centre
        distance = np.linalg.norm(away, axis=1)
        surface = radius[directions.query(away / distance[:, None])[1]]
        assert (distance - surface).min() > 0.0


@pytest.mark.parametrize("side", SIDES)
def test_eyeballs_turn_rigidly(solved, side):
    eye = solved.face.eyes[side]
    ball = solved.rest[eye.ball] - eye.centre
    for name in ("In", "Out", "Up", "Down"):
        moved = ball + solved.shape(f"eyeLook{name}{side.capitalize()}")[eye.ball]
        np.testing.assert_allclose(moved @ moved.T, ball @ ball.T, atol=2e-3)
        pupil = ball[:, 2].argmax()
        assert np.linalg.norm(moved[pupil] - ball[pupil]) > 3.0
    for name in set(ARKIT_NAMES) - {n for n in ARKIT_NAMES if n.startswith("eyeLook")}:
        assert np.abs(solved.shape(name)[eye.ball]).max() == 0.0


def test_eyes_look_where_their_names_say(solved):
    eye = solved.face.eyes["left"]
    pupil = eye.ball[solved.rest[eye.ball, 2].argmax()]
    assert solved.shape("eyeLookOutLeft")[pupil, 0] > 3
    assert solved.shape("eyeLookInLeft")[pupil, 0] < -3
    assert solved.shape("eyeLookUpLeft")[pupil, 1] > 3
    assert solved.shape("eyeLookDownLeft")[pupil, 1] < -3


def test_teeth_follow_the_jaw_rigidly_or_stay(demo):
    teeth = demo.face.parts["teeth_lower"]
    opened = demo.pose({"jawOpen": 1.0})[teeth]
    distances = np.linalg.norm(opened[:, None] - opened[None], axis=2)
    at_rest = np.linalg.norm(demo.rest[teeth][:, None] - demo.rest[teeth][None], axis=2)
    np.testing.assert_allclose(distances, at_rest, atol=1e-3)
    assert np.abs(demo.offsets[:, demo.face.parts["teeth_upper"]]).max() == 0.0
    assert np.abs(demo.shape("mouthClose")[teeth]).max() < 1e-5


def test_tongue_comes_out_only_where_there_is_one(solved):
    tongue = solved.face.parts["tongue"]
    shape = solved.shape("tongueOut")
    if len(tongue):
        tip = tongue[solved.rest[tongue, 2].argmax()]
        assert shape[tip, 2] > 8
    shape[tongue] = 0.0
    assert np.abs(shape).max() == 0.0


def test_shapes_of_a_symmetric_head_mirror_each_other(demo):
    mirror = np.array(demo.head.topology.mirror)
    flip = np.array([-1.0, 1.0, 1.0])
    for name in ARKIT_NAMES:
        swapped = name.replace("Left", "*").replace("Right", "Left").replace("*", "Right")
        np.testing.assert_allclose(
            demo.shape(name)[mirror] * flip, demo.shape(swapped), atol=0.02, err_msg=name
        )


def test_shapes_turn_and_scale_with_the_head(demo):
    turn = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    head = demo.head
    moved = Head(250.0 * head.vertices @ turn.T + 40.0, head.corners, head.sizes, head.topology)
    expected = 250.0 * demo.shapes.offsets @ turn.T
    np.testing.assert_allclose(solve_shapes(moved).offsets, expected, atol=0.01)


def test_triangles_or_quads_make_no_difference_to_the_names_and_little_to_the_shapes(demo):
    triangles = demo.head.triangles.astype(np.int32)
    sizes = np.full(len(triangles), 3, np.int32)
    head = Head(demo.head.vertices, triangles.ravel(), sizes, demo.head.topology)
    assert solve_shapes(head).names == ARKIT_NAMES


def test_a_custom_head_finds_its_eyes_and_teeth_by_position(demo):
    head = demo.head
    points = dict(head.topology.face_points)
    custom = replace(head.topology, name="custom", parts=(), face_points=points)
    face = examine(Head(head.vertices, head.corners, head.sizes, custom))
    for side in SIDES:
        assert face.eyes[side].ball.tolist() == demo.face.eyes[side].ball.tolist()
    assert set(demo.face.parts["teeth_upper"]) <= set(face.parts["teeth_upper"])
    assert set(demo.face.parts["teeth_lower"]) <= set(face.parts["teeth_lower"])


def test_a_head_without_eyeballs_teeth_and_tongue_still_gets_all_shapes(demo):
    head, skin = demo.head, np.sort(demo.face.skin)
    keep = np.isin(head.triangles, skin).all(axis=1)
    triangles = np.searchsorted(skin, head.triangles[keep]).astype(np.int32)
    points = {n: int(np.searchsorted(skin, i)) for n, i in head.topology.face_points.items()}
    bare = identify(
        head.vertices[skin], triangles.ravel(), np.full(len(triangles), 3), face_points=points
    )
    offsets = solve_shapes(bare).offsets
    assert offsets.shape == (52, len(skin), 3)
    assert np.isfinite(offsets).all()


def test_loose_parts_follow_the_skin_beneath_them(demo):
    head = demo.head
    patch = head.triangles[np.isin(head.triangles, demo.at("brow_left_3")).any(axis=1)]
    numbers, local = np.unique(patch, return_inverse=True)
    lifted = head.vertices[numbers] + 1e-4 * demo.face.frame.axes[2]
    triangles = np.concatenate([head.triangles, local.reshape(-1, 3) + len(head.vertices)])
    with_hair = identify(
        np.concatenate([head.vertices, lifted]),
        triangles.ravel(),
        np.full(len(triangles), 3),
        face_points=head.topology.face_points,
    )
    offsets = solve_shapes(with_hair).offsets[ARKIT_NAMES.index("browOuterUpLeft")]
    np.testing.assert_allclose(offsets[-len(numbers) :], offsets[numbers], atol=1e-7)


def with_faces(head, triangles):
    corners = np.concatenate([head.triangles, triangles]).ravel()
    return Head(head.vertices, corners, np.full(len(corners) // 3, 3), head.topology)


def test_a_mouth_that_is_sewn_up_is_refused(demo):
    upper, lower = (demo.face.mouth.rows[lip] for lip in ("upper", "lower"))
    middle = len(upper) // 2
    sewn = np.array([[upper[middle], lower[middle], upper[middle + 1]]])
    with pytest.raises(UserError, match="not a slit"):
        examine(with_faces(demo.head, sewn))


def test_a_gaping_mouth_is_refused(demo):
    vertices = demo.head.vertices + 0.5 * demo.shapes.offsets[ARKIT_NAMES.index("jawOpen")]
    head = Head(vertices, demo.head.corners, demo.head.sizes, demo.head.topology)
    with pytest.raises(UserError, match="stands open by"):
        examine(head)


def test_a_face_point_on_a_loose_part_is_refused(demo):
    points = demo.head.topology.face_points | {"cheek_left": int(demo.face.eyes["left"].ball[0])}
    topology = replace(demo.head.topology, face_points=points)
    head = Head(demo.head.vertices, demo.head.corners, demo.head.sizes, topology)
    with pytest.raises(
        UserError, match="not connected with the nose by the head's faces: cheek_left"
    ):
        examine(head)


def speech_weights(num_frames, seed=0):
    """Sparse weights as speech uses them; opposed shapes are never used together."""
    rng = np.random.default_rng(seed)
    names = ["mouthFunnel", "mouthPucker", "mouthRollLower", "mouthShrugUpper", "mouthLeft"]
    pairs = ["mouthSmile", "mouthStretch", "mouthPress", "mouthLowerDown", "mouthUpperUp"]
    pairs += ["eyeBlink", "browDown"]
    weights = np.zeros((num_frames, len(ARKIT_NAMES)))
    for frame in weights:
        jaw = rng.uniform(0.0, 0.7)
        used = {"jawOpen": jaw, "mouthClose": jaw * rng.integers(2)}
        used |= {name: rng.uniform(0.1, 0.9) for name in rng.choice(names, 2, replace=False)}
        for name in rng.choice(pairs, 2, replace=False):
            used |= both(name, rng.uniform(0.1, 0.9))
        for name, weight in used.items():
            frame[ARKIT_NAMES.index(name)] = weight
    return weights


def test_fit_recovers_the_weights_that_made_a_motion(solved):
    weights = speech_weights(120)
    shapes = solved.shapes.offsets
    motion = np.tensordot(weights, shapes, axes=1)
    assert np.abs(fit_weights(motion, shapes) - weights).max() < 0.05


def test_fit_is_bounded_and_finite_for_any_motion(demo):
    rng = np.random.default_rng(1)
    unit = demo.face.frame.unit_mm
    motion = rng.normal(size=(10, len(demo.rest), 3)) * 20 * unit
    weights = fit_weights(motion, demo.shapes.offsets)
    assert weights.shape == (10, 52)
    assert (weights >= 0).all()
    assert (weights <= 1.5).all()
    assert not fit_weights(motion, np.zeros_like(demo.shapes.offsets)).any()


def test_face_point_basis_is_the_same_in_any_space(demo):
    turn = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    head = demo.head
    moved = Head(100.0 * head.vertices @ turn.T, head.corners, head.sizes, head.topology)
    here = face_point_basis(demo.shapes.offsets, head)
    there = face_point_basis(100.0 * demo.shapes.offsets @ turn.T, moved)
    assert here.shape == (52, len(FACE_POINT_NAMES), 3)
    np.testing.assert_allclose(there, here, atol=1e-5)
    chin = here[ARKIT_NAMES.index("jawOpen"), FACE_POINT_NAMES.index("chin"), 1]
    assert chin * 62.0 == pytest.approx(demo.shape("jawOpen")[demo.at("chin"), 1], abs=0.01)


def test_lip_curves_of_open_closed_wide_and_round_lips(solved):
    poses = [{}, {"jawOpen": 1.0}, {"jawOpen": 0.3, "mouthClose": 0.3}]
    poses += [both("mouthStretch"), {"mouthPucker": 1.0}]
    weights = np.array([[pose.get(name, 0.0) for name in ARKIT_NAMES] for pose in poses])
    curves = lip_curves(weights, solved.shapes.offsets, solved.head)
    rest, opened, closed, wide, pursed = range(5)
    assert curves["opening_mm"][rest] == curves["gap_mm"][rest] == 0.0
    assert 22.0 < curves["opening_mm"][opened] <= curves["gap_mm"][opened] < 30.0
    assert curves["gap_mm"][closed] < 0.3
    assert curves["width_mm"][wide] > curves["width_mm"][rest] + 10
    assert curves["width_mm"][pursed] < curves["width_mm"][rest] - 10
    assert curves["protrusion_mm"][pursed] > 3


def test_frame_of_the_face_is_upright(solved):
    frame = face_frame(solved.head)
    np.testing.assert_allclose(frame.axes @ frame.axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame.axes) == pytest.approx(1.0)
    crown, chin = solved.rest[solved.at("crown")], solved.rest[solved.at("chin_bottom")]
    assert crown[1] > 60 > -60 > chin[1]
