# SPDX-License-Identifier: GPL-3.0-or-later
"""Speakers are held out by their names, the same in all folders and corpora."""

import json

import numpy as np
import pytest

from backend.data.speech import dataset
from backend.data.speech.corpus import load_corpus, prepare_speech
from backend.data.speech.held_out import is_held_out
from backend.errors import UserError
from tests.backend.data.speech.samples import write_recordings


def test_a_speaker_is_on_the_same_side_in_every_folder_and_corpus(tmp_path):
    """With a corpus and its recordings given together, nobody is both trained on and held out."""
    recordings = write_recordings(tmp_path / "recordings")
    corpora = [
        prepare_speech(
            tmp_path / f"corpus{seed}", recordings=recordings, hours_synthesised=0, seed=seed,
            workers=1,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    folders = [recordings, *(corpus.folder for corpus in corpora)]
    both = dataset.open_speech(folders, tmp_path / "cache")
    assert len(both.train) + len(both.validation) == 30
    assert not {clip.speaker for clip in both.train} & {clip.speaker for clip in both.validation}
    assert {clip.speaker for clip in both.validation} == {"s3"}


def test_splits_stored_in_an_older_corpus_are_not_used(tmp_path):
    recordings = write_recordings(tmp_path / "recordings")
    folder = tmp_path / "corpus"
    prepare_speech(folder, recordings=recordings, hours_synthesised=0, seed=1, workers=1)
    index = json.loads((folder / "index.json").read_text())
    for entry in index["utterances"]:
        entry["split"] = "validation" if entry["speaker"] == "s0" else "train"
    (folder / "index.json").write_text(json.dumps(index))
    found = load_corpus(folder)
    assert {utterance.speaker for utterance in found.split("validation")} == {"s3"}


def test_about_a_tenth_of_the_speakers_is_held_out():
    held_out = [is_held_out(f"speaker {number}") for number in range(2000)]
    assert 0.08 < np.mean(held_out) < 0.12


def test_speech_that_holds_nobody_out_is_refused(tmp_path):
    folder = write_recordings(tmp_path / "speech", num_speakers=3)
    with pytest.raises(UserError, match=r"3 speakers, of whom 0 are held out.*Add recordings"):
        dataset.open_speech([folder], tmp_path / "cache")
