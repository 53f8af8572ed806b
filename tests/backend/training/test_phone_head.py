# SPDX-License-Identifier: GPL-3.0-or-later
"""Training of the phone head on Moonshine's encoder: batches, metadata, refusals."""

import json
from dataclasses import asdict
from itertools import count

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate", reason="accelerate is not installed")
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from backend.cli import main as command_line
from backend.data.speech import augment_audio
from backend.data.speech.batches import IGNORED
from backend.data.speech.corpus import FORMAT_VERSION, Utterance, load_corpus
from backend.data.speech.held_out import is_held_out
from backend.data.speech.synthesis import Voice, available_engines, speak
from backend.model.phone_head import PhoneHead
from backend.speech import moonshine_encoder
from backend.speech.phones import NUM_PHONE_IDS, PHONE_IDS, SILENCE
from backend.training.phone_head import _stretch, head_batch

needs_encoder = pytest.mark.skipif(
    not moonshine_encoder.is_installed(), reason="moonshine-voice or onnxruntime is not installed"
)
SENTENCES = ("Bob may put my pan by the map.", "We keep five big maps of Rome.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two voices to train on, one held out."""
    if "flite" not in available_engines():
        pytest.skip("flite is not installed")
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "shards").mkdir()
    entries = []
    for voice in ("slt", "awb", "rms"):
        names = (f"{voice} {number}" for number in count())
        speaker = next(name for name in names if is_held_out(name) == (voice == "rms"))
        offset, sounds = 0, []
        for number, spoken in enumerate(speak(Voice("flite", voice), SENTENCES)):
            sounds.append(np.round(np.clip(spoken.samples, -1, 1) * 32767).astype(np.int16))
            entries.append(
                asdict(
                    Utterance(
                        id=f"{voice}{number}", speaker=speaker,
                        source="recorded" if voice == "slt" else "flite",
                        text=SENTENCES[number],
                        phones=spoken.phones, shard=voice, offset=offset,
                        num_samples=len(sounds[-1]),
                    )
                )
            )  # fmt: skip
            entries[-1]["phones"] = [
                [one.symbol, one.start_seconds, one.end_seconds] for one in spoken.phones
            ]
            offset += len(sounds[-1])
        np.save(folder / "shards" / f"{voice}.npy", np.concatenate(sounds))
    index = {"format_version": FORMAT_VERSION, "utterances": entries}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def corpus(folder):
    return load_corpus(folder)


def batch(corpus, number, size=3):
    return head_batch(corpus, corpus.split("train"), seed=1, number=number, batch_size=size)


# ---- sounds


def test_paced_speech_is_as_much_longer_as_its_times():
    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    paces = []
    for seed in range(20):
        sound, pace = augment_audio.at_pace(samples, np.random.default_rng(seed))
        assert len(sound) == pytest.approx(16000 * pace, abs=2)
        paces.append(pace)
    assert min(paces) < 0.95
    assert max(paces) > 1.05
    assert paces.count(1.0) > 3


def test_augmented_speech_has_the_same_length_and_differs_by_seed():
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 16000).astype(np.float32)
    other = rng.normal(0, 0.1, 5000).astype(np.float32)
    made = [
        augment_audio.augment(samples, other, np.random.default_rng(seed)) for seed in range(16)
    ]
    assert all(one.shape == samples.shape and np.isfinite(one).all() for one in made)
    untouched = sum(np.array_equal(one, samples) for one in made)
    assert 1 <= untouched <= 10
    again = augment_audio.augment(samples, other, np.random.default_rng(3))
    np.testing.assert_array_equal(again, made[3])


def test_a_click_stays_where_it_is_in_rooms_and_on_lines():
    click = np.zeros(16000, np.float32)
    click[8000] = 1.0
    for effect in (augment_audio._in_a_room, augment_audio._through_a_line):
        for seed in range(5):
            augmented = effect(click, np.random.default_rng(seed))
            assert np.abs(augmented[:8000]).max() < 1e-6
            assert abs(int(np.abs(augmented).argmax()) - 8000) < 32


