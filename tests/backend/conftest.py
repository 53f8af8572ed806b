# SPDX-License-Identifier: GPL-3.0-or-later
"""Material of the backend's tests: the demo head, a tiny model, an exemplar, a sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, scope="module")
def fresh_accelerate():
    """Tests of another file in this process may have asked for another precision."""
    if "accelerate" in sys.modules:
        sys.modules["accelerate"].state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def demo_head_file() -> Path:
    return ROOT / "backend" / "demo" / "head.npz"


@pytest.fixture(scope="session")
def solved_demo_head(demo_head_file):
    """The demo head and its solved shapes."""
    from backend.heads.mesh_files import read_face_points, read_head
    from backend.heads.solve import solve_shapes
    from backend.heads.topology import identify

    points = read_face_points(demo_head_file)
    head = identify(*read_head(demo_head_file), face_points=points)
    return head, solve_shapes(head)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, solved_demo_head) -> Path:
    """A checkpoint of the preset tiny, untrained."""
    torch = pytest.importorskip("torch")

    from backend.heads.arkit import ARKIT_NAMES
    from backend.heads.lip_measures import face_point_basis
    from backend.heads.topology import face_frame
    from backend.model import checkpoint
    from backend.model.graph_encoder import face_point_graph
    from backend.model.presets import PRESETS
    from backend.model.ptalker import PTalker

    head, solved = solved_demo_head
    frame = face_frame(head)
    points = frame.to_face_mm(head.vertices[head.topology.face_point_vertices])
    positions = torch.from_numpy((points - points.mean(axis=0)) * frame.unit_mm / frame.interocular)
    basis = torch.from_numpy(face_point_basis(solved.offsets, head))
    torch.manual_seed(0)
    ptalker = PTalker(PRESETS["tiny"])
    with torch.no_grad():
        ptalker.output_layer.weight.mul_(5)  # so that the lips move
        lids = [ARKIT_NAMES.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
        ptalker.output_layer.weight[lids] = 0  # as training does: the backend adds blinks
    neighbours = ptalker.config.num_neighbours
    ptalker.set_graph(face_point_graph(positions, basis, neighbours))
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny ö"
    checkpoint.save(folder, ptalker, card="For tests.")
    return folder


@pytest.fixture(scope="session")
def exemplar(tmp_path_factory, solved_demo_head) -> Path:
    """Four seconds of the demo head babbling."""
    import numpy as np

    head, solved = solved_demo_head
    times = np.arange(100) / 25
    weights = np.zeros((100, len(solved.names)), np.float32)
    weights[:, solved.names.index("jawOpen")] = 0.3 - 0.3 * np.cos(2 * np.pi * 3 * times)
    weights[:, solved.names.index("mouthSmileLeft")] = 0.5
    path = tmp_path_factory.mktemp("exemplar") / "exemplar.npz"
    np.savez(
        path,
        vertices=(head.vertices + np.tensordot(weights, solved.offsets, 1)).astype(np.float32),
        template=head.vertices,
        fps=25.0,
        topology="custom",
        face_corners=head.corners,
        face_sizes=head.sizes,
        face_point_names=np.array(list(head.topology.face_points)),
        face_point_indices=np.array(list(head.topology.face_points.values()), np.int32),
    )
    return path


@pytest.fixture(scope="session")
def spoken():
    """A spoken sentence and its phones."""
    from backend.data.speech.synthesis import Voice, available_engines, speak
    from tests.backend.speech.samples import SENTENCE

    if "flite" not in available_engines():
        pytest.skip("flite is not installed")
    return speak(Voice("flite", "slt"), [SENTENCE])[0]
