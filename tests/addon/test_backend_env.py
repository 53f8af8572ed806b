# SPDX-License-Identifier: GPL-3.0-or-later
"""Adding PyTorch: what it would do, and doing it with a small package without a network."""

import hashlib
import json
import shutil
import sys
import time
import zipfile
from pathlib import Path

import pytest

from ptalker_blender import backend_env, env_installer, torch_setup_plan
from ptalker_blender.env_installer import Setup
from ptalker_blender.own_engine import torch_command
from ptalker_blender.protocol import UserError
from ptalker_blender.torch_setup_plan import Plan, Step

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
def plan(tmp_path, wheels, monkeypatch):
    monkeypatch.setattr(torch_setup_plan, "torch_index", lambda _build: "")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# pins\ntiny-package==1.0\n")
    locked = tmp_path / "locked"
    locked.mkdir()
    sha256 = hashlib.sha256(next(wheels.glob("*.whl")).read_bytes()).hexdigest()
    (locked / "packages.txt").write_text(f"tiny-package==1.0 --hash=sha256:{sha256}\n")
    (locked / "torch.txt").write_text("# none\n")
    (locked / "words.txt").write_text("# none\n")
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


def stand_in_for_the_check(monkeypatch):
    """A check that needs no more than the small package."""
    command = lambda python, _root, *_arguments: [str(python), *CHECK]  # noqa: E731
    monkeypatch.setattr(torch_setup_plan, "torch_command", command)


def status(plan):
    return backend_env.read_status(plan.user_dir, plan.requirements)


@pytest.mark.slow
def test_setup_from_a_folder_of_wheels_repeat_and_remove(plan, monkeypatch):
    stand_in_for_the_check(monkeypatch)
    assert status(plan).state == 'MISSING'
    setup = begin(plan, torch_setup_plan.setup_steps(plan))
    fractions = finish(setup)
    assert setup.error == ""
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert status(plan).state == 'READY'
    assert "torch 1" in status(plan).details
    assert not (plan.user_dir / "pip-cache").exists()
    assert not (plan.user_dir / "pip-temp").exists()
    assert "Successfully installed tiny" in (plan.user_dir / "setup.log").read_text()

    again = begin(plan, torch_setup_plan.setup_steps(plan))
    finish(again)
    assert status(plan).state == 'READY'

    with (plan.requirements.parent / "locked" / "packages.txt").open("a") as pins:
        pins.write("# newer\n")
    assert status(plan).state == 'OUTDATED'
    assert "Repair" in status(plan).text

    backend_env.python_of(plan.user_dir).unlink()
    assert status(plan).state == 'BROKEN'

    (plan.user_dir / "styles").mkdir()
    torch_setup_plan.remove(plan.user_dir).join(60)
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


def test_server_of_pytorch_that_does_not_answer_is_never_replaced_silently(plan):
    refusal = torch_setup_plan._refusal('CPU')
    step = python_step("Installing PyTorch", "raise SystemExit(1)", refusal=refusal)
    setup = begin(plan, [step, python_step("Never", "print('never')")])
    finish(setup)
    assert "download.pytorch.org" in setup.error
    assert "7.6 GB" in setup.error
    assert "choose CUDA" in setup.error
    assert "never" not in (plan.user_dir / "setup.log").read_text()
    assert "choose CPU" in torch_setup_plan._refusal('CUDA')


def test_full_disk_is_told_where_pytorch_is_installed_too(plan):
    code = "print('No space left on device'); raise SystemExit(1)"
    setup = begin(plan, [python_step("Installing PyTorch", code, refusal="the server"),
                         python_step("Never", "")])  # fmt: skip
    finish(setup)
    assert "disk is full" in setup.error


@pytest.mark.slow
def test_recogniser_that_cannot_be_had_is_done_without(plan, monkeypatch):
    stand_in_for_the_check(monkeypatch)
    before = backend_env.requirements_hash(plan.requirements)
    optional = plan.requirements.parent / "locked" / "words.txt"
    optional.write_text(f"for-newer-systems-only==1.0 --hash=sha256:{'0' * 64}\n")
    assert backend_env.requirements_hash(plan.requirements) != before
    setup = begin(plan, torch_setup_plan.setup_steps(plan))
    fractions = finish(setup)
    assert setup.error == ""
    assert fractions == sorted(fractions)
    assert status(plan).state == 'READY'
    assert "No words are recognised here: Words > Sound Only" in status(plan).details
    assert "hears alone" in (plan.user_dir / "setup.log").read_text()

    optional.write_text((optional.parent / "packages.txt").read_text())
    assert status(plan).state == 'OUTDATED'
    setup = begin(plan, torch_setup_plan.setup_steps(plan))
    finish(setup)
    assert status(plan).state == 'READY'
    assert "hears alone" not in (plan.user_dir / "setup.log").read_text()


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("ERROR: No matching distribution found for torch==9", "not found for this Python"),
        ("Error: ensurepip is not available", "python3-venv"),
        ("NewConnectionError: Failed to establish a new connection", "no network"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NameResolutionError'\n"
            "ERROR: Could not find a version\nERROR: No matching distribution found for scipy",
            "no network",
        ),
        ("Collecting networkx\nERROR: No matching distribution found", "not found for this Python"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", "not served as it is pinned"),
        ("OSError: No space left on device", "disk is full"),
        ("something else", "something else"),
    ],
)
def test_errors_of_pip_become_one_sentence(line, part):
    assert part in env_installer._explain(line.splitlines(), code=1, title="Installing")


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
    monkeypatch.setattr(torch_setup_plan, "free_gb", lambda _folder: 0.3)
    with pytest.raises(UserError, match=r"only 0\.3 GB are free"):
        torch_setup_plan.check_plan(plan)


