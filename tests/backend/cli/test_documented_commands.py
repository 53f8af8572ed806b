# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of README and docs is read by the real parser."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from backend.cli.main import make_parser

ROOT = Path(__file__).resolve().parents[3]
CARD = ROOT / "backend" / "checkpoints" / "base" / "README.md"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", CARD, *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = {"$preset": "vocaset", "$part": "graph-attention"}


def lines_of(page):
    """Lines of shell code, with the lines that continue them."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines()]


def commands():
    """Arguments of each whole line that calls the backend, by page."""
    for page in PAGES:
        for line in lines_of(page):
            if found := re.match(r"(?:[\w./]*/)?python -m backend (.*)", line):
                line = found[1].replace("[", "").replace("]", "")
                arguments = shlex.split(line, comments=True)
                arguments = ["1" if a == "N" else a.partition("|")[0] for a in arguments]
                for name, value in PLACEHOLDERS.items():
                    arguments = [argument.replace(name, value) for argument in arguments]
                yield pytest.param(arguments, id=f"{page.name}: {' '.join(arguments)[:60]}")


def mentions():
    """Words of each command that is named within a sentence, by page."""
    for page in PAGES:
        for found in re.findall(r"`python -m backend ([^`]+)`", page.read_text("utf-8")):
            yield pytest.param(found.split(), id=f"{page.name}: {found[:60]}")


@pytest.mark.parametrize("arguments", list(commands()))
def test_documented_command_is_understood(arguments):
    assert callable(make_parser().parse_args(arguments).run)


@pytest.mark.parametrize("words", list(mentions()))
def test_command_named_in_a_sentence_has_these_options(words, capsys):
    with pytest.raises(SystemExit) as caught:
        make_parser().parse_args([words[0], "--help"])
    assert caught.value.code == 0
    usage = capsys.readouterr().out
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"{flag}\b", usage), flag


def test_every_command_is_documented():
    documented = {parameter.values[0][0] for parameter in [*commands(), *mentions()]}
    (subparsers,) = (
        action for action in make_parser()._actions if hasattr(action, "choices") and action.choices
    )
    assert documented >= {*subparsers.choices} - {"serve", "info"}  # Blender and bug reports


def test_documented_list_of_jobs_is_understood():
    pytest.importorskip("soxr")
    from backend.service.requests import request_from_flags

    text = (ROOT / "docs" / "scale.md").read_text("utf-8")
    (block,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    for entry in json.loads(block):
        request_from_flags("1", {"head": "head.npz", **entry})
