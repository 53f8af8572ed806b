# SPDX-License-Identifier: GPL-3.0-or-later
"""The two exceptions that end a job on purpose, and excerpts of foreign text for their sentences.

Imports nothing, so every module can use it.
"""

from __future__ import annotations


class UserError(Exception):
    """A job failed for a reason that the user can act on; the text is one sentence for them."""


class Cancelled(Exception):  # noqa: N818 - no error: the user asked for it
    """The user cancelled the running job; raised where the work is done, caught by the service."""


def excerpt(foreign: object, max_letters: int = 80) -> str:
    """Text from outside as a sentence can quote it.

    Args:
        foreign: A name, a path, a value or another library's exception.
        max_letters: Largest length of the result; the middle of a longer text is left out.

    Returns:
        One line of letters that can be shown and encoded.
    """
    text = str(foreign)
    if len(text) > max_letters:
        end = max_letters // 2
        text = f"{text[: max_letters - end - 1]}…{text[-end:]}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)
