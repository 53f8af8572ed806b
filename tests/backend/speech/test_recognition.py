# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones of speech: the table, alignment, recognition, and when neither is to be trusted."""

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from backend.data.speech.phone_errors import corrupt
from backend.errors import UserError
from backend.speech import moonshine_words
from backend.speech.phones import (
    NUM_PHONE_IDS,
    PHONE_IDS,
    PHONES,
    Phone,
    from_arpabet,
    from_ipa,
    merge_silences,
    phone_frames,
)
from backend.speech.pronunciation import pronounce
from backend.speech.recognition import ListeningCancelledError, SpeechRecogniser
from backend.speech.transcript import Transcript
from backend.speech.written_text import words_of
from tests.backend.speech.samples import SENTENCE, no_speech

pocketsphinx = pytest.importorskip("pocketsphinx", reason="PocketSphinx is not installed")


def recognise(samples, **settings) -> Transcript:
    return SpeechRecogniser(1).recognise(samples, **settings)


def align(samples, text, **settings) -> Transcript:
    return SpeechRecogniser(1).align(samples, text, **settings)


def _bilabials(phones) -> list[Phone]:
    return [phone for phone in phones if phone.symbol in ("P", "B", "M")]


def test_phone_table_has_39_phones_silence_and_a_place_for_none():
    assert len(PHONES) == len(set(PHONES)) == 40
    assert NUM_PHONE_IDS == 41
    assert PHONE_IDS["SIL"] == 1
    assert 0 not in PHONE_IDS.values()


@pytest.mark.parametrize(
    ("symbol", "phone"), [("AH0", "AH"), ("pau", "SIL"), ("ax", "AH"), ("hh", "HH"), ("dx", "T")]
)
def test_maps_symbols_of_english_engines(symbol, phone):
    assert from_arpabet(symbol) == phone


def test_rejects_an_unknown_symbol():
    with pytest.raises(ValueError, match="no ARPAbet phone"):
        from_arpabet("qq")


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("tʃ", ("CH",)),
        ("\u02c8oʊ", ("OW",)),
        ("u\u02d0", ("UW",)),
        ("ɛɹ", ("EH", "R")),
        ("ɔ̃", ("AO",)),
        ("y", ("UW",)),
        ("pʰ", ("P",)),
        ("ts", ("T", "S")),
        ("\u0294", ()),
        ("", ("SIL",)),
    ],
)
def test_maps_ipa_to_the_nearest_lips(ipa, phones):
    assert from_ipa(ipa) == phones


def test_phones_on_a_clock():
    phones = [Phone("SIL", 0.0, 0.1), Phone("M", 0.1, 0.2), Phone("AA", 0.3, 0.4)]
    ids = phone_frames(phones, 25, 50.0)
    assert ids.tolist()[:5] == [PHONE_IDS["SIL"]] * 5
    assert ids.tolist()[5:10] == [PHONE_IDS["M"]] * 5
    assert not ids[10:15].any()
    assert ids.tolist()[15:20] == [PHONE_IDS["AA"]] * 5
    assert not ids[20:].any()
    assert not phone_frames([], 7, 50.0).any()


def test_neighbouring_silences_become_one():
    phones = [Phone("SIL", 0.0, 0.1), Phone("SIL", 0.1, 0.3), Phone("AA", 0.3, 0.4)]
    assert merge_silences(phones) == [Phone("SIL", 0.0, 0.3), Phone("AA", 0.3, 0.4)]


def test_text_becomes_words():
    expected = (
        "doctor bob's three cats on the twenty first of may nineteen eighty four five dollars and"
        " it's ten percent"
    )
    assert (
        " ".join(words_of("Dr. Bob's 3 cats, on the 21st of May 1984 - $5 & it\u2019s 10%!"))
        == expected
    )
    assert words_of("... !?") == []


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("blip", "B L IH P"),
        ("vobe", "V OW B"),
        ("pham", "F AE M"),
        ("knimbly", "N IH M B L IY"),
        ("quight", "K W AY T"),
        ("bbm", "B IY B IY EH M"),
        ("--", ""),
    ],
)
def test_unknown_words_are_pronounced_by_rule(word, phones):
    assert " ".join(pronounce(word)) == phones


def test_alignment_of_the_text_finds_the_phones_times(spoken):
    heard = align(spoken.samples, SENTENCE)
    assert heard.way == "text"
    assert [word.text for word in heard.words] == words_of(SENTENCE)
    truth, found = _bilabials(spoken.phones), _bilabials(heard.phones)
    assert [phone.symbol for phone in found] == [phone.symbol for phone in truth]
    errors = [
        abs(one.start_seconds - other.start_seconds)
        for one, other in zip(truth, found, strict=True)
    ]
    assert np.median(errors) < 0.05


def test_words_without_an_entry_are_aligned_and_named(spoken):
    heard = align(spoken.samples, SENTENCE.replace("nobody", "noeboddy"))
    assert heard.way == "text"
    assert "noeboddy" in heard.warnings[0]


def test_recognised_phones_are_in_order_and_within_the_sound(spoken):
    heard = recognise(spoken.samples)
    assert heard.way == "words"
    seconds = len(spoken.samples) / 16000
    times = [(phone.start_seconds, phone.end_seconds) for phone in heard.phones]
    assert all(start < end <= seconds + 0.02 for start, end in times)
    assert all(one[1] <= other[0] + 1e-6 for one, other in pairwise(times))