def test_plan_without_wheels_is_refused(plan):
    next(plan.wheels.glob("*.whl")).unlink()
    with pytest.raises(UserError, match="no wheels"):
        torch_setup_plan.check_plan(plan)


def test_build_of_torch_follows_the_computer(monkeypatch):
    monkeypatch.setattr(torch_setup_plan.shutil, "which", lambda _name: "/bin/nvidia-smi")
    monkeypatch.setattr(torch_setup_plan.sys, "platform", "linux")
    assert torch_setup_plan.choose_build('AUTO') == 'CUDA'
    assert torch_setup_plan.choose_build('CPU') == 'CPU'
    monkeypatch.setattr(torch_setup_plan.sys, "platform", "darwin")
    assert torch_setup_plan.choose_build('CUDA') == 'CPU'
    assert torch_setup_plan.torch_index('CPU', "linux").endswith("/cpu")
    assert torch_setup_plan.torch_index('CUDA', "linux") == ""
    assert "/cu" in torch_setup_plan.torch_index('CUDA', "win32")
    assert torch_setup_plan.torch_index('CPU', "darwin") == ""


def test_torch_comes_first_and_everything_else_is_hashed(plan, monkeypatch):
    monkeypatch.setattr(torch_setup_plan, "torch_index", lambda _build: "https://example.org/cpu")
    download = Plan(user_dir=plan.user_dir, requirements=ROOT / "backend" / "requirements.txt",
                    base_python=plan.base_python, build='CPU')  # fmt: skip
    steps = torch_setup_plan.setup_steps(download)
    assert [step.title for step in steps] == [
        "Making the environment", "Installing PyTorch", "Installing packages",
        "Installing the recogniser", "Checking",
    ]  # fmt: skip
    assert steps[1].command[-1].startswith("torch==")
    assert "--index-url=https://example.org/cpu" in steps[1].command
    assert "choose CUDA" in steps[1].refusal
    assert not any("index" in word for word in steps[2].command)
    assert sum(step.share for step in steps) == pytest.approx(1.0)
    for step in steps[2:4]:
        assert "--require-hashes" in step.command
        assert Path(step.command[-1]).is_file()
    monkeypatch.setattr(torch_setup_plan, "torch_index", lambda _build: "")
    torch = torch_setup_plan.setup_steps(download)[1]
    assert "--require-hashes" in torch.command
    assert torch.refusal == ""


@pytest.mark.slow
def test_package_that_was_tampered_with_is_refused(plan, monkeypatch):
    stand_in_for_the_check(monkeypatch)
    with zipfile.ZipFile(next(plan.wheels.glob("*.whl")), "a") as wheel:
        wheel.writestr("evil.py", "")
    setup = begin(plan, torch_setup_plan.setup_steps(plan))
    finish(setup)
    assert "not served as it is pinned" in setup.error
    assert status(plan).state == 'BROKEN'


def test_description_says_size_place_and_room(plan):
    text = " ".join(torch_setup_plan.describe(plan))
    assert str(plan.user_dir) in text
    assert "GB" in text
    assert "free" in text


def test_check_runs_in_the_environment_isolated(plan):
    command = torch_setup_plan.check_step(plan.user_dir, ROOT).command
    assert command[0] == str(backend_env.python_of(plan.user_dir))
    assert "-I" in command
    assert command[-4:] == ("info", "--json", "--devices", "--check")


def test_check_is_what_the_backend_says_of_itself(plan):
    """The backend of this environment stands in for an installed one."""
    command = torch_command(Path(sys.executable), ROOT, *torch_setup_plan._CHECK)
    setup = begin(plan, [Step("Checking", tuple(command), 0.1)])
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
    command = torch_command(Path(sys.executable), copied, *torch_setup_plan._CHECK)
    setup = begin(plan, [Step("Checking", tuple(command), 0.1)])
    finish(setup)
    assert "No module named 'no_such_package'" in setup.error


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"packages": 3}', '{"packages": {}}'])
def test_other_lines_of_the_check_are_passed_over(line):
    assert torch_setup_plan.read_check(line) == {}


def test_packages_that_are_missing_are_not_named():
    assert torch_setup_plan.read_check(json.dumps(SAID))["packages"] == {"torch": "1"}


@pytest.mark.parametrize(
    "text",
    ["[]", "17", "null", '"x"', "{", "[" * 50_000, '{"packages": null}', '{"packages": []}',
     '{"devices": "cpu"}', '{"devices": 5}', '{"requirements": 5}', '{"python": null}', "\0"],
)  # fmt: skip
def test_record_that_a_setup_never_wrote_is_a_setup_that_did_not_finish(tmp_path, text):
    from ptalker_blender import backend_env

    backend_env.record_path(tmp_path).write_text(text)
    backend_env.venv_dir(tmp_path).mkdir()
    requirements = tmp_path / "requirements.txt"
    status = backend_env.read_status(tmp_path, requirements)
    assert status.state == 'BROKEN'
    assert "was not finished" in status.text
