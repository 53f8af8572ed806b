# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads every import of both programs and enforces who may import what."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.environments import TEST_PINS, TRAIN_PINS

ROOT = Path(__file__).resolve().parents[1]
ADDON = ROOT / "ptalker_blender"
BACKEND = ROOT / "backend"
STDLIB = set(sys.stdlib_module_names)
BLENDER = {
    "bpy", "bmesh", "mathutils", "bpy_extras", "addon_utils", "gpu", "gpu_extras", "blf", "aud",
}  # fmt: skip
# What the backend's environment holds at the top level.
THIRD_PARTY = {
    "torch", "torch_geometric", "transformers", "safetensors", "numpy", "scipy", "soundfile",
    "soxr", "av", "pocketsphinx", "moonshine_voice", "accelerate", "tensorboard", "matplotlib",
    "inflect", "ray", "onnx", "onnxscript", "onnxruntime",
    "tokenizers", "huggingface_hub", "requests", "packaging", "yaml", "regex", "tqdm", "filelock",
    "PIL", "jinja2", "networkx", "sympy", "psutil", "aiohttp", "attr", "cffi", "pytest",
    "backend",
}  # fmt: skip

# The add-on's modules that run without Blender.
WITHOUT_BPY = {
    "options", "protocol", "motion", "backend_env", "backend_process", "rig_mapping", "rig_names",
    "emotions", "key_map", "languages", "face_point_fit", "face_point_picture", "driver_expression",
    "own_engine", "private_files", "torch_setup_plan", "job_folders",
}  # fmt: skip
# What the user sees draws and names operators; it computes nothing.
DRAWING = {"panels", "life_panel", "properties"}
WORKING = {
    "scene_inputs", "shape_keys", "backend_env", "backend_process", "rig_mapping",
    "style_library",
}  # fmt: skip


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def imports(path: Path) -> Iterator[tuple[str, int, ast.stmt]]:
    """Dotted name, level of a relative import, and statement of every import of a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0, node
        elif isinstance(node, ast.ImportFrom):
            if node.module is None:
                for alias in node.names:
                    yield alias.name, node.level, node
            else:
                yield node.module, node.level, node


def top_level(path: Path) -> set[str]:
    return {name.partition(".")[0] for name, level, _ in imports(path) if level == 0}


def siblings(path: Path) -> set[str]:
    """The add-on's own modules that a module of the add-on imports."""
    return {name.partition(".")[0] for name, level, _ in imports(path) if level > 0}


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def by_name(path: Path) -> str:
    return where(path)


@pytest.mark.parametrize("path", python_files(ADDON), ids=by_name)
def test_addon_imports_only_stdlib_numpy_and_blender(path):
    foreign = top_level(path) - STDLIB - BLENDER - {"numpy", "__future__"}
    assert not foreign, f"{where(path)} imports {sorted(foreign)}"
    assert "pickle" not in top_level(path)


@pytest.mark.parametrize("path", python_files(ADDON), ids=by_name)
def test_addon_modules_without_bpy_need_no_blender(path):
    if path.stem in WITHOUT_BPY:
        assert not top_level(path) & BLENDER, f"{where(path)} must run without Blender"
        assert siblings(path) <= WITHOUT_BPY, f"{where(path)} imports modules that need Blender"


@pytest.mark.parametrize("path", python_files(ADDON), ids=by_name)
def test_panels_and_properties_compute_nothing(path):
    if path.stem in DRAWING:
        assert not siblings(path) & (WORKING | {"operators", "setup_operators", "motion"})


@pytest.mark.parametrize("path", python_files(ADDON), ids=by_name)
def test_working_modules_import_no_operator_and_no_panel(path):
    if path.stem in WORKING | {"motion", "protocol"}:
        assert not siblings(path) & {"operators", "setup_operators", "command", *DRAWING}


@pytest.mark.parametrize("path", python_files(ADDON), ids=by_name)
def test_own_modules_are_imported_in_functions_only_by_register(path):
    if path.name == "__init__.py":
        return
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = [
                node
                for node in ast.walk(function)
                if isinstance(node, ast.ImportFrom) and node.level > 0
            ]
            assert not hidden, f"{where(path)}: {function.name} hides an import"


