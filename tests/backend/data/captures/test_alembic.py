# SPDX-License-Identifier: GPL-3.0-or-later
"""Alembic caches that Blender itself wrote, read back through Blender."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.data.captures import alembic, prepared
from backend.data.captures.prepare import prepare
from backend.errors import UserError

_PYTHON = Path(__file__).parents[4] / ".venv" / "blender-4.5" / "bin" / "python"
_WRITE = """
import sys, bpy, numpy as np
file, frames, meshes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
scene.render.fps, scene.frame_start, scene.frame_end = 25, 1, frames
for number in range(meshes):
    mesh = bpy.data.meshes.new("face")
    mesh.from_pydata(
        [(0, 0, 0), (0.2, 0, 0), (0.2, 0.3, 0.1), (0, 0.3, 0)], [], [(0, 1, 2), (0, 2, 3)]
    )
    thing = bpy.data.objects.new("face", mesh)
    scene.collection.objects.link(thing)
    thing.location, thing.rotation_euler = (0.1, 0.2, 0.3), (0.5, 0.0, 1.0)
    thing.shape_key_add(name="rest")
    key = thing.shape_key_add(name="open")
    key.data[1].co.z += 0.4
    for frame in range(1, frames + 1):
        key.value = (frame - 1) / 20
        key.keyframe_insert("value", frame=frame)
bpy.ops.wm.alembic_export(
    filepath=file, start=1, end=frames, selected=False, as_background_job=False
)
places = []
for frame in range(1, frames + 1):
    scene.frame_set(frame)
    one = thing.evaluated_get(bpy.context.evaluated_depsgraph_get())
    places.append([list(one.matrix_world @ v.co) for v in one.data.vertices])
np.save(file + ".npy", places)
"""


@pytest.fixture(scope="module")
def blender():
    if not _PYTHON.exists():
        pytest.skip("there is no environment blender-4.5")
    return str(_PYTHON)


def write(blender, file, *, frames=12, meshes=1):
    """An animated face at 25 frames a second; returns its places in Blender's axes (T, V, 3)."""
    command = [blender, "-c", _WRITE, str(file), str(frames), str(meshes)]
    subprocess.run(command, check=True, capture_output=True)
    return np.load(f"{file}.npy")


def test_places_come_back_in_the_files_own_axes(blender, tmp_path):
    wanted = write(blender, tmp_path / "hello.abc")
    motion = alembic.read_alembic(tmp_path / "hello.abc", fps=Fraction(25), blender=blender)
    assert motion.vertices.shape == (12, 4, 3)
    x, y, z = np.moveaxis(motion.vertices, -1, 0)
    np.testing.assert_allclose(np.stack((x, -z, y), -1), wanted, atol=1e-6)
    assert np.ptp(motion.vertices[:, 1], axis=0).max() > 0.1
    corners, sizes = motion.faces
    assert sizes.tolist() == [3, 3]
    assert sorted(corners.tolist()) == [0, 0, 1, 2, 2, 3]


def test_the_program_blender_is_given_the_script_after_its_own_options(blender, tmp_path):
    program = tmp_path / "blender"
    program.write_text(
        '#!/bin/sh\n[ "$1 $2" = "--background --factory-startup" ] || exit 3\n'
        f'while [ "$1" != --python ]; do shift; done; shift; exec "{blender}" "$@"\n'
    )
    program.chmod(0o755)
    wanted = write(blender, tmp_path / "hello.abc", frames=3)
    motion = alembic.read_alembic(
        tmp_path / "hello.abc", fps=Fraction(25), blender=str(program), max_frames=2
    )
    np.testing.assert_allclose(motion.vertices[..., 1], wanted[:2, :, 2], atol=1e-6)


def test_another_rate_reads_between_the_frames(blender, tmp_path):
    wanted = write(blender, tmp_path / "hello.abc", frames=11)
    motion = alembic.read_alembic(tmp_path / "hello.abc", fps=Fraction(50), blender=blender)
    assert len(motion.vertices) == 21
    np.testing.assert_allclose(motion.vertices[::2, :, 1], wanted[:, :, 2], atol=1e-5)


def test_a_folder_of_alembic_files_is_prepared(blender, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    wanted = write(blender, tmp_path / "hello.abc", frames=12)
    (tmp_path / "hello.abc").rename(raw / "ann_hello.abc")
    (raw / "ann_broken.abc").write_bytes(b"Ogawa and then nothing")
    for name in ("ann_hello", "ann_broken"):
        soundfile.write(raw / f"{name}.wav", np.zeros(7680, np.float32), 16000)
    manifest = prepare("folder", raw, tmp_path / "out", fps="25", blender=blender)
    assert [one.name for one in manifest.sequences] == ["ann_hello"]
    (problem,) = manifest.problems
    assert problem.name == "ann_broken"
    assert "ann_broken.abc is damaged" in problem.reason
    data = prepared.open(tmp_path / "out")
    offsets = data.offsets(manifest.sequences[0])
    np.testing.assert_allclose(offsets[:, 1, 1], (wanted - wanted[0])[:, 1, 2], atol=1e-3)
    assert data.faces()[1].tolist() == [3, 3]


def test_files_without_a_single_face_are_refused(blender, tmp_path):
    write(blender, tmp_path / "two.abc", frames=2, meshes=2)
    with pytest.raises(UserError, match=r"two\.abc holds 2 meshes\. Export the face alone"):
        alembic.read_alembic(tmp_path / "two.abc", fps=Fraction(25), blender=blender)
    with pytest.raises(UserError, match="damaged or holds no mesh"):
        alembic.read_alembic(tmp_path / "none.abc", fps=Fraction(25), blender=blender)


def test_a_blender_that_is_not_there_or_fails_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"no program 'no-blender'.*--blender"):
        alembic.read_alembic(tmp_path / "a.abc", fps=Fraction(25), blender="no-blender")
    with pytest.raises(UserError, match=r"Blender could not read a\.abc \(.*bpy"):
        alembic.read_alembic(tmp_path / "a.abc", fps=Fraction(25), blender=sys.executable)