def test_utterances_follow_one_another_with_their_phones(corpus):
    sound, phones = _stretch(corpus, corpus.split("train"), 80000, np.random.default_rng(4))
    assert 80000 <= len(sound) < 80000 + 70000
    starts = [phone.start_seconds for phone in phones]
    assert starts == sorted(starts)
    assert phones[-1].end_seconds <= len(sound) / 16000 + 0.05
    loud = [
        np.abs(sound[round(16000 * one.start_seconds) : round(16000 * one.end_seconds)]).mean()
        for one in phones
        if one.symbol in ("AA", "EY", "AY", "AE", "OW")
    ]
    quiet = [
        np.abs(sound[round(16000 * one.start_seconds) : round(16000 * one.end_seconds)]).mean()
        for one in phones
        if one.symbol == SILENCE
    ]
    assert len(loud) > 4
    assert np.median(loud) > 10 * np.median(quiet)


# ---- batches


@needs_encoder
def test_a_number_gives_the_same_batch(corpus):
    for one, other in zip(batch(corpus, 3), batch(corpus, 3), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(batch(corpus, 4)[1], batch(corpus, 3)[1])


@needs_encoder
def test_batches_are_padded_and_say_so(corpus):
    features, lengths, phones = batch(corpus, 0)
    assert features.shape == (3, int(lengths.max()), moonshine_encoder.WIDTH)
    assert phones.shape == features.shape[:2]
    for row, length in zip(phones, lengths.tolist(), strict=True):
        assert (row[length:] == IGNORED).all()
        assert (row[:length] != IGNORED).float().mean() > 0.9
    assert set(phones.unique().tolist()) <= {IGNORED, *range(1, NUM_PHONE_IDS)}


@needs_encoder
def test_some_stretches_hold_no_speech(corpus):
    rows = [row for number in range(8) for row in batch(corpus, number, 8)[2]]
    silent = [set(row.unique().tolist()) <= {IGNORED, PHONE_IDS[SILENCE]} for row in rows]
    assert 1 <= sum(silent) <= 9


# ---- the head


def test_padding_changes_nothing():
    torch.manual_seed(0)
    head = PhoneHead(12, 5, width=8).eval()
    features = torch.randn(1, 30, 12)
    alone = head(features, torch.ones(1, 30, dtype=torch.bool))
    padded = torch.cat((features, torch.randn(1, 20, 12)), dim=1)
    mask = torch.arange(50)[None] < 30
    torch.testing.assert_close(head(padded, mask)[:, :30], alone)


# ---- the command


def train(folder, run, *flags, steps="40"):
    return command_line.main(
        ["train", "--preset", "phone-head", "--data", str(folder), "--run", str(run), "--seed",
         "1", "--phone-steps", steps, "--batch-size", "2", "--threads", "1", *flags]
    )  # fmt: skip


@needs_encoder
def test_training_learns_and_writes_a_head_with_its_recipe(folder, tmp_path, capsys):
    assert train(folder, tmp_path) == 0
    path = tmp_path / "phone_head.safetensors"
    assert capsys.readouterr().out.strip() == str(path)
    with safe_open(path, "pt") as file:
        said = file.metadata()
    assert said["corpus"] == load_corpus(folder).content_hash
    assert "--seed 1 --phone-steps 40 --batch-size 2" in said["command"]
    assert float(said["phone_accuracy"]) > 0.15  # by chance 0.03
    losses = [
        entry["loss"]
        for line in (tmp_path / "phone-head-log.jsonl").read_text().splitlines()
        if "loss" in (entry := json.loads(line))
    ]
    assert losses[-1] < losses[0]
    before = load_file(path)
    assert train(folder, tmp_path) == 0  # nothing is left to do
    for name, value in load_file(path).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@needs_encoder
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--motion-steps", "3"], "no option --motion-steps"),
        (["--start-from", "base"], "no option --start-from"),
        (["--phone-steps", "0"], "1 step or more"),
        (["--processes", "2"], "in one process"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, tmp_path, flags, reason, capsys):
    assert train(folder, tmp_path, *flags) == 1
    assert reason in capsys.readouterr().err


@needs_encoder
def test_a_corpus_with_nobody_held_out_is_refused(folder, tmp_path, capsys):
    index = json.loads((folder / "index.json").read_text())
    index["utterances"] = [one for one in index["utterances"] if not is_held_out(one["speaker"])]
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert train(tmp_path, tmp_path / "run") == 1
    assert "held out" in capsys.readouterr().err


def test_without_the_encoder_the_error_names_what_to_install(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(moonshine_encoder, "is_installed", lambda: False)
    assert train(folder, tmp_path) == 1
    assert "requirements-words.txt" in capsys.readouterr().err
