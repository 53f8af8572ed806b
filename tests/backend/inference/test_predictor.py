# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of IPA are meant)
"""Sound, head and style in, motion out, with a tiny model of random weights."""

from __future__ import annotations

import dataclasses
import json
import time
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from backend import motion as motions
from backend.audio.load import resample
from backend.errors import Cancelled, UserError
from backend.heads.arkit import ARKIT_NAMES
from backend.heads.mesh_files import read_face_points, read_head
from backend.heads.topology import face_frame, identify
from backend.inference import predictor as predictor_module
from backend.inference import shapes_for_head
from backend.inference.devices import memory_errors, pick_device
from backend.inference.predictor import open_predictor
from backend.inference.style_files import StyleCode, read_exemplar, read_style, write_style
from backend.life.layers import LifeAmounts
from backend.model import checkpoint, content_encoders
from backend.model.graph_encoder import coarse_mesh_graph
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from backend.speech import moonshine_phones
from backend.speech.phones import Phone
from backend.speech.transcript import Transcript
from backend.stages import Stage

NTSC = Fraction(24000, 1001)


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint):
    return open_predictor(tiny_checkpoint, "torch", "cpu")


@pytest.fixture(scope="module")
def head(demo_head_file):
    return identify(*read_head(demo_head_file), face_points=read_face_points(demo_head_file))


def voice(seconds, seed=0):
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * 16000)) / 16000
    return (rng.normal(0, 0.1, len(times)) * (1 + np.sin(12 * times))).astype(np.float32)


def predict(predictor, head, samples, fps=Fraction(30), rate=16000, **options):
    seen = {"progress": [], "warnings": []}
    options.setdefault("listen", "sound")
    options.setdefault("is_cancelled", lambda: False)
    motion = predictor.predict(
        samples, rate, head, fps=fps, num_frames=motions.num_frames(len(samples) / rate, fps),
        progress=lambda *args: seen["progress"].append(args), warn=seen["warnings"].append,
        **options,
    )  # fmt: skip
    return motion, seen


def test_result_fits_the_request(predictor, head):
    motion, seen = predict(predictor, head, voice(2.0), NTSC, start_seconds=7.5)
    assert motion.weights.shape == (48, 52)
    assert motion.shapes.shape == (52, len(head.vertices), 3)
    assert motion.names == ARKIT_NAMES
    assert (motion.fps, motion.start_seconds) == (NTSC, 7.5)
    np.testing.assert_allclose(motion.template, head.vertices, atol=1e-6)
    assert np.isfinite(motion.weights).all()
    assert json.loads(json.dumps(motion.report, allow_nan=False))["num_frames"] == 48
    stages = {stage for stage, *_ in seen["progress"]}
    hearing = {Stage.RECOGNISING_SOUNDS} if moonshine_phones.can_recognise() else set()
    assert stages == {Stage.ANIMATING, *hearing}
    assert all(0 <= done <= total for _, done, total, _ in seen["progress"])


def test_layers_add_up_and_life_is_off_at_zero(predictor, head):
    found, _ = predict(predictor, head, voice(3.0))
    still, _ = predict(predictor, head, voice(3.0), life=LifeAmounts(life=0.0))
    np.testing.assert_array_equal(found.layers.total(), found.weights)
    assert np.abs(found.layers.life).max() > 0.1
    assert not still.layers.life.any()
    assert not still.layers.head_rotation.any()
    np.testing.assert_array_equal(still.weights, still.layers.speech + still.layers.upper_face)
    np.testing.assert_array_equal(still.layers.speech, found.layers.speech)
    np.testing.assert_allclose(found.layers.face_axes, face_frame(head).axes, atol=1e-6)


def test_the_same_job_twice_gives_the_same(predictor, head):
    first, _ = predict(predictor, head, voice(1.0))
    second, _ = predict(predictor, head, voice(1.0))
    np.testing.assert_array_equal(first.weights, second.weights)


