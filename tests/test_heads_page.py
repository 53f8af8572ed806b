# SPDX-License-Identifier: GPL-3.0-or-later
"""The manual's table of refusals quotes what the programs say, and its pictures are small."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "heads.md").read_text("utf-8")


def sentences_of_the_code():
    """All strings of the code, ``…`` where one is filled in."""
    found = []
    for folder in ("backend/heads", "ptalker_blender"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                    found.append("".join(parts))
    return found


def quoted():
    """First column of the table of refusals."""
    table = PAGE.split("## Refusals and warnings")[1]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    return rows[2:]  # without its head


def test_each_quoted_message_is_one_of_the_code():
    sentences = sentences_of_the_code()
    rows = quoted()
    assert len(rows) >= 15
    for row in rows:
        pieces = [piece.strip() for piece in row.split("…") if piece.strip()]
        assert any(all(piece in sentence for piece in pieces) for sentence in sentences), row


def test_pictures_are_there_and_small():
    names = re.findall(r"\]\((pictures/[^)]+)\)", PAGE)
    assert len(names) >= 3
    sizes = [(ROOT / "docs" / name).stat().st_size for name in names]
    assert sum(sizes) < 1_000_000
    assert (ROOT / "docs" / "pictures" / "turntable.webp").stat().st_size <= 400_000
