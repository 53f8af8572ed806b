# SPDX-License-Identifier: GPL-3.0-or-later
"""README and docs: wrapped lines, links that lead somewhere, files and names that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def without_code(text):
    """A document's lines outside of code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_prose_is_wrapped(path):
    for line in without_code(path.read_text("utf-8")).splitlines():
        if not line.startswith("|"):
            # A link or a piece of code may not be broken, so it may stand out.
            prose = re.sub(r"\]\([^)]*\)|`[^`]*`", "", line)
            assert len(prose) <= 120, f"{name_of(path)}: {line}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_between_documents_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", without_code(path.read_text("utf-8")))
    for link in links:
        if not link.startswith(("https://", "http://")):
            assert (path.parent / link).exists(), f"{name_of(path)} links to {link}"


def names_defined_in(path):
    """Names of the functions, classes and variables that a Python file defines, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def paths_named_in(text):
    """``path`` and ``path:name`` in backticks, where the path begins with a folder of ours."""
    folders = "backend|docs|ptalker_blender|tests|tools"
    return re.findall(rf"`((?:{folders})/[\w./-]*)(?::(\w+))?`", without_code(text))


def test_where_to_change_names_what_exists():
    text = (ROOT / "docs" / "where-to-change.md").read_text("utf-8")
    wishes = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(wishes) >= 20
    named = paths_named_in(text)
    assert len(named) >= len(wishes)
    for path, name in named:
        assert (ROOT / path).exists(), f"there is no {path}"
        if name:
            assert name in names_defined_in(ROOT / path), f"{path} defines no {name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_documents_name_exist(path):
    for named, _ in paths_named_in(path.read_text("utf-8")):
        assert (ROOT / named).exists(), f"{name_of(path)} names {named}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_imports_in_documents_exist(path):
    for block in re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.M):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("backend"):
                place = ROOT / Path(*node.module.split("."))
                for alias in node.names:
                    if not (place / f"{alias.name}.py").exists():
                        defined = names_defined_in(place.with_suffix(".py"))
                        assert alias.name in defined, f"{name_of(path)}: {node.module}"
