# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace

import pytest
import torch
from torch_geometric.nn import GATv2Conv

from backend.model import losses
from backend.model.attention import frame_mask, windowed_attention
from backend.model.batch import TrainingBatch
from backend.model.loss_geometry import FaceGeometry
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from backend.model.style_encoders import lead_lag, node_statistics
from tests.backend.model.samples import TRAIN_CONFIG, build, random_batch, random_graph, small

TINY = PRESETS["tiny"]


def geometry(model: PTalker) -> FaceGeometry:
    config, graph = model.config, model.graph_encoder
    pairs = torch.tensor([[0, 1], [2, 3]])
    if config.shape_kind == "solved":
        return FaceGeometry(graph.positions, graph.basis, torch.ones(config.num_nodes), pairs)
    points = torch.zeros(config.num_vertices, 3)
    return FaceGeometry(points, None, torch.ones(config.num_vertices), pairs)


def one_sample(batch: TrainingBatch, row: int) -> TrainingBatch:
    """A sequence alone and without padding."""
    T = int(batch.motion_lengths[row])
    S = int(batch.speech_lengths[row])
    pick = slice(row, row + 1)
    is_waveform = batch.speech.ndim == 2
    tokens = batch.phones.shape[1] if is_waveform else S
    return TrainingBatch(
        speech=batch.speech[pick, :S],
        speech_lengths=batch.speech_lengths[pick],
        motion=batch.motion[pick, :T],
        motion_lengths=batch.motion_lengths[pick],
        speaker=batch.speaker[pick],
        phones=batch.phones[pick, :tokens],
        style_motion=batch.style_motion[pick],
        style_motion_lengths=batch.style_motion_lengths[pick],
        style_speech=batch.style_speech[pick],
        style_speech_lengths=batch.style_speech_lengths[pick],
        style_strength=batch.style_strength[pick],
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_builds_and_takes_a_training_step(name):
    model = build(small(PRESETS[name])).train()
    batch = random_batch(model.config, (20, 13))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    outputs = model(batch, with_cycle=True)
    terms = losses.total(outputs, batch, geometry(model), TRAIN_CONFIG)
    sum(terms.values()).backward()
    optimizer.step()
    assert all(term.isfinite() for term in terms.values())
    moved = sum(
        not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)
    )
    assert moved > 0.5 * len(before)


def test_training_step_in_mixed_precision_agrees_with_whole_precision():
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (20, 13))
    whole = losses.total(model(batch, with_cycle=True), batch, geometry(model), TRAIN_CONFIG)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(batch, with_cycle=True, autoregressive=True, own_feedback_share=0.5)
        mixed = losses.total(outputs, batch, geometry(model), TRAIN_CONFIG)
        sum(mixed.values()).backward()
    assert all(term.dtype == torch.float32 for term in mixed.values())
    for name in ("phones", "orthogonality", "style_contrast", "adversary"):
        torch.testing.assert_close(mixed[name], whole[name], rtol=0.1, atol=0.02)


def test_every_block_of_the_default_model_is_trained():
    model = build(TINY, lively=True).train()
    batch = random_batch(TINY, (20, 13, 16))
    in_parallel = losses.total(model(batch, with_cycle=True), batch, geometry(model), TRAIN_CONFIG)
    fed_back = losses.total(model(batch, autoregressive=True), batch, geometry(model), TRAIN_CONFIG)
    sum((*in_parallel.values(), *fed_back.values())).backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().any()
    ]
    elsewhere = ("lip_reader.", "motion_style.components.")  # which has a stage of its own
    assert [name for name in idle if not name.startswith(elsewhere)] == []


@pytest.mark.parametrize("name", ["tiny", "vocaset"])
@pytest.mark.parametrize("autoregressive", [False, True])
def test_sample_does_not_depend_on_batch_mates_or_padding(name, autoregressive):
    model = build(small(PRESETS[name]), lively=True).eval()
    batch = random_batch(model.config, (20, 31, 15))
    together = model(batch, autoregressive=autoregressive)
    for row, length in enumerate(batch.motion_lengths.tolist()):
        alone = model(one_sample(batch, row), autoregressive=autoregressive)
        for field in ("motion", "motion_from_motion", "audio_content", "motion_content"):
            torch.testing.assert_close(
                getattr(together, field)[row, :length],
                getattr(alone, field)[0],
                atol=5e-5,
                rtol=1e-4,
            )
        torch.testing.assert_close(together.own_style.code[row], alone.own_style.code[0])
        for source, style in together.styles.items():
            torch.testing.assert_close(
                style.code[row], alone.styles[source].code[0], atol=1e-5, rtol=1e-4
            )


