# SPDX-License-Identifier: GPL-3.0-or-later
import itertools
import time
from dataclasses import replace

import pytest
import torch

from backend import bundled
from backend.errors import Cancelled
from backend.model import checkpoint
from backend.model.generate import generate, generate_in_one_pass, smooth
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from tests.backend.model.samples import build, random_batch, small

TINY = PRESETS["tiny"]


def decode_uncached(model: PTalker, speech: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Autoregression as it is published: everything anew for each frame; then smoothed."""
    T = speech.shape[1]
    content = model.speech_content(speech, torch.tensor([T]), num_frames=T)
    weights = torch.zeros(1, 0, len(model.node_shapes()))
    for frame in range(T):
        nodes = torch.einsum("btk,kni->btni", weights, model.node_shapes())
        nodes = torch.cat((torch.zeros_like(model.node_shapes()[None, :1]), nodes), dim=1)
        queries = model.decoder.fed_back(style, model.graph_encoder(nodes))
        padding = torch.zeros(1, T - frame - 1, queries.shape[2])
        queries = torch.cat((queries, padding), dim=1)
        hidden = model.decoder(queries, content.features, content.mask, style, causal=True)
        weights = torch.cat((weights, model.weights(hidden[:, frame : frame + 1])), dim=1)
    return smooth(model, weights)


@pytest.mark.parametrize("alignment", ["attention", "linear"])
def test_cached_autoregression_equals_uncached(alignment):
    model = build(replace(TINY, alignment=alignment), lively=True).eval()
    speech = torch.randn(1, 24, 160)
    style = model.encode_motion_style(torch.rand(1, 40, 52))
    with torch.no_grad():
        slow = decode_uncached(model, speech, style)
    fast = generate(model, speech, style, num_frames=24, mode="autoregressive", chunk_frames=7)
    assert slow.std(1).mean() > 0.01
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)


def test_autoregression_of_learned_shapes_equals_uncached():
    config = replace(small(PRESETS["vocaset"]), speech=TINY.speech, motion_fps=50.0)
    model = build(replace(config, modes=("parallel", "autoregressive")), lively=True).eval()
    speech, style = torch.randn(1, 16, 160), model.neutral_style()
    with torch.no_grad():
        slow = decode_uncached(model, speech, style)
    fast = generate(model, speech, style, num_frames=16, mode="autoregressive")
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["parallel", "autoregressive"])
@pytest.mark.parametrize("motion_fps", [50.0, 30.0])
def test_chunks_cannot_be_told_from_one_piece(mode, motion_fps):
    model = build(replace(TINY, motion_fps=motion_fps), lively=True).eval()
    S = 160
    T = int(S * motion_fps / 50)
    speech, phones = torch.randn(2, S, 160), torch.randint(0, 41, (2, S))
    style = model.encode_motion_style(torch.rand(2, 40, 52))
    settings = {"num_frames": T, "phones": phones, "lengths": torch.tensor([S, S - 60])}
    whole = generate(model, speech, style, mode=mode, **settings)
    cut = generate(model, speech, style, mode=mode, chunk_frames=37, **settings)
    length = int((S - 60) * motion_fps / 50)
    assert whole.shape == (2, T, 52)
    torch.testing.assert_close(cut[0], whole[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(cut[1, :length], whole[1, :length], atol=1e-4, rtol=0)


def test_generation_equals_the_training_pass():
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (25,))
    given = batch.phones.clamp(min=1) + model.speech_content.num_phones  # which are not weighed
    batch = replace(batch, phones=given)
    outputs = model(batch)
    style = model.fusion(outputs.styles, batch_size=1)
    made = generate(model, batch.speech, style, num_frames=25, phones=batch.phones)
    expected = smooth(model, outputs.motion.clamp(0, TINY.max_weight))
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_solved_weights_reach_exact_closure_and_stay_in_range():
    model = build(TINY, lively=True).eval()
    with torch.no_grad():
        model.output_layer.weight.mul_(0.1)
        model.output_layer.bias[::2] = -3.0
        model.output_layer.bias[1::2] = 9.0
    weights = generate(model, torch.randn(1, 30, 160), model.neutral_style(), num_frames=30)
    assert weights[:, :, ::2].abs().max() == 0.0
    assert weights.max() == pytest.approx(TINY.max_weight)


def test_waveforms_are_heard_in_chunks_on_the_motions_clock():
    model = build(small(PRESETS["vocaset"]), lively=True).eval()
    speech, style = torch.randn(2, 32000), model.neutral_style()
    lengths = torch.tensor([32000, 20000])
    whole = generate(model, speech, style, num_frames=60, lengths=lengths)
    cut = generate(model, speech, style, num_frames=60, lengths=lengths, chunk_frames=13)
    alone = generate(model, speech[1:, :20000], style, num_frames=40)
    torch.testing.assert_close(cut, whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole[1, :25], alone[0, :25], atol=1e-4, rtol=0)


class _OnePass(torch.nn.Module):
    def __init__(self, model: PTalker) -> None:
        super().__init__()
        self.model = model

    def forward(self, speech, phones, style):
        return generate_in_one_pass(self.model, speech, style, phones, num_frames=speech.shape[1])


def test_one_pass_can_be_traced_for_any_length_and_equals_generate():
    model = build(TINY, lively=True).eval()
    style = model.neutral_style()

    def inputs(num_frames: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(1, num_frames, 160), torch.randint(41, 81, (1, num_frames)), style

    length = {1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        _OnePass(model), inputs(100), dynamic_shapes=(length, length, None), strict=False
    )
    longer = inputs(230)
    expected = generate(model, longer[0], style, num_frames=230, phones=longer[1])
    torch.testing.assert_close(program.module()(*longer), expected, atol=1e-5, rtol=0)


def test_unknown_mode_is_refused():
    model = build(replace(TINY, modes=("parallel",))).eval()
    with pytest.raises(ValueError, match="decodes parallel"):
        generate(
            model,
            torch.randn(1, 5, 160),
            model.neutral_style(),
            num_frames=5,
            mode="autoregressive",
        )


def test_progress_is_reported_after_every_chunk_and_may_raise():
    model = build(TINY).eval()
    reported: list[tuple[int, int]] = []
    speech, style = torch.randn(1, 50, 160), model.neutral_style()
    settings = {"num_frames": 50, "chunk_frames": 20}
    generate(model, speech, style, on_progress=lambda *x: reported.append(x), **settings)
    assert reported == [(20, 50), (40, 50), (50, 50)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, speech, style, on_progress=stop, **settings)


@pytest.mark.parametrize("mode", ["parallel", "autoregressive"])
def test_generation_stops_when_asked(mode):
    model = build(TINY).eval()
    speech, style = torch.randn(1, 400, 160), model.neutral_style()
    asked = []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) > 5

    with pytest.raises(Cancelled):
        generate(
            model, speech, style, num_frames=400, chunk_frames=80, mode=mode,
            should_stop=should_stop,
        )  # fmt: skip
    assert len(asked) == 6


def test_a_cancel_is_noticed_within_a_second_of_a_long_sound():
    model = checkpoint.load(bundled.BASE_CHECKPOINT)
    questions: list[float] = []

    def should_stop() -> bool:
        questions.append(time.thread_time())
        return len(questions) > 7  # two and a half chunks

    with pytest.raises(Cancelled):
        generate(
            model, torch.randn(1, 20_000, 160), model.neutral_style(), num_frames=20_000,
            should_stop=should_stop,
        )  # fmt: skip
    gaps = [after - before for before, after in itertools.pairwise(questions)]
    assert max(gaps) < 1.5  # half of it on an idle machine


def test_smoothing_takes_jitter_and_leaves_what_lasts():
    model = build(TINY)
    weights = torch.zeros(2, 9, 52)
    weights[0, 4] = 1.0
    weights[1] = 0.7
    smoothed = smooth(model, weights)
    side = 0.1353352832 / (1 + 2 * 0.1353352832)  # exp(-2): a Gaussian of half a frame
    expected = torch.tensor([0, 0, 0, side, 1 - 2 * side, side, 0, 0, 0])
    torch.testing.assert_close(smoothed[0, :, 0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(smoothed[1], weights[1])
    assert smooth(model, weights[:, :1]).shape == (2, 1, 52)
    learned = build(small(PRESETS["vocaset"]))
    assert smooth(learned, weights) is weights


def test_smoothing_of_a_padded_sequence_is_that_of_the_sequence_alone():
    model = build(TINY)
    weights = torch.rand(3, 9, 52)
    smoothed = smooth(model, weights, torch.tensor([9, 5, 1]))
    for row, length in enumerate((9, 5, 1)):
        alone = smooth(model, weights[row : row + 1, :length])
        assert torch.equal(smoothed[row : row + 1, :length], alone)
