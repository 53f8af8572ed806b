# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``build.py test`` runs: format, lint, docstrings, types and tests, two parts at a time."""

import dataclasses
import os
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import environments
from tools.environments import BLENDERS, ROOT, VENVS, say

BLENDER_TESTS = [f"blender-{version}" for version in BLENDERS]
PARTS = (
    "format", "lint", "docstrings", "types-backend", "types-addon", "addon", "backend",
    *BLENDER_TESTS,
)  # fmt: skip
BPY_SCRIPTS = (
    "demo_scene.py", "turntable.py", "demo_render.py", "bench_blender.py", "bench_engines.py",
)  # fmt: skip
# The long ones first, so that two at a time end together.
ORDER = (
    "backend", *BLENDER_TESTS, "types-backend", "types-addon", "addon", "docstrings", "format",
    "lint",
)  # fmt: skip
TIME_LIMIT_SECONDS = 2400


@dataclasses.dataclass(frozen=True, slots=True)
class PartResult:
    """What came of one part; the counts are of tests, or of the part itself where it has none.

    Attributes:
        part: Name out of ``PARTS``.
        passed: Tests that passed.
        failed: Tests that failed or could not run.
        skipped: How many tests were skipped, by reason.
        seconds: Time that the part took.
        log: All that the part wrote.
    """

    part: str
    passed: int
    failed: int
    skipped: Counter[str]
    seconds: float
    log: str


def run(parts: list[str], *, make_zip: Callable[[], Path]) -> int:
    """Run the parts named, or all; print each one's log where it failed, and the counts.

    Args:
        parts: Names out of ``PARTS``; empty for all.
        make_zip: Builds the extension that the tests inside Blender install.

    Returns:
        0 if nothing failed, 1 otherwise, 2 for an unknown part.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        say(f"No such part: {', '.join(unknown)}. There are: {', '.join(PARTS)}")
        return 2
    chosen = [part for part in ORDER if not parts or part in parts]
    environments.ensure("backend", for_tests=True)
    if "types-addon" in chosen:
        environments.ensure("lint")
    for part in chosen:
        if part.startswith("blender-"):
            environments.ensure(part)
    environments.ensure("blender-4.5")
    extension = make_zip()
    with ThreadPoolExecutor(max_workers=2) as pool:
        outcomes = list(pool.map(lambda part: _run_part(part, extension), chosen))
    return _summary(outcomes)


def _summary(outcomes: list[PartResult]) -> int:
    failed = sum(outcome.failed for outcome in outcomes)
    for outcome in outcomes:
        if outcome.failed:
            say(f"\n======== {outcome.part}: what failed\n{outcome.log}")
    say("")
    for outcome in sorted(outcomes, key=lambda outcome: PARTS.index(outcome.part)):
        counts = f"{outcome.passed} passed, {outcome.failed} failed"
        counts += f", {outcome.skipped.total()} skipped"
        say(f"{outcome.part:14} {counts}  ({outcome.seconds:.0f} s)")
    passed = sum(outcome.passed for outcome in outcomes)
    skipped: Counter[str] = Counter()
    for outcome in outcomes:
        skipped.update(outcome.skipped)
    if skipped:
        say("\nnot run, by reason:")
    for reason, count in skipped.most_common():
        say(f"{count:5}  {reason}")
    say(f"\n{passed} passed, {failed} failed, {skipped.total()} skipped")
    return 1 if failed else 0


def _command(part: str, report: Path) -> list[str]:
    python = str(environments.python_of(part if part.startswith("blender-") else "backend"))
    if part == "format":
        return [python, "-m", "ruff", "format", "--check", "."]
    if part == "lint":
        return [python, "-m", "ruff", "check", "."]
    if part == "docstrings":
        pydoclint = str(Path(python).with_name("pydoclint"))
        places = ["backend", "ptalker_blender", "tools", "build.py"]
        return [pydoclint, "--config=pyproject.toml", *places]
    scripts = [f"tools/{name}" for name in BPY_SCRIPTS]
    if part == "types-backend":
        tools = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tools").glob("*.py")]
        tools = sorted(set(tools) - set(scripts))
        return [python, "-m", "mypy", "backend", "build.py", *tools]
    if part == "types-addon":
        lint = str(environments.python_of("lint"))
        modules = [f"--module=tools.{name.removesuffix('.py')}" for name in BPY_SCRIPTS]
        return [lint, "-m", "mypy", "--package=ptalker_blender", *modules]
    tests = {"backend": ["tests/backend"], "addon": ["tests/addon"]}.get(part, ["tests/blender"])
    if part == "addon":
        tests += [
            path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("tests/test_*.py"))
        ]
    cache = f"cache_dir={VENVS / 'cache' / part}"
    return [python, "-m", "pytest", "-q", f"--junitxml={report}", "-o", cache, *tests]


def _run_part(part: str, extension: Path) -> PartResult:
    """Run one part in a process of its own; its counts come from pytest's report file."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ptalker-test-") as folder:
        report = Path(folder, "report.xml")
        variables = {
            "PTALKER_BACKEND_PYTHON": str(environments.python_of("backend")),
            "PTALKER_ZIP": str(extension),
            "BLENDER_USER_RESOURCES": str(Path(folder, "blender")),
            "TMPDIR": folder,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "OPENBLAS_NUM_THREADS": "1",
            "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / part),
        }
        output = Path(folder, "output.txt")
        with output.open("wb") as stream:
            try:
                status = subprocess.run(
                    _command(part, report),
                    cwd=ROOT,
                    env=environments.clean_environment(**variables),
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    check=False,
                    timeout=TIME_LIMIT_SECONDS,
                ).returncode
            except subprocess.TimeoutExpired:
                status = 124
        log = output.read_text("utf-8", errors="replace")
        counts = _counts(report)
    seconds = time.monotonic() - started
    none: Counter[str] = Counter()
    passed, failed, skipped = counts or ((1, 0, none) if status == 0 else (0, 1, none))
    if status != 0:
        failed = max(failed, 1)  # the process may die after its tests, or collect none
        log += f"\n{part}: ended with status {status}" + (" (time limit)" if status == 124 else "")
    say(f"{'FAILED' if failed else 'ok':7}{part} after {seconds:.0f} s")
    return PartResult(part, passed, failed, skipped, seconds, log)


def _counts(report: Path) -> tuple[int, int, Counter[str]] | None:
    """Passed and failed tests of a JUnit report, skipped ones by reason; None without a report."""
    if not report.exists():
        return None
    total = failed = 0
    skipped: Counter[str] = Counter()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total += int(suite.get("tests", "0"))
        failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        skipped.update(case.get("message", "no reason given") for case in suite.iter("skipped"))
    return total - failed - skipped.total(), failed, skipped
