# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognition and alignment of whole sounds, and when neither is to be trusted."""

import json
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import soxr

from backend.errors import Cancelled, UserError
from backend.speech.phones import Phone
from backend.speech.written_text import words_of
from tests.backend.speech.samples import SENTENCE, no_speech


def _bilabials(phones) -> list[Phone]:
    return [phone for phone in phones if phone.symbol in ("P", "B", "M")]


def test_alignment_of_the_text_finds_the_phones_times(spoken, recogniser):
    transcript = recogniser.align(spoken.samples, SENTENCE)
    assert transcript.mode == "text"
    assert [word.text for word in transcript.words] == words_of(SENTENCE)
    truth, found = _bilabials(spoken.phones), _bilabials(transcript.phones)
    assert [phone.symbol for phone in found] == [phone.symbol for phone in truth]
    errors = [
        abs(one.start_seconds - other.start_seconds)
        for one, other in zip(truth, found, strict=True)
    ]
    assert np.median(errors) < 0.05


def test_words_without_an_entry_are_aligned_and_named(spoken, recogniser):
    transcript = recogniser.align(spoken.samples, SENTENCE.replace("nobody", "noeboddy"))
    assert transcript.mode == "text"
    assert "noeboddy" in transcript.warnings[0]


def test_recognised_phones_are_in_order_and_within_the_sound(spoken, recogniser):
    transcript = recogniser.recognise(spoken.samples)
    assert transcript.mode == "words"
    seconds = len(spoken.samples) / 16000
    times = [(phone.start_seconds, phone.end_seconds) for phone in transcript.phones]
    assert all(start < end <= seconds + 0.02 for start, end in times)
    assert all(one[1] <= other[0] + 1e-6 for one, other in pairwise(times))


def test_wrong_text_falls_back_with_a_warning(spoken, recogniser):
    transcript = recogniser.align(
        spoken.samples, "completely different things have happened since yesterday"
    )
    assert transcript.mode != "text"
    assert "does not fit" in transcript.warnings[0]


def test_half_of_the_text_falls_back_with_a_warning(spoken, recogniser):
    transcript = recogniser.align(spoken.samples, "The big brown bear moved")
    assert transcript.mode != "text"


def test_text_without_words_is_refused(spoken, recogniser):
    with pytest.raises(UserError, match="no words"):
        recogniser.align(spoken.samples, " ...!")


@pytest.mark.parametrize("kind", ["silence", "empty", "noise", "tones"])
def test_what_is_no_speech_gives_no_phones_but_a_warning(kind, recogniser):
    transcript = recogniser.recognise(no_speech(kind))
    assert (transcript.phones, transcript.mode) == ((), "sound")
    assert len(transcript.warnings) == 1


def test_long_sound_is_cut_and_its_text_shared_out(spoken, recogniser):
    pause = np.zeros(8000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 4)
    progress: list[tuple[float, float]] = []
    transcript = recogniser.align(
        sound, " ".join([SENTENCE] * 4), progress=lambda *report: progress.append(report)
    )
    assert transcript.mode == "text"
    assert len(transcript.words) == 4 * len(words_of(SENTENCE))
    length = (len(spoken.samples) + len(pause)) / 16000
    starts = [word.start_seconds for word in transcript.words if word.text == "bear"]
    np.testing.assert_allclose(np.diff(starts), length, atol=0.05)
    assert progress[-1][0] == pytest.approx(progress[-1][1])
    assert len(progress) > 1
    assert progress == sorted(progress)


def test_pieces_in_parallel_give_what_one_thread_gives(spoken, recogniser, monkeypatch):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 3)
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(recogniser, "num_cores", lambda cores=cores: cores)
        found.append(recogniser.recognise(sound))
    assert found[0] == found[1]
    assert found[0].words


def test_cancel_ends_recognition(spoken, recogniser):
    with pytest.raises(Cancelled):
        recogniser.recognise(spoken.samples, is_cancelled=lambda: True)


def test_cancel_is_noticed_between_pieces(spoken, recogniser, monkeypatch):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 6)
    monkeypatch.setattr(recogniser, "num_cores", lambda: 1)
    pieces = []
    with pytest.raises(Cancelled):
        recogniser.recognise(
            sound, progress=lambda *_: pieces.append(1), is_cancelled=lambda: bool(pieces)
        )
    assert len(pieces) == 1


def test_real_speech_aligns_as_an_independent_aligner_does(real_speech, recogniser):
    reference = json.loads((real_speech / "alignment_mfa.json").read_text())
    name = sorted(reference)[0]
    samples, rate = soundfile.read(real_speech / f"{name}.wav", dtype="float32")
    transcript = recogniser.align(soxr.resample(samples, rate, 16000), reference[name]["text"])
    truth = [p for p in reference[name]["phones"] if p[0] in ("P", "B", "M")]
    found = _bilabials(transcript.phones)
    assert len(found) == len(truth)
    errors = [abs(p.start_seconds - row[1]) for p, row in zip(found, truth, strict=True)]
    assert np.median(errors) < 0.05
