# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognition and alignment of whole sounds, and when neither is to be trusted."""

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

from backend.errors import Cancelled, UserError
from backend.speech import moonshine_words
from backend.speech.phones import Phone
from backend.speech.recognition import SpeechRecogniser
from backend.speech.transcript import Transcript
from backend.speech.written_text import words_of
from tests.backend.speech.samples import SENTENCE, no_speech

pocketsphinx = pytest.importorskip("pocketsphinx", reason="PocketSphinx is not installed")


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
@pytest.mark.parametrize("by_moonshine", [False, True])
def test_what_is_no_speech_gives_no_phones_but_a_warning(
    kind, by_moonshine, monkeypatch, recogniser
):
    if not by_moonshine:
        monkeypatch.setattr(moonshine_words, "is_installed", lambda: False)
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
    assert len(progress) > 2
    assert progress == sorted(progress)


def test_pieces_in_parallel_give_what_one_process_gives(spoken, recogniser):
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([np.concatenate([spoken.samples, pause])] * 3)
    parallel = SpeechRecogniser(2)
    try:
        transcript = parallel.recognise(sound)
    finally:
        parallel.close()
    assert transcript == recogniser.recognise(sound)


def test_cancel_ends_recognition(spoken, recogniser):
    with pytest.raises(Cancelled):
        recogniser.recognise(spoken.samples, is_cancelled=lambda: True)


_KILLED = """
import numpy, sys, time
from backend.speech import recognition

if __name__ == "__main__":
    recogniser = recognition.SpeechRecogniser(2)
    recogniser._work([(numpy.zeros(4000, "int16"), None, None)] * 2, None, None)
    print(*recogniser._pool._processes, flush=True)
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


def test_a_closed_recogniser_works_again(spoken):
    recogniser = SpeechRecogniser(1)
    recogniser.close()
    assert isinstance(recogniser.recognise(spoken.samples[:16000]), Transcript)


def test_noise_in_which_words_cannot_be_aligned_gives_no_phones(spoken, monkeypatch, recogniser):
    monkeypatch.setattr(moonshine_words, "is_installed", lambda: False)
    rng = np.random.default_rng(9)
    seconds = np.arange(16000 * 3) / 16000
    swell = 1.0 + np.sin(2 * np.pi * 1.65 * seconds)
    noise = (rng.normal(0.0, 0.05, len(seconds)) * swell).astype(np.float32)
    transcript = recogniser.recognise(
        noise
    )  # PocketSphinx finds a word there, then fails to align it
    assert transcript.mode == "sound"
    assert not transcript.phones
    assert recogniser.recognise(spoken.samples).words  # and still works


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