def test_addon_modules_form_no_cycle():
    graph = {path.stem: siblings(path) for path in python_files(ADDON) if path.stem != "__init__"}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join([*trail, name])}"
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", python_files(ADDON), ids=by_name)
def test_no_addon_module_hides_another_module(path):
    # The backend starts in the extension's root, so these files come first in its search path.
    if path.parent == ADDON and path.name != "__init__.py":
        assert path.stem not in STDLIB | THIRD_PARTY | BLENDER


@pytest.mark.parametrize("path", python_files(BACKEND), ids=by_name)
def test_backend_never_imports_blender_or_the_addon(path):
    if path.stem.endswith("_in_blender"):  # scripts that it hands to a Blender, and never imports
        assert top_level(path) <= STDLIB | BLENDER | {"numpy"}
        return
    assert not top_level(path) & (BLENDER | {"ptalker_blender"})
    assert not any("_in_blender" in name for name, _, _ in imports(path))


def pinned_packages() -> set[str]:
    """Names of all packages that a requirements file or an environment pins, in lower case."""
    lines = [*TEST_PINS, *TRAIN_PINS]
    for path in BACKEND.glob("requirements*.txt"):
        lines += path.read_text("utf-8").splitlines()
    return {line.partition("==")[0].strip().lower() for line in lines if "==" in line}


@pytest.mark.parametrize("path", python_files(BACKEND), ids=by_name)
def test_every_package_that_the_backend_imports_is_pinned(path):
    if path.stem.endswith("_in_blender"):  # runs in a Blender, with that one's packages
        return
    # Where a package has another name than its module.
    packages = {"PIL": "pillow", "moonshine_voice": "moonshine-voice",
                "torch_geometric": "torch-geometric"}  # fmt: skip
    stubs = {"_typeshed"}  # of the type checker
    third_party = top_level(path) - STDLIB - {"backend"} - stubs
    missing = {packages.get(name, name).lower() for name in third_party} - pinned_packages()
    assert not missing, f"{where(path)} imports {sorted(missing)}, which nothing pins"


def test_every_package_pinned_for_training_is_imported():
    imported = set().union(*(top_level(path) for path in python_files(BACKEND)))
    packages = {"pillow": "PIL"}
    for pin in TRAIN_PINS:
        name = pin.partition("==")[0]
        # TensorBoard is imported by torch.utils.tensorboard.
        assert packages.get(name, name) in imported | {"tensorboard"}, f"nothing imports {name}"


@pytest.mark.parametrize("path", python_files(BACKEND), ids=by_name)
def test_only_the_converter_of_data_sets_may_unpickle(path):
    if where(path) != "backend/data/captures/raw_files.py":
        assert not top_level(path) & {"pickle", "dill", "joblib", "shelve", "marshal"}


# The backend from the ground up; a module that is not named stands where its package stands.
FLOORS = (
    {
        "__init__", "errors", "checks", "processes", "stages", "heads.arkit", "speech.phones",
        "audio.rates",
    },
    {"io", "bundled"},
    {"onnx_sessions"},
    {"motion"},
    {"heads", "audio"},
    {"model", "articulation", "life"},
    {"speech"},
    {"inference", "data"},
    {"evaluation", "service"},
    {"training"},
    {"cli"},
    {"__main__", "isolated"},
)  # fmt: skip
# All of a lower package that an upper one may take.
ONLY = {
    ("model", "heads"): {"heads.arkit"},
    ("model", "speech"): {"speech.phones"},
    ("data", "model"): {"model.batch", "model.config", "model.style_encoders"},
    ("training", "evaluation"): {"evaluation.curve_metrics", "evaluation.vertex_metrics"},
    ("training", "service"): set(),
}


def module_name(path: Path) -> str:
    """Dotted name below ``backend``; a package's is that of its folder."""
    inside = path.relative_to(BACKEND).with_suffix("")
    return ".".join(part for part in inside.parts if part != "__init__") or "__init__"