@pytest.mark.parametrize("seconds", [0.1, 0.11, 0.5, 1.001])
def test_short_sounds_work(predictor, head, seconds):
    motion, _ = predict(predictor, head, voice(seconds), Fraction(60))
    assert len(motion.weights) == motions.num_frames(seconds, Fraction(60))


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_any_sample_rate_gives_the_same_motion(predictor, head, rate):
    samples = np.convolve(voice(1.0), np.ones(8) / 8, "same").astype(np.float32)
    expected, _ = predict(predictor, head, samples)
    found, _ = predict(predictor, head, resample(samples, 16000, rate), rate=rate)
    assert len(found.weights) == len(expected.weights)
    if rate > 16000:
        assert np.abs(found.weights - expected.weights).mean() < 0.01


def test_frame_rates_show_the_same_motion(predictor, head):
    slow, _ = predict(predictor, head, voice(4.0), Fraction(25))
    fast, _ = predict(predictor, head, voice(4.0), Fraction(50))
    assert (len(slow.weights), len(fast.weights)) == (100, 200)
    close = np.abs(fast.weights[::2] - slow.weights).max(axis=1) < 1e-4
    assert close.mean() > 0.6  # the others were moved onto a closure


def test_in_mode_sound_what_sounds_in_a_long_pause_is_not_heard():
    phones = (Phone("AA", 0.0, 1.0), Phone("SIL", 1.0, 5.0), Phone("AA", 5.0, 6.0))
    samples = np.ones(6 * 16000, np.float32)
    heard = predictor_module._without_pauses(samples, Transcript(phones, (), (), "sound"))
    assert not heard[2 * 16000 : 4 * 16000].any()  # a second from speech on either side
    assert heard[: 2 * 16000].all()
    assert heard[4 * 16000 :].all()
    words = Transcript(phones, (), (), "words")
    assert predictor_module._without_pauses(samples, words) is samples
    brief = Transcript((Phone("SIL", 0.0, 1.9),), (), (), "sound")
    assert predictor_module._without_pauses(samples, brief) is samples


def test_long_sound_has_no_seams(predictor, head, monkeypatch):
    monkeypatch.setattr(predictor_module, "NOBODY", "never said")  # the noise is to be followed
    monkeypatch.setattr(predictor_module, "_without_pauses", lambda samples, _: samples)
    samples = voice(64.0)
    whole, _ = predict(predictor, head, samples, Fraction(50))
    part, _ = predict(predictor, head, samples[: 16000 * 40], Fraction(50))
    whole, part = (found.layers.speech + found.layers.upper_face for found in (whole, part))
    np.testing.assert_allclose(part[: 50 * 18], whole[: 50 * 18], atol=2e-3)
    jerk = np.abs(np.diff(whole, 3, axis=0)).max(axis=1)
    assert jerk.max() < 12 * np.median(jerk)


def test_cancel_is_noticed(predictor, head):
    with pytest.raises(Cancelled):
        predict(predictor, head, voice(1.0), is_cancelled=lambda: True)


def test_cancel_is_noticed_during_recognition(predictor, head, monkeypatch):
    def recognise(*_, **__):
        raise Cancelled

    monkeypatch.setattr(predictor_module.recognition, "recognise", recognise)
    with pytest.raises(Cancelled):
        predict(predictor, head, voice(1.0), listen="words")


def test_recognised_phones_change_the_motion(predictor, head, monkeypatch):
    transcript = Transcript(
        (Phone("M", 0.2, 0.6), Phone("AA", 0.6, 1.0)), (), ("Watch out.",), "words"
    )
    monkeypatch.setattr(predictor_module.recognition, "recognise", lambda *_, **__: transcript)
    monkeypatch.setattr(
        content_encoders, "_AGREEMENT_FROM", 0.0
    )  # an untrained phone classifier never agrees
    monkeypatch.setattr(content_encoders, "_AGREEMENT_GAIN", 1000.0)
    words, seen = predict(predictor, head, voice(1.0), listen="words")
    sound, _ = predict(predictor, head, voice(1.0))
    assert words.report["listen"] == "words"
    assert "Watch out." in seen["warnings"]
    assert np.abs(words.weights - sound.weights).max() > 1e-4


