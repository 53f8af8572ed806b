# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting up the backend: what it would do, and doing it with a small package without a network."""

import json
import shutil
import sys
import time
import zipfile
from pathlib import Path

import pytest

from ptalker_blender import backend_env, env_installer
from ptalker_blender.backend_env import Plan, Step
from ptalker_blender.env_installer import Setup
from ptalker_blender.protocol import UserError

ROOT = Path(__file__).resolve().parents[2]
SAID = {"python": "3", "devices": ["cpu"], "packages": {"torch": "1", "numpy": "missing"}}
CHECK = ("-I", "-c", f"import json, tiny_package; print(json.dumps({SAID}))")


@pytest.fixture
def wheels(tmp_path):
    """A folder with one wheel, made by hand."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny_package-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_package-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_package.py", "")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def plan(tmp_path, wheels):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# pins\ntiny-package==1.0\n")
    user_dir = tmp_path / "user"
    user_dir.mkdir()
    return Plan(user_dir=user_dir, requirements=requirements, base_python=Path(sys.executable),
                build='CPU', wheels=wheels)  # fmt: skip


def begin(plan, steps):
    return Setup(steps, user_dir=plan.user_dir, requirements=plan.requirements,
                 log_path=plan.user_dir / "setup.log")  # fmt: skip


def finish(setup, seconds=400):
    deadline, fractions = time.monotonic() + seconds, []
    while not setup.is_done:
        setup.poll(wait=0.05)
        fractions.append(setup.fraction)
        assert time.monotonic() < deadline
    return fractions


def python_step(title, code, **values):
    return Step(title, (sys.executable, "-I", "-c", code), 0.5, **values)


def status(plan):
    return backend_env.read_status(plan.user_dir, plan.requirements)


@pytest.mark.slow
def test_setup_from_a_folder_of_wheels_repeat_and_remove(plan, monkeypatch):
    monkeypatch.setattr(backend_env, "_CHECK", CHECK)
    assert status(plan).state == 'MISSING'
    setup = begin(plan, backend_env.setup_steps(plan))
    fractions = finish(setup)
    assert setup.error == ""
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert status(plan).state == 'READY'
    assert "torch 1" in status(plan).details
    assert not (plan.user_dir / "pip-cache").exists()
    assert not (plan.user_dir / "pip-temp").exists()
    assert "Successfully installed tiny" in (plan.user_dir / "setup.log").read_text()

    again = begin(plan, backend_env.setup_steps(plan))
    finish(again)
    assert status(plan).state == 'READY'

    plan.requirements.write_text("tiny-package==1.0\n# newer\n")
    assert status(plan).state == 'OUTDATED'
    assert "Repair" in status(plan).text

    backend_env.python_of(plan.user_dir).unlink()
    assert status(plan).state == 'BROKEN'

    (plan.user_dir / "styles").mkdir()
    backend_env.remove(plan.user_dir).join(60)
    assert status(plan).state == 'MISSING'
    assert not list(plan.user_dir.glob("backend-env*"))
    assert (plan.user_dir / "styles").exists()


def test_cancel_ends_the_step_and_says_unfinished(plan):
    setup = begin(plan, [python_step("A", "import time; time.sleep(60)"), python_step("B", "")])
    setup.poll()
    backend_env.venv_dir(plan.user_dir).mkdir()
    setup.cancel()
    began = time.monotonic()
    finish(setup)
    assert time.monotonic() - began < 5
    assert setup.was_cancelled
    assert setup.error == ""
    assert status(plan).state == 'BROKEN'
    assert "go on" in status(plan).text


def test_failed_step_says_why(plan):
    setup = begin(plan, [python_step("Making", "print('Errno 28'); raise SystemExit(1)"),
                         python_step("Never", "")])  # fmt: skip
    finish(setup)
    assert "disk is full" in setup.error
    assert "Errno 28" in (plan.user_dir / "setup.log").read_text()


def test_server_of_pytorch_that_does_not_answer_is_replaced(plan):
    good = (sys.executable, "-I", "-c", "print('good')")
    setup = begin(plan, [python_step("Installing PyTorch", "raise SystemExit(1)", fallback=good)])
    finish(setup)
    assert setup.error == ""
    assert "standard build" in (plan.user_dir / "setup.log").read_text()


@pytest.mark.slow
def test_recogniser_that_cannot_be_had_is_done_without(plan, monkeypatch):
    monkeypatch.setattr(backend_env, "_CHECK", CHECK)
    before = backend_env.requirements_hash(plan.requirements)
    optional = plan.requirements.with_name("requirements-words.txt")
    optional.write_text("for-newer-systems-only==1.0\n")
    assert backend_env.requirements_hash(plan.requirements) != before
    setup = begin(plan, backend_env.setup_steps(plan))
    fractions = finish(setup)
    assert setup.error == ""
    assert fractions == sorted(fractions)
    assert status(plan).state == 'READY'
    assert "Words are recognised by PocketSphinx only" in status(plan).details
    assert "left to PocketSphinx" in (plan.user_dir / "setup.log").read_text()

    optional.write_text("tiny-package==1.0\n")
    assert status(plan).state == 'OUTDATED'
    setup = begin(plan, backend_env.setup_steps(plan))
    finish(setup)
    assert status(plan).state == 'READY'
    assert "left to PocketSphinx" not in (plan.user_dir / "setup.log").read_text()


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("ERROR: No matching distribution found for torch==9", "not found for this Python"),
        ("Error: ensurepip is not available", "python3-venv"),
        ("NewConnectionError: Failed to establish a new connection", "Check the network"),
        ("OSError: No space left on device", "disk is full"),
        ("something else", "something else"),
    ],
)
def test_errors_of_pip_become_one_sentence(line, part):
    assert part in env_installer._explain([line], code=1, title="Installing")


def test_downloads_move_the_progress(plan):
    code = "print('Downloading torch-2-cp311.whl (190.5 MB)', flush=True); input()"
    setup = begin(plan, [python_step("Installing", code), python_step("B", "")])
    deadline = time.monotonic() + 10
    while "torch" not in setup.stage and not setup.is_done and time.monotonic() < deadline:
        setup.poll(wait=0.05)
    assert "torch" in setup.stage
    assert 0.1 < setup.fraction < 0.5
    setup.close()


def test_check_alone_keeps_the_record(plan):
    record = backend_env.record_path(plan.user_dir)
    record.write_text("{}")
    setup = begin(plan, [python_step("Checking", "raise SystemExit(3)")])
    finish(setup)
    assert "status 3" in setup.error
    assert record.exists()


def test_plan_without_room_is_refused(plan, monkeypatch):
    monkeypatch.setattr(backend_env, "free_gb", lambda _folder: 0.3)
    with pytest.raises(UserError, match=r"only 0\.3 GB are free"):
        backend_env.check_plan(plan)


def test_plan_without_wheels_is_refused(plan):
    next(plan.wheels.glob("*.whl")).unlink()
    with pytest.raises(UserError, match="no wheels"):
        backend_env.check_plan(plan)


def test_build_of_torch_follows_the_computer(monkeypatch):
    monkeypatch.setattr(backend_env.shutil, "which", lambda _name: "/bin/nvidia-smi")
    monkeypatch.setattr(backend_env.sys, "platform", "linux")
    assert backend_env.choose_build('AUTO') == 'CUDA'
    assert backend_env.choose_build('CPU') == 'CPU'
    monkeypatch.setattr(backend_env.sys, "platform", "darwin")
    assert backend_env.choose_build('CUDA') == 'CPU'
    assert backend_env.torch_index('CPU', "linux").endswith("/cpu")
    assert backend_env.torch_index('CUDA', "linux") == ""
    assert "/cu" in backend_env.torch_index('CUDA', "win32")
    assert backend_env.torch_index('CPU', "darwin") == ""


def test_torch_comes_first_and_exactly_as_pinned(plan, monkeypatch):
    download = Plan(user_dir=plan.user_dir, requirements=ROOT / "backend" / "requirements.txt",
                    base_python=plan.base_python, build='CPU')  # fmt: skip
    monkeypatch.setattr(backend_env, "torch_index", lambda _build: "https://example.org/cpu")
    steps = backend_env.setup_steps(download)
    assert [step.title for step in steps] == [
        "Making the environment", "Installing PyTorch", "Installing packages",
        "Installing the recogniser", "Checking",
    ]  # fmt: skip
    assert any(word.startswith("torch==") for word in steps[1].command)
    assert "--index-url=https://example.org/cpu" in steps[1].command
    assert not any("index" in word for word in steps[1].fallback)
    assert sum(step.share for step in steps) == pytest.approx(1.0)


def test_description_says_size_place_and_room(plan):
    text = " ".join(backend_env.describe(plan))
    assert str(plan.user_dir) in text
    assert "GB" in text
    assert "free" in text


def test_check_is_what_the_backend_says_of_itself(plan):
    """The backend of this environment stands in for an installed one."""
    step = backend_env.check_step(plan.user_dir, ROOT)
    command = (sys.executable, *step.command[1:])
    setup = begin(plan, [Step(step.title, command, step.share, folder=step.folder)])
    finish(setup)
    assert setup.error == ""
    assert setup.found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "cpu" in setup.found["devices"]
    assert {"torch", "transformers", "numpy"} <= setup.found["packages"].keys()


def test_check_fails_where_a_package_cannot_be_imported(plan, tmp_path):
    copied = tmp_path / "root"
    left_out = shutil.ignore_patterns("checkpoints", "demo", "__pycache__")
    shutil.copytree(ROOT / "backend", copied / "backend", ignore=left_out)
    with (copied / "backend" / "requirements.txt").open("a") as pins:
        pins.write("\nno-such-package==1.0\n")
    step = backend_env.check_step(plan.user_dir, copied)
    command = (sys.executable, *step.command[1:])
    setup = begin(plan, [Step(step.title, command, step.share, folder=step.folder)])
    finish(setup)
    assert "No module named 'no_such_package'" in setup.error


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"packages": 3}', '{"packages": {}}'])
def test_other_lines_of_the_check_are_passed_over(line):
    assert backend_env.read_check(line) == {}


def test_packages_that_are_missing_are_not_named():
    assert backend_env.read_check(json.dumps(SAID))["packages"] == {"torch": "1"}