def backend_graph() -> dict[str, set[str]]:
    """Module of the backend -> modules of the backend that it imports, packages included."""
    modules = {module_name(path): path for path in python_files(BACKEND)}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                if name == "backend" or name.startswith("backend."):
                    inside = name.removeprefix("backend").lstrip(".") or "__init__"
                    if inside in modules:
                        parts = inside.split(".")
                        found |= {".".join(parts[: end + 1]) for end in range(len(parts))}
        graph[module] = (found & set(modules)) - {module}
    return graph


GRAPH = backend_graph()


def reachable(module: str) -> set[str]:
    """All that a module imports, and what that imports in turn."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for name in GRAPH[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found


def test_backend_protocol_needs_only_the_stdlib():
    # `hello` must come before torch is loaded, hence also nothing slow of the package.
    for name in ("service.protocol", *reachable("service.protocol")):
        path = BACKEND / Path(*name.split(".")).with_suffix(".py")
        path = path if path.exists() else BACKEND / Path(*name.split(".")) / "__init__.py"
        path = BACKEND / "__init__.py" if name == "__init__" else path
        foreign = top_level(path) - STDLIB - {"backend"}
        assert not foreign, f"{where(path)} imports {sorted(foreign)}"


def package(module: str) -> str:
    return module.partition(".")[0]


def floor(module: str) -> int:
    for names in (module, package(module)):
        for number, floor_names in enumerate(FLOORS):
            if names in floor_names:
                return number
    pytest.fail(f"backend/{module} stands on no floor; name it in FLOORS")


def test_every_module_and_package_of_the_backend_stands_on_a_floor():
    named = set().union(*FLOORS)
    assert {package(module) for module in GRAPH} <= named | {"__init__"}
    assert named <= {*GRAPH, *map(package, GRAPH)}, "FLOORS names what is not there"


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_of_the_backend_go_down_only(module):
    for other in reachable(module):
        is_own_package = package(other) == package(module)
        is_package_folder = any(name.startswith(f"{other}.") for name in GRAPH)
        assert is_own_package or is_package_folder or floor(other) < floor(module), (
            f"backend.{module} reaches backend.{other}, which is not below it"
        )


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_of_some_packages_only_tables_and_metrics_are_imported(module):
    for (upper, lower), allowed in ONLY.items():
        if package(module) == upper and module not in FLOORS[0]:
            taken = {name for name in GRAPH[module] if package(name) == lower} - {lower}
            assert taken <= allowed, f"backend.{module} imports {sorted(taken - allowed)}"


@pytest.mark.parametrize("module", sorted(name for name in GRAPH if package(name) == "model"))
def test_the_model_knows_no_files_no_devices_and_no_protocol(module):
    if module in ("model", "model.checkpoint", "model.checkpoint_files"):  # a checkpoint is files
        return
    for name in (module, *reachable(module)):
        path = BACKEND / Path(*name.split(".")).with_suffix(".py")
        path = path if path.exists() else BACKEND / Path(*name.split(".")) / "__init__.py"
        if name != "__init__":
            foreign = {"os", "io", "json", "shutil", "tempfile", "subprocess", "pathlib"}
            assert not top_level(path) & foreign, f"backend.{module} reaches {where(path)}"


def test_the_modules_of_the_backend_form_no_circle():
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join([*trail, name])}"
        if name not in done:
            for other in sorted(GRAPH[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in GRAPH:
        visit(name, ())


def test_every_source_file_states_its_licence():
    endings = {".py", ".toml", ".sh"}
    for path in tracked_files():
        if path.suffix in endings or path.name == "run":
            head = path.read_text("utf-8").splitlines()[:3]
            assert any("SPDX-License-Identifier: GPL-3.0-or-later" in line for line in head), where(
                path
            )


def test_no_file_names_a_machine_or_a_registry():
    # Written so that this file does not match itself.
    machines = re.compile(
        r"(?<![\w./-])/(work|farm|root|home/\w+|tmp/\w+)/|[p]ypi\.org|[f]iles\.pythonhosted"
    )
    for path in tracked_files():
        if (
            path.suffix in {".py", ".toml", ".md", ".sh", ".json", ".txt", ".yml"}
            or not path.suffix
        ):
            found = machines.search(path.read_text("utf-8", errors="ignore"))
            assert not found, f"{where(path)} names {found[0]}"