def test_given_phones_count_also_against_the_phone_classifier(predictor, head, monkeypatch):
    phones = (Phone("M", 0.2, 0.6), Phone("AA", 0.6, 1.0))
    monkeypatch.setattr(content_encoders, "_AGREEMENT_GAIN", 0.0)  # recognised phones count nothing
    monkeypatch.setattr(moonshine_phones, "can_recognise", lambda: False)
    made = {}
    for source in ("recognised", "given"):
        transcript = Transcript(phones, (), (), "words", source)
        monkeypatch.setattr(
            predictor_module.recognition, "recognise", lambda *_, made=transcript, **__: made
        )
        made[source] = predict(predictor, head, voice(1.0), listen="words")[0].layers.speech
    sound = predict(predictor, head, voice(1.0))[0].layers.speech
    np.testing.assert_allclose(made["recognised"], sound, atol=1e-6)
    assert np.abs(made["given"] - sound).max() > 1e-4


def test_variants_of_phones_move_the_lips_and_english_stays_as_it_was(predictor, head, monkeypatch):
    kinds = [("AH", ""), ("UW", ""), ("AH", "")], [("AH", ""), ("UW", "ɯ"), ("AH", "")]
    asked, made = [], []
    add = predictor_module.add_variants

    def spy(weights, *rest, **options):
        asked.append(add(weights, *rest, **options) is weights)
        return add(weights, *rest, **options)

    monkeypatch.setattr(predictor_module, "add_variants", spy)
    for variants in kinds:
        phones = tuple(
            Phone(s, 0.2 + 0.25 * k, 0.45 + 0.25 * k, v) for k, (s, v) in enumerate(variants)
        )
        transcript = Transcript(phones, (), (), "text", "given")
        monkeypatch.setattr(
            predictor_module.foreign_text, "align_text", lambda *_, made=transcript, **__: made
        )
        found, _ = predict(predictor, head, voice(1.2), listen="auto", text="ı", language="tr")
        made.append(found.layers.speech)
    assert asked == [True, False]
    funnel = ARKIT_NAMES.index("mouthFunnel")
    assert (made[1] - made[0])[:, funnel].min() < -0.05 or made[0][:, funnel].max() < 0.05
    assert np.abs(made[1] - made[0]).max() > 0.05


def test_without_phone_recognition_no_posteriors_are_computed(predictor, head, monkeypatch):
    for module in (predictor_module, moonshine_phones):
        monkeypatch.setattr(module, "can_recognise", lambda: False)
    encoder = predictor.engine.model.speech_content
    monkeypatch.setattr(encoder, "phone_log_posteriors", lambda *_: pytest.fail("for nothing"))
    predict(predictor, head, voice(1.0))


def test_without_a_recogniser_auto_goes_by_the_sound_and_says_so(predictor, head, monkeypatch):
    def recognise(*_, **__):
        raise UserError("PocketSphinx is missing.")

    monkeypatch.setattr(predictor_module.recognition, "recognise", recognise)
    motion, seen = predict(predictor, head, voice(1.0), listen="auto")
    assert motion.report["listen"] == "sound"
    assert "PocketSphinx is missing." in seen["warnings"]
    with pytest.raises(UserError, match="PocketSphinx"):
        predict(predictor, head, voice(1.0), listen="words")


def test_both_decoders_work_and_others_are_refused(predictor, head):
    for decoder in ("parallel", "autoregressive"):
        motion, _ = predict(predictor, head, voice(1.0), decoder=decoder)
        assert motion.report["decoder"] == decoder
    with pytest.raises(UserError, match="decodes"):
        predict(predictor, head, voice(1.0), decoder="crystal ball")


