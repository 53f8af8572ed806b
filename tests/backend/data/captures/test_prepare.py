# SPDX-License-Identifier: GPL-3.0-or-later
"""Preparation of a data set: resampling, resuming, refusals, the command line."""

import numpy as np
import pytest

from backend.cli.main import main
from backend.data.captures import prepared
from backend.data.captures.prepare import decimate, prepare
from backend.errors import UserError
from tests.backend.data.captures.samples import (
    SUBJECT,
    VALIDATION,
    hashes,
    python2_pickle,
    random_head,
)


def test_twenty_hertz_do_not_come_back_as_ten():
    time = np.arange(240)[:, None] / 60
    fast = decimate(np.sin(2 * np.pi * 20 * time).astype(np.float32), 2)
    slow = decimate(np.sin(2 * np.pi * 5 * time).astype(np.float32), 2)
    assert fast.shape == (120, 1)
    assert np.abs(fast[12:-12]).max() < 0.01  # [::2] leaves 1.0
    np.testing.assert_allclose(slow[12:-12], np.sin(10 * np.pi * time[::2])[12:-12], atol=0.01)


def test_filter_leaves_rest_and_steady_motion_alone():
    np.testing.assert_allclose(decimate(np.full((9, 2), 0.25, np.float32), 2), 0.25, atol=1e-6)
    ramp = decimate(np.arange(41, dtype=np.float32)[:, None], 2)
    np.testing.assert_allclose(ramp[:, 0], np.arange(0, 41, 2), atol=0.02)


def test_interrupted_run_goes_on_and_does_nothing_twice(vocaset, tmp_path):
    out = tmp_path / "out"

    def stop_after_two(done, total, unit, seconds_left):
        assert (total, unit) == (4, "sequences")
        assert seconds_left is not None and seconds_left >= 0
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("vocaset", vocaset, out, progress=stop_after_two)
    with pytest.raises(UserError, match="interrupted"):
        prepared.open(out)
    finished = {p: p.stat().st_mtime_ns for p in out.glob("sequences/*.npy")}
    assert len(finished) == 4
    manifest = prepare("vocaset", vocaset, out)
    assert len(manifest.sequences) == 4
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    whole = prepare("vocaset", vocaset, tmp_path / "at_once")
    assert whole == manifest


def test_other_settings_or_another_template_need_another_folder(vocaset, tmp_path):
    prepare("vocaset", vocaset, tmp_path / "out")
    with pytest.raises(UserError, match=r"another precision.*empty folder"):
        prepare("vocaset", vocaset, tmp_path / "out", precision="float32")
    templates = {SUBJECT: random_head(5), VALIDATION: random_head(6)}
    python2_pickle(templates, vocaset / "templates.pkl")
    with pytest.raises(UserError, match="template of"):
        prepare("vocaset", vocaset, tmp_path / "out")


def test_out_may_not_lie_in_or_around_the_raw_folder(vocaset, tmp_path):
    before = hashes(vocaset)
    for out in (vocaset, vocaset / "out", tmp_path):
        with pytest.raises(UserError, match="neither in nor around"):
            prepare("vocaset", vocaset, out)
    assert hashes(vocaset) == before


def test_millimetres_in_place_of_metres_are_refused(vocaset, tmp_path):
    python2_pickle({SUBJECT: random_head(0, size=300.0)}, vocaset / "templates.pkl")
    with pytest.raises(UserError, match=r"measures 300 m.*--units"):
        prepare("vocaset", vocaset, tmp_path / "out")


def test_one_subject_without_a_fit_template_does_not_stop_the_others(vocaset, tmp_path):
    python2_pickle(
        {SUBJECT: random_head(0), VALIDATION: random_head(1)[:-1]}, vocaset / "templates.pkl"
    )
    manifest = prepare("vocaset", vocaset, tmp_path / "out")
    assert [s.subject for s in manifest.sequences] == [SUBJECT, SUBJECT]
    assert "11 vertices" in manifest.problems[0].reason


def test_command_line_prepares_and_names_what_is_missing(vocaset, tmp_path, capsys):
    command = ["prepare", "vocaset", "--raw", str(vocaset), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "4 sequences of 2 subjects" in said
    assert "476 of the published sequences are not there" in said
    assert main([*command[:3], str(tmp_path / "nowhere"), *command[4:]]) == 1
    assert "no folder" in capsys.readouterr().err
