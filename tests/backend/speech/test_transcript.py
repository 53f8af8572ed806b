# SPDX-License-Identifier: GPL-3.0-or-later
"""Transcripts of a part of the sound."""

from __future__ import annotations

from backend.speech.phones import Phone
from backend.speech.transcript import Transcript, Word


def test_a_stretch_keeps_what_is_spoken_in_it_on_its_own_clock():
    whole = Transcript(
        phones=(Phone("M", 0.0, 1.0), Phone("AA", 1.0, 2.0), Phone("P", 2.0, 3.0)),
        words=(Word("ma", 0.0, 2.0), Word("up", 2.0, 3.0)),
        warnings=("careful",),
        mode="words",
        gaps=((0, 100),),
    )
    part = whole.between(1.5, 2.75)
    assert part.phones == (Phone("AA", -0.5, 0.5), Phone("P", 0.5, 1.5))
    assert part.words == (Word("up", 0.5, 1.5),)
    assert (part.mode, part.warnings, part.gaps) == ("words", ("careful",), ())
