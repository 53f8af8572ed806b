# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests made from flags: a text that is empty is not taken for none."""

import pytest

from backend.errors import UserError
from backend.service import requests


def _flags(tmp_path, **more):
    names = {name: str(tmp_path / name) for name in ("audio", "head", "out")}
    return {**names, **more}


@pytest.mark.parametrize("text", ["", " \n", "\ufeff"])
def test_empty_text_file_is_said_to_be_empty(text, tmp_path):
    (tmp_path / "words.txt").write_text(text, "utf-8")
    flags = _flags(tmp_path, text_file=str(tmp_path / "words.txt"))
    with pytest.raises(UserError, match=r'"words.txt" is empty'):
        requests.request_from_flags("1", flags)


def test_blank_text_is_said_to_be_empty(tmp_path):
    request = requests.request_from_flags("1", _flags(tmp_path, text=" "))
    with pytest.raises(UserError, match="text is empty"):
        requests.check(request)
    requests.check(requests.request_from_flags("1", _flags(tmp_path, text="")))
