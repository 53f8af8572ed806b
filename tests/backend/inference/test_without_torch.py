# SPDX-License-Identifier: GPL-3.0-or-later
"""The way from sound to motion without PyTorch: what is imported, and that it works."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend import bundled

ROOT = Path(__file__).resolve().parents[3]
BACKEND = ROOT / "backend"
HEAVY = {"torch", "transformers", "torch_geometric", "safetensors", "moonshine_voice"}
COMMANDS = ("generate", "style", "serve", "info", "face-points")
# What those commands import when they run, in functions.
STARTS = (
    "backend.__main__", "backend.cli.main", "backend.service.worker", "backend.service.server",
    "backend.service.requests", "backend.service.batch.executors",
    "backend.service.batch.list_worker", "backend.service.batch.job_list",
    "backend.heads.find_face_points", "backend.inference.onnx_engine",
    "backend.inference.engine_cache",
)  # fmt: skip


def file_of(module: str) -> Path | None:
    path = ROOT / Path(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def top_level_imports(path: Path) -> set[str]:
    """Modules that are imported when a file is, not those inside functions or for types alone."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(ast.parse(path.read_text("utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += list(ast.iter_child_nodes(node))
    return found


def test_nothing_on_the_way_imports_torch():
    seen: dict[str, str] = {}
    waiting = [(start, start) for start in STARTS]
    while waiting:
        module, through = waiting.pop()
        path = file_of(module)
        if path is None or module in seen:
            continue
        seen[module] = through
        for name in top_level_imports(path):
            top = name.partition(".")[0]
            assert top not in HEAVY, f"{module} imports {name} (reached by {through})"
            if top == "backend":
                waiting.append((name, f"{through} > {module}"))
    assert {"backend.inference.predictor", "backend.speech.recognition"} <= set(seen)
    assert "backend.inference.torch_engine" not in seen


BLOCKED = """
import sys
for name in {heavy!r}:
    sys.modules[name] = None
import runpy
sys.argv = ["backend", *sys.argv[1:]]
runpy.run_module("backend", run_name="__main__")
"""


@pytest.fixture(scope="module")
def blocked(tmp_path_factory, spoken):
    """Runs a command of the backend in a process in which nothing heavy can be imported."""
    if not bundled.is_installed("onnxruntime"):
        pytest.skip("onnxruntime is not installed")
    folder = tmp_path_factory.mktemp("blocked")

    def run(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", BLOCKED.format(heavy=sorted(HEAVY)), *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-2000:]
        return ended.stdout

    soundfile.write(folder / "a.wav", spoken.samples, 16000)
    return run, folder


def test_the_bundled_model_speaks_without_torch(blocked):
    run, folder = blocked
    report = json.loads(
        run(
            "generate", "--audio", str(folder / "a.wav"), "--head", str(bundled.DEMO_HEAD),
            "--out", str(folder / "m.npz"), "--style", "excited",
        )
    )  # fmt: skip
    assert (report["engine"], report["device"]) == ("onnx", "cpu")
    with np.load(folder / "m.npz") as made:
        assert made["weights"].shape[1] == 52
        assert np.isfinite(made["weights"]).all()
        assert np.ptp(made["weights"], axis=0).max() > 0.2
    if report["listen"] == "words":
        assert "brown bear" in report["words"]


def test_a_style_is_read_and_points_are_found_without_torch(blocked, exemplar):
    run, folder = blocked
    run("style", "--exemplar", str(exemplar), "--out", str(folder / "s.json"))
    code = np.array(json.loads((folder / "s.json").read_text())["code"])
    assert code.shape == (64,)
    assert np.linalg.norm(code) > 0.1
    assert "demo" in run("info")
    found = json.loads(run("face-points", "--head", str(bundled.DEMO_HEAD)))
    assert found


def test_what_needs_torch_is_said_in_one_sentence(blocked):
    _, folder = blocked
    ended = subprocess.run(
        [sys.executable, "-c",
         BLOCKED.format(heavy=sorted(HEAVY)), "generate",
         "--audio", str(folder / "a.wav"), "--head", str(bundled.DEMO_HEAD),
         "--out", str(folder / "n.npz"), "--engine", "torch"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1] == (
        "error: The engine torch needs PyTorch. Choose Add GPU and Research (PyTorch) in the "
        "preferences."
    )