def test_causal_decoder_has_no_gradient_from_later_frames():
    model = build(TINY, lively=True).eval()
    T, frame = 20, 11
    features = torch.randn(1, T, model.graph_encoder.width, requires_grad=True)
    content, mask = torch.randn(1, T, TINY.feature_dim), torch.ones(1, T, dtype=torch.bool)
    style = model.neutral_style()
    queries = model.decoder.fed_back(style, features)
    model.decoder(queries, content, mask, style, causal=True)[:, frame].sum().backward()
    assert not features.grad[:, frame + 1 :].any()
    assert features.grad[:, : frame + 1].abs().sum(-1).gt(0).all()


def test_parallel_decoder_does_look_ahead():
    model = build(TINY, lively=True).eval()
    content = torch.randn(1, 20, TINY.feature_dim, requires_grad=True)
    style, mask = model.neutral_style(), torch.ones(1, 20, dtype=torch.bool)
    queries = model.decoder.queries(style, 20)
    model.decoder(queries, content, mask, style, causal=False)[:, 8].sum().backward()
    assert content.grad[:, 9:12].abs().sum() > 0


def decode_uncached(model: PTalker, speech: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Autoregression as it is published: everything anew for each frame."""
    T = speech.shape[1]
    heard = model.speech_content(speech, torch.tensor([T]), num_frames=T)
    weights = torch.zeros(1, 0, model.config.num_weights)
    for frame in range(T):
        nodes = torch.einsum("btk,kni->btni", weights, model.node_shapes())
        nodes = torch.cat((torch.zeros_like(model.node_shapes()[None, :1]), nodes), dim=1)
        queries = model.decoder.fed_back(style, model.graph_encoder(nodes))
        padding = torch.zeros(1, T - frame - 1, queries.shape[2])
        queries = torch.cat((queries, padding), dim=1)
        hidden = model.decoder(queries, heard.features, heard.mask, style, causal=True)
        weights = torch.cat((weights, model.weights(hidden[:, frame : frame + 1])), dim=1)
    return weights


@pytest.mark.parametrize("alignment", ["attention", "linear"])
def test_cached_autoregression_equals_uncached(alignment):
    model = build(replace(TINY, alignment=alignment), lively=True).eval()
    speech = torch.randn(1, 24, 160)
    style = model.encode_motion_style(torch.rand(1, 40, 52))
    with torch.no_grad():
        slow = decode_uncached(model, speech, style)
    fast = model.generate(speech, style, num_frames=24, mode="autoregressive", chunk_frames=7)
    assert slow.std(1).mean() > 0.01
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)


def test_autoregression_of_learned_shapes_equals_uncached():
    config = replace(small(PRESETS["vocaset"]), speech=TINY.speech, motion_fps=50.0)
    model = build(replace(config, modes=("parallel", "autoregressive")), lively=True).eval()
    speech, style = torch.randn(1, 16, 160), model.neutral_style()
    with torch.no_grad():
        slow = decode_uncached(model, speech, style)
    fast = model.generate(speech, style, num_frames=16, mode="autoregressive")
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
    whole = model.generate(speech, style, mode=mode, **settings)
    cut = model.generate(speech, style, mode=mode, chunk_frames=37, **settings)
    length = int((S - 60) * motion_fps / 50)
    assert whole.shape == (2, T, 52)
    torch.testing.assert_close(cut[0], whole[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(cut[1, :length], whole[1, :length], atol=1e-4, rtol=0)


@pytest.mark.parametrize("modes", [("parallel", "autoregressive"), ("autoregressive",)])
def test_own_motion_is_fed_back_where_that_is_asked_for(modes):
    model = build(replace(TINY, modes=modes), lively=True).eval()
    batch = random_batch(TINY, (20,))
    other = replace(batch, motion=batch.motion.flip(1))

    def decode(batch: TrainingBatch, share: float) -> torch.Tensor:
        return model(batch, autoregressive=True, own_feedback_share=share).motion

    assert not torch.allclose(decode(batch, 0.0), decode(other, 0.0), atol=1e-3)
    if "parallel" in modes:  # the first pass does not need the truth, so nothing does
        torch.testing.assert_close(decode(batch, 1.0), decode(other, 1.0))
        own = replace(batch, motion=model(batch).motion.clamp(0.0, TINY.max_weight))
        torch.testing.assert_close(decode(batch, 1.0), decode(own, 0.0), atol=1e-5, rtol=0)
    else:
        assert not torch.allclose(decode(batch, 1.0), decode(batch, 0.0), atol=1e-3)


def test_generation_equals_the_training_pass():
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (25,))
    certain = batch.phones.clamp(min=1) + model.speech_content.num_phones  # not weighed any more
    batch = replace(batch, phones=certain)
    outputs = model(batch)
    style = model.fusion(outputs.styles, batch_size=1)
    made = model.generate(batch.speech, style, num_frames=25, phones=batch.phones)
    torch.testing.assert_close(made, outputs.motion.clamp(0, TINY.max_weight), atol=1e-5, rtol=0)


def test_weights_times_shapes_are_the_offsets_of_learned_shapes():
    model = build(small(PRESETS["vocaset"]), lively=True).eval()
    hidden = torch.randn(1, 5, model.config.feature_dim)
    composed = torch.einsum("btk,kvi->btvi", model.weights(hidden), model.shapes())
    torch.testing.assert_close(composed, model.motion(hidden))


def test_solved_weights_reach_exact_closure_and_stay_in_range():
    model = build(TINY, lively=True).eval()
    with torch.no_grad():
        model.head.weight.mul_(0.1)
        model.head.bias[::2] = -3.0
        model.head.bias[1::2] = 9.0
    weights = model.generate(torch.randn(1, 30, 160), model.neutral_style(), num_frames=30)
    assert weights[:, :, ::2].abs().max() == 0.0
    assert weights.max() == TINY.max_weight


def test_style_strength_goes_from_neutral_to_the_style():
    model = build(TINY, lively=True).eval()
    style = model.encode_motion_style(torch.rand(1, 40, 52))
    neutral = model.neutral_style()
    torch.testing.assert_close(model.scaled_style(style, 0.0), neutral)
    torch.testing.assert_close(model.scaled_style(style, 1.0), style)
    torch.testing.assert_close(model.scaled_style(style, 0.5), (style + neutral) / 2)
    assert not torch.allclose(style, neutral)


@pytest.mark.parametrize("kept", [(), ("identity",), ("speech",), ("motion",)])
def test_any_source_of_style_alone_suffices(kept):
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (10, 10))
    styles = {source: style for source, style in model(batch).styles.items() if source in kept}
    fused = model.fusion(styles, batch_size=2)
    assert fused.isfinite().all()
    assert torch.allclose(fused, model.neutral_style(2)) == (not kept)


def test_a_fitted_reader_tells_known_dimensions_in_the_first_of_the_code():
    model = build(PRESETS["tiny"])
    style = model.motion_style
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(800, 2, generator=generator)
    # One cause moves every node's mean; the other moves when half of them follow the others.
    beats = torch.randn(800, 64, generator=generator)
    early = (known[:, 1] > 0).unsqueeze(1)
    half = torch.where(early, beats.roll(-2, 1), beats.roll(2, 1))
    num_nodes = model.config.num_nodes
    nodes = beats[:, :, None, None].repeat(1, 1, num_nodes, 3)
    nodes[:, :, num_nodes // 2 :] = half[:, :, None, None]
    shape = torch.randn(num_nodes, 3, generator=generator)
    nodes = nodes * shape + known[:, 0, None, None, None]
    nodes += 0.1 * torch.randn(nodes.shape, generator=generator)
    mask = torch.ones(800, 64, dtype=torch.bool)
    told = torch.stack((known[:, 0], torch.sign(known[:, 1])), dim=1)
    parts = zip(nodes.split(200), mask.split(200), told.split(200), strict=True)
    assert style.fit(parts) < 0.02

    seen = style.decorrelation(node_statistics(nodes, mask))
    with torch.no_grad():
        part = lead_lag(style.components(nodes.flatten(2)), mask, style.lags)
        read = style.linear(torch.cat((seen.clamp(-4, 4), part), dim=1))[:, :2]
        blind = style.linear(torch.cat((seen.clamp(-4, 4), part.mean(0).expand_as(part)), dim=1))
    assert float((read - told).square().mean()) < 0.02
    assert float((blind[:, 1] - told[:, 1]).square().mean()) > 0.5  # no mean shows what leads
    assert not style.decorrelation.weight.requires_grad
    assert not style.components.weight.requires_grad
    torch.testing.assert_close(seen.mean(0), torch.zeros(seen.shape[1]), atol=1e-2, rtol=0.0)


def test_what_leads_is_the_odd_part_of_the_correlation_at_a_lag():
    pulse = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    both = torch.stack((pulse, pulse.roll(2)), dim=1)
    x = torch.stack((both, both.flip(1), torch.full_like(both, 9.0)))
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[2] = False
    told = lead_lag(x, mask, (2, 10))
    assert told.shape == (3, 2)
    mean, spread = 1 / 6, (5 / 36) ** 0.5
    low, high = -mean / (spread + 0.1), (1 - mean) / (spread + 0.1)
    forward = (high * high + 3 * low * low) / 6  # frames 0 to 3 of one, 2 to 5 of the other
    backward = (high * low + 3 * low * low) / 6
    torch.testing.assert_close(told[0], torch.tensor([forward - backward, 0.0]))
    torch.testing.assert_close(told[1], -told[0])
    assert (told[2] == 0).all()  # padding only, and a lag longer than the motion


def test_the_nodes_statistics_leave_padding_out():
    nodes = torch.zeros(2, 4, 1, 3)
    nodes[:, :, 0, 0] = torch.tensor([1.0, 3.0, 1.0, 99.0])
    mask = torch.tensor([[True, True, True, False], [False] * 4])
    told = node_statistics(nodes, mask)[0].reshape(5, 3)[:, 0]
    mean, spread, speed = 5 / 3, (8 / 9) ** 0.5, 10 * (8 / 3) ** 0.5
    torch.testing.assert_close(told, torch.tensor([mean, spread, speed, 3.0, 1.0]))
    assert (node_statistics(nodes, mask)[1] == 0).all()


def test_the_strength_of_a_batch_scales_each_sequences_step_from_neutral():
    model = build(PRESETS["tiny"], lively=True).eval()
    batch = random_batch(model.config, (12, 12))
    styles = model.styles_of(batch)
    neutral = model.neutral_style(2)
    whole = model.fusion(styles, batch_size=2) - neutral
    scaled = model.fusion(styles, batch_size=2, strength=torch.tensor([0.0, 1.5])) - neutral
    torch.testing.assert_close(scaled, whole * torch.tensor([[0.0], [1.5]]))


def test_absent_sources_are_as_if_not_given():
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (10, 10))
    absent = replace(
        batch,
        speaker=torch.tensor([-1, -1]),
        style_motion_lengths=torch.tensor([0, 30]),
        style_speech_lengths=torch.tensor([0, 0]),
    )
    styles = model(absent).styles
    fused = model.fusion(styles, batch_size=2)
    torch.testing.assert_close(fused[0], model.neutral_style()[0])
    torch.testing.assert_close(
        fused[1], model.fusion({"motion": styles["motion"]}, batch_size=2)[1]
    )


def test_dropping_styles_in_training_leaves_one():
    model = build(replace(TINY, style_dropout=0.99), lively=True).train()
    present = torch.tensor([[True, True, True], [False, True, False], [False, False, False]])
    for _ in range(30):
        kept = model.fusion._drop(present)
        assert kept.any(1).tolist() == [True, True, False]
        assert not (kept & ~present).any()


def test_told_phones_reach_the_decoder_past_an_ear_that_ignores_them():
    model = build(replace(TINY, span_width=0), lively=True).eval()
    batch = random_batch(TINY, (20,))
    with torch.no_grad():
        model.speech_content.phone_embedding.weight.zero_()
    ear = model.speech_content
    phones = torch.full((1, 20), 5)
    plain, told = (
        ear(batch.speech, batch.speech_lengths, phones=given) for given in (None, phones)
    )
    torch.testing.assert_close(told.hidden, plain.hidden)
    spoken = ear.spoken_embedding.weight[5]
    torch.testing.assert_close(told.features, plain.features + spoken)
    certain = ear(batch.speech, batch.speech_lengths, phones=phones + ear.num_phones)
    torch.testing.assert_close(certain.features, told.features)


def test_an_ear_that_is_left_as_it_is_still_trains_what_reads_it():
    model = build(TINY)
    batch = random_batch(TINY, (20,))
    heard = model.speech_content(batch.speech, batch.speech_lengths, trains_encoder=False)
    heard.features.square().sum().backward()
    assert model.speech_content.content.weight.grad is not None
    assert all(value.grad is None for value in model.speech_content.encoder.parameters())
    assert not heard.phone_logits.requires_grad


def test_a_style_may_look_for_content_elsewhere_in_time():
    model = build(TINY, lively=True).eval()
    layer = model.decoder.layers[0]
    styles = torch.stack((torch.zeros(TINY.style_dim), torch.ones(TINY.style_dim)))
    with torch.no_grad():
        layer.distance_scores.weight.zero_()
    plain = layer.content_bias(styles).clone()
    torch.testing.assert_close(plain[0], plain[1])
    with torch.no_grad():  # in a style of ones, the first head looks 3 frames ahead
        scores = layer.distance_scores.weight.view(TINY.decoder_heads, -1, TINY.style_dim)
        scores[0, TINY.cross_window + 3] = 1.0
    moved = layer.content_bias(styles)
    torch.testing.assert_close(moved[0], plain[0])
    difference = moved[1] - plain[1]
    assert difference[0, TINY.cross_window + 3] == TINY.style_dim
    assert difference.count_nonzero() == 1


def test_phones_are_optional_and_matter():
    model = build(TINY, lively=True).eval()
    speech, lengths = torch.randn(1, 20, 160), torch.tensor([20])
    without = model.speech_content(speech, lengths).features
    unknown = model.speech_content(
        speech, lengths, phones=torch.zeros(1, 20, dtype=torch.int64)
    ).features
    told = model.speech_content(speech, lengths, phones=torch.full((1, 20), 7)).features
    torch.testing.assert_close(without, unknown)
    assert not torch.allclose(without, told)


def test_phones_are_trusted_by_where_they_come_from():
    model = build(PRESETS["tiny"], lively=True).eval()
    ear, batch = model.speech_content, random_batch(model.config, (20,))
    told = batch.phones.clamp(min=1)
    heard = [
        ear(batch.speech, batch.speech_lengths, phones=told + shift * ear.num_phones).features
        for shift in range(3)
    ]
    assert not torch.allclose(heard[0], heard[1])
    assert not torch.allclose(heard[1], heard[2])
    nothing = torch.zeros_like(told)
    with torch.no_grad():
        ear.phones.bias[5] = 50.0  # surely this one
        own = ear.self_conditioned_phones(batch.speech, batch.speech_lengths, nothing)
        certain = told + ear.num_phones
        kept = ear.self_conditioned_phones(batch.speech, batch.speech_lengths, certain)
        ear.phones.bias[0] = 99.0  # surely none
        none = ear.self_conditioned_phones(batch.speech, batch.speech_lengths, nothing)
    assert (own == 5 + 2 * ear.num_phones).all()
    assert torch.equal(kept, certain)
    assert (none == 0).all()


def model_that_doubts(num_frames):
    """An ear that always hears 8, nearly as well 7, and never 9; told first 7, then 9."""
    model = build(PRESETS["tiny"], lively=True).eval()
    ear = model.speech_content
    with torch.no_grad():
        ear.phones.weight.zero_()
        ear.phones.bias.zero_()
        ear.phones.bias[7], ear.phones.bias[8] = 5.0, 5.4
    told = torch.full((1, num_frames), 7)
    told[:, num_frames // 2 :] = 9
    return model, torch.randn(1, num_frames, 160), told


@torch.no_grad()
def test_recognised_phones_count_as_much_as_the_ear_agrees_with_them():
    model, speech, told = model_that_doubts(200)
    ear, lengths = model.speech_content, torch.tensor([200])
    found = ear.self_conditioned_phones(speech, lengths, told)
    own = 2 * ear.num_phones
    assert (ear.self_conditioned_phones(speech, lengths, None) == 8 + own).all()
    assert (found[:, :20] == 7 + own).all()  # a word of which the ear thinks well
    assert (found[:, -20:] == 8 + own).all()  # one of which it thinks ill


def test_recognised_phones_are_weighed_alike_in_chunks_and_in_one_piece():
    model, speech, told = model_that_doubts(400)
    style = model.neutral_style()
    whole = model.generate(speech, style, num_frames=400, phones=told)
    cut = model.generate(speech, style, num_frames=400, phones=told, chunk_frames=20)
    torch.testing.assert_close(cut, whole, atol=1e-4, rtol=0)


def test_what_the_ear_thinks_is_the_same_in_chunks_and_in_one_piece():
    model = build(PRESETS["tiny"], lively=True).eval()
    ear, speech = model.speech_content, random_batch(model.config, (300,)).speech
    whole = ear.phone_log_posteriors(speech)
    assert whole.shape == (1, 300, model.config.num_phone_ids)
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(1, 300))
    assert whole.std(dim=1).max() > 0.01
    torch.testing.assert_close(
        ear.phone_log_posteriors(speech, chunk_frames=7), whole, atol=1e-4, rtol=0
    )


def test_windowed_attention_equals_full_attention_with_a_band():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 50, 8) for _ in range(3))
    bias, left = torch.randn(3, 12), 4
    mask = frame_mask(torch.tensor([50, 31]), 50)
    apart = torch.arange(50) - torch.arange(50).unsqueeze(1) + left
    seen = (apart >= 0) & (apart < 12) & mask[:, None, None, :]
    scores = query @ key.transpose(-1, -2) / 8**0.5 + bias[:, apart.clamp(0, 11)]
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value
    found = windowed_attention(query, key, value, bias, mask, left=left)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1, :, :31], expected[1, :, :31])


def test_graph_attention_equals_torch_geometrics_own():
    model = build(TINY)
    layer, table = model.graph_encoder.layers[0], model.graph_encoder.table
    N = len(table)
    x = torch.randn(3, N, 6)
    targets = torch.arange(N).repeat_interleave(table.shape[1] - 1)
    edges = torch.stack((table[:, 1:].flatten(), targets))
    for frame, found in zip(x, layer(x, table), strict=True):
        expected = GATv2Conv.forward(layer, frame, edges)  # which adds the loops itself
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_graph_of_other_sizes_is_rejected():
    model = PTalker(TINY)
    with pytest.raises(ValueError, match=r"basis has shape .*expected"):
        model.set_graph(random_graph(replace(TINY, shape_names=("a", "b"))))


def test_heard_frame_does_not_lead_or_lag():
    """The convolution of the conformer is centred: what a frame hears is symmetric around it."""
    model = build(TINY, lively=True).eval()
    speech = torch.randn(1, 81, 160, requires_grad=True)
    heard = model.speech_content(speech, torch.tensor([81]))
    heard.features[0, 40].sum().backward()
    reached = speech.grad[0].abs().sum(-1).nonzero().flatten()
    assert reached.max() - 40 == 40 - reached.min() == model.speech_content.reach


def test_content_of_a_slower_motion_is_interpolated_in_time():
    model = build(replace(TINY, motion_fps=25.0))
    content = torch.arange(20.0).reshape(1, 20, 1)
    mask = frame_mask(torch.tensor([20]), 20)
    found, valid = model.speech_content.to_motion_clock(content, mask, 11)
    torch.testing.assert_close(found[0, :10, 0], torch.arange(0.0, 20.0, 2.0))
    assert valid[0].tolist() == [True] * 10 + [False]
    late = build(small(PRESETS["vocaset"])).speech_content.to_motion_clock(content, mask, 4)[0]
    expected = [0.0, 5 / 3 - 0.625, 10 / 3 - 0.625, 5 - 0.625]
    torch.testing.assert_close(late[0, :, 0], torch.tensor(expected))


def test_waveforms_are_heard_in_chunks_on_the_motions_clock():
    model = build(small(PRESETS["vocaset"]), lively=True).eval()
    speech, style = torch.randn(2, 32000), model.neutral_style()
    lengths = torch.tensor([32000, 20000])
    whole = model.generate(speech, style, num_frames=60, lengths=lengths)
    cut = model.generate(speech, style, num_frames=60, lengths=lengths, chunk_frames=13)
    alone = model.generate(speech[1:, :20000], style, num_frames=40)
    torch.testing.assert_close(cut, whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole[1, :25], alone[0, :25], atol=1e-4, rtol=0)


class _SoundPath(torch.nn.Module):
    """What engines without torch need: features, phones and a style to weights."""

    def __init__(self, model: PTalker) -> None:
        super().__init__()
        self.model = model

    def forward(self, speech, phones, style):
        lengths = torch.full((speech.shape[0],), speech.shape[1])
        heard = self.model.speech_content(
            speech, lengths, phones=phones, num_frames=speech.shape[1]
        )
        queries = self.model.decoder.queries(style, speech.shape[1])
        hidden = self.model.decoder(queries, heard.features, heard.mask, style, causal=False)
        return self.model.weights(hidden)


def test_sound_path_can_be_exported_for_any_length():
    model = build(TINY, lively=True).eval()
    style = model.neutral_style()

    def inputs(num_frames: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(1, num_frames, 160), torch.randint(41, 81, (1, num_frames)), style

    length = {1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        _SoundPath(model), inputs(100), dynamic_shapes=(length, length, None), strict=False
    )
    longer = inputs(230)
    expected = model.generate(longer[0], style, num_frames=230, phones=longer[1])
    torch.testing.assert_close(program.module()(*longer), expected, atol=1e-5, rtol=0)


def test_base_model_is_small_enough_to_bundle():
    count = sum(parameter.numel() for parameter in PTalker(PRESETS["base"]).parameters())
    assert 2 * count <= 19_000_000  # bytes in 16 bits; 20 MB with all that lies beside


def test_unknown_mode_is_refused():
    model = build(replace(TINY, modes=("parallel",))).eval()
    with pytest.raises(ValueError, match="decodes parallel"):
        model.generate(
            torch.randn(1, 5, 160), model.neutral_style(), num_frames=5, mode="autoregressive"
        )


def test_progress_is_told_and_may_end_the_work():
    model = build(TINY).eval()
    told: list[tuple[int, int]] = []
    speech, style = torch.randn(1, 50, 160), model.neutral_style()
    model.generate(
        speech, style, num_frames=50, chunk_frames=20, on_progress=lambda *x: told.append(x)
    )
    assert told == [(20, 50), (40, 50), (50, 50)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(speech, style, num_frames=50, chunk_frames=20, on_progress=stop)


def test_one_batch_can_be_overfitted():
    speech = replace(TINY.speech, dropout=0.0)
    model = build(replace(TINY, dropout=0.0, style_dropout=0.0, speech=speech)).train()
    batch = random_batch(TINY, (12, 9), style_frames=8)
    smooth = torch.nn.functional.avg_pool1d(batch.motion.transpose(1, 2), 5, 1, 2).transpose(1, 2)
    batch = replace(batch, motion=smooth)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(200):
        outputs = model(batch)
        both = (outputs.motion, outputs.motion_from_motion)
        errors = [losses.reconstruction(motion, batch.motion, outputs.mask) for motion in both]
        optimizer.zero_grad()
        sum(errors).backward()
        optimizer.step()
    spread = batch.motion.var()
    assert errors[0] < 0.1 * spread
    assert errors[1] < 0.1 * spread


def test_smoothing_takes_jitter_and_leaves_what_lasts():
    model = build(TINY)
    weights = torch.zeros(2, 9, TINY.num_weights)
    weights[0, 4] = 1.0
    weights[1] = 0.7
    told = model.smoothed(weights)
    side = 0.1353352832 / (1 + 2 * 0.1353352832)  # exp(-2): a Gaussian of half a frame
    torch.testing.assert_close(
        told[0, :, 0], torch.tensor([0, 0, 0, side, 1 - 2 * side, side, 0, 0, 0]), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(told[1], weights[1])
    assert model.smoothed(weights[:, :1]).shape == (2, 1, TINY.num_weights)
    learned = build(small(PRESETS["vocaset"]))
    assert learned.smoothed(weights) is weights


def test_own_phones_are_those_above_the_asked_certainty():
    model = build(TINY, lively=True).eval()
    batch = random_batch(TINY, (40,))
    ear = model.speech_content
    counts = [
        int(
            (
                ear.self_conditioned_phones(batch.speech, batch.speech_lengths, None, sure=sure) > 0
            ).sum()
        )
        for sure in (0.0, 0.05, 1.0)
    ]
    assert counts[0] >= counts[1] >= counts[2] == 0
    assert counts[0] > 0
