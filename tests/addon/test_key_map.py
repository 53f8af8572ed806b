# SPDX-License-Identifier: GPL-3.0-or-later
"""The artist's table of what drives which key, and its file."""

import json

import numpy as np
import pytest

from ptalker_blender import key_map, rig_mapping, rig_names
from ptalker_blender.key_map import Row
from ptalker_blender.protocol import UserError

from .test_rig_mapping import arkit_motion


def test_a_table_of_what_was_found_does_the_same():
    names = [*rig_names.ARKIT_NAMES[:-1], "Fat"]
    rig = rig_mapping.find_rig(names)
    rows = key_map.rows_of(rig, names)
    assert rows[-1] == Row("Fat", "")
    again = key_map.rig_of(rows, names)
    assert again.gains == rig.gains
    assert again.kind == rig.kind
    assert not again.fitted


def test_a_table_of_visemes_does_the_same():
    names = ["viseme_sil", *(f"viseme_{name}" for name in ("PP", "aa", "E", "I", "O", "U"))]
    rig = rig_mapping.find_rig([*names, "eyeBlinkLeft"])
    again = key_map.rig_of(key_map.rows_of(rig, names), [*names, "eyeBlinkLeft"])
    assert again.gains == rig.gains
    assert again.fitted == {key: shape for key, shape in rig.fitted.items() if shape != "rest"}


def test_rows_of_one_key_add_up_and_gains_count():
    motion = arkit_motion()
    rows = [Row("Smile", "mouthSmileLeft", 0.4), Row("Smile", "mouthSmileRight", 0.2),
            Row("Open", "jawOpen", 1.5), Row("gone", "jawOpen"), Row("Fat", "")]  # fmt: skip
    rig = key_map.rig_of(rows, ["Smile", "Open", "Fat"])
    keyed = rig_mapping.drive(motion, rig, None)
    assert keyed.names == ("Smile", "Open")
    np.testing.assert_allclose(keyed.weights[0], [0.6, 1.5])


def test_gain_of_a_viseme_scales_what_was_fitted():
    motion = arkit_motion()
    motion.weights[:] *= 0.3
    names = ["one", "two"]
    plain = key_map.rig_of([Row("one", "viseme_aa"), Row("two", "viseme_ou")], names)
    louder = key_map.rig_of([Row("one", "viseme_aa", 2.0), Row("two", "viseme_ou")], names)
    a, b = (rig_mapping.drive(motion, rig, None).weights for rig in (plain, louder))
    np.testing.assert_allclose(b[:, 0], 2 * a[:, 0])
    np.testing.assert_array_equal(b[:, 1], a[:, 1])


def test_a_key_driven_by_weight_and_by_fit_is_left_alone_and_said():
    rows = [Row("a", "jawOpen"), Row("a", "viseme_aa"), Row("b", "viseme_ou")]
    rig = key_map.rig_of(rows, ["a", "b"])
    assert rig.names == ("b",)
    assert rig.left_alone == ("a",)


def test_a_table_without_use_is_no_rig():
    assert key_map.rig_of([Row("a", ""), Row("gone", "jawOpen")], ["a"]) is None


def test_file_holds_the_rows_that_are_driven(tmp_path):
    rows = [Row("Ä", "jawOpen", 0.8), Row("b", "viseme_aa"), Row("b2", ""), Row("Ä", "mouthClose")]
    path = tmp_path / "rig.json"
    key_map.write(path, rows)
    assert json.loads(path.read_text("utf-8")) == {
        "Ä": {"jawOpen": 0.8, "mouthClose": 1.0},
        "b": {"viseme_aa": 1.0},
    }
    assert key_map.read(path) == [rows[0], rows[3], rows[1]]


def test_file_of_windows_is_read(tmp_path):
    path = tmp_path / "rig.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": {"jawOpen": 1}}')
    assert key_map.read(path) == [Row("a", "jawOpen", 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "an object is expected"),
        ("{}", "an object is expected"),
        ('{"a": 1}', '"a" must have an object'),
        ('{"a": {"jawopen": 1}}', "neither an ARKit blendshape nor a viseme"),
        ('{"a": {"jawOpen": "1"}}', "expected a number"),
        ('{"a": {"jawOpen": true}}', "expected a number"),
        ('{"a": {"jawOpen": NaN}}', "expected a number"),
        ('{"a": {"jawOpen": 11}}', "expected a number"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path, text, message):
    path = tmp_path / "rig.json"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        key_map.read(path)


def test_a_missing_file_and_an_empty_table_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        key_map.read(tmp_path / "none.json")
    with pytest.raises(UserError, match="Nothing in the table is driven"):
        key_map.write(tmp_path / "rig.json", [Row("a", "")])
    with pytest.raises(UserError, match="cannot be written"):
        key_map.write(tmp_path / "none" / "rig.json", [Row("a", "jawOpen")])


@pytest.mark.parametrize(("name", "pose"), [
    ("pose:jaw open@1", ("jaw open", 1)), ("pose:a@b@-12", ("a@b", -12)), ("jawOpen", None),
    ("pose:@1", None), ("pose:jaw@", None), ("pose:jaw@1.5", None), ("Pose:jaw@1", None),
])  # fmt: skip
def test_names_of_poses(name, pose):
    assert key_map.pose_of(name) == pose
    if pose is not None:
        assert key_map.pose_name(*pose) == name


def test_poses_go_through_a_file_with_the_keys(tmp_path):
    rows = [Row("pose:jaw@1", "jawOpen", 0.5), Row("Smile", "mouthSmileLeft")]
    key_map.write(tmp_path / "rig.json", rows)
    assert key_map.read(tmp_path / "rig.json") == rows
    rig = key_map.rig_of(rows, ["Smile", "pose:jaw@1"])
    assert rig.gains == {"pose:jaw@1": {"jawOpen": 0.5}, "Smile": {"mouthSmileLeft": 1.0}}
