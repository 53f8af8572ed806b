# SPDX-License-Identifier: GPL-3.0-or-later
"""The corpus: synthesised and recorded speech with phone times."""

import json

import numpy as np
import pytest
import soundfile

from backend.data.speech import synthesis
from backend.data.speech.corpus import load_corpus, prepare_speech
from backend.data.speech.recordings import list_recordings, read_recording
from backend.data.speech.sentences import FOREIGN, SentenceMaker
from backend.data.speech.synthesis import Spoken, Voice, available_engines, festival_voices, speak
from backend.errors import UserError
from backend.speech import moonshine_phones
from backend.speech.phones import PHONES

_HOURS = 0.004


def _needs(engine: str) -> None:
    if engine not in available_engines():
        pytest.skip(f"{engine} is not installed")


def _write_recordings(folder, speakers: int, clips: int) -> None:
    """A folder in the format of recordings, of noise."""
    rng = np.random.default_rng(0)
    index = {}
    for speaker in range(speakers):
        for clip in range(clips):
            name = f"{speaker:02d}{clip:02d}"
            noise = 0.1 * rng.standard_normal(16000).astype(np.float32)
            soundfile.write(folder / f"{name}.wav", noise, 16000)
            index[name] = {
                "file": f"{name}.wav",
                "text": "pa",
                "speaker": f"s{speaker:02d}",
                "align_score": -20.0 if clip else -40.0,
                "phones": [["SIL", 0.0, 0.3], ["P", 0.3, 0.4], ["AA", 0.4, 0.9], ["SIL", 0.9, 1.0]],
            }
    (folder / "alignment.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def synthesised(tmp_path_factory):
    if not available_engines():
        pytest.skip("neither flite nor espeak-ng nor festival is installed")
    folder = tmp_path_factory.mktemp("corpus")
    return prepare_speech(folder, recordings=None, hours_synthesised=_HOURS, seed=4, workers=1)


def test_synthesised_speech_has_phones_in_order_within_its_length(synthesised):
    assert synthesised.utterances
    for utterance in synthesised.utterances:
        samples = synthesised.samples(utterance)
        assert len(samples) == utterance.num_samples
        assert 0.01 < np.abs(samples).max() <= 1.0
        end = 0.0
        for phone in utterance.phones:
            assert phone.symbol in PHONES
            assert end - 1e-3 <= phone.start_seconds < phone.end_seconds
            end = phone.end_seconds
        assert end <= utterance.num_samples / 16000 + 1e-3
        assert utterance.text


def test_no_speaker_is_in_both_splits(synthesised):
    splits: dict[str, set[str]] = {}
    for utterance in synthesised.utterances:
        splits.setdefault(utterance.speaker, set()).add(utterance.split)
    assert all(len(found) == 1 for found in splits.values())


def test_same_seed_gives_the_same_corpus(synthesised, tmp_path):
    again = prepare_speech(tmp_path, recordings=None, hours_synthesised=_HOURS, seed=4, workers=2)
    assert again.content_hash == synthesised.content_hash
    for one, other in zip(synthesised.utterances, again.utterances, strict=True):
        np.testing.assert_array_equal(synthesised.samples(one), again.samples(other))


def test_interrupted_corpus_goes_on_where_it_stopped(tmp_path):
    source, out = tmp_path / "recordings", tmp_path / "corpus"
    source.mkdir()
    _write_recordings(source, 3, 60)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_speech(
            out, recordings=source, hours_synthesised=0, seed=1, workers=1, progress=stop
        )
    assert not (out / "index.json").exists()
    shard = out / "shards" / "recorded_0000.npy"
    first_time = shard.stat().st_mtime_ns
    corpus = prepare_speech(out, recordings=source, hours_synthesised=0, seed=1, workers=1)
    assert shard.stat().st_mtime_ns == first_time
    assert len({utterance.shard for utterance in corpus.utterances}) == 2


def test_recordings_hold_out_speakers_and_leave_out_bad_alignments(tmp_path):
    source = tmp_path / "recordings"
    source.mkdir()
    _write_recordings(source, 30, 3)
    corpus = prepare_speech(
        tmp_path / "corpus", recordings=source, hours_synthesised=0, seed=1, workers=1
    )
    train = {utterance.speaker for utterance in corpus.split("train")}
    held_out = {utterance.speaker for utterance in corpus.split("validation")}
    assert held_out == {"s13", "s17"}
    assert not train & held_out
    assert len(corpus.utterances) == 60  # the worst of each three is left out
    assert load_corpus(tmp_path / "corpus").content_hash == corpus.content_hash


def test_other_settings_do_not_mix_into_a_corpus(tmp_path):
    source = tmp_path / "recordings"
    source.mkdir()
    _write_recordings(source, 2, 2)
    out = tmp_path / "corpus"
    prepare_speech(out, recordings=source, hours_synthesised=0, seed=1, workers=1)
    with pytest.raises(UserError, match="other settings"):
        prepare_speech(out, recordings=source, hours_synthesised=0, seed=2, workers=1)


def test_missing_corpus_and_empty_recordings_are_named(tmp_path):
    with pytest.raises(UserError, match="No corpus"):
        load_corpus(tmp_path)
    with pytest.raises(UserError, match="No recordings"):
        list_recordings(tmp_path)


def test_a_recording_may_not_lie_outside_its_folder(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    soundfile.write(tmp_path / "outside.wav", np.zeros(16000), 16000)
    (folder / "alignment.json").write_text(
        json.dumps({"a": {"file": "../outside.wav", "text": "a"}})
    )
    with pytest.raises(UserError, match=r"outside.wav"):
        list_recordings(folder)


def test_broken_sound_is_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UserError, match="cannot be read as sound"):
        read_recording(list_recordings(tmp_path)[0])


def test_recordings_without_times_are_aligned(tmp_path):
    if not moonshine_phones.can_recognise():
        pytest.skip("Moonshine is not there")
    _needs("flite")
    text = "The big brown bear moved my paper boat."
    spoken = speak(Voice("flite", "rms"), [text])[0]
    folder = tmp_path / "speaker_one"
    folder.mkdir()
    soundfile.write(folder / "a.wav", spoken.samples, 16000)
    (folder / "a.txt").write_text(text)
    recording = list_recordings(tmp_path)[0]
    assert recording.speaker == "speaker_one"
    aligned = read_recording(recording)
    assert aligned is not None
    assert sum(phone.symbol in ("P", "B", "M") for phone in aligned.phones) == 8


def test_only_voices_of_festival_that_are_installed_speak(monkeypatch):
    listed = "(some_other cmu_us_slt_arctic_hts)\n"
    monkeypatch.setattr(synthesis, "_run", lambda _command: listed)
    monkeypatch.setattr(synthesis.shutil, "which", lambda command: command)
    festival_voices.cache_clear()
    try:
        assert festival_voices() == ("cmu_us_slt_arctic_hts",)
        assert "festival" in available_engines()
        listed = "nil\n"
        festival_voices.cache_clear()
        assert festival_voices() == ()
        assert "festival" not in available_engines()
    finally:
        festival_voices.cache_clear()


@pytest.mark.parametrize(
    ("engine", "name"),
    [("flite", "kal16"), ("flite", "slt"), ("espeak", "en-us+f2"), ("festival", "kal_diphone")],
)
def test_phone_times_of_synthesisers_fit_the_closures(engine, name):
    """In the closures of p the sound is quiet: the labels fit the sound."""
    _needs(engine)
    if engine == "festival" and name not in festival_voices():
        pytest.skip(f"Festival's voice {name} is not installed")
    spoken = speak(Voice(engine, name), ["A happy puppy sat upon a paper apple."])[0]
    quiet = [
        _quietest_against_loudest(spoken, phone) for phone in spoken.phones if phone.symbol == "P"
    ]
    assert len(quiet) == 7
    assert np.median(quiet) < 0.06


def _quietest_against_loudest(spoken: Spoken, phone) -> float:
    start, end = (round(t * 16000) for t in (phone.start_seconds, phone.end_seconds))
    level = np.abs(spoken.samples[start : max(end, start + 400)])
    steps = level[: len(level) // 160 * 160].reshape(-1, 160).max(axis=1)
    return float(steps.min() / np.abs(spoken.samples).max())


def test_slower_voices_take_longer():
    _needs("espeak")
    lengths = [
        len(speak(Voice("espeak", "en-us", slowness), ["Slow and steady."])[0].samples)
        for slowness in (0.7, 1.4)
    ]
    assert lengths[1] > 1.5 * lengths[0]


def test_other_languages_speak_through_espeak():
    _needs("espeak")
    maker = SentenceMaker(None)
    rng = np.random.default_rng(0)
    for language in FOREIGN:
        spoken = speak(Voice("espeak", language), [maker.foreign(language, rng)])[0]
        assert sum(phone.symbol != "SIL" for phone in spoken.phones) > 5, language


def test_sentences_are_text_and_follow_the_seed():
    maker = SentenceMaker(None)
    made = [maker.english(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    rng = np.random.default_rng(0)
    for _ in range(200):
        sentence = maker.english(rng)
        assert "{" not in sentence
        assert "\n" not in sentence
        assert sentence[-1] in ".?!"