def test_strength_scales_the_style(predictor, head, exemplar):
    warnings = []
    style = predictor.exemplar_style(read_exemplar(exemplar), warnings.append)
    neutral, _ = predict(predictor, head, voice(1.0))
    found = [
        predict(predictor, head, voice(1.0), style=style, style_strength=strength)[0].weights
        for strength in (0.0, 1.0, 1.5)
    ]
    np.testing.assert_allclose(found[0], neutral.weights, atol=1e-5)
    assert np.abs(found[1] - found[0]).max() > 1e-4
    assert np.abs(found[2] - found[1]).max() > 1e-4
    assert warnings == []


def test_saved_styles_belong_to_one_model(predictor, tmp_path):
    code = np.ones(predictor.engine.model.config.style_dim, np.float32)
    write_style(tmp_path / "s.json", StyleCode(code, predictor.fingerprint, "me"))
    read = read_style(tmp_path / "s.json")
    np.testing.assert_allclose(predictor.checked_style(read).code, code)
    for bad in ((code, "other"), (code[:-1], predictor.fingerprint)):
        with pytest.raises(UserError, match="another model"):
            predictor.checked_style(StyleCode(*bad, "me"))


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null",
     '{"format": "ptalker-style", "format_version": 3, "code": [1], "model": ""}',
     '{"format": "ptalker-style", "format_version": 1, "code": [NaN], "model": ""}',
     '{"format": "ptalker-style", "format_version": 1, "code": [[1]], "model": ""}',
     '{"format": "ptalker-style", "format_version": 1, "code": ["a"], "model": ""}',
     "[" * 100_000],
)  # fmt: skip
def test_damaged_style_files_are_refused(text, tmp_path):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(UserError):
        read_style(tmp_path / "s.json")


