# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command shows in the terminal: progress on standard error, and its exit status."""

from __future__ import annotations

import sys
from typing import Final

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130


def one_line(text: str) -> str:
    """A text for the terminal: without line feeds, and without letters that cannot be shown."""
    line = " ".join(text.split())
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
    )


class TerminalReporter:
    """Shows progress on one line of the terminal and warnings on lines of their own, on stderr."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._width = 0

    def status(self, text: str) -> None:
        """Show what the job is doing."""
        self._line(one_line(text))

    def warn(self, text: str) -> None:
        """Write a warning on a line of its own."""
        self.close()
        sys.stderr.write(f"warning: {one_line(text)}\n")

    def progress(
        self, stage: str, done: float, total: float, unit: str, seconds_left: float | None
    ) -> None:
        """Show how far the stage is."""
        left = "" if seconds_left is None else f", {seconds_left:.0f} s left"
        self._line(f"{stage}: {done:.0f} of {total:.0f} {unit}{left}")

    def is_cancelled(self) -> bool:
        """Never: Ctrl-C raises KeyboardInterrupt."""
        return False

    def close(self) -> None:
        """Clear the line."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
        self._width = 0

    def _line(self, text: str) -> None:
        if self._is_terminal:
            sys.stderr.write("\r" + text.ljust(self._width))
            sys.stderr.flush()
            self._width = len(text)