def test_wrong_text_falls_back_with_a_warning(spoken):
    heard = align(spoken.samples, "completely different things have happened since yesterday")
    assert heard.way != "text"
    assert "does not fit" in heard.warnings[0]


def test_half_of_the_text_falls_back_with_a_warning(spoken):
    heard = align(spoken.samples, "The big brown bear moved")
    assert heard.way != "text"


def test_text_without_words_is_refused(spoken):
    with pytest.raises(UserError, match="no words"):
        align(spoken.samples, " ...!")


@pytest.mark.parametrize("kind", ["silence", "empty", "noise", "tones"])
@pytest.mark.parametrize("by_moonshine", [False, True])
def test_what_is_no_speech_gives_no_phones_but_a_warning(kind, by_moonshine, monkeypatch):
    if not by_moonshine:
        monkeypatch.setattr(moonshine_words, "is_installed", lambda: False)
    heard = recognise(no_speech(kind))
    assert (heard.phones, heard.way) == ((), "sound")
    assert len(heard.warnings) == 1


def test_long_sound_is_cut_and_its_text_shared_out(spoken):
    pause = np.zeros(8000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 4)
    progress: list[tuple[float, float]] = []
    heard = align(sound, " ".join([SENTENCE] * 4), progress=lambda *told: progress.append(told))
    assert heard.way == "text"
    assert len(heard.words) == 4 * len(words_of(SENTENCE))
    length = (len(spoken.samples) + len(pause)) / 16000
    starts = [word.start_seconds for word in heard.words if word.text == "bear"]
    np.testing.assert_allclose(np.diff(starts), length, atol=0.05)
    assert progress[-1][0] == pytest.approx(progress[-1][1])
    assert len(progress) > 2
    assert progress == sorted(progress)


def test_pieces_in_parallel_give_what_one_process_gives(spoken):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 3)
    listener = SpeechRecogniser(2)
    try:
        parallel = listener.recognise(sound)
    finally:
        listener.close()
    assert parallel == recognise(sound)


def test_cancel_ends_listening(spoken):
    with pytest.raises(ListeningCancelledError):
        recognise(spoken.samples, is_cancelled=lambda: True)


_KILLED = """
import numpy, sys, time
from backend.speech import recognition

if __name__ == "__main__":
    listener = recognition.SpeechRecogniser(2)
    listener._work([(numpy.zeros(4000, "int16"), None, None)] * 2, None, None)
    print(*listener._pool._processes, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_no_worker_outlives_a_killed_backend(tmp_path):
    script = tmp_path / "backend_that_is_killed.py"
    script.write_text(_KILLED)
    root = Path(__file__).resolve().parents[3]
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    workers = [int(word) for word in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    assert len(workers) == 2
    for _ in range(150):
        if not any(_is_alive(worker) for worker in workers):
            return
        time.sleep(0.2)
    pytest.fail(f"still alive: {workers}")


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def test_closed_listener_works_again(spoken):
    listener = SpeechRecogniser(1)
    listener.close()
    assert isinstance(listener.recognise(spoken.samples[:16000]), Transcript)


def test_errors_keep_the_phones_in_order_and_mostly_right(spoken):
    rng = np.random.default_rng(0)
    truth = phone_frames(spoken.phones, 200, 50.0)
    right, gaps = [], 0
    for _ in range(60):
        phones = corrupt(spoken.phones, rng)
        assert all(phone.end_seconds > phone.start_seconds for phone in phones)
        assert all(one.end_seconds <= other.start_seconds + 1e-9 for one, other in pairwise(phones))
        heard = phone_frames(phones, 200, 50.0)
        gaps += bool((heard[truth > 0] == 0).any())
        right.append(float((heard == truth)[heard > 0].mean()))
    assert 0.55 < np.mean(right) < 0.95
    assert 0 < gaps < 30  # now and then a recogniser gives nothing for a while
    assert corrupt([], rng) == []
    again = [corrupt(spoken.phones, np.random.default_rng(7)) for _ in range(2)]
    assert again[0] == again[1]


def test_noise_in_which_words_cannot_be_aligned_is_nothing_heard(spoken, monkeypatch):
    monkeypatch.setattr(moonshine_words, "is_installed", lambda: False)
    rng = np.random.default_rng(9)
    seconds = np.arange(16000 * 3) / 16000
    swell = 1.0 + np.sin(2 * np.pi * 1.65 * seconds)
    noise = (rng.normal(0.0, 0.05, len(seconds)) * swell).astype(np.float32)
    heard = recognise(noise)  # PocketSphinx finds a word there, then fails to align it
    assert heard.way == "sound"
    assert not heard.phones
    assert recognise(spoken.samples).words  # and listens on


def test_real_speech_aligns_as_an_independent_aligner_does(real_speech):
    reference = json.loads((real_speech / "alignment_mfa.json").read_text())
    name = sorted(reference)[0]
    samples, rate = soundfile.read(real_speech / f"{name}.wav", dtype="float32")
    heard = align(soxr.resample(samples, rate, 16000), reference[name]["text"])
    truth = [p for p in reference[name]["phones"] if p[0] in ("P", "B", "M")]
    found = _bilabials(heard.phones)
    assert len(found) == len(truth)
    errors = [abs(p.start_seconds - row[1]) for p, row in zip(found, truth, strict=True)]
    assert np.median(errors) < 0.05