def test_exemplars_that_are_none_are_refused(predictor, exemplar, tmp_path):
    with np.load(exemplar) as data:
        arrays = dict(data)

    def change(**changes):
        path = tmp_path / "changed.npz"
        np.savez(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
        return path

    still = np.repeat(arrays["template"][None], len(arrays["vertices"]), axis=0)
    broken = arrays["vertices"].copy()
    broken[3, 3] = np.nan
    for changes, words in [
        ({"fps": 0.0}, "frames a second"), ({"fps": None}, "lacks fps"),
        ({"vertices": arrays["vertices"][:3]}, "at least 0.5 s"),
        ({"vertices": arrays["vertices"][:, :99]}, "expected"), ({"vertices": broken}, "numbers"),
        ({"face_sizes": arrays["face_sizes"][:-1]}, "add up"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=words):
            read_exemplar(change(**changes))
    with pytest.raises(UserError, match="moves"):
        predictor.exemplar_style(read_exemplar(change(vertices=still)), print)


def test_a_nodding_exemplar_has_the_style_of_a_still_one(predictor, exemplar, tmp_path):
    with np.load(exemplar) as data:
        arrays = dict(data)
    angles = 0.2 * np.sin(np.arange(len(arrays["vertices"])) / 9)
    turns = np.stack([np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
                      for a in angles])  # fmt: skip
    arrays["vertices"] = (arrays["vertices"] @ turns + angles[:, None, None]).astype(np.float32)
    np.savez(tmp_path / "nod.npz", **arrays)
    still, nodding = (
        predictor.exemplar_style(read_exemplar(path), print).code
        for path in (exemplar, tmp_path / "nod.npz")
    )
    neutral = predictor.engine.model.neutral_style().numpy()
    assert np.abs(nodding - still).max() < 0.1 * np.abs(still - neutral).max()


def test_styles_have_names(predictor, tiny_checkpoint):
    assert predictor.style_names[0] == "neutral"
    assert predictor.named_style("neutral") is None
    with pytest.raises(UserError, match="no style"):
        predictor.named_style("nobody")


def test_devices_that_are_not_there_are_refused():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda"):
            pick_device("cuda")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("x"),
     RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")],
)  # fmt: skip
def test_short_memory_is_a_sentence(error):
    with pytest.raises(UserError, match="not enough memory"), memory_errors():
        raise error
    with pytest.raises(RuntimeError, match="bug"), memory_errors():
        raise RuntimeError("bug")


def test_shapes_are_solved_once_per_head(predictor, head, monkeypatch):
    predict(predictor, head, voice(0.5))

    def solve(_):
        raise AssertionError("solved again")

    monkeypatch.setattr(shapes_for_head, "solve_shapes", solve)
    predict(predictor, head, voice(0.5))


def test_a_long_line_blinks_with_both_lids_and_opens_them_again(predictor, head):
    found, _ = predict(predictor, head, voice(20.0), fps=Fraction(24))
    lids = [found.names.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    shut = found.weights[:, lids] >= 0.75
    assert np.array_equal(shut[:, 0], shut[:, 1])
    starts = np.flatnonzero(shut[1:, 0] & ~shut[:-1, 0])
    assert 2 <= len(starts) <= 14
    assert shut.mean() < 0.1


@pytest.fixture(scope="module")
def learned(tmp_path_factory, head):
    """A model of learned shapes for the demo head's topology, untrained."""
    tiny = PRESETS["tiny"]
    ptalker_config = dataclasses.replace(
        tiny, shape_kind="learned", topology="demo", shape_names=(), num_nodes=60,
        num_vertices=len(head.vertices), speakers=("anna", "ben"),
    )  # fmt: skip
    torch.manual_seed(0)
    ptalker = PTalker(ptalker_config)
    vertices = torch.from_numpy(head.vertices)
    ptalker.set_graph(
        coarse_mesh_graph(
            vertices, torch.ones(len(vertices)), num_nodes=60, num_neighbours=tiny.num_neighbours
        )
    )
    with torch.no_grad():
        ptalker.output_layer.weight.normal_(0, 3e-4)  # metres
    folder = tmp_path_factory.mktemp("learned")
    checkpoint.save(folder, ptalker, card="For tests.")
    return open_predictor(folder, "torch", "cpu")


def test_learned_shapes_follow_a_head_that_is_turned_and_scaled(learned, head):
    straight, _ = predict(learned, head, voice(1.0))
    turn = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # Y up to Z up
    moved = dataclasses.replace(head, vertices=1000 * head.vertices @ turn.T + [5.0, 6, 7])
    turned, _ = predict(learned, moved, voice(1.0))
    expected = (motions.compose(straight) - straight.template) @ turn.T * 1000
    found = motions.compose(turned) - turned.template
    unit_mm = face_frame(moved).unit_mm
    assert np.abs(expected).max() / unit_mm > 0.5
    assert np.abs(found - expected).max() / unit_mm < 0.05
    assert turned.names[0] == "PTalker 01"
    assert turned.report["largest_vertex_error_mm"] <= 0.01
    assert len(turned.names) <= learned.engine.config.feature_dim + 1


def test_learned_shapes_have_styles_of_their_subjects(learned, head):
    assert learned.style_names == ("neutral", "anna", "ben")
    anna, _ = predict(learned, head, voice(1.0), style=learned.named_style("anna"))
    neutral, _ = predict(learned, head, voice(1.0))
    assert np.abs(motions.compose(anna) - motions.compose(neutral)).max() > 1e-5


def test_learned_shapes_take_an_exemplar(learned, exemplar):
    assert np.isfinite(learned.exemplar_style(read_exemplar(exemplar), print).code).all()


def test_learned_shapes_refuse_another_head(learned, head):
    fewer = dataclasses.replace(head, vertices=head.vertices[:-1])
    with pytest.raises(UserError, match="topology demo"):
        predict(learned, fewer, voice(0.5))


def test_a_failure_does_not_wait_for_the_recogniser(predictor, head, monkeypatch):
    def recognise(*_, is_cancelled, **__):
        while not is_cancelled():
            time.sleep(0.01)
        raise Cancelled

    def fail(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor_module.recognition, "recognise", recognise)
    monkeypatch.setattr(predictor, "_speech_input", fail)
    with pytest.raises(KeyboardInterrupt):
        predict(predictor, head, voice(0.5), listen="words")
